"""Batches through the CuPy backend, held to one call a sample, to the oracle, and to NumPy."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from iwp_core import PCMMR, TopK, select_tokens
from tests.backends.cupy_samples import (
    DTYPES,
    CuPy,
    Floats,
    dtypes,
    kept_by_the_oracle,
)
from tests.strategies import Tokens, sample


def test_each_sample_of_a_batch_gets_the_answer_of_its_own_call(cp: CuPy) -> None:
    """Two leading axes; positions are int64."""
    drawn = [sample(seed, tokens=50, clusters=9) for seed in range(4)]
    batch = [
        cp.array(np.stack([getattr(x, name) for x in drawn]).reshape(2, 2, *getattr(drawn[0], name).shape), "float32")
        for name in ("keys", "values", "queries")
    ]

    kept = select_tokens(*batch, 0.3)

    assert kept.shape == (2, 2, 15)
    assert kept.dtype == np.int64
    for row, tokens in zip(cp.numpy(kept).reshape(4, 15), drawn, strict=True):
        np.testing.assert_array_equal(row, kept_by_the_oracle(tokens, 15, "float32"))


def ragged(drawn: list[Tokens]) -> tuple[list[Floats], NDArray[np.bool_]]:
    """Pad samples with what must not be read to one batch, anywhere among their tokens; the mask says where."""
    generator = np.random.default_rng(31)
    mask = np.zeros((len(drawn), 3 + max(tokens.count for tokens in drawn)), dtype=bool)
    for row, tokens in zip(mask, drawn, strict=True):
        row[generator.permutation(len(row))[: tokens.count]] = True
    padded = []
    for name in ("keys", "values"):
        heads, _, width = getattr(drawn[0], name).shape
        padded.append(np.full((len(drawn), heads, mask.shape[1], width), np.nan))
        for whole, row, tokens in zip(padded[-1], mask, drawn, strict=True):
            whole[:, row] = getattr(tokens, name)
    return [*padded, np.stack([tokens.queries for tokens in drawn])], mask


@dtypes
@pytest.mark.parametrize("heads", ["mean", "softmax_mean"])
@pytest.mark.parametrize("budget", [40, 0.3])
def test_samples_of_a_ragged_batch_are_the_oracles(cp: CuPy, budget: float, heads: str, dtype: str) -> None:
    """Each its own length, number of chunks and last chunk; some have fewer tokens than are asked for."""
    drawn = [sample(row, tokens=total, clusters=max(1, total // 4)) for row, total in enumerate((150, 7, 1, 64, 33))]
    arrays, mask = ragged(drawn)

    kept = cp.numpy(
        select_tokens(*(cp.array(x, dtype) for x in arrays), budget, heads=heads, mask=cp.array(mask), validate=False)
    )

    for answer, row, tokens in zip(kept, mask, drawn, strict=True):
        own = cp.select(tokens, budget, dtype, heads=heads)
        np.testing.assert_array_equal(answer[: len(own)], np.flatnonzero(row)[own])
        assert (answer[len(own) :] == -1).all()
        if heads == "mean":
            np.testing.assert_array_equal(own, kept_by_the_oracle(tokens, len(own), dtype))


def test_ties_within_a_ragged_batch_go_to_the_lower_position(cp: CuPy) -> None:
    """Blank regions: all tokens of a sample are one, or one of two."""
    keys, values = np.ones((3, 2, 20, 5)), np.ones((3, 2, 20, 4))
    keys[1, :, 1::2] = -1.0
    mask = np.ones((3, 20), dtype=bool)
    mask[0, :4], mask[2, 5:9] = False, False
    arrays, strategy = (keys, values, np.ones((3, 2, 5))), PCMMR(chunk=1, growth=1.0)

    kept = select_tokens(*(cp.array(x, "float32") for x in arrays), 6, strategy=strategy, mask=cp.array(mask))

    expected = select_tokens(*arrays, 6, strategy=strategy, mask=mask)
    np.testing.assert_array_equal(cp.numpy(kept), expected)


@pytest.mark.parametrize(
    "options",
    [
        {"similarity": "hidden"},
        {"magnitude": "value_norm", "similarity": "value"},
        {"kernel": "linear", "similarity": "key"},
        {"strategy": PCMMR(temper=0.5, exponent=1)},
        {"heads": "max"},
        {"strategy": TopK()},
    ],
    ids=repr,
)
def test_options_mean_in_a_batch_what_they_mean_to_numpy(cp: CuPy, options: dict[str, Any]) -> None:
    """Queries of several text tokens, keys without rotary embedding; those that are not served go one by one."""
    drawn = [sample(row, tokens=total, clusters=9) for row, total in enumerate((40, 25))]
    (keys, values, queries), mask = ragged(drawn)
    generator = np.random.default_rng(5)
    asked = queries[:, :, None, :] + generator.normal(size=(*queries.shape[:2], 3, queries.shape[-1]))
    arrays = {"keys": keys, "values": values, "queries": asked, "magnitude_keys": keys[..., ::-1].copy()}
    if options.get("similarity") == "hidden":
        arrays["hidden"] = generator.normal(size=(*mask.shape, 6))

    kept = select_tokens(
        **{name: cp.array(x) for name, x in arrays.items()}, budget=11, mask=cp.array(mask), **options, validate=False
    )

    np.testing.assert_array_equal(
        cp.numpy(kept), select_tokens(**arrays, budget=11, mask=mask, **options, validate=False)
    )


def test_the_benchmark_on_a_gpu_sees_which_kernels_serve(cp: CuPy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every coarse kernel serves a call of its own, in every dtype."""
    torch = pytest.importorskip("torch", reason="the benchmark draws its tokens with torch")
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    correctness, drawn = import_module("cuda_correctness"), import_module("cuda_tokens")
    library = correctness.Library(
        into=lambda part: cp.array(part.numpy()), on_cpu=lambda part: part.numpy(), back=cp.numpy, dtypes=DTYPES
    )

    found = correctness._served("CuPy", library, drawn.draw(20, torch.Generator().manual_seed(0)))

    assert found == {key: ["select_batch", "log_magnitude", "progressive_chunked_mmr"] for key in DTYPES}
