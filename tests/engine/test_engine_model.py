"""The forward pass against an independent, uncached one."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra.numpy import arrays
from safetensors.numpy import save_file
from tiny_models import TINY, random_weights

from pytest_h2o.engine.config import ConfigError, load_config
from pytest_h2o.engine.generate import Engine
from pytest_h2o.engine.kv_cache import from_bits, to_bits
from pytest_h2o.engine.model import PREFILL_CHUNK


def naive_logits(tokens: list[int], kv_dtype: type) -> np.ndarray:
    """Logits [T, V] of all positions at once in float64: no cache, no fused matrices, one head at a
    time.
    """
    weights = {name: tensor.astype(np.float64) for name, tensor in random_weights(TINY).items()}
    heads, kv_heads, dim = (
        TINY["num_attention_heads"],
        TINY["num_key_value_heads"],
        TINY["head_dim"],
    )

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + TINY["rms_norm_eps"]) * weights[name]

    def rotate(x: np.ndarray) -> np.ndarray:
        angle = np.arange(len(x))[:, None] * TINY["rope_theta"] ** (-np.arange(0, dim, 2) / dim)
        angle = np.concatenate([angle, angle], -1)
        half = np.concatenate([-x[:, dim // 2 :], x[:, : dim // 2]], -1)
        return x * np.cos(angle) + half * np.sin(angle)

    x = weights["model.embed_tokens.weight"][tokens]
    future = np.triu(np.full((len(tokens),) * 2, -np.inf), 1)
    for layer in range(TINY["num_hidden_layers"]):
        w = {
            n.removeprefix(f"model.layers.{layer}."): t
            for n, t in weights.items()
            if f".layers.{layer}." in n
        }
        h = norm(x, f"model.layers.{layer}.input_layernorm.weight")
        q, k, v = (h @ w[f"self_attn.{name}_proj.weight"].T for name in "qkv")
        outputs = []
        for head in range(heads):
            group = slice(
                head // (heads // kv_heads) * dim, (head // (heads // kv_heads) + 1) * dim
            )
            key, value = (
                rotate(k[:, group]).astype(kv_dtype).astype(float),
                v[:, group].astype(kv_dtype).astype(float),
            )
            scores = rotate(q[:, head * dim : (head + 1) * dim]) @ key.T / np.sqrt(dim) + future
            weight = np.exp(scores - scores.max(-1, keepdims=True))
            outputs.append(weight / weight.sum(-1, keepdims=True) @ value)
        x = x + np.concatenate(outputs, -1) @ w["self_attn.o_proj.weight"].T
        h = norm(x, f"model.layers.{layer}.post_attention_layernorm.weight")
        gate = h @ w["mlp.gate_proj.weight"].T
        x = (
            x
            + (gate / (1 + np.exp(-gate)) * (h @ w["mlp.up_proj.weight"].T))
            @ w["mlp.down_proj.weight"].T
        )
    return norm(x, "model.norm.weight") @ weights["model.embed_tokens.weight"].T


def random_tokens(count: int) -> list[int]:
    """Tokens of the tiny model."""
    return np.random.default_rng(count).integers(3, 96, count).tolist()


@pytest.mark.parametrize(
    "prompt_tokens", [1, 5, PREFILL_CHUNK, PREFILL_CHUNK + 1, 2 * PREFILL_CHUNK + 44]
)
def test_cached_equals_uncached(make_engine: Callable[..., Engine], prompt_tokens: int) -> None:
    """Prefill and cached decode steps give the logits of one uncached pass over all tokens."""
    engine = make_engine(precision="high")
    tokens = random_tokens(prompt_tokens + 6)
    expected = naive_logits(tokens, np.float32)
    actual = [engine.model.prefill(tokens[:prompt_tokens], engine.cache)]
    actual += [engine.model.forward([token], engine.cache) for token in tokens[prompt_tokens:]]
    np.testing.assert_allclose(actual, expected[prompt_tokens - 1 :], rtol=1e-3, atol=2e-4)


def test_heads_of_a_group_far_apart(make_engine: Callable[..., Engine]) -> None:
    """A head whose scores are hundreds below those of its group's other head still attends as it
    does in a prompt.
    """
    engine = make_engine(precision="high")
    tokens = random_tokens(30)
    for layer in engine.model.layers:
        layer.qkv[:, :8] *= 1e4  # the first query head
    whole = engine.model.prefill(tokens, engine.cache)
    engine.cache.clear()
    engine.model.prefill(tokens[:-1], engine.cache)
    np.testing.assert_allclose(
        engine.model.forward(tokens[-1:], engine.cache), whole, rtol=1e-3, atol=2e-4
    )


def test_fp16_values(make_engine: Callable[..., Engine]) -> None:
    """With low precision the cache holds fp16 values, and the logits are those of a model whose KV
    is rounded.
    """
    engine = make_engine(precision="low")
    tokens = random_tokens(40)
    logits = engine.model.prefill(tokens, engine.cache)
    for layer in engine.cache.layers:
        for values in layer.read():
            np.testing.assert_array_equal(values, values.astype(np.float16).astype(np.float32))
    np.testing.assert_allclose(logits, naive_logits(tokens, np.float16)[-1], atol=2e-2)


@pytest.mark.parametrize("threads", [2, 3])
def test_prefill_threads(make_engine: Callable[..., Engine], threads: int) -> None:
    """Several threads read a prompt to bit-identical keys, values and logits."""
    one, many = make_engine(), make_engine()
    tokens = random_tokens(5 * PREFILL_CHUNK + 3)
    expected = one.model.prefill(tokens, one.cache)
    np.testing.assert_array_equal(many.model.prefill(tokens, many.cache, threads), expected)
    for left, right in zip(one.cache.layers, many.cache.layers, strict=True):
        np.testing.assert_array_equal(left.read(), right.read())


def test_prefill_error_ends_all_threads(make_engine: Callable[..., Engine]) -> None:
    """A chunk that fails does not leave the others waiting for it."""
    engine = make_engine()
    tokens = random_tokens(4 * PREFILL_CHUNK)
    tokens[PREFILL_CHUNK + 5] = 10_000
    with pytest.raises(IndexError):
        engine.model.prefill(tokens, engine.cache, 2)


def test_int8_keys_and_values(
    make_engine: Callable[..., Engine], write_config: Callable[..., Path]
) -> None:
    """int8 attention rounds each head's vector to 255 steps and counts a quarter of fp32, plus the
    scale.
    """
    from pytest_h2o.engine.config import override  # noqa: PLC0415

    engine = Engine(override(load_config(write_config()), quantised=2))
    engine.model.prefill(random_tokens(9), engine.cache)
    keys, _ = engine.cache.layers[0].read()
    steps = keys / (np.abs(keys).max(-1, keepdims=True) / 127)
    np.testing.assert_allclose(steps, np.round(steps), atol=0.1)  # the grid is fp16 itself
    assert engine.cache.account.held == 9 * 4 * 2 * 2 * (8 + 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model.norm.weight": None}, "model.norm.weight"),
        ({"model.norm.weight": np.ones(7, np.float16)}, r"model.norm.weight.*\[32\].*\[7\]"),
        ({"model.norm.weight": np.ones(32, np.int64)}, "float tensor"),
    ],
)
def test_bad_weights(tmp_path: Path, change: dict[str, np.ndarray | None], message: str) -> None:
    """A tensor that is missing or of another shape or type is named with its file."""
    tensors = {
        name: value
        for name, value in {**random_weights(TINY), **change}.items()
        if value is not None
    }
    save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(TINY))
    (tmp_path / "engine.json").write_text(json.dumps({"llm_weight": "model.safetensors"}))
    with pytest.raises(ConfigError, match=message):
        Engine(load_config(tmp_path / "engine.json"))


def test_damaged_weights(tmp_path: Path) -> None:
    """A weight file of garbage is an error that names it."""
    (tmp_path / "config.json").write_text(json.dumps(TINY))
    (tmp_path / "model.safetensors").write_bytes(b"\xff" * 64)
    (tmp_path / "engine.json").write_text(json.dumps({"llm_weight": "model.safetensors"}))
    with pytest.raises(ConfigError, match=r"model\.safetensors: not a safetensors file"):
        Engine(load_config(tmp_path / "engine.json"))


@given(arrays(np.uint16, (2, 3, 4)))
def test_bits_and_back(bits: np.ndarray) -> None:
    """Every fp16 bit pattern, NaN payloads and infinities included, stands for the value numpy says
    it does.
    """
    np.testing.assert_array_equal(from_bits(bits), bits.view(np.float16).astype(np.float32))


def test_all_finite_bits() -> None:
    """The fast path agrees with numpy on every finite fp16 number, bit for bit, and the way back is
    exact.
    """
    bits = np.arange(2**16, dtype=np.uint16)
    bits = bits[np.isfinite(bits.view(np.float16))]
    values = from_bits(bits)
    np.testing.assert_array_equal(
        values.view(np.uint32), bits.view(np.float16).astype(np.float32).view(np.uint32)
    )
    np.testing.assert_array_equal(to_bits(values, np.dtype(np.float16)), bits)
