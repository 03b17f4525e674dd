"""The model: Llama weights and the forward pass (RMSNorm, RoPE, grouped-query attention, SwiGLU).

Letters in shape comments: T new tokens, D hidden size, H heads, G KV heads, R = H / G heads per KV
head, d head dimension, F intermediate size, L cached tokens, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from pytest_h2o.engine.config import Architecture, ConfigError
from pytest_h2o.engine.kv_cache import Attention, Floats, KVCache
from pytest_h2o.engine.threads import map_in_order

PREFILL_CHUNK = 128
TINY = 1e-30  # totals of softmax weights below which digits are lost


class LayerWeights(NamedTuple):
    """Matrices of one layer, ready to multiply from the right; norm weights and the softmax scale
    are folded in.
    """

    qkv: Floats  # [D, (H + 2G) d]
    out: Floats  # [H d, D]
    gate_up: Floats  # [D, 2F]
    down: Floats  # [F, D]


class Layer(Protocol):
    """The cache of one layer, as the forward pass sees it."""

    def append(self, kv: Floats) -> None:
        """Add K and V of new tokens [T, 2 G d]."""

    def read(self) -> tuple[Floats, Floats]:
        """All keys and values, each [G, L, d]."""


class Cache(Protocol):
    """A cache, as the forward pass sees it."""

    position: int

    @property
    def layers(self) -> Sequence[Layer]:
        """One per layer of the model."""


class Hook(Protocol):
    """Something that watches decoding layer by layer and may change the layer's cache."""

    def after_prompt(self, layer: int, attention: Attention) -> None:
        """The layer has attended for the last tokens of the prompt, up to PREFILL_CHUNK of them."""

    def before_attention(self, layer: int) -> None:
        """The layer is about to append the new token and attend."""

    def after_attention(self, layer: int, attention: Attention) -> None:
        """The layer has attended."""

    def finish(self) -> None:
        """The response is complete."""


class _AtPrompt(NamedTuple):
    """What a hook sees of the last chunk of a prompt."""

    hook: Hook

    def after_prompt(self, layer: int, attention: Attention) -> None:
        """Not called within a chunk."""

    def before_attention(self, layer: int) -> None:
        """Nothing to do."""

    def after_attention(self, layer: int, attention: Attention) -> None:
        """Pass the chunk's attention on."""
        self.hook.after_prompt(layer, attention)

    def finish(self) -> None:
        """Not called within a chunk."""


class Model:
    """Weights plus the forward pass; holds no state of any response."""

    def __init__(self, shape: Architecture, weights: Path) -> None:
        self.shape = shape
        read = _Reader(weights)
        norm = read.tensor("model.norm.weight", shape.hidden)
        rows = (shape.vocab, shape.hidden)
        self.embedding = read.tensor("model.embed_tokens.weight", *rows)  # [V, D]
        head = self.embedding
        if read.has("lm_head.weight"):
            head = read.tensor("lm_head.weight", *rows)
        self.head = np.empty((shape.hidden, shape.vocab), np.float32)  # [D, V]
        np.multiply(head.T, norm[:, None], out=self.head)
        self.layers = _side_by_side(shape)
        for index, layer in enumerate(self.layers):
            _fill(layer, read, f"model.layers.{index}.", shape)
        self.cos, self.sin = _rope_tables(shape)  # [context, d] each
        self.partner = _partners(shape.heads + shape.kv_heads, shape.head_dim)
        forbidden = np.full((PREFILL_CHUNK, PREFILL_CHUNK), -np.inf, np.float32)
        self._future = np.triu(forbidden, 1).T  # key after query
        self._ones = np.ones(shape.context + PREFILL_CHUNK, np.float32)

    def forward(self, tokens: Sequence[int], cache: Cache, hooks: Sequence[Hook] = ()) -> Floats:
        """Append up to PREFILL_CHUNK ``tokens`` to ``cache``; returns the logits after the last one
        [V].
        """
        logits: Floats = self._logits(self._hidden(tokens, cache, hooks)[-1:])[0]
        return logits

    def forward_all(self, tokens: Sequence[int], cache: Cache) -> Floats:
        """As :meth:`forward`; returns the logits after every token [T, V]."""
        return self._logits(self._hidden(tokens, cache))

    def _hidden(self, tokens: Sequence[int], cache: Cache, hooks: Sequence[Hook] = ()) -> Floats:
        """What the last layer leaves of ``tokens`` [T, D]."""
        shape, position = self.shape, cache.position
        cache.position = end = position + len(tokens)
        queries, rotated = shape.heads * shape.head_dim, len(self.partner)
        heads = rotated // shape.head_dim  # of q and k
        cos = _repeat(self.cos[position:end], heads)
        sin = _repeat(self.sin[position:end], heads)
        x = self.embedding[tokens]  # [T, D]
        for index, (weights, layer) in enumerate(zip(self.layers, cache.layers, strict=True)):
            for hook in hooks:
                hook.before_attention(index)
            qkv = self._normalise(x) @ weights.qkv  # [T, D] @ [D, (H + 2G) d]
            _rotate(qkv[:, :rotated], cos, sin, self.partner)
            layer.append(qkv[:, queries:])
            keys, values = layer.read()
            attended, attention = self._attend(qkv[:, :queries], keys, values)
            x += attended @ weights.out  # [T, H d] @ [H d, D]
            gate_up = self._normalise(x) @ weights.gate_up  # [T, D] @ [D, 2F]
            x += _swiglu(gate_up) @ weights.down  # [T, F] @ [F, D]
            for hook in hooks:
                hook.after_attention(index, attention)
        return x

    def _logits(self, x: Floats) -> Floats:
        logits: Floats = self._normalise(x) @ self.head  # [T, D] @ [D, V]
        return logits

    def prefill(
        self, tokens: Sequence[int], cache: KVCache, threads: int = 1, hooks: Sequence[Hook] = ()
    ) -> Floats:
        """Append a prompt of any length to an empty cache; logits after the last token.

        It is read in chunks, so that memory stays bounded, and by several threads if asked: each
        chunk follows the one before it a layer behind, since all it needs of it are the keys and
        values of the layer. The first chunk is the short one, and ``hooks`` see the last.
        """
        first = len(tokens) % PREFILL_CHUNK or PREFILL_CHUNK
        ends = range(first, len(tokens) + 1, PREFILL_CHUNK)

        def read(end: int) -> Floats:
            begin = max(0, end - PREFILL_CHUNK)
            watching: list[_AtPrompt] = []
            if end == len(tokens):
                watching = [_AtPrompt(hook) for hook in hooks]
            return self.forward(tokens[begin:end], cache.window(begin, end), watching)

        logits = map_in_order(read, ends, min(threads, len(ends)), cache.give_up)[-1]
        cache.position = len(tokens)
        return logits

    def _normalise(self, x: Floats) -> Floats:
        """RMSNorm without its weight, which is folded into the next matrix."""
        hidden, eps = self.shape.hidden, self.shape.eps
        if len(x) == 1:  # same value, fewer calls
            return x * (1 / math.sqrt(x[0].dot(x[0]) / hidden + eps))
        mean = np.add.reduce(x * x, axis=1, keepdims=True) / np.float32(hidden)
        scale: Floats = np.sqrt(mean + np.float32(eps))
        return x / scale

    def _attend(self, q: Floats, keys: Floats, values: Floats) -> tuple[Floats, Attention]:
        """Causal softmax attention of q [T, H d] over keys and values [G, L, d]; returns [T, H
        d].
        """
        new, (groups, cached, dim) = len(q), keys.shape
        heads = q.reshape(new, groups, -1, dim).transpose(1, 3, 2, 0)  # [G, d, R, T]
        columns = np.ascontiguousarray(heads).reshape(groups, dim, -1)
        weights: Floats = keys @ columns  # [G, L, d] @ [G, d, R T]
        if new > 1:
            latest = weights.reshape(groups, cached, -1, new)[:, cached - new :]
            latest += self._future[:new, None, :new]
            totals = self._softmax(weights, weights.max(axis=1, keepdims=True))
        else:
            # One maximum per KV head is faster, and does for a single token unless a head lies so
            # far below another one of its group that all its weights underflow.
            totals = self._softmax(weights, weights.max(axis=(1, 2), keepdims=True))
            if totals.min() < TINY:
                weights = keys @ columns
                totals = self._softmax(weights, weights.max(axis=1, keepdims=True))
        mixed: Floats = weights.transpose(0, 2, 1) @ values  # [G, R T, L] @ [G, L, d]
        mixed /= totals[..., None]
        by_token = mixed.reshape(groups, -1, new, dim).transpose(2, 0, 1, 3)  # [T, G, R, d]
        attended: Floats = by_token.reshape(new, -1)
        return attended, Attention(weights, totals)

    def _softmax(self, weights: Floats, shift: Floats) -> Floats:
        """Turn scores [G, L, R T] into unnormalised weights, in place; returns their totals [G, R
        T].
        """
        weights -= shift
        np.exp(weights, out=weights)
        totals: Floats = self._ones[: weights.shape[1]] @ weights  # [L] @ [G, L, R T]
        return totals


def _repeat(rows: Floats, times: int) -> Floats:
    """Each row of [T, n] several times in a row [T, times n]."""
    return rows[:, None].repeat(times, axis=1).reshape(len(rows), -1)


def _rotate(qk: Floats, cos: Floats, sin: Floats, partner: npt.NDArray[np.intp]) -> None:
    """RoPE in place on the heads of q and k [T, n]: halves (a, b) of a head become (a cos - b sin,
    b cos + a sin).
    """
    turned = qk.take(partner, axis=1)
    turned *= sin
    qk *= cos
    qk += turned


def _swiglu(gate_up: Floats) -> Floats:
    """silu(gate) * up of [T, 2F]; returns [T, F]."""
    half = gate_up.shape[1] // 2
    gate, up = gate_up[:, :half], gate_up[:, half:]
    inner: Floats = np.exp(-gate)
    inner += 1
    np.divide(up, inner, out=inner)
    inner *= gate
    return inner


def _rope_tables(shape: Architecture) -> tuple[Floats, Floats]:
    """Cosines and sines [context, d] of one head; the first half's sines are negative, as rotation
    asks.
    """
    exponents = np.arange(0, shape.head_dim, 2, dtype=np.float32) / np.float32(shape.head_dim)
    frequencies = np.float32(1) / np.float32(shape.rope_theta) ** exponents
    angles = np.outer(np.arange(shape.context, dtype=np.float32), frequencies)  # [context, d/2]
    cos, sin = np.cos(angles), np.sin(angles)
    return np.concatenate((cos, cos), axis=1), np.concatenate((-sin, sin), axis=1)


def _partners(heads: int, dim: int) -> npt.NDArray[np.intp]:
    """For every element of ``heads`` vectors of ``dim``, the one half a vector away."""
    return np.arange(heads * dim).reshape(heads, 2, dim // 2)[:, ::-1].reshape(-1)


class _Reader:
    """Tensors of one safetensors file as fp32, each checked against the shape the model needs."""

    def __init__(self, path: Path) -> None:
        from safetensors import SafetensorError  # noqa: PLC0415 - only where weights are read
        from safetensors.numpy import load_file  # noqa: PLC0415

        self._path = path
        try:
            self._tensors = load_file(path)
        except FileNotFoundError:
            raise ConfigError(f"File not exist: {path}; check llm_weight and base_dir") from None
        except (OSError, SafetensorError, ValueError) as error:
            raise ConfigError(
                f"{path}: not a safetensors file ({error}); check llm_weight"
            ) from None

    def has(self, name: str) -> bool:
        """Whether the file holds ``name``."""
        return name in self._tensors

    def stored(self, name: str, *shape: int) -> npt.NDArray[np.floating[Any]]:
        """Tensor ``name`` of the given shape, with the numbers as the file has them."""
        found = self._tensors.get(name)
        held = "nothing"
        if found is not None:
            if found.shape == shape and found.dtype.kind == "f":
                return found
            held = f"{found.dtype}{list(found.shape)}"
        raise ConfigError(
            f"{self._path}: {name}: the model needs a float tensor {list(shape)}, the file "
            f"holds {held}"
        )

    def tensor(self, name: str, *shape: int) -> Floats:
        """Tensor ``name`` as fp32 of the given shape."""
        return self.stored(name, *shape).astype(np.float32)


def _side_by_side(shape: Architecture) -> list[LayerWeights]:
    """Room for the matrices of all layers in one allocation: large enough for huge pages, which
    every token streams through faster.
    """
    hidden, inner = shape.hidden, shape.intermediate
    queries, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    sizes = [(hidden, queries + 2 * keys), (queries, hidden), (hidden, 2 * inner), (inner, hidden)]
    total = sum(math.prod(size) for size in sizes)
    block: Floats = np.empty(shape.layers * total, np.float32)
    layers: list[LayerWeights] = []
    begin = 0
    for _ in range(shape.layers):
        matrices: list[Floats] = []
        for size in sizes:
            end = begin + math.prod(size)
            matrices.append(block[begin:end].reshape(size))
            begin = end
        layers.append(LayerWeights(*matrices))
    return layers


def _fill(layer: LayerWeights, read: _Reader, prefix: str, shape: Architecture) -> None:
    """Read a layer's matrices to where they stay, transposed on the way."""
    hidden, inner = shape.hidden, shape.intermediate
    queries, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim

    def norm(name: str) -> Floats:
        return read.tensor(f"{prefix}{name}.weight", hidden)[:, None]

    def columns(name: str, size: int) -> npt.NDArray[np.floating[Any]]:
        return read.stored(f"{prefix}{name}.weight", size, hidden).T

    def times(matrix: npt.NDArray[np.floating[Any]], factor: Any, out: Floats) -> None:
        np.multiply(matrix, factor, out=out, dtype=np.float32, casting="same_kind")

    before = norm("input_layernorm")
    q, k, v = np.split(layer.qkv, (queries, queries + keys), axis=1)
    times(columns("self_attn.q_proj", queries), np.float32(shape.head_dim**-0.5), q)
    times(q, before, q)
    times(columns("self_attn.k_proj", keys), before, k)
    times(columns("self_attn.v_proj", keys), before, v)
    layer.out[:] = read.stored(f"{prefix}self_attn.o_proj.weight", hidden, queries).T
    between = norm("post_attention_layernorm")
    times(columns("mlp.gate_proj", inner), between, layer.gate_up[:, :inner])
    times(columns("mlp.up_proj", inner), between, layer.gate_up[:, inner:])
    layer.down[:] = read.stored(f"{prefix}mlp.down_proj.weight", hidden, inner).T
