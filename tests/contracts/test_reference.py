"""The API reference has all packages; `make docs` fails on a public name of theirs that is on no page."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = (ROOT, ROOT / "backends", ROOT / "integrations")
PACKAGES = sorted(found.parent.name for folder in FOLDERS for found in folder.glob("iwp_*/__init__.py"))
FACADES = ("iwp_core.kernels", "iwp_core.methods", "iwp_core.presets", "iwp_core.testing", "iwp_torch.compiling")
FACADES += ("iwp_transformers.families", "iwp_transformers.methods", "iwp_transformers.presets")
# The site is built where no engine is installed, so these are described on pages of their own, in words.
IN_WORDS = {"iwp_vllm": "vllm.md", "iwp_lmms_eval": "evaluation.md", "iwp_cli": "start/models.md"}


@pytest.mark.parametrize("name", sorted({*PACKAGES, *FACADES} - set(IN_WORDS)))
def test_reference_has_a_place_for_every_package(name: str) -> None:
    """A package that is added without a page is noticed here."""
    pages = "\n".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs" / "api").glob("*.md"))

    assert re.search(rf"^\.\. automodule:: {re.escape(name)}$", pages, flags=re.MULTILINE)


@pytest.mark.parametrize("name", sorted(set(PACKAGES) & set(IN_WORDS)))
def test_a_package_of_an_engine_has_a_page_of_its_own(name: str) -> None:
    """Where it cannot be imported for the reference, words say what it does."""
    assert (ROOT / "docs" / IN_WORDS[name]).is_file()
