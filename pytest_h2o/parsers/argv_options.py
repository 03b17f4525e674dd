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
    """The options whose values name no file: paths differ between launches of the same work."""
    return {
        name: value for name, value in options.items() if not any(mark in value for mark in _FILES)
    }


def behind_program(argv: Sequence[str], program: str) -> Sequence[str]:
    """The words behind a program's name: those before it belong to whatever starts it."""
    for at, word in enumerate(argv):
        name = word.replace("\\", "/").rpartition("/")[2]
        if name.startswith(program) or name.replace("-", "_").endswith(program):
            return argv[at + 1 :]
    return argv[1:]


def _is_option(word: str) -> bool:
    return word.startswith("-") and not word.lstrip("-")[:1].isdigit() and word.strip("-") != ""
