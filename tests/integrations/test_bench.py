"""`bench`: what it measures is what it says, and the model comes out as it went in."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from transformers import CompileConfig

from iwp_transformers import bench, prune_visual_tokens
from iwp_transformers.hooks import is_pruned
from iwp_transformers.memory import PeakMemory
from iwp_transformers.timed_generation import timed_generation
from tests.integrations.prompts import BOTH, EIGHT
from tests.integrations.tiny_models import FACTORIES, make_inputs


def batch_of(model: Any) -> dict[str, Any]:
    """Return a left-padded batch of two prompts with images."""
    return make_inputs(model, EIGHT[:2])


@pytest.mark.parametrize("family", BOTH)
def test_bench_counts_the_tokens_of_both_ways_and_times_each_repeat(family: str) -> None:
    """Counts are those of a session; every repeat has a time for the first token, for later ones, and for choosing."""
    model: Any = FACTORIES[family]()
    inputs = batch_of(model)
    with prune_visual_tokens(model, budget=0.3, layer=1) as session:
        model.generate(**inputs, max_new_tokens=1)
    expected = session.records[-1].summary()

    report = bench(model, inputs, budget=0.3, layer=1, new_tokens=3, repeats=2)

    assert (report.full.visual_tokens, report.pruned.visual_tokens) == (expected.visual_tokens, expected.kept_tokens)
    assert (report.samples, report.new_tokens, report.compiled) == (2, 3, False)
    for measured in (report.full, report.pruned):
        assert len(measured.first_token_seconds) == len(measured.token_seconds) == 2
        assert min(*measured.first_token_seconds, *measured.token_seconds) > 0
    assert len(report.pruned.selection_seconds) == 2
    assert 0 < report.selection_share < 1
    assert report.full.selection_seconds == ()
    assert not any(is_pruned(module) for module in model.modules())


def test_bench_report_is_json_with_its_ratios() -> None:
    """What was measured and what follows from it survive a round trip through JSON."""
    model: Any = FACTORIES["qwen2.5-vl"]()

    report = bench(model, batch_of(model), budget=4, layer=1, new_tokens=1, repeats=1)

    told = json.loads(json.dumps(report.to_dict()))
    assert told["token_ratio"] is None
    assert told["full"]["token_seconds"] == []
    ratio = told["pruned"]["first_token_seconds"][0] / told["full"]["first_token_seconds"][0]
    assert told["first_token_ratio"] == pytest.approx(ratio)


def test_bench_of_compiled_decoding_compiles_both_ways() -> None:
    """A backend that notes what it is given sees steps of one token while each way is measured."""
    model: Any = FACTORIES["llava-onevision"]()
    seen: list[bool] = []

    def backend(graph: Any, _: object) -> Any:
        seen.append(any(is_pruned(module) for module in model.modules()))
        return graph.forward

    torch.compiler.reset()
    report = bench(
        model,
        batch_of(model),
        budget=4,
        layer=1,
        new_tokens=3,
        repeats=1,
        compiled=CompileConfig(backend=backend, mode="default"),
    )

    assert set(seen) == {True, False}
    assert report.compiled


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"new_tokens": 0}, "`new_tokens` is 0"),
        ({"repeats": True}, "`repeats` is True"),
        ({"budget": 0}, "budget"),
        ({"layer": 99}, "layer"),
    ],
)
def test_bench_refuses_what_cannot_be_measured_before_it_measures(
    settings: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model is not called."""
    model: Any = FACTORIES["qwen2.5-vl"]()
    inputs = batch_of(model)
    monkeypatch.setattr(type(model), "generate", lambda *_, **__: pytest.fail("the model was called"))

    with pytest.raises(ValueError, match=message):
        bench(model, inputs, **{"budget": 4, "layer": 1, **settings})


def test_bench_refuses_inputs_without_a_picture() -> None:
    """There is nothing to prune in text alone."""
    model: Any = FACTORIES["qwen2.5-vl"]()
    inputs = {"input_ids": torch.tensor([[1, 2, 3]]), "attention_mask": torch.ones(1, 3, dtype=torch.long)}

    with pytest.raises(ValueError, match="no visual token"):
        bench(model, inputs, budget=4, layer=1, repeats=1, new_tokens=1)


def test_timed_generation_stops_where_generate_does() -> None:
    """The clock never stops a generation: the ids are those of a plain call, for a batch."""
    model: Any = FACTORIES["qwen2.5-vl"]()
    inputs = batch_of(model)
    plain = model.generate(**inputs, max_new_tokens=4, do_sample=False)

    timed = timed_generation(model, inputs, max_new_tokens=4)

    assert torch.equal(timed.ids, plain[:, inputs["input_ids"].shape[1] :])


def test_peak_memory_sees_what_was_freed_before_the_end() -> None:
    """A block that holds 64 MiB for a moment has lifted the memory by about as much."""
    with PeakMemory(torch.device("cpu")) as memory:
        held = torch.ones(2**24)
        del held

    assert memory.bytes is None or 2**25 < memory.bytes < 2**28
