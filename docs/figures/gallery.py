"""The pictures of docs/gallery.md, from the shipped miniature. Run: ``python docs/figures/gallery.py``.

Writes docs/images/*.png: kept tokens for several questions on one picture, methods side by side, budgets as a strip,
the frames of a video. Everything is seeded, so the pictures come out the same.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from iwp_miniature import Miniature, draw_layout, load_miniature, questions_about, render
from iwp_miniature.digits import SIZE, digit_bank
from iwp_miniature.vocabulary import VIDEO
from iwp_transformers import family_of, prune_visual_tokens
from iwp_transformers.picture import dim_dropped
from iwp_transformers.presets import PER_QUERY

IMAGES = Path(__file__).parents[1] / "images"
LAYER, BUDGET, SEED = 2, 0.111, 14
PRESET: Mapping[str, Any] = {"layer": LAYER, **PER_QUERY}
METHODS: Mapping[str, Mapping[str, Any]] = {
    "per-query preset": PRESET,
    "the paper's default": {"layer": LAYER},
    "DivPrune": {"layer": LAYER, "method": "divprune"},
    "FastV": {"layer": LAYER, "method": "fastv"},
    "random": {"layer": LAYER, "method": "random"},
}
BUDGETS = (0.5, 0.353, 0.222, 0.111, 0.056)
KINDS = ("color", "digit", "place")
FRAMES, VIDEO_BUDGET = 6, 0.056


@dataclass(frozen=True)
class Panel:
    """A picture with its kept tokens clear, and what is written above and below."""

    pixels: Any
    title: str
    caption: str


def pruned_panel(
    miniature: Miniature, picture: Image.Image, question: str, title: str, budget: float, options: Mapping[str, Any]
) -> Panel:
    """Ask a question with few tokens, and draw which ones."""
    inputs = miniature.encode([picture], [question])
    with prune_visual_tokens(miniature.model, budget=budget, **options) as session:
        (answer,) = miniature.answer(inputs)
    record = session.records[-1]
    stays = torch.isin(record.visual[0], record.kept[0])
    regions = family_of(miniature.model).regions(miniature.model.config, inputs, 0)
    # Of the two views that the model has of a picture, the finer one.
    crops = [index for index, region in enumerate(regions) if region.level == "crop"]
    caption = f"{int(stays.sum())} of {len(stays)} tokens: {answer}"
    return Panel(dim_dropped(picture, [regions[index] for index in crops], stays[crops]), title, caption)


def draw(panels: Sequence[Panel], heading: str) -> Figure:
    """Draw panels in a line."""
    figure = Figure(figsize=(2.5 * len(panels), 3.5), layout="constrained")
    for axes, panel in zip(figure.subplots(1, len(panels)), panels, strict=True):
        axes.imshow(panel.pixels, interpolation="nearest")
        axes.set_title(panel.title, fontsize=11)
        axes.set_xlabel(panel.caption, fontsize=11)
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
    figure.suptitle(heading, fontsize=12, weight="bold")
    return figure


def questions(miniature: Miniature, picture: Image.Image, asked: Sequence[Any]) -> Figure:
    """Draw one picture, once for each of several questions."""
    panels = [Panel(np.asarray(picture), "all tokens", "\n")]
    for question in asked:
        panel = pruned_panel(miniature, picture, question.text, question.text, BUDGET, PRESET)
        panels.append(Panel(panel.pixels, panel.title, f"{panel.caption}\n(true: {question.answer})"))
    return draw(panels, f"Each question keeps its own tokens ({BUDGET:.1%}, from layer {LAYER} on)")


def methods(miniature: Miniature, picture: Image.Image, question: Any) -> Figure:
    """Draw one question under several methods."""
    panels = [
        pruned_panel(miniature, picture, question.text, name, BUDGET, options) for name, options in METHODS.items()
    ]
    return draw(panels, f"{question.text}  (true: {question.answer}; {BUDGET:.1%}, from layer {LAYER} on)")


def budgets(miniature: Miniature, picture: Image.Image, question: Any) -> Figure:
    """Draw one question at several budgets."""
    panels = [pruned_panel(miniature, picture, question.text, f"{budget:.1%}", budget, PRESET) for budget in BUDGETS]
    return draw(panels, f"{question.text}  (true: {question.answer}; per-query preset, from layer {LAYER} on)")


def frames_of(rng: np.random.Generator) -> list[Image.Image]:
    """Return frames of one scene in which a new digit appears in each; nothing else changes."""
    layout = draw_layout(rng, style="sparse")
    while len(layout.objects) < FRAMES:
        layout = draw_layout(rng, style="sparse")
    seed = int(rng.integers(2**32))  # drawn with the same numbers, frames differ by their digits alone
    without = render(replace(layout, objects=()), digit_bank("test"), np.random.default_rng(seed)).pixels
    whole = render(layout, digit_bank("test"), np.random.default_rng(seed)).pixels
    frames = [without.copy()]
    for thing in layout.objects[: FRAMES - 1]:
        place = (slice(thing.top, thing.top + SIZE), slice(thing.left, thing.left + SIZE))
        frames.append(frames[-1].copy())
        frames[-1][place] = whole[place]
    return [Image.fromarray(frame) for frame in frames]


def video_inputs(miniature: Miniature, frames: Sequence[Image.Image], question: str) -> dict[str, Tensor]:
    """Encode frames as a video, each frame shown for two: no video processor is needed."""
    pictures = [miniature.architecture.image_processor(frame, return_tensors="pt") for frame in frames]
    rows, columns = pictures[0]["image_grid_thw"][0, 1:].tolist()
    count = len(frames) * rows * columns // 4
    text = "".join(miniature.architecture.prompt(VIDEO * count)) + " " + question
    tokens = miniature.tokenizer([text], return_tensors="pt")
    return {
        "input_ids": tokens["input_ids"],
        "attention_mask": tokens["attention_mask"],
        "pixel_values_videos": torch.cat([picture["pixel_values"] for picture in pictures]),
        "video_grid_thw": torch.tensor([[len(frames), rows, columns]]),
        "mm_token_type_ids": 2 * (tokens["input_ids"] == miniature.model.config.video_token_id).int(),
    }


def video(miniature: Miniature) -> Figure:
    """Draw the frames of a video, which compete for one budget."""
    frames = frames_of(np.random.default_rng(SEED))
    inputs = video_inputs(miniature, frames, "largest digit ?")
    with prune_visual_tokens(miniature.model, budget=VIDEO_BUDGET, **PRESET) as session:
        miniature.model.generate(**inputs, max_new_tokens=2)
    record = session.records[-1]
    stays = torch.isin(record.visual[0], record.kept[0])
    regions = family_of(miniature.model).regions(miniature.model.config, inputs, 0)
    panels = []
    for number, frame in enumerate(frames):
        own = [index for index, region in enumerate(regions) if region.frame == number]
        pixels = dim_dropped(frame, [regions[index] for index in own], stays[own])
        panels.append(Panel(pixels, f"frame {number + 1}", f"{int(stays[own].sum())} of {len(own)}"))
    return draw(panels, f"One more digit in each frame; {VIDEO_BUDGET:.1%} of all frames' tokens are kept")


def main() -> None:
    """Draw everything."""
    miniature = load_miniature("llava-onevision")
    rng = np.random.default_rng(SEED)
    layout = draw_layout(rng, style="dense")
    picture = render(layout, digit_bank("test"), rng).image
    asked = [found[-1] for kind in KINDS if (found := questions_about(layout, kind))]
    figures = {
        "questions": questions(miniature, picture, asked),
        "methods": methods(miniature, picture, asked[0]),
        "budgets": budgets(miniature, picture, asked[0]),
        "video": video(load_miniature("qwen2.5-vl")),
    }
    IMAGES.mkdir(exist_ok=True)
    for name, figure in figures.items():
        figure.savefig(IMAGES / f"{name}.png", dpi=100, metadata={"Software": None})


if __name__ == "__main__":
    main()
