"""Methods by name: what there is, what it excludes, and what each says of itself."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from iwp_core import TopK
from iwp_core import methods as core_methods
from iwp_transformers import LayerView, prune_visual_tokens
from iwp_transformers import methods as model_methods
from iwp_transformers.methods import METHODS, Method, method_class, method_named
from iwp_transformers.methods.dart import DART
from iwp_transformers.methods.fastv_balanced import FastVBalanced
from iwp_transformers.methods.fastv_window import FastVWindow
from iwp_transformers.methods.iwp import IWP
from iwp_transformers.methods.random_tokens import Random
from iwp_transformers.methods.sparsevlm import SparseVLM
from iwp_transformers.methods.trimtokenator import TrimTokenator
from tests.integrations.methods.readings import CASES, asked_of
from tests.integrations.oracle import positioned, sample_of
from tests.integrations.prompts import PAIR, first_ones
from tests.integrations.tiny_models import FACTORIES, Image, make_inputs


@pytest.fixture(scope="module")
def model() -> nn.Module:
    """Return one miniature for all tests of this file."""
    return FACTORIES["llava-onevision"]()


def kept_by(model: nn.Module, inputs: dict[str, Any], **options: Any) -> list[list[int]]:
    """Return the indices that each sample keeps in one forward."""
    with prune_visual_tokens(model, **options) as session, torch.no_grad():
        model(**positioned(model, inputs))
    return [kept.tolist() for kept in session.records[-1].kept_indices]


@pytest.mark.parametrize("name", METHODS)
def test_a_method_says_what_it_is(name: str) -> None:
    """Name, paper, what it reads and where it acts; an arXiv number is from the year of the paper."""
    found = method_class(name)

    assert found.name == name
    assert found.reads
    assert found.acts
    assert found.paper is None or re.fullmatch(r"\d{4}\.\d{5}", found.paper.arxiv)
    assert found.paper is None or found.paper.year in (2000 + int(found.paper.arxiv[:2]), 2025)


def test_naming_a_method_imports_no_other() -> None:
    """Each file is imported when its method is asked for."""
    code = (
        "import sys, tests.integrations; from iwp_transformers.methods import method_named; method_named('divprune');"
        "print([name.split('.')[-1] for name in sys.modules if name.startswith('iwp_transformers.methods.')])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert sorted(eval(ran.stdout)) == ["_method", "divprune"]


def test_an_unknown_name_is_a_value_error_that_lists_all(model: nn.Module) -> None:
    """Whoever misspells a method sees them."""
    with pytest.raises(ValueError, match=r"`method` is 'fastvv', expected one of iwp, random, .*dart"):
        prune_visual_tokens(model, method="fastvv", budget=0.5)


@pytest.mark.parametrize("method", [3, first_ones, Random], ids=["a number", "a function", "a class"])
def test_what_is_no_method_is_a_type_error(model: nn.Module, method: Any) -> None:
    """A rule of one's own is a `selector`."""
    with pytest.raises(
        TypeError, match=r"`method` is .* expected a name or a `Method`; any other rule is a `selector`"
    ):
        prune_visual_tokens(model, method=method, budget=0.5)


@pytest.mark.parametrize(
    "options",
    [
        {"strategy": TopK()},
        {"magnitude": "key_norm"},
        {"similarity": "value"},
        {"heads": "max"},
        {"query": "image"},
        {"rope_in_magnitude": True},
        {"selector": first_ones},
        {"selector": first_ones, "heads": "max"},
    ],
    ids=" and ".join,
)
@pytest.mark.parametrize("method", ["divprune", "iwp", Random()], ids=str)
def test_a_method_excludes_what_describes_another_rule(model: nn.Module, method: Any, options: dict[str, Any]) -> None:
    """The message names each of them."""
    with pytest.raises(ValueError, match=r"`method` are given") as error:
        prune_visual_tokens(model, method=method, budget=0.5, **options)

    assert all(f"`{name}`" in str(error.value) for name in options)


def test_the_papers_rule_is_a_method_with_its_options(model: nn.Module) -> None:
    """By name, as an object, and by the arguments of old it keeps the same."""
    inputs = make_inputs(model, PAIR)
    plain = kept_by(model, inputs, budget=0.3, layer=2)
    options = {"magnitude": "key_norm", "query": "image"}
    other = kept_by(model, inputs, budget=0.3, layer=2, **options)

    assert kept_by(model, inputs, budget=0.3, layer=2, method="iwp") == plain
    assert kept_by(model, inputs, budget=0.3, layer=2, method=IWP(**options)) == other
    assert plain != other


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: Random(seed=-1), ValueError),
        (lambda: Random(seed=0.5), TypeError),
        (lambda: FastVWindow(window=0), ValueError),
        (lambda: FastVBalanced(balance=2.0), ValueError),
        (lambda: TrimTokenator(alignment="l3"), ValueError),
        (lambda: TrimTokenator(share=-1.0), ValueError),
        (lambda: SparseVLM(version=3), ValueError),
        (lambda: SparseVLM(base=0.0), ValueError),
        (lambda: SparseVLM(recycling=1), TypeError),  # type: ignore[arg-type]  # on purpose
        (lambda: DART(image_pivots=0), ValueError),
        (lambda: DART(text_pivots=True), TypeError),
        (lambda: IWP(heads="none"), ValueError),
    ],
)
def test_an_option_out_of_range_is_refused_where_it_is_given(make: Any, error: type[Exception]) -> None:
    """And not in the first forward."""
    with pytest.raises(error):
        make()


@pytest.mark.parametrize("name", CASES)
def test_what_a_sample_keeps_does_not_hang_on_its_batch(model: nn.Module, name: str) -> None:
    """Alone, padded on the left, padded on the right."""
    batches = {side: make_inputs(model, PAIR, side) for side in ("left", "right")}

    alone = [kept_by(model, sample_of(batches["left"], PAIR, row), **asked_of(name))[0] for row in range(2)]

    assert kept_by(model, batches["left"], **asked_of(name)) == alone
    assert kept_by(model, batches["right"], **asked_of(name)) == alone


def test_chance_differs_between_seeds_and_prompts(model: nn.Module) -> None:
    """And is the same for the same prompt and seed."""
    inputs = make_inputs(model, [(4, Image(), 5), (4, Image(), 5)])
    drawn = [kept_by(model, inputs, method=Random(seed=seed), budget=0.3) for seed in (0, 0, 1)]

    assert drawn[0] == drawn[1]
    assert drawn[0] != drawn[2]
    assert drawn[0][0] != drawn[0][1]


@pytest.mark.parametrize("name", ["fastv", "fastv-window", "fastv-balanced", "dart", "sparsevlm", "v2drop", "mustdrop"])
def test_a_method_that_reads_the_layer_before_is_refused_at_the_first(model: nn.Module, name: str) -> None:
    """At the call: no layer precedes it."""
    stages = (
        {"layer": (0, 2), "budget": (0.5, 0.2)} if "layer" in CASES[name] and name in ("sparsevlm", "v2drop") else {}
    )
    with pytest.raises(ValueError, match=r"`layer` is 0, but `method` reads the"):
        prune_visual_tokens(model, method=name, **(stages or {"layer": (0,), "budget": (0.5,)}))


@pytest.mark.parametrize("name", ["pooling", "fastv-window"])
def test_a_method_that_reads_the_grid_acts_once(model: nn.Module, name: str) -> None:
    """The grid is whole until something is dropped."""
    with pytest.raises(ValueError, match=r"`layer` is \(1, 3\), but `method` reads the grid"):
        prune_visual_tokens(model, method=name, layer=(1, 3), budget=(0.5, 0.2))


@pytest.mark.parametrize("name", [name for name in CASES if name != "vtw"])
def test_an_image_that_ends_its_prompt_keeps_its_last_token(model: nn.Module, name: str) -> None:
    """Whatever the method would have dropped, and no more are kept than the budget."""
    inputs = make_inputs(model, [(5, Image()), (2, Image(16, 16), 6)])

    kept = kept_by(model, inputs, **asked_of(name))

    with prune_visual_tokens(model, **asked_of(name)) as session, torch.no_grad():
        model(**positioned(model, inputs))
    total = len(session.records[-1].visual[0])
    assert kept[0][-1] == total - 1
    assert len(kept[0]) <= max(1, int(total * 0.4 + 0.5))


def test_a_method_of_ones_own_is_a_class(model: nn.Module) -> None:
    """With a name and an answer it runs as any other."""

    class First(Method):
        name = "first"
        reads = ("nothing",)

        def __call__(self, view: LayerView) -> Tensor:
            return first_ones(view)

    assert kept_by(model, make_inputs(model, PAIR), method=First(), budget=3, layer=1) == [[0, 1, 2]] * 2
    assert isinstance(method_named(First()), First)


def test_every_method_is_a_short_file() -> None:
    """One in the core, one here, with what only it needs beside it: each under 120 lines."""
    folders = [Path(package.__file__).parent for package in (core_methods, model_methods)]
    files = [path for folder in folders for path in folder.glob("[!_]*.py")]

    assert len(files) > 2 * len(METHODS) - 5
    assert [path.name for path in files if len(path.read_text("utf-8").splitlines()) >= 120] == []
