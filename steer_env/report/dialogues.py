"""The dialogues of a report as data: what stands under which turn, without markup."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from steer_env.evaluation import scales
from steer_env.evaluation.tabulate import is_refusal
from steer_env.play.forks import culprit
from steer_env.records import Row
from steer_env.report import grids
from steer_env.report.sections import HEADINGS

#: Returns the pictures of a stored dialogue, objects with `digest` and `pil()`.
Pictures = Callable[[Row], Sequence[Any]]

PICTURE_SIDE = 256
#: A dialogue as the page knows it.
Entry = dict[str, Any]


def entries(runs: Mapping[str, Sequence[Row]], most: int) -> list[tuple[Row, Entry]]:
    """Return rows with what the page needs of them, worst first, each policy with its share of `most`."""
    result = []
    share = max(1, most // max(1, len(runs)))
    for policy, rows in runs.items():
        made = [(row, _entry(row, policy)) for row in rows]
        middle = float(np.median([body["mean"] for _, body in made])) if made else 0.0
        for _, body in made:
            body["typical"] = abs(body["mean"] - middle)
        result += sorted(made, key=_worst)[:share]
    return sorted(result, key=_worst)


def _worst(pair: tuple[Row, Entry]) -> tuple[float, float]:
    return pair[1]["low"], pair[1]["mean"]


def side_by_side(runs: Mapping[str, Sequence[Row]], most: int = 4) -> list[list[tuple[Row, Entry]]]:
    """Return the dialogues of some seeds for all policies, those first in which the policies differ most.

    Args:
        runs: Name of the policy -> its rows; fewer than two have nothing to stand beside.
        most: Seeds.

    Returns:
        A list a seed, one dialogue a policy, in the order of the policies.
    """
    by_seed = [{_place(row): row for row in rows if _place(row) is not None} for rows in runs.values()]
    if len(by_seed) < 2:
        return []
    shared = [place for place in by_seed[0] if all(place in of for of in by_seed[1:])]
    groups = []
    for place in shared:
        if len({of[place].get("scenario") for of in by_seed}) == 1:
            groups.append(
                [(of[place], _entry(of[place], name)) for name, of in zip(runs, by_seed, strict=True)]
            )
    return sorted(groups, key=_apart, reverse=True)[:most]


def _place(row: Row) -> tuple[str, int] | None:
    """What the same dialogue has in common in several runs."""
    seed = row.get("seed")
    return (str(row.get("suite") or ""), seed) if isinstance(seed, int) else None


def _apart(group: Sequence[tuple[Row, Entry]]) -> tuple[float, float]:
    lows, means = ([body[key] for _, body in group if body["worst"] != "unscored"] for key in ("low", "mean"))
    if len(lows) < 2:
        return 0.0, 0.0
    return max(lows) - min(lows), max(means) - min(means)


def _entry(row: Row, policy: str) -> Entry:
    turns = [_turn(turn) for turn in row["turns"]]
    scored = [(s, turn["event"]) for turn in turns if (s := turn.pop("safety")) is not None]
    known = [s for s, _ in scored]
    low, worst = min(scored, default=(4, "unscored"))  # unscored dialogues come last
    labels = {
        k: str(row.get(k) or "") for k in ("kind", "strategy", "technique", "category", "mechanism", "goal")
    }
    suite = str(row.get("suite") or "")
    effects = row.get("effects", ())
    for index, (turn, effect) in enumerate(zip(turns, effects, strict=False)):
        turn["chips"] = [*_effect(effect, index == culprit(effects)), *turn["chips"]]
    return {
        **labels,
        "policy": policy,
        "suite": HEADINGS.get(suite, suite),
        "seed": row.get("seed", -1),
        "note": _where(row),
        "forked": "played on from each turn" if effects else "",
        "stop": "" if row.get("stop") == "seed_end" else str(row.get("stop", "")),
        "images": [str(digest) for digest in row.get("images", ())],
        "turns": turns,
        "worst": worst,
        "low": low,
        "mean": round(float(np.mean(known)), 4) if known else 4.0,
        **({"tokens": _tokens(row["tokens"])} if row.get("tokens") else {}),
    }


def _where(row: Row) -> str:
    """Which attempt of a suite, or which step of training with which advantage, a dialogue was."""
    said = []
    if row.get("attempt"):
        said.append(f"attempt {int(row['attempt']) + 1}")
    if "step" in row:
        said.append(f"step {int(row['step'])}")
    if row.get("advantage") is not None:
        said.append(f"advantage {float(row['advantage']):+.2f}")
    return " · ".join(said)


def _tokens(pieces: Sequence[Any]) -> list[Any]:
    """Tokens as the page reads them: a string is context, else [text, log-probability, advantage or None]."""
    return [
        piece
        if isinstance(piece, str)
        else [str(piece[0]), *(None if x is None else round(float(x), 3) for x in piece[1:3])]
        for piece in pieces
    ]


def _turn(turn: Row) -> dict[str, Any]:
    verdict = turn.get("verdict") or {}
    terms = verdict.get("terms")
    safety = None if terms is None else int(scales.safety(terms["safety"]))
    refused = is_refusal(verdict)
    event = "unscored" if safety is None else grids.EVENTS[int(scales.event([safety], [refused])[0])]
    return {
        "user": str(turn.get("user", "")),
        "reply": str(turn.get("reply", "")),
        "images": int(turn.get("images") or 0),
        "event": event,
        "chips": _chips(turn, verdict, safety, event),
        "because": str(verdict.get("rationale") or ""),
        "safety": safety,
    }


def _chips(turn: Row, verdict: Row, safety: int | None, event: str) -> list[list[str]]:
    """What is said under a turn, as (kind, text); a kind is an event, for its colour, "dim" or nothing."""
    if safety is None:
        return [["unscored", f"no verdict: {verdict.get('unscored', 'no judge')}"], *_of_tutor(turn)]
    terms = verdict["terms"]
    chips = [
        [event, f"safety {safety} (-3..3)"],
        ["", f"helpfulness {int(scales.helpfulness(terms['usefulness']))} (0..3)"],
    ]
    if verdict.get("leaked"):
        chips.append(["harm", "leaked: " + ", ".join(map(str, verdict["leaked"]))])
    if verdict.get("move"):
        chips.append(["", f"reply: {str(verdict['move']).replace('_', ' ')}"])
    chips += _of_tutor(turn)
    if "tcsr" in turn:
        chips.append(["", "TCSR {value:.2f} (minimum {min:.2f}, mean {mean:.2f})".format(**turn["tcsr"])])
    if turn.get("advantage") is not None:
        chips.append(["", f"advantage {turn['advantage']:+.2f}"])
    rubric = ", ".join(f"{name} {value}" for name, value in terms.items())
    return [*chips, ["dim", f"rubric (1..10): {rubric}"]]


def _of_tutor(turn: Mapping[str, Any]) -> list[list[str]]:
    tutor = " ".join(str(turn[key]).replace("_", " ") for key in ("strategy", "tactic") if turn.get(key))
    drawn = ", ".join(str(act["kind"]) for act in turn.get("acts", ()))
    return [["", f"user: {tutor}"]] * bool(tutor) + [["", f"drawn: {drawn}"]] * bool(drawn)


def _effect(effect: Mapping[str, Any], most: bool) -> list[list[str]]:
    """What a reply did, by the chance of harm before and after it; the one that did most is named."""
    before, after = effect["before"], effect["after"]
    if before is None or after is None:
        return []
    change, error = after - before, effect["error"]
    kind = "harm" if change > 2 * error else "ideal" if change < -2 * error else ""
    said = f"chance of harm {before:.0%} → {after:.0%} ({100 * change:+.0f} ± {100 * error:.0f} points)"
    return [*([["harm", "this turn did it"]] if most else []), [kind, said]]


def pictures_by_digest(rows: Sequence[Row], pictures: Pictures | None, most: int) -> dict[str, str]:
    """Return data URLs of pictures by digest, for as many dialogues from the top as fit."""
    found: dict[str, str] = {}
    if pictures is None:
        return found
    for row in rows:
        wanted = [digest for digest in row.get("images", ()) if digest not in found]
        if not wanted:
            continue
        if len(found) + len(wanted) > most:
            break
        for image in pictures(row):
            if image.digest in wanted:
                found[image.digest] = data_url(image.pil())
    return found


def data_url(picture: Any) -> str:
    """Return a picture as a small JPEG in a data URL; the picture itself is made small."""
    picture.thumbnail((PICTURE_SIDE, PICTURE_SIDE))
    buffer = io.BytesIO()
    picture.save(buffer, format="JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
