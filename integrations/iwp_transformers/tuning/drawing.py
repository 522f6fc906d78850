"""The drawing of agreement over time."""

from matplotlib.figure import Figure

from iwp_transformers.tuning.report import TuneReport

__all__ = ["tune_figure"]

INK, PALE = "#1b4965", "#9aa5b1"
CHOSEN = "#c8553d"


def tune_figure(report: TuneReport) -> Figure:
    """Draw agreement over time: all settings of a report, the front that nothing beats, and the recommended one.

    Parameters
    ----------
    report : TuneReport
        What `tune` found.

    Returns
    -------
    matplotlib.figure.Figure

    Examples
    --------
    >>> tune_figure(report).savefig("tune.png")  # doctest: +SKIP
    """
    figure = Figure(figsize=(7.5, 4.8), layout="constrained")
    axes = figure.add_subplot()
    everything = (*report.settings, report.full)
    places = {each.name: (1000 * each.answer_seconds, 100 * each.agreement) for each in everything}
    for method in dict.fromkeys(each.setting.method for each in report.settings if each.setting is not None):
        own = [places[each.name] for each in report.settings if each.setting and each.setting.method == method]
        seconds, agreement = zip(*own, strict=True)
        axes.scatter(seconds, agreement, s=22, alpha=0.7, label=method)
    axes.scatter(*places[report.full.name], s=60, marker="s", color=INK, label="all tokens")
    axes.step(*zip(*(places[name] for name in report.front), strict=True), where="post", color=PALE, zorder=0)
    best = places[report.recommended.name]
    axes.scatter(*best, s=160, facecolors="none", edgecolors=CHOSEN, linewidths=2, label="recommended")
    axes.annotate(report.recommended.name, best, xytext=(6, -12), textcoords="offset points", color=CHOSEN)
    axes.axhline(100 * (1 - report.aim.tolerance), color=PALE, linestyle=":", linewidth=1)
    axes.set_xlabel("milliseconds an answer, measured")
    axes.set_ylabel("answers as without pruning, %")
    axes.legend(fontsize=8, frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    return figure
