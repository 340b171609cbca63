"""Licence gates of real datasets."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from steer_env.data import DATASETS, LicenceGate, check_training_allowed, load_dataset_scenarios
from steer_env.data.licences import restrictions
from steer_env.scenarios import DraftTurn, Scenario
from steer_env.world import WorldSource

FIXTURES = Path(__file__).with_name("fixtures")

CLOSED = {
    "steer-bench": ("unstated",),
    "steer-sft": ("unstated",),
    "steer-rl": ("unstated",),
    "beavertails-v": ("non-commercial",),
    "saferlhf-v": ("non-commercial",),
    "mm-safetybench": ("non-commercial",),
    "vlguard": ("non-commercial",),
    "safemt": ("non-commercial",),
    "mtmcs-bench": ("unstated",),
    "safedialbench": ("unstated",),
    "cosafe": ("unstated",),
    "mmds": ("non-commercial",),
    "red-queen": ("unstated",),
    "reveal": ("unstated",),
    "mhj": ("non-commercial",),
    "mossbench": ("no-training",),
}


def test_gates_of_every_dataset():
    assert {
        name: restrictions(spec.licence) for name, spec in DATASETS.items() if restrictions(spec.licence)
    } == CLOSED


def test_closed_gates_name_what_they_hold_back_and_how_to_override():
    beaver = load_dataset_scenarios("beavertails-v", FIXTURES / "beavertails-v")
    moss = load_dataset_scenarios("mossbench", FIXTURES / "mossbench")
    with pytest.raises(LicenceGate) as caught:
        check_training_allowed([*beaver, *moss])
    assert caught.value.closed == {("non-commercial", "beavertails-v"): 2, ("no-training", "mossbench"): 1}
    message = str(caught.value)
    assert "2 scenarios of beavertails-v: non-commercial" in message and "allow='mossbench'" in message
    with pytest.raises(LicenceGate) as caught:
        check_training_allowed([*beaver, *moss], allow=["non-commercial"])
    assert caught.value.closed == {("no-training", "mossbench"): 1}
    check_training_allowed([*beaver, *moss], allow=["non-commercial", "mossbench"])
    check_training_allowed(beaver, allow="beavertails-v")


def test_open_licences_pass():
    world = [WorldSource().scenario(i) for i in range(6)]
    own = Scenario((DraftTurn("Hello."),))
    spa = load_dataset_scenarios("spa-vl", FIXTURES / "spa-vl", "train")
    check_training_allowed([*world, own, *spa])


@pytest.mark.parametrize(
    ("licence", "gates"),
    [
        ("CC BY-NC-SA 4.0", ("non-commercial",)),
        ("cc-by-nc-4.0", ("non-commercial",)),
        ("noncommercial research, no training", ("non-commercial", "no-training")),
        ("research purposes only (terms of the release)", ("non-commercial",)),
        ("Apache-2.0", ()),
        ("MIT, see INCLUDED.txt", ()),
        ("", ()),
    ],
)
def test_a_users_own_licence_texts(licence: str, gates: tuple[str, ...]):
    assert restrictions(licence) == gates
    scenario = replace(Scenario((DraftTurn("Hello."),)), licence=licence)
    if gates:
        with pytest.raises(LicenceGate, match="an unnamed source"):
            check_training_allowed([scenario])
    check_training_allowed([scenario], allow=gates)


def test_unknown_overrides_are_refused():
    with pytest.raises(ValueError, match=r"allow=\['noncommercial'\], expected gates"):
        check_training_allowed([], allow=["noncommercial"])
