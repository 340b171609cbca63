"""Sources, assignment to kinds, resuming, what is refused before work starts."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import steer_env
from steer_env.data import DatasetError, LicenceGate
from steer_env.data.seeds import (
    Rejected,
    RuleGenerator,
    SeedsConfig,
    make_seeds,
    open_source,
    seed_details,
)
from steer_env.data.seeds.rows import Assigner
from steer_env.records import read_jsonl
from steer_env.runs import RunExists
from steer_env.scenarios import KINDS, DraftTurn, Scenario


class Killed(Exception):
    pass


def kill_after(rows: int):
    def progress(label: str, done: int, total: int) -> None:
        if done == rows:
            raise Killed

    return progress


@pytest.mark.parametrize("rows", [1, 31, 32, 33, 59])
def test_stopped_anywhere_and_resumed_gives_the_same_bytes(
    make_world, tmp_path: Path, bytes_of, rows: int
) -> None:
    whole = bytes_of(make_world("whole", 60))
    with pytest.raises(Killed):
        make_world("cut", 60, progress=kill_after(rows))
    for path in (tmp_path / "cut").glob("*.jsonl"):  # what a killed process may leave behind
        with path.open("ab") as file:
            file.write(b'{"id": "half a li')
    (tmp_path / "cut/images/.00.png.1-0a.part").write_bytes(b"\x89PN")
    done: list[int] = []
    make_world("cut", 60, resume=True, progress=lambda label, n, total: done.append(n))
    assert bytes_of(tmp_path / "cut") == whole
    assert done == list(range(rows + 1, 61))  # nothing made twice
    make_world("cut", 60, resume=True, progress=kill_after(1))  # finished: nothing left to do
    assert bytes_of(tmp_path / "cut") == whole


def test_killed_with_sigkill_and_resumed_gives_the_same_bytes(make_world, tmp_path: Path, bytes_of) -> None:
    command = [sys.executable, "-m", "steer_env.cli.main", "data", "seeds", "--count", "150"]
    command += ["--batch-size", "2", "--out", str(tmp_path / "cut")]
    for wanted in (10, 90):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and _lines(tmp_path / "cut") < wanted:
            time.sleep(0.002)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert wanted <= _lines(tmp_path / "cut") < 150
        command.append("--resume")
    make_world("cut", 150, resume=True)
    assert bytes_of(tmp_path / "cut") == bytes_of(make_world("whole", 150))


def _lines(folder: Path) -> int:
    return sum(path.read_bytes().count(b"\n") for path in folder.glob("*.jsonl"))


def test_same_seed_same_bytes_another_seed_other_rows(make_world, bytes_of) -> None:
    first, again, other = (make_world(n, 12, seed=s) for n, s in (("a", 0), ("b", 0), ("c", 1)))
    assert bytes_of(first) == bytes_of(again)
    groups = [
        {s.group for k in KINDS for s in steer_env.load_scenarios(f / f"{k}.jsonl")} for f in (first, other)
    ]
    assert not groups[0] & groups[1]


def test_a_folder_is_not_mixed(make_world, tmp_path: Path) -> None:
    make_world("a", 6)
    with pytest.raises(RunExists, match="continue it with --resume"):
        make_world("a", 6)
    with pytest.raises(RunExists, match=r"noise_share: 0.1 there, 0.5 now"):
        make_world("a", 6, resume=True, noise_share=0.5)
    with pytest.raises(RunExists, match="rows"):
        make_world("a", 7, resume=True)
    (tmp_path / "other").mkdir()
    (tmp_path / "other/notes.txt").write_text("mine")
    with pytest.raises(RunExists, match="holds other files"):
        make_world("other", 6)
    assert (tmp_path / "other/notes.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"kinds": ("benin",)}, "kinds=.*expected at least one of benign.*did you mean 'benign'"),
        ({"kinds": ("benign", "benign")}, "each once"),
        ({"kinds": ("nice",)}, "kinds=.*nice"),
        ({"seed": -1}, "seed=-1, expected an integer of at least 0"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"mean_turns": 11.0}, "mean=11.0"),
        ({"typography_share": 1.01}, "typography_share=1.01"),
    ],
)
def test_wrong_settings_are_refused(options: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        SeedsConfig(**options)


# Sources --------------------------------------------------------------------------------


def test_sources_say_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"source='nowhere.jsonl' is neither world"):
        open_source("nowhere.jsonl")
    with pytest.raises(ValueError, match="world:SPLIT with one of train, sft, bench"):
        open_source("world:test")
    with pytest.raises(DatasetError, match="root="):
        open_source(f"vlsbench:{tmp_path / 'none'}")


def test_licence_gates_hold_and_open_by_name(own_rows) -> None:
    rows = [{"turns": ["What is it?"], "id": "a", "provenance": "photos: 1", "licence": "CC-BY-NC-4.0"}]
    path = str(own_rows(rows))
    with pytest.raises(LicenceGate, match="1 scenario of photos: non-commercial"):
        open_source(path)
    with pytest.raises(ValueError, match="allow="):
        open_source(path, allow=("nonsense",))
    assert open_source(path, allow=("photos",)).total == 1
    with pytest.raises(LicenceGate, match="no-training"):  # the bench's stream is held out
        open_source("world:bench", 3)
    assert open_source("world:bench", 3, allow=("no-training",)).total == 3


def test_own_rows_become_benign_seeds_by_rule(own_rows, tmp_path: Path, rule: RuleGenerator) -> None:
    rows = [
        {"turns": [f"How tall is tower {i}?"], "id": f"t{i}", "picture": i, "licence": "CC0"}
        for i in range(5)
    ]
    rows.append({"turns": ["Which towers are there?"], "id": "t5"})
    rows.append({"turns": ["One.", "Two."], "id": "long"})
    rows.append({"turns": ["Which towers are there?"], "id": "t5 again"})
    rows.append({"turns": ["Something risky."], "id": "risky", "kind": "obfuscated"})
    source = open_source(str(own_rows(rows)), kinds=("benign",))
    summary = make_seeds(tmp_path / "out", source, rule, SeedsConfig(kinds=("benign",)))
    lost = {row["id"]: row["reason"] for row in read_jsonl(tmp_path / "out/rejected.jsonl")}
    assert lost == {"long": "not_single_turn", "t5 again": "duplicate", "risky": "other_kind"}
    made = steer_env.load_scenarios(tmp_path / "out/benign.jsonl")
    assert len(made) == 6 == summary["kept"] and summary["keep_rate"] == pytest.approx(6 / 9, abs=1e-4)
    for seed in made:
        assert seed.turns[-1].text in [row["turns"][0] for row in rows]
        assert 2 <= len(seed) <= 10 and len({t.text for t in seed.turns}) == len(seed)
        assert len(seed.images) == (0 if seed_details(seed)["row_id"] == "t5" else 1)
    assert {s.licence for s in made} == {"CC0", ""}


FIXTURES = Path(__file__).parents[1] / "fixtures"


def test_a_dataset_is_a_source(tmp_path: Path, rule: RuleGenerator) -> None:
    with pytest.raises(LicenceGate, match=r"VLGuard|vlguard"):
        open_source(f"vlguard:train:{FIXTURES / 'vlguard'}")
    source = open_source(
        f"vlguard:train:{FIXTURES / 'vlguard'}", kinds=("benign",), allow=("non-commercial",)
    )
    rows = list(source.open())
    assert source.total == len(rows) and [r.id for r in source.open()] == [r.id for r in rows]
    summary = make_seeds(tmp_path / "out", source, rule, SeedsConfig(kinds=("benign",), noise_share=1.0))
    assert summary["kept"] == sum(r.kind == "benign" for r in rows) > 0
    for seed in steer_env.load_scenarios(tmp_path / "out/benign.jsonl"):
        (origin,) = [r for r in rows if r.id == seed_details(seed)["row_id"]]
        assert (seed.licence, seed.group, seed.category) == (origin.licence, origin.group, origin.category)
        assert seed.provenance.startswith("vlguard: train")  # what licence gates go by
        assert seed.images[0].size == origin.images[0].size and seed.images != origin.images
    assert open_source(f"vlguard:train:{FIXTURES / 'vlguard'}", 1, allow=("non-commercial",)).total == 1


def test_a_changed_source_is_noticed(own_rows, tmp_path: Path, rule: RuleGenerator) -> None:
    config = SeedsConfig(kinds=("benign",))
    source = open_source(str(own_rows([{"turns": ["One?"], "id": "1"}])), kinds=config.kinds)
    make_seeds(tmp_path / "out", source, rule, config)
    source = open_source(str(own_rows([{"turns": ["Two?"], "id": "2"}])), kinds=config.kinds)
    with pytest.raises(RunExists, match="source"):
        make_seeds(tmp_path / "out", source, rule, config, resume=True)


# Assignment --------------------------------------------------------------------------------


def row(name: str, kind: str = "obfuscated", group: str = "", images: tuple = ()) -> Scenario:
    turn = DraftTurn(f"question {name}?", tuple(range(len(images))))
    return Scenario((turn,), images, kind=kind, group=group, id=name)


def test_a_group_and_a_picture_stay_with_one_kind() -> None:
    import numpy as np

    from steer_env.images import Image

    one, two = (Image.from_array(np.full((4, 4, 3), level, dtype=np.uint8)) for level in (1, 2))
    assigner = Assigner(KINDS)

    def assign(*args, **options) -> str:
        made = row(*args, **options)
        kind = assigner.assign(made, made.images)
        return kind.reason if isinstance(kind, Rejected) else kind

    assert assign("a", group="g") == "obfuscated"
    assert assign("b") == "red_team"  # risky rows are shared out evenly
    assert assign("c", group="g", images=(one,)) == "obfuscated"
    assert assign("d", images=(one,)) == "obfuscated"
    assert assign("e", "benign", images=(one,)) == "shared_unit"
    assert assign("f", "benign", images=(two,)) == "benign"
    assert assign("h", images=(two,)) == "shared_unit"
    assert assign("i", images=(one, two)) == "shared_unit"
    assert assign("j") == "red_team" and assign("k") == "red_team"  # three obfuscated by now
