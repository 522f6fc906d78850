"""What a method is: where it acts, what it reads, and how it chooses among the visual tokens of one sample."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from iwp_core import Tolerance
from iwp_transformers.view import LayerView

__all__ = ["Budget", "Layers", "Merged", "Method", "Paper", "Reads"]

Budget = float | Tolerance | Sequence[float] | Mapping[str, float | Tolerance]
Layers = int | Sequence[int]

Reads = Literal[
    "nothing",
    "grid",
    "states",
    "states of the layer before",
    "queries and keys",
    "keys of the layer before",
    "attention of the layer before",
    "input embeddings",
    "vision tower",
]


@dataclass(frozen=True, kw_only=True)
class Paper:
    """Where a method was published.

    Attributes
    ----------
    title : str
        Short title.
    year : int
        Year of the first version.
    arxiv : str
        arXiv number, such as ``"2403.06764"``.

    Examples
    --------
    >>> Paper(title="FastV", year=2024, arxiv="2403.06764").year
    2024
    """

    title: str
    year: int
    arxiv: str


@dataclass(frozen=True, kw_only=True, eq=False)
class Merged:
    """Answer of a method that merges tokens: which tokens stay, and with which states.

    A method that only drops tokens returns the indices alone.

    Attributes
    ----------
    indices : torch.Tensor
        Shape (M,), int64: indices of the candidates that stay, in any order.
    states : torch.Tensor
        Shape (M, E): states that enter the layer in place of their own, in the order of `indices`.
    sizes : torch.Tensor, optional
        Shape (M,), > 0: number of tokens that each stands for. From this layer on, the logarithm of a token's size is
        added to its attention logits (proportional attention). Without sizes, attention is unchanged.
    assignment : torch.Tensor, optional
        Shape (N,), int64: for each candidate the row that it went into, -1 if it was dropped. It is kept in the record.

    Examples
    --------
    >>> import torch
    >>> Merged(indices=torch.tensor([1]), states=torch.zeros(1, 8), sizes=torch.tensor([2.0])).sizes
    tensor([2.])
    """

    indices: Tensor
    states: Tensor
    sizes: Tensor | None = None
    assignment: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class Method:
    """A rule that chooses among visual tokens. Its options are fields of a frozen dataclass.

    Attributes
    ----------
    name : str
        Name that `prune_visual_tokens` takes as ``method=``.
    paper : Paper or None
        Where it was published; None for a baseline.
    reads : tuple of str
        Which parts of its view it reads. A model that cannot provide one of them is refused at the call.
    acts : str
        Where in the model it drops tokens, in words.
    flash : bool
        Whether FlashAttention can be used. It cannot if the method needs an additive mask.
    layer : int
        Default pruning layer: the first layer that no longer sees the dropped tokens.
    own_count : bool
        Whether it may keep another number of tokens than its budget.
    """

    name: ClassVar[str]
    paper: ClassVar[Paper | None] = None
    reads: ClassVar[tuple[Reads, ...]]
    acts: ClassVar[str] = "at one decoder layer"
    flash: ClassVar[bool] = True
    layer: ClassVar[int] = 2
    own_count: ClassVar[bool] = False

    def stages(self, layer: Layers | None, budget: Budget | None, layers: int) -> tuple[Layers, Budget]:  # noqa: ARG002 - some scale with the depth
        """Return the layers and budgets of the stages, in the form that `prune_visual_tokens` takes.

        Parameters
        ----------
        layer, budget : number, or sequence of numbers, or None
            As given by the user; None if not given. A single layer is one that the model has.
        layers : int
            Number of decoder layers of the model.

        Returns
        -------
        layer : int or sequence of int
            Pruning layer of each stage.
        budget : number, Tolerance, sequence or mapping
            Budget of each stage.

        Raises
        ------
        TypeError
            If `budget` is missing.
        """
        if budget is None:
            msg = f"`budget` is missing: {self.name} needs the number of visual tokens to keep, or their share"
            raise TypeError(msg)
        return self.layer if layer is None else layer, budget

    def reads_at(self, layer: int) -> tuple[Reads, ...]:  # noqa: ARG002 - a method of several phases reads different things
        """Return which parts of its view the method reads in the stage at one layer, with its present options.

        Parameters
        ----------
        layer : int
            Pruning layer of the stage.

        Returns
        -------
        tuple of str
            As `reads`.
        """
        return self.reads

    @classmethod
    def published_layers(cls) -> str:
        """Return the default pruning layers, in words."""
        return str(cls.layer)

    def __call__(self, view: LayerView) -> object:
        """Choose among the candidates of one sample.

        Parameters
        ----------
        view : LayerView
            The sample at the entrance of the pruning layer.

        Returns
        -------
        torch.Tensor or Merged
            Indices of the candidates to keep, int64 of shape (M,) in any order; or a `Merged`.

        Raises
        ------
        NotImplementedError
            Always: each method has its own.
        """
        raise NotImplementedError
