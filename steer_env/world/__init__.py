"""The built-in visual-text world: scenes, language, ground truth, endless seed dialogues."""

from steer_env.world.draw import Recipe, draw, make_image, truth_of
from steer_env.world.plan import MECHANISMS
from steer_env.world.reply_language.frames import helpful_reply, ideal_reply, say
from steer_env.world.source import SPLITS, WorldSource
from steer_env.world.truth import WORLD_VERSION, History, Move, Request, Truth, right_move

__all__ = [
    "MECHANISMS",
    "SPLITS",
    "WORLD_VERSION",
    "History",
    "Move",
    "Recipe",
    "Request",
    "Truth",
    "WorldSource",
    "draw",
    "helpful_reply",
    "ideal_reply",
    "make_image",
    "right_move",
    "say",
    "truth_of",
]
