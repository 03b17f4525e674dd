"""The MNN wheel's LLM engine: loading, responses from an empty cache, teacher-forced logits."""

from __future__ import annotations

import ctypes
import json
import os
import resource
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pytest_h2o.engine.response import Response

Floats = npt.NDArray[np.float32]
# MNN's attention_mode: flash attention, plus what llm_bench calls -qa.
FLASH = 8
MODEL_FILES = {
    "llm_model": "llm.mnn",
    "llm_weight": "llm.mnn.weight",
    "tokenizer_file": "tokenizer.txt",
}
# What glibc calls the size from which a buffer is mapped on its own.
M_MMAP_THRESHOLD, LARGE_BYTES = -3, 1 << 15
PRECISION = {0: "normal", 1: "high", 2: "low"}


class ModelError(Exception):
    """The model cannot be loaded or did not answer; the message names the file and the cause."""


def quiet() -> None:
    """Send what the engine itself prints to stderr, so that it never reaches a table or a text.

    The engine writes to file descriptor 1; ``sys.stdout`` goes on to the real one.
    """
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    sys.stdout = os.fdopen(kept, "w", encoding="utf-8", errors="replace")


class Wheel:
    """A loaded model. ``quantised`` is what ``llm_bench -qa`` takes: 0 none, 1 to 6 int8, TQ3 and
    TQ4.
    """

    def __init__(
        self, config: Path, *, threads: int, quantised: int = 0, precision: str = "low",
        all_logits: bool = False,
    ) -> None:  # fmt: skip
        self.config = config
        self.weights = _check_files(config)
        import MNN.llm as llm  # noqa: PLC0415, PLR0402  an extra; "from MNN" gives another module

        self._llm: Any = llm.create(str(config))
        settings: dict[str, object] = {
            "thread_num": threads,
            "precision": precision,
            "memory": "low",
            "sampler_type": "greedy",
            "attention_mode": FLASH + quantised,
            "use_template": False,
            # With reuse_kv the engine would leave V as it is where K and V are to be int8.
            "reuse_kv": False,
            "all_logits": all_logits,
            "async": False,
        }
        self._llm.set_config(settings)
        self._llm.load()

    def encode(self, text: str) -> list[int]:
        """Token ids of a text."""
        return list(self._llm.tokenizer_encode(text))

    def decode(self, token: int) -> str:
        """The text of one token."""
        return str(self._llm.tokenizer_decode(token))

    def respond(self, prompt: Sequence[int], budget: int) -> Response:
        """The greedy answer to a prompt, from an empty cache; raises :class:`ModelError`."""
        self.empty()
        tokens = self._llm._c_obj.generate(list(prompt), budget)
        context = self._llm.context
        context.refresh()
        if context.prompt_len != len(prompt) or not tokens:
            raise ModelError(
                f"{self.config}: the engine read {context.prompt_len} of {len(prompt)} prompt "
                f"tokens and wrote {len(tokens)} ({context.status})"
            )
        return Response(
            len(prompt),
            tuple(tokens),
            float(context.prefill_us),
            float(context.decode_us),
            float(context.sample_us),
        )

    def empty(self) -> None:
        """Drop the cache: ``generate`` leaves it after a ``reset`` alone, ``forward`` after a
        ``generate_init`` alone.
        """
        self._llm.generate_init()
        self._llm.reset()

    @property
    def held(self) -> int:
        """Tokens in the cache."""
        return int(self._llm._c_obj.get_current_history())

    def forward(self, tokens: Sequence[int]) -> Floats:
        """Logits [T, V] of some more tokens after those in the cache."""
        read: Floats = np.array(self._llm.forward(list(tokens)).read(), dtype=np.float32)
        return read.reshape(-1, read.shape[-1])


def _check_files(config: Path) -> Path:
    """The weights of a model; raises :class:`ModelError` for a missing file, where the engine would
    crash.
    """
    try:
        values = json.loads(config.read_bytes())
        folder = config.parent / str(values.get("base_dir", ""))
        paths = {name: folder / str(values.get(name, usual)) for name, usual in MODEL_FILES.items()}
    except (OSError, ValueError, AttributeError) as error:
        raise ModelError(f"{config} is no model config: {error}") from error
    for name, path in paths.items():
        if not path.is_file():
            raise ModelError(f"{path} is missing ({name} of {config})")
    return paths["llm_weight"]


def peak_mib() -> float:
    """The most memory that this process ever held, in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def return_buffers() -> None:
    """Make the allocator give every large buffer back when it is freed: the engine copies a cache
    that grows into a larger one, and what the old one held would count as well. Only glibc can.
    """
    with suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, LARGE_BYTES)


def resident_bytes() -> int | None:
    """The memory that this process holds; None where the system does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return None
    return pages * resource.getpagesize()
