"""Accuracy by the layer that prunes (table E.3 of the paper): estimates with standard errors, a picture, a table."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from analysis_runs import Run, Setting, percent
from answers import accuracies
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from iwp_miniature import KINDS, Example

__all__ = ["layers_figure", "layers_markdown", "measure_layers"]


def measure_layers(examples: Sequence[Example], full: Run, runs: Mapping[Setting, Run]) -> dict[str, Any]:
    """Return accuracies in per cent without pruning and, for each budget, layer by layer."""
    kinds = np.array([example.question.kind for example in examples])
    styles = np.array([example.scene.layout.style for example in examples])
    budgets: dict[str, list[dict[str, Any]]] = {}
    for setting, run in sorted(runs.items(), key=lambda item: (-item[0].budget, item[0].layer)):
        row = {"layer": setting.layer, **accuracies(run.right, kinds, styles, full=full.right)}
        budgets.setdefault(percent(setting.budget), []).append(row)
    without = accuracies(full.right, kinds, styles)
    return {"questions": len(examples), "without pruning": without, "budgets": budgets}


def layers_figure(found: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Draw, for each model, the relative average over the layer, and the accuracies of the least budget by kind."""
    figure = Figure(figsize=(11, 4.3 * len(found)), layout="constrained")
    rows = figure.subplots(len(found), 2, squeeze=False, width_ratios=(1, 1.35))
    for (lines, table), (name, measured) in zip(rows, found.items(), strict=True):
        _draw_lines(lines, name, measured)
        _draw_kinds(table, name, measured)
    return figure


def _draw_lines(axes: Axes, name: str, measured: Mapping[str, Any]) -> None:
    """Draw relative averages; accuracies where a kind has nothing to be relative to."""
    is_relative = all("relative_average" in row for table in measured["budgets"].values() for row in table)
    drawn, error = ("relative_average", "relative_standard_error") if is_relative else ("mean", "standard_error")
    for shift, (budget, table) in enumerate(measured["budgets"].items()):
        layers, values, errors = (np.array([row[column] for row in table]) for column in ("layer", drawn, error))
        # Side by side, or the bars of one budget hide those of another.
        axes.errorbar(layers + 0.08 * shift, values, errors, marker="o", capsize=3, label=f"{budget} kept")
    whole = 100 if is_relative else measured["without pruning"]["mean"]
    axes.axhline(whole, color="0.4", linestyle=":", label="no pruning")
    axes.set_title(f"{name}: pruned from one layer on\n{measured['questions']:,} questions, bars: standard error")
    axes.set_xlabel("pruning layer")
    axes.set_ylabel("relative average, %" if is_relative else "mean accuracy, %")
    axes.grid(visible=True, alpha=0.3)
    axes.legend(loc="lower right")


def _draw_kinds(axes: Axes, name: str, measured: Mapping[str, Any]) -> None:
    budget, table = list(measured["budgets"].items())[-1]
    entries = [measured["without pruning"], *table]
    shares = np.array([[*entry["by_kind"].values(), entry["mean"]] for entry in entries])
    # Beyond 100, so that the darkest green still carries black numbers.
    axes.imshow(shares, cmap="YlGn", vmin=0, vmax=140, aspect="auto")
    for (row, column), share in np.ndenumerate(shares):
        axes.text(column, row, f"{share:.0f}", ha="center", va="center", fontsize=10)
    axes.set_xticks(range(shares.shape[1]), [*KINDS, "mean"], rotation=40, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(entries)), ["no pruning", *(f"layer {row['layer']}" for row in table)])
    axes.axhline(0.5, color="white", linewidth=4)
    axes.axvline(shares.shape[1] - 1.5, color="white", linewidth=4)
    axes.set_title(f"{name}: right answers, %, {budget} kept")


def layers_markdown(name: str, measured: Mapping[str, Any]) -> str:
    """Write the numbers as a table for a README."""
    lines = [
        f"| {name}, pruning layer | kept | {' | '.join(KINDS)} | mean | relative average |",
        "|---" * (len(KINDS) + 4) + "|",
        f"| none | all | {_cells(measured['without pruning'])} | 100 |",
    ]
    for budget, table in measured["budgets"].items():
        for row in table:
            relative = "-"
            if "relative_average" in row:
                relative = f"{row['relative_average']:.1f} ± {row['relative_standard_error']:.1f}"
            lines.append(f"| {row['layer']} | {budget} | {_cells(row)} | {relative} |")
    return "\n".join(lines)


def _cells(entry: Mapping[str, Any]) -> str:
    shares = (*entry["by_kind"].values(), entry["mean"])
    return " | ".join(f"{share:.1f}" for share in shares)
