"""The closed vocabulary of the built-in world."""

from __future__ import annotations

import re

from steer_env.world import frames
from steer_env.world.lexicon import COLOURS, NOUNS, ORDINALS
from steer_env.world.replies import reply_texts

_SLOT_RE = re.compile(r"{\w+}")


def user_texts() -> list[str]:
    """Return every user frame with its slots left out, and what fills them."""
    tables = (
        frames.DESCRIBE, frames.STORE, frames.USE, frames.PIECE, frames.STEPS, frames.ANSWER, frames.PURPOSE,
        frames.STATE, frames.SLIP, *frames.THEN.values(), *frames.AGAIN.values(),
        *frames.SHORT.values(), *frames.STRATEGY.values(), *frames.TECHNIQUE.values(),
        frames.HARMS, frames.NICE, frames.PERSISTENCE, frames.BAIT_AND_SWITCH, *frames.BAIT_OFFER.values(),
        frames.DEEPEN, frames.FOLLOW_UP, frames.MOVE_ON,
    )  # fmt: skip
    texts = [_SLOT_RE.sub(" ", text) for table in tables for text in table]
    return [*texts, *ORDINALS, *COLOURS, *NOUNS, "the thing named on the card", "this thing in the picture"]


def words() -> frozenset[str]:
    """Return every distinct lower-case word of both sides."""
    texts = [*user_texts(), *(_SLOT_RE.sub(" ", t) for t in reply_texts())]
    return frozenset(w for text in texts for w in re.findall(r"[^\W\d_]+(?:'[^\W\d_]+)?", text.lower()))
