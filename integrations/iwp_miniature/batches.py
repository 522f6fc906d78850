"""Batches of pictures with many questions each, as tensors."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from iwp_miniature.architectures import Architecture, Patch
from iwp_miniature.digits import SIZE, DigitBank
from iwp_miniature.packing import Packing
from iwp_miniature.questions import FIRST_LOOK, KINDS, Question, ask
from iwp_miniature.scenes import CELL, STYLES, Layout, Scene, Style, draw_layout, render
from iwp_miniature.vocabulary import COLUMNS, END, IMAGE, PAD, ROWS, WORDS

__all__ = ["IGNORED", "SLOT", "Batch", "BatchSource", "Drawing"]

SLOT = 8
"""Tokens of a question and its answer, at most."""

IGNORED = -100
"""Label of a token that is not trained."""

_IDS = {word: index for index, word in enumerate(WORDS)}


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """What batches are drawn from.

    Parameters
    ----------
    bank : DigitBank
    questions : int
        Questions a picture.
    weights : mapping of str to float
        How often each kind of question comes, relatively.
    """

    bank: DigitBank
    questions: int
    weights: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Pictures and their questions.

    Parameters
    ----------
    pixels : mapping of str to Tensor
        Output of the image processor.
    prefix : Tensor, shape (P,)
        Ids before the questions, the same for all pictures of a batch.
    positions : Tensor, shape (P + slots,) or (3, P + slots)
        Positions of the packed sequence.
    slots : Tensor, shape (B, Q, SLOT)
        Ids of the questions, each followed by its answer.
    labels : Tensor, shape (B, Q, SLOT)
        The next id where it is trained: the answer and the end after it.
    asked : Tensor, shape (B, Q)
        Where in its slot each question ends: there the answer is said.
    looks : Tensor, shape (B, Q, 2)
        Ids of the words for row and column of the digit that a question has to find first, or `IGNORED`.
    kinds : ndarray of int, shape (B, Q)
        Index into `KINDS`.
    inks : Tensor, shape (B, V, 2)
        For each visual token the ids of the words for its digit and colour, or `IGNORED` for separators.
    places : Tensor, shape (V, 2)
        Likewise for its row and column.
    places_known : Tensor of bool, shape (V,)
        Whether the tower can know them.
    packing : Packing
    """

    pixels: Mapping[str, Tensor]
    prefix: Tensor
    positions: Tensor
    slots: Tensor
    labels: Tensor
    asked: Tensor
    looks: Tensor
    kinds: NDArray[np.int64]
    inks: Tensor
    places: Tensor
    places_known: Tensor
    packing: Packing


class BatchSource:
    """Draws batches for one model.

    Parameters
    ----------
    architecture : Architecture
    model : PreTrainedModel
        For its configuration and its rules of positions.
    drawing : Drawing
    rng : numpy.random.Generator
    """

    def __init__(self, architecture: Architecture, model: Any, drawing: Drawing, rng: np.random.Generator) -> None:
        self.architecture, self.model, self.drawing, self.rng = architecture, model, drawing, rng

    def draw(self, pictures: int) -> Batch:
        """Draw some pictures, all of one size, and their questions."""
        rows, columns = self.architecture.grids[self.rng.integers(len(self.architecture.grids))]
        styles: list[Style] = list(STYLES)
        scenes = []
        for index in range(pictures):
            style, any_digit = styles[index % len(styles)], self.architecture.any_digit
            layout = draw_layout(self.rng, style=style, rows=rows, columns=columns, any_digit=any_digit)
            scenes.append(render(layout, self.drawing.bank, self.rng))
        asked = [self._questions(scene.layout) for scene in scenes]
        pixels = self.architecture.image_processor([scene.image for scene in scenes], return_tensors="pt")
        patches = self.architecture.patches(pixels)
        prefix, visual = self._prefix(len(patches))
        slots, labels = _slots(asked)
        packing = Packing(prefix=len(prefix), visual=visual, slots=slots.shape[1], length=SLOT)
        return Batch(
            pixels=pixels,
            prefix=prefix,
            positions=self._positions(prefix, pixels, packing),
            slots=slots,
            labels=labels,
            asked=(labels != IGNORED).int().argmax(dim=-1),
            looks=_looks(asked),
            kinds=np.array([[KINDS.index(question.kind) for question in row] for row in asked]),
            inks=_inks(patches, scenes),
            places=_places(patches),
            places_known=torch.tensor([patch is not None and patch.knows_place for patch in patches]),
            packing=packing,
        )

    def _questions(self, layout: Layout) -> list[Question]:
        shares = np.array([self.drawing.weights[kind] for kind in KINDS])
        questions: list[Question] = []
        while len(questions) < self.drawing.questions:
            question = ask(layout, KINDS[self.rng.choice(len(KINDS), p=shares / shares.sum())], self.rng)
            if question is not None:
                questions.append(question)
        return questions

    def _prefix(self, count: int) -> tuple[Tensor, slice]:
        words = self.architecture.prompt(IMAGE)
        start = words.index(IMAGE)
        words[start : start + 1] = [IMAGE] * count
        return torch.tensor([_IDS[word] for word in words]), slice(start, start + count)

    def _positions(self, prefix: Tensor, pixels: Mapping[str, Tensor], packing: Packing) -> Tensor:
        """Return the positions that the model gives the prefix and one question, the latter repeated for each slot."""
        ids = torch.cat([prefix, prefix.new_zeros(packing.length)])[None]
        if hasattr(self.model.model, "get_rope_index"):
            kinds = (ids == _IDS[IMAGE]).int()
            grid = pixels["image_grid_thw"][:1]
            alone = self.model.model.get_rope_index(ids, mm_token_type_ids=kinds, image_grid_thw=grid)[0][:, 0]
        else:
            alone = torch.arange(ids.shape[1])
        shared, slot = alone[..., : packing.prefix], alone[..., packing.prefix :]
        return torch.cat([shared, *[slot] * packing.slots], dim=-1)


def _inks(patches: Sequence[Patch | None], scenes: Sequence[Scene]) -> Tensor:
    inks = np.full((len(scenes), len(patches), 2), IGNORED)
    maps = [_ink_map(scene) for scene in scenes]
    for index, patch in enumerate(patches):
        if patch is not None:
            inks[:, index] = [ink[int(patch.y), int(patch.x)] for ink in maps]
    return torch.from_numpy(inks)


def _places(patches: Sequence[Patch | None]) -> Tensor:
    unknown = (IGNORED, IGNORED)
    places = [
        unknown if patch is None else (_IDS[ROWS[int(patch.y) // CELL]], _IDS[COLUMNS[int(patch.x) // CELL]])
        for patch in patches
    ]
    return torch.tensor(places)


def _ink_map(scene: Scene) -> NDArray[np.int64]:
    """Return for each pixel the ids of the words for the digit and the colour that stand there, else of "none"."""
    ink = np.full((*scene.pixels.shape[:2], 2), _IDS["none"])
    for thing in scene.layout.objects:
        area = ink[thing.top : thing.top + SIZE, thing.left : thing.left + SIZE]
        area[...] = _IDS[str(thing.digit)], _IDS[thing.color]
    return ink


def _looks(asked: Sequence[Sequence[Question]]) -> Tensor:
    looks = torch.full((len(asked), len(asked[0]), 2), IGNORED)
    for picture, questions in enumerate(asked):
        for index, question in enumerate(questions):
            if question.kind in FIRST_LOOK:
                found = question.about[0]
                looks[picture, index] = torch.tensor([_IDS[ROWS[found.row]], _IDS[COLUMNS[found.column]]])
    return looks


def _slots(asked: Sequence[Sequence[Question]]) -> tuple[Tensor, Tensor]:
    """Write down questions with their answers, and what is to be said next after the question and the answer."""
    slots = torch.full((len(asked), len(asked[0]), SLOT), _IDS[PAD])
    labels = torch.full_like(slots, IGNORED)
    for picture, questions in enumerate(asked):
        for index, question in enumerate(questions):
            ids = [_IDS[word] for word in question.text.split()]
            answer = _IDS[question.answer]
            slots[picture, index, : len(ids) + 1] = torch.tensor([*ids, answer])
            labels[picture, index, len(ids) - 1 : len(ids) + 1] = torch.tensor([answer, _IDS[END]])
    return slots, labels
