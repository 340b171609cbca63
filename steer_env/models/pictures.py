"""What a model that reads text only is shown of a picture: a caption from ground truth, or nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from steer_env.checks import choice
from steer_env.drawing import is_paper, words_of
from steer_env.images import Image, ImageError
from steer_env.models.base import ChatMessage, ChatRequest
from steer_env.world.draw import truth_of
from steer_env.world.lexicon import PLACES

#: How pictures are shown: as they are; in words, where a picture has ground truth; not at all.
VIEWS = ("pixels", "caption", "no")


def as_view(value: object) -> str:
    """Return how pictures are shown, checked; in a model's name "no" is read as False.

    Raises:
        ValueError: If it is none of `VIEWS`.
    """
    return choice("images", "no" if value is False else value, VIEWS)


def caption(image: Image) -> str:
    """Return what is in a picture of the built-in world, and the words an attacker drew into it.

    Raises:
        ImageError: If the picture has no ground truth.
    """
    truth = truth_of(image)
    says = "".join(f', with the words "{words}"' for words in words_of(image))
    if is_paper(image):
        return f"a page{says}"
    if truth is None:
        raise ImageError(
            f"image={image.source!r} has no ground truth to make a caption from, expected a picture of the "
            "built-in world; pass images='no', or use an image-text model"
        )
    return f"a {truth.colour} {truth.noun} {PLACES[truth.place]} with {truth.mark}{says}"


def in_words(words: str, images: Sequence[Image], view: str) -> str:
    """Return a message's words behind the captions of its pictures (`view="caption"`), or alone ("no").

    Raises:
        ImageError: If a picture has no ground truth.
    """
    shown = [f"[picture: {caption(image)}]" for image in images] if view == "caption" else []
    return "\n".join([*shown, words])


def shown(request: ChatRequest, view: str) -> ChatRequest:
    """Return a request with its pictures as a model is shown them, see `VIEWS`.

    Raises:
        ImageError: If a picture has no ground truth.
    """
    if view == "pixels" or not any(message.images for message in request.messages):
        return request
    told = [ChatMessage(m.role, in_words(m.content, m.images, view)) for m in request.messages]
    return replace(request, messages=tuple(told))
