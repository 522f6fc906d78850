"""Without a cache: scoring selects for every text anew, `generate` for its prompt once."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from iwp_transformers import prune_visual_tokens
from iwp_transformers.presets import PER_QUERY
from tests.integrations.oracle import assert_close, with_tokens
from tests.integrations.prompts import BOTH, PAIR, greedy, logits_of
from tests.integrations.tiny_models import FACTORIES, Image, make_inputs

# A small budget under the per-query preset: every word of an option moves the choice.
CHOICE: dict[str, Any] = {"budget": 0.1, "layer": 1, **PER_QUERY}
OPTIONS = {"a": torch.tensor([[5]]), "b": torch.tensor([[17]]), "longer": torch.tensor([[5, 61, 8]])}
SEQUENCE = ["", "a", "b", "a", "longer", "", "a"]


@pytest.fixture(params=BOTH)
def model(request: pytest.FixtureRequest) -> nn.Module:
    """Give a miniature of each kind."""
    return FACTORIES[request.param]()


def options_of(inputs: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the prompt with no option and with each."""
    return {"": inputs} | {name: with_tokens(inputs, tokens) for name, tokens in OPTIONS.items()}


def by_itself(model: nn.Module, inputs: dict[str, Any], **options: Any) -> tuple[Tensor, Tensor]:
    """Return what a session of its own keeps, and its logits."""
    with prune_visual_tokens(model, **CHOICE) as session:
        logits = logits_of(model, inputs, **options)
    return session.records[-1].kept[0], logits


def test_options_change_what_is_kept(model: nn.Module) -> None:
    """Otherwise the tests below could not fail."""
    texts = options_of(make_inputs(model, [(3, Image(32, 32), 4)]))

    kept = {tuple(by_itself(model, inputs)[0].tolist()) for inputs in texts.values()}

    assert len(kept) > 1


@pytest.mark.parametrize("gradients", [False, True], ids=["inference", "training"])
def test_scored_options_do_not_inherit_each_others_choice(model: nn.Module, gradients: bool) -> None:
    """Every forward without a cache keeps and answers what it does in a session of its own, in any order."""
    texts = options_of(make_inputs(model, [(3, Image(32, 32), 4)]))
    alone = {name: by_itself(model, inputs, use_cache=False) for name, inputs in texts.items()}

    with prune_visual_tokens(model, **CHOICE, history=20) as session, torch.set_grad_enabled(gradients):
        scored = [model(**texts[name], use_cache=False).logits for name in SEQUENCE]

    assert len(session.records) == len(SEQUENCE)
    for name, record, logits in zip(SEQUENCE, session.records, scored, strict=True):
        kept, expected = alone[name]
        assert torch.equal(record.kept[0], kept), name
        assert torch.equal(logits, expected), name


def test_scoring_with_and_without_a_cache_agrees(model: nn.Module) -> None:
    """`use_cache` changes memory and nothing else."""
    texts = options_of(make_inputs(model, [(3, Image(32, 32), 4)]))

    with prune_visual_tokens(model, **CHOICE, history=20):
        for name in SEQUENCE:
            with_one, without = (logits_of(model, texts[name], use_cache=use) for use in (True, False))
            assert_close(without, with_one, tolerance=1e-5)


def test_scoring_between_the_steps_of_a_generation_disturbs_neither(model: nn.Module) -> None:
    """A caller who scores while another call generates without a cache gets its own choice."""
    inputs = make_inputs(model, [(3, Image(32, 32), 4)])
    with prune_visual_tokens(model, **CHOICE):
        ids = greedy(model, inputs, use_cache=False)
    option = with_tokens(inputs, ids[:, inputs["input_ids"].shape[1] :][:, :2])
    _, expected = by_itself(model, option, use_cache=False)
    scored = []

    def scores(_: Tensor, values: Tensor) -> Tensor:
        scored.append(logits_of(model, option, use_cache=False))
        return values

    with prune_visual_tokens(model, **CHOICE):
        again = greedy(model, inputs, use_cache=False, logits_processor=[scores])

    assert torch.equal(again, ids)
    assert all(torch.equal(logits, expected) for logits in scored)


@pytest.mark.parametrize("mode", [{}, {"num_beams": 3}, {"num_return_sequences": 2, "do_sample": True}], ids=str)
@pytest.mark.parametrize("prompts", [PAIR[1:], [(3, Image(), 5), (2, Image(32, 16), 6)]], ids=["single", "batch"])
def test_generating_without_a_cache_equals_generating_with_one(model: nn.Module, prompts: list, mode: dict) -> None:
    """Decoded tokens are no part of the question: the prompt chooses once, in one record."""
    inputs = make_inputs(model, prompts)
    options = {"return_dict_in_generate": True, "output_logits": True, **mode}
    outputs = []

    for use in (True, False):
        torch.manual_seed(0)
        with prune_visual_tokens(model, **CHOICE) as session:
            outputs.append(greedy(model, inputs, use_cache=use, **options))
        assert len(session.records) == 1

    cached, without = outputs
    assert torch.equal(without.sequences, cached.sequences)
    assert_close(torch.stack(without.logits), torch.stack(cached.logits))


def test_every_generation_without_a_cache_chooses_for_its_own_prompt(model: nn.Module) -> None:
    """Also where a prompt is the one before and one token more, with the same picture."""
    texts = options_of(make_inputs(model, [(3, Image(32, 32), 4)]))
    alone = {}
    for name, inputs in texts.items():
        with prune_visual_tokens(model, **CHOICE):
            alone[name] = greedy(model, inputs)

    with prune_visual_tokens(model, **CHOICE, history=20) as session:
        answers = [greedy(model, texts[name], use_cache=False) for name in SEQUENCE]

    assert len(session.records) == len(SEQUENCE)
    assert all(torch.equal(ids, alone[name]) for name, ids in zip(SEQUENCE, answers, strict=True))


def test_a_forward_behind_a_generation_of_one_token_chooses_anew(model: nn.Module) -> None:
    """The token that `generate` gave, scored by a forward of its own, is part of the question."""
    inputs = make_inputs(model, [(3, Image(32, 32), 4)])

    with prune_visual_tokens(model, **CHOICE) as session:
        ids = greedy(model, inputs, use_cache=False, max_new_tokens=1)
        longer = with_tokens(inputs, ids[:, -1:])
        logits = logits_of(model, longer, use_cache=False)

    kept, expected = by_itself(model, longer, use_cache=False)
    assert len(session.records) == 2
    assert torch.equal(session.records[-1].kept[0], kept)
    assert torch.equal(logits, expected)
