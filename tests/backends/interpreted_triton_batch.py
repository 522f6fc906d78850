"""Batches through the Triton kernels in Triton's interpreter, held to one call a sample and to the oracle.

Run by `test_triton.py`, as `interpreted_triton.py` is.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from iwp_core import PCMMR, TopK, select_tokens, use_backend
from iwp_torch import fused, triton_factors, triton_magnitude, triton_places
from tests.backends.triton_samples import (
    WIDE,
    chosen_by_oracle,
    dtypes,
    tensors,
)
from tests.strategies import sample

if not triton_factors.INTERPRETED:
    pytest.skip("runs under TRITON_INTERPRET=1, from test_triton.py", allow_module_level=True)


def test_each_sample_of_a_batch_gets_the_answer_of_its_own_call() -> None:
    """Also where heads lie behind tokens in memory, as a projection leaves them."""
    drawn = [tensors(sample(seed, tokens=30, **WIDE), torch.bfloat16) for seed in (12, 13)]
    keys, values, queries = (torch.stack(arrays) for arrays in zip(*drawn, strict=True))
    keys, values = (x.transpose(1, 2).contiguous().transpose(1, 2) for x in (keys, values))

    kept = select_tokens(keys, values, queries, 9)

    assert not keys.is_contiguous()
    assert kept.tolist() == [chosen_by_oracle(arrays, 9) for arrays in drawn]


def ragged(dtype: torch.dtype, lengths: list[int], **options: Any) -> tuple[list[Any], list[Any], Any]:
    """Return samples of some lengths, the same padded with what must not be read to one batch, and its mask."""
    drawn = [tensors(sample(30 + row, tokens=length, **WIDE), dtype) for row, length in enumerate(lengths)]
    generator = np.random.default_rng(31)
    mask = torch.zeros(len(lengths), max(lengths) + 3, dtype=torch.bool)
    padded = [torch.full((*mask.shape[:1], 2, mask.shape[1], width), torch.nan, dtype=dtype) for width in (32, 16)]
    for row, (keys, values, _) in enumerate(drawn):
        where = torch.asarray(np.sort(generator.permutation(mask.shape[1])[: lengths[row]]))
        mask[row, where] = True
        padded[0][row][:, where], padded[1][row][:, where] = keys, values
    return drawn, [*padded, torch.stack([queries for *_, queries in drawn])], mask


RAGGED = [
    ("at once", "mean", 9),
    ("at once", "softmax_mean", 0.8),
    ("by top-k", "mean", 0.3),
    ("by top-k", "softmax_mean", 25),
]


@pytest.mark.parametrize(("ranking", "heads", "budget"), RAGGED, indirect=["ranking"])
def test_samples_of_a_ragged_batch_get_the_answers_of_their_own_calls(ranking: str, heads: str, budget: float) -> None:
    """Each its own length, number of chunks and last chunk; some have fewer tokens than are asked for."""
    del ranking  # is set
    drawn, batch, mask = ragged(torch.bfloat16, [24, 7, 1, 33])

    kept = select_tokens(*batch, budget, heads=heads, mask=mask, validate=False)

    for row, arrays in enumerate(drawn):
        own = select_tokens(*arrays, budget, heads=heads)
        places = torch.nonzero(mask[row])[:, 0]
        assert kept[row, : len(own)].tolist() == places[own].tolist()
        assert (kept[row, len(own) :] == -1).all()
        if heads == "mean":
            assert own.tolist() == chosen_by_oracle(arrays, len(own))


def test_a_sample_of_a_batch_is_computed_bit_for_bit_as_alone() -> None:
    """Neither what is beside it nor the length of the longest moves a rounding, so that near ties fall alike."""
    drawn, (keys, values, queries), mask = ragged(torch.float32, [150, 33, 64])
    places, counts = triton_places.real_places(mask)
    options = {"metric": "dual", "kernel": "exponential", "heads": "softmax_mean"}

    together = triton_magnitude.log_magnitude(keys, values, queries, places, **options)

    for row, arrays in enumerate(drawn):
        alone = fused.log_magnitude(*arrays, **options)
        assert torch.equal(together[row, : counts[row]], alone)


@pytest.mark.usefixtures("ranking")
def test_ties_within_a_ragged_batch_go_to_the_lower_position() -> None:
    """Blank regions: all tokens of a sample are one, or one of two."""
    keys, values = torch.ones(3, 2, 20, 16), torch.ones(3, 2, 20, 16)
    keys[1, :, 1::2] = -1.0
    mask = torch.ones(3, 20, dtype=torch.bool)
    mask[0, :4], mask[2, 5:9] = False, False

    kept = select_tokens(keys, values, torch.ones(3, 2, 16), 6, strategy=PCMMR(chunk=1, growth=1.0), mask=mask)

    with use_backend("reference"):
        expected = select_tokens(keys, values, torch.ones(3, 2, 16), 6, strategy=PCMMR(chunk=1, growth=1.0), mask=mask)
    assert kept.tolist() == expected.tolist()


def test_thirty_two_samples_behind_a_mask_take_the_launches_of_one(launches: list[str]) -> None:
    """The batch is an axis of every kernel (without a mask: `test_triton.py`)."""
    arrays = tensors(sample(32, tokens=8, **WIDE), torch.float16)
    counted = []

    for samples in (1, 32):
        batch = [x.expand(samples, *x.shape) for x in (*arrays[:2], arrays[2][:, None].expand(-1, 3, -1))]
        kept = select_tokens(*batch, 3, mask=torch.ones(samples, 8, dtype=torch.bool))
        assert kept.tolist() == [chosen_by_oracle(arrays, 3)] * samples
        counted.append(list(launches))
        launches.clear()

    assert counted[0] == counted[1]


@pytest.mark.parametrize(
    ("options", "served"),
    [
        ({"similarity": "hidden"}, True),
        ({"magnitude_keys": True}, True),
        ({"magnitude": "value_norm", "similarity": "value"}, True),
        ({"kernel": "linear"}, True),
        ({"heads": "max"}, False),
        ({"strategy": TopK()}, False),
    ],
    ids=str,
)
def test_options_mean_in_a_batch_what_they_mean_alone(
    options: dict[str, Any], served: bool, launches: list[str]
) -> None:
    """Those that the batch does not serve go sample by sample."""
    drawn, batch, mask = ragged(torch.float32, [18, 11])
    batch = [torch.where(torch.isnan(x), 0.0, x) for x in batch]
    batch[2] = batch[2][:, :, None]
    if "magnitude_keys" in options:
        options = {"magnitude_keys": batch[0].flip(1)}
    if options.get("similarity") == "hidden":
        options = {**options, "hidden": torch.randn(2, mask.shape[1], 24, generator=torch.Generator().manual_seed(3))}

    kept = select_tokens(*batch, 5, mask=mask, **options)

    assert (launches.count("prepare_tokens") == 1) is served
    for row in range(len(drawn)):
        real = mask[row]
        own = {name: x[row][..., real, :] if isinstance(x, torch.Tensor) else x for name, x in options.items()}
        keys, values = (x[row][:, real] for x in batch[:2])
        alone = select_tokens(keys, values, batch[2][row], 5, **own)
        assert kept[row].tolist() == torch.nonzero(real)[:, 0][alone].tolist()


@dtypes
def test_means_over_many_spans_are_those_of_each_sample_alone(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A long sample is added up by many programs, and a short one beside it to the same bits as by itself."""
    monkeypatch.setattr(triton_places, "SPAN", 64)
    drawn, (padded, *_), mask = ragged(dtype, [300, 64, 65, 1])
    places, _ = triton_places.real_places(mask)

    means = triton_places.mean_tokens(padded, places)

    for row, (keys, *_) in enumerate(drawn):
        alone = triton_places.everywhere(1, keys.shape[1], keys.device)
        assert torch.equal(means[row], triton_places.mean_tokens(keys[None], alone)[0])
        torch.testing.assert_close(means[row].double(), keys.double().mean(dim=1), rtol=1e-6, atol=1e-5)


def test_the_benchmark_on_a_gpu_sees_which_kernels_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every coarse kernel serves a call of its own; what has no kernel, as float64, is seen to have none."""
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    correctness, drawn = import_module("cuda_correctness"), import_module("cuda_tokens")
    library = correctness.libraries(torch.device("cpu"))["torch"]

    found = correctness._served("torch", library, drawn.draw(20, torch.Generator().manual_seed(0)))

    every = ["select_batch", "log_magnitude", "progressive_chunked_mmr"]
    assert found == {"float64": [], "float32": every, "bfloat16": every, "float16": every}
