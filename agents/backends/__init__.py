"""Chat back ends: transformers and vLLM in process, and OpenAI-compatible servers, behind one contract."""

from steer_env.agents.backends.base import (
    AsyncChatBackend,
    BackendError,
    ChatBackend,
    ChatFailure,
    ChatMessage,
    ChatReply,
    ChatRequest,
    ChatResult,
    is_backend,
    open_backend,
    read_name,
    register_backend,
)
from steer_env.agents.backends.seats import open_seat
from steer_env.agents.backends.student import AsyncChatStudent, ChatStudent, chat_student

__all__ = [
    "AsyncChatBackend",
    "AsyncChatStudent",
    "BackendError",
    "ChatBackend",
    "ChatFailure",
    "ChatMessage",
    "ChatReply",
    "ChatRequest",
    "ChatResult",
    "ChatStudent",
    "chat_student",
    "is_backend",
    "open_backend",
    "open_seat",
    "read_name",
    "register_backend",
]
