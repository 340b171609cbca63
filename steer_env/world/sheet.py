"""A picture with an attacker's words on it: stickers, a panel, a page of its own, or a part of it.

The mark of a scene of the built-in world, which decides what is right, is never covered and never cut off.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final, NamedTuple

from PIL import Image as PILImage
from PIL import ImageChops, ImageDraw

from steer_env.images import Image, typeface
from steer_env.world.draw import lookalike

Box = tuple[int, int, int, int]

PLACES: Final = ("top", "middle", "bottom")
#: Smallest size of a letter.
SMALLEST: Final = 5

_SIDE: Final = 224  # a picture is at least so wide and high before anything is drawn on it
_LARGEST: Final = 1024  # side of a page beside a larger picture
_WINDOW: Final = 0.75  # share of width and height that a crop shows
_PAPER: Final = (255, 255, 255)
_INK: Final = (16, 16, 20)
_STICKER: Final = (255, 240, 140)


class Sheet(NamedTuple):
    """A drawn picture before it is drawn.

    Attributes:
        scene: "own", the "twin" with the other mark, or "" for a page.
        page: Words of a page.
        crop: Part of the scene that is shown, "" for all of it.
        top: Words of the upper sticker.
        bottom: Words of the lower one.
        panel: Words under the picture.
    """

    scene: str = "own"
    page: str = ""
    crop: str = ""
    top: str = ""
    bottom: str = ""
    panel: str = ""

    @property
    def words(self) -> tuple[str, ...]:
        """All that it says, from top to bottom."""
        return tuple(filter(None, (self.top, self.page, self.bottom, self.panel)))


def draw_sheet(source: Image | None, sheet: Sheet) -> PILImage.Image:
    """Return a sheet drawn on a picture or on white, always alike: RGB, at least 224 px wide and high."""
    scene = _large(source.pil()) if source is not None else PILImage.new("RGB", (_SIDE, _SIDE), _PAPER)
    if sheet.scene:
        picture, mark = _cropped(scene, sheet.crop, _mark_box(source))
    else:
        side = min(_LARGEST, *scene.size)
        picture, mark = PILImage.new("RGB", (side, side), _PAPER), None
    height = scene.height
    band = height // 6
    if sheet.page:
        top, bottom = (band if words else 0 for words in (sheet.top, sheet.bottom))
        _write(picture, sheet.page, (0, top, picture.width, picture.height - bottom), height // 8)
    elif mark is not None:  # a sticker hangs over the edge rather than on the mark
        above = max(0, band - mark[1]) if sheet.top else 0
        below = max(0, mark[3] + band - picture.height) if sheet.bottom else 0
        picture = _on_paper(picture, above, below)
    for words, y in ((sheet.top, 0), (sheet.bottom, picture.height - band)):
        if words:
            frame = (2, y + 2, picture.width - 3, y + band - 3)
            ImageDraw.Draw(picture).rectangle(frame, fill=_STICKER, outline=_INK, width=2)
            _write(picture, words, frame, band // 2, middle=True)
    if sheet.panel:
        y = picture.height
        picture = _on_paper(picture, 0, height // 2)
        _write(picture, sheet.panel, (0, y, picture.width, picture.height), height // 9)
    return picture


def _large(picture: PILImage.Image) -> PILImage.Image:
    """Return a picture that is large enough to write on: enlarged, a thin one on paper."""
    scale = max(1.0, min(_SIDE / min(picture.size), 4 * _LARGEST / max(picture.size)))
    size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    if size != picture.size:
        picture = picture.resize(size, PILImage.Resampling.BICUBIC)
    if min(size) >= _SIDE:
        return picture
    paper = PILImage.new("RGB", (max(_SIDE, size[0]), max(_SIDE, size[1])), _PAPER)
    paper.paste(picture, ((paper.width - size[0]) // 2, (paper.height - size[1]) // 2))
    return paper


def _on_paper(picture: PILImage.Image, above: int, below: int) -> PILImage.Image:
    """Return a picture with white strips above and below it."""
    taller = PILImage.new("RGB", (picture.width, above + picture.height + below), _PAPER)
    taller.paste(picture, (0, above))
    return taller


def _mark_box(source: Image | None) -> Box | None:
    """Return where a scene differs from its lookalike: the mark, which no act may hide."""
    twin = lookalike(source) if source is not None else None
    return ImageChops.difference(source.pil(), twin.pil()).getbbox() if source is not None and twin else None


def _cropped(picture: PILImage.Image, place: str, mark: Box | None) -> tuple[PILImage.Image, Box | None]:
    """Return a part of a picture in its old size, and where the mark is there."""
    if not place:
        return picture, mark
    width, height = picture.size
    w, h = round(width * _WINDOW), round(height * _WINDOW)
    x, y = (width - w) // 2, (height - h) * PLACES.index(place) // 2
    if mark is not None:
        x = min(mark[0], max(x, mark[2] - w))
        y = min(mark[1], max(y, mark[3] - h))
        left, top, right, bottom = mark
        mark = (
            int((left - x) * width / w), int((top - y) * height / h),
            math.ceil((right - x) * width / w), math.ceil((bottom - y) * height / h),
        )  # fmt: skip
    part = picture.crop((x, y, x + w, y + h))
    return part.resize(picture.size, PILImage.Resampling.LANCZOS), mark


def _write(picture: PILImage.Image, words: str, box: Box, size: int, middle: bool = False) -> None:
    """Write words into a box, as large as they fit and at most `size`, wrapped, from the top or centred."""
    pen = ImageDraw.Draw(picture)
    edge = 3 if middle else 8
    left, top, right, bottom = box[0] + edge, box[1] + edge, box[2] - edge, box[3] - edge
    while True:
        font, step = typeface(size), math.ceil(size * 1.25)
        lines = [line for part in words.split("\n") for line in _wrapped(part, right - left, font.getlength)]
        if step * len(lines) <= bottom - top or size <= SMALLEST:
            break
        size -= 1
    y = top + (bottom - top - step * len(lines)) // 2 if middle else top
    for line in lines:
        x = left + (right - left - font.getlength(line)) / 2 if middle else left
        pen.text((x, y), line, font=font, fill=_INK)
        y += step


def _wrapped(text: str, width: int, measure: Callable[[str], float]) -> list[str]:
    """Break a line at spaces, and inside words that are wider than a line."""
    lines = [""]
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}" if lines[-1] else word
        if measure(longer) <= width:
            lines[-1] = longer
            continue
        if lines[-1]:
            lines.append("")
        for char in word:
            if lines[-1] and measure(lines[-1] + char) > width:
                lines.append("")
            lines[-1] += char
    return lines
