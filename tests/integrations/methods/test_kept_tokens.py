"""What each method keeps in a model is what its rule keeps of an independent reading of that model."""

import copy
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from iwp_core.budget import tokens_to_keep
from iwp_transformers import prune_visual_tokens
from tests.integrations.methods.expected import EXPECTED, Question
from tests.integrations.methods.readings import CASES, asked_of, reading_before
from tests.integrations.oracle import positioned
from tests.integrations.prompts import BOTH, PAIR
from tests.integrations.tiny_models import FACTORIES, make_inputs

# Rows and columns of the pictures of `PAIR`, separators in a row of their own: the base view, then the crops.
GRIDS = {
    "llava-onevision": [[(4, 4), (1, 1), (4, 4), (1, 1)], [(4, 4), (8, 4), (1, 8)]],
    "qwen2.5-vl": [[(3, 4), (2, 2)], [(4, 2)]],
}


@cache
def model_of(family: str) -> nn.Module:
    """Return a miniature that computes attention eagerly, so that it can tell its weights."""
    model = FACTORIES[family]()
    model.set_attn_implementation("eager")
    norm = model.model.language_model.norm.weight
    # A norm that weighs all channels alike would turn no token towards another.
    norm.data = torch.rand(norm.shape, generator=torch.Generator().manual_seed(3)) ** 2
    return model


def grids_in(sequence: list[tuple[int, int]]) -> list[Tensor]:
    """Return the indices of consecutive grids; separators between the rows of the crops are taken out of them."""
    places = iter(range(sum(height * width for height, width in sequence)))
    if (1, 8) not in sequence:
        return [torch.tensor([[next(places) for _ in range(w)] for _ in range(h)]) for h, w in sequence]
    base = torch.tensor([[next(places) for _ in range(4)] for _ in range(4)])
    rows = torch.tensor(list(places)).reshape(8, 5)
    return [base, rows[:, :4], rows[:, 4:].T]


def expected_indices(family: str, name: str, inputs: dict[str, Any], record: Any, stage: int) -> list[Tensor]:
    """Return the indices, among the candidates of a stage, that a method keeps of each sample."""
    model, where = model_of(family), record.stages[stage]
    reading = reading_before(model, inputs, record, stage)
    budgets = CASES[name]["budget"]
    budget = budgets[stage] if isinstance(budgets, tuple) else budgets
    answers = []
    for sample, visual in enumerate(record.visual):
        candidates = record.stages[stage - 1].kept[sample] if stage else visual
        real = inputs["attention_mask"][sample].nonzero().squeeze(1)
        text = real[~torch.isin(real, visual)]
        asked = Question(
            reading=reading,
            model=model,
            sample=sample,
            layer=where.layer,
            count=tokens_to_keep(budget, len(visual)) if budget else 0,
            ids=inputs["input_ids"][sample],
            visual=candidates,
            picture=visual,
            text=text[text > candidates[0]],
            real=real,
            grids=grids_in(GRIDS[family][sample]),
        )
        answers.append(EXPECTED[name](asked) if asked.count else torch.tensor([], dtype=torch.int64))
    return answers


@pytest.mark.parametrize("family", BOTH)
@pytest.mark.parametrize("name", EXPECTED)
def test_a_method_keeps_what_its_rule_keeps_of_an_eager_reading(family: str, name: str) -> None:
    """At every stage, of a left-padded batch of two, in a model that attends by SDPA."""
    inputs = make_inputs(model_of(family), PAIR)
    pruned = copy.deepcopy(model_of(family))
    pruned.set_attn_implementation("sdpa")

    with prune_visual_tokens(pruned, **asked_of(name)) as session, torch.no_grad():
        pruned(**positioned(pruned, inputs))

    record = session.records[-1]
    for stage, where in enumerate(record.stages):
        for sample, indices in enumerate(expected_indices(family, name, inputs, record, stage)):
            candidates = record.stages[stage - 1].kept[sample] if stage else record.visual[sample]
            assert where.kept[sample].tolist() == candidates[indices].tolist()
