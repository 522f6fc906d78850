"""Two pictures of what bench_cuda.py measured."""

from typing import Any

from matplotlib import colormaps
from matplotlib.figure import Figure

STYLES = {"iwp": "-", "plain": "--"}
"""Line styles by the first word of a rule; rivals are dotted."""


def _timed(cases: list[dict[str, Any]], rule: str) -> list[tuple[int, float, float, float]]:
    """Return tokens, median and quartiles of a rule where it was timed."""
    figures = ((case["tokens"], case["rules"].get(rule, {})) for case in cases)
    names = ("median", "first quartile", "third quartile")
    return [(total, *(found[name] for name in names)) for total, found in figures if "median" in found]


def selection_figure(cases: list[dict[str, Any]]) -> Figure:
    """Draw seconds over tokens at the least budget, one panel a dtype, with quartiles and the device's two limits."""
    least = min(case["share"] for case in cases)
    cases = [case for case in cases if case["share"] == least]
    dtypes = list(dict.fromkeys(case["dtype"] for case in cases))
    figure = Figure(figsize=(7 * len(dtypes), 5.5), layout="constrained")
    panels = figure.subplots(1, len(dtypes), sharey=True, squeeze=False)[0]
    for axes, dtype in zip(panels, dtypes, strict=True):
        mine = [case for case in cases if case["dtype"] == dtype]
        axes.set_prop_cycle(color=colormaps["tab20"].colors)  # more rules than the usual ten colours
        for rule in dict.fromkeys(rule for case in mine for rule in case["rules"]):
            points = _timed(mine, rule)
            if not points:
                continue
            total, median, first, third = zip(*points, strict=True)
            style = STYLES.get(rule.replace(",", " ").split()[0], ":")
            (line,) = axes.loglog(total, median, style, marker="o", markersize=4, label=rule)
            axes.fill_between(total, first, third, color=line.get_color(), alpha=0.15)
        bounded = [case for case in mine if "limits" in case]
        for limit, shade in (("seconds to read", "0.3"), ("seconds to compute", "0.6")):
            points = [(case["tokens"], case["limits"][limit]) for case in bounded]
            if points:
                axes.loglog(*zip(*points, strict=True), color=shade, linewidth=1, label=f"limit: {limit}")
        axes.set_title(f"{dtype}, {least:.1%} kept")
        axes.set_xlabel("visual tokens N")
        axes.grid(visible=True, which="both", alpha=0.2)
        if axes.lines:
            axes.legend(fontsize=7)
    panels[0].set_ylabel("seconds")
    return figure


def prefill_figure(entries: list[dict[str, Any]]) -> Figure:
    """Draw the decoder's measured speed-up over the one that the operations allow, a colour a model and batch."""
    figure = Figure(figsize=(7, 6), layout="constrained")
    axes = figure.subplots()
    top = 1.0
    for model, batch in dict.fromkeys((entry["model"], entry.get("batch")) for entry in entries):
        points = [
            (against["speed-up that the operations allow"], against["speed-up of the decoder"])
            for entry in entries
            if (entry["model"], entry.get("batch")) == (model, batch)
            for setting in entry.values()
            if isinstance(setting, dict) and (against := setting.get("against full"))
            if against["speed-up that the operations allow"] is not None
        ]
        if points:
            axes.scatter(*zip(*points, strict=True), label=f"{model}, batch {batch}", s=25)
            top = max(top, *(max(point) for point in points))
    axes.plot([1, 1.1 * top], [1, 1.1 * top], color="0.3", linewidth=1, label="all that the operations allow")
    axes.set_xlabel("speed-up that the operations allow")
    axes.set_ylabel("measured speed-up of the decoder's prefill")
    axes.grid(visible=True, alpha=0.2)
    axes.legend(fontsize=8)
    return figure
