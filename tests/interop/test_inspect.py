"""Inspect AI plays our dialogues and we read its logs: the real package, models that are fixed."""

import json
import math
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("inspect_ai")

import anyio
from inspect_ai import eval as inspect_eval
from inspect_ai import eval_set
from inspect_ai.log import read_eval_log
from inspect_ai.model import ContentImage, ModelAPI, ModelOutput, ModelUsage, get_model, modelapi

from steer_env.cli.main import main
from steer_env.ids import SPECS
from steer_env.interop.inspect import TASKS, task_name
from steer_env.play.compare import compare
from steer_env.play.logs import compare_scores, read_scores
from steer_env.play.recorded import load_run, scenes_of
from steer_env.play.suites import PARTS
from steer_env.report.inspect_log import write_inspect_log

sys.path.insert(0, str(Path(__file__).parents[2] / "tests_interop"))
import recorded

REFUSAL = "I will not help with that. Shall we look for a safe place to keep it?"
HELP = "Sure, do it."
VERDICT = {"diagnosis": "d", "move": "answer", "safety": 2, "usefulness": 7, "faithfulness": 9}
ASKED = []


def line(name, number):
    """What a fixed model says to its question of that number."""
    question = f"And what is step {number}?"
    asked = {"tactic": "follow_up", "strategy": "none", "next_question": question}
    return {
        "refuse": REFUSAL,
        "plain": question,
        "judge": json.dumps(VERDICT),
        "tutor": json.dumps({**VERDICT, **asked}),
        "mind": json.dumps({"thought": "t", "strategy": "none", "user_turn": question}),
    }.get(name, HELP)


class Fixed(ModelAPI):
    """Says its own name's line; counts tokens itself, since Inspect would fetch a tokenizer for it."""

    async def count_text_tokens(self, text):
        return len(text) // 4

    async def count_tokens(self, input, config=None):
        return 100

    async def generate(self, input, tools, tool_choice, config):
        said = line(self.model_name, len(ASKED))
        ASKED.append((self.model_name, list(input)))
        ended = "max_tokens" if self.model_name == "cut" else "stop"
        output = ModelOutput.from_content(self.model_name, said, stop_reason=ended)
        output.usage = ModelUsage(input_tokens=1, output_tokens=1, total_tokens=2)
        return output


@modelapi("fixed")
def fixed():
    return Fixed


def played(folder, model="refuse", roles=None, **options):
    ASKED.clear()
    (log,) = inspect_eval(
        TASKS[options.pop("task", "steer_escalation")](episodes=options.pop("episodes", 2), **options),
        model=get_model(f"fixed/{model}"),
        model_roles={role: get_model(f"fixed/{name}") for role, name in (roles or {}).items()},
        display="none",
        log_dir=str(folder),
    )
    return log


@pytest.fixture(scope="module")
def logs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("logs")
    made = {}
    for name in ("refuse", "help"):
        (log,) = inspect_eval(
            TASKS["steer_escalation"](episodes=8, attacker="tutor"),
            model=get_model(f"fixed/{name}"),
            epochs=2 if name == "refuse" else 1,
            display="none",
            log_dir=str(folder / name),
        )
        assert log.status == "success", log.error
        made[name] = log.location.removeprefix("file://")
    return made


def test_there_is_a_task_for_every_id_and_part():
    assert set(TASKS) == {task_name(name) for name in (*SPECS, *PARTS)}


def test_a_log_holds_dialogues_with_pictures_scores_and_epochs(logs):
    log = read_eval_log(logs["refuse"], resolve_attachments=True)
    assert len(log.samples) == 16 and {s.epoch for s in log.samples} == {1, 2}
    sample = log.samples[0]
    pictures = [c for m in sample.messages if isinstance(m.content, list) for c in m.content]
    assert any(isinstance(c, ContentImage) and c.image.startswith("data:image/png") for c in pictures)
    assert sample.messages[1].text == REFUSAL and len(sample.messages) % 2 == 0
    harm = next(score for score in log.results.scores if score.name == "harm")
    assert harm.metrics["mean"].value == 0.0


def test_our_reports_and_comparisons_read_a_log(logs, tmp_path, capsys):
    run = load_run(logs["help"])
    assert run.meta["student"] == "inspect:fixed/help" and run.meta["env"] == "SteerEscalation-v0"
    assert scenes_of(run.meta)(run.rows[2]).id == run.rows[2]["scenario"]
    out = tmp_path / "report.md"
    assert main(["report", logs["help"], "--out", str(out)]) == 0, capsys.readouterr().err
    assert "joint pass" in out.read_text()


def test_scores_of_two_logs_are_compared_like_by_hand(logs, capsys):
    a, b = (read_scores(logs[name]) for name in ("help", "refuse"))
    found = {r.measure: r for r in compare_scores(a, b)}
    of = {(r.sample, r.epoch): r.score for r in b if r.measure == "safety"}
    pairs = [(r.score, of[r.sample, 1]) for r in a if r.measure == "safety" and r.epoch == 1]
    pairs = [(x, y) for x, y in pairs if not math.isnan(x + y)]
    assert found["safety"].difference.value == pytest.approx(sum(y - x for x, y in pairs) / len(pairs))
    assert found["safety"].difference.n == len(pairs)
    assert main(["compare", logs["help"], logs["refuse"], "--scores"]) == 0
    said = capsys.readouterr().out
    assert "paired by sample and epoch" in said and "safety" in said


def test_a_log_that_our_report_wrote_reads_back(logs, tmp_path):
    run = load_run(logs["help"])
    again = load_run(write_inspect_log(run.rows, tmp_path / "again.eval", meta=run.meta))
    assert list(again.rows) == json.loads(json.dumps(list(run.rows)))
    (same, *_) = compare({"a": [run], "b": [again]}, measures=("harm",))
    assert same.difference.value == 0.0


def test_replies_that_inspect_cut_off_are_counted_as_cut_off(tmp_path):
    task = TASKS["steer_escalation"](episodes=4)
    (log,) = inspect_eval(task, model=get_model("fixed/cut"), display="none", log_dir=str(tmp_path))
    rows = [sample.metadata["row"] for sample in log.samples]
    assert rows and {turn["finish"] for row in rows for turn in row["turns"]} == {"length"}


SET = ("steer_single_turn", "steer_red_team")


class Counted(Fixed):
    """Notes each dialogue that begins in a file; does not answer the one of the number in another file."""

    def __init__(self, *args, folder, **options):
        super().__init__(*args, **options)
        self.folder = Path(folder)

    async def generate(self, input, tools, tool_choice, config):
        folder = self.folder
        with (folder / "begun").open("a") as file:
            file.write("" if any(m.role == "assistant" for m in input) else "*")
        if (folder / "begun").stat().st_size == int((folder / "last").read_text()):
            (folder / "waits").touch()
            await anyio.sleep_forever()
        return await super().generate(input, tools, tool_choice, config)


@modelapi("counted")
def counted():
    return Counted


def run_set(folder):
    """Evaluate two tasks, one dialogue at a time, each on disk when it has ended."""
    model = get_model("counted/refuse", memoize=False, folder=str(folder))
    tasks = [TASKS[name](episodes=2) for name in SET]
    return eval_set(
        tasks, str(folder / "logs"), model=model, max_tasks=1, max_samples=1, log_buffer=1, display="none"
    )


def test_a_set_of_evaluations_that_was_killed_goes_on_where_it_was(tmp_path):
    counts = [len(TASKS[name](episodes=2).dataset) for name in SET]
    (tmp_path / "last").write_text(str(counts[0] + 2))  # the second dialogue of the second task
    child = subprocess.Popen([sys.executable, __file__, str(tmp_path)])
    while not (tmp_path / "waits").exists():
        assert child.poll() is None, "the set ended before it was killed"
        time.sleep(0.2)
    child.kill()
    child.wait()
    (before,) = (
        log for log in map(read_eval_log, (tmp_path / "logs").glob("*.eval")) if log.status == "success"
    )
    (tmp_path / "last").write_text("-1")
    # In a process of its own: a set's identity may hang on what other tests left in this one.
    subprocess.run([sys.executable, __file__, str(tmp_path)], check=True)
    found = map(read_eval_log, (tmp_path / "logs").glob("*.eval"))
    # The log of the run that was cut off stays beside the new one.
    logs = {log.eval.task.split("/")[-1]: log for log in found if log.status == "success"}
    assert sorted(logs) == sorted(SET)
    assert logs[SET[0]].eval.eval_id == before.eval.eval_id  # the finished one is as it was
    assert [logs[name].results.completed_samples for name in SET] == counts
    # All dialogues once, and the one that was cut off twice.
    assert (tmp_path / "begun").stat().st_size == sum(counts) + 1


def users(sample):
    """What the user said in the log, and in the row that our reports read."""
    said = [m.text for m in sample.messages if m.role == "user"]
    assert said == [turn["user"] for turn in sample.metadata["row"]["turns"]]
    assert [m.text for m in sample.messages[1::2]] == [
        turn["reply"] for turn in sample.metadata["row"]["turns"]
    ]
    return said


def test_the_attackers_model_writes_every_user_turn_after_the_first(tmp_path):
    log = played(tmp_path, roles={"attacker": "tutor"})
    assert log.status == "success", log.error
    for sample in log.samples:
        first, *others = users(sample)
        assert "what is step" not in first
        assert others and all(re.fullmatch(r"And what is step \d+\?", text) for text in others)
    run = load_run(log.location.removeprefix("file://"))
    assert run.meta["attacker"] == "inspect:fixed/tutor"


def test_an_attackers_model_may_speak_in_plain_words_and_knows_goal_and_draft(tmp_path):
    log = played(tmp_path, roles={"attacker": "plain"}, attacker="chat", task="steer_red_team")
    assert log.status == "success", log.error
    for sample in log.samples:
        assert all(re.fullmatch(r"And what is step \d+\?", text) for text in users(sample))
    goals = {sample.metadata["row"]["goal"] for sample in log.samples}
    briefs = [asked[-1].text for name, asked in ASKED if name == "plain"]
    assert briefs and all(any(goal and goal in told for goal in goals) for told in briefs)
    roles = [m.role for name, asked in ASKED if name == "plain" for m in asked[:-1]]
    assert set(roles) == {"user", "assistant"}
    assert all("Goal:" not in m.text for name, asked in ASKED if name == "refuse" for m in asked)


def test_an_attackers_model_that_gives_no_usable_line_is_an_error_and_no_static_dialogue(tmp_path):
    log = played(tmp_path, roles={"attacker": "plain"})
    assert log.status == "error" and "no usable line" in log.error.message and "chat" in log.error.message
    unbound = played(tmp_path, attacker="chat")
    assert unbound.status == "error" and "--model-role attacker" in unbound.error.message
    deaf = played(tmp_path, attacker="static", roles={"attacker": "plain"})
    assert deaf.status == "error" and "takes no model" in deaf.error.message


def test_the_judges_model_scores(tmp_path):
    log = played(tmp_path, model="refuse", roles={"judge": "judge"})
    assert log.status == "success", log.error
    verdicts = [t["verdict"] for s in log.samples for t in s.metadata["row"]["turns"]]
    assert {v["terms"]["safety"] for v in verdicts} == {2} and "fixed/judge" in verdicts[0]["judge"]
    harm = next(score for score in log.results.scores if score.name == "harm")
    assert harm.metrics["mean"].value == 1.0


def test_a_judge_without_answers_leaves_the_scores_open(tmp_path):
    log = played(tmp_path, roles={"judge": "help"})
    assert log.status == "success", log.error
    assert all(math.isnan(score.value) for sample in log.samples for score in sample.scores.values())
    rows = [sample.metadata["row"] for sample in log.samples]
    turns = [turn for row in rows for turn in row["turns"]]
    parts = [p for s in log.samples for m in s.messages if isinstance(m.content, list) for p in m.content]
    recorded.check_carried(
        "Inspect AI",
        pictures=(sum(isinstance(p, ContentImage) for p in parts), sum(t["images"] for t in turns)),
        rewards=(sum("reward" in t for t in turns), sum(len(s.messages) // 2 for s in log.samples)),
        unscored=(sum("unscored" in t["verdict"] for t in turns), len(turns)),
        masked=None,
        seats=("student", "attacker"),  # the role, see above
        tokens=None,
        credits=(),
    )


@pytest.mark.parametrize("roles", [{}, {"attacker": "mind"}])
def test_a_turn_that_an_attack_takes_back_is_not_remembered(tmp_path, roles):
    log = played(tmp_path, attacker="pair", roles=roles, task="steer_red_team")
    assert log.status == "success", log.error
    for sample in log.samples:
        said = users(sample)
        row = sample.metadata["row"]
        taken = [one["user"] for turn in row["turns"] for one in turn["attack"]["taken_back"]]
        assert taken and not set(taken) & set(said) - set(said)
        if roles:
            assert all("what is step" in text for text in said[1:])
    for _, chat in (one for one in ASKED if one[0] == "refuse"):
        heard = [m.text for m in chat if m.role == "user"]
        assert any(heard[:-1] == users(sample)[: len(heard) - 1] for sample in log.samples)


def test_a_log_is_judged_again(logs, tmp_path, capsys):
    out = tmp_path / "again"
    assert main(["rescore", logs["help"], "--judge", "rule?unread=worst", "--out", str(out)]) == 0
    assert len(load_run(out).rows) == 8
    assert main(["rescore", logs["refuse"], "--judge", "rule", "--out", str(tmp_path / "both")]) == 0
    assert len(load_run(tmp_path / "both").rows) == 16


if __name__ == "__main__":
    done, _ = run_set(Path(sys.argv[1]))
    sys.exit(not done)
