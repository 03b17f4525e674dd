"""KV that other tools keep in one file of many tensors: ``.safetensors`` and ``.npz``.

A tensor is of K or of V and of a layer by its name (``layers.3.key``, ``past_key_values.3.value``,
``k3``), and has the shape [seq, kv_heads, head_dim], or [kv_heads, seq, head_dim] where the first
axis is the smaller one; an axis of one batch before it is dropped.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np

from pytest_h2o.codec.planes import Words

SUFFIXES = (".safetensors", ".npz")
MAX_HEADER = 64 << 20
MAX_TENSOR = 4 << 30
_KINDS = {
    "k": "k", "key": "k", "keys": "k", "v": "v", "value": "v", "values": "v",
}  # fmt: skip
_WORDS = re.compile(r"[a-z]+|[0-9]+")
# As safetensors and numpy call what is read, and its bytes.
_BYTES = {"F16": 2, "BF16": 2, "F32": 4, "float16": 2, "float32": 4}


class ContainerError(ValueError):
    """A file of tensors cannot be read; the message names the cause."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor of a file: where its bytes begin in a ``.safetensors`` file, 0 in others."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int = 0

    @property
    def bytes_per_elem(self) -> int:
        """2 or 4; 0 of elements that are not read."""
        return _BYTES.get(self.dtype, 0)

    @property
    def three(self) -> tuple[int, ...]:
        """The shape without the axis of a batch of one."""
        batch = len(self.shape) == 4 and self.shape[0] == 1
        return self.shape[1:] if batch else self.shape

    @property
    def heads_first(self) -> bool:
        """Whether the axis of heads comes before that of tokens: there are fewer."""
        return len(self.three) == 3 and self.three[0] < self.three[1]

    @property
    def rows(self) -> tuple[int, ...]:
        """The shape as [seq, kv_heads, head_dim], if it is one of these."""
        three = self.three
        return (three[1], three[0], three[2]) if self.heads_first else three


def layers_of(path: Path) -> dict[int, dict[str, Tensor]]:
    """K and V by layer; raises :class:`ContainerError` and OSError."""
    found: dict[int, dict[str, Tensor]] = {}
    for tensor in _tensors(path):
        words = _WORDS.findall(tensor.name.lower())
        kinds = [_KINDS[word] for word in words if word in _KINDS]
        numbers = [int(word) for word in words if word.isdigit() and len(word) < 6]
        if kinds and tensor.shape:
            layer = numbers[0] if numbers else 0
            own = found.setdefault(layer, {})
            other = own.setdefault(kinds[-1], tensor)
            if other is not tensor:
                both = f"{other.name} and {tensor.name}"
                raise ContainerError(f"{both} are both {kinds[-1].upper()} of layer {layer}")
    return found


def words_of(path: Path, tensor: Tensor) -> Words:
    """The words of a tensor in the order [seq, kv_heads, head_dim]; raises as
    :func:`layers_of`.
    """
    if path.suffix == ".npz":
        with zipfile.ZipFile(path) as archive, archive.open(tensor.name + ".npy") as member:
            array = np.lib.format.read_array(member, allow_pickle=False)
    else:
        with path.open("rb") as file:
            file.seek(tensor.begin)
            data = file.read(prod(tensor.shape) * tensor.bytes_per_elem)
        array = np.frombuffer(data, f"<u{tensor.bytes_per_elem}")
    words: Words = np.ascontiguousarray(array).reshape(tensor.three)
    words = words.view(f"<u{tensor.bytes_per_elem}")
    if tensor.heads_first:
        words = words.transpose(1, 0, 2)
    return words.reshape(-1)


def _tensors(path: Path) -> list[Tensor]:
    if not path.is_file():  # a pipe would be waited for
        raise ContainerError("no regular file")
    try:
        found = _in_npz(path) if path.suffix == ".npz" else _in_safetensors(path)
    except (ValueError, KeyError, TypeError, zipfile.BadZipFile, RecursionError) as error:
        raise ContainerError(f"no {path.suffix} file: {error}") from error
    for tensor in found:
        if prod(tensor.shape) * max(1, tensor.bytes_per_elem) > MAX_TENSOR:
            raise ContainerError(f"{tensor.name} is larger than 4 GiB")
    return found


def _in_safetensors(path: Path) -> list[Tensor]:
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > min(size, MAX_HEADER):
            raise ContainerError(f"a header of {length} bytes in a file of {size}")
        header: Mapping[str, dict[str, object]] = json.loads(file.read(length))
    if not isinstance(header, dict):
        raise ContainerError("its header is no JSON object")
    found: list[Tensor] = []
    for name, about in header.items():
        if name == "__metadata__":
            continue
        begin, end = map(_whole, _list(about["data_offsets"]))
        shape = tuple(map(_whole, _list(about["shape"])))
        tensor = Tensor(name, str(about["dtype"]), shape, 8 + length + begin)
        expected = prod(shape) * tensor.bytes_per_elem
        if 8 + length + end > size or (expected and end - begin != expected):
            raise ContainerError(f"the bytes of {name} do not fit its shape")
        found.append(tensor)
    return found


def _list(value: object) -> list[object]:
    if not isinstance(value, list):
        raise ContainerError(f"{value!r:.40} is no list")
    return value


def _whole(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ContainerError(f"{value!r:.40} is no size")
    return value


def _in_npz(path: Path) -> list[Tensor]:
    found: list[Tensor] = []
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if info.filename.endswith(".npy"):
                with archive.open(info) as member:
                    shape, dtype = _npy_header(member)
                found.append(Tensor(info.filename.removesuffix(".npy"), dtype.name, shape))
    return found


def _npy_header(member: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    read = np.lib.format.read_array_header_1_0
    if np.lib.format.read_magic(member) != (1, 0):
        read = np.lib.format.read_array_header_2_0
    shape, _, dtype = read(member)
    return shape, dtype
