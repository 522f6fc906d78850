"""Time of the methods' rules on plain arrays, beside the ways in which their official codes compute.

Run: ``OMP_NUM_THREADS=1 python benchmarks/bench_methods.py`` (about five minutes at 2,880 tokens).
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import official_ways as official
import torch
from _harness import header, write

from iwp_core import methods, use_backend

Ways = dict[str, Callable[[], Any]]
BARS = {"scope": 5.0, "vispruner": 5.0, "prumerge": 5.0, "divprune": 1.3}
"""Least speed-up over the official way; other methods may take 1.1 times as long."""

PIVOTS = 8


def ways(tokens: int, width: int, share: float, seed: int, dtype: type = np.float32) -> dict[str, Ways]:
    """Return for each method what is timed: the official way, ours on torch, and ours on NumPy."""
    rng = np.random.default_rng(seed)
    count = round(share * tokens / 2) * 2
    arrays = {
        "x": rng.standard_normal((tokens, width)),
        "heads": rng.dirichlet(np.ones(tokens), size=16),
        "keys": rng.standard_normal((tokens, width)),
        "quality": rng.uniform(0.01, 1.0, tokens),
    }
    numpy = {name: x.astype(dtype) for name, x in arrays.items()}
    tensors = {name: torch.from_numpy(x) for name, x in numpy.items()}
    x, heads, keys, quality = tensors.values()
    attention = heads.mean(dim=0)
    norms = x.abs().sum(dim=1)
    quota = count // PIVOTS
    pivots = norms.topk(PIVOTS).indices.tolist()
    rivals: Ways = {
        "divprune": lambda: official.divprune(x, count),
        "scope": lambda: official.scope(x, heads.sum(dim=0), count),
        "vispruner": lambda: official.vispruner(x, attention, count),
        "prumerge": lambda: official.prumerge(x, x, attention, count),
        "cdpruner": lambda: official.cdpruner(x, quality, count),
        "dart": lambda: official.dart(x, x, pivots, quota),
        "pact": lambda: official.pact(x, x, attention, 0.21),
        "visionzip": lambda: official.visionzip(x, keys, attention, count - count // 6, count // 6),
        "tome": lambda: official.tome(keys, x, tokens // 2),
    }
    ours = {kind: _ours(given, count, quota) for kind, given in (("torch", tensors), ("numpy", numpy))}
    return {
        name: {"official": rivals[name], "torch": ours["torch"][name], "numpy": ours["numpy"][name]} for name in rivals
    }


def _ours(given: dict[str, Any], count: int, quota: int) -> Ways:
    x, heads, keys, quality = given.values()
    attention = heads.mean(axis=0)
    tokens = x.shape[0]
    return {
        "divprune": lambda: methods.divprune(x, count),
        "scope": lambda: methods.scope(x, heads, count),
        "vispruner": lambda: methods.vispruner(x, heads, count),
        "prumerge": lambda: methods.prumerge(x, x, attention, share=(count + 0.5) / tokens).tokens,
        "cdpruner": lambda: methods.cdpruner(x, quality, count),
        "dart": lambda: methods.dart(x, x, x[:1, :], x[:1, :], quota=quota, image_pivots=PIVOTS, text_pivots=0),
        "pact": lambda: methods.pact(x, x, attention).tokens,
        "visionzip": lambda: (
            methods.visionzip(
                x, keys, heads, dominant=count - count // 6, contextual=count // 6, class_token=False
            ).tokens
        ),
        "tome": lambda: methods.tome(keys, x, merge=tokens // 2).tokens,
    }


def agreement(name: str, theirs: Any, mine: Any) -> float | bool:
    """Return the share of kept tokens that two ways have in common, or whether merged tokens are the same in any order.

    In float64 and of fewer tokens: in float32 rounding exchanges tokens where scores nearly tie, and one exchange
    changes what VisPruner compares from then on. DART is not compared: its pivots take turns in another order here.
    """
    theirs, mine = np.asarray(theirs), np.asarray(mine)
    if theirs.ndim == 1:
        return True if name == "dart" else len(set(theirs.tolist()) & set(mine.tolist())) / len(theirs)
    order = [np.lexsort(x[:, :1].T) for x in (theirs, mine)]
    return theirs.shape == mine.shape and np.allclose(theirs[order[0]], mine[order[1]], rtol=1e-3, atol=1e-4)


def cpu_seconds(call: Callable[[], Any]) -> float:
    """Return the CPU time of a call on this thread."""
    start = time.thread_time()
    call()
    return time.thread_time() - start


def measure(chosen: dict[str, Ways], small: dict[str, Ways], gram: Callable[[], Any], repeats: int) -> dict[str, Any]:
    """Compare the ways on the small inputs, and time them in turn; the medians and their ratios to the official way."""
    table = {}
    for name, by_way in chosen.items():
        theirs = small[name]["official"]()
        same = {way: agreement(name, theirs, call()) for way, call in small[name].items() if way != "official"}
        rounds = [{way: cpu_seconds(call) for way, call in {"gram": gram, **by_way}.items()} for _ in range(repeats)]
        medians = {way: statistics.median(one[way] for one in rounds) for way in rounds[0]}
        ratios = {way: medians["official"] / medians[way] for way in same}
        table[name] = {"seconds": medians, "speedup": ratios, "agreement": same, "bar": BARS.get(name, 1 / 1.1)}
        print(
            f"{name:10} official {medians['official']:6.2f} s, ours torch {medians['torch']:5.2f} s "
            f"({ratios['torch']:.1f}x), NumPy {medians['numpy']:5.2f} s ({ratios['numpy']:.1f}x), "
            f"bar {table[name]['bar']:.2f}x, Gram product {medians['gram']:.2f} s, agreement: {same}",
            flush=True,
        )
    return table


def main() -> None:
    """Measure, print a row a method, write the result file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=2880)
    parser.add_argument("--width", type=int, default=3584)
    parser.add_argument("--share", type=float, default=0.111)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", help="methods to measure; nothing is written then")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with use_backend("reference"):
        chosen = ways(options.tokens, options.width, options.share, options.seed)
        x = torch.randn(options.tokens, options.width)
        small = ways(720, 512, options.share, options.seed, np.float64)
        names = options.only or list(chosen)
        table = measure({name: chosen[name] for name in names}, small, lambda: x @ (x + 0).T, options.repeats)
    if not options.only:
        sizes = f"--tokens {options.tokens} --width {options.width} --repeats {options.repeats}"
        command = f"OMP_NUM_THREADS=1 python benchmarks/bench_methods.py {sizes}"
        conditions = {"tokens": options.tokens, "width": options.width, "share": options.share, "threads": 1}
        print(write(f"methods_cpu_{options.tokens}", {**header(command, **conditions), "methods": table}))


if __name__ == "__main__":
    main()
