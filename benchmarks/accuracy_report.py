"""Tables and a plot of what bench_accuracy.py measured.

Prints Markdown tables and writes results/accuracy.png. Run: ``python benchmarks/accuracy_report.py``.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from _harness import RESULTS, read
from accuracy_rules import ABLATIONS, MAIN
from bench_accuracy import ABLATION_BUDGETS, ABLATION_LAYERS, BUDGETS, key
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from iwp_miniature import ARCHITECTURES

PAPER = "IWP (the paper's default)"
SHOWN = [name for name in MAIN if not name.startswith("random")]
RANDOM = [name for name in MAIN if name.startswith("random")]

Cells = Mapping[str, Mapping[str, Any]]


def right(cells: Cells, name: str, questions: int) -> NDArray[np.bool_]:
    """Return which questions a cell answered right."""
    return np.unpackbits(np.frombuffer(bytes.fromhex(cells[name]["right"]), dtype=np.uint8))[:questions].astype(bool)


def difference(cells: Cells, name: str, other: str, questions: int) -> tuple[float, float]:
    """Return how many points more a cell answers than another one, and the standard error, question by question.

    Every kind and style has as many questions, so the plain mean over questions is the balanced one.
    """
    gap = right(cells, name, questions).astype(float) - right(cells, other, questions)
    return 100 * float(gap.mean()), 100 * float(gap.std() / math.sqrt(questions))


def table(result: Mapping[str, Any], rules: Sequence[str]) -> str:
    """Return a Markdown table: accuracy and, but for the paper's default, the paired difference to it."""
    cells, questions = result["cells"], result["header"]["questions"]
    columns = [(layer, budget) for layer in ABLATION_LAYERS for budget in ABLATION_BUDGETS]
    lines = ["| rule | " + " | ".join(f"layer {layer}, {budget:.1%}" for layer, budget in columns) + " |"]
    lines.append("|---" * (1 + len(columns)) + "|")
    for rule in rules:
        entries = []
        for layer, budget in columns:
            if (name := key(rule, layer, budget)) not in cells:
                entries.append("-")
                continue
            entry = f"{cells[name]['mean']:.1f}"
            if rule != PAPER:
                gap, error = difference(cells, name, key(PAPER, layer, budget), questions)
                entry += f" ({gap:+.1f} ± {error:.1f})"
            entries.append(entry)
        lines.append(f"| {rule} | " + " | ".join(entries) + " |")
    return "\n".join(lines)


def panel(axes: Axes, cells: Cells, layer: int) -> None:
    """Draw accuracy over budget, one line a rule, at one layer."""
    for rule in [*SHOWN, "random"]:
        names = RANDOM if rule == "random" else [rule]
        points = []
        for budget in BUDGETS:
            found = [cells[key(name, layer, budget)]["mean"] for name in names if key(name, layer, budget) in cells]
            if found:
                points.append((100 * budget, float(np.mean(found))))
        style = {"color": "black", "linestyle": ":"} if rule == "random" else {}
        wide = 2.8 if rule in SHOWN[:2] else 1.4
        axes.plot(*zip(*points, strict=True), marker="o", markersize=4, linewidth=wide, label=rule, **style)
    axes.axhline(cells["full"]["mean"], color="grey", linewidth=1)
    axes.annotate("no pruning", (5.6, cells["full"]["mean"]), va="bottom", color="grey")
    axes.set(xscale="log", xticks=[100 * budget for budget in BUDGETS], xlabel="visual tokens kept (%)")
    axes.set_xticklabels([f"{100 * budget:g}" for budget in BUDGETS])
    axes.minorticks_off()
    axes.grid(alpha=0.3)


def main() -> None:
    """Print the tables and draw the plot."""
    results = {name: read(RESULTS / f"accuracy_{name}.json") for name in ARCHITECTURES}
    figure = Figure(figsize=(13, 9), layout="constrained")
    grid = figure.subplots(len(results), len(ABLATION_LAYERS), squeeze=False, sharey="row")
    for row, (name, result) in zip(grid, results.items(), strict=True):
        if result is None:
            continue
        print(f"\n## {name}: {result['cells']['full']['mean']:.1f} with all tokens\n")
        print(table(result, [*MAIN, *ABLATIONS]))
        for axes, layer in zip(row, ABLATION_LAYERS, strict=True):
            panel(axes, result["cells"], layer)
            axes.set_title(f"{name}, pruned at layer {layer}")
        row[0].set_ylabel("right answers (%)")
    grid[0, 0].legend(fontsize=8)
    figure.savefig(RESULTS / "accuracy.png", dpi=110)


if __name__ == "__main__":
    main()
