"""The code on a page of Markdown."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def fences(page: str) -> list[tuple[str, str]]:
    """Return the blocks of a page, named from the root of the project on, each with what it is written in."""
    return FENCE.findall((ROOT / page).read_text(encoding="utf-8"))


def python_blocks(page: str) -> list[str]:
    """Return the blocks of Python on a page."""
    return [block for kind, block in fences(page) if kind == "python"]
