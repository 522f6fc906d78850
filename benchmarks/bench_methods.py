"""Time of the methods' rules on plain arrays.

Beside the ways in which their official codes compute, at 2,880 tokens, ``OMP_NUM_THREADS=1 python
benchmarks/bench_methods.py`` (about five minutes); and of every rule from 576 to 20,000 tokens, the same with
``--growth`` (about ten).
"""

import argparse
import math
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import official_ways as official
import torch
from _harness import header, write
from method_rules import ABSENT, COMPLEXITY, Inputs, rules

from iwp_core import methods, use_backend

Ways = dict[str, Callable[[], Any]]
BARS = {"scope": 5.0, "vispruner": 5.0, "prumerge": 5.0, "divprune": 1.3}
"""Least speed-up over the official way; other methods may take 1.1 times as long."""

FIGURES = {
    "scope": (16.9, 16.9),
    "vispruner": (32.1, 32.1),
    "prumerge": (28.2, 28.2),
    "divprune": (1.4, 1.4),
    "cdpruner": (1.0, 1.0),
    "dart": (1.4, 1.4),
    "pact": (0.5, 0.8),
    "visionzip": (0.6, 0.6),
    "tome": (0.4, 0.4),
}
"""CPU seconds of the official codes themselves, once measured at 2,880 tokens of width 3,584, 11.1 % kept."""

PIVOTS = 8

SIZES, GROWTH_WIDTH, PATIENCE = (576, 1024, 2880, 7290, 20_000), 896, 90.0
"""Patience: seconds up to which a size is tried, told from the size before as if time grew with its square."""


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


def growth(sizes: Sequence[int], width: int, share: float, seed: int, patience: float = PATIENCE) -> dict[str, Any]:
    """Time every rule on torch tensors of several sizes, by the backends that are installed.

    Returns
    -------
    dict
        For each method the CPU seconds by size (three repeats up to 2,880 tokens, the median; else one), None where a
        size was left out; the exponent of their growth over the two largest sizes; and the published complexity.
    """
    table: dict[str, Any] = {name: {"seconds": {}} for name in COMPLEXITY}
    for tokens in sizes:
        made = rules(Inputs(tokens, width, round(share * tokens), seed))
        for name, call in made.items():
            taken = table[name]["seconds"]
            before = next(((size, spent) for size, spent in reversed(taken.items()) if spent is not None), None)
            if before is not None and before[1] * (tokens / int(before[0])) ** 2 > patience:
                taken[str(tokens)] = None
                continue
            repeats = 3 if tokens <= 2880 else 1  # noqa: PLR2004 - beyond, rounding of the clock is no matter
            taken[str(tokens)] = statistics.median(cpu_seconds(call) for _ in range(repeats))
            print(f"{tokens:6} tokens: {name:16} {1000 * taken[str(tokens)]:10.1f} ms", flush=True)
    for name, entry in table.items():
        entry |= {"exponent": exponent(entry["seconds"]), "published": COMPLEXITY[name]}
    return table


def exponent(taken: dict[str, float | None]) -> float | None:
    """Return by which power of the number of tokens time grew between the two largest sizes; None without two."""
    known = [(int(size), spent) for size, spent in taken.items() if spent]
    if len(known) < 2:  # noqa: PLR2004 - two points make a line
        return None
    (size, spent), (larger, longer) = known[-2:]
    return math.log(longer / spent) / math.log(larger / size)


def main(given: Sequence[str] | None = None) -> None:
    """Measure, print a row a method, write the result file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--growth", action="store_true", help="every rule at several sizes, instead of bars at one")
    parser.add_argument("--sizes", nargs="+", type=int, choices=SIZES, default=list(SIZES), help="of --growth")
    parser.add_argument("--tokens", type=int, default=2880)
    parser.add_argument("--width", type=int, help=f"default 3584, of --growth {GROWTH_WIDTH}")
    parser.add_argument("--share", type=float, default=0.111)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", help="methods to measure; nothing is written then")
    options = parser.parse_args(given)
    torch.set_num_threads(1)
    command = "OMP_NUM_THREADS=1 python benchmarks/bench_methods.py"
    if options.growth:
        width = options.width or GROWTH_WIDTH
        conditions = {
            "sizes": options.sizes,
            "width": width,
            "share": options.share,
            "threads": 1,
            "absent": {**ABSENT},
        }
        now = header(f"{command} --growth", **conditions)
        print(write("methods_growth", {**now, "methods": growth(options.sizes, width, options.share, options.seed)}))
        return
    width = options.width or 3584
    with use_backend("reference"):
        chosen = ways(options.tokens, width, options.share, options.seed)
        x = torch.randn(options.tokens, width)
        small = ways(720, 512, options.share, options.seed, np.float64)
        names = options.only or list(chosen)
        table = measure({name: chosen[name] for name in names}, small, lambda: x @ (x + 0).T, options.repeats)
    if not options.only:
        sizes = f"--tokens {options.tokens} --width {width} --repeats {options.repeats}"
        conditions = {"tokens": options.tokens, "width": width, "share": options.share, "threads": 1}
        now = header(f"{command} {sizes}", **conditions)
        print(write(f"methods_cpu_{options.tokens}", {**now, "methods": table}))


if __name__ == "__main__":
    main()
