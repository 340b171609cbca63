"""What a chat template writes around the words: found by rendering it, never hard-coded.

A token-exact dialogue grows by appending: reply tokens as they were sampled, then the strings the template
puts between a reply and the next reply. Those strings are found by rendering marked messages. A template that
rewrites earlier turns when later ones arrive cannot be used this way; it is recognised here and refused.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence

from steer_env.models.base import Role
from steer_env.models.encoder import ChatTemplateError

_USERS = ("zqfirstuserqz", "zqseconduserqz", "zqthirduserqz")
_REPLIES = ("zqfirstreplyqz", "zqsecondreplyqz")
#: Templates of reasoning models cut this out of earlier turns.
_THOUGHT = "<think>\nzqthoughtqz\n</think>\n\n"


#: Renders messages (role, pictures, words) up to where the next reply begins: `ChatEncoder.render`.
Render = Callable[[Sequence[tuple[Role, int, str]]], str]


class RewritingTemplate(ChatTemplateError):
    """A template that changes earlier turns when later ones arrive."""


class ChatTemplate:
    """The strings around user turns and replies.

    Attributes:
        reply_prefix: White space the template writes before a reply but not in its generation prompt; a
            sampled reply brings its own.

    Args:
        render: See `Render`.
        close: The text of the token that ends a reply, "" if the template writes none; see `ending`.
        images: Whether the model takes pictures.
        system: System prompt, "" for none; it is the operator's, so control tokens in it count.

    Raises:
        ChatTemplateError: If the template drops somebody's words.
        RewritingTemplate: If it rewrites earlier turns.
    """

    def __init__(self, render: Render, close: str, *, images: bool = True, system: str = "") -> None:
        self._renderer, self._pictures, self._system = render, int(images), system
        self.close = close
        self._strings: dict[tuple[int, bool], tuple[str, str]] = {}
        _, middle = self._first(0)
        rest = _after(self._render(0, 0), _USERS[0])
        self.reply_prefix = self._reply_prefix(rest.split(_REPLIES[0])[0], middle)
        self._refuse_rewriting()

    def user(self, images: int, first: bool) -> tuple[str, str]:
        """Return what stands before and after a user's words.

        Args:
            images: How many images the turn shows; their placeholders are in the strings.
            first: Whether it opens the dialogue. Otherwise the first string begins right after the token that
                closes the reply before it.

        The second string ends where the reply begins.
        """
        key = (images, first)
        if key not in self._strings:
            self._strings[key] = self._first(images) if first else self._later(images)
        return self._strings[key]

    def _first(self, images: int) -> tuple[str, str]:
        text = self._render(images)
        before, found, after = text.partition(_USERS[0])
        if not found:
            raise ChatTemplateError(f"the chat template drops the user's words: it renders {text!r}")
        return before, after

    def _later(self, images: int) -> tuple[str, str]:
        gap = _after(self._render(0, images), _REPLIES[0])
        before, _, after = gap.partition(_USERS[1])
        return before.removeprefix(self.close), after

    def _render(self, *images: int, replies: tuple[str, ...] = _REPLIES) -> str:
        """Render user turns with so many images each, with replies between them and a generation prompt."""
        messages: list[tuple[Role, int, str]] = [("system", 0, self._system)] if self._system else []
        for turn, count in enumerate(images):
            if turn:
                messages.append(("assistant", 0, replies[turn - 1]))
            messages.append(("user", count, _USERS[turn]))
        return self._renderer(messages)

    def _reply_prefix(self, in_history: str, in_prompt: str) -> str:
        extra = in_history.removeprefix(in_prompt)
        if not in_history.startswith(in_prompt) or extra.strip():
            raise RewritingTemplate(_rewriting("the words before a reply", in_prompt, in_history))
        return extra

    def _refuse_rewriting(self) -> None:
        shown = (0, self._pictures, self._pictures)
        composed = self._compose(shown, _REPLIES)
        rendered = self._render(*shown)
        if composed != rendered:
            raise RewritingTemplate(_rewriting("an earlier turn", composed, rendered))
        thought = _THOUGHT + _REPLIES[0]
        rendered = self._render(0, 0, replies=(thought,))
        if "zqthoughtqz" not in rendered:
            raise RewritingTemplate(_rewriting("an earlier reply with a thought", thought, rendered))

    def _compose(self, images: tuple[int, ...], replies: tuple[str, ...]) -> str:
        text = ""
        for turn, count in enumerate(images):
            if turn:
                text += self.reply_prefix + replies[turn - 1] + self.close
            before, after = self.user(count, first=turn == 0)
            text += before + _USERS[turn] + after
        return text


def ending(render: Render, endings: tuple[str, ...]) -> str:
    """Return the text of the token that a template writes behind a reply, "" if it writes none.

    Args:
        render: Of the template.
        endings: Texts of the tokens that may end a reply.
    """
    text = render([("user", 0, _USERS[0]), ("assistant", 0, _REPLIES[0]), ("user", 0, _USERS[1])])
    gap = _after(text, _REPLIES[0]).split(_USERS[1])[0]
    return next((e for e in endings if e and gap.startswith(e)), "")


def _after(text: str, mark: str) -> str:
    _, found, rest = text.partition(mark)
    if not found:
        raise ChatTemplateError(f"the chat template drops or changes {mark!r}: it renders {text!r}")
    return rest


def _rewriting(what: str, expected: str, rendered: str) -> str:
    match = difflib.SequenceMatcher(None, expected, rendered, autojunk=False).find_longest_match()
    at = match.size if match.a == match.b == 0 else 0
    return (
        f"the chat template rewrites {what} when the dialogue goes on: expected "
        f"...{expected[at : at + 60]!r}, rendered ...{rendered[at : at + 60]!r}. What was sampled could then "
        "not be what is trained on: such a model can be evaluated only. To train, use its instruct variant, "
        "or set processor.chat_template to one that leaves earlier turns as they are"
    )
