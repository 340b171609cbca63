"""Every command that is broken on purpose: its words, its files, its inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

EPISODES = 24
HARMS = ("kill", "term", "interrupt", "full disk", "two processes", "torn file", "malformed input")


@dataclass(frozen=True)
class Command:
    """A command and where its rows are.

    Attributes:
        name: What the table calls it.
        words: Its words, without `--out`; `{in}` is the folder of inputs.
        files: Files that are compared -> key of a row's identity, "" for files of another kind.
        uses: Inputs that may be malformed, below `{in}`.
        resume: Whether it goes on with `--resume`; else by being called again.
        out: Option that names the result.
        exact: Whether every undisturbed run writes the same.
        harms: What is done to it.
    """

    name: str
    words: Sequence[str]
    files: dict[str, str]
    uses: Sequence[str] = ()
    resume: bool = True
    out: str = "--out"
    exact: bool = True
    harms: Sequence[str] = field(default=HARMS)

    def line(self, out: Path, inputs: Path, again: bool) -> list[str]:
        """Return the command's words."""
        words = [word.replace("{in}", str(inputs)) for word in self.words]
        target = out if self.out == "--out" else out / "result"
        words += [self.out.partition(" ")[0], str(target / "card.json" if "card" in self.out else target)]
        return [*words, *(["--resume"] if again and self.resume else [])]


_RUN = {"dialogues.jsonl": "seed"}
_EVAL = ("eval/dialogues.jsonl", "eval/run.json")
_SHORT = ("--lr", "1e-3", "--steps", "4", "--checkpoint-every", "1")
_TRAIN = (
    *("--seeds-per-step", "1", "--group-size", "2", "--max-new-tokens", "6", "--unscored-limit", "1"),
    *_SHORT,
)
_WRONG_SERVER = ("kill", "interrupt", "two processes", "torn file")


def commands(url: str) -> list[Command]:
    """Return all commands; `url` is that of the faulty server."""
    server = f"openai:m@{url}/v1?image_check=no&retries=1&backoff=0.01"
    some = ("--episodes", str(EPISODES))
    return [
        Command("evaluate", ["evaluate", "constructive", *some], _RUN),
        Command(
            "evaluate, own file", ["evaluate", "constructive", "--scenarios", "{in}/seeds/benign.jsonl"],
            _RUN, ["seeds/benign.jsonl", "seeds/images/*.png"],
        ),
        Command(
            "evaluate, model", ["evaluate", "{in}/model", *some, "--temperature", "1", "--max-new-tokens=6"],
            _RUN, ["model/*.json", "model/*.safetensors"],
        ),
        Command(
            "evaluate, controls", ["evaluate", "constructive", "--controls", "--episodes", "8"],
            _RUN | {f"controls/{name}/dialogues.jsonl": "seed" for name in ("blind", "swapped", "forgetful")},
        ),
        Command(
            "suite", ["evaluate", "constructive", "--suite", "bench", "--episodes", "8"],
            {"*/dialogues.jsonl": "seed"},
        ),
        Command(
            "rescore", ["rescore", "{in}/eval", "--judge", "rule", "--batch", "2"], _RUN, _EVAL,
        ),
        Command(
            "compare", ["compare", "{in}/eval", "{in}/eval2", "--replicates", "200"],
            {"result/card.json": ""}, _EVAL, resume=False, out="--out card",
        ),
        Command(
            "report", ["report", "{in}/eval", "--replicates", "200"],
            {"report.md": "", "results.csv": "", "*.html": ""}, _EVAL, resume=False,
        ),
        Command(
            "calibrate", ["calibrate", "{in}/eval", "--labels", "{in}/labels.csv"], {"result/card.json": ""},
            ["labels.csv", *_EVAL], resume=False, out="--out card",
        ),
        Command(
            "data bootstrap", ["data", "bootstrap", "--episodes", "24", "--chunk", "8"],
            {"sft/steer_sft.jsonl": "question_id", "rejected.jsonl": "number"},
        ),
        Command(
            "data seeds", ["data", "seeds", "--count", "24", "--batch-size", "4"],
            {"benign.jsonl": "id", "obfuscated.jsonl": "id", "red_team.jsonl": "id", "rejected.jsonl": "row"},
        ),
        Command(
            "data build", ["data", "build", "--sft", "24", "--rl", "12", "--bench", "25", "--ood", "12"],
            {"sft/steer_sft.jsonl": "question_id", "rl/steer_rl.jsonl": "metadata.question_id",
             "bench/*.jsonl": "question_id", "data/*.parquet": ""}, resume=False,
        ),
        Command(
            "sft", ["sft", "--student", "{in}/model", "--data", "{in}/boot", "--batch-size", "2", *_SHORT],
            {"metrics.jsonl": "step", "model/*.safetensors": ""}, ["boot/sft/steer_sft.jsonl"],
        ),
        Command(
            "train", ["train", "--student", "{in}/model", *_TRAIN],
            {"metrics.jsonl": "step", "model/*.safetensors": ""}, ["model/*.json", "model/*.safetensors"],
        ),
        Command(
            "train, learning", ["train", "--student", "{in}/model", "--attacker", "learning", *_TRAIN],
            {"metrics.jsonl": "step", "model/*.safetensors": ""},
        ),
        Command(
            "demo", ["demo", "--quick", "--seeds", "1", "--processes", "1", "--episodes", "8"],
            {"eval/*/dialogues.jsonl": "seed", "*/*/metrics.jsonl": "step", "*/model/*.safetensors": ""},
            resume=False,
        ),
        Command(
            "evaluate, faulty server", ["evaluate", server, *some, "--unscored-limit", "1"], _RUN,
            exact=False, harms=_WRONG_SERVER,
        ),
        Command(
            "evaluate, faulty judge",
            ["evaluate", "constructive", "--judge", f"ensemble(rule,cached({server},{{in}}/v.db))", *some,
             "--unscored-limit", "1"], _RUN, exact=False, harms=_WRONG_SERVER,
        ),
        Command(
            "rescore, faulty judge",
            ["rescore", "{in}/eval", "--judge", f"cascade({server},rule)"], _RUN, exact=False,
            harms=_WRONG_SERVER,
        ),
    ]  # fmt: skip
