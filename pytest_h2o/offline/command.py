"""The ``offline`` command: evaluate a KV dump, print a summary, write JSON, Markdown and HTML."""

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from pytest_h2o.codec import ROW_CODECS
from pytest_h2o.offline import OfflineError
from pytest_h2o.offline.options import (
    CODEC_MODES,
    ENTRY_MODES,
    PREDICTOR_OPTIONS,
    ROPE_LAYOUTS,
    SCOPES,
    STAGES,
    OfflineOptions,
)

if TYPE_CHECKING:
    from pytest_h2o.offline.result import DumpEvaluation

    Page = Callable[[DumpEvaluation], str]
    EvaluateAll = Callable[[Sequence[str], OfflineOptions], list[DumpEvaluation]]

_CHOICES = {
    "stage": STAGES,
    "scope": SCOPES,
    "entry_mode": ENTRY_MODES,
    "codec_mode": CODEC_MODES,
    "rope_layout": ROPE_LAYOUTS,
}
_HELP = {
    "stage": "entries written while prefilling, decoding, or both",
    "scope": "how layers are selected",
    "front_n": "layers 0 to N-1 (scope front_n)",
    "layer_start": "first layer (scope layer_range)",
    "layer_end": "last layer, -1: no end (scope layer_range)",
    "layer_ids": "comma list (scope layer_ids)",
    "strict_fp16": "skip fp32 entries instead of casting them to fp16, which loses information",
    "min_seq_len": "shortest entry in tokens",
    "max_seq_len": "longest entry in tokens, 0: any",
    "entry_mode": "what is coded together: an entry, a layer's whole sequence, or chunks of either",
    "online_chunk_seq": "tokens per chunk, 0: one chunk",
    "online_framing_bytes": "bytes charged per tensor and chunk",
    "aggregate_by_stage": "keep prefill and decode apart when joining entries",
    "codec_mode": "legacy: fixed predictors; adaptive_v22: the best predictor of each block; "
    "rope_row and row_reference: what these row codecs reach",
    "adaptive_block_seq": "tokens per predictor block",
    "bitshuffle": "transpose bit planes before compressing",
    "codecs": f"measure these beside it, of {', '.join(ROW_CODECS)} (comma list)",
    "rope_base": "RoPE base of keys whose meta file names none, 0: leave them rotated",
    "rope_layout": "how channels pair: k with k + dim/2 (half), or 2k with 2k + 1",
    "fast": "rank predictors by an entropy estimate instead of compressing with each",
    "verify": "decode everything and compare it with its source",
    "threads": "coding threads, 0: one per CPU",
}


_FLAGS = {"codecs": "--codec"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the dump directory, the outputs and every field of OfflineOptions to ``parser``."""
    parser.add_argument(
        "dump_dirs",
        nargs="+",
        metavar="DUMP_DIR",
        help="directory with meta_*.json, .npz or .safetensors files below it; of several the sums "
        "are added up",
    )
    parser.add_argument("--account", type=Path, help="write the sums here, -: to stdout alone")
    parser.add_argument("--out-json", type=Path, help="write the result here")
    parser.add_argument("--out-md", type=Path, help="write the report here")
    parser.add_argument("--out-html", type=Path, help="write the report with plots here")
    parser.add_argument("--overwrite", action="store_true", help="replace existing outputs")
    parser.add_argument("--verbose", action="store_true", help="print the whole report")
    for field in fields(OfflineOptions):
        _add_option(parser, field.name, field.default)


def option_flag(name: str) -> str:
    """The option of the command line for a field of OfflineOptions."""
    return _FLAGS.get(name, "--" + name.replace("_", "-"))


def _add_option(parser: argparse.ArgumentParser, name: str, default: object) -> None:
    flag = option_flag(name)
    text = _HELP.get(name)
    if isinstance(default, bool):
        parser.add_argument(flag, action=argparse.BooleanOptionalAction, default=default, help=text)
    elif isinstance(default, int):
        parser.add_argument(flag, type=int, default=default, help=text, metavar="N")
    elif isinstance(default, float):
        parser.add_argument(flag, type=float, default=default, help=text, metavar="X")
    elif isinstance(default, tuple):
        shown = ",".join(map(str, default))
        kind: Callable[[str], object] = _integers
        if name in PREDICTOR_OPTIONS or name == "codecs":
            kind = _names
        text = text or f"default {shown}"
        parser.add_argument(flag, dest=name, type=kind, default=default, help=text, metavar="LIST")
    else:
        parser.add_argument(flag, choices=_CHOICES[name], default=default, help=text)


def _names(text: str) -> tuple[str, ...]:
    parts = map(str.strip, text.split(","))
    return tuple(filter(None, parts))


def _integers(text: str) -> tuple[int, ...]:
    try:
        return tuple(map(int, _names(text)))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: expected integers, comma separated") from None


def run(args: argparse.Namespace, page: "Page", evaluate_all: "EvaluateAll | None" = None) -> int:
    """Evaluate as the parsed ``args`` say, ``page`` makes the HTML; 0 when something was evaluated,
    1 with a message on stderr otherwise. ``evaluate_all`` evaluates the directories in place of
    this process.
    """
    from pytest_h2o.offline.account import merged  # noqa: PLC0415 - numpy and pydantic

    try:
        _check_outputs(args)
        twice = [name for name, times in Counter(args.dump_dirs).items() if times > 1]
        if twice:
            raise OfflineError(f"{twice[0]} is given twice, and would count twice")
        given = {field.name: getattr(args, field.name) for field in fields(OfflineOptions)}
        results = (evaluate_all or _evaluate_here)(args.dump_dirs, OfflineOptions(**given))
        return _report(merged(results), args, page)
    except (OfflineError, OSError) as error:
        print(f"offline: {error}", file=sys.stderr)
        return 1


def _check_outputs(args: argparse.Namespace) -> None:
    for path in (args.out_json, args.out_md, args.out_html, args.account):
        if path is not None and path.exists() and not args.overwrite:
            raise OfflineError(f"{path} exists; give another name or --overwrite")


def _evaluate_here(dump_dirs: Sequence[str], options: OfflineOptions) -> "list[DumpEvaluation]":
    return [_evaluate(Path(dump_dir), options) for dump_dir in dump_dirs]


def _evaluate(dump_dir: Path, options: OfflineOptions) -> "DumpEvaluation":
    from pytest_h2o.offline.evaluate import evaluate  # noqa: PLC0415 - numpy and zstd, needed only now

    if not sys.stderr.isatty():
        return evaluate(dump_dir, options)
    try:
        return evaluate(dump_dir, options, Bar(sys.stderr))
    finally:
        print(file=sys.stderr)


def _report(result: "DumpEvaluation", args: argparse.Namespace, page: "Page") -> int:
    from pytest_h2o.offline.account import account_text  # noqa: PLC0415
    from pytest_h2o.offline.tables import to_markdown  # noqa: PLC0415

    if str(args.account) == "-":
        print(account_text(result), end="")
        return 0
    markdown = to_markdown(result)
    if args.account:
        args.account.write_text(account_text(result), "utf-8")
    if args.out_json:
        args.out_json.write_text(json.dumps(result.to_json(), indent=2) + "\n", "utf-8")
    if args.out_md:
        args.out_md.write_text(markdown, "utf-8", errors="backslashreplace")
    if args.out_html:
        args.out_html.write_text(page(result), "utf-8", errors="xmlcharrefreplace")
    if not result.tensors:
        skipped = next(iter(result.skipped.values()), None)
        first = f", {skipped.detail}" if skipped and skipped.detail else ""
        raise OfflineError(f"nothing could be evaluated: {result.to_json()['skip_reasons']}{first}")
    print(markdown if args.verbose else _summary(result))
    return 0


def _summary(result: "DumpEvaluation") -> str:
    values = result.to_json()
    checked = "not verified"
    if values["verified"]:
        checked = "decoded and compared"
    cast = ""
    if not result.lossless:
        cast = "; values were rounded to fp16"
    return (
        f"lossless ratio {values['lossless_ratio']:.4f} (K {values['k_lossless_ratio']:.4f}, "
        f"V {values['v_lossless_ratio']:.4f}, containers {values['container_ratio'] or 0:.4f}): "
        f"{values['evaluated_entries']} entries, {values['raw_bytes']} bytes, {checked}; "
        f"{values['skipped_entries']} skipped{cast}{_row_ratios(values)}"
    )


def _row_ratios(values: Mapping[str, Any]) -> str:
    """What each row codec reached, or why it did not."""
    text = ""
    for each in values["codecs"]:
        reached = each["error"] or f"{each['lossless_ratio']:.4f}"
        text += f"; {each['codec']} {reached}"
    return text


class Bar:
    """A progress line with rate and remaining time, at most five times a second."""

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._start, self._shown = stream, time.monotonic(), 0.0

    def __call__(self, done: int, total: int) -> None:
        """Show ``done`` of ``total`` bytes."""
        now = time.monotonic()
        if done < total and now - self._shown < 0.2:
            return
        self._shown = now
        rate = done / max(now - self._start, 1e-9)
        left = (total - done) / rate
        text = (
            f"{done / total:4.0%} of {total / 1e6:.0f} MB, {rate / 1e6:.1f} MB/s, {left:.0f} s left"
        )
        self._stream.write(f"\r{text:<60}")
        self._stream.flush()
