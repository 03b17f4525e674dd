"""What ``pytest_private.py`` takes from pytest is where it looks for it, and nothing else
does the same.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).parents[2]
PRIVATE = ROOT / "pytest_h2o" / "pytest_private.py"
# The class of the MNN wheel does not hand on all calls of the engine that it wraps.
WHEEL = ROOT / "pytest_h2o" / "runtimes" / "pymnn" / "wheel.py"
SOURCES = sorted([*(ROOT / "pytest_h2o").rglob("*.py"), *(ROOT / "gates").rglob("*.py")])
PROBE = r"""
    import pytest
    from pytest_h2o import pytest_private
    from pytest_h2o.plan.needs import is_gate

    def pytest_configure(config):
        names = pytest_private.undeclared_names(config)
        print("names:", *sorted(names))

    def pytest_collection_modifyitems(items):
        for item in items:
            print("\ngate:", item.name, is_gate(item))

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(session):
        pytest_private.add_junit_property(session.config, "probe", "<found>")
"""
TESTS = """
    import pytest
    from pytest_h2o.pytest_private import write_past_capture

    class TestTheirs:
        @pytest.fixture
        def gate(self):
            return 1

        def test_theirs(self, gate):
            assert gate == 1

    @pytest.mark.parametrize("gate", [2])
    def test_parameter(gate):
        assert gate == 2

    def test_ours(gate):
        gate.holds("ours", [])

    def test_captured(request):
        print("captured")
        write_past_capture(request.config, "past the capture")
"""


def private_uses(tree: ast.AST) -> Iterator[str]:
    """Imports from ``_pytest``, and underscored attributes of anything but an own object."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("_pytest"):
            yield f"line {node.lineno}: from {node.module}"
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names if alias.name.startswith("_pytest")]
            yield from (f"line {node.lineno}: import {name}" for name in names)
        elif isinstance(node, ast.Attribute) and is_private(node.attr):
            if ast.unparse(node.value) not in ("self", "cls", "sys"):
                yield f"line {node.lineno}: {ast.unparse(node)}"
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("getattr", "hasattr"):
            name = node.args[1]
            if isinstance(name, ast.Constant) and is_private(str(name.value)):
                yield f"line {node.lineno}: {ast.unparse(node)}"


def is_private(name: str) -> bool:
    named_tuples = ("_replace", "_asdict", "_fields")  # public, though they look otherwise
    return name.startswith("_") and not name.startswith("__") and name not in named_tuples


@pytest.mark.parametrize(
    "path",
    [path for path in SOURCES if path not in (PRIVATE, WHEEL)],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_one_module_knows_the_insides_of_pytest(path: Path) -> None:
    """No other module uses private names of pytest, or of anybody else."""
    assert list(private_uses(ast.parse(path.read_text("utf-8")))) == []


def test_the_rule_finds_what_it_is_about() -> None:
    """Imports, attributes and names in getattr are found."""
    code = (
        "from _pytest.x import y\nimport _pytest.z\nitem._request\ngetattr(item, '_request', None)"
    )
    assert len(list(private_uses(ast.parse(code)))) == 4
    assert list(private_uses(ast.parse(PRIVATE.read_text("utf-8"))))


def test_pytest_keeps_it_there(pytester: pytest.Pytester) -> None:
    """Gates, names of the ini file, properties of the JUnit file and the screen are found in the
    pytest that is installed.
    """
    pytester.makeini("[pytest]\nnobody_declared = 1\nh2o_profile =\n")
    pytester.makeconftest(PROBE)
    pytester.makepyfile(TESTS)
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", "--junitxml=junit.xml", "-v")
    result.assert_outcomes(passed=4)
    result.stdout.fnmatch_lines(
        [
            "names: *nobody_declared*",
            "gate: test_theirs False",
            "gate: test_parameter* False",
            "gate: test_ours True",
            "gate: test_captured False",
            "*past the capture",
        ]
    )
    result.stdout.no_fnmatch_line("captured")
    properties = ElementTree.parse(pytester.path / "junit.xml").iterfind("testsuite/properties/")
    assert {"name": "probe", "value": "<found>"} in [each.attrib for each in properties]
