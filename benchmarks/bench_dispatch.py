"""Cost of finding a backend: what `@overridable` adds to a call.

Run: ``python benchmarks/bench_dispatch.py`` (seconds).
"""

import timeit
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from _harness import header, write

from iwp_core import Kernel, _plugins, overridable, use_backend

CALLS = 200_000


def nothing(x: Any) -> Any:
    """Return the argument."""
    return x


dispatched = overridable(nothing)


def added(x: Any) -> float:
    """Return the seconds that dispatch adds to one call, the least of five rounds."""
    rounds = {
        function: min(timeit.repeat(lambda function=function: function(x), number=CALLS, repeat=5))
        for function in (nothing, dispatched)
    }
    return (rounds[dispatched] - rounds[nothing]) / CALLS


def main() -> None:
    """Measure an array without a plugin, one with a plugin that has a kernel, and the switched-off registry."""
    torch_backend = _plugins._load("torch")
    with_kernel = SimpleNamespace(name="torch", kernels={**torch_backend.kernels, "nothing": Kernel(run=nothing)})
    found = {"no plugin for the library": added(np.zeros(1)), "plugin without this kernel": added(torch.zeros(1))}
    original, _plugins._load = _plugins._load, lambda _name: with_kernel
    _plugins._backend_for_type.cache_clear()
    found["plugin with this kernel"] = added(torch.zeros(1))
    _plugins._load = original
    _plugins.forget()
    with use_backend("reference"):
        found["switched off"] = added(torch.zeros(1))
    result = {"microseconds a call": {case: round(1e6 * seconds, 2) for case, seconds in found.items()}}
    print(result)
    print(write("dispatch_cpu", {**header("python benchmarks/bench_dispatch.py"), **result}))


if __name__ == "__main__":
    main()
