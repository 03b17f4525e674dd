"""How densely the code is written: per package, expressions that a reader has to unfold.

``python tests/density.py [--files] [PATH...]`` prints, per thousand lines, conditional expressions,
comprehensions (generator expressions too) and star-unpackings of the Python files under each PATH
(the package ``pytest_h2o`` and ``gates`` unless others are given), a line for each folder, or for
each file.
"""

from __future__ import annotations

import argparse
import ast
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
KINDS = ("conditionals", "comprehensions", "stars")
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


def count(source: str) -> Counter[str]:
    """Lines of a module and how often each kind of dense expression occurs in it."""
    counts = Counter(lines=len(source.splitlines()))
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.IfExp):
            counts["conditionals"] += 1
        elif isinstance(node, COMPREHENSIONS):
            counts["comprehensions"] += 1
        else:
            counts["stars"] += stars(node)
    return counts


def stars(node: ast.AST) -> int:
    """Values that ``node`` itself unpacks: ``*x`` in a call or display, ``**x`` likewise."""
    if isinstance(node, ast.Starred):
        return int(isinstance(node.ctx, ast.Load))
    if isinstance(node, ast.Dict):
        return node.keys.count(None)
    if isinstance(node, ast.Call):
        return sum(keyword.arg is None for keyword in node.keywords)
    return 0


def counted(paths: Sequence[Path], by_file: bool) -> Iterator[tuple[Path, Counter[str]]]:
    """Counts of each module, or of each folder that holds some, subfolders apart, in order."""
    totals: defaultdict[Path, Counter[str]] = defaultdict(Counter)
    for path in paths:
        modules = path.rglob("*.py") if path.is_dir() else [path]
        for module in modules:
            place = module if by_file else module.parent
            totals[place].update(count(module.read_text("utf-8")))
    yield from sorted(totals.items())


def row(name: str, counts: Counter[str]) -> str:
    """One line of the table."""
    lines = counts["lines"]
    cells = [f"{name:40} {lines:6}"]
    for kind in KINDS:
        cells.append(f"{1000 * counts[kind] / max(1, lines):14.1f}")
    return " ".join(cells)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("paths", nargs="*", type=Path, metavar="PATH")
    parser.add_argument("--files", action="store_true", help="a line for each file")
    options = parser.parse_args()
    paths = [path.resolve() for path in options.paths]
    total: Counter[str] = Counter()
    print(f"{'place':40} {'lines':>6} {'conditionals':>14} {'comprehensions':>14} {'stars':>14}")
    for place, counts in counted(paths or [ROOT / "pytest_h2o", ROOT / "gates"], options.files):
        name = place.relative_to(ROOT) if place.is_relative_to(ROOT) else place
        print(row(str(name), counts))
        total.update(counts)
    print(row("all", total))


if __name__ == "__main__":
    main()
