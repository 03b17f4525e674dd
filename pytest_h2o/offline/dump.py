"""Reading a KV dump: ``meta_*.json`` files, each naming the binaries of some tokens of a layer.

Nothing in a dump is trusted: what cannot be read is skipped with a reason, and no more is read than
files hold.
"""
# ruff: noqa: PTH116, PTH206 - a dump may hold 100,000 files, and Path objects cost more than reading one

import json
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias
from zipfile import BadZipFile

import numpy as np

from pytest_h2o.codec.planes import Words
from pytest_h2o.codec.rope import Rope
from pytest_h2o.codec.tensors import MAX_ROWS, MAX_WIDTH
from pytest_h2o.offline.containers import SUFFIXES, ContainerError, Tensor, layers_of, words_of
from pytest_h2o.offline.options import OfflineOptions

_MAX_META_BYTES = 1 << 20
_EXPONENT = 0x7C00  # all ones in an fp16 NaN or infinity
# How files begin that hold something else than the bytes of values.
_CONTAINERS = {
    b"\x93NUMPY": "npy", b"PK\x03\x04": "zip", b"\x1f\x8b\x08": "gzip", b"\x28\xb5\x2f\xfd": "zstd",
    b"GGUF": "gguf", b"\x89HDF\r\n": "hdf5", b"BZh": "bzip2", b"\xfd7zXZ": "xz",
}  # fmt: skip
# The header of safetensors, behind eight bytes of its length.
_SAFETENSORS = re.compile(rb".{8}\{\s*\"", re.DOTALL)
_HEAD_BYTES = 64
# What writers call the elements that are read, and their bytes.
_DTYPES = {
    "float16": 2, "fp16": 2, "half": 2, "f16": 2, "f2": 2,
    "bfloat16": 2, "bf16": 2,
    "float32": 4, "fp32": 4, "float": 4, "f32": 4, "f4": 4,
}  # fmt: skip
_DTYPE_KEYS = ("dtype", "data_type", "kv_dtype", "torch_dtype", "kv_cache_dtype")
_BFLOAT16 = ("bfloat16", "bf16")
_NUMBERS = ("layer_id", "seq_start", "seq_len", "kv_heads", "head_dim", "bytes_per_elem")


FileId: TypeAlias = tuple[int | str, ...]  # device and inode, and a tensor's name


class Binary(NamedTuple):
    """A file with K or V: its path, its bytes when the dump was scanned, what it is the only name
    of, and which tensor of it counts if it holds several.
    """

    path: str
    nbytes: int
    file_id: FileId
    tensor: Tensor | None = None


class DumpEntry(NamedTuple):
    """One stretch of tokens of one layer; ``name`` is its meta file relative to the dump
    directory.
    """

    name: str
    dump: str
    run_id: str
    stage: str
    layer_id: int
    seq_start: int
    seq_len: int
    kv_heads: int
    head_dim: int
    bytes_per_elem: int
    k: Binary
    v: Binary
    rope: Rope | None = None
    bfloat16: bool = False

    @property
    def shape(self) -> tuple[int, int, int]:
        """(seq_len, kv_heads, head_dim) of K and of V."""
        return self.seq_len, self.kv_heads, self.head_dim

    @property
    def raw_bytes(self) -> int:
        """fp16 bytes of K and V."""
        return 4 * prod(self.shape)


class Skip(Exception):
    """An entry that is not evaluated: ``reason`` from a fixed set, ``detail`` in words, its fp16
    bytes if known.
    """

    def __init__(self, reason: str, detail: object = "", raw_bytes: int = 0) -> None:
        super().__init__(reason)
        self.reason, self.detail, self.raw_bytes = reason, str(detail)[:500], raw_bytes


@dataclass(frozen=True, slots=True)
class Scan:
    """Selected entries in path order, what was skipped by meta file, and how many meta files there
    are.
    """

    entries: list[DumpEntry]
    skipped: dict[str, Skip]
    scanned: int


def scan(root: Path, options: OfflineOptions) -> Scan:
    """Read every ``meta_*.json`` and every file of tensors below ``root`` (symlinked directories
    are not entered) and select entries.
    """
    entries: list[DumpEntry] = []
    skipped: dict[str, Skip] = {}
    files = sorted(_dump_files(str(root), skipped), key=lambda path: path.split(os.sep))
    metas = [path for path in files if path.endswith(".json")]
    binaries: set[FileId] = set()
    for path in metas:
        name = path[len(str(root)) + 1 :]
        try:
            entry = _select(name, path, options, binaries)
        except Skip as skip:
            skipped[name] = skip
            continue
        if entry is not None:
            entries.append(entry)
    scanned = len(metas)
    for path in files:
        if path.endswith(SUFFIXES):
            scanned += _select_layers(Path(path), root, options, entries, skipped)
    return Scan(entries, skipped, scanned)


def _select_layers(
    file: Path,
    root: Path,
    options: OfflineOptions,
    entries: list[DumpEntry],
    skipped: dict[str, Skip],
) -> int:
    """Add the layers of a file of tensors to what is wanted or skipped; how many it has."""
    name = str(file.relative_to(root))
    try:
        layers = layers_of(file)
    except (OSError, ContainerError) as error:
        skipped[name] = Skip("container_read_error", error)
        return 1
    if not layers:
        skipped[name] = Skip("no_k_or_v", "no tensor is called k, key, v or value")
        return 1
    for layer, tensors in sorted(layers.items()):
        try:
            entry = _layer_entry(f"{name}:{layer}", file, layer, tensors, options)
        except Skip as skip:
            skipped[f"{name}:{layer}"] = skip
            continue
        if entry is not None:
            entries.append(entry)
    return len(layers)


def _layer_entry(
    name: str, file: Path, layer: int, tensors: dict[str, Tensor], options: OfflineOptions
) -> DumpEntry | None:
    stage = _stage_named(file.name.lower())
    if options.stage not in ("both", stage) or not options.in_scope(layer):
        return None
    if len(tensors) < 2:
        raise Skip("missing_k_or_v_binary", f"only {next(iter(tensors.values())).name} is there")
    k, v = tensors["k"], tensors["v"]
    shape = k.rows
    if len(shape) != 3 or (v.rows, v.dtype) != (shape, k.dtype):
        raise Skip("invalid_shape", f"K is {k.dtype} {k.shape}, V is {v.dtype} {v.shape}")
    if min(shape) <= 0 or shape[0] > MAX_ROWS or max(shape[1:]) > MAX_WIDTH:
        raise Skip("invalid_shape", f"[seq, kv_heads, head_dim] = {list(shape)}")
    if not k.bytes_per_elem:
        raise Skip("unsupported_dtype", f"dtype {k.dtype[:40]!r}", 4 * prod(shape))
    if not options.wants_length(shape[0]):
        return None
    found = file.stat()
    size = prod(shape) * k.bytes_per_elem
    device, inode = found.st_dev, found.st_ino
    first = Binary(str(file), size, (device, inode, k.name), k)
    second = Binary(str(file), size, (device, inode, v.name), v)
    entry = DumpEntry(
        name,
        dump=str(file),
        run_id="",
        stage=stage,
        layer_id=layer,
        seq_start=0,
        seq_len=shape[0],
        kv_heads=shape[1],
        head_dim=shape[2],
        bytes_per_elem=k.bytes_per_elem,
        k=first,
        v=second,
        bfloat16=k.dtype == "BF16",
    )
    _check_element(entry, options)
    return entry


def _dump_files(root: str, skipped: dict[str, Skip]) -> Iterator[str]:
    def unreadable(error: OSError) -> None:
        skipped[os.path.relpath(error.filename, root)] = Skip("directory_read_error", error)

    for folder, _, names in os.walk(root, onerror=unreadable):
        for name in names:
            is_meta = name.startswith("meta_") and name.endswith(".json")
            if is_meta or name.endswith(SUFFIXES):
                yield f"{folder}{os.sep}{name}"


def _stage_named(text: str) -> str:
    for stage in ("prefill", "decode"):
        if stage in text:
            return stage
    return "unknown"


def _select(
    name: str, path: str, options: OfflineOptions, binaries: set[FileId]
) -> DumpEntry | None:
    """The entry of a meta file, None when it is not wanted; the order of the checks decides which
    reason is counted.
    """
    meta = _read_meta(path)
    stage = meta.get("stage")
    if not isinstance(stage, str):
        stage = "unknown"
    if options.stage not in ("both", stage):
        return None
    numbers = _numbers(meta)
    if not options.in_scope(numbers["layer_id"]):
        return None
    shape = numbers["seq_len"], numbers["kv_heads"], numbers["head_dim"]
    if min(shape) <= 0 or shape[0] > MAX_ROWS or max(shape[1:]) > MAX_WIDTH:
        raise Skip("invalid_shape", f"[seq, kv_heads, head_dim] = {list(shape)}")
    for flag in ("quant_key", "quant_value"):
        # What was quantised before it was dumped is not the model's KV, and compresses better.
        if meta.get(flag):
            raise Skip("quantised_kv", f"{flag} is {meta[flag]!r}")
    if not options.wants_length(shape[0]):
        return None
    folder = path.rpartition(os.sep)[0]
    run_id = str(meta.get("run_id") or "")
    k = _binary(folder, meta.get("k_file"), 4 * prod(shape))
    v = _binary(folder, meta.get("v_file"), 4 * prod(shape))
    entry = DumpEntry(
        name,
        run_id or folder,
        run_id,
        stage,
        **numbers,
        k=k,
        v=v,
        rope=_rope(meta),
        bfloat16=_dtype(meta, numbers["bytes_per_elem"], 4 * prod(shape)) in _BFLOAT16,
    )
    _check_element(entry, options)
    _claim(entry, binaries)
    return entry


def _rope(meta: dict[str, Any]) -> Rope | None:
    """The embedding of the keys, if the meta file names its base (``rope_theta``) sensibly."""
    base, layout = meta.get("rope_theta"), meta.get("rope_layout", "half")
    if isinstance(base, bool) or not isinstance(base, int | float) or not isinstance(layout, str):
        return None
    try:
        return Rope(float(base), layout)
    except (ValueError, OverflowError):
        return None


def _read_meta(path: str) -> dict[str, Any]:
    try:
        meta = json.loads(_read_small(path))
    except (OSError, ValueError, RecursionError) as error:
        raise Skip("meta_parse_error", error) from error
    if not isinstance(meta, dict):
        raise Skip("meta_parse_error", "not a JSON object")
    return meta


def _read_small(path: str) -> bytes:
    file = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a FIFO would block otherwise
    try:
        found = os.fstat(file)
        if not stat.S_ISREG(found.st_mode):
            raise Skip("meta_parse_error", "not a regular file")
        if found.st_size > _MAX_META_BYTES:
            raise Skip("meta_parse_error", f"longer than {_MAX_META_BYTES} bytes")
        return os.read(file, found.st_size)
    finally:
        os.close(file)


def _numbers(meta: dict[str, Any]) -> dict[str, int]:
    return {name: _field(meta, name) for name in _NUMBERS}


def _field(meta: dict[str, Any], name: str) -> int:
    """The whole number that a meta file has for a field."""
    if name not in meta:
        raise Skip("meta_invalid_numeric_fields", f"{name} is not there")
    try:
        number = _whole(meta[name])
        if abs(number) >= 1 << 63:
            raise OverflowError("beyond 64 bits")
    except (TypeError, ValueError, OverflowError) as error:
        detail = f"{name} is {meta[name]!r:.40}, no whole number of 64 bits"
        raise Skip("meta_invalid_numeric_fields", detail) from error
    return number


def _whole(value: Any) -> int:
    """A whole number, as JSON writers print it: 256.0 is one, 8.7 and true are none."""
    number = int(value)
    if isinstance(value, bool) or (isinstance(value, float) and value != number):
        raise ValueError(f"{value!r} is no whole number")
    return number


def _dtype(meta: dict[str, Any], bytes_per_elem: int, raw_bytes: int) -> str:
    """The element type that a meta file names, in lower case; empty if it names none."""
    given = [meta[key] for key in _DTYPE_KEYS if meta.get(key) is not None]
    if not given:
        return ""
    named = given[0]
    text = str(named).lower().rpartition(".")[2].strip("<>=|")
    if text not in _DTYPES:
        raise Skip("unsupported_dtype", f"dtype {str(named)[:40]!r}", raw_bytes)
    if _DTYPES[text] != bytes_per_elem:
        detail = f"dtype {text} has {_DTYPES[text]} bytes, bytes_per_elem is {bytes_per_elem}"
        raise Skip("dtype_mismatch", detail, raw_bytes)
    return text


def _binary(folder: str, name: object, raw_bytes: int) -> Binary:
    if not isinstance(name, str) or not name:
        raise Skip("missing_k_or_v_file", repr(name), raw_bytes)
    path = name
    if not name.startswith(os.sep):
        path = f"{folder}{os.sep}{name}"
    try:
        found = os.stat(path)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise Skip("missing_k_or_v_binary", error, raw_bytes) from error
    if not stat.S_ISREG(found.st_mode):
        raise Skip("missing_k_or_v_binary", f"{name} is not a regular file", raw_bytes)
    return Binary(path, found.st_size, (found.st_dev, found.st_ino))


def _check_element(entry: DumpEntry, options: OfflineOptions) -> None:
    if entry.bytes_per_elem == 4 and options.strict_fp16:
        raise Skip("skip_fp32_strict", "", entry.raw_bytes)
    if entry.bytes_per_elem not in (2, 4):
        raise Skip(f"unsupported_bytes_per_elem_{entry.bytes_per_elem}", "", entry.raw_bytes)


def _claim(entry: DumpEntry, claimed: set[FileId]) -> None:
    """Each binary counts once: coding the same data twice in a group would compress it to
    nothing.
    """
    files = {entry.k.file_id, entry.v.file_id}
    if len(files) < 2 or files & claimed:
        detail = "another entry, or the other tensor, names the same file"
        raise Skip("duplicate_binary", detail, entry.raw_bytes)
    claimed |= files


@dataclass(frozen=True, slots=True)
class Loaded:
    """K and V of an entry: ``words`` [2, seq, kv_heads, head_dim] (uint16), and values a cast to
    fp16 has changed.
    """

    entry: DumpEntry
    words: Words
    changed: int


def load(entry: DumpEntry) -> Loaded:
    """Read an entry; Skip when its binaries do not hold what its meta file declares, or hold no
    information.
    """
    words = _read_words(entry)
    changed = 0
    if entry.bfloat16:
        words = words.astype("<u4") << np.uint32(16)
    if entry.bfloat16 or entry.bytes_per_elem == 4:
        words, changed = _to_fp16(words)
    _check_content(words[0], entry.k, entry)
    _check_content(words[1], entry.v, entry)
    shaped = words.reshape(2, entry.seq_len, entry.kv_heads, entry.head_dim)
    return Loaded(entry, shaped, changed)


def _read_words(entry: DumpEntry) -> Words:
    """The words of both binaries, [2, seq * kv_heads * head_dim]; nothing is allocated that the
    files do not hold.
    """
    if entry.k.tensor and entry.v.tensor:
        return _words_of_tensors(entry, entry.k.tensor, entry.v.tensor)
    size = prod(entry.shape) * entry.bytes_per_elem
    for path, nbytes, *_ in (entry.k, entry.v):
        if container := _container_of(path):
            detail = f"{path} begins with the header of a .{container} file"
            detail += "; write the array's bytes alone"
            raise Skip(f"{container}_header", detail, entry.raw_bytes)
        if nbytes != size:
            raise Skip("size_mismatch", f"{path}: {nbytes} bytes, expected {size}", entry.raw_bytes)
    try:
        words: Words = np.empty((2, size // entry.bytes_per_elem), f"<u{entry.bytes_per_elem}")
        buffer = words.data.cast("B")
        _fill(buffer[:size], entry.k.path)
        _fill(buffer[size:], entry.v.path)
    except (OSError, MemoryError) as error:
        raise Skip("binary_read_error", error, entry.raw_bytes) from error
    return words


def _words_of_tensors(entry: DumpEntry, k: Tensor, v: Tensor) -> Words:
    path = Path(entry.k.path)
    try:
        words: Words = np.stack([words_of(path, k), words_of(path, v)])
    except (OSError, ValueError, KeyError, MemoryError, BadZipFile) as error:
        raise Skip("binary_read_error", error, entry.raw_bytes) from error
    return words


def _container_of(path: str) -> str:
    """What kind of file begins as this one does; empty for plain values."""
    try:
        with open(path, "rb") as file:  # noqa: PTH123
            head = file.read(_HEAD_BYTES)
    except OSError:
        return ""
    if _SAFETENSORS.match(head) and int.from_bytes(head[:8], "little") < 1 << 32:
        return "safetensors"
    for magic, name in _CONTAINERS.items():
        if head.startswith(magic):
            return name
    return ""


def _fill(buffer: memoryview, path: str) -> None:
    """Read the beginning of a file; OSError when it is shorter than the buffer."""
    file = os.open(path, os.O_RDONLY)
    try:
        while buffer:
            count = os.readv(file, [buffer])  # not more than 2 GiB at once
            if not count:
                raise OSError(f"{path} shrank while it was read")
            buffer = buffer[count:]
    finally:
        os.close(file)


def _to_fp16(bits: Words) -> tuple[Words, int]:
    """fp16 bits of fp32 bits, and how many values do not come back bit for bit."""
    values = bits.view("<f4")
    with np.errstate(all="ignore"):
        halves = values.astype("<f2")
        changed = np.count_nonzero(halves.astype("<f4").view("<u4") != bits)
    return halves.view("<u2"), int(changed)


def _check_content(words: Words, binary: Binary, entry: DumpEntry) -> None:
    """A tensor that was never filled compresses to nothing and would raise the ratio of the real
    ones.
    """
    if words[0] & _EXPONENT == _EXPONENT and (words & _EXPONENT == _EXPONENT).all():
        raise Skip("no_finite_value", binary.path, entry.raw_bytes)
    if words.size > 1 and words[0] == words[-1] and (words == words[0]).all():
        raise Skip("constant_tensor", binary.path, entry.raw_bytes)
