"""The tiny base: phases of supervised training, each with a gate of held-out questions behind it.

A base that cannot see is the one thing that nothing after it can repair, and its loss does not show it. So
after every phase the student is asked about held-out pictures (`sight`). A phase that fails its gate is
extended. What it still misses is on record, and the next phase repairs it or does not: the last gate has to
be passed. Only a blind base stops at once. The vision tower learns in the captions and is frozen afterwards:
trained on at the rate of the dialogues it forgets within a hundred steps.

A phase checkpoints itself; a killed run goes on with the weights it would have had in one go.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Final

from steer_env.agents.hf.student import HFStudent, sampling
from steer_env.algorithms import sft
from steer_env.algorithms.base import Progress
from steer_env.algorithms.checkpoints import load_weights
from steer_env.algorithms.monitor import METRICS
from steer_env.algorithms.sight import memory, sight
from steer_env.configs.sft import Phase, SFTConfig
from steer_env.files import write_json
from steer_env.records import Row

#: What happened, in the run folder: "phases" has one entry per training.
GATES: Final = "gates.json"
#: Below this share of marks told right a base is blind, where its gate asks for marks. A blind one told
#: 29 %, by saying the same of every picture; one that told 48 % was put right by an extension, another with
#: 52 % by the phase after.
BLIND: Final = 0.4
#: Tokens of a reply about a picture; the longest description has about 30.
_REPLY_TOKENS: Final = 40

#: Makes the data of a phase: its name, the number of examples, and how often it was extended.
MakeData = Callable[[str, int, int], Sequence[sft.Dialogue]]


class GateFailed(RuntimeError):
    """A base ended without what its last gate asks for, or went blind on the way."""


def missed(folder: str | Path) -> list[str]:
    """Return what phases lacked after their last extension, "phase: what", from the folder of `pretrain`."""
    last = {entry["phase"]: entry["missing"] for entry in _read(Path(folder) / GATES)}
    return [f"{phase}: {what}" for phase, missing in last.items() for what in missing]


def pretrain(
    student: HFStudent,
    phases: Sequence[Phase],
    data: MakeData,
    folder: str | Path,
    seed: int = 0,
    progress: Progress | None = None,
    *,
    strict: bool = True,
) -> list[Row]:
    """Train `student` in place through all phases, going on with what `folder` holds of them.

    Args:
        student: As it is before the first phase, also when going on.
        phases: In order.
        data: Makes a phase's examples.
        folder: Gets `gates.json` and a folder per phase with metrics and, while it runs, its state.
        seed: Decides the order of examples.
        progress: Called after every step.
        strict: False for a base that goes on whatever it misses; see `missed`.

    Returns:
        One entry per training: phase, extension, steps, what was seen, what was missing.

    Raises:
        GateFailed: If after its last extension the last phase fails its gate, or an earlier one is blind (see
            `BLIND`); the message has the numbers. Whatever else an earlier phase misses is in its entry.
    """
    folder = Path(folder)
    done: list[Row] = _read(folder / GATES)
    total, finished = sum(phase.settings.steps for phase in phases), 0
    entries: list[Row] = []
    for phase in phases:
        missing: list[str] = []
        for extension in range(phase.extensions + 1):
            settings = _settings(phase, extension, seed)
            total += settings.steps if extension else 0
            place = folder / (f"{phase.name}-{extension + 1}" if extension else phase.name)
            if len(entries) < len(done):
                entry = done[len(entries)]
                if len(entries) + 1 == len(done):
                    load_weights(place / "model", student.model)
                    student.weights_changed()
            else:
                examples = data(phase.name, settings.steps * settings.batch_size, extension)
                _train(student, phase, settings, examples, place, _counted(progress, finished, total))
                entry = _look(student, phase, extension, settings.steps)
                student.save(place / "model")
                write_json(folder / GATES, {"phases": [*entries, entry]})
                (place / sft.STATE).unlink(missing_ok=True)
            finished += settings.steps
            entries.append(entry)
            missing = entry["missing"]
            if not missing:
                break
        blind = phase.gate.mark > 0 and entries[-1]["seen"]["mark"] < BLIND
        if strict and missing and (blind or phase is phases[-1]):
            raise GateFailed(
                f"phase={phase.name!r} ended with {'; '.join(missing)} on {phase.gate.count} held-out "
                f"examples after {phase.extensions} extensions; train it longer or with another seed, in a "
                "new folder"
            )
    return entries


@contextmanager
def frozen_vision(student: HFStudent, frozen: bool = True) -> Iterator[None]:
    """Take the vision tower out of training for the time of a block."""
    before = [(p, p.requires_grad) for p in student.decoder.adapter.vision.parameters()]
    for parameter, _ in before:
        parameter.requires_grad_(not frozen)
    try:
        yield
    finally:
        for parameter, learns in before:
            parameter.requires_grad_(learns)


def _train(
    student: HFStudent,
    phase: Phase,
    settings: SFTConfig,
    examples: Sequence[sft.Dialogue],
    place: Path,
    progress: Progress | None,
) -> None:
    resume = (place / METRICS).exists()
    with frozen_vision(student, not phase.sees):
        sft.train(student, examples, settings, run_dir=place, resume=resume, progress=progress)


def _look(student: HFStudent, phase: Phase, extension: int, steps: int) -> Row:
    with sampling(student, temperature=0.0, max_new_tokens=_REPLY_TOKENS):
        seen = sight(student, phase.gate.count, ask=phase.gate.ask)
        if phase.gate.purpose or phase.gate.asked or phase.gate.weighed:
            seen |= memory(student, phase.gate.count)
    student.weights_changed()
    return {
        "phase": phase.name,
        "extension": extension,
        "steps": steps,
        "seen": seen,
        "gate": asdict(phase.gate),
        "missing": phase.gate.short_of(seen),
    }


def _settings(phase: Phase, extension: int, seed: int) -> SFTConfig:
    if not extension:
        return replace(phase.settings, seed=seed)
    steps = max(1, round(phase.extension * phase.settings.steps))
    return replace(phase.settings, seed=seed + 1000 * extension, steps=steps)


def _counted(progress: Progress | None, before: int, total: int) -> Progress | None:
    if progress is None:
        return None
    return lambda step, _, row: progress(before + step, total, row)


def _read(path: Path) -> list[Row]:
    if not path.exists():
        return []
    phases: list[Row] = json.loads(path.read_text(encoding="utf-8"))["phases"]
    return phases
