"""Plots of what was measured of methods: right answers over operations, and time over tokens."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from methods_results import RANDOM, cells_at, places

__all__ = ["plot_accuracy", "plot_growth"]

COLOURS = tuple(f"C{number}" for number in range(10))
MARKERS = "osD^v<>pPX*h"
OURS = "iwp"


def plot_accuracy(results: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Draw right answers over the operations that are left, one line a method, one panel a model and place."""
    found = list(dict.fromkeys(place for result in results.values() for place, _ in places(result)))
    figure = Figure(figsize=(7.5 * len(found), 5.5 * len(results) + 1.5), layout="constrained")
    grid = figure.subplots(len(results), len(found), squeeze=False, sharey="row")
    styles: dict[str, dict[str, Any]] = {}
    for row, (model, result) in zip(grid, results.items(), strict=True):
        budgets = dict(places(result))
        for axes, place in zip(row, found, strict=True):
            _panel(axes, result, place, budgets.get(place, []), styles)
            axes.axhline(result["cells"]["full"]["mean"], color="grey", linewidth=1, zorder=0)
            axes.axhline(result["cells"]["no picture"]["mean"], color="grey", linewidth=1, linestyle=":", zorder=0)
            axes.set_title(f"{model}, {'acting ' + place if place == 'as published' else 'at ' + place}")
            axes.set_xlabel("operations of the decoder's prefill (% of those with all tokens)")
            axes.grid(alpha=0.3)
        row[0].set_ylabel("right answers (%), ± standard error")
    handles = {
        label: handle for axes in grid.flat for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    columns = 6 if len(found) > 1 else 3
    figure.legend(handles.values(), handles, loc="outside lower center", ncols=columns, fontsize=8, frameon=False)
    return figure


def _panel(
    axes: Axes, result: Mapping[str, Any], place: str, budgets: Sequence[float], styles: dict[str, dict[str, Any]]
) -> None:
    lines: dict[str, list[tuple[float, float, float]]] = {}
    for budget in budgets:
        for cell in cells_at(result, place, budget):
            point = (100 * cell.mean("flops_share"), cell.mean("mean"), cell.error)
            lines.setdefault(cell.name, []).append(point)
    for name, points in lines.items():
        cost, answers, errors = zip(*sorted(points), strict=True)
        axes.errorbar(cost, answers, errors, label=name, capsize=2, markersize=4.5, **_style(name, styles))


def _style(name: str, styles: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return colour and marker of a row, the same in every panel: ours thick, chance black."""
    if name not in styles:
        number = len(styles)
        colour = "black" if name == RANDOM else COLOURS[number % len(COLOURS)]
        width = 2.2 if name.partition(",")[0] == OURS else 0.9
        marker = MARKERS[number % len(MARKERS)]
        styles[name] = {"color": colour, "marker": marker, "linewidth": width, "elinewidth": 0.6}
        if name == RANDOM:
            styles[name]["linestyle"] = ":"
    return styles[name]


def plot_growth(result: Mapping[str, Any]) -> Figure:
    """Draw the time of every rule over the number of tokens."""
    figure = Figure(figsize=(8, 8), layout="constrained")
    axes = figure.subplots()
    styles: dict[str, dict[str, Any]] = {}
    for name, entry in result["methods"].items():
        known = [(int(size), 1000 * spent) for size, spent in entry["seconds"].items() if spent is not None]
        axes.plot(*zip(*known, strict=True), label=name, markersize=4, **_without_errors(_style(name, styles)))
    axes.set(xscale="log", yscale="log", xlabel="visual tokens", ylabel="CPU time of choosing (ms), one thread")
    axes.grid(alpha=0.3, which="both")
    figure.legend(loc="outside right upper", fontsize=8, frameon=False)
    return figure


def _without_errors(style: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in style.items() if name != "elinewidth"}
