"""`steer_env.evaluate`, and what a run says of itself without being told."""

import json

import pytest

import steer_env
from steer_env.play.compare import compare
from steer_env.play.evaluate import evaluate
from steer_env.play.recorded import load_run, scenes_of


class Echo:
    def act(self, observations):
        return ["no" for _ in observations]


def test_the_short_way_prints_a_table_and_returns_the_numbers(capsys):
    summary = steer_env.evaluate("SteerBenign-v0", "refuse", episodes=8)
    said = capsys.readouterr().out
    assert summary.dialogues == 8 and "refuse" in said and "over-refusal" in said
    assert summary.over_refusal.value == 1.0
    assert str(summary).splitlines()[3:] == said.replace("refuse", "all   ").splitlines()[3:]
    assert (
        steer_env.evaluate("SteerBenign-v0", "refuse", episodes=8, show=False).to_dict() == summary.to_dict()
    )
    assert capsys.readouterr().out == ""


def test_its_run_folder_can_be_compared_and_its_scenarios_made_again(tmp_path):
    for name in ("refuse", "comply"):
        steer_env.evaluate("SteerStatic-v0", name, episodes=16, out=tmp_path / name, show=False)
    runs = {name: load_run(tmp_path / name) for name in ("refuse", "comply")}
    found = {r.measure: r for r in compare({name: [run] for name, run in runs.items()})}
    assert found["harm"].difference.value > 0
    run = runs["refuse"]
    assert {
        **run.meta,
        "env": "SteerStatic-v0",
        "split": "bench",
        "student": "refuse",
        "attacker": "static",
    } == run.meta
    assert scenes_of(run.meta)(run.rows[3]).id == run.rows[3]["scenario"]


@pytest.mark.parametrize(
    "wrap", [lambda env: env, lambda env: steer_env.make_vec("SteerBenign-v0", 2, split="bench")]
)
def test_an_environment_that_is_made_is_played_as_it_is(wrap, tmp_path):
    env = wrap(steer_env.make("SteerBenign-v0", split="bench"))
    summary = steer_env.evaluate(env, Echo(), episodes=4, out=tmp_path, show=False)
    named = steer_env.evaluate("SteerBenign-v0", Echo(), episodes=4, show=False)
    assert summary.to_dict() == named.to_dict()
    said = json.loads((tmp_path / "run.json").read_text())
    assert said["student"].endswith(":Echo") and said["judge"] == "rule" and said["attacker"] == "tutor"


def test_what_cannot_be_evaluated_is_refused():
    with pytest.raises(ValueError, match="split beside an environment that is made"):
        steer_env.evaluate(steer_env.make(), "refuse", split="ood")
    with pytest.raises(TypeError, match="expected an id, or an environment"):
        steer_env.evaluate(object(), "refuse")


def test_own_scenarios_are_each_played_once(tmp_path):
    source = steer_env.make("SteerBenign-v0", split="bench").unwrapped.scenarios
    own = [source.scenario(i) for i in range(3)]
    summary = steer_env.evaluate("SteerBenign-v0", "constructive", scenarios=own, out=tmp_path, show=False)
    assert summary.dialogues == 3
    assert {row["seed"]: row["scenario"] for row in load_run(tmp_path).rows} == {
        i: s.id for i, s in enumerate(own)
    }
    assert len(load_run(tmp_path).meta["scenario_hash"]) == 16 and "split" not in load_run(tmp_path).meta


def test_what_the_caller_says_of_a_run_stands(tmp_path):
    vec = steer_env.make_vec("SteerBenign-v0", 2, split="bench")
    tutor, student = steer_env.make_agent("tutor"), steer_env.make_agent("refuse")
    evaluate(vec, tutor, student, range(4), tmp_path, meta={"student": "mine"})
    said = load_run(tmp_path).meta
    assert said["student"] == "mine" and said["env"] == "SteerBenign-v0" and said["attacker"] == "tutor"
    with pytest.raises(FileExistsError, match="student"):
        evaluate(vec, tutor, Echo(), range(4), tmp_path, resume=True)
