"""What `iwp demo` shows: a picture of digits, three questions, and the tokens that three methods keep for each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from rich.table import Table
from torch import Tensor

from iwp_miniature import Miniature, draw_layout, load_miniature, render
from iwp_miniature.digits import digit_bank
from iwp_miniature.questions import ask
from iwp_transformers import PruningRecord, family_of, prune_visual_tokens
from iwp_transformers.picture import dim_dropped
from iwp_transformers.presets import PER_QUERY

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

__all__ = ["BUDGET", "CELL_SIZE", "LAYER", "DigitsDemo", "answers_table", "asked_miniature", "draw_answers"]

# Layer 2 is where questions begin to read the picture: from there on it shows whose tokens were kept.
BUDGET, LAYER = 0.111, 2
METHODS: Mapping[str, Mapping[str, Any]] = {
    "per-query preset": PER_QUERY,
    "the paper's default": {},
    "DivPrune": {"method": "divprune"},
}
KINDS = ("color", "digit", "right of")
QUESTIONS_OF_ANY_PICTURE = ("largest digit ?", "is there a 7 ?", "how many 3 ?")
CELL_SIZE = 2.3  # inches


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One question with all answers.

    Parameters
    ----------
    question : str
    truth : str or None
        None for a picture that nobody has described.
    inputs : mapping
        The model's inputs.
    full : str
        The answer with all visual tokens.
    pruned : mapping of str to (str, PruningRecord)
        For each method, the answer and what was kept.
    """

    question: str
    truth: str | None
    inputs: Mapping[str, Any]
    full: str
    pruned: Mapping[str, tuple[str, PruningRecord]]


@dataclass(frozen=True, kw_only=True)
class DigitsDemo:
    """A picture and what was asked about it.

    Parameters
    ----------
    miniature : Miniature
    picture : PIL.Image.Image
    asked : sequence of Asked
    """

    miniature: Miniature
    picture: Image.Image
    asked: Sequence[Asked]

    @property
    def tokens(self) -> tuple[int, int]:
        """Visual tokens of the picture, all and kept."""
        _, record = next(iter(self.asked[0].pruned.values()))
        return len(record.visual[0]), len(record.kept[0])


def asked_miniature(picture: Image.Image | None, questions: Sequence[str] | None, seed: int | None) -> DigitsDemo:
    """Ask the miniature LLaVA-OneVision about a picture, with all visual tokens and with few by each method.

    Parameters
    ----------
    picture : PIL.Image.Image or None
        None for a fresh one of digits that the model has never seen.
    questions : sequence of str or None
        None for three that suit the picture.
    seed : int or None
        Of the fresh picture.

    Returns
    -------
    DigitsDemo

    Raises
    ------
    MiniatureError
        If the trained weights are missing.
    VocabularyError
        If a question has a word that the miniature does not know.
    """
    miniature = load_miniature()
    asked: dict[str, str | None]
    if picture is None:
        picture, asked = _fresh_picture(seed)
    else:
        asked = dict.fromkeys(questions or QUESTIONS_OF_ANY_PICTURE)
    found = [_ask(miniature, picture, question, truth) for question, truth in asked.items()]
    return DigitsDemo(miniature=miniature, picture=picture, asked=found)


def _fresh_picture(seed: int | None) -> tuple[Image.Image, dict[str, str | None]]:
    """Draw a picture full of test digits, and ask one question of each kind."""
    rng = np.random.default_rng(seed)
    while True:
        layout = draw_layout(rng, style="dense")
        asked = [ask(layout, kind, rng) for kind in KINDS]
        if all(question is not None and question.answer != "none" for question in asked):
            scene = render(layout, digit_bank("test"), rng)
            return scene.image, {question.text: question.answer for question in asked if question is not None}


def _ask(miniature: Miniature, picture: Image.Image, question: str, truth: str | None) -> Asked:
    inputs = miniature.encode([picture], [question])
    (full,) = miniature.answer(inputs)
    pruned = {}
    for name, options in METHODS.items():
        with prune_visual_tokens(miniature.model, budget=BUDGET, layer=LAYER, **options) as session:
            (answer,) = miniature.answer(inputs)
        pruned[name] = (answer, session.records[-1])
    return Asked(question=question, truth=truth, inputs=inputs, full=full, pruned=pruned)


def answers_table(demo: DigitsDemo) -> Table:
    """Return questions and answers, for the screen."""
    total, kept = demo.tokens
    title = f"Trained miniature LLaVA-OneVision, {kept} of {total} visual tokens from layer {LAYER} on"
    table = Table("question", "truth", f"all {total} tokens", *METHODS, title=title)
    for each in demo.asked:
        table.add_row(each.question, each.truth or "?", each.full, *(answer for answer, _ in each.pruned.values()))
    return table


def draw_answers(figure: "Figure | SubFigure", demo: DigitsDemo) -> None:
    """Draw a line a question: the picture as it is, and once a method with only the kept tokens clear.

    Raises
    ------
    NotImplementedError
        If it cannot be told where on the picture its tokens lie.
    """
    lines = figure.subplots(len(demo.asked), 1 + len(METHODS), squeeze=False)
    for line, each in zip(lines, demo.asked, strict=True):
        line[0].imshow(demo.picture, interpolation="nearest")
        line[0].set_ylabel(each.question, fontsize=11)
        line[0].set_xlabel(f"all tokens: {each.full}", fontsize=11)
        for axes, (name, (answer, record)) in zip(line[1:], each.pruned.items(), strict=True):
            axes.imshow(_kept_of_picture(demo, each, record), interpolation="nearest")
            axes.set_xlabel(f"{name}: {answer}", fontsize=11)
    for axes in lines.flat:
        _without_frame(axes)
    total, kept = demo.tokens
    figure.suptitle(f"Trained miniature, {kept} of {total} visual tokens from layer {LAYER} on", fontsize=12)


def _kept_of_picture(demo: DigitsDemo, each: Asked, record: PruningRecord) -> Any:
    """Dim what was dropped of the crops, the finer of the two views that the model has of a picture."""
    model = demo.miniature.model
    regions = family_of(model).regions(model.config, each.inputs, 0)
    stays: Tensor = torch.isin(record.visual[0], record.kept[0])
    crops = [index for index, region in enumerate(regions) if region.level == "crop"]
    return dim_dropped(demo.picture, [regions[index] for index in crops], stays[crops])


def _without_frame(axes: "Axes") -> None:
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
