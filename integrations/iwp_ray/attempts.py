"""Counts work that was begun and not ended, so that a row that kills its process is not tried forever."""

from collections import Counter

__all__ = ["MOST_DEATHS", "Attempts"]

# Processes that may die over one row, tried alone, before the row is blamed for it.
MOST_DEATHS = 2


class Attempts:
    """Counts, for each key, how often work was begun without being ended. It lives in a process of its own.

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
        """Record that work begins. Return how often it was begun before without being ended."""
        before = self._open[key]
        self._open[key] = before + 1
        return before

    def end(self, key: str) -> None:
        """Record that work ended, with a result or with an error."""
        self._open.pop(key, None)
