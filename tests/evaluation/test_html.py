from __future__ import annotations

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as PILImage

from steer_env.evaluation.calibration import Card
from steer_env.images import Image
from steer_env.report import html

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ATTACKS = (
    "</script><img src=x onerror=\"document.title='owned'\">",
    "<script>document.title='owned'</script>",
    "<!--<script>",
    "]]><svg onload=\"document.title='owned'\">",
    "javascript:document.title='owned'",
    '"><iframe srcdoc="<script>parent.document.title=1</script>">',
    "&lt;img src=x onerror=alert(1)&gt;",
    "{{ 7 * 7 }}{% raw %}$script ${data} $$",
    "\u2028\u202e</style><style>*{display:none}",
)


class Parsed(HTMLParser):
    """The page as a browser would read it: tags with attributes, and the data element."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.data, self._inside = "", False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = dict(attrs).get("id") == "data"

    def handle_endtag(self, tag: str) -> None:
        self._inside = False

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.data += data


@pytest.fixture
def rows(make_row) -> list[Any]:
    made = [make_row(10, 10, 10, seed=1, strategy="roleplay", category="c"), make_row(10, 1, seed=2)]
    made += [make_row(8, 10, seed=3), make_row(None, 10, seed=4, kind="benign")]
    for row, text in zip(made * 3, ATTACKS, strict=False):
        row["turns"][-1]["user"] += text
        row["turns"][0]["reply"] += text
    return made


def read(path: Path) -> Parsed:
    return Parsed(path.read_text(encoding="utf-8"))


def test_nothing_from_a_dialogue_becomes_markup(rows: list[Any], make_row, tmp_path: Path) -> None:
    """The page with hostile texts, names and labels has exactly the tags of the page with plain ones."""
    hostile = ATTACKS[0] + ATTACKS[1]
    for row in rows:
        row.update(category=hostile, strategy=hostile, mechanism=hostile, goal=hostile, stop=hostile)
        for turn in row["turns"]:
            verdict = turn["verdict"]
            verdict.update(judge=hostile, rationale=hostile, leaked=[hostile], move=hostile)
            turn.update(strategy=hostile, tactic=hostile)
    plain = json.loads(json.dumps(rows).replace(json.dumps(hostile)[1:-1], "x"))
    for row in plain:
        for turn in row["turns"]:
            turn.update(user="u", reply="r")
    pages = [
        read(html.write_html({name: some}, tmp_path / f"{i}.html", title=name))
        for i, (name, some) in enumerate(((hostile, rows), ("x", plain)))
    ]
    assert [tag for tag, _ in pages[0].tags] == [tag for tag, _ in pages[1].tags]
    assert [sorted(a) for _, a in pages[0].tags] == [sorted(a) for _, a in pages[1].tags]
    assert not any(name.startswith("on") for _, attrs in pages[0].tags for name in attrs)
    told = json.loads(pages[0].data)["dialogues"]
    replies = {turn["reply"] for one in told for turn in one["turns"]}
    assert any(ATTACKS[0] in reply for reply in replies)  # kept as text, not dropped


def test_only_the_one_script_may_run_and_nothing_is_fetched(rows: list[Any], tmp_path: Path) -> None:
    import base64
    import hashlib

    path = html.write_html({"a": rows}, tmp_path / "r.html")
    text = path.read_text(encoding="utf-8")
    script = re.findall(r"<script>(.*?)</script>", text, re.S)
    digest = base64.b64encode(hashlib.sha256(script[0].encode()).digest()).decode()
    assert len(script) == 1 and f"script-src 'sha256-{digest}'" in text
    assert "default-src 'none'" in text
    assert not re.search(r"(src|href)\s*=\s*[\"']?https?:", text)
    assert "innerHTML" not in script[0] and "document.write" not in script[0] and "eval" not in script[0]


def test_what_is_shown(rows: list[Any], tmp_path: Path) -> None:
    card = Card("rule", "harm", 50, 45, 50, 48)
    text = html.write_html({"base": rows, "new": rows}, tmp_path / "r.html", card=card).read_text()
    for words in ("base (4)", "sensitivity 0.900", "corrected (Rogan-Gladen)", "Aalen-Johansen", "unscored",
                  "without a verdict", "by strategy and category"):  # fmt: skip
        assert words in text, words
    alone = html.write_html({"base": rows}, tmp_path / "s.html").read_text()
    assert "the judge&#39;s, not the truth&#39;s" in alone and "corrected (" not in alone


def test_dialogues_are_worst_first_with_their_facts(rows: list[Any], tmp_path: Path) -> None:
    rows[1]["turns"][1]["tcsr"] = {"value": 0.25, "min": 0.1, "mean": 0.4}
    told = json.loads(read(html.write_html({"a": rows}, tmp_path / "r.html")).data)["dialogues"]
    assert [one["seed"] for one in told] == [2, 3, 1, 4] and told[0]["worst"] == "harm"
    chips = told[0]["turns"][1]["chips"]
    assert ["harm", "safety -3 (-3..3)"] in chips and ["", "helpfulness 0 (0..3)"] in chips
    assert ["", "TCSR 0.25 (minimum 0.10, mean 0.40)"] in chips
    unscored = next(one for one in told if one["seed"] == 4)["turns"][0]
    assert (
        unscored["event"] == "unscored" and ["unscored", "no verdict: cannot be placed"] in unscored["chips"]
    )
    few = html.write_html({"a": rows, "b": rows}, tmp_path / "f.html", max_dialogues=4)
    assert "The worst 4 of 8 are listed" in few.read_text()


def test_pictures_are_small_data_urls_and_kept_once(rows: list[Any], tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (900, 1200, 3)).astype(np.uint8)
    image = Image.from_array(noise)
    for row in rows:
        row["images"] = [image.digest]
    page = read(html.write_html({"a": rows}, tmp_path / "r.html", pictures=lambda row: [image]))
    images = json.loads(page.data)["images"]
    assert list(images) == [image.digest]
    import base64
    import io

    body = base64.b64decode(images[image.digest].removeprefix("data:image/jpeg;base64,"))
    assert PILImage.open(io.BytesIO(body)).size == (256, 192)
    none = read(html.write_html({"a": rows}, tmp_path / "n.html", pictures=lambda r: [image], max_pictures=0))
    assert json.loads(none.data)["images"] == {}


def test_without_matplotlib_the_page_stands_and_says_what_is_missing(
    rows: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_curves = read(html.write_html({"a": rows}, tmp_path / "r.html", replicates=50))
    pictures = [attrs["src"] or "" for tag, attrs in with_curves.tags if tag == "img"]
    assert len(pictures) == 3 and all(src.startswith("data:image/svg+xml;base64,") for src in pictures)
    monkeypatch.setattr(html.plots, "find_spec", lambda name: None)
    path = html.write_html({"a": rows}, tmp_path / "n.html", replicates=50)
    assert "steer-env[eval]" in path.read_text() and not any(tag == "img" for tag, _ in read(path).tags)


@pytest.mark.parametrize("empty", [[], "unscored"])
def test_nothing_known_is_said(empty: Any, make_row, tmp_path: Path) -> None:
    some = [make_row(None, None, seed=i) for i in range(3)] if empty else []
    text = html.write_html({"x": some}, tmp_path / "r.html").read_text()
    assert "n/a" in text and "0.0 %" not in text


HARNESS = """
window.addEventListener("error", (e) => { document.body.dataset.error = e.message; });
const probe = {};
const count = () => document.getElementById("count").textContent;
const heads = () => [...document.querySelectorAll("details.dialogue")];
probe.start = count();
const search = document.getElementById("search");
search.value = "needle"; search.dispatchEvent(new Event("input"));
probe.found = count();
search.value = ""; search.dispatchEvent(new Event("input"));
const worst = document.querySelector('[data-filter="worst"]');
worst.value = "bare_refusal"; worst.dispatchEvent(new Event("change"));
probe.filtered = count();
worst.value = ""; worst.dispatchEvent(new Event("change"));
const first = heads()[0];
first.open = true;
first.dispatchEvent(new Event("toggle"));
probe.before = first.querySelectorAll(".said").length;
first.querySelector("button.reveal").click();
probe.after = first.querySelectorAll(".said").length;
document.dispatchEvent(new KeyboardEvent("keydown", { key: "j" }));
probe.focused = document.activeElement.tagName;
document.getElementById("theme").click();
probe.theme = document.documentElement.dataset.theme || "";
for (const one of heads()) { one.open = true; one.dispatchEvent(new Event("toggle")); }
probe.images = document.querySelectorAll("img:not(.curve), iframe, svg[onload]").length;
probe.milliseconds = performance.now();
probe.title = document.title;
document.body.dataset.probe = JSON.stringify(probe);
"""


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_in_a_browser(rows: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """2,000 dialogues: it loads without errors, filters, hides and reveals; hostile texts do nothing."""
    many = []
    for i in range(500):
        many += [{**row, "seed": row["seed"] + 10 * i} for row in rows]
    many[7] = {**many[7], "turns": [{**many[7]["turns"][0], "user": "a Needle in here"}]}
    real = html._asset
    monkeypatch.setattr(html, "_asset", lambda name: real(name) + (HARNESS if name.endswith(".js") else ""))
    path = html.write_html({"a": many}, tmp_path / "r.html", replicates=50)
    words = ["--headless=new", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--dump-dom"]
    profile = f"--user-data-dir={tmp_path / 'profile'}"
    done = subprocess.run(
        [str(CHROMIUM), *words, profile, path.as_uri()], capture_output=True, text=True, timeout=60
    )
    body = next(attrs for tag, attrs in Parsed(done.stdout).tags if tag == "body")
    assert "data-error" not in body and "CONSOLE" not in done.stderr, done.stderr[-2000:]
    probe = json.loads(body["data-probe"] or "")
    assert probe["start"] == "2000 of 2000 dialogues"
    assert probe["found"].startswith("1 of") and probe["filtered"].startswith("500 of")
    assert probe["before"] == 0 and probe["after"] == 4
    assert probe["focused"] == "SUMMARY" and probe["theme"] in ("light", "dark")
    assert probe["images"] == 0 and probe["title"] == "steer_env: evaluation"
