"""What runs inside vLLM's workers; vLLM mixes the class into its own by name (`worker_extension_cls`)."""

from __future__ import annotations

from typing import Any

#: What the one set of adapters is called in vLLM's requests.
ADAPTERS = "adapters"


class WeightExchange:
    """Takes new weights and adapters into a running worker."""

    device: Any
    model_runner: Any
    reload_weights: Any
    add_lora: Any

    def exchange_weights(self, folder: str) -> None:
        """Load the safetensors files of a Hugging Face folder over the current weights."""
        self.reload_weights(weights_path=folder)
        if self.device.type == "cpu":
            self._pack_tied_heads()

    def exchange_adapters(self, folder: str, number: int) -> list[str]:
        """Load a folder of adapters as `number`, in the place of those of before.

        Returns:
            Layers that the folder has adapters for and this worker does not. vLLM 0.32 looks at the last part
            of a layer's name alone, and leaves out those it then does not find without a word.
        """
        from vllm.lora.request import LoRARequest

        self.add_lora(LoRARequest(ADAPTERS, number, folder))  # there is room for one
        manager = self.model_runner.lora_manager._adapter_manager
        return sorted(manager.get_adapter(number).loras.keys() - manager.modules.keys())

    def _pack_tied_heads(self) -> None:
        # On CPUs a language head multiplies with a packed copy of its weights. A head tied to the embedding
        # is not in the files, so vLLM 0.32 leaves that copy as it was.
        from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead

        for module in self.model_runner.get_model().modules():
            if isinstance(module, ParallelLMHead):
                module.quant_method.process_weights_after_loading(module)
