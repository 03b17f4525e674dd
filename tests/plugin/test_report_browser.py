"""Reports as a browser shows them: loaded from disk by headless Chromium, wide and on a phone.

Screenshots lie in ``.cache/report-screenshots`` afterwards.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from pytest_h2o.decode.history import Entry
from pytest_h2o.notebook import read_run
from pytest_h2o.plan.knobs import resolve
from pytest_h2o.report.background import Background
from pytest_h2o.report.files import summary
from pytest_h2o.report.page import to_html
from pytest_h2o.runs.records import LaunchRecord
from pytest_h2o.verdict import Interval, ShownRow, SpeedPair, Verdict

ROOT = Path(__file__).parents[2]
RECORDED = ROOT / "tests" / "data" / "session"
SCREENSHOTS = ROOT / ".cache" / "report-screenshots"
CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--hide-scrollbars", "--virtual-time-budget=10000",
]  # fmt: skip
HOSTILE = "<img src=x onerror=\"document.title='owned'\"></script><script>document.title='owned'</script>{{ 7*7 }}"
CHARTS = {"decode", "kv", "compression", "buckets", "layers", "history"}

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium: apt-get install chromium"),
]

# Runs before the page's own scripts, and tells the frame around it what came of them.
PROBE = """<script>
var faults = [];
addEventListener("error", function (event) { faults.push(String(event.message)); });
addEventListener("unhandledrejection", function (event) { faults.push(String(event.reason)); });
addEventListener("securitypolicyviolation", function (event) { faults.push("CSP " + event.blockedURI); });
["error", "warn"].forEach(function (name) {
  console[name] = function () { faults.push(name + ": " + Array.from(arguments).join(" ")); };
});
setTimeout(function () {
  var filter = document.querySelector("#filter");
  function shown() {
    return Array.from(document.querySelectorAll("tbody.gate")).filter(function (each) { return !each.hidden; });
  }
  var all = shown().map(function (each) { return each.rows[0].cells[0].textContent.trim(); });
  document.querySelectorAll("details").forEach(function (each) { each.open = true; });
  var root = document.documentElement, width = root.clientWidth;
  var wider = Array.from(document.querySelectorAll("body *")).filter(function (each) {
    return each.getClientRects().length && !each.closest("svg") && each.getBoundingClientRect().right > width + 1;
  }).map(function (each) { return each.tagName + "." + each.className; });
  var found = {
    faults: faults, title: document.title, verdict: document.querySelector("#verdict h1").textContent,
    gates: all, width: width, scroll: root.scrollWidth, wider: wider.slice(0, 5), text: document.body.innerText,
    foreign: document.querySelectorAll("img, iframe, object").length,
    charts: Array.from(document.querySelectorAll("figure")).map(function (each) {
      return [each.id, each.dataset.drawn || "", each.querySelectorAll("svg path").length];
    })
  };
  filter.value = "lossy"; filter.dispatchEvent(new Event("input"));
  found.filtered = shown().length;
  filter.value = ""; filter.dispatchEvent(new Event("input"));
  document.querySelector("table.gates thead button").click();
  found.sorted = shown().map(function (each) { return each.rows[0].cells[0].textContent.trim(); });
  parent.postMessage(JSON.stringify(found), "*");
}, 4000);
</script>"""
FRAME = """<!DOCTYPE html><meta charset="utf-8"><body><iframe src="%s" width="%d" height="900"></iframe><pre></pre><script>
addEventListener("message", function (event) { document.querySelector("pre").textContent = event.data; });
</script>"""


@dataclass(frozen=True)
class Session:
    """What a page is made from."""

    verdicts: dict[str, Verdict]
    records: list[LaunchRecord]
    title: str = "embedded"

    def page(self) -> str:
        """The page, with a history and an offline result beside it."""
        history = [
            Entry(
                ts_utc=f"2026-01-{day:02}T10:00:00Z", key="host", decode_best=400.0 + day % 5, overall_pass=True,
                summary="", case="full_strict", identity={},
            )
            for day in range(1, 20)
        ]  # fmt: skip
        layers = [
            {"layer_id": layer, "tensor": tensor, "lossless_ratio": 1.1 + layer / 10}
            for layer in range(4)
            for tensor in "kv"
        ]
        document = summary(self.title, resolve(), self.verdicts, self.records, suite="final")
        known = Background(history=history, offline=layers, meanings={"lossy": "How small it is."})
        return to_html(document, self.records, known)


@pytest.fixture(scope="module")
def records() -> list[LaunchRecord]:
    """Launches of a recorded session."""
    return list(read_run(RECORDED).records)


def verdicts(outcome: str = "pass", case: str = "full_strict") -> dict[str, Verdict]:
    """One verdict of each kind that a chart or card is made from."""
    pairs = tuple(SpeedPair(label=case, replicate=n, baseline=100.0, candidate=95.0 + n) for n in range(6))  # fmt: skip
    interval = Interval(low=-0.01, high=0.04, level=0.96)
    study: dict[str, Any] = {
        "metric": "decode_drop", "value": 0.02, "target": 0.05, "operator": "<=", "margin": 0.03, "unit": "share",
        "interval": interval, "pairs": pairs, "outcome": "pass",
    }  # fmt: skip
    rows = (ShownRow("prompt_128_1", "100 %", 1.0), ShownRow("prompt_512_1", "20 %", 0.2))
    reason = "" if outcome == "pass" else f"h2o_lossy 2.5 is not >= 3 {case}"
    value = 3.1 if outcome == "pass" else 2.5
    found = [
        Verdict(
            gate="lossy", case=case, metric="h2o_lossy", outcome=outcome, value=value, target=3.0, operator=">=",
            margin=value - 3, unit="ratio", reason=reason, knob="LOSSY_TARGET", rerun=f"pytest '{case}'", source=case,
        ),
        Verdict(gate="decode_drop", case=case, **study),
        Verdict(gate="decode_drop", case="joint_full", **study),
        Verdict(gate="bucket_decode", case="512", **study),
        Verdict(gate="greedy_agreement", case=case, metric="greedy_agreement", outcome="pass", value=0.6, target=0.0,
                operator=">=", margin=0.6, unit="share", rows=rows),
    ]  # fmt: skip
    if outcome != "pass":
        found += [
            Verdict(gate=name, case=case, outcome="fail", reason=case, cause=f"exit code 3 {case}")
            for name in ("settings", "fallback", "queue_peak")
        ]
    return {f"gates/x.py::test_{number}": each for number, each in enumerate(found)}


def look(page: str, tmp_path: Path, width: int) -> dict[str, Any]:
    """What the probe found in a frame of ``width`` pixels, in which media queries count."""
    (tmp_path / "page.html").write_text(page.replace("<style>", PROBE + "<style>", 1), "utf-8")
    frame = tmp_path / f"frame{width}.html"
    frame.write_text(FRAME % ("page.html", width), "utf-8")
    shown = chromium(tmp_path, frame, "--dump-dom")
    found = re.search(r"<pre>(.*?)</pre>", shown, re.DOTALL)
    assert found, shown[-2000:]
    result: dict[str, Any] = json.loads(unescape(found[1]))
    return result


def chromium(tmp_path: Path, page: Path, *flags: str) -> str:
    """What the browser prints about a page, in a profile of its own."""
    profile = f"--user-data-dir={tmp_path / 'profile'}"
    result = subprocess.run(
        [str(CHROMIUM), *FLAGS, profile, *flags, page.as_uri()],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    return result.stdout


@pytest.mark.parametrize("kind", ["passing", "failing", "hostile"])
def test_report(kind: str, records: list[LaunchRecord], tmp_path: Path) -> None:
    """The verdict, every gate and every chart are there, nothing complains, nothing is wider than a
    phone, and no text becomes markup.
    """
    case = HOSTILE if kind == "hostile" else "full_strict"
    judged = verdicts("pass" if kind == "passing" else "fail", case)
    page = Session(judged, records, case).page()
    for width in (1280, 390):
        found = look(page, tmp_path, width)
        words = "Accepted: final" if kind == "passing" else "Not accepted"
        assert found["faults"] == []
        assert found["verdict"].endswith(words)
        assert found["title"] == words
        assert found["foreign"] == 0
        assert set(found["gates"]) == {each.gate for each in judged.values()}
        assert {each[0].removeprefix("chart-") for each in found["charts"]} == CHARTS
        assert all(drawn == "yes" and paths > 2 for _, drawn, paths in found["charts"])
        assert found["scroll"] <= found["width"] == width
        assert found["wider"] == []
        assert 1 <= found["filtered"] < len(found["gates"])
        assert found["sorted"] == sorted(found["gates"])
        if kind != "passing":
            assert case in found["text"]
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    (tmp_path / "plain.html").write_text(page, "utf-8")
    target = SCREENSHOTS / f"{kind}.png"
    target.unlink(missing_ok=True)
    chromium(tmp_path, tmp_path / "plain.html", "--window-size=1400,2400", f"--screenshot={target}")
    assert target.stat().st_size > 20_000
