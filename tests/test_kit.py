"""What tests share is in `tests/kit`: no test needs another one to run."""

import ast
from pathlib import Path

import pytest

TESTS = Path(__file__).parent


def imported(path):
    """Yield the modules of a file's imports, a leading dot for each level of a relative one."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." * node.level + (node.module or "")


def from_a_test(module):
    last = module.rpartition(".")[2]
    return module.startswith((".", "tests.")) or last == "conftest" or last.startswith("test_")


@pytest.mark.parametrize("module", [".test_credit", "tests.algorithms.conftest", "test_parallel", "conftest"])
def test_an_import_from_a_test_is_seen(module):
    assert from_a_test(module)
    assert not from_a_test("steer_env.testing.toys") and not from_a_test("kit.training")


def test_no_test_imports_from_another():
    files = sorted(TESTS.rglob("*.py"))
    assert len(files) > 150
    names = [(path, name) for path in files for name in imported(path)]
    assert not [f"{path.name}: {name}" for path, name in names if from_a_test(name)]
