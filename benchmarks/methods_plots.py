"""Plots of what was measured of methods: right answers over operations, and time over tokens.

Some thirty lines cannot be told apart in one panel. Each family of methods has a panel, in colours; the lines of all
other methods are there too, in grey, so that panels can be compared.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from methods_results import cells_at, places

from iwp_transformers.methods import METHODS, method_class
from iwp_transformers.methods.random_tokens import Random

__all__ = ["families", "plot_accuracy", "plot_growth"]

MARKERS = "os^vDPX*<>"
OURS = "iwp"
PANEL_WIDTH, PANEL_HEIGHT, LEGEND_HEIGHT = 3.4, 3.6, 1.9  # inches
OTHERS: Mapping[str, Any] = {"color": "0.86", "linewidth": 0.8, "zorder": 0}
CHANCE: Mapping[str, Any] = {"color": "black", "linestyle": ":", "linewidth": 1.2, "marker": "d", "markersize": 4}

Line = list[tuple[float, float, float]]
"""Points of a method: place along the axis, value, and its standard error (0 where there is none)."""


def families(names: Sequence[str]) -> dict[str, list[str]]:
    """Return names of rows by family, which is what their methods read; few of them are one family.

    Parameters
    ----------
    names : sequence of str
        Names of methods, perhaps with options after a comma; others are rules from outside.
    """
    if len(names) <= len(MARKERS):
        return {"all methods": list(names)}
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(_family(name), []).append(name)
    return found


def _family(name: str) -> str:
    method = name.partition(",")[0].partition(" ")[0]
    if method not in METHODS:
        return "rules from outside"
    kind = method_class(method)
    if method == OURS or kind.paper is None:
        return "IWP and baselines"
    if "attention of the layer before" in kind.reads:
        return "read the decoder's attention"
    if "vision tower" in kind.reads:
        return "read the vision tower"
    return "read states, queries or keys"


def plot_accuracy(results: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Draw right answers over the operations left: a line of panels for each model and place, a panel a family."""
    rows = [(model, place, budgets) for model, result in results.items() for place, budgets in places(result)]
    lines = [_answers(results[model], place, budgets) for model, place, budgets in rows]
    figure, grid = _panels(lines)
    for axes_row, (model, place, _) in zip(grid, rows, strict=True):
        cells = results[model]["cells"]
        for axes in axes_row:
            axes.axhline(cells["full"]["mean"], color="grey", linewidth=1, zorder=0)
            axes.axhline(cells["no picture"]["mean"], color="grey", linewidth=1, linestyle="--", zorder=0)
        where = "as published" if place == "as published" else f"at {place}"
        axes_row[0].set_ylabel(f"{model}, {where}\nright answers (%), ± standard error")
    for axes in grid[-1]:
        axes.set_xlabel("operations of the prefill (%)")
    return figure


def plot_growth(result: Mapping[str, Any]) -> Figure:
    """Draw the time of every rule over the number of tokens, a panel a family."""
    lines: dict[str, Line] = {
        name: [(int(size), 1000 * spent, 0.0) for size, spent in entry["seconds"].items() if spent is not None]
        for name, entry in result["methods"].items()
    }
    figure, grid = _panels([lines])
    grid[0, 0].set(xscale="log", yscale="log", ylabel="CPU time of choosing (ms), one thread")
    for axes in grid[-1]:
        axes.set_xlabel("visual tokens")
    return figure


def _answers(result: Mapping[str, Any], place: str, budgets: Sequence[float]) -> dict[str, Line]:
    lines: dict[str, Line] = {}
    for budget in budgets:
        for cell in cells_at(result, place, budget):
            point = (100 * cell.mean("flops_share"), cell.mean("mean"), cell.error)
            lines.setdefault(cell.name, []).append(point)
    return lines


def _panels(rows: Sequence[Mapping[str, Line]]) -> tuple[Figure, Any]:
    """Draw each row's lines in a panel for each family, with the family's legend below the last panel."""
    own = families(list(dict.fromkeys(name for lines in rows for name in lines)))
    width = max(PANEL_WIDTH * len(own), 2 * PANEL_WIDTH)
    figure = Figure(figsize=(width, PANEL_HEIGHT * len(rows) + LEGEND_HEIGHT), layout="constrained")
    grid: Any = figure.subplots(len(rows), len(own), squeeze=False, sharex=True, sharey="row")
    for axes_row, lines in zip(grid, rows, strict=True):
        for axes, members in zip(axes_row, own.values(), strict=True):
            _draw(axes, lines, members)
    for column, title in enumerate(own):
        grid[0, column].set_title(title, fontsize=11)
        handles: dict[str, Any] = {}
        for axes in grid[:, column]:
            found, labels = axes.get_legend_handles_labels()
            handles |= dict(zip(labels, found, strict=True))
        grid[-1, column].legend(
            handles.values(), handles, loc="upper center", bbox_to_anchor=(0.5, -0.17), fontsize=9, frameon=False
        )
    return figure, grid


def _draw(axes: Axes, lines: Mapping[str, Line], members: Sequence[str]) -> None:
    """Draw the members in colours, ours thick; random choice in black on every panel; the others in grey."""
    axes.grid(alpha=0.25)
    for name, points in lines.items():
        cost, value, error = zip(*sorted(points), strict=True)
        if name.partition(" ")[0] == Random.name:
            axes.plot(cost, value, label=name, **CHANCE)
        elif name not in members:
            axes.plot(cost, value, **OTHERS)
        else:
            place = members.index(name)
            thick = 2.4 if name.partition(",")[0] == OURS else 1.3
            style = {"color": f"C{place}", "marker": MARKERS[place], "markersize": 5, "linewidth": thick}
            spread = error if np.any(error) else None
            axes.errorbar(cost, value, spread, label=name, capsize=2, elinewidth=0.7, **style)
