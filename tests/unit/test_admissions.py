"""Lines in which programs admit that they did otherwise, and those that admit nothing."""

from __future__ import annotations

import pytest

from pytest_h2o.evidence.admissions import Instructions, admission, may_admit

ASKED = Instructions(
    backend="opencl",
    threads=4,
    config={
        "kv_h2o_enable": True,
        "kv_lossless_enable": True,
        "kv_h2o_target_lossy_ratio": 3.2,
        "kv_lossless_runtime_mode": "full",
    },
)


def said(line: str, asked: Instructions = ASKED) -> str:
    """What a line admits, as it is read."""
    return admission(line, asked) if may_admit(line) else ""


@pytest.mark.parametrize(
    "line",
    [
        "WARNING: backend OPENCL unavailable; executing on CPU",
        "Using CPU backend",
        "OpenCL not initialised, use cpu",
        "Vulkan init error, switch to CPU",
        "Downgrade to CPU backend",
        "falls back on cpu",
        "Hexagon DSP: failed to open session, CPU will be used",
        "回退到CPU",
        "不支持OpenCL，使用CPU",
        "eviction plan discarded (stale)",
        "plan rejected: invalid range",
        "eviction not applied",
        "lossless encode bypassed",
        "h2o requires flash attention off, deactivating",
        "lossless mode probe (forced)",
        "kv_h2o_target_lossy_ratio = 2.0",
        '"kv_lossless_runtime_mode": "store"',
        "kv_h2o_enable=0",
        "thread number reduced to 2",
        "only 2 threads available",
        "using 1 thread",
        "num_thread clamped to 1",
        "precision lowered to low",
        "max_new_tokens clipped to 64",
        "prompt truncated to 512 tokens",
        "thread number is set to 1 because of power mode",
        "reset threads to 1",
        "threads: 4 -> 1",
        "precision changed to High: Low is not supported on this CPU",
        "Precision is forced to fp32",
        "memory mode switched to high",
        "power mode reset to normal",
        "kv cache dtype changed to fp16",
        "lossless mode switched to another",
    ],
)
def test_another_thing_was_done(line: str) -> None:
    """Another backend, another value, less work, or a plan that came to nothing."""
    assert said(line) == "otherwise"


@pytest.mark.parametrize(
    "line",
    [
        "H2O: off",
        "H2O=0",
        "enable_h2o: 0",
        "h2o enabled: no",
        "h2o skipped: layer_nums missing",
        "Skip eviction: pending",
        "gear_delta codec missing, use none",
        "H2O eviction is turned off for this model",
    ],
)
def test_a_feature_is_off(line: str) -> None:
    """By any word for it."""
    assert said(line) == "off"


@pytest.mark.parametrize(
    "line",
    [
        "KV cache dtype: int8",
        "kv_cache_dtype=q8_0",
        "KV quant mode 2",
        "int8 KV cache in use",
        "quant_kv=1",
        '"quantKv": 2',
        "using quantized attention (int8)",
        "K cache compressed to 8 bit",
        "fp8 kv",
    ],
)
def test_quantised_kv(line: str) -> None:
    """By its name, its bits or its type."""
    assert said(line) == "quantised"


@pytest.mark.parametrize(
    "line",
    [
        "CPU Group: [ 0 1 ], 2300000 - 3900000",
        "Can't find opencl cache file, will be created",
        "kv cache size: 512",
        "quantized weights: int4",
        "model is quantized (w4a16)",
        "KV cache: fp16",
        "quantKv: 0",
        "backend: opencl",
        "H2O enabled",
        "h2o: on",
        "lossless: mode full",
        "kv_h2o_target_lossy_ratio = 3.2000",
        "kv_h2o_enable: 1",
        "using 4 threads",
        "using 2 threads to encode",
        "evictions skipped: 0",
        "no plan yet",
        "key bits=16",
        "set threads to 4",
        "threads: 2 -> 4",
        "encode threads set to 2",
        "precision: Low",
        "cache dir changed to tmp",
        "kv reset to 0 tokens",
    ],
)
def test_nothing_is_admitted(line: str) -> None:
    """What was asked for, counters at zero, and what concerns other things."""
    assert said(line) == ""


def test_the_cpu_that_was_asked_for() -> None:
    """To use it is no admission then."""
    assert said("Using CPU backend", Instructions("cpu", 4, {})) == ""
