"""Overlap of the tokens kept at different layers (figure E.2 of the paper), beside that of random sets."""

import math
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from analysis_runs import Run, Setting, on_a_line, percent
from matplotlib.figure import Figure
from numpy.typing import NDArray

from iwp_core import selection_overlap

__all__ = ["expected_overlap", "mean_overlaps", "measure_overlap", "overlap_figure"]


@cache
def expected_overlap(count: int, total: int) -> float:
    """Return the mean intersection over union of two independent random sets of `count` of `total` tokens."""
    pairs = math.comb(total, count)
    shares = (
        math.comb(count, common) * math.comb(total - count, count - common) / pairs * common / (2 * count - common)
        for common in range(count + 1)
    )
    return math.fsum(shares)


def mean_overlaps(kept: Sequence[Sequence[torch.Tensor]]) -> NDArray[np.float64]:
    """Return the mean over examples of the intersection over union between each pair of layers.

    Parameters
    ----------
    kept : sequence of sequence of torch.Tensor
        For each layer and example, the positions kept; as many for an example at every layer.

    Returns
    -------
    ndarray, shape (layers, layers)
    """
    layers = len(kept)
    first, second = torch.triu_indices(layers, layers)
    total = torch.zeros(layers, layers, dtype=torch.float64)
    for example in zip(*kept, strict=True):
        positions = torch.stack(example)
        total[first, second] += selection_overlap(positions[first], positions[second])
    mean: NDArray[np.float64] = (total.triu() + total.triu(1).T).numpy() / len(kept[0])
    return mean


def measure_overlap(runs: Mapping[Setting, Run]) -> dict[str, Any]:
    """Return, for each budget, the overlaps between layers and what random sets of the same sizes would have."""
    found = {}
    for budget in sorted({setting.budget for setting in runs}, reverse=True):
        mine = [run for setting, run in sorted(runs.items()) if setting.budget == budget]
        overlaps = mean_overlaps([run.kept for run in mine])
        sizes = [(len(kept), total) for kept, total in zip(mine[0].kept, mine[0].totals, strict=True)]
        found[percent(budget)] = {
            "prompts": len(sizes),
            "mean overlap, layers by layers": [on_a_line(row) for row in overlaps],
            "of random sets": float(np.mean([expected_overlap(*size) for size in sizes])),
        }
    return found


def overlap_figure(found: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Draw a map of layers by layers for each model and budget, all on one scale; the diagonal of ones is left out."""
    columns = max(map(len, found.values()))
    figure = Figure(figsize=(4.9 * columns + 0.9, 5.0 * len(found)), layout="compressed")
    panels = figure.subplots(len(found), columns, squeeze=False)
    maps = {
        (name, budget): _off_diagonal(entry) for name, measured in found.items() for budget, entry in measured.items()
    }
    most = math.ceil(10 * max(overlaps.max() for overlaps in maps.values())) / 10
    for axes, ((name, budget), overlaps) in zip(panels.flat, maps.items(), strict=True):
        image = axes.imshow(overlaps, cmap="viridis", vmin=0, vmax=most)
        for (row, column), overlap in np.ndenumerate(overlaps.filled(1)):
            shade = "black" if row == column or overlap > 0.6 * most else "white"
            label = "1" if row == column else f"{overlap:.2f}".removeprefix("0")
            axes.text(column, row, label, ha="center", va="center", color=shade, fontsize=10)
        axes.set_xticks(range(len(overlaps)))
        axes.set_yticks(range(len(overlaps)))
        axes.set_xlabel("pruning layer")
        axes.set_ylabel("pruning layer")
        axes.set_title(f"{name}, {budget} kept\nmIoU; random sets: {found[name][budget]['of random sets']:.2f}")
    figure.colorbar(image, ax=panels, shrink=0.6, label="mean intersection over union")
    return figure


def _off_diagonal(entry: Mapping[str, Any]) -> np.ma.MaskedArray[Any, Any]:
    overlaps = np.array([row.split() for row in entry["mean overlap, layers by layers"]], dtype=float)
    return np.ma.masked_array(overlaps, np.eye(len(overlaps), dtype=bool))
