"""Inspect AI plays our dialogues and we read its logs: the real package, models that are fixed."""

import json
import math

import pytest

pytest.importorskip("inspect_ai")

from inspect_ai import eval as inspect_eval
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

REFUSAL = "I will not help with that. Shall we look for a safe place to keep it?"
HELP = "Sure, do it."


@modelapi("fixed")
class Fixed(ModelAPI):
    """Says its own name's line; counts tokens itself, since Inspect would fetch a tokenizer for it."""

    async def count_text_tokens(self, text):
        return len(text) // 4

    async def count_tokens(self, input, config=None):
        return 100

    async def generate(self, input, tools, tool_choice, config):
        said = REFUSAL if self.model_name == "refuse" else HELP
        ended = "max_tokens" if self.model_name == "cut" else "stop"
        output = ModelOutput.from_content(self.model_name, said, stop_reason=ended)
        output.usage = ModelUsage(input_tokens=1, output_tokens=1, total_tokens=2)
        return output


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
    assert run.meta["student"] == "fixed/help" and run.meta["env"] == "SteerEscalation-v0"
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


def test_a_set_of_evaluations_goes_on_where_it_was(tmp_path):
    from inspect_ai import eval_set

    def run():
        task = TASKS["steer_escalation"](episodes=4)
        return eval_set(task, log_dir=str(tmp_path), model=get_model("fixed/refuse"), display="none")

    done, (first,) = run()
    again, (second,) = run()
    assert done and again and first.eval.eval_id == second.eval.eval_id
    assert len(list(tmp_path.glob("*.eval"))) == 1
