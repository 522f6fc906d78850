"""VTW: from one layer on, no visual token at all."""

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
    """Withdraw all visual tokens; takes a layer and no budget.

    The layer is by default as deep as the published one; that of a model is found by
    `iwp_transformers.vtw_calibration.calibrated_vtw_layer`.
    """

    name: ClassVar[str] = "vtw"
    paper: ClassVar[Paper | None] = Paper(title="Visual Tokens Withdrawal", year=2024, arxiv="2405.05803")
    reads: ClassVar[tuple[Reads, ...]] = ("nothing",)
    layer: ClassVar[int] = PUBLISHED

    @classmethod
    def published_layers(cls) -> str:
        """Return at which layer of how many the paper withdraws."""
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
        """Choose nothing: a stage without a budget asks no rule.

        Raises
        ------
        RuntimeError
            Always.
        """
        msg = f"vtw was asked to keep {view.budget} of {len(view.visual)} tokens, and keeps none"
        raise RuntimeError(msg)
