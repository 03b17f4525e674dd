"""Hosts of two kinds in one session: each is judged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from sessions import run
from stand_in import install

# The candidate is slow on the servers; which host made a launch is noted.
BODY = """
with (here / "hosts.txt").open("a") as file:
    file.write(json.dumps([os.getcwd(), os.environ["H"]]) + chr(10))
if os.environ["H"] != "a" and "-baseline-" not in os.getcwd():
    say, dump = print, json.dumps
    json.dumps = lambda record: dump(record).replace('"decode_us": 1000000', '"decode_us": 2000000')
    speed = float(sys.argv[3]) / 2 if sys.argv[0].endswith("llm_demo") else 0

    def print(text):
        text = text.replace("decode time = 1.00", "decode time = 2.00")
        say(text.replace(f"decode speed = {sys.argv[3]}.00", f"decode speed = {speed:.2f}"))
"""
HOSTS = ["--h2o-launcher", "env H={host}", "--h2o-hosts", "pixel=a server=b,c"]
SELECTED = (
    "bucket_decode or prompt_memory or (stable and joint_full) or (queue_peak and joint_full) "
    "or baseline_is_no_slower or unseen_prompts"
)
TEXT = "Once upon a time there was a host. " * 60


@pytest.fixture(autouse=True)
def lock_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Locks of our own."""
    monkeypatch.setenv("H2O_LOCK_DIR", str(tmp_path))


def test_what_has_a_speed_is_judged_on_each(tmp_path: Path) -> None:
    """Buckets of real prompts, repeats, memory and relations have a gate for each kind, of launches
    of that kind.
    """
    install(tmp_path, BODY)
    (tmp_path / "texts").mkdir()
    for name in ("prompt_128_1.txt", "prompt_512_2.txt"):
        (tmp_path / "texts" / name).write_text(TEXT)
    words = ["-m", "final", "-k", SELECTED, "-v", "--h2o-out", "runs", "--prompt-dir", "texts"]
    words += ["--h2o-set", "PROMPTS=512", "--h2o-set", "FULL_RUNS=2"]
    _, output = run(tmp_path, *words, *HOSTS, "-n", "2")
    assert "test_bucket_decode[128@pixel]" in output
    assert "test_stable[joint_full@server]" in output
    assert "test_baseline_is_no_slower[relations@server]" in output
    summary = json.loads((tmp_path / "runs/latest/summary.json").read_text())
    gates = {f"{each['gate']} {each['case']}": each for each in summary["gates"]}
    assert {name: each["host"] for name, each in gates.items()} == {
        "bucket_decode 128@pixel": "pixel: a",
        "bucket_decode 128@server": "server: b",
        "bucket_decode 512@pixel": "pixel: a",
        "bucket_decode 512@server": "server: c",
        "prompt_memory memory@pixel": "pixel: a",
        "prompt_memory memory@server": "server: b, c",
        "queue_peak joint_full-1@pixel": "pixel: a",
        "queue_peak joint_full-2@pixel": "pixel: a",
        "queue_peak joint_full-1@server": "server: b",
        "queue_peak joint_full-2@server": "server: b",
        "stable joint_full@pixel": "pixel: a",
        "stable joint_full@server": "server: b",
        "baseline_is_no_slower relations@pixel": "pixel: a",
        "baseline_is_no_slower relations@server": "server: b",
        "unseen_prompts relations@pixel": "pixel: a",
        "unseen_prompts relations@server": "server: b, c",
    }
    drops = {each["case"]: each["value"] for name, each in gates.items() if "bucket" in name}
    expected = {"128@pixel": 0.0, "512@pixel": 0.0, "128@server": 0.5, "512@server": 0.5}
    assert drops == pytest.approx(expected, abs=1e-3)
    noted = map(json.loads, (tmp_path / "hosts.txt").read_text().splitlines())
    for directory, host in noted:
        assert ("pixel" in directory) == (host == "a")
    m3 = json.loads((tmp_path / "runs/latest/m3/m3_report.json").read_text())
    assert {name: case["runs"] for name, case in m3["cases"].items()} == {
        "joint_full@pixel": 2,
        "joint_full@server": 2,
    }
