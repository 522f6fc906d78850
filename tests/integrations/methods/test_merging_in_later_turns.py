"""Merging on a cache that holds tokens: new states are as in one piece, sizes are refused."""

from typing import Any

import pytest
import torch
from transformers import DynamicCache

from iwp_transformers import prune_visual_tokens
from tests.integrations.dialogues import Dialogue
from tests.integrations.methods.test_merging import Pairs
from tests.integrations.oracle import assert_close
from tests.integrations.tiny_models import FACTORIES, Image, make_inputs

TURN = (1, Image(), 6)


def empty_cache(model: Any) -> DynamicCache:
    """Return an empty cache."""
    return DynamicCache(config=model.config.get_text_config())


@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize("family", ["llava-onevision", "qwen2.5-vl"])
def test_states_merged_behind_a_turn_of_text_are_those_of_one_piece(family: str, layer: int) -> None:
    """Rows count within the forward and positions within the conversation; decoded tokens agree as well."""
    model: Any = FACTORIES[family]()
    turn = make_inputs(model, [TURN])
    text = torch.tensor([[31, 32, 33, 34]])
    whole = {**turn, "input_ids": torch.cat((text, turn["input_ids"]), dim=1)}
    whole["attention_mask"] = torch.ones_like(whole["input_ids"])
    if "mm_token_type_ids" in turn:
        kinds = turn["mm_token_type_ids"]
        whole["mm_token_type_ids"] = torch.cat((torch.zeros_like(text, dtype=kinds.dtype), kinds), dim=1)
    step = torch.tensor([[41, 42]])

    with prune_visual_tokens(model, budget=0.5, layer=layer, selector=Pairs(weighed=False)) as session:
        at_once, in_turns = (Dialogue(model, empty_cache(model)) for _ in range(2))
        expected = [at_once.say(whole), at_once.say(step)]
        in_turns.say(text)
        answers = [in_turns.say(turn), in_turns.say(step)]

    one, two = session.records
    assert [each.tolist() for each in one.stages[0].merged_into] == [
        each.tolist() for each in two.stages[0].merged_into
    ]
    assert torch.equal(one.kept[0], two.kept[0])
    kept = one.kept[0] - text.shape[1]
    rows = torch.cat((
        torch.tensor([0]),
        kept,
        torch.arange(int(one.visual[0][-1]) + 1 - 4, turn["input_ids"].shape[1]),
    ))
    assert_close(answers[0].logits[:, rows], expected[0].logits[:, rows + text.shape[1]])
    assert_close(answers[1].logits, expected[1].logits)


def test_sizes_are_refused_behind_earlier_tokens() -> None:
    """The map of a cache would lose what earlier tokens weigh; the message says what to do."""
    model: Any = FACTORIES["llava-onevision"]()
    turn = make_inputs(model, [TURN])

    with prune_visual_tokens(model, budget=0.5, layer=1, selector=Pairs(weighed=True)):
        behind_text, behind_sizes = (Dialogue(model, empty_cache(model)) for _ in range(2))
        behind_text.say(torch.tensor([[31, 32]]))
        behind_sizes.say(turn)
        for dialogue in (behind_text, behind_sizes):
            with pytest.raises(NotImplementedError, match="weigh merged tokens by their sizes: begin a new cache"):
                dialogue.say(turn)
