"""Modules import from their own layer and from those before it, and nothing goes round in circles."""

import ast
import graphlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
#: From the ground up, as in docs/architecture.md; a module belongs to the longest prefix that names it.
LAYERS = (
    "types arrays checks images files runs extras spaces scenarios scenario_models trajectory forking "
    "rewards render naming ids world.truth world.devices world.lexicon world.ood.lexicon",
    "configs",
    "world scenario_files records drawing data.schemas data.loaders",
    "models",
    "judges versions",
    "env vector student_env",
    "wrappers",
    "agents",
    "registration",
    "seats trials rollout counterfactual unscored",
    "evaluation",
    "play",
    "report",
    "data",
    "algorithms",
    "acts testing interop serve",
    "cli",
)
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names.split()}


def modules():
    """Return module name -> file, the name without `steer_env.`."""
    found = {}
    for folder, prefix in (
        ("steer_env", ""),
        ("agents", "agents"),
        ("wrappers", "wrappers"),
        ("algorithms", "algorithms"),
    ):
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            if folder == "steer_env" and parts[0] in ("agents", "wrappers", "algorithms"):
                continue  # links to the folders at the top
            parts = parts[:-1] if parts[-1] == "__init__" else parts
            found[".".join(filter(None, (prefix, *parts)))] = path
    return found


def layer(module):
    parts = module.split(".")
    for n in range(len(parts), 0, -1):
        if (name := ".".join(parts[:n])) in LEVEL:
            return LEVEL[name]
    pytest.fail(f"module={module!r} is in no layer: add it to LAYERS and to docs/architecture.md")


def imports(path, known):
    """Return the modules a file imports, wherever in the file, those for types alone left out."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "steer_env":
            for alias in node.names:
                full = f"{node.module}.{alias.name}".removeprefix("steer_env").lstrip(".")
                yield full if full in known else node.module.removeprefix("steer_env").lstrip(".")
        elif isinstance(node, ast.Import):
            yield from (
                a.name.removeprefix("steer_env.") for a in node.names if a.name.startswith("steer_env.")
            )


KNOWN = modules()
EDGES = {module: set(imports(path, KNOWN)) - {""} for module, path in KNOWN.items() if module}


def test_the_modules_are_found():
    assert (
        len(KNOWN) > 200
        and "algorithms.trainer" in KNOWN
        and EDGES["play.evaluate"] >= {"rollout", "records"}
    )


def test_no_import_goes_up():
    up = [f"{a} imports {b}" for a, those in EDGES.items() for b in those if layer(b) > layer(a)]
    assert not up, "\n".join(up)


def test_no_import_goes_round_in_a_circle():
    # A package's own __init__ collects its modules: importing from the package is importing from them.
    graph = {a: {b for b in those if b != a and not a.startswith(b + ".")} for a, those in EDGES.items()}
    try:
        tuple(graphlib.TopologicalSorter(graph).static_order())
    except graphlib.CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))
