"""What several commands share: environments, students, run folders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import steer_env
from steer_env.agents.base import Agent
from steer_env.cli.command import HELD, settings
from steer_env.configs.base import Switch, config
from steer_env.configs.env import EnvConfig, Split
from steer_env.configs.student import ModelConfig
from steer_env.files import read_json
from steer_env.judges.base import Judge
from steer_env.judges.independence import prompt_hash_of, weights_of
from steer_env.models import is_backend
from steer_env.models.shipped import SHIPPED, local_path
from steer_env.models.weights import folder_hash, is_complete
from steer_env.naming import EXPECTED, read_name, source_hash
from steer_env.play.places import in_process, is_own
from steer_env.registration import make_seats, make_source, own_scenarios
from steer_env.runs import RunFolder, outward_links
from steer_env.scenarios import FixedScenarios, Scenario, ScenarioSource, digest_of

#: File of a trained model that says after how many steps of its run it was saved.
STEP = "steer_env.json"
SCRIPTED_STUDENTS = ("refuse", "comply", "constructive", "text-guarded", "random")


@config(frozen=True)
class RunConfig:
    """The folder of a run. A command that writes one is a subclass.

    Attributes:
        out: Run folder.
        resume: Continue the run in --out.
        trust: Accept what the run folder says and holds, also when somebody else made it: servers and files
            that its run.json names, links that lead out of it.
    """

    out: str = "runs/run"
    resume: Switch = False
    trust: Switch = False

    def folder(self) -> Path:
        """Return the run folder."""
        return Path(self.out)

    def free(self) -> tuple[str, ...]:
        """Return the names of what may change when a run goes on."""
        return ()


def named(text: str) -> tuple[str, str]:
    """Split [NAME=]RUN into the name, "" if none is given, and the run; a folder's path may hold a "="."""
    name, _, run = ("", "", text) if Path(text).is_dir() else text.rpartition("=")
    return name, run


def claim(folder: Path, trust: bool = False) -> None:
    """Hold a folder until the command ends, so that no second process writes there.

    Raises:
        RunBusy: If another process holds it.
        ValueError: If links in it lead elsewhere and those are not trusted.
    """
    HELD.enter_context(RunFolder(folder).lock())
    links = [] if trust else outward_links(folder)
    if links:
        raise ValueError(
            f"{str(links[0])!r} is a link that leads out of the folder, and this command would write there; "
            "remove it, or accept such links with --trust"
        )


def open_folder(run: RunConfig) -> Path:
    """Hold the folder of a run, see `claim`, and return it.

    Raises:
        RunExists: If it holds a run that is not to be resumed.
    """
    folder = run.folder()
    claim(folder, run.trust)
    RunFolder(folder).check(resume=run.resume)
    return folder


@dataclass(frozen=True)
class Setting:
    """The dialogues a command plays.

    Attributes:
        env: The environment.
        scenarios: The user's own where they are a list, else None.
        source: Where the user's own come from, None for the built-in world.
        attacker: Who plays the user.
        judge: Who scores; the attacker itself if it was asked for as "tutor".
        digest: Hash of the scenarios' ids and contents, "" for the built-in world and an endless source.
    """

    env: EnvConfig
    scenarios: Sequence[Scenario] | None
    source: ScenarioSource | None
    attacker: Agent
    judge: Judge | None
    digest: str

    def make(self, num_envs: int | None = None, **options: Any) -> Any:
        """Return the environment, or a vector of such; further options as `steer_env.make`."""
        given: dict[str, Any] = {"scenarios": self.source, "judge": self.judge, **options}
        if num_envs is None:
            return steer_env.make(self.env, **given)
        return steer_env.make_vec(self.env, num_envs, **given)


def open_setting(env: EnvConfig, split: Split) -> Setting:
    """Open what is named; `split` is taken where none is.

    Raises:
        ValueError: If an id, a split or a name is unknown, or the scenario file has problems.
        BackendError: If a model cannot be opened, or a server cannot answer.
    """
    source = None
    digest = ""
    if own_scenarios(env) is not None:
        if env.split is not None:
            raise ValueError(
                f"split={env.split!r} chooses within the built-in world; leave --split out beside --scenarios"
            )
        source = make_source(env)
    else:
        env = replace(env, split=env.split or split)
    scenarios = tuple(source) if isinstance(source, FixedScenarios) else None
    if scenarios is not None:
        digest = digest_of(scenarios)
    id = steer_env.spec(env.env).id
    attacker, judge = make_seats(id, env.attacker, env.judge)
    return Setting(replace(env, env=id), scenarios, source, attacker, judge, digest)


#: What `judge_content` may say.
_JUDGE = ("judge_prompt", "judge_weights")


def judge_content(judge: Any) -> dict[str, str]:
    """Return what identifies a judge beside its name: hashes of its prompts and weights, if it has any."""
    found = {"judge_prompt": prompt_hash_of(judge), "judge_weights": "+".join(weights_of(judge))}
    return {key: value for key, value in found.items() if value}


def run_meta(
    command: str, run: RunConfig, content: Mapping[str, Any], *, free: bool = True
) -> dict[str, Any]:
    """Return what `run.json` says: the command, its config, and hashes of what that names."""
    return {"command": command, **settings(run, free=free), **content}


def check_unchanged(run_dir: Path, **now: str) -> None:
    """Refuse to go on with a run whose scenarios or model are no longer what they were.

    Raises:
        RunExists: If `run.json` holds another value of one of the keys.
    """
    run = RunFolder(run_dir)
    judged = {key: None for key in _JUDGE if key in run.stored()}
    run.check({**judged, **now}, resume=True)


def model_hash(name: str) -> str:
    """Return a hash that tells one student from a retrained one, "" if its weights are in no folder here.

    Of your own it is that of the file it is written in.
    """
    if is_own(name):
        return source_hash(name)
    scheme, rest = in_process(name)
    path = local_path(rest)
    if name in SCRIPTED_STUDENTS or not path.is_dir():
        return ""
    return folder_hash(path if scheme else _model_folder(path))


def open_student(name: str, model: ModelConfig | None = None, **options: Any) -> Agent:
    """Return a student by name.

    Args:
        name: A scripted one, a shipped one, a model folder, a run folder (its last checkpoint), or a model
            such as `hf:ID` or `openai:MODEL@URL`.
        model: How it runs.
        **options: temperature, max_new_tokens, seed, system; None means the default. They have no meaning for
            scripted students and your own.

    Raises:
        ValueError: If it is none of these.
        BackendError: If a server cannot answer.
        ImportError: If a model is asked for and torch is not installed.
    """
    if name in SCRIPTED_STUDENTS or is_own(name):
        return steer_env.make_agent(name)
    given = {k: v for k, v in {**asdict(model or ModelConfig()), **options}.items() if v is not None}
    if not is_backend(name):
        return _load_model(str(_model_folder(local_path(name))), given)
    if name.startswith("hf:") and "device" not in read_name(name)[1]:
        given.setdefault("device", best_device())
    return steer_env.make_agent(name, **given)


def _model_folder(path: Path) -> Path:
    if is_complete(path):
        return path
    model = path / "model"
    saved = [folder for folder in sorted((path / "checkpoints").glob("step_*")) if is_complete(folder)]
    if is_complete(model) and (not saved or _is_newest(model, saved[-1])):
        return model
    if saved:
        return saved[-1]
    what = "a folder without a whole model or checkpoint" if path.is_dir() else "no folder and no known name"
    names = ", ".join((*SCRIPTED_STUDENTS, *SHIPPED))
    raise ValueError(
        f"student={str(path)!r} is {what}, expected one of {names}, a folder saved with save_pretrained, a "
        f"run folder of steer-env, hf:ORGANISATION/MODEL, vllm:PATH, openai:MODEL@URL or {EXPECTED}"
    )


def _is_newest(model: Path, checkpoint: Path) -> bool:
    """Whether the model at the end of a run is at least as new as its newest checkpoint."""
    if (model / STEP).is_file():
        return int(read_json(model / STEP)["step"]) >= step_of(checkpoint)
    return model.stat().st_mtime >= checkpoint.stat().st_mtime  # saved by something else


def step_of(checkpoint: Path) -> int:
    """Return the number of finished steps in the name of a checkpoint."""
    return int(checkpoint.name.removeprefix("step_"))


def best_device() -> str:
    """Return "cuda" if there is one, else "cpu"."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _load_model(path: str, options: dict[str, Any]) -> Agent:
    from steer_env.agents import HFStudent
    from steer_env.models.hf import as_dtype

    options.setdefault("device", best_device())
    options["dtype"] = as_dtype(options.get("dtype"))
    student: Agent = HFStudent.from_pretrained(path, **options)
    return student
