"""Balanced sets of questions, one picture each, to measure a miniature on."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from iwp_miniature.architectures import Architecture
from iwp_miniature.digits import Split, digit_bank
from iwp_miniature.questions import KINDS, Question, balanced_question
from iwp_miniature.scenes import STYLES, Scene, render

__all__ = ["Example", "draw_examples", "in_batches"]


@dataclass(frozen=True)
class Example:
    """A scene and a question about it.

    Parameters
    ----------
    scene : Scene
        The picture and what it shows.
    question : Question
        The question and its answer.
    """

    scene: Scene
    question: Question


def draw_examples(architecture: Architecture, *, split: Split, per_kind: int, seed: int = 0) -> list[Example]:
    """Draw new pictures with digits of a split, and one question about each.

    Parameters
    ----------
    architecture : Architecture
        Its grids are used evenly.
    split : {"train", "validation", "test"}
        Split of the scans of digits.
    per_kind : int
        Number of questions of each kind about scenes of each style.
    seed : int
        Seed of the drawing.

    Returns
    -------
    list of Example
        ``per_kind * 18`` examples, ordered by grid, so that batches hold pictures of one size.
    """
    rng = np.random.default_rng(seed)
    bank = digit_bank(split)
    examples = []
    for kind, style in product(KINDS, STYLES):
        for index in range(per_kind):
            rows, columns = architecture.grids[index % len(architecture.grids)]
            layout, question = balanced_question(rng, kind, style=style, rows=rows, columns=columns)
            examples.append(Example(render(layout, bank, rng), question))
    return sorted(examples, key=lambda example: (example.scene.layout.rows, example.scene.layout.columns))


def in_batches(examples: Sequence[Example], size: int) -> Iterator[Sequence[Example]]:
    """Yield consecutive examples of one grid, at most `size` at a time."""
    batch: list[Example] = []
    for example in examples:
        grid = (example.scene.layout.rows, example.scene.layout.columns)
        if batch and (len(batch) == size or grid != (batch[0].scene.layout.rows, batch[0].scene.layout.columns)):
            yield batch
            batch = []
        batch.append(example)
    if batch:
        yield batch
