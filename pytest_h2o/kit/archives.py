"""Directories that something else left, read as recordings that can be judged without launching.

A directory with launches of its own is one case. Any other may be a pack of the original kit, or a
folder of such directories: each is a case by its own name, beside the offline results and the
H2O-off launches that lie with it. Of a pack that broke off, what is not there is named.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

from pytest_h2o.kit.demo_packs import SIDES, Sides, demo_sides_in, is_demo_pack
from pytest_h2o.kit.layouts import (
    BASELINE,
    baseline_in,
    has_any,
    has_launches,
    holds_launches,
    launches_in,
    loose_logs,
)
from pytest_h2o.kit.unclaimed import earlier_tables, named_twice, unclaimed
from pytest_h2o.lab.recordings import Part, Recorded, Recording, RecordingError
from pytest_h2o.plan.cases import CANDIDATE
from pytest_h2o.plan.knobs import KnobValue
from pytest_h2o.plan.suites import CASE_PARTS, SUITES
from pytest_h2o.report.text import clean
from pytest_h2o.runs.records import standard_paths
from pytest_h2o.runs.store import ReplayStore

MAX_DIRECTORIES = 20_000
# One launch of each length on either side: too few for a paired study.
BESIDE: Mapping[str, KnobValue] = {"DECODE_BASELINE_MODE": "same_batch"}
TAIL_BYTES = 16 * 1024
SIDE_FOLDERS = (BASELINE, *SIDES)
# What belongs to the directory above.
APART = {BASELINE, "launches", "logs", "configs", "metrics", "kv_dump", ".locks", ".tmp"}
JOINT_CASES = ("joint_full", "joint_store")
RUNTIME = {
    "runtime_full_strict": "full_strict",
    "runtime_store_tuned": "store_tuned",
    "runtime_full_coverage": "full_coverage",
}
JOINT = re.compile(r"(joint_full|joint_store)_run0*(\d+)")
# What verdicts that are not about a recorded case are called.
INTERNAL = set(SUITES) | {
    CANDIDATE, "baseline", "none", "other", "offline", "quality", "relations", "memory", "k", "v",
    "joint_full", "joint_store",
}  # fmt: skip


@dataclass(frozen=True)
class Place:
    """A directory of a pack that holds launches; ``pack`` holds it."""

    directory: Path
    pack: Path


def is_own(directory: Path, *, sweep: bool) -> bool:
    """Whether a directory holds the launches of a session's cases, or with ``sweep`` those of
    combinations.

    What ``pytest-h2o bench`` and ``sweep`` write has a manifest: a recording of one case unless a
    preset names it.
    """
    return has_launches(directory) and (sweep or not (directory / "manifest.json").is_file())


def read_recording(directory: Path) -> Recording:
    """Everything that ``directory`` recorded; raises :class:`RecordingError`."""
    directory = directory.resolve()
    places = list(_places(directory))
    parts: list[Part] = []
    prompts: list[Part] = []
    for place in places:
        if is_demo_pack(place.directory):
            prompts.append(_demo_part(place.directory, demo_sides_in(place.directory)))
        parts += _parts_of(place)
    parts += _absent(places)
    prompts += [part for part in parts if part.work == "prompts"]
    parts = _distinct([part for part in parts if part.work != "prompts"])
    if not parts and not prompts:
        expected = "launches/, launches.json, launch.json, manifest.json or *.log"
        raise RecordingError(
            f"{directory} holds none of {expected}; give the directory of an earlier run"
        )
    unread = _unread(directory, places, parts + prompts)
    if prompts:
        together = _together(prompts)
        parts.append(together)
        if together.launches:  # of several packs of prompts, one may not be there
            unread += [part.trouble for part in prompts if not part.launches]
    return Recording(directory, tuple(parts), tuple(unread))


def _unread(root: Path, places: Sequence[Place], parts: Sequence[Part]) -> list[str]:
    """What lies below a directory and was left by a launch of which nothing else is known."""
    found: list[str] = []
    for place in places:
        if has_launches(place.directory):
            found += ReplayStore(place.directory).unread()
    tables: dict[Path, None] = {}
    read: set[Path] = set()
    for part in parts:
        found += named_twice(part.launches)
        for each in chain(part.launches, part.baseline):
            tables[each.record.table] = None
            read.update(map(Path.resolve, each.record.files))
    for path in tables:
        found += earlier_tables(path)
    for directory in _directories(root):
        if not has_launches(directory):
            sides = (*SIDE_FOLDERS, baseline_in(directory))
            found += unclaimed(directory, sides, read)
    return found


def _places(root: Path) -> Iterator[Place]:
    """The directories that hold launches, in order; the root itself if there are none."""
    found = False
    for directory in _directories(root):
        if is_demo_pack(directory) or holds_launches(directory):
            found = True
            yield Place(directory, directory if directory == root else directory.parent)
    if not found:
        yield Place(root, root)


def _directories(root: Path) -> Iterator[Path]:
    """The root and all below it, without what belongs to launches above; each once, whatever links
    to it.
    """
    waiting = [root]
    seen = {root}
    while waiting:
        directory = waiting.pop()
        yield directory
        if len(seen) > MAX_DIRECTORIES:
            raise RecordingError(
                f"{root} holds more than {MAX_DIRECTORIES} directories; give one nearer to the "
                "launches"
            )
        below = []
        for path in _children(directory):
            real = path.resolve()
            if real not in seen:
                below.append(path)
                seen.add(real)
        waiting += reversed(below)


def _children(directory: Path) -> list[Path]:
    """The folders to look into: all but the parts of what lies there, and what is no part in
    these.
    """
    parts = _parts_in(directory)
    found: list[Path] = []
    for folder in _folders(directory):
        if folder.name not in parts:
            found.append(folder)
        # The store reads launches, and names what it cannot read.
        elif folder.name != "launches":
            found += _strangers(folder)
    # A link is met under the name of what it points to, if that is there.
    return sorted(found, key=lambda path: path.is_symlink())


def _strangers(part: Path) -> Iterator[Path]:
    """What lies in a part of a recording and is a recording of its own."""
    if part.name not in SIDE_FOLDERS and _has_list(part):
        yield part
        return
    for folder in _folders(part):
        if folder.name in APART:
            yield from _strangers(folder)
        elif part.name != "cases" or _has_list(folder):
            yield folder


def _parts_in(directory: Path) -> set[str]:
    """The names of folders that belong to what lies in a directory."""
    parts: set[str] = set()
    if holds_launches(directory):
        parts |= APART
        parts.add(baseline_in(directory))
        if not has_launches(directory):
            parts.discard("launches")
    if has_launches(directory):
        parts.add("cases")
    if is_demo_pack(directory):
        parts.update(SIDES)
        parts.add("configs")
    return parts


def _has_list(directory: Path) -> bool:
    """Whether a list of launches lies there that this project does not write."""
    return has_any(directory, ("launches.json", "launch.json"))


def _folders(directory: Path) -> list[Path]:
    try:
        return [path for path in sorted(directory.iterdir()) if path.is_dir()]
    except OSError as error:
        raise RecordingError(
            f"{directory} cannot be read: {error.strerror}; make it readable"
        ) from None


def _parts_of(place: Place) -> list[Part]:
    """The case of prompt lengths, and the real prompts, that one directory holds."""
    directory = place.directory
    launches = launches_in(directory)
    if not holds_launches(directory) and not is_demo_pack(directory):
        launches = loose_logs(directory)
    lengths = tuple(each for each in launches if each.record.spec.work == "lengths")
    prompts = tuple(each for each in launches if each.record.spec.work == "prompts")
    found = []
    if lengths:
        found.append(_with_baseline(_named(place, lengths), place.pack))
    if prompts:
        # Launches of a session of this project differ in arm or replicate.
        apart = prompts if has_launches(directory) else _told_apart(prompts)
        found.append(Part(name=CANDIDATE, directory=directory, launches=apart))
    return found


def _named(place: Place, launches: tuple[Recorded, ...]) -> Part:
    """A case of prompt lengths by its directory's name; those of the kit's suites by theirs."""
    directory = place.directory
    part = Part(name=case_name(directory), directory=directory, launches=launches)
    if directory == place.pack:
        return part
    if directory.name in RUNTIME:
        return replace(part, name=RUNTIME[directory.name], suite="runtime")
    if joint := JOINT.fullmatch(directory.name):
        number = int(joint[2])
        return replace(part, name=f"{joint[1]}-{number}", suite="m3", replicate=number)
    if directory.name in CASE_PARTS.values():
        return replace(part, name=directory.name, suite="all_in_one")
    return part


def case_name(directory: Path) -> str:
    """The name of a directory as that of a case: printable, and none that stands for something
    else here.
    """
    name = clean(directory.name) or "recording"
    repeated = name.startswith(("joint_full-", "joint_store-"))
    if name in INTERNAL or name.isdigit() or repeated:
        return f"{name}_recorded"
    return name


def _with_baseline(part: Part, pack: Path) -> Part:
    """The case with the H2O-off launches beside it and as it was compared with them, or with why
    there are none.
    """
    directory = part.directory
    if name := baseline_in(directory):
        baseline = launches_in(directory / name, directory / f"{name}_stdout.log")
        launches = part.launches + tuple(_not_run(part, baseline, name))
        return replace(part, launches=launches, baseline=baseline, defaults=BESIDE)
    if kept := _kept_speed(directory / "summary.md"):
        fixed: Mapping[str, KnobValue] = {"DECODE_BASELINE_MODE": "fixed", "DECODE_BASELINE": kept}
        return replace(part, defaults=fixed)
    if (directory / "bench_stdout.log").is_file() and not (directory / "summary.md").is_file():
        trouble = f"{directory.name} broke off{last_words(directory, pack)}"
        return replace(part, trouble=trouble)
    return part


def _not_run(part: Part, baseline: Sequence[Recorded], name: str) -> Iterator[Recorded]:
    """The launches of a case that only its baseline has; none where not all are known."""
    has: set[str] = set()
    for each in part.launches:
        if not each.labels:
            return
        has.update(each.labels)
    for each in baseline:
        alone = [label for label in each.labels if label not in has]
        if alone:
            reason = f"{part.directory} has no launch of {', '.join(alone)}, which {name} has"
            paths = standard_paths(part.directory)
            record = replace(each.record, status="not_recorded", reason=reason, **paths)
            yield Recorded(record, each.labels)


def _kept_speed(path: Path) -> float | None:
    """The baseline, given or kept of earlier sessions, that the original's summary names."""
    if not path.is_file():
        return None
    with path.open("rb") as file:
        text = file.read(TAIL_BYTES).decode(errors="replace")
    found = re.search(r"^- decode_baseline: ([\d.]+)$", text, re.MULTILINE)
    speed = float(found[1]) if found else 0.0
    return speed if speed > 0 else None


def _demo_part(directory: Path, sides: Sides) -> Part:
    return Part(
        name=CANDIDATE,
        directory=directory,
        launches=_told_apart(sides.candidate),
        baseline=_told_apart(sides.baseline),
        trouble=sides.trouble,
        suite="llm_demo",
        defaults=BESIDE,
    )


def _told_apart(launches: Sequence[Recorded]) -> tuple[Recorded, ...]:
    """Launches of prompts with equal stems get labels of their own."""
    seen: Counter[str] = Counter()
    found = []
    for each in launches:
        stem = each.record.label
        seen[stem] += 1
        found.append(_tagged(each, str(seen[stem])) if seen[stem] > 1 else each)
    return tuple(found)


def _tagged(each: Recorded, tag: str) -> Recorded:
    spec = replace(each.record.spec, tag=tag)
    labels = (spec.label,) if each.labels else ()
    return Recorded(replace(each.record, spec=spec), labels)


def _together(parts: Sequence[Part]) -> Part:
    """The real prompts of all directories as one case; equal names are told apart."""
    if len(parts) == 1:
        return parts[0]
    launches: list[Recorded] = []
    baseline: list[Recorded] = []
    for part in parts:
        launches += part.launches
        baseline += part.baseline
    return replace(
        parts[0],
        launches=_told_apart(launches),
        baseline=_told_apart(baseline),
        trouble="; ".join(part.trouble for part in parts if part.trouble),
    )


def _distinct(parts: Sequence[Part]) -> list[Part]:
    """Parts of one name are told apart by the directory above, or by a number."""
    taken: set[str] = set()
    found: list[Part] = []
    for part in parts:
        name = part.name
        if name in taken:
            # The name of repeated cases is what they begin with.
            name = clean(f"{part.name}.{part.directory.parent.name}")
        number = 2
        while name in taken:
            name = f"{part.name}.{number}"
            number += 1
        taken.add(name)
        found.append(replace(part, name=name))
    return found


def _absent(places: Sequence[Place]) -> list[Part]:
    """The parts that packs of the original kit must have and that are not there."""
    found: list[Part] = []
    for pack in dict.fromkeys(place.pack for place in places):
        inside = [place.directory for place in places if place.directory.is_relative_to(pack)]
        names = {path.name for path in inside}
        beside = {place.directory.name for place in places if place.pack == pack != place.directory}
        is_final = not beside.isdisjoint(RUNTIME)
        is_m3 = is_final or any(map(JOINT.fullmatch, beside))
        if is_final:
            for folder, name in RUNTIME.items():
                found += _missing(pack, folder, name, "runtime", names)
        if is_m3:
            for name in JOINT_CASES:
                found += _missing(pack, f"{name}_run01", f"{name}-1", "m3", names)
        if is_final and not any(map(is_demo_pack, inside)):
            found += _missing(pack, "llm_demo", CANDIDATE, "llm_demo", set())
    return found


def _missing(pack: Path, folder: str, name: str, suite: str, there: Set[str]) -> list[Part]:
    if folder in there:
        return []
    trouble = f"{folder} is missing from {pack}{last_words(pack / folder, pack)}"
    return [Part(name=name, directory=pack / folder, launches=(), suite=suite, trouble=trouble)]


def last_words(directory: Path, pack: Path) -> str:
    """The last line of the console log of a case, else of its pack, as a clause; empty without
    one.
    """
    consoles = [pack / f"{directory.name}.console.log", pack / "console.txt"]
    consoles += sorted(pack.glob("*.console.log"))[-1:]
    for path in consoles:
        if not path.is_file():
            continue
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - TAIL_BYTES))
            said = file.read(TAIL_BYTES).decode(errors="replace").strip()
        if said:
            last = said.splitlines()[-1].strip()
            return f"; the last line of {path.name} is: {clean(last, 80)}"
    return "; no console log tells why"
