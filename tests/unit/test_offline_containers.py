"""KV in one file of many tensors gives what the same values give as binaries."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pytest_h2o.cli import main
from pytest_h2o.offline.containers import ContainerError, layers_of
from pytest_h2o.offline.dump import load, scan
from pytest_h2o.offline.options import OfflineOptions

SEQ, HEADS, DIM = 48, 2, 8
OPTIONS = OfflineOptions()


def values(layer: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """K and V of a layer, [SEQ, HEADS, DIM] in fp16."""
    random = np.random.default_rng(layer)
    k, v = random.normal(size=(2, SEQ, HEADS, DIM)).astype("<f2")
    return k, v


def write_safetensors(path: Path, tensors: dict[str, tuple[str, tuple[int, ...], bytes]]) -> None:
    """As the format is specified: the length of a JSON header, the header, the bytes."""
    header: dict[str, Any] = {"__metadata__": {"format": "np"}}
    data = b""
    for name, (dtype, shape, raw) in tensors.items():
        offsets = [len(data), len(data) + len(raw)]
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": offsets}
        data += raw
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def bfloat16(array: np.ndarray[Any, Any]) -> bytes:
    """The upper halves of fp32 values."""
    return (array.astype("<f4").view("<u4") >> 16).astype("<u2").tobytes()


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    "names", ["layers.{}.key,layers.{}.value", "k{},v{}", "past.{}.k,past.{}.v"]
)
def test_npz(tmp_path: Path, packed: bool, names: str) -> None:
    """Plain or compressed, by any usual names."""
    k_name, v_name = names.split(",")
    arrays = {}
    for layer in (0, 1):
        k, v = values(layer)
        arrays[k_name.format(layer)] = k
        arrays[v_name.format(layer)] = v
    save = np.savez_compressed if packed else np.savez
    save(tmp_path / "kv.npz", **arrays)
    found = scan(tmp_path, OPTIONS)
    assert [entry.layer_id for entry in found.entries] == [0, 1]
    for entry in found.entries:
        expected = np.stack(values(entry.layer_id)).view("<u2")
        assert np.array_equal(load(entry).words, expected)


def test_heads_first(tmp_path: Path) -> None:
    """[1, heads, seq, dim], as most caches are kept, is read as rows of tokens."""
    k, v = values(1)
    turned = {name: array.transpose(1, 0, 2)[None] for name, array in (("k1", k), ("v1", v))}
    np.savez(tmp_path / "kv.npz", **turned)
    [entry] = scan(tmp_path, OPTIONS).entries
    assert entry.shape == (SEQ, HEADS, DIM)
    assert np.array_equal(load(entry).words, np.stack([k, v]).view("<u2"))


def test_safetensors_of_bfloat16(tmp_path: Path) -> None:
    """bf16 values are cast to fp16 as numbers, not as bits."""
    k, v = values(1)
    shape = (SEQ, HEADS, DIM)
    write_safetensors(
        tmp_path / "kv.safetensors",
        {
            "model.layers.1.key_cache": ("BF16", shape, bfloat16(k)),
            "model.layers.1.value_cache": ("BF16", shape, bfloat16(v)),
        },
    )
    [entry] = scan(tmp_path, OPTIONS).entries
    loaded = load(entry).words.view("<f2").astype(float)
    assert np.allclose(loaded, np.stack([k, v]).astype(float), rtol=0.01)


def test_evaluated_as_binaries(tmp_path: Path) -> None:
    """The command gives the sizes that it gives for the same values in plain files."""
    k, v = values(0)
    results = []
    for kind in ("plain", "tensors"):
        folder = tmp_path / kind
        folder.mkdir()
        if kind == "plain":
            (folder / "k.bin").write_bytes(k.tobytes())
            (folder / "v.bin").write_bytes(v.tobytes())
            meta = {
                "layer_id": 0, "seq_start": 0, "seq_len": SEQ, "kv_heads": HEADS, "head_dim": DIM,
                "bytes_per_elem": 2, "k_file": "k.bin", "v_file": "v.bin",
            }  # fmt: skip
            (folder / "meta_0.json").write_text(json.dumps(meta))
        else:
            tensors = {
                name: ("F16", (SEQ, HEADS, DIM), array.tobytes())
                for name, array in (("layer0.k", k), ("layer0.v", v))
            }
            write_safetensors(folder / "kv.safetensors", tensors)
        out = tmp_path / f"{kind}.json"
        assert main(["offline", str(folder), "--out-json", str(out)]) == 0
        results.append(json.loads(out.read_text()))
    plain, tensors_too = results
    numbers = {
        name for name, value in plain.items() if isinstance(value, float) and "ratio" in name
    }
    assert numbers
    assert {name: plain[name] for name in numbers} == {name: tensors_too[name] for name in numbers}


@pytest.mark.parametrize(
    ("tensors", "reason"),
    [
        ({"k0": ("F16", (4, 2, 8), 128)}, "missing_k_or_v_binary"),
        ({"k0": ("I8", (4, 2, 8), 64), "v0": ("I8", (4, 2, 8), 64)}, "unsupported_dtype"),
        ({"k0": ("F16", (8, 8), 128), "v0": ("F16", (8, 8), 128)}, "invalid_shape"),
        ({"weights": ("F16", (8, 8), 128)}, "no_k_or_v"),
        ({"k0": ("F16", (4, 2, 9), 128)}, "container_read_error"),
        ({"a.0.k": ("F16", (4, 2, 8), 128), "b.0.k": ("F16", (4, 2, 8), 128)},
         "container_read_error"),
    ],
)  # fmt: skip
def test_what_is_not_read_is_named(
    tmp_path: Path, tensors: dict[str, tuple[str, tuple[int, ...], int]], reason: str
) -> None:
    """Nothing of a file of tensors is left out without a word."""
    filled = {
        name: (dtype, shape, bytes(range(1, size + 1)))
        for name, (dtype, shape, size) in tensors.items()
    }
    write_safetensors(tmp_path / "kv.safetensors", filled)
    found = scan(tmp_path, OPTIONS)
    assert found.entries == []
    assert [skip.reason for skip in found.skipped.values()] == [reason]


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    """Whatever its name says."""
    os.mkfifo(tmp_path / "kv.npz")
    assert scan(tmp_path, OPTIONS).skipped["kv.npz"].reason == "container_read_error"


@pytest.mark.parametrize("name", ["kv.npz", "kv.safetensors"])
@pytest.mark.parametrize(
    "data", [b"", b"\xff" * 16, b"PK\x03\x04", b"\x02\0\0\0\0\0\0\0{}", b"\x02\0\0\0\0\0\0\0[]"]
)
def test_files_that_are_none(tmp_path: Path, name: str, data: bytes) -> None:
    """A broken file gives its own error or no tensor, nothing else."""
    path = tmp_path / name
    path.write_bytes(data)
    with suppress(ContainerError):
        assert layers_of(path) == {}
