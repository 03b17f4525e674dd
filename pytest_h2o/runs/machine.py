"""Which machine this is."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path


def machine() -> str:
    """The machine in words that stay the same from boot to boot: system, architecture, processor,
    cores, memory.
    """
    return ", ".join(
        [
            platform.system(),
            platform.machine(),
            *_processor(),
            f"{os.cpu_count()} cores",
            *_memory(),
        ]
    )


def _processor() -> list[str]:
    found = re.search(r"^model name\s*:\s*(.+)$", _read("/proc/cpuinfo"), re.MULTILINE)
    return [found[1].strip()] if found else []


def _memory() -> list[str]:
    found = re.search(r"^MemTotal:\s*(\d+) kB$", _read("/proc/meminfo"), re.MULTILINE)
    return [f"{round(int(found[1]) / 2**20)} GiB"] if found else []


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
