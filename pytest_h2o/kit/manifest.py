"""``manifest.json``: what each launch was run with, under the original sweep's keys."""

from __future__ import annotations

from pathlib import Path

from pytest_h2o.plan.specs import LaunchSpec

# Manifest keys after run_id, prompt_len and gen_len, in the original's order, with the config keys
# they show.
H2O_KEYS = {
    "keep_ratio": "kv_h2o_target_keep_ratio",
    "block_tokens": "kv_h2o_block_tokens",
    "sink_tokens": "kv_h2o_sink_tokens",
    "recent_tokens": "kv_h2o_recent_tokens",
    "ema_alpha": "kv_h2o_ema_alpha",
    "update_interval": "kv_h2o_update_interval",
    "trigger_min_tokens": "kv_h2o_trigger_min_tokens",
    "h2o_layer_start": "kv_h2o_layer_start",
    "h2o_layer_end": "kv_h2o_layer_end",
    "h2o_target_mode": "kv_h2o_target_mode",
    "h2o_target_lossy_ratio": "kv_h2o_target_lossy_ratio",
}
LOSSLESS_KEYS = (
    "kv_lossless_enable", "kv_lossless_scope", "kv_lossless_front_n", "kv_lossless_codec",
    "kv_lossless_runtime_enable", "kv_lossless_runtime_mode", "kv_lossless_block_tokens",
    "kv_lossless_hot_recent_tokens", "kv_lossless_hot_sink_tokens", "kv_lossless_kept_sample_layers",
    "kv_lossless_kept_sample_token_interval", "kv_lossless_front_sample_token_interval",
    "kv_lossless_store_disable_front", "kv_lossless_store_bootstrap_tokens", "kv_lossless_store_grouped_step_tokens",
    "kv_lossless_codec_runtime", "kv_lossless_predictors_k", "kv_lossless_predictors_v", "kv_lossless_async_threads",
    "kv_lossless_max_queue", "kv_lossless_decode_cache_blocks", "kv_lossless_strict_roundtrip_check",
)  # fmt: skip


def manifest_entry(
    spec: LaunchSpec,
    return_code: int | None,
    *,
    config: Path,
    log: Path,
    disable_lossless: bool = False,
) -> dict[str, object]:
    """One launch, ``log`` null if it is not there; KeyError if its config lacks keys, as that of an
    H2O-off launch.
    """
    values = spec.config
    return {
        "run_id": spec.arm,
        "prompt_len": spec.prompt_tokens,
        "gen_len": spec.gen_tokens,
        **{key: values[name] for key, name in H2O_KEYS.items()},
        "disable_h2o": not values["kv_h2o_enable"],
        "disable_lossless": disable_lossless,
        "kv_h2o_enable": values["kv_h2o_enable"],
        **{key: values[key] for key in LOSSLESS_KEYS},
        "config": str(config),
        "log": str(log) if log.is_file() else None,
        "return_code": return_code,
    }
