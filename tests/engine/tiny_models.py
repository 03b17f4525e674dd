"""A tiny random model and settings under which it evicts and encodes within a few dozen tokens."""

from typing import Any

import numpy as np

TINY = {
    "model_type": "llama",
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "vocab_size": 96,
    "max_position_embeddings": 1024,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
    "tie_word_embeddings": True,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
H2O = {
    "kv_h2o_enable": True,
    "kv_h2o_layer_start": 1,
    "kv_h2o_block_tokens": 4,
    "kv_h2o_sink_tokens": 4,
    "kv_h2o_recent_tokens": 8,
    "kv_h2o_target_lossy_ratio": 2.0,
    "kv_h2o_update_interval": 4,
    "kv_h2o_trigger_min_tokens": 40,
}
LOSSLESS = {
    "kv_lossless_enable": True,
    "kv_lossless_runtime_enable": True,
    "kv_lossless_runtime_mode": "full",
    "kv_lossless_scope": "front_n_and_h2o_kept",
    "kv_lossless_front_n": 1,
    "kv_lossless_codec": "gear_delta",
    "kv_lossless_block_tokens": 32,
    "kv_lossless_hot_recent_tokens": 24,
    "kv_lossless_hot_sink_tokens": 2,
    "kv_lossless_kept_sample_layers": 0,
    "kv_lossless_store_bootstrap_tokens": 32,
    "kv_lossless_store_grouped_step_tokens": 40,
    "kv_h2o_update_interval": 4,
    "kv_h2o_trigger_min_tokens": 40,
    "kv_h2o_layer_start": 1,
}


def random_weights(model: dict[str, Any], seed: int = 0) -> dict[str, np.ndarray]:
    """fp16 tensors under their usual names; large enough that attention is far from uniform."""
    rng = np.random.default_rng(seed)
    hidden, inner, dim = model["hidden_size"], model["intermediate_size"], model["head_dim"]
    queries, keys = model["num_attention_heads"] * dim, model["num_key_value_heads"] * dim
    shapes = {
        "model.embed_tokens.weight": (model["vocab_size"], hidden),
        "model.norm.weight": (hidden,),
    }
    for layer in range(model["num_hidden_layers"]):
        prefix = f"model.layers.{layer}."
        shapes |= {
            prefix + "input_layernorm.weight": (hidden,),
            prefix + "post_attention_layernorm.weight": (hidden,),
            prefix + "self_attn.q_proj.weight": (queries, hidden),
            prefix + "self_attn.k_proj.weight": (keys, hidden),
            prefix + "self_attn.v_proj.weight": (keys, hidden),
            prefix + "self_attn.o_proj.weight": (hidden, queries),
            prefix + "mlp.gate_proj.weight": (inner, hidden),
            prefix + "mlp.up_proj.weight": (inner, hidden),
            prefix + "mlp.down_proj.weight": (hidden, inner),
        }
    scale = 1.5 / np.sqrt(hidden)
    return {
        name: (
            rng.normal(0, scale, shape) if len(shape) == 2 else rng.uniform(0.5, 1.5, shape)
        ).astype(np.float16)
        for name, shape in shapes.items()
    }
