"""What the requests that one process answers cost, the later ones beside the first."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from pytest_h2o.runs.records import LaunchRecord

# A record is a few hundred bytes.
SIZE_LIMIT = 1 << 20
TIMES = ("prefill", "decode", "sample")
# Clocks of milliseconds may show the same twice.
COARSE_US = 1000


@dataclass(frozen=True)
class Request:
    """One answer: the times of prefill, decode and sampling in µs, and what a token of it took, in
    yardsticks where there is one, else in µs.
    """

    prompt_tokens: float
    decode_tokens: float
    times: tuple[float, float, float]
    token_cost: float

    @property
    def seconds(self) -> float:
        """All of the times."""
        return sum(self.times) / 1e6


def requests_of(record: LaunchRecord) -> list[Request]:
    """The requests of a launch in order; none where its records cannot be read, or say nothing."""
    found: list[Request] = []
    try:
        for line in _lines(record.metrics):
            found.append(_request(json.loads(line)))
    except (OSError, ValueError, KeyError, TypeError, ArithmeticError):
        return []
    return found


def slowdown(record: LaunchRecord) -> float | None:
    """How much more a token takes when the first prompt is answered again at the end: 1.0 is as
    much. None where nothing tells.
    """
    requests = requests_of(record)
    if len(requests) < 2:
        return None
    first, last = requests[0], requests[-1]
    same = (first.prompt_tokens, first.decode_tokens) == (last.prompt_tokens, last.decode_tokens)
    if not same or first.token_cost <= 0:
        return None
    return last.token_cost / first.token_cost


def timed_alike(record: LaunchRecord) -> tuple[float, float, float] | None:
    """The times that two requests have to the microsecond, which no clock shows twice; None where
    none have.
    """
    seen: set[tuple[float, float, float]] = set()
    for request in requests_of(record):
        fine = any(each % COARSE_US for each in request.times)
        if fine and request.times in seen:
            return request.times
        seen.add(request.times)
    return None


def memory_after_first(record: LaunchRecord) -> tuple[float, float] | None:
    """The peak of resident memory when the first request had been answered, and at the end, in MiB;
    None where nobody saw it.
    """
    requests = requests_of(record)
    if len(requests) < 2 or not record.peaks_mb or not record.seconds:
        return None
    later = sum(each.seconds for each in requests[1:])
    share = 1 - later / record.seconds
    step = int(share * len(record.peaks_mb))
    if not 0 <= step < len(record.peaks_mb):
        return None
    return record.peaks_mb[step], record.peaks_mb[-1]


def _lines(path: Path) -> list[bytes]:
    with path.open("rb") as file:
        return file.read(SIZE_LIMIT).splitlines()


def _request(record: dict[str, float]) -> Request:
    prefill, decode, sample = (float(record[f"{name}_us"]) for name in TIMES)
    tokens = float(record["decode_tokens"])
    cost = record.get("decode_cost") or decode / tokens
    times = prefill, decode, sample
    return Request(float(record["prompt_tokens"]), tokens, times, float(cost))
