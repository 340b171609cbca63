"""Damaged checkpoints and half saved models: the one before takes over, the newest is tested."""

import json
import os

import pytest
import torch

from steer_env.algorithms.checkpoints import load_newest, load_state, save_state
from steer_env.cli.common import STEP, _model_folder
from steer_env.models.weights import is_complete


def model(folder, text="x"):
    """A folder that looks like a saved model."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    header = json.dumps({"w": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}}).encode()
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"abcd")
    return folder


def test_whole_models_are_told_from_halves(tmp_path):
    folder = model(tmp_path / "m")
    assert is_complete(folder) and not is_complete(tmp_path)
    weights = folder / "model.safetensors"
    for data in (b"", weights.read_bytes()[:5], weights.read_bytes()[:-1], b"\xff" * 40):
        (tmp_path / "half").mkdir(exist_ok=True)
        (tmp_path / "half" / "config.json").write_text("{}")
        (tmp_path / "half" / "model.safetensors").write_bytes(data)
        assert not is_complete(tmp_path / "half")
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "missing.safetensors"}}')
    assert not is_complete(folder)
    (folder / "model.safetensors.index.json").unlink()
    (folder / "config.json").write_text("{")
    assert not is_complete(folder)


def test_the_newest_weights_of_a_run_are_tested(tmp_path):
    run = tmp_path / "run"
    last = model(run / "model")
    assert _model_folder(run) == last
    (last / STEP).write_text('{"step": 2}')
    second = model(run / "checkpoints" / "step_000002")
    assert _model_folder(run) == last
    third = model(run / "checkpoints" / "step_000003")
    assert _model_folder(run) == third  # resumed, and killed or still running
    (third / "config.json").write_text("")
    assert _model_folder(run) == last
    (last / "model.safetensors").write_bytes(b"half")
    assert _model_folder(run) == second  # half a model blocks nothing
    (second / "model.safetensors").write_bytes(b"half")
    with pytest.raises(ValueError, match="without a whole model or checkpoint"):
        _model_folder(run)


def test_a_model_saved_by_something_else_goes_by_its_time(tmp_path):
    last, saved = model(tmp_path / "model"), model(tmp_path / "checkpoints" / "step_000001")
    os.utime(last, (1, 1))
    assert _model_folder(tmp_path) == saved
    os.utime(saved, (0, 0))
    assert _model_folder(tmp_path) == last


def test_the_newest_checkpoint_that_can_be_read_is_taken(tmp_path, monkeypatch):
    for step in (1, 2, 3):
        (tmp_path / "checkpoints" / f"step_{step:06d}").mkdir(parents=True)

    def load(folder, *parts):
        if folder.name > broken:
            raise EOFError
        return int(folder.name[5:])

    monkeypatch.setattr("steer_env.algorithms.checkpoints.load_checkpoint", load)
    broken = "step_000001"
    with pytest.warns(UserWarning, match="step_000002 cannot be read"):
        assert load_newest(tmp_path) == 1
    broken = "step_000000"
    with pytest.warns(UserWarning), pytest.raises(ValueError, match="no checkpoint can be read"):
        load_newest(tmp_path)
    assert load_newest(tmp_path / "none") == 0


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 torn", b"\x80\x04nonsense"])
def test_a_damaged_state_falls_back_and_is_named(tmp_path, damage):
    new, old = tmp_path / "new.pt", tmp_path / "old.pt"
    assert load_state(new, old) is None
    torch.save({"step": 1}, old)
    new.write_bytes(damage)
    with pytest.warns(UserWarning, match=r"new.pt cannot be read"):
        assert load_state(new, old) == {"step": 1}
    new.write_bytes(damage)
    with pytest.warns(UserWarning), pytest.raises(ValueError, match=r"new.pt cannot be read"):
        load_state(new)


def test_a_damaged_state_never_takes_the_place_of_the_good_one(tmp_path):
    """Damaged, resumed and saved, and damaged again: the state before is still there to go on from."""
    state, before = tmp_path / "state.pt", tmp_path / "before.pt"
    save_state({"step": 1}, before)
    state.write_bytes(b"torn")
    with pytest.warns(UserWarning, match="cannot be read"):
        assert load_state(state, before) == {"step": 1}
    assert not state.exists() and load_state(state, before) == {"step": 1}
    state.write_bytes(b"torn")
    before.write_bytes(b"torn")
    with pytest.warns(UserWarning), pytest.raises(ValueError, match="restore it"):
        load_state(state, before)
    assert state.exists() and before.exists(), "what cannot be replaced is left to the user"
