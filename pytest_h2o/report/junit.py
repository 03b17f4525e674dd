"""The JUnit file that pytest wrote, made valid against the schema that CI systems read it by.

That schema has no properties of a test. What a gate measured is in the properties of its suite, and
in words in its ``system-out``, which all of them show.
"""

from __future__ import annotations

import os
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

from pytest_h2o.metrics import quantity
from pytest_h2o.report.screen import figures
from pytest_h2o.report.text import clean
from pytest_h2o.verdict import DATA, Verdict

OURS = {each.name for each in fields(Verdict)} | {DATA}


def settle(path: Path, *, keep_properties: bool) -> None:
    """Rewrite the file at once or not at all; ``keep_properties`` leaves those of each test as
    well.

    Raises OSError and :class:`xml.etree.ElementTree.ParseError`, the file being as it was.
    """
    tree = ET.parse(path)
    for suite in tree.iter("testsuite"):
        shown: dict[str, str] = {}
        for case in suite.iter("testcase"):
            if verdict := _verdict(case):
                shown |= _values(verdict)
                _say(case, "\n".join(_lines(verdict)))
                _conclude(case, verdict)
                if not keep_properties:
                    _drop_properties(case)
        _add_properties(suite, shown)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    tree.write(partial, encoding="utf-8", xml_declaration=True)
    partial.replace(path)


def _verdict(case: ET.Element) -> Verdict | None:
    """The verdict in a test's properties; None of a test that is no gate."""
    found = {item.get("name", ""): item.get("value", "") for item in case.iter("property")}
    if not {"gate", "outcome"} <= found.keys():
        return None
    try:
        return Verdict.from_properties(found)
    except (TypeError, ValueError):
        return None


def _values(verdict: Verdict) -> dict[str, str]:
    """The properties of the suite that a gate adds, such as ``lossy[full_strict].value``."""
    name = clean(f"{verdict.gate}[{verdict.case}]", 200)
    found: dict[str, str] = {f"{name}.outcome": verdict.outcome}
    for part in ("value", "target", "margin"):
        value = getattr(verdict, part)
        if value is not None:
            found[f"{name}.{part}"] = repr(value)
    if verdict.unit and verdict.value is not None:
        found[f"{name}.unit"] = verdict.unit
    return found


def _lines(verdict: Verdict) -> Iterator[str]:
    """What a viewer of the file shows below a test."""
    if text := figures(verdict):
        yield text
    if verdict.interval and verdict.interval.low is not None:
        low = quantity(verdict.interval.low, verdict.unit)
        high = quantity(verdict.interval.high, verdict.unit)
        yield f"interval {low} to {high} ({verdict.interval.level:.0%})"
    if verdict.outcome != "pass" and verdict.reason:
        yield clean(verdict.reason)
    named = {
        "try": verdict.hint,
        "evidence": verdict.evidence,
        "not evidenced": verdict.not_evidenced,
        "warning": verdict.warning,
        "rerun": verdict.rerun,
    }
    for name, text in named.items():
        if text:
            yield f"{name}: {clean(text)}"
    if verdict.source and Path(verdict.source).is_file():
        yield f"[[ATTACHMENT|{clean(_attached(Path(verdict.source).absolute()))}]]"


def _attached(path: Path) -> Path:
    """A log as its reader wants it: GitLab in the project's directory, Jenkins absolute."""
    project = os.environ.get("CI_PROJECT_DIR")
    if project and path.is_relative_to(project):
        return path.relative_to(project)
    return path


def _conclude(case: ET.Element, verdict: Verdict) -> None:
    """Leave the conclusion alone in the message of a failure, which annotations show whole."""
    failure = case.find("failure")
    first = verdict.reason.partition("\n")[0]
    if failure is not None and (verdict.cause or first):
        failure.set("message", clean(verdict.cause or first))


def _say(case: ET.Element, text: str) -> None:
    """Put a text before what a test printed."""
    said = case.find("system-out")
    if said is None:
        said = ET.SubElement(case, "system-out")
    printed = f"\n{said.text}" if said.text else ""
    said.text = f"{text}{printed}"


def _drop_properties(case: ET.Element) -> None:
    """Leave the properties that a test has beside those of its verdict, if any."""
    for properties in case.findall("properties"):
        for item in properties.findall("property"):
            if item.get("name") in OURS:
                properties.remove(item)
        if len(properties) == 0:
            case.remove(properties)


def _add_properties(suite: ET.Element, values: dict[str, str]) -> None:
    if not values:
        return
    properties = suite.find("properties")
    if properties is None:
        properties = ET.Element("properties")
        suite.insert(0, properties)
    for name, value in values.items():
        ET.SubElement(properties, "property", name=name, value=value)
