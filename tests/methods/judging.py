"""Reading the golden cases, and judging answers by them.

`golden_cases/METHOD.npz` holds what the methods' official codes computed on seeded random arrays: `case_names`, and for
case KK the arrays `cKK_in_*` (inputs), `cKK_arg_*` (arguments), `cKK_out_*` (results) and `cKK_judge`: ``exact``,
``ties`` (equal scores, which the official code takes in no specified order), ``half`` (computed in half precision),
``prefix`` (only the first 32 picks mean something), ``error`` (the official code raises).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Case = Mapping[str, NDArray[Any]]
FOLDER = Path(__file__).parent / "golden_cases"
METHODS = sorted(path.stem for path in FOLDER.glob("*.npz"))
SETS = {
    "dominant", "heads", "keep", "keep_sequence", "key_set_topk_order", "positions_order", "raters",
}  # fmt: skip
"""Results that are sets of indices: their order says nothing, or hangs on ties."""


@lru_cache
def cases(method: str) -> list[tuple[str, Case]]:
    """Return the cases of a method with their names."""
    with np.load(FOLDER / f"{method}.npz", allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    names = arrays.pop("case_names")
    return [
        (str(name), {key[4:]: x for key, x in arrays.items() if key.startswith(f"c{number:02d}_")})
        for number, name in enumerate(names)
    ]


def every_case() -> Iterator[tuple[str, str, Case]]:
    """Yield method, name and arrays of every case."""
    for method in METHODS:
        for name, case in cases(method):
            yield method, name, case


def given(case: Case) -> dict[str, NDArray[Any]]:
    """Return what a method is given in a case: inputs and arguments, no results."""
    return {name: x for name, x in case.items() if name.startswith(("in_", "arg_"))}


def disagreements(method: str, case: Case, found: Mapping[str, NDArray[Any]]) -> list[str]:
    """Return the names of the results that are not what the official code computed, as far as the case can tell."""
    judge = str(case["judge"])
    if judge == "error":
        return []
    special = SPECIAL.get((method, judge), {})
    return [name for name, x in found.items() if not special.get(name[4:], _equal)(name, x, case)]


def _equal(name: str, x: NDArray[Any], case: Case) -> bool:
    official = case[name]
    if x.shape != official.shape:
        return False
    if official.dtype.kind == "f":
        return bool(np.allclose(x, official, rtol=1e-4, atol=1e-6))
    if name[4:] in SETS:
        x, official = np.sort(x), np.sort(official)
    return bool(np.array_equal(x, official))


def _equal_prefix(name: str, x: NDArray[Any], case: Case) -> bool:
    """Judge picks as far as they mean something; all of them are distinct."""
    length = 32 if str(case["judge"]) == "prefix" else int(case["exact_prefix"])
    same = np.array_equal(x[..., :length], case[name][..., :length])
    return same and x.shape == case[name].shape and len(set(x.ravel().tolist())) == x.size


def _distinct(name: str, x: NDArray[Any], case: Case) -> bool:
    return x.shape == case[name].shape and len(set(x.ravel().tolist())) == x.size


def _equal_scores(name: str, x: NDArray[Any], case: Case) -> bool:
    """Judge kept tokens by the multiset of their scores."""
    start, total = int(case.get("arg_v0", 0)), case["out_scores"].shape[0]

    def scores(kept: NDArray[Any]) -> list[float]:
        visual = kept[(kept >= start) & (kept < start + total)] - start
        return sorted(case["out_scores"][visual].tolist())

    return _distinct(name, x, case) and scores(x) == scores(case[name])


def _equal_rows(name: str, x: NDArray[Any], case: Case) -> bool:
    """Judge kept tokens up to identical rows."""
    rows = Counter(case["in_z"][index].tobytes() for index in x)
    return rows == Counter(case["in_z"][index].tobytes() for index in case[name])


def _most_attended_kept(name: str, x: NDArray[Any], case: Case) -> bool:
    """Judge the important tokens by their scores: which others stay hangs on the order of equal scores."""
    important = np.sort(case["out_scores"][case["out_important"]])
    return _distinct(name, x, case) and np.array_equal(np.sort(case["out_scores"][x])[-important.size :], important)


def _equal_partition(name: str, x: NDArray[Any], case: Case) -> bool:
    """Judge clusters: which of equally dense tokens is a centre is arbitrary."""

    def parts(labels: NDArray[Any]) -> set[frozenset[int]]:
        return {frozenset(np.nonzero(labels == label)[0].tolist()) for label in set(labels.tolist())}

    return parts(x) == parts(case[name])


def _equal_in_any_order(name: str, x: NDArray[Any], case: Case) -> bool:
    return _equal(name, np.sort(x, axis=0), {name: np.sort(case[name], axis=0)})


def _equal_but_one(name: str, x: NDArray[Any], case: Case) -> bool:
    """Judge merged tokens that stand in any order; one may differ by a rounding."""
    rows, official = (set(map(bytes, np.ascontiguousarray(y, dtype=np.float32))) for y in (x, case[name]))
    return x.shape == case[name].shape and len(official - rows) <= 1


def _matched_alike(name: str, x: NDArray[Any], case: Case) -> bool:
    """Judge merged pairs up to identical tokens: each token went to one like the official choice, or stayed."""

    def partners(source: NDArray[Any]) -> list[bytes]:
        unmerged = source.shape[0] - source.shape[1] // 2
        rows = source.argmax(axis=0)
        return [case["in_metric"][2 * (row - unmerged) + 1].tobytes() if row >= unmerged else b"" for row in rows]

    return x.shape == case[name].shape and partners(x) == partners(case[name])


def _equal_sum(name: str, x: NDArray[Any], case: Case) -> bool:
    """Judge sizes by their sum."""
    return x.shape == case[name].shape and np.isclose(x.sum(), case[name].sum())


def _equal_shape(name: str, x: NDArray[Any], case: Case) -> bool:
    return x.shape == case[name].shape


Judge = Callable[[str, NDArray[Any], Case], bool]
SPECIAL: dict[tuple[str, str], dict[str, Judge]] = {
    ("divprune", "ties"): {"order": _equal_prefix},
    ("cdpruner", "prefix"): {"order": _equal_prefix, "keep": _distinct},
    ("fastervlm", "ties"): {"keep": _equal_scores},
    ("v2drop", "ties"): {"keep_sequence": _equal_scores},
    ("vispruner", "ties"): {"keep": _most_attended_kept},
    ("dart", "ties"): {"keep": _equal_rows},
    ("dart", "half"): {"keep": _distinct},  # a tie among pivots: see test_golden.py
    ("tome", "ties"): {"x": _equal_shape, "size": _equal_sum, "source_map": _matched_alike},
    ("pact", "half"): {
        "labels": _equal_partition, "centres": _distinct, "merged": _equal_in_any_order, "weights": _equal_in_any_order,
    },
    ("prumerge", "half"): {"index_order": _equal_in_any_order, "tokens": _equal_but_one},
}  # fmt: skip
