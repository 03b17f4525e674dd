"""The offline evaluation of the session's KV dump, made once and kept in the run directory."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from filelock import FileLock
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pytest_h2o.codec import ROW_CODECS
from pytest_h2o.lab.lab import Lab
from pytest_h2o.offline import OfflineError
from pytest_h2o.offline.options import (
    OfflineOptions,
    online_sim_options,
    upper_bound_options,
)
from pytest_h2o.parsers.text_files import decoded
from pytest_h2o.plan.cases import CANDIDATE, FULL_EVAL, has_dump
from pytest_h2o.plan.suites import on_kind
from pytest_h2o.runs.records import LaunchRecord
from pytest_h2o.runs.results import launch_cause, located, read_launches
from pytest_h2o.verdict import Evidence, Measured, ShownRow

POSSIBLE_SIZE = "the runtime's blocks are as large as coding without loss makes them"
# A better coder than those here may come to so many times their ratio.
BETTER_CODER = 1.2
LOSSLESS = "the blocks decode to what they encode"
ONLINE_FILES = ("online_sim", "online_grouped", "online")
SHOWN = (
    "evaluated_entries",
    "skipped_entries",
    "raw_bytes",
    "compressed_bytes",
    "container_bytes",
)
FILES = {
    "online_sim": ONLINE_FILES,
    "full_eval": ("full_eval", *ONLINE_FILES),
    "upper_bound": ("upper_bound", "upper"),
}
SIZE_LIMIT = 16 * 2**20
GIVE_DUMP = (
    "give one with --h2o-set DUMP_DIR=DIRECTORY, as llm_demo leaves it where MNN_KV_DUMP_DIR is set"
)


Number = Annotated[float, Field(ge=0)] | None


class OfflineResult(BaseModel):
    """What gates read of a result; a foreign evaluator's has no shares, ``verified`` nor
    ``lossless``.
    """

    model_config = ConfigDict(extra="allow", allow_inf_nan=False)

    entry_mode: str
    raw_bytes: Annotated[int, Field(ge=0)]
    compressed_bytes: Annotated[int, Field(ge=0)]
    lossless_ratio: Annotated[float, Field(ge=0)]
    skipped_entries: Annotated[int, Field(ge=0)]
    skip_reasons: dict[str, int]
    selected_entries: Annotated[int, Field(ge=0)] = 0
    aggregate_groups: Annotated[int, Field(ge=0)] = 0
    k_lossless_ratio: Number = None
    v_lossless_ratio: Number = None
    evaluated_share: Number = None
    evaluated_byte_share: Number = None
    verified: bool | None = None
    lossless: bool | None = None

    def shares(self) -> dict[str, float]:
        """The evaluated share as far as a foreign result's counts tell: of a grouped one, a failure
        is a whole group.
        """
        failed = self.skip_reasons.get("compression_failed", 0)
        wanted = self.selected_entries + self.skipped_entries - failed
        units = self.aggregate_groups or self.selected_entries
        share = (
            (1 - failed / units) * self.selected_entries / wanted if units and wanted > 0 else 0.0
        )
        return {"evaluated_share": max(0.0, share), "evaluated_byte_share": max(0.0, share)}


@dataclass(frozen=True)
class Evaluation:
    """An offline result, its file, and why there is none; ``values`` has the keys of the result
    JSON, ``cause`` is the root of what is missing in words that others share. ``others`` are those
    of other cases, and the worst of all counts. ``beside`` is what the launches of the dump show.
    """

    values: Mapping[str, Any]
    source: Path | None = None
    missing: str = ""
    others: tuple[Evaluation, ...] = ()
    cause: str = ""
    beside: tuple[Evidence, ...] = ()

    def measure(self, metric: str, unit: str = "ratio") -> Measured:
        """One number of the result, or of the worst of several."""
        found = [each.measure(metric, unit) for each in self.others]
        found.append(self._own(metric, unit))
        return _worst(found)

    def _own(self, metric: str, unit: str) -> Measured:
        value = self.values.get(metric)
        rows: list[ShownRow] = []
        for key in SHOWN:
            if key in self.values:
                rows.append(ShownRow(key, str(self.values[key]), float(self.values[key])))
        return Measured(
            metric=metric,
            value=None if value is None else float(value),
            unit=unit,
            source=self.source,
            rows=tuple(rows),
            missing=self.missing,
            cause=self.cause,
        )

    def ratio(self, codec: str = "compatible") -> Measured:
        """The ratio of the compatible coding, or of another codec; others are shown beside it."""
        measured = self.measure("lossless_ratio")
        rows, chosen = list(measured.rows), None
        for each in self.values.get("codecs", ()):
            if each["codec"] == codec:
                chosen = each
            if each["lossless_ratio"]:
                name = f"lossless_ratio by {each['codec']}"
                rows.append(ShownRow(name, f"{each['lossless_ratio']:.4f}", each["lossless_ratio"]))
        if codec == "compatible" or self.missing:
            return replace(measured, rows=tuple(rows))
        compatible = measured.value or 0.0
        rows.append(ShownRow("lossless_ratio, compatible", f"{compatible:.4f}", compatible))
        if chosen is None:
            missing = f"the result says nothing of the codec {codec}"
            return replace(measured, value=None, rows=tuple(rows), missing=missing)
        missing = ""
        if chosen["error"]:
            missing = f"{codec}: {chosen['error']}"
        value = chosen["lossless_ratio"]
        return replace(measured, value=value, rows=tuple(rows), missing=missing)

    def share(self) -> Measured:
        """The evaluated share of the dump, by entries or by bytes, whichever is less; skipped
        entries by reason.
        """
        found = [each.share() for each in self.others]
        found.append(self._own_share())
        return _worst(found)

    def _own_share(self) -> Measured:
        by = min(
            ("evaluated_share", "evaluated_byte_share"), key=lambda name: self.values.get(name, 0.0)
        )
        rows: list[ShownRow] = []
        for reason, n in self.values.get("skip_reasons", {}).items():
            rows.append(ShownRow(f"skipped, {reason}", str(n), float(n)))
        return replace(self._own(by, "share"), rows=tuple(rows))

    def unverified(self) -> list[str]:
        """Why the result is not one that was decoded and compared; an evaluator that decodes
        nothing does not claim it.
        """
        reasons: list[str] = []
        for each in (self, *self.others):
            if each.missing:
                reasons.append(each.missing)
            if each.missing or not each.values or each.foreign:
                continue
            for word in ("verified", "lossless"):
                if not each.values.get(word):
                    reasons.append(f"the result is not {word}")
        return reasons

    @property
    def evidence(self) -> list[Evidence]:
        """What is known about the truth of the ratio; nothing needs to be said of a result of our
        own.
        """
        found = self._own_evidence()
        for each in self.others:
            found += each.evidence
        return list(dict.fromkeys(found))

    def _own_evidence(self) -> list[Evidence]:
        if self.missing or not self.foreign:
            return list(self.beside)
        if failed := self.values["skip_reasons"].get("compression_failed"):
            text = f"{failed} groups failed, and this evaluator counts their raw bytes all the same"
            return [Evidence(claim=LOSSLESS, standing="contradicted", text=text)]
        text = "the evaluator that wrote this result decodes nothing"
        return [Evidence(claim=LOSSLESS, standing="not evidenced", text=text)]

    @property
    def foreign(self) -> bool:
        """Whether another evaluator computed the result; ours says whether it decoded and
        compared.
        """
        return "verified" not in self.values


def _worst(found: Sequence[Measured]) -> Measured:
    """The first that has no value, else the lowest."""
    for each in found:
        if each.value is None or each.missing:
            return each
    return min(found, key=lambda each: each.value or 0.0)


def evaluate_dump(lab: Lab, kind: Literal["online_sim", "full_eval", "upper_bound"]) -> Evaluation:
    """The evaluation of the session's KV dump as a runtime would code it (in shorter chunks
    for full_eval), or a bound.
    """
    dumps, reason, cause = kv_dump(lab)
    if not dumps:
        return _recorded_results(lab, kind) or Evaluation({}, missing=reason, cause=cause)
    path = lab.root / f"offline_lossless_{on_kind(kind, lab.workload.kind)}.json"
    try:
        values = _once(path, lambda: _evaluated(dumps, _options(lab, kind)))
    except OfflineError as error:
        return Evaluation({}, dumps[0], str(error))
    missing = "" if values["raw_bytes"] else f"nothing in {values['dump_dir']} could be evaluated"
    missing = missing or absent_layers(lab, values)
    beside = [] if missing else coded_alike(_coded_records(lab), values)
    return Evaluation(values, path, missing, beside=tuple(beside))


def _evaluated(dumps: Sequence[Path], options: OfflineOptions) -> dict[str, Any]:
    """The result of some directories together."""
    # numpy and zstd: few sessions come here
    from pytest_h2o.offline.account import merged  # noqa: PLC0415
    from pytest_h2o.offline.evaluate import evaluate  # noqa: PLC0415

    return merged([evaluate(dump, options) for dump in dumps]).to_json()


def _once(path: Path, compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """A JSON result computed once per session, shared by all workers, kept in ``path``."""
    with FileLock(f"{path}.lock"):
        if not path.is_file():
            partial = path.with_suffix(".partial")
            partial.write_text(json.dumps(compute(), indent=2) + "\n", "utf-8")
            partial.replace(path)
    result: dict[str, Any] = json.loads(path.read_bytes())
    return result


def kv_dump(lab: Lab) -> tuple[list[Path], str, str]:
    """The directories of the KV dump under judgement, or none with the reason why there is none and
    the cause that is at the root of it.
    """
    if given := lab.knobs.text("DUMP_DIR"):
        if Path(given).is_dir():
            return [Path(given)], "", ""
        return [], f"DUMP_DIR={given} is not a directory", ""
    if lab.recording:
        return [], f"no KV dump in {lab.recording.directory}; {GIVE_DUMP}", ""
    if not lab.prompts.prompts:
        return [], lab.workload.nothing_to_run(), lab.workload.without_prompts
    return _launched_dump(lab)


def _launched_dump(lab: Lab) -> tuple[list[Path], str, str]:
    if lacking := lab.lacks("kv_dump"):
        return [], f"{lacking}; {GIVE_DUMP}", lacking
    records = [lab.get(spec) for spec in lab.workload.dump_launches()]
    without: dict[str, list[LaunchRecord]] = {}
    for record in records:
        if why := _no_dump(record):
            without.setdefault(why, []).append(record)
    reasons = []
    for why, alike in without.items():
        names = [record.name for record in alike]
        reasons.append(located(why, alike[0].directory, *names))
    if not reasons and lab.workload.kind:
        return [record.directory for record in records], "", ""
    if not reasons:
        return [records[0].directory.parent], "", ""
    cause = next(filter(None, map(launch_cause, records)), "")
    return [], "; ".join(reasons), cause


def _coded_records(lab: Lab) -> list[LaunchRecord]:
    """The candidate's launches over the prompts of the dump, where this session has them anyway:
    what the front layers hold is the same.
    """
    candidate = lab.cases[on_kind(CANDIDATE, lab.workload.kind)]
    if candidate.name not in lab.demand.cases:
        return []
    dumped = {spec.label for spec in lab.workload.dump_launches()}
    candidates = lab.workload.launches(candidate)
    return [lab.get(spec) for spec in candidates if spec.label in dumped]


def coded_alike(records: Sequence[LaunchRecord], values: Mapping[str, Any]) -> list[Evidence]:
    """Whether blocks are as large as coding without loss makes them: needs ``[H2O-LOSSLESS]`` lines
    of launches over the prompts of the dump, whose values are coded here as well.
    """
    raw = encoded = 0
    for facts in read_launches("dump", records).facts:
        for block, times in facts.repeats.blocks.items():
            if block.layer in values["selected_layers"] and block.comp:
                raw += block.raw * times
                encoded += block.comp * times
    best = values["lossless_ratio"]
    for each in values.get("codecs", ()):
        best = max(best, each["lossless_ratio"] or 0.0)
    if not encoded or not best:
        return []
    text = f"the runtime's blocks come to {raw / encoded:.4g}, the best coder here to {best:.4g}"
    return [Evidence.of(POSSIBLE_SIZE, raw / encoded <= BETTER_CODER * best, text)]


def _no_dump(record: LaunchRecord) -> str:
    """Why a launch left no KV dump; empty if it did."""
    if record.status != "ok":
        return record.reason
    if not has_dump(record.directory):
        return f"the program wrote no KV dump; use a build with the KV dump switch, or {GIVE_DUMP}"
    return ""


def absent_layers(lab: Lab, values: Mapping[str, Any]) -> str:
    """Which front layers a program left out of the dump that it was launched for; one that is given
    may be a part.
    """
    front = range(0 if lab.knobs.text("DUMP_DIR") else lab.knobs.integer("KV_LOSSLESS_FRONT_N"))
    absent = [str(layer) for layer in front if layer not in values["selected_layers"]]
    if not absent:
        return ""
    return (
        f"{values['dump_dir']} holds nothing of layer {', '.join(absent)}; the program must dump "
        f"every layer"
    )


def _recorded_results(lab: Lab, kind: str) -> Evaluation | None:
    """The offline result of a replayed directory; of several cases that have one each the worst,
    and none if one of them lacks it.
    """
    if lab.recording is None:
        return read_results(lab.replay, kind) if lab.replay else None
    results: list[Evaluation] = []
    missing: list[str] = []
    for part in lab.recording.parts:
        if part.work != "lengths":
            continue
        result = read_results(part.directory, kind)
        if result:
            results.append(result)
        why = result.missing if result else "no offline result"
        if why:
            trouble = f" ({part.trouble})" if part.trouble else ""
            missing.append(f"{part.name}: {why}{trouble}")
    whole = read_results(lab.recording.directory, kind)
    if whole or not results:
        return whole
    if missing:
        return replace(results[0], missing="; ".join(missing))
    return replace(results[0], others=tuple(results[1:]))


def read_results(directory: Path, kind: str) -> Evaluation | None:
    """The offline result of a kind that lies in a directory; None if there is none of any kind."""
    for name in FILES[kind]:
        if (path := directory / f"offline_lossless_{name}.json").is_file():
            return _read_result(path, kind)
    if others := sorted(directory.glob("offline_lossless*.json")):
        return Evaluation({}, others[0], f"{others[0]} is there, but no result of the kind {kind}")
    return None


def _read_result(path: Path, kind: str) -> Evaluation:
    try:
        with path.open("rb") as file:
            result = OfflineResult.model_validate_json(decoded(file.read(SIZE_LIMIT)))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "file"
        return Evaluation({}, path, f"{path} is not an offline result: {place}: {first['msg']}")
    except OSError as error:
        return Evaluation({}, path, f"{path} cannot be read: {error.strerror}")
    if kind != "upper_bound" and not result.entry_mode.startswith("chunked"):
        missing = f"{path}: entry_mode {result.entry_mode}; a runtime codes chunks"
    elif not result.compressed_bytes or not result.raw_bytes:
        missing = f"{path}: nothing was evaluated"
    elif not math.isclose(
        result.raw_bytes / result.compressed_bytes, result.lossless_ratio, abs_tol=0.01
    ):
        missing = f"{path}: lossless_ratio {result.lossless_ratio} is not raw over compressed bytes"
    else:
        missing = ""
    values = result.shares() | result.model_dump(exclude_unset=True, exclude_none=True)
    return Evaluation(values, path, missing)


def _options(lab: Lab, kind: str) -> OfflineOptions:
    knobs = FULL_EVAL.knobs(lab.knobs) if kind == "full_eval" else lab.knobs
    front_n = knobs.integer("KV_LOSSLESS_FRONT_N")
    if kind == "upper_bound":
        return upper_bound_options(front_n)
    return online_sim_options(
        front_n,
        chunk_seq=knobs.integer("ONLINE_CHUNK_SEQ"),
        framing_bytes=knobs.integer("ONLINE_FRAMING_BYTES"),
        block_seq=knobs.integer("ADAPTIVE_BLOCK_SEQ"),
        codecs=ROW_CODECS,
        rope_base=knobs.number("ROPE_BASE"),
        rope_layout=knobs.text("ROPE_LAYOUT"),
    )
