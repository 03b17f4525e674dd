"""The pages say what is so: commands run or are read as they stand, examples are executed, links
lead somewhere, and whatever a user can name is explained.

``WRITE_PAGES=1 pytest tests/unit/test_pages.py -k shown_output`` writes what commands print into
the pages.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from itertools import takewhile
from pathlib import Path

import pytest
from page_blocks import DOCS, PAGES, ROOT, Block, blocks

from pytest_h2o.cli import COMMANDS, GATE_SUITES, main
from pytest_h2o.commands import in_session
from pytest_h2o.data import bundled
from pytest_h2o.docs.gate_facts import shipped_gates
from pytest_h2o.docs.generated import NOT_WRITTEN, refreshed
from pytest_h2o.docs.pages import entries, explain, nearest
from pytest_h2o.engine import bench, bench_options
from pytest_h2o.metrics import METRICS
from pytest_h2o.plan.knobs import KNOBS
from pytest_h2o.plan.suites import SUITES
from pytest_h2o.report.text import WORDS
from pytest_h2o.verdict import STANDINGS

LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
SESSION = re.compile(rf"\b(?:pytest gates|pytest-h2o (?:{'|'.join(GATE_SUITES)}))\b.*")
CODE = re.compile(r"`([^`\n]+)`")

WIDTH = 118  # of what a page shows; the rest of a line is cut
SHOWN = list(blocks("console"))
TYPED = [(block.page, line) for block in blocks("sh") for line in block.text.splitlines()]
# What a line may do besides being read: it writes little and takes a moment.
RUN = ("presets", "parse", "prompts", "schema", "explain", "report", "sweep", "knobs")


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_generated_parts(page: Path) -> None:
    """What a page takes from the code is what the code says now; otherwise run
    ``python -m pytest_h2o.docs.generated``.
    """
    text = page.read_text("utf-8")
    assert refreshed(page.name, text) == text
    assert NOT_WRITTEN not in text


def test_everything_is_explained() -> None:
    """Each gate, knob, metric, suite, and each word that reports use has an entry of its own."""
    names = {
        "gate": {facts.name for facts in shipped_gates()},
        "knob": set(KNOBS),
        "metric": {metric.name for metric in METRICS},
        "suite": set(SUITES),
    }
    for kind, expected in names.items():
        assert {entry.name for entry in entries() if entry.kind == kind} == expected
    for word in (*WORDS.values(), *STANDINGS):
        assert explain(word), word


@pytest.mark.parametrize(
    "name",
    ["lossy", "test_lossy", "gates/test_runtime.py::test_lossy[full_strict]", "LOSSY_TARGET=3",
     "claimed, not evidenced", "NOT JUDGED", "store_smoke", "h2o_lossy"],
)  # fmt: skip
def test_names_as_they_are_met(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A name is understood in the form in which a report, a node id or a shell shows it."""
    assert main(["explain", name]) == 0
    assert len(capsys.readouterr().out.splitlines()) > 3


def test_unknown_names(capsys: pytest.CaptureFixture[str]) -> None:
    """The nearest names are told."""
    assert main(["explain", "LOSSI_TARGET"]) > 0
    assert "LOSSY_TARGET" in capsys.readouterr().err
    assert nearest("decode_dorp")[0] == "decode_drop"
    assert main(["explain", "\x1b[31m"]) > 0
    assert "\x1b" not in capsys.readouterr().err


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_links(page: Path) -> None:
    """Every link leads to a file that is there, and to a heading in it."""
    for link in LINK.findall(page.read_text("utf-8")):
        if link.startswith(("http://", "https://")):
            continue
        target, _, anchor = link.partition("#")
        path = (page.parent / target).resolve() if target else page
        assert path.exists(), link
        if anchor:
            assert anchor in anchors(path), link


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub makes of headings."""
    titles = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.MULTILINE)
    plain = [re.sub(r"[^\w\- ]", "", title.lower()) for title in titles]
    return {title.replace(" ", "-") for title in plain}


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_names_in_pages(page: Path) -> None:
    """What looks like a knob, in code, is one."""
    prefixes = ("H2O_", "KV_LOSSLESS_", "MAX_LOSSLESS_", "DECODE_", "REQUIRE_", "RELATION_")
    others = {"H2O_LOCK_DIR", *prefixes}
    words = {re.split(r"\W", code)[0] for code in CODE.findall(page.read_text("utf-8"))}
    knobs = {word for word in words if word.startswith(prefixes) and word.isupper()}
    assert knobs <= KNOBS.keys() | others


def test_readme() -> None:
    """It is short, and exactly two commands set up an environment and run what is accepted."""
    lines = (ROOT / "README.md").read_text("utf-8").splitlines()
    assert len(lines) < 150
    checked = [line for line in lines if line.startswith("python3 -m venv")]
    assert [line.rpartition("&&")[2].split()[:2] for line in checked] == [
        [".venv/bin/pytest", "gates"],
        [".venv/bin/pytest", "tests"],
    ]


def test_every_command_has_a_line() -> None:
    """commands.md lists what the command line has."""
    text = (DOCS / "commands.md").read_text("utf-8")
    listed = re.findall(r"^\| `pytest-h2o (\w+)", text, re.MULTILINE)
    assert sorted(listed) == sorted([*COMMANDS, "doctor", "final"])


def test_every_page_is_reached() -> None:
    """README.md links to each page."""
    linked = set(LINK.findall((ROOT / "README.md").read_text("utf-8")))
    assert {f"pytest_h2o/docs/{path.name}" for path in DOCS.glob("*.md")} <= linked


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with what the pages speak of, in which commands are run."""
    for name in ("gates", "prompts", "presets", "tests"):
        (tmp_path / name).symlink_to(ROOT / name)
    weights = ROOT / "pytest_h2o" / "engine" / "weights"
    (tmp_path / "models" / "llama2").mkdir(parents=True)
    for name in ("h2o.json", "model.safetensors", "tokenizer.model"):
        shown = "config.json" if name == "h2o.json" else name
        (tmp_path / "models" / "llama2" / shown).symlink_to(weights / name)
    (tmp_path / "h2o-runs").mkdir()
    (tmp_path / "h2o-runs" / "latest").symlink_to(ROOT / "tests" / "data" / "session")
    (tmp_path / "ours.json").write_text(blocks("json")[0].text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    return tmp_path


def build(folder: Path) -> None:
    """Programs where the pages look for them; they are not started."""
    for directory in ("build", "last"):
        (folder / directory).mkdir()
        for name in ("llm_bench", "llm_demo"):
            (folder / directory / name).symlink_to("/bin/true")


@pytest.mark.parametrize(
    ("page", "line"), TYPED, ids=[f"{page.name}: {line}" for page, line in TYPED]
)
def test_commands(page: Path, line: str, place: Path) -> None:
    """A command that a page shows is understood: settings are read, options known, quick ones
    run.
    """
    command, *words = shlex.split(line, comments=True)
    if "build/" in line:
        build(place)
    if command == "pytest":
        assert (place / words[0]).exists()
        if words[0] == "gates":
            understood(words[1:])
    elif command == "h2o-llm-bench":
        assert bench_options.parse(words)
        assert "--quality" in words or bench.main(words) == 0
    elif command == "pytest-h2o":
        name, *rest = words
        if name in (*GATE_SUITES, "doctor"):
            understood(["-m", name, *rest] if name in GATE_SUITES else rest)
        elif name in RUN and "h2o-runs/latest" not in rest:
            assert main(words) == 0
        else:
            known_options(name, rest)
    else:
        assert command in {"pip", "pre-commit", "uv", "python"}, line
        scripts = [word for word in words if word.endswith(".py")]
        assert all((place / script).is_file() for script in scripts)


def sessions() -> dict[str, list[str]]:
    """The arguments of every line on a page that starts a session of gates, workflow files
    included.
    """
    found: dict[str, list[str]] = {}
    for language in ("sh", "yaml", "groovy"):
        for block in blocks(language):
            for line in block.text.splitlines():
                started = SESSION.search(line)
                if not started:
                    continue
                # In a Jenkinsfile the whole line stands in quotes.
                text = started[0].removesuffix("'") if language == "groovy" else started[0]
                words = shlex.split(text, comments=True)
                if words[0] == "pytest-h2o":
                    words[:2] = ["pytest", "gates", "-m", words[1]]
                found[" ".join(words)] = words[1:]
    return found


def test_sessions_are_collected(place: Path) -> None:
    """Every session that a page starts has settings that are understood and gates to run; all are
    collected, in one process.
    """
    build(place)
    profiles = place / "h2o-profiles"
    profiles.mkdir()
    programs = "\n".join(f'{name} = "../build/{name}"' for name in ("llm_bench", "llm_demo"))
    profile = f'{programs}\nmodel_config = "../models/llama2/config.json"\n'
    profiles.joinpath("ci.toml").write_text(profile)
    asked = sessions()
    rooted = [[*words, f"--rootdir={place}"] for words in asked.values()]
    result = subprocess.run(
        [sys.executable, str(ROOT / "tests" / "collect_lines.py")], input=json.dumps(rooted),
        capture_output=True, text=True, cwd=place, check=True,
        env=os.environ | {"MODEL_CONFIG": "models/llama2/config.json"},
    )  # fmt: skip
    for line, (status, count, printed) in zip(asked, json.loads(result.stdout), strict=True):
        assert (status, count > 0) == (0, True), f"{line}\n{printed}"
    assert len(asked) > 20
    assert not list(place.glob("h2o-runs/2*")), "nothing is launched"


def understood(words: list[str]) -> None:
    """A session of pytest with these arguments has settings, its suite and names are known."""
    in_session(words)
    options = dict(itertools.pairwise(words))
    if "-m" in options:
        assert options["-m"] in SUITES
    known = " ".join([*(facts.name for facts in shipped_gates()), "full_strict store_tuned"])
    for word in options.get("-k", "").split():
        assert word in ("and", "or", "not") or word in known, word


def known_options(command: str, words: list[str]) -> None:
    """The help of a command knows its options."""
    assert command in COMMANDS
    with pytest.raises(SystemExit), contextlib.redirect_stdout(io.StringIO()) as printed:
        main([command, "--help"])
    for word in words:
        assert not word.startswith("-") or word in printed.getvalue(), word


@pytest.mark.parametrize("block", SHOWN, ids=[block.page.name for block in SHOWN])
def test_shown_output(block: Block, place: Path) -> None:
    """What a page shows of a command is what it prints, but for numbers, paths and blanks."""
    first, _, shown = block.text.partition("\n")
    words = shlex.split(first.removeprefix("$ "))
    modules = {"pytest": "pytest", "pytest-h2o": "pytest_h2o.cli"}
    command = [sys.executable, "-m", modules[words[0]], *words[1:]]
    if words[0] == "pytest":
        command += ["-p", "no:cacheprovider", "--rootdir", str(place)]
    environment = {name: value for name, value in os.environ.items() if name != "CI"}
    result = subprocess.run(
        command, capture_output=True, text=True, cwd=place, env=environment, check=False
    )
    printed = told(result.stdout)
    if os.environ.get("WRITE_PAGES"):
        text = block.page.read_text("utf-8")
        block.page.write_text(text.replace(block.text, f"{first}\n{printed}"), "utf-8")
    else:
        assert normal(printed) == normal(shown)


def told(printed: str) -> str:
    """The part of an output that a page shows: of a session, its failures and its table."""
    lines = [line.replace(f"{ROOT}/", "").rstrip() for line in printed.splitlines()]
    starts = [number for number, line in enumerate(lines) if line.strip("_ ").startswith("test_")]
    if starts:
        lines = lines[starts[0] + 1 :]
        # Below the table causes are wrapped, by the length of the paths in them.
        lines = list(takewhile(bool, lines))
    hidden = ("run directory:", "FAILED", "=== short", "====", "From ")
    kept = [line for line in lines if not line.startswith(hidden) or "h2o gates" in line]
    kept = [line if len(line) <= WIDTH else f"{line[: WIDTH - 3]} ..." for line in kept]
    return "\n".join(kept).strip("\n") + "\n"


def normal(text: str) -> list[str]:
    """Lines without what differs from machine to machine."""
    text = re.sub(r"\S*/\S*", "PATH", text)
    text = re.sub(r"[+-]?\d+(\.\d+)?", "N", text)
    return [" ".join(line.split()) for line in text.splitlines() if line.strip()]


@pytest.mark.parametrize("page", sorted({block.page for block in blocks("python")}), ids=relative)
def test_python(page: Path, place: Path) -> None:
    """Examples in Python run, one after the other; files of their own are run by other tests."""
    names: dict[str, object] = {}
    for block in blocks("python"):
        if block.page == page and not block.file_name:
            exec(compile(block.text, page.name, "exec"), names)


def test_data_blocks() -> None:
    """What pages show in JSON and TOML can be read."""
    for block in blocks("json"):
        json.loads(block.text)
    for block in blocks("toml"):
        tomllib.loads(block.text)


def test_pages_ship() -> None:
    """Pages lie in the package, and gates are found from them."""
    assert DOCS.parent.name == "pytest_h2o"
    assert bundled("gates").is_dir()


def test_changelog() -> None:
    """The version of the package has a section, below what is not released."""
    text = (ROOT / "CHANGELOG.md").read_text("utf-8")
    versions = re.findall(r"^## \[(.+?)\]", text, re.MULTILINE)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert versions[:2] == ["Unreleased", project["version"]]
