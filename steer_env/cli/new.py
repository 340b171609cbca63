"""`steer-env new`: a small package of your own, with tests, to begin from."""

from __future__ import annotations

import keyword
import os
from importlib.util import find_spec
from pathlib import Path
from string import Template
from typing import Literal

from steer_env.cli.command import Command, Positional
from steer_env.configs.base import config
from steer_env.files import write_text

_EXAMPLES = """  steer-env new judge my_judge
  steer-env new env my_env --out packages"""

#: Kind -> what it is, and how it is used.
_KINDS = {
    "env": ("An environment of your own", "steer-env evaluate constructive --env $title-v0"),
    "judge": ("A judge of your own", "steer-env evaluate constructive --judge $name:Judge"),
    "attacker": ("An attacker of your own", "steer-env evaluate constructive --attacker $name:Attacker"),
    "algorithm": ("A learning algorithm of your own", "steer-env train --algorithm $name:Learner"),
}
_PLUGINS = """
[project.entry-points."steer_env.plugins"]
$name = "$name:register"
"""


@config(frozen=True, kw_only=True)
class New:
    """Write a small package with a working part of your own and its tests.

    Attributes:
        kind: What it is to hold.
        name: Name of the package, a Python identifier.
        out: Folder that the package's folder is made in.
    """

    kind: Positional[Literal["env", "judge", "attacker", "algorithm"]]
    name: Positional[str]
    out: Path = Path()

    def __post_init__(self) -> None:
        word = self.name.isascii() and self.name.isidentifier() and self.name.islower()
        if not word or keyword.iskeyword(self.name):
            raise ValueError(
                f"name={self.name!r}, expected a name of small letters, such as 'my_{self.kind}'"
            )


def run(config: New) -> int:
    """Write the files and say what to do next."""
    folder = config.out / config.name
    if os.path.lexists(folder):
        raise ValueError(f"out={str(folder)!r} is there already, expected a new folder; choose another name")
    if find_spec(config.name) is not None:
        raise ValueError(
            f"name={config.name!r} is a module that Python has already, expected one that hides none; choose "
            f"one such as 'my_{config.kind}'"
        )
    what, use = _KINDS[config.kind]
    words = {"name": config.name, "title": "".join(map(str.capitalize, config.name.split("_"))), "what": what}
    words["use"] = Template(use).substitute(words)
    words["plugins"] = Template(_PLUGINS).substitute(words) if config.kind == "env" else ""
    files = {
        "pyproject.toml": "pyproject",
        "README.md": "readme",
        f"{config.name}/__init__.py": config.kind,
        f"tests/test_{config.name}.py": f"{config.kind}_test",
    }
    templates = Path(__file__).with_name("templates")
    for path, template in files.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        text = (templates / f"{template}.txt").read_text(encoding="utf-8")
        write_text(target, Template(text).substitute(words))
        print(target)
    print(f"next: cd {folder} && pip install -e . && python -m pytest")
    return 0


COMMAND = Command(New, run, _EXAMPLES)
