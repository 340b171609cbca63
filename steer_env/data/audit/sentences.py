"""Texts as directions of meaning, by an encoder of the sentence-transformers kind that is on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from steer_env.extras import need
from steer_env.files import read_json

_BATCH: Final = 64
#: Most tokens of a text that count; what small encoders were trained with.
_TOKENS: Final = 256


class SentenceModel:
    """Mean of an encoder's last hidden states over a text's tokens, at length 1 (Reimers and Gurevych 2019).

    Args:
        folder: A model folder that `transformers` opens. Code in it is not run.

    Raises:
        ValueError: If there is no such folder, or the model pools otherwise.
        ImportError: If torch or transformers is missing.
    """

    def __init__(self, folder: str | Path) -> None:
        pooling = Path(folder) / "1_Pooling" / "config.json"
        if not Path(folder).is_dir():
            raise ValueError(
                f"embed='sentence:{folder}', expected the folder of a sentence model after 'sentence:'"
            )
        if pooling.exists() and not read_json(pooling).get("pooling_mode_mean_tokens"):
            raise ValueError(f"{pooling} does not pool by the mean of tokens, expected a model that does")
        self._torch, auto = need("torch"), need("transformers")
        options = {"local_files_only": True, "trust_remote_code": False}
        self._tokenizer = auto.AutoTokenizer.from_pretrained(folder, **options)
        self._model = auto.AutoModel.from_pretrained(folder, **options).eval()

    def __call__(self, texts: list[str]) -> NDArray[Any]:
        """Return a row of numbers per text; texts of like length share a batch."""
        order = sorted(range(len(texts)), key=lambda k: len(texts[k]))
        rows: dict[int, NDArray[Any]] = {}
        for start in range(0, len(order), _BATCH):
            which = order[start : start + _BATCH]
            rows |= zip(which, self._encode([texts[k] for k in which]), strict=True)
        return np.array([rows[k] for k in range(len(texts))])

    def _encode(self, texts: list[str]) -> NDArray[Any]:
        inputs = self._tokenizer(
            texts, padding=True, truncation=True, max_length=_TOKENS, return_tensors="pt"
        )
        with self._torch.inference_mode():
            states_BLD = self._model(**inputs).last_hidden_state
            mask_BL1 = inputs["attention_mask"].unsqueeze(-1)
            rows_BD: NDArray[Any] = (
                ((states_BLD * mask_BL1).sum(1) / mask_BL1.sum(1).clamp(min=1)).float().numpy()
            )
        return rows_BD
