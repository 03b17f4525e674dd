"""The two programs that MNN's builds and the embedded runtime have: the same arguments, the same
output.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import chain
from pathlib import Path

from pytest_h2o.parsers.bench_table import Table, read_tables
from pytest_h2o.parsers.demo_output import generated_text, read_demo
from pytest_h2o.parsers.held_out import HeldOut, read_kv_report, read_perplexity
from pytest_h2o.plan.specs import LaunchSpec
from pytest_h2o.runtimes.base import (
    CONFIG_FILE,
    METRICS_FILE,
    NO_FILE,
    QUALITY_FILE,
    TABLE_FILE,
    NothingPrintedError,
    Output,
    Program,
    Rows,
)

HELD_OUT = Path(__file__).parents[1] / "engine" / "weights" / "heldout.txt"
TEXT_TOKENS = 4000
# attention_mode is this, plus what llm_bench calls -qatten.
FLASH_ATTENTION = 8
# What stock builds print before they go on as if nothing had happened.
_NO_MODEL = re.compile(
    r"(?m)^\[Error\]: (?:LLM in error state|tokenizer file not found)[^\n]{0,200}"
)
_OTHER_BACKEND = re.compile(
    r"(?m)^.{0,80}(?:Can't Find type=\d+ backend, use \d+ instead|Turn back to cpu)"
)


def ran_something_else(printed: str) -> str:
    """Why what a program measured is not what was asked for, by what it said before; empty if it is
    not known to be anything else.
    """
    said, _, _ = printed.partition("\nprompt file is ")  # the model's words follow
    if found := _NO_MODEL.search(said):
        return f"the model could not be loaded, and the numbers are of nothing ({found[0].strip()})"
    if found := _OTHER_BACKEND.search(said):
        return f"another backend than the one asked for ran ({found[0].strip()})"
    return ""


class LlmBench(Program):
    """``llm_bench``: prompts of a given length, a warm-up and measured repeats, a Markdown
    table.
    """

    name = "llm_bench"
    work = "lengths"
    files = (TABLE_FILE,)
    mib_rounding = 0.005

    def arguments(self, spec: LaunchSpec, directory: Path) -> tuple[str, ...]:
        """One length; precision and the rest keep the program's defaults."""
        if spec.prompt_tokens is None or spec.repeat is None:
            raise ValueError(f"{spec.name}: {self.name} needs prompt_tokens and repeat")
        words = {
            "-m": list_word(directory, CONFIG_FILE),
            "-a": spec.backend,
            "-t": str(spec.threads),
            "-qatten": str(spec.attention_option),
            "-kv": "true",
            "-p": str(spec.prompt_tokens),
            "-n": str(spec.gen_tokens),
            "-rep": str(spec.repeat),
            "-fp": list_word(directory, TABLE_FILE),
        }
        flat = tuple(chain.from_iterable(words.items()))
        if spec.quality:
            flat += ("--quality", "-j", list_word(directory, QUALITY_FILE))
        return flat

    def read(self, output: Output, *, fresh: bool) -> Rows:
        """The last table that it wrote, or printed if it wrote none."""
        found: tuple[Table, ...] = ()
        for path in (output.table, output.stdout):
            if not found and path.is_file():
                found = read_tables(path, output.spec.repeat)
        if not found:
            raise NothingPrintedError("the program printed no table")
        last = found[-1]
        problems = list(last.problems)
        if fresh and last.rows and last.rows[0].source == output.table:
            problems += _told_otherwise(last, output.stdout)
        if fresh and any(_cells(table) != _cells(last) for table in found):
            problems.append(f"{len(found)} tables that differ, where one program was launched")
        return last.rows, problems

    def failure(self, printed: str) -> str:
        """Stock builds exit with 0 and a full table although nothing, or something else, ran."""
        return ran_something_else(printed)

    def responses(self, spec: LaunchSpec) -> int | None:
        """One more than it measures."""
        return None if spec.repeat is None else spec.repeat + 1

    def held_out(self, output: Output) -> HeldOut | None:
        """What it wrote instead of a table."""
        return read_kv_report(output.directory / QUALITY_FILE)


class LlmDemo(Program):
    """``llm_demo``: one answer to a real prompt, a summary on stdout and a JSONL record."""

    name = "llm_demo"
    work = "prompts"
    files = (METRICS_FILE,)

    def arguments(self, spec: LaunchSpec, directory: Path) -> tuple[str, ...]:
        """One prompt, the whole file, unless each line is one."""
        if spec.prompt_file is None:
            raise ValueError(f"{spec.name}: {self.name} needs prompt_file")
        words = [str(directory / CONFIG_FILE), str(spec.prompt_file.absolute())]
        words.append(str(spec.gen_tokens))
        if not spec.by_hand:
            words += ["--metrics-jsonl", str(directory / METRICS_FILE)]
        if not spec.line_by_line:
            words.append("--prompt-file-mode=whole")
        return tuple(words)

    def config(self, spec: LaunchSpec) -> dict[str, object]:
        """The launch's keys, and those that ``llm_bench`` takes as arguments."""
        return super().config(spec) | option_keys(spec)

    def environment(self, spec: LaunchSpec, directory: Path) -> dict[str, str]:
        """Older builds know the record's file by this name only."""
        if spec.by_hand:
            return {}
        return {"LLM_DEMO_METRICS_JSONL": str(directory / METRICS_FILE)}

    def read(self, output: Output, *, fresh: bool) -> Rows:
        """The row of its one prompt; of several, what they come to together."""
        metrics: Path | None = output.metrics
        asked = any(word.startswith("--metrics") for word in output.argv)
        not_asked = output.argv and not asked and not output.metrics.is_file()
        if not_asked or output.metrics == NO_FILE:
            metrics = None  # stock builds have no record
        if output.spec.line_by_line:
            metrics = None
        return [read_demo(output.stdout, metrics, output.spec.label)], []

    def failure(self, printed: str) -> str:
        """Older builds exit with 0 after this line; where a model wrote it, a summary follows."""
        failed = re.search(r"(?m)^LLM init error", printed)
        if failed and "prompt tokens num" not in printed:
            return "the model could not be loaded (LLM init error)"
        return ran_something_else(printed)

    def text(self, output: Output) -> str:
        """What it printed without messages, log lines and summary."""
        return generated_text(output.stdout)


class LineDemo(LlmDemo):
    """``llm_demo`` of stock MNN: each line of a file is a prompt, or a comment after ``#``.

    A prompt of several lines is given to it in one, from the directory of the launch; breaks become
    spaces, and another one stands before a number sign at the beginning.
    """

    def arguments(self, spec: LaunchSpec, directory: Path) -> tuple[str, ...]:
        """The prompt, or what it was made into."""
        config, prompt, *others = super().arguments(spec, directory)
        for name in self.texts(spec):
            prompt = str(directory / name)
        return (config, prompt, *others)

    def texts(self, spec: LaunchSpec) -> dict[str, str]:
        """A prompt that must be given another way, under its own name."""
        if spec.prompt_file is None or spec.line_by_line:
            return {}
        if not spec.prompt_file.is_file():  # a plan asks before prompts are made anew
            return {}
        text = spec.prompt_file.read_text("utf-8", errors="replace")
        lines = text.rstrip().split("\n")
        comment = text.startswith("#")
        if len(lines) == 1 and not comment:
            return {}
        words = [line.strip() for line in lines]
        line = " " * comment + " ".join(filter(None, words)) + "\n"
        return {spec.prompt_file.name: line}


class PplEval(Program):
    """``ppl_eval``: the perplexity of a held-out text, read in windows, without decoding."""

    name = "ppl_eval"
    work = "text"

    def arguments(self, spec: LaunchSpec, directory: Path) -> tuple[str, ...]:
        """The beginning of ``prompt.txt`` in the directory of the launch."""
        return (str(directory / CONFIG_FILE), str(directory), str(TEXT_TOKENS))

    def config(self, spec: LaunchSpec) -> dict[str, object]:
        """The launch's keys, and those that ``llm_bench`` takes as arguments."""
        return super().config(spec) | option_keys(spec)

    def texts(self, spec: LaunchSpec) -> dict[str, str]:
        """The text that ships, under the only name that it reads."""
        return {"prompt.txt": HELD_OUT.read_text("utf-8")}

    def read(self, output: Output, *, fresh: bool) -> Rows:
        """No rows: see :meth:`held_out`."""
        return [], []

    def failure(self, printed: str) -> str:
        """It goes on without a model as well."""
        return ran_something_else(printed)

    def held_out(self, output: Output) -> HeldOut | None:
        """The perplexity that it printed."""
        return read_perplexity(output.stdout)


LLM_BENCH = LlmBench()
LLM_DEMO = LlmDemo()
LINE_DEMO = LineDemo()
PPL_EVAL = PplEval()
BOTH: Mapping[str, Program] = {program.name: program for program in (LLM_BENCH, LLM_DEMO)}


def option_keys(spec: LaunchSpec) -> dict[str, object]:
    """The keys for what ``llm_bench`` takes as arguments."""
    values: dict[str, object] = {"thread_num": spec.threads, "backend_type": spec.backend}
    if spec.attention_option:
        values["attention_mode"] = spec.attention_option + FLASH_ATTENTION
    return values


def list_word(directory: Path, name: str) -> str:
    """The path of a file as ``llm_bench`` reads it: it splits words at commas, so such paths start
    at its directory.
    """
    path = str(directory / name)
    return f"./{name}" if "," in path else path


def _told_otherwise(table: Table, stdout: Path) -> list[str]:
    """What is wrong where a table on stdout has other numbers than the one in the file."""
    others = read_tables(stdout) if stdout.is_file() else ()
    for other in others:
        shared = set(table.columns).intersection(other.columns)
        for one, two in zip(table.rows, other.rows, strict=False):
            if one.label == two.label:
                differ = [name for name in shared if one.cells[name] != two.cells[name]]
                if differ:
                    return [f"{min(differ)} is another in the table on stdout than in the file"]
    return []


def _cells(table: Table) -> list[dict[str, str]]:
    return [dict(row.cells) for row in table.rows]
