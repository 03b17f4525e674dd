"""Options of command lines, read without knowing which there are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

# Spellings of one option.
ALIASES = {
    "--model": "-m", "--backends": "-a", "--precision": "-c", "--threads": "-t",
    "--quant-attention": "-qatten", "-qa": "-qatten", "--n-prompt": "-p", "--n-gen": "-n",
    "--n-repeat": "-rep", "--kv-cache": "-kv", "--file-print": "-fp",
}  # fmt: skip
# Lengths are compared by row, since a launch may have several.
LENGTHS = {"-p", "-n", "-pg"}
_MODELS = (".mnn", ".weight", ".bin", ".gguf", ".safetensors", ".model", ".mtok")
_FILES = ("/", "\\", ".json", ".jsonl", ".md", ".log", ".txt", ".mnn")


def options_of(words: Iterable[str]) -> dict[str, str]:
    """The words behind a program by option, a flag with an empty value; words that no option takes
    by their place.
    """
    found: dict[str, str] = {}
    name, place = "", 0
    for word in words:
        if _is_option(word):
            option, equals, value = word.partition("=")
            option = option.replace("_", "-") if option.startswith("--") else option
            option = ALIASES.get(option, option)
            _add(found, option, value)
            name = "" if equals else option
        elif name:
            _add(found, name, word)
            name = ""
        else:
            place += 1
            found[f"argument {place}"] = word
    return found


def _add(found: dict[str, str], option: str, value: str) -> None:
    """Programs add up the lists of an option that is given twice."""
    before = found.get(option, "")
    found[option] = f"{before},{value}" if before and value else before or value


def without_files(options: Mapping[str, str]) -> dict[str, str]:
    """The options whose values name no file: paths differ between launches of the same work. What
    a model is read from counts by its name.
    """
    found: dict[str, str] = {}
    for name, value in options.items():
        if value.lower().endswith(_MODELS):
            found[name] = base_name(value)
        elif not any(mark in value for mark in _FILES):
            found[name] = value
    return found


def plain_path(path: str) -> str:
    """A path as it is written here; those of Windows have backslashes."""
    return path if "/" in path else path.replace("\\", "/")


def is_program(word: str, program: str) -> bool:
    """Whether a word of a command line names a program, or a build of it."""
    name = base_name(word).removesuffix(".exe").replace("-", "_")
    return name.startswith(program) or name.endswith(program)


def base_name(path: str) -> str:
    """The last part of a path of any system."""
    return path.replace("\\", "/").rpartition("/")[2]


def behind_program(argv: Sequence[str], program: str) -> Sequence[str]:
    """The words behind a program's name: those before it belong to whatever starts it."""
    return argv[place_of(argv, program) + 1 :]


def before_program(argv: Sequence[str], program: str) -> Sequence[str]:
    """The words before a program's name: what starts it, and on which cores."""
    return argv[: place_of(argv, program)]


def place_of(argv: Sequence[str], program: str) -> int:
    """Where a program's name stands, at first where none does."""
    return next((at for at, word in enumerate(argv) if is_program(word, program)), 0)


def _is_option(word: str) -> bool:
    return word.startswith("-") and not word.lstrip("-")[:1].isdigit() and word.strip("-") != ""
