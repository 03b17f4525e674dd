"""Every kv_* key has its effect: two values of it, and what differs between the two runs."""

import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, fields

import pytest
from tiny_models import H2O, LOSSLESS

from pytest_h2o.codec import CodecError
from pytest_h2o.engine import block_coder
from pytest_h2o.engine.config import ConfigError, H2OSettings, LosslessSettings
from pytest_h2o.engine.generate import Engine
from pytest_h2o.engine.response import Metrics


@dataclass(frozen=True)
class Run:
    """What one response showed."""

    tokens: tuple[int, ...]
    metrics: Metrics
    text: str

    @property
    def blocks(self) -> set[tuple[int, int, int]]:
        """Layer, begin and size of everything that was encoded."""
        return {
            tuple(map(int, found))
            for found in re.findall(
                r"LOSSLESS\] layer=(\d+) kv=\d+ start=(\d+) tokens=(\d+)", self.text
            )
        }

    def lengths(self, layer: int) -> set[int]:
        """Lengths of a layer's cache when it encoded."""
        return {
            int(length) for length in re.findall(rf"LOSSLESS\] layer={layer} kv=(\d+)", self.text)
        }

    @property
    def layers(self) -> set[int]:
        """Layers that encoded."""
        return {layer for layer, _, _ in self.blocks}

    @property
    def sizes(self) -> set[int]:
        """Block sizes that were encoded."""
        return {size for _, _, size in self.blocks}

    @property
    def evicting(self) -> set[int]:
        """Layers that evicted."""
        return {int(layer) for layer in re.findall(r"\[H2O\] layer=(\d+)", self.text)}


STATIC = {"kv_h2o_target_mode": "static", "kv_h2o_target_keep_ratio": 0.6}
INLINE = {"kv_lossless_async_threads": 0}
STORE = {"kv_lossless_runtime_mode": "store"}
Check = Callable[[Run, Run], bool]
H2O_ROWS: list[tuple[str, dict, object, object, Check]] = [
    ("enable", {}, False, True, lambda a, b: a.evicting == set() and b.evicting == {1, 2, 3}),
    ("layer_start", {}, 1, 3, lambda a, b: (a.evicting, b.evicting) == ({1, 2, 3}, {3})),
    ("layer_end", {}, -1, 2, lambda a, b: (a.evicting, b.evicting) == ({1, 2, 3}, {1, 2})),
    ("block_tokens", {}, 4, 16, lambda a, b: a.metrics.quantized_keep < b.metrics.quantized_keep),
    ("sink_tokens", {}, 4, 20, lambda a, b: a.metrics.floor_keep < b.metrics.floor_keep),
    ("recent_tokens", {}, 8, 20, lambda a, b: a.metrics.floor_keep < b.metrics.floor_keep),
    ("target_keep_ratio", STATIC, 0.4, 0.8, lambda a, b: a.metrics.keep < 0.6 < b.metrics.keep),
    (
        "target_mode",
        STATIC,
        "adaptive",
        "static",
        lambda a, b: a.metrics.keep < 0.55 < b.metrics.keep,
    ),
    ("target_lossy_ratio", {}, 1.5, 3.0, lambda a, b: a.metrics.lossy < 2 < b.metrics.lossy),
    ("ema_alpha", {}, 0.0, 1.0, lambda a, b: a.tokens != b.tokens),
    (
        "update_interval",
        {},
        4,
        12,
        lambda a, b: a.metrics.evictions_applied > b.metrics.evictions_applied,
    ),
    ("trigger_min_tokens", {}, 40, 500, lambda a, b: a.evicting != b.evicting == set()),
    ("log_stats", {}, False, True, lambda a, b: a.text == "" != b.text),
    ("policy", {}, "h2o", "window", lambda a, b: a.tokens != b.tokens),
]
LOSSLESS_ROWS: list[tuple[str, dict, object, object, Check]] = [
    ("enable", {}, False, True, lambda a, b: a.layers == set() != b.layers),
    ("runtime_enable", {}, False, True, lambda a, b: a.layers == set() != b.layers),
    ("scope", {}, "none", "front_n", lambda a, b: (a.layers, b.layers) == (set(), {0})),
    (
        "scope", {}, "h2o_kept", "front_n+h2o_kept",
        lambda a, b: (a.layers, b.layers) == ({1, 2, 3}, {0, 1, 2, 3}),
    ),
    (
        "front_n", {"kv_lossless_scope": "front_n"}, 1, 3,
        lambda a, b: (a.layers, b.layers) == ({0}, {0, 1, 2}),
    ),
    (
        "runtime_mode", {}, "probe", "full",
        lambda a, b: (a.layers, b.layers) == ({0, 1}, {0, 1, 2, 3}),
    ),
    ("runtime_mode", {}, "full", "store", lambda a, b: "mode=1" in a.text and "mode=2" in b.text),
    ("block_tokens", {}, 32, 48, lambda a, b: (a.sizes, b.sizes) == ({32}, {48})),
    ("hot_recent_tokens", {}, 24, 60, lambda a, b: min(a.blocks)[1] - min(b.blocks)[1] == 36),
    ("hot_sink_tokens", {}, 2, 120, lambda a, b: min(a.blocks)[1] < 120 <= min(b.blocks)[1]),
    ("kept_sample_layers", {}, 1, 0, lambda a, b: (a.layers, b.layers) == ({0, 1}, {0, 1, 2, 3})),
    (
        "kept_sample_token_interval", INLINE, 1, 7,
        lambda a, b: (a.lengths(1), b.lengths(1)) == ({161, 193}, {161, 196}),
    ),
    (
        "front_sample_token_interval", INLINE, 1, 7,
        lambda a, b: (a.lengths(0), b.lengths(0)) == ({161, 193}, {161, 196}),
    ),
    (
        "store_disable_front", STORE, False, True,
        lambda a, b: (a.layers, b.layers) == ({0, 1, 2, 3}, {1, 2, 3}),
    ),
    ("store_bootstrap_tokens", STORE, 32, 0, lambda a, b: 32 in a.sizes and 16 in b.sizes),
    (
        "store_grouped_step_tokens", STORE, 40, 44,
        lambda a, b: 40 in a.sizes - b.sizes and 44 in b.sizes - a.sizes,
    ),
    (
        "codec_runtime", {"kv_lossless_predictors_k": "delta_seq"}, "fp16_gear_predictive_v3",
        "fp16_gear_seq_v1",
        lambda a, b: a.blocks == b.blocks and a.metrics.comp_bytes != b.metrics.comp_bytes,
    ),
    ("predictors_k", {}, "xor_seq", "", lambda a, b: a.metrics.comp_bytes != b.metrics.comp_bytes),
    (
        "predictors_v", {}, "delta_seq", "raw",
        lambda a, b: a.metrics.comp_bytes != b.metrics.comp_bytes,
    ),
    (
        "async_threads", {}, 0, 2,
        lambda a, b: a.metrics.async_queue_peak == 0 < b.metrics.async_queue_peak,
    ),
    (
        "decode_cache_blocks", STORE | INLINE, 0, 64,
        lambda a, b: a.metrics.cache_hit == 0 < b.metrics.cache_hit,
    ),
]  # fmt: skip


def observe(engine: Engine, prompt: list[int], capsys: pytest.CaptureFixture[str]) -> Run:
    """One response of 48 tokens."""
    capsys.readouterr()
    response = engine.respond(prompt, 48)
    return Run(response.tokens, response.metrics, capsys.readouterr().out)


@pytest.mark.parametrize(
    ("prefix", "row"),
    [("h2o", row) for row in H2O_ROWS] + [("lossless", row) for row in LOSSLESS_ROWS],
)
def test_key(
    make_engine: Callable[..., Engine],
    prompt: list[int],
    capsys: pytest.CaptureFixture[str],
    prefix: str,
    row: tuple[str, dict, object, object, Check],
) -> None:
    """Two values of one key, everything else equal, differ in what the key is for."""
    name, more, first, second, differs = row
    base = {"kv_h2o_log_stats": True} | (H2O if prefix == "h2o" else LOSSLESS) | more
    key = f"kv_{prefix}_{name}"
    left, right = (
        observe(make_engine(base, {key: value}), prompt, capsys) for value in (first, second)
    )
    assert differs(left, right)


def test_strict_roundtrip_check(
    make_engine: Callable[..., Engine], prompt: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The strict check stores a hash of the raw values with every block."""
    asked = []
    encode = block_coder.encode_block
    monkeypatch.setattr(
        block_coder,
        "encode_block",
        lambda *args, **kw: asked.append(kw["hash_raw"]) or encode(*args, **kw),
    )
    for strict in (False, True):
        make_engine(LOSSLESS, kv_lossless_strict_roundtrip_check=strict).respond(prompt, 2)
    assert asked == [False] * 4 + [True] * 4


def test_max_queue(
    make_engine: Callable[..., Engine], prompt: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the worker is stuck the queue takes that many blocks and no more."""
    gate, seen = threading.Event(), []

    def stuck(*args: object, **settings: object) -> None:
        gate.wait(10)
        raise CodecError("no")

    def emit(token: int) -> None:
        seen.append(token)
        if len(seen) % 3 == 0:
            gate.set()

    monkeypatch.setattr(block_coder, "encode_block", stuck)
    peaks = []
    for room in (1, 3):
        gate.clear()
        engine = make_engine(LOSSLESS, kv_lossless_max_queue=room)
        peaks.append(engine.respond(prompt, 3, emit=emit).metrics.async_queue_peak)
    assert peaks == [1, 3]


def test_codec(make_engine: Callable[..., Engine], prompt: list[int]) -> None:
    """With a codec blocks are encoded; without one, asking for lossless coding is refused."""
    assert (
        make_engine(LOSSLESS, kv_lossless_codec="gear_delta").respond(prompt, 8).metrics.blocks > 0
    )
    with pytest.raises(
        ConfigError, match="kv_lossless_codec: 'none' contradicts kv_lossless_runtime_enable"
    ):
        make_engine(LOSSLESS, kv_lossless_codec="none")


ORIGINAL = """
    h2o: enable layer_start layer_end block_tokens sink_tokens recent_tokens target_keep_ratio
    target_mode target_lossy_ratio ema_alpha update_interval trigger_min_tokens log_stats
    lossless: enable scope front_n codec runtime_enable runtime_mode block_tokens hot_recent_tokens
    hot_sink_tokens kept_sample_layers kept_sample_token_interval front_sample_token_interval
    store_disable_front store_bootstrap_tokens store_grouped_step_tokens codec_runtime predictors_k
    predictors_v async_threads max_queue decode_cache_blocks strict_roundtrip_check
"""


def test_no_key_is_forgotten() -> None:
    """The tables above and the three tests of their own hold every key there is, the original's all
    among them.
    """
    h2o, lossless = (set(part.split()) for part in ORIGINAL.split("h2o:")[1].split("lossless:"))
    assert (
        {name for name, *_ in H2O_ROWS}
        == {field.name for field in fields(H2OSettings)}
        == h2o | {"policy"}
    )
    tested = {name for name, *_ in LOSSLESS_ROWS} | {"codec", "strict_roundtrip_check", "max_queue"}
    assert tested == {field.name for field in fields(LosslessSettings)} == lossless
