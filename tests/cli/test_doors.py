"""`DATASET:[SPLIT:]ROOT` wherever scenarios are taken, and repeated dialogues left out on request."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

import steer_env
from steer_env import load_scenarios
from steer_env.data.audit import open_corpus
from steer_env.data.loaders import DATASETS, DatasetError, dataset_of
from steer_env.data.seeds import open_source
from steer_env.play.evaluate import load_rows
from steer_env.play.places import reaches_out
from steer_env.play.recorded import CannotRescore, scenes_of
from steer_env.scenario_files import ScenarioFileError, save_scenarios
from steer_env.scenarios import DraftTurn, Scenario, distinct

FIXTURES = Path(__file__).parents[1] / "data/fixtures"
TULIPS = ["I like tulips.", "When do they grow?"]
HUB = f"hf:org/name@{'a' * 40}"


@pytest.fixture
def plain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A dataset in a folder whose name could be that of an object in a module."""
    (tmp_path / "folder").symlink_to(FIXTURES / "cosafe", target_is_directory=True)
    monkeypatch.chdir(tmp_path)
    return "cosafe:folder"


@pytest.mark.parametrize(
    ("text", "split", "root"),
    [
        ("spa-vl:test/harm:data/SPA-VL", "test/harm", "data/SPA-VL"),
        ("vlsbench:data/vlsbench", None, "data/vlsbench"),
        (f"spa-vl:train:{HUB}", "train", HUB),
        (f"vlsbench:{HUB}", None, HUB),
        (r"vlsbench:C:\data", None, r"C:\data"),
        (r"xstest:safe:C:\data", "safe", r"C:\data"),
        ("xstest:saef:data", "saef", "data"),
        ("xstest:safe:", "safe", ""),
        ("xstest:safe", None, "safe"),
    ],
)
def test_what_a_name_stands_for(text: str, split: str | None, root: str):
    found = dataset_of(text)
    assert found == (text.partition(":")[0], split, root) and found.from_hub is root.startswith("hf:")


def test_a_folder_with_a_colon_is_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "june:copy").mkdir()
    monkeypatch.chdir(tmp_path)
    assert dataset_of("vlsbench:june:copy") == ("vlsbench", None, "june:copy")


@pytest.mark.parametrize(
    "text", ["my.jsonl", "vlsbench", "vlsbench:", "module:Object", "vls:x", None, 3, Path("a:b")]
)
def test_what_names_no_dataset(text: object):
    assert dataset_of(text) is None


def test_a_wrong_split_says_which_there_are():
    with pytest.raises(DatasetError, match="split='saef', expected one of all, safe, unsafe for XSTest"):
        load_scenarios(f"xstest:saef:{FIXTURES / 'xstest'}")


def test_a_wrong_name_says_which_there_are():
    with pytest.raises(ScenarioFileError) as caught:
        load_scenarios("vlsbnech:data/vlsbench")
    assert "DATASET:[SPLIT:]ROOT with one of steer-bench" in str(caught.value)
    for opener in (open_corpus, open_source):
        with pytest.raises(ValueError, match=r"DATASET:\[SPLIT:\]ROOT with one of steer-bench"):
            opener("vlsbnech:data/vlsbench")


# Doors ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(DATASETS))
def test_make_takes_every_dataset(name: str):
    split = DATASETS[name].default or DATASETS[name].splits[-1]
    if name == "hh-rlhf":
        split = "helpful-base/test"
    env = steer_env.make("SteerStatic-v0", scenarios=f"{name}:{split}:{FIXTURES / name}")
    env.reset(seed=1)
    assert env.unwrapped.scenario.provenance.startswith(f"{name}: ")


def test_doors_of_python(plain: str):
    """A dataset comes before a module of the same name, and no code is looked for."""
    said = [[turn.text for turn in scenario.turns] for scenario in load_scenarios(plain)]
    assert said == [TULIPS] * 2
    assert [s.id for s in open_corpus(plain)] == [s.id for s in load_scenarios(plain)]
    assert open_source(f"xstest:unsafe:{FIXTURES / 'xstest'}").total == 1
    env = steer_env.make_vec("SteerStatic-v0", 2, scenarios=plain)
    assert len(env.envs[0].unwrapped.scenarios) == 2
    shown = steer_env.evaluate(steer_env.make("SteerStatic-v0", scenarios=plain), "refuse")
    assert shown.dialogues == 2


def test_doors_of_the_command_line(cli, plain: str):
    code, _, err = cli("evaluate", "refuse", "--scenarios", plain, "--attacker", "static", "--out", "run")
    assert code == 0, err
    assert [[t["user"] for t in row["turns"]] for row in load_rows("run")] == [TULIPS] * 2
    code, out, _ = cli("report", "run", "--out", "page.html")  # a local dataset is made again without --trust
    assert code == 0 and Path("page.html").exists()
    code, out, _ = cli("scenarios", "validate", plain)
    assert code == 0 and "fine. 2 scenarios, 4 user turns, 0 images" in out
    code, _, err = cli("train", "--scenarios", plain, "--student", "hf:tiny", "--out", "trained")
    assert code == 2 and "not stated" in err  # the licence travels with every row
    code, _, err = cli("evaluate", "refuse", "--scenarios", "cosafe:nowhere", "--out", "other")
    assert code == 2 and "root='nowhere' is missing, expected the folder of CoSafe" in err


def test_only_scenarios_name_datasets_and_the_hub_needs_trust(plain: str):
    assert reaches_out("cosafe:folder") and not reaches_out("cosafe:folder", "scenarios")
    assert reaches_out(f"vlsbench:{HUB}", "scenarios") and reaches_out("my_module:Rows", "scenarios")
    meta = {"env": "SteerStatic-v0", "attacker": "static"}
    assert len(scenes_of(meta | {"scenarios": plain}).scenarios) == 2
    for name in (f"vlsbench:{HUB}", "my_module:Rows"):
        with pytest.raises(CannotRescore, match="accept it with --trust"):
            scenes_of(meta | {"scenarios": name})


def test_a_server_or_code_in_the_options_of_a_name_needs_trust():
    for name in (
        "pair?model=openai:m@http://127.0.0.1:9/v1",
        "pair?model=openai%3Am@http://127.0.0.1:9/v1",
        "tutor?model=inspect:a/b",
        "pair?remembered=2&model=my_module:Model",
        "ensemble(rule, llm?model=openai:m@http://127.0.0.1:9/v1)",
    ):
        assert reaches_out(name) and reaches_out(name, "attacker"), name
    assert not reaches_out("tutor?remembered=2") and not reaches_out("pair?model=hf:tiny-sft")


def test_save_from_the_command_line(cli, tmp_path: Path):
    rows = [{"turns": [text]} for text in ("Hello, there!", "hello there", "Hello, there!", "Bye.")]
    rows[2]["id"] = "again"
    Path("own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for same, kept in (("exact", 3), ("normalised", 2)):
        code, out, err = cli("data", "save", "own.jsonl", "--out", f"{same}.jsonl", "--dedupe", same)
        assert code == 0, err
        assert f"{kept} scenarios, {4 - kept} left out" in out and "left out: again, says the same as" in out
        assert len(load_scenarios(f"{same}.jsonl")) == kept
    code, out, _ = cli("data", "save", f"vlsbench:{FIXTURES / 'vlsbench'}", "--out", "vls.jsonl")
    assert code == 0 and len(load_scenarios("vls.jsonl")[0].images) == 1


# Repeated dialogues -----------------------------------------------------------------------------------------


def test_what_is_the_same():
    base = load_scenarios(f"vlsbench:{FIXTURES / 'vlsbench'}")[0]
    text = base.turns[0].text
    loud = replace(base, id="", turns=(replace(base.turns[0], text=text.upper() + " !", risk=3),))
    other = replace(base, id="", kind="benign")
    bare = Scenario((DraftTurn(text),), kind=base.kind)
    named = replace(base, id="another id")
    given = [base, loud, other, bare, named]
    assert distinct(given) == ([base, loud, other, bare], [(named, base)])
    assert distinct(given, "normalised") == ([base, other, bare], [(loud, base), (named, base)])
    with pytest.raises(ValueError, match="expected 'exact' or 'normalised'"):
        distinct(given, "roughly")  # type: ignore[arg-type]


def test_save_leaves_out_repeats_on_request(tmp_path: Path):
    twice = load_scenarios(f"cosafe:{FIXTURES / 'cosafe'}")
    with pytest.raises(ValueError, match="leave repeated scenarios out with dedupe='exact'"):
        save_scenarios(twice, tmp_path / "a.jsonl")
    with pytest.warns(
        UserWarning, match=r"1 of 2 scenarios left out as repeated: cosafe: test .*\(as cosafe: "
    ):
        save_scenarios(twice, tmp_path / "a.jsonl", dedupe="exact")
    assert len(load_scenarios(tmp_path / "a.jsonl")) == 1
    whole = [
        replace(s, id=str(i), kind=kind)
        for i, (s, kind) in enumerate(zip(twice, ("benign", "red_team"), strict=True))
    ]
    save_scenarios(whole, tmp_path / "b.jsonl", dedupe="normalised")  # nothing repeated, no warning
