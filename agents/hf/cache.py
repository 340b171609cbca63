"""Keys and values of many dialogues, kept across turns.

A `Block` is a batch of rows whose columns may have gaps: a row that did not get a token in a step has a
masked column there. Positions are explicit, so gaps change nothing but memory; `Block.take` squeezes them
out. Shape suffixes: `_BC` rows and cache columns, `_BHCD` rows, heads, columns, head width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import DynamicCache, PretrainedConfig
from transformers.cache_utils import DynamicLayer

#: A block is squeezed when its columns exceed the longest row's tokens by this factor.
_SLACK = 1.25
#: Columns of room that are made at once.
_ROOM = 64


class _RoomyLayer(DynamicLayer):
    """A cache layer that grows in steps. The stock one copies all keys and values for every new token."""

    @classmethod
    def of(cls, keys: Tensor, values: Tensor, used: int) -> _RoomyLayer:
        """Return a layer that keeps what it is given, of which the first columns are used."""
        layer = cls()
        layer.lazy_initialization(keys, values)
        layer._store, layer._used = (keys, values), used
        layer.keys, layer.values = keys[:, :, :used], values[:, :, :used]
        return layer

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self._store = (key_states[:, :, :0], value_states[:, :, :0])
            self._used = 0
        end = self._used + key_states.shape[2]
        if end > self._store[0].shape[2]:
            keys, values = self._store
            self._store = (self._grown(keys, end + _ROOM), self._grown(values, end + _ROOM))
        keys, values = self._store
        keys[:, :, self._used : end], values[:, :, self._used : end] = key_states, value_states
        self._used = end
        self.keys, self.values = keys[:, :, :end], values[:, :, :end]
        return self.keys, self.values

    def _grown(self, part: Tensor, columns: int) -> Tensor:
        rows, heads, _, width = part.shape
        grown = part.new_empty(rows, heads, columns, width)  # columns beyond the used ones are never read
        grown[:, :, : self._used] = part[:, :, : self._used]
        return grown


def keeps_every_token(config: PretrainedConfig) -> bool:
    """Whether all layers attend to all tokens, so that rows with gaps are exact."""
    cache = DynamicCache(config=config.get_text_config())
    return all(type(layer) is DynamicLayer for layer in cache.layers)


class Opening(NamedTuple):
    """The first prompt of a row without its last token, which siblings that come later can share.

    Attributes:
        key: What was fed.
        tokens: How many tokens that is; they are the row's first.
        next: The position after them.
    """

    key: bytes
    tokens: int
    next: int


@dataclass(slots=True)
class Block:
    """A batch of cached rows.

    Attributes:
        cache: The transformers cache.
        mask_BC: Which columns hold a token of the row, bool.
        next_B: The next position of each row.
        keys: What each row has been fed, to find it again; see `Decoder`.
        openings: How each row began, None where unknown.
    """

    cache: DynamicCache
    mask_BC: Tensor
    next_B: Tensor
    keys: list[bytes | None]
    openings: list[Opening | None]

    @property
    def rows(self) -> int:
        """Number of rows."""
        return int(self.mask_BC.shape[0])

    @classmethod
    def empty(cls, rows: int, device: torch.device, config: PretrainedConfig, *, roomy: bool) -> Block:
        """Return a block of rows that were fed nothing yet."""
        cache = DynamicCache(config=config.get_text_config())
        if roomy:
            cache.layers = [_RoomyLayer() for _ in cache.layers]
        mask_BC = torch.ones(rows, 0, dtype=torch.bool, device=device)
        next_B = torch.zeros(rows, dtype=torch.long, device=device)
        return cls(cache, mask_BC, next_B, [None] * rows, [None] * rows)

    def extend(self, mask_BL: Tensor) -> None:
        """Add columns; the mask says which hold a token."""
        self.mask_BC = torch.cat([self.mask_BC, mask_BL], 1)

    def take(self, rows: Sequence[int]) -> Block:
        """Return some rows, possibly repeated; the block itself when that changes nothing."""
        lengths_B = self.mask_BC.sum(1)
        whole = list(rows) == list(range(self.rows))
        index_R = torch.as_tensor(rows, device=self.mask_BC.device)
        longest = int(lengths_B[index_R].max())
        if self.mask_BC.shape[1] > _SLACK * longest:
            return self._squeezed(index_R, longest)
        if whole:
            return self
        cache = _copy(self.cache, lambda part: part[index_R])
        return self._with(cache, self.mask_BC[index_R], rows)

    def begin(self, row: int, opening: Opening) -> Block:
        """Return a block of one row that was fed the opening of `row` and nothing else."""
        columns = self.mask_BC[row].nonzero()[: opening.tokens, 0]
        cache = _copy(self.cache, lambda part: part[row : row + 1, :, columns])
        mask_1C = self.mask_BC.new_ones(1, opening.tokens)
        return Block(cache, mask_1C, self.next_B.new_tensor([opening.next]), [None], [opening])

    def _with(self, cache: DynamicCache, mask_RC: Tensor, rows: Sequence[int]) -> Block:
        next_R = self.next_B[torch.as_tensor(rows, device=self.next_B.device)]
        return Block(cache, mask_RC, next_R, [self.keys[i] for i in rows], [self.openings[i] for i in rows])

    def _squeezed(self, index_R: Tensor, columns: int) -> Block:
        """Rows without gaps, aligned at the right."""
        # A stable sort by the mask puts each row's tokens last, in order.
        order_RC = self.mask_BC[index_R].to(torch.int8).argsort(dim=1, stable=True)[:, -columns:]

        def gather(part: Tensor) -> Tensor:
            heads_H = torch.arange(part.shape[1], device=part.device)
            return part[index_R[:, None, None], heads_H[:, None], order_RC[:, None]]

        mask_RC = self.mask_BC[index_R].gather(1, order_RC)
        return self._with(_copy(self.cache, gather), mask_RC, index_R.tolist())


def stack(blocks: Sequence[Block]) -> Block:
    """Put blocks on top of each other, padded at the left to the widest."""
    if len(blocks) == 1:
        return blocks[0]
    columns = max(block.mask_BC.shape[1] for block in blocks)
    rows = sum(block.rows for block in blocks)

    def stacked(parts: Sequence[Tensor]) -> Tensor:
        _, heads, _, width = parts[0].shape
        # Padding has no weight, but 0 times NaN would be one: it is 0.
        whole = parts[0].new_zeros(rows, heads, columns + _ROOM, width)
        for part, below in zip(parts, whole.split([len(part) for part in parts]), strict=True):
            below[:, :, columns - part.shape[2] : columns] = part
        return whole

    held = []
    for parts in zip(*(_states(block.cache) for block in blocks), strict=True):
        keys, values = zip(*parts, strict=True)
        held.append(_RoomyLayer.of(stacked(keys), stacked(values), columns))
    return Block(
        _cache(held),
        torch.cat([pad(block.mask_BC, (columns - block.mask_BC.shape[1], 0)) for block in blocks]),
        torch.cat([block.next_B for block in blocks]),
        [key for block in blocks for key in block.keys],
        [opening for block in blocks for opening in block.openings],
    )


def _copy(cache: DynamicCache, select: Callable[[Tensor], Tensor]) -> DynamicCache:
    parts = [(select(keys), select(values)) for keys, values in _states(cache)]
    return _cache([_RoomyLayer.of(keys, values, keys.shape[2]) for keys, values in parts])


def _states(cache: DynamicCache) -> list[tuple[Tensor, Tensor]]:
    """Keys and values of every layer, each (B, H, C, D)."""
    return [(layer.keys, layer.values) for layer in cast("list[Any]", cache.layers)]


def _cache(layers: Sequence[_RoomyLayer]) -> DynamicCache:
    cache = DynamicCache()
    cache.layers = [*layers]
    return cache
