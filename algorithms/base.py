"""The contract of a learning algorithm, and the registry that knows algorithms by name.

The training loop (`trainer`) plays dialogues in groups that share a seed. An algorithm says how much better
each turn went than expected (`turn_advantages`) and what to minimise over the tokens of a batch (`loss`).
Everything else has a default: which tokens take part, further parameters, state, metrics.
"""

from __future__ import annotations

import difflib
import importlib
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from steer_env import naming
from steer_env.agents.hf.codec import Prompt
from steer_env.algorithms.advantages import loss_mask, spread
from steer_env.algorithms.losses import loss_weights
from steer_env.records import Row
from steer_env.trajectory import StopReason, Trajectory, TrajectoryGroup

if TYPE_CHECKING:
    from steer_env.algorithms.forward import Forward
    from steer_env.algorithms.lookahead import PlayOn

#: Called after every step of training with the finished steps, all of them, and the step's metrics.
Progress = Callable[[int, int, Row], None]


def print_step(finished: int, steps: int, row: Row) -> None:
    """Say on standard error how far training is: what `train` does where it is given nothing else."""
    shares = ", ".join(f"{key} {row[key]:.2f}" for key in ("return", "unscored") if row.get(key) is not None)
    print(f"step {finished}/{steps}: {shares}", file=sys.stderr)


@dataclass(frozen=True, slots=True, eq=False)
class Example:
    """One dialogue as the loss sees it; arrays of shape (L,), aligned with the tokens of its trace.

    Attributes:
        dialogue: Packed tokens and images.
        advantages_L: Advantage of each token, float32.
        mask_L: Which tokens take part in the loss, bool.
        extras: Further values per token, such as the targets of a value head.
    """

    dialogue: Prompt
    advantages_L: NDArray[np.float32]
    mask_L: NDArray[np.bool_]
    extras: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)


class Tally:
    """Means over the tokens of a step."""

    def __init__(self) -> None:
        self._sums: dict[str, list[float]] = {}
        self._most: dict[str, float] = {}

    def add(self, name: str, value: float, count: int) -> None:
        """Add a value; with count 0 the sum is reported, not the mean."""
        total = self._sums.setdefault(name, [0.0, 0.0])
        total[0] += value
        total[1] += count

    def tokens(self, name: str, values_N: Tensor | None, mask_N: Tensor) -> None:
        """Add the values of the tokens in the mask."""
        if values_N is not None:
            self.add(name, float(values_N.detach()[mask_N].sum()), int(mask_N.sum()))

    def most(self, name: str, values_N: Tensor, mask_N: Tensor) -> None:
        """Keep the largest value."""
        if mask_N.any():
            self._most[name] = max(self._most.get(name, 0.0), float(values_N.detach()[mask_N].max()))

    @classmethod
    def merged(cls, parts: Sequence[Tally]) -> Tally:
        """Return the tally of all that the parts saw."""
        merged = cls()
        for other in parts:
            for name, (total, count) in other._sums.items():
                sums = merged._sums.setdefault(name, [0.0, 0.0])
                sums[0] += total
                sums[1] += count
            for name, value in other._most.items():
                merged._most[name] = max(merged._most.get(name, 0.0), value)
        return merged

    def means(self) -> dict[str, Any]:
        """Return all means, sums and maxima."""
        return {
            name: total / count if count else total for name, (total, count) in self._sums.items()
        } | self._most


@dataclass(frozen=True, slots=True)
class TokenBatch:
    """The sampled tokens of one forward pass, which holds some dialogues of a mini-batch; shapes (N,).

    Attributes:
        logprobs_N: Under the policy that is trained, with gradient.
        old_N: Under the policy before the step's first update, as the trainer computes them.
        advantages_N: Advantages.
        mask_N: Which tokens take part in the loss.
        rows_N: The dialogue of each token, counted from 0 in this pass.
        turns_N: The turn that sampled it.
        reference_N: Under the reference policy, None unless `beta` is above 0.
        hidden_NH: Last hidden states that predicted the tokens, without gradient; None unless `needs_hidden`.
        extras: `Example.extras`, gathered.
        token_share: Share of the mini-batch's tokens in this pass.
        row_share: Share of its dialogues.
        tally: Where the loss reports its metrics.
        sampler_N: As `old_N`, as the sampler reported them; None where that is the same.
    """

    logprobs_N: Tensor
    old_N: Tensor
    advantages_N: Tensor
    mask_N: Tensor
    rows_N: Tensor
    turns_N: Tensor
    reference_N: Tensor | None
    hidden_NH: Tensor | None
    extras: Mapping[str, Tensor]
    token_share: float
    row_share: float
    tally: Tally
    sampler_N: Tensor | None = None

    def weights(self, mode: str, normaliser: float = 1.0, mask_N: Tensor | None = None) -> Tensor:
        """Return the tokens' weights in the mean over the whole mini-batch; see `losses.loss_weights`.

        The passes of a mini-batch contribute their shares, so their gradients add up to that of one pass.
        """
        share = self.token_share if mode == "token" else self.row_share
        mask_N = self.mask_N if mask_N is None else mask_N
        return loss_weights(mask_N, self.rows_N, mode, normaliser) * share


@dataclass(kw_only=True)
class Algorithm(ABC):
    """Turns a step's groups of dialogues into per-token advantages and a loss.

    Subclasses are dataclasses; their fields are the options of `make_algorithm` and the flags of `steer-env
    train --algorithm NAME`, except fields with `init=False`, which are state.

    Attributes:
        beta: Weight of the KL penalty; above 0 the loop keeps a reference policy.
        name: Name in the registry.
        least_group: Fewest dialogues per seed that make sense.
        needs_hidden: Whether `TokenBatch.hidden_NH` is wanted.
    """

    name: ClassVar[str] = ""
    least_group: ClassVar[int] = 1
    needs_hidden: ClassVar[bool] = False

    beta: float = 0.1

    @abstractmethod
    def turn_advantages(self, groups: Sequence[TrajectoryGroup]) -> list[NDArray[np.floating[Any]] | None]:
        """Return the advantage of every turn, (T,), one array per dialogue in order.

        None leaves a dialogue out of the update altogether.
        """

    @abstractmethod
    def loss(self, batch: TokenBatch) -> Tensor:
        """Return this pass's part of the loss of the mini-batch, a scalar; weigh with `batch.weights`."""

    def setup(self, forward: Forward) -> None:  # noqa: B027
        """Get ready to train a policy, before anything is played; `forward` runs it."""

    def parameters(self) -> list[dict[str, Any]]:
        """Return optimiser groups of further parameters, each with "params" and "lr"."""
        return []

    def look_ahead(self, groups: Sequence[TrajectoryGroup], play_on: PlayOn) -> None:  # noqa: B027
        """Play dialogues on before anything is learnt from them, if the algorithm wants to; see `lookahead`.

        Called in the process that played the groups.
        """

    def examples(self, groups: Sequence[TrajectoryGroup]) -> list[Example]:
        """Give every token of a turn the turn's advantage; tokens of unscored turns take no part.

        Raises:
            ValueError: If a dialogue has no token trace.
        """
        advantages = self.turn_advantages(groups)
        made = (make_example(t, a) for t, a in zip(_members(groups), advantages, strict=True))
        return [example for example in made if example is not None]

    def finish(self, groups: Sequence[TrajectoryGroup]) -> Row:
        """Change the state after a step's update; returns metrics of the algorithm's own."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """Return the state that a checkpoint needs, of plain values and tensors."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:  # noqa: B027
        """Put back what `state_dict` returned."""

    def check(self, group_size: int) -> None:
        """Refuse groups that are too small.

        Raises:
            ValueError: If there are fewer than `least_group` dialogues per seed.
        """
        if group_size < self.least_group:
            raise ValueError(
                f"group_size={group_size!r}, expected an integer of at least {self.least_group}: advantages "
                "compare siblings"
            )

    def options(self) -> Row:
        """Return the options by name."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.init}


def _members(groups: Sequence[TrajectoryGroup]) -> list[Trajectory]:
    return [trajectory for group in groups for trajectory in group.trajectories]


def make_example(
    trajectory: Trajectory,
    advantages_T: NDArray[np.floating[Any]] | None,
    extras: Mapping[str, NDArray[np.float32]] | None = None,
) -> Example | None:
    """Return a dialogue as the loss sees it, None if no token of it takes part or it broke off in an error.

    Args:
        trajectory: The dialogue.
        advantages_T: Advantage of each turn; None leaves the dialogue out.
        extras: Further values per token.

    Raises:
        ValueError: If it has no token trace.
    """
    if advantages_T is None or trajectory.stop == StopReason.FAILED:
        return None
    trace = trajectory.trace
    if trace is None:
        raise ValueError(
            "a trajectory has no token trace, expected replies of an HFStudent; a scripted student "
            "cannot be trained"
        )
    mask_L = loss_mask(trace, trajectory.scored)
    if not mask_L.any():
        return None
    dialogue = Prompt(trace, trajectory.scenario.images[: trace.images])
    return Example(dialogue, spread(advantages_T, trace, mask_L), mask_L, extras or {})


# -- registry -------------------------------------------------------------------------------------------

_A = TypeVar("_A", bound=type[Algorithm])
_REGISTRY: dict[str, type[Algorithm]] = {}
#: Modules that register the built-in algorithms; imported on the first look into the registry.
_BUILT_IN = ("presets", "reinforce", "ppo", "constrained", "rae")


def register_algorithm(name: str) -> Callable[[_A], _A]:
    """Return a class decorator that makes an algorithm known under `name`.

    Raises:
        ValueError: If the name is taken by another class.
    """

    def register(cls: _A) -> _A:
        known = _REGISTRY.get(name)
        if known is not None and (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
            raise ValueError(
                f"name={name!r} is taken by {known.__module__}.{known.__qualname__}; choose another"
            )
        cls.name = name
        _REGISTRY[name] = cls
        return cls

    return register


def algorithm_names() -> list[str]:
    """Return the names of all registered algorithms."""
    for module in _BUILT_IN:
        importlib.import_module(f"steer_env.algorithms.{module}")
    return list(_REGISTRY)


def algorithm_class(name: str) -> type[Algorithm]:
    """Return the class of a registered algorithm, or your own as `module:Class` or `file.py:Class`.

    Raises:
        ValueError: If the name is unknown; the message lists the known ones.
        TypeError: If your own is no algorithm.
    """
    if naming.is_reference(name):
        own = naming.load(name)
        if not (isinstance(own, type) and issubclass(own, Algorithm)):
            raise TypeError(f"algorithm={name!r} is {own!r:.100}, expected a subclass of Algorithm")
        own.name = own.__dict__.get("name") or name
        return own
    names = algorithm_names()
    if name not in _REGISTRY:
        close = difflib.get_close_matches(str(name), names, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        known = f"{', '.join(names)}, or your own as {naming.EXPECTED}"
        raise ValueError(f"algorithm={name!r} is not registered; {hint}known: {known}")
    return _REGISTRY[name]


def make_algorithm(name: str, **options: Any) -> Algorithm:
    """Make an algorithm by name.

    Args:
        name: See `algorithm_names()`.
        **options: Its fields, such as `beta` or `credit`.

    Raises:
        ValueError: On an unknown name or option, or a value out of range.

    Example:
        >>> make_algorithm("rloo", beta=0.05).options()["beta"]
        0.05
    """
    cls = algorithm_class(name)
    known = {f.name: f.default for f in fields(cls) if f.init}
    for option in options:
        if option not in known:
            listed = ", ".join(f"{key}={value!r}" for key, value in known.items())
            raise ValueError(f"option={option!r} is none of {name}'s, expected one of: {listed}")
    return cls(**options)
