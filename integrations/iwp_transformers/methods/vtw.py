"""VTW: drop all visual tokens from one layer on."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NoReturn

from iwp_transformers.methods._method import Budget, Layers, Method, Paper, Reads
from iwp_transformers.view import LayerView

__all__ = ["VTW"]

# As published for LLaVA-1.5-7B, of 32 layers.
PUBLISHED, DEPTH = 15, 32


@dataclass(frozen=True, kw_only=True)
class VTW(Method):
    """Visual token withdrawal: no visual token from `layer` on. It takes a layer and no budget.

    The default layer is at the same relative depth as the published one, 15 of 32.
    `iwp_transformers.vtw_calibration.calibrated_vtw_layer` finds the layer for a model.
    """

    name: ClassVar[str] = "vtw"
    paper: ClassVar[Paper | None] = Paper(title="Visual Tokens Withdrawal", year=2024, arxiv="2405.05803")
    reads: ClassVar[tuple[Reads, ...]] = ("nothing",)
    layer: ClassVar[int] = PUBLISHED

    @classmethod
    def published_layers(cls) -> str:
        """Return the pruning layer of the paper, and the depth of its model, in words."""
        return f"{PUBLISHED} of {DEPTH}"

    def stages(self, layer: Layers | None, budget: Budget | None, layers: int) -> tuple[Layers, Budget]:
        """Return the one stage.

        Raises
        ------
        ValueError
            If a budget or several layers are given.
        """
        if budget is not None:
            msg = f"`budget` is {budget!r}, but vtw keeps no visual token from `layer` on: it takes `layer` only"
            raise ValueError(msg)
        if layer is None:
            layer = max(1, round(self.layer * layers / DEPTH))
        if isinstance(layer, Sequence):
            msg = f"`layer` is {layer!r}, expected one int: vtw has one stage, behind which no visual token is left"
            raise ValueError(msg)
        return (layer,), (0,)

    def __call__(self, view: LayerView) -> NoReturn:
        """Raise: a stage without a budget asks no rule.

        Raises
        ------
        RuntimeError
            Always.
        """
        msg = f"vtw was asked to keep {view.budget} of {len(view.visual)} tokens, and keeps none"
        raise RuntimeError(msg)
