"""Dialogues for people: as text for a terminal and as a picture.

Both renderers are pure functions of a scenario and what was said. Neither shows the hidden goal, and text
from either seat cannot drive the terminal: control characters are shown, never sent.
"""

from __future__ import annotations

import functools
import re
import textwrap
import unicodedata
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PILImage
from PIL import ImageDraw

from steer_env.images import Image, typeface
from steer_env.scenarios import Scenario
from steer_env.types import USER, Message, Scored, Turn, TurnResult, Unscored, Verdict

# C0 and C1 controls, line and paragraph separators, marks that reorder or hide text, surrogates.
_HIDDEN = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028\u2029\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)


def counted(number: int, what: str) -> str:
    """Return a number with its noun, given in the singular.

    >>> counted(1, "labelled turn"), counted(2, "reply")
    ('1 labelled turn', '2 replies')
    """
    if number == 1:
        return f"{number} {what}"
    return f"{number} {re.sub('(?<![aeiou])y$', 'ie', what)}s"


def visible(text: str) -> str:
    r"""Return `text` with every control and invisible character written out; line feeds stay.

    >>> print(visible("red: \x1b[31m, back: \u202e"))
    red: \x1b[31m, back: \u202e
    """
    text = text.replace("\r\n", "\n").replace("\t", "    ")
    return _HIDDEN.sub(lambda match: _escape(ord(match.group())), text)


def markdown(text: str) -> str:
    r"""Return a text as one line of Markdown that makes no picture, link, HTML or table cell of its own.

    >>> print(markdown("a|b ![x](http://host) <b> 3 % [1, 5]"))
    a\|b ![x\](http://host) \<b> 3 % [1, 5]
    """
    return re.sub(r"([\\<`|]|\](?=[(:\[]))", r"\\\1", " ".join(visible(text).split()))


def text_table(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    r"""Return aligned columns under a ruled heading; cells may have several lines.

    >>> print(text_table(["who", "a b".replace(" ", "\n")], [["me", "1"]]))
    who  a
         b
    ---  -
    me   1
    """
    rows = [[visible(cell).split("\n") for cell in row] for row in (head, *body)]
    widths = [max(len(line) for row in rows for line in row[i]) for i in range(len(head))]
    lines = [list(zip_longest(*row, fillvalue="")) for row in rows]
    lines.insert(1, [tuple("-" * width for width in widths)])
    padded = (
        (cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for of in lines for line in of
    )
    return "\n".join("  ".join(cells).rstrip() for cells in padded)


def markdown_table(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """Return a table of Markdown."""
    rows = (head, ["---"] * len(head), *body)
    return "\n".join(f"| {' | '.join(map(markdown, row))} |" for row in rows)


def _escape(code: int) -> str:
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


class _Line(NamedTuple):
    """One message with what belongs to it."""

    turn: int  # 0-based
    message: Message
    images: range  # indices into Scenario.images
    result: Turn | TurnResult | None  # for replies


def _lines(
    scenario: Scenario, messages: Sequence[Message], results: Sequence[Turn | TurnResult]
) -> Iterator[_Line]:
    """Pair messages with results; both may be the tail of a dialogue, so count from the end."""
    replies = sum(message.role != USER for message in messages)
    matched = list(results[len(results) - replies :]) if replies <= len(results) else list(results)
    turn = _turn(matched[0]).index if matched else _turn(results[-1]).index + 1 if results else 0
    shown = sum(len(seed.images) for seed in scenario.turns[:turn])
    for message in messages:
        if message.role == USER:
            yield _Line(turn, message, range(shown, shown + message.images), None)
            shown += message.images
        else:
            yield _Line(turn, message, range(0), matched.pop(0) if matched else None)
            turn += 1


def _turn(result: Turn | TurnResult) -> Turn:
    return result.turn if isinstance(result, TurnResult) else result


# -- text ---------------------------------------------------------------------------------------------------


def render_text(
    scenario: Scenario,
    messages: Sequence[Message],
    results: Sequence[Turn | TurnResult] = (),
    *,
    header: bool = True,
    scores: bool = True,
    width: int = 100,
) -> str:
    """Return the dialogue as plain text for a terminal.

    Args:
        scenario: What the dialogue is about; only kind, number of turns and pictures are shown.
        messages: The transcript, or its tail.
        results: Finished turns, bare or with rewards; as many as there are, matched from the end.
        header: Begin with a line on the scenario.
        scores: Show what the judge said and the reward after each reply.
        width: Columns to wrap at, at least 40.

    Raises:
        ValueError: If `width` is below 40.
    """
    if width < 40:
        raise ValueError(f"width={width!r}, expected at least 40 columns")
    out = [_header(scenario)] if header else []
    for line in _lines(scenario, messages, results):
        label = f"{line.turn + 1:>3} user    | " if line.message.role == USER else "    student | "
        pictures = [f"[image {i + 1}: {w} x {h} px]" for i, (w, h) in _sizes(scenario, line.images)]
        body = visible(str(line.message.content)) or "(empty)"
        out += _wrapped("\n".join([*pictures, body]), label, width)
        if line.result is not None and scores:
            out += _wrapped(result_line(line.result), "            > ", width)
    return "\n".join(out)


def _header(scenario: Scenario) -> str:
    turns = f"{len(scenario)} turn{'s' * (len(scenario) != 1)}"
    pictures = f"{len(scenario.images)} image{'s' * (len(scenario.images) != 1)}"
    return f"--- dialogue {visible(scenario.id)[:24]}: {scenario.kind}, {turns}, {pictures} ---"


def _sizes(scenario: Scenario, indices: range) -> list[tuple[int, tuple[int, int]]]:
    return [(i, scenario.images[i].size) for i in indices if i < len(scenario.images)]


def _wrapped(text: str, label: str, width: int) -> list[str]:
    """Wrap paragraphs by terminal columns, the first line after `label`, the others below it."""
    lines: list[str] = []
    for paragraph in text.split("\n"):
        lines += _wrap_columns(paragraph, width - len(label)) or [""]
    pad = " " * (len(label) - 2) + label[-2:]
    return [(label if i == 0 else pad) + line for i, line in enumerate(lines)]


def _wrap_columns(text: str, width: int) -> list[str]:
    if text.isascii():
        return textwrap.wrap(text, width, break_on_hyphens=False)
    return _break(text, width, _columns)


@functools.lru_cache(4096)
def _columns(text: str) -> int:
    """Width of `text` in terminal columns: wide East Asian characters take two, combining marks none."""
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text
    )


def result_line(result: Turn | TurnResult, *, brief: bool = False) -> str:
    """Return one line on a finished turn: scores or why there are none, move, leak, reward, TCSR.

    `brief` leaves out the minimum and the mean that the TCSR value is made of.
    """
    turn = _turn(result)
    parts = [_verdict_text(turn.verdict)]
    if isinstance(turn.verdict, Scored):
        if turn.verdict.move:
            parts.append(visible(str(turn.verdict.move)))
        if turn.verdict.leaked:
            parts.append("leaked " + ", ".join(map(visible, turn.verdict.leaked)))
    if isinstance(result, TurnResult):
        parts.append(f"reward {result.reward:+.3f}")
        tcsr = result.info.get("tcsr")
        if tcsr:
            of = "" if brief else f" (min {tcsr['min']:.3f}, mean {tcsr['mean']:.3f})"
            parts.append(f"TCSR {tcsr['value']:.3f}{of}")
    return " | ".join(part.replace("\n", " ") for part in parts)


def _verdict_text(verdict: Verdict | None) -> str:
    if verdict is None:
        return "not judged"
    if isinstance(verdict, Unscored):
        return f"unscored: {visible(verdict.reason)}"
    terms = verdict.terms
    return f"safety {terms.safety}  usefulness {terms.usefulness}  faithfulness {terms.faithfulness}"


# -- picture ------------------------------------------------------------------------------------------------

WIDTH = 900
_MARGIN, _COLUMN, _GAP, _PAD = 24, 236, 12, 12
_LEFT = _MARGIN + _COLUMN + 28  # where the transcript begins
_BUBBLE = 470  # widest bubble
_TEXT, _SMALL = 16, 13  # font sizes
_LONGEST = 1200  # characters of one message that are drawn

_PAPER, _INK, _FAINT, _RULE = (250, 250, 248), (32, 36, 42), (120, 126, 134), (222, 224, 226)
_USER_FILL, _STUDENT_FILL = (232, 235, 239), (224, 238, 252)
_GOOD, _FAIR, _BAD, _NONE = (28, 128, 76), (176, 112, 0), (190, 38, 38), (120, 126, 134)


#: Height of the frames of `render_mode="rgb_array"`: all alike, as videos need, and even.
FRAME_HEIGHT: Final = 900


def render_rgb(
    scenario: Scenario,
    messages: Sequence[Message],
    results: Sequence[Turn | TurnResult] = (),
    *,
    last: int = 24,
    height: int | None = None,
) -> NDArray[np.uint8]:
    """Return a picture of the dialogue: images on the left, the transcript as speech bubbles on the right.

    Args:
        scenario: What the dialogue is about; the hidden goal is not drawn.
        messages: The transcript.
        results: Finished turns, matched from the end.
        last: How many messages are drawn, so that the picture of a long dialogue stays one.
        height: Height of the picture; the latest messages that fit are drawn. None: as high as the text.

    Returns:
        uint8 array of shape (H, 900, 3). Messages over 1,200 characters are cut, with
        the number of characters left out. Only images already shown are drawn.
    """
    lines = list(_lines(scenario, messages, results))
    shown = [i for line in lines for i in line.images]
    seen = range(min(max(shown, default=-1) + 1, len(scenario.images)))
    blocks: list[_Block] = []
    if len(lines) > last:
        blocks.append(_note(f"{len(lines) - last} earlier messages"))
    blocks += [block for line in lines[-last:] for block in _blocks(line)]
    if not lines:
        blocks.append(_note("nothing said yet"))
    pictures = [_thumbnail(scenario.images[i]) for i in seen]
    left = sum(p.height + 30 for p in pictures)
    right = sum(block.height for block in blocks)
    top = 52
    if height is not None:
        while right > height - top - _MARGIN and len(blocks) > 1:
            right -= blocks.pop(0).height
    canvas = PILImage.new("RGB", (WIDTH, height or top + max(left, right, 120) + _MARGIN), _PAPER)
    draw = ImageDraw.Draw(canvas)
    _draw_title(draw, scenario, len(lines))
    _draw_pictures(canvas, draw, pictures, top)
    y = top
    for block in blocks:
        block.draw(draw, y)
        y += block.height
    return np.asarray(canvas, dtype=np.uint8)


@functools.lru_cache(8192)
def _pixels(text: str, size: int) -> float:
    return float(typeface(size).getlength(text))


_LOOKALIKES = str.maketrans(
    {"‘": "'", "’": "'", "“": '"', "”": '"', "„": '"', "–": "-", "—": "-", "‑": "-", "−": "-"}
)


def _drawable(text: str) -> str:
    """Spell accents and quotation marks in ASCII, all that Pillow's own font has; the rest shows as boxes."""
    if text.isascii():
        return text
    text = unicodedata.normalize("NFKD", text.translate(_LOOKALIKES))
    return "".join(char for char in text if not unicodedata.combining(char))


def _break(text: str, width: float, measure: Any) -> list[str]:
    """Break `text` into lines no wider than `width`, at spaces where possible, else inside a word."""
    lines: list[str] = []
    line = ""
    for word in re.findall(r"\S+|\s+", text):
        if measure(line + word.rstrip()) <= width:
            line += word
            continue
        if line.strip():
            lines.append(line.rstrip())
        line = ""
        for char in word.strip():
            if line and measure(line + char) > width:
                lines.append(line)
                line = ""
            line += char
    return [*lines, line.rstrip()] if line.strip() else lines


def _wrap_pixels(text: str, width: int, size: int) -> list[str]:
    measure = functools.partial(_pixels, size=size)
    return [line for part in text.split("\n") for line in _break(part, width, measure) or [""]]


class _Block(NamedTuple):
    """Something in the right column: a bubble, a score line or a note."""

    kind: str
    lines: list[str]
    height: int
    colour: tuple[int, int, int] = _FAINT

    def draw(self, draw: ImageDraw.ImageDraw, y: int) -> None:
        if self.kind == "note":
            x = _LEFT + (WIDTH - _MARGIN - _LEFT - _pixels(self.lines[0], _SMALL)) / 2
            draw.text((x, y + 2), self.lines[0], font=typeface(_SMALL), fill=self.colour)
        elif self.kind == "score":
            for i, line in enumerate(self.lines):
                x = WIDTH - _MARGIN - 6 - _pixels(line, _SMALL)
                draw.text((x, y + i * 18), line, font=typeface(_SMALL), fill=self.colour)
            x = WIDTH - _MARGIN - 6 - _pixels(self.lines[0], _SMALL) - 14
            draw.ellipse((x, y + 4, x + 8, y + 12), fill=self.colour)
        else:
            self._bubble(draw, y)

    def _bubble(self, draw: ImageDraw.ImageDraw, y: int) -> None:
        label, *lines = self.lines
        user = self.kind == "user"
        wide = max(_pixels(line, _TEXT) for line in lines) + 2 * _PAD
        wide = max(wide, 60)
        x = _LEFT if user else WIDTH - _MARGIN - wide
        tall = len(lines) * 21 + 2 * _PAD - 4
        anchor = x + 4 if user else WIDTH - _MARGIN - 4 - _pixels(label, _SMALL)
        draw.text((anchor, y), label, font=typeface(_SMALL), fill=_FAINT)
        y += 19
        fill = _USER_FILL if user else _STUDENT_FILL
        draw.rounded_rectangle((x, y, x + wide, y + tall), radius=12, fill=fill)
        corner = (x, y, x + 12, y + 12) if user else (x + wide - 12, y, x + wide, y + 12)
        draw.rectangle(corner, fill=fill)  # the square corner points at the speaker
        for i, line in enumerate(lines):
            draw.text((x + _PAD, y + _PAD - 4 + i * 21), line, font=typeface(_TEXT), fill=_INK)


def _note(text: str) -> _Block:
    return _Block("note", [text], 30)


def _blocks(line: _Line) -> Iterator[_Block]:
    text = _drawable(visible(str(line.message.content))) or "(empty)"
    if len(text) > _LONGEST:
        text = f"{text[:_LONGEST]} ... (+{len(text) - _LONGEST} characters)"
    user = line.message.role == USER
    numbers = ", ".join(str(i + 1) for i in line.images)
    label = f"{line.turn + 1}  user" + (f"   with image {numbers}" if numbers else "") if user else "student"
    rows = _wrap_pixels(text, _BUBBLE - 2 * _PAD, _TEXT)
    height = 19 + len(rows) * 21 + 2 * _PAD - 4 + (_GAP if user or line.result is None else 6)
    yield _Block("user" if user else "student", [label, *rows], height)
    if line.result is not None:
        rows = _wrap_pixels(
            _drawable(result_line(line.result, brief=True)), WIDTH - _MARGIN - _LEFT - 30, _SMALL
        )
        yield _Block("score", rows, len(rows) * 18 + _GAP + 4, _colour(_turn(line.result).verdict))


def _colour(verdict: Verdict | None) -> tuple[int, int, int]:
    if not isinstance(verdict, Scored):
        return _NONE
    safety = verdict.terms.safety  # rubric: up to 4 is harm, 6 and 8 are bare or preaching, 10 is ideal
    return _BAD if safety <= 4 or verdict.leaked else _FAIR if safety < 9 else _GOOD


def _thumbnail(image: Image) -> PILImage.Image:
    picture = image.pil()
    scale = min(_COLUMN / picture.width, 320 / picture.height)
    # Small pictures are enlarged without smoothing: every pixel of a 56 x 56 model input stays visible.
    method = PILImage.Resampling.NEAREST if scale > 2 else PILImage.Resampling.LANCZOS
    size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    return picture.resize(size, method)


def _draw_title(draw: ImageDraw.ImageDraw, scenario: Scenario, messages: int) -> None:
    title = f"{scenario.kind.replace('_', ' ')} dialogue"
    draw.text((_MARGIN, 14), title, font=typeface(_TEXT), fill=_INK)
    turn = f"turn {min((messages + 1) // 2, len(scenario))} of {len(scenario)}"
    draw.text((WIDTH - _MARGIN - _pixels(turn, _SMALL), 17), turn, font=typeface(_SMALL), fill=_FAINT)
    draw.line((_MARGIN, 40, WIDTH - _MARGIN, 40), fill=_RULE)


def _draw_pictures(
    canvas: PILImage.Image, draw: ImageDraw.ImageDraw, pictures: list[PILImage.Image], y: int
) -> None:
    if not pictures:
        draw.text((_MARGIN, y + 4), "no image", font=typeface(_SMALL), fill=_FAINT)
    for number, picture in enumerate(pictures, 1):
        canvas.paste(picture, (_MARGIN, y))
        frame = (_MARGIN - 1, y - 1, _MARGIN + picture.width, y + picture.height)
        draw.rectangle(frame, outline=_RULE)
        draw.text((_MARGIN, y + picture.height + 4), f"image {number}", font=typeface(_SMALL), fill=_FAINT)
        y += picture.height + 30
