"""Chat models: transformers and vLLM in process, and OpenAI-compatible servers, behind one contract."""

from steer_env.models.base import (
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
    "is_backend",
    "open_backend",
    "register_backend",
]
