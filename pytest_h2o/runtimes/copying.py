"""Files for hosts that do not see those of this machine: what a launch reads is copied there once,
what it leaves is fetched, and both are checked by hash.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath, PurePosixPath
from typing import TYPE_CHECKING

from pytest_h2o.runtimes.base import Command, RuntimeSetupError
from pytest_h2o.runtimes.far_shell import without_end
from pytest_h2o.runtimes.launch_config import PATH_FIELDS

if TYPE_CHECKING:
    from pytest_h2o.runtimes.placement import Placement

LIBRARIES = ("*.so", "*.so.*", "*/*.so", "*/*.so.*")
COPY_S = 3600.0
# Options of ssh that scp knows by the same name; those with a value, and those without.
SAME_VALUED = frozenset("FioJc")
VALUED = SAME_VALUED | frozenset("BbDEeILlmOpQRSWw")
SAME = frozenset("46Cqv")
SOURCE, TARGET = "{source}", "{target}"
# Prints the hashes of all files below a directory, if it is there.
LOOK_BELOW = """[ ! -d "$1" ] || find "$1" -type f -exec sha256sum {} +"""
# Makes the directories before --, and prints the hashes of the files behind it that are there.
LOOK = """while [ "$1" != -- ]; do mkdir -p "$1" || exit; shift; done; shift
for name; do if [ -f "$name" ]; then sha256sum "$name" || exit; fi; done"""


class CopyError(Exception):
    """A file could not be copied; the message says which and why."""


@dataclass(frozen=True)
class Carrier:
    """The words in front of source and target, or with ``{source}`` and ``{target}`` among them,
    and what stands before a path on the host.

    Without ``pull`` the directories of launches are shared. ``pull_all`` copies a directory.
    ``folders`` makes directories where one copy goes to several hosts.
    """

    push: tuple[str, ...]
    pull: tuple[str, ...] = ()
    pull_all: tuple[str, ...] = ()
    prefix: str = ""
    folders: tuple[str, ...] = ()

    def to_host(self, here: Path, there: str) -> tuple[str, ...]:
        """What copies a file to the host."""
        return _filled(self.push, str(here), f"{self.prefix}{there}")

    def to_here(self, there: str, here: Path) -> tuple[str, ...]:
        """What copies a file from the host."""
        return _filled(self.pull, f"{self.prefix}{there}", str(here))

    def all_to_here(self, there: str, here: Path) -> tuple[str, ...]:
        """What copies a directory from the host into one that is here."""
        return _filled(self.pull_all, f"{self.prefix}{there}", str(here))


def _filled(words: Sequence[str], source: str, target: str) -> tuple[str, ...]:
    if not any(SOURCE in word for word in words):
        return (*words, source, target)
    return tuple(word.replace(SOURCE, source).replace(TARGET, target) for word in words)


def carrier_of(launcher: Sequence[str]) -> Carrier:
    """What copies where a launcher launches; raises :class:`RuntimeSetupError` for one that nothing
    is known of.
    """
    program = PurePath(launcher[0]).name
    if program == "ssh":
        words = ("scp", "-p", *_scp_options(launcher[1:-1]))
        return Carrier(words, words, (*words, "-r"), f"{launcher[-1]}:")
    if program == "adb" and launcher[-1] == "shell":
        words = tuple(launcher[:-1])
        return Carrier((*words, "push"), (*words, "pull"), (*words, "pull"))
    if program == "srun":
        if "SLURM_JOB_ID" not in os.environ:
            raise RuntimeSetupError(
                "H2O_COPY with srun: sbcast copies within an allocation; start pytest in salloc, "
                "or leave H2O_COPY out where the nodes share a file system"
            )
        every_node = ("srun", "--overlap", "--ntasks-per-node=1", "mkdir", "-p")
        return Carrier(("sbcast", "-f", "-p"), folders=every_node)
    raise RuntimeSetupError(
        f"H2O_COPY: how {program} copies is not known; give a launcher that begins with ssh and "
        f"ends with the host, adb -s {{host}} shell or srun, or say how with H2O_COPY_TO and "
        f"H2O_COPY_FROM"
    )


def _scp_options(words: Sequence[str]) -> list[str]:
    """The options of ssh as scp takes them: the port has another name, and most others none."""
    found: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        name, value = word[1:2], word[2:]
        if name in VALUED and not value and rest:
            value = rest.pop(0)
        if name == "p":
            found += ["-P", value]
        elif name == "l":
            found += ["-o", f"User={value}"]
        elif name in SAME_VALUED:
            found += [f"-{name}", value]
        elif name in SAME:
            found.append(word)
    return found


def far(path: Path | str, root: str) -> str:
    """Where a path of this machine is on a host that has copies below ``root``."""
    return str(PurePosixPath(root) / os.path.normpath(path).lstrip("/"))


def moved(command: Command, root: str, *, shares_launches: bool) -> Command:
    """``command`` as a host runs it that has copies below ``root``; what it reads is named in
    ``carried``. The directory of the launch is another there too, unless it is shared.
    """
    directory = str(command.cwd or Path("/"))
    there = directory if shares_launches else far(directory, root)
    carried = [Path(word) for word in command.argv if _is_input(word, directory)]
    if not shares_launches:
        carried += [command.config_path, *command.texts]
    words = []
    for word in command.argv:
        changed = word.replace(directory, there)
        words.append(far(word, root) if _is_input(word, directory) else changed)
    env = {name: text.replace(directory, there) for name, text in command.env.items()}
    libraries = _libraries(Path(command.argv[0]).parent)
    if libraries:
        folders = dict.fromkeys(far(path.parent, root) for path in libraries)
        env.setdefault("LD_LIBRARY_PATH", ":".join(folders))
    config = dict(command.config)
    base_dir = config.get("base_dir")
    if isinstance(base_dir, str) and (model := _model(config, Path(base_dir))):
        carried += model
        config["base_dir"] = far(base_dir, root) + "/"
    return replace(
        command, argv=tuple(words), env=env, cwd=Path(there), config=config,
        carried=(*carried, *libraries),
    )  # fmt: skip


def _is_input(word: str, directory: str) -> bool:
    path = Path(word)
    return path.is_absolute() and path.is_file() and not path.is_relative_to(directory)


def _libraries(folder: Path) -> list[Path]:
    found = {path for pattern in LIBRARIES for path in folder.glob(pattern) if path.is_file()}
    return sorted(found)


def _model(config: Mapping[str, object], base_dir: Path) -> list[Path]:
    """The model files that are there, whether the config names them or leaves the usual name."""
    found = []
    for name, usual in PATH_FIELDS.items():
        path = base_dir / str(config.get(name) or usual)
        if path.is_file():
            found.append(path)
    return found


@dataclass(frozen=True)
class Courier:
    """Copies to one host and back.

    ``ledger`` is a file that says what is there already, shared by all processes of a session.
    """

    placement: Placement
    root: str
    ledger: Path

    def carry(self, command: Command) -> None:
        """Bring what a launch reads; raises :class:`CopyError`."""
        known = self._known()
        carried = dict.fromkeys(command.carried)
        new = [path for path in carried if known.get(str(path)) != _stamp(path)]
        wanted = {path: far(path, self.root) for path in new}
        parents = [str(PurePosixPath(target).parent) for target in wanted.values()]
        folders = list(dict.fromkeys([*parents, str(command.cwd)]))
        carrier = self.placement.carrier()
        if carrier.folders and new:
            self._copy(*carrier.folders, *folders)
        there = self._look(wanted.values(), folders)
        hashes = {path: sha256(path) for path in wanted}
        missing = [path for path in wanted if there.get(wanted[path]) != hashes[path]]
        for path in missing:
            self._copy(*carrier.to_host(path, wanted[path]))
        there = self._look([wanted[path] for path in missing])
        for path in missing:
            if there.get(wanted[path]) != hashes[path]:
                raise CopyError(f"the copy of {path} in {wanted[path]} is not the file")
        known |= {str(path): _stamp(path) for path in new}
        self.ledger.write_text(json.dumps(known), "utf-8")

    def fetch(self, command: Command) -> None:
        """Get what a launch left, as far as it is there; raises :class:`CopyError`."""
        carrier = self.placement.carrier()
        named = [path for path in (command.table, command.metrics, *command.files) if path]
        if not carrier.pull:
            return
        left = {far(path, self.root): path for path in named}
        hashes: dict[Path, str] = {}
        for target, digest in self._look(left).items():
            if target in left:  # a host may greet
                self._copy(*carrier.to_here(target, left[target]))
                hashes[left[target]] = digest
        for folder in command.folders:
            hashes |= self._fetch_folder(folder)
        for path, digest in hashes.items():
            if not path.is_file() or sha256(path) != digest:
                raise CopyError(f"{path} changed on the way from the host")

    def _fetch_folder(self, folder: Path) -> dict[Path, str]:
        """Get a directory, if there is a file in it; the hashes that its files have there."""
        target = far(folder, self.root)
        found: dict[Path, str] = {}
        for name, digest in self._hashes("sh", "-c", LOOK_BELOW, "sh", target).items():
            below = PurePosixPath(name)
            if below.is_relative_to(target) and ".." not in below.parts:
                found[folder / below.relative_to(target)] = digest
        if found:
            self._copy(*self.placement.carrier().all_to_here(target, folder.parent))
        return found

    def _look(self, files: Iterable[str], folders: Iterable[str] = ()) -> dict[str, str]:
        """The hashes of the files that are there, by path."""
        return self._hashes("sh", "-c", LOOK, "sh", *folders, "--", *files)

    def _hashes(self, *words: str) -> dict[str, str]:
        """The hashes that a command prints on the host, by path."""
        plain = Command(argv=words, env={}, cwd=Path("/"), config_path=Path(), config={})
        found = {}
        for line in self._copy(*self.placement.apply(plain).argv).splitlines():
            digest, _, path = line.partition("  ")
            found[path.rstrip("\r")] = digest
        return found

    def _copy(self, *words: str) -> str:
        """Run a command to its end; what it printed."""
        try:
            done = subprocess.run(
                words, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=COPY_S,
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired) as error:
            raise CopyError(f"{words[0]} could not copy: {error}") from None
        if done.returncode:
            said = without_end(done.stderr).decode(errors="replace").strip().splitlines()
            last = said[-1][:200] if said else "it said nothing"
            raise CopyError(f"{words[0]} failed with exit code {done.returncode}: {last}")
        return done.stdout.decode(errors="replace")

    def _known(self) -> dict[str, list[int]]:
        try:
            return dict(json.loads(self.ledger.read_bytes()))
        except (OSError, ValueError, TypeError):
            return {}


def _stamp(path: Path) -> list[int]:
    found = path.stat()
    return [found.st_size, found.st_mtime_ns]


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
