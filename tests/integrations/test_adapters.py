"""Adapters of PEFT: a rule reads what the adapted layer computes, and switching adapters leaves nothing behind."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor

from iwp_transformers import prune_visual_tokens
from tests.integrations.oracle import assert_close, dropped_tokens, forbidden, positioned, text_rows
from tests.integrations.prompts import BOTH, PAIR, logits_of, pruned_logits
from tests.integrations.test_exactness import scattered
from tests.integrations.test_views import assert_shown_is_received
from tests.integrations.tiny_models import FACTORIES, Image, make_inputs

peft = pytest.importorskip("peft", reason="adapters need peft")
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # peft asks models by old names

PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj"]
ADAPTERS: dict[str, Callable[[], Any]] = {
    "LoRA": lambda: lora(target_modules=PROJECTIONS),
    "DoRA": lambda: lora(use_dora=True),
    "LoRA in every layer": lambda: lora(target_modules="all-linear"),
    "IA3": lambda: peft.IA3Config(
        target_modules=["k_proj", "v_proj", "down_proj"], feedforward_modules=["down_proj"], init_ia3_weights=False
    ),
    "OFT": lambda: peft.OFTConfig(target_modules=PROJECTIONS, oft_block_size=4, r=0, init_weights=False),
}


def lora(**options: Any) -> Any:
    """Return a configuration of LoRA whose weights are not zero."""
    return peft.LoraConfig(**{"target_modules": PROJECTIONS, "r": 2, "init_lora_weights": False, **options})


def adapted(model: Any, config: Any) -> Any:
    """Return the PeftModel of a model."""
    torch.manual_seed(5)
    return peft.get_peft_model(model, config).eval()


@pytest.mark.parametrize("given", ["PeftModel", "base_model", "model"])
@pytest.mark.parametrize("adapter", ADAPTERS)
def test_an_adapted_model_is_pruned_exactly_whichever_part_is_given(adapter: str, given: str) -> None:
    """The logits are those of the adapted model of full length, and the wrapper's tuner is taken as well."""
    model: Any = FACTORIES["qwen2.5-vl"]()
    outer, inputs = adapted(model, ADAPTERS[adapter]()), make_inputs(model, PAIR)
    part = {"PeftModel": outer, "base_model": outer.base_model, "model": model}[given]

    with prune_visual_tokens(part, budget=0.3, layer=1, selector=scattered) as session:
        logits = logits_of(outer, positioned(model, inputs))
    dropped = dropped_tokens(session.records[-1], inputs["input_ids"].shape)
    with forbidden(model, 1, dropped, inputs["attention_mask"].bool()):
        expected = logits_of(outer, positioned(model, inputs), use_cache=False)

    rows = text_rows(inputs, dropped)
    assert dropped.any()
    assert_close(logits[rows], expected[rows])


@pytest.mark.parametrize("family", BOTH)
def test_a_view_shows_what_an_adapted_layer_hands_to_attention(family: str) -> None:
    """Queries, keys and values are those behind the adapters."""
    model = FACTORIES[family]()
    adapted(model, lora())

    assert_shown_is_received(model, 1)


@pytest.mark.parametrize("family", BOTH)
def test_adapters_can_be_switched_within_a_session(family: str) -> None:
    """Kept tokens, logits and operations are those of a session of its own for each state of the adapters."""
    model: Any = FACTORIES[family]()
    outer, inputs = adapted(model, lora()), make_inputs(model, PAIR)
    outer.add_adapter("other", lora(r=3))
    outer.eval()
    steps = ("default", "other", None, "default")

    def step(adapter: str | None) -> AbstractContextManager[Any]:
        if adapter is None:
            return outer.disable_adapter()
        outer.set_adapter(adapter)
        return nullcontext()

    found, expected = [], []
    with prune_visual_tokens(outer, budget=0.3, layer=1) as session:
        for adapter in steps:
            with step(adapter):
                found.append((logits_of(outer, inputs), session.records[-1]))
    for adapter in steps:
        with step(adapter), prune_visual_tokens(outer, budget=0.3, layer=1) as session:
            expected.append((logits_of(outer, inputs), session.records[-1]))

    for (logits, record), (own, alone) in zip(found, expected, strict=True):
        assert torch.equal(logits, own)
        assert all(map(torch.equal, record.kept, alone.kept))
        assert record.summary().flops_full == alone.summary().flops_full
    assert found[0][1].summary().flops_full != found[2][1].summary().flops_full


def test_each_sample_of_a_batch_may_have_its_own_adapter() -> None:
    """With `adapter_names`, each sample keeps and answers what it does alone with its adapter."""
    model: Any = FACTORIES["qwen2.5-vl"]()
    outer, inputs = adapted(model, lora(exclude_modules=".*visual.*")), make_inputs(model, PAIR)
    outer.add_adapter("other", lora(r=3, exclude_modules=".*visual.*"))
    outer.eval()
    names = ["default", "other"]

    with prune_visual_tokens(outer, budget=0.3, layer=1) as session:
        logits = logits_of(outer, inputs, adapter_names=names)
        for sample, name in enumerate(names):
            outer.set_adapter(name)
            alone, rows = logits_of(outer, inputs), inputs["attention_mask"][sample].bool()
            assert torch.equal(session.records[0].kept[sample], session.records[-1].kept[sample])
            assert_close(logits[sample, rows], alone[sample, rows])


def test_virtual_tokens_of_prefix_tuning_stand_before_the_prompt() -> None:
    """They are earlier tokens of the cache: all layers see them, and positions count from behind them."""
    virtual, inputs = 3, None
    model: Any = FACTORIES["llava-onevision"]()
    inputs = make_inputs(model, [(3, Image(), 5), (2, Image(32, 16), 6)], "right")
    outer = adapted(model, peft.PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=virtual))
    torch.manual_seed(0)
    for name, part in outer.named_parameters():
        if "prompt_encoder" in name:
            part.data = torch.randn(part.shape)

    with prune_visual_tokens(outer, budget=0.3, layer=1, selector=scattered) as session:
        logits = logits_of(outer, inputs)
    record = session.records[-1]
    real = inputs["attention_mask"].bool()
    dropped = dropped_tokens(record, (len(real), virtual + real.shape[1]))[:, virtual:]

    def mask(_layer: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        length = real.shape[1]
        seen = (real & ~dropped)[:, None, None] & torch.ones(length, length, dtype=torch.bool).tril()
        return args, {**kwargs, "attention_mask": torch.nn.functional.pad(seen, (virtual, 0), value=True)}

    for layer in model.model.language_model.layers[1:]:
        layer.register_forward_pre_hook(mask, with_kwargs=True)
    expected = logits_of(outer, inputs)

    rows = text_rows(inputs, dropped)
    assert dropped.any()
    assert_close(logits[rows], expected[rows])


def test_virtual_tokens_that_come_as_embeddings_are_refused() -> None:
    """Prompt tuning hands embeddings on without their ids."""
    model: Any = FACTORIES["llava-onevision"]()
    inputs = make_inputs(model, [(3, Image(), 5)])
    outer = adapted(model, peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3))

    with (
        prune_visual_tokens(outer, budget=0.3, layer=1) as session,
        pytest.raises(NotImplementedError, match="input_ids"),
    ):
        logits_of(outer, inputs)
    assert not session.records


def test_an_activated_lora_is_refused_unless_it_is_switched_off() -> None:
    """It counts rows from the end of the sequence to where its invocation begins."""
    model: Any = FACTORIES["qwen2.5-vl"]()
    inputs = make_inputs(model, PAIR)
    expected = pruned_logits(model, inputs)
    config = lora(task_type="CAUSAL_LM", exclude_modules=".*visual.*", alora_invocation_tokens=[7, 8])
    outer = adapted(model, config)

    with prune_visual_tokens(outer, budget=0.3, layer=1) as session:
        with pytest.raises(NotImplementedError, match=r"activated LoRA.*disable_adapter"):
            logits_of(outer, inputs)
        assert not session.records
        with outer.disable_adapter():
            logits: Tensor = logits_of(outer, inputs)

    assert torch.equal(logits, expected)
