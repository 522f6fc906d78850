"""Layers that score: their heads are pooled, against each layer's own projections, read independently."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from iwp_transformers import prune_visual_tokens, readable
from tests import oracles
from tests.integrations.oracle import positioned, sample_of
from tests.integrations.prompts import BOTH
from tests.integrations.test_adaptive import kept_by, own_doubles, places_of
from tests.integrations.test_selection import LAYER, PROMPTS, gentle
from tests.integrations.tiny_models import FACTORIES, make_inputs


def said(
    own: dict[str, np.ndarray], visual: list[int], question: list[int], heads: Any, unseen: Sequence[int] = ()
) -> list[np.ndarray]:
    """Return one row of magnitudes for each head and query of a layer, by the definition of `heads`."""
    rows, group = [], own["queries"].shape[0] // own["keys"].shape[0]
    for head in range(own["queries"].shape[0]):
        lengths = np.linalg.norm(own["values"][head // group][visual], axis=-1)
        keys = own["keys"][head // group][visual]
        if heads in {"mean", "softmax_mean"}:
            row = np.exp(keys @ own["queries"][head, question].mean(0) / np.sqrt(keys.shape[-1])) * lengths
            rows.append(row if heads == "mean" else row / row.sum())
            continue
        for place in question:
            logits = own["keys"][head // group] @ own["queries"][head, place] / np.sqrt(keys.shape[-1])
            if heads == "softmax_mean_per_query":
                row = np.exp(logits[visual]) * lengths
                rows.append(row / row.sum())
            else:
                seen = sorted({*range(place + 1), *visual} - {*unseen})
                rows.append(np.exp(logits[visual]) / np.exp(logits[seen]).sum() * lengths)
    return rows


@pytest.mark.parametrize("layers", [2, 3, (0, 2), (1,)], ids=str)
@pytest.mark.parametrize("heads", ["max", 4.0, "mean", "softmax_mean", "softmax_mean_per_query"])
@pytest.mark.parametrize("family", BOTH)
def test_the_heads_of_all_layers_that_have_a_say_are_pooled(family: str, heads: Any, layers: Any) -> None:
    """Each layer with its own queries, keys and values, as if its heads were more heads of one layer."""
    model = gentle(family)
    inputs = make_inputs(model, PROMPTS)
    numbers = layers if isinstance(layers, tuple) else range(LAYER + 1 - layers, LAYER + 1)

    with prune_visual_tokens(model, budget=6, layer=LAYER, layers=layers, heads=heads) as session, torch.no_grad():
        model(**positioned(model, inputs))

    for sample, kept in enumerate(session.records[-1].kept):
        single = sample_of(inputs, PROMPTS, sample)
        offset = int(inputs["attention_mask"][sample].argmax())
        visual, question = places_of(single)
        table = np.stack([
            row for index in numbers for row in said(own_doubles(model, single, index), visual, question, heads)
        ])
        pooled = table.max(0) if heads == "max" else table.mean(0)
        if heads == 4.0:
            pooled = (table**4).mean(0) ** 0.25
        scores = oracles.log((pooled - pooled.min()) / (pooled.max() - pooled.min()))
        own = own_doubles(model, single, LAYER)
        pairs = oracles.pair_lookup(oracles.duplication(own["rotated_keys"][:, visual], own["values"][:, visual]))
        assert [int(i) - offset for i in kept] == sorted(visual[i] for i in oracles.pc_mmr(scores, pairs, 6))


def test_layers_are_read_only_when_they_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """By default no layer but the one that prunes is read."""
    from iwp_transformers import layer_inputs

    read: list[Tensor] = []
    original = layer_inputs.attention_inputs
    monkeypatch.setattr(
        layer_inputs, "attention_inputs", lambda *args, **kwargs: read.append(args[1]) or original(*args, **kwargs)
    )
    model = FACTORIES["llava-onevision"]()
    inputs = make_inputs(model, PROMPTS)

    kept_by(model, inputs, budget=5)
    alone = len(read)
    kept_by(model, inputs, budget=5, layers=3)

    assert alone == 2  # with rotary embedding and without
    assert len(read) > 2 * alone


@pytest.mark.parametrize(
    "layers", [0, LAYER + 2, -1, (LAYER + 1,), (0, 0), (), True, 1.0, "2", (0.5,), (-1, 0)], ids=repr
)
def test_layers_behind_the_pruning_one_or_none_are_refused(layers: Any) -> None:
    """The message says which there are."""
    with pytest.raises(ValueError, match=r"`layers` is .* expected an int from 1 to 3"):
        prune_visual_tokens(FACTORIES["llava-onevision"](), budget=5, layer=LAYER, layers=layers)


def test_layers_without_queries_and_keys_have_no_say(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are named at the call."""
    model = FACTORIES["llava-onevision"]()
    monkeypatch.setattr(readable, "is_readable", lambda layer: layer is not model.model.language_model.layers[1])

    with pytest.raises(NotImplementedError, match=r"`layers` names 1 \(full_attention\)"):
        prune_visual_tokens(model, budget=5, layer=LAYER, layers=3)
