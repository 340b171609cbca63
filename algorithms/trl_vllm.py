"""vLLM as TRL's trainer runs it, behind the library's own vLLM student: tokens in, tokens out.

TRL starts vLLM on the trainer's GPUs ("colocate") or reaches a server, and copies weights into it, whatever
holds them: DDP, FSDP, ZeRO-3, adapters (`trl.generation.vllm_generation.VLLMGeneration`). Its `generate` has
one seed for all prompts and, with a server, wants every process to ask equally often; dialogues do neither.
So replies come from its engine, or from its client for a server, through `VLLMStudent`.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from steer_env.agents.hf.student import HFStudent
from steer_env.agents.vllm_student import VLLMStudent
from steer_env.extras import need
from steer_env.models.vllm_engine import Completion, EnginePrompt, VLLMEngine

#: Requests to a server at a time.
_REQUESTS = 64
#: Lowest bias of a token that servers take; it leaves none of 1e40 samples.
_LOWEST_BIAS = -100.0


def vllm_sampler(generation: Any, student: HFStudent) -> VLLMStudent:
    """Return what samples for a student whose model TRL trains.

    Args:
        generation: The trainer's `vllm_generation`.
        student: The policy; its model was opened from a folder or the hub.

    Raises:
        ValueError: If TRL's client cannot send a server tokens with pictures.
    """
    if generation.mode == "server":
        engine: VLLMEngine = _Served(generation, student)
    else:
        engine = VLLMEngine(student.model.name_or_path, llm=generation.llm)
    sampler = VLLMStudent(
        engine,
        name=student.name,
        system=student.system,
        images=student.images,
        template_options=student.codec.template_options,
        max_thought=student.max_thought,
        learn_thoughts=student.learn_thoughts,
        temperature=student.temperature,
        max_new_tokens=student.max_new_tokens,
    )
    sampler.codec = student.codec  # one cache of encoded pictures
    return sampler


class _Served(VLLMEngine):
    """A server, asked by a client of this process's own."""

    def __init__(self, generation: Any, student: HFStudent) -> None:
        client = need("trl.generation.vllm_client", "trl").VLLMClient
        if not hasattr(client, "image_features"):
            raise ValueError(
                "vllm_mode='server' with this version of TRL, expected one whose VLLMClient has "
                "image_features (1.16): older ones have a server of their own; use 'colocate'"
            )
        url = generation.server_base_url or f"http://{generation.server_host}:{generation.server_port}"
        self._client = client(base_url=url, connection_timeout=generation.server_timeout)
        self._place = generation._place_features
        self._features: dict[tuple[str, ...], Any] = {}
        self.path, self.processor = student.model.name_or_path, student.processor
        self.vocabulary = int(student.model.config.get_text_config().vocab_size)
        self.max_length = int(self._client.get_server_info()["model_config"]["max_model_len"])

    def params(self, **options: Any) -> dict[str, Any]:
        """Return what `VLLMClient.generate` is given for one reply."""
        bias = {token: max(value, _LOWEST_BIAS) for token, value in options["forbidden"].items()}
        further = {
            "stop_token_ids": list(options["closing"]),
            "ignore_eos": True,
            "logit_bias": bias,
            "seed": options["seed"],
        }
        return {
            "temperature": options["temperature"],
            "max_tokens": options["max_new_tokens"],
            "generation_kwargs": further,
        }

    def generate(self, prompts: Sequence[EnginePrompt], params: Sequence[Any]) -> list[Completion]:
        """Sample one reply per prompt, all at once.

        Raises:
            RuntimeError: If the server made other tokens of a prompt than it was given.
        """
        for prompt in prompts:
            key = tuple(image.digest for image in prompt.images)
            if key and key not in self._features:
                (self._features[key],) = self._client.image_features([[i.pil() for i in prompt.images]])
        with ThreadPoolExecutor(_REQUESTS) as pool:
            return list(pool.map(self._complete, prompts, params))

    def _complete(self, prompt: EnginePrompt, params: dict[str, Any]) -> Completion:
        key = tuple(image.digest for image in prompt.images)
        features = [self._place(self._features[key], prompt.ids)] if key else None
        said = self._client.generate([prompt.ids], features=features, **params)
        if list(said["prompt_ids"][0]) != prompt.ids:
            raise RuntimeError("the server made other tokens of a prompt, expected those that it was given")
        ids, logprobs = list(said["completion_ids"][0]), [row[0] for row in said["logprobs"][0]]
        finish = "stop" if ids[-1:] == params["generation_kwargs"]["stop_token_ids"] else "length"
        return Completion(ids, logprobs, finish, 0)

    def reset_caches(self) -> None:
        """Forget image features; TRL lets the server forget keys and values with each exchange."""
        self._features.clear()
        self._client.session.post(f"{self._client.base_url}/reset_encoder_cache").raise_for_status()
