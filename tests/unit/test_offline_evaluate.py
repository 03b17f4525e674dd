"""The offline evaluator: recorded results of the original, a second implementation, and the
original's defects.
"""

from __future__ import annotations

import json
import os
import tarfile
import threading
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from offline_dumps import kv, naive_sizes, write_entry

from pytest_h2o.codec import CodecError
from pytest_h2o.codec.tensors import PlaneCoding, encode_tensors
from pytest_h2o.offline import OfflineError, batches, coding
from pytest_h2o.offline import evaluate as evaluator
from pytest_h2o.offline.evaluate import evaluate
from pytest_h2o.offline.options import (
    COMPATIBLE_MODES,
    ENTRY_MODES,
    K_PREDICTORS,
    ROW_CODECS,
    V_PREDICTORS,
    OfflineOptions,
    online_sim_options,
    upper_bound_options,
)

RECORDED = Path(__file__).parents[1] / "data" / "offline"
EXPECTED: dict[str, dict[str, Any]] = json.loads((RECORDED / "expected.json").read_text())
GROUPED = OfflineOptions(entry_mode="chunked_grouped", online_chunk_seq=4, online_framing_bytes=8)
Array = npt.NDArray[Any]


@pytest.fixture(scope="module")
def recorded_dumps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The two dumps a real runtime wrote, one of the embedded runtime, and a made one."""
    folder = tmp_path_factory.mktemp("dumps")
    for name in ("kv_dump", "embedded_dump"):
        with tarfile.open(RECORDED / f"{name}.tar.gz") as archive:
            archive.extractall(folder, filter="data")
    write_made_dump(folder / "made")
    return folder


def write_made_dump(root: Path) -> None:
    """K that drifts around large channel means, V that depends on the token; prompts, and decoded
    tokens one by one.
    """
    rng = np.random.default_rng(0)
    means, table = (
        rng.normal(size=(4, 64)) * rng.lognormal(sigma=1.5, size=(4, 64)),
        rng.normal(size=(400, 4, 64)),
    )
    for run in range(4):
        tokens = np.minimum(rng.zipf(1.2, 408), 400) - 1
        k = (
            means
            + 0.1
            * rng.normal(size=(408, 4, 64)).cumsum(axis=0)
            / np.sqrt(1 + np.arange(408))[:, None, None]
        )
        values = np.stack([k, table[tokens]]).astype("<f2")
        for start, stop in ((0, 400), *((at, at + 1) for at in range(400, 408))):
            write_entry(root, values[:, start:stop], run=f"r{run}", start=start)


@pytest.mark.parametrize("name", EXPECTED)
def test_numbers_of_the_original(name: str, recorded_dumps: Path) -> None:
    """Every number the original evaluator computed is met exactly, and everything decodes."""
    case = EXPECTED[name]
    options = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in case["options"].items()
    }
    values = evaluate(recorded_dumps / case["dump"], OfflineOptions(**options)).to_json()
    assert {key: values[key] for key in case["expected"]} == case["expected"]
    assert values["verified"]
    assert (
        abs(values["container_bytes"] - values["compressed_bytes"])
        <= 0.05 * values["compressed_bytes"]
    )


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.lists(st.integers(1, 14), min_size=1, max_size=4), min_size=1, max_size=3),
    st.sampled_from(ENTRY_MODES),
    st.sampled_from(COMPATIBLE_MODES),
    st.builds(dict, threads=st.integers(1, 3), adaptive_block_seq=st.sampled_from([1, 3, 64])),
)
def test_second_implementation(
    tmp_path_factory: pytest.TempPathFactory,
    runs: list[list[int]],
    entry_mode: str,
    codec_mode: str,
    others: dict[str, int],
) -> None:
    """On any small dump the sizes are those of the straightforward implementation, however many
    threads work.
    """
    root = tmp_path_factory.mktemp("dump")
    for run, lengths in enumerate(runs):
        for start, length in zip(np.cumsum([0, *lengths]), lengths, strict=False):
            write_entry(root, kv(length, dim=5, seed=run), run=f"r{run}", start=int(start))
    options = OfflineOptions(
        entry_mode=entry_mode, codec_mode=codec_mode, online_chunk_seq=5, **others
    )
    values = evaluate(root, options).to_json()
    found = tuple(
        values[name] for name in ("raw_bytes", "k_compressed_bytes", "v_compressed_bytes")
    )
    assert found == naive_sizes(root, options)


@pytest.mark.parametrize("codec", ROW_CODECS)
@pytest.mark.parametrize("bitshuffle", [False, True])
def test_no_frame_outgrows_its_planes(codec: str, bitshuffle: bool, recorded_dumps: Path) -> None:
    """On a recorded dump no layer takes more than a byte a frame above the compatible mode."""
    options = replace(online_sim_options(8), codecs=(codec,), bitshuffle=bitshuffle)
    found = evaluate(recorded_dumps / "kv_dump" / "fp16", options)
    for tally in found.tensors.values():
        frames = tally.meta_bytes // options.online_framing_bytes
        assert tally.rows[codec].compressed_bytes <= tally.compressed_bytes + frames


@pytest.mark.parametrize("dump", ["kv_dump/fp16", "embedded", "made"])
@pytest.mark.parametrize(
    "options", [online_sim_options(100), upper_bound_options(2), OfflineOptions(bitshuffle=True)]
)
def test_fast_is_nearly_as_small(dump: str, options: OfflineOptions, recorded_dumps: Path) -> None:
    """Ranking predictors by entropy costs at most 0.5 % of the ratio, and what it chose decodes
    just as well.
    """
    compatible = evaluate(recorded_dumps / dump, options)
    fast = evaluate(recorded_dumps / dump, replace(options, fast=True))
    assert fast.tally().ratio >= 0.995 * compatible.tally().ratio
    assert fast.tally().raw_bytes == compatible.tally().raw_bytes
    assert not fast.skipped
    assert fast.options.verify


def test_fast_finds_the_predictor(tmp_path: Path) -> None:
    """Where a predictor helps much, the estimate finds it: K that grows evenly is all deltas."""
    ramp = np.arange(256, dtype="<u2")[:, None, None] + np.arange(16, dtype="<u2") * 64
    noise = np.random.default_rng(0).integers(0, 1 << 14, (256, 1, 16)).astype("<u2")
    write_entry(tmp_path, np.stack([ramp, noise]).view("<f2"))
    result = evaluate(tmp_path, OfflineOptions(fast=True))
    assert result.mode_counts("k", "lo")["delta_seq"] == 4
    assert result.mode_counts("v", "lo")["raw"] == 4


def test_containers_are_counted_as_they_are(tmp_path: Path) -> None:
    """The ratio of the containers is that of the bytes ``encode_tensors`` gives, index of entries
    included.
    """
    first, second = kv(3), kv(4, seed=1)
    write_entry(tmp_path, first)
    write_entry(tmp_path, second, start=3)
    result = evaluate(tmp_path, OfflineOptions(entry_mode="aggregate"))
    words = np.concatenate([first, second], axis=1).view("<u2")
    size = 0
    for tensor, names in zip(words, (K_PREDICTORS, V_PREDICTORS), strict=True):
        (encoded,) = encode_tensors(
            tensor, [(3, 4)], PlaneCoding(names, 64), PlaneCoding(names, 64)
        )
        size += len(encoded.to_bytes())
    assert result.tally().container_bytes == size
    assert result.tally().container_ratio == words.nbytes / size


# What the original got wrong.


@pytest.fixture
def fail_on_nine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Coding fails for tensors with a row that begins with 9."""

    def encode(words: Array, *arguments: Any) -> Any:
        if (words[:, 0, 0] == 9).any():
            raise CodecError("no luck")
        return encode_tensors(words, *arguments)

    monkeypatch.setattr(coding, "encode_tensors", encode)


@pytest.mark.usefixtures("fail_on_nine")
@pytest.mark.parametrize("entry_mode", ENTRY_MODES)
@pytest.mark.parametrize("tensor", [0, 1])
def test_failed_groups_do_not_raise_the_ratio(tmp_path: Path, entry_mode: str, tensor: int) -> None:
    """O1: the original counted the raw bytes of a failed group but no compressed bytes, doubling
    the ratio here.
    """
    write_entry(tmp_path, kv(4), run="good")
    alone = evaluate(tmp_path, OfflineOptions(entry_mode=entry_mode)).tally().to_json()
    bad = kv(4)
    bad.view("<u2")[tensor, 0, 0, 0] = 9
    write_entry(tmp_path, bad, run="bad")
    result = evaluate(tmp_path, OfflineOptions(entry_mode=entry_mode))
    assert result.tally().to_json() == alone  # ours
    assert result.to_json()["skip_reasons"] == {"compression_failed": 1}
    assert (result.evaluated_share, result.evaluated_byte_share) == (0.5, 0.5)
    original = (result.tally().raw_bytes + bad.nbytes) / result.tally().compressed_bytes
    assert original == 2 * result.to_json()["lossless_ratio"]


@pytest.mark.parametrize("entry_mode", ["aggregate", "chunked_grouped"])
def test_one_bad_entry_does_not_discard_its_group(tmp_path: Path, entry_mode: str) -> None:
    """O2: only the damaged entry is lost. The original lost the group, here everything: ratio 0, "1
    skipped" of 3.
    """
    options = OfflineOptions(entry_mode=entry_mode)
    for start in (0, 8):
        write_entry(tmp_path, kv(4, seed=start), start=start)
    raw, k, v = naive_sizes(tmp_path, replace(options, online_framing_bytes=16))
    bad = write_entry(tmp_path, kv(4, seed=4), start=4)
    (bad.parent / "k_t4_8.bin").write_bytes(b"short")
    values = evaluate(tmp_path, options).to_json()
    original = {"lossless_ratio": 0.0, "evaluated_entries": 0, "skipped_entries": 1}
    ours = {"lossless_ratio": raw / (k + v), "evaluated_entries": 2, "skipped_entries": 1}
    assert {key: values[key] for key in original} == ours
    assert values["selected_entries"] == 3
    (skipped,) = values["skipped"]
    assert skipped["name"] == "run/layer_0/meta_t4_8.json"
    assert (skipped["reason"], skipped["detail"].partition(": ")[2]) == (
        "size_mismatch",
        "5 bytes, expected 128",
    )


def test_failures_spread_over_a_group_count_entries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """O2: when a joined group cannot be coded, each of its 3 entries is named once; the original
    counted 1.
    """

    def fail(*_: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr(coding, "encode_tensors", fail)
    for start in (0, 3, 6):
        write_entry(tmp_path, kv(3, seed=start), start=start)
    values = evaluate(tmp_path, GROUPED).to_json()
    assert (values["skip_reasons"], values["evaluated_share"]) == ({"compression_failed": 3}, 0.0)
    assert (values["lossless_ratio"], values["container_ratio"], values["verified"]) == (
        0.0,
        None,
        False,
    )


def test_casts_are_reported_as_loss(tmp_path: Path) -> None:
    """O3: the original called rounding fp32 to fp16 lossless: 2 entries converted, 0 values lost.
    Here 1 is lost, and the bytes of the source stand beside the fp16 bytes that the ratio counts.
    """
    exact, rounded = kv(3).astype("<f4"), kv(3, seed=1).astype("<f4")
    rounded[0, 0, 0, 0] = 0.1
    write_entry(tmp_path / "fp32", exact)
    clean = evaluate(tmp_path / "fp32", GROUPED).to_json()
    assert (clean["converted_fp32_entries"], clean["lossless"], clean["changed_values"]) == (
        1,
        True,
        0,
    )
    assert (clean["raw_bytes"], clean["source_bytes"]) == (exact.nbytes // 2, exact.nbytes)
    write_entry(tmp_path / "fp32", rounded, start=3)
    lossy = evaluate(tmp_path / "fp32", GROUPED).to_json()
    assert (lossy["converted_fp32_entries"], lossy["lossless"]) == (2, False)
    assert (lossy["changed_entries"], lossy["changed_values"]) == (1, 1)
    for start, values in ((0, exact), (3, rounded)):
        write_entry(tmp_path / "fp16", values.astype("<f2"), start=start)
    raw, k, v = naive_sizes(tmp_path / "fp16", GROUPED)
    assert lossy["lossless_ratio"] == raw / (k + v)  # what the original called lossless


def test_odd_fp32_size_skips_one_entry(tmp_path: Path) -> None:
    """O4: the original gave no number at all on an fp32 file whose size is no multiple of 4; the
    others count here.
    """
    write_entry(tmp_path, kv(3))
    raw, k, v = naive_sizes(tmp_path, GROUPED)
    bad = write_entry(tmp_path, kv(3, kind="<f4"), start=3)
    data = bytes(range(191))
    (bad.parent / "v_t3_6.bin").write_bytes(data)
    with pytest.raises(ValueError, match="multiple of element size"):
        np.frombuffer(data, "<f4")  # where the original ended
    values = evaluate(tmp_path, GROUPED).to_json()
    assert values["skip_reasons"] == {"size_mismatch": 1}
    assert values["lossless_ratio"] == raw / (k + v)


def test_what_does_not_decode_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """O5: the original never decoded, so a codec that gives other words back kept its ratio; here
    it is no result.
    """
    write_entry(tmp_path, kv(3))
    raw, k, v = naive_sizes(tmp_path, OfflineOptions())
    decode = coding.decode_tensors

    def flip(*arguments: Any) -> Any:
        words = decode(*arguments)
        words[0, 0, 0] ^= 1
        return words

    monkeypatch.setattr(coding, "decode_tensors", flip)
    values = evaluate(tmp_path, OfflineOptions()).to_json()
    assert (values["lossless_ratio"], values["skip_reasons"]) == (0.0, {"compression_failed": 1})
    assert values["skipped"][0]["detail"] == "v: the decoded tensor differs from its source"
    unverified = evaluate(tmp_path, OfflineOptions(verify=False)).to_json()
    assert (unverified["verified"], unverified["evaluated_entries"]) == (False, 1)
    assert unverified["lossless_ratio"] == raw / (k + v)  # the original's number


def test_gaps_overlaps_and_mixed_stages(tmp_path: Path) -> None:
    """O6: the original joined without a look and said nothing; the same bytes are coded here, and
    the findings counted
    per run and layer: 3 of the 12 tokens are there twice.
    """
    for start, length in (
        (0, 4),
        (2, 4),
        (3, 1),
        (9, 1),
    ):  # overlaps by 2 and 1, then 3 tokens are missing
        write_entry(tmp_path, kv(length, seed=start), start=start)
    write_entry(tmp_path, kv(2), run="other", start=100)
    result = evaluate(tmp_path, GROUPED)
    found = result.continuity
    assert (found.sequence_overlaps, found.sequence_overlap_tokens) == (2, 3)
    assert (found.sequence_gaps, found.sequence_gap_tokens) == (1, 3)
    assert found.mixed_stage_groups == 1
    raw, k, v = naive_sizes(tmp_path, GROUPED)
    assert (result.tally().raw_bytes, result.tally().compressed_bytes) == (
        raw,
        k + v,
    )  # the original's numbers
    assert raw == kv(12).nbytes


@pytest.mark.parametrize("entry_mode", ENTRY_MODES)
def test_memory_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, entry_mode: str
) -> None:
    """O7: the original held the whole dump, 16 MiB here; ours needs less than a third, for it reads
    as it codes.
    """
    monkeypatch.setattr(evaluator, "_IN_FLIGHT_BYTES", 1 << 20)
    monkeypatch.setattr(batches, "_BATCH_BYTES", 1 << 18)
    for run in range(64):
        write_entry(tmp_path, kv(64, heads=16, dim=64, seed=run), run=f"r{run}")
    options = OfflineOptions(
        entry_mode=entry_mode, codec_mode="legacy", zstd_level=1, verify=False, threads=2
    )
    evaluate(tmp_path, options)  # compressors allocate once
    tracemalloc.start()
    raw = evaluate(tmp_path, options).tally().raw_bytes
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert raw == 64 << 18
    assert peak < raw / 3


def test_every_kind_of_damage_at_once(tmp_path: Path) -> None:
    """Each damaged entry is counted by reason and named; the ratio is that of the sound entries
    alone.
    """
    for start in range(0, 12, 4):
        write_entry(tmp_path, kv(4, seed=start), start=start)
    sound = evaluate(tmp_path, GROUPED)
    damaged: dict[str, dict[str, Any]] = {
        "missing_k_or_v_binary": {"v_file": "gone.bin"},
        "invalid_shape": {"kv_heads": 0},
        "size_mismatch": {"seq_len": 1 << 30, "head_dim": 1 << 15},
        "meta_invalid_numeric_fields": {"seq_start": None},
        "duplicate_binary": {"k_file": "k_t0_4.bin"},
        "unsupported_bytes_per_elem_1": {"bytes_per_elem": 1},
    }
    for start, overrides in enumerate(damaged.values(), start=20):
        write_entry(tmp_path, kv(4, seed=start), start=start, **overrides)
    write_entry(tmp_path, np.full_like(kv(4), np.nan), start=40)
    write_entry(tmp_path, np.zeros_like(kv(4)), start=50)
    cut = write_entry(tmp_path, kv(4, seed=60), start=60)
    (cut.parent / "v_t60_64.bin").write_bytes(b"\1" * 127)
    (cut.parent / "meta_bad.json").write_text("{")
    (cut.parent / "loop").symlink_to(tmp_path, target_is_directory=True)
    result = evaluate(tmp_path, GROUPED)
    values = result.to_json()
    expected = dict.fromkeys(
        (*damaged, "no_finite_value", "constant_tensor", "meta_parse_error"), 1
    )
    assert values["skip_reasons"] == expected | {"size_mismatch": 2}
    assert len({each["name"] for each in values["skipped"]}) == values["skipped_entries"] == 10
    assert result.tally().to_json() == sound.tally().to_json()
    assert (result.evaluated_share, sound.evaluated_share) == (3 / 13, 1.0)


# Working through a dump.


def test_coding_threads_have_a_cpu_each() -> None:
    """A thread for every CPU is bound to its own; none is when the number was chosen; the caller
    never is.
    """
    cpus = os.sched_getaffinity(0)

    def bound(options: OfflineOptions) -> list[set[int]]:
        meeting = threading.Barrier(options.worker_count())

        def look() -> set[int]:
            meeting.wait(10)
            return os.sched_getaffinity(0)

        with evaluator._pool(options) as pool:
            return [
                future.result()
                for future in [pool.submit(look) for _ in range(options.worker_count())]
            ]

    assert sorted(cpu for only in bound(OfflineOptions()) for cpu in only) == sorted(cpus)
    assert bound(OfflineOptions(threads=3)) == [cpus] * 3
    assert os.sched_getaffinity(0) == cpus


def test_grouping_follows_the_sequence(tmp_path: Path) -> None:
    """Entries of a run and layer are joined by position, whatever their files are called; stages on
    demand.
    """
    values = kv(12)
    for start, stop in ((8, 12), (0, 8)):
        write_entry(tmp_path, values[:, start:stop], start=start)
    write_entry(tmp_path, kv(1), start=12)
    write_entry(tmp_path, kv(3), layer=1)
    write_entry(tmp_path, kv(3, heads=3), start=13)
    joined = evaluate(tmp_path, GROUPED).to_json()
    assert (joined["aggregate_groups"], joined["online_chunks"]) == (3, 2 * (4 + 1 + 1))
    apart = evaluate(
        tmp_path, OfflineOptions(entry_mode="aggregate", aggregate_by_stage=True)
    ).to_json()
    assert (apart["aggregate_groups"], apart["online_chunks"]) == (4, 0)
    assert apart["k_chunk_meta_bytes"] == 4 * 4 + 4 * 5


@pytest.mark.parametrize("entry_mode", ["chunked", "chunked_grouped"])
def test_chunks_without_a_length(tmp_path: Path, entry_mode: str) -> None:
    """A chunk length of 0, below 0 or beyond the sequence makes one chunk of it."""
    write_entry(tmp_path, kv(7))
    found = [
        evaluate(tmp_path, OfflineOptions(entry_mode=entry_mode, online_chunk_seq=rows)).to_json()
        for rows in (-1, 0, 7, 100)
    ]
    assert [values["online_chunks"] for values in found] == [2] * 4
    assert len({values["compressed_bytes"] for values in found}) == 1


def test_thousands_of_tiny_entries(tmp_path: Path) -> None:
    """One-token entries share coding tasks and are all counted."""
    values = kv(600, heads=1, dim=4)
    for at in range(600):
        write_entry(tmp_path, values[:, at : at + 1], start=at)
    result = evaluate(tmp_path, OfflineOptions(k_hi_predictors=("raw",), k_lo_predictors=("raw",)))
    assert (len(result.evaluated), result.tally().raw_bytes) == (600, values.nbytes)
    assert result.mode_counts("k", "hi") == {"raw": 600}


def test_progress(tmp_path: Path) -> None:
    """Progress grows to the selected bytes."""
    for start in range(0, 12, 3):
        write_entry(tmp_path, kv(3, seed=start), start=start)
    seen: list[tuple[int, int]] = []
    evaluate(tmp_path, GROUPED, lambda done, total: seen.append((done, total)))
    assert seen == sorted(seen)
    assert seen[-1] == (4 * kv(3).nbytes, 4 * kv(3).nbytes)


def test_nothing_to_evaluate(tmp_path: Path) -> None:
    """No directory, no meta files, nothing selected: the message says which, and what to look
    at.
    """
    with pytest.raises(OfflineError, match="nowhere is not a directory"):
        evaluate(tmp_path / "nowhere", GROUPED)
    with pytest.raises(OfflineError, match=r"no meta_\*\.json under"):
        evaluate(tmp_path, GROUPED)
    write_entry(tmp_path, kv(3), layer=7)
    with pytest.raises(OfflineError, match=r"none of 1 entries .* check stage, scope"):
        evaluate(tmp_path, GROUPED)
    write_entry(tmp_path, kv(3), k_file=None)
    with pytest.raises(OfflineError, match="missing_k_or_v_file"):
        evaluate(tmp_path, GROUPED)
