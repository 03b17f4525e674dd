"""Build the training text from freely licensed documentation packages.

Sources (Debian 12 packages, unpacked with ``dpkg-deb -x``): the Python 3.11 documentation (PSF-2.0
/ 0BSD), the PostgreSQL 15 documentation (PostgreSQL Licence), the Django 3.2 documentation
(BSD-3-Clause) and the Jargon File (public domain). ``MODEL_CARD.md`` beside the weights records
versions, sizes and licences.

Usage::

    apt-get download python3.11-doc postgresql-doc-15 python-django-doc jargon-text
    for d in *.deb; do dpkg-deb -x "$d" unpacked; done
    python -m pytest_h2o.engine.training.make_corpus unpacked corpus
"""

from __future__ import annotations

import gzip
import hashlib
import re
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

HTML_ROOTS = {
    "python": "usr/share/doc/python3.11/html",
    "postgresql": "usr/share/doc/postgresql-doc-15/html",
    "django": "usr/share/doc/python-django-doc/html",
}
JARGON = "usr/share/doc/jargon-text/jargon.txt.gz"
# Indexes and change logs are lists of names, not prose; they would dominate by size.
SKIPPED = re.compile(
    r"genindex|py-modindex|changelog|search\.html|release-|releases/|bookindex|contents\.html|features-sql|_modules/"
)
BLOCK_TAGS = {
    "p",
    "div",
    "li",
    "ul",
    "ol",
    "dl",
    "dt",
    "dd",
    "tr",
    "table",
    "pre",
    "section",
    "br",
    "h1",
    "h2",
    "h3",
    "h4",
    "h5",
}
DROPPED_TAGS = {"script", "style", "nav", "head", "footer"}
DROPPED_CLASSES = {
    "related",
    "sphinxsidebar",
    "headerlink",
    "navheader",
    "navfooter",
    "toc",
    "footer",
    "mobile-nav",
    "clearer",
}
VOID_TAGS = {"br", "hr", "img", "input", "link", "meta", "col", "wbr", "area", "base"}
PAGE_FURNITURE = re.compile(
    r"Django 3\.2\S* documentation\s+Home \|[^\n]*\n|^« previous \| up \| next »$|^« "
    r"previous.*next »$",
    re.MULTILINE,
)
HELD_OUT_SHARE = 40
SHIPPED_SLICE_BYTES = 48_000


class TextExtractor(HTMLParser):
    """Collect readable text; ``<pre>`` keeps its layout, navigation is dropped."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self.dropped_depth = 0
        self.pre_depth = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in VOID_TAGS:
            if tag == "br":
                self.parts.append("\n")
            return
        classes = set((dict(attrs).get("class") or "").split())
        if self.dropped_depth or tag in DROPPED_TAGS or classes & DROPPED_CLASSES:
            self.dropped_depth += 1
        elif tag == "pre":
            self.pre_depth += 1
        if tag in BLOCK_TAGS:
            self.parts.append("\n")

    def handle_endtag(self, tag: str) -> None:
        if tag in VOID_TAGS:
            return
        if self.dropped_depth:
            self.dropped_depth -= 1
        elif tag == "pre":
            self.pre_depth = max(0, self.pre_depth - 1)
        if tag in BLOCK_TAGS:
            self.parts.append("\n")

    def handle_data(self, data: str) -> None:
        if not self.dropped_depth:
            self.parts.append(data if self.pre_depth else re.sub(r"\s+", " ", data))


def html_to_text(html: str) -> str:
    """Plain text of an HTML page, blank lines folded."""
    extractor = TextExtractor()
    extractor.feed(html)
    text = PAGE_FURNITURE.sub("", "".join(extractor.parts).replace("\u00b6", ""))
    text = re.sub(r"[ \t]+\n", "\n", text)
    text = re.sub(r"\n ", "\n", text)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def documents(root: Path) -> Iterator[tuple[str, str]]:
    """Yield ``(name, text)`` for every source page below ``root``, in a stable order."""
    for source, folder in HTML_ROOTS.items():
        base = root / folder
        if not base.is_dir():
            raise FileNotFoundError(
                f"{base}: not there; unpack the packages named in this module's docstring"
            )
        for path in sorted(base.rglob("*.html")):
            name = f"{source}/{path.relative_to(base).as_posix()}"
            if not SKIPPED.search(name):
                yield name, html_to_text(path.read_text("utf-8", "replace"))
    jargon = gzip.decompress((root / JARGON).read_bytes()).decode("latin-1").replace("\r", "")
    for index, entry in enumerate(re.split(r"\n{2,}(?=:)", jargon)):
        yield f"jargon/{index}", entry.strip() + "\n"


def is_held_out(name: str) -> bool:
    """A fixed 1 in 40 of the documents, chosen by name so that a rebuild keeps the split."""
    return int(hashlib.sha256(name.encode()).hexdigest(), 16) % HELD_OUT_SHARE == 0


def build(root: Path, out: Path) -> None:
    """Write ``train.txt``, ``valid.txt`` (documents separated by NUL) and the ``heldout.txt`` slice
    that ships.
    """
    out.mkdir(parents=True, exist_ok=True)
    train: list[str] = []
    valid: list[str] = []
    seen: set[str] = set()
    for name, text in documents(root):
        digest = hashlib.sha256(text.encode()).hexdigest()
        if len(text) > 200 and digest not in seen:
            seen.add(digest)
            (valid if is_held_out(name) else train).append(text)
    (out / "train.txt").write_text("\0".join(train), "utf-8")
    (out / "valid.txt").write_text("\0".join(valid), "utf-8")
    long_enough = [text for text in valid if 4_000 < len(text) < 30_000]
    joined = "\n".join(long_enough)[:SHIPPED_SLICE_BYTES]
    (out / "heldout.txt").write_text(joined[: joined.rindex("\n") + 1], "utf-8")
    print(f"train {len(train)} documents, {sum(map(len, train))} characters")
    print(f"valid {len(valid)} documents, {sum(map(len, valid))} characters")


if __name__ == "__main__":
    build(Path(sys.argv[1]), Path(sys.argv[2]))
