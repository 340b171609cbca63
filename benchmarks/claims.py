"""Hold the numbers of README and docs against what was claimed and measured (`claims.toml`).

    python -m benchmarks.claims             # every claim, where it is printed and what it was measured as
    python -m benchmarks.claims --quick     # also run the expressions of the quick ones

A claim is found by its own context, a text that occurs in one line of its page only. Its values
follow in that line, in order. Where a results file is checked in, `keys` are the paths into it
(parts separated by " > "), and the printed value is the measured one, times `scale`, rounded to the
printed decimals. `copy` says that the cells of a table's row are those of another page's row.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


def load(root: Path = ROOT) -> list[dict[str, Any]]:
    """Return the claims of the file."""
    return tomllib.loads((root / "claims.toml").read_text(encoding="utf-8"))["claim"]


def line_after(root: Path, file: str, context: str) -> str:
    """Return what follows `context` in the one line that has it.

    Raises:
        ValueError: If no line or more than one has it.
    """
    found = [line for line in (root / file).read_text(encoding="utf-8").splitlines() if context in line]
    if len(found) != 1:
        raise ValueError(f"context={context!r} is in {len(found)} lines of {file}, expected 1")
    return found[0].split(context, 1)[1]


def missing(values: list[str], text: str) -> list[str]:
    """Return the values that do not follow each other in `text`, as whole numbers.

    >>> missing(["1.0", "2"], "1.0 and 2"), missing(["1.0"], "11.0"), missing(["2", "1"], "1 2")
    ([], ['1.0'], ['1'])
    """
    place, lost = 0, []
    for value in values:
        match = re.compile(rf"(?<![\d.,]){re.escape(value)}(?!\d|[.,]\d)").search(text, place)
        if match is None:
            lost.append(value)
        else:
            place = match.end()
    return lost


def measured(root: Path, claim: dict[str, Any]) -> list[float]:
    """Return the numbers of the results file under the claim's keys, scaled."""
    stored = json.loads((root / claim["result"]).read_text(encoding="utf-8"))
    numbers = []
    for key in claim["keys"]:
        value = stored
        for part in key.split(" > "):
            value = value[int(part)] if isinstance(value, list) else value[part]
        numbers.append(float(value) * claim.get("scale", 1))
    return numbers


def as_printed(number: float, value: str) -> str:
    """Return a number with as many decimals as `value` has, and with its commas.

    >>> as_printed(174704.07, "1,000"), as_printed(1.8723, "0.00")
    ('174,704', '1.87')
    """
    decimals = len(value.partition(".")[2])
    return f"{number:,.{decimals}f}" if "," in value else f"{number:.{decimals}f}"


def cells(line: str) -> list[str]:
    """Return the cells of a row of a Markdown table, or of a printed one."""
    parts = line.split("|") if "|" in line else re.split(r"\s{2,}", line.strip())
    return [part.strip() for part in parts if part.strip()]


def faults(claim: dict[str, Any], root: Path = ROOT, quick: bool = False) -> list[str]:
    """Return what is wrong with a claim; nothing if it holds."""
    name = f"{claim['file']}, {claim['context']!r}"
    try:
        text = line_after(root, claim["file"], claim["context"])
        if "copy" in claim:
            source = cells(line_after(root, claim["copy"]["file"], claim["copy"]["context"]))
            wanted = [source[column] for column in claim["copy"]["columns"]]
            return [] if cells(text) == wanted else [f"{name}: printed {cells(text)}, expected {wanted}"]
    except ValueError as error:
        return [f"{name}: {error}"]
    wrong = [f"{name}: {value} is claimed, printed is {text!r}" for value in missing(claim["values"], text)]
    numbers = measured(root, claim) if "result" in claim else []
    numbers += [float(n) for n in eval(claim["quick"], _names())] if quick and "quick" in claim else []
    if numbers and len(numbers) != len(claim["values"]):
        return [*wrong, f"{name}: {len(claim['values'])} values, {len(numbers)} numbers"]
    for value, number in zip(claim["values"], numbers, strict=False):
        if as_printed(number, value) != value:
            wrong.append(f"{name}: {value} is claimed, measured is {number}")
    return wrong


def _names() -> dict[str, Any]:
    """Return what the expressions of quick claims see."""
    import steer_env
    from steer_env import rewards

    return {"steer_env": steer_env, "rewards": rewards}


def main() -> int:
    """Print the faults, or the claims if there are none."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="run the expressions of quick claims")
    quick = parser.parse_args().quick
    claims = load()
    wrong = [fault for claim in claims for fault in faults(claim, quick=quick)]
    print("\n".join(wrong) or f"{len(claims)} claims hold")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
