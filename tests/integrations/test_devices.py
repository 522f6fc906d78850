"""Models whose layers live in different places."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from iwp_transformers import prune_visual_tokens
from tests.integrations.tiny_models import FACTORIES, LAYERS, Image, make_inputs

accelerate = pytest.importorskip("accelerate", reason="`device_map` needs accelerate")

PROMPTS = [(3, Image(), 4, Image(16, 16), 5), (2, Image(32, 16), 6)]


def device_map(model: nn.Module, places: list[Any], elsewhere: Any) -> dict[str, Any]:
    """Return a map with one place for each decoder layer and one for everything else.

    Of modules: a key that names a parameter moves it, but no input of the module that holds it.
    """
    stack = "model.language_model.layers"
    own = {name.rpartition(".")[0] for name, _ in [*model.named_parameters(), *model.named_buffers()]}
    assert "" not in own, "the model itself holds a tensor"
    spread = {f"{stack}.{index}": place for index, place in enumerate(places)}
    return {name: elsewhere for name in own if not name.startswith(stack)} | spread


@pytest.mark.filterwarnings("ignore")  # accelerate warns about offloading to the CPU that it runs on
@pytest.mark.parametrize("layer", [0, 2])
@pytest.mark.parametrize("family", FACTORIES)
def test_offloaded_layers_are_pruned_like_others(family: str, layer: int, tmp_path: Path) -> None:
    """Weights that are read from disk when a layer runs give the same ids."""
    inputs = make_inputs(FACTORIES[family](), PROMPTS)
    options = {"max_new_tokens": 3, "do_sample": False}
    whole = FACTORIES[family]()
    split = FACTORIES[family]()
    places = device_map(split, ["disk", "cpu"] * (LAYERS // 2), "cpu")
    split = accelerate.dispatch_model(split, device_map=places, offload_dir=str(tmp_path), main_device="cpu")

    with prune_visual_tokens(whole, budget=0.3, layer=layer):
        expected = whole.generate(**inputs, **options)
    with prune_visual_tokens(split, budget=0.3, layer=layer):
        output = split.generate(**inputs, **options)

    assert next(split.model.language_model.layers[0].parameters()).is_meta
    assert torch.equal(output, expected)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
@pytest.mark.parametrize("layer", [0, LAYERS // 2])
@pytest.mark.parametrize("family", FACTORIES)
def test_two_devices_give_the_ids_of_one(family: str, layer: int) -> None:
    """The layer that prunes may be the first of another device."""
    inputs = {name: part.to(0) for name, part in make_inputs(FACTORIES[family](), PROMPTS).items()}
    options = {"max_new_tokens": 3, "do_sample": False}
    whole = FACTORIES[family]().to(0)
    split = FACTORIES[family]()
    places = device_map(split, [0] * (LAYERS // 2) + [1] * (LAYERS // 2), 0)
    split = accelerate.dispatch_model(split, device_map=places)

    with prune_visual_tokens(whole, budget=0.3, layer=layer):
        expected = whole.generate(**inputs, **options)
    with prune_visual_tokens(split, budget=0.3, layer=layer):
        assert torch.equal(split.generate(**inputs, **options), expected)
