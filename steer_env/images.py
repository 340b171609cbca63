"""Pictures as immutable handles, kept once, decoded when somebody needs pixels.

An observation carries handles, not arrays: a dialogue of five hundred turns shares one picture, a
scripted agent never decodes it, and `numpy.asarray(image)` gives the pixels to whoever wants them.
"""

from __future__ import annotations

import base64
import hashlib
import io
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PILImage
from PIL import ImageFont, ImageOps, UnidentifiedImageError

from steer_env.files import read_bytes

#: Side length in pixels beyond which a picture is refused; a decompression bomb is larger still.
MAX_SIDE = 16_384
#: Most pixels of a picture; decoded, that is 200 MB.
MAX_PIXELS = 1 << 26
#: Most bytes of a picture file.
MAX_BYTES = 64 << 20
#: Formats that are decoded, with the suffix of such a file. Others start programs (EPS Ghostscript) or have
#: decoders that few people look at.
FORMATS = {
    "PNG": ".png", "JPEG": ".jpg", "MPO": ".jpg", "WEBP": ".webp", "GIF": ".gif", "BMP": ".bmp",
    "DIB": ".bmp", "TIFF": ".tif", "AVIF": ".avif", "JPEG2000": ".jp2", "ICO": ".ico", "PPM": ".ppm",
}  # fmt: skip


@lru_cache(maxsize=64)
def typeface(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Return Pillow's own font, the same on every machine, in a size in pixels."""
    return ImageFont.load_default(size)


class ImageError(ValueError):
    """A picture that is missing, broken or too large. It is never dropped silently."""


class Image:
    """An immutable RGB picture, identified by the hash of its source.

    Two images are equal when their `digest` is. `numpy.asarray(image)` is a read-only uint8 array of
    shape (H, W, 3); `image.pil()` a Pillow copy in mode RGB, upright (EXIF orientation applied).

    Attributes:
        digest: SHA-256 hex digest of the encoded bytes, or of the recipe of a generated picture.
        source: Where it came from, for messages: a path, or a word. A student sees handles, so it must not
            say what the picture shows.

    Args:
        decode: Returns the picture in any Pillow mode.
        digest: See above.
        source: See above.
        recipe: What a generated picture was drawn from. Kept private: it is ground truth.
    """

    __slots__ = ("_array", "_decode", "_recipe", "digest", "source")

    def __init__(
        self, decode: Callable[[], PILImage.Image], digest: str, source: str = "", *, recipe: str = ""
    ) -> None:
        self._decode = decode
        self._array: NDArray[np.uint8] | None = None
        self.digest = digest
        self.source = source
        self._recipe = recipe

    @classmethod
    def from_file(cls, path: str | Path) -> Image:
        """Open a picture file of any common format (`FORMATS`), size, colour mode and EXIF orientation.

        The file is read and decoded once here, so that a broken picture fails at the boundary and not in
        the middle of a run.

        Raises:
            ImageError: If the file is missing, is no picture of `FORMATS`, is broken or too large.
        """
        path = Path(path)
        try:
            data = read_bytes(path, MAX_BYTES)
        except OSError as error:
            raise ImageError(
                f"image={str(path)!r} cannot be read ({error.strerror or error}); give a path to an existing "
                "picture, absolute or relative to the scenario file"
            ) from error
        except ValueError as error:
            raise ImageError(f"image={str(path)!r}: {error}; resize it") from error
        return cls.from_bytes(data, source=str(path))

    @classmethod
    def from_bytes(cls, data: bytes, source: str = "bytes") -> Image:
        """Decode an encoded picture. Raises `ImageError` as `from_file` does."""
        image = cls(lambda: _decode(data, source), hashlib.sha256(data).hexdigest(), source)
        image.array()
        return image

    @classmethod
    def from_array(cls, array: NDArray[np.uint8], source: str = "array") -> Image:
        """Wrap an array of shape (H, W, 3) and dtype uint8; the pixels are copied.

        Raises:
            ImageError: On any other shape or dtype.
        """
        if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or 0 in array.shape:
            raise ImageError(
                f"array has shape={array.shape}, dtype={array.dtype}; expected (H, W, 3) of uint8, H and W > "
                "0"
            )
        pixels = np.ascontiguousarray(array).copy()
        digest = hashlib.sha256(f"{pixels.shape}".encode() + pixels.tobytes()).hexdigest()
        return cls(lambda: PILImage.fromarray(pixels), digest, source)

    def array(self) -> NDArray[np.uint8]:
        """Return the pixels, (H, W, 3) uint8, read-only; decoded on the first call and kept."""
        if self._array is None:
            pixels = np.array(self._decode().convert("RGB"), dtype=np.uint8)
            pixels.setflags(write=False)
            self._array = pixels
        return self._array

    def decode(self) -> PILImage.Image:
        """Return a Pillow image in mode RGB without keeping the pixels, for a pass over many pictures."""
        return self._decode().convert("RGB")

    def pil(self) -> PILImage.Image:
        """Return a Pillow image in mode RGB; the caller owns it. Does not make the image keep pixels."""
        if self._array is None:
            return self._decode().convert("RGB")
        return PILImage.fromarray(self._array)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        height, width, _ = self.array().shape
        return width, height

    def png(self) -> bytes:
        """Return the picture encoded as PNG."""
        buffer = io.BytesIO()
        self.pil().save(buffer, format="PNG")
        return buffer.getvalue()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        pixels = self.array()
        if dtype is not None and np.dtype(dtype) != pixels.dtype:
            return pixels.astype(dtype)
        return pixels.copy() if copy else pixels

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Image) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        return f"Image({self.digest[:12]})"  # no source: a file's name may say what is in it

    def __deepcopy__(self, memo: dict[int, Any]) -> Image:
        return self  # immutable

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (self.array(), self.digest, self.source, self._recipe)


def _rebuild(pixels: NDArray[np.uint8], digest: str, source: str, recipe: str) -> Image:
    return Image(lambda: PILImage.fromarray(pixels), digest, source, recipe=recipe)


@contextmanager
def refusals(image: Image, processor: Any) -> Iterator[None]:
    """Have an error of a model's processor name the picture it refuses: too thin, too small, ...

    Raises:
        ImageError: In its place.
    """
    try:
        yield
    except (ValueError, TypeError, RuntimeError, OSError, ZeroDivisionError, IndexError) as error:
        if isinstance(error, ImageError):
            raise
        raise ImageError(
            f"image={image.source!r} is refused by the model's {type(processor).__name__} ({error}); "
            "resize or crop it"
        ) from error


def data_url(image: Image) -> str:
    """Return a picture as a data URL, PNG."""
    return "data:image/png;base64," + base64.b64encode(image.png()).decode()


def encoded(image: Image) -> tuple[bytes, str]:
    """Return a picture as a file's bytes and suffix: those of its unchanged source file, else PNG.

    The suffix follows what the bytes are, not what the file was called.
    """
    source = Path(image.source) if image.source and "\0" not in image.source else None
    if source is not None and source.is_file():
        with suppress(OSError, ValueError):
            data = read_bytes(source, MAX_BYTES)
            if hashlib.sha256(data).hexdigest() == image.digest:
                with PILImage.open(io.BytesIO(data), formats=_formats()) as picture:
                    return data, FORMATS[picture.format or ""]
    return image.png(), ".png"


def _formats() -> list[str]:
    PILImage.init()
    return [name for name in FORMATS if name in PILImage.OPEN]  # not every Pillow is built with all


def _decode(data: bytes, source: str) -> PILImage.Image:
    if len(data) > MAX_BYTES:
        raise ImageError(f"image={source!r} is larger than {MAX_BYTES >> 20} MiB, expected less; resize it")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", PILImage.DecompressionBombWarning)
            picture = PILImage.open(io.BytesIO(data), formats=_formats())
            if max(picture.size) > MAX_SIDE or picture.width * picture.height > MAX_PIXELS:
                raise ImageError(
                    f"image={source!r} is {picture.size} px, expected sides up to {MAX_SIDE} and at most "
                    f"{MAX_PIXELS:,} pixels; resize it"
                )
            picture.load()
        return _to_rgb(ImageOps.exif_transpose(picture))
    except ImageError:
        raise
    except (PILImage.DecompressionBombError, PILImage.DecompressionBombWarning, MemoryError) as error:
        raise ImageError(f"image={source!r} is too large to decode safely ({error}); resize it") from error
    except Exception as error:  # decoders raise nearly everything on a broken file
        # Pillow's own message for an unknown format holds a memory address.
        unknown = isinstance(error, UnidentifiedImageError)
        reason = "unknown format" if unknown else f"{type(error).__name__}: {error}"
        raise ImageError(
            f"image={source!r} is no picture Pillow can decode ({reason}); convert it to PNG or JPEG, or "
            "remove it from the scenario"
        ) from error


def _to_rgb(picture: PILImage.Image) -> PILImage.Image:
    if picture.mode.startswith("I") or picture.mode == "F":
        # 16/32-bit and float pictures: Pillow's convert() would clip them to white; stretch them instead.
        values = np.asarray(picture, dtype=np.float64)
        finite = values[np.isfinite(values)]
        low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
        if low == high:  # nothing to stretch: one grey, as bright as its format says
            low, high = 0.0, 65_535.0 if picture.mode.startswith("I") else max(1.0, high)
        scaled = np.nan_to_num((values - low) / (high - low), nan=0.0, posinf=1.0, neginf=0.0)
        return PILImage.fromarray((np.clip(scaled, 0.0, 1.0) * 255.0).astype(np.uint8)).convert("RGB")
    if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
        # Transparent pixels hold arbitrary colours; a person would see them on white.
        rgba = picture.convert("RGBA")
        white = PILImage.new("RGBA", rgba.size, (255, 255, 255, 255))
        return PILImage.alpha_composite(white, rgba).convert("RGB")
    return picture.convert("RGB")
