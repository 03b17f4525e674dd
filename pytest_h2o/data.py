"""Where the gates, presets and prompts that ship are: in the package of a wheel, beside it in a checkout."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).resolve().parent


def bundled(name: str) -> Path:
    """The directory ``gates``, ``presets`` or ``prompts``; raises FileNotFoundError when the installation lacks it."""
    for candidate in (PACKAGE / name, PACKAGE.parent / name):
        if candidate.is_dir():
            return candidate
    raise FileNotFoundError(f"{name}/ is neither in {PACKAGE} nor beside it: reinstall pytest-h2o")
