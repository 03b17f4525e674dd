"""The commands of ``pytest-h2o``: each module has ``EXAMPLES``, ``add_arguments(parser)`` and
``run(arguments)``.

``run`` returns the exit code. What a module needs beyond the standard library is imported in
``run``, so that ``--help`` costs nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pytest


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


def from_ini() -> dict[str, Any]:
    """This package's values in the ini file that pytest reads in the working directory; nothing is
    collected.
    """
    import pytest  # noqa: PLC0415

    class Reader:
        values: dict[str, Any] = {"h2o_set": []}  # noqa: RUF012  read once

        @pytest.hookimpl(tryfirst=True)
        def pytest_cmdline_main(self, config: pytest.Config) -> int:
            from pytest_h2o.session.settings import ini_values  # noqa: PLC0415

            self.values = ini_values(config)
            return 0

    reader = Reader()
    if pytest.main([str(Path())], plugins=[reader]):
        raise SystemExit(1)  # pytest said what is wrong
    return reader.values
