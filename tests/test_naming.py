"""Objects of one's own by name: one mechanism wherever a name is taken, and never unasked."""

import json
import subprocess
import sys

import gymnasium
import pytest

import steer_env
from steer_env import ids, naming
from steer_env.cli.main import main
from steer_env.judges.names import open_judge
from steer_env.play.recorded import CannotRescore, scenes_of
from steer_env.wrappers import TCSR, TurnReward

OWN = """
from pathlib import Path
import steer_env
from steer_env import Scored, Terms
from steer_env.algorithms.presets import *
from steer_env.wrappers import TurnReward
from steer_env.scenarios import DraftTurn

class Echo:
    def __init__(self, word="no"):
        self.word = word
    def act(self, observations):
        return [self.word for _ in observations]

class Judge:
    name = "own"
    def judge(self, requests):
        return [Scored(Terms(7, 6, 5), judge="own") for _ in requests]

class Doubled(TurnReward):
    def turn_reward(self, *given):
        return 2 * super().turn_reward(*given)

class Source:
    def sample(self, rng):
        return scenarios[int(rng.integers(2))]

scenarios = [
    steer_env.Scenario(id=f"own-{i}", kind="benign", images=(), turns=tuple(map(DraftTurn, ("a?", "b?"))))
    for i in range(2)
]
made = Judge()

def register():
    if "OwnByFile-v0" not in steer_env.ids.SPECS:
        steer_env.register("OwnByFile-v0", scenarios=scenarios, judge=made, attacker="static")

register()
"""


@pytest.fixture
def own(tmp_path):
    path = tmp_path / "own.py"
    path.write_text(OWN)
    yield str(path)
    ids.SPECS.pop("OwnByFile-v0", None)
    gymnasium.registry.pop("steer_env/OwnByFile-v0", None)


@pytest.mark.parametrize(
    ("name", "own"),
    [
        ("package.module:Name", True),
        ("dir with space/my.py:Name.of", True),
        ("module:Name?level=2", True),
        ("rule", False),
        ("path/file.jsonl", False),
        ("C:\\data.jsonl", False),
        ("module:", False),
        ("1:2", False),
        (None, False),
    ],
)
def test_what_a_reference_looks_like(name, own):
    assert naming.is_reference(name) is own


def test_a_class_is_called_and_an_object_is_not(own):
    assert naming.make(f"{own}:Echo?word=aye").word == "aye"
    assert naming.make(f"{own}:Echo", word="maybe").word == "maybe"
    assert naming.make(f"{own}:made") is naming.load(f"{own}:made")
    with pytest.raises(ValueError, match="made already"):
        naming.make(f"{own}:made?level=1")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nowhere_at_all.module:X", "cannot be imported.*file.py:Object"),
        ("missing.py:X", "not there"),
        ("steer_env.types:Scord", "did you mean 'Scored'"),
    ],
)
def test_a_wrong_name_says_what_is_wrong(name, said):
    with pytest.raises(ValueError, match=said):
        naming.load(name)


def test_a_file_that_fails_is_run_again_once_it_is_mended(tmp_path):
    path = tmp_path / "half.py"
    path.write_text("raise RuntimeError('half')")
    with pytest.raises(RuntimeError, match="half"):
        naming.load(f"{path}:X")
    path.write_text("X = 1")
    assert naming.load(f"{path}:X") == 1


def test_every_part_of_an_environment_may_be_ones_own(own):
    env = steer_env.make(
        "SteerBenign-v0",
        scenarios=f"{own}:Source",
        judge=f"{own}:Judge",
        wrappers=[f"{own}:Doubled", "TCSR?alpha=0.5"],
    )
    plain = steer_env.make("SteerBenign-v0", scenarios=f"{own}:scenarios", judge=f"{own}:made", alpha=0.5)
    assert isinstance(env, TCSR) and env.alpha == 0.5
    student = steer_env.make_agent(f"{own}:Echo")
    rewards = []
    for one in (env, plain):
        one.reset(seed=0)
        one.step("a?")
        one.step(student.act([one.observe("student_0")])[0])
        rewards.append(one.rewards["student_0"])
    assert rewards[0] == pytest.approx(2 * rewards[1]) and rewards[1] > 0
    assert env.unwrapped.judge.name == "own"


def test_a_judge_of_ones_own_stands_in_a_judge_of_judges(own):
    assert [m.name for m in open_judge(f"worst(rule, {own}:Judge)").judges] == ["rule", "own"]
    with pytest.raises(TypeError, match="expected an object with name and judge"):
        open_judge(f"{own}:Echo")


def test_an_unknown_wrapper_is_named():
    with pytest.raises(ValueError, match="did you mean 'TCSR'"):
        steer_env.make(wrappers=["TCRS"])


def test_an_algorithm_of_ones_own(tmp_path):
    from steer_env.algorithms.base import algorithm_class, make_algorithm

    path = tmp_path / "algo.py"
    path.write_text(
        "from dataclasses import dataclass\nfrom steer_env.algorithms.reinforce import *\n"
        "from steer_env.algorithms.base import algorithm_class\n"
        "@dataclass(kw_only=True)\nclass Mine(algorithm_class('rloo')):\n    twist: float = 0.5\nthing = 3\n"
    )
    made = make_algorithm(f"{path}:Mine", twist=0.25)
    assert made.twist == 0.25 and made.name == f"{path}:Mine" and algorithm_class("rloo").name == "rloo"
    with pytest.raises(TypeError, match="expected a subclass of Algorithm"):
        make_algorithm(f"{path}:thing")


def test_a_registered_environment_is_known_everywhere(own):
    env = steer_env.make(f"{own}:OwnByFile-v0")
    assert env.unwrapped.judge.name == "own" and "OwnByFile-v0" in steer_env.env_ids()
    assert steer_env.make_vec("OwnByFile-v0", 2).num_envs == 2
    observation, _ = gymnasium.make("steer_env/OwnByFile-v0").reset(seed=0)
    assert observation["transcript"][-1].content == "a?"
    with pytest.raises(ValueError, match="taken"):
        steer_env.register("OwnByFile-v0", summary="another")
    assert steer_env.make("OwnByFile-v0", judge=None).unwrapped.judge is None


@pytest.mark.parametrize(
    ("id", "options", "said"),
    [("own", {}, "version"), ("Own-v0", {"scenarios": "x", "kinds": ("benign",)}, "within the built-in")],
)
def test_registering_nonsense_is_refused(id, options, said):
    with pytest.raises(ValueError, match=said):
        steer_env.register(id, **options)


def test_a_registered_world_takes_options_and_the_usual_wrappers():
    steer_env.register("OwnWorld-v0", kinds=("benign",), max_turns=4, wrappers=["TurnReward"])
    try:
        env = steer_env.make("OwnWorld-v0")
        env.reset(seed=1)
        assert type(env) is TurnReward and env.unwrapped.scenario.kind == "benign"
    finally:
        del ids.SPECS["OwnWorld-v0"], gymnasium.registry["steer_env/OwnWorld-v0"]


def test_an_installed_package_registers_its_environments(tmp_path):
    (tmp_path / "their_envs.py").write_text(
        "import steer_env\ndef register():\n    steer_env.register('Theirs-v0', kinds=('benign',))\n"
    )
    info = tmp_path / "their_envs-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-envs\nVersion: 1\n")
    (info / "entry_points.txt").write_text(
        "[steer_env.plugins]\ntheirs = their_envs:register\nbroken = nowhere_at_all:x\n"
    )
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import steer_env\n"
        "assert 'their_envs' not in sys.modules\n"
        "steer_env.make('Theirs-v0'); print(steer_env.env_ids()[-1])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "Theirs-v0\n", done.stderr
    assert "plugin 'broken' (nowhere_at_all:x) failed" in done.stderr


def test_evaluate_plays_ones_own_student_scenarios_and_judge(own, tmp_path, capsys):
    out = tmp_path / "run"
    command = ["evaluate", f"{own}:Echo?word=aye", "--env", f"{own}:OwnByFile-v0", "--out", str(out)]
    assert main([*command, "--format", "md"]) == 0, capsys.readouterr().err
    rows = [json.loads(line) for line in (out / "dialogues.jsonl").read_text().splitlines()]
    assert [row["scenario"] for row in rows] == ["own-0", "own-1"]
    assert rows[0]["turns"][0]["reply"] == "aye" and rows[0]["turns"][0]["verdict"]["judge"] == "own"
    assert json.loads((out / "run.json").read_text())["model_hash"] == naming.source_hash(f"{own}:Echo")


EVIL = "from pathlib import Path\nPath(__file__).with_suffix('.ran').touch()\n"


@pytest.fixture
def received(tmp_path, monkeypatch):
    """A folder that somebody sent, with code in it that must not run."""
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "theirs"
    out.mkdir()
    (out / "evil.py").write_text(EVIL)
    return out


@pytest.mark.parametrize(
    ("command", "key", "value"),
    [
        ("evaluate", "student", "theirs/evil.py:X"),
        ("evaluate", "attacker", "theirs/evil.py:X"),
        ("evaluate", "judge", "worst(rule, theirs/evil.py:X)"),
        ("evaluate", "scenarios", "theirs/evil.py:X"),
        ("evaluate", "wrappers", ["TCSR", "theirs/evil.py:X"]),
        ("evaluate", "env", "theirs/evil.py:Own-v0"),
        ("train", "algorithm", "theirs/evil.py:X"),
        ("train", "student", "theirs/evil.py:X"),
    ],
)
def test_code_that_a_received_run_folder_names_is_not_run(command, key, value, received, capsys):
    stored = {
        "config_format": 2,
        "model_hash": "",
        "scenario_hash": "",
        "student": "constructive" if command == "evaluate" else "hf:tiny-sft",
    }
    (received / "run.json").write_text(json.dumps({**stored, key: value}))
    assert main([command, "--resume", "--out", "theirs"]) == 2
    said = capsys.readouterr().err
    assert "run code" in said and f"repeat --{key}" in said and "--trust" in said
    assert not (received / "evil.ran").exists()
    main([command, "--resume", "--out", "theirs", "--trust"])
    assert (received / "evil.ran").exists()  # the test would have seen it


@pytest.mark.parametrize("key", ["scenarios", "env"])
def test_reading_a_received_run_does_not_run_its_code(key, received):
    meta = {"env": "SteerBenign-v0", key: "theirs/evil.py:Own-v0" if key == "env" else "theirs/evil.py:X"}
    (received / "evil.py:X").touch()  # a file of that name is no way round
    with pytest.raises(CannotRescore, match="--trust"):
        scenes_of(meta)
    assert not (received / "evil.ran").exists()
    with pytest.raises(ValueError, match=r"has no 'X'|no environment"):
        scenes_of(meta, trust=True)
    assert (received / "evil.ran").exists()


def test_a_file_that_ends_the_program_is_named(tmp_path):
    (tmp_path / "quits.py").write_text("import sys; sys.exit(0)")
    with pytest.raises(ValueError, match=r"quits\.py' ends the program"):
        naming.load(f"{tmp_path}/quits.py:X")
