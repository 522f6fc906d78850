"""The measures refuse what the selection refuses, and positions that are none."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import iwp_core
from tests.libraries import Array
from tests.strategies import shaped, spoiled

H, HQ, N, D, DV = 2, 4, 12, 4, 3

FUNCTIONS: dict[str, Callable[..., Array]] = {
    "information_magnitude": iwp_core.information_magnitude,
    "information_duplication": lambda _, keys, values: iwp_core.information_duplication(keys, values),
    "log_update_norm": lambda _, keys, values: iwp_core.log_update_norm(keys, values),
    "update_cosine": lambda _, keys, values: iwp_core.update_cosine(keys, values),
    "deletion_error": lambda _, keys, values: iwp_core.deletion_error(keys, values, np.arange(3)),
    "dual_spectrum": lambda _, keys, values: iwp_core.dual_spectrum(keys, values),
}


@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
@pytest.mark.parametrize(
    ("values", "error"),
    [
        (shaped(H, N - 1, DV), ValueError),
        (shaped(H + 1, N, DV), ValueError),
        (spoiled(float("nan"), H, N, DV), ValueError),
        (np.ones((H, N, DV), dtype=np.int64), TypeError),
        ([[1.0]], TypeError),
    ],
    ids=["tokens", "heads", "nan", "dtype", "list"],
)
def test_every_public_function_checks_its_arrays(
    function: Callable[..., Array], values: object, error: type[Exception]
) -> None:
    """The measures refuse what the selection refuses, naming the argument."""
    with pytest.raises(error, match="`values`"):
        function(shaped(HQ, D), shaped(H, N, D), values)


WRONG_INDICES = [
    (np.asarray([0.5]), TypeError), (np.asarray([True]), TypeError), ([0], TypeError), (np.asarray([12]), ValueError),
    (np.asarray([-1]), ValueError), (np.asarray(3), ValueError), (np.zeros((3, 2), dtype=np.int64), ValueError),
]  # fmt: skip


@pytest.mark.parametrize(("indices", "error"), WRONG_INDICES, ids=repr)
@pytest.mark.parametrize(
    ("name", "argument"),
    [
        ("information_duplication", "rows"),
        ("information_duplication", "cols"),
        ("update_cosine", "rows"),
        ("update_cosine", "cols"),
        ("deletion_error", "kept"),
        ("dual_spectrum", "kept"),
    ],
)
def test_positions_are_integers_within_the_tokens(
    name: str, argument: str, indices: object, error: type[Exception]
) -> None:
    """Libraries disagree on negative positions and on those past the end, so neither is passed on."""
    with pytest.raises(error) as caught:
        getattr(iwp_core, name)(shaped(H, N, D), shaped(H, N, DV), **{argument: indices})

    assert f"`{argument}`" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "option", "allowed"),
    [
        ("information_magnitude", "metric", "'raw_key_norm'"),
        ("information_magnitude", "kernel", "'linear'"),
        ("information_magnitude", "heads", "'softmax_mean'"),
        ("information_duplication", "metric", "'kernel_key'"),
        ("information_duplication", "kernel", "'linear'"),
        ("log_update_norm", "kernel", "'linear'"),
        ("update_cosine", "kernel", "'linear'"),
        ("deletion_error", "kernel", "'linear'"),
        ("dual_spectrum", "kernel", "'linear'"),
    ],
)
def test_an_unknown_name_is_answered_with_the_known_ones(name: str, option: str, allowed: str) -> None:
    """Every option that takes a name lists the names."""
    arrays = [shaped(H, N, D), shaped(H, N, DV)]
    if name == "information_magnitude":
        arrays.insert(0, shaped(HQ, D))
    elif name == "deletion_error":
        arrays.append(np.arange(3))

    with pytest.raises(ValueError, match=f"`{option}`.*'unheard-of'.*{allowed}"):
        getattr(iwp_core, name)(*arrays, **{option: "unheard-of"})


@pytest.mark.parametrize(
    ("a", "b", "argument", "error"),
    [
        (np.asarray([0.5]), np.asarray([1]), "a", TypeError),
        (np.asarray([1]), np.asarray([True]), "b", TypeError),
        ([1], np.asarray([1]), "a", TypeError),
        (np.asarray(1), np.asarray([1]), "a", ValueError),
        (np.asarray([1]), np.asarray(1), "b", ValueError),
        (np.zeros((2, 3), dtype=int), np.zeros((3, 3), dtype=int), "b", ValueError),
    ],
    ids=["float", "bool", "list", "0-d a", "0-d b", "batches"],
)
def test_overlap_is_of_index_sets(a: object, b: object, argument: str, error: type[Exception]) -> None:
    """Integers with a last axis, and batches that fit."""
    with pytest.raises(error, match=f"`{argument}`"):
        iwp_core.selection_overlap(a, b)
