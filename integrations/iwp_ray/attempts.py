"""Which work was begun and never ended, so that a row that kills its process is told instead of tried for ever."""

from collections import Counter

__all__ = ["MOST_DEATHS", "Attempts"]

# Processes that may die over one row, tried alone, before the row is blamed for it.
MOST_DEATHS = 2


class Attempts:
    """Counts beginnings without an end, by key; lives in a process of its own, which outlives those that work.

    Examples
    --------
    >>> attempts = Attempts()
    >>> attempts.begin("row 7"), attempts.begin("row 7")
    (0, 1)
    >>> attempts.end("row 7")
    >>> attempts.begin("row 7")
    0
    """

    def __init__(self) -> None:
        self._open: Counter[str] = Counter()

    def begin(self, key: str) -> int:
        """Note that work begins, and return how often it was begun before without an end."""
        before = self._open[key]
        self._open[key] = before + 1
        return before

    def end(self, key: str) -> None:
        """Note that work ended, in whatever way but with its process."""
        self._open.pop(key, None)
