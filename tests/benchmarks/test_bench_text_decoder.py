"""The language model's benchmark, on random weights, against a model whose layers may not attend to dropped tokens."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, Gemma3ForCausalLM, Gemma3TextConfig, LlamaConfig, LlamaForCausalLM

from iwp_core import TopK
from tests.benchmarks.letters import save_letters

LAYER = 2


@pytest.fixture(scope="module", params=["llama", "gemma3"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a small decoder with random weights, grouped key/value heads, and a vocabulary of letters."""
    place = tmp_path_factory.mktemp("decoder")
    shape: dict[str, Any] = {
        "vocab_size": save_letters(place, bos_token="[CLS]"),
        "hidden_size": 32,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 64,
        "initializer_range": 0.2,
    }
    torch.manual_seed(0)
    if request.param == "llama":
        LlamaForCausalLM(LlamaConfig(**shape)).save_pretrained(place)
        return place
    kinds = ["sliding_attention", "sliding_attention", "full_attention", "sliding_attention"]
    # The scale of its logits is its own, and not the width of a head.
    config = Gemma3TextConfig(**shape, head_dim=8, query_pre_attn_scalar=16, layer_types=kinds)
    Gemma3ForCausalLM(config).save_pretrained(place)
    return place


@pytest.fixture(scope="module")
def decoder(folder: Path) -> Any:
    """Give the benchmark's decoder, on few passages."""
    return import_module("bench_text_decoder").Decoder(folder, 3, 0)


def masked_divergence(folder: Path, ids: torch.Tensor, asking: int, kept: torch.Tensor) -> float:
    """Run one passage at full length, where layers from `LAYER` on give dropped tokens no weight."""
    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
    dropped = torch.ones(len(ids), dtype=torch.bool)
    dropped[0] = dropped[-asking:] = False
    dropped[1 + kept] = False
    later = torch.ones(len(ids), len(ids), dtype=torch.bool).triu(1)
    hidden = (later | dropped) & ~torch.eye(len(ids), dtype=torch.bool)  # dropped ones see themselves
    bias = torch.zeros(1, 1, len(ids), len(ids)).masked_fill(hidden, -torch.inf)
    with torch.no_grad():
        wanted = model(input_ids=ids[None]).logits[0, -asking:].double().log_softmax(-1)
        for layer in model.model.layers[LAYER:]:
            layer.register_forward_pre_hook(
                lambda _module, args, kwargs: (args, {**kwargs, "attention_mask": bias}), with_kwargs=True
            )
        found = model(input_ids=ids[None]).logits[0, -asking:].double().log_softmax(-1)
    return float((wanted.exp() * (wanted - found)).sum(-1).mean())


def test_divergence_is_that_of_a_model_that_may_not_attend_to_dropped_tokens(folder: Path, decoder: Any) -> None:
    """Passage by passage; with every token kept nothing moves."""
    script = import_module("bench_text_decoder")
    candidates = script.LENGTH - script.ASKING - 1
    generator = torch.Generator().manual_seed(0)
    kept = [torch.randperm(candidates, generator=generator)[:20] for _ in decoder.ids]

    found = decoder.divergence(LAYER, kept)

    expected = [masked_divergence(folder, ids, script.ASKING, row) for ids, row in zip(decoder.ids, kept, strict=True)]
    np.testing.assert_allclose(found, expected, rtol=1e-3)
    assert found.min() > 0.01
    assert decoder.divergence(LAYER, [torch.arange(candidates)] * len(kept)).max() < 1e-5


def test_rules_read_what_the_layer_computes(folder: Path, decoder: Any) -> None:
    """Attention of the asking tokens to candidates, put together from a rule's inputs, is the model's own."""
    script = import_module("bench_text_decoder")
    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
    with torch.no_grad():
        own = model(input_ids=decoder.ids[:1], output_attentions=True).attentions[LAYER][0]

    here = decoder.inputs(LAYER, 0)[-1]

    keys = here.rotated_keys.repeat_interleave(2, dim=0)
    logits = here.rotated_queries @ keys.mT / keys.shape[-1] ** 0.5
    shares = (logits - torch.logaddexp(logits.logsumexp(-1), here.context)[..., None]).exp()
    torch.testing.assert_close(shares, own[:, -script.ASKING :, 1 : -script.ASKING])


def test_a_folder_without_a_decoder_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By name, before anything is measured."""
    with pytest.raises(SystemExit):
        import_module("bench_text_decoder").main([str(tmp_path)])

    assert "holds no config.json and no GGUF file" in capsys.readouterr().err


def test_every_rule_keeps_as_many_tokens_as_are_asked_for(decoder: Any) -> None:
    """Distinct positions among the candidates."""
    script = import_module("bench_text_decoder")
    for rule in script.RULES.values():
        kept = rule(decoder.inputs(LAYER, 0), 25).tolist()
        assert len(set(kept)) == 25
        assert 0 <= min(kept) <= max(kept) < script.LENGTH - script.ASKING - 1


def test_a_window_narrower_than_a_passage_is_refused(tmp_path: Path) -> None:
    """Its layers would see less than the benchmark's masks let them."""
    words = save_letters(tmp_path, bos_token="[CLS]")
    config = Gemma3TextConfig(vocab_size=words, hidden_size=8, num_hidden_layers=1, head_dim=8, sliding_window=128)
    Gemma3ForCausalLM(config).save_pretrained(tmp_path)

    with pytest.raises(ValueError, match="window is 128, expected 256 or more"):
        import_module("bench_text_decoder").Decoder(tmp_path, 1, 0)


def test_outputs_pool_by_the_lengths_of_contributions(decoder: Any) -> None:
    """The root of the sum of squares over heads and layers, then the sum over queries, read slowly in float64."""
    inputs, total = decoder.inputs(LAYER, 0), 0.0
    for query in range(inputs[-1].rotated_queries.shape[1]):
        squares = 0.0
        for here in inputs[-2:]:
            keys, values, queries = (x.double().numpy() for x in (here.rotated_keys, here.values, here.rotated_queries))
            for head in range(len(queries)):
                logits = keys[head // 2] @ queries[head, query] / keys.shape[-1] ** 0.5
                shares = np.exp(logits) / (np.exp(logits).sum() + np.exp(float(here.context[head, query])))
                squares = squares + (shares * np.linalg.norm(values[head // 2], axis=-1)) ** 2
        total = total + np.sqrt(squares)

    kept = import_module("text_rules").by_outputs(2, TopK())(inputs, 20)

    assert sorted(kept.tolist()) == sorted(np.argsort(-np.asarray(total))[:20].tolist())


@pytest.mark.parametrize("name", ["by_deviation", "from_outside"])
def test_states_have_every_dimension_in_units_of_its_deviation(name: str) -> None:
    """A dimension with large numbers has no more say; one that is the same for all tokens has none."""
    states = np.random.default_rng(0).normal(size=(9, 4)) * [1.0, 1e3, 1e-3, 1.0] + [0.5, 2e3, 0.0, 0.0]
    states[:, 3] = 1 / 3

    found = getattr(import_module("pooling_rules"), name)(torch.from_numpy(states)).numpy()

    spread = states[:, :3].std(axis=0)
    if name == "by_deviation":
        expected = np.concatenate([states[:, :3] / spread, np.zeros((9, 1))], axis=1)
    else:
        moved = (states[:, :3] - states[:, :3].mean(axis=0)) / spread
        expected = np.concatenate([moved, np.zeros((9, 1)), np.full((9, 1), 3**0.5)], axis=1)
    np.testing.assert_allclose(found, expected, atol=1e-12)
