"""`iwp_core.select_tokens` within `torch.compile`, also with ``fullgraph=True``: one operator in the graph.

Import this module before compiling; where Transformers or anything else has loaded dynamo, the backend does so itself.
Dynamo takes seconds to load, which whoever compiles nothing is spared.
"""

import torch
from torch import Tensor

from iwp_core import PCMMR, Strategy, Tolerance, select_tokens
from iwp_core.budget import tokens_to_keep
from iwp_core.select import check_traced
from iwp_torch.traced import described, selected

__all__: list[str] = []

DEFAULT = described(PCMMR())
"""PCMMR() as numbers: a default argument that is an object cannot be traced."""


@torch.compiler.substitute_in_graph(select_tokens, skip_signature_check=True)
def _compiled(
    keys: Tensor,
    values: Tensor,
    queries: Tensor | None,
    budget: float | Tolerance,
    *,
    magnitude_keys: Tensor | None = None,
    strategy: Strategy | None = None,
    magnitude: str = "dual",
    similarity: str = "dual",
    hidden: Tensor | None = None,
    kernel: str = "exponential",
    heads: str | float = "mean",
    mask: Tensor | None = None,
    context: Tensor | None = None,
    validate: bool = True,
) -> Tensor:
    """Stand for `select_tokens` where `torch.compile` reads it; what it would check, the operator checks when it runs.

    Raises
    ------
    NotImplementedError
        If numbers would say how many tokens are kept.
    """
    if isinstance(budget, Tolerance):  # its repr cannot be traced
        msg = (
            "`budget` is a Tolerance, expected a count: while a program is traced, numbers cannot say how many are kept"
        )
        raise NotImplementedError(msg)
    check_traced(budget, mask, validate=validate)
    count = tokens_to_keep(budget, keys.shape[-2])
    numbers = DEFAULT if strategy is None else described(strategy)
    names = f"{magnitude} {similarity} {kernel} {heads}"
    kept: Tensor = selected(keys, values, queries, magnitude_keys, hidden, context, mask, count, numbers, names)
    return kept
