"""Cosines between all pairs of tokens, with about half of the work of a full matrix product."""

from iwp_core._arrays import Array, arange_indices, namespace, tiles
from iwp_core.identical import first_identical
from iwp_core.methods._precision import Precision

__all__ = ["cosine_distances", "cosines", "largest_other"]

BAND = 512
"""Rows of one product. Larger bands repeat more of the lower triangle, smaller ones use the processor less well."""


def cosines(features: Array, precision: Precision, *, normalised: bool = False) -> Array:
    """Return the cosines S (N, N) between all rows of features (N, E), in the dtype of the computation.

    Only blocks on and above the diagonal are multiplied; the others are their transposes. Rows that are `normalised`
    are used as they are.
    """
    xp = namespace(features)
    units = features if normalised else precision.units(features)
    bands = list(tiles(units.shape[0], BAND))
    upper = [precision.round(units[band, :] @ xp.matrix_transpose(units[band.start :, :])) for band in bands]
    rows = []
    for place, band in enumerate(bands):
        left = [
            xp.matrix_transpose(upper[before][:, band.start - start : band.stop - start])
            for before, start in enumerate(earlier.start for earlier in bands[:place])
        ]
        rows.append(xp.concat([*left, upper[place]], axis=1) if left else upper[place])
    similarity = xp.concat(rows, axis=0) if len(rows) > 1 else rows[0]
    first = first_identical(features[None, :, :])
    # Equal rows have equal cosines to all: a product does not promise it.
    return similarity if first is None else xp.take(xp.take(similarity, first, axis=0), first, axis=1)


def cosine_distances(units: Array, precision: Precision) -> Array:
    """Return max(0, 1 - cos) (N, N) between rows of norm one, with exactly 0 on the diagonal."""
    xp = namespace(units)
    apart = precision.round(1 - cosines(units, precision, normalised=True))
    places = arange_indices(units.shape[0], units)
    outside = (places[:, None] != places[None, :]) & (apart > 0)
    return xp.where(outside, apart, xp.zeros_like(apart))


def largest_other(similarity: Array) -> Array:
    """Return the largest entry of each row of (N, N) off the diagonal, shape (N,); -inf if N is 1."""
    xp = namespace(similarity)
    total = similarity.shape[0]
    columns = arange_indices(total, similarity)
    found = []
    for band in tiles(total, BAND):
        block = similarity[band, :]
        diagonal = columns[None, :] == columns[band, None]
        found.append(xp.max(xp.where(diagonal, xp.full_like(block, -xp.inf), block), axis=1))
    return xp.concat(found)
