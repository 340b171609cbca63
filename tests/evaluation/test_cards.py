"""Cards of environments, students and policies: what they say is so, and the hub's own library reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("huggingface_hub")

from huggingface_hub import ModelCard
from huggingface_hub.repocard import RepoCard

import steer_env
from steer_env.evaluation.measures import measure
from steer_env.ids import SPECS
from steer_env.models.shipped import SHIPPED, read_card
from steer_env.report.cards import MEASURES, environment_card, environment_facts, shipped_cards
from steer_env.report.outputs import write_reports
from steer_env.testing.toys import toy_scenarios

HORIZONS = {"SteerSingleTurn-v0": "1 turn (", "SteerLateRisk-v0": "8 to 10 turns ("}


@pytest.mark.parametrize("id", ["SteerEscalation-v0", "SteerSingleTurn-v0", "SteerLateRisk-v0"])
def test_facts_of_the_environments(id: str) -> None:
    facts = environment_facts(id, dialogues=4)
    assert facts["horizon"].startswith(HORIZONS.get(id, "2 to 10 turns ("))
    assert "in 4 of 4 dialogues" in facts["optimum"] and "mean 1.000" in facts["optimum"]
    assert "TCSR are in [0, 1]" in facts["reward range"]
    version = steer_env.world.WORLD_VERSION
    assert facts["history"].startswith(f"v0: at world version {version}, judge version ")
    assert set(facts["observation of the student"].split(", ")) == {"`images`", "`transcript`"}


def test_an_environment_of_ones_own_has_a_card() -> None:
    steer_env.register("MyCard-v3", scenarios=toy_scenarios(), summary="toys | of mine")
    try:
        facts = environment_facts("MyCard-v3")
        lengths = sorted({len(one) for one in toy_scenarios()})
        assert facts["horizon"].startswith(str(lengths[0])) and facts["optimum"] == "not known"
        assert facts["history"].startswith("v3: ") and "scenarios of its own" in facts["options of the world"]
        card = RepoCard(environment_card("MyCard-v3"))
        assert (
            card.data.to_dict()["pretty_name"] == "MyCard-v3" and "gymnasium" in card.data.to_dict()["tags"]
        )
        assert r"Toys \| of mine." in card.text
    finally:
        del SPECS["MyCard-v3"]


def test_cards_of_the_shipped_students_hold_what_was_measured() -> None:
    cards = shipped_cards()
    assert list(cards) == list(SHIPPED)
    for name, text in cards.items():
        bench, data = read_card(name)["bench"], ModelCard(text).data
        assert (data.model_name, data.license, data.library_name) == (name, "apache-2.0", "transformers")
        shown = {one.metric_type: one.metric_value for one in data.eval_results}
        wanted = {long: bench[short] for long, (short, _) in MEASURES.items() if short in bench}
        assert shown == wanted and len(shown) >= 5
        for one in data.eval_results:
            assert one.dataset_type == f"steer_env/{bench['env']}" and one.dataset_split == "bench"
            assert one.dataset_args["dialogues"] == bench["dialogues"]


def test_a_report_writes_the_results_of_all_suites(make_row: Any, tmp_path: Path) -> None:
    rows = [
        make_row(10, 10, seed=1, group="a", suite="bench"),
        make_row(1, 1, seed=2, group="b", suite="ood"),
    ]
    metas = {("my *policy*", part): {"env": "SteerEscalation-v0", "split": part} for part in ("bench", "ood")}
    paths = write_reports({"my *policy*": rows}, tmp_path, formats=["hf"], metas=metas, replicates=50)
    path = paths["hf my *policy*"]
    assert path == tmp_path / "hf/my-policy/README.md"
    card = ModelCard.load(path)
    assert card.data.model_name == "my *policy*" and {r.dataset_split for r in card.data.eval_results} == {
        "bench",
        "ood",
    }
    for part, row in zip(("bench", "ood"), rows, strict=True):
        summary = measure([row], replicates=50)
        for one in card.data.eval_results:
            if one.dataset_split == part:
                estimate = getattr(summary, one.metric_type)
                assert (
                    one.metric_value == pytest.approx(estimate.value) and one.metric_args["n"] == estimate.n
                )


def test_what_is_unscored_is_no_result(make_row: Any, tmp_path: Path) -> None:
    row = make_row(None, None, seed=1, group="a")
    paths = write_reports({"p": [row]}, tmp_path, formats=["hf"], replicates=50)
    text = paths["hf p"].read_text()
    assert "multi_turn_safety" not in text and ModelCard(text).data.tags
