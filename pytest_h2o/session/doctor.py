"""``pytest-h2o doctor``: what a run from here would use and why, tried with one minimal launch of
each program.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from pytest_h2o.lab.lab import Lab
from pytest_h2o.metrics import H2O_COLUMNS
from pytest_h2o.plan.cases import dump_environment, has_dump, launches
from pytest_h2o.plan.knobs import KNOBS, misspelt
from pytest_h2o.plan.specs import LaunchSpec
from pytest_h2o.report.text import aligned, clean
from pytest_h2o.runs.records import LaunchRecord
from pytest_h2o.runs.results import read_launch
from pytest_h2o.runs.store import RunStore
from pytest_h2o.runtimes import Runtime, RuntimeSetupError, programs_by_work, runtime_kind
from pytest_h2o.session.places import session_root
from pytest_h2o.session.planner import overridden_keys
from pytest_h2o.session.settings import NO_SECOND_BUILD, Settings, read_settings
from pytest_h2o.verdict import NO_H2O

GEN_TOKENS, PROMPT_TOKENS = 8, 32
PROMPT = "The cache holds a key and a value of every token that was read.\n"


@dataclass(frozen=True)
class Finding:
    """One line: what was looked at, whether it serves (None: nothing to judge), and what was
    found.
    """

    subject: str
    good: bool | None
    text: str


def examine(config: pytest.Config) -> int:
    """Print what a run with this configuration would use; 0 if every gate could be evaluated, else
    1.
    """
    unusable = False
    for finding in _findings(config):
        unusable |= finding.good is False
        word = {True: "ok", False: "FAIL", None: "-"}[finding.good]
        print(
            aligned([(f"{word:<4}", f"{finding.subject:<10}", clean(finding.text))])[0], flush=True
        )
    print(
        "not usable: correct what is marked FAIL"
        if unusable
        else "usable: every gate can be evaluated"
    )
    return int(unusable)


def _findings(config: pytest.Config) -> Iterator[Finding]:
    yield Finding("ini file", None, str(config.inipath or "none"))
    try:
        settings = read_settings(config)
        runtime = settings.runtime
    except pytest.UsageError as error:
        yield Finding("settings", False, str(error))
        return
    root = session_root(config, "")
    programs = programs_by_work(runtime.programs)
    lab = Lab(root, settings.knobs, _never, settings.prompt_dir, programs=programs)
    yield Finding("runtime", None, runtime.describe())
    yield Finding("knobs", None, _given(settings))
    for text in misspelt(os.environ):
        yield Finding("knobs", None, text)
    yield _prompts(lab, settings)
    try:
        runtime.check()
    except RuntimeSetupError as error:
        yield Finding("files", False, str(error))
        return
    inputs = ", ".join(f"{name} {digest}" for name, digest in runtime.fingerprint().items())
    yield Finding("files", True, inputs)
    yield from _launches(lab, root, runtime)


def _given(settings: Settings) -> str:
    """The knobs that the user set, and whose defaults the others have."""
    given: list[str] = []
    for knob in KNOBS:
        value, source = settings.knobs.with_source(knob)
        if not source.endswith("default") and source != NO_SECOND_BUILD:
            given.append(f"{knob}={value} ({source})")
    name = settings.runtime.name
    defaults = "their defaults"
    if runtime_kind(name).defaults:
        defaults = f"the defaults of the {name} runtime"
    if not given:
        return f"all have {defaults}"
    given.append(f"all others have {defaults}")
    return ", ".join(given)


def _prompts(lab: Lab, settings: Settings) -> Finding:
    selection = lab.prompts
    counts = Counter(prompt.bucket for prompt in selection.prompts)
    buckets = ", ".join(f"{number} of {bucket}" for bucket, number in counts.items())
    found = f"{buckets or 'none'} in {settings.prompt_dir} ({settings.prompt_source})"
    if selection.problems:
        return Finding("prompts", False, f"{found}; {selection.describe_problems()}")
    return Finding("prompts", bool(selection.prompts), found)


def _launches(lab: Lab, root: Path, runtime: Runtime) -> Iterator[Finding]:
    store = RunStore(root, runtime, on_event=_say_waiting)
    for host in store.hosts.named:
        silence = host.silence()
        yield Finding(f"host {host.name}", not silence, silence or "answers")
    prompt = root / "prompt.txt"
    prompt.write_text(PROMPT, "utf-8")
    bench = launches(lab.cases["full_strict"], lab.knobs, [])[0]
    demo = launches(lab.cases["candidate"], lab.knobs, [prompt])[0]
    specs = [
        replace(bench, arm="doctor", gen_tokens=GEN_TOKENS, prompt_tokens=PROMPT_TOKENS, repeat=1),
        replace(demo, arm="doctor", gen_tokens=GEN_TOKENS, env=dump_environment("doctor")),
    ]
    keys = overridden_keys(runtime, specs)
    yield Finding(
        "config", None, f"launches replace these keys of yours: {', '.join(keys) or 'none'}"
    )
    strict = lab.knobs.on("STRICT_RUNTIME_METRIC_COLUMNS")
    for spec in specs:
        yield _launch(spec, store.get(spec), strict=strict)
    if not lab.knobs.text("DUMP_DIR") and "kv_dump" not in runtime.capabilities:
        yield Finding("KV dump", None, "this runtime writes none; the offline gates need DUMP_DIR")
    elif not lab.knobs.text("DUMP_DIR"):
        dumped = has_dump(store.get(specs[-1]).directory)
        none = (
            f"{specs[-1].program} wrote none: the offline gates need a build with the KV dump "
            "switch, or DUMP_DIR"
        )
        yield Finding("KV dump", dumped, "written when asked for" if dumped else none)
    yield Finding("kept", None, f"what the launches printed: {root}")


def _launch(spec: LaunchSpec, record: LaunchRecord, *, strict: bool) -> Finding:
    rows, problems = read_launch(record)
    if problems:
        return Finding(spec.program, False, "; ".join(problems))
    printed = (
        f"ended well after {record.seconds:.1f} s" if record.seconds is not None else "ended well"
    )
    if spec.work == "prompts":
        agreed = "record and summary agree"
        if "decode_us" not in rows[0].samples:
            agreed = (
                "no record: judged by its summary, where each line of a prompt file is a prompt "
                "and counts and times are sums"
            )
        return Finding(spec.program, True, f"{printed}, {agreed}")
    missing = [name for name in H2O_COLUMNS if name not in rows[0].samples]
    if len(missing) == len(H2O_COLUMNS):
        return Finding(spec.program, True, f"{printed}; {NO_H2O}")
    if missing:
        return Finding(
            spec.program,
            not strict,
            f"{printed}, but its table lacks {', '.join(missing)}: the binary is older than these "
            f"columns",
        )
    return Finding(spec.program, True, f"{printed}, all {len(H2O_COLUMNS)} H2O columns are there")


def _say_waiting(kind: str, spec: LaunchSpec, seconds: float) -> None:
    if kind == "wait":
        print(
            f"      {spec.program}: waiting for another measurement on this machine "
            f"({seconds:.0f} s)",
            flush=True,
        )


def _never(spec: LaunchSpec) -> LaunchRecord:
    raise AssertionError(f"{spec.name}: the laboratory launches nothing here")
