"""The layer that VTW withdraws at, found on samples."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from iwp_transformers.vtw_calibration import calibrated_vtw_layer
from tests.integrations.oracle import positioned, true_logits
from tests.integrations.prompts import BOTH, PAIR
from tests.integrations.tiny_models import FACTORIES, IMAGE_ID, LAYERS, Image, make_inputs


def divergences(model: nn.Module, batches: list[dict[str, Any]]) -> Tensor:
    """Return the mean divergence of withdrawing at each layer from 1 on, from the full-length model."""
    found = []
    for inputs in batches:
        visual = inputs["input_ids"] == IMAGE_ID
        last = [int(row.nonzero()[-1]) for row in inputs["attention_mask"]]
        logs = [
            true_logits(model, inputs, layer, dropped)[torch.arange(len(last)), last].log_softmax(-1)
            for layer, dropped in [(0, visual & False), *((layer, visual) for layer in range(1, LAYERS))]
        ]
        found.append(torch.stack([(each.exp() * (each - logs[0])).sum(-1) for each in logs[1:]]))
    return torch.cat(found, dim=1).mean(1)


@pytest.mark.parametrize("padding", ["left", "right"])
@pytest.mark.parametrize("family", BOTH)
def test_the_calibrated_layer_is_the_first_that_changes_the_next_token_little(family: str, padding: str) -> None:
    """With thresholds around what each layer changes, by the full-length model that may not look."""
    model = FACTORIES[family]()
    prompts = [PAIR, [(4, Image(), 5), (2, Image(), 9)]]
    batches = [positioned(model, make_inputs(model, batch, padding)) for batch in prompts]
    means = divergences(model, batches)

    for threshold in (float(means.max()) * 1.01, float(means.min()) * 1.01):
        expected = 1 + int((means <= threshold).nonzero()[0])
        assert calibrated_vtw_layer(model, batches, threshold=threshold, first=1) == expected
    with pytest.raises(ValueError, match=r"`threshold` is .* the smallest mean divergence"):
        calibrated_vtw_layer(model, batches, threshold=float(means.min()) * 0.99, first=1)


@pytest.mark.parametrize("first", [0, LAYERS, True, 1.0])
def test_a_layer_to_begin_with_is_one_of_the_model(first: Any) -> None:
    """Not the embeddings, and not behind the last."""
    model = FACTORIES["llava-onevision"]()

    with pytest.raises(ValueError, match=r"`first` is .*, expected an int from 1 to 3"):
        calibrated_vtw_layer(model, [make_inputs(model, PAIR)], first=first)


def test_no_samples_are_a_value_error() -> None:
    """There is nothing to find a layer on."""
    with pytest.raises(ValueError, match=r"`samples` are none"):
        calibrated_vtw_layer(FACTORIES["llava-onevision"](), [], first=1)
