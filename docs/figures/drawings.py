"""The drawings of docs/how_it_works.md. Run: ``python docs/figures/drawings.py``, which writes docs/images/*.svg."""

from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

IMAGES = Path(__file__).parents[1] / "images"
KEPT, DROPPED, TEXT, INK = "#1f77b4", "#d9d9d9", "#2ca02c", "#333333"
UPDATES = ("#1f77b4", "#ff7f0e", "#9467bd")
COPIES, OTHERS = 12, 4
CHUNKS = (2, 4, 8, 16)
LAYERS, PRUNES_AT, WORDS = 8, 3, 4


def blank(width: float, height: float, *, x: tuple[float, float], y: tuple[float, float]) -> tuple[Figure, Axes]:
    """Return a figure of a size in inches, with axes that show nothing but what is drawn."""
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    axes.set(xlim=x, ylim=y, aspect="equal")
    axes.set_axis_off()
    return figure, axes


def matrix(axes: Axes, left: float, bottom: float, numbers: np.ndarray, color: str) -> None:
    """Draw a matrix of numbers in [0, 1] as cells of a color that fades to white."""
    shade = np.array(to_rgb(color))
    for (row, column), number in np.ndenumerate(numbers):
        corner = (left + column, bottom + len(numbers) - 1 - row)
        axes.add_patch(Rectangle(corner, 1, 1, facecolor=1 - number * (1 - shade), edgecolor="white", linewidth=1))


def dual_form() -> Figure:
    """Draw three tokens, the update that each adds, and the weight that the query meets."""
    keys = np.array([[1.0, 0.2, 0.5], [0.1, 0.9, 0.4], [0.3, 0.6, 1.0]])
    values = np.array([[0.9, 0.3, 0.6], [0.2, 1.0, 0.5], [0.7, 0.1, 0.8]])
    figure, axes = blank(9, 3.1, x=(-1, 30.5), y=(-2.6, 6.6))
    for place, (key, value, color) in enumerate(zip(keys, values, UPDATES, strict=True)):
        left = 6.2 * place
        matrix(axes, left, 0, key[:, None], color)
        axes.text(left + 1.25, 1.5, "\N{MULTIPLICATION SIGN}", ha="center", va="center", fontsize=13, color=INK)
        matrix(axes, left + 1.5, 3.5, value[None, :], color)
        matrix(axes, left + 1.5, 0, np.outer(key, value), color)
        axes.text(left + 3, -0.9, f"token {place + 1}", ha="center", va="center", fontsize=11, color=color)
        axes.text(left + 0.5, 5.5, "key", ha="center", fontsize=9, color=INK)
        axes.text(left + 3, 5.5, "value", ha="center", fontsize=9, color=INK)
        axes.text(left + 5.4, 1.5, "+" if place < 2 else "=", ha="center", va="center", fontsize=18, color=INK)  # noqa: PLR2004
    total = sum(np.outer(key, value) for key, value in zip(keys, values, strict=True))
    matrix(axes, 19.2, 0, total / total.max(), "#444444")
    axes.text(20.7, -0.9, "implicit weight", ha="center", va="center", fontsize=11, color=INK)
    axes.annotate("", (18.9 + 6.3, 1.5), (18.9 + 4, 1.5), arrowprops={"arrowstyle": "<-", "color": INK})
    matrix(axes, 25.8, 1, np.array([[0.8, 0.3, 0.6]]), TEXT)
    axes.text(27.3, -0.9, "query", ha="center", va="center", fontsize=11, color=TEXT)
    axes.text(14.5, -2.3, "dropping a token takes its update away", ha="center", fontsize=10, style="italic", color=INK)
    return figure


def duplication() -> Figure:
    """Draw updates as arrows, many copies of the strongest and a few weaker ones elsewhere, of which four are kept."""
    rng = np.random.default_rng(3)
    angles = np.concatenate([rng.normal(1.2, 0.05, COPIES), [0.15, 2.35, 2.9, 0.6]])
    lengths = np.concatenate([rng.uniform(0.92, 1.0, COPIES), [0.75, 0.7, 0.62, 0.55]])
    strongest = np.argsort(-lengths)[:OTHERS]
    spread = np.array([int(strongest[0]), COPIES, COPIES + 1, COPIES + 2])
    figure = Figure(figsize=(8.4, 2.9), layout="constrained")
    panels = figure.subplots(1, 2)
    for axes, kept, title in zip(
        panels, (strongest, spread), ("magnitude alone: four copies", "with duplication: four directions"), strict=True
    ):
        axes.set(xlim=(-1.1, 1.1), ylim=(-0.05, 1.1), aspect="equal")
        axes.set_axis_off()
        axes.set_title(title, fontsize=11, color=INK)
        for index, (angle, length) in enumerate(zip(angles, lengths, strict=True)):
            end = (length * np.cos(angle), length * np.sin(angle))
            stays = index in kept
            style = {"arrowstyle": "-|>", "color": KEPT if stays else "#bbbbbb", "linewidth": 2.2 if stays else 1.0}
            axes.annotate("", end, (0, 0), arrowprops=style, zorder=3 if stays else 1)
    return figure


def chunks() -> Figure:
    """Draw chunks that double, on a line of tokens by falling magnitude; after each, its copies are marked down."""
    rng = np.random.default_rng(1)
    kinds = rng.integers(0, 7, 60)
    scores = np.sort(rng.uniform(0.05, 1.0, 60))[::-1]
    figure = Figure(figsize=(9, 3.9), layout="constrained")
    panels = figure.subplots(len(CHUNKS), 1, sharex=True)
    taken = np.zeros(60, dtype=bool)
    for axes, size in zip(panels, CHUNKS, strict=True):
        order = np.argsort(-np.where(taken, -1.0, scores), kind="stable")[:size]
        colors = np.where(taken, "#9ecae1", DROPPED)
        colors[order] = KEPT
        axes.bar(np.arange(60), scores, color=colors, width=0.8)
        axes.set_ylabel(f"chunk of {size}", rotation=0, ha="right", va="center", fontsize=10, color=INK)
        axes.set(xticks=[], yticks=[], ylim=(0, 1.05))
        axes.spines[:].set_visible(False)
        taken[order] = True
        scores = np.where(~taken & np.isin(kinds, kinds[order]), scores * 0.55, scores)
    panels[-1].set_xlabel(
        "tokens; height: score; dark: taken now; light blue: taken before; what is like a taken token sinks",
        fontsize=10, color=INK,
    )  # fmt: skip
    return figure


def layers() -> Figure:
    """Draw rows of tokens, layer by layer: visual ones leave at one layer, words are added behind."""
    figure, axes = blank(9, 3.4, x=(-5.5, 37), y=(-1.6, LAYERS + 0.4))
    visual, kept = 24, (3, 8, 15, 21)
    for layer in range(LAYERS):
        for column in range(visual + WORDS + 3):
            word, new = column >= visual, column >= visual + WORDS
            gone = not word and layer >= PRUNES_AT and column not in kept
            face = "none" if gone else (TEXT if word else KEPT)
            edge = {"edgecolor": DROPPED if gone else "white", "linewidth": 0.6, "alpha": 0.55 if new else 1.0}
            axes.add_patch(Rectangle((column, layer), 0.9, 0.85, facecolor=face, **edge))
        axes.text(-0.5, layer + 0.4, f"layer {layer}", ha="right", va="center", fontsize=8, color=INK)
    axes.text(12, -0.9, "visual tokens", ha="center", fontsize=10, color=KEPT)
    axes.text(26, -0.9, "question", ha="center", fontsize=10, color=TEXT)
    axes.text(29.2, -0.9, "answer", ha="left", fontsize=10, color=TEXT, alpha=0.7)
    axes.annotate("pruned here", (31, PRUNES_AT), (31.5, PRUNES_AT + 0.2), fontsize=10, color=INK)
    axes.plot((-0.2, 31), (PRUNES_AT - 0.07, PRUNES_AT - 0.07), color=INK, linewidth=1.2, linestyle="--")
    return figure


def main() -> None:
    """Write all drawings, the same bytes each time."""
    IMAGES.mkdir(exist_ok=True)
    with mpl.rc_context({"svg.hashsalt": "iwp", "svg.fonttype": "path"}):
        for draw in (dual_form, duplication, chunks, layers):
            draw().savefig(IMAGES / f"{draw.__name__}.svg", metadata={"Date": None}, facecolor="white")


if __name__ == "__main__":
    main()
