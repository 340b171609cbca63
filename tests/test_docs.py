"""Examples in the documents, run as they stand."""

from __future__ import annotations

import doctest
import importlib
import inspect
import re
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import steer_env
from benchmarks import pictures
from steer_env.evaluation.tables import COLUMNS

DOCS = Path(__file__).resolve().parents[1] / "docs"
#: Training in a test is one step of few dialogues.
SHORT = ("steps=50, group_size=6", "steps=1, seeds_per_step=2, group_size=2")


@pytest.mark.parametrize("name", ["concepts.md"])
def test_examples_give_what_they_show(name: str) -> None:
    parser = doctest.DocTestParser()
    text = (DOCS / name).read_text(encoding="utf-8").replace("\n```", "\n\n```")
    found = parser.get_doctest(text, {}, name, str(DOCS / name), 0)
    assert len(found.examples) >= 5
    said: list[str] = []
    doctest.DocTestRunner().run(found, out=said.append)
    assert not said, "".join(said)


def _where() -> list[tuple[str, str]]:
    """Return the rows of the table "Where is what": the cells with files, the cells with names."""
    text = (DOCS / "architecture.md").read_text(encoding="utf-8")
    rows = text.split("## Where is what")[1].split("\n## ")[0].splitlines()
    cells = [[cell.strip() for cell in row.split("|")[1:-1]] for row in rows if row.startswith("| ")]
    return [(files, names) for _, files, names in cells if "`" in files]


@pytest.mark.parametrize(("files", "names"), _where())
def test_what_the_architecture_says_is_where_it_says(files: str, names: str) -> None:
    paths = [DOCS.parent / path for path in re.findall(r"`([\w/.]+/[\w/.]*)`", files)]
    texts = "".join(
        one.read_text(encoding="utf-8")
        for path in paths
        for one in (sorted(path.glob("*.py")) if path.is_dir() else [path])
    )
    for name in re.findall(r"`(\w+)`", names):
        defined = rf"^(def {name}\(|class {name}\b|{name}\b.* = )"
        assert re.search(defined, texts, re.MULTILINE), f"{name} is not defined in {files}"


def test_the_five_questions_of_a_newcomer_are_answered() -> None:
    text = (DOCS / "architecture.md").read_text(encoding="utf-8").split("## Where is what")[1]
    asked = ("where alpha is applied", "unscored turn", "add a judge", "add an algorithm", "run resumes")
    assert all(question in text for question in asked)


@pytest.mark.parametrize(
    "name",
    ["steer_env", "steer_env.agents", "steer_env.wrappers", "steer_env.algorithms", "steer_env.testing"],
)
def test_every_public_name_says_what_it_is(name: str) -> None:
    module = importlib.import_module(name)
    assert len(set(module.__all__)) == len(module.__all__) > 0
    for public in module.__all__:
        thing = getattr(module, public)
        if not (inspect.isclass(thing) or inspect.isfunction(thing)):
            continue  # a table of names, a type alias
        assert inspect.getdoc(thing), f"{name}.{public} has no docstring"
        for member, value in vars(thing).items() if inspect.isclass(thing) else ():
            function = value.fget if isinstance(value, property) else value
            if not member.startswith("_") and inspect.isfunction(function):
                assert inspect.getdoc(getattr(thing, member)), f"{name}.{public}.{member} has no docstring"


def test_the_rooms_are_reached_from_the_package() -> None:
    code = "import steer_env; print(steer_env.wrappers.TCSR.__name__)"
    code += (
        "; print(steer_env.agents.AGENTS['static'].__name__, steer_env.algorithms.make_algorithm.__name__)"
    )
    code += "; print('evaluation' in dir(steer_env))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["TCSR", "StaticAttacker", "make_algorithm", "True"]


def test_every_test_that_the_promises_name_exists() -> None:
    """A promise in reliability.md is as good as the tests behind it: a file of them, or one in it."""
    root = DOCS.parent
    text = (DOCS / "reliability.md").read_text(encoding="utf-8")
    named = re.findall(r"`((?:tests|benchmarks)/[\w/.]+)(?:::(\w+))?`", text)
    assert len(named) >= 12
    for name, function in named:
        path = root / name
        assert path.exists(), f"reliability.md names {name}, which is not there"
        if path.suffix == ".py":
            tests = re.findall(r"^def (test_\w+)\(", path.read_text(encoding="utf-8"), re.MULTILINE)
            assert function in tests if function else tests, f"{name} has no test {function}"
    promises = [row for row in text.splitlines() if row.startswith("| ") and "how it is tested" not in row]
    tested = [row for row in promises if re.search(r"`(tests|benchmarks)/|the soak|a test per command", row)]
    assert promises == tested, "a promise that no test is named for"


@pytest.mark.parametrize("page", ["README.md", "docs/tour.md"])
def test_the_blocks_of_a_page_run_in_order(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (DOCS.parent / page).read_text(encoding="utf-8"), re.S)
    assert blocks
    names: dict[str, object] = {"__name__": "reader"}
    for block in blocks:
        exec(block.replace(*SHORT), names)


def test_every_block_runs_alone(tmp_path: Path) -> None:
    """No block of a page uses a name that it does not make: what is copied has all it needs."""
    count = 0
    for page in (DOCS.parent / "README.md", *DOCS.glob("*.md")):
        for block in re.findall(r"^ *```python\n(.*?)```", page.read_text(encoding="utf-8"), re.S | re.M):
            if not block.startswith(">>>"):
                count += 1
                (tmp_path / f"{page.stem}_{count}.py").write_text(textwrap.dedent(block), encoding="utf-8")
    assert count >= 25
    words = ["-m", "ruff", "check", "--isolated", "--select", "F821", "--output-format", "concise"]
    done = subprocess.run([sys.executable, *words, tmp_path], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_readme_is_one_page() -> None:
    text = (DOCS.parent / "README.md").read_text(encoding="utf-8")
    assert len([word for word in text.split() if re.search(r"\w", word)]) <= 900


def test_the_tour_names_every_environment() -> None:
    text = (DOCS / "tour.md").read_text(encoding="utf-8")
    assert {id for id in [*steer_env.env_ids(), "SteerActs-v0"] if f"| `{id}` |" not in text} == set()


def test_the_picture_is_what_its_command_draws() -> None:
    stored = np.asarray(Image.open(DOCS / "dialogue.png").convert("RGB"), dtype=int)
    drawn = np.asarray(pictures.dialogue(split="bench").convert("RGB"), dtype=int)
    assert (
        stored.shape == drawn.shape and np.abs(stored - drawn).mean() < 1
    )  # fonts are hinted a little apart


ROOT = DOCS.parent
PAGES = sorted([*ROOT.glob("*.md"), ROOT / "llms.txt", *DOCS.glob("*.md"), *ROOT.glob("benchmarks/*.md")])


def test_printed_evaluations_have_the_columns_of_today() -> None:
    headings = ["policy", *(heading for heading, _, _ in COLUMNS), "unscored turns", "cut off"]
    printed = []
    for table in [
        t for page in PAGES for t in re.findall(r"```\n(policy .*?)```", page.read_text(), flags=re.S)
    ]:
        if "twin_pass" in table:  # the demo's table is another one
            continue
        lines = table.splitlines()
        rule = next(i for i, line in enumerate(lines) if line.startswith("-"))
        spans = [m.span() for m in re.finditer("-+", lines[rule])]
        printed.append(
            [" ".join(line[slice(*span)].strip() for line in lines[:rule]).strip() for span in spans]
        )
    assert printed and all(columns == headings for columns in printed)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / name) if name else page
        assert file.exists(), f"{page.name} links to {target}"
        if anchor:
            titles = re.findall(r"^#+ (.+)$", file.read_text(encoding="utf-8"), re.M)
            slugs = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
            assert anchor in slugs, f"{page.name} links to {target}, headings: {sorted(slugs)}"


def test_the_version_is_the_same_everywhere() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    cited = re.search(r"^version: (.+)$", (ROOT / "CITATION.cff").read_text(encoding="utf-8"), re.M)
    assert cited and steer_env.__version__ == project["version"] == cited[1]
    assert f"## {project['version']} " in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_every_example_that_is_named_exists() -> None:
    root = DOCS.parent
    named: dict[str, Path] = {}
    for room in ("steer_env", "agents", "algorithms", "wrappers", "benchmarks", "docs", "examples", "."):
        for page in (root / room).glob("*" if room == "." else "**/*"):
            if page.suffix in (".py", ".md", ".yaml", ".sh") and page.name != "CHANGELOG.md":
                text = page.read_text(encoding="utf-8")
                named |= dict.fromkeys(re.findall(r"\bexamples/[\w./-]*\.(?:py|yaml|md|sh)\b", text), page)
    assert len(named) >= 5
    assert {name: page for name, page in named.items() if not (root / name).is_file()} == {}
