"""How many turns a second the environment plays, beside PettingZoo's and TextArena's own games.

    python benchmarks/throughput.py  # about a minute, writes runs/benchmarks/throughput.json
    python benchmarks/throughput.py --repeats 9 --only bare full

A turn is one utterance stepped, by either seat. One process, scripted agents, dialogues of 8 utterances of
about 215 characters with a 224 x 224 picture unless a row says otherwise. Every dialogue is played as
PettingZoo documents it: `agent_iter`, `last`, `step`, dead steps drained; resets are inside the timed part.
All texts differ and, unless a row says otherwise, the judge reads each for the first time: its caches are
emptied before every run. Cases take turns within each repeat, so that a busy moment of the machine hits all
of them; the median is reported.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path
from typing import Any

from peers import gymnasium_case, pettingzoo_cases, play_aec, textarena_cases
from timing import Case, Stopwatch, Timed, machine

import steer_env
from steer_env.scenarios import DraftTurn, FixedScenarios, Scenario
from steer_env.types import ATTACKER, STUDENT
from steer_env.wrappers import (
    TCSR,
    FormatReward,
    HarmCost,
    HelpfulnessReward,
    RepetitionPenalty,
    SafetyReward,
    TurnReward,
)

#: All of them, though nobody would use `TurnReward` together with the two it is the sum of.
ALL_REWARDS = (TurnReward, SafetyReward, HelpfulnessReward, FormatReward, RepetitionPenalty, HarmCost, TCSR)
CHARACTERS = 215
PAIRS = 20_000
#: Pairs in the rows whose texts come round again, as scripted agents' do.
POOL = 500


# -- what is said --------------------------------------------------------------------------------------------


def world_dialogues(count: int) -> list[Scenario]:
    """Return scenarios of the built-in world with a picture."""
    from steer_env.world import WorldSource

    source = WorldSource()
    return [source.scenario(i) for i in range(count)]


def text_pairs(scenarios: list[Scenario], count: int = PAIRS) -> list[tuple[str, str]]:
    """Return distinct (user, reply) pairs of the world, padded with its sentences to about 215 characters."""
    from steer_env.world.play import play

    users, replies = [], []
    for scenario in scenarios:
        for policy in ("ideal", "helpful"):
            for user, reply in play(scenario, policy):
                users.append(user)
                replies.append(reply)
    filler = [
        "My table is full.",
        "The old room is cold.",
        "It is on the left.",
        "I have a little time for it.",
    ]
    return [
        (
            _padded(users[i % len(users)], filler, i),
            _padded(replies[i % len(replies)], [r for r in replies[i % 97 :: 97] if "?" not in r], i),
        )
        for i in range(count)
    ]


def _padded(text: str, more: list[str], number: int) -> str:
    tail = f" Note {number}."  # makes every text a new one
    for extra in cycle(more):
        if len(text) + len(extra) + len(tail) + 1 > CHARACTERS + 15:
            break
        text += f" {extra}"
    return (text + tail).ljust(CHARACTERS, ".")


def forget_texts() -> None:
    """Empty what the rule judge remembers about texts it has read."""
    from steer_env.world.reply_language.reading import parse_reply
    from steer_env.world.user_language.reading import parse_user

    parse_user.cache_clear()
    parse_reply.cache_clear()


def fixed_length(scenarios: list[Scenario], utterances: int) -> FixedScenarios:
    """Return the scenarios with their ground truth and pictures, each with `utterances` / 2 seed turns."""
    cycles = utterances // 2
    longer = []
    for scenario in scenarios:
        turns = [DraftTurn("draft", images=(0,)), *(DraftTurn("draft") for _ in range(cycles - 1))]
        longer.append(
            Scenario(tuple(turns), scenario.images[:1], scenario.kind, scenario.goal, truth=scenario.truth)
        )
    return FixedScenarios(longer)


# -- ours ----------------------------------------------------------------------------------------------------


def aec_case(source: FixedScenarios, pairs: Iterator[tuple[str, str]], wrappers: Any, judge: Any) -> Case:
    """Return a case that plays our two-seat environment."""
    env = steer_env.make(scenarios=source, wrappers=wrappers, judge=judge)
    return lambda turns: play_aec(env, pairs, turns)


def unheard(case: Case) -> Case:
    """Return the case with the judge's memory of texts emptied before each run."""

    def run(turns: int) -> Timed:
        forget_texts()
        return case(turns)

    return run


def vector_case(
    source: FixedScenarios, pairs: Iterator[tuple[str, str]], wrappers: Any, judge: Any, n: int
) -> Case:
    """Return a case that plays `n` dialogues at once through `make_vec`."""
    vec = steer_env.make_vec(num_envs=n, scenarios=source, wrappers=wrappers, judge=judge)

    def run(turns: int) -> Timed:
        done = 0
        watch = Stopwatch()
        while done < turns:
            vec.reset(seed=done)
            while vec.running:
                said = [next(pairs) for _ in range(n)]
                for seat, agent in enumerate((ATTACKER, STUDENT)):
                    ids, _ = vec.pending(agent)
                    vec.submit(agent, ids, [said[i][seat] for i in ids])
                    done += len(ids)
        return watch.stop(done)

    return run


# -- import --------------------------------------------------------------------------------------------------

_IMPORT = """
import json, resource, sys, time
def memory():
    try:
        with open("/proc/self/status") as file:
            return next(int(line.split()[1]) for line in file if line.startswith("VmRSS")) / 1024
    except OSError:
        unit = 2**20 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
before, started = memory(), time.perf_counter()
import steer_env
seconds = time.perf_counter() - started
print(json.dumps({"seconds": seconds, "mib": memory() - before, "torch": "torch" in sys.modules}))
"""


def measure_import(repeats: int) -> dict[str, Any]:
    """Return seconds and MiB that `import steer_env` adds to a fresh interpreter, and whether torch came."""
    runs = [
        json.loads(
            subprocess.run([sys.executable, "-c", _IMPORT], capture_output=True, text=True, check=True).stdout
        )
        for _ in range(repeats + 1)
    ][1:]
    return {
        "seconds": statistics.median(run["seconds"] for run in runs),
        "mib": statistics.median(run["mib"] for run in runs),
        "torch_imported": any(run["torch"] for run in runs),
    }


# -- running -------------------------------------------------------------------------------------------------


def build_cases() -> tuple[dict[str, Case], dict[str, float]]:
    """Return the cases by name and facts about the texts."""
    scenarios = [s for s in world_dialogues(300) if s.images]
    texts = text_pairs(scenarios)
    short, long = fixed_length(scenarios, 8), fixed_length(scenarios, 512)
    for scenario in scenarios:
        for image in scenario.images:
            image.array()  # drawn before the clock starts, as a picture from disk would be
    pairs, pool = cycle(texts), cycle(texts[:POOL])
    full: Any = ALL_REWARDS
    cases: dict[str, Case] = {
        "bare": aec_case(short, pairs, (), None),
        "full stack": unheard(aec_case(short, pairs, full, "rule")),
        f"full stack, {2 * POOL} texts in turn": aec_case(short, pool, full, "rule"),
        "default stack": unheard(aec_case(short, pairs, None, "rule")),
        "bare, 512 utterances": aec_case(long, pairs, (), None),
        "full stack, 512 utterances": unheard(aec_case(long, pairs, full, "rule")),
        "make_vec 64 dialogues, bare": vector_case(short, pairs, (), None, 64),
        "make_vec 64 dialogues, full stack": unheard(vector_case(short, pairs, full, "rule", 64)),
        **pettingzoo_cases(pairs),
        **gymnasium_case(),
        **textarena_cases(pairs),
    }
    return cases, {
        "distinct_texts": len({text for pair in texts for text in pair}),
        "mean_characters": statistics.mean(len(text) for pair in texts for text in pair),
        "scored_share": scored_share(short, texts),
    }


def scored_share(source: FixedScenarios, texts: list[tuple[str, str]]) -> float:
    """Return the share of turns the rule judge scores, so that nobody measures refusals to judge."""
    env = steer_env.make(scenarios=source)
    scored = []
    for i in range(0, 2000, 4):
        env.reset(seed=i)
        for user, reply in texts[i : i + 4]:
            env.step(user)
            env.step(reply)
            scored.append(env.infos[STUDENT]["scored"])
    return statistics.mean(scored)


def measure(cases: dict[str, Case], repeats: int, seconds: float) -> dict[str, dict[str, float]]:
    """Run all cases in turn, `repeats` times, each for about `seconds`; return turns/s: median, min, max."""
    sizes = {}
    for name, run in cases.items():
        run(64)
        turns, wall, _ = run(512)
        sizes[name] = max(512, int(turns / wall * seconds))
    timed: dict[str, list[Timed]] = {name: [] for name in cases}
    for repeat in range(repeats):
        for name, run in cases.items():
            timed[name].append(run(sizes[name]))
        print(f"repeat {repeat + 1} of {repeats}", file=sys.stderr)
    rates = {}
    for name, runs in timed.items():
        by_clock = [turns / wall for turns, wall, _ in runs]
        rates[name] = {
            "turns_per_s": statistics.median(by_clock),
            "min": min(by_clock),
            "max": max(by_clock),
            "turns_per_cpu_s": statistics.median(turns / cpu for turns, _, cpu in runs),
        }
    return rates


def print_report(report: dict[str, Any]) -> None:
    """Print the figures as a plain table."""
    print(
        f"\n{report['machine']['cpu']}, {report['machine']['cores']} cores, load {report['machine']['load']}"
    )
    print(f"Python {report['machine']['python']}, {report['machine']['system']}")
    print(", ".join(f"{k} {v}" for k, v in report["machine"]["versions"].items() if v))
    print(
        f"{report['texts']['distinct_texts']} distinct texts of {report['texts']['mean_characters']:.0f} "
        "characters, "
        f"{report['texts']['scored_share']:.0%} of the replies scored\n"
    )
    print(f"{'turns per second':<54}{'median':>9}{'min':>9}{'max':>9}{'per CPU s':>11}{'aim':>9}")
    for name, rate in report["rates"].items():
        columns = f"{rate['turns_per_s']:>9,.0f}{rate['min']:>9,.0f}{rate['max']:>9,.0f}"
        aim = f"{AIMS[name]:,}" if name in AIMS else ""
        print(f"{name:<54}{columns}{rate['turns_per_cpu_s']:>11,.0f}{aim:>9}")
    print()
    for name, ratio in report["ratios"].items():
        print(f"{name:<54}{ratio:>9.2f}{'':>29}{'0.80':>9}")
    load = report["import"]
    print(f"{'import steer_env, seconds':<54}{load['seconds']:>9.2f}{'':>29}{'0.50':>9}")
    print(f"{'import steer_env, MiB added':<54}{load['mib']:>9.0f}{'':>29}{'60':>9}")
    print(f"torch imported: {'yes' if load['torch_imported'] else 'no'}")


AIMS = {
    "bare": 60_000,
    "full stack": 15_000,
    f"full stack, {2 * POOL} texts in turn": 15_000,
    "make_vec 64 dialogues, bare": 60_000,
}


def main() -> None:
    """Measure, print, write JSON."""
    parser = argparse.ArgumentParser(description="Turns per second of steer_env and its peers.")
    parser.add_argument(
        "--repeats", type=int, default=7, help="how often every case runs; the median is reported"
    )
    parser.add_argument("--seconds", type=float, default=0.4, help="about how long one run of a case takes")
    parser.add_argument("--only", nargs="*", help="cases whose name holds one of these words")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks/throughput.json"))
    args = parser.parse_args()

    cases, texts = build_cases()
    if args.only:
        cases = {name: case for name, case in cases.items() if any(word in name for word in args.only)}
    rates = measure(cases, args.repeats, args.seconds)
    ratios = {
        f"{name}: rate at 512 over rate at 8 utterances": rates[f"{name}, 512 utterances"]["turns_per_cpu_s"]
        / rates[name]["turns_per_cpu_s"]
        for name in ("bare", "full stack")
        if name in rates and f"{name}, 512 utterances" in rates
    }
    report = {
        "machine": machine(),
        "texts": texts,
        "rates": rates,
        "ratios": ratios,
        "import": measure_import(args.repeats),
        "arguments": {"repeats": args.repeats, "seconds": args.seconds, "only": args.only},
    }
    print_report(report)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(f"\nwritten to {args.out}")


if __name__ == "__main__":
    main()
