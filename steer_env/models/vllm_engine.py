"""A vLLM engine in process: tokens in, tokens and log-probabilities out, weights exchanged while it runs.

vLLM's workers live in child processes, so their settings of threads, seeds and devices stay theirs. Every
prompt that the engine reports is compared with the one it was given, token by token.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from transformers import AutoConfig, AutoTokenizer, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

from steer_env.extras import need
from steer_env.images import Image
from steer_env.models import tiny
from steer_env.models.adapters import adapters, base_state, without_adapters
from steer_env.models.base import ContextOverflow
from steer_env.models.vllm_worker import ADAPTERS

#: Tokens of an image.
Tokens = Callable[[Image], NDArray[np.int64]]
#: Room in memory that a weight exchange needs beyond the weights themselves.
_SPARE_BYTES = 2**28
#: What vLLM 0.32 makes room for, highest ranks of adapters.
_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)


class EnginePrompt(NamedTuple):
    """Tokens to continue, as the engine takes them.

    Attributes:
        ids: The sequence as the model sees it, every image as all its tokens.
        images: The images whose tokens they hold, in order.
        folded: The ids with one placeholder per image; vLLM unfolds them itself.
    """

    ids: list[int]
    images: tuple[Image, ...]
    folded: list[int]


def fold(ids_L: NDArray[np.int64], images: Sequence[Image], tokens: Tokens, placeholder: int) -> EnginePrompt:
    """Return the prompt of a sequence.

    Args:
        ids_L: Token ids, every image as all its tokens.
        images: The images whose tokens they hold, in order.
        tokens: Returns the tokens of an image.
        placeholder: What stands for an image in vLLM's prompts.

    Raises:
        ValueError: If the sequence does not hold an image's tokens.
    """
    ids: list[int] = ids_L.tolist()
    folded, at = list[int](), 0
    for image in images:
        wanted = tokens(image).tolist()
        start = _find(ids, wanted, at)
        folded += [*ids[at:start], placeholder]
        at = start + len(wanted)
    return EnginePrompt(ids, tuple(images), folded + ids[at:])


def _find(ids: list[int], wanted: list[int], at: int) -> int:
    for start in range(at, len(ids)):
        if ids[start] == wanted[0] and ids[start : start + len(wanted)] == wanted:
            return start
    raise ValueError(
        f"a sequence of {len(ids)} tokens does not hold the {len(wanted)} tokens of an image after token "
        f"{at}, expected those of this model's processor; did one with other image settings begin it?"
    )


class Seeds:
    """A seed per reply: from a seed, the prompt and, if wanted, how often that prompt was asked before.

    What else is in the batch changes nothing, and the members of a GRPO group differ.
    """

    def __init__(self) -> None:
        self._asked: Counter[bytes] = Counter()

    def next(self, prompt: EnginePrompt, seed: int, *, count: bool = True) -> int:
        """Return the seed of the next reply to `prompt`, a non-negative integer of 63 bits."""
        digest = hashlib.blake2b(np.array(prompt.ids).tobytes(), digest_size=8)
        digest.update(str([image.digest for image in prompt.images]).encode())
        key = digest.digest()
        digest.update(f"{seed}/{self._asked[key] if count else '-'}".encode())
        self._asked[key] += count
        return int.from_bytes(digest.digest(), "little") >> 1

    def restart(self) -> None:
        """Forget what was asked, so that the same seed gives the same replies again."""
        self._asked.clear()


@dataclass(frozen=True, slots=True)
class Completion:
    """What the engine sampled.

    Attributes:
        ids: Token ids, the closing one included if it was sampled.
        logprobs: Under the distribution they were sampled from; 0 for greedy tokens.
        finish: "stop" or "length".
        cached: Prompt tokens whose keys and values were reused.
    """

    ids: list[int]
    logprobs: list[float]
    finish: str
    cached: int


class VLLMEngine:
    """`vllm.LLM` with tokens in and tokens out. Students, judges and tutors may share one.

    Attributes:
        path: Folder or hub id of the model.
        processor: Its processor, or its tokenizer if it takes no pictures.
        dtype: Of the engine's weights.
        vocabulary: Number of rows of the language head.
        max_length: Longest prompt and reply together, in tokens.
        weights_version: Rises when weights or adapters are exchanged.

    Args:
        path: A Hugging Face folder or hub id of a model that vLLM knows.
        dtype: Of the weights, such as "float32"; None takes the one they were saved in.
        images_per_prompt: Most images of one dialogue.
        seed: Of replies that have no seed of their own.
        lora_rank: Highest rank of the LoRA adapters that `load_adapters` brings; 0 takes none.
        llm: A `vllm.LLM` on the model that runs already; None starts one.
        **options: Engine arguments of vLLM, such as `max_model_len`, `gpu_memory_utilization`,
            `tensor_parallel_size`, `enforce_eager` or `kv_cache_memory_bytes`.

    Raises:
        ImportError: If vLLM is not installed.
        FileNotFoundError: If there is no such model.
        ValueError: If `lora_rank` is not 0 to 512.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        dtype: str | None = None,
        images_per_prompt: int = 16,
        seed: int = 0,
        lora_rank: int = 0,
        llm: Any = None,
        **options: Any,
    ) -> None:
        if lora_rank:
            options = {**_room_for_adapters(lora_rank), **options}
        # A library does not report its use to anybody, and engine logs would bury a run's own output.
        os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
        self.path = tiny.find(path)
        self._vllm = need("vllm", "vllm")
        config = AutoConfig.from_pretrained(self.path, trust_remote_code=False)
        self.dtype = dtype or str(getattr(config, "dtype", None) or "auto").removeprefix("torch.")
        self.vocabulary = int(config.get_text_config().vocab_size)
        if config.model_type in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES:
            self.processor: Any = tiny.load_processor(self.path)
            options.setdefault("limit_mm_per_prompt", {"image": images_per_prompt, "video": 0})
        else:
            self.processor = AutoTokenizer.from_pretrained(self.path, trust_remote_code=False)
        self._llm: Any = llm or self._vllm.LLM(
            self.path,
            **{
                "dtype": self.dtype,
                "seed": seed,
                "enable_prefix_caching": True,
                "use_tqdm_on_load": False,
                # Those of the distribution that is sampled from: after temperature and forbidden tokens.
                "logprobs_mode": "processed_logprobs",
                # Without white space between values, which a weak model writes to the end of its tokens.
                "structured_outputs_config": {"backend": "guidance", "disable_any_whitespace": True},
                "worker_extension_cls": "steer_env.models.vllm_worker.WeightExchange",
                **options,
            },
        )
        self.max_length = int(self._llm.model_config.max_model_len)
        self.weights_version = 0
        self._adapters: Any = None  # vLLM's name for what every request is answered with, beside the weights
        self._lock = threading.Lock()

    # -- sampling -----------------------------------------------------------------------------------------

    def params(
        self,
        *,
        temperature: float,
        max_new_tokens: int,
        closing: Sequence[int],
        forbidden: Mapping[int, float],
        seed: int | None = None,
        schema: Mapping[str, Any] | None = None,
        top_p: float = 1.0,
        top_k: int = 0,
    ) -> Any:
        """Return vLLM's sampling parameters for one reply.

        Args:
            temperature: 0 is greedy.
            max_new_tokens: A longer reply is cut there.
            closing: Tokens that end it.
            forbidden: Tokens that are not sampled, with -inf each.
            seed: Of this reply, None for the engine's own stream.
            schema: JSON schema it must satisfy; the grammar then decides what is forbidden.
            top_p: As in `ChatRequest`. The engine's log-probabilities are those after the cut.
            top_k: See there.
        """
        structured = None
        if schema is not None:
            structured = self._vllm.sampling_params.StructuredOutputsParams(json=dict(schema))
        return self._vllm.SamplingParams(
            temperature=temperature,
            top_p=top_p,
            top_k=top_k,
            max_tokens=max_new_tokens,
            seed=seed,
            logprobs=0,
            stop_token_ids=list(closing),
            ignore_eos=structured is None,
            logit_bias=dict(forbidden) if structured is None else None,
            structured_outputs=structured,
            detokenize=False,
        )

    def generate(self, prompts: Sequence[EnginePrompt], params: Sequence[Any]) -> list[Completion]:
        """Sample one reply per prompt, all at once.

        Raises:
            ContextOverflow: If a prompt and its reply do not fit into the engine's context.
            RuntimeError: If the engine made other tokens of a prompt than it was given.
        """
        for prompt, param in zip(prompts, params, strict=True):
            if (reason := self.overflow(len(prompt.ids), param.max_tokens)) is not None:
                raise ContextOverflow(reason)
        if not prompts:
            return []
        with self._lock:  # vLLM's own loop is for one caller
            outputs = self._llm.generate(
                [_request(p) for p in prompts],
                list(params),
                use_tqdm=False,
                lora_request=self._adapters,
            )
        return [_completion(*row) for row in zip(outputs, prompts, params, strict=True)]

    def overflow(self, length: int, max_new_tokens: int) -> str | None:
        """Return why a prompt of so many tokens and its reply do not fit the context, None if they do."""
        if length + max_new_tokens <= self.max_length:
            return None
        return (
            f"the dialogue has {length} tokens and the reply may have {max_new_tokens}, expected at "
            f"most {self.max_length} together (max_model_len); use fewer or shorter turns (max_cycles), "
            "smaller images, or a larger max_model_len"
        )

    def is_refusal(self, error: Exception) -> bool:
        """Whether an error of `generate` is about the request and not about the engine."""
        return isinstance(error, ValueError | self._vllm.exceptions.VLLMClientError)

    # -- weights ------------------------------------------------------------------------------------------

    def load_weights(self, model: PreTrainedModel) -> None:
        """Take over the weights of a transformers model of the same architecture, without a restart.

        The engine forgets its adapters, and the model's stay behind: `load_adapters` brings them. All goes
        through a file in shared memory, or on disk where that is too small, so that engines with several
        workers can read it. Keys, values and image features of the old weights are forgotten.

        Raises:
            TypeError: If it is not a transformers model, such as one that PEFT has wrapped.
        """
        if not isinstance(model, PreTrainedModel):
            raise TypeError(
                f"model is a {type(model).__name__}, expected a transformers model; one that got its "
                "adapters by model.add_adapter is one"
            )
        state = self._cast(base_state(model), model)
        with _shared_folder(state) as folder:
            with tiny.no_bars(), without_adapters(model):
                model.save_pretrained(folder, state_dict=state)
            with self._lock:
                self._adapters = None
                self._llm.collective_rpc("exchange_weights", args=(folder,))
                self.weights_version += 1
                self._reset_caches()

    def load_adapters(self, model: PreTrainedModel) -> None:
        """Take over the LoRA adapters of a transformers model, in the place of those of before.

        They are all that travels; vLLM adds them to its weights as it answers, which have to be the model's.
        What it cannot add is refused, not merged into the weights: then the whole model would travel at every
        step, a hundred times as much, without anybody having asked for it.

        Raises:
            ValueError: If the engine was started without `lora_rank` or with a lower one, or vLLM does not
                take such adapters: several active at once, DoRA, with biases or whole layers that learn, too,
                or beside layers it cannot adapt, as in the vision towers of some families.
        """
        config, state = adapters(model)
        rank = max(getattr(config, "r", 1), *(getattr(config, "rank_pattern", None) or {}).values(), 1)
        room = self._llm.llm_engine.vllm_config.lora_config
        if room is None or rank > room.max_lora_rank:
            _room_for_adapters(rank)  # or no engine has it
            most = "none" if room is None else f"{room.max_lora_rank} at most"
            raise ValueError(
                f"the model has adapters of rank {rank} and the engine of {self.path!r} takes {most}, "
                f'expected one that was started for them: engine={{"lora_rank": {rank}}}'
            )
        state = self._cast(state, model)
        with _shared_folder(state) as folder:
            save_file(state, Path(folder, "adapter_model.safetensors"))
            config.save_pretrained(folder)
            with self._lock:
                self.weights_version += 1
                # A new one: vLLM takes adapters of a number that it knows for those it has.
                number = self.weights_version
                try:
                    missed = self._llm.collective_rpc("exchange_adapters", args=(folder, number))
                except (self._vllm.exceptions.VLLMServerError, MemoryError, torch.OutOfMemoryError):
                    raise  # says nothing about the adapters
                except Exception as error:  # of no type of its own, as it comes from another process
                    raise ValueError(f"vLLM does not take the model's adapters: {error}") from error
                # A worker may hold some of the layers.
                left_out = sorted(set.intersection(*map(set, missed)))
                made = self._vllm.lora.request.LoRARequest(ADAPTERS, number, folder)
                self._adapters = None if left_out else made
                self._reset_caches()
        if left_out:
            raise ValueError(
                f"vLLM has no adapters for {left_out[0]!r} ({len(left_out)} such layers), expected them "
                "beside other layers (--lora-targets)"
            )

    def _cast(self, state: dict[str, torch.Tensor], model: PreTrainedModel) -> dict[str, torch.Tensor]:
        """Return tensors in the engine's precision."""
        dtype = getattr(torch, self.dtype, model.dtype)
        return {
            name: value.to(dtype).contiguous() if value.is_floating_point() else value
            for name, value in state.items()
        }

    def reset_caches(self) -> None:
        """Forget keys, values and image features."""
        with self._lock:
            self._reset_caches()

    def _reset_caches(self) -> None:
        self._llm.llm_engine.reset_encoder_cache()
        if not self._llm.reset_prefix_cache():
            raise RuntimeError("vLLM kept its prefix cache, expected none of its requests to be running")

    def close(self) -> None:
        """Stop the engine's processes; safe to call twice."""
        if self._llm is not None:
            self._llm.llm_engine.engine_core.shutdown()
            self._llm = None


def _request(prompt: EnginePrompt) -> dict[str, Any]:
    request: dict[str, Any] = {"prompt_token_ids": prompt.folded}
    if prompt.images:
        request["multi_modal_data"] = {"image": [image.pil() for image in prompt.images]}
    return request


def _completion(output: Any, prompt: EnginePrompt, param: Any) -> Completion:
    if output.prompt_token_ids != prompt.ids:
        raise RuntimeError(
            f"vLLM made {len(output.prompt_token_ids)} tokens of a prompt of {len(prompt.ids)}, expected the "
            "same ones: the processor that encoded it is not the one of the engine's folder"
        )
    reply = output.outputs[0]
    ids = list(reply.token_ids)
    logprobs = [0.0] * len(ids)
    if param.temperature > 0:
        logprobs = [row[token].logprob for token, row in zip(ids, reply.logprobs, strict=True)]
    finish = "length" if reply.finish_reason == "length" else "stop"
    return Completion(ids, logprobs, finish, int(output.num_cached_tokens or 0))


@contextmanager
def _shared_folder(state: Mapping[str, torch.Tensor]) -> Iterator[str]:
    """Give a folder for a file of tensors, in memory if it has room, and remove it."""
    size = sum(value.nbytes for value in state.values())
    memory = Path("/dev/shm")
    roomy = memory.is_dir() and shutil.disk_usage(memory).free > size + _SPARE_BYTES
    with tempfile.TemporaryDirectory(prefix="steer_env_", dir=memory if roomy else None) as folder:
        yield folder


def _room_for_adapters(rank: int) -> dict[str, Any]:
    """Return vLLM's options for adapters of at most this rank, beside language model and vision tower."""
    if not isinstance(rank, int) or not 1 <= rank <= _RANKS[-1]:
        raise ValueError(f"lora_rank={rank!r}, expected 1 to {_RANKS[-1]}, the highest that vLLM takes")
    room = next(room for room in _RANKS if room >= rank)
    return {"enable_lora": True, "max_lora_rank": room, "enable_tower_connector_lora": True}
