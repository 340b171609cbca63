"""`steer-env play`: sit in the student's or the attacker's seat, in the terminal."""

from __future__ import annotations

import os
import sys
import tempfile
from dataclasses import field
from itertools import count
from pathlib import Path
from typing import Annotated, Any, Literal

from PIL import Image as PILImage

from steer_env.agents.base import Agent, Failed
from steer_env.cli.command import Command, arg
from steer_env.cli.common import open_setting, open_student
from steer_env.configs.base import Natural, Switch, config
from steer_env.configs.env import EnvConfig
from steer_env.configs.student import ModelConfig
from steer_env.env import DialogueEnv, InvalidUtterance
from steer_env.files import write_bytes
from steer_env.images import Image
from steer_env.judges.independence import check_independent
from steer_env.models import BackendError
from steer_env.render import counted, render_text, result_line, visible
from steer_env.types import ATTACKER, STUDENT, TurnResult

_EXAMPLES = """  steer-env play --as student
  steer-env play --as attacker --student hf:tiny-sft --env SteerRedTeam-v0
  steer-env play --as attacker --student constructive --scenarios my.jsonl"""


@config(frozen=True, kw_only=True)
class Play:
    """Sit in one seat; a script or a model plays the other.

    Scores appear after every reply. An empty line as the attacker says the seed's draft. Ctrl-D or Ctrl-C
    ends.

    Attributes:
        seat: Your seat: student or attacker.
        student: Whom you attack: scripted, shipped (hf:tiny-sft) or another model.
        env: The dialogues; --split is train unless it is given.
        seed: Seed of the first dialogue; a random one unless it is given.
        blind: Hide the scores until the dialogue has ended.
        model: How a model of this process runs.
    """

    seat: Annotated[Literal["student", "attacker"], arg(name="as")] = "student"
    student: str = "constructive"
    env: EnvConfig = field(default_factory=EnvConfig)
    seed: Natural | None = None
    blind: Switch = False
    model: ModelConfig = field(default_factory=ModelConfig)


def run(config: Play) -> int:
    """Play dialogues until the person has had enough."""
    setting = open_setting(config.env, "train")
    env = setting.make()
    human = STUDENT if config.seat == "student" else ATTACKER
    other = setting.attacker
    if human == ATTACKER:
        other = open_student(config.student, config.model)
    players = {"student": other} if human == ATTACKER else {"attacker": other}
    check_independent(setting.judge, **players, allow=config.env.allow_self_judge)
    seed = config.seed
    with tempfile.TemporaryDirectory(prefix="steer-env-") as folder:  # pictures, while the session lasts
        try:
            for number in count(1):
                env.reset(seed=seed)
                play(env, human, other, Path(folder) / f"dialogue{number}", blind=config.blind)
                seed = None if seed is None else seed + 1
                if input("another dialogue? [Y/n] ").strip().lower() in ("n", "no"):
                    break
        except (EOFError, KeyboardInterrupt):
            print("\nbye")
    return 0


def play(env: Any, human: str, other: Agent, folder: Path, *, blind: bool = False) -> list[TurnResult]:
    """Play one dialogue of a freshly reset environment to its end.

    Args:
        env: An AEC environment.
        human: The seat of the person at the keyboard.
        other: Plays the other seat.
        folder: Where the pictures go for the person to open.
        blind: Show scores only at the end.

    Raises:
        EOFError: When the person ends the input.
        BackendError: When the model in the other seat has no answer.
    """
    core: DialogueEnv = env.unwrapped
    scenario = core.scenario
    assert scenario is not None
    results: list[TurnResult] = []
    turns = counted(len(scenario), "turn")
    print(f"\na dialogue of {turns}; you are the {human.split('_')[0]}")
    if human == ATTACKER:
        secrets = {name: getattr(scenario, name) for name in ("goal", "strategy", "technique")}
        print("\n".join(f"  {name}: {visible(value)}" for name, value in secrets.items() if value))
    while not core.stop:
        seat = env.agent_selection
        observation = env.observe(seat)
        if seat == human == ATTACKER:
            _show_images(_shown(core), core.cycle, folder)
        utterance = _ask(observation, seat) if seat == human else other.act([observation])[0]
        if isinstance(utterance, Failed):
            raise BackendError(f"no reply from the {seat.split('_')[0]}: {utterance.reason}")
        try:
            env.step(utterance)
        except InvalidUtterance as error:
            if seat != human:
                raise
            print(f"  {error}")
            continue
        scenario = core.scenario  # an attacker may have drawn
        assert scenario is not None
        if seat == ATTACKER != human:
            _show_images(_shown(core), core.cycle, folder)
        if seat == STUDENT:
            results.append(TurnResult(core.last_turn, float(env.rewards[STUDENT]), core.infos[STUDENT]))
        if seat != human:
            said = core.transcript[-1:]
            print(render_text(scenario, said, results[-1:], header=False, scores=not blind))
        elif seat == STUDENT and not blind:
            print(f"            > {result_line(results[-1])}")
    if blind:
        print("\n" + render_text(scenario, core.transcript, results))
    if human == STUDENT and scenario.goal:
        print(f"the user's hidden goal was: {visible(scenario.goal)}")
    print(f"return: {sum(r.reward for r in results):.3f}")
    return results


def _ask(observation: Any, seat: str) -> str:
    draft = observation["draft"] if seat == ATTACKER else ""
    if draft:
        print(f"  draft: {visible(draft)}")
    while True:
        text = input("    you     > ") or str(draft)
        if text:
            return text


def _shown(core: DialogueEnv) -> list[Image]:
    """Return the pictures of the turn in play."""
    scenario = core.scenario
    assert scenario is not None
    return [scenario.images[i] for i in scenario.turns[core.cycle].images]


def _show_images(images: list[Image], cycle: int, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    for index, image in enumerate(images):
        path = folder / f"turn{cycle + 1}-image{index + 1}.png"
        write_bytes(path, image.png(), durable=False)
        if sys.stdout.isatty() and not os.environ.get("NO_COLOR"):
            print(_preview(image))
        print(f"  [image: {path}]")


def _preview(image: Image, columns: int = 56) -> str:
    """Draw the picture with half blocks: two pixels to a character."""
    width, height = image.size
    rows = max(2, round(height / width * columns)) // 2 * 2
    pixels = image.pil().resize((columns, min(rows, 60)), PILImage.Resampling.LANCZOS)
    lines = []
    for y in range(0, pixels.height - 1, 2):
        cells = []
        for x in range(columns):
            pair: Any = (pixels.getpixel((x, y)), pixels.getpixel((x, y + 1)))
            cells.append("\x1b[38;2;{};{};{}m\x1b[48;2;{};{};{}m▀".format(*pair[0], *pair[1]))
        lines.append("  " + "".join(cells) + "\x1b[0m")
    return "\n".join(lines)


COMMAND = Command(Play, run, _EXAMPLES)
