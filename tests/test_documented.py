"""Every field of a dataclass is in its list of attributes; ruff checks that public names have docstrings."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted(
    p for top in ("steer_env", "agents", "wrappers", "algorithms") for p in (ROOT / top).rglob("*.py")
)


def left_out(source):
    """Return the public fields that are missing in their class's list of attributes."""
    found = []
    for node in ast.walk(ast.parse(source)):
        said = ast.get_docstring(node) if isinstance(node, ast.ClassDef) else None
        if said is None or "Attributes:" not in said or not node.decorator_list:
            continue
        fields = [n for n in node.body if isinstance(n, ast.AnnAssign) and "ClassVar" not in ast.unparse(n)]
        names = [field.target.id for field in fields]
        found += [f"{node.name}.{n}" for n in names if not n.startswith("_") and f"{n}:" not in said]
    return found


SOURCE = '''
@dataclass
class A:
    """Do.

    Attributes:
        one: First.
    """

    one: int
    two: int
'''


def test_a_field_that_is_left_out_is_seen():
    assert left_out(SOURCE) == ["A.two"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_field_is_among_the_attributes(path):
    assert left_out(path.read_text(encoding="utf-8")) == []
