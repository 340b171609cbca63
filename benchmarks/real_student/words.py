"""The vision tower learns to write captions into the placeholders of pictures, in the frozen model's words.

A caption through the frozen language model costs half a core second and teaches nine tokens. The tower alone
costs a twentieth of that: what it gives for a picture's 16 placeholders is pulled towards the frozen
embeddings of the caption's words, four placeholders for each of colour, device, place and mark. What it
must do for that is what it would have to do anyhow: tell them from the pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from steer_env.agents.hf.student import HFStudent
from steer_env.algorithms.bootstrap import captions
from steer_env.algorithms.pretraining import GateFailed
from steer_env.algorithms.recipe_data import base_data
from steer_env.algorithms.sft import learning_rate, make_optimizers
from steer_env.configs.sft import Gate, SFTConfig
from steer_env.images import Image
from steer_env.records import Row

#: What a caption tells, in its order.
THINGS: Final = ("colour", "noun", "place", "mark")
#: Weights of the tower, optimisers, and what was seen.
WORDS: Final = "words.pt"
#: Steps between two looks at held-out pictures, each of which is also a checkpoint.
EVERY: Final = 25

Progress = Callable[..., None]


class Words:
    """Captions as rows of the frozen embedding.

    Args:
        student: Its tokenizer and embedding.
        replies: Captions that hold every word there is.
        slots: Placeholders for each thing.
    """

    def __init__(self, student: HFStudent, replies: Sequence[str], slots: int) -> None:
        self._tokenizer, self.slots = student.codec.tokenizer, slots
        self._ids = {reply: self._tokens(reply) for reply in set(replies)}
        known = sorted({token for row in self._ids.values() for token in row})
        self._place = {token: at for at, token in enumerate(known)}
        self.rows_VH = student.model.get_input_embeddings().weight[known].detach().float()

    def targets(self, replies: Sequence[str]) -> Tensor:
        """Return the row of every placeholder: (B, things x slots)."""
        return torch.tensor([[self._place[token] for token in self._ids[reply]] for reply in replies])

    def _tokens(self, reply: str) -> list[int]:
        colour, noun, *rest = reply.split()
        parts = (colour, noun, " ".join(rest[:3]), " ".join(rest[3:]))
        tokens = []
        for part in parts:
            found = self._tokenizer.encode(f" {part}", add_special_tokens=False)[-self.slots :]
            tokens += found + found[-1:] * (self.slots - len(found))  # the last one again
        return tokens


def learn_words(
    student: HFStudent, config: SFTConfig, gate: Gate, folder: Path, progress: Progress
) -> list[Row]:
    """Train the tower in place until a look passes the gate; returns what was seen at every look.

    It goes on with what `folder` holds.

    Args:
        student: All of it frozen but the vision tower.
        config: Settings; `steps` are the most.
        gate: What has to be seen on its number of held-out pictures.
        folder: Gets `words.pt`: weights, optimisers and looks so far.
        progress: Called after every step.

    Raises:
        GateFailed: If the last step has not passed the gate.
    """
    data = [(one[0].images[0], one[0].reply) for one in base_data("see", config.steps * config.batch_size, 0)]
    unseen = [(one[0].images[0], one[0].reply) for one in captions("bench", gate.count)]
    with torch.no_grad():
        slots = written(student, [data[0][0]]).shape[1] // len(THINGS)
    words = Words(student, [reply for _, reply in (*data, *unseen)], slots)
    optimizers = make_optimizers(student.model, config)
    tower = {name: p for name, p in student.model.named_parameters() if p.requires_grad}
    place, first, looks = folder / WORDS, 0, []
    if place.exists():
        state = torch.load(place)
        first, looks = state["step"], state["looks"]
        with torch.no_grad():
            for name, value in state["weights"].items():
                tower[name].copy_(value)
        for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
    for step in range(first, config.steps):
        if looks and not missing(looks, gate):
            break
        chosen = torch.randint(len(data), (config.batch_size,), generator=torch.Generator().manual_seed(step))
        loss = _step(student, words, [data[i] for i in chosen.tolist()], optimizers, step, config)
        if (step + 1) % EVERY == 0 or step + 1 == config.steps:
            student.weights_changed()
            looks.append({"step": step + 1, "loss": loss, **look(student, words, unseen)})
            _save(place, step + 1, looks, tower, optimizers)
            print(looks[-1], flush=True)
        progress()
    student.weights_changed()
    if missing(looks, gate):
        raise GateFailed(f"the tower ended with {'; '.join(missing(looks, gate))} on {gate.count} pictures")
    return looks


def missing(looks: Sequence[Row], gate: Gate) -> list[str]:
    """Return what the last look lacks, in words."""
    return gate.short_of({thing: looks[-1][thing] for thing in THINGS})


def _step(
    student: HFStudent,
    words: Words,
    batch: Sequence[tuple[Image, str]],
    optimizers: Sequence[torch.optim.Optimizer],
    step: int,
    config: SFTConfig,
) -> float:
    rate = learning_rate(step, config) / config.lr
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = rate * group["peak_lr"]
    made_BSH, targets_BS = (
        written(student, [image for image, _ in batch]),
        words.targets([r for _, r in batch]),
    )
    wanted_BSH = words.rows_VH[targets_BS]
    # The distance says how long a vector has to be, which a choice between words does not.
    apart = (made_BSH - wanted_BSH).square().sum(2).mean() / words.rows_VH.square().sum(1).mean()
    loss = functional.cross_entropy((made_BSH @ words.rows_VH.T).flatten(0, 1), targets_BS.flatten()) + apart
    loss.backward()
    torch.nn.utils.clip_grad_norm_(student.model.parameters(), config.max_grad_norm)
    for optimizer in optimizers:
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return float(loss.detach())


def written(student: HFStudent, images: Sequence[Image]) -> Tensor:
    """Return what stands in the placeholders of pictures: (B, things x slots, H)."""
    inputs = student.codec.image_inputs(images)
    return torch.stack(list(student.model.model.get_image_features(**inputs, return_dict=True).pooler_output))


@torch.no_grad()
def look(student: HFStudent, words: Words, pictures: Sequence[tuple[Image, str]]) -> dict[str, float]:
    """Return how often all placeholders of a thing are nearest to the right words."""
    made_BSH = torch.cat(
        [written(student, [i for i, _ in pictures[at : at + 32]]) for at in range(0, len(pictures), 32)]
    )
    nearest_BS = torch.cdist(made_BSH.float(), words.rows_VH).argmin(2)
    right_BS = nearest_BS == words.targets([reply for _, reply in pictures])
    shares = right_BS.view(len(pictures), len(THINGS), words.slots).all(2).float().mean(0).tolist()
    return dict(zip(THINGS, shares, strict=True))


def _save(
    place: Path,
    step: int,
    looks: list[Row],
    tower: dict[str, torch.nn.Parameter],
    optimizers: Sequence[torch.optim.Optimizer],
) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    part = place.with_suffix(".part")
    weights = {name: p.detach() for name, p in tower.items()}
    states = [o.state_dict() for o in optimizers]
    torch.save({"step": step, "looks": looks, "weights": weights, "optimizers": states}, part)
    part.replace(place)
