"""Layers whose `forward` others have put something around: what moves or compiles it is looked through."""

from collections.abc import Callable
from functools import partial, wraps
from types import MethodType
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers.models.qwen2.modeling_qwen2 import ALL_ATTENTION_FUNCTIONS, apply_rotary_pos_emb

from iwp_transformers import prune_visual_tokens
from tests.integrations.prompts import BOTH, PAIR, first_ones, logits_of, pruned_logits
from tests.integrations.test_views import assert_shown_is_received
from tests.integrations.tiny_models import CACHE, FACTORIES, make_inputs


def layers_of(model: Any) -> Any:
    """Return the decoder's layers."""
    return model.model.language_model.layers


def doubled_queries(
    self: Any, hidden_states: Tensor, position_embeddings: Any, attention_mask: Any, **kwargs: Any
) -> Any:
    """Attend as Qwen2 does, with queries twice as long."""
    shape = (*hidden_states.shape[:-1], -1, self.head_dim)
    parts = [each(hidden_states).view(shape).transpose(1, 2) for each in (self.q_proj, self.k_proj, self.v_proj)]
    queries, keys = apply_rotary_pos_emb(2 * parts[0], parts[1], *position_embeddings)
    values, cache = parts[2], kwargs.get(CACHE)
    if cache is not None:
        keys, values = cache.update(keys, values, self.layer_idx)
    attend = ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, None)
    out, _ = attend(self, queries, keys, values, attention_mask, dropout=0.0, scaling=self.scaling)
    return self.o_proj(out.reshape(*hidden_states.shape[:-1], -1)), None


def test_a_forward_that_was_put_on_an_attention_is_the_one_that_is_read() -> None:
    """A rule would choose by other queries than the layer computes, if it read those of the class."""
    model: Any = FACTORIES["llava-onevision"]()
    for layer in layers_of(model):
        layer.self_attn.forward = MethodType(doubled_queries, layer.self_attn)

    assert_shown_is_received(model, 1)


WRAPPERS: dict[str, Callable[[Callable[..., Any]], Callable[..., Any]]] = {
    "closure": lambda own: lambda *args, **kwargs: (own(*args, **kwargs),)[0],
    "default": lambda own: lambda *args, _own=own, **kwargs: _own(*args, **kwargs),
    "partial": lambda own: partial(checkpoint, own, use_reentrant=False),
    "wraps": lambda own: wraps(own)(lambda hidden_states, **kwargs: own(hidden_states=2 * hidden_states, **kwargs)),
}


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("wrapped", ["layer", "attention"])
def test_functions_around_a_forward_are_run_when_it_is_read(wrapped: str, wrapper: str) -> None:
    """Whatever they do to the inputs is done for the rule too."""
    model: Any = FACTORIES["llava-onevision"]()
    for layer in layers_of(model):
        part = layer if wrapped == "layer" else layer.self_attn
        part.forward = WRAPPERS[wrapper](part.forward)

    assert_shown_is_received(model, 1)


def test_a_forward_that_cannot_be_read_is_refused_for_rules_that_read_it() -> None:
    """One that calls no attention function of Transformers; a selector that reads no keys prunes on."""
    model: Any = FACTORIES["llava-onevision"]()
    inputs = make_inputs(model, PAIR)
    expected = pruned_logits(model, inputs, selector=first_ones)
    for layer in layers_of(model):
        layer.self_attn = Hidden(layer.self_attn)
        layer.self_attn.forward = layer.self_attn.run

    with pytest.raises(NotImplementedError, match=r"`forward` that was put on it .* no queries and keys"):
        prune_visual_tokens(model, budget=0.3, layer=1)
    assert torch.equal(pruned_logits(model, inputs, selector=first_ones), expected)


class Hidden(nn.Module):
    """An attention that nobody finds the attention function of."""

    def __init__(self, attention: nn.Module) -> None:
        super().__init__()
        self.held = [attention]

    def run(self, **kwargs: Any) -> Any:
        """Attend."""
        return self.held[0](**kwargs)


def whole_layer(model: Any) -> None:
    """Compile the layer that prunes, as accelerate's `compile_regions` does with each."""
    layers_of(model)[1] = torch.compile(layers_of(model)[1], backend="eager")


def attention_alone(model: Any) -> None:
    """Compile the attention of the layer that prunes."""
    layers_of(model)[1].self_attn = torch.compile(layers_of(model)[1].self_attn, backend="eager")


@pytest.mark.filterwarnings("ignore")  # torch.compile warns of its own parts
@pytest.mark.parametrize("compile_parts", [whole_layer, attention_alone])
def test_layers_that_were_compiled_by_themselves_prune(compile_parts: Callable[[Any], None]) -> None:
    """The rule reads the layer behind the compiled one; operations are counted there too."""
    torch.compiler.reset()
    model: Any = FACTORIES["llava-onevision"]()
    inputs = make_inputs(model, PAIR)
    with prune_visual_tokens(model, budget=0.3, layer=1) as session:
        expected = logits_of(model, inputs)
    flops = session.records[-1].summary().flops_full
    compile_parts(model)

    with prune_visual_tokens(model, budget=0.3, layer=1) as session:
        logits = logits_of(model, inputs)

    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-4)
    assert session.records[-1].summary().flops_full == flops


@pytest.mark.parametrize("brought", ["layer", "attention"])
def test_weights_that_come_for_a_whole_layer_at_once_are_read(brought: str) -> None:
    """Accelerate brings them where `preload_module_classes` says, and takes them away behind the call."""
    accelerate = pytest.importorskip("accelerate", reason="offloading needs accelerate")
    model: Any = FACTORIES["qwen2.5-vl"]()
    inputs = make_inputs(model, PAIR)
    expected = pruned_logits(model, inputs)
    layer = layers_of(model)[1]
    part = layer if brought == "layer" else layer.self_attn
    cpu = torch.device("cpu")
    accelerate.cpu_offload(model, execution_device=cpu, preload_module_classes=[type(part).__name__])

    logits = pruned_logits(model, inputs)

    assert torch.equal(logits, expected)
    assert layer.self_attn.k_proj.weight.is_meta


class Dropping(nn.Module):
    """A linear layer in training that drops some of its inputs, as the adapters of PEFT do."""

    def __init__(self, linear: nn.Module) -> None:
        super().__init__()
        self.linear, self.dropout = linear, nn.Dropout(0.5)

    def forward(self, hidden: Tensor) -> Tensor:
        """Drop and multiply."""
        out: Tensor = self.linear(self.dropout(hidden))
        return out


@pytest.mark.parametrize("family", BOTH)
def test_reading_a_layer_in_training_draws_no_random_numbers(family: str) -> None:
    """With everything kept, dropout within the projections is that of the same step without pruning."""
    model: Any = FACTORIES[family]()
    inputs = make_inputs(model, PAIR)
    for layer in layers_of(model):
        layer.self_attn.k_proj = Dropping(layer.self_attn.k_proj)
    model.train()

    torch.manual_seed(3)
    expected = logits_of(model, inputs)
    with prune_visual_tokens(model, budget=1.0, layer=1):
        torch.manual_seed(3)
        logits = logits_of(model, inputs)

    assert torch.equal(logits, expected)
