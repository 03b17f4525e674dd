"""Options of the offline evaluation."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_h2o.offline import OfflineError
from pytest_h2o.offline.options import OfflineOptions, online_sim_options, upper_bound_options


@pytest.mark.parametrize(
    ("name", "value", "others"),
    [
        ("stage", "all", {}),
        ("scope", "some", {}),
        ("entry_mode", "x", {}),
        ("codec_mode", "x", {}),
        ("front_n", 0, {}),
        ("layer_start", -1, {}),
        ("layer_end", 1, {"layer_start": 2}),
        ("layer_ids", (), {"scope": "layer_ids"}),
        ("zstd_level", 0, {}),
        ("zstd_level", 23, {}),
        ("min_seq_len", -1, {}),
        ("max_seq_len", -1, {}),
        ("online_framing_bytes", -1, {}),
        ("adaptive_block_seq", 0, {}),
        ("threads", -1, {}),
        ("k_hi_predictors", (), {}),
        ("v_lo_predictors", ("raw", "nonsense"), {}),
    ],
)
def test_errors_name_the_option(name: str, value: Any, others: dict[str, Any]) -> None:
    """A value that makes no sense is refused, and the message starts with the option's name."""
    with pytest.raises(OfflineError, match=f"^{name}: "):
        OfflineOptions(**{name: value}, **others)


def test_duplicate_predictors_are_dropped() -> None:
    """The order of first mention stays: it breaks ties."""
    assert OfflineOptions(k_lo_predictors=("xor_seq", "raw", "xor_seq")).k_lo_predictors == (
        "xor_seq",
        "raw",
    )


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (OfflineOptions(front_n=2), [0, 1]),
        (OfflineOptions(scope="layer_range", layer_start=1, layer_end=2), [1, 2]),
        (OfflineOptions(scope="layer_range", layer_start=2), [2, 3]),
        (OfflineOptions(scope="layer_ids", layer_ids=(3, 0)), [0, 3]),
    ],
)
def test_scopes(options: OfflineOptions, expected: list[int]) -> None:
    """Each scope selects its layers, ranges include their end."""
    assert [layer for layer in range(-1, 4) if options.in_scope(layer)] == expected


def test_lengths() -> None:
    """Both limits are inclusive, and a maximum of 0 is none."""
    options = OfflineOptions(min_seq_len=2, max_seq_len=3)
    assert [length for length in range(6) if options.wants_length(length)] == [2, 3]
    assert OfflineOptions().wants_length(1 << 30)


def test_gate_settings() -> None:
    """The gated number is coded in chunks with prefill and decode mixed, the bound in one piece per
    stage.
    """
    gated = online_sim_options(4, chunk_seq=128)
    assert (gated.front_n, gated.entry_mode, gated.aggregate_by_stage) == (
        4,
        "chunked_grouped",
        False,
    )
    assert (gated.online_chunk_seq, gated.online_framing_bytes, gated.adaptive_block_seq) == (
        128,
        8,
        64,
    )
    bound = upper_bound_options(3)
    assert (bound.front_n, bound.entry_mode, bound.aggregate_by_stage) == (3, "aggregate", True)
    assert (bound.adaptive_block_seq, bound.zstd_level, bound.stage) == (64, 3, "both")
    assert gated.verify
    assert bound.verify


def test_legacy_predictors() -> None:
    """The legacy codec mode fixes the predictors whatever the lists say."""
    options = OfflineOptions(codec_mode="legacy", k_hi_predictors=("raw",))
    assert [options.predictors("k", plane) for plane in ("hi", "lo")] == [("delta_seq",), ("raw",)]
    assert OfflineOptions(v_hi_predictors=("raw",)).predictors("v", "hi") == ("raw",)
