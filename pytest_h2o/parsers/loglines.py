"""The log lines that a runtime prints on stdout, reduced to counts.

Lines of interest begin with ``[H2O]``, ``[H2O-LOSSLESS]`` or one of :data:`INTEGRITY_KINDS`, and
end with a newline. They may start anywhere in a line, because generated text is printed without
one.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby, pairwise
from pathlib import Path

from pytest_h2o.parsers.lines import Piece, printable, read_pieces
from pytest_h2o.parsers.repeats import LoggedBlock, Plan, Repeats

H2O, LOSSLESS = "[H2O] ", "[H2O-LOSSLESS] "
STALE_PLAN = "Drop stale per-layer pending plan"
INTEGRITY_KINDS = (
    STALE_PLAN,
    "Clamp invalid meta remove",
    "Clamp invalid meta n_reserve",
    "Drop invalid meta reserve before realloc",
    "Invalid KV realloc meta",
    "Invalid KV realloc start",
    "Invalid KV reserve plan",
    "Invalid KV reserve range",
    "KVMeta::sync got",
)
LOSSLESS_ERRORS = (
    "scatter restore failed",
    "missing target KV cache manager",
    "invalid encoded range",
    "zeroKvRange failed",
    "async counters out-of-sync",
)
SHRINKS = ("shrink: discarding ", "shrink(store): discarding ")
UNREADABLE = "unreadable line"
EVENT_CHARS = 1024
# A plan that the engine cancels for its lossless blocks is made again so many tokens later, at most
# so often in a row.
AGAIN_TOKENS, AGAIN_TIMES = 64, 2
MAX_LAYERS = 1024
MAX_DISTINCT = 256
TELLING_CHARS = 300
_MARK = re.compile("|".join(map(re.escape, (H2O, LOSSLESS, *INTEGRITY_KINDS))))
_INTEGER = re.compile(r"-?[0-9]{1,18}")
_SHARE = re.compile(r"[0-9]\.[0-9]{3,18}")
_ECHOED = ("target", "recent", "sink", "block")


@dataclass
class LayerFacts:
    """What the lines of one layer say; KV lengths are in tokens and come from its plan lines.

    ``followed_by_smaller_kv`` counts plans after which the next plan of the layer met a smaller KV
    length, which shows that they were applied. ``best_ratio`` is the largest tokens before over
    tokens after of any plan. ``restore_us`` is the time that decoding took over all responses.
    """

    plans: int = 0
    evicted: int = 0
    stale_plans: int = 0
    last_kv: int | None = None
    last_evict: int | None = None
    best_ratio: float = 1.0
    followed_by_smaller_kv: int = 0
    restore_us: int = 0
    last_restore_us: int = 0
    cancelled: int = 0
    made_again: int = 0

    def update(self, restore_us: int, *, first: bool) -> None:
        """Count an encoded block; ``restore_us`` is a running sum that begins with the ``first``
        one of a response.
        """
        before = 0 if first else self.last_restore_us
        self.restore_us += max(0, restore_us - before)
        self.last_restore_us = restore_us

    def plan(self, kv: int, evict: int) -> None:
        """Count a plan that drops ``evict`` of ``kv`` tokens."""
        again = False
        if self.last_kv is not None:
            self.followed_by_smaller_kv += kv < self.last_kv
            again = 0 <= kv - self.last_kv <= AGAIN_TOKENS
        self.made_again = self.made_again + 1 if again else 0
        if 0 < self.made_again <= AGAIN_TIMES:
            self.cancelled += self.last_evict or 0
        self.plans += 1
        self.evicted += evict
        self.last_kv, self.last_evict = kv, evict
        self.best_ratio = max(self.best_ratio, kv / max(1, kv - evict))


@dataclass
class LineCount:
    """How often a kind of line occurred, and the first one."""

    count: int
    example: str


@dataclass
class LogFacts:
    """What the log lines of one launch say, over all its responses.

    Attributes:
        layers: by layer index; a layer that no line names is absent.
        findings: KV integrity and lossless error lines, and lines that could not be read, by kind.
        max_kv: largest ``kv=`` of any line, None without one.
        updates: applied encode results; their bytes are summed in ``raw_bytes`` and ``comp_bytes``
            (accounted bytes).
        gains: updates whose block was smaller than what it encodes.
        bootstrap_spans: how often a layer's first block had how many tokens; ``periodic_spans``:
            its later ones.
        modes: runtime modes seen (0 probe, 1 full, 2 store).
        echo: the configuration as plan lines repeat it, by key.
        unprotected: plans whose floor holds, or which keep, fewer tokens than the sink and recent
            ones that the line names.
        fallbacks: updates whose block failed; ``backpressure``: those that were skipped for a full
            queue.
        max_queue: largest ``queue=`` of any update.
        repeats: plans and blocks one by one.
    """

    layers: dict[int, LayerFacts] = field(default_factory=dict)
    findings: dict[str, LineCount] = field(default_factory=dict)
    max_kv: int | None = None
    floor_dominated: int = 0
    updates: int = 0
    raw_bytes: int = 0
    comp_bytes: int = 0
    gains: int = 0
    bootstrap_spans: Counter[int] = field(default_factory=Counter)
    periodic_spans: Counter[int] = field(default_factory=Counter)
    modes: set[int] = field(default_factory=set)
    echo: dict[str, set[str]] = field(default_factory=dict)
    unprotected: int = 0
    fallbacks: int = 0
    backpressure: int = 0
    max_queue: int = 0
    repeats: Repeats = field(default_factory=Repeats)

    @property
    def plans(self) -> int:
        """Eviction plans reported."""
        return sum(layer.plans for layer in self.layers.values())

    @property
    def evicted(self) -> int:
        """Tokens that all plans together drop, applied or not."""
        return sum(layer.evicted for layer in self.layers.values())

    @property
    def restore_us(self) -> int:
        """Microseconds that decoding took according to the update lines, over all layers and
        responses.
        """
        return sum(layer.restore_us for layer in self.layers.values())

    @property
    def stale_plans(self) -> int:
        """Plans that the runtime says it dropped."""
        found = self.findings.get(STALE_PLAN)
        return found.count if found else 0

    @property
    def plans_followed_by_smaller_kv(self) -> int:
        """Plans after which the next plan of the same layer met a shorter cache."""
        return sum(layer.followed_by_smaller_kv for layer in self.layers.values())

    def add(self, mark: str, text: str) -> None:
        """Count one log line that begins with ``mark``."""
        readers = {H2O: self._h2o, LOSSLESS: self._lossless, STALE_PLAN: self._stale_plan}
        if mark not in (H2O, LOSSLESS):
            self._find(mark, text)
        if mark in readers and not readers[mark](text):
            self._find(UNREADABLE, text)

    def _h2o(self, text: str) -> bool:
        fields = _fields(text)
        if text.startswith("[H2O] floor-keep dominates target:"):
            self.floor_dominated += 1
            self._see_kv(fields)
            return True
        layer, kv, evict = self._layer(fields), _int(fields, "kv"), _int(fields, "evict")
        if layer is None or kv is None or evict is None:
            return False
        layer.plan(kv, evict)
        self.repeats.plan(Plan(_int(fields, "layer") or 0, kv, evict))
        self._see_kv(fields)
        self.unprotected += _unprotected(fields, kv)
        for key in _ECHOED:
            values = self.echo.setdefault(key, set())
            if key in fields and len(values) < MAX_DISTINCT:
                values.add(fields[key])
        return True

    def _lossless(self, text: str) -> bool:
        rest = text.removeprefix(LOSSLESS)
        if rest.startswith(SHRINKS):
            return True
        for error in LOSSLESS_ERRORS:
            if rest.startswith(error):
                self._find(error, text)
                return True
        return self._update(_fields(rest))

    def _update(self, fields: dict[str, str]) -> bool:
        layer, tokens = self._layer(fields), _int(fields, "tokens")
        raw, comp = _int(fields, "raw"), _int(fields, "eff_comp")
        if layer is None or tokens is None or raw is None or comp is None:
            return False
        first = fields.get("updates") == "1"
        layer.update(_int(fields, "decomp_us") or 0, first=first)
        _count_block(self.repeats, fields, tokens, raw)
        encoding_us = _int(fields, "comp_us") or 0
        self.repeats.told(encoding_us, _int(fields, "kv"), first=first)
        self.updates += 1
        self.raw_bytes += raw
        self.comp_bytes += comp
        self.gains += comp < raw
        self.fallbacks += _int(fields, "fallback") or 0
        self.backpressure += _int(fields, "backpressure") or 0
        self.max_queue = max(self.max_queue, _int(fields, "queue") or 0)
        spans = self.bootstrap_spans if first else self.periodic_spans
        if tokens in spans or len(spans) < MAX_DISTINCT:
            spans[tokens] += 1
        self._see_kv(fields)
        _see(self.modes, fields, "mode")
        return True

    def _stale_plan(self, text: str) -> bool:
        layer = self._layer(_fields(text))
        if layer:
            layer.stale_plans += 1
        return layer is not None

    def _layer(self, fields: dict[str, str]) -> LayerFacts | None:
        index = _int(fields, "layer")
        if index is None or not 0 <= index < MAX_LAYERS:
            return None
        return self.layers.setdefault(index, LayerFacts())

    def _see_kv(self, fields: dict[str, str]) -> None:
        kv = _int(fields, "kv")
        if kv is not None:
            self.max_kv = max(kv, self.max_kv or kv)

    def _find(self, kind: str, text: str) -> None:
        if kind not in self.findings:
            self.findings[kind] = LineCount(0, printable(text[:TELLING_CHARS]))
        self.findings[kind].count += 1


def _count_block(repeats: Repeats, fields: dict[str, str], tokens: int, raw: int) -> None:
    layer, start, comp = (_int(fields, key) for key in ("layer", "start", "attempt_comp"))
    if start is not None and comp is not None:
        block = LoggedBlock(layer or 0, start, tokens, raw, comp, _int(fields, "updates"))
        repeats.block(block, _int(fields, "async_wait_us") or 0)


def _unprotected(fields: dict[str, str], kv: int) -> bool:
    """Whether ``floor=``, a share of ``kv`` to three digits, or what stays is less than ``sink=``
    and ``recent=``.
    """
    sink, recent = _int(fields, "sink"), _int(fields, "recent")
    if sink is None or recent is None or not _SHARE.fullmatch(fields.get("floor", "")):
        return False
    kept = kv - (_int(fields, "evict") or 0)
    return min((float(fields["floor"]) + 0.0005) * kv, kept) < min(kv, sink + recent)


def read_log_facts(*sources: Path | str) -> LogFacts:
    """The facts in what a launch printed; raises :class:`ParseError` if a file cannot be read."""
    facts = LogFacts()
    for source in sources:
        for segment in segments(filter(_may_hold_marks, read_pieces(source))):
            if segment.mark:
                facts.add(segment.mark, segment.text)
    return facts


def read_facts_of_rows(source: Path, ends: Sequence[int]) -> list[LogFacts]:
    """The facts in each stretch of an output that ends with one of some line numbers, in order;
    what follows the last belongs to it. Raises as :func:`read_log_facts`.
    """
    facts = [LogFacts() for _ in ends]

    def stretch(piece: Piece) -> int:
        return min(bisect_left(ends, piece.line), len(ends) - 1)

    pieces = filter(_may_hold_marks, read_pieces(source))
    for index, own in groupby(pieces, key=stretch):
        for segment in segments(own):
            if segment.mark:
                facts[index].add(segment.mark, segment.text)
    return facts


def _may_hold_marks(piece: Piece) -> bool:
    return not piece.whole or is_log_line(piece.text)


def is_log_line(text: str) -> bool:
    """Whether there is a line of the engine's in it, which is read as such."""
    return _MARK.search(text) is not None


def is_odd_log_line(text: str) -> bool:
    """Whether a line has the mark of the engine's, and is neither a plan nor a block nor any other
    that is known.
    """
    for mark in (H2O, LOSSLESS):
        start = text.find(mark)
        facts = LogFacts()
        if start >= 0:
            facts.add(mark, text[start:])
        if UNREADABLE in facts.findings:
            return True
    return False


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of output: a log line from its mark on (at most :data:`EVENT_CHARS`), or text with
    an empty mark.
    """

    text: str
    mark: str


def segments(pieces: Iterable[Piece]) -> Iterator[Segment]:
    """The output split at log marks; the newline after a log line belongs to it, every other one to
    the text.
    """
    carry, in_log = "", False
    for piece in pieces:
        text = carry + piece.text
        # A mark near the end of an unfinished line waits for the rest of its log line.
        edge = len(text) if piece.ends else max(0, len(text) - EVENT_CHARS)
        marks = [(found.start(), found[0]) for found in _MARK.finditer(text)]
        marks.append((len(text), ""))
        plain = text[: min(edge, marks[0][0])]
        if plain and not in_log:
            yield Segment(plain, "")
        for (start, mark), (end, _) in pairwise(marks):
            if start < edge:
                cut_off = piece.ends and not piece.newline and end == len(text)
                line = text[start : min(end, start + EVENT_CHARS)]
                yield Segment(_event(line, cut_off=cut_off), mark)
                in_log = True
        carry = text[edge:]
        if piece.ends:
            if piece.newline and not in_log:
                yield Segment("\n", "")
            in_log = False


def _event(text: str, *, cut_off: bool) -> str:
    """A log line; the last word of one that the end of the output cut off may be incomplete and is
    left out.
    """
    if cut_off:
        return text.rpartition(" ")[0]
    return text.rstrip()


def _fields(text: str) -> dict[str, str]:
    fields: dict[str, str] = {}
    for word in text.split(" "):
        key, equals, value = word.strip("(),").partition("=")
        if equals:
            fields[key] = value.rstrip(".")
    return fields


def _int(fields: dict[str, str], key: str) -> int | None:
    text = fields.get(key, "")
    return int(text) if _INTEGER.fullmatch(text) else None


def _see(values: set[int], fields: dict[str, str], key: str) -> None:
    value = _int(fields, key)
    if value is not None and len(values) < MAX_DISTINCT:
        values.add(value)
