"""Costs are counted from what runs: packed weights, adapters, casts; and where a number cannot be had it says so."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from iwp_transformers import PrefillSummary, prune_visual_tokens
from tests.integrations.prompts import PAIR
from tests.integrations.selectors import Chance
from tests.integrations.test_record import cached_bytes
from tests.integrations.tiny_models import CACHE, FACTORIES, LAYERS, TEXT, make_inputs

LAYER = 1


class PackedLinear(nn.Module):
    """Two weights in a byte, as 4-bit libraries pack them: no `nn.Linear`, and half as many entries as weights."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.scale = float(linear.weight.detach().abs().max()) / 7
        levels = (linear.weight.detach() / self.scale).round().to(torch.int8) + 8
        self.register_buffer("packed", levels[:, ::2] * 16 + levels[:, 1::2])
        self.bias = linear.bias

    def weight_of(self) -> Tensor:
        """Unpack."""
        packed = self.packed.to(torch.int16) & 0xFF
        levels = torch.stack((packed // 16, packed % 16), dim=-1).flatten(1)
        return (levels - 8) * self.scale

    def forward(self, hidden: Tensor) -> Tensor:
        """Multiply with the unpacked weights."""
        return nn.functional.linear(hidden, self.weight_of(), self.bias)


class OpaqueLinear(PackedLinear):
    """The same without a word on its shape."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__(linear)
        del self.in_features, self.out_features


class SpareLinear(nn.Module):
    """A linear layer in a wrapper, beside one that never runs: an adapter that is loaded and not active."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.base_layer = linear
        self.spare = nn.Linear(linear.in_features, linear.out_features)

    @property
    def weight(self) -> Tensor:
        """The base layer's."""
        return self.base_layer.weight

    def forward(self, hidden: Tensor) -> Tensor:
        """Run the base layer."""
        out: Tensor = self.base_layer(hidden)
        return out


class LowRankLinear(SpareLinear):
    """A linear layer with a low-rank adapter that runs."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__(linear)
        self.lora_A = nn.Linear(linear.in_features, 2, bias=False)
        self.lora_B = nn.Linear(2, linear.out_features, bias=False)

    def forward(self, hidden: Tensor) -> Tensor:
        """Add the adapter's part."""
        return super().forward(hidden) + self.lora_B(self.lora_A(hidden))


KINDS = {"packed": PackedLinear, "opaque": OpaqueLinear, "spare": SpareLinear, "low rank": LowRankLinear}


def replaced(kind: type[nn.Module], layers: list[int]) -> Any:
    """Return LLaVA-OneVision with other linear layers in some decoder layers."""
    model: Any = FACTORIES["llava-onevision"]()
    for index in layers:
        block = model.model.language_model.layers[index]
        for part in (block.self_attn, block.mlp):
            for name, child in list(part.named_children()):
                if isinstance(child, nn.Linear):
                    setattr(part, name, kind(child))
    return model.train(False)


def counted(model: Any, inputs: dict[str, Any]) -> int:
    """Count the operations of the decoder layers as torch does."""
    blocks = list(model.model.language_model.layers)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(**inputs)
    names = [name for name, part in model.named_modules() if part in blocks]
    tables = counter.get_flop_counts()
    return sum(sum(table.values()) for key, table in tables.items() if any(key.endswith(name) for name in names))


def summed(model: Any, inputs: dict[str, Any]) -> tuple[PrefillSummary, int, int]:
    """Return a summary, and what torch counts without and with pruning, less the half that causality spares."""
    model.set_attn_implementation("eager")
    full = counted(model, inputs)
    with prune_visual_tokens(model, budget=0.3, layer=LAYER, selector=Chance()) as session:
        pruned = counted(model, inputs)
    record = session.records[-1]

    def spared(length: int) -> int:
        return 2 * len(PAIR) * TEXT["hidden_size"] * length * (length - 1)

    long, short = spared(record.padded_full), spared(record.padded_pruned)
    return record.summary(), full - LAYERS * long, pruned - LAYER * long - (LAYERS - LAYER) * short


@pytest.mark.parametrize("layers", [list(range(LAYERS)), [0, 2]], ids=["all layers", "some layers"])
@pytest.mark.parametrize("kind", KINDS)
def test_operations_of_layers_that_are_no_plain_linears_are_right_or_unknown(kind: str, layers: list[int]) -> None:
    """They are those that torch counts, or None, in every number that depends on them."""
    model = replaced(KINDS[kind], layers)

    summary, full, pruned = summed(model, make_inputs(model, PAIR))

    if summary.flops_full is None:
        assert summary.flops_pruned is None
        assert summary.flops_share is None
    else:
        assert summary.flops_full == full
        assert summary.flops_pruned == pruned
        assert summary.flops_share == pytest.approx(pruned / full)


@pytest.mark.parametrize("kind", ["spare", "low rank"])
def test_operations_of_adapters_are_known(kind: str) -> None:
    """A wrapped plain linear layer is no riddle: what runs in it can be counted."""
    model = replaced(KINDS[kind], [0, 1, 2, 3])

    summary, full, pruned = summed(model, make_inputs(model, PAIR))

    assert (summary.flops_full, summary.flops_pruned) == (full, pruned)


@pytest.mark.parametrize("kind", KINDS)
def test_the_report_of_unknown_costs_says_so(kind: str) -> None:
    """The text has its four lines, without a wrong number in them."""
    model = replaced(KINDS[kind], [0, 1, 2, 3])
    with prune_visual_tokens(model, budget=0.3, layer=LAYER) as session, torch.no_grad():
        model(**make_inputs(model, PAIR))

    summary = session.records[-1].summary()
    lines = str(summary).splitlines()

    assert len(lines) == 4
    assert "None" not in str(summary)
    if summary.flops_full is None:
        assert "unknown" in lines[2] or "not known" in lines[2]


@pytest.mark.filterwarnings("ignore::FutureWarning")  # peft asks models by old names
def test_peft_adapters_count_what_runs() -> None:
    """Active, merged and switched off, the operations are those that torch counts."""
    peft = pytest.importorskip("peft", reason="adapters need peft")
    model = FACTORIES["llava-onevision"]()
    inputs = make_inputs(model, PAIR)
    config = peft.LoraConfig(target_modules=["q_proj", "v_proj", "down_proj"], r=2, init_lora_weights=False)
    adapted = peft.get_peft_model(model, config).eval()

    for change in (lambda: None, adapted.base_model.disable_adapter_layers, adapted.merge_adapter):
        change()
        summary, full, pruned = summed(model, inputs)
        assert (summary.flops_full, summary.flops_pruned) == (full, pruned)
        adapted.base_model.enable_adapter_layers()


def test_cache_bytes_under_autocast_are_those_of_the_cached_tensors() -> None:
    """Keys are cast where hidden states are not."""
    model = FACTORIES["llava-onevision"]()
    inputs = make_inputs(model, PAIR)

    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        full = model(**inputs, use_cache=True).past_key_values
        with prune_visual_tokens(model, budget=0.3, layer=LAYER, selector=Chance()) as session:
            pruned = model(**inputs, use_cache=True).past_key_values

    summary = session.records[-1].summary()
    assert summary.kv_bytes_full == cached_bytes(full)
    assert summary.kv_bytes_pruned == cached_bytes(pruned)


def test_cache_bytes_saved_of_a_static_cache_are_those_not_allocated() -> None:
    """Layers behind the pruned one may be allocated shorter, or not; the record says which."""
    from transformers import StaticCache

    model = FACTORIES["llava-onevision"]()
    inputs = make_inputs(model, PAIR)
    caches = [StaticCache(config=model.config.get_text_config(), max_cache_len=160) for _ in range(2)]

    with torch.no_grad():
        model(**inputs, **{CACHE: caches[0]})
        with prune_visual_tokens(model, budget=0.3, layer=LAYER, selector=Chance()) as session:
            model(**inputs, **{CACHE: caches[1]})

    summary = session.records[-1].summary()
    allocated = [sum(part.keys.nbytes + part.values.nbytes for part in cache.layers) for cache in caches]
    assert summary.kv_bytes_saved == allocated[0] - allocated[1]


@pytest.fixture
def one_operation(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Let attention be the one operation that it is on a GPU, counted as torch before 2.12 did.

    Gives how many heads of queries share one of keys, call by call.
    """
    shared: list[int] = []
    flash = torch.ops.aten._scaled_dot_product_flash_attention
    attention = nn.functional.scaled_dot_product_attention

    def on_cpu(query: Tensor, key: Tensor, value: Tensor, _: float = 0.0, causal: bool = False, **options: Any) -> Any:
        shared.append(query.shape[1] // key.shape[1])
        found = attention(query, key, value, None, 0.0, causal, enable_gqa=True, **options)
        unused = torch.zeros(2, dtype=torch.uint64)
        return found, found[..., 0], None, None, 0, 0, unused, unused, found

    def one(query: Tensor, key: Tensor, value: Tensor, attn_mask: Any = None, **options: Any) -> Tensor:
        assert attn_mask is None, "padded rows take another kernel"
        return flash(query, key, value, 0.0, options["is_causal"], scale=options["scale"])[0]

    def without_groups(query: Tensor, key: Tensor, value: Tensor, *_others: Any, **_options: Any) -> int:
        assert query.shape[1] == key.shape[1], "query/key/value shapes are incompatible"
        return 2 * key.shape[-2] * query[..., 0].numel() * (query.shape[-1] + value.shape[-1])

    monkeypatch.setitem(flop_registry, flash, without_groups)
    monkeypatch.setattr(nn.functional, "scaled_dot_product_attention", one)
    library = torch.library.Library("aten", "IMPL")
    library.impl("_scaled_dot_product_flash_attention", on_cpu, "CPU")
    try:
        yield shared
    finally:
        library._destroy()


@pytest.mark.parametrize("heads_are_read", [True, False])
def test_operations_are_known_where_attention_with_shared_heads_is_one_operation(
    one_operation: list[int], heads_are_read: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are those of the eager attention, also where only the operation itself tells its width."""
    if not heads_are_read:
        monkeypatch.setattr("iwp_transformers.cost._pair_width", lambda *_: None)
    model = FACTORIES["llava-onevision"]()
    inputs = make_inputs(model, PAIR[:1])
    found = []

    for attention in ("eager", "sdpa"):
        model.set_attn_implementation(attention)
        with prune_visual_tokens(model, budget=0.3, layer=LAYER, selector=Chance()) as session, torch.no_grad():
            model(**inputs)
        found.append(session.records[-1].summary())

    eager, fused = found
    assert 2 in one_operation
    assert fused.flops_full is not None
    assert (fused.flops_full, fused.flops_pruned) == (eager.flops_full, eager.flops_pruned)
