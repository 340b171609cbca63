"""A thinking model's thought and its answer, told apart."""

from __future__ import annotations

from typing import Final

OPENED: Final = "<think>"
CLOSED: Final = "</think>"
#: Written where a thought has to end.
CLOSING: Final = f"\n{CLOSED}\n\n"
#: Why there is no reply where the thought used up the tokens.
UNFINISHED: Final = "truncated: the thought was not finished, so there is no reply; raise max_new_tokens"


def split_thought(text: str, *, opened: bool = False) -> tuple[str, str | None]:
    """Return a thought, "" for none, and the answer behind it, None if the thought was not finished.

    Args:
        text: What the model said.
        opened: Whether its chat template has opened the thought already.
    """
    head, closed, rest = text.partition(CLOSED)
    begun = opened or text.lstrip().startswith(OPENED)
    if closed and (begun or OPENED not in head):  # many templates open the thought themselves
        return head.lstrip().removeprefix(OPENED).strip(), rest.lstrip()
    return (text, None) if begun else ("", text)
