"""A user's own scenarios: JSON Lines, one scenario a line, with picture files beside them.

A minimal line is `{"turns": ["What is in the picture?"], "images": ["photo.jpg"]}`. All keys are listed
in `scenario.schema.json`, which is shipped with the package and generated from
`steer_env.scenario_models`. A file is read as a whole or not at all: every problem is found, with its
line, before the first dialogue starts, and a picture that cannot be decoded is a problem, never dropped.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steer_env.files import replacing, write_bytes
from steer_env.images import Image, ImageError, encoded
from steer_env.render import counted, visible
from steer_env.scenarios import DraftTurn, Sameness, Scenario, distinct
from steer_env.spaces import MAX_IMAGES
from steer_env.world.draw import SOURCE, recipe_of, truth_of

if TYPE_CHECKING:
    from steer_env.scenario_models import ScenarioRow

#: Where the shipped JSON schema lies.
SCHEMA_PATH = Path(__file__).with_name("scenario.schema.json")

_LABELS = ("goal", "strategy", "technique", "category", "mechanism", "group", "cell", "cells")
_KEYS = (*_LABELS, "provenance", "licence")
_LISTED = 20  # problems that an exception spells out


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with a scenario file.

    Attributes:
        line: 1-based line, 0 for the file as a whole.
        where: The key, such as `turns[2].risk`; "" for the line as a whole.
        value: The offending value, shortened.
        expected: What would have been right.
        remedy: What to do.
    """

    line: int
    where: str
    value: str
    expected: str
    remedy: str

    def __str__(self) -> str:
        place = f"line {self.line}: " if self.line else ""
        name = f"{self.where}=" if self.where else ""
        return visible(f"{place}{name}{self.value}, expected {self.expected}; {self.remedy}")


class ScenarioFileError(ValueError):
    """A scenario file that cannot be used. `problems` holds all that is wrong with it."""

    def __init__(self, path: str | Path, problems: Sequence[Problem]) -> None:
        self.path = Path(path)
        self.problems = tuple(problems)
        lines = [f"{path}: {counted(len(problems), 'problem')}"]
        lines += [f"  {problem}" for problem in problems[:_LISTED]]
        if len(problems) > _LISTED:
            lines.append(
                f"  ... and {len(problems) - _LISTED} more (steer-env scenarios validate lists them all)"
            )
        super().__init__("\n".join(lines))


def load_scenarios(path: str | Path) -> list[Scenario]:
    """Read a scenario file, or a published dataset.

    Args:
        path: A JSON Lines file in UTF-8, picture paths in it absolute or relative to its folder. Or
            `DATASET:[SPLIT:]ROOT`, for a dataset of `steer_env.data.DATASETS` in the folder ROOT.

    Returns:
        The scenarios in file order, at least one.

    Raises:
        ScenarioFileError: With every problem in the file, if there is one.
        DatasetError: If a dataset is not what its loader expects.
    """
    from steer_env.data.loaders import dataset_of

    dataset = dataset_of(path)
    if dataset is not None:
        return list(dataset.scenarios())
    reader = _Reader(Path(path))
    scenarios = reader.read()
    if reader.problems:
        raise ScenarioFileError(path, reader.problems)
    return scenarios


def validate(path: str | Path) -> list[Problem]:
    """Return everything that is wrong with a scenario file, in file order; empty if it is fine."""
    reader = _Reader(Path(path))
    reader.read()
    return reader.problems


def lines_of(path: str | Path) -> dict[str, int]:
    """Return the 1-based line of every scenario of a file, by id."""
    reader = _Reader(Path(path))
    reader.read()
    return dict(reader._seen)


def json_schema() -> dict[str, Any]:
    """Return the JSON schema of one line, as shipped in `scenario.schema.json`."""
    schema: dict[str, Any] = json.loads(SCHEMA_PATH.read_text(encoding="utf-8"))
    return schema


def save_scenarios(scenarios: Iterable[Scenario], path: str | Path, dedupe: Sameness | None = None) -> Path:
    """Write scenarios to a file that `load_scenarios` reads back, pictures beside it.

    Pictures go to the folder `<name>.images`: a picture that came from a file is copied byte for byte, a
    generated one is written as PNG. Ids are kept, and so is the ground truth of the built-in world, as the
    recipe of its picture.

    Args:
        scenarios: At least one.
        path: The file.
        dedupe: Leave out what an earlier scenario says already, "exact" or "normalised" as for
            `steer_env.scenarios.distinct`; a warning says what was left out.

    Raises:
        FileExistsError: If `path` exists; nothing is overwritten.
        ValueError: If there is no scenario or two share an id.
    """
    path = Path(path)
    rows = list(scenarios)
    if dedupe is not None:
        rows, dropped = distinct(rows, dedupe)
        if dropped:
            warnings.warn(f"{path}: {repeats_text(dropped, len(rows))}", stacklevel=2)
    if path.exists():
        raise FileExistsError(
            f"path={str(path)!r} exists, expected a new file; remove it or choose another name"
        )
    if not rows:
        raise ValueError("scenarios is empty, expected at least one")
    ids = [s.id for s in rows]
    if len(set(ids)) != len(ids):
        counts = Counter(ids)
        twice = [s for s in rows if counts[s.id] > 1]
        shown = ", ".join(f"{s.id!r} ({s.provenance or 'of no known row'})" for s in twice[:10])
        raise ValueError(
            f"{len(twice)} of {len(rows)} scenarios share their id with another one: {shown}"
            f"{', ...' if len(twice) > 10 else ''}; expected unique ids, leave repeated scenarios out with "
            "dedupe='exact', or rename"
        )
    folder = path.with_name(f"{path.stem}.images")
    with replacing(path) as part, part.open("w", encoding="utf-8") as file:
        for scenario in rows:
            file.write(json.dumps(scenario_row(scenario, folder), ensure_ascii=False) + "\n")
    return path


def repeats_text(dropped: Sequence[tuple[Scenario, Scenario]], kept: int) -> str:
    """Return one line that says what `distinct` left out of how many."""
    shown = [f"{_called(one)} (as {_called(first)})" for one, first in dropped[:_LISTED]]
    more = f", and {len(dropped) - _LISTED} more" if len(dropped) > _LISTED else ""
    return f"{len(dropped)} of {kept + len(dropped)} scenarios left out as repeated: {', '.join(shown)}{more}"


def _called(scenario: Scenario) -> str:
    return visible(scenario.provenance or scenario.id)


def scenario_row(scenario: Scenario, folder: Path) -> dict[str, Any]:
    """Store a scenario's pictures in `folder` and return its line, for a file beside that folder."""
    files = [f"{folder.name}/{_store(image, folder).name}" for image in scenario.images]
    turns = []
    for turn in scenario.turns:
        full = {
            "text": turn.text,
            "images": [files[i] for i in turn.images],
            "risk": turn.risk,
            "goal": turn.goal,
        }
        turns.append({key: value for key, value in full.items() if value})
    extra = {key: getattr(scenario, key) for key in _KEYS if getattr(scenario, key)}
    recipes = [recipe_of(image) for image in scenario.images if truth_of(image) == scenario.truth]
    if len(scenario.images) == 1 and any(recipes):
        extra["recipe"] = recipes[0]
    return {"id": scenario.id, "kind": scenario.kind, **extra, "turns": turns}


def _store(image: Image, folder: Path) -> Path:
    data, suffix = encoded(image)
    target = folder / f"{image.digest[:32]}{suffix}"
    if not target.exists():
        write_bytes(target, data, durable=False)
    return target


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if number == 1:
                line = line.removeprefix(b"\xef\xbb\xbf")  # editors on Windows put a byte-order mark here
            if line.strip():
                yield number, line


@dataclass
class _Reader:
    """Reads one file and collects what is wrong with it."""

    path: Path
    problems: list[Problem] = field(default_factory=list)
    _images: dict[str, Image | str] = field(default_factory=dict)
    _seen: dict[str, int] = field(default_factory=dict)
    _cells: dict[tuple[str, str], int] = field(default_factory=dict)
    _sizes: dict[str, tuple[int, int]] = field(default_factory=dict)

    def read(self) -> list[Scenario]:
        if not self.path.is_file():
            from steer_env.data.loaders import EXPECTED

            remedy = f"give the path of a JSON Lines file of scenarios, or {EXPECTED}"
            what = "a folder" if self.path.is_dir() else "missing"
            self._add(0, "path", f"{str(self.path)!r} ({what})", "an existing file", remedy)
            return []
        scenarios = []
        lines = 0
        try:
            for number, line in _lines(self.path):
                lines += 1
                if lines == 1 and line.lstrip().startswith(b"["):
                    self._add(
                        number,
                        "",
                        shorten(line.decode("utf-8", "replace").strip()),
                        "one JSON object a line",
                        f"convert the array: jq -c '.[]' {self.path.name} > scenarios.jsonl",
                    )
                    return []
                scenario = self._line(number, line)
                if scenario is not None:
                    scenarios.append(scenario)
        except OSError as error:
            self._add(0, "path", repr(str(self.path)), "a readable file", f"{error.strerror or error}")
        if not lines and not self.problems:
            self._add(0, "", "the file is empty", "at least one scenario", "write one JSON object a line")
        return scenarios

    def _add(self, line: int, where: str, value: str, expected: str, remedy: str) -> None:
        self.problems.append(Problem(line, where, value, expected, remedy))

    def _line(self, number: int, line: bytes) -> Scenario | None:
        from pydantic import ValidationError

        from steer_env.scenario_models import ScenarioRow, explain

        body = self._parse(number, line)
        if body is None:
            return None
        before = len(self.problems)
        row = None
        try:
            row = ScenarioRow.model_validate(body)
        except ValidationError as error:
            for problem in explain(body, error):
                self._add(number, *problem)
        for where, name in _image_names(body):
            image = self._image(name)
            if isinstance(image, str):
                self._add(number, where, repr(shorten(name)), "a picture file Pillow can decode", image)
        if row is None or len(self.problems) > before:
            return None
        return self._build(number, row)

    def _parse(self, number: int, line: bytes) -> dict[str, Any] | None:
        repeated: list[str] = []

        def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
            keys = [key for key, _ in items]
            repeated.extend(sorted(key for key, count in Counter(keys).items() if count > 1))
            return dict(items)

        try:
            text = line.decode("utf-8")
            body = json.loads(text, object_pairs_hook=pairs)
        except UnicodeDecodeError as error:
            byte = line[error.start]
            self._add(
                number,
                "",
                f"byte 0x{byte:02x} at column {error.start + 1}",
                "UTF-8 text",
                "save the file as UTF-8 (iconv -f LATIN1 -t UTF-8)",
            )
            return None
        except (ValueError, RecursionError) as error:
            torn = "" if line.endswith(b"\n") else " (the last line has no line end: was the file cut off?)"
            self._add(
                number,
                "",
                shorten(text.strip()),
                "one JSON object",
                f"repair or remove this line: {error}{torn}",
            )
            return None
        if not isinstance(body, dict):
            self._add(number, "", shorten(json.dumps(body)), "a JSON object", 'write {"turns": ["..."]}')
            return None
        for key in repeated:
            self._add(number, key, "given twice", "each key once", "remove one of the two")
        return None if repeated else body

    def _build(self, number: int, row: ScenarioRow) -> Scenario | None:
        turns = [
            (t, [], 0, "") if isinstance(t, str) else (t.text, t.images, t.risk, t.goal) for t in row.turns
        ]
        named = {name for _, names, _, _ in turns for name in names}
        images: list[Image] = []
        seeds = []
        for index, (text, own, risk, goal) in enumerate(turns):
            # The scenario's pictures come with the first turn, unless a turn claims them.
            rest = [name for name in row.images if name not in named] if index == 0 else []
            if len(rest + own) > MAX_IMAGES:
                self._add(
                    number,
                    f"turns[{index}].images" if own else "images",
                    f"{len(rest + own)} pictures with one turn",
                    f"at most {MAX_IMAGES}",
                    "spread them over several turns",
                )
                return None
            shown = [self._image(name) for name in rest + own]
            start = len(images)
            images.extend(image for image in shown if isinstance(image, Image))
            seeds.append(DraftTurn(text, tuple(range(start, len(images))), risk, goal))
        if not self._contrasts(number, row):
            return None
        labels = {key: getattr(row, key) for key in ("kind", *_KEYS)}
        truth = None
        if row.recipe:
            try:
                images = [_drawn_by(row.recipe, image) for image in images]  # as before they were stored
                (truth,) = map(truth_of, images)
            except (ValueError, IndexError) as error:
                expected = "the recipe of the one picture, as the library wrote it"
                self._add(number, "recipe", repr(shorten(row.recipe)), expected, f"remove it ({error})")
                return None
        made = Scenario(tuple(seeds), tuple(images), truth=truth, **labels, id=row.id)
        return self._unique(number, row, made)

    def _contrasts(self, number: int, row: ScenarioRow) -> bool:
        """Check a member of a contrast group against its group."""
        before = len(self.problems)
        if not row.cells:
            return True
        for key in ("group", "cell"):
            if not getattr(row, key):
                expected = f"the name of the {'contrast group' if key == 'group' else 'member'} beside cells"
                self._add(number, key, "''", expected, "add it, or leave cells out")
        if len(self.problems) > before:
            return False
        line, size = self._sizes.setdefault(row.group, (number, row.cells))
        if size != row.cells:
            expected = f"{size} as on line {line}"
            self._add(number, "cells", str(row.cells), expected, "give all members of a group the same")
        first = self._cells.setdefault((row.group, row.cell), number)
        if first != number:
            what = f"{row.cell!r} (also on line {first})"
            self._add(number, "cell", what, "each member of a group once", "rename one of the two")
        return len(self.problems) == before

    def _unique(self, number: int, row: ScenarioRow, scenario: Scenario) -> Scenario | None:
        first = self._seen.setdefault(scenario.id, number)
        if first == number:
            return scenario
        if row.id:
            self._add(
                number,
                "id",
                f"{row.id!r} (also on line {first})",
                "an id of its own",
                "rename one of the two",
            )
        else:
            self._add(
                number,
                "",
                f"the same scenario as on line {first}",
                "each scenario once",
                "remove one of the two, or give them different ids",
            )
        return None

    def _image(self, name: str) -> Image | str:
        """Return the picture, or what is wrong with it; every file is decoded once."""
        if name not in self._images:
            self._images[name] = _open(
                self.path.parent / name, name
            )  # an absolute `name` replaces the folder
        return self._images[name]


def _image_names(body: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the place and name of every picture, also in a row that breaks the schema elsewhere."""
    turns = body.get("turns")
    lists = [("images", body.get("images"))]
    for index, turn in enumerate(turns if isinstance(turns, list) else ()):
        lists.append((f"turns[{index}].images", turn.get("images") if isinstance(turn, dict) else None))
    for where, names in lists:
        for index, name in enumerate(names if isinstance(names, list) else ()):
            if isinstance(name, str) and name:
                yield f"{where}[{index}]", name


def _open(path: Path, name: str) -> Image | str:
    """Return the picture, or what is wrong with it and what to do."""
    if "://" in name or name.startswith("data:"):
        return "addresses are not followed: save the picture as a file and give its path"
    try:
        if not path.is_file():
            what = "is a folder or a device" if path.exists() else "does not exist"
            return (
                f"{str(path)!r} {what}: correct the path (relative paths start at the scenario file's folder)"
            )
        checked = Image.from_file(path)
    except (ImageError, OSError, ValueError) as error:
        return str(error)
    # The check above decoded every pixel. Thousands of photographs would not fit in memory decoded, so keep
    # only the way back to them; the digest guards against a file that changed since.
    digest = checked.digest
    return Image(lambda: _reopen(path, digest), digest, str(path))


def _drawn_by(recipe: str, image: Image) -> Image:
    return Image(image.decode, hashlib.sha256(recipe.encode()).hexdigest(), SOURCE, recipe=recipe)


def _reopen(path: Path, digest: str) -> Any:
    image = Image.from_file(path)
    if image.digest != digest:
        raise ImageError(f"image={str(path)!r} changed after it was loaded; load the scenario file again")
    return image.pil()


def shorten(text: str, limit: int = 60) -> str:
    """Return `text`, cut to `limit` characters for use in a message."""
    return text if len(text) <= limit else text[:limit] + "..."


def write_schema(path: str | Path = SCHEMA_PATH) -> None:
    """Regenerate the shipped schema from the models; for maintainers."""
    from steer_env.scenario_models import json_schema as generate

    Path(path).write_text(json.dumps(generate(), indent=2) + "\n", encoding="utf-8")
