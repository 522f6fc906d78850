"""The tokens kept at three budgets over the picture, with the answers (figure E.3 of the paper)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from analysis_runs import BUDGETS, Setting, encoded, first_of, on_a_line, percent, pruned_answers
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from iwp_miniature import Example, Miniature
from iwp_transformers import family_of
from iwp_transformers.geometry import Region
from iwp_transformers.picture import dim_dropped

__all__ = ["KeptCase", "kept_cases", "kept_figure", "kept_numbers"]

SHOWN = (("right of", "sparse"), ("color", "dense"))
"""Kind of question and style of scene; the first such test question is shown, whatever is answered."""

ENLARGED = 8
"""Pixels for each pixel of a picture: a token's border is finer than those."""

# Inches.
PICTURE, GAP, TEXT, HEAD, MARGIN = 2.0, 0.08, 0.62, 0.5, 0.15


@dataclass(frozen=True)
class KeptCase:
    """One question, and what became of it.

    Parameters
    ----------
    example : Example
    regions : tuple of Region
        Of the visual tokens.
    answer : str
        With all tokens.
    answers : dict of float to str
        For each budget.
    kept : dict of float to ndarray of bool, shape (N,)
        For each budget, the visual tokens kept.
    """

    example: Example
    regions: tuple[Region, ...]
    answer: str
    answers: dict[float, str]
    kept: dict[float, NDArray[np.bool_]]


def kept_cases(miniature: Miniature, examples: Sequence[Example], layer: int) -> list[KeptCase]:
    """Answer the questions shown with all tokens and with three budgets."""
    cases = []
    for kind, style in SHOWN:
        example = first_of(examples, kind, style)
        inputs = encoded(miniature, [example])
        (answer,) = miniature.answer(inputs)
        answers, kept = {}, {}
        for budget in BUDGETS:
            (answers[budget],), record = pruned_answers(miniature, inputs, Setting(layer, budget))
            kept[budget] = torch.isin(record.visual[0], record.kept[0]).numpy()
        regions = family_of(miniature.model).regions(miniature.model.config, inputs, 0)
        cases.append(KeptCase(example, regions, answer, answers, kept))
    return cases


def kept_numbers(cases: Sequence[KeptCase], layer: int) -> dict[str, Any]:
    """Return questions, answers and the indices of the visual tokens kept."""
    return {
        "layer": layer,
        "cases": [
            {
                "question": case.example.question.text,
                "right answer": case.example.question.answer,
                "answer with all tokens": case.answer,
                "visual tokens": len(case.regions),
                "budgets": {
                    percent(budget): {"answer": case.answers[budget], "kept": on_a_line(np.flatnonzero(flags))}
                    for budget, flags in case.kept.items()
                },
            }
            for case in cases
        ],
    }


def kept_figure(found: Mapping[str, Sequence[KeptCase]], layer: int) -> Figure:
    """Draw a line of pictures for each question: with all tokens, then one for each budget.

    A model that sees the picture twice gets a small second panel, the shrunken whole view, in which a token is drawn
    as large as in the first.
    """
    rows = [(name, case) for name, cases in found.items() for case in cases]
    heights = [HEAD + _size(case)[1] + TEXT for _, case in rows]
    width = max(_row_width(case) for _, case in rows) + 2 * MARGIN
    total = sum(heights) + 2 * MARGIN
    figure = Figure(figsize=(width, total))
    top = total - MARGIN
    for (name, case), height in zip(rows, heights, strict=True):
        question = case.example.question
        heading = f"{name}, layer {layer}:  “{question.text}”  Right answer: {question.answer}"
        figure.text(MARGIN / width, 1 - (total - top + 0.2) / total, heading, fontsize=12, weight="bold", va="center")
        _draw_row(figure, case, top - HEAD)
        top -= height
    return figure


def _draw_row(figure: Figure, case: KeptCase, top: float) -> None:
    """Draw the pictures of a question side by side, their upper edges `top` inches above the figure's lower edge."""
    width, height = _size(case)
    small = _second_scale(case)
    image = case.example.scene.image
    picture = image.resize((image.width * ENLARGED, image.height * ENLARGED), Image.Resampling.NEAREST)
    left = MARGIN
    _draw_panel(figure, np.asarray(picture), (left, top - height, width, height))
    _draw_answer(figure, case, case.answer, f"all {len(case.regions)} tokens", (left, top - height))
    left += width + 3 * GAP
    for budget, flags in case.kept.items():
        heading = f"{percent(budget)}: {flags.sum()} tokens"
        _draw_answer(figure, case, case.answers[budget], heading, (left, top - height))
        for level in ("crop", "grid", "base"):
            chosen = np.array([region.level == level for region in case.regions])
            if chosen.any():
                regions = [region for region in case.regions if region.level == level]
                scale = small if level == "base" else 1.0
                place = (left, top - scale * height, scale * width, scale * height)
                _draw_panel(figure, dim_dropped(picture, regions, flags[chosen]), place)
                left += scale * width + GAP
        left += 2 * GAP


def _draw_panel(figure: Figure, pixels: NDArray[np.uint8], place: tuple[float, float, float, float]) -> None:
    across, up = figure.get_size_inches()
    left, bottom, width, height = place
    axes = figure.add_axes((left / across, bottom / up, width / across, height / up))
    axes.imshow(pixels, aspect="auto", interpolation="antialiased")
    axes.set_axis_off()


def _draw_answer(figure: Figure, case: KeptCase, answer: str, heading: str, place: tuple[float, float]) -> None:
    across, up = figure.get_size_inches()
    left, bottom = place
    is_right = answer == case.example.question.answer
    figure.text(left / across, (bottom - 0.13) / up, heading, fontsize=11, va="center")
    verdict, color = ("right", "tab:green") if is_right else ("wrong", "tab:red")
    said = f"answer: {answer or '(nothing)'} ({verdict})"
    figure.text(left / across, (bottom - 0.33) / up, said, fontsize=11, va="center", color=color, weight="bold")


def _size(case: KeptCase) -> tuple[float, float]:
    """Return width and height of a picture in inches; four cells of the grid are `PICTURE` long."""
    layout = case.example.scene.layout
    return PICTURE * layout.columns / 4, PICTURE * layout.rows / 4


def _second_scale(case: KeptCase) -> float:
    """Return the size of the whole view that lets its tokens look as large as those of the crops; 0 without one."""
    levels = [region.level for region in case.regions]
    return (levels.count("base") / levels.count("crop")) ** 0.5 if "base" in levels else 0.0


def _row_width(case: KeptCase) -> float:
    width, small = _size(case)[0], _second_scale(case)
    panels = 1 + len(case.kept) * (1 + small)
    gaps = len(case.kept) * (3 + (small > 0))
    return width * panels + GAP * gaps
