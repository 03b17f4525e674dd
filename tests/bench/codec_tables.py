"""What each codec makes of a KV dump: ratio by layer and tensor, speed, ablation, chunk length.

Part of ``bench_offline.py --codecs``. Every codec codes the same chunks, is charged the same 8
bytes of framing a chunk and tensor, and is decoded and compared. Speeds are CPU time of one thread,
the best of several rounds, in which the codecs take turns.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from html import escape
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from pytest_h2o.codec import K_PREDICTORS, V_PREDICTORS, row_reference, row_search
from pytest_h2o.codec.payload import zstd_compress, zstd_decompress
from pytest_h2o.codec.planes import Words, join, split
from pytest_h2o.codec.rope import Rope, Rotation
from pytest_h2o.codec.row_frames import HEAD, FrameRows, decode_frames, encode_frames
from pytest_h2o.codec.tensors import EncodedTensor, PlaneCoding, decode_tensors, encode_tensors
from pytest_h2o.engine.config import SHIPPED
from pytest_h2o.engine.threads import single_threaded_blas
from pytest_h2o.offline.dump import load, scan
from pytest_h2o.offline.options import OfflineOptions
from pytest_h2o.runtimes.launch_config import config_text, launch_config, read_config

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "data" / "offline" / "kv_dump.tar.gz"
PROMPTS = ("128_1", "128_2", "512_1", "512_2", "2048_1", "2048_2")
ROPE = Rope(10_000.0)  # of both models
CHUNK = 192
LENGTHS = (64, 128, 192, 256, 384, 512)
FRAMING = 8
TOGETHER = 16  # frames that are decoded at a time
ROUNDS = 5
TIMED_BYTES = 4_000_000


@dataclass(frozen=True)
class Chunk:
    """Rows of K or V of a layer; ``rotation`` is that of keys."""

    layer: int
    tensor: str
    words: Words
    rotation: Rotation | None


@dataclass(frozen=True)
class Codec:
    """A way to code chunks one by one, and back; ``extra``: framing that its blobs lack."""

    name: str
    encode: Callable[[Sequence[Chunk]], list[bytes]]
    decode: Callable[[Sequence[bytes], Sequence[Chunk]], Iterable[Words]]
    extra: int = 0


def rows_of(dump: Path) -> dict[tuple[str, int], tuple[Words, np.ndarray]]:
    """K and V of each run and layer, joined [2, rows, heads, dim], and the positions."""
    pieces: dict[tuple[str, int], list[tuple[Words, np.ndarray]]] = {}
    entries = scan(dump, OfflineOptions(front_n=1 << 30)).entries
    for entry in sorted(entries, key=lambda each: each.seq_start):
        words = load(entry).words
        positions = entry.seq_start + np.arange(words.shape[1])
        pieces.setdefault((entry.run_id, entry.layer_id), []).append((words, positions))
    joined = {}
    for key, parts in pieces.items():
        words = np.concatenate([part for part, _ in parts], axis=1)
        joined[key] = words, np.concatenate([positions for _, positions in parts])
    return joined


def chunks_of(dump: Path, rows: int = CHUNK, front: int = 1 << 30) -> list[Chunk]:
    """The dump in chunks of ``rows`` rows."""
    chunks = []
    for (_, layer), (words, positions) in rows_of(dump).items():
        if layer >= front:
            continue
        for at in range(0, words.shape[1], rows):
            there = slice(at, at + rows)
            rotation = Rotation(ROPE, positions[there])
            chunks.append(Chunk(layer, "k", np.ascontiguousarray(words[0, there]), rotation))
            chunks.append(Chunk(layer, "v", np.ascontiguousarray(words[1, there]), None))
    return chunks


def by_tensor(chunks: Sequence[Chunk]) -> Iterator[tuple[list[int], PlaneCoding]]:
    """Where chunks of K, then of V are, and how the compatible mode codes their planes."""
    for tensor, predictors in (("k", K_PREDICTORS), ("v", V_PREDICTORS)):
        places = [at for at, chunk in enumerate(chunks) if chunk.tensor == tensor]
        if places:
            yield places, PlaneCoding(predictors, block_rows=64)


def encode_with(codec: str, chunks: Sequence[Chunk]) -> list[bytes]:
    """A frame of each chunk, all chunks of K and of V in one call."""
    blobs = [b""] * len(chunks)
    for places, coding in by_tensor(chunks):
        rows = [FrameRows(chunks[at].words, chunks[at].rotation) for at in places]
        for at, frame in zip(places, encode_frames(rows, codec, coding, coding), strict=True):
            blobs[at] = frame
    return blobs


def decode_some(blobs: Sequence[bytes], chunks: Sequence[Chunk]) -> Iterator[Words]:
    """Frames again, some at a time."""
    for at in range(0, len(blobs), TOGETHER):
        yield from decode_frames(blobs[at : at + TOGETHER], ROPE)


def encode_planes(chunks: Sequence[Chunk]) -> list[bytes]:
    """What the compatible mode makes, K and V apart, all chunks in one call."""
    blobs = [b""] * len(chunks)
    for places, coding in by_tensor(chunks):
        words = np.concatenate([chunks[at].words for at in places])
        parts = [(len(chunks[at].words),) for at in places]
        for at, encoded in zip(places, encode_tensors(words, parts, coding, coding), strict=True):
            blobs[at] = encoded.to_bytes()
    return blobs


def decode_planes(blobs: Sequence[bytes], chunks: Sequence[Chunk]) -> Iterator[Words]:
    """The same backwards."""
    tensors = [EncodedTensor.from_bytes(blob) for blob in blobs]
    words = decode_tensors(tensors, 1 << 31)
    at = 0
    for chunk in chunks:
        yield words[at : at + len(chunk.words)]
        at += len(chunk.words)


def encode_zstd(chunks: Sequence[Chunk]) -> list[bytes]:
    """Both planes as they are, by zstd 19."""
    blobs = []
    for chunk in chunks:
        low, high = [zstd_compress(plane.reshape(-1), 19) for plane in split(chunk.words)]
        blobs.append(len(low).to_bytes(4, "little") + low + high)
    return blobs


def decode_zstd(blobs: Sequence[bytes], chunks: Sequence[Chunk]) -> Iterator[Words]:
    """The same backwards."""
    for blob, chunk in zip(blobs, chunks, strict=True):
        end = 4 + int.from_bytes(blob[:4], "little")
        parts = blob[4:end], blob[end:]
        flat = join([zstd_decompress(part, chunk.words.size) for part in parts])
        yield flat.reshape(chunk.words.shape)


def each(function: Callable[[Any], Any], chunks: Sequence[Chunk]) -> list[bytes]:
    """``function`` of the fp16 values of each chunk."""
    return [function(chunk.words.reshape(-1).view(np.float16)) for chunk in chunks]


def each_back(
    function: Callable[[bytes], Any], blobs: Sequence[bytes], chunks: Sequence[Chunk]
) -> Iterator[Words]:
    """The same backwards."""
    for blob, chunk in zip(blobs, chunks, strict=True):
        flat = np.frombuffer(function(blob), np.uint16)
        yield flat.reshape(chunk.words.shape)


def installed(name: str) -> Any:
    """A module of the ``codecs`` extra; None where it is not installed."""
    try:
        return import_module(name)
    except ImportError:
        print(f"{name} is not installed; the extra [codecs] brings it")
        return None


def pcodec_codecs() -> list[Codec]:
    """pcodec on fp16 numbers."""
    pcodec = installed("pcodec")
    if pcodec is None:
        return []
    encode = partial(pcodec.standalone.simple_compress, config=pcodec.ChunkConfig())
    decode = pcodec.standalone.simple_decompress
    return [Codec("pcodec", partial(each, encode), partial(each_back, decode), FRAMING)]


def blosc2_codecs() -> list[Codec]:
    """blosc2 with zstd behind two of its filters."""
    blosc2 = installed("blosc2")
    if blosc2 is None:
        return []
    filters = {
        "blosc2 bitshuffle": ([blosc2.Filter.BITSHUFFLE], [0]),
        "blosc2 bytedelta": ([blosc2.Filter.SHUFFLE, blosc2.Filter.BYTEDELTA], [0, 2]),
    }
    codecs = []
    for name, (chosen, meta) in filters.items():
        encode = partial(
            blosc2.compress2,
            codec=blosc2.Codec.ZSTD,
            clevel=9,
            typesize=2,
            nthreads=1,
            filters=chosen,
            filters_meta=meta,
        )
        decode = partial(each_back, blosc2.decompress2)
        codecs.append(Codec(name, partial(each, encode), decode, FRAMING))
    return codecs


def all_codecs() -> list[Codec]:
    """What is compared. Frames and planes bring framing of their own."""
    return [
        Codec("planes", encode_planes, decode_planes),
        Codec("rope_row", partial(encode_with, "rope_row"), decode_some),
        Codec("row_reference", partial(encode_with, "row_reference"), decode_some),
        Codec("zstd-19 planes", encode_zstd, decode_zstd, 4),
        *pcodec_codecs(),
        *blosc2_codecs(),
    ]


def sizes(codec: Codec, chunks: Sequence[Chunk]) -> list[int]:
    """Bytes of each chunk, which decodes to itself."""
    blobs = codec.encode(chunks)
    for words, chunk in zip(codec.decode(blobs, chunks), chunks, strict=True):
        if not np.array_equal(words, chunk.words):
            raise SystemExit(f"{codec.name} did not give layer {chunk.layer} back")
    return [len(blob) + codec.extra for blob in blobs]


def ratio(
    chunks: Sequence[Chunk], coded: Sequence[int], layer: int = -1, tensor: str = ""
) -> float:
    """Of all chunks, or of those of a layer or tensor."""
    raw = stored = 0
    for chunk, size in zip(chunks, coded, strict=True):
        if layer in (-1, chunk.layer) and tensor in ("", chunk.tensor):
            raw += chunk.words.nbytes
            stored += size
    return raw / stored


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print as Markdown."""
    print("| " + " | ".join(header) + " |")
    print("| --- |" + " ---: |" * (len(header) - 1))
    for row in rows:
        print("| " + " | ".join(row) + " |")
    print(flush=True)


def ratio_table(dump: Path, codecs: Sequence[Codec]) -> dict[str, list[float]]:
    """Print ratios by layer and tensor; those of K and V by layer, of each codec."""
    chunks = chunks_of(dump)
    coded = {codec.name: sizes(codec, chunks) for codec in codecs}
    layers = sorted({chunk.layer for chunk in chunks})
    rows = []
    for layer in layers:
        for tensor in "kv":
            cells = [f"{ratio(chunks, each, layer, tensor):.3f}" for each in coded.values()]
            rows.append([f"layer {layer} {tensor.upper()}", *cells])
    everything = [f"{ratio(chunks, each):.3f}" for each in coded.values()]
    front = []
    for each in coded.values():
        kept = [at for at, chunk in enumerate(chunks) if chunk.layer < 2]
        front.append(f"{ratio([chunks[at] for at in kept], [each[at] for at in kept]):.3f}")
    rows += [["front 2 layers", *front], ["all layers", *everything]]
    table(["", *coded], rows)
    curves = {}
    for name, each in coded.items():
        curves[name] = [ratio(chunks, each, layer) for layer in layers]
    return curves


def speed_table(dump: Path, codecs: Sequence[Codec], rounds: int) -> None:
    """Print MB/s of one thread on the front two layers, a small dump several times over."""
    chunks = chunks_of(dump, front=2)
    chunks *= -(-TIMED_BYTES // sum(chunk.words.nbytes for chunk in chunks))
    raw = sum(chunk.words.nbytes for chunk in chunks)
    best: dict[str, list[float]] = {}
    for turn in range(rounds):
        start = turn % len(codecs)
        for codec in [*codecs[start:], *codecs[:start]]:
            begin = time.thread_time()
            blobs = codec.encode(chunks)
            middle = time.thread_time()
            list(codec.decode(blobs, chunks))
            end = time.thread_time()
            known = best.setdefault(codec.name, [np.inf, np.inf])
            best[codec.name] = [min(known[0], middle - begin), min(known[1], end - middle)]
    rows = []
    for codec in codecs:
        encode, decode = best[codec.name]
        rows.append([codec.name, f"{raw / encode / 1e6:.0f}", f"{raw / decode / 1e6:.0f}"])
    table(["front 2 layers, one thread", "encode MB/s", "decode MB/s"], rows)


def length_table(dump: Path) -> None:
    """Print how the front layers' ratio moves with the chunk length."""
    codecs = all_codecs()[:3]
    rows = []
    for codec in codecs:
        cells = []
        for rows_each in LENGTHS:
            chunks = chunks_of(dump, rows_each, front=2)
            cells.append(f"{ratio(chunks, sizes(codec, chunks)):.3f}")
        rows.append([codec.name, *cells])
    table(["rows a chunk, front 2 layers", *map(str, LENGTHS)], rows)


@contextmanager
def replaced(module: Any, name: str, value: object) -> Iterator[None]:
    """``module.name`` is ``value`` for a while."""
    kept = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, kept)


def no_levels(gram: np.ndarray, *_: object) -> tuple[np.ndarray, np.ndarray]:
    """No approximate reference."""
    return np.zeros(len(gram), np.intp), np.zeros(len(gram), np.intp)


def no_repeats(rows: np.ndarray) -> Any:
    """No exact reference, whatever is asked."""
    return np.zeros(len(rows), np.intp), np.zeros(len(rows), np.bool_)


def ablation_table(dump: Path) -> None:
    """Print what each part of row_reference adds to the ratio of the front layers."""
    chunks = chunks_of(dump, front=2)
    unrotated = [Chunk(each.layer, each.tensor, each.words, None) for each in chunks]
    codec = all_codecs()[2]
    no_approximate = partial(replaced, row_search, "_best_levels", no_levels)
    no_exact_k = partial(replaced, row_reference, "nearest", no_repeats)
    no_exact_v = partial(replaced, row_reference, "repeats", lambda words: no_repeats(words)[0])
    found = {}
    with no_approximate(), no_exact_k(), no_exact_v():
        found["a Gaussian for each channel"] = unrotated, sizes(codec, unrotated)
        found["and a mean that turns with the position"] = chunks, sizes(codec, chunks)
    with no_approximate():
        found["and rows that repeat, keys derotated"] = chunks, sizes(codec, chunks)
    found["and rows that resemble: row_reference"] = chunks, sizes(codec, chunks)
    found["all, but keys left rotated"] = unrotated, sizes(codec, unrotated)
    rows = []
    for name, (coded, each) in found.items():
        cells = [f"{ratio(coded, each, tensor=tensor):.3f}" for tensor in ("k", "v", "")]
        rows.append([name, *cells])
    table(["front 2 layers", "K", "V", "both"], rows)


COLORS = {"planes": "#777777", "rope_row": "#c77b30", "row_reference": "#3b6ea5"}


def chart(curves: dict[str, list[float]], title: str) -> str:
    """An SVG of the ratio by layer, a line for each codec that has a colour."""
    width, height, left, top = 560, 280, 50, 40
    layers = len(curves["planes"])
    low, high = 1.0, 2.2

    def place(layer: int, value: float) -> str:
        x = left + (width - left - 130) * layer / max(1, layers - 1)
        y = top + (height - top - 50) * (high - value) / (high - low)
        return f"{x:.1f},{y:.1f}"

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">',
        f"<title>{escape(title)}</title>",
        "<style>text{font:12px sans-serif;fill:#555}</style>",
        f'<text x="{left}" y="20">{escape(title)}</text>',
    ]
    for value in np.arange(low, high + 0.01, 0.2):
        x, y = place(0, value).split(",")
        end = place(layers - 1, value).split(",")[0]
        parts.append(f'<path d="M{x},{y}H{end}" stroke="#bbb" stroke-width=".5"/>')
        parts.append(f'<text x="{left - 30}" y="{float(y) + 4:.1f}">{value:.1f}</text>')
    for layer in range(layers):
        x = place(layer, low).split(",")[0]
        parts.append(f'<text x="{x}" y="{height - 30}" text-anchor="middle">{layer}</text>')
    parts.append(f'<text x="{left}" y="{height - 10}">layer</text>')
    for name, color in COLORS.items():
        points = [place(layer, value) for layer, value in enumerate(curves[name])]
        line = " ".join(points)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{color}" stroke-width="2"/>')
        y = top + 12 + 18 * list(COLORS).index(name)
        parts.append(f'<text x="{width - 120}" y="{y}" style="fill:{color}">{name}</text>')
    return "\n".join([*parts, "</svg>", ""])


def write_embedded_dump(folder: Path) -> Path:
    """What the embedded runtime leaves of six prompts and 96 tokens decoded greedily after each."""
    shipped = SHIPPED / "h2o.json"
    config = folder / "config.json"
    greedy = launch_config(read_config(shipped), shipped, {"sampler_type": "greedy"})
    config.write_text(config_text(greedy))
    for prompt in PROMPTS:
        environment = {
            **os.environ,
            "MNN_KV_DUMP_DIR": str(folder / "dump"),
            "MNN_KV_DUMP_RUN_ID": prompt,
            "MNN_KV_DUMP_STAGE": "both",
        }
        text = ROOT / "prompts" / f"prompt_{prompt}.txt"
        command = [sys.executable, "-m", "pytest_h2o.engine.demo", str(config), str(text), "96"]
        command.append("--prompt-file-mode=whole")
        subprocess.run(command, env=environment, check=True, capture_output=True, cwd=ROOT)
    return folder / "dump"


def report_codecs(dumps: Sequence[Path], rounds: int, svg: Path | None) -> None:
    """Print all tables for ``dumps``, or for the recorded and the embedded runtime's; write the
    chart of the last one.
    """
    single_threaded_blas()
    np.empty(31 << 20, np.uint8)  # as the evaluator, keep what is freed
    with tempfile.TemporaryDirectory() as scratch:
        named = {str(dump): dump for dump in dumps}
        if not dumps:
            with tarfile.open(GOLDEN) as archive:
                archive.extractall(scratch, filter="data")
            named["recorded dump"] = Path(scratch) / "kv_dump" / "fp16"
            named["embedded runtime's dump"] = write_embedded_dump(Path(scratch))
        for name, dump in named.items():
            raw = sum(words.nbytes for words, _ in rows_of(dump).values())
            print(f"{name}, {raw / 1e6:.1f} MB, chunks of {CHUNK} rows, framing of {HEAD.size}\n")
            codecs = all_codecs()
            curves = ratio_table(dump, codecs)
            speed_table(dump, codecs, rounds)
            ablation_table(dump)
            length_table(dump)
            if svg:
                svg.write_text(chart(curves, f"Lossless ratio of K and V by layer, {name}"))
