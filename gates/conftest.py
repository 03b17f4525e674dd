"""What these gates settle before anything is collected; all else comes with the plugin."""

from __future__ import annotations

import pytest

from pytest_h2o.plugin import session_of


def pytest_configure(config: pytest.Config) -> None:
    """Read the settings, so that a wrong one is a usage error before anything is imported."""
    session_of(config)
