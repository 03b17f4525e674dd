"""How well a held-out text was predicted: the report of ``llm_bench --quality`` where KV is
quantised, and what ``ppl_eval`` prints.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, Field, ValidationError

from pytest_h2o.parsers.rows import ParseError

SIZE_LIMIT = 1 << 20
FULL, QUANTISED = "full", "quantised"
Finite = Annotated[float, Field(allow_inf_nan=False, ge=0)]
_PERPLEXITY = re.compile(rb"(?m)^Perplexity: ([0-9.eE+-]{1,32})\s*$")


@dataclass(frozen=True)
class HeldOut:
    """What one launch showed of a held-out text.

    ``divergence`` is from the full cache, in nats per token; ``kv_bytes`` are bytes a token by the
    memory of the process. None is what the program does not report.
    """

    source: Path
    perplexity: float
    divergence: float | None = None
    kv_bytes: float | None = None


class _Policy(BaseModel):
    policy: str
    perplexity: Finite
    divergence: Finite


class _Report(BaseModel):
    kv_bytes_per_token: Finite | None
    kv_quality: Annotated[list[_Policy], Field(min_length=1, max_length=2)]


def read_kv_report(path: Path) -> HeldOut:
    """The last row of a report: with quantised KV if the launch quantised; raises ParseError."""
    try:
        report = _Report.model_validate_json(_content(path))
    except (OSError, ValueError, ValidationError) as error:
        first = str(error).splitlines()[0]
        raise ParseError(f"{path} is no report about quantised KV: {first}") from error
    row = report.kv_quality[-1]
    divergence = row.divergence if row.policy == QUANTISED else None
    return HeldOut(path, row.perplexity, divergence, report.kv_bytes_per_token)


def read_perplexity(path: Path) -> HeldOut:
    """The last line ``Perplexity: X`` that ``ppl_eval`` printed; raises ParseError."""
    try:
        found = _PERPLEXITY.findall(_content(path))
        return HeldOut(path, float(found[-1]))
    except (OSError, ValueError, IndexError) as error:
        raise ParseError(f"{path} has no line with a perplexity") from error


def _content(path: Path) -> bytes:
    if path.stat().st_size > SIZE_LIMIT:
        raise ValueError("larger than 1 MiB")
    return path.read_bytes()
