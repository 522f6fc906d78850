"""The tiny models and batches are what the matrix takes them for."""

from typing import Any

import pytest
import torch

from tests.models.batches import make_batch
from tests.models.factory import CLASSES, decoder_of, tiny_model
from tests.models.outside import NO_TOKENS, NO_TRUTH, NO_UNCACHED_DECODING, UNRUNNABLE
from tests.models.overrides import OVERRIDES
from tests.models.sizes import IMAGE, LAYERS, PAD

FEW = ("gemma3", "idefics3", "llava_next", "mistral3", "qwen2_5_vl", "qwen3_5")


@pytest.mark.parametrize("name", FEW)
def test_a_tiny_model_has_four_layers_and_its_weights_are_the_same_every_time(name: str) -> None:
    """Building twice gives the same numbers, so a verdict can be repeated."""
    first, second = tiny_model(name), tiny_model(name)

    assert len(decoder_of(first).layers) == LAYERS
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


@pytest.mark.parametrize("name", FEW)
def test_a_batch_is_ragged_and_padded_where_it_is_asked_to_be(name: str) -> None:
    """Both paddings hold the same tokens, one sample is shorter, and padding is masked."""
    model = tiny_model(name)

    batches = {side: make_batch(model, name, padding=side) for side in ("left", "right")}

    rows = {side: _real_tokens(batch) for side, batch in batches.items()}
    assert rows["left"] == rows["right"]
    assert len({len(row) for row in rows["left"]}) > 1
    assert not batches["left"]["attention_mask"][:, 0].all()
    assert not batches["right"]["attention_mask"][:, -1].all()
    for batch in batches.values():
        assert (batch["input_ids"] == PAD).equal(batch["attention_mask"] == 0)
        assert (batch["input_ids"] == IMAGE).any(dim=1).all()


def _real_tokens(batch: dict[str, Any]) -> list[list[int]]:
    return [row[mask.bool()].tolist() for row, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)]


def test_tables_name_classes_that_exist() -> None:
    """What is said about a class is about one that some supported version of Transformers has."""
    named = {*OVERRIDES, *NO_TOKENS, *NO_TRUTH, *NO_UNCACHED_DECODING, *UNRUNNABLE}
    if not named <= set(CLASSES):
        pytest.skip(f"this version of Transformers does not know {sorted(named - set(CLASSES))}")
    assert not set(NO_TOKENS) & set(NO_TRUTH)
