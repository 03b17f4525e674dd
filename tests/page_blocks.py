"""The code blocks of README.md and of the pages that ship, for tests that run them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "pytest_h2o" / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md")), ROOT / ".github" / "CONTRIBUTING.md"]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """One fenced block: its language, its text, and the page it is on."""

    page: Path
    language: str
    text: str

    @property
    def file_name(self) -> str:
        """The name in a first line like ``# test_ours.py``; empty if it has none."""
        named = re.match(r"# (\w+\.\w+)\n", self.text)
        return named[1] if named else ""


def blocks(language: str) -> list[Block]:
    """All blocks of a language, page by page."""
    found: list[Block] = []
    for page in PAGES:
        for name, text in FENCE.findall(page.read_text("utf-8")):
            if name == language:
                found.append(Block(page, name, text))
    return found


def file_block(name: str) -> str:
    """The text of the file that a page shows under this name."""
    (text,) = [block.text for block in blocks("python") if block.file_name == name]
    return text
