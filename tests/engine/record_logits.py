"""Logits of the shipped weights as transformers' Llama computes them: recorded once, compared with
the engine's.

    python tests/engine/record_logits.py

Takes torch, transformers and sentencepiece, and nothing of this project. Writes
``tests/data/engine/logits.npz``: the tokens of the beginning of the held-out text, and after every
eighth of them every sixteenth logit, in fp32.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[2]
WEIGHTS = ROOT / "pytest_h2o/engine/weights"
RECORD = ROOT / "tests/data/engine/logits.npz"
TOKENS, EVERY, COLUMN = 320, 8, 16


def reference_logits(tokens: Sequence[int]) -> np.ndarray:
    """Logits [T, V] after each of ``tokens``, in one uncached pass."""
    import torch  # noqa: PLC0415 - not there in most interpreters
    from transformers import LlamaForCausalLM  # noqa: PLC0415

    model = LlamaForCausalLM.from_pretrained(
        WEIGHTS, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    with torch.no_grad():
        return model(torch.tensor([list(tokens)])).logits[0].numpy()


def main() -> None:
    """Write the record."""
    from sentencepiece import SentencePieceProcessor  # noqa: PLC0415 - only for recording

    text = (WEIGHTS / "heldout.txt").read_text("utf-8")
    tokens = [1, *SentencePieceProcessor(model_file=str(WEIGHTS / "tokenizer.model")).encode(text)][
        :TOKENS
    ]
    RECORD.parent.mkdir(exist_ok=True)
    logits = reference_logits(tokens)[EVERY - 1 :: EVERY, ::COLUMN]
    np.savez_compressed(RECORD, tokens=np.array(tokens, np.int32), logits=logits)


if __name__ == "__main__":
    main()
