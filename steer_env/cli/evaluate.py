"""`steer-env evaluate`: play dialogues against a student and report."""

from __future__ import annotations

import re
from dataclasses import asdict, field
from pathlib import Path
from typing import Any

from steer_env.cli.checks import check_played
from steer_env.cli.command import Command, Positional
from steer_env.cli.common import (
    RunConfig,
    check_unchanged,
    judge_content,
    model_hash,
    open_folder,
    open_setting,
    open_student,
    run_meta,
)
from steer_env.cli.progress import Bar, Bars, show_table
from steer_env.cli.report import formats_of, open_run
from steer_env.cli.suite import run_suite, token_row
from steer_env.configs.base import Natural, Positive, Share, Switch, config
from steer_env.configs.env import EnvConfig
from steer_env.configs.student import ModelConfig, SamplingConfig
from steer_env.evaluation.summary import Summary
from steer_env.judges.independence import check_independent
from steer_env.play.suites import distribution_of

_EXAMPLES = """  steer-env evaluate constructive
  steer-env evaluate runs/mine --env SteerRedTeam-v0 --episodes 500
  steer-env evaluate runs/mine --controls
  steer-env evaluate path/to/model --scenarios my.jsonl --out runs/eval-mine
  steer-env evaluate path/to/model --scenarios my.jsonl --out runs/eval-mine --resume
  steer-env evaluate runs/mine --attacker openai:MODEL@http://localhost:8000/v1 --judge tutor
  steer-env evaluate runs/mine --suite full --attempts 3 --out runs/full"""


@config(frozen=True, kw_only=True)
class Evaluate(RunConfig):
    """Play dialogues against a student and report multi-turn safety, helpfulness, leaks and survival.

    Each rate has its interval. The run folder gets dialogues.jsonl (each row as its dialogue ends),
    summary.json and the report files. Turns without a verdict are never guessed: they show as unscored, and
    rates that hang on them as bounds. The built-in world is played in whole scenario groups, whose members
    differ in the picture or the history alone: the number of dialogues is rounded up. A suite plays each of
    its parts in a folder of its own; `full` is single- and multi-turn, in- and out-of-distribution.

    Attributes:
        student: A script (refuse, comply, constructive, random), hf:tiny, hf:tiny-sft, hf:tiny-grpo, a model
            folder, a run folder, hf:ORGANISATION/MODEL, vllm:PATH or openai:MODEL@URL.
        env: The dialogues; --split is bench unless it is given.
        out: Run folder; runs/evaluate/STUDENT unless it is given.
        suite: Plays whole groups in place of --env: bench, bench-single, ood, ood-single or full.
        attempts: Of a suite: attempts at each dialogue, seeded differently; 1 unless it is given.
        episodes: Dialogues; 200, or each scenario of a file once, unless it is given.
        seed: First seed; the dialogues take this and the following ones, with those of their groups.
        sampling: How a model replies.
        controls: Play the same dialogues also without pictures, with swapped ones, without the history and
            with a constant reply, each shown as a row; a suite does so by itself.
        no_controls: Play a suite without them.
        tokens: Record a model's tokens with mask and log-probability (large).
        num_envs: Dialogues at a time.
        watch: Show table and curves while it runs.
        unscored_limit: Stop when more than this share of turns has no verdict; 0.05 unless it is given (1
            with --scenarios and the rule judge, which cannot score them).
        card: Calibration card of the judge, JSON.
        format: Files to write, of html, md, csv, parquet, png, svg, inspect, with commas between them;
            html,md,csv (and png with matplotlib) unless it is given.
        leakage: File leakage.jsonl of `steer-env data audit`: results by how much was in the training data.
        model: How a model of this process runs.
    """

    student: Positional[str] = ""
    env: EnvConfig = field(default_factory=EnvConfig)
    out: str = ""
    suite: str | None = None
    attempts: Positive | None = None
    episodes: Positive | None = None
    seed: Natural = 0
    sampling: SamplingConfig = field(default_factory=lambda: SamplingConfig(temperature=0.0))
    controls: Switch = False
    no_controls: Switch = False
    tokens: Switch = False
    num_envs: Positive = 32
    watch: Switch = False
    unscored_limit: Share | None = None
    card: str | None = None
    format: str | None = None
    leakage: str | None = None
    model: ModelConfig = field(default_factory=ModelConfig)

    def folder(self) -> Path:
        """Return the run folder."""
        name = "-".join(filter(None, (self.student, self.suite)))
        return Path(
            self.out or Path("runs/evaluate") / (re.sub(r"[^\w.-]+", "-", name).strip("-.") or "student")
        )

    def free(self) -> tuple[str, ...]:
        """Return the names of what may change when the run goes on."""
        how = ("tokens", "num_envs", "watch", "unscored_limit", "card", "format", "leakage", "controls")
        of_suite = ("suite", "episodes", "attempts") if self.suite is None else ()
        return (*how, "no_controls", "device", "batch_size", *of_suite)

    def limit(self, own: bool) -> float:
        """Return the limit on unscored turns; the rule judge cannot score `own` scenarios."""
        if self.unscored_limit is not None:
            return self.unscored_limit
        return 1.0 if own and self.env.judge == "rule" else 0.05


def run(config: Evaluate) -> int:
    """Evaluate and print the table."""
    reports = _Reports(config)  # what is wrong with them is said before anything is played
    if not config.student:
        raise ValueError("student is missing, expected a script, a model or a folder; see --help")
    if config.suite is not None:
        return run_suite(config, reports.write)
    if config.attempts is not None:
        raise ValueError(f"attempts={config.attempts!r} without a suite, expected --suite beside --attempts")
    return _run_plain(config, reports)


def _run_plain(config: Evaluate, reports: _Reports) -> int:
    """Play dialogues of one environment."""
    from steer_env.cli.watch import Watch
    from steer_env.play.evaluate import DIALOGUES, evaluate, load_rows

    out = open_folder(config)
    setting = open_setting(config.env, "bench")
    student = open_student(config.student, config.model, **asdict(config.sampling))
    allowed = config.env.allow_self_judge
    check_independent(setting.judge, student, setting.attacker, allow=allowed)
    own = setting.scenarios
    episodes = config.episodes or (200 if own is None else len(own))
    seeds = range(config.seed, config.seed + episodes)
    vec = setting.make(min(config.num_envs, episodes))
    content = {"scenario_hash": setting.digest, "model_hash": model_hash(config.student)}
    content |= judge_content(setting.judge)
    check_unchanged(out, **content)
    meta = run_meta("evaluate", config, content, free=False)
    split = setting.env.split
    where = {} if split is None else {"distribution": distribution_of(split)}
    print(f"dialogues go to {out / DIALOGUES}")
    label = f"evaluate {config.student}"
    with Watch(label, out / DIALOGUES) if config.watch else Bar(label, episodes) as bar:
        summary = evaluate(
            vec,
            setting.attacker,
            student,
            seeds,
            out,
            resume=config.resume,
            scenarios=own,
            meta=meta,
            extra=lambda dialogue: {**where, **(token_row(dialogue, student) if config.tokens else {})},
            progress=bar.update,
            unscored_limit=config.limit(own is not None),
            allow_self_judging=allowed,
        )
    check_played(load_rows(out))
    controls: dict[str, Summary] = {}
    if config.controls:
        from steer_env.play.controls import play_controls, search

        with Bars() as bars:
            controls = play_controls(
                vec,
                setting.attacker,
                student,
                seeds,
                out,
                scenarios=own,
                meta=meta,
                constant=None if split is None else search(setting.env.env, split=split),
                progress=lambda name, n, of: bars.update(f"{label}, {name}", n, of),
                extra=lambda _: where,
                unscored_limit=1.0,  # a control that the judge cannot read is a result, too
                allow_self_judging=allowed,
            )
    title = f"{setting.env.env}, {config.env.scenarios or split or ''}"
    _show(config.student, summary, title, controls, out)
    print(f"summary: {out / 'summary.json'}")
    reports.write(out, config.student, title)
    return 0


def _show(name: str, summary: Summary, title: str, controls: dict[str, Summary], out: Path) -> None:
    from steer_env.play.controls import load_controls, sentence
    from steer_env.play.evaluate import load_rows

    worth = {name: sentence(load_rows(out), load_controls(out))} if controls else {}
    show_table({name: summary}, title, controls={name: controls}, worth=worth)
    print(f"harm rate {summary.harm_rate.text(percent=True)}; refused harmless turns "
          f"{summary.refusal_of_harmless.text(percent=True)}")  # fmt: skip


class _Reports:
    """The report files that the options ask for, checked before anything is played."""

    def __init__(self, config: Evaluate) -> None:
        from steer_env.evaluation.calibration import load_card
        from steer_env.evaluation.leakage import load_leakage
        from steer_env.evaluation.measures import check_card

        self.card = None if config.card is None else check_card(load_card(config.card))
        self.bins = None if config.leakage is None else load_leakage(config.leakage)
        self.formats = formats_of(config.format)

    def write(self, out: Path, name: str, title: str = "") -> None:
        """Write the files of a run folder, or of a suite, and say where they are."""
        from steer_env.play.controls import load_controls
        from steer_env.report.outputs import write_reports
        from steer_env.report.sections import sections_of, suite_text

        rows, makers, metas = open_run(out, name, self.bins)
        check_played(rows)
        sections = sections_of({name: rows}, card=self.card, controls={name: load_controls(out)})
        if any(section.suite for section in sections):
            print(suite_text(sections))
        paths = write_reports(
            {name: rows},
            out,
            title=title or f"steer_env: {name}",
            card=self.card,
            pictures=lambda row: makers[name, row.get("suite", "")](row),
            formats=self.formats,
            metas=metas,
            sections=sections,
        )
        for what, path in paths.items():
            print(f"{'report' if what == 'html' else what}: {path}")


def plot(summaries: Any, path: Path, title: str) -> str:
    """Draw the survival plot and return where it is, or why there is none."""
    from steer_env.report.plots import survival_plot

    try:
        return str(survival_plot(summaries, path, title=title))
    except ImportError as error:  # the numbers stand without it
        return f"none ({error})"


COMMAND = Command(Evaluate, run, _EXAMPLES)
