"""What runs inside vLLM's workers; vLLM mixes the class into its own by name (`worker_extension_cls`)."""

from __future__ import annotations

from typing import Any


class WeightExchange:
    """Takes new weights into a running worker."""

    device: Any
    model_runner: Any
    reload_weights: Any

    def exchange_weights(self, folder: str) -> None:
        """Load the safetensors files of a Hugging Face folder over the current weights."""
        self.reload_weights(weights_path=folder)
        if self.device.type == "cpu":
            self._pack_tied_heads()

    def _pack_tied_heads(self) -> None:
        # On CPUs a language head multiplies with a packed copy of its weights. A head tied to the embedding
        # is not in the files, so vLLM 0.32 leaves that copy as it was.
        from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead

        for module in self.model_runner.get_model().modules():
            if isinstance(module, ParallelLMHead):
                module.quant_method.process_weights_after_loading(module)
