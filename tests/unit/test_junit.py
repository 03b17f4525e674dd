"""The JUnit file as CI systems read it: valid against Jenkins' schema, values in it."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from lxml import etree

from pytest_h2o.report.junit import settle
from pytest_h2o.verdict import Interval, ShownRow, Verdict

SCHEMA = Path(__file__).parents[1] / "data" / "junit" / "jenkins-junit-10.xsd"


def verdicts(folder: Path) -> list[Verdict]:
    """A gate that passed with everything a verdict may hold, and one that failed."""
    log = folder / "a log"
    log.write_text("x")
    passed = Verdict(
        gate="lossy", case="full_strict", metric="h2o_lossy", outcome="pass", value=3.095,
        target=3.0, operator=">=", margin=0.095, unit="ratio", source=str(log), suites="final",
        interval=Interval(low=3.0, high=3.2, level=0.96), rows=(ShownRow("p512", "3.1", 3.1),),
    )  # fmt: skip
    failed = Verdict(gate="fallback", case="<a&b>", outcome="fail", reason="gone", hint="look")
    return [passed, failed]


@pytest.fixture
def written(pytester: pytest.Pytester) -> Path:
    """What pytest writes of those two, and of a test with a property and output of its own."""
    found = [each.properties() for each in verdicts(pytester.path)]
    pytester.makepyfile(
        f"""
        import pytest
        @pytest.mark.parametrize("given", {found!r}, ids=["good", "bad"])
        def test_gate(given, request):
            request.node.user_properties += given
            print("printed")
            assert request.node.callspec.id == "good"
        def test_other(record_property):
            record_property("colour", "blue")
        """
    )
    pytester.runpytest_inprocess(
        "--junitxml=junit.xml", "-p", "no:cacheprovider", "-o", "junit_logging=system-out"
    )
    return pytester.path / "junit.xml"


def suite_properties(path: Path) -> dict[str, str]:
    suite = ET.parse(path).find("testsuite/properties")
    assert suite is not None
    return {item.attrib["name"]: item.attrib["value"] for item in suite}


def case(path: Path, name: str) -> ET.Element:
    return next(each for each in ET.parse(path).iter("testcase") if each.get("name") == name)


def test_a_session_is_valid(written: Path) -> None:
    """Jenkins' schema takes the file, which it does not as pytest writes it."""
    schema = etree.XMLSchema(etree.parse(SCHEMA))
    others = [
        each for each in ET.parse(written).iter("testcase") if each.get("name") == "test_other"
    ]
    assert not schema.validate(etree.parse(written))
    settle(written, keep_properties=False)
    tree = etree.parse(written)
    [own] = tree.xpath("//testcase[@name='test_other']/properties")
    assert [item.get("value") for item in own] == ["blue"], "the property that a user recorded"
    own.getparent().remove(own)
    assert schema.validate(tree), schema.error_log
    assert len(others) == 1


def test_values_are_properties_of_the_suite(written: Path) -> None:
    """Value, target and margin of a passing gate are there, exactly."""
    settle(written, keep_properties=False)
    found = suite_properties(written)
    numbers = {
        name: float(found[f"lossy[full_strict].{name}"]) for name in ("value", "target", "margin")
    }
    assert numbers == {"value": 3.095, "target": 3.0, "margin": 0.095}
    assert (found["lossy[full_strict].outcome"], found["fallback[<a&b>].outcome"]) == (
        "pass",
        "fail",
    )


def test_readers_of_a_test_see_what_was_measured(written: Path) -> None:
    """GitLab and Jenkins show ``system-out`` with its attachment, reporters on GitHub the message
    of a failure, and the output of a test stays.
    """
    settle(written, keep_properties=False)
    good, bad = case(written, "test_gate[good]"), case(written, "test_gate[bad]")
    log = written.parent / "a log"
    lines = (good.findtext("system-out") or "").splitlines()
    assert lines[:2] == ["measured 3.095 >= 3, margin 0.095", "interval 3 to 3.2 (96%)"]
    assert f"[[ATTACHMENT|{log}]]" in lines
    assert "printed" in "\n".join(lines)
    failure = bad.find("failure")
    assert failure is not None
    assert failure.get("message")
    assert (bad.findtext("system-out") or "").splitlines()[:2] == ["gone", "try: look"]


def test_properties_of_tests_come_back(written: Path) -> None:
    """With the ini option a test has what it had, and the rest is the same."""
    settle(written, keep_properties=True)
    found = {
        item.get("name"): item.get("value")
        for item in case(written, "test_gate[good]").iter("property")
    }
    assert Verdict.from_properties(found) == verdicts(written.parent)[0]
    assert suite_properties(written)["lossy[full_strict].value"] == "3.095"
