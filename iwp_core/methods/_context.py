"""What surrounds the computation of a rule, whatever the caller has switched on."""

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from iwp_core._plugins import backend_context

__all__ = ["in_context"]

P = ParamSpec("P")
R = TypeVar("R")


def in_context(rule: Callable[P, R]) -> Callable[P, R]:
    """Run a rule in the context of its arrays' backend, which is asked by the first argument.

    Without it torch's autocast and TF32 would round the products of float32 arrays, and other tokens would be kept.
    Rules that return merged tokens stay as they are: gradients, which that context switches off, may have to flow.
    """

    @wraps(rule)
    def run(*args: P.args, **options: P.kwargs) -> R:
        with backend_context(args[0] if args else None):
            return rule(*args, **options)

    return run
