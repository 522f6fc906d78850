"""Which layers have a say in what is kept, and what those before the one that prunes have said."""

from collections.abc import Sequence
from numbers import Integral
from typing import cast

import torch
from torch import Tensor

from iwp_transformers.attention import is_readable
from iwp_transformers.plan import PruningPlan
from iwp_transformers.prompt import Prompt
from iwp_transformers.selection import ImplicitWeightRule
from iwp_transformers.stopwatch import Stopwatch
from iwp_transformers.view import LayerInputs, LayerView

__all__ = ["Said", "check_speakers", "speakers_of"]


def speakers_of(layers: int | Sequence[int] | None, layer: int | Sequence[int]) -> tuple[int, ...]:
    """Return the layers that have a say, ascending; none where it is only the one that prunes.

    Parameters
    ----------
    layers : int or sequence of int, optional
        As given to `prune_visual_tokens`.
    layer : int or sequence of int
        Likewise, and checked.

    Raises
    ------
    ValueError
        If they are no distinct layers up to `layer`, or tokens are dropped at several.
    """
    if layers is None:
        return ()
    if isinstance(layer, Sequence):
        msg = (
            f"`layers` is {layers!r} and `layer` is {layer!r}, expected one `layer`: stages ask only the one that drops"
        )
        raise ValueError(msg)
    allowed = f"expected an int from 1 to {layer + 1} (so many up to `layer`), or distinct layers from 0 to {layer}"
    given = [layers] if not isinstance(layers, Sequence) else [*layers]
    whole = all(isinstance(each, Integral) and not isinstance(each, bool) for each in given)
    if not whole or isinstance(layers, str) or not given or len(set(given)) < len(given):
        msg = f"`layers` is {layers!r}, {allowed}"
        raise ValueError(msg)
    numbers = (
        sorted(map(int, given)) if isinstance(layers, Sequence) else list(range(layer + 1 - int(layers), layer + 1))
    )
    if not numbers or numbers[0] < 0 or numbers[-1] > layer:
        msg = f"`layers` is {layers!r}, {allowed}"
        raise ValueError(msg)
    return () if numbers == [layer] else tuple(numbers)


def check_speakers(plan: PruningPlan) -> None:
    """Raise if a layer that is to have a say has no queries and keys.

    Raises
    ------
    NotImplementedError
        If one has none.
    """
    mute = [index for index in plan.speakers if not is_readable(plan.layers[index])]
    if mute:
        kinds = ", ".join(f"{index} ({plan.kinds[index]})" for index in mute)
        msg = f"`layers` names {kinds}, which have no queries and keys to choose tokens by"
        raise NotImplementedError(msg)


class Said:
    """What layers have said of the visual tokens: one number a token, for each layer and sample.

    Parameters
    ----------
    plan : PruningPlan
        What to do.
    prompt : Prompt
        What stands where.
    """

    def __init__(self, plan: PruningPlan, prompt: Prompt) -> None:
        self._plan, self._prompt = plan, prompt
        # By sample and number of candidates: all visual tokens, and without those that stay in any case.
        self._scores: dict[tuple[int, int], list[Tensor]] = {}

    def listen(self, inputs: LayerInputs) -> Stopwatch:
        """Read one layer, before it runs; return how long it took."""
        with Stopwatch(inputs.hidden.device) as watch, torch.no_grad():
            for sample, positions in enumerate(self._prompt.visual):
                free = positions[~self._prompt.pinned[sample, positions]]
                for candidates in (positions, free) if len(free) < len(positions) else (positions,):
                    if len(candidates):
                        said = self._scores.setdefault((sample, len(candidates)), [])
                        said.append(self._asked(sample, positions, candidates, inputs))
        return watch

    def _asked(self, sample: int, visual: Tensor, candidates: Tensor, inputs: LayerInputs) -> Tensor:
        """Return what a layer says of some of the visual tokens."""
        rule, device = cast("ImplicitWeightRule", self._plan.selector), inputs.hidden.device
        text = self._prompt.text[sample].nonzero().squeeze(1)
        outside = torch.cat((text, visual[~torch.isin(visual, candidates)])).to(device)
        view = LayerView(candidates.to(device), text.to(device), len(candidates), inputs, None, sample, outside)
        return rule.scores(view)

    def of(self, sample: int, candidates: Tensor) -> tuple[Tensor, ...]:
        """Return what was said of some candidates, shape (N,) for each layer."""
        return tuple(self._scores.get((sample, len(candidates)), ()))
