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
    "information_duplication": lambda keys, values, _: iwp_core.information_duplication(keys, values),
    "log_update_norm": lambda keys, values, _: iwp_core.log_update_norm(keys, values),
    "update_cosine": lambda keys, values, _: iwp_core.update_cosine(keys, values),
    "deletion_error": lambda keys, values, _: iwp_core.deletion_error(keys, values, np.arange(3)),
    "dual_spectrum": lambda keys, values, _: iwp_core.dual_spectrum(keys, values),
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
        function(shaped(H, N, D), values, shaped(HQ, D))


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
        arrays.append(shaped(HQ, D))
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
        (np.asarray([[1, 4], [4, 4]]), np.asarray([[1], [2]]), "a", ValueError),
        (np.asarray([1]), np.asarray([0, -2]), "b", ValueError),
    ],
    ids=["float", "bool", "list", "0-d a", "0-d b", "batches", "twice", "negative"],
)
def test_overlap_is_of_index_sets(a: object, b: object, argument: str, error: type[Exception]) -> None:
    """Integers with a last axis, distinct ones, and batches that fit."""
    with pytest.raises(error, match=f"`{argument}`"):
        iwp_core.selection_overlap(a, b)


@pytest.mark.parametrize("name", ["deletion_error", "dual_spectrum"])
def test_a_token_that_is_kept_twice_is_refused(name: str) -> None:
    """A set has each of its members once; counting one twice would change the weight."""
    with pytest.raises(ValueError, match="`kept` has an index twice among its 3"):
        getattr(iwp_core, name)(shaped(H, N, D), shaped(H, N, DV), np.asarray([4, 1, 4]))


@pytest.mark.parametrize("value", [1, 0, None, "no"], ids=repr)
def test_an_option_that_is_on_or_off_takes_booleans_only(value: object) -> None:
    """``validate="no"`` would be on."""
    arrays = shaped(H, N, D), shaped(H, N, DV)

    with pytest.raises(TypeError, match=r"`validate` is .* expected True or False"):
        iwp_core.select_tokens(*arrays, shaped(HQ, D), 3, validate=value)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="`return_log_scale` is"):
        iwp_core.dual_spectrum(*arrays, return_log_scale=value)  # type: ignore[arg-type]


def test_arrays_of_the_measures_are_told_apart_by_place_only() -> None:
    """So that no call can name them in another order; the order of 0.1, queries first, is caught by shapes."""
    keys, values, queries = shaped(H, N, D), shaped(H, N, DV), shaped(HQ, D)

    with pytest.raises(TypeError, match="positional-only"):
        iwp_core.information_magnitude(keys=keys, values=values, queries=queries)  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="`values` has shape"):
        iwp_core.information_magnitude(queries, keys, values)
