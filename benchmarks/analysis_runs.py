"""Answers of a miniature with and without pruning, and the tokens that each setting kept."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import torch
from accuracy_evaluation import with_features
from numpy.typing import NDArray

from iwp_miniature import Example, Miniature, in_batches
from iwp_transformers import PruningRecord, prune_visual_tokens

__all__ = [
    "BATCH",
    "BUDGETS",
    "Run",
    "Setting",
    "decoder_layers",
    "encoded",
    "first_of",
    "on_a_line",
    "percent",
    "pruned_answers",
]
__all__ += ["run_settings", "settings"]

BUDGETS = (0.353, 0.222, 0.111)
"""The paper's token budgets."""

BATCH = 60


class Setting(NamedTuple):
    """Pruning as in the paper, from one layer on."""

    layer: int
    budget: float


@dataclass(frozen=True)
class Run:
    """What came of one setting.

    Parameters
    ----------
    right : ndarray of bool, shape (examples,)
        Whether each answer was right.
    kept : tuple of torch.Tensor
        For each example the positions of the visual tokens kept; empty without pruning.
    totals : tuple of int
        For each example, its visual tokens; empty without pruning.
    """

    right: NDArray[np.bool_]
    kept: tuple[torch.Tensor, ...]
    totals: tuple[int, ...]


def percent(share: float) -> str:
    """Write a share as the paper does."""
    return f"{100 * share:.1f} %"


def on_a_line(numbers: Iterable[float]) -> str:
    """Write numbers as one string, which a JSON file holds on one line."""
    return " ".join(f"{number:.4g}" for number in numbers)


def decoder_layers(miniature: Miniature) -> int:
    """Return how many layers may prune."""
    return int(miniature.model.config.get_text_config().num_hidden_layers)


def settings(layers: int, budgets: Sequence[float]) -> list[Setting]:
    """Return every layer with every budget."""
    return [Setting(layer, budget) for layer, budget in product(range(layers), budgets)]


def first_of(examples: Sequence[Example], kind: str, style: str) -> Example:
    """Return the first question of a kind about a scene of a style: shown whatever its answer turns out to be."""
    return next(example for example in examples if (example.question.kind, example.scene.layout.style) == (kind, style))


def encoded(miniature: Miniature, examples: Sequence[Example]) -> dict[str, Any]:
    """Return the model's inputs for examples of one grid, with what the tower makes of the pictures."""
    images, questions = zip(*((example.scene.image, example.question.text) for example in examples), strict=True)
    return with_features(miniature.model, miniature.encode(images, questions))


def pruned_answers(
    miniature: Miniature, inputs: Mapping[str, Any], setting: Setting
) -> tuple[list[str], PruningRecord]:
    """Return the answers to encoded questions under a setting, and what was kept."""
    with prune_visual_tokens(miniature.model, budget=setting.budget, layer=setting.layer) as session:
        answers = miniature.answer(inputs)
    return answers, session.records[-1]


def run_settings(
    miniature: Miniature,
    examples: Sequence[Example],
    wanted: Sequence[Setting],
    progress: Callable[[int], object] = lambda _: None,
) -> tuple[Run, dict[Setting, Run]]:
    """Answer every question without pruning and with every setting.

    Parameters
    ----------
    miniature : Miniature
    examples : sequence of Example
        Ordered by grid, as `draw_examples` gives them.
    wanted : sequence of Setting
    progress : callable, optional
        Told how many questions were answered since it was last told.

    Returns
    -------
    Run
        Without pruning.
    dict of Setting to Run
    """
    right: dict[Setting | None, list[bool]] = {setting: [] for setting in (None, *wanted)}
    kept: dict[Setting | None, list[torch.Tensor]] = {setting: [] for setting in right}
    totals: dict[Setting | None, list[int]] = {setting: [] for setting in right}
    for batch in in_batches(examples, BATCH):
        inputs = encoded(miniature, batch)
        for setting, judged in right.items():
            if setting is None:
                answers = miniature.answer(inputs)
            else:
                answers, record = pruned_answers(miniature, inputs, setting)
                kept[setting] += record.kept
                totals[setting] += map(len, record.visual)
            judged += [answer == example.question.answer for answer, example in zip(answers, batch, strict=True)]
            progress(len(batch))
    runs = {
        setting: Run(np.array(judged), tuple(kept[setting]), tuple(totals[setting]))
        for setting, judged in right.items()
    }
    return runs[None], {setting: runs[setting] for setting in wanted}
