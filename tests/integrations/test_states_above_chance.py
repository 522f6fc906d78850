"""`AboveChance` in models: shares of all that is seen, states above chance, read independently."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from iwp_transformers import prune_visual_tokens
from tests import oracles
from tests.core.test_above_chance import BY_STATES, GREEDY, corrected
from tests.integrations.oracle import positioned, sample_of
from tests.integrations.prompts import BOTH
from tests.integrations.test_adaptive import own_doubles, places_of
from tests.integrations.test_scoring_layers import said
from tests.integrations.test_selection import LAYER, PROMPTS, gentle
from tests.integrations.tiny_models import make_inputs


@pytest.mark.parametrize("layers", [None, 2])
@pytest.mark.parametrize("family", BOTH)
def test_tokens_are_kept_by_the_query_that_asks_most_and_by_states_above_chance(
    family: str, layers: int | None
) -> None:
    """With rotary embedding; layers that score are pooled by the maximum too."""
    model, options = gentle(family), {**BY_STATES, "rope_in_magnitude": True}
    inputs = make_inputs(model, PROMPTS)

    with prune_visual_tokens(model, budget=6, layer=LAYER, layers=layers, **options) as session, torch.no_grad():
        model(**positioned(model, inputs))

    for sample, kept in enumerate(session.records[-1].kept):
        single = sample_of(inputs, PROMPTS, sample)
        offset = int(inputs["attention_mask"][sample].argmax())
        visual, question = places_of(single)
        rows = []
        for index in range(LAYER + 1 - (layers or 1), LAYER + 1):
            own = own_doubles(model, single, index)
            rotated = own | {"queries": own["rotated_queries"], "keys": own["rotated_keys"]}
            rows += said(rotated, visual, question, "max")
        pooled = np.stack(rows).max(0)
        scores = oracles.log((pooled - pooled.min()) / (pooled.max() - pooled.min()))
        states = own_doubles(model, single, LAYER)["hidden"][visual]
        pairs = oracles.pair_lookup(corrected(oracles.cosines(states) ** 2))
        assert [int(i) - offset for i in kept] == sorted(visual[i] for i in oracles.pc_mmr(scores, pairs, 6, **GREEDY))
