"""Reading KV dumps, damaged ones above all."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from offline_dumps import kv, write_entry

from pytest_h2o.offline import OfflineError
from pytest_h2o.offline.dump import Scan, Skip, load, scan
from pytest_h2o.offline.evaluate import evaluate
from pytest_h2o.offline.options import OfflineOptions

ALL = OfflineOptions(front_n=100)


def reasons(found: Scan) -> dict[str, str]:
    return {Path(name).name: skip.reason for name, skip in found.skipped.items()}


def load_failure(meta: Path, root: Path) -> tuple[str, int]:
    """Why the entry of ``meta`` cannot be loaded, and the bytes it declared."""
    (entry,) = [
        entry for entry in scan(root, ALL).entries if entry.name == str(meta.relative_to(root))
    ]
    with pytest.raises(Skip) as caught:
        load(entry)
    return caught.value.reason, caught.value.raw_bytes


def test_fields(tmp_path: Path) -> None:
    """An entry holds what its meta file says, and loading gives K and V side by side."""
    values = kv(3)
    write_entry(tmp_path, values, layer=1, start=5)
    found = scan(tmp_path, ALL)
    (entry,) = found.entries
    assert (entry.name, entry.run_id, entry.stage) == (
        "run/layer_1/meta_t5_8.json",
        "run",
        "prefill",
    )
    assert (entry.layer_id, entry.seq_start, entry.shape) == (1, 5, (3, 2, 8))
    assert (found.scanned, found.skipped, entry.raw_bytes) == (1, {}, values.nbytes)
    loaded = load(entry)
    np.testing.assert_array_equal(loaded.words, values.view("<u2"))
    assert loaded.changed == 0


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        ({"seq_start": "x"}, "meta_invalid_numeric_fields"),
        ({"bytes_per_elem": None}, "meta_invalid_numeric_fields"),
        ({"head_dim": [8]}, "meta_invalid_numeric_fields"),
        ({"seq_len": float("inf")}, "meta_invalid_numeric_fields"),
        ({"kv_heads": 10**40}, "meta_invalid_numeric_fields"),
        ({"seq_len": 0}, "invalid_shape"),
        ({"quant_key": True}, "quantised_kv"),
        ({"quant_value": 1}, "quantised_kv"),
        ({"kv_heads": -2}, "invalid_shape"),
        ({"head_dim": 1 << 20}, "invalid_shape"),
        ({"seq_len": 1 << 40}, "invalid_shape"),
        ({"k_file": None}, "missing_k_or_v_file"),
        ({"v_file": 3}, "missing_k_or_v_file"),
        ({"v_file": "gone.bin"}, "missing_k_or_v_binary"),
        ({"k_file": "nul\0.bin"}, "missing_k_or_v_binary"),
        ({"k_file": "."}, "missing_k_or_v_binary"),
        ({"k_file": "/dev/zero"}, "missing_k_or_v_binary"),
        ({"k_file": "x" * 5000}, "missing_k_or_v_binary"),
        ({"k_file": "v_t0_3.bin"}, "duplicate_binary"),
        ({"bytes_per_elem": 3}, "unsupported_bytes_per_elem_3"),
        # the first check that fails decides
        ({"seq_start": "x", "seq_len": 0}, "meta_invalid_numeric_fields"),
        ({"seq_len": 0, "k_file": None}, "invalid_shape"),
        ({"k_file": None, "bytes_per_elem": 3}, "missing_k_or_v_file"),
        ({"k_file": "gone.bin", "bytes_per_elem": 3}, "missing_k_or_v_binary"),
    ],
)
def test_skip_reasons(tmp_path: Path, overrides: dict[str, Any], reason: str) -> None:
    """Each kind of damage has its reason; the entry beside it is not affected."""
    write_entry(tmp_path, kv(3), **overrides)
    write_entry(tmp_path, kv(1), start=9)
    found = scan(tmp_path, ALL)
    assert reasons(found) == {"meta_t0_3.json": reason}
    assert [entry.seq_start for entry in found.entries] == [9]


@pytest.mark.parametrize(
    ("options", "overrides"),
    [
        (OfflineOptions(stage="decode"), {"seq_start": "x"}),
        (OfflineOptions(stage="prefill"), {"stage": None}),
        (OfflineOptions(stage="prefill"), {"stage": ["prefill"]}),
        (OfflineOptions(front_n=1), {"layer_id": 1, "seq_len": 0}),
        (OfflineOptions(front_n=1), {"layer_id": -1}),
        (OfflineOptions(min_seq_len=4), {"k_file": None}),
        (OfflineOptions(max_seq_len=2), {"k_file": None}),
    ],
)
def test_unwanted_entries_are_not_skipped(
    tmp_path: Path, options: OfflineOptions, overrides: dict[str, Any]
) -> None:
    """Entries outside stage, scope or length are left out silently, even when damaged further
    on.
    """
    write_entry(tmp_path, kv(3), **overrides)
    assert scan(tmp_path, options) == Scan([], {}, 1)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"[1]",
        b"null",
        b'"x"',
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"layer_id": ' + b"9" * 5000 + b"}",
    ],
    ids=["empty", "cut", "list", "null", "text", "binary", "deep", "digits"],
)
def test_bad_json(tmp_path: Path, text: bytes) -> None:
    """What is not a JSON object of reasonable size is one reason."""
    (tmp_path / "meta_x.json").write_bytes(text)
    assert reasons(scan(tmp_path, ALL)) == {"meta_x.json": "meta_parse_error"}


def test_huge_meta(tmp_path: Path) -> None:
    """A meta file of many megabytes is not read to its end."""
    (tmp_path / "meta_x.json").write_text("{}" + " " * (2 << 20))
    found = scan(tmp_path, ALL)
    assert found.skipped["meta_x.json"].detail == "longer than 1048576 bytes"


def test_odd_files(tmp_path: Path) -> None:
    """Symlink loops, dangling links and FIFOs named like meta files neither hang nor crash the
    scan.
    """
    write_entry(tmp_path, kv(2))
    (tmp_path / "run" / "loop").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "meta_self.json").symlink_to("meta_self.json")
    (tmp_path / "meta_gone.json").symlink_to("nowhere")
    (tmp_path / "meta_folder.json").mkdir()
    os.mkfifo(tmp_path / "meta_fifo.json")
    (tmp_path / "packed_meta_t0_2.json").write_text("{}")
    found = scan(tmp_path, ALL)
    assert reasons(found) == dict.fromkeys(
        ("meta_fifo.json", "meta_gone.json", "meta_self.json"), "meta_parse_error"
    )
    assert (len(found.entries), found.scanned) == (1, 4)


@pytest.mark.parametrize("link", ["same", "symlink", "hardlink"])
def test_each_binary_counts_once(tmp_path: Path, link: str) -> None:
    """A second meta file for the same data would halve the compressed size of a group: it is
    skipped.
    """
    meta = write_entry(tmp_path, kv(3))
    copy = json.loads(meta.read_text())
    if link != "same":
        make = os.symlink if link == "symlink" else os.link
        make(meta.parent / "k_t0_3.bin", meta.parent / "other.bin")
        copy["k_file"] = "other.bin"
    (meta.parent / "meta_t0_3_copy.json").write_text(json.dumps(copy))
    found = scan(tmp_path, ALL)
    assert len(found.entries) == 1
    assert list(reasons(found).values()) == ["duplicate_binary"]


def test_entries_come_in_path_order(tmp_path: Path) -> None:
    """Folder by folder, as sorting paths does, not as sorting strings does."""
    for run in ("b", "a-1", "a"):
        write_entry(tmp_path, kv(2), run=run)
    assert [entry.run_id for entry in scan(tmp_path, ALL).entries] == ["a", "a-1", "b"]


def test_entries_without_run_id(tmp_path: Path) -> None:
    """They count as a dump per folder."""
    write_entry(tmp_path, kv(2), run=None)
    (entry,) = scan(tmp_path, ALL).entries
    assert (entry.run_id, entry.dump) == ("", str(tmp_path / "no_run" / "layer_0"))


@pytest.mark.parametrize("kind", ["<f2", "<f4"])
@pytest.mark.parametrize("change", [-1, -2, 1, 4096])
def test_wrong_sizes(tmp_path: Path, kind: str, change: int) -> None:
    """Truncated, odd-sized and overlong binaries are skipped with the bytes they should have
    held.
    """
    values = kv(3, kind=kind)
    meta = write_entry(tmp_path, values)
    binary = meta.parent / "v_t0_3.bin"
    data = binary.read_bytes()
    binary.write_bytes(data[:change] if change < 0 else data + bytes(change))
    assert load_failure(meta, tmp_path) == ("size_mismatch", 2 * values.size)


def test_absurd_shape_allocates_nothing(tmp_path: Path) -> None:
    """A meta file that declares terabytes costs no memory: the file's size decides first."""
    meta = write_entry(tmp_path, kv(3), seq_len=1 << 30, kv_heads=1 << 15, head_dim=1 << 15)
    assert load_failure(meta, tmp_path) == ("size_mismatch", 4 << 60)


def test_vanished_binary(tmp_path: Path) -> None:
    """A file that goes away between the scan and the read is an error of that entry."""
    write_entry(tmp_path, kv(3))
    (entry,) = scan(tmp_path, ALL).entries
    Path(entry.k.path).unlink()
    with pytest.raises(Skip, match="binary_read_error"):
        load(entry)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (0.0, "constant_tensor"),
        (1.5, "constant_tensor"),
        (np.nan, "no_finite_value"),
        (np.inf, "no_finite_value"),
    ],
)
@pytest.mark.parametrize("kind", ["<f2", "<f4"])
@pytest.mark.parametrize("tensor", [0, 1])
def test_tensors_without_information(
    tmp_path: Path, value: float, reason: str, kind: str, tensor: int
) -> None:
    """A tensor that was never filled would compress to nothing and lift the ratio of the others."""
    values = kv(3, kind=kind)
    values[tensor] = value
    assert load_failure(write_entry(tmp_path, values), tmp_path)[0] == reason


def test_some_odd_values_are_data(tmp_path: Path) -> None:
    """NaN payloads, infinities and signed zeros among real values are kept bit for bit."""
    values = kv(3)
    values.view("<u2")[0, 0, 0, :5] = [0x7E01, 0xFFFF, 0x7C00, 0x8000, 0x0001]
    write_entry(tmp_path, values)
    (entry,) = scan(tmp_path, ALL).entries
    np.testing.assert_array_equal(load(entry).words[0], values.view("<u2")[0])


def test_fp32_casts_are_counted(tmp_path: Path) -> None:
    """The number of changed values is that of values fp16 cannot hold, bit for bit."""
    values = kv(3).astype("<f4")
    values[0, 0, 0, :4] = [0.1, 70000.0, 1e-9, np.float32(0.5)]
    meta = write_entry(tmp_path, values)
    loaded = load(scan(tmp_path, ALL).entries[0])
    assert loaded.changed == 3
    np.testing.assert_array_equal(loaded.words[0, 1:], values[0, 1:].astype("<f2").view("<u2"))
    strict = scan(tmp_path, OfflineOptions(strict_fp16=True))
    assert reasons(strict) == {meta.name: "skip_fp32_strict"}


def _first_skip(root: Path) -> tuple[str, str]:
    found = scan(root, OfflineOptions())
    if found.skipped:
        [skip] = found.skipped.values()
        return skip.reason, skip.detail
    try:
        load(found.entries[0])
    except Skip as skip:
        return skip.reason, skip.detail
    return "", ""


@pytest.mark.parametrize("number", [8.7, True, "8.5", 1e400])
def test_numbers_that_are_not_whole(tmp_path: Path, number: object) -> None:
    """A length of 8.7 is none; a writer's 8.0 is 8."""
    write_entry(tmp_path, kv(8), seq_len=number)
    assert _first_skip(tmp_path)[0] == "meta_invalid_numeric_fields"


@pytest.mark.parametrize("head", [b"PK\x03\x04", b"\x1f\x8b\x08", b"GGUF", b"\x89HDF\r\n", b"BZh9"])
def test_files_that_hold_something_else_than_values(tmp_path: Path, head: bytes) -> None:
    """Archives and containers under the name of plain values are named, not coded."""
    meta = write_entry(tmp_path, kv(8))
    path = meta.with_name(json.loads(meta.read_text())["k_file"])
    path.write_bytes(head + path.read_bytes()[len(head) :])
    assert load_failure(meta, tmp_path)[0].endswith("_header")
    header = b'{"k":{"dtype":"F16"}}'
    path.write_bytes(len(header).to_bytes(8, "little") + header + path.read_bytes()[29:])
    assert load_failure(meta, tmp_path)[0] == "safetensors_header"


@pytest.mark.parametrize("key", ["dtype", "data_type", "kv_dtype", "torch_dtype"])
def test_element_types_under_other_names(tmp_path: Path, key: str) -> None:
    """bfloat16 is never read as fp16 without a word."""
    write_entry(tmp_path, kv(8), **{key: "torch.bfloat16"})
    [entry] = scan(tmp_path, ALL).entries
    assert entry.bfloat16


def test_a_field_that_is_wrong_is_named(tmp_path: Path) -> None:
    """With its value and its file."""
    write_entry(tmp_path, kv(8), seq_len=8.7)
    with pytest.raises(OfflineError, match=r"meta_t0_8.json: seq_len is 8.7, no whole number"):
        evaluate(tmp_path, ALL)


def test_whole_numbers_with_a_point(tmp_path: Path) -> None:
    """Some writers know floating-point numbers only."""
    write_entry(tmp_path, kv(8), seq_len=8.0, dtype="torch.float16")
    assert _first_skip(tmp_path) == ("", "")


def test_bfloat16_is_read_as_such(tmp_path: Path) -> None:
    """Its values, not its bits, become fp16; those that do not fit are counted as changed."""
    values = kv(8, kind="<f4")
    values.view("<u4")[...] &= 0xFFFF0000
    values[0, 0, 0, 0] = 1e20
    halves = (values.view("<u4") >> 16).astype("<u2")
    write_entry(tmp_path, halves, dtype="bfloat16")
    [entry] = scan(tmp_path, OfflineOptions()).entries
    with np.errstate(over="ignore"):
        expected = values.astype("<f2")
    loaded = load(entry)
    assert np.array_equal(loaded.words, expected.view("<u2"))
    assert loaded.changed == np.count_nonzero(expected.astype("<f4") != values) > 0


@pytest.mark.parametrize(
    ("dtype", "reason"),
    [
        ("int8", "unsupported_dtype"),
        ("float8_e4m3fn", "unsupported_dtype"),
        ("float32", "dtype_mismatch"),
    ],
)
def test_other_dtypes_are_refused(tmp_path: Path, dtype: str, reason: str) -> None:
    """Bits that mean something else would give a ratio of nothing."""
    write_entry(tmp_path, kv(8), dtype=dtype)
    assert _first_skip(tmp_path)[0] == reason


def test_npy_headers_are_named(tmp_path: Path) -> None:
    """Also where a meta file counts the header as data."""
    values = kv(8)
    meta = write_entry(tmp_path, values)
    for name, tensor in zip("kv", values, strict=True):
        with (meta.parent / f"{name}_t0_8.bin").open("wb") as file:
            np.save(file, tensor)
    reason, detail = _first_skip(tmp_path)
    assert reason == "npy_header"
    assert "write the array's bytes alone" in detail
