"""Every loader on a fixture in the dataset's true layout; every refusal."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from steer_env import load_scenarios
from steer_env.data import DATASETS, DatasetError, load_dataset_scenarios, loaders
from steer_env.data.loaders.base import _wide
from steer_env.data.loaders.single import FIGSTEP_PROMPT
from steer_env.scenario_files import save_scenarios

FIXTURES = Path(__file__).with_name("fixtures")

KNOT = ['Play a pirate, then tell me, "in rhyme",\nhow to tie a knot.']
KITE = "Explain how to fly the thing in the image"
FERN = ["My neighbour wants to repot a fern.", "How do I notice it early?"]
CAKE = ["I like cakes.", "Which ones are flat?", "Isn't this one round?"]

# name, split -> what each scenario says: user turns, kind, number of pictures, goal.
EXPECTED: dict[tuple[str, str], list[tuple[list[str], str, int, str]]] = {
    ("steer-bench", "all"): [
        *[(["How often do I water this fern?", "And in winter?"], "obfuscated", 1, "")] * 4,
        (["How often do I water this fern?", "And in winter?"], "obfuscated", 0, ""),
    ],
    ("steer-bench", "dys"): [(["How often do I water this fern?", "And in winter?"], "obfuscated", 0, "")],
    ("steer-sft", "train"): [(["Is this a fern?", "How tall?"], "obfuscated", 1, "")],
    ("steer-rl", "train"): [
        (["What kind of bread is this?", "How long does it keep?"], "obfuscated", 1, ""),
        (["What does the label say?"], "benign", 1, ""),
    ],
    ("beavertails-v", "train"): [(["Which plant grows well in shade?"], "obfuscated", 1, "")] * 2,
    ("beavertails-v", "evaluation"): [(["Which plant grows well in shade?"], "obfuscated", 1, "")] * 2,
    ("saferlhf-v", "train"): [(["How do I descale a kettle?"], "obfuscated", 1, "")],
    ("spa-vl", "train"): [(["Which bird is this?"], "obfuscated", 1, "")],
    ("spa-vl", "validation"): [(["Which bird is this?"], "obfuscated", 1, "")],
    ("spa-vl", "test/harm"): [(["Which tree is this?"], "obfuscated", 1, "")],
    ("spa-vl", "test/help"): [(["Which tree is this?"], "benign", 1, "")],
    ("mm-safetybench", "SD"): [(["The picture shows soup. How is it made?"], "obfuscated", 1, "")] * 2,
    ("mm-safetybench", "SD_TYPO"): [(["The picture shows a dish. How is it made?"], "obfuscated", 1, "")] * 2,
    ("mm-safetybench", "TYPO"): [(["The picture shows a dish. How is it made?"], "obfuscated", 1, "")] * 2,
    ("mm-safetybench", "text"): [(["Tell me about soup."], "obfuscated", 0, "")] * 2,
    ("vlsbench", "test"): [(["What could I do with this on a Sunday?"], "obfuscated", 1, "")],
    ("vlguard", "train"): [
        (["What is on the table?"], "benign", 1, ""),
        (["Who is the thief of the cup?"], "obfuscated", 1, ""),
        (["What stands on the box?"], "obfuscated", 1, ""),
    ],
    ("jailbreakv-28k", "28k"): [
        (KNOT, "red_team", 1, "How do I tie a knot?")
    ],
    ("jailbreakv-28k", "mini"): [
        (KNOT, "red_team", 1, "How do I tie a knot?")
    ],
    ("harmbench-multimodal", "all"): [
        ([KITE], "obfuscated", 1, KITE)
    ],
    ("figstep", "safebench"): [([FIGSTEP_PROMPT], "red_team", 1, "How do I bake bread?")],
    ("figstep", "tiny"): [([FIGSTEP_PROMPT], "red_team", 1, "How do I bake bread?")],
    ("safemt", "1_turn"): [(["What is on the board?"], "obfuscated", 1, "How do I win at chess?")],
    ("safemt", "2_turn"): [
        (["What is on the board?", "Who moves first?"], "obfuscated", 1, "How do I win at chess?")
    ],
    ("safemt", "4_turn"): [
        (["What is on the board?", "Who moves first?", "And then?", "How long does it take?"],
         "obfuscated", 1, "How do I win at chess?")
    ],
    ("mtmcs-bench", "type_a"): [
        (["What is this?", "How is it used?", last], kind, images, "")
        for images in (1, 0)
        for last, kind in (("How is it kept?", "benign"), ("How is it thrown?", "obfuscated"))
    ],
    ("mtmcs-bench", "type_b"): [
        ([first, "How is it used?", "How is it kept?"], kind, images, "")
        for images in (1, 0)
        for first, kind in (("What is this?", "benign"), ("How is it thrown?", "obfuscated"))
    ],
    ("safemtdata", "Attack_600"): [
        (["Tell me about a cook.", "What did she put on bread?", "How did she make it?"],
         "red_team", 0, "How is jam made?")
    ],
    ("safemtdata", "1K"): [
        (["Tell me about a cook.", "What did she put on bread?"], "red_team", 0, "How is jam made?")
    ],
    ("safedialbench", "en"): [(["My cat sleeps a lot.", "Why?"], "red_team", 0, "")],
    ("safedialbench", "zh"): [(["My cat sleeps a lot.", "Why?"], "red_team", 0, "")],
    ("cosafe", "test"): [(["I like tulips.", "When do they grow?"], "red_team", 0, "")] * 2,
    ("hh-rlhf", "harmless-base/train"): [(["What is tea?", "And mate?"], "obfuscated", 0, "")],
    ("hh-rlhf", "helpful-base/test"): [(["What is tea?", "And mate?"], "benign", 0, "")],
    ("mhj", "test"): [(["Say a rhyme.", "One more."], "red_team", 0, "")],
    ("xstest", "all"): [
        (["How do I kill a process?"], "benign", 0, ""),
        (["How do I kill time in class?"], "obfuscated", 0, ""),
    ],
    ("xstest", "unsafe"): [(["How do I kill time in class?"], "obfuscated", 0, "")],
    ("mossbench", "test"): [(["Which game fits here?"], "benign", 1, "")],
    ("mmds", "train"): [
        (["What is this?", "Does it fit in here?"], kind, 2, "")
        for kind in ("red_team", "benign", "obfuscated")
    ],
    ("mmds", "val"): [(["What is this?", "Does it fit in here?"], "benign", 2, "")],
    ("mmds", "test"): [(["What is this?", "Does it fit in here?"], "obfuscated", 2, "")],
    ("red-queen", "attack"): [(FERN, "red_team", 0, "repot a fern")],
    ("red-queen", "ablation"): [(FERN, "red_team", 0, "repot a fern")],
    **{
        ("reveal", split): [(CAKE, "red_team", 1, "Is this cake round?")]
        for split in ("misinformation", "sexual", "violence")
    },
}  # fmt: skip


def test_every_dataset_is_covered():
    assert {name for name, _ in EXPECTED} == set(DATASETS)


@pytest.mark.parametrize(("name", "split"), EXPECTED, ids="-".join)
def test_round_trip(name: str, split: str, tmp_path: Path):
    scenarios = load_dataset_scenarios(name, FIXTURES / name, split)
    told = [([t.text for t in s.turns], s.kind, len(s.images), s.goal) for s in scenarios]
    assert told == EXPECTED[name, split]
    for scenario in scenarios:
        assert scenario.licence == DATASETS[name].licence and scenario.licence
        assert scenario.provenance.startswith(f"{name}: ")
        assert scenario.group.startswith(f"{name}:")
        for image in scenario.images:
            assert image.size == (6, 5)
    if len({s.id for s in scenarios}) == len(scenarios):  # our own files hold every scenario once
        saved = save_scenarios(scenarios, tmp_path / "own.jsonl")
        again = load_scenarios(saved)
        assert again == scenarios or [s.id for s in again] == [s.id for s in scenarios]
        for before, after in zip(scenarios, again, strict=True):
            assert before.turns == after.turns
            assert (before.kind, before.goal, before.group) == (after.kind, after.goal, after.group)
            assert (before.category, before.licence, before.provenance) == (
                after.category, after.licence, after.provenance)  # fmt: skip
            assert [i.array().tobytes() for i in before.images] == [i.array().tobytes() for i in after.images]


def test_steer_bench_reads_risk_and_category():
    scenarios = load_dataset_scenarios("steer-bench", FIXTURES / "steer-bench")
    assert [[t.risk for t in s.turns] for s in scenarios] == [[1, 2], [1, 2], [1, 2], [1, 2], [1, 2]]
    assert [s.category for s in scenarios] == ["garden"] * 5
    assert [s.mechanism for s in scenarios] == ["beavertails", "mmsafety", "vlsbench", "spa", "dys"]
    assert scenarios[0].id == "beavertails-1"


def test_groups_hold_together_what_must_not_be_split():
    beaver = load_dataset_scenarios("beavertails-v", FIXTURES / "beavertails-v")
    assert len({s.group for s in beaver}) == 1 and len({s.images[0].digest for s in beaver}) == 2
    assert len({s.group for s in load_dataset_scenarios("xstest", FIXTURES / "xstest")}) == 1
    typo = load_dataset_scenarios("mm-safetybench", FIXTURES / "mm-safetybench", "TYPO")
    text = load_dataset_scenarios("mm-safetybench", FIXTURES / "mm-safetybench", "text")
    assert [s.group for s in typo] == [s.group for s in text] and len({s.group for s in typo}) == 2


def test_options():
    (scenario,) = load_dataset_scenarios("figstep", FIXTURES / "figstep", prompt="Fill in the list.")
    assert scenario.turns[0].text == "Fill in the list."
    rows = load_dataset_scenarios("mtmcs-bench", FIXTURES / "mtmcs-bench", "type_a", variants=True)
    assert len(rows) == 8 and len({i.digest for s in rows for i in s.images}) == 3


# Refusals -------------------------------------------------------------------------------------------------


def copy(name: str, tmp_path: Path) -> Path:
    target = tmp_path / name
    shutil.copytree(FIXTURES / name, target)
    return target


def refused(name: str, root: Path, split: str | None = None) -> str:
    with pytest.raises(DatasetError) as caught:
        load_dataset_scenarios(name, root, split)
    return str(caught.value)


def test_unknown_dataset_and_split_show_the_known(tmp_path: Path):
    assert "expected one of steer-bench" in refused("vls", tmp_path)
    message = refused("spa-vl", FIXTURES / "spa-vl", "test")
    assert "split='test'" in message and "test/harm" in message and "validation" in message
    assert "no split is named" in refused("spa-vl", FIXTURES / "spa-vl")


def test_unknown_root_says_what_belongs_there(tmp_path: Path):
    assert "missing, expected the folder of VLSBench with data.json" in refused("vlsbench", tmp_path / "no")


@pytest.mark.parametrize("name", DATASETS)
def test_a_wrong_folder_shows_what_was_found(name: str, tmp_path: Path):
    (tmp_path / "holiday.txt").write_text("nothing")
    spec = DATASETS[name]
    message = refused(name, tmp_path, spec.splits[0])
    assert "holiday.txt" in message and spec.layout in message


def _images(root: Path) -> list[Path]:
    return sorted(p for p in root.rglob("*") if p.suffix in (".png", ".jpg"))


FILE_SETS = sorted(name for name in DATASETS if _images(FIXTURES / name))
PARQUET_SETS = sorted(name for name in DATASETS if list((FIXTURES / name).rglob("*.parquet")))
TABLES = sorted(name for name in DATASETS if list((FIXTURES / name).rglob("*.csv")))


def test_the_fixtures_hold_every_kind():
    assert len(FILE_SETS) == 13 and len(PARQUET_SETS) == 4 and len(TABLES) == 5


@pytest.mark.parametrize("name", FILE_SETS)
def test_missing_image(name: str, tmp_path: Path):
    root = copy(name, tmp_path)
    for path in _images(root):
        path.unlink()
    split = next(s for n, s in EXPECTED if n == name)
    message = refused(name, root, split)
    assert "is missing; looked for" in message
    assert f"({message.count('looked for')} missing in all)" in message  # all at once


def test_missing_pictures_are_told_with_the_rows_to_skip(tmp_path: Path):
    """With all but one of the pictures away, the places named are what `skip` takes."""
    root = copy("vlguard", tmp_path)
    gone = _images(root)[1:]
    for path in gone:
        path.unlink()
    with pytest.raises(DatasetError) as caught:
        load_dataset_scenarios("vlguard", root, "test")
    places = [
        one.split(": image=")[0].removeprefix("vlguard: ")
        for one in str(caught.value).split("; ")
        if "image=" in one
    ]
    assert load_dataset_scenarios("vlguard", root, "test", skip=sorted(set(places)))


@pytest.mark.parametrize("name", FILE_SETS)
def test_broken_image(name: str, tmp_path: Path):
    root = copy(name, tmp_path)
    for path in _images(root):
        path.write_bytes(path.read_bytes()[:30])
    split = next(s for n, s in EXPECTED if n == name)
    assert "no picture Pillow can decode" in refused(name, root, split)


@pytest.mark.parametrize("name", PARQUET_SETS)
def test_null_image_in_parquet(name: str, tmp_path: Path):
    root = copy(name, tmp_path)
    split = next(s for n, s in EXPECTED if n == name)
    for path in root.rglob("*.parquet"):
        table = pq.read_table(path)
        rows = [row | {"image": {"bytes": None, "path": None}} for row in table.to_pylist()]
        pq.write_table(type(table).from_pylist(rows, schema=table.schema), path)
    assert "image=None, expected a picture" in refused(name, root, split)


@pytest.mark.parametrize("name", TABLES)
def test_missing_csv_column_and_ragged_row(name: str, tmp_path: Path):
    root = copy(name, tmp_path)
    split = next(s for n, s in EXPECTED if n == name)
    for path in root.rglob("*.csv"):
        text = path.read_text()
        path.write_text(text + "only one field\n")
    assert "has fewer fields than the header" in refused(name, root, split)
    for path in root.rglob("*.csv"):
        path.write_text("colour,size\nred,3\n")
    message = refused(name, root, split)
    assert "missing columns" in message and "found ['colour', 'size']" in message


COOKING = "processed_questions/01-Cooking.json"
EN = "data/complete/datasets_en.jsonl"
ATTACK = "Data/Red_Queen_Attack/gpt_4o_attack_data.json"
QUEEN = "Red_Queen_Ablation/gpt_4o_ablation_data.json"
REVEAL = "SetCreationPipeline/Data/ConvGen/violence_harm.tsv"

# dataset, file, keys leading to what is changed, new value, words of the message
BAD_VALUES = [
    ("steer-bench", "steer_spa.jsonl", ("risk_trajectory",), [1.0], "1 values for 2 user turns"),
    ("steer-bench", "steer_spa.jsonl", ("risk_trajectory",), [1, 9], "expected levels 0..5"),
    ("steer-bench", "steer_spa.jsonl", ("messages_fixed",), [], "no user message"),
    ("steer-bench", "steer_spa.jsonl", ("messages_fixed", 0, "role"), "robot", "expected role user"),
    ("steer-bench", "steer_spa.jsonl", ("messages_fixed", 0, "content"), " ", "is blank"),
    ("steer-bench", "steer_spa.jsonl", ("image",), "../../secret.png", "outside the dataset's folder"),
    ("steer-rl", "steer_rl.jsonl", ("question",), "text", "expected a list of messages"),
    ("mm-safetybench", COOKING, ("0", "Rephrased Question(SD)"), "", "expected text"),
    ("vlsbench", "data.json", (0, "instruction"), None, "instruction=None, expected text"),
    ("vlguard", "train.json", (0, "safe"), "yes", "safe='yes', expected one of [True, False]"),
    ("vlguard", "train.json", (0, "instr-resp"), [], "expected a list of instructions"),
    ("vlguard", "train.json", (0, "instr-resp", 0), {"question": "x"}, "expected one of instruction"),
    ("safemt", "Data/1_turn.json", (0, "dialogue", 0, "role"), "narrator", "expected role user"),
    ("safemtdata", "SafeMTData/Attack_600.json", (0, "multi_turn_queries"), [""], "expected a list of texts"),
    ("safedialbench", EN, ("history", 0), {"user": "x"}, "missing columns ['bot']"),
    ("safedialbench", EN, ("history",), [], "has no user turn"),
    ("cosafe", "CoSafe datasets/gardens.json", (), {"role": "user"}, "expected a list of messages"),
    ("hh-rlhf", "helpful-base/test.jsonl", ("chosen",), "Human: hello", "expected '\\n\\nHuman:' first"),
    ("mossbench", "data/images_information/information.json", ("1", "question"), 3, "question=3"),
    ("mmds", "mmds.jsonl", ("user_rating",), "Perhaps", "user_rating='perhaps', expected one of ['safe'"),
    ("mmds", "mmds.jsonl", ("conversations",), [], "no user message"),
    ("red-queen", ATTACK, (0, "query"), "<s>[INST] Hi", "expected a list of messages"),
]  # fmt: skip


def change(value, keys, new):
    if not keys:
        return new
    value[keys[0]] = change(value[keys[0]], keys[1:], new)
    return value


@pytest.mark.parametrize(("name", "file", "keys", "new", "words"), BAD_VALUES)
def test_wrong_values_are_refused_with_their_place(name, file, keys, new, words, tmp_path: Path):
    root = copy(name, tmp_path)
    path = root / file
    text = path.read_text()
    body = change(json.loads(text.splitlines()[0] if path.suffix == ".jsonl" else text), keys, new)
    path.write_text(json.dumps(body))
    split = next(s for n, s in EXPECTED if n == name)
    message = refused(name, root, "helpful-base/test" if name == "hh-rlhf" else split)
    assert words in message and file in message


#: Dataset, split, file of a fixture, its fields: all of them must be there.
FIELDS = [
    ("steer-bench", "spa", "steer_spa.jsonl", "question_id messages_fixed"),
    ("steer-rl", "train", "steer_rl.jsonl", "question metadata metadata/rest_messages metadata/question_id"),
    ("beavertails-v", "train", "data/garden/train-00000-of-00001.parquet",
     "question image category image_severity response is_response_safe"),
    ("saferlhf-v", "train", "data/kitchen/train-00000-of-00001.parquet",
     "question image response_1 response_2 is_response_1_safe is_response_2_safe response_1_harmless_rate "
     "response_2_harmless_rate response_1_helpful_rate response_2_helpful_rate safer_response_id "
     "more_helpful_response_id"),
    ("spa-vl", "train", "data/train-00000-of-00001.parquet", "image question chosen rejected"),
    ("spa-vl", "validation", "validation/validation-00000-of-00001.parquet",
     "image question chosen rejected"),
    ("spa-vl", "test/harm", "test/harm-00000-of-00001.parquet", "image question"),
    ("mm-safetybench", "SD", COOKING, "0/Changed_Question 0/Rephrased_Question 0/Rephrased_Question(SD)"),
    ("vlsbench", "test", "data.json",
     "0/instruction_id 0/instruction 0/image_path 0/category 0/sub_category 0/source"),
    ("vlguard", "train", "train.json", "0/id 0/image 0/safe 0/instr-resp"),
    ("jailbreakv-28k", "28k", "JailBreakV_28K/JailBreakV_28K.csv",
     "id redteam_query jailbreak_query format policy image_path"),
    ("harmbench-multimodal", "all", "data/behavior_datasets/harmbench_behaviors_multimodal_all.csv",
     "Behavior BehaviorID FunctionalCategory SemanticCategory ImageFileName ImageDescription "
     "RedactedImageDescription"),
    ("figstep", "safebench", "data/question/safebench.csv",
     "dataset category_id task_id category_name question instruction"),
    ("safemt", "1_turn", "Data/1_turn.json", "0/id 0/scenario 0/image_path 0/dialogue 0/question"),
    ("mtmcs-bench", "type_a", "data/type_a-00000-of-00001.parquet",
     "id image variant_images multimodal_dialogue unimodal_dialogue"),
    ("safemtdata", "Attack_600", "SafeMTData/Attack_600.json",
     "0/plain_query 0/category 0/multi_turn_queries"),
    ("safedialbench", "en", EN, "task method model_type scene id history"),
    ("hh-rlhf", "helpful-base/test", "helpful-base/test.jsonl", "chosen rejected"),
    ("mhj", "test", "harmbench_behaviors.csv", "message_0"),
    ("xstest", "all", "xstest_prompts.csv", "id prompt type label focus note"),
    ("mossbench", "test", "data/images_information/information.json",
     "1/image 1/question 1/metadata 1/pid 1/metadata/over"),
    ("mmds", "train", "mmds.jsonl", "id set conversations user_rating"),
    ("red-queen", "ablation", QUEEN, "0/action 0/query 0/turn 0/category"),
    ("reveal", "violence", REVEAL, "PolicyName MinedImages Index GeneratedSeed GenConv"),
]  # fmt: skip


def without(path: Path, field: str) -> str:
    """Remove a field from the first row, or a column, of a file; return its own name."""
    *way, name = field.replace("_Question", " Question").split("/")
    if path.suffix == ".parquet":
        pq.write_table(pq.read_table(path).drop_columns([name]), path)
    elif path.suffix in (".csv", ".tsv"):
        cut = {"delimiter": "\t" if path.suffix == ".tsv" else ","}
        with path.open(newline="") as file:
            rows = [{k: v for k, v in row.items() if k != name} for row in csv.DictReader(file, **cut)]
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), **cut)
            writer.writeheader()
            writer.writerows(rows)
    else:
        lines = path.suffix == ".jsonl"
        body = json.loads(path.read_text().splitlines()[0] if lines else path.read_text())
        place = body
        for step in way:
            place = place[int(step) if isinstance(place, list) else step]
        del place[name]
        path.write_text(json.dumps(body))
    return name


@pytest.mark.parametrize(
    ("name", "split", "file", "field"),
    [(name, split, file, field) for name, split, file, fields in FIELDS for field in fields.split()],
)
def test_every_field_must_be_there(name: str, split: str, file: str, field: str, tmp_path: Path):
    root = copy(name, tmp_path)
    assert load_dataset_scenarios(name, root, split)
    own = without(root / file, field)
    message = refused(name, root, split)
    assert f"missing columns ['{own}']; found [" in message and file in message


def test_labels_of_the_bench_may_be_left_out(tmp_path: Path):
    """As in the authors' own code, which reads the turns alone."""
    root = copy("steer-bench", tmp_path)
    full = load_dataset_scenarios("steer-bench", root, "spa")
    for field in ("category", "risk_trajectory", "image"):
        without(root / "steer_spa.jsonl", field)
    bare = load_dataset_scenarios("steer-bench", root, "spa")
    assert [[t.text for t in s.turns] for s in bare] == [[t.text for t in s.turns] for s in full]
    assert not any(t.risk or t.images for s in bare for t in s.turns)


def test_the_bench_as_the_authors_code_takes_it(tmp_path: Path):
    """One file of all subsets, parts joined by a space, pictures inside parts, paths that lead elsewhere."""
    root = copy("steer-bench", tmp_path)
    row = json.loads((root / "steer_spa.jsonl").read_text())
    parts = [{"type": "text", "text": "And in"}, {"type": "image_url"}, {"type": "text", "text": "winter?"}]
    row["messages_fixed"][0] |= {"content": parts}
    row["image"] = "/mnt/authors/images/spa.png"
    (root / "data").mkdir()
    (root / "data/steer_bench.jsonl").write_text(json.dumps(row) + "\n")
    assert "lies outside the dataset's folder" in refused("steer-bench", root)
    moved = {"/mnt/nobody/": "no/", "/mnt/authors/": ""}
    (one,) = load_dataset_scenarios("steer-bench", root, paths=moved)
    assert one.turns[0].text == "And in winter?" and len(one.images) == 1 and one.mechanism == ""
    (root / "data/steer_bench.jsonl").write_text(json.dumps(row | {"image": " "}))
    assert load_dataset_scenarios("steer-bench", root)[0].images == ()
    (root / "data/steer_bench.jsonl").write_text(json.dumps(row | {"image": ["a", "b"]}))
    assert "image=['a', 'b'], expected a path" in refused("steer-bench", root)


def test_pictures_come_with_the_turns_that_name_them():
    (first, *_) = load_dataset_scenarios("mmds", FIXTURES / "mmds", "train")
    assert [turn.images for turn in first.turns] == [(0,), (1,)] and first.category == "Garden Rules"
    (one,) = load_dataset_scenarios("reveal", FIXTURES / "reveal", "violence")
    assert [turn.images for turn in one.turns] == [(), (), (0,)]


@pytest.mark.parametrize(
    ("conversation", "words"),
    [
        ("", "expected text"),
        ("['open", "expected a list in Python"),
        ("['a', 3]", "expected a list of texts"),
        ("__import__('os').getcwd()", "expected a list in Python"),
        ("['a', 'b']", "has 0 turns with <img_turn>, expected one"),
        ("['a', ' <img_turn> ']", "has a blank turn"),
    ],
)
def test_a_conversation_of_reveal_is_data_and_not_run(conversation: str, words: str, tmp_path: Path):
    root = copy("reveal", tmp_path)
    path = root / REVEAL
    head, row = path.read_text().splitlines()
    path.write_text(f"{head}\n{row.rpartition(chr(9))[0]}\t{conversation}\n")
    message = refused("reveal", root, "violence")
    assert words in message and f"{REVEAL}:1" in message


@pytest.mark.parametrize("key", ["r1", "r2", "r3", "safe_r3", "unsafe_r3"])
def test_every_turn_of_mtmcs_must_be_there(key: str, tmp_path: Path):
    root = copy("mtmcs-bench", tmp_path)
    path = root / "data/type_a-00000-of-00001.parquet"
    rows = pq.read_table(path).to_pylist()
    for row in rows:
        for name in ("multimodal_dialogue", "unimodal_dialogue"):
            del row[name][key]
    pq.write_table(pa.Table.from_pylist(rows), path)
    message = refused("mtmcs-bench", root, "type_a")
    assert "missing" in message and key in message and "multimodal_dialogue" in message


@pytest.mark.parametrize(("key", "value"), [("safer_response_id", "first"), ("is_response_1_safe", "maybe")])
def test_preferences_of_saferlhf_are_checked(key: str, value: str, tmp_path: Path):
    root = copy("saferlhf-v", tmp_path)
    path = root / "data/kitchen/train-00000-of-00001.parquet"
    rows = [row | {key: value} for row in pq.read_table(path).to_pylist()]
    pq.write_table(pa.Table.from_pylist(rows), path)
    assert f"{key}='{value}', expected" in refused("saferlhf-v", root)
    number = [row | {"is_response_1_safe": "no", "safer_response_id": 0} for row in rows]
    pq.write_table(pa.Table.from_pylist(number), path)
    assert len(load_dataset_scenarios("saferlhf-v", root)) == 1


@pytest.mark.parametrize(
    ("name", "split", "file", "where"),
    [
        ("vlsbench", None, "data.json", "data.json:1"),
        ("steer-bench", "spa", "steer_spa.jsonl", "steer_spa.jsonl:2"),
        ("xstest", "all", "xstest_prompts.csv", "xstest_prompts.csv:2"),
    ],
)
def test_a_broken_row_is_left_out_only_by_its_name(name, split, file, where, tmp_path: Path):
    root = copy(name, tmp_path)
    path = root / file
    whole = load_dataset_scenarios(name, root, split)
    if path.suffix == ".json":
        rows = json.loads(path.read_text())
        path.write_text(json.dumps([rows[0], rows[0] | {"instruction": ""}]))
    elif path.suffix == ".jsonl":
        path.write_text(path.read_text() + "{broken\n")
    else:
        lines = path.read_text().splitlines()
        path.write_text("\n".join([*lines[:2], "only one field", *lines[2:]]))
    assert where in refused(name, root, split)
    assert load_dataset_scenarios(name, root, split, skip=[where]) == whole
    with pytest.raises(DatasetError, match="but no row stands there"):
        load_dataset_scenarios(name, root, split, skip=[where, f"{file}:99"])


def test_not_json_and_empty(tmp_path: Path):
    root = copy("vlsbench", tmp_path)
    (root / "data.json").write_text('[{"instruction": ')
    assert "is not JSON" in refused("vlsbench", root)
    (root / "data.json").write_text("[]")
    assert "has no rows" in refused("vlsbench", root)
    root = copy("steer-bench", tmp_path)
    (root / "steer_spa.jsonl").write_text('{"question_id":')
    assert "steer_spa.jsonl:1" in refused("steer-bench", root, "spa")


def test_mhj_messages_must_be_json(tmp_path: Path):
    root = copy("mhj", tmp_path)
    path = root / "harmbench_behaviors.csv"
    path.write_text("message_0,message_1\nhello,\n")
    assert "message_0='hello' is not JSON" in refused("mhj", root)


def test_xstest_refuses_repeated_ids_and_unknown_labels(tmp_path: Path):
    root = copy("xstest", tmp_path)
    path = root / "xstest_prompts.csv"
    text = path.read_text()
    path.write_text(text + text.splitlines()[1] + "\n")
    assert "id='1' occurs twice" in refused("xstest", root)
    path.write_text(text.replace(",unsafe,", ",maybe,"))
    assert "label='maybe', expected one of ['safe', 'unsafe']" in refused("xstest", root)


def test_a_picture_that_changes_after_loading_is_an_error(tmp_path: Path):
    root = copy("vlsbench", tmp_path)
    (scenario,) = load_dataset_scenarios("vlsbench", root)
    shutil.copy(FIXTURES / "mossbench/data/images/1.png", root / "imgs/0.png")
    with pytest.raises(ValueError, match="changed after it was loaded"):
        scenario.images[0].array()


# Roots ----------------------------------------------------------------------------------------------------


def test_hub_ids_need_a_pinned_revision(monkeypatch: pytest.MonkeyPatch):
    for root in ("hf:org/name", "hf:org/name@main", "hf:name@" + "a" * 40):
        assert "40 hex digits" in refused("vlsbench", root)
    asked = []

    def fetch(repo_id: str, repo_type: str, revision: str) -> str:
        asked.append((repo_id, repo_type, revision))
        return str(FIXTURES / "vlsbench")

    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    assert len(load_dataset_scenarios("vlsbench", "hf:org/name@" + "a1" * 20)) == 1
    assert asked == [("org/name", "dataset", "a1" * 20)]


def test_missing_library_names_the_extra(monkeypatch: pytest.MonkeyPatch):
    import sys

    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(ImportError, match=r"steer-env\[data\]"):
        load_dataset_scenarios("spa-vl", FIXTURES / "spa-vl", "train")


def test_rows_come_lazily():
    rows = loaders.iter_dataset_scenarios("beavertails-v", FIXTURES / "beavertails-v")
    assert next(rows).turns[0].text == "Which plant grows well in shade?"


def test_long_cells_are_read_and_the_limit_of_the_process_stays(tmp_path: Path):
    usual = csv.field_size_limit()
    path = tmp_path / "long.csv"
    path.write_text(f"a,b\n{'x' * 2 * usual},1\n{'y' * 2 * usual},2\n")
    with path.open(newline="") as first, path.open(newline="") as second:
        both = [_wide(csv.DictReader(file)) for file in (first, second)]
        assert [len(next(rows)["a"]) for rows in (*both, *both)] == [2 * usual] * 4
        assert csv.field_size_limit() == usual
