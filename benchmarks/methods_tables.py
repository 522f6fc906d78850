"""Tables of what was measured of methods: right answers at what they cost, where they win, the time of their rules."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bench_methods import FIGURES
from methods_results import RANDOM, Cell, cells_at, difference, places

__all__ = ["bars_table", "conditions", "growth_table", "refused", "standing", "summary_table", "table", "verdict"]

CLEAR = 2.0
"""Standard errors beyond which two rows are called different."""

Results = Mapping[str, Mapping[str, Any]]


def table(result: Mapping[str, Any], place: str, budgets: Sequence[float]) -> str:
    """Return a Markdown table of one place, best rows first: right answers, operations, stages, against random."""
    columns = {budget: {cell.name: cell for cell in cells_at(result, place, budget)} for budget in budgets}
    least = columns[budgets[-1]]
    names = {name: [column[name] for column in columns.values() if name in column] for name in least}
    order = sorted(names, key=lambda name: -sum(cell.mean("mean") for cell in names[name]) / len(names[name]))
    heads = [f"{budget:.1%}" for budget in budgets]
    lines = _heading("method", *heads, "minus random", "tokens from layer on", "mean share")
    for name in order:
        entries = [_right(columns[budget].get(name)) for budget in budgets]
        lines.append(f"| {name} | " + " | ".join([*entries, *_about(least[name], least.get(RANDOM))]) + " |")
    return "\n".join(lines)


def _right(cell: Cell | None) -> str:
    if cell is None:
        return "-"
    return f"{cell.mean('mean'):.1f} ± {cell.error:.1f} ({cell.mean('flops_share'):.0%})"


def _about(cell: Cell, chance: Cell | None) -> tuple[str, str, str]:
    over = "-"
    if chance is not None and chance.name != cell.name:
        gap, error = difference(cell, chance)
        over = f"{gap:+.1f} ± {error:.1f}"
    return over, cell.stages, f"{cell.mean('mean_share'):.1%}"


def refused(result: Mapping[str, Any]) -> list[str]:
    """Return what could not be measured, each with the reason, in words."""
    reasons: dict[str, str] = {}
    for key, entry in result["cells"].items():
        if "refused" in entry:
            row, place, budget = key.split(" | ")
            reasons.setdefault(f"{row}, {place}", f"{entry['refused']} ({budget})")
    return [f"{name}: {reason}" for name, reason in reasons.items()]


def _compared(results: Results, name: str) -> Iterator[tuple[str, str, Cell, Cell, Cell]]:
    """Yield model, place, the cell of a method, that of chance and the best, wherever it was measured."""
    for model, result in results.items():
        for place, budgets in places(result):
            for budget in budgets:
                found = {cell.name: cell for cell in cells_at(result, place, budget)}
                if name in found and RANDOM in found:
                    best = max(found.values(), key=lambda cell: cell.mean("mean"))
                    yield model, place, found[name], found[RANDOM], best


def standing(results: Results, name: str, place: str) -> dict[str, int]:
    """Return how often a method is clearly ahead of chance or behind it, and not clearly behind the best."""
    counts = {"cells": 0, "ahead": 0, "behind": 0, "best": 0}
    for _, where, mine, chance, best in _compared(results, name):
        if where != place:
            continue
        over, error = difference(mine, chance)
        short, shortness = difference(best, mine)
        counts["cells"] += 1
        counts["ahead"] += over > CLEAR * error
        counts["behind"] += over < -CLEAR * error
        counts["best"] += mine.name == best.name or short <= CLEAR * shortness
    return counts


def verdict(results: Results, name: str) -> str:
    """Return a Markdown table of a method's right answers beside those of random choice, and how often it wins."""
    shown = RANDOM if name == "random" else name
    found = [entry for result in results.values() for entry in places(result)]
    budgets = sorted({budget for _, measured in found for budget in measured}, reverse=True)
    lines, sentences = [], []
    for place in dict.fromkeys(place for place, _ in found):
        rows = [_row_beside_chance(model, result, place, budgets, shown) for model, result in results.items()]
        measured = [row for row in rows if row]
        lines += measured
        if measured and name != "random":
            counts = standing(results, shown, place)
            sentences.append(
                f"{place[0].upper()}{place[1:]}: clearly ahead of random choice in {counts['ahead']} of"
                f" {counts['cells']} cells, clearly behind it in {counts['behind']}, level with the best method in"
                f" {counts['best']}."
            )
    if not lines:
        return "Not measured."
    beside = "" if name == "random" else "; in brackets, those of random choice at the same place and budget"
    table = "\n".join([*_heading("where", "miniature", *(f"{budget:.1%} kept" for budget in budgets)), *lines])
    return "\n\n".join([f"Right answers in percent{beside}.", table, *([" ".join(sentences)] if sentences else [])])


def _row_beside_chance(
    model: str, result: Mapping[str, Any], place: str, budgets: Sequence[float], name: str
) -> str | None:
    """Return a line of a table, or None if a method was not measured at a place."""
    entries = []
    for budget in budgets:
        cells = {cell.name: cell for cell in cells_at(result, place, budget)}
        mine, chance = cells.get(name), cells.get(RANDOM)
        beside = "" if chance is None or name == RANDOM else f" ({chance.mean('mean'):.0f})"
        entries.append("-" if mine is None else f"{mine.mean('mean'):.0f}{beside}")
    return None if set(entries) == {"-"} else f"| {place} | {model} | {' | '.join(entries)} |"


def summary_table(results: Results) -> str:
    """Return a Markdown table of how every method stands, best first."""
    found = list(dict.fromkeys(place for result in results.values() for place, _ in places(result)))
    names = list(dict.fromkeys(name for result in results.values() for name in _rows(result)))
    standings = {name: [standing(results, name, place) for place in found] for name in names}
    lines = _heading(
        "method", *(f"{place}: {what}" for place in found for what in ("ahead of random", "behind", "with the best"))
    )
    for name in sorted(names, key=lambda name: -sum(c["best"] + c["ahead"] - c["behind"] for c in standings[name])):
        entries = [
            f"{counts[what]} of {counts['cells']}" if counts["cells"] else "-"
            for counts in standings[name]
            for what in ("ahead", "behind", "best")
        ]
        lines.append(f"| {name} | " + " | ".join(entries) + " |")
    return "\n".join(lines)


def _rows(result: Mapping[str, Any]) -> Iterator[str]:
    for place, budgets in places(result):
        for budget in budgets:
            yield from (cell.name for cell in cells_at(result, place, budget) if cell.name != RANDOM)


def bars_table(result: Mapping[str, Any]) -> str:
    """Return a Markdown table of the rules against the official ways of computing them."""
    lines = _heading(
        "method",
        "official way, s",
        "in Gram products",
        "official code, s",
        "difference after scaling",
        "ours on torch, s",
        "on NumPy, s",
        "times as fast",
        "bar",
    )
    for name, entry in result["methods"].items():
        seconds, speedup, bar = entry["seconds"], entry["speedup"], entry["bar"]
        figure = " to ".join(dict.fromkeys(f"{each:.1f}" for each in FIGURES[name]))
        met = "" if min(speedup.values()) >= bar else ", not met"
        lines.append(
            f"| {name} | {seconds['official']:.2f} | {entry['gram_products']:.2f} | {figure} |"
            f" {entry['deviation']:+.0%} | {seconds['torch']:.2f} | {seconds['numpy']:.2f} |"
            f" {speedup['torch']:.1f}, {speedup['numpy']:.1f} | {bar:.2f}{met} |"
        )
    return "\n".join(lines)


def growth_table(result: Mapping[str, Any]) -> str:
    """Return a Markdown table of the time of every rule by the number of tokens, in milliseconds."""
    sizes = [str(size) for size in result["sizes"]]
    lines = _heading("method", *(f"{int(size):,}" for size in sizes), "exponent", "operations of the official code")
    for name, entry in result["methods"].items():
        taken = [entry["seconds"][size] for size in sizes]
        times = ["-" if spent is None else _milliseconds(1000 * spent) for spent in taken]
        lines.append(f"| {name} | {' | '.join(times)} | {entry['exponent']:.1f} | {entry['published']} |")
    lines += [f"| {name} |{' - |' * (len(sizes) + 1)} {reason} |" for name, reason in result["absent"].items()]
    return "\n".join(lines)


def _milliseconds(time: float) -> str:
    return f"{time:,.0f}" if time >= 10 else f"{time:.1f}"  # noqa: PLR2004 - two digits tell enough


def _heading(*names: str) -> list[str]:
    return ["| " + " | ".join(names) + " |", "|---" * len(names) + "|"]


def conditions(result: Mapping[str, Any]) -> str:
    """Return in a sentence what a result file was measured with."""
    head = result.get("header", result)
    versions = ", ".join(f"{name} {head['versions'][name]}" for name in ("torch", "transformers"))
    return f"`{head['command']}`, {head['device']}, {versions}, commit {head['commit']}, {head['date'][:10]}."
