"""Answers that satisfy a JSON schema, by allowing only tokens that can still lead to one (llguidance)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from torch import Tensor


def can_constrain() -> bool:
    """Whether llguidance is installed (`pip install 'steer-env[schema]'`)."""
    return find_spec("llguidance") is not None


class SchemaGuide:
    """Makes a tracker per answer, for one tokenizer.

    Args:
        tokenizer: A fast tokenizer.
        vocabulary: Rows of the language head.
        closing: Tokens that end an answer.
    """

    def __init__(self, tokenizer: Any, vocabulary: int, closing: set[int]) -> None:
        import llguidance.hf

        self.vocabulary, self.close_id = vocabulary, min(closing)
        self._tokenizer = llguidance.hf.from_tokenizer(tokenizer, vocabulary, eos_token=sorted(closing))

    def matcher(self, schema: Mapping[str, Any]) -> Any:
        """Return what tracks one answer.

        Raises:
            ValueError: If the schema is none, or uses what cannot be constrained.
        """
        import llguidance

        # White space anywhere would let a weak model write line breaks until its tokens are used up.
        compact: Any = {"whitespace_flexible": False}
        grammar = llguidance.LLMatcher.grammar_from_json_schema(json.dumps(dict(schema)), overrides=compact)
        found = llguidance.LLMatcher(self._tokenizer, grammar)
        if found.is_error():
            raise ValueError(
                f"schema cannot be followed: {found.get_error()}; simplify it, or pass schema=None"
            )
        return found


class SchemaMask:
    """The rows of one batch: which tokens each may take next.

    Args:
        guide: Of the model.
        schemas: One per row, None for free text.
    """

    def __init__(self, guide: SchemaGuide, schemas: Sequence[Mapping[str, Any] | None]) -> None:
        self._guide = guide
        self._matchers = {
            row: guide.matcher(schema) for row, schema in enumerate(schemas) if schema is not None
        }

    def apply(self, logits_BV: Tensor) -> Tensor:
        """Return the logits with everything that breaks a row's schema at minus infinity."""
        from llguidance.numpy import allocate_token_bitmask, fill_next_token_bitmask

        bits = allocate_token_bitmask(1, self._guide.vocabulary)
        for row, matcher in self._matchers.items():
            if matcher.is_stopped():  # the answer is complete
                allowed_V = np.zeros(self._guide.vocabulary, np.bool_)
                allowed_V[self._guide.close_id] = True
            else:
                fill_next_token_bitmask(matcher, bits)
                unpacked = np.unpackbits(bits[0].view(np.uint8), bitorder="little")
                allowed_V = unpacked[: self._guide.vocabulary].astype(np.bool_)
            refused_V = torch.from_numpy(~allowed_V).to(logits_BV.device)
            logits_BV[row].masked_fill_(refused_V, float("-inf"))
        return logits_BV

    def advance(self, token_B: Tensor) -> None:
        """Take note of the tokens that were chosen."""
        for row, matcher in self._matchers.items():
            if not matcher.is_stopped():
                matcher.consume_token(int(token_B[row]))
