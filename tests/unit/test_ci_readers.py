"""What CI systems make of the JUnit file of ``final``, each read by its own rules.

The readers follow what the systems document and do, and share nothing with the writer.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest
from junitparser import Error, Failure, JUnitXml, Skipped
from lxml import etree

ROOT = Path(__file__).parents[2]
SCHEMA = ROOT / "tests" / "data" / "junit" / "jenkins-junit-10.xsd"
# Gates that pass, fail and are off, of a run that misses parts.
ARCHIVE = ROOT / "tests" / "data" / "archives" / "runtime"
RESULTS = {"failure": "failed", "error": "failed", "skipped": "skipped"}


@dataclass(frozen=True)
class Shown:
    """A test as a CI system shows it."""

    group: str
    name: str
    result: str
    headline: str = ""
    details: str = ""
    output: str = ""
    attachment: str = ""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What ``final`` writes on a job of GitLab."""
    folder = tmp_path_factory.mktemp("job")
    command = [
        sys.executable, "-m", "pytest", str(ROOT / "gates"), f"--rootdir={ROOT}", "-q", "-p",
        "no:cacheprovider", "-m", "final", f"--h2o-replay={ARCHIVE}", "--junitxml=report.xml",
        "--h2o-set=MAX_LOSSLESS_DECOMP_US=1",
    ]  # fmt: skip
    environment = os.environ | {"CI_PROJECT_DIR": str(ROOT), "H2O_LOCK_DIR": str(folder)}
    subprocess.run(command, cwd=folder, env=environment, capture_output=True, check=False)
    return folder / "report.xml"


@pytest.fixture(scope="module")
def counts(report: Path) -> Counter[str]:
    """How many tests ended in which way, as the suite itself counts them."""
    suite = ET.parse(report).getroot()[0]
    found = {name: int(suite.get(name, "0")) for name in ("tests", "failures", "skipped")}
    failed, skipped = found["failures"], found["skipped"]
    return Counter(
        {"failed": failed, "skipped": skipped, "passed": found["tests"] - failed - skipped}
    )


def result_of(case: ET.Element) -> tuple[str, ET.Element | None]:
    for child in case:
        if child.tag in RESULTS:
            return RESULTS[child.tag], child
    return "passed", None


def read_as_gitlab(path: Path) -> list[Shown]:
    """GitLab: the class is the suite, a second test of the same class and name is dropped, the text
    of the result is what is shown, and the first attachment of a failure alone counts.
    """
    found: dict[tuple[str, str], Shown] = {}
    for case in ET.parse(path).iter("testcase"):
        result, child = result_of(case)
        output = case.findtext("system-out") or ""
        attached = re.search(r"\[\[ATTACHMENT\|(.+?)\]\]", output) if result == "failed" else None
        shown = Shown(
            group=case.attrib["classname"], name=case.attrib["name"], result=result,
            details=(child.text or "") if child is not None else "",
            attachment=attached[1] if attached else "",
        )  # fmt: skip
        found.setdefault((shown.group, shown.name), shown)
    return list(found.values())


def read_as_test_reporter(path: Path) -> list[Shown]:
    """dorny/test-reporter: suites below the root, whose names and times it needs; tests grouped by
    class; the text of the first failure, else of the error, as details.
    """
    root = ET.parse(path).getroot()
    suites = [root] if root.tag == "testsuite" else root.findall("testsuite")
    found: list[Shown] = []
    for suite in suites:
        assert suite.attrib["name"].strip()
        assert float(suite.attrib["time"]) >= 0
        for case in suite.findall("testcase"):
            assert float(case.attrib["time"]) >= 0
            result, child = result_of(case)
            details = (child.text or "") if child is not None and result == "failed" else ""
            group = case.attrib["classname"]
            name = case.attrib["name"].strip()
            found.append(Shown(group=group, name=name, result=result, details=details))
    return found


def read_as_action_junit_report(path: Path) -> list[Shown]:
    """mikepenz/action-junit-report: the message of a failure is the annotation, the file is looked
    for by the last part of the class where no ``file`` is given.
    """
    found: list[Shown] = []
    for case in ET.parse(path).iter("testcase"):
        result, child = result_of(case)
        message = ""
        if child is not None and result == "failed":
            first_lines = "\n".join((child.text or "").strip().split("\n")[:2])
            message = (child.get("message") or first_lines or case.attrib["name"]).strip()
        file = case.get("file") or case.attrib["classname"].rpartition(".")[2]
        found.append(Shown(group=file, name=case.attrib["name"], result=result, headline=message))
    return found


def read_as_publish_unit_test_result(path: Path) -> list[Shown]:
    """EnricoMi/publish-unit-test-result-action: junitparser's results, the worst counts."""
    found: list[Shown] = []
    for suite in JUnitXml.fromfile(str(path)):
        for case in suite:
            kinds = {Error: "failed", Failure: "failed", Skipped: "skipped"}
            results = [(kinds[type(each)], each) for each in case.result]
            result, child = min(results, default=("passed", None), key=lambda each: each[0])
            headline = details = ""
            if child is not None:
                headline, details = child.message or "", child.text or ""
            found.append(
                Shown(case.classname, case.name, result, headline, details, case.system_out or "")
            )
    return found


def read_as_jenkins(path: Path) -> list[Shown]:
    """Jenkins: suites at any depth, the class split into package and class at its last dot, a
    message above the text, output and attachments with every test.
    """
    found: list[Shown] = []
    for suite in ET.parse(path).iter("testsuite"):
        for case in suite.findall("testcase"):
            result, child = result_of(case)
            output = case.findtext("system-out") or ""
            attached = re.search(r"^\[\[ATTACHMENT\|(.+)\]\]$", output, re.MULTILINE)
            found.append(
                Shown(
                    group=case.get("classname") or suite.attrib["name"], name=case.attrib["name"],
                    result=result, output=output, attachment=attached[1] if attached else "",
                    headline=(child.get("message") or "") if child is not None else "",
                    details=(child.text or "") if child is not None else "",
                )
            )  # fmt: skip
    return found


READERS = {
    "gitlab": read_as_gitlab,
    "test-reporter": read_as_test_reporter,
    "action-junit-report": read_as_action_junit_report,
    "publish-unit-test-result": read_as_publish_unit_test_result,
    "jenkins": read_as_jenkins,
}


def test_the_file_of_final_is_valid(report: Path) -> None:
    """Jenkins' schema takes the file as it lies there."""
    schema = etree.XMLSchema(etree.parse(SCHEMA))
    assert schema.validate(etree.parse(report)), schema.error_log


@pytest.mark.parametrize("system", READERS)
def test_every_gate_is_seen_once_with_its_outcome(
    system: str, report: Path, counts: Counter[str]
) -> None:
    """No gate is lost to another of the same name, and all three outcomes arrive."""
    found = READERS[system](report)
    assert Counter(shown.result for shown in found) == counts
    assert min(counts.values()) > 0
    assert len({(shown.group, shown.name) for shown in found}) == counts.total()


@pytest.mark.parametrize("system", READERS)
def test_a_failure_begins_with_its_conclusion(system: str, report: Path) -> None:
    """What is shown first says why, in one line, and not which exception was raised."""
    for shown in READERS[system](report):
        if shown.result != "failed":
            continue
        first = (shown.headline or shown.details).split("\n")[0]
        assert first
        assert not first.startswith(("Failed", "E ", "AssertionError"))
        assert "\n" not in shown.headline
        assert "pytest-h2o explain" in shown.details or system == "action-junit-report"


def test_gitlab_finds_the_log_in_the_project(report: Path) -> None:
    """A failure with a log has it as a path of the project, where artifacts are kept."""
    attached = [shown.attachment for shown in read_as_gitlab(report) if shown.attachment]
    assert attached
    for path in attached:
        assert not path.startswith("/")
        assert (ROOT / path).is_file()


@pytest.mark.parametrize("system", ["publish-unit-test-result", "jenkins"])
def test_values_of_passing_gates_are_shown(system: str, report: Path) -> None:
    """Readers that show output show what a gate that passed measured against its limit."""
    [lossy] = [
        shown
        for shown in READERS[system](report)
        if shown.name.startswith("test_lossy[") and shown.result == "passed"
    ]
    assert re.match(r"measured [0-9.]+ >= 3, margin [0-9.]+\n", lossy.output)


def test_annotations_point_at_a_file_of_gates(report: Path) -> None:
    """The file that a class names is there, so that an annotation lands on it."""
    groups = {shown.group for shown in read_as_action_junit_report(report)}
    assert all((ROOT / "gates" / f"{group}.py").is_file() for group in groups)
