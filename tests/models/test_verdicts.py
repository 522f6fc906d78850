"""The verdicts can be other than exact: what is wrong is found, what is refused is told from what fails."""

import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from iwp_transformers import LayerView, prune_visual_tokens
from tests.models.batches import make_batch
from tests.models.checks import LAYER, check_decoding, check_prefill, check_shown, refusal, scattered
from tests.models.factory import tiny_model
from tests.models.received import Received, received
from tests.models.table import listed, row
from tests.models.verdicts import EXACT, REFUSED, Verdict

NAME = "llava_next"


@pytest.fixture(autouse=True)
def unconcerned() -> Iterator[None]:
    """Leave alone what Transformers warns of its own configurations."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.fixture(scope="module")
def model() -> Any:
    """Build a model that is served."""
    return tiny_model(NAME)


def test_a_prefill_of_other_tokens_is_wrong(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the record tells other tokens than were kept, prefill and decoding are off."""
    batch = make_batch(model, NAME)
    dropped_in = check_prefill.__globals__["dropped_in"]
    monkeypatch.setitem(
        check_prefill.__globals__, "dropped_in", lambda record, batch: dropped_in(record, batch).roll(1, dims=1)
    )

    with pytest.raises(AssertionError, match="prefill from layer 2 on is off by"):
        check_prefill(model, batch)
    with pytest.raises(AssertionError, match="decoding is off by"):
        check_decoding(model, batch)


def test_a_rule_that_keeps_everything_compares_nothing(model: Any) -> None:
    """Logits that dropping does not move cannot show that it is exact."""
    with pytest.raises(AssertionError, match="nothing was compared"):
        check_prefill(model, make_batch(model, NAME), selector=lambda view: torch.arange(len(view.visual)))


def test_a_view_of_other_queries_is_wrong(model: Any) -> None:
    """What a selector is shown is held to each of the tensors that the attention receives."""
    batch = make_batch(model, NAME)
    truth = received(model, batch, LAYER)
    assert truth is not None

    check_shown(model, batch, LAYER, truth)

    for name in ("queries", "keys", "values"):
        other = Received(**{**vars(truth), name: getattr(truth, name) + 1})
        with pytest.raises(AssertionError, match=f"{name}` as shown is off by"):
            check_shown(model, batch, LAYER, other)


def test_queries_without_rotation_are_others_and_nothing_stays_registered(model: Any) -> None:
    """The layer is read with its rotation and without, and computes afterwards as before."""
    batch = make_batch(model, NAME)
    with torch.no_grad():
        before = model(**batch).logits

    rotated, plain = received(model, batch, LAYER), received(model, batch, LAYER, rotated=False)

    assert rotated is not None
    assert plain is not None
    assert rotated.values.equal(plain.values)
    assert not rotated.queries.allclose(plain.queries)
    with torch.no_grad():
        assert model(**batch).logits.equal(before)


def test_a_refusal_is_raised_by_the_integration_itself(model: Any) -> None:
    """An error that another library raises is a fault, whatever its type; so is one that nobody raises on purpose."""

    def failing(view: LayerView) -> torch.Tensor:
        msg = "not implemented elsewhere"
        raise NotImplementedError(msg)

    with pytest.raises(ValueError, match="layer") as refused:
        prune_visual_tokens(model, budget=0.5, layer=99, selector=scattered)
    with pytest.raises(NotImplementedError) as failed:
        check_prefill(model, make_batch(model, NAME), selector=failing)

    assert refusal(refused.value) == str(refused.value)
    assert refusal(failed.value) is None


def test_a_row_of_the_page_has_one_line() -> None:
    """Reasons of several lines, or with bars, do not break the table."""
    exact = row(
        listed(NAME, Verdict(outcome=EXACT, layers="0, 1", static_cache="none", paper_rule="exact", pictures="no"))
    )
    refused = row(listed(NAME, Verdict(outcome=REFUSED, reason="one\ntwo | three")))

    told = "tiny and random | 0, 1 | none | exact | no"
    assert exact == f"| `llava_next` | `LlavaNextForConditionalGeneration` | {told} |\n"
    assert refused == "| `llava_next` | `LlavaNextForConditionalGeneration` | one two \\| three |\n"
