"""Windows of a grid of tokens."""

from iwp_core._arrays import Array, arange_indices, namespace
from iwp_core.methods._checks import check_count

__all__ = ["check_grid", "windows_of"]


def check_grid(grid: tuple[int, int], total: int) -> tuple[int, int]:
    """Check the height and width of a grid of `total` tokens, and return them.

    Raises
    ------
    TypeError
        If one is not an integer.
    ValueError
        If they are not two positive numbers whose product is `total`.
    """
    sides = tuple(check_count("grid", side, 1) for side in grid)
    if len(sides) != 2 or sides[0] * sides[1] != total:  # noqa: PLR2004 - height and width
        msg = f"`grid` is {grid}, expected height and width whose product is the {total} tokens"
        raise ValueError(msg)
    return sides[0], sides[1]


def windows_of(grid: tuple[int, int], window: int, like: Array) -> list[Array]:
    """Return the indices of the tokens in each window of a grid, row by row. Windows at the edges may be smaller."""
    xp = namespace(like)
    height, width = grid
    places = xp.reshape(arange_indices(height * width, like), grid)
    return [
        xp.reshape(places[top : min(top + window, height), left : min(left + window, width)], (-1,))
        for top in range(0, height, window)
        for left in range(0, width, window)
    ]
