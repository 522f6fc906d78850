"""The pages of docs/methods: what they say of a method is what the registry says, and their examples run."""

import re
from typing import Any

import pytest
from torch import nn

from iwp_transformers.methods import METHODS, method_class
from tests.integrations.prompts import PAIR
from tests.integrations.tiny_models import FACTORIES, make_inputs
from tests.pages import ROOT, python_blocks

PAGES = ROOT / "docs" / "methods"
REFERENCE = ROOT / "docs" / "api" / "model_methods.md"
PARTS = ["Idea", "Formula", "Cost", "Deviations", "Example", "Where it wins here"]


@pytest.fixture(scope="module")
def model() -> nn.Module:
    """Return a miniature that is deep enough for every published layer."""
    return FACTORIES["llava-onevision"](num_hidden_layers=8)


def test_every_method_has_a_page() -> None:
    """And no page is left of a method that is gone."""
    named = {page.stem for page in PAGES.glob("*.md")} - {"README", "evidence"}

    assert named == set(METHODS)


def test_the_reference_has_the_class_of_every_method() -> None:
    """Its options are described there."""
    listed = re.findall(
        r"^\.\. autoclass:: iwp_transformers\.methods\.(\S+)$", REFERENCE.read_text(), flags=re.MULTILINE
    )

    assert sorted(listed) == sorted(METHODS.values())


@pytest.mark.parametrize("name", METHODS)
def test_a_page_says_what_the_registry_says(name: str) -> None:
    """Paper, what it reads, where it acts; and it has all parts of the template, in order."""
    text, method = (PAGES / f"{name}.md").read_text(), method_class(name)
    rows = dict(re.findall(r"^\| ([^|]+?) \| (.+) \|$", text, flags=re.MULTILINE))

    assert rows["name"] == f"`{name}`"
    assert rows["reads"] == ", ".join(method.reads)
    assert rows["acts"] == f"{method.acts}: {method.published_layers()}"
    assert rows["FlashAttention stays possible"] == ("yes" if method.flash else "no")
    assert method.paper is None or f"[arXiv {method.paper.arxiv}]" in rows["paper"]
    assert re.findall(r"^\*\*([\w ]+)\.\*\*", text, flags=re.MULTILINE) == PARTS


@pytest.mark.parametrize("name", [*METHODS, "README"])
def test_the_example_of_a_page_runs(model: nn.Module, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """On a miniature, with a report at its end."""
    (code,) = python_blocks(f"docs/methods/{name}.md")
    names: dict[str, Any] = {"model": model, "inputs": make_inputs(model, PAIR)}

    exec(code, names)

    assert capsys.readouterr().out.startswith("visual tokens")
    assert names["session"].records[-1].kept
