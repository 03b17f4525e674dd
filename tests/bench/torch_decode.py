"""Decode speed of transformers' Llama: one response to warm up, then one that counts, as JSON.

    python tests/bench/torch_decode.py WEIGHTS_FOLDER THREADS PROMPT_TOKENS NEW_TOKENS

Run by ``bench_engine.py`` on an interpreter that has torch and transformers; imports nothing of
this project.
"""

from __future__ import annotations

import json
import sys
import time

import torch
from transformers import LlamaForCausalLM

TOKEN = 16


def decode_seconds(model: LlamaForCausalLM, prompt: int, count: int) -> float:
    """Seconds spent in ``count`` cached forward passes after a prompt; choosing the tokens is not
    in them.
    """
    seen = model(torch.full((1, prompt), TOKEN), use_cache=True, logits_to_keep=1)
    seconds = 0.0
    for _ in range(count):
        token = seen.logits[:, -1].argmax(-1, keepdim=True)
        started = time.perf_counter()
        seen = model(token, past_key_values=seen.past_key_values, use_cache=True)
        seconds += time.perf_counter() - started
    return seconds


def main(folder: str, threads: int, prompt: int, count: int) -> None:
    """Print the speed."""
    torch.set_num_threads(threads)
    torch.set_grad_enabled(False)
    model = LlamaForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="sdpa"
    ).eval()
    decode_seconds(model, prompt, count)
    print(json.dumps({"decode_tps": count / decode_seconds(model, prompt, count)}))


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
