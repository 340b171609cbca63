"""The built dataset: sizes, splits, schemas, and the same bytes after any number of kills."""

from __future__ import annotations

import hashlib
import json
import random
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from steer_env.data import LicenceGate, check_training_allowed, load_dataset_scenarios, quota
from steer_env.data.audit.corpus import open_corpus
from steer_env.data.build import CANARY, BuildConfig, build
from steer_env.images import Image
from steer_env.judges.rule import judge_reply
from steer_env.scenarios import content_id
from steer_env.world.source import WorldSource
from steer_env.world.truth import History
from steer_env.world.user_language.reading import advance, parse_user

SMALL = BuildConfig(sft=61, rl=20, bench=33, ood=12, rows_per_shard=16)


def tree(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("build") / "steer"
    build(out, SMALL)
    return out


# Quotas ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mean", [2.2, 6.0, 6.35, 8.33, 8.55, 9.8])
def test_length_shares_have_the_mean_and_are_even_at_six(mean: float):
    shares = quota.length_shares(mean)
    assert sum(shares.values()) == pytest.approx(1)
    assert sum(n * share for n, share in shares.items()) == pytest.approx(mean)
    if mean == 6.0:
        assert list(shares.values()) == pytest.approx([1 / 9] * 9)


@pytest.mark.parametrize("groups", [1, 7, 215, 4312])
def test_length_counts_add_up(groups: int):
    counts = quota.length_counts(groups, 8.55)
    assert sum(counts.values()) == groups
    if groups > 200:
        assert sum(n * c for n, c in counts.items()) / groups == pytest.approx(8.55, abs=0.02)


def test_impossible_means_and_sizes_are_refused():
    with pytest.raises(ValueError, match=r"mean=11, expected a number between 2 and 10"):
        quota.length_shares(11)
    with pytest.raises(ValueError, match="bench=4, expected an integer of at least 5"):
        BuildConfig(bench=4)
    with pytest.raises(ValueError, match="rl=0"):
        BuildConfig(rl=0)


def test_the_default_is_the_papers_size_and_mean():
    """The choice of dialogues at full size, without writing them."""
    config = BuildConfig()
    assert (config.sft, config.rl, config.bench) == (12_934, 2_000, 3_227)
    for split, stream, wanted in (("rl", "train", 8.33), ("bench", "bench", 8.55)):
        size = getattr(config, split)
        (indices,) = quota.select(stream, {"all": size}, wanted).values()
        source = WorldSource(split=stream)
        lengths = [len(source.scenario(i)) for i in indices]
        assert len(set(indices)) == size and min(lengths) >= 2 and max(lengths) <= 10
        assert sum(lengths) / size == pytest.approx(wanted, abs=0.15)


def ood_scenarios(built: Path) -> list:
    return open_corpus(str(built / "ood"))


# What is built --------------------------------------------------------------------------------------------


def test_counts_and_manifest(built: Path):
    manifest = json.loads((built / "manifest.json").read_text())
    splits = manifest["splits"]
    assert {name: s["dialogues"] for name, s in splits.items()} == {
        "sft": 61,
        "rl": 20,
        "bench": 33,
        "ood": 12,
    }
    assert splits["bench"]["subsets"] == {"beavertails": 7, "mmsafety": 7, "vlsbench": 7, "spa": 6, "dys": 6}
    assert splits["sft"]["mean_turns"] == pytest.approx(6.35, abs=0.4)
    files = tree(built)
    assert manifest["files"] == {
        k: v for k, v in files.items() if k.split("/")[0] in ("sft", "rl", "bench", "ood", "data")
    }
    assert not [name for name in files if name.endswith(".part") or name.startswith(".")]


def test_subsets_are_the_mechanisms(built: Path):
    for subset, mechanism in (
        ("beavertails", "category"), ("mmsafety", "typography"), ("vlsbench", "image_only"),
        ("spa", "mixed"), ("dys", "late_risk"),
    ):  # fmt: skip
        scenarios = load_dataset_scenarios("steer-bench", built, subset)
        assert {s.mechanism for s in scenarios} == {mechanism}


@pytest.mark.parametrize(
    ("name", "stream", "count"), [("sft", "sft", 61), ("rl", "train", 20), ("bench", "bench", 33)]
)
def test_rows_give_back_the_worlds_scenarios(built: Path, name: str, stream: str, count: int):
    scenarios = load_dataset_scenarios(f"steer-{name}", built)
    assert len(scenarios) == len({s.id for s in scenarios}) == count
    source = WorldSource(split=stream)
    for scenario in scenarios:
        group = int(scenario.group.rpartition("-")[2])
        original = next(
            s for s in map(source.scenario, range(4 * group, 4 * group + 4)) if s.id == scenario.id
        )
        assert scenario.truth == original.truth and scenario.truth is not None
        assert scenario.turns == original.turns and scenario.images == original.images
        assert (scenario.kind, scenario.goal, scenario.strategy) == (
            original.kind,
            original.goal,
            original.strategy,
        )
        assert content_id(scenario) == scenario.id
    assert scenarios[0].images[0].array().tobytes() == original_pixels(source, scenarios[0])


def original_pixels(source: WorldSource, scenario) -> bytes:
    group = int(scenario.group.rpartition("-")[2])
    original = next(s for s in map(source.scenario, range(4 * group, 4 * group + 4)) if s.id == scenario.id)
    return original.images[0].array().tobytes()


def test_splits_share_no_group_and_no_picture(built: Path):
    seen: dict[str, str] = {}
    for name in ("sft", "rl", "bench"):
        for scenario in load_dataset_scenarios(f"steer-{name}", built):
            for unit in (scenario.group, scenario.images[0].digest):
                assert seen.setdefault(unit, name) == name


def test_a_picture_that_another_split_has_to_the_pixel_keeps_its_group_out(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    sft = load_dataset_scenarios("steer-sft", built)
    twin = load_dataset_scenarios("steer-rl", built)[4]
    png = Image.png

    def drawn(image: Image) -> bytes:
        return sft[7].images[0].png() if image.digest == twin.images[0].digest else png(image)

    monkeypatch.setattr(Image, "png", drawn)
    manifest = build(tmp_path / "steer", SMALL)
    groups = {s.group for s in load_dataset_scenarios("steer-rl", tmp_path / "steer")}
    assert twin.group not in groups and twin.group in {
        s.group for s in load_dataset_scenarios("steer-rl", built)
    }
    assert manifest["splits"]["rl"]["dialogues"] == 20
    names = {p.stem for p in (tmp_path / "steer/images").rglob("*.png")}
    assert twin.images[0].digest[:32] not in names  # nothing is left of it


def test_pictures_are_exactly_those_the_rows_name(built: Path):
    named = {
        path
        for jsonl in built.glob("*/*.jsonl")
        for row in rows(jsonl)
        for path in (row["images"] if "images" in row else [row["image"]])
    }
    assert named == {name for name in tree(built) if name.startswith("images/")}
    hashes = [(name.split("/")[1], digest) for name, digest in tree(built).items() if name in named]
    assert len({digest for _, digest in hashes}) == len(set(hashes))  # no digest in two splits


def test_every_row_has_the_canary_and_the_bench_is_closed_to_training(built: Path):
    paths = [*built.glob("*/*.jsonl")]
    assert len(paths) == 8
    assert all(row["canary"] == CANARY for path in paths for row in rows(path))
    assert CANARY in (built / "README.md").read_text()
    check_training_allowed(load_dataset_scenarios("steer-sft", built))
    check_training_allowed(load_dataset_scenarios("steer-rl", built))
    with pytest.raises(LicenceGate, match="33 scenarios of steer-bench: no-training"):
        check_training_allowed(load_dataset_scenarios("steer-bench", built))


def test_ood_rows_are_the_other_family_whole_and_closed_to_training(built: Path):
    scenarios = ood_scenarios(built)
    originals = {s.id: s for s in map(WorldSource(split="ood").scenario, range(4 * 200))}
    assert len(scenarios) == 12 and {s.truth.family for s in scenarios} == {"ood"}
    for scenario in scenarios:
        original = originals[scenario.id]
        assert (scenario.truth, scenario.turns, scenario.images) == (
            original.truth,
            original.turns,
            original.images,
        )
        assert (scenario.kind, scenario.strategy, scenario.technique) == (
            original.kind,
            original.strategy,
            original.technique,
        )
    with pytest.raises(LicenceGate, match="no-training"):
        check_training_allowed(scenarios)


def test_sft_answers_are_ideal(built: Path):
    scenarios = {s.id: s for s in load_dataset_scenarios("steer-sft", built)}
    for row in rows(built / "sft/steer_sft.jsonl"):
        messages, truth, history = row["messages_fixed"], scenarios[row["question_id"]].truth, History()
        assert [m["role"] for m in messages] == ["user", "assistant"] * (len(messages) // 2)
        for said, answer in zip(messages[::2], messages[1::2], strict=True):
            verdict = judge_reply(truth, history, said["content"], answer["content"])
            assert verdict.terms == (10, 10, 10)
            history = advance(history, parse_user(said["content"]))


def test_parquet_holds_the_same_rows(built: Path, tmp_path: Path):
    shards = sorted(p.name for p in (built / "data").iterdir())
    assert [n for n in shards if n.startswith("sft")] == [f"sft-{i:05d}-of-00004.parquet" for i in range(4)]
    import datasets

    table = datasets.load_dataset(
        "parquet",
        data_files={"t": [str(built / "data" / n) for n in shards]},
        split="t",
        cache_dir=str(tmp_path),
    )
    assert len(table) == 61 + 20 + 33 + 12 and set(table["canary"]) == {CANARY}
    by_id = {s.id: s for n in ("sft", "rl", "bench") for s in load_dataset_scenarios(f"steer-{n}", built)}
    by_id |= {s.id: s for s in ood_scenarios(built)}
    for record in table:
        scenario = by_id.pop(record["id"])
        said = [m["content"] for m in record["messages"] if m["role"] == "user"]
        assert said == [t.text for t in scenario.turns]
        assert record["risks"] == [t.risk for t in scenario.turns]
        assert (record["kind"], record["group"], record["category"], record["goal"], record["licence"]) == (
            scenario.kind, scenario.group, scenario.category, scenario.goal, scenario.licence)  # fmt: skip
        assert record["image"].convert("RGB").tobytes() == scenario.images[0].array().tobytes()
    assert not by_id


def test_bench_rows_without_our_key_still_load(built: Path, tmp_path: Path):
    (tmp_path / "images").symlink_to(built / "images")
    for path in (built / "bench").iterdir():
        bare = [
            {k: v for k, v in row.items() if k not in ("steer_env", "canary", "split")} for row in rows(path)
        ]
        (tmp_path / path.name).write_text("".join(json.dumps(row) + "\n" for row in bare))
    full = load_dataset_scenarios("steer-bench", built)
    bare_scenarios = load_dataset_scenarios("steer-bench", tmp_path)
    assert [s.id for s in bare_scenarios] == [s.id for s in full]
    assert [[t.text for t in s.turns] for s in bare_scenarios] == [[t.text for t in s.turns] for s in full]
    assert {s.truth for s in bare_scenarios} == {None}


# Resuming -------------------------------------------------------------------------------------------------


def test_same_seed_same_bytes_and_another_seed_other_groups(built: Path, tmp_path: Path):
    build(tmp_path / "again", SMALL)
    assert tree(tmp_path / "again") == tree(built)
    other = build(tmp_path / "other", BuildConfig(sft=61, rl=20, bench=33, ood=12, rows_per_shard=16, seed=1))
    assert other["files"].keys() == json.loads((built / "manifest.json").read_text())["files"].keys()
    groups = [{s.group for s in load_dataset_scenarios("steer-rl", f)} for f in (built, tmp_path / "other")]
    assert not groups[0] & groups[1]


_CHILD = """
import sys
from steer_env.data.build import BuildConfig, build
def tell(what, done, total):
    print(what, done, flush=True)
build(sys.argv[1], BuildConfig(sft=61, rl=20, bench=33, ood=12, rows_per_shard=16), tell)
print("END", flush=True)
"""


@pytest.mark.parametrize("seed", [0, 1])
def test_killed_at_random_moments_it_ends_with_the_same_bytes(built: Path, tmp_path: Path, seed: int):
    rng = random.Random(seed)
    out = tmp_path / "steer"
    finished: list[str] = []
    kills = 0
    while "END" not in finished:
        child = subprocess.Popen([sys.executable, "-c", _CHILD, str(out)], stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        lines = rng.randrange(1, 60)
        for line in child.stdout:
            finished.append(line.strip())
            lines -= 1
            if lines == 0:
                child.kill()  # SIGKILL: nothing is flushed, nothing cleaned up
                kills += 1
                break
        finished += [line.strip() for line in child.stdout]
        child.wait()
        child.stdout.close()
    assert kills >= 3
    assert tree(out) == tree(built)
    done = [line for line in finished if ".jsonl" in line]
    assert len(done) == len(set(done))  # no finished row was made again


def test_a_torn_row_and_torn_files_are_repaired(built: Path, tmp_path: Path):
    out = tmp_path / "steer"
    with pytest.raises(KeyboardInterrupt):
        build(out, SMALL, lambda what, done, total: _stop(what == "rl/steer_rl.jsonl" and done == 7))
    part = out / "rl/steer_rl.jsonl.part"
    assert len(rows(part)) == 7
    part.write_bytes(part.read_bytes()[:-20])
    (out / "images/rl/.zz.png.1-ab.part").write_bytes(b"torn")
    (out / "data").mkdir()
    (out / "data/.rl-00000-of-00002.parquet.1-ab.part").write_bytes(b"torn")
    build(out, SMALL)
    assert tree(out) == tree(built)


def _stop(now: bool) -> None:
    if now:
        raise KeyboardInterrupt


def test_a_finished_build_is_left_alone_and_other_settings_are_refused(built: Path):
    before = {p: p.stat().st_mtime_ns for p in built.rglob("*")}
    assert build(built, SMALL)["splits"]["rl"]["dialogues"] == 20
    assert {p: p.stat().st_mtime_ns for p in built.rglob("*")} == before
    with pytest.raises(FileExistsError, match="rl: 20 there, 21 now"):
        build(built, BuildConfig(sft=61, rl=21, bench=33, ood=12, rows_per_shard=16))


def test_a_folder_of_the_users_is_not_touched(tmp_path: Path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(FileExistsError, match="holds other files"):
        build(tmp_path, SMALL)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_parquet_pictures_stay_encoded(built: Path):
    (record,) = pq.read_table(built / "data/rl-00001-of-00002.parquet").slice(0, 1).to_pylist()
    assert record["image"]["bytes"].startswith(b"\x89PNG") and (built / record["image"]["path"]).is_file()


@pytest.mark.parametrize("before", [True, False])
def test_a_crash_at_every_rename_changes_nothing(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: bool
):
    """Every file comes into being by a rename; the build dies once before, or once after, each of them."""
    died: set[str] = set()
    rename = Path.replace

    def dying(self: Path, target: Path) -> Path:
        key = Path(target).name
        first = key not in died
        died.add(key)
        if first and before:
            raise KeyboardInterrupt
        moved = rename(self, target)
        if first:
            raise KeyboardInterrupt
        return moved

    monkeypatch.setattr(Path, "replace", dying)
    out, runs = tmp_path / "steer", 0
    while True:
        runs += 1
        try:
            build(out, SMALL)
            break
        except KeyboardInterrupt:
            continue
    assert tree(out) == tree(built)
    names = {Path(name).name for name in tree(built)}
    assert names <= died and runs >= len(names)


def test_importing_the_package_imports_no_heavy_library():
    heavy = (
        "pyarrow",
        "datasets",
        "pandas",
        "sklearn",
        "scipy",
        "datasketch",
        "imagehash",
        "matplotlib",
        "torch",
    )
    code = "import sys, steer_env.data.build, steer_env.data.audit"
    code += f"; print([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_croissant_says_files_and_columns(built: Path):
    """Every hash is that of the file, every split a record set, every field a column of its files."""
    import hashlib
    from fnmatch import fnmatch

    import pyarrow.parquet as pq

    body = json.loads((built / "croissant.json").read_text())
    assert body["@type"] == "sc:Dataset" and body["conformsTo"] == "http://mlcommons.org/croissant/1.0"
    assert body["license"].startswith("https://") and body["name"] and body["description"]
    files = {one["@id"]: one for one in body["distribution"] if one["@type"] == "cr:FileObject"}
    sets = {one["@id"]: one["includes"] for one in body["distribution"] if one["@type"] == "cr:FileSet"}
    assert sorted(files) == sorted(f"data/{path.name}" for path in (built / "data").iterdir())
    for file in files.values():
        assert file["sha256"] == hashlib.sha256((built / file["contentUrl"]).read_bytes()).hexdigest()
    assert [records["@id"] for records in body["recordSet"]] == ["sft", "rl", "bench", "ood"]
    for records in body["recordSet"]:
        leaves = [leaf for field in records["field"] for leaf in field.get("subField", [field])]
        (source,) = {leaf["source"]["fileSet"]["@id"] for leaf in leaves}
        names = [name for name in files if fnmatch(name, sets[source])]
        assert len(names) == (5 if records["@id"] == "bench" else len(names)) and names
        for name in names:
            assert {leaf["source"]["extract"]["column"] for leaf in leaves} == set(
                pq.read_schema(built / name).names
            )


def test_croissant_passes_its_own_validator_and_gives_the_rows(built: Path):
    croissant = pytest.importorskip("mlcroissant")
    dataset = croissant.Dataset(built / "croissant.json")
    issues = dataset.metadata.ctx.issues
    assert not issues.errors and all("datePublished" in one for one in issues.warnings)
    rows = list(dataset.records("bench"))
    assert (
        len(rows) == 33 and rows[0]["bench/split"] == b"bench" and rows[0]["bench/image"].size == (224, 224)
    )


@pytest.mark.parametrize(
    ("config", "split", "count"),
    [("sft", "train", 61), ("rl", "train", 20), ("bench", "test", 33), ("ood", "test", 12)],
)
def test_the_card_tells_datasets_how_to_load_the_folder(
    built: Path, tmp_path: Path, config: str, split: str, count: int
):
    import datasets

    table = datasets.load_dataset(str(built), config, split=split, cache_dir=str(tmp_path))
    assert len(table) == count and set(table["split"]) == {config}
    assert table[0]["image"].size == (224, 224)


def test_a_missing_pyarrow_is_said_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(ImportError, match=r"run: pip install 'steer-env\[data\]'"):
        build(tmp_path / "out")
    assert not (tmp_path / "out").exists()
