"""Mistakes of those who write selectors and call with them: refused, or warned of, in words that help."""

import importlib
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from iwp_core import TopK
from iwp_transformers import LayerView, prune_visual_tokens
from tests.integrations.prompts import PAIR, logits_of, pruned_logits
from tests.integrations.test_exactness import scattered
from tests.integrations.tiny_models import FACTORIES, Image, make_inputs


@pytest.fixture
def model() -> nn.Module:
    """Give LLaVA-OneVision."""
    return FACTORIES["llava-onevision"]()


def complaint(attempt: Callable[[], object]) -> str:
    """Return the message of a ValueError, or of UserWarnings; empty where there was neither."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            attempt()
        except ValueError as error:
            return str(error)
    return " ".join(str(warning.message) for warning in caught if issubclass(warning.category, UserWarning))


@pytest.mark.parametrize("difference", [-3, -1, 1, 5])
def test_a_selector_that_returns_another_number_than_the_budget_is_complained_of(
    model: nn.Module, difference: int
) -> None:
    """The message names both numbers."""
    inputs = make_inputs(model, PAIR[:1])
    counts = []

    def miscounts(view: LayerView) -> Tensor:
        counts.append(view.budget)
        return torch.arange(view.budget + difference)

    message = complaint(lambda: pruned_logits(model, inputs, selector=miscounts))

    assert "`selector`" in message
    assert str(counts[0]) in message
    assert str(counts[0] + difference) in message


def test_a_selector_that_returns_the_budget_is_met_with_silence(model: nn.Module) -> None:
    """As lists, arrays and tensors, in any order."""
    inputs = make_inputs(model, PAIR)
    expected = pruned_logits(model, inputs, selector=scattered)

    for kind in (list, np.asarray, lambda chosen: chosen.flip(0), lambda chosen: chosen.int()):
        assert torch.equal(pruned_logits(model, inputs, selector=lambda view, as_=kind: as_(scattered(view))), expected)


def test_positions_instead_of_indices_are_refused_in_those_words(model: nn.Module) -> None:
    """The last visual tokens' positions in the sequence are no indices among the visual tokens."""
    inputs = make_inputs(model, [(9, Image(16, 16), 4)])

    message = complaint(
        lambda: pruned_logits(model, inputs, selector=lambda view: view.visual.positions[-view.budget :])
    )

    assert "`selector`" in message
    assert "position" in message


@pytest.mark.parametrize(
    "options",
    [
        {"strategy": TopK()},
        {"magnitude": "key_norm"},
        {"similarity": "value"},
        {"heads": "softmax_mean"},
        {"query": "image"},
        {"rope_in_magnitude": True},
        {"rope_in_duplication": False},
        {"magnitude": "key_norm", "query": "last_text"},
    ],
    ids=str,
)
def test_options_that_a_selector_replaces_are_complained_of(model: nn.Module, options: dict[str, Any]) -> None:
    """Whoever passes both expects both to count; the message names each of them."""

    def attempt() -> None:
        prune_visual_tokens(model, budget=0.3, layer=1, selector=scattered, **options).close()

    message = complaint(attempt)

    assert "`selector`" in message
    assert all(f"`{name}`" in message for name in options)
    prune_visual_tokens(model, budget=0.3, layer=1, selector=scattered).close()


def asked(model: nn.Module, question: Callable[[LayerView], object]) -> BaseException:
    """Return the AttributeError that a question to a view ends in."""

    def ask(view: LayerView) -> Tensor:
        question(view)
        return scattered(view)

    with pytest.raises(AttributeError) as error:
        pruned_logits(model, make_inputs(model, PAIR[1:]), selector=ask)
    return error.value


@pytest.mark.parametrize("name", ["visual_tokens", "attention", "image"])
def test_a_wrong_attribute_of_a_view_says_what_there_is(model: nn.Module, name: str) -> None:
    """The message lists the attributes that a selector may read."""
    message = str(asked(model, lambda view: getattr(view, name)))

    assert name in message
    assert all(part in message for part in ("visual", "text", "question", "budget", "last_attention"))


@pytest.mark.parametrize("name", ["embeddings", "k", "hidden_states"])
def test_a_wrong_attribute_of_tokens_says_what_there_is(model: nn.Module, name: str) -> None:
    """The same for the visual and the text tokens of a view."""
    message = str(asked(model, lambda view: getattr(view.visual, name)))

    assert name in message
    wanted = ("positions", "hidden", "queries", "rotated_queries", "keys", "rotated_keys", "values")
    assert all(part in message for part in wanted)


@pytest.mark.parametrize("package", ["iwp_transformers", "iwp_core", "iwp_miniature"])
def test_dir_of_a_package_lists_its_names(package: str) -> None:
    """Also names that are imported when first asked for, so that completion finds them."""
    module = importlib.import_module(package)

    assert set(module.__all__) <= set(dir(module))
    assert sorted(dir(module)) == sorted(set(dir(module)))
    with pytest.raises(AttributeError, match="nonsense"):
        module.nonsense  # noqa: B018 - asking is the point


@pytest.mark.parametrize("layer", [np.int64(2), np.int32(2), np.uint8(2)])
def test_numpy_integers_are_layers(model: nn.Module, layer: Any) -> None:
    """As numpy budgets are budgets."""
    inputs = make_inputs(model, PAIR)
    with prune_visual_tokens(model, budget=3, layer=2):
        expected = logits_of(model, inputs)

    with prune_visual_tokens(model, budget=np.int64(3), layer=layer, history=np.int64(4)) as session:
        logits = logits_of(model, inputs)

    assert torch.equal(logits, expected)
    assert session.records[-1].layer == 2
    assert type(session.records[-1].layer) is int


@pytest.mark.parametrize("layer", [np.float64(2), np.bool_(True), np.int64(99), np.int64(-1)])
def test_other_numpy_numbers_are_no_layers(model: nn.Module, layer: Any) -> None:
    """Refused as their Python kin are."""
    with pytest.raises(ValueError, match="`layer`"):
        prune_visual_tokens(model, budget=3, layer=layer)
