"""Examples in the documents, run as they stand."""

from __future__ import annotations

import doctest
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[1] / "docs"


@pytest.mark.parametrize("name", ["concepts.md"])
def test_examples_give_what_they_show(name: str) -> None:
    parser = doctest.DocTestParser()
    text = (DOCS / name).read_text(encoding="utf-8").replace("\n```", "\n\n```")
    found = parser.get_doctest(text, {}, name, str(DOCS / name), 0)
    assert len(found.examples) >= 5
    said: list[str] = []
    doctest.DocTestRunner().run(found, out=said.append)
    assert not said, "".join(said)
