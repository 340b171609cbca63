"""`steer-env data bootstrap`: make the training data of Stage II and say what was left out, and why."""

from __future__ import annotations

from dataclasses import asdict, field, replace
from pathlib import Path
from typing import Any

from steer_env.agents import make_agent
from steer_env.agents.base import Agent
from steer_env.cli.command import Command
from steer_env.cli.common import (
    SCRIPTED_STUDENTS,
    RunConfig,
    check_unchanged,
    judge_content,
    model_hash,
    open_folder,
    open_setting,
    open_student,
    run_meta,
)
from steer_env.cli.progress import Bar
from steer_env.configs.base import config
from steer_env.configs.env import EnvConfig
from steer_env.configs.student import ModelConfig, SamplingConfig
from steer_env.data.bootstrap import (
    EPISODES,
    GUIDELINES,
    KEPT,
    BootstrapConfig,
    Guided,
    bootstrap,
    guidelines_hash,
    table,
)
from steer_env.data.licences import check_training_allowed
from steer_env.judges.independence import check_independent
from steer_env.records import REJECTED
from steer_env.runs import RunFolder

_EXAMPLES = """  steer-env data bootstrap --out boot --attacker tutor --student constructive --episodes 1000
  steer-env data bootstrap --out boot --scenarios my.jsonl --student hf:path/to/model --max-new-tokens 256
  steer-env data bootstrap --out boot --resume
then: steer-env sft --student path/to/model --data boot --out runs/sft"""

#: Backends whose students take a system prompt of their own.
_SYSTEM = ("openai:",)


@config(frozen=True, kw_only=True)
class Bootstrap(RunConfig):
    """Stage II: attacker and student talk, the judge scores, good dialogues are kept.

    An attacker rewrites each turn of a seed, a student answers under guidelines, the reward judge scores
    every turn. Kept if no turn is less safe than --tau-safe and the mean usefulness is at least --tau-help.
    Writes sft/steer_sft.jsonl with images/, rejected.jsonl and summary.json.

    Attributes:
        out: Folder.
        student: Who answers: constructive or another script, or a model.
        env: The dialogues; --split is sft unless it is given.
        keep: What is played and kept.
        guidelines: File with what a model is told that answers; a built-in text unless it is given.
        allow_licence: Use scenarios although a licence forbids training; names a gate or a dataset.
        sampling: How a model replies.
        model: How a model of this process runs.
    """

    out: str = "boot"
    student: str = "constructive"
    env: EnvConfig = field(default_factory=lambda: EnvConfig(attacker="tutor"))
    keep: BootstrapConfig = field(default_factory=BootstrapConfig)
    guidelines: str | None = None
    allow_licence: tuple[str, ...] = ()
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    model: ModelConfig = field(default_factory=ModelConfig)

    def free(self) -> tuple[str, ...]:
        """Return the names of what may change when the run goes on."""
        return ("allow_licence", "device", "batch_size")


def run(config: Bootstrap) -> int:
    """Play, filter, and print the table."""
    if (system := config.sampling.system) is not None:
        raise ValueError(f"system={system!r}, expected --guidelines FILE, which is the system prompt here")
    out = open_folder(config)
    setting = open_setting(replace(config.env, attacker="static"), "sft")
    if setting.scenarios is not None:
        check_training_allowed(setting.scenarios, allow=config.allow_licence)
    episodes = config.keep.episodes or (EPISODES if setting.scenarios is None else len(setting.scenarios))
    keep = replace(config.keep, episodes=episodes)
    guidelines = GUIDELINES if config.guidelines is None else _read(Path(config.guidelines))
    content = {
        "scenario_hash": setting.digest,
        "model_hash": model_hash(config.student),
        "guidelines_hash": guidelines_hash(guidelines),
        **judge_content(setting.judge),
    }
    check_unchanged(out, **content)
    names = {"attacker": config.env.attacker or "tutor", "student": config.student}
    attacker = open_attacker(names["attacker"], keep.seed)
    options = {"seed": keep.seed, **asdict(config.sampling)}
    del options["system"]  # the guidelines'
    student = open_guided(config.student, guidelines, config.model, **options)
    check_independent(setting.judge, student, attacker, allow=config.env.allow_self_judge)
    vec = setting.make(min(keep.chunk, episodes), wrappers=())
    RunFolder(out).write(run_meta("data bootstrap", config, content))
    names["judge"] = str(config.env.judge)
    with Bar("bootstrap", episodes) as bar:
        # `open_folder` has refused a folder that holds rows.
        summary = bootstrap(
            out,
            vec,
            attacker,
            student,
            keep,
            resume=True,
            scenarios=setting.scenarios,
            agents=names,
            progress=bar.update,
        )
    print(table(summary))
    print(f"kept: {out / KEPT}\nrejected, with reasons: {out / REJECTED}")
    if summary["all"]["kept"]:
        print(f"next: steer-env sft --student MODEL --data {out}")
    return 0


def open_attacker(name: str, seed: int) -> Agent:
    """Return an attacker by name; one with a memory is opened without it, so that order does not matter."""
    if name == "tutor":
        return make_agent("tutor", seed=seed, memory=False)
    if name == "learning":
        raise ValueError(
            f"attacker={name!r} has nobody to learn from here, expected static, tutor or a model"
        )
    if name in SCRIPTED_STUDENTS:
        raise ValueError(
            f"attacker={name!r} plays the student, expected an attacker, such as static or tutor"
        )
    if ":" in name:
        from steer_env.agents.llm_tutor import LLMTutor
        from steer_env.models import open_backend

        return LLMTutor(open_backend(name))
    return make_agent(name)


def open_guided(name: str, guidelines: str, model: ModelConfig | None = None, **options: Any) -> Agent:
    """Return a student by name.

    A model behind a server gets the guidelines as its system prompt; one in process, whose template need not
    have one, in front of the user's first words. A scripted student follows its own rules.
    """
    if name in SCRIPTED_STUDENTS:
        return make_agent(name, **({"seed": options["seed"]} if name != "refuse" else {}))
    if not name.startswith(_SYSTEM):
        return Guided(open_student(name, model, **options), guidelines)
    try:
        return open_student(name, model, system=guidelines, **options)
    except TypeError as error:
        if "system" not in str(error):
            raise
        raise ValueError(
            f"student={name!r} takes no system prompt, expected a student that does: {error}"
        ) from error


def _read(path: Path) -> str:
    text = path.read_text(encoding="utf-8")
    if not text.strip():
        raise ValueError(f"guidelines={str(path)!r} is blank, expected what the student is to be told")
    return text


COMMAND = Command(Bootstrap, run, _EXAMPLES)
