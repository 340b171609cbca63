"""What several commands share: options, environments, students, run folders."""

from __future__ import annotations

import argparse
import hashlib
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import steer_env
from steer_env.agents.base import Agent
from steer_env.files import read_json
from steer_env.judges.base import Judge
from steer_env.judges.independence import ROLES
from steer_env.judges.parts import prompt_hash_of, weights_of
from steer_env.models import is_backend, read_name
from steer_env.models.shipped import SHIPPED, local_path
from steer_env.models.weights import folder_hash, is_complete
from steer_env.registration import make_seats
from steer_env.runs import RUN, RunFolder, outward_links
from steer_env.scenarios import Scenario, content_id

#: File of a trained model that says after how many steps of its run it was saved.
STEP = "steer_env.json"
SCRIPTED_STUDENTS = ("refuse", "comply", "constructive", "random")
ATTACKERS = ("static", "tutor", "learning")


def command(
    commands: Any, name: str, summary: str, example: str, run: Any, description: str = ""
) -> argparse.ArgumentParser:
    """Add a command with an example under its help."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description=description or f"{summary[0].upper()}{summary[1:]}.",
        epilog=f"examples:\n{example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    return parser


def add_env_options(parser: argparse.ArgumentParser, split: str) -> None:
    """Add the options that choose the dialogues. Defaults are None, see `settle`."""
    group = parser.add_argument_group("dialogues")
    group.add_argument(
        "--env", metavar="ID", help="environment id (default: SteerEscalation-v0; list: steer-env envs)"
    )
    group.add_argument(
        "--split", help=f"of the built-in world: train, sft, bench, ood, pretrain (default: {split})"
    )
    group.add_argument(
        "--scenarios", metavar="FILE", help="your own scenarios, JSON Lines; replaces the built-in world"
    )
    group.add_argument(
        "--attacker",
        type=attacker,
        metavar="NAME",
        help="who plays the user: static, tutor, learning (in train, a tutor that learns what breaks the "
        "student; elsewhere it tries everything), or a model as tutor (hf:PATH, vllm:PATH, "
        "openai:MODEL@URL; default: the environment's own)",
    )
    group.add_argument(
        "--judge",
        metavar="NAME",
        help="who scores: rule, a model (hf:PATH, vllm:PATH, openai:MODEL@URL), judges made of judges "
        "(docs/judges.md), or tutor: the model that plays the user, in the same call (default: rule)",
    )
    group.add_argument(
        "--allow-self-judge",
        metavar="ROLE",
        action="append",
        choices=ROLES,
        help="let the judge have the weights of the student or the attacker; may be repeated",
    )


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of students on transformers models."""
    group = parser.add_argument_group(
        "model",
        "of a student in this process; those of others stand in their names: hf:PATH?device=cpu",
    )
    group.add_argument("--device", help="where it runs, such as cpu or cuda (default: cuda if there is one)")
    group.add_argument(
        "--dtype", help="of its weights: float32, bfloat16, ... (default: as saved; train: float32)"
    )
    group.add_argument("--batch-size", type=positive, help="dialogues per forward pass (default: 64)")


def positive(text: str) -> int:
    """Parse a positive integer for argparse."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text}, expected a positive integer")
    return value


def attacker(text: str) -> str:
    """Check the name of an attacker for argparse."""
    if text not in ATTACKERS and not is_backend(text):
        raise argparse.ArgumentTypeError(
            f"{text!r}, expected one of {', '.join(ATTACKERS)}, hf:PATH, vllm:PATH or openai:MODEL@URL"
        )
    return text


def natural(text: str) -> int:
    """Parse a non-negative integer for argparse."""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text}, expected 0 or a positive integer")
    return value


def add_trust(parser: argparse.ArgumentParser) -> None:
    """Add `--trust`."""
    parser.add_argument(
        "--trust",
        action="store_true",
        help="accept what the run folder says and holds, of another's making too: servers and files that its "
        "run.json names, links that lead out of it",
    )


def _reaches_out(name: Any) -> bool:
    """Whether opening a name contacts a server or writes a file: a back end but our own, or a cache."""
    text = str(name) if isinstance(name, str) else ""
    return "cached(" in text or any(
        is_backend(word) and not word.startswith(("hf:", "vllm:")) for word in re.split(r"[\s(),]+", text)
    )


def _check_trusted(args: argparse.Namespace, stored: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Refuse to contact a server, with our key, because a folder says so.

    Raises:
        ValueError: If a stored name would, and it was neither given again nor `--trust`.
    """
    if getattr(args, "trust", False):
        return
    for option, name in stored.items():
        if option not in given and _reaches_out(name):
            raise ValueError(
                f"{option}={name!r} comes from {RUN} of the run folder, and opening it would send this run's "
                f"data and a key of yours there, or write a file; repeat --{option.replace('_', '-')} to "
                "confirm it, or accept what the folder says with --trust"
            )


def claim(args: argparse.Namespace, folder: Path) -> None:
    """Hold a folder until the command ends, so that no second process writes there.

    Raises:
        RunBusy: If another process holds it.
        ValueError: If links in it lead elsewhere and `--trust` was not given.
    """
    held = getattr(args, "held", None)
    if held is not None:
        held.enter_context(RunFolder(folder).lock())
    links = [] if getattr(args, "trust", False) else outward_links(folder)
    if links:
        raise ValueError(
            f"{str(links[0])!r} is a link that leads out of the folder, and this command would write there; "
            "remove it, or accept such links with --trust"
        )


def settle(
    args: argparse.Namespace,
    defaults: Mapping[str, Any],
    run_dir: Path,
    *,
    free: Collection[str] = (),
    unset: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Decide every option: as given, else as in the run that is resumed, else the default.

    The folder is held from here on, see `claim`.

    Args:
        args: What was given.
        defaults: The options that are part of a run, with their defaults.
        run_dir: The folder.
        free: Options that may change on resume.
        unset: What an option stands for that was not given in the stored run.

    Raises:
        RunExists: If the folder holds a run and `--resume` was not given, or an option contradicts it.
    """
    claim(args, run_dir)
    run = RunFolder(run_dir)
    given = {name: getattr(args, name) for name in defaults if getattr(args, name, None) is not None}
    run.check(resume=args.resume)
    stored = run.stored()
    then = {name: (unset or {}).get(name) if value is None else value for name, value in stored.items()}
    run.check({k: v for k, v in given.items() if k in stored}, resume=True, free=free, stored=then)
    _check_trusted(args, {name: stored[name] for name in defaults if name in stored}, given)
    return {name: given.get(name, stored.get(name, default)) for name, default in defaults.items()}


@dataclass(frozen=True)
class Setting:
    """The dialogues a command plays.

    Attributes:
        env_id: Environment id.
        options: Options of `steer_env.make`.
        scenarios: The user's own, None for the built-in world.
        attacker: Who plays the user.
        judge: Who scores; the attacker itself if it was asked for as "tutor".
        digest: Hash of the scenarios' ids and contents, "" for the built-in world.
    """

    env_id: str
    options: dict[str, Any]
    scenarios: Sequence[Scenario] | None
    attacker: Agent
    judge: Judge | None
    digest: str


def open_setting(chosen: Mapping[str, Any], split: str, **options: Any) -> Setting:
    """Open what `--env`, `--split`, `--scenarios`, `--attacker` and `--judge` ask for.

    Raises:
        ValueError: If an id, a split, a name or the scenario file is no good.
        BackendError: If a model cannot be opened, or a server cannot answer.
    """
    env_id = steer_env.spec(chosen["env"]).id
    scenarios = None
    digest = ""
    if chosen["scenarios"] is not None:
        if chosen["split"] is not None:
            raise ValueError(
                f"split={chosen['split']!r} chooses within the built-in world; leave --split out beside "
                "--scenarios"
            )
        scenarios = steer_env.load_scenarios(chosen["scenarios"])
        options["scenarios"] = scenarios
        contents = "\n".join(f"{s.id} {content_id(s)}" for s in scenarios)
        digest = hashlib.sha256(contents.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    else:
        options["split"] = chosen["split"] or split
    attacker, judge = make_seats(env_id, chosen["attacker"], chosen.get("judge") or "rule")
    options["judge"] = judge
    return Setting(env_id, options, scenarios, attacker, judge, digest)


#: What `judge_content` may say.
_JUDGE = ("judge_prompt", "judge_weights")


def judge_content(judge: Any) -> dict[str, str]:
    """Return what identifies a judge beside its name: hashes of its prompts and weights, if it has any."""
    found = {"judge_prompt": prompt_hash_of(judge), "judge_weights": "+".join(weights_of(judge))}
    return {key: value for key, value in found.items() if value}


def check_unchanged(run_dir: Path, **now: str) -> None:
    """Refuse to go on with a run whose scenarios or model are no longer what they were.

    Raises:
        RunExists: If `run.json` holds another value of one of the keys.
    """
    run = RunFolder(run_dir)
    judged = {key: None for key in _JUDGE if key in run.stored()}
    run.check({**judged, **now}, resume=True)


def model_hash(name: str) -> str:
    """Return a hash that tells one student from a retrained one, "" where there is no folder to look at."""
    scheme, rest = _in_process(name)
    path = local_path(rest)
    if name in SCRIPTED_STUDENTS or not path.is_dir():
        return ""
    return folder_hash(path if scheme else _model_folder(path))


def _in_process(name: str) -> tuple[str, str]:
    """Split the name of a model in this process into scheme ("" for a plain folder) and path."""
    for scheme in ("hf", "vllm"):
        if name.startswith(f"{scheme}:"):
            return scheme, read_name(name)[0].removeprefix(f"{scheme}:")
    return "", name


def open_student(name: str, **options: Any) -> Agent:
    """Return a student by name.

    Args:
        name: A scripted one, a shipped one, a model folder, a run folder (its last checkpoint), or a model
            such as `hf:ID` or `openai:MODEL@URL`.
        **options: device, dtype, batch_size, temperature, max_new_tokens, seed; None means the default. They
            have no meaning for scripted students.

    Raises:
        ValueError: If it is none of these.
        BackendError: If a server cannot answer.
        ImportError: If a model is asked for and torch is not installed.
    """
    if name in SCRIPTED_STUDENTS:
        return steer_env.make_agent(name)
    given = {key: value for key, value in options.items() if value is not None}
    if not is_backend(name):
        return _load_model(str(_model_folder(local_path(name))), given)
    if name.startswith("hf:") and "device" not in read_name(name)[1]:
        given.setdefault("device", _best_device())
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
        "run folder of steer-env, hf:ORGANISATION/MODEL, vllm:PATH or openai:MODEL@URL"
    )


def _is_newest(model: Path, checkpoint: Path) -> bool:
    """Whether the model at the end of a run is at least as new as its newest checkpoint."""
    if (model / STEP).is_file():
        return int(read_json(model / STEP)["step"]) >= step_of(checkpoint)
    return model.stat().st_mtime >= checkpoint.stat().st_mtime  # saved by something else


def step_of(checkpoint: Path) -> int:
    """Return the number of finished steps in the name of a checkpoint."""
    return int(checkpoint.name.removeprefix("step_"))


def _best_device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _load_model(path: str, options: dict[str, Any]) -> Agent:
    from steer_env.agents import HFStudent
    from steer_env.models.hf import as_dtype

    options.setdefault("device", _best_device())
    options["dtype"] = as_dtype(options.get("dtype"))
    student: Agent = HFStudent.from_pretrained(path, **options)
    return student
