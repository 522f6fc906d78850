"""What the page of `iwp demo --browser` shows for a choice of picture, question, method, budget and layer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from transformers import logging as transformers_logging

from iwp_cli.digits import QUESTIONS_OF_ANY_PICTURE, Asked, ask_miniature, fresh_picture, kept_of_picture
from iwp_cli.outputs import drawing
from iwp_cli.pruning import WITHOUT_BUDGET, answering, pruning_arguments
from iwp_cli.refusal import Refusal
from iwp_cli.saving import SavingModel, saving_rows
from iwp_miniature import Miniature, MiniatureError, VocabularyError, load_miniature
from iwp_transformers.media.errors import MediaError
from iwp_transformers.media.images import read_image
from iwp_transformers.methods import METHODS
from iwp_transformers.presets import PRESETS

__all__ = ["LAYERS", "METHOD_NAMES", "Answer", "Choice", "Scene", "Trials"]

METHOD_NAMES = (*PRESETS, *METHODS)
LAYERS = 8
"""Decoder layers of the miniature."""

ENLARGED = 4
"""Times that a drawn picture of 96 by 96 pixels is shown larger."""


@dataclass(frozen=True)
class Scene:
    """A picture of digits that was drawn.

    Attributes
    ----------
    picture : PIL.Image.Image
        As the model sees it.
    answers : mapping of str to str
        The right answer of each question that was made up for it.
    """

    picture: Image.Image
    answers: Mapping[str, str]

    @classmethod
    def drawn(cls, seed: int | None) -> "Scene":
        """Draw one; the same seed draws the same."""
        return cls(*fresh_picture(seed))

    @property
    def shown(self) -> Image.Image:
        """The picture large enough for a page, each pixel a square."""
        return self.picture.resize(
            (self.picture.width * ENLARGED, self.picture.height * ENLARGED), Image.Resampling.NEAREST
        )

    @property
    def questions(self) -> list[str]:
        """Its own, then those that suit any picture."""
        return [*self.answers, *QUESTIONS_OF_ANY_PICTURE]

    def is_shown_by(self, picture: Image.Image) -> bool:
        """Tell whether a picture on the page is this scene, pixel for pixel."""
        shown = self.shown
        return picture.size == shown.size and picture.convert("RGB").tobytes() == shown.tobytes()


@dataclass(frozen=True, kw_only=True)
class Choice:
    """How to prune.

    Attributes
    ----------
    method : str
        One of `METHOD_NAMES`.
    percent : float
        Budget: visual tokens to keep, in percent of all, in (0, 100].
    layer : int
        First layer that no longer sees the dropped tokens.
    """

    method: str
    percent: float
    layer: int

    @property
    def arguments(self) -> dict[str, Any]:
        """Of `prune_visual_tokens`.

        Raises
        ------
        Refusal
            If the method is unknown or the budget out of range.
        """
        budget = None if self.method in WITHOUT_BUDGET else f"{self.percent / 100:.6g}"
        if budget is not None and "." not in budget:
            budget += ".0"  # all tokens, not one
        return pruning_arguments(budget=budget, layer=int(self.layer), method=self.method, strategy=None, settings=None)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What came of a question.

    Attributes
    ----------
    kept : ndarray of uint8, shape (height, width, 3), or None
        The picture, dropped tokens dimmed; None where it is not known where they lie.
    rows : sequence of (str, str, str)
        Name, value with all tokens, value with few.
    """

    kept: NDArray[np.uint8] | None
    rows: Sequence[tuple[str, str, str]]


class Trials:
    """The models behind the page, each loaded when it is first needed."""

    @cached_property
    def miniature(self) -> Miniature:
        """The trained LLaVA-OneVision.

        Raises
        ------
        Refusal
            If its weights are missing.
        """
        transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call] # the library's
        try:
            return load_miniature()
        except MiniatureError as error:
            raise Refusal(str(error), code=1) from error

    @cached_property
    def _saving(self) -> SavingModel:
        return SavingModel()

    def answer(self, path: Path | None, question: str | None, choice: Choice, scene: Scene) -> Answer:
        """Ask the trained miniature about a picture.

        Parameters
        ----------
        path : pathlib.Path or None
            Image file on the page; None where there is none.
        question : str or None
            What is asked.
        choice : Choice
            How to prune.
        scene : Scene
            The scene that was drawn last: if the file shows it, the right answer is known.

        Returns
        -------
        Answer

        Raises
        ------
        Refusal
            If something is missing, unknown, or does not belong together; the message says what.
        """
        if path is None:
            msg = "there is no picture: upload one, or draw a new one"
            raise Refusal(msg)
        try:
            shown = read_image(path)
        except MediaError as error:
            raise Refusal(str(error)) from error
        is_scene = scene.is_shown_by(shown)
        truth = scene.answers.get(question or "") if is_scene else None
        picture = scene.picture if is_scene else shown
        asked = self._asked(picture, question or "", choice, truth)
        _, record = asked.pruned[choice.method]
        try:
            with drawing(path):
                kept = kept_of_picture(self.miniature, shown, asked.inputs, record)
        except Refusal:
            return Answer(kept=None, rows=_answer_rows(asked, choice))
        return Answer(kept=kept, rows=_answer_rows(asked, choice))

    def _asked(self, picture: Image.Image, question: str, choice: Choice, truth: str | None) -> Asked:
        ways = {choice.method: choice.arguments}
        try:
            with answering():
                return ask_miniature(self.miniature, picture, question, ways, truth=truth)
        except (TypeError, ValueError) as error:
            msg = str(error) if isinstance(error, VocabularyError) else f"{choice.method}: {error}"
            raise Refusal(msg) from error

    def saving(self, choice: Choice) -> Sequence[tuple[str, str, str]]:
        """Prune the shipped photograph's 2,709 visual tokens in a model of random weights.

        Parameters
        ----------
        choice : Choice
            How to prune.

        Returns
        -------
        sequence of (str, str, str)
            Name, value with all tokens, value with few.

        Raises
        ------
        Refusal
            If the choice does not belong together.
        """
        try:
            with answering():
                saving = self._saving.measured(choice.arguments)
        except (TypeError, ValueError) as error:
            msg = f"{choice.method}: {error}"
            raise Refusal(msg) from error
        return [(name, form.format(full), form.format(pruned)) for name, form, (full, pruned) in saving_rows(saving)]


def _answer_rows(asked: Asked, choice: Choice) -> list[tuple[str, str, str]]:
    answer, record = asked.pruned[choice.method]
    summary = record.summary()
    rows = [
        ("answer", asked.full, answer),
        ("visual tokens", f"{summary.visual_tokens:,}", f"{summary.kept_tokens:,}"),
    ]
    if summary.flops_share is not None:
        rows.append(("operations of the prefill", "100 %", f"{100 * summary.flops_share:.0f} %"))
    return rows if asked.truth is None else [("right answer", asked.truth, asked.truth), *rows]
