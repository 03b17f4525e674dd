"""Where the gates, presets and prompts that ship are: in the package of a wheel, beside it in a
checkout.
"""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).resolve().parent

# Where pytest looks for its configuration, and what the file must contain.
INI_FILES = {
    "pytest.toml": "", ".pytest.toml": "", "pytest.ini": "", ".pytest.ini": "",
    "pyproject.toml": "[tool.pytest", "tox.ini": "[pytest]", "setup.cfg": "[tool:pytest]",
}  # fmt: skip


def bundled(name: str) -> Path:
    """The directory ``gates``, ``presets`` or ``prompts``; raises FileNotFoundError when the
    installation lacks it.
    """
    for candidate in (PACKAGE / name, PACKAGE.parent / name):
        if candidate.is_dir():
            return candidate
    raise FileNotFoundError(f"{name}/ is neither in {PACKAGE} nor beside it: reinstall pytest-h2o")


def project_ini(directory: Path) -> Path | None:
    """The file that pytest takes its configuration from in ``directory``; beside the bundled gates
    it finds none.
    """
    for folder in (directory, *directory.parents):
        for name, mark in INI_FILES.items():
            path = folder / name
            if path.is_file() and mark in path.read_text("utf-8", errors="replace"):
                return path
    return None
