"""Gradient checkpointing changes neither the loss nor a gradient: layers run again with just what they got."""

import copy
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor

from iwp_transformers import prune_visual_tokens
from tests.integrations.prompts import BOTH, PAIR, logits_of, pruned_logits
from tests.integrations.tiny_models import FACTORIES, make_inputs
from tests.models.batches import make_batch
from tests.models.factory import decoder_of, tiny_model

variants = pytest.mark.parametrize("reentrant", [False, True], ids=["not reentrant", "reentrant"])


@pytest.fixture(autouse=True)
def unconcerned() -> Iterator[None]:
    """Leave alone what Transformers warns of its own old names."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def trainable(name: str) -> tuple[Any, dict[str, Any]]:
    """Return a model in training, without dropout, and a ragged batch whose last tokens count."""
    model: Any = FACTORIES[name]() if name in FACTORIES else tiny_model(name)
    inputs = make_inputs(model, PAIR) if name in FACTORIES else dict(make_batch(model, name))
    inputs["labels"] = inputs["input_ids"].clone()
    inputs["labels"][:, :-4] = -100
    for part in model.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.0
    return model.train(), inputs


def checkpoint(model: Any, *, reentrant: bool) -> None:
    """Switch checkpointing on."""
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": reentrant})


def gradients(model: Any, loss: Tensor) -> dict[str, Tensor]:
    """Return every gradient, computed by another thread than that of the forward."""
    model.zero_grad()
    with ThreadPoolExecutor(1) as thread:
        thread.submit(loss.backward).result()
    return {name: part.grad.clone() for name, part in model.named_parameters() if part.grad is not None}


def assert_same(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Fail unless two sets of gradients are the same, and are some."""
    assert actual.keys() == expected.keys()
    assert any(bool(part.any()) for part in actual.values())
    for name, part in actual.items():
        torch.testing.assert_close(part, expected[name], msg=name)


@variants
@pytest.mark.parametrize("layer", [0, (1, 3)])
@pytest.mark.parametrize("name", [*BOTH, "gemma3", "qwen3_vl"])
def test_loss_and_gradients_are_those_without_checkpointing(name: str, layer: Any, reentrant: bool) -> None:
    """Another prompt goes through the model before the backward pass, and the session is closed by then."""
    model, inputs = trainable(name)
    options: Any = {"layer": layer, "budget": (0.5, 0.2) if isinstance(layer, tuple) else 0.3}
    runs: list[int] = []
    last = decoder_of(model).layers[-1]
    last.self_attn.register_forward_hook(lambda *_: runs.append(0))

    with prune_visual_tokens(model, **options) as session:
        loss = model(**inputs).loss
        expected = gradients(model, loss)
        once = len(runs)
        checkpoint(model, reentrant=reentrant)
        again = model(**inputs).loss
        model(**{part: value.flip(0) if part == "pixel_values" else value for part, value in inputs.items()})
    actual = gradients(model, again)

    first, second, _ = session.records
    assert all(torch.equal(*pair) for pair in zip(first.kept, second.kept, strict=True))
    # One run of the forward, one of the other prompt's, and one of the backward pass.
    assert len(runs) == once + 3
    torch.testing.assert_close(again, loss)
    assert_same(actual, expected)


@variants
def test_a_cache_that_checkpointed_layers_leave_empty_is_not_marked(reentrant: bool) -> None:
    """With `use_cache=True` it comes back empty, as without pruning."""
    model, inputs = trainable("llava-onevision")
    checkpoint(model, reentrant=reentrant)

    with prune_visual_tokens(model, budget=0.3, layer=1):
        output = model(**inputs, use_cache=True)

    cache = output.get("past_key_values", output.get("cache"))
    assert cache is None or not cache.get_seq_length()
    assert cache is None or not any("Pruned" in type(part).__name__ for part in cache.layers)


def test_checkpointing_functions_are_their_own_again_and_copies_have_none_of_ours() -> None:
    """After the session, and in a copy made within it, nothing of it is left."""
    model, inputs = trainable("llava-onevision")
    checkpoint(model, reentrant=False)
    layers = decoder_of(model).layers
    before = [layer._gradient_checkpointing_func for layer in layers]

    with prune_visual_tokens(model, budget=0.3, layer=1):
        model(**inputs)
        copied = copy.deepcopy(model)
    after = [layer._gradient_checkpointing_func for layer in layers]

    assert all(one is other for one, other in zip(before, after, strict=True))
    del inputs["labels"]
    plain = logits_of(model, inputs)
    torch.testing.assert_close(logits_of(copied, inputs), plain)
    assert not torch.allclose(pruned_logits(copied, inputs), plain)


def test_checkpointing_that_is_not_transformers_own_is_refused() -> None:
    """A decoder whose layers are no checkpointing layers would run them again behind our back."""
    model, inputs = trainable("llava-onevision")
    text = decoder_of(model)
    text.gradient_checkpointing = True

    class Plain(torch.nn.Module):
        """A layer that calls another."""

        def __init__(self, layer: Any) -> None:
            super().__init__()
            self.layer = layer

        def forward(self, hidden_states: Tensor, attention_mask: Any = None, **others: Any) -> Any:
            """Do what it does."""
            return self.layer(hidden_states, attention_mask=attention_mask, **others)

    text.layers[2] = Plain(text.layers[2])

    with (
        prune_visual_tokens(model, budget=0.3, layer=1),
        pytest.raises(NotImplementedError, match="gradient checkpointing of a Qwen2Model is not"),
    ):
        model(**inputs)
