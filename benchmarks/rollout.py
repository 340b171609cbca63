"""What rollouts cost: cached turns against re-encoding every turn, and dialogues against slow servers.

    python benchmarks/rollout.py                      # a few minutes, writes benchmarks/results/rollout.json
    python benchmarks/rollout.py --only server --scale 0.1

`incremental`: a tiny Qwen2.5-VL (0.8 M parameters, random weights, one CPU thread) answers K dialogues of one
opening: a 224 x 224 picture (64 tokens) in the first turn, about 215 characters said per user turn, replies
of up to `--reply-tokens` tokens. The same decoder samples the same tokens with its cache and without, so that
the one difference is what is fed again; "rendered" is what a chat loop around `model.generate` does: render
the whole dialogue, encode it, generate. All take turns within each repeat; the median is reported.

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
from typing import Any

import numpy as np
from throughput import PACKAGES, machine

from steer_env.env import DialogueEnv
from steer_env.rollout import rollout
from steer_env.scenarios import FixedScenarios, Scenario, SeedTurn
from steer_env.types import ASSISTANT, USER, Message, Scored, Terms, Utterance
from steer_env.vector import VectorDialogueEnv

AIM_SPEEDUP, AIM_WAIT, AIM_PREFILLED = 2.5, 1.15, 1.05
CHARACTERS = 215

# -- incremental ---------------------------------------------------------------------------------------------


def tiny_model() -> tuple[Any, Any, list[str], Any]:
    """Return model, processor, user turns of about 215 characters and a picture."""
    import torch

    from steer_env.agents.hf import TinyConfig, build
    from steer_env.world import WorldSource

    torch.set_num_threads(1)
    scenarios = [WorldSource().scenario(i) for i in range(60)]
    turns = [turn.text for scenario in scenarios for turn in scenario.turns]
    users = []
    while len(users) < 10:
        text = ""
        while len(text) < CHARACTERS - 30:
            text += turns.pop() + " "
        users.append(text.strip())
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

    rows = []
    for turns in args.turns:
        for members in args.members:
            makers: dict[str, Callable[[], Any]] = {
                "incremental": lambda: student(True),
                "re-encoded": lambda: student(False),
                "rendered": lambda: Rendered(model, processor, args.reply_tokens),
            }
            seconds: dict[str, list[float]] = {name: [] for name in makers}
            last, replies = {}, {}
            for _ in range(args.repeats):
                for name, make in makers.items():
                    last[name] = make()
                    started = time.perf_counter()
                    replies[name] = play_student(last[name], users, picture, turns, members)
                    seconds[name].append(time.perf_counter() - started)
            rows.append(_row(turns, members, seconds, last, replies))
            print(f"{turns} turns, K = {members}: {rows[-1]['speedup']:.2f}", file=sys.stderr)
    return rows


def _row(
    turns: int, members: int, seconds: dict[str, list[float]], last: dict[str, Any], replies: dict[str, Any]
) -> dict[str, Any]:
    traces = [dialogue[-1].meta["trace"] for dialogue in replies["incremental"]]
    opening = int(np.flatnonzero(traces[0].sampled_L)[0])
    took = {name: statistics.median(runs) for name, runs in seconds.items()}
    one, other = last["incremental"].decoder.counters, last["re-encoded"].decoder.counters
    return {
        "turns": turns,
        "members": members,
        "seconds": took,
        "speedup": took["re-encoded"] / took["incremental"],
        "speedup_rendered": took["rendered"] / took["incremental"],
        "prefilled": one.prefilled,
        "prefilled_re_encoded": other.prefilled,
        "prefilled_rendered": last["rendered"].prefilled,
        "decoded": one.decoded,
        # The opening is the same for all members: its tokens are distinct once.
        "distinct_tokens": opening + sum(len(trace) - opening for trace in traces),
        "images_encoded": {"incremental": one.images, "re-encoded": other.images},
        "same_tokens": replies["incremental"] == replies["re-encoded"],
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
        Scenario(tuple(SeedTurn(f"dialogue {i} turn {t}") for t in range(turns))) for i in range(count)
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
    """Print the figures as plain tables."""
    box = report["machine"]
    print(f"\n{box['cpu']}, {box['cores']} cores, load {box['load']}; Python {box['python']}")
    print(", ".join(f"{name} {version}" for name, version in box["versions"].items() if version))
    if rows := report.get("incremental"):
        names = ("turns", "K", "incremental", "re-encoded", "times", "rendered", "times", "prefilled")
        names += ("re-encoded", "fed/distinct", "same")
        print("\n" + "".join(f"{name:>13}" for name in names))
        for row in rows:
            took, fed = row["seconds"], (row["prefilled"] + row["decoded"]) / row["distinct_tokens"]
            cells = [
                str(row["turns"]),
                str(row["members"]),
                f"{took['incremental']:.2f} s",
                f"{took['re-encoded']:.2f} s",
                f"{row['speedup']:.2f}",
                f"{took['rendered']:.2f} s",
                f"{row['speedup_rendered']:.2f}",
                f"{row['prefilled']:,}",
                f"{row['prefilled_re_encoded']:,}",
                f"{fed:.3f}",
                "yes" if row["same_tokens"] else "NO",
            ]
            print("".join(f"{cell:>13}" for cell in cells))
        print(f"aims: {AIM_SPEEDUP} times at 10 turns; prefilled / distinct tokens at most {AIM_PREFILLED}")
    if (server := report.get("server")) is not None:
        print(f"\n{server['dialogues']} dialogues of {server['turns']} turns against servers")
        print(f"pauses: {server['mean_pause']:.2f} s on average, {server['longest_pause']:.1f} s at most")
        own = server["slowest_dialogue_seconds"]
        print(f"wall time {server['wall_seconds']:.2f} s, slowest dialogue's own pauses {own:.2f} s")
        print(f"ratio {server['ratio']:.3f} (aim {AIM_WAIT})")
        print(
            f"in lock-step {server['lock_step_seconds']:.1f} s, in a row {server['one_by_one_seconds']:.0f} s"
        )


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
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "rollout.json")
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
