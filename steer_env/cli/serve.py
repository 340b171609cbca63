"""`steer-env serve`: a local page to sit in either seat and to label recorded dialogues."""

from __future__ import annotations

import ipaddress
import os
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any, Literal

from steer_env.cli.command import Command, Positional, arg
from steer_env.cli.common import claim, named, open_setting, open_student
from steer_env.configs.base import Natural, Positive, Switch, config, flat
from steer_env.configs.env import EnvConfig
from steer_env.configs.student import ModelConfig
from steer_env.extras import need
from steer_env.judges.independence import check_independent
from steer_env.play.recorded import load_run
from steer_env.report.outputs import file_name
from steer_env.versions import versions_of

#: Where the token may stand, so that it is in no list of processes.
TOKEN = "STEER_ENV_TOKEN"

_EXAMPLES = """  steer-env serve                                   http://127.0.0.1:8137
  steer-env serve runs/grpo --student runs/grpo     and label the turns of a run
  STEER_ENV_TOKEN=... steer-env serve --host 0.0.0.0
  steer-env evaluate hf:tiny-sft --scenarios runs/serve/attacks/scenarios.jsonl"""


@config(frozen=True, kw_only=True)
class Serve:
    """Open a local page: sit in either seat with pictures, label recorded turns.

    What is played goes to the run folders OUT/student and OUT/attacks, the attacks as a scenario file beside
    them, labels to OUT/labels as sheets of calibrate: evaluate, train, report, rescore and calibrate take
    them. The page has no script. It answers to this machine alone; with --host of another address it needs a
    token, in STEER_ENV_TOKEN or --token, and sends everything in the clear: put an ssh tunnel or a proxy
    with TLS before it.

    Attributes:
        runs: Run folders whose turns are labelled, as [NAME=]RUN.
        student: Whom a person attacks: scripted, shipped or another model.
        env: The dialogues; --split is train unless it is given.
        out: Folder of what is kept.
        host: Address.
        port: Port.
        token: Who has it may come in; at least 16 characters.
        seed: First seed.
        count: Units of a sheet to label.
        unit: What is labelled: whole dialogues or single turns.
        trust: Accept links that lead out of the folder.
        model: How a model of this process runs.
    """

    runs: Positional[tuple[str, ...]] = ()
    student: str = "constructive"
    env: EnvConfig = field(default_factory=EnvConfig)
    out: Path = Path("runs/serve")
    host: str = "127.0.0.1"
    port: Annotated[Natural, arg(name="port")] = 8137
    token: str | None = None
    seed: Natural = 0
    count: Positive = 50
    unit: Literal["dialogue", "turn"] = "dialogue"
    trust: Switch = False
    model: ModelConfig = field(default_factory=ModelConfig)


def is_loopback(host: str) -> bool:
    """Whether an address is reached from this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def token_of(config: Serve) -> str | None:
    """Return the token.

    Raises:
        ValueError: If the page could be reached from elsewhere without one, or it is short.
    """
    need("starlette", "serve")
    from steer_env.serve.guard import LEAST_TOKEN

    token = config.token or os.environ.get(TOKEN) or None
    if token is None and not is_loopback(config.host):
        raise ValueError(
            f"host={config.host!r} without a token would let in everybody who reaches this machine; set "
            f"{TOKEN}, or leave --host out"
        )
    if token is not None and len(token) < LEAST_TOKEN:
        raise ValueError(f"a token of {len(token)} characters, expected at least {LEAST_TOKEN}")
    return token


def house_of(config: Serve) -> Any:
    """Open everything that the page serves."""
    from steer_env.serve.app import House, sheet_path
    from steer_env.serve.labels import Sheet
    from steer_env.serve.seats import Store

    config.out.mkdir(parents=True, exist_ok=True)
    claim(config.out, config.trust)
    setting = open_setting(config.env, "train")
    student = open_student(config.student, config.model)
    check_independent(
        setting.judge, student=student, attacker=setting.attacker, allow=config.env.allow_self_judge
    )
    meta = {"command": "serve", **flat(setting.env), **versions_of(setting.judge)}
    attacker = setting.env.attacker
    store = Store(config.out, meta, student=config.student, attacker=attacker)
    sheets, metas = {}, {}
    for text in config.runs:
        name, folder = named(text)
        run = load_run(folder)
        label = file_name(name or run.name)
        if label in sheets:
            raise ValueError(f"run {label!r} is given twice, expected different names; use NAME=RUN")
        path = sheet_path(config.out, label)
        sheets[label] = Sheet.of(run.rows, path, config.count, unit=config.unit, seed=config.seed)
        metas[label] = run.meta
    names = {
        "environment": setting.env.env,
        "scenarios": config.env.scenarios or str(setting.env.split),
        "student": config.student,
        "judge": getattr(setting.judge, "name", "none"),
    }
    env = setting.make()
    source = setting.scenarios if setting.scenarios is not None else env.unwrapped.scenarios
    return House(setting.make, source, setting.attacker, student, store, sheets, metas, config.seed, names)


def run(config: Serve) -> int:
    """Serve until Ctrl-C."""
    token = token_of(config)
    uvicorn = need("uvicorn", "serve")
    from steer_env.serve.app import make_app

    house = house_of(config)
    app = make_app(house, token=token, loopback=is_loopback(config.host))
    shown = f"[{config.host}]" if ":" in config.host else config.host
    print(f"open http://{shown}:{config.port}/{'?token=...' if token else ''}   (Ctrl-C ends)")
    uvicorn.run(app, host=config.host, port=config.port, log_level="warning")
    return 0


COMMAND = Command(Serve, run, _EXAMPLES)
