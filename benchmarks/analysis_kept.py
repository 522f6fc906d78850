"""The tokens kept at three budgets over the picture, with the answers (figure E.3 of the paper)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from analysis_runs import BUDGETS, Setting, encoded, first_of, on_a_line, percent, pruned_answers
from matplotlib.figure import Figure
from numpy.typing import NDArray

from iwp_miniature import Example, Miniature
from iwp_transformers import family_of
from iwp_transformers.picture import dim_dropped
from iwp_transformers.regions import Region

__all__ = ["KeptCase", "kept_cases", "kept_figure", "kept_numbers"]

SHOWN = (("right of", "sparse"), ("color", "dense"))
"""Kind of question and style of scene; the first such test question is shown, whatever is answered."""

# Inches. A picture of four cells is 96 pixels wide: at 120 dots an inch each becomes two by two.
PICTURE, GAP, TEXT, HEAD, MARGIN, FOOT = 1.6, 0.08, 0.58, 0.42, 0.12, 0.2
FONT = 10.5
NOTE = "Clear: kept, dimmed: dropped."
NOTE_ON_VIEWS = " Small: the shrunken whole view, whose tokens count too. Tokens that end a line cover no pixel."


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
    total = sum(heights) + 2 * MARGIN + FOOT
    figure = Figure(figsize=(width, total))
    note = NOTE + (NOTE_ON_VIEWS if any(_second_scale(case) for _, case in rows) else "")
    figure.text(MARGIN / width, (MARGIN + FOOT / 2) / total, note, fontsize=FONT, va="center", color="0.3")
    top = total - MARGIN
    for (name, case), height in zip(rows, heights, strict=True):
        question = case.example.question
        heading = f"{name}, layer {layer}: “{question.text}” Right answer: {question.answer}"
        place = (MARGIN / width, (top - HEAD / 2) / total)
        figure.text(*place, heading, fontsize=FONT + 1, weight="bold", va="center")
        _draw_row(figure, case, top - HEAD)
        top -= height
    return figure


def _draw_row(figure: Figure, case: KeptCase, top: float) -> None:
    """Draw the pictures of a question side by side, their upper edges `top` inches above the figure's lower edge."""
    width, height = _size(case)
    small = _second_scale(case)
    picture = case.example.scene.pixels
    left = MARGIN
    _draw_panel(figure, picture, (left, top - height, width, height))
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
    axes.imshow(pixels, aspect="auto", interpolation="nearest")
    axes.set_axis_off()


def _draw_answer(figure: Figure, case: KeptCase, answer: str, heading: str, place: tuple[float, float]) -> None:
    across, up = figure.get_size_inches()
    left, bottom = place
    figure.text(left / across, (bottom - 0.12) / up, heading, fontsize=FONT, va="center")
    sign, color = ("✓", "darkgreen") if answer == case.example.question.answer else ("✗", "firebrick")
    said = f"answer: {answer or '(nothing)'} {sign}"
    figure.text(left / across, (bottom - 0.31) / up, said, fontsize=FONT, va="center", color=color)


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
