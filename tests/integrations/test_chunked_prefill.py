"""A prefill in chunks is refused before anything is pruned by half of a question; one chunk is a prefill as ever."""

from typing import Any

import pytest
import torch
import transformers

from iwp_transformers import prune_visual_tokens
from tests.integrations.prompts import BOTH, greedy
from tests.integrations.tiny_models import FACTORIES, Image, make_inputs

PROMPT = (2, Image(32, 16), 6)
pytestmark = pytest.mark.skipif(
    transformers.__version__.startswith("5.17"),
    reason="Transformers 5.17 loses the images of a prefill in chunks before the model sees them",
)


@pytest.mark.parametrize("prompt", [PROMPT, (20, Image(32, 16), 3)], ids=["image first", "a chunk of text first"])
@pytest.mark.parametrize("short", [8, -3], ids=["within the image", "behind it"])
@pytest.mark.parametrize("cache", ["dynamic", "static"])
@pytest.mark.parametrize("family", BOTH)
def test_chunks_are_refused(family: str, cache: str, short: int, prompt: Any) -> None:
    """Also where one chunk holds all visual tokens and only some of the question is missing."""
    model = FACTORIES[family]()
    inputs = make_inputs(model, [prompt])
    size = short if short > 0 else inputs["input_ids"].shape[1] + short

    with (
        prune_visual_tokens(model, budget=0.3, layer=1) as session,
        pytest.raises(NotImplementedError, match="in chunks"),
    ):
        greedy(model, inputs, prefill_chunk_size=size, cache_implementation=cache)

    assert not session.records


@pytest.mark.parametrize("family", BOTH)
def test_a_single_chunk_is_pruned_as_a_prompt_in_one_piece(family: str) -> None:
    """The same tokens are kept, and the same ids decoded."""
    model = FACTORIES[family]()
    inputs = make_inputs(model, [PROMPT])

    with prune_visual_tokens(model, budget=0.3, layer=1) as session:
        whole = greedy(model, inputs)
        chunk = greedy(model, inputs, prefill_chunk_size=inputs["input_ids"].shape[1])

    assert torch.equal(chunk, whole)
    assert torch.equal(session.records[0].kept[0], session.records[1].kept[0])


def test_what_a_caller_cuts_off_by_its_positions_is_refused() -> None:
    """Positions that are the beginning of longer ones tell that more is to come."""
    model = FACTORIES["qwen2.5-vl"]()
    inputs = make_inputs(model, [PROMPT])
    length = inputs["input_ids"].shape[1]
    positions = torch.arange(length + 9).expand(3, 1, -1).contiguous()

    with (
        prune_visual_tokens(model, budget=0.3, layer=1),
        torch.no_grad(),
        pytest.raises(NotImplementedError, match="in chunks"),
    ):
        model(**inputs, position_ids=positions[..., :length])
