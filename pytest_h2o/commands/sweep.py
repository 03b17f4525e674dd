"""Every combination of a preset, each distinct one launched once."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from pytest_h2o.commands import clean, fail, from_ini, note, table
from pytest_h2o.commands.parse import read_lines

if TYPE_CHECKING:
    from pytest_h2o.parsers.rows import Row
    from pytest_h2o.plan.knobs import Knobs
    from pytest_h2o.plan.specs import LaunchSpec
    from pytest_h2o.runs.store import LaunchRecord, RunStore
    from pytest_h2o.runtimes import Runtime

T = TypeVar("T")
EXAMPLES = """examples:
  pytest-h2o sweep --preset target_core_gate_v6
  pytest-h2o sweep --preset mine.json --llm-bench llm_bench --model-config config.json --threads 4
  pytest-h2o sweep --preset target_ratio_v6 --dry-run --out plan      configs and manifest only
  pytest-h2o sweep --preset target_ratio_v6 --resume h2o-runs/latest  go on after an interruption
  pytest-h2o sweep --preset target_ratio_v6 --launcher 'ssh {host}' --hosts a,b,c

exit code: 0 all launches ended well, 1 some launches failed, 2 wrong usage, 130 interrupted (what
is finished is kept)
"""
PROGRESS_EVERY_S = 15.0
OPTION_KNOBS = (
    "threads", "backend", "attention_option", "launch_timeout_s", "h2o_launcher", "h2o_hosts",
)  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the preset and the options of its launches."""
    parser.add_argument(
        "--preset",
        required=True,
        metavar="NAME|FILE.json",
        help="pytest-h2o presets lists the names",
    )
    add_launch_arguments(parser)


def add_launch_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what a sweep takes beside its preset, and how the runtime is named."""
    parser.add_argument("--llm-bench", metavar="PATH", help="binary (environment: LLM_BENCH)")
    parser.add_argument(
        "--model-config",
        metavar="PATH",
        help="config.json of the model (environment: MODEL_CONFIG)",
    )
    parser.add_argument(
        "--threads", metavar="N", help="threads of the runtime (environment: THREADS)"
    )
    parser.add_argument(
        "--backend", metavar="B", help="backend of the runtime (environment: BACKEND)"
    )
    parser.add_argument(
        "--attention-option", metavar="N", help="llm_bench -qatten (environment: ATTENTION_OPTION)"
    )
    parser.add_argument(
        "--launch-timeout-s",
        metavar="S",
        help="end a launch that takes longer (environment: LAUNCH_TIMEOUT_S)",
    )
    parser.add_argument(
        "--launcher",
        dest="h2o_launcher",
        metavar="WORDS",
        help="put in front of the program: 'ssh {host}' (environment: H2O_LAUNCHER)",
    )
    parser.add_argument(
        "--hosts",
        dest="h2o_hosts",
        metavar="A,B,C",
        help="launch on all of these at once (environment: H2O_HOSTS)",
    )
    parser.add_argument(
        "--disable-h2o", action="store_true", help="run without eviction, and so without lossless"
    )
    parser.add_argument(
        "--disable-lossless", action="store_true", help="run without lossless compression"
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="write here (default: a new directory in h2o-runs)"
    )
    parser.add_argument(
        "--resume", type=Path, metavar="DIR", help="take over what an earlier sweep finished"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="write configs and manifest, launch nothing"
    )


class SweepError(ValueError):
    """The command line asks for what cannot be done; the message says what to give instead."""


def run(arguments: argparse.Namespace) -> int:
    """Plan the sweep and, unless it is a dry run, launch it and compare what came out."""
    from pytest_h2o.plan.knobs import KnobError  # noqa: PLC0415
    from pytest_h2o.plan.presets import PresetError  # noqa: PLC0415
    from pytest_h2o.runtimes import RuntimeSetupError  # noqa: PLC0415

    try:
        sweep = plan(arguments)
        if not arguments.dry_run:
            return sweep.launch()
        sweep.write_manifest({spec.arm: None for spec in sweep.launches})
        print(f"{sweep.size}: planned in {clean(sweep.out)}, nothing launched")
        return 0
    except (SweepError, PresetError, KnobError, RuntimeSetupError) as error:
        return fail(error)


def plan(arguments: argparse.Namespace) -> Sweep:
    """The sweep that the command line asks for, with its configs written; nothing is written when
    it cannot be made.
    """
    from pytest_h2o.plan.presets import distinct  # noqa: PLC0415
    from pytest_h2o.runs.directory import create_session_dir  # noqa: PLC0415
    from pytest_h2o.runtimes import find_runtime, programs_by_work  # noqa: PLC0415
    from pytest_h2o.runtimes.placement import placed  # noqa: PLC0415
    from pytest_h2o.session.settings import ini_paths  # noqa: PLC0415

    ini = from_ini()
    runtime = find_runtime(arguments.llm_bench, None, arguments.model_config, ini=ini_paths(ini))
    knobs = launch_knobs(arguments, runtime.name, ini["h2o_set"])
    runtime = placed(runtime, knobs)
    check_kinds(knobs.text("H2O_HOSTS"))
    specs = launches(arguments, knobs, programs_by_work(runtime.programs).get("lengths", ""))
    resume = check_directories(arguments)
    configs = {spec.arm: runtime.command(spec, Path()).config for spec in specs}
    if not arguments.dry_run:
        runtime.check()
    out = arguments.out or create_session_dir(Path("h2o-runs"))
    write_configs(out, configs)
    return Sweep(out, runtime, specs, distinct(specs), arguments.disable_lossless, resume)


def launch_knobs(arguments: argparse.Namespace, runtime: str, in_ini: Iterable[str]) -> Knobs:
    """The options of a launch: command line, environment, ini file, the runtime's default."""
    from pytest_h2o.plan.knobs import resolve  # noqa: PLC0415
    from pytest_h2o.runtimes import defaults_for  # noqa: PLC0415

    texts: list[str] = []
    for name in OPTION_KNOBS:
        text = getattr(arguments, name)
        if text is not None:
            texts.append(f"{name.upper()}={text}")
    return resolve(texts, os.environ, in_ini, defaults_for(runtime))


def check_kinds(hosts: str) -> None:
    """Raise :class:`SweepError` for hosts of several kinds, whose speeds cannot be compared."""
    from pytest_h2o.plan.seats import parse_hosts  # noqa: PLC0415

    kinds = list(parse_hosts(hosts))
    if len(kinds) > 1:
        raise SweepError(
            f"hosts of the kinds {', '.join(kinds)}: a sweep compares combinations with each "
            f"other; give the hosts of one kind without it, a sweep for each"
        )


def launches(arguments: argparse.Namespace, knobs: Knobs, program: str) -> list[LaunchSpec]:
    """The preset's combinations."""
    from pytest_h2o.plan.presets import combinations  # noqa: PLC0415

    return combinations(
        arguments.preset,
        knobs,
        program,
        disable_h2o=arguments.disable_h2o,
        disable_lossless=arguments.disable_lossless,
    )


def check_directories(arguments: argparse.Namespace) -> Path | None:
    """The sweep to resume, if any, without symlinks; raises :class:`SweepError` if a directory
    cannot serve.
    """
    if arguments.out and (arguments.out / "launches").exists():
        raise SweepError(
            f"{arguments.out} holds launches already; give another --out, and --resume to take "
            f"them over"
        )
    if arguments.resume and not (arguments.resume / "launches").is_dir():
        raise SweepError(
            f"--resume {arguments.resume}: holds no launches; give the directory of an earlier "
            f"sweep"
        )
    return arguments.resume.resolve() if arguments.resume else None


def write_configs(out: Path, configs: Mapping[str, Mapping[str, object]]) -> None:
    """Write the config of every combination, as a launch gets it, to ``configs/<run_id>.json``."""
    from pytest_h2o.runtimes.launch_config import config_text  # noqa: PLC0415

    for folder in ("configs", "logs"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    for run_id, config in configs.items():
        (out / "configs" / f"{run_id}.json").write_text(config_text(config), "utf-8")


@dataclass
class Sweep:
    """The combinations of a preset and what their launches showed.

    ``first`` names for each run id the combination that is launched for it. Of finished launches,
    by run id, ``return_codes`` are the programs', ``rows`` the measurements, ``failed`` the reasons
    why there are none.
    """

    out: Path
    runtime: Runtime
    specs: list[LaunchSpec]
    first: Mapping[str, LaunchSpec]
    disable_lossless: bool
    resume: Path | None
    return_codes: dict[str, int | None] = field(default_factory=dict)
    rows: dict[str, Row] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    _quiet_until: float = 0.0

    @cached_property
    def launches(self) -> list[LaunchSpec]:
        """The combinations that are launched."""
        return [spec for spec in self.specs if self.first[spec.arm] is spec]

    @property
    def size(self) -> str:
        """How much it is, in words."""
        return f"{len(self.specs)} combinations, {len(self.launches)} of them distinct"

    def log(self, run_id: str) -> Path:
        """The table of the launch that was made for a combination."""
        return self.out / "logs" / f"{self.first[run_id].arm}.log"

    def launch(self) -> int:
        """Launch what is distinct, keep each result as soon as it is there, and compare; returns
        the exit code.
        """
        from pytest_h2o.runs.hosts import HostPool, HostsGoneError  # noqa: PLC0415
        from pytest_h2o.runs.hosts_file import HOSTS_FILE, read_hosts  # noqa: PLC0415
        from pytest_h2o.runs.store import RunStore  # noqa: PLC0415

        note(f"{self.size}; {self.runtime.describe()}")
        hosts = HostPool(self.out, self.runtime, roaming=True)
        store = RunStore(
            self.out, self.runtime, on_event=self._show, previous=self.resume, hosts=hosts
        )
        ended, code = "", 0
        try:
            self._launch_all(store)
        except KeyboardInterrupt:
            ended, code = "interrupted", 130
        except HostsGoneError as error:
            ended, code = str(error), 1
        self._conclude()
        for line in read_hosts(self.out / HOSTS_FILE).trouble:
            note(line)
        if ended:
            done = f"{len(self.return_codes)} of {len(self.launches)} launches"
            note(f"{ended} after {done}; go on with --resume {self.out}")
        return code or int(bool(self.failed))

    def _launch_all(self, store: RunStore) -> None:
        """Launch as many at once as there are hosts, and take in each as it ends."""
        with ThreadPoolExecutor(store.hosts.size, thread_name_prefix="h2o-sweep") as threads:
            waiting = [threads.submit(store.get, spec) for spec in self.launches]
            try:
                for launched in as_completed(waiting):
                    self._keep(launched.result())
            except BaseException:
                store.interrupt()
                threads.shutdown(cancel_futures=True)
                raise

    def write_manifest(self, return_codes: Mapping[str, int | None]) -> None:
        """Write ``manifest.json``: every combination whose launch has a return code."""
        from pytest_h2o.kit.manifest import manifest_entry  # noqa: PLC0415
        from pytest_h2o.runs.records import write_atomically  # noqa: PLC0415

        entries = [
            manifest_entry(
                spec,
                return_codes[self.first[spec.arm].arm],
                config=self.out / "configs" / f"{spec.arm}.json",
                log=self.log(spec.arm),
                disable_lossless=self.disable_lossless,
            )
            for spec in self.specs
            if self.first[spec.arm].arm in return_codes
        ]
        write_atomically(self.out / "manifest.json", json.dumps(entries, indent=2) + "\n")

    def _keep(self, record: LaunchRecord) -> None:
        """Take in a launch that ended: its table into ``logs``, its row, its line in the manifest
        and on the screen.
        """
        from pytest_h2o.report.pareto import brief  # noqa: PLC0415
        from pytest_h2o.runs.results import read_launch  # noqa: PLC0415

        run_id = record.spec.arm
        if record.table.is_file():
            shutil.copyfile(record.table, self.log(run_id))
        rows, problems = read_launch(record)
        if problems:
            self.failed[run_id] = "; ".join(problems)
        else:
            self.rows[run_id] = rows[0]
        self.return_codes[run_id] = record.returncode
        self.write_manifest(self.return_codes)
        taken = f" (from {record.reused_from})" if record.reused_from else ""
        result = f"FAILED: {self.failed[run_id]}" if problems else brief(rows[0])
        note(f"{self._count(record.spec)}: {record.seconds or 0:.1f} s, {result}{taken}")

    def _conclude(self) -> None:
        """Write the CSV and the page, print the comparison and name what failed."""
        from pytest_h2o.kit.bench_csv import write_csv  # noqa: PLC0415
        from pytest_h2o.report.pareto import LEGEND, comparison  # noqa: PLC0415
        from pytest_h2o.report.sweep_page import sweep_html  # noqa: PLC0415

        # In the order of the preset, whichever ended first.
        order = [spec.arm for spec in self.launches]
        self.rows = _in_order(self.rows, order)
        self.failed = _in_order(self.failed, order)
        if lines := list(read_lines(self.log(run_id) for run_id in self.rows)):
            write_csv(lines, self.out / "h2o_metrics.csv")
            print(table(comparison(self.rows)))
            print(LEGEND)
        page = sweep_html(self.runtime.describe(), self.rows, self.failed)
        (self.out / "sweep.html").write_text(page, "utf-8", errors="backslashreplace")
        print(
            f"{len(self.rows)} of {len(self.launches)} launches ended well; written to "
            f"{clean(self.out)}"
        )
        for run_id, reason in self.failed.items():
            print(f"failed: {run_id}: {clean(reason)}")

    def _show(self, kind: str, spec: LaunchSpec, seconds: float) -> None:
        """A progress line, now and then while nothing ends; the end of a launch is told with its
        result.
        """
        texts = {
            "start": "",
            "tick": f": running for {seconds:.0f} s",
            "wait": f": waiting for another measurement on this machine ({seconds:.0f} s)",
        }
        if kind == "start" or (kind in texts and time.monotonic() > self._quiet_until):
            note(self._count(spec) + texts[kind])
            self._quiet_until = time.monotonic() + PROGRESS_EVERY_S

    def _count(self, spec: LaunchSpec) -> str:
        return f"[{self.launches.index(spec) + 1}/{len(self.launches)}] {spec.arm}"


def _in_order(found: Mapping[str, T], order: Iterable[str]) -> dict[str, T]:
    return {name: found[name] for name in order if name in found}
