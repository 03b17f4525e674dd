"""The commands of ``pytest-h2o``: each module has ``EXAMPLES``, ``add_arguments(parser)`` and ``run(arguments)``.

``run`` returns the exit code. What a module needs beyond the standard library is imported in ``run``, so that
``--help`` costs nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence


def fail(reason: object) -> int:
    """Say on stderr what must be corrected; returns the exit code for it."""
    note(f"pytest-h2o: error: {reason}")
    return 1


def clean(text: object, limit: int = 2000) -> str:
    """One line without control characters, cut to ``limit`` characters."""
    from pytest_h2o.report import text as report  # noqa: PLC0415

    return report.clean(text, limit)


def note(text: object) -> None:
    """One line on stderr, neutralised."""
    print(clean(text), file=sys.stderr, flush=True)


def table(rows: Sequence[tuple[str, ...]]) -> str:
    """Aligned columns, every cell neutralised."""
    from pytest_h2o.report.text import aligned  # noqa: PLC0415

    return "\n".join(aligned([tuple(clean(cell, 200) for cell in row) for row in rows]))
