"""What every parser of measurements returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pytest_h2o.metrics import Sample


class ParseError(ValueError):
    """A file cannot be read at all; the message names the file, the cause and the next step."""


@dataclass(frozen=True)
class Row:
    """The measurements of one table row, JSON result or prompt.

    Attributes:
        label: ``p512_g128``, or ``pp512``/``tg128``/``pp512+tg128`` of a ``-kv false`` run, or the
            prompt's stem.
        prompt_tokens: prompt length in tokens, None if not printed; ``decode_tokens`` likewise.
        samples: by metric name; a metric that was not printed as a number is absent.
        cells: the raw text by column header or record key.
        line: line of ``source``, from 1; 0 where there is none.
        problems: why the row or parts of it cannot be trusted.
    """

    kind: Literal["bench", "demo"]
    label: str
    prompt_tokens: int | None
    decode_tokens: int | None
    samples: Mapping[str, Sample]
    cells: Mapping[str, str]
    source: Path
    line: int
    problems: tuple[str, ...]
