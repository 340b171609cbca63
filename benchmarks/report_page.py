"""How long `report.html` takes to open: 2,000 dialogues of 8 turns in headless Chromium.

    python benchmarks/report_page.py            # needs playwright and a Chromium

From the start of the navigation until the list of dialogues is on the page, median of several new tabs.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import steer_env
from steer_env.play.evaluate import evaluate, load_rows
from steer_env.play.recorded import pictures_of
from steer_env.report.html import write_html


def main() -> None:
    """Write a page and open it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dialogues", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        vec = steer_env.make_vec("SteerEscalation-v0", 64, split="bench")
        agents = steer_env.make_agent("tutor"), steer_env.make_agent("random")
        evaluate(vec, *agents, range(args.dialogues), folder, replicates=50)
        started = time.perf_counter()
        pictures = pictures_of({"env": "SteerEscalation-v0", "split": "bench"})
        path = write_html({"random": load_rows(folder)}, Path(folder) / "report.html", pictures=pictures)
        size = path.stat().st_size / 1e6
        print(f"{args.dialogues} dialogues: written in {time.perf_counter() - started:.1f} s, {size:.1f} MB")
        seconds = opened(path, args.repeats)
    middle = statistics.median(seconds)
    print(f"open: median {middle:.2f} s, {min(seconds):.2f} to {max(seconds):.2f} ({len(seconds)} times)")


def opened(path: Path, repeats: int) -> list[float]:
    """Return the seconds that each opening took."""
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        seconds = []
        for _ in range(repeats):
            page = browser.new_page()
            started = time.perf_counter()
            page.goto(path.as_uri())
            page.wait_for_selector("#count:not(:empty)")
            page.wait_for_selector("details.dialogue")
            seconds.append(time.perf_counter() - started)
            page.close()
        browser.close()
    return seconds


if __name__ == "__main__":
    main()
