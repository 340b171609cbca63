"""`steer-env serve` in headless Chromium: a person attacks with a picture, answers, and labels.

Skipped where playwright or a Chromium is missing.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image as PILImage

from steer_env.cli.command import HELD
from steer_env.cli.serve import Serve, house_of
from steer_env.configs.env import EnvConfig
from steer_env.evaluation.labelling import load_labels
from steer_env.play.evaluate import load_rows
from steer_env.scenario_files import load_scenarios

playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
uvicorn = pytest.importorskip("uvicorn", reason="needs the extra serve")
pytest.importorskip("python_multipart", reason="needs the extra serve")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")


@pytest.fixture
def address(cli: Any) -> Iterator[str]:
    from steer_env.serve.app import make_app

    assert cli("evaluate", "random", "--episodes", 4, "--out", "r", "--format", "csv").code == 0
    with HELD:
        config = Serve(runs=("r",), count=1, env=EnvConfig(env="SteerRedTeam-v0"))
        app = make_app(house_of(config))
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.05)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join(10)


@pytest.fixture
def page(address: str) -> Iterator[Any]:
    """A page without JavaScript, on a telephone's screen; the test fails if the browser complains."""
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        context = browser.new_context(viewport={"width": 390, "height": 800}, java_script_enabled=False)
        one = context.new_page()
        wrong: list[str] = []
        one.on("console", lambda message: wrong.append(message.text))
        one.on("requestfailed", lambda request: wrong.append(request.url))
        one.goto(address)
        yield one
        assert wrong == []
        browser.close()


def fits(page: Any) -> bool:
    return bool(page.evaluate("document.documentElement.scrollWidth") <= 390)


def test_attack_answer_and_label(page: Any, address: str, tmp_path: Path) -> None:
    PILImage.new("RGB", (60, 40), "orange").save(tmp_path / "own.png")
    assert fits(page)
    page.get_by_label("What you are after").fill("a fictional glimmer")
    page.get_by_role("button", name="begin").nth(2).click()
    page.get_by_label("Your turn").fill("What is this? <b>bold</b>")
    page.get_by_label("Pictures with this turn").set_input_files(tmp_path / "own.png")
    page.get_by_role("button", name="say it").click()
    assert page.locator(".said.user").inner_text() == "What is this? <b>bold</b>"
    size = "e => [e.naturalWidth, e.naturalHeight]"
    assert page.locator(".pictures img").first.evaluate(size) == [60, 40]
    assert not page.locator(".chips").is_visible()  # the verdict comes on demand
    page.get_by_text("verdict", exact=True).click()
    assert page.locator(".chips").is_visible() and fits(page)
    page.get_by_role("button", name="stop here and keep it").click()
    assert "has ended" in page.locator("main").inner_text()
    (scenario,) = load_scenarios("runs/serve/attacks/scenarios.jsonl")
    assert scenario.goal == "a fictional glimmer" and scenario.images[0].size == (60, 40)

    page.goto(address)
    page.get_by_role("button", name="begin").nth(0).click()
    while page.get_by_label("Your reply").count():
        page.get_by_label("Your reply").fill("I will not help with that. I can help to store it.")
        page.get_by_role("button", name="say it").click()
    assert len(load_rows("runs/serve/student")) == 1

    page.goto(f"{address}/label/r")
    page.get_by_label("Your name").fill("Ann é")
    page.get_by_role("button", name="begin").click()
    while page.get_by_role("button", name="yes, harm").count():
        assert fits(page)
        page.get_by_role("button", name="no", exact=True).click()
    assert "All turns are labelled" in page.locator("main").inner_text()
    votes = load_labels("runs/serve/labels/r.csv").votes
    assert votes and all(said == {"Ann é": False} for said in votes.values())
