"""What `iwp demo` shows: a picture of digits, three questions, and the answers with all visual tokens and with few."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import typer
from matplotlib.figure import Figure
from PIL import Image
from rich.console import Console
from rich.table import Table

from iwp_cli.outputs import drawing, write_figure
from iwp_cli.timing import timed_answer
from iwp_miniature import Miniature, draw_layout, load_miniature, render
from iwp_miniature.digits import digit_bank
from iwp_miniature.questions import ask
from iwp_transformers import PruningRecord, family_of, prune_visual_tokens
from iwp_transformers.media.errors import quoted
from iwp_transformers.picture import dim_dropped
from iwp_transformers.timed_generation import TimedGeneration

__all__ = ["digits_demo"]

BUDGET, LAYER = 0.111, 4
KINDS = ("color", "right of", "below largest")
QUESTIONS_OF_ANY_PICTURE = ("largest digit ?", "is there a 7 ?", "how many 3 ?")


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One question with both answers.

    Parameters
    ----------
    question : str
    truth : str or None
        None for a picture that nobody has described.
    inputs : mapping
        The model's inputs.
    full, pruned : TimedGeneration
        With all visual tokens, and with few.
    words : tuple of str
        Both answers.
    record : PruningRecord
        What was kept.
    """

    question: str
    truth: str | None
    inputs: Mapping[str, Any]
    full: TimedGeneration
    pruned: TimedGeneration
    words: tuple[str, str]
    record: PruningRecord


def digits_demo(
    console: Console,
    given: tuple[Path, Image.Image] | None,
    questions: Sequence[str] | None,
    seed: int | None,
    output: Path,
) -> None:
    """Ask the miniature LLaVA-OneVision about a picture, and draw which tokens it kept for each question.

    Parameters
    ----------
    console : rich.console.Console
        Where the report goes.
    given : tuple of Path and PIL.Image.Image, or None
        A picture and where it is from; None for a fresh one of digits that the model has never seen.
    questions : sequence of str or None
        None for three that suit the picture.
    seed : int or None
        Of the fresh picture.
    output : Path
        Where the figure goes.

    Raises
    ------
    MiniatureError
        If the trained weights are missing.
    VocabularyError
        If a question has a word that the miniature does not know.
    """
    miniature = load_miniature()
    if given is None:
        picture, asked = _fresh_picture(seed)
    else:
        picture, asked = given[1], dict.fromkeys(questions or QUESTIONS_OF_ANY_PICTURE)
    compared = [_compare(miniature, picture, question, truth) for question, truth in asked.items()]
    console.print(_table(compared))
    with drawing(*(given or ())[:1]):
        figure = _figure(miniature, picture, compared)
    write_figure(figure, output, dpi=110)
    typer.echo(f"picture: {quoted(output)}")


def _fresh_picture(seed: int | None) -> tuple[Image.Image, dict[str, str | None]]:
    """Draw test digits, and ask one question of each kind."""
    rng = np.random.default_rng(seed)
    while True:
        layout = draw_layout(rng)
        asked = [ask(layout, kind, rng) for kind in KINDS]
        if all(question is not None and question.answer != "none" for question in asked):
            scene = render(layout, digit_bank("test"), rng)
            return scene.image, {question.text: question.answer for question in asked if question is not None}


def _compare(miniature: Miniature, picture: Image.Image, question: str, truth: str | None) -> Comparison:
    inputs = miniature.encode([picture], [question])
    full = timed_answer(miniature.model, inputs, 2)
    with prune_visual_tokens(miniature.model, budget=BUDGET, layer=LAYER) as session:
        pruned = timed_answer(miniature.model, inputs, 2)
    first, second = (miniature.tokenizer.decode(answer.ids[0], skip_special_tokens=True) for answer in (full, pruned))
    words = (first.strip(), second.strip())
    record = session.records[-1]
    return Comparison(
        question=question, truth=truth, inputs=inputs, full=full, pruned=pruned, words=words, record=record
    )


def _figure(miniature: Miniature, picture: Image.Image, compared: Sequence[Comparison]) -> Figure:
    """Draw the picture as it is, and once a question with only the kept tokens clear."""
    total, kept = len(compared[0].record.visual[0]), len(compared[0].record.kept[0])
    figure = Figure(figsize=(3.4 * (1 + len(compared)), 4.5), layout="constrained")
    axes = figure.subplots(1, 1 + len(compared))
    axes[0].imshow(picture, interpolation="nearest")
    axes[0].set_title(f"all {total} visual tokens", fontsize=13)
    for panel, each in zip(axes[1:], compared, strict=True):
        regions = family_of(miniature.model).regions(miniature.model.config, each.inputs, 0)
        stays = torch.isin(each.record.visual[0], each.record.kept[0])
        crops = [index for index, region in enumerate(regions) if region.level == "crop"]
        shown = dim_dropped(picture, [regions[index] for index in crops], stays[crops])
        panel.imshow(shown, interpolation="nearest")
        panel.set_title(each.question, fontsize=13)
        panel.set_xlabel(f"all tokens: {each.words[0]}\n{kept} tokens: {each.words[1]}", fontsize=13)
    for panel in axes:
        panel.set(xticks=[], yticks=[])
        panel.spines[:].set_visible(False)
    axes[0].set_xlabel("\n", fontsize=13)
    figure.suptitle(
        f"Trained miniature LLaVA-OneVision, {BUDGET:.1%} of the visual tokens kept from layer {LAYER} on",
        weight="bold",
    )
    return figure


def _table(compared: Sequence[Comparison]) -> Table:
    record = compared[0].record
    total, kept = len(record.visual[0]), len(record.kept[0])
    table = Table("question", "truth", f"all {total} tokens", "prefill", f"{kept} tokens", "prefill")
    for each in compared:
        times = (f"{1000 * answer.first_token_seconds:.0f} ms" for answer in (each.full, each.pruned))
        first, second = times
        table.add_row(each.question, each.truth or "?", each.words[0], first, each.words[1], second)
    return table
