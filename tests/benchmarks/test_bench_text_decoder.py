"""The language model's benchmark, on random weights, against a model whose layers may not attend to dropped tokens."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from tests.benchmarks.letters import save_letters

LAYER = 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a small decoder with random weights, grouped key/value heads, and a vocabulary of letters."""
    place = tmp_path_factory.mktemp("decoder")
    words = save_letters(place, bos_token="[CLS]")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=words,
        hidden_size=32,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=64,
        initializer_range=0.2,
    )
    LlamaForCausalLM(config).save_pretrained(place)
    return place


@pytest.fixture(scope="module")
def decoder(folder: Path) -> Any:
    """Give the benchmark's decoder, on few passages."""
    return import_module("bench_text_decoder").Decoder(folder, 3, 0)


def masked_divergence(folder: Path, ids: torch.Tensor, asking: int, kept: torch.Tensor) -> float:
    """Run one passage at full length, where layers from `LAYER` on give dropped tokens no weight."""
    model = LlamaForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
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
    model = LlamaForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
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
