"""The faults that engines are launched with, and what is left of their output where only the
columns of a real build are printed.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pytest_h2o.engine.response import EXTRA_COLUMNS

OWN = {column.header for column in EXTRA_COLUMNS}
BENCH = ("PROMPTS=512", "GENS=48", "REPEAT=2", "THREADS=1", "DECODE_BASELINE_MODE=same_batch")
ALONE = "not decode_drop and not memory_peak"


@dataclass(frozen=True)
class Fault:
    """One fault: ``name`` is its function, ``kind`` what it is a variant of, ``select`` the gates
    that judge it.

    ``prompts`` is how many real ones there are. ``unseen`` is why nobody can tell from the columns
    and lines of a real build, if that is so.
    """

    kind: str
    name: str
    select: str = f"full_strict and {ALONE}"
    settings: tuple[str, ...] = BENCH
    unseen: str = ""
    prompts: int = 1


STORE = f"store_tuned and {ALONE}"
COVERAGE = f"full_coverage and {ALONE}"
WITH_BASELINE = "full_strict and not decode_drop"
GROWING = tuple(word.replace("REPEAT=2", "REPEAT=3") for word in BENCH)
LONG = ("PROMPTS=1024", "GENS=96", *BENCH[2:])

FORGED = (
    "its lines and columns are those of one that evicts; answers like the baseline's are a doubt"
)

HONEST = (
    Fault("honest", "honest", WITH_BASELINE),
    Fault("honest", "honest", STORE),
    Fault("honest", "honest", COVERAGE),
    Fault("honest", "honest_but_waiting"),
)
FAULTS = (
    Fault("errors of workers", "workers_fail_with_a_word"),
    Fault("errors of workers", "workers_fail_silently"),
    Fault("errors of workers", "workers_fail_later"),
    Fault("blocks encoded twice", "applies_blocks_twice"),
    Fault("blocks encoded twice", "encodes_blocks_again"),
    Fault("blocks encoded twice", "doubles_its_bytes"),
    Fault("unit of the waiting time", "waits_in_milliseconds"),
    Fault("unit of the waiting time", "waits_in_nanoseconds"),
    Fault("unit of the waiting time", "lines_wait_in_nanoseconds"),
    Fault("a leak", "leaks_every_response", settings=GROWING),
    Fault("a leak", "leaks_every_token", settings=GROWING),
    Fault("a leak", "keeps_a_copy", WITH_BASELINE),
    Fault("a failed assertion", "assertion_in_c"),
    Fault("a failed assertion", "terminate_called"),
    Fault("a failed assertion", "thread_with_a_traceback"),
    Fault("a failed assertion", "sanitizer_report"),
    Fault("plans put off", "plans_applied_at_the_end", settings=LONG),
    Fault("plans put off", "plans_applied_at_the_end_and_told_once", settings=LONG, unseen=FORGED),
    Fault("layers left out", "evicts_one_layer"),
    Fault("layers left out", "evicts_every_third_layer"),
    Fault("layers left out", "skips_front_layers"),
    Fault("prompts left out", "reads_half_of_the_prompt"),
    Fault("prompts left out", "reads_nine_tenths_of_the_prompt"),
    Fault("responses left out", "evicts_the_first_response_only"),
    Fault("responses left out", "plans_every_other_response"),
    Fault("blocks of other values", "encodes_zeros"),
)
TEXTS = (
    "DECODE_TOKENS=48",
    "RELATION_TOKENS=48",
    "THREADS=1",
)
LOSSLESS, GREEDY = "lossless_is_lossless", "repeated_launches_agree"
UNEVICTED = "nothing_evicted_nothing_changes"
TEXT_FAULTS = (
    Fault("lossless drops a bit", "drops_bits_of_values", LOSSLESS, TEXTS),
    Fault("a stale decode cache", "block_of_another_request", LOSSLESS, TEXTS),
    Fault("greedy text that differs", "draws_at_random", GREEDY, TEXTS),
    Fault("a quantised baseline", "baseline_of_three_bits", UNEVICTED, TEXTS),
)
# Variants of the same that cost a CI more than they tell it.
MORE_TEXT_FAULTS = (
    Fault("lossless drops a bit", "drops_a_bit_of_keys", LOSSLESS, TEXTS),
    Fault("a stale decode cache", "block_of_before_the_eviction", LOSSLESS, TEXTS),
    Fault("blocks of other values", "encodes_one_layer_for_all", LOSSLESS, TEXTS),
    Fault("greedy text that differs", "reads_memory_that_was_not_set", GREEDY, TEXTS),
    Fault("a quantised baseline", "baseline_of_four_bits", UNEVICTED, TEXTS),
)
UNSEEN = "unseen_prompts"
TABLES = (
    Fault("a table of known prompts", "knows_the_prompts", UNSEEN, TEXTS, prompts=12),
    Fault("a table of known prompts", "knows_first_sentences", UNSEEN, TEXTS, prompts=12),
)
WITHOUT_PERPLEXITY = "no relation asks yet where a token is"
NO_SPEED = "no relation asks yet how fast the baseline could be"
PENDING = (
    Fault("positions renumbered", "renumbers_positions", unseen=WITHOUT_PERPLEXITY),
    Fault("positions renumbered", "shifts_positions", unseen=WITHOUT_PERPLEXITY),
    Fault("a slow baseline", "baseline_sleeps", unseen=NO_SPEED),
    Fault("a slow baseline", "baseline_spins", unseen=NO_SPEED),
)
HONEST_TEXTS = (Fault("honest", "honest", f"{GREEDY} or {UNEVICTED}", TEXTS),)
EVERY_FAULT = (*FAULTS, *TEXT_FAULTS, *MORE_TEXT_FAULTS, *TABLES)
EVERY_HONEST = (*HONEST, Fault("honest", "honest", f"{LOSSLESS} or {GREEDY} or {UNEVICTED}", TEXTS))


def plain(session: Path, target: Path) -> Path:
    """A copy of a session whose programs printed only the columns that real builds have."""
    for directory in sorted(session.glob("launches/*/")):
        if not (directory / "launch.json").is_file():
            continue
        copy = Path(shutil.copytree(directory, target / "launches" / directory.name))
        table, metrics = copy / "log.md", copy / "metrics.jsonl"
        if table.is_file():
            table.write_text("".join(_without_own(table.read_text().splitlines())))
        if metrics.is_file():
            record = json.loads(metrics.read_text())
            kept = {key: value for key, value in record.items() if key not in OWN}
            metrics.write_text(json.dumps(kept) + "\n")
        record = json.loads((copy / "launch.json").read_text())
        (copy / "launch.json").write_text(json.dumps({**record, "outputs": {}}))
    return target


def _without_own(lines: list[str]) -> Iterator[str]:
    """A table without the columns of :data:`OWN`."""
    rows = [line.strip("| ").split(" |") for line in lines]
    if not rows:
        return  # a launch that broke off
    keep = [index for index, cell in enumerate(rows[0]) if cell.strip() not in OWN]
    for row in rows:
        cells = [row[index].strip() for index in keep]
        yield f"| {' | '.join(cells)} |\n"
