"""The drawing of agreement over time."""

from typing import TYPE_CHECKING

from matplotlib.figure import Figure

if TYPE_CHECKING:
    from iwp_transformers.tuning.report import TuneReport

__all__ = ["front_figure"]

INK, PALE = "#1b4965", "#9aa5b1"
CHOSEN = "#c8553d"


def front_figure(report: "TuneReport") -> Figure:
    """Draw all settings of a report, the front that nothing beats, and the recommended setting.

    Parameters
    ----------
    report : TuneReport
        What was found.
    """
    figure = Figure(figsize=(7.5, 4.8), layout="constrained")
    axes = figure.add_subplot()
    everything = (*report.settings, report.full)
    places = {each.name: (1000 * each.answer_seconds, 100 * each.agreement) for each in everything}
    for method in dict.fromkeys(each.setting.method for each in report.settings if each.setting is not None):
        own = [places[each.name] for each in report.settings if each.setting and each.setting.method == method]
        axes.scatter(*zip(*own, strict=True), s=22, alpha=0.7, label=method)
    axes.scatter(*places[report.full.name], s=60, marker="s", color=INK, label="all tokens")
    axes.step(*zip(*(places[name] for name in report.front), strict=True), where="post", color=PALE, zorder=0)
    best = places[report.recommended.name]
    axes.scatter(*best, s=160, facecolors="none", edgecolors=CHOSEN, linewidths=2, label="recommended")
    axes.annotate(report.recommended.name, best, xytext=(6, -12), textcoords="offset points", color=CHOSEN)
    axes.axhline(100 * (1 - report.tolerance), color=PALE, linestyle=":", linewidth=1)
    axes.set_xlabel("milliseconds an answer, measured")
    axes.set_ylabel("answers as without pruning, %")
    axes.legend(fontsize=8, frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    return figure
