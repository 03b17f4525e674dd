"""Several dumps in one account: the sums are those of all entries evaluated together, wherever each
dump was evaluated.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from offline_dumps import kv, write_entry

from pytest_h2o.cli import main
from pytest_h2o.offline import OfflineError
from pytest_h2o.offline.account import account_text, merged, read_account
from pytest_h2o.offline.evaluate import evaluate
from pytest_h2o.offline.options import OfflineOptions

OPTIONS = OfflineOptions(codecs=("rope_row",), threads=1, front_n=2, rope_base=10000.0)
LAUNCHER = """#!/bin/sh
echo "$1" >> {folder}/calls
[ -e "{folder}/$1.gone" ] && exit 255
[ "$1" = dies ] && touch {folder}/dies.gone && exit 255
shift
exec "$@"
"""


def dumps(root: Path, lengths: list[list[int]], *, damaged: bool = False) -> list[Path]:
    """A dump directory for each list of lengths of entries, which follow one another."""
    found = []
    for number, own in enumerate(lengths):
        start = 0
        for seed, length in enumerate(own):
            for layer in range(1 + number % 2):
                values = kv(length, seed=10 * number + seed, kind="<f4" if number == 1 else "<f2")
                write_entry(root / f"d{number}", values, run=f"r{number}", layer=layer, start=start)
            start += length + number
        if damaged and number == 0:
            next((root / "d0").rglob("k_*.bin")).write_bytes(b"short")
        found.append(root / f"d{number}")
    return found


def sums(values: dict[str, object]) -> dict[str, object]:
    """A result without the names of directories, and without the entropies: which rows they are
    a sample of depends on what is coded together.
    """
    left = {name: value for name, value in values.items() if name not in ("dump_dir", "skipped")}
    skipped = values["skipped"]
    assert isinstance(skipped, list)
    layers = json.loads(json.dumps(values["layers"]))
    for layer in layers:
        for plane in ("hi", "lo"):
            assert layer[plane].pop("entropy_bits_per_byte") is not None
    left["layers"] = layers
    left["reasons"] = sorted(each["reason"] for each in skipped)
    return left


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(st.integers(1, 40), min_size=1, max_size=3), min_size=2, max_size=3))
def test_sums_are_those_of_one_evaluation(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[list[int]]
) -> None:
    """Every number of the result, by layer, plane and codec, and with an entry that is damaged."""
    root = tmp_path_factory.mktemp("dumps")
    parts = dumps(root, lengths, damaged=len(lengths[0]) > 1)
    whole = evaluate(root, OPTIONS)
    together = merged([evaluate(part, OPTIONS) for part in parts])
    assert sums(together.to_json()) == sums(whole.to_json())


def test_an_account_is_the_result(tmp_path: Path) -> None:
    """What was written and read again is the same result."""
    [dump] = dumps(tmp_path, [[30, 4]], damaged=True)
    result = evaluate(dump, OPTIONS)
    path = tmp_path / "account.json"
    path.write_text(account_text(result))
    assert read_account(path, str(dump), OPTIONS).to_json() == result.to_json()
    with pytest.raises(OfflineError, match="evaluated with other options"):
        read_account(path, "d", OfflineOptions(zstd_level=1))


@pytest.mark.parametrize(
    "change", [{"scanned": -1}, {"scanned": 1.5}, {"tensors": [{}]}, {"more": 1}, None]
)
def test_a_wrong_account_is_refused(tmp_path: Path, change: dict[str, object] | None) -> None:
    """What another host printed is not trusted."""
    [dump] = dumps(tmp_path, [[8]])
    path = tmp_path / "account.json"
    text = account_text(evaluate(dump, OPTIONS))
    path.write_text(text[:-20] if change is None else json.dumps(json.loads(text) | change))
    with pytest.raises(OfflineError, match="d: no account of a dump was printed"):
        read_account(path, "d", OPTIONS)


@pytest.fixture
def far(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The options of hosts that a script stands for."""
    monkeypatch.setenv("H2O_LOCK_DIR", str(tmp_path))
    launcher = tmp_path / "launcher"
    launcher.write_text(LAUNCHER.format(folder=tmp_path))
    launcher.chmod(0o755)
    program = f"{sys.executable} -m pytest_h2o.cli"
    return ["--launcher", f"{launcher} {{host}}", "--far-command", program, "--hosts"]


def test_dumps_on_hosts(tmp_path: Path, far: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """A dump is read on the host that has it, others on any; the result is that of one machine."""
    first, second, third = map(str, dumps(tmp_path, [[20, 5], [9], [12, 3]]))
    out = ["--out-json", str(tmp_path / "far.json"), "--codec", "rope_row", "--no-bitshuffle"]
    assert main(["offline", f"a:{first}", f"b:{second}", third, *out, *far, "a,b"]) == 0
    shown = capsys.readouterr().out
    out[1] = str(tmp_path / "here.json")
    assert main(["offline", first, second, third, *out]) == 0
    assert capsys.readouterr().out == shown
    results = [json.loads((tmp_path / name).read_text()) for name in ("far.json", "here.json")]
    assert sums(results[0]) == sums(results[1])
    assert results[0]["dump_dir"] == f"a:{first}, b:{second}, {third}"
    assert sorted(set((tmp_path / "calls").read_text().split())) == ["a", "b"]


def test_a_host_that_dies(
    tmp_path: Path, far: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """What all hosts see is evaluated on another; what only it has cannot be."""
    [dump] = map(str, dumps(tmp_path, [[8]]))
    assert main(["offline", dump, *far, "dies,b"]) == 0
    assert "host dies was taken out" in capsys.readouterr().err
    assert main(["offline", f"dies:{dump}", *far, "dies,b"]) == 2
    assert "no host is left: dies: it does not answer" in capsys.readouterr().err


def test_what_a_host_says_is_said(
    tmp_path: Path, far: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """A directory without a dump is named with its host, and nothing is added up."""
    [dump] = map(str, dumps(tmp_path, [[8]]))
    assert main(["offline", dump, "b:/nowhere", *far, "a,b"]) == 1
    assert "b:/nowhere: exit code 1: offline: dump directory /nowhere is not a directory" in (
        capsys.readouterr().err
    )
    assert main(["offline", dump, dump]) == 1
    assert "is given twice" in capsys.readouterr().err
