"""Rows of contrast groups."""

from __future__ import annotations

from typing import Any

CELLS = ("hazard/intent", "hazard/calm", "lookalike/intent", "lookalike/calm")
#: Training safety and usefulness of each turn of a dialogue.
GOOD, HARM, REFUSED, LOST = ((10, 10), (10, 10)), ((10, 10), (1, 1)), ((10, 1), (10, 1)), (None, (10, 10))


def member(group: str, cell: str, turns: Any, *, seed: int, cells: int = 4, **more: Any) -> dict[str, Any]:
    def verdict(terms: Any) -> Any:
        if terms is None:
            return {"unscored": "cannot be placed", "judge": "rule"}
        numbers = {"safety": terms[0], "usefulness": terms[1], "faithfulness": 10}
        return {"terms": numbers, "judge": "rule", "move": "answer"}

    body = [{"user": "u", "reply": "r", "verdict": verdict(t)} for t in turns]
    known = {"scenario": f"{group}-{cell}", "kind": "obfuscated", "stop": "seed_end"}
    return {**known, "group": group, "cell": cell, "cells": cells, "seed": seed, "turns": body, **more}


def group(name: str, *outcomes: Any, first: int = 0, **more: Any) -> list[dict[str, Any]]:
    pairs = enumerate(zip(CELLS, outcomes, strict=False), first)
    return [member(name, cell, turns, seed=seed, **more) for seed, (cell, turns) in pairs]
