"""Equal tokens are a tie, and ties go to the lower index, whatever a library's sums and products round to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from iwp_core import methods
from tests.libraries import load

N, E, D, HEADS, T, M = 83, 37, 16, 32, 9, 30
RNG = np.random.default_rng(6)
GROUP = RNG.permutation(np.arange(N) % 20)
"""Which of twenty different tokens each of the N is."""


def _repeated(*shape: int) -> NDArray[Any]:
    """Random numbers for the twenty tokens, the axis of length 20 spread over the N."""
    return np.take(RNG.standard_normal(shape), GROUP, axis=shape.index(20))


X, KEYS, TEXT = _repeated(20, E), _repeated(20, D), RNG.standard_normal((T, E))
ROWS = np.take(RNG.dirichlet(np.ones(20), size=(HEADS, T)), GROUP, axis=2) / 4
COLUMNS = ROWS[:, 0, :]
CALLS: Mapping[str, tuple[tuple[NDArray[Any], ...], Mapping[str, Any]]] = {
    "cdpruner": ((X, RNG.uniform(size=20)[GROUP]), {"budget": M}),
    "dart": ((X, KEYS, TEXT, RNG.standard_normal((T, D))), {"budget": M}),
    "divprune": ((X,), {"budget": M}),
    "divprune_star": ((X, TEXT), {"budget": M}),
    "fastervlm": ((COLUMNS,), {"budget": M}),
    "fastv": ((COLUMNS,), {"budget": M}),
    "fastv_balanced": ((COLUMNS, X, TEXT[0]), {"budget": M}),
    "fastv_reverse": ((COLUMNS,), {"budget": M}),
    "mustdrop": ((ROWS, np.asarray([0])), {"budget": M}),
    "mustdrop_key_tokens": ((COLUMNS,), {"share": 0.5}),
    "pyramiddrop": ((RNG.standard_normal((HEADS, D)), _repeated(HEADS, 20, D), np.arange(N)), {"budget": M}),
    "scope": ((X, COLUMNS), {"budget": M}),
    "sparsevlm": ((ROWS, np.asarray([0, 2, 3, 4, 5, 6, 7])), {"budget": M}),
    "trimtokenator": ((X, TEXT), {"budget": M}),
    "v2drop": ((X, X + _repeated(20, E)), {"budget": M}),
}
"""Rules that tell tokens apart by their numbers alone, not by where they lie; `mustdrop` by its first one too."""


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("library", ["numpy", "torch"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_of_equal_tokens_those_of_the_lowest_indices_are_kept(name: str, library: str, dtype: str) -> None:
    """So many as are kept of a kind are the first of that kind."""
    xp = load(library)
    arrays, options = CALLS[name]
    budget = [options["budget"]] if "budget" in options and name not in {"dart", "mustdrop"} else []
    given = [xp.array(x, dtype if x.dtype.kind == "f" else None) for x in arrays]
    rest = {key: value for key, value in options.items() if not budget or key != "budget"}

    kept = set(xp.numpy(getattr(methods, name)(*given, *budget, **rest)).tolist())

    for kind in range(20):
        alike = np.nonzero(kind == GROUP)[0].tolist()
        count = len(kept.intersection(alike))
        assert kept.intersection(alike) == set(alike[:count])


@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_merging_joins_a_token_to_the_first_of_those_that_are_equal(library: str) -> None:
    """Where ToMe matches even and odd tokens, every odd one stands there several times."""
    xp = load(library)
    metric = np.empty((2 * N, D))
    metric[0::2], metric[1::2] = RNG.standard_normal((N, D)), KEYS

    merged = methods.tome(xp.array(metric, "float32"), xp.array(metric, "float32"), merge=N)

    assignment, kept = xp.numpy(merged.assignment), xp.numpy(merged.kept)
    partners = (kept[assignment[0::2]] - 1) // 2
    firsts = [np.nonzero(kind == GROUP)[0][0] for kind in GROUP[partners]]
    assert partners.tolist() == firsts
