"""The text encoder's benchmark, on random weights, against an encoder whose layers may not attend to dropped tokens."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertModel

from tests.benchmarks.letters import save_letters

LAYER = 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a small encoder with random weights and a vocabulary of letters."""
    place = tmp_path_factory.mktemp("encoder")
    words = save_letters(place)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=words, hidden_size=32, num_hidden_layers=4, num_attention_heads=4, intermediate_size=64
    )
    config.initializer_range = 0.2
    BertModel(config).save_pretrained(place)
    return place


@pytest.fixture(scope="module")
def encoder(folder: Path) -> Any:
    """Give the benchmark's encoder, on few passages."""
    script = import_module("bench_text_encoder")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(script, "PASSAGES", 3)
        return script.Encoder(folder)


def masked_error(folder: Path, ids: torch.Tensor, asking: int, kept: torch.Tensor) -> float:
    """Run one passage at full length, where layers from `LAYER` on give dropped tokens no weight."""
    model = BertModel.from_pretrained(folder, attn_implementation="eager").eval()
    dropped = torch.ones(len(ids), dtype=torch.bool)
    dropped[:asking] = False
    dropped[asking + kept] = False
    bias = torch.zeros(1, 1, len(ids), len(ids)).masked_fill(dropped, -torch.inf)
    with torch.no_grad():
        wanted = model(input_ids=ids[None]).last_hidden_state[0, :asking]
        for layer in model.encoder.layer[LAYER:]:
            layer.register_forward_pre_hook(lambda _module, args: (args[0], bias))
        found = model(input_ids=ids[None]).last_hidden_state[0, :asking]
    return float((found - wanted).norm() / wanted.norm())


def test_errors_are_those_of_an_encoder_that_may_not_attend_to_dropped_tokens(folder: Path, encoder: Any) -> None:
    """Passage by passage; with every token kept nothing is missed."""
    script = import_module("bench_text_encoder")
    candidates = script.LENGTH - script.ASKING
    generator = torch.Generator().manual_seed(0)
    kept = [torch.randperm(candidates, generator=generator)[:20].sort().values for _ in encoder.ids]

    errors = encoder.errors(LAYER, kept)

    expected = [masked_error(folder, ids, script.ASKING, row) for ids, row in zip(encoder.ids, kept, strict=True)]
    np.testing.assert_allclose(errors, expected, rtol=1e-3)
    assert errors.min() > 0.01
    assert encoder.errors(LAYER, [torch.arange(candidates)] * len(kept)).max() < 1e-5


def test_rules_read_what_the_layer_computes(folder: Path, encoder: Any) -> None:
    """Attention of the asking tokens, put together from the rules' inputs, is the encoder's own."""
    script = import_module("bench_text_encoder")
    given = encoder.inputs(LAYER)[0]
    model = BertModel.from_pretrained(folder, attn_implementation="eager").eval()
    with torch.no_grad():
        attention = model(input_ids=encoder.ids[:1], output_attentions=True).attentions[LAYER][0]
    theirs = attention[:, : script.ASKING, script.ASKING :]
    logits = given.queries @ given.keys.mT / given.keys.shape[-1] ** 0.5

    torch.testing.assert_close(logits.softmax(-1), theirs / theirs.sum(-1, keepdim=True), rtol=1e-4, atol=1e-6)


def test_every_rule_keeps_as_many_as_asked_for(encoder: Any) -> None:
    """Distinct positions among the candidates."""
    script = import_module("bench_text_encoder")
    given = encoder.inputs(LAYER)[0]
    for name, rule in script.RULES.items():
        kept = rule(given, 25, 0)
        assert len(set(kept.tolist())) == 25, name
        assert 0 <= int(kept.min()) <= int(kept.max()) < len(given.hidden), name


def test_a_folder_without_an_encoder_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The message says which folder, and what was expected."""
    monkeypatch.setattr("sys.argv", ["bench_text_encoder.py", str(tmp_path)])

    with pytest.raises(SystemExit):
        import_module("bench_text_encoder").main()

    assert str(tmp_path) in capsys.readouterr().err
