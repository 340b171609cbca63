"""What rollouts cost: cached turns against re-encoding every turn, and dialogues against slow servers.

    python benchmarks/rollout.py                      # a few minutes, writes runs/benchmarks/rollout.json
    python benchmarks/rollout.py --only server --scale 0.1

`incremental`: a tiny Qwen2.5-VL (0.8 M parameters, random weights, one CPU thread) answers K dialogues of one
opening: a 224 x 224 picture (64 tokens) in the first turn, user turns of the built-in world of 60 to 215
characters, replies of `--reply-tokens` tokens (a random model hardly ever closes one). Three ways:

- incremental: `HFStudent`, whose keys and values live across turns;
- re-encoded: the same decoder without its cache. It samples the same tokens ("same"), so that the one
  difference is what is fed again; equal prompts of a group are still fed once, pictures in every turn;
- generate: the usual chat loop, which renders the whole dialogue with the chat template, encodes it and calls
  `model.generate` in every turn.

They take turns within each repeat; medians are reported, "times" from CPU seconds of the process, which other
work on the machine disturbs less. "Decoding" is the share of the incremental time that goes into sampling
token by token, which re-encoding has to do as well; "bound" is what "times" would be if nothing but that
were left.

`server`: attacker, student and judge answer after log-normal pauses (mean 0.5 s, sigma 1: one in a hundred
takes longer than 3 s), 64 dialogues at a time. No engine is faster than the slowest dialogue's own pauses.
"""

from __future__ import annotations

import argparse
import heapq
import json
import math
import statistics
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from timing import PACKAGES, machine

from steer_env.env import DialogueEnv
from steer_env.rollout import rollout
from steer_env.scenarios import DraftTurn, FixedScenarios, Scenario
from steer_env.types import ASSISTANT, USER, Message, Scored, Terms, Utterance
from steer_env.vector import VectorDialogueEnv

AIM_SPEEDUP, AIM_WAIT, AIM_PREFILLED = 2.5, 1.15, 1.05
#: Characters of the ten user turns.
CHARACTERS = (60, 215, 90, 150, 110, 180, 75, 200, 130, 160)

# -- incremental ---------------------------------------------------------------------------------------------


def tiny_model() -> tuple[Any, Any, list[str], Any]:
    """Return model, processor, ten user turns and a picture."""
    import torch

    from steer_env.models.tiny import TinyConfig, build
    from steer_env.world import WorldSource

    torch.set_num_threads(1)
    scenarios = [WorldSource().scenario(i) for i in range(60)]
    turns = [turn.text for scenario in scenarios for turn in scenario.turns]
    users = []
    for length in CHARACTERS:
        text = turns.pop()
        while len(text) < length:
            text += " " + turns.pop()
        users.append(text[:length].strip())
    model, processor = build(turns, TinyConfig(image_side=224))
    return model, processor, users, scenarios[0].images[0]


def observation(users: Sequence[str], replies: Sequence[str], picture: Any) -> dict[str, Any]:
    """Return what a student sees after so many replies."""
    messages = [Message(USER, users[0], 1)]
    for user, reply in zip(users[1:], replies, strict=False):
        messages += [Message(ASSISTANT, reply), Message(USER, user)]
    return {"images": (picture,), "transcript": tuple(messages)}


def play_student(student: Any, users: list[str], picture: Any, turns: int, members: int) -> list[list[str]]:
    """Let a student answer `members` dialogues for `turns` turns."""
    replies: list[list[str]] = [[] for _ in range(members)]
    for turn in range(turns):
        said = student.act([observation(users, replies[k][:turn], picture) for k in range(members)])
        for k, reply in enumerate(said):
            replies[k].append(reply)
    return replies


class Rendered:
    """A chat loop as it is usually written: render, encode and generate the whole dialogue in every turn."""

    def __init__(self, model: Any, processor: Any, tokens: int) -> None:
        self.model, self.processor, self.tokens, self.prefilled = model, processor, tokens, 0

    def act(self, observations: Sequence[Any]) -> list[str]:
        """Return one reply per observation."""
        import torch

        chats, pictures = [], []
        for seen in observations:
            pictures.append([image.pil() for image in seen["images"]])
            chats.append(
                [
                    {
                        "role": "user" if message.role == USER else "assistant",
                        "content": [{"type": "image"}] * message.images
                        + [{"type": "text", "text": str(message.content)}],
                    }
                    for message in seen["transcript"]
                ]
            )
        texts = [self.processor.apply_chat_template(chat, add_generation_prompt=True) for chat in chats]
        inputs = self.processor(text=texts, images=pictures, padding=True, return_tensors="pt")
        self.prefilled += int(inputs["attention_mask"].sum())
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            ids = self.model.generate(**inputs, do_sample=True, max_new_tokens=self.tokens)
        return self.processor.batch_decode(ids[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)


def measure_incremental(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Time every number of turns and members, with the cache, without, and rendered."""
    from steer_env.agents.hf import HFStudent

    model, processor, users, picture = tiny_model()

    def student(cached: bool) -> Any:
        made = HFStudent(model, processor, max_new_tokens=args.reply_tokens, seed=0)
        if not cached:
            made.decoder = type(made.decoder)(model, made.codec, cached_rows=0)
        return made

    makers: dict[str, Callable[[], Any]] = {
        "incremental": lambda: student(True),
        "re-encoded": lambda: student(False),
        "generate": lambda: Rendered(model, processor, args.reply_tokens),
    }
    for make in makers.values():  # what is done once per process is not timed
        play_student(make(), users, picture, 2, 2)
    rows = []
    for turns in args.turns:
        for members in args.members:
            runs: dict[str, list[Run]] = {name: [] for name in makers}
            for _ in range(args.repeats):
                for name, make in makers.items():
                    runs[name].append(timed(make(), users, picture, turns, members))
            rows.append(_row(turns, members, runs))
            print(f"{turns} turns, K = {members}: {rows[-1]['speedup']:.2f}", file=sys.stderr)
    return rows


class Run(NamedTuple):
    """One way of answering, timed: seconds by the clock, of the CPU, and of it in sampling token by token."""

    student: Any
    replies: list[list[str]]
    wall: float
    cpu: float
    decoding: float


def timed(student: Any, users: list[str], picture: Any, turns: int, members: int) -> Run:
    """Time a student."""
    decoding = 0.0
    if (decoder := getattr(student, "decoder", None)) is not None:
        decode = decoder._decode

        def clocked(*parts: Any) -> Any:
            nonlocal decoding
            started = time.process_time()
            try:
                return decode(*parts)
            finally:
                decoding += time.process_time() - started

        decoder._decode = clocked
    wall, cpu = time.perf_counter(), time.process_time()
    replies = play_student(student, users, picture, turns, members)
    return Run(student, replies, time.perf_counter() - wall, time.process_time() - cpu, decoding)


def _row(turns: int, members: int, runs: dict[str, list[Run]]) -> dict[str, Any]:
    last = {name: found[-1] for name, found in runs.items()}
    traces = [dialogue[-1].meta["trace"] for dialogue in last["incremental"].replies]
    opening = int(np.flatnonzero(traces[0].sampled_L)[0])
    cpu, wall, decoding = (
        {name: statistics.median(getattr(run, what) for run in found) for name, found in runs.items()}
        for what in ("cpu", "wall", "decoding")
    )
    one, other = (last[name].student.decoder.counters for name in ("incremental", "re-encoded"))
    return {
        "turns": turns,
        "members": members,
        "cpu_seconds": cpu,
        "wall_seconds": wall,
        "decoding_cpu_seconds": decoding,
        "speedup": cpu["re-encoded"] / cpu["incremental"],
        "speedup_wall": wall["re-encoded"] / wall["incremental"],
        "speedup_generate": cpu["generate"] / cpu["incremental"],
        "decoding_share": decoding["incremental"] / cpu["incremental"],
        "bound": cpu["re-encoded"] / decoding["incremental"],
        "prefilled": one.prefilled,
        "prefilled_re_encoded": other.prefilled,
        "prefilled_generate": last["generate"].student.prefilled,
        "decoded": one.decoded,
        # The opening is the same for all members: its tokens are distinct once.
        "distinct_tokens": opening + sum(len(trace) - opening for trace in traces),
        "images_encoded": {"incremental": one.images, "re-encoded": other.images},
        "same_tokens": last["incremental"].replies == last["re-encoded"].replies,
    }


# -- server --------------------------------------------------------------------------------------------------


class Clock:
    """Completes futures after a pause; one thread for all of them."""

    def __init__(self) -> None:
        self._due: list[tuple[float, int, Future[Any], Any]] = []
        self._changed = threading.Condition()
        threading.Thread(target=self._run, daemon=True).start()

    def after(self, pause: float, result: Any) -> Future[Any]:
        """Return a future that has `result` after `pause` seconds."""
        future: Future[Any] = Future()
        with self._changed:
            heapq.heappush(self._due, (time.perf_counter() + pause, id(future), future, result))
            self._changed.notify()
        return future

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._due or self._due[0][0] > time.perf_counter():
                    self._changed.wait(self._due[0][0] - time.perf_counter() if self._due else None)
                _, _, future, result = heapq.heappop(self._due)
            future.set_result(result)


class Server:
    """Attacker, student and judge behind one slow server. Pauses depend on dialogue, turn and role alone."""

    name = "server"

    def __init__(self, role: int, pauses: Any, clock: Clock) -> None:
        self.role, self.pauses, self.clock = role, pauses, clock

    def submit(self, asked: Any) -> Future[Any]:
        """Answer one observation or judge request after its pause."""
        if self.role == 0:
            return self._later(asked["draft"], len(asked["transcript"]) // 2, Utterance(asked["draft"]))
        transcript = asked["transcript"] if self.role == 1 else asked.transcript
        answer = Utterance("fine") if self.role == 1 else Scored(Terms(5, 5, 5))
        return self._later(transcript[0].content, (len(transcript) - 1) // 2, answer)

    def _later(self, opening: str, turn: int, answer: Any) -> Future[Any]:
        return self.clock.after(self.pauses[int(opening.split()[1]), turn, self.role], answer)

    def act(self, observations: Sequence[Any]) -> list[Any]:
        """Answer a batch; the engine asks one by one."""
        return [future.result() for future in [self.submit(seen) for seen in observations]]

    judge = act


def measure_server(args: argparse.Namespace) -> dict[str, Any]:
    """Play dialogues against servers with log-normal pauses and compare with the slowest dialogue's own."""
    count, turns, sigma, mean = args.dialogues, 6, 1.0, 0.5 * args.scale
    rng = np.random.default_rng(args.seed)
    pauses = rng.lognormal(math.log(mean) - sigma**2 / 2, sigma, (count, turns, 3))
    scenarios = [
        Scenario(tuple(DraftTurn(f"dialogue {i} turn {t}") for t in range(turns))) for i in range(count)
    ]
    clock = Clock()
    judge = Server(2, pauses, clock)
    vec = VectorDialogueEnv(
        [lambda one=one: DialogueEnv(FixedScenarios([one]), judge) for one in scenarios]  # type: ignore[misc]
    )
    started = time.perf_counter()
    trajectories = rollout(vec, Server(0, pauses, clock), Server(1, pauses, clock), range(count))
    wall = time.perf_counter() - started
    slowest = float(pauses.sum((1, 2)).max())
    return {
        "dialogues": len(trajectories),
        "turns": turns,
        "mean_pause": float(pauses.mean()),
        "longest_pause": float(pauses.max()),
        "wall_seconds": wall,
        "slowest_dialogue_seconds": slowest,
        "ratio": wall / slowest,
        # Everybody waiting for the slowest answer of each round, which is what batches against a server cost.
        "lock_step_seconds": float(pauses.max(0).sum()),
        "one_by_one_seconds": float(pauses.sum()),
    }


# -- report --------------------------------------------------------------------------------------------------


def print_report(report: dict[str, Any]) -> None:
    """Print the figures as Markdown tables."""
    box = report["machine"]
    print(f"\n{box['cpu']}, {box['cores']} cores, load {box['load']}; Python {box['python']}")
    print(", ".join(f"{name} {version}" for name, version in box["versions"].items() if version))
    if rows := report.get("incremental"):
        print("\nSeconds of CPU (of the clock):\n")
        print(_table(HEAD, [_cells(row) for row in rows]))
        print(
            f"\nAims: {AIM_SPEEDUP} times at 10 turns; prefilled / distinct tokens at most {AIM_PREFILLED}."
        )
    if (server := report.get("server")) is not None:
        own = server["slowest_dialogue_seconds"]
        print(
            f"\nServers, pauses of {server['mean_pause']:.2f} s, at most {server['longest_pause']:.1f} s:\n"
        )
        head = ("dialogues", "turns", "wall time", "slowest dialogue", "ratio", "in lock-step", "one by one")
        cells = [str(server["dialogues"]), str(server["turns"]), f"{server['wall_seconds']:.2f} s"]
        cells += [f"{own:.2f} s", f"{server['ratio']:.3f}", f"{server['lock_step_seconds']:.1f} s"]
        print(_table(head, [[*cells, f"{server['one_by_one_seconds']:.0f} s"]]))
        print(f"\nAim: ratio at most {AIM_WAIT}.")


HEAD = (
    "turns", "K", "incremental", "re-encoded", "times", "generate", "times", "decoding", "bound",
    "prefilled", "re-encoded", "prefilled/distinct", "fed/distinct", "same",
)  # fmt: skip


def _cells(row: dict[str, Any]) -> list[str]:
    cpu, wall, distinct = row["cpu_seconds"], row["wall_seconds"], row["distinct_tokens"]
    took = {name: f"{cpu[name]:.2f} ({wall[name]:.2f})" for name in cpu}
    return [
        str(row["turns"]),
        str(row["members"]),
        took["incremental"],
        took["re-encoded"],
        f"{row['speedup']:.2f}",
        took["generate"],
        f"{row['speedup_generate']:.2f}",
        f"{row['decoding_share']:.0%}",
        f"{row['bound']:.2f}",
        f"{row['prefilled']:,}",
        f"{row['prefilled_re_encoded']:,}",
        f"{row['prefilled'] / distinct:.3f}",
        f"{(row['prefilled'] + row['decoded']) / distinct:.3f}",
        "yes" if row["same_tokens"] else "NO",
    ]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---:"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main() -> None:
    """Measure, print, write JSON."""
    parser = argparse.ArgumentParser(description="What rollouts cost.")
    parser.add_argument("--only", choices=["incremental", "server"])
    parser.add_argument("--turns", type=int, nargs="+", default=[2, 5, 10], help="at most 10")
    parser.add_argument("--members", type=int, nargs="+", default=[1, 5, 16], help="K, dialogues of a group")
    parser.add_argument("--reply-tokens", type=int, default=24, help="longest reply")
    parser.add_argument("--repeats", type=int, default=5, help="how often every case runs")
    parser.add_argument("--dialogues", type=int, default=64, help="dialogues at a time against the server")
    parser.add_argument("--scale", type=float, default=1.0, help="of the server's pauses")
    parser.add_argument("--seed", type=int, default=0, help="of the server's pauses")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks/rollout.json"))
    args = parser.parse_args()
    report: dict[str, Any] = {"machine": machine((*PACKAGES[:2], "torch", "transformers"))}
    if args.only != "server":
        report["incremental"] = measure_incremental(args)
    if args.only != "incremental":
        report["server"] = measure_server(args)
    report["arguments"] = {name: value for name, value in vars(args).items() if name != "out"}
    print_report(report)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(f"\nwritten to {args.out}")


if __name__ == "__main__":
    main()
