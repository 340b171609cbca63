"""Students on transformers models. Importing this registers the tiny model's processor with `AutoProcessor`.

Needs the extra `train` (torch, transformers).
"""

try:
    import torch  # noqa: F401
    import transformers  # noqa: F401
except ImportError as error:
    raise ImportError(
        f"steer_env.agents.hf needs torch and transformers ({error}): pip install 'steer-env[train]'"
    ) from error

from steer_env.agents.hf.adapter import ModelAdapter
from steer_env.agents.hf.codec import ChatCodec, Exchange, Prompt
from steer_env.agents.hf.decoder import Decoder, Sample
from steer_env.agents.hf.packed import Packed, microbatches, packed_logprobs
from steer_env.agents.hf.student import HFStudent
from steer_env.agents.hf.template import ChatTemplate
from steer_env.models.base import ContextOverflow
from steer_env.models.encoder import ChatTemplateError
from steer_env.models.tiny import TinyConfig, build, load, save

__all__ = [
    "ChatCodec",
    "ChatTemplate",
    "ChatTemplateError",
    "ContextOverflow",
    "Decoder",
    "Exchange",
    "HFStudent",
    "ModelAdapter",
    "Packed",
    "Prompt",
    "Sample",
    "TinyConfig",
    "build",
    "load",
    "microbatches",
    "packed_logprobs",
    "save",
]
