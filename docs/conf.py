# ruff: noqa: E501 (pages are long lines)
"""Sphinx settings of the site; `make docs` builds it offline.

What can be known from the package is written when the site is built, into `docs/generated`: a page for each
environment, one for each public module, and the claims.
"""

import importlib
import re
import sys
import tomllib
from pathlib import Path

from docutils.nodes import SkipNode
from docutils.utils.math.latex2mathml import tex2mathml

DOCS = Path(__file__).resolve().parent
sys.path.insert(0, str(DOCS.parent))
OUT = DOCS / "generated"
MODULES = ("", ".agents", ".wrappers", ".algorithms", ".judges", ".evaluation", ".testing")

project = "steer_env"
author = "The steer_env developers"
copyright = author
version = release = tomllib.loads((DOCS.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"][
    "version"
]
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_gallery.gen_gallery",
]
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
html_theme = "furo"
html_title = "steer_env"
myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors = 4
html_math_renderer = "mathml"
# Addresses in examples are of the reader's own servers.
linkcheck_ignore = [r"https?://(localhost|127\.0\.0\.1|host|HOST)\b"]
linkcheck_timeout, linkcheck_retries = 20, 2
# Tutorials are scripts, as Farama's are: they run by themselves and without a Jupyter kernel, what they print and draw
# is shown, and each can be taken along as a notebook. One that has not changed is not run again.
sphinx_gallery_conf = {
    "examples_dirs": ["tutorials"],
    "gallery_dirs": ["generated/tutorials"],
    "filename_pattern": r"\.py$",
    "within_subsection_order": "FileNameSortKey",
    "image_scrapers": ("matplotlib",),
    "show_memory": False,
    "show_signature": False,
    "min_reported_time": 1000,
    "write_computation_times": False,
    "plot_gallery": True,
    "download_all_examples": False,
    "remove_config_comments": True,
}
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
napoleon_use_ivar = True
# Docstrings are for readers of the source: single backticks and asterisks in them are not always RST.
# Re-exported names stand on more than one page.
# A page that no list names yet is built, and found by the search.
suppress_warnings = ["docutils", "toc.not_included", "ref.python", "myst.header", "misc.highlighting_failure"]


def environment_page(id: str) -> str:
    """Return the page of an environment, from the registry."""
    import steer_env
    from steer_env.report.cards import facts_table

    spec = steer_env.spec(id)
    return f"""# {id}

{spec.summary[0].upper() + spec.summary[1:]}.

![A dialogue with the scripted student `comply`]({id}.png)

{facts_table(id)}

What scripted policies earn here is in [the world's table](../../world.md#what-policies-earn). World version 1 was replaced in place:
results of it do not compare.
"""


def acts_page() -> str:
    """Return the page of the environment whose actions are dialogue acts."""
    import gymnasium

    import steer_env  # noqa: F401

    env = gymnasium.make("steer_env/SteerActs-v0")
    return f"""# SteerActs-v0

The student's seat with dialogue acts instead of text, for algorithms of reinforcement learning. All of it: [dialogue acts](../../acts.md).

| | |
|---|---|
| made by | `gymnasium.make("steer_env/SteerActs-v0")`, `gymnasium.make_vec` |
| action | `{env.action_space}` |
| observation | `{env.observation_space}` |
| optimum | known, by `steer_env.acts.optimum()` |

**Versions.** v0: its dynamics have not changed.
"""


def api_page(name: str) -> str:
    """Return the page of a public module: each name that it exports, from its docstring."""
    import inspect

    module = importlib.import_module(name)
    parts = [f"# {name}\n"]
    for public in module.__all__:
        thing = getattr(module, public)
        kind = "class" if inspect.isclass(thing) else "function" if inspect.isfunction(thing) else ""
        if kind:
            members = "   :members:\n" if kind == "class" else ""
            parts.append(f"```{{eval-rst}}\n.. auto{kind}:: {name}.{public}\n{members}   :no-index:\n```\n")
    return "\n".join(parts)


def claims_page() -> str:
    """Return the table of all claims."""
    claims = tomllib.loads((DOCS.parent / "claims.toml").read_text(encoding="utf-8"))["claim"]
    head = """# How we know

Each number, the command that makes it, when it was measured, and how far another run may be from it. `python -m benchmarks.claims`
compares what is printed with what is claimed and, where a results file is checked in, with that; the tests do the same.

| page | what | values | command | date | tolerance | results |
|---|---|---|---|---|---|---|
"""

    def cell(text: object) -> str:
        return "`" + str(text).replace("|", " ").replace("`", "").strip() + "`"

    rows = [
        f"| {c['file']} | {cell(c['context'])} | {', '.join(c.get('values', ['as on ' + c.get('copy', {}).get('file', '')]))} | "
        f"{cell(c['command'])} | {c['date']} | {c['tolerance']:.0%} | {c.get('result', '')} |"
        for c in claims
    ]
    return head + "\n".join(rows) + "\n"


def gallery_page(ids: list[str]) -> str:
    """Return the page of dialogues, one for each scripted student."""
    parts = [
        '# Gallery\n\nOne dialogue of each environment, drawn by `render_mode="rgb_array"`, with the scripted student `comply`.\n'
    ]
    parts += [f"## {id}\n\n![A dialogue of {id}](environments/{id}.png)\n" for id in ids]
    return "\n".join(parts)


def write_pages() -> None:
    """Write all generated pages; what has not changed keeps its date, so that a second build is quick."""
    import steer_env
    from benchmarks.pictures import dialogue

    ids = steer_env.env_ids()
    pages = {f"environments/{id}.md": environment_page(id) for id in ids}
    pages["environments/SteerActs-v0.md"] = acts_page()
    pages |= {f"api/steer_env{name}.md": api_page(f"steer_env{name}") for name in MODULES}
    pages |= {"claims.md": claims_page(), "gallery.md": gallery_page(list(ids))}
    for name, text in pages.items():
        path = OUT / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
    for id in ids:
        if not (OUT / f"environments/{id}.png").exists():
            dialogue(id, seed=3, split="bench").save(OUT / f"environments/{id}.png", optimize=True)


def formula(html: object, node: object) -> None:
    """Write a formula as MathML, which browsers show by themselves: no script, and nothing from the network."""
    # The empty braces keep an index beside an accented letter: without them it is set below.
    text = re.sub(r"\\(tilde|bar|hat) *(\w)(?=_)", r"{\\\1 \2{}}", node.astext())
    block = node.tagname == "math_block"
    # As an "accent" a bar touches its letter where a browser has no font for mathematics.
    code = tex2mathml(text, as_block=block).replace(' accent="true"', "")
    html.body.append(f'<div class="math">{code}</div>' if block else code)
    raise SkipNode


def outside(app: object, name: str, source: list[str]) -> None:
    """Show a link to a Markdown file outside of the site as the file's name in the repository."""
    source[0] = re.sub(r"\[([^\]]*)\]\(\.\./((?!\.\.)[^)\s]+\.md)\)", r"\1 (`\2`)", source[0])


def setup(app: object) -> None:
    """Write the generated pages before Sphinx reads any."""
    write_pages()
    app.connect("source-read", outside)
    app.add_html_math_renderer("mathml", inline_renderers=(formula, None), block_renderers=(formula, None))
