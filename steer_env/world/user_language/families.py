"""Reading a user turn in its dialogue: each family of devices has users with their own way of speaking."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from steer_env.world.ood.reading import read_user as read_ood
from steer_env.world.truth import Truth
from steer_env.world.user_language.reading import UserTurn, parse_user

#: Family -> reader of user turns. Readers are pure and cached.
READERS: Final[dict[str, Callable[[str], UserTurn]]] = {"main": parse_user, "ood": read_ood}


def read_user(truth: Truth, text: str) -> UserTurn:
    """Return what a user turn asks for, read as users of the scene's family speak."""
    return READERS[truth.family](text)
