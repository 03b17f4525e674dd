"""A model made by hand that continues whatever it has read before: an induction head.

One layer writes beside each token the three before it; a later one attends to where the same three
tokens stood, and predicts what followed (Olsson et al., In-context Learning and Induction Heads,
2022). Nothing is trained, so that a test knows what it must do.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save_file

from pytest_h2o.data import bundled

# A prompt in which no other passage goes on like the one that is repeated.
SETTINGS = ("DECODE_TOKENS=48", "RELATION_TOKENS=48", "THREADS=1", "UNSEEN_SEED=3")
PART = 64
# Rows of the residual stream: the token, a constant, and the three tokens before it.
TOKEN, ALWAYS, BEFORE = 0, PART, [2 * PART, 3 * PART, 4 * PART]
HIDDEN, HEAD_DIM, HEADS, LAYERS, INNER, VOCAB = 5 * PART, 6 * PART, 3, 8, 16, 4096
PAIRS = HEAD_DIM // 2
# So that the later pairs hardly turn over thousands of tokens.
THETA, SLOW = 1e10, PAIRS // 2
LOOKS_BACK, COPIES = 3, 5
NEAR, SAME = 8.0, 8.0
Weights = npt.NDArray[np.float32]


def copying_model(folder: Path) -> Path:
    """Write the model to ``folder``; returns its config for the engine."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {"model.norm.weight": np.ones(HIDDEN, np.float32)}
    tensors["model.embed_tokens.weight"] = _embedding()
    for index in range(LAYERS):
        layer = _nothing()
        if index == LOOKS_BACK:
            _look_back(layer)
        if index == COPIES:
            _copy(layer)
        for name, tensor in layer.items():
            tensors[f"model.layers.{index}.{name}.weight"] = tensor
    halves = {name: tensor.astype(np.float16) for name, tensor in tensors.items()}
    save_file(halves, folder / "model.safetensors")
    weights = bundled("engine/weights")
    shutil.copy(weights / "tokenizer.model", folder)
    shape = json.loads((weights / "config.json").read_text())
    shape |= {
        "hidden_size": HIDDEN,
        "intermediate_size": INNER,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": HEADS,
        "head_dim": HEAD_DIM,
        "rope_theta": THETA,
    }
    (folder / "config.json").write_text(json.dumps(shape))
    config = folder / "copying.json"
    config.write_text((weights / "h2o.json").read_text())
    return config


def _embedding() -> Weights:
    """Each token a direction of its own, beside a constant."""
    rows = np.zeros((VOCAB, HIDDEN), np.float32)
    directions = np.random.default_rng(1).standard_normal((VOCAB, PART))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    rows[:, TOKEN : TOKEN + PART] = directions
    rows[:, ALWAYS] = 1
    return rows


def _nothing() -> dict[str, Weights]:
    """The matrices of a layer that adds nothing."""
    width = HEADS * HEAD_DIM
    shapes = {
        "self_attn.q_proj": (width, HIDDEN),
        "self_attn.k_proj": (width, HIDDEN),
        "self_attn.v_proj": (width, HIDDEN),
        "self_attn.o_proj": (HIDDEN, width),
        "mlp.gate_proj": (INNER, HIDDEN),
        "mlp.up_proj": (INNER, HIDDEN),
        "mlp.down_proj": (HIDDEN, INNER),
    }
    layer = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    for name in ("input_layernorm", "post_attention_layernorm"):
        layer[name] = np.ones(HIDDEN, np.float32)
    return layer


def _look_back(layer: dict[str, Weights]) -> None:
    """Each head attends to one of the tokens before, by position alone.

    RoPE turns the pair ``i`` by an angle a token, so that a key turned ahead by one token's angle
    meets the query of the next token.
    """
    fast, token = np.arange(SLOW), np.arange(PART)
    angles = THETA ** (-fast / PAIRS)
    for head, part in enumerate(BEFORE):
        first = head * HEAD_DIM
        layer["self_attn.q_proj"][first + fast, ALWAYS] = NEAR
        layer["self_attn.k_proj"][first + fast, ALWAYS] = np.cos((head + 1) * angles)
        layer["self_attn.k_proj"][first + fast + PAIRS, ALWAYS] = np.sin((head + 1) * angles)
        layer["self_attn.v_proj"][first + token, TOKEN + token] = 1
        layer["self_attn.o_proj"][part + token, first + token] = 0.1


def _copy(layer: dict[str, Weights]) -> None:
    """One head attends to where the present token and the two before it stood before, and adds the
    token that is there. The pairs that it uses hardly turn, so that distance does not matter.
    """
    token = np.arange(PART)
    slow = np.concatenate([SLOW + np.arange(SLOW), SLOW + np.arange(SLOW) + PAIRS])
    present = [TOKEN, *BEFORE[:-1]]
    for turn, (own, earlier) in enumerate(zip(present, BEFORE, strict=True)):
        rows = slow[turn * PART + token]
        layer["self_attn.q_proj"][rows, own + token] = SAME
        layer["self_attn.k_proj"][rows, earlier + token] = 1
    layer["self_attn.v_proj"][token, TOKEN + token] = 1
    layer["self_attn.o_proj"][TOKEN + token, token] = 1
