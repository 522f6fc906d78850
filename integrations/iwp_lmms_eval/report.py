"""Tables of what was published, what was measured, and the difference."""

from collections.abc import Iterable

from rich.table import Table

from iwp_lmms_eval.results import AVERAGE, Comparison

__all__ = ["comparison_table"]


def comparison_table(title: str, comparisons: Iterable[Comparison]) -> Table:
    """Return a table with a line for each comparison, the relative averages set off.

    Parameters
    ----------
    title : str
    comparisons : iterable of Comparison
    """
    table = Table("method", "budget", "benchmark", title=title, box=None, pad_edge=False)
    for name in ("published", "measured", "difference"):
        table.add_column(name, justify="right")
    for each in comparisons:
        budget = f"{each.budget:.1%}" if isinstance(each.budget, float) else str(each.budget)
        measured = "-" if each.measured is None else f"{each.measured:.1f}"
        difference = "-" if each.difference is None else f"{each.difference:+.1f}"
        style = "bold" if each.benchmark == AVERAGE else None
        table.add_row(each.row, budget, each.benchmark, f"{each.published:.1f}", measured, difference, style=style)
    return table
