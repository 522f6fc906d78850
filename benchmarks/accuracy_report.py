"""Tables and plots of what bench_accuracy.py measured.

Prints Markdown tables; writes results/accuracy.png (the Pareto plot) and results/accuracy_layers.png. The first table
of each miniature stands in the README. Run: ``python benchmarks/accuracy_report.py``.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from _harness import PAPER, RESULTS, read
from accuracy_rules import ABLATIONS, CLAIMS, MAIN, RANDOM, SEEDS, runs_of
from answers import paired_difference
from bench_accuracy import ABLATION_BUDGETS, ABLATION_LAYERS, BUDGETS, LAYERS, answered, key
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from iwp_miniature import ARCHITECTURES, KINDS

UPPER_BOUND = "tokens of the digits asked for"
SHOWN = [*(name for name in MAIN if name not in (*SEEDS, UPPER_BOUND)), RANDOM]
COLUMNS = [(layer, budget) for layer in ABLATION_LAYERS for budget in ABLATION_BUDGETS]

Cells = Mapping[str, Mapping[str, Any]]


def is_measured(cells: Cells, rule: str, layer: int, budget: float) -> bool:
    """Tell whether a row has an entry."""
    return all(key(run, layer, budget) in cells for run in runs_of(rule))


def right(result: Mapping[str, Any], rule: str, layer: int, budget: float) -> NDArray[np.float64]:
    """Return for each question whether it was answered right, or in what share of the runs."""
    cells, questions = result["cells"], result["header"]["questions"]
    return np.mean([answered(cells[key(run, layer, budget)], questions) for run in runs_of(rule)], axis=0)


def accuracy(result: Mapping[str, Any], rule: str, layer: int, budget: float, *, of: str = "mean") -> float:
    """Return a figure of a row in percent, averaged over its runs."""
    return float(np.mean([result["cells"][key(run, layer, budget)][of] for run in runs_of(rule)]))


def difference(result: Mapping[str, Any], rule: str, other: str, layer: int, budget: float) -> tuple[float, float]:
    """Return how many points more a rule answers than another one, and the standard error, question by question.

    Every kind and style has as many questions, so the plain mean over questions is the balanced one.
    """
    return paired_difference(right(result, rule, layer, budget), right(result, other, layer, budget))


def _heading(*names: str) -> list[str]:
    """Return the first two lines of a Markdown table."""
    return ["| " + " | ".join(names) + " |", "|---" * len(names) + "|"]


def table(result: Mapping[str, Any], rules: Sequence[str]) -> str:
    """Return a Markdown table: accuracy and, but for the paper's default, the paired difference to it."""
    lines = _heading("rule", *(f"layer {layer}, {budget:.1%}" for layer, budget in COLUMNS))
    for rule in rules:
        entries = []
        for layer, budget in COLUMNS:
            if not is_measured(result["cells"], rule, layer, budget):
                entries.append("-")
                continue
            entry = f"{accuracy(result, rule, layer, budget):.1f}"
            if rule != PAPER:
                gap, error = difference(result, rule, PAPER, layer, budget)
                entry += f" ({gap:+.1f} ± {error:.1f})"
            entries.append(entry)
        lines.append(f"| {rule} | " + " | ".join(entries) + " |")
    return "\n".join(lines)


def kinds_table(result: Mapping[str, Any], rules: Sequence[str], layer: int, budget: float) -> str:
    """Return a Markdown table of accuracy by kind of question at one layer and budget, and of the relative average."""
    lines = _heading("rule", *KINDS, "relative average")
    for rule in [None, *rules]:
        if rule is not None and not is_measured(result["cells"], rule, layer, budget):
            continue
        names = ["full"] if rule is None else [key(run, layer, budget) for run in runs_of(rule)]
        cells = [result["cells"][name] for name in names]
        shares = [f"{np.mean([cell['by_kind'][kind] for cell in cells]):.0f}" for kind in KINDS]
        relative = np.mean([cell.get("relative_average", 100.0) for cell in cells])
        lines.append(f"| {rule or 'no pruning'} | " + " | ".join(shares) + f" | {relative:.1f} |")
    return "\n".join(lines)


def seeds_table(runs: Sequence[Mapping[str, Any]]) -> str:
    """Return a Markdown table of what is claimed: how much better rules are than others, one entry a training run."""
    lines = _heading("points better", *(f"layer {layer}, {budget:.1%}" for layer, budget in COLUMNS))
    for rule, other in CLAIMS:
        entries = []
        for layer, budget in COLUMNS:
            if not all(is_measured(run["cells"], each, layer, budget) for run in runs for each in (rule, other)):
                entries.append("-")
                continue
            gaps = [difference(run, rule, other, layer, budget) for run in runs]
            entries.append(", ".join(f"{gap:+.1f}" for gap, _ in gaps) + f" (± {max(error for _, error in gaps):.1f})")
        lines.append(f"| {rule} over {other} | " + " | ".join(entries) + " |")
    return "\n".join(lines)


def training_runs(name: str, folder: Path = RESULTS) -> list[Mapping[str, Any]]:
    """Return what was measured on each training run of a miniature, in the order of their seeds."""
    found = [read(path) for path in folder.glob(f"accuracy_{name}*.json")]
    return sorted(filter(None, found), key=lambda result: int(result["header"]["training_seed"]))


def panel(axes: Axes, result: Mapping[str, Any], lines: Mapping[float, tuple[int, float]]) -> None:
    """Draw the relative average of every rule, one line each, over abscissae that stand for layers and budgets."""
    for index, rule in enumerate([*SHOWN, UPPER_BOUND]):
        points = [
            (x, accuracy(result, rule, layer, budget, of="relative_average"))
            for x, (layer, budget) in lines.items()
            if is_measured(result["cells"], rule, layer, budget)
        ]
        if not points:
            continue
        style: dict[str, Any] = {"color": f"C{index}", "linewidth": 2.6 if index < 3 else 1.3}  # noqa: PLR2004 - IWP
        if rule in (RANDOM, UPPER_BOUND):
            style = {"color": "black", "linestyle": ":" if rule == RANDOM else "--", "linewidth": 1.6}
        axes.plot(*zip(*points, strict=True), marker="o", markersize=3.5, label=rule, **style)
    axes.axhline(100, color="lightgrey", linewidth=1, zorder=0)
    axes.grid(alpha=0.3)


def pareto(results: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Draw what is left of the accuracy over what is left of the tokens."""
    figure = Figure(figsize=(12, 4.6 * len(results)), layout="constrained")
    for row, (name, result) in zip(_grid(figure, results, len(ABLATION_LAYERS)), results.items(), strict=True):
        for axes, layer in zip(row, ABLATION_LAYERS, strict=True):
            panel(axes, result, {100 * budget: (layer, budget) for budget in BUDGETS})
            axes.set(xscale="log", xticks=[100 * budget for budget in BUDGETS], xlabel="visual tokens kept (%)")
            axes.set_xticklabels([f"{100 * budget:g}" for budget in BUDGETS])
            axes.minorticks_off()
            axes.set_title(f"{name}, pruned at layer {layer}")
    return figure


def by_layer(results: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Draw what is left of the accuracy over the layer that prunes."""
    figure = Figure(figsize=(12, 4.6 * len(results)), layout="constrained")
    for row, (name, result) in zip(_grid(figure, results, len(ABLATION_BUDGETS)), results.items(), strict=True):
        for axes, budget in zip(row, ABLATION_BUDGETS, strict=True):
            panel(axes, result, {layer: (layer, budget) for layer in LAYERS})
            axes.set(xticks=LAYERS, xlabel="pruned at layer")
            axes.set_title(f"{name}, {budget:.1%} of the visual tokens kept")
    return figure


def _grid(figure: Figure, results: Mapping[str, Any], columns: int) -> NDArray[np.object_]:
    grid: NDArray[np.object_] = figure.subplots(len(results), columns, squeeze=False, sharey="row")
    for row in grid:
        row[0].set_ylabel("relative average (% of the accuracy with all tokens)")
    return grid


def draw(figure: Figure, path: Path) -> None:
    """Write a figure with one legend below its panels."""
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=9, frameon=False)
    figure.savefig(path, dpi=110)


def main() -> None:
    """Print the tables and draw the plots."""
    found = {name: read(RESULTS / f"accuracy_{name}.json") for name in ARCHITECTURES}
    results = {name: result for name, result in found.items() if result is not None}
    for name, result in results.items():
        full = result["cells"]["full"]
        print(f"\n## {name}: {full['mean']:.1f} ± {full['standard_error']:.1f} with all tokens\n")
        print(table(result, [*SHOWN, UPPER_BOUND]))
        print("\n### ablations\n")
        print(table(result, [PAPER, *ABLATIONS]))
        runs = training_runs(name)
        whole = ", ".join(f"{run['cells']['full']['mean']:.1f}" for run in runs)
        print(
            f"\n### training runs, seeds {[run['header']['training_seed'] for run in runs]}: {whole} with all tokens\n"
        )
        print(seeds_table(runs))
        for layer in ABLATION_LAYERS:
            print(f"\n### by kind of question, layer {layer}, {ABLATION_BUDGETS[-1]:.1%}\n")
            print(kinds_table(result, [*SHOWN, UPPER_BOUND], layer, ABLATION_BUDGETS[-1]))
    draw(pareto(results), RESULTS / "accuracy.png")
    draw(by_layer(results), RESULTS / "accuracy_layers.png")


if __name__ == "__main__":
    main()
