"""Steps on a static cache that `generate` compiles: before, during and after a session."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import CompileConfig

from iwp_transformers import prune_visual_tokens
from tests.integrations.selectors import Chance
from tests.integrations.tiny_models import FACTORIES, Image, make_inputs

PROMPTS = [(3, Image(), 4, Image(16, 16), 5), (2, Image(32, 16), 6)]


def decoded(model: nn.Module, inputs: dict[str, Any], *, compiled: bool, pruned: bool) -> Tensor:
    """Return greedy ids on a static cache."""
    options: dict[str, Any] = {"max_new_tokens": 4, "do_sample": False, "cache_implementation": "static"}
    if compiled:
        options["compile_config"] = CompileConfig(backend="eager", mode=None)
        options["compile_config"]._compile_all_devices = True
    if not pruned:
        return model.generate(**inputs, **options)
    with prune_visual_tokens(model, budget=0.3, layer=1, selector=Chance()):
        return model.generate(**inputs, **options)


@pytest.mark.filterwarnings("ignore")  # torch.compile warns of its own parts
@pytest.mark.parametrize("family", ["llava-onevision", "qwen2.5-vl"])
def test_compiled_steps_follow_the_session(family: str) -> None:
    """Compiled before, within or after a session, ids are those of the same call without compilation."""
    torch.compiler.reset()
    model = FACTORIES[family]()
    inputs = make_inputs(model, PROMPTS)
    expected = {pruned: decoded(model, inputs, compiled=False, pruned=pruned) for pruned in (False, True)}

    for pruned in (False, True, False, True):
        assert torch.equal(decoded(model, inputs, compiled=True, pruned=pruned), expected[pruned])
    assert not torch.equal(expected[False], expected[True])
