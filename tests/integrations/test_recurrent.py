"""Recurrent layers behind the one that prunes take in what stays, and neither dropped tokens nor filling."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from iwp_transformers import LayerView, prune_visual_tokens
from tests.integrations.oracle import assert_close
from tests.models.batches import make_batch
from tests.models.checks import dropped_in
from tests.models.factory import tiny_model
from tests.models.oracle import steps, true_steps

NEW = 4


class Uneven:
    """Keeps fewer tokens of the second sample, so that its rows are filled up without any padding in the prompt."""

    own_count = True

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, view: LayerView) -> Tensor:
        """Return every other token, or one."""
        self.asked += 1
        return torch.arange(0, len(view.visual), 2) if self.asked % 2 else torch.tensor([1])


def bytes_of_states(cache: Any) -> int:
    """Count the bytes of all that a cache holds of tokens."""
    parts = tree_leaves([vars(layer) for layer in cache.layers])
    return sum(part.nbytes for part in parts if isinstance(part, Tensor) and part.ndim > 1)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("layer", [1, 2, 3])
@pytest.mark.parametrize("model_type", ["qwen3_5", "lfm2_vl"])
def test_samples_that_keep_different_counts_decode_as_the_masked_full_model(model_type: str, layer: int) -> None:
    """The same prompt twice: nothing is padding, and the layers are handed no mask."""
    model: Any = tiny_model(model_type)
    single = make_batch(model, model_type, images=(1,))
    batch = {name: torch.cat((part, part)) for name, part in single.items()}

    with prune_visual_tokens(model, budget=0.5, layer=layer, selector=Uneven()) as session:
        decoded = steps(model, batch, NEW)

    dropped = dropped_in(session.records[0], batch)
    assert len({int(row.sum()) for row in dropped}) > 1
    assert_close(decoded, true_steps(model, batch, layer, dropped, NEW))


@pytest.mark.filterwarnings("ignore")
def test_bytes_of_a_recurrent_state_are_the_same_whatever_entered_it() -> None:
    """Both numbers are those of the caches' tensors, states and keys."""
    model: Any = tiny_model("qwen3_5")
    batch = make_batch(model, "qwen3_5", images=(1,))

    with torch.no_grad():
        full = model(**batch, use_cache=True).past_key_values
        with prune_visual_tokens(model, budget=0.5, layer=1) as session:
            pruned = model(**batch, use_cache=True).past_key_values

    summary, (before, after) = session.records[-1].summary(), map(bytes_of_states, (full, pruned))
    assert after < before
    assert (summary.kv_bytes_full, summary.kv_bytes_pruned) == (before, after)
