"""Similarity of visual and text tokens in three spaces (figure E.1 of the paper)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import torch
from analysis_runs import BATCH, decoder_layers, encoded, first_of, on_a_line
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray

from iwp_core import information_duplication, update_cosine
from iwp_miniature import Example, Miniature, in_batches
from iwp_transformers import LayerView, prune_visual_tokens

__all__ = [
    "SPACES",
    "Tokens",
    "measure_similarity",
    "modality_means",
    "read_tokens",
    "similarities",
    "similarity_figure",
]

SPACES = ("kernel key", "value", "dual, squared")

LEAST = 1e-3
"""Where the logarithmic colours of the two similarities that are never negative begin."""

PAIRS = ("within visual", "within text", "across")

SHOWN = 60
"""Tokens at the end of the prompt that the maps show; the paper shows 100 of its longer prompts."""

KIND, STYLE = "right of", "dense"


@dataclass(frozen=True)
class Tokens:
    """The visual tokens of a prompt and the question after them, as a layer sees them.

    Parameters
    ----------
    keys : torch.Tensor, shape (H, n, D)
        With rotary embedding.
    values : torch.Tensor, shape (H, n, Dv)
    visual : int
        How many of the n tokens, from the first, are visual.
    """

    keys: torch.Tensor
    values: torch.Tensor
    visual: int


def read_tokens(miniature: Miniature, inputs: Mapping[str, Any], layer: int) -> list[Tokens]:
    """Read keys and values at the entrance of a layer, with no token dropped, for each encoded question."""
    seen: list[Tokens] = []

    def keep_all(view: LayerView) -> torch.Tensor:
        parts = (view.visual, view.question)
        keys = torch.cat([part.rotated_keys for part in parts], dim=1)
        seen.append(Tokens(keys, torch.cat([part.values for part in parts], dim=1), len(view.visual)))
        return torch.arange(len(view.visual))

    with prune_visual_tokens(miniature.model, budget=1.0, layer=layer, selector=keep_all), torch.no_grad():
        miniature.model(**inputs, logits_to_keep=1)
    return seen


def similarities(keys: torch.Tensor, values: torch.Tensor) -> dict[str, NDArray[np.float64]]:
    """Return the head means of the similarities of all pairs of tokens.

    Parameters
    ----------
    keys : torch.Tensor, shape (H, n, D)
    values : torch.Tensor, shape (H, n, Dv)

    Returns
    -------
    dict of str to ndarray, shape (n, n)
        One for each of `SPACES`.

    Notes
    -----
    The cosine of two updates is a product (proposition 1): with all values alike the kernel's factor is left, with all
    keys alike the values'.
    """
    maps = {
        "kernel key": update_cosine(keys, torch.ones_like(values)).mean(0),
        "value": update_cosine(torch.zeros_like(keys), values).mean(0),
        "dual, squared": information_duplication(keys, values),
    }
    return {space: similarity.double().numpy() for space, similarity in maps.items()}


def modality_means(similarity: NDArray[np.float64], visual: int) -> dict[str, float]:
    """Return the means of a map, shape (n, n), over pairs of different tokens within and between the modalities."""
    is_visual = np.arange(len(similarity)) < visual
    different = ~np.eye(len(similarity), dtype=bool)
    pairs = (np.outer(is_visual, is_visual), np.outer(~is_visual, ~is_visual), np.outer(is_visual, ~is_visual))
    return {name: float(similarity[among & different].mean()) for name, among in zip(PAIRS, pairs, strict=True)}


def measure_similarity(
    miniature: Miniature, examples: Sequence[Example], layer: int, progress: Callable[[int], object] = lambda _: None
) -> dict[str, Any]:
    """Return the maps of one prompt at a layer, and the means within and between modalities over prompts and layers."""
    layers = range(decoder_layers(miniature))
    means: list[list[dict[str, dict[str, float]]]] = [[] for _ in layers]
    for batch in in_batches(examples, BATCH):
        inputs = encoded(miniature, batch)
        for index in layers:
            for tokens in read_tokens(miniature, inputs, index):
                means[index].append(_all_means(similarities(tokens.keys, tokens.values), tokens.visual))
            progress(len(batch))
    shown = first_of(examples, KIND, STYLE)
    (tokens,) = read_tokens(miniature, encoded(miniature, [shown]), layer)
    maps = similarities(tokens.keys, tokens.values)
    text = tokens.keys.shape[1] - tokens.visual
    return {
        "layer": layer,
        "question": shown.question.text,
        "visual tokens": tokens.visual,
        "text tokens": text,
        "means of this prompt": _all_means(maps, tokens.visual),
        "visual tokens shown": SHOWN - text,
        "maps shown": {space: [on_a_line(row) for row in maps[space][-SHOWN:, -SHOWN:]] for space in SPACES},
        "prompts": len(examples),
        "means over prompts": [{"layer": index, **_averaged(means[index])} for index in layers],
    }


def _all_means(maps: Mapping[str, NDArray[np.float64]], visual: int) -> dict[str, dict[str, float]]:
    return {space: modality_means(maps[space], visual) for space in SPACES}


def _averaged(means: Sequence[Mapping[str, Mapping[str, float]]]) -> dict[str, dict[str, dict[str, float]]]:
    """Return, for each space and pair of modalities, the mean over prompts and its standard error."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for space, pair in product(SPACES, PAIRS):
        values = np.array([prompt[space][pair] for prompt in means])
        error = values.std(ddof=1) / len(values) ** 0.5
        found.setdefault(space, {})[pair] = {"mean": float(values.mean()), "standard_error": float(error)}
    return found


def similarity_figure(found: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Draw three maps a model, their diagonals masked, with the means over the whole prompt."""
    figure = Figure(figsize=(11, 4.1 * len(found)), layout="constrained")
    parts = figure.subfigures(len(found), 1, squeeze=False)[:, 0]
    for part, (name, measured) in zip(parts, found.items(), strict=True):
        part.suptitle(
            f"{name}, layer {measured['layer']}: “{measured['question']}” (last {SHOWN} tokens; means over all)",
            fontsize=12,
            weight="bold",
        )
        border = measured["visual tokens shown"]
        for axes, space in zip(part.subplots(1, len(SPACES)), SPACES, strict=True):
            similarity = np.array([row.split() for row in measured["maps shown"][space]], dtype=float)
            masked = np.ma.masked_array(similarity, np.eye(len(similarity), dtype=bool))
            # Of most pairs the kernel leaves so little that an even scale would show the diagonal alone.
            colors, scale = ("RdBu_r", Normalize(-1, 1)) if space == "value" else ("viridis", LogNorm(LEAST, 1))
            image = axes.imshow(masked if space == "value" else masked.clip(LEAST), cmap=colors, norm=scale)
            axes.axhline(border - 0.5, color="red", linewidth=1)
            axes.axvline(border - 0.5, color="red", linewidth=1)
            middles = [(border - 1) / 2, (border + len(similarity) - 1) / 2]
            axes.set_xticks(middles, ["visual", "text"])
            axes.set_yticks(middles, ["visual", "text"], rotation=90, va="center")
            axes.tick_params(length=0)
            means = measured["means of this prompt"][space]
            axes.set_title(
                f"{space}\nmean within visual {means['within visual']:.2g},\n"
                f"within text {means['within text']:.2g}, across {means['across']:.2g}",
                fontsize=10,
            )
            part.colorbar(image, ax=axes, shrink=0.7, extend="neither" if space == "value" else "min")
    return figure
