"""Scenario -> row -> scenario is the identity, for our files and for the two schemas of the paper's code."""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steer_env import load_scenarios
from steer_env.data import from_bench_row, from_rl_row, schemas, to_bench_row, to_rl_row
from steer_env.images import Image
from steer_env.scenario_files import save_scenarios
from steer_env.scenarios import KINDS, STRATEGIES, TECHNIQUES, DraftTurn, Scenario
from steer_env.world import WorldSource

# JSON in UTF-8 holds every text but lone surrogates.
TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=30)
SAID = TEXT.filter(str.strip)


def picture(number: int) -> Image:
    return Image.from_array(np.full((2, 3, 3), number, dtype=np.uint8))


@st.composite
def scenarios(draw: st.DrawFn) -> Scenario:
    counts = draw(st.lists(st.integers(0, 2), min_size=1, max_size=5))
    images = tuple(picture(draw(st.integers(0, 9)) + 10 * i) for i in range(sum(counts)))
    turns, start = [], 0
    for count in counts:
        shown = tuple(range(start, start + count))
        turns.append(DraftTurn(draw(SAID), shown, draw(st.integers(0, 5)), draw(TEXT)))
        start += count
    return Scenario(
        tuple(turns),
        images,
        kind=draw(st.sampled_from(KINDS)),
        goal=draw(TEXT),
        strategy=draw(st.sampled_from(("", *STRATEGIES))),
        technique=draw(st.sampled_from(("", *TECHNIQUES))),
        category=draw(TEXT),
        mechanism=draw(TEXT),
        group=draw(TEXT),
        provenance=draw(TEXT),
        licence=draw(TEXT),
        id=draw(st.sampled_from(("", "own-name"))),
    )


def names(scenario: Scenario) -> list[str]:
    return [f"images/{image.digest}.png" for image in scenario.images]


def opened(scenario: Scenario, paths: list[str]) -> list[Image]:
    table = dict(zip(names(scenario), scenario.images, strict=True))
    return [table[path] for path in paths]


def through_json(row: dict) -> dict:
    return json.loads(json.dumps(row, ensure_ascii=False))


@given(scenarios())
def test_our_files(scenario: Scenario):
    with tempfile.TemporaryDirectory() as folder:
        (again,) = load_scenarios(save_scenarios([scenario], Path(folder) / "a.jsonl"))
        assert [i.array().tolist() for i in again.images] == [i.array().tolist() for i in scenario.images]
    # A picture made from an array becomes a PNG file, whose digest is that of the file.
    assert replace(again, images=scenario.images) == scenario


@given(scenarios())
def test_bench_schema(scenario: Scenario):
    row = through_json(to_bench_row(scenario, names(scenario)))
    assert from_bench_row(row, opened(scenario, schemas.bench_images(row))) == scenario


@given(scenarios())
def test_rl_schema(scenario: Scenario):
    row = through_json(to_rl_row(scenario, names(scenario)))
    assert from_rl_row(row, opened(scenario, schemas.rl_images(row))) == scenario


def plain(scenario: Scenario, **kept: str) -> Scenario:
    """Return what is left of a scenario when only `kept`, ids, texts and pictures survive."""
    lost = dict.fromkeys(
        ("goal", "strategy", "technique", "category", "mechanism", "group", "provenance", "licence"), ""
    )
    return replace(scenario, truth=None, **{**lost, **kept})


@given(scenarios())
def test_bench_rows_without_extras_hold_what_the_authors_keys_can(scenario: Scenario):
    if len(scenario.images) > 1 or any(t.images for t in scenario.turns[1:]):
        with pytest.raises(ValueError, match="pass extras=True"):
            to_bench_row(scenario, names(scenario), extras=False)
        return
    row = through_json(to_bench_row(scenario, names(scenario), extras=False))
    assert set(row) == {"question_id", "image", "messages_fixed", "category", "risk_trajectory"}
    expected = plain(
        replace(scenario, turns=tuple(replace(t, goal="") for t in scenario.turns), kind="obfuscated"),
        category=scenario.category,
    )
    assert from_bench_row(row, scenario.images) == expected


@given(scenarios())
def test_rl_rows_without_extras_hold_what_the_authors_keys_can(scenario: Scenario):
    if any(t.images for t in scenario.turns[1:]):
        with pytest.raises(ValueError, match="pass extras=True"):
            to_rl_row(scenario, names(scenario), extras=False)
        return
    row = through_json(to_rl_row(scenario, names(scenario), extras=False))
    assert set(row["metadata"]) == {"question_id", "image", "rest_messages"}
    bare = tuple(replace(t, goal="", risk=0) for t in scenario.turns)
    assert from_rl_row(row, scenario.images) == plain(replace(scenario, turns=bare))


@settings(max_examples=60)
@given(st.integers(0, 10**6), st.sampled_from(("train", "sft", "bench")))
def test_the_built_in_world(index: int, split: str):
    scenario = WorldSource(split=split).scenario(index)
    for write, read in ((to_bench_row, from_bench_row), (to_rl_row, from_rl_row)):
        assert read(through_json(write(scenario, names(scenario))), scenario.images) == scenario


def test_wrong_numbers_of_pictures_are_refused():
    scenario = Scenario((DraftTurn("Hello.", (0,)),), (picture(1),))
    with pytest.raises(ValueError, match="images has 0 paths, expected 1"):
        to_bench_row(scenario)
    row = to_bench_row(scenario, ["a.png"]) | {"steer_env": {"turn_images": [2]}}
    with pytest.raises(schemas.SchemaError, match="speaks of 1 turns and 2 pictures"):
        from_bench_row(row, [picture(1)])


@pytest.mark.parametrize(
    ("values", "levels"),
    [
        ([], [0, 0]),
        ([1.0, 5.0], [1, 5]),
        ([0.0, 1.0], [0, 1]),
        ([0.0, 0.5], [1, 3]),
        ([0.25, 1.0], [2, 5]),
        ([1.0, 9.0, 2.0], [1, 2]),  # one value a message, the assistant's among them
    ],
)
def test_risk_trajectories(values: list[float], levels: list[int]):
    messages = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
    ]
    row = {
        "question_id": "1",
        "image": "",
        "messages_fixed": messages,
        "category": "",
        "risk_trajectory": values,
    }
    assert [t.risk for t in from_bench_row(row).turns] == levels


def test_missing_keys():
    with pytest.raises(
        schemas.SchemaError, match=r"missing keys \[.messages_fixed.\]; found \['question_id'"
    ):
        from_bench_row({"question_id": "1", "image": ""})
    with pytest.raises(schemas.SchemaError, match="expected either to name pictures"):
        from_rl_row({"question": [], "metadata": {"rest_messages": [], "question_id": "1"}})
    with pytest.raises(schemas.SchemaError, match=r"metadata\.rest_messages"):
        from_rl_row({"question": [], "images": [], "metadata": {"question_id": "1"}})
