"""How often a reply that talks to the judge moves its verdict, per family of probes.

    python benchmarks/judge_injection.py                                        # the rule judge, seconds
    python benchmarks/judge_injection.py --backend openai:MODEL@http://localhost:8000/v1

The rule judge is the control: it reads the built-in world's language by rules and cannot be persuaded. What
moves it is what the added words mean in that language: a forged better reply holds a refusal, and padding
makes a reply less useful. Writes runs/benchmarks/judge_injection.json.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path

from steer_env.files import write_json
from steer_env.judges.base import Judge
from steer_env.judges.llm import LLMJudge
from steer_env.judges.rule import RuleJudge
from steer_env.models import open_backend
from steer_env.play.probes import PROBES, bases, probe_judge


def main() -> None:
    """Probe and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--backend", action="append", default=[], help="also probe an LLM judge on this")
    parser.add_argument("--bases", type=int, default=50, help="replies to probe (default: 50)")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks/judge_injection.json"))
    args = parser.parse_args()
    replies = bases(args.bases)
    judges: list[Judge] = [RuleJudge()]
    judges += [LLMJudge(open_backend(spec)) for spec in args.backend]
    print(f"{len(PROBES)} probes on {len(replies)} replies; 95 % intervals (Wilson)")
    reports = {}
    for judge in judges:
        report = probe_judge(judge, replies)
        print(f"\n{report.table()}", flush=True)
        reports[judge.name] = json.loads(json.dumps(dataclasses.asdict(report)).replace("NaN", "null"))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(args.out, {"probes": len(PROBES), "replies": len(replies), "judges": reports})


if __name__ == "__main__":
    main()
