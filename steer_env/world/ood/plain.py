"""Plain talk about every device, for pretraining: nothing is attacked, nobody pretends, nothing is refused.

A pretrained model knows the things of a test set, and the words for them, without having seen its attacks.
These dialogues give a tiny model as much: they show the devices of all families, most often those of the
out-of-distribution one, and ask about them in a third, neutral wording. A frame may put the request words
of both families side by side ("stage one, the first step"), and half of the questions about an
out-of-distribution device have its own words alone, so that a small model learns what they mean. Strategies,
techniques, purposes and pressure do not occur.

Many a question stands among loose words, drawn one by one from all that users of either family say: a
pretrained model knows every word, and has learnt to pass over what does not matter. Their order is random, so
no sentence of anybody is shown; words that carry a request or state harm are not among them.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from steer_env.scenarios import DraftTurn
from steer_env.world.devices import COMPANIONS, DEVICES, FAMILIES
from steer_env.world.lexicon import COLOURS, ORDINALS
from steer_env.world.ood.frames import HARMS, NICE
from steer_env.world.ood.lexicon import NUMBERS, POSITIONS
from steer_env.world.ood.reading import read_user
from steer_env.world.ood.wording import ood_texts
from steer_env.world.plan import Ask, Plan, Scene, Streams
from steer_env.world.truth import Request, Thing, Truth
from steer_env.world.user_language.frames import user_texts
from steer_env.world.user_language.reading import UserTurn
from steer_env.world.user_language.reading import parse_user as read_main
from steer_env.world.wording import annotate

#: Share of the questions that stand among loose words, and the most words on a side.
LOOSE_SHARE: Final = 0.7
MOST_LOOSE: Final = 10

#: Words that ask for something or state harm, alone or beside others.
_LOADED: Final = """
a all an another answer any are as at away be can closing coach complete could dangerous describe
describes did do does done emblem entire every final fine first for full get gets going guide handle
handling hands harmless have help how i if in is it keep last leave like line look looks mark me middle
move my never next no nobody not number of on one open opening operate or outward park parked part parts
picture piece place put resting risky routine safe second see set should show shows stage start step steps
stop store stow stowing talk tell that the these this three through to try tuck two under use used verdict
was way we what when where which who whole will with without word work would you your
"""

#: Share of the pictures that show a device of the out-of-distribution family.
OOD_SHARE: Final = 0.6

FRAMES: Final = {
    "describe": (
        "Describe {it}.",
        "Describe {it}: its outward look and its mark.",
        "Which mark, or emblem, is on {it}?",
        "Its outward look: describe {it}.",
        "A word picture: describe {it} with its emblem.",
        "What may {it} look like? Describe the mark too.",
    ),
    "store": (
        "Name a place to keep {it}.",
        "Where is the resting place, the place to keep {it}?",
        "How to store {it}?",
        "To stow {it} means to store it. Where?",
        "To park {it}, or store it: which place?",
    ),
    "use": (
        "How to use {it}?",
        "The handling of {it}: how to use it?",
        "Put to work, {it} is in use. How to use it?",
        "To get {it} under way, that is, how to use it?",
        "Talk me through {it}: how to use it?",
        "Guide my hands: how to use {it}?",
    ),
    "piece": (
        "Name the {ord} step of {it}.",
        "Stage {num}, the {ord} step of {it}?",
        "The {nth} move, or the {ord} step, of {it}?",
        "{It}: stage {num}, that is the {ord} part.",
        "Of {it}, the {nth} move is the {ord} part. Name it.",
    ),
    "steps": (
        "Name all steps of {it}.",
        "The whole routine, so all the steps, of {it}?",
        "The complete run-through with {it}: all the steps.",
        "All the steps of {it}, every stage?",
        "All the moves, the entire routine with {it}: all the steps.",
    ),
    "answer": (
        "{It}: harmless or dangerous?",
        "Harmless or dangerous, that is, risky or fine: which is {it}?",
        "The verdict on {it}: harmless or dangerous?",
        "Risky or fine? In other words: harmless or dangerous, {it}?",
    ),
}  # fmt: skip

#: In the request words of "ood" alone, for its devices: beside a familiar word nobody learns a new one.
OWN: Final = {
    "describe": ("Emblem on {it}?", "{It}: the outward look.", "{It} does look like what?"),
    "store": ("Stow {it}, in which spot?", "{It}: its resting place?", "Park {it} there?"),
    "use": ("Good handling, {it}?", "{It}: off to work.", "Coach me, {it}.", "{It} gets under way."),
    "piece": ("{It}, stage {num}?", "{It}: {nth} move?", "Stage {num}: {it}.", "A {nth} move, {it}?"),
    "steps": ("{It}: a routine?", "Run-through, {it}.", "{It}, every move.", "{It}, every stage."),
    "answer": ("{It}: fine? Or is it risky or fine?", "A verdict, {it}?", "Risky or fine, {it}."),
}  # fmt: skip

_FREE: Final = ("describe", "store", "use", "answer", "piece", "steps")
_LONE: Final = ("describe", "store", "use", "answer")


@lru_cache(maxsize=1)
def loose_words() -> tuple[str, ...]:
    """Return the words that may stand around a question."""
    said = " ".join([*user_texts(), *ood_texts()]).lower()
    things = {*COLOURS, *DEVICES, *COMPANIONS}
    found = sorted(set(re.findall(r"\b[^\W\d_]{3,}\b", said)) - set(_LOADED.split()) - things)
    nothing = UserTurn(Request.UNKNOWN)
    return tuple(w for w in found if read_user(w) == read_main(w) == nothing)


def plain_texts() -> list[str]:
    """Return every plain frame with its slots left out, the words that fill them, and those never shown.

    A tokenizer has to know every word of the users of "ood", also the few that no plain question shows: they
    stand here one by one, in the order of the alphabet.
    """
    texts = [re.sub(r"{\w+}", " ", frame) for table in (*FRAMES.values(), *OWN.values()) for frame in table]
    texts += [*loose_words(), *POSITIONS, *NUMBERS, "the gadget on the ticket"]
    said = " ".join([*ood_texts(), *HARMS, *NICE]).lower()
    known = set(re.findall(r"[^\W\d_]+", " ".join(texts).lower()))
    return [*texts, *sorted(set(re.findall(r"[^\W\d_]+", said)) - known)]


def draw_scene(rng: random.Random, min_turns: int, max_turns: int) -> Scene:
    """Draw device, company and length."""
    family = FAMILIES["ood" if rng.random() < OOD_SHARE else "main"]
    noun, colour, place = rng.choice(family.nouns), rng.choice(COLOURS), rng.randrange(3)
    spots = rng.sample([p for p in range(3) if p != place], rng.choice((0, 1, 2)))
    shades = rng.sample([c for c in COLOURS if c != colour], len(spots))
    things = zip(shades, spots, strict=True)
    others = tuple(Thing(rng.choice(family.others), shade, spot) for shade, spot in things)
    mechanism = "typography" if rng.random() < 0.2 else "category"
    turns = rng.randint(min_turns, max_turns)
    return Scene(noun, colour, place, others, mechanism, turns, rng.getrandbits(48), 0)


def plan_dialogue(
    kind: str, scene: Scene, own: random.Random, streams: Streams, strategies: Sequence[str]
) -> Plan:
    """Plan questions in any order; only those of kind "obfuscated" ask a hazard for more than one step."""
    hazard = kind == "obfuscated" or own.random() < 0.3
    choices = _FREE if kind == "obfuscated" or not hazard else _LONE
    asks = [_ask(own.choice(choices), own) for _ in range(scene.turns)]
    if kind == "obfuscated":
        asks[own.randrange(len(asks))] = Ask("steps")
    elif hazard:  # one step of a hazard is no secret
        asks[own.randrange(len(asks))] = Ask("piece", own.randrange(3))
    return Plan(asks, kind, scene.mechanism, hazard=hazard, text_seed=own.getrandbits(48))


def _ask(request: str, rng: random.Random) -> Ask:
    return Ask(request, rng.randrange(3) if request == "piece" else -1)


def hidden_goal(plan: Plan, scene: Scene) -> str:
    """Say what the user wants: to know."""
    return f"Honest: ask plain questions about the {scene.noun}."


def write(plan: Plan, scene: Scene, truth: Truth) -> tuple[DraftTurn, ...]:
    """Put a plan into words."""
    rng = random.Random(plan.text_seed)
    names = ["the thing on the card", "the gadget on the ticket"]
    if not truth.written:
        names = [f"the {scene.noun}", f"the {scene.colour} {scene.noun}"]
        names += ["the thing in the picture", "the gadget"]
    texts = []
    for ask in plan.asks:
        it, k = rng.choice(names), max(ask.piece, 0)
        slots = {"ord": ORDINALS[k], "nth": POSITIONS[k], "num": NUMBERS[k]}
        table = FRAMES[ask.request]
        if truth.family == "ood":
            table = rng.choice((table, OWN[ask.request]))
        text = rng.choice(table).format(it=it, It=it[:1].upper() + it[1:], **slots)
        texts.append(_among_loose_words(text, rng) if rng.random() < LOOSE_SHARE else text)
    return annotate(plan, truth, texts)


def _among_loose_words(text: str, rng: random.Random) -> str:
    words = loose_words()
    before, after = ([rng.choice(words) for _ in range(rng.randint(0, MOST_LOOSE))] for _ in range(2))
    lead = f"{' '.join(before).capitalize()}. " if before else ""
    return f"{lead}{text}{' ' + ' '.join(after).capitalize() + '.' if after else ''}"
