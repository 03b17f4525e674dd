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
from offline_dumps import kv, write_entry

from pytest_h2o.decode.history import Entry
from pytest_h2o.notebook import read_run
from pytest_h2o.offline.evaluate import evaluate
from pytest_h2o.offline.options import OfflineOptions
from pytest_h2o.plan.knobs import resolve
from pytest_h2o.report.background import Background
from pytest_h2o.report.comparison import compare_runs
from pytest_h2o.report.comparison_page import comparison_html
from pytest_h2o.report.files import summary
from pytest_h2o.report.offline_page import offline_html
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
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--hide-scrollbars", "--virtual-time-budget=10000",
]  # fmt: skip
HOSTILE = (
    "<img src=x onerror=\"document.title='owned'\"></script>"
    "<script>document.title='owned'</script>{{ 7*7 }}"
)
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
addEventListener("securitypolicyviolation", function (event) {
  faults.push("CSP " + event.blockedURI);
});
["error", "warn"].forEach(function (name) {
  console[name] = function () { faults.push(name + ": " + Array.from(arguments).join(" ")); };
});
setTimeout(function () {
  var filter = document.querySelector("#filter");
  function shown() {
    var gates = Array.from(document.querySelectorAll("tbody.gate"));
    return gates.filter(function (each) { return !each.hidden; });
  }
  var all = shown().map(function (each) { return each.rows[0].cells[0].textContent.trim(); });
  document.querySelectorAll("details").forEach(function (each) { each.open = true; });
  var root = document.documentElement, width = root.clientWidth;
  var wider = Array.from(document.querySelectorAll("body *")).filter(function (each) {
    if (!each.getClientRects().length || each.closest("svg")) { return false; }
    return each.getBoundingClientRect().right > width + 1;
  }).map(function (each) { return each.tagName + "." + each.className; });
  var found = {
    faults: faults, title: document.title, verdict: document.querySelector("h1").textContent,
    gates: all, width: width, scroll: root.scrollWidth, wider: wider.slice(0, 5),
    text: document.body.innerText, foreign: document.querySelectorAll("img, iframe, object").length,
    charts: Array.from(document.querySelectorAll("figure")).map(function (each) {
      return [
        each.id, each.dataset.drawn || "", each.querySelectorAll("svg path").length,
        each.querySelectorAll("tbody tr").length
      ];
    }),
    cut: Array.from(document.querySelectorAll("svg text")).filter(function (each) {
      var box = each.getBoundingClientRect();
      var frame = each.closest(".drawing").getBoundingClientRect();
      return box.width && (box.left < frame.left - 1 || box.right > frame.right + 1);
    }).map(function (each) { return each.textContent; })
  };
  if (!filter) { parent.postMessage(JSON.stringify(found), "*"); return; }
  filter.value = "lossy"; filter.dispatchEvent(new Event("input"));
  found.filtered = shown().length;
  filter.value = ""; filter.dispatchEvent(new Event("input"));
  document.querySelector("table.gates thead button").click();
  found.sorted = shown().map(function (each) { return each.rows[0].cells[0].textContent.trim(); });
  parent.postMessage(JSON.stringify(found), "*");
}, 4000);
</script>"""
FRAME = """<!DOCTYPE html><meta charset="utf-8"><body>\
<iframe src="%s" width="%d" height="%d" style="border:0"></iframe><pre></pre><script>
addEventListener("message", function (event) {
  document.querySelector("pre").textContent = event.data;
});
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
                ts_utc=f"2026-01-{day:02}T10:00:00Z", key="host", decode_best=400.0 + day % 5,
                overall_pass=True, summary="", case="full_strict", identity={},
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


def launches(kind: str, tmp_path: Path) -> list[LaunchRecord]:
    """Launches of a recorded session; the answers of hostile ones are markup."""
    run = RECORDED
    if kind == "hostile":
        run = tmp_path / "session"
        shutil.copytree(RECORDED, run)
        for output in run.glob("launches/demo-*-candidate-*/stdout"):
            said = output.read_text("utf-8").replace("\n\n", f"\n\n{HOSTILE}", 3)
            output.write_text(f"{said}\n{HOSTILE}\n", "utf-8")
    return list(read_run(run).records)


def verdicts(outcome: str, case: str, source: str) -> dict[str, Verdict]:
    """One verdict of each kind that a chart or card is made from; ``source`` is what failed."""
    pairs = tuple(
        SpeedPair(label=case, replicate=n, baseline=100.0, candidate=95.0 + n) for n in range(6)
    )
    interval = Interval(low=-0.01, high=0.04, level=0.96)
    study: dict[str, Any] = {
        "metric": "decode_drop", "value": 0.02, "target": 0.05, "operator": "<=", "margin": 0.03,
        "unit": "share", "interval": interval, "pairs": pairs, "outcome": "pass",
    }  # fmt: skip
    rows = (ShownRow("prompt_128_1", "100 %", 1.0), ShownRow("prompt_512_1", "20 %", 0.2))
    reason = "" if outcome == "pass" else f"h2o_lossy 2.5 is not >= 3 {case}"
    value = 3.1 if outcome == "pass" else 2.5
    found = [
        Verdict(
            gate="lossy", case=case, metric="h2o_lossy", outcome=outcome, value=value, target=3.0,
            operator=">=", margin=value - 3, unit="ratio", reason=reason, knob="LOSSY_TARGET",
            rerun=f"pytest '{case}'", source=case,
        ),
        Verdict(gate="decode_drop", case=case, **study),
        Verdict(gate="decode_drop", case="joint_full", **study),
        Verdict(gate="bucket_decode", case="512", **study),
        Verdict(gate="greedy_agreement", case=case, metric="greedy_agreement", outcome="pass",
                value=0.6, target=0.0, operator=">=", margin=0.6, unit="share", rows=rows),
    ]  # fmt: skip
    if outcome != "pass":
        found += [
            Verdict(
                gate=name,
                case=case,
                outcome="fail",
                reason=case,
                cause=f"exit code 3 {case}",
                source=source,
            )
            for name in ("settings", "fallback", "queue_peak")
        ]
    return {f"gates/x.py::test_{number}": each for number, each in enumerate(found)}


def look(page: str, tmp_path: Path, width: int) -> dict[str, Any]:
    """What the probe found in a frame of ``width`` pixels, in which media queries count."""
    (tmp_path / "page.html").write_text(page.replace("<style>", PROBE + "<style>", 1), "utf-8")
    frame = tmp_path / f"frame{width}.html"
    frame.write_text(FRAME % ("page.html", width, 900), "utf-8")
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


def screenshot(tmp_path: Path, name: str, *flags: str, width: int = 1400) -> None:
    """Keep what the browser shows of ``plain.html``, to be looked at; a phone is a frame."""
    page = tmp_path / "plain.html"
    if width < 500:
        frame = tmp_path / "phone.html"
        frame.write_text(FRAME % (page.name, width, 2400), "utf-8")
        page = frame
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    target = SCREENSHOTS / f"{name}.png"
    target.unlink(missing_ok=True)
    chromium(
        tmp_path, page, f"--window-size={max(500, width)},2400", f"--screenshot={target}", *flags
    )
    assert target.stat().st_size > 20_000


def is_sound(found: dict[str, Any], width: int) -> None:
    """Nothing complains, every chart is drawn and has its numbers, and the page is as wide as its
    window.
    """
    assert found["faults"] == []
    assert found["foreign"] == 0
    for name, drawn, paths, rows in found["charts"]:
        assert (name, drawn) == (name, "yes")
        assert paths > 2
        assert rows > 0
    assert found["cut"] == []
    assert found["scroll"] <= found["width"] == width
    assert found["wider"] == []


@pytest.mark.parametrize("kind", ["passing", "failing", "hostile"])
def test_report(kind: str, tmp_path: Path) -> None:
    """The verdict, every gate and every chart are there, nothing complains, nothing is wider than a
    phone, and no text becomes markup.
    """
    case = HOSTILE if kind == "hostile" else "full_strict"
    records = launches(kind, tmp_path)
    source = next(
        each.stdout
        for each in records
        if each.label == "prompt_512_1" and each.spec.arm == "candidate"
    )
    judged = verdicts("pass" if kind == "passing" else "fail", case, str(source))
    page = Session(judged, records, case).page()
    for width in (1280, 390):
        found = look(page, tmp_path, width)
        is_sound(found, width)
        words = "Accepted: final"
        if kind != "passing":
            words = "Not accepted: 4 of 8 gates failed (2 causes)"
        assert found["verdict"].endswith(words)
        assert found["title"] == words
        assert set(found["gates"]) == {each.gate for each in judged.values()}
        assert {each[0].removeprefix("chart-") for each in found["charts"]} == CHARTS
        assert 1 <= found["filtered"] < len(found["gates"])
        assert found["sorted"] == sorted(found["gates"])
        if kind != "passing":
            assert "decode speed = " in found["text"]
            assert "prompt_512_1-candidate-r1/config.json" in found["text"]
        if kind == "hostile":
            # In verdicts and in six answers.
            assert found["text"].count(HOSTILE) > 12
    (tmp_path / "plain.html").write_text(page, "utf-8")
    screenshot(tmp_path, kind)
    screenshot(tmp_path, f"{kind}-narrow", width=390)
    if kind == "failing":
        screenshot(tmp_path, "failing-dark", "--blink-settings=preferredColorScheme=0")


def test_comparison_page(tmp_path: Path) -> None:
    """Two sessions beside each other: outcomes and values that changed, one chart, text that stays
    text; what did not change is folded away.
    """
    runs = [
        summary(HOSTILE, resolve(settings), verdicts(outcome, HOSTILE, ""), suite="final")
        for outcome, settings in (("pass", []), ("fail", ["REPEAT=2"]))
    ]
    page = comparison_html(compare_runs(["before", "after"], runs))
    for width in (1280, 390):
        found = look(page, tmp_path, width)
        is_sound(found, width)
        assert {each[0] for each in found["charts"]} == {"chart-compared"}
        # Names are cut to 60 characters here.
        assert found["text"].count(HOSTILE[:50]) > 4
        for said in ("Accepted: final", "Not accepted: 4 of 8 gates failed", "REPEAT", "2.5"):
            assert said in found["text"]
    (tmp_path / "plain.html").write_text(page, "utf-8")
    screenshot(tmp_path, "compare")
    screenshot(tmp_path, "compare-narrow", width=390)


def test_offline_page(tmp_path: Path) -> None:
    """The offline evaluator's page draws its charts, and its text stays text."""
    dump = tmp_path / "<b>dump"
    for layer in range(3):
        write_entry(dump, kv(70, seed=layer), layer=layer)
    page = offline_html(evaluate(dump, OfflineOptions()))
    for width in (1280, 390):
        found = look(page, tmp_path, width)
        is_sound(found, width)
        assert {each[0] for each in found["charts"]} == {
            "chart-layers",
            "chart-bits",
            "chart-predictors",
        }
        assert str(dump) in found["text"]
    (tmp_path / "plain.html").write_text(page, "utf-8")
    screenshot(tmp_path, "offline")
