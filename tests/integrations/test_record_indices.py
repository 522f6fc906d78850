"""Records that can be compared: indices among a sample's own visual tokens, whatever shared its batch."""

from contextlib import ExitStack

import pytest
import torch
from torch import nn

from iwp_transformers import prune_visual_tokens
from tests.integrations.prompts import BOTH, PAIR, logits_of
from tests.integrations.tiny_models import FACTORIES, Image, Video, make_inputs

BATCHES = {
    "longer": [(2, Image(32, 16), 6), (60,)],
    "with images": [(2, Image(32, 16), 6), (5, Image(16, 16), 1, Image(16, 32), 30)],
    "shorter": [(2, Image(32, 16), 6), (2, Image(16, 16), 1)],
}


@pytest.fixture(params=BOTH)
def model(request: pytest.FixtureRequest) -> nn.Module:
    """Give a miniature of each kind."""
    return FACTORIES[request.param]()


def test_kept_indices_point_into_the_visual_tokens(model: nn.Module) -> None:
    """They are int64, ascending, and name the same tokens as the positions do, images and videos alike."""
    inputs = make_inputs(model, [*PAIR, (3, Video(), 4, Image(), 2), (30,)])

    with prune_visual_tokens(model, budget=0.3, layer=1) as session:
        logits_of(model, inputs)

    record = session.records[-1]
    assert len(record.kept_indices) == 4
    for indices, visual, kept in zip(record.kept_indices, record.visual, record.kept, strict=True):
        assert indices.dtype == torch.int64
        assert (indices.diff() > 0).all()
        assert torch.equal(visual[indices], kept)
    assert len(record.kept_indices[3]) == 0


@pytest.mark.parametrize("padding", ["left", "right"])
@pytest.mark.parametrize("mate", BATCHES)
def test_kept_indices_do_not_depend_on_who_shares_the_batch(model: nn.Module, mate: str, padding: str) -> None:
    """Padding moves the positions, and not the indices."""
    alone, together = make_inputs(model, BATCHES[mate][:1]), make_inputs(model, BATCHES[mate], padding)
    # The pictures and words of a first sample are drawn first, so they are the same; a check keeps it so.
    pixels = alone["pixel_values"]
    assert torch.equal(together["pixel_values"][: len(pixels)], pixels)
    real = together["attention_mask"][0].bool()
    assert together["input_ids"][0, real].shape == alone["input_ids"][0].shape
    together["input_ids"][0, real] = alone["input_ids"][0]
    kept = []

    for inputs in (alone, together):
        with prune_visual_tokens(model, budget=0.3, layer=1) as session:
            logits_of(model, inputs)
        kept.append(session.records[-1].kept_indices[0])

    assert torch.equal(*kept)


def test_all_indices_are_kept_with_a_budget_of_one(model: nn.Module) -> None:
    """Then they count up."""
    with prune_visual_tokens(model, budget=1.0, layer=1) as session:
        logits_of(model, make_inputs(model, PAIR))

    record = session.records[-1]
    for indices, visual in zip(record.kept_indices, record.visual, strict=True):
        assert torch.equal(indices, torch.arange(len(visual)))


def test_the_repr_of_a_record_is_short(model: nn.Module) -> None:
    """One line with counts, however many tokens there are."""
    inputs = make_inputs(model, [(3, *([Image(32, 32)] * 12), 4)] * 3)

    with prune_visual_tokens(model, budget=0.5, layer=1) as session:
        logits_of(model, inputs)

    record = session.records[-1]
    text = repr(record)
    assert "\n" not in text
    assert len(text) <= 200
    assert "tensor" not in text
    assert str(sum(map(len, record.kept))) in text or str(len(record.kept[0])) in text


@pytest.mark.parametrize("layer", [(1,), (0, 2)], ids=["one layer", "two layers, the first of all among them"])
def test_tokens_by_layer_are_those_that_each_layer_receives(model: nn.Module, layer: tuple[int, ...]) -> None:
    """Each sample's counts in a ragged batch, without padding; the longest fills the rows that its layers get."""
    inputs = make_inputs(model, [*PAIR, (30,)])
    received: list[int] = []

    def count_rows(_layer: nn.Module, hidden: tuple[torch.Tensor, ...]) -> None:
        received.append(hidden[0].shape[1])

    # Behind the session's own hooks, which shorten.
    with prune_visual_tokens(model, budget=(0.5, 0.2)[: len(layer)], layer=layer) as session, ExitStack() as hooks:
        for each in model.model.language_model.layers:
            hooks.callback(each.register_forward_pre_hook(count_rows).remove)
        logits_of(model, inputs)

    record = session.records[-1]
    counts = record.tokens_by_layer
    real = inputs["attention_mask"].sum(1).tolist()
    assert len(counts) == 3
    for sample, (of_sample, full) in enumerate(zip(counts, real, strict=True)):
        dropped = len(record.visual[sample]) - len(record.kept[sample])
        assert (of_sample[0], of_sample[-1]) == (full, full - dropped)
    assert counts[2] == (real[2],) * 4
    assert [max(of_layer) for of_layer in zip(*counts, strict=True)] == received
