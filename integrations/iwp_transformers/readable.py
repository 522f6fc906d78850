"""Whether the layers of a model hold what a rule reads there."""

from iwp_transformers.attention import is_readable
from iwp_transformers.methods import Method
from iwp_transformers.plan import PruningPlan
from iwp_transformers.selection import Selector

__all__ = ["check_readable", "reads_of"]


def reads_of(rule: Selector, layer: int) -> tuple[str, ...]:
    """Return what a rule says that it reads, at the stage of one layer."""
    return rule.reads_at(layer) if isinstance(rule, Method) else tuple(getattr(rule, "reads", ()))


def check_readable(plan: PruningPlan) -> None:
    """Raise if a method would not find in the layers that it reads what it reads there.

    Raises
    ------
    ValueError
        If it reads the layer before the first, or the grid at several stages.
    NotImplementedError
        If a layer that prunes or scores has no queries and keys.
    """
    for place, stage in enumerate(plan.stages):
        reads = reads_of(plan.selector, stage.layer)
        before = [part for part in reads if part.endswith("of the layer before")]
        if before and not stage.layer:
            msg = f"`layer` is 0, but `method` reads the {before[0]}: expected `layer` >= 1"
            raise ValueError(msg)
        if "grid" in reads and place:
            layers = tuple(each.layer for each in plan.stages)
            msg = f"`layer` is {layers}, but `method` reads the grid, which is whole until it drops: expected one layer"
            raise ValueError(msg)
        read = [stage.layer] * ("queries and keys" in reads)
        read += [stage.layer - 1] * any(part != "states of the layer before" for part in before)
        for index in read:
            _check_readable(plan, index, stage.layer - index)
    mute = [f"{index} ({plan.kinds[index]})" for index in plan.scoring_layers if not is_readable(plan.layers[index])]
    if mute:
        msg = f"`layers` names {', '.join(mute)}, which have no queries and keys to score tokens by"
        raise NotImplementedError(msg)


def _check_readable(plan: PruningPlan, index: int, ahead: int) -> None:
    """Raise if a layer has no queries and keys; the rule that reads it acts `ahead` layers later."""
    if is_readable(plan.layers[index]):
        return
    others = [str(other + ahead) for other, layer in enumerate(plan.layers) if other and is_readable(layer)]
    replaced = any("forward" in vars(part) for part in plan.layers[index].modules())
    why = ", as far as the `forward` that was put on it shows," if replaced else ""
    msg = (
        f"layer {index} is of kind {plan.kinds[index]!r} and has{why} no queries and keys to choose tokens"
        f" by; use `layer` {', '.join(others) or 'none'}, or a `selector` that needs none"
    )
    raise NotImplementedError(msg)
