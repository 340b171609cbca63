"""`report.html` in headless Chromium: works by mouse and keyboard, wide and narrow, light and dark.

Skipped where playwright or a Chromium is missing: `pip install playwright` and the system's own browser do.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from steer_env.report import html

playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")

MARKUP = "</script><img src=x onerror=\"document.title='owned'\"><svg onload=\"document.title='owned'\">"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        running = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """2,000 dialogues: harm, bare refusal, ideal and unscored ones, with hostile texts and tokens."""

    def row(i: int) -> Any:
        safety = (1, 8, 10, None)[i % 4]
        terms = {"safety": safety, "usefulness": 10 if safety == 10 else 1, "faithfulness": 10}
        verdict = (
            {"unscored": "unclear"}
            if safety is None
            else {"terms": terms, "judge": MARKUP, "move": "refuse_plain" if safety == 8 else ""}
        )
        said = {"user": f"question {i} {MARKUP}", "reply": f"answer {i} {MARKUP}", "verdict": verdict}
        tokens = [MARKUP, ["yes", -0.1, 0.5], ["no", -2.5, -1.0], ["out", -1.0, None]]
        labels = {"kind": "obfuscated", "strategy": MARKUP if i % 3 else "roleplay", "goal": MARKUP}
        return {**labels, "seed": i, "stop": "seed_end", "turns": [said] * 8, "tokens": tokens}

    path = tmp_path_factory.mktemp("page") / "report.html"
    return html.write_html({"one" + MARKUP: [row(i) for i in range(2000)]}, path, replicates=20)


@pytest.fixture
def page(browser: Any, page_file: Path) -> Iterator[Any]:
    """The page, opened; the test fails if anything was logged, fetched or thrown in it."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, color_scheme="light")
    one = context.new_page()
    wrong: list[str] = []
    one.on("console", lambda message: wrong.append(message.text))
    one.on("pageerror", lambda error: wrong.append(str(error)))
    one.on(
        "request", lambda request: wrong.append(request.url) if request.url != page_file.as_uri() else None
    )
    one.goto(page_file.as_uri())
    yield one
    assert wrong == []
    assert one.title() == "steer_env: evaluation"
    context.close()


def count(page: Any) -> str:
    return str(page.locator("#count").inner_text())


def test_it_loads_and_stays_small(page: Any, page_file: Path) -> None:
    assert count(page) == "2000 of 2000 dialogues"
    assert page.locator("details.dialogue").count() == 50  # the others are made when asked for
    assert page_file.stat().st_size < 10_000_000  # 32,000 texts of 110 characters, more once escaped
    assert page.locator('[data-filter="strategy"]').is_visible()
    assert not page.locator('[data-filter="kind"]').is_visible()  # all are of one kind
    page.locator("#more").click()
    assert page.locator("details.dialogue").count() == 100


def test_search_and_filters(page: Any) -> None:
    page.locator("#search").fill("answer 1999")
    assert count(page) == "1 of 2000 dialogues"
    page.keyboard.press("Escape")
    assert count(page) == "2000 of 2000 dialogues"
    page.locator('[data-filter="worst"]').select_option("bare_refusal")
    assert count(page) == "500 of 2000 dialogues"
    page.locator('[data-filter="strategy"]').select_option("roleplay")
    assert count(page) == "166 of 2000 dialogues"
    page.locator("#search").fill("no such words")
    assert count(page) == "0 of 2000 dialogues"


def test_harmful_text_is_not_on_the_page_until_asked_for(page: Any) -> None:
    first = page.locator("details.dialogue.harm").first
    first.locator("> summary").click()
    assert first.locator(".said").count() == 0 and "answer" not in first.inner_text()
    first.locator("button.reveal").click()
    assert first.locator(".said").count() == 16
    assert MARKUP in first.locator(".said").first.inner_text()
    page.locator('[data-filter="worst"]').select_option("ideal")
    harmless = page.locator("details.dialogue.ideal").first
    harmless.locator("> summary").click()
    assert harmless.locator("button.reveal").count() == 0 and harmless.locator(".said").count() == 16


def test_tokens_are_told_apart_by_mask_and_advantage(page: Any) -> None:
    page.locator('[data-filter="worst"]').select_option("ideal")
    first = page.locator("details.dialogue").first
    first.locator("> summary").click()
    first.locator("details.tokens > summary").click()
    pieces = first.locator(".sequence > span")
    assert pieces.all_inner_texts() == [MARKUP, "yes", "no", "out"]
    kinds = [piece.get_attribute("class") for piece in pieces.all()]
    assert kinds == ["context", "token plus", "token minus", "token out"]
    colours = {piece.evaluate("e => getComputedStyle(e).backgroundColor") for piece in pieces.all()[1:]}
    assert len(colours) == 3
    assert pieces.nth(2).get_attribute("title") == "log-probability -2.5, advantage -1"


def test_by_keyboard_alone(page: Any) -> None:
    page.keyboard.press("/")
    page.keyboard.type("answer 4")
    assert page.evaluate("document.activeElement.id") == "search"
    page.keyboard.press("Escape")
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.keyboard.press("k")
    first = page.locator("details.dialogue").first
    assert first.locator("> summary").evaluate("e => e === document.activeElement")
    page.keyboard.press("Enter")
    assert first.evaluate("e => e.open")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")  # the button that reveals
    assert first.locator(".said").count() == 16


@pytest.mark.parametrize("width", [320, 390, 768])
def test_nothing_is_wider_than_the_screen(page: Any, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    first = page.locator("details.dialogue.harm").first
    first.locator("> summary").click()
    first.locator("button.reveal").click()
    first.locator("details.tokens > summary").click()
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def contrast(page: Any, selector: str) -> float:
    """Contrast of an element's text with the page, after WCAG 2."""
    read = "e => [getComputedStyle(e).color, getComputedStyle(document.body).backgroundColor]"
    colours = page.locator(selector).first.evaluate(read)

    def luminance(colour: str) -> float:
        parts = [int(x) / 255 for x in colour[4:-1].split(",")]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted(map(luminance, colours), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_light_and_dark_are_both_readable(page: Any) -> None:
    told = ("h1", ".note", "td small", "details.dialogue > summary", ".strip .harm", "figcaption")
    backgrounds = []
    for _ in range(2):
        backgrounds.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        assert {name: contrast(page, name) for name in told if contrast(page, name) < 4.5} == {}
        page.locator("#theme").click()
    assert backgrounds[0] != backgrounds[1]


def test_what_people_wrote_never_becomes_markup(page: Any) -> None:
    for entry in page.locator("details.dialogue > summary").all()[:6]:
        entry.click()
    while page.locator("button.reveal").count():
        page.locator("button.reveal").first.click()
    assert page.locator("main img:not(.curve), main iframe, main svg[onload], main script").count() == 0
    assert page.title() == "steer_env: evaluation"


@pytest.fixture(scope="module")
def two_policies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of two policies whose tables are wider than a telephone."""

    def row(seed: int, safety: int) -> Any:
        terms = {"safety": safety, "usefulness": 10 if safety == 10 else 1, "faithfulness": 10}
        said = {"user": "question", "reply": f"answer {seed}", "verdict": {"terms": terms, "judge": "rule"}}
        return {"seed": seed, "scenario": f"s{seed}", "stop": "seed_end", "turns": [said] * 3}

    runs = {"base": [row(i, 1) for i in range(60)], "tuned": [row(i, 10) for i in range(60)]}
    return html.write_html(runs, tmp_path_factory.mktemp("two") / "report.html", replicates=20)


def opened(browser: Any, path: str, **options: Any) -> Any:
    page = browser.new_context(viewport={"width": 390, "height": 800}, **options).new_page()
    page.goto(path)
    return page


def test_policies_stand_side_by_side_with_and_without_javascript(browser: Any, two_policies: Path) -> None:
    page = opened(browser, two_policies.as_uri(), java_script_enabled=False)
    assert page.locator(".verdict").first.inner_text().startswith("tuned is safer than base (harm 100.0 → 0")
    group = page.locator("details.side").first
    group.locator("> summary").click()
    assert group.locator(".column h3").all_inner_texts()[0].startswith("base")
    assert not group.locator(".said.reply").first.is_visible()  # marked harmful
    group.locator("details.hidden > summary").first.click()
    assert group.locator(".said.reply").first.is_visible()
    listed = page.locator("#list details.dialogue")
    assert listed.count() == 20 and not page.locator(".filters").is_visible()
    listed.first.locator("> summary").click()
    assert listed.first.locator(".said.user").first.is_visible()
    assert not listed.first.locator(".said.reply").first.is_visible()  # marked harmful
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page = opened(browser, f"{two_policies.as_uri()}#d70")
    one = page.locator("#d70")  # beyond the first fifty
    assert one.evaluate("e => e.open")
    one.locator("button.same").click()
    assert [head.split()[0] for head in one.locator(".column h3").all_inner_texts()] == ["base", "tuned"]
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_on_a_telephone_a_table_scrolls_under_its_first_column(browser: Any, two_policies: Path) -> None:
    page = opened(browser, two_policies.as_uri())
    table = page.locator(".scroll", has=page.locator("table")).first
    wide = table.evaluate("e => [e.scrollWidth, e.clientWidth]")
    assert wide[0] > wide[1]
    left = "e => e.getBoundingClientRect().left"
    name, value = table.locator("tbody th").first, table.locator("tbody td").first
    before = name.evaluate(left), value.evaluate(left)
    table.evaluate("e => { e.scrollLeft = 100; }")
    assert name.evaluate(left) == before[0] and value.evaluate(left) == before[1] - 100
