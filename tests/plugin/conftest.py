"""What the tests of whole sessions share."""

import pytest


@pytest.fixture(autouse=True)
def short_summary(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sessions under test print the same in continuous integration, where pytest repeats whole
    failures at the end.
    """
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.delenv("BUILD_NUMBER", raising=False)
