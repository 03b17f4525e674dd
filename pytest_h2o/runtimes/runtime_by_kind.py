"""Programs, models and prompts that are in other places on each kind of host."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from hashlib import sha256
from pathlib import Path

from pytest_h2o.plan.seats import by_kind, kind_of
from pytest_h2o.plan.specs import LaunchSpec
from pytest_h2o.runtimes.base import AroundRuntime, Command, Runtime, RuntimeSetupError

# Seconds within which a host says what it has; one that does not is lost later, if at all.
ANSWER_S = 20.0
# Size and time of each file before --, and the hash of each behind it.
ANSWER, ABSENT = "h2o-file", "absent"
LOOK_AT = f"""while [ "$1" != -- ]; do
if [ -f "$1" ]; then echo {ANSWER} $(stat -c %s-%Y "$1"); else echo {ANSWER} {ABSENT}; fi
shift; done; shift
for name; do echo {ANSWER} $(sha256sum <"$name"); done"""


@dataclass(frozen=True)
class RuntimeByKind(AroundRuntime):
    """A runtime for each kind of host, the first of which says what they have in common.

    ``prompts`` are the directories with the prompts of ``prompt_dir`` on the hosts, by kind; the
    others read those of this machine.
    """

    kinds: Mapping[str, Runtime]
    prompts: Mapping[str, Path] = field(default_factory=dict)
    prompt_dir: Path = Path()

    def describe(self) -> str:
        """What each kind has, behind the name that they share."""
        parts = []
        for kind, runtime in self.kinds.items():
            _, _, has = runtime.describe().partition(": ")
            parts.append(f"{kind} {has}")
        return f"{self.name}: {'; '.join(parts)}"

    def check(self) -> None:
        """Raise :class:`RuntimeSetupError` if one of them cannot be used."""
        for kind, runtime in self.kinds.items():
            try:
                runtime.check()
            except RuntimeSetupError as error:
                raise RuntimeSetupError(f"hosts of the kind {kind}: {error}") from error

    def fingerprint(self) -> dict[str, str]:
        """The hashes of all."""
        hashes: dict[str, str] = {}
        for kind, runtime in self.kinds.items():
            for name, digest in runtime.fingerprint().items():
                hashes[f"{kind} {name}"] = digest
        return hashes

    def command(self, spec: LaunchSpec, directory: Path) -> Command:
        """The command of the kind that ``spec`` is planned on; its prompt is where it is there."""
        kind = kind_of(spec.seat)
        if kind not in self.kinds:
            named = ", ".join(self.kinds)
            raise RuntimeSetupError(
                f"programs are named for the kinds {named}, and there is a launch on "
                f"{kind or 'hosts without a kind'}; name them there as well"
            )
        command = self.kinds[kind].command(spec, directory)
        there = self._prompt(spec.prompt_file, kind)
        if not there:
            return command
        words = [there if word == str(spec.prompt_file) else word for word in command.argv]
        return replace(command, argv=tuple(words))

    def _prompt(self, path: Path | None, kind: str) -> str:
        """Where a prompt is on hosts of a kind; empty if not in a directory of their own."""
        if not path or kind not in self.prompts or not path.is_relative_to(self.prompt_dir):
            return ""
        return str(self.prompts[kind] / path.relative_to(self.prompt_dir))

    def expected(self, kind: str) -> tuple[dict[str, Path], dict[str, str]]:
        """The files that hosts of a kind have and this machine has not: programs and model files by
        name, and the hashes of prompts by path.
        """
        hashes: dict[str, str] = {}
        if kind in self.prompts and not self.prompts[kind].is_dir():
            for path in sorted(self.prompt_dir.glob("*.txt")):
                hashes[self._prompt(path, kind)] = sha256(path.read_bytes()).hexdigest()
        return dict(self.kinds[kind].elsewhere), hashes


@lru_cache
def answers(probe: tuple[str, ...]) -> tuple[str, ...]:
    """What a host says, once a process, of each file that it is asked for; nothing from one that
    does not answer.
    """
    try:
        asked = subprocess.run(
            probe, stdin=subprocess.DEVNULL, capture_output=True, check=True, timeout=ANSWER_S
        )
    except (OSError, subprocess.SubprocessError):
        return ()
    lines = asked.stdout.decode(errors="replace").splitlines()
    # A host may greet.
    return tuple(line.removeprefix(ANSWER).strip() for line in lines if line.startswith(ANSWER))


def problems_there(
    files: Mapping[str, Path], hashes: Mapping[str, str], said: Sequence[str]
) -> Iterator[str]:
    """What is not on a host as it should be, by what it said."""
    for (name, file), found in zip(files.items(), said, strict=False):
        if found == ABSENT:
            yield f"{name} {file} is neither on this machine nor there"
    for (path, digest), found in zip(hashes.items(), said[len(files) :], strict=False):
        if digest not in found:
            yield f"the prompt {path} is not there, or not the one of this machine"


def asking(files: Mapping[str, Path], hashes: Mapping[str, str]) -> tuple[str, ...]:
    """The words that ask a host for some files."""
    return ("sh", "-c", LOOK_AT, "sh", *map(str, files.values()), "--", *hashes)


def kinds_in(texts: Mapping[str, str]) -> Sequence[str]:
    """The kinds of hosts for which any of some settings, by name, gives values."""
    found: dict[str, None] = {}
    for name, text in texts.items():
        found |= dict.fromkeys(by_kind(name.upper(), text))
    found.pop("", None)
    return list(found)
