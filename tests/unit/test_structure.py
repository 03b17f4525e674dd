"""The shape of the project: what imports what, what lies at the top level, and that the checkers
are content.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "pytest_h2o"
# Lower layers first: a module imports from its own layer and from those before it.
LAYERS = [
    {"codec", "data", "keys", "pytest_private"},
    {"engine", "offline", "metrics"},
    {"verdict", "parsers"},
    {"plan"},
    {"runtimes"},
    {"docs"},
    {"runs"},
    {"decode"},
    {"evidence"},
    {"lab"},
    {"report"},
    {"kit"},
    {"session"},
    {"commands"},
    {"fixtures", "cli", "notebook", "plugin"},
]
LONGEST_CLASS = 150
TOP_LEVEL = {
    "pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE", "pytest_h2o", "gates", "presets",
    "prompts", "conftest.py", "tests",
}  # fmt: skip


def layer_of(name: str) -> int:
    return next(index for index, names in enumerate(LAYERS) if name in names)


def imported_modules(path: Path) -> set[str]:
    """The first name below ``pytest_h2o`` of everything that a file imports at run time."""
    tree = ast.parse(path.read_text("utf-8"))
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    names: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("pytest_h2o"):
            parts = (node.module or "").split(".")
            names |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {
                alias.name.split(".")[1]
                for alias in node.names
                if alias.name.startswith("pytest_h2o.")
            }
    return names


@pytest.mark.parametrize(
    "path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE))
)
def test_imports_point_downwards(path: Path) -> None:
    """No module imports from a layer above its own."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    if parts[0] != "__init__":
        own = layer_of(parts[0])
        assert [name for name in imported_modules(path) if layer_of(name) > own] == []


@pytest.mark.parametrize(("below", "used"), [("engine", {"codec", "keys"}), ("offline", {"codec"})])
def test_numeric_packages_stand_alone(below: str, used: set[str]) -> None:
    """The engine and the offline evaluator know nothing of gates: they use the codec, and the
    engine the declarations of its keys.
    """
    for path in (PACKAGE / below).rglob("*.py"):
        assert imported_modules(path) <= {below, *used}, path


def test_keys_stand_at_the_root() -> None:
    """Everything may read the keys, which import nothing of the package."""
    assert imported_modules(PACKAGE / "keys.py") == set()


def test_top_level() -> None:
    """The top level holds what the README names, and dot files."""
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    names = {line.split("/")[0] for line in listed.stdout.splitlines()}
    assert {name for name in names if not name.startswith(".")} == TOP_LEVEL


def test_class_names_occur_once() -> None:
    """A class is known by its name alone."""
    found: dict[str, list[str]] = {}
    for path in [*PACKAGE.rglob("*.py"), *(ROOT / "gates").rglob("*.py")]:
        for node in ast.parse(path.read_text("utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                found.setdefault(node.name, []).append(str(path.relative_to(ROOT)))
    assert {name: paths for name, paths in found.items() if len(paths) > 1} == {}


def test_classes_are_short() -> None:
    """A class of more than 150 lines has more than one reason to exist."""
    longer: set[str] = set()
    for path in [*PACKAGE.rglob("*.py"), *(ROOT / "gates").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ClassDef) and node.end_lineno - node.lineno >= LONGEST_CLASS:
                longer.add(node.name)
    assert longer == set()


def test_file_names_occur_once() -> None:
    """A module is known by its name alone, except a command, which is called like what it shows,
    and a codec or policy, which is a name that users write.
    """
    found: dict[str, list[str]] = {}
    for path in [*PACKAGE.rglob("*.py"), *(ROOT / "gates").rglob("*.py")]:
        chosen_by_users = path.parent.name in {"commands", "block_codecs", "policies"}
        if path.name not in {"__init__.py", "conftest.py"} and not chosen_by_users:
            found.setdefault(path.name, []).append(str(path.relative_to(ROOT)))
    assert {name: paths for name, paths in found.items() if len(paths) > 1} == {}


@pytest.mark.parametrize(
    "command", [["ruff", "check"], ["ruff", "format", "--check"], ["mypy"]], ids=" ".join
)
def test_checkers(command: list[str]) -> None:
    """Linter, formatter and strict type checker find nothing."""
    result = subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_tests_do_not_import_one_another() -> None:
    """What several tests use lies in files of their own that are no tests."""
    for path in sorted((ROOT / "tests").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            module = node.module if isinstance(node, ast.ImportFrom) else None
            assert not (module or "").startswith("test_"), path
