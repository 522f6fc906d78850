"""Every method of the library, and rules from outside: where and at which budget they are measured, and at what cost.

Two placements: as published, with layers scaled to the miniature's depth; and at one layer for all, where the model has
begun to read the picture. A method of several stages has its first one there.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from typing import Any

from accuracy_evaluation import Evaluation
from accuracy_rules import Options
from answers import Flags

from iwp_transformers import PruningRecord
from iwp_transformers.methods import METHODS, Budget, Layers, Method, method_named
from iwp_transformers.methods.iwp import IWP
from iwp_transformers.methods.random_tokens import Random
from iwp_transformers.methods.vtw import DEPTH, VTW
from iwp_transformers.presets import PER_QUERY
from iwp_transformers.selection import Selector

__all__ = [
    "ONE_LAYER",
    "PUBLISHED",
    "Placement",
    "Row",
    "cell_key",
    "library_rows",
    "measured",
    "outside_row",
    "placed",
]

Placement = str | int
PUBLISHED = "as published"
ONE_LAYER = 2
"""The first layer at which the questions read the picture, in both miniatures."""

SEEDS = (0, 1, 2)


@dataclass(frozen=True)
class Row:
    """What is measured.

    Parameters
    ----------
    name : str
        In tables.
    rule : Method or callable
        A method, or a `selector`.
    source : str, optional
        Digest of the file that a rule from outside stands in: with another one it is measured anew.
    """

    name: str
    rule: Method | Selector
    source: str | None = None


def library_rows(names: Sequence[str] = tuple(METHODS)) -> list[Row]:
    """Return the methods of the library by their own names; random ones with three seeds, ours also with its preset."""
    rows = []
    for name in names:
        if name == Random.name:
            rows += [Row(f"{name}, seed {seed}", Random(seed=seed)) for seed in SEEDS]
            continue
        rows.append(Row(name, method_named(name)))
        if name == IWP.name:
            rows.append(Row(f"{name}, per-query preset", IWP(**PER_QUERY)))
    return rows


def outside_row(place: str) -> Row:
    """Return a rule from outside.

    Parameters
    ----------
    place : str
        ``package.module:name``, found from the working directory too: a `Method` or its class, or a `selector`.

    Raises
    ------
    ValueError
        If there is nothing of that name, or it cannot be called.
    """
    module_name, separator, name = place.partition(":")
    if not separator:
        msg = f"`--rule` is {place!r}, expected package.module:function"
        raise ValueError(msg)
    if "" not in sys.path:
        sys.path.insert(0, "")
    module = import_module(module_name)
    found: Any = getattr(module, name, None)
    if isinstance(found, type) and issubclass(found, Method):
        found = found()
    if not callable(found):
        msg = f"`--rule` is {place!r}, and {module_name} has no rule `{name}` that can be called"
        raise ValueError(msg)
    source = sha256(Path(str(module.__file__)).read_bytes()).hexdigest()[:16]
    return Row(name, found, source)


def placed(rule: Method | Selector, placement: Placement, budget: float, depth: int) -> tuple[Options, Layers, Budget]:
    """Return how a rule is asked for, and the layers and shares of its stages.

    Parameters
    ----------
    rule : Method or callable
    placement : str or int
        `PUBLISHED`, or the layer of the first stage.
    budget : float
        A share; VTW, which takes none, acts at the layer whose mean share over all layers is nearest to it.
    depth : int
        Decoder layers of the model.

    Raises
    ------
    ValueError
        If the rule cannot be placed there.
    """
    if isinstance(placement, str) and not isinstance(rule, Method):
        msg = "nobody has published where this rule acts"
        raise ValueError(msg)
    if not isinstance(rule, Method):
        return {"selector": rule, "layer": placement, "budget": budget}, int(placement), budget
    if isinstance(rule, VTW):
        if placement != PUBLISHED:
            msg = "the layer of vtw is its budget"
            raise ValueError(msg)
        options: Options = {"layer": max(1, round(budget * depth))}
    elif isinstance(placement, int):
        options = {"layer": placement, "budget": budget}
    elif hasattr(rule, "schedule"):
        options = {"budget": budget}
    else:
        options = {"layer": scaled_layer(rule.layer, depth), "budget": budget}
    layers, budgets = rule.stages(options.get("layer"), options.get("budget"), depth)
    return {"method": rule, **options}, layers, budgets


def scaled_layer(published: int, depth: int) -> int:
    """Return a layer of a model of 32 layers in one of another depth; one behind the entrance stays behind it.

    Examples
    --------
    >>> scaled_layer(2, 8), scaled_layer(16, 8), scaled_layer(0, 8)
    (1, 4, 0)
    """
    return max(1, int(published * depth / DEPTH + 0.5)) if published else 0


def cell_key(row: str, placement: Placement, budget: float) -> str:
    """Return the name of a cell in the result file."""
    where = placement if isinstance(placement, str) else f"layer {placement}"
    return f"{row} | {where} | {budget:.1%}"


def measured(
    evaluation: Evaluation, row: Row, placement: Placement, budget: float
) -> tuple[Flags | None, dict[str, Any]]:
    """Answer the questions under a rule; where the model cannot be served, tell why.

    Returns
    -------
    tuple
        Which answers are right, None where there are none; and what the result file tells beside the accuracy.

    Raises
    ------
    ValueError
        If a rule from outside raises one: its fault, where a method of the library says what it cannot do.
    """
    about = {} if row.source is None else {"source_sha256": row.source}
    try:
        options, layers, budgets = placed(row.rule, placement, budget, len(evaluation.layers))
        stages = [layers] if isinstance(layers, int) else list(layers)
        shares = list(budgets) if isinstance(budgets, Sequence) else [budgets]
        reads = row.rule.reads if isinstance(row.rule, Method) else ()
        right, records = evaluation.under(lambda _asked: options, stages[0], tower="vision tower" in reads)
    except NotImplementedError as error:
        return None, {"refused": str(error), **about}
    except ValueError as error:
        if row.source is not None:
            raise
        return None, {"refused": str(error), **about}
    return right, {"layers": stages, "shares": shares, **costs(records), **about}


def costs(records: Sequence[PruningRecord]) -> Mapping[str, Any]:
    """Return what the records of some batches say together: shares of all visual tokens, and of the operations."""
    found = [record.summary() for record in records]
    visual = sum(each.visual_tokens for each in found)
    by_layer = [sum(column) / visual for column in zip(*(each.visual_by_layer for each in found), strict=True)]
    full, pruned = (sum(getattr(each, name) for each in found) for name in ("flops_full", "flops_pruned"))
    return {
        "kept_share": sum(each.kept_tokens for each in found) / visual,
        "visual_by_layer": by_layer,
        "mean_share": sum(by_layer) / len(by_layer),
        "flops_share": pruned / full,
        "selection_milliseconds": 1000
        * sum(each.selection_seconds for each in found)
        / sum(len(r.kept) for r in records),
    }
