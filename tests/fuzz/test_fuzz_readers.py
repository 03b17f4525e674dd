"""What fuzzing found stays found."""

from __future__ import annotations

from pathlib import Path

import pytest
from fuzz_readers import DATA, check, seeds


@pytest.mark.parametrize("path", sorted((DATA / "fuzz").iterdir()), ids=lambda path: path.name)
def test_corpus(path: Path, tmp_path: Path) -> None:
    """An input kept from fuzzing neither crashes a reader nor gives a number that is not in it."""
    check(path.read_bytes(), tmp_path)


def test_recorded_output(tmp_path: Path) -> None:
    """The same holds for the heads and tails of real output."""
    for seed in seeds():
        check(seed, tmp_path)
