"""The truth that the matrix compares with is itself true, for every class."""

import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.models.batches import make_batch
from tests.models.checks import LAYER, NEW, NOTICEABLE, TOLERANCE
from tests.models.factory import tiny_model
from tests.models.oracle import apart, steps, true_logits, true_steps
from tests.models.outside import NO_TOKENS, NO_TRUTH, NO_UNCACHED_DECODING, UNRUNNABLE
from tests.models.sizes import IMAGE


@pytest.fixture(autouse=True)
def unconcerned() -> Iterator[None]:
    """Leave alone what Transformers warns of its own configurations."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _model_and_batch(model_type: str) -> tuple[Any, dict[str, Any]]:
    """Build a class and its batch, or skip one of which nothing is true."""
    for why in (NO_TOKENS, NO_TRUTH):
        if model_type in why:
            pytest.skip(why[model_type])
    model = tiny_model(model_type)
    batch = make_batch(model, model_type)
    try:
        with torch.no_grad():
            model(**batch)
    except AttributeError:
        if model_type not in UNRUNNABLE:
            raise
        pytest.skip(UNRUNNABLE[model_type])
    return model, batch


def _dropped(batch: dict[str, Any]) -> Tensor:
    """Drop two of three visual tokens of each sample."""
    dropped = torch.zeros_like(batch["input_ids"], dtype=torch.bool)
    for row, tokens in zip(dropped, batch["input_ids"], strict=True):
        visual = (tokens == IMAGE).nonzero()[:, 0]
        row[visual[torch.arange(len(visual)) % 3 > 0]] = True
    return dropped


def test_nothing_dropped_is_the_model_as_it_is(model_type: str) -> None:
    """Prefill and decoding equal the plain model's, which has its own implementation of attention and its own cache."""
    model, batch = _model_and_batch(model_type)
    real, nothing = batch["attention_mask"].bool(), torch.zeros_like(batch["input_ids"], dtype=torch.bool)

    with torch.no_grad():
        plain = model(**batch).logits

    assert apart(true_logits(model, batch, LAYER, nothing)[real], plain[real]) <= TOLERANCE
    if model_type not in NO_UNCACHED_DECODING:
        assert apart(true_steps(model, batch, LAYER, nothing, NEW), steps(model, batch, NEW)) <= TOLERANCE


def test_nobody_notices_what_dropped_tokens_hold(model_type: str) -> None:
    """Noise on dropped tokens in front of the layer moves no other row, and without them the rows do move."""
    model, batch = _model_and_batch(model_type)
    dropped = _dropped(batch)
    rows = batch["attention_mask"].bool() & ~dropped

    truth = true_logits(model, batch, LAYER, dropped)

    assert apart(true_logits(model, batch, LAYER, dropped, noise=3.0)[rows], truth[rows]) <= TOLERANCE / 10
    with torch.no_grad():
        assert apart(model(**batch).logits[rows], truth[rows]) > NOTICEABLE


def test_an_oracle_that_masks_nothing_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test above can fail: with the masks left as they are, the noise moves the other rows."""
    model = tiny_model("llava")
    batch = make_batch(model, "llava")
    dropped = _dropped(batch)
    rows = batch["attention_mask"].bool() & ~dropped

    monkeypatch.setattr("tests.models.oracle._less_columns", lambda mask, dropped: mask)

    noisy, quiet = (true_logits(model, batch, LAYER, dropped, noise) for noise in (3.0, 0.0))
    assert apart(noisy[rows], quiet[rows]) > NOTICEABLE
