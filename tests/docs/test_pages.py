"""The code of README and of the site runs as it is pasted, and prints what the page says."""

from __future__ import annotations

import contextlib
import io
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.pages import ROOT, fences

PASTED = (
    "README.md",
    "docs/choosing.md",
    "docs/start/arrays.md",
    "docs/start/models.md",
    "docs/start/methods.md",
    "docs/extending/backend.md",
    "docs/extending/family.md",
    "docs/extending/method.md",
    "docs/extending/selector.md",
    "docs/extending/strategy.md",
)
# What these show needs an engine with real weights behind it; tests of the engine cover what they call.
NOT_RUN = {"vllm.md", "ray.md", "scale.md"}
PRINTED = ("text", "output")
NEEDED = ("torch", "transformers", "sklearn", "matplotlib")


def _comparable(text: str, kind: str) -> str:
    """Take the numbers out of what a model answers: another processor may round otherwise."""
    return text if kind == "text" else re.sub(r"[\d.]+", "0", text)


@pytest.mark.skipif(any(find_spec(name) is None for name in NEEDED), reason=f"pages need {', '.join(NEEDED)}")
@pytest.mark.parametrize("page", PASTED)
def test_a_page_runs_from_top_to_bottom(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is defined but by the page itself; blocks say what the code before prints (`output`: save numbers)."""
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "__main__"}
    printed = io.StringIO()
    ran = 0

    for kind, block in fences(page):
        if kind == "python":
            with contextlib.redirect_stdout(printed):
                exec(compile(block, page, "exec"), names)  # the examples are the thing tested
            ran += 1
        elif ran and kind in PRINTED:
            assert _comparable(printed.getvalue(), kind) == _comparable(block, kind)
            printed = io.StringIO()

    assert ran
    assert page == "README.md" or printed.getvalue() == ""


def test_no_page_has_code_that_no_test_runs() -> None:
    """A page with Python is listed above, or named by a test of its own."""
    files = [path for path in (ROOT / "tests").rglob("*.py") if path.name not in {"test_pages.py", "test_reference.py"}]
    tests = "\n".join([*PASTED, *(path.read_text(encoding="utf-8") for path in files)])
    pages = [path for path in (ROOT / "docs").rglob("*.md") if "```python" in path.read_text(encoding="utf-8")]

    unnamed = [
        str(page.relative_to(ROOT))
        for page in pages
        if page.parent.name != "methods" and page.name not in NOT_RUN and page.name not in tests
    ]

    assert unnamed == []


def test_readme_is_short() -> None:
    """Under 900 words; everything else stands on the site."""
    assert len((ROOT / "README.md").read_text(encoding="utf-8").split()) < 900
