"""When Transformers moves on: what the hooks do not recognise is an error, never an unpruned or a wrong answer."""

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from iwp_transformers import prune_visual_tokens
from tests.integrations.oracle import dropped_tokens, true_generation
from tests.integrations.prompts import BOTH, PAIR, greedy, logits_of, pruned_logits
from tests.integrations.test_exactness import scattered
from tests.integrations.tiny_models import FACTORIES, Video, make_inputs

CACHE_NAMES = ("past_key_values", "cache")
NEW_NAME = "kv_memory"


@pytest.fixture(params=BOTH)
def model(request: pytest.FixtureRequest) -> Any:
    """Give a miniature of each kind."""
    return FACTORIES[request.param]()


def rename(module: nn.Module, names: tuple[str, ...], new: str) -> None:
    """Make a module take an argument under a name that nobody knows, as the next Transformers may."""
    forward: Callable[..., Any] = module.forward
    used = []

    def renamed(_: nn.Module, args: Any, kwargs: dict[str, Any]) -> Any:
        for name in names:
            if name in kwargs:
                used.append(name)
                kwargs = {(new if key == name else key): value for key, value in kwargs.items()}
        return args, kwargs

    def takes_new(*args: Any, **kwargs: Any) -> Any:
        old = used[-1] if used else names[0]
        return forward(*args, **{(old if key == new else key): value for key, value in kwargs.items()})

    module.register_forward_pre_hook(renamed, with_kwargs=True)
    module.forward = takes_new


def right_or_an_error(attempt: Callable[[], Tensor], expected: Tensor, words: str) -> None:
    """Fail unless an attempt is right, or raises an error that speaks of what is missing and not of sizes."""
    try:
        actual = attempt()
    except (NotImplementedError, RuntimeError, TypeError) as error:
        message = str(error)
        actual = None
    if actual is None:
        assert words in message, message
        assert "size of tensor" not in message
        return
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize("where", ["layers", "text model and layers"])
@pytest.mark.parametrize("cache", ["dynamic", "static"])
@pytest.mark.parametrize(
    "prompts", [PAIR, PAIR[:1], [(3, Video(), 4), (2, Video(), 9)]], ids=["padded", "one", "videos"]
)
def test_a_cache_under_another_name_is_found_or_raises(model: Any, prompts: list, cache: str, where: str) -> None:
    """It never passes for no cache."""
    inputs = make_inputs(model, prompts)
    text = model.model.language_model
    with prune_visual_tokens(model, budget=0.3, layer=1, selector=scattered) as session:
        greedy(model, inputs)
    dropped = dropped_tokens(session.records[-1], inputs["input_ids"].shape)
    expected = true_generation(model, inputs, 1, dropped, max_new_tokens=5, do_sample=False).sequences

    for layer in text.layers:
        rename(layer, CACHE_NAMES, NEW_NAME)
    if where != "layers":
        rename(text, CACHE_NAMES, NEW_NAME)
    with prune_visual_tokens(model, budget=0.3, layer=1, selector=scattered):
        right_or_an_error(lambda: greedy(model, inputs, cache_implementation=cache), expected, "cache")


@pytest.mark.parametrize("name", ["position_embeddings", "attention_mask"])
def test_a_layer_that_came_without_what_it_always_had_raises(model: Any, name: str) -> None:
    """A renamed argument is shortened all the same, or the error names what is missing."""
    inputs = make_inputs(model, PAIR)
    expected = pruned_logits(model, inputs, selector=scattered)

    for layer in model.model.language_model.layers:
        rename(layer, (name,), f"{name}_of_tomorrow")
    with prune_visual_tokens(model, budget=0.3, layer=1, selector=scattered):
        right_or_an_error(lambda: logits_of(model, inputs), expected, name)


def test_a_prefill_whose_layers_were_bypassed_raises(model: Any) -> None:
    """If the layer that prunes never ran as a module, nothing was pruned, and that is an error."""
    inputs = make_inputs(model, PAIR)
    expected = pruned_logits(model, inputs, selector=scattered)

    class Bypassed(nn.Module):
        """Calls the forward of the layer within, so that no hook of it runs."""

        def __init__(self, layer: Any) -> None:
            super().__init__()
            self.__dict__["layer"] = layer

        def __getattr__(self, name: str) -> Any:
            return getattr(self.__dict__["layer"], name)

        def forward(self, *args: Any, **kwargs: Any) -> Any:
            return self.__dict__["layer"].forward(*args, **kwargs)

    with prune_visual_tokens(model, budget=0.3, layer=1, selector=scattered):
        text = model.model.language_model
        text.layers = nn.ModuleList([Bypassed(layer) for layer in text.layers])
        right_or_an_error(lambda: logits_of(model, inputs), expected, "layer")


NEWER = """
import importlib.metadata, warnings
import transformers
real = importlib.metadata.version
importlib.metadata.version = lambda name: "99.1.0" if name == "transformers" else real(name)
transformers.__version__ = "99.1.0"
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    from tests.integrations.tiny_models import FACTORIES
    from iwp_transformers import prune_visual_tokens
    for model in (FACTORIES["llava-onevision"](), FACTORIES["qwen2.5-vl"]()):
        for _ in range(2):
            prune_visual_tokens(model, budget=0.3, layer=1).close()
told = [str(warning.message) for warning in caught if "99.1.0" in str(warning.message)]
assert len(told) == 1, told
assert "transformers" in told[0].lower() and "tested" in told[0], told
"""


def test_a_transformers_newer_than_any_tested_is_warned_of_once() -> None:
    """Two models, four sessions, one warning that names the version."""
    paths = os.pathsep.join(path for path in sys.path if path)

    done = subprocess.run(
        [sys.executable, "-c", NEWER],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )

    assert done.returncode == 0, done.stderr[-2000:]
