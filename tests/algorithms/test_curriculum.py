import json
from functools import partial

import pytest

import steer_env
from steer_env.algorithms.curriculum import Curriculum, read_stages
from steer_env.configs.train import Stage
from steer_env.scenarios import STRATEGIES


def names(curriculum, returns):
    seen = []
    for value in returns:
        seen.append(curriculum.env)
        curriculum.finish({"return_per_turn": value})
    return seen


def make(**options):
    return options.get("name", "last")


STAGES = [Stage({"name": "short"}, steps=2), Stage({"name": "middle"}, until=0.8), Stage()]


def test_stages_end_by_steps_or_by_return():
    curriculum = Curriculum(STAGES, make)
    seen = names(curriculum, [0.9, 0.1, 0.2, None, 0.8, 0.1, 0.9])
    assert seen == ["short", "short", "middle", "middle", "middle", "last", "last"]


def test_state_goes_on_where_it_was():
    first, second = Curriculum(STAGES, make), Curriculum(STAGES, make)
    names(first, [0.1])
    second.load_state_dict(first.state_dict())
    assert names(second, [0.1, 0.1]) == ["short", "middle"]


def test_the_built_in_world_gets_longer():
    stages = [Stage({"max_turns": 2, "strategies": ["roleplay"]}, steps=1), Stage({"min_turns": 4})]
    curriculum = Curriculum(stages, partial(steer_env.make_vec, "SteerEscalation-v0", 4, split="train"))
    curriculum.check()
    lengths = []
    for _ in range(2):
        curriculum.env.reset(seed=0)
        lengths.append([len(env.unwrapped.scenario.turns) for env in curriculum.env.envs])
        curriculum.finish({})
    assert max(lengths[0]) <= 2 < 4 <= min(lengths[1])


def test_a_stage_attacks_with_its_own_strategies():
    stages = [Stage({"kinds": ["red_team"], "strategies": [name]}, steps=1) for name in STRATEGIES[:2]]
    make_vec = partial(steer_env.make_vec, "SteerEscalation-v0", 8, split="train")
    curriculum = Curriculum([*stages, Stage()], make_vec)
    for name in STRATEGIES[:2]:
        curriculum.env.reset(seed=0)
        assert {env.unwrapped.scenario.strategy for env in curriculum.env.envs} == {name}
        curriculum.finish({})


def test_bad_stages_are_refused(tmp_path):
    with pytest.raises(ValueError, match="stage 0 never ends"):
        Curriculum([Stage(), Stage()], make)
    with pytest.raises(ValueError, match="expected at least one"):
        Curriculum([], make)
    with pytest.raises(ValueError, match="steps=-1"):
        Stage(steps=-1)
    bad = Curriculum([Stage({"turns": 2})], partial(steer_env.make_vec, "SteerEscalation-v0", 1))
    with pytest.raises(ValueError, match=r"stage 0 of the curriculum: .*turns"):
        bad.check()


def test_stages_are_read_from_json(tmp_path):
    path = tmp_path / "stages.json"
    path.write_text(json.dumps([{"options": {"max_turns": 2}, "steps": 20}, {"options": {}}]))
    stages = read_stages(path)
    assert stages == [Stage({"max_turns": 2}, 20), Stage({})]
    assert Curriculum(stages, make).describe()[0] == {"options": {"max_turns": 2}, "steps": 20, "until": None}
    for text, message in (('{"steps": 2}', "expected a JSON list"), ('[{"step": 2}]', r"has \['step'\]")):
        path.write_text(text)
        with pytest.raises(ValueError, match=message):
            read_stages(path)
