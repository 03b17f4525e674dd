"""The commands of ``pytest-h2o``: each module has ``EXAMPLES``, ``add_arguments(parser)`` and
``run(arguments)``.

``run`` returns the exit code. What a module needs beyond the standard library is imported in
``run``, so that ``--help`` costs nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import pytest

    from pytest_h2o.session.settings import Settings

T = TypeVar("T")
WRONG_USE = 2


def fail(reason: object) -> int:
    """Say on stderr what must be corrected; returns the exit code for it."""
    note(f"pytest-h2o: error: {reason}")
    return WRONG_USE


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

    cleaned: list[tuple[str, ...]] = []
    for row in rows:
        cleaned.append(tuple(clean(cell, 200) for cell in row))
    return "\n".join(aligned(cleaned))


class _Read(Exception):
    """Ends pytest before it looks for any ``conftest.py``."""


def from_ini() -> dict[str, Any]:
    """This package's values in the ini file that pytest reads in the working directory."""
    from pytest_h2o.session.settings import ini_values  # noqa: PLC0415

    return _at_start([], ini_values)


def in_session(words: Sequence[str]) -> Settings:
    """The settings of a session that pytest starts in the working directory with these arguments;
    raises UsageError.
    """
    from pytest_h2o.session.settings import read_settings  # noqa: PLC0415

    return _at_start(words, read_settings)


def _at_start(words: Sequence[str], look: Callable[[pytest.Config], T]) -> T:
    """What ``look`` finds in pytest's configuration, made of ini file, its ``addopts`` and
    ``words``; raises UsageError.

    Nothing is collected and no ``conftest.py`` is imported: a project's own may need packages, or
    register options, that its settings do not depend on.
    """
    import pytest  # noqa: PLC0415

    found: list[T] = []
    wrong: list[pytest.UsageError] = []

    class Reader:
        @pytest.hookimpl(tryfirst=True)
        def pytest_load_initial_conftests(
            self, early_config: pytest.Config, parser: pytest.Parser, args: list[str]
        ) -> None:
            parser.parse_known_args(args, namespace=early_config.option)
            try:
                found.append(look(early_config))
            except pytest.UsageError as error:
                wrong.append(error)
            raise _Read

    with suppress(_Read):
        pytest.main([str(Path()), *words], plugins=[Reader()])
        raise SystemExit(1)  # pytest said what is wrong
    if wrong:
        raise wrong[0]
    return found[0]
