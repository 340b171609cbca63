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
    open_backend,
    register_backend,
)

__all__ = [
    "AsyncChatBackend",
    "BackendError",
    "ChatBackend",
    "ChatFailure",
    "ChatMessage",
    "ChatReply",
    "ChatRequest",
    "ChatResult",
    "open_backend",
    "register_backend",
]
