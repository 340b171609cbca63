"""What Gymnasium's own tools and conventions ask: videos, partial resets, NumPy integers."""

import itertools

import gymnasium
import numpy as np
import pytest

import steer_env
from steer_env.acts.vector import ActsVectorEnv
from steer_env.registration import make_student_vec
from steer_env.render import FRAME_HEIGHT, WIDTH

ID = "steer_env/SteerEscalation-v0"


def test_frames_of_a_dialogue_are_all_alike_in_size():
    env = gymnasium.make(ID, render_mode="rgb_array")
    env.reset(seed=1)
    frames, over = [env.render()], False
    while not over:
        _, _, terminated, truncated, _ = env.step("I can't help with that. " * 40)
        frames.append(env.render())
        over = terminated or truncated
    assert {frame.shape for frame in frames} == {(FRAME_HEIGHT, WIDTH, 3)} and len(frames) > 3
    assert FRAME_HEIGHT % 2 == WIDTH % 2 == 0  # video codecs ask for even sides
    assert all(not np.array_equal(a, b) for a, b in itertools.pairwise(frames))


def test_a_video_is_recorded(tmp_path):
    pytest.importorskip("moviepy")
    env = gymnasium.wrappers.RecordVideo(
        gymnasium.make(ID, render_mode="rgb_array"), str(tmp_path), episode_trigger=lambda n: True
    )
    env.reset(seed=1)
    over = False
    while not over:
        _, _, terminated, truncated, _ = env.step("No.")
        over = terminated or truncated
    env.close()
    assert [path.suffix for path in tmp_path.glob("*.mp4")] == [".mp4"]


def test_a_mask_starts_the_marked_dialogues_only():
    env = make_student_vec("SteerEscalation-v0", 3)
    env.reset(seed=5)
    before, *_ = env.step(["No."] * 3)
    after, _ = env.reset(seed=[0, 9, 0], options={"reset_mask": np.array([False, True, False])})
    fresh, _ = make_student_vec("SteerEscalation-v0", 1).reset(seed=9)
    for i in (0, 2):
        assert after["transcript"][i] == before["transcript"][i] and len(after["transcript"][i]) == 3
    assert after["transcript"][1] == fresh["transcript"][0]
    following, *_ = env.step(["No."] * 3)
    assert [len(t) for t in following["transcript"]][1:] == [3, 5]


def test_a_mask_starts_the_marked_acts_only():
    env = ActsVectorEnv(4)
    env.reset(seed=5)
    before, *_ = env.step(np.zeros(4, int))
    mask = np.array([True, False, False, True])
    after, _ = env.reset(seed=7, options={"reset_mask": mask})
    fresh, _ = ActsVectorEnv(4).reset(seed=7)
    assert np.array_equal(after[~mask], before[~mask]) and np.array_equal(after[mask], fresh[mask])
    again, _ = env.reset(options={"reset_mask": mask})  # without a seed: other dialogues
    assert np.array_equal(again[~mask], before[~mask]) and not env._turn[mask].any()


@pytest.mark.parametrize("mask", [np.zeros(3, bool), np.ones(2, bool), np.ones(3), [1, 0, 0]])
def test_a_wrong_mask_is_refused(mask):
    for env in (make_student_vec("SteerEscalation-v0", 3), ActsVectorEnv(3)):
        env.reset(seed=0)
        with pytest.raises(ValueError, match="3 booleans"):
            env.reset(options={"reset_mask": mask})


@pytest.mark.parametrize("kind", [np.int64, np.int32, np.uint8])
def test_numpy_integers_are_integers(kind):
    assert steer_env.make_vec("SteerEscalation-v0", kind(2)).num_envs == 2
    assert make_student_vec("SteerEscalation-v0", kind(2)).num_envs == 2
    assert ActsVectorEnv(kind(2)).num_envs == 2
    env = steer_env.make("SteerEscalation-v0", max_cycles=kind(2), max_length=kind(200))
    env.reset(seed=0)
    steer_env.make_vec("SteerEscalation-v0", 2).reset(seeds=np.arange(2))


def test_what_is_no_integer():
    for wrong in (True, np.True_, 2.0, np.float64(2), "2", None):
        with pytest.raises(ValueError, match="num_envs"):
            steer_env.make_vec("SteerEscalation-v0", wrong)
