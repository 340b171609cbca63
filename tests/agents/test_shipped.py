"""Students that come with the package: found by name everywhere, and what their cards say."""

from __future__ import annotations

from pathlib import Path

import pytest

from steer_env.models import shipped
from steer_env.models.shipped import SHIPPED, local_path, read_card, shipped_folder, weights_hash
from steer_env.models.weights import folder_hash, weights_id


def test_names_and_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert shipped_folder("tiny") == shipped.FOLDER / "tiny" and shipped_folder("huge") is None
    assert local_path("tiny-grpo") == shipped.FOLDER / "tiny-grpo" and local_path("huge") == Path("huge")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny").mkdir()  # a folder of that name goes first
    with pytest.warns(RuntimeWarning, match=r"'tiny' is a folder here .*students/tiny\)"):
        assert local_path("tiny") == Path("tiny")
    told = "model='tiny' has no card, expected one of tiny, tiny-sft"
    with pytest.warns(RuntimeWarning), pytest.raises(FileNotFoundError, match=told):
        read_card("tiny")


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An untrained model in the place of the shipped ones."""
    pytest.importorskip("torch")
    from steer_env.models.tiny import TinyConfig, build, save

    shape = TinyConfig(
        vocab_size=264, hidden=32, heads=2, kv_heads=2, mlp=64, vision_hidden=32, vision_heads=2
    )
    for name in SHIPPED:
        save(*build(["a lamp"], shape), tmp_path / "models" / name)
    monkeypatch.setattr(shipped, "FOLDER", tmp_path / "models")
    return tmp_path / "models"


def test_every_place_that_takes_a_student_takes_the_name(stand_in: Path, tmp_path: Path) -> None:
    from steer_env.agents import HFStudent, make_agent
    from steer_env.cli.common import model_hash, open_student
    from steer_env.models import open_backend

    key = folder_hash(stand_in / "tiny-sft")
    assert weights_id("tiny-sft") == model_hash("tiny-sft") == model_hash("hf:tiny-sft") == key
    opened = [HFStudent.from_pretrained("tiny-sft"), make_agent("hf:tiny-sft")]
    opened += [open_student("tiny-sft"), open_student("hf:tiny-sft", temperature=0.0)]
    for student in opened:
        assert student.weights == key and next(student.model.parameters()).dtype.itemsize == 4
    assert open_backend("hf:tiny").weights == folder_hash(stand_in / "tiny")
    with pytest.raises(ValueError, match="random, tiny, tiny-sft, tiny-grpo"):
        open_student("tinier")


@pytest.mark.parametrize("name", SHIPPED)
def test_what_is_shipped_is_what_its_card_says(name: str) -> None:
    torch = pytest.importorskip("torch")
    from steer_env.agents.hf import HFStudent
    from steer_env.algorithms.sight import memory, sight, tell_rates
    from steer_env.judges import RuleJudge
    from steer_env.world import WORLD_VERSION

    folder, card = shipped_folder(name), read_card(name)
    assert folder is not None
    assert sum(file.stat().st_size for file in folder.iterdir()) < 2_000_000
    assert weights_hash(folder) == card["sha256"] and card["name"] == name
    # Trained on another world or by another judge it would be another thing under the same name: ship again.
    assert card["world_version"] == WORLD_VERSION and card["judge_version"] == RuleJudge.version
    student = HFStudent.from_pretrained(name, temperature=0.0, max_new_tokens=40)
    assert {p.dtype for p in student.model.parameters()} == {torch.float32}
    assert sum(p.numel() for p in student.model.parameters()) == card["parameters"] < 1_000_000
    student.check_trainable()
    seen = sight(student, 48)
    assert seen["mark"] > 0.9 and seen["colour"] > 0.85
    assert all(abs(seen[thing] - share) < 0.2 for thing, share in card["held_out"]["describe"].items())
    if name == "tiny":
        heard = memory(student, 100)
        assert sight(student, 48, ask="caption")["mark"] > 0.95
        assert heard["purpose"] > 0.85 and heard["weighed"] > 0.8
        apart, said = tell_rates(student, 100), card["held_out"]["tell"]
        assert min(apart.values()) > 0.8 and all(abs(apart[side] - said[side]) < 0.15 for side in apart)
    else:
        assert card["bench"]["harm"] < read_card("tiny")["bench"]["harm"]
