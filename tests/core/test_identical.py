"""Identical tokens are found exactly, however much the others resemble them."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from iwp_core import identical
from iwp_core.identical import first_identical
from tests.libraries import Library


def first_by_bytes(*tokens: NDArray[np.float64]) -> list[int]:
    """Return the position of the first token with the same bytes, the slow way."""
    seen: dict[bytes, int] = {}
    count = tokens[0].shape[1]
    return [seen.setdefault(b"".join(array[:, i].tobytes() for array in tokens), i) for i in range(count)]


def found(*tokens: object) -> list[int]:
    """Return the answer as a list, also where all tokens differ."""
    first = first_identical(*tokens)
    return list(range(tokens[0].shape[1])) if first is None else np.asarray(first).tolist()  # type: ignore[attr-defined]


@given(arrays(np.float64, (2, 12, 3), elements=st.sampled_from([0.0, 1.0, -2.5])))
def test_tokens_of_few_values_are_told_apart(tokens: NDArray[np.float64]) -> None:
    """Coarse tokens share most coordinates, and only whole rows count."""
    assert found(tokens, tokens[:1]) == first_by_bytes(tokens, tokens[:1])


def test_binary_tokens_with_late_copies_are_found(xp: Library) -> None:
    """Thousands of tokens that agree in every coordinate the first look reads."""
    xp.skip_if_operations_are_compiled()
    tokens = np.random.default_rng(0).integers(0, 2, (2, 3000, 24)).astype(np.float64)
    tokens[:, :, ::6] = 1.0
    tokens[:, -40:] = tokens[:, :40]

    first = first_identical(xp.array(tokens), xp.array(tokens[:1]))

    assert xp.numpy(first).tolist() == first_by_bytes(tokens, tokens[:1])


def test_distinct_tokens_have_no_twins() -> None:
    """None spares the rest of the work."""
    assert first_identical(np.random.default_rng(1).standard_normal((2, 500, 8))) is None


@pytest.mark.parametrize("noise", [1e-8, 1e-6, 1e-4])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_nearly_identical_tokens_cost_a_few_passes(
    noise: float, dtype: type[np.floating[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Black frames differ by noise only: they are told apart by a hash, not by comparing one with all others."""
    generator = np.random.default_rng(0)
    tokens = (generator.standard_normal((2, 1, 16)) + noise * generator.standard_normal((2, 400, 16))).astype(dtype)
    tokens[:, 300:] = tokens[:, :100]
    passes = []

    def counted(*arguments: Any) -> Any:
        passes.append(arguments)
        return rows_equal(*arguments)

    rows_equal = identical._rows_equal
    monkeypatch.setattr(identical, "_rows_equal", counted)

    assert found(tokens) == first_by_bytes(tokens)
    assert len(passes) <= 2


def test_tokens_that_share_a_hash_are_told_apart(xp: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hash only proposes: where it says nothing at all, the answer is the same."""
    xp.skip_if_operations_are_compiled()
    tokens = np.random.default_rng(2).integers(0, 2, (2, 60, 3)).astype(np.float64)
    silent = xp.array(np.zeros(60, dtype=np.int64))
    monkeypatch.setattr(identical, "hash_rows", lambda _, positions: silent[: positions.shape[0]])

    first = first_identical(xp.array(tokens), xp.array(tokens[:1, :, :2]))

    assert xp.numpy(first).tolist() == first_by_bytes(tokens, tokens[:1, :, :2])
