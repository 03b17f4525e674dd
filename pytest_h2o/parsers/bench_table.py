"""The Markdown table of ``llm_bench``, from its own file or from stdout with other lines around it.

A table is ``| cell | ... |`` lines: a header, a separator of dashes, rows. Programs append, so a
file may hold several tables; columns are found by name, whatever their order and number.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pytest_h2o.metrics import BY_BENCH, Sample
from pytest_h2o.parsers.lines import PIECE_CHARS, Piece, printable, read_pieces
from pytest_h2o.parsers.numbers import parse_count, parse_sample
from pytest_h2o.parsers.rows import ParseError, Row

SPEEDS = "speed(tok/s)"
HEADERS = {
    "model",
    "modelSize",
    "backend",
    "threads",
    "precision",
    "llm_demo",
    "test",
    SPEEDS,
    "t/s",
    *BY_BENCH,
}
MAX_ROWS = 4096
MAX_FILE_ROWS = 16 * MAX_ROWS
MAX_PROBLEMS = 64
_DEMO = re.compile(r"prompt=([0-9]+)<br>decode=([0-9]+)")
_TEST = re.compile(r"(?:pp([0-9]+))?\+?(?:tg([0-9]+))?")
_ROW = re.compile(r"\|[^|]*\|.*\|")
_SEPARATOR = re.compile(r"[-:]+")
# What becomes of the plus-minus sign between two numbers in other encodings than the file's, and
# what is typed for it; the second byte of Shift JIS is a brace.
_PLUS_MINUS = re.compile(
    r"(?<=[0-9nf]) (?:[^\x00-\x7f]{1,3}\}?|\+/?-) (?=[-0-9ni])|(?<=[0-9nf])\+/-(?=[-0-9ni])"
)
# What Markdown tools make of a line break in a cell.
_BREAK = re.compile(r"<br ?/?>", re.IGNORECASE)
# What remains of a row behind other text; progress displays have bars as well, but few.
_MOST_OF_A_ROW, _CELLS_OF_A_ROW = 0.5, 4
_SIZE = re.compile(r"([0-9.]+) GiB")
# No model is larger. A program that found no weight file prints 2^64 bytes, and a full table.
MAX_MODEL_GIB = 2**20


@dataclass(frozen=True)
class Table:
    """One table: ``problems`` are about lines that are not good rows, ``line`` is the header's."""

    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    problems: tuple[str, ...]
    line: int


@dataclass(frozen=True, slots=True)
class _Line:
    """A line with table cells; ``closed`` if it ends with a bar, ``glued`` if other text precedes
    the first bar.
    """

    number: int
    cells: tuple[str, ...]
    closed: bool
    glued: bool

    @property
    def is_header(self) -> bool:
        return len(HEADERS.intersection(self.cells)) >= 2

    @property
    def is_drawn(self) -> bool:
        """Whether it is a bar that shows progress; rows begin with a name."""
        first = self.cells[0]
        named = any(map(str.isalpha, first))
        counted = any(map(str.isdigit, first)) and "%" not in first
        return first != "" and not named and not counted

    @property
    def is_separator(self) -> bool:
        return self.closed and all(_SEPARATOR.fullmatch(cell) for cell in self.cells)


@dataclass
class _Open:
    """A table that is being read."""

    header: _Line
    source: Path
    n: int | None
    rows: list[Row] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def add(self, line: _Line) -> None:
        width = len(self.header.cells)
        fits = line.closed and len(line.cells) == width
        if fits and len(self.rows) < MAX_ROWS:
            self.rows.append(_row(self.header.cells, line, self.source, self.n))
        elif fits:
            self.complain(line.number, f"more than {MAX_ROWS} rows, not read")
        elif not line.is_drawn and (not line.glued or self._most_of_a_row(line)):
            what = f"{len(line.cells)} cells where the header has {width}"
            if not line.closed:
                what += ", cut off"
            self.complain(line.number, what)

    def _most_of_a_row(self, line: _Line) -> bool:
        found = len(line.cells)
        return found >= _CELLS_OF_A_ROW and found > _MOST_OF_A_ROW * len(self.header.cells)

    def complain(self, number: int, what: str) -> None:
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(f"line {number}: {what}")

    def close(self) -> Table:
        columns, number = self.header.cells, self.header.number
        problems: list[str] = []
        if not self.header.closed:
            problems.append(f"line {number}: the header is cut off")
        twice = sorted({column for column in columns if columns.count(column) > 1})
        if twice:
            names = printable(", ".join(twice))
            problems.append(f"line {number}: columns given more than once: {names}")
        problems += self.problems
        return Table(columns, tuple(self.rows), tuple(problems), number)


def read_tables(path: Path, n: int | None = None) -> tuple[Table, ...]:
    """All tables of a file in order; of a file that was appended to, the last one is the current
    launch.

    ``n`` is the number of measured repeats, which the table does not print. Raises
    :class:`ParseError` if the file cannot be read; a file without a table gives none.
    """
    found, size = list[Table](), 0
    for table in tables(read_pieces(path), path, n):
        found.append(table)
        size += 1 + len(table.rows)
        if size > MAX_FILE_ROWS:
            raise ParseError(
                f"{path}: more than {MAX_FILE_ROWS} rows and headers; give one log per launch"
            )
    return tuple(found)


def tables(pieces: Iterable[Piece], source: Path, n: int | None = None) -> Iterator[Table]:
    """Each table found in the lines, as soon as it is complete."""
    table: _Open | None = None
    for line in _with_headers_cut_free(_table_lines(pieces)):
        if line.is_header:
            if table:
                yield table.close()
            table = _Open(line, source, n)
        elif table and not line.is_separator:
            table.add(line)
    if table:
        yield table.close()


def _table_lines(pieces: Iterable[Piece]) -> Iterator[_Line]:
    for number, shown in _shown_lines(pieces):
        text = _BREAK.sub("<br>", _PLUS_MINUS.sub(" ± ", shown))
        before, bar, rest = text.partition("|")
        if bar:
            closed = rest.endswith("|")
            cells = tuple(cell.strip() for cell in rest.removesuffix("|").split("|"))
            yield _Line(number, cells, closed, glued=bool(before.strip()))


def _shown_lines(pieces: Iterable[Piece]) -> Iterator[tuple[int, str]]:
    """Each line with its number, without what a progress display overwrote with a carriage return
    unless that is a row; the end alone of one that is endless.
    """
    unfinished = ""
    for piece in pieces:
        text = piece.text if piece.starts else unfinished + piece.text
        if piece.ends:
            text = text.rstrip()
        *overwritten, last = text.split("\r")
        for part in map(str.strip, overwritten):
            if _ROW.fullmatch(part):
                yield piece.line, part
        if piece.ends:
            yield piece.line, last.strip()
        unfinished = last[-PIECE_CHARS:]


def _with_headers_cut_free(lines: Iterable[_Line]) -> Iterator[_Line]:
    """Split a line where a header was appended to a cut-off row; the separator below it tells the
    width.
    """
    held: _Line | None = None
    for line in lines:
        if held and line.is_separator:
            yield from _split_at_header(held, len(line.cells))
        elif held:
            yield held
        held = line
    if held:
        yield held


def _split_at_header(line: _Line, width: int) -> tuple[_Line, ...]:
    first = _Line(line.number, line.cells[:-width], False, line.glued)
    second = _Line(line.number, line.cells[-width:], line.closed, True)
    if first.cells and second.is_header and not first.is_header:
        return first, second
    return (line,)


def _row(columns: Sequence[str], line: _Line, source: Path, n: int | None) -> Row:
    # Of a repeated column the first counts.
    cells = dict(zip(reversed(columns), reversed(line.cells), strict=True))
    label, prompt, decode = _lengths(cells)
    samples: dict[str, Sample] = {}
    problems: list[str] = []
    if not label:
        problems.append(f"line {line.number}: neither llm_demo nor test says what was run")
    if (size := _SIZE.fullmatch(cells.get("modelSize", ""))) and float(size[1]) > MAX_MODEL_GIB:
        shown = printable(cells["modelSize"][:40])
        problems.append(f"line {line.number}: modelSize is {shown}: no weight file was read")
    for name, column, text in _metric_cells(cells, prompt, decode):
        sample = parse_sample(text, n)
        if sample:
            samples[name] = sample
        else:
            shown = printable(text[:40])
            problems.append(f"line {line.number}: {column} is {shown!r}, not a number")
    ordered = {column: cells[column] for column in columns}
    return Row(
        "bench",
        label or "unnamed",
        prompt,
        decode,
        samples,
        ordered,
        source,
        line.number,
        tuple(problems),
    )


def _lengths(cells: Mapping[str, str]) -> tuple[str, int | None, int | None]:
    """Label, prompt tokens and decode tokens."""
    if found := _DEMO.fullmatch(cells.get("llm_demo", "")):
        prompt, decode = parse_count(found[1]), parse_count(found[2])
        return f"p{prompt}_g{decode}", prompt, decode
    test = cells.get("test", "")
    if test and (found := _TEST.fullmatch(test)):
        return test, parse_count(found[1] or ""), parse_count(found[2] or "")
    return "", None, None


def _speed_of(prompt: int | None, decode: int | None) -> str:
    """The metric that a lone speed is of a run with these lengths."""
    if prompt is None:
        return "decode_tps"
    if decode is None:
        return "prefill_tps"
    return "combined_tps"


def _metric_cells(
    cells: Mapping[str, str], prompt: int | None, decode: int | None
) -> Iterator[tuple[str, str, str]]:
    """Metric name, column and text of every measurement in a row."""
    for column, cell in cells.items():
        prefill, both, rest = cell.partition("<br>")
        # Beside rows that have two numbers; a test that is not split has one.
        alone = not both and "test" in cells
        if column == SPEEDS and not alone:
            yield "prefill_tps", column, prefill
            yield "decode_tps", column, rest
        elif column in ("t/s", SPEEDS):
            yield _speed_of(prompt, decode), column, cell
        elif column in BY_BENCH:
            yield BY_BENCH[column].name, column, cell
        elif column not in HEADERS and parse_sample(cell) and _looks_measured(column, cell):
            yield column, column, cell


def _looks_measured(column: str, cell: str) -> bool:
    """Whether a number that nobody knows is a measurement: it has a spread, or a unit in its
    header.
    """
    return "±" in cell or column.endswith(")")
