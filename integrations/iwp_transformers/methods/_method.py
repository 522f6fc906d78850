"""What a method is: when it acts, what it reads, and how it chooses among the visual tokens of one sample."""

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
        Its short title.
    year : int
        Of its first version.
    arxiv : str
        Its number, as ``"2403.06764"``.
    """

    title: str
    year: int
    arxiv: str


@dataclass(frozen=True, kw_only=True, eq=False)
class Merged:
    """Answer of a method that gives kept tokens new states; one that only drops answers with indices alone.

    Attributes
    ----------
    indices : torch.Tensor
        Shape (M,), integers: which of the candidates stay, in any order.
    states : torch.Tensor
        Shape (M, E): what enters the layer in place of their own states, row by row as `indices`.
    sizes : torch.Tensor, optional
        Shape (M,), > 0: how many tokens each stands for. From the layer on, the logarithm of its size is added to every
        attention logit of a query with it; without sizes, attention is left alone.
    assignment : torch.Tensor, optional
        Shape (N,), integers: row that each candidate went into, -1 where it is lost; for the record.
    """

    indices: Tensor
    states: Tensor
    sizes: Tensor | None = None
    assignment: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class Method:
    """A rule that chooses among visual tokens, with its options as fields; one file a method.

    Attributes
    ----------
    name : str
        What `prune_visual_tokens` takes as ``method=``.
    paper : Paper or None
        Where it was published; None for a baseline.
    reads : tuple of str
        What it asks of its view.
    acts : str
        Where in the model it drops tokens, in words.
    flash : bool
        Whether the model may run FlashAttention, which takes no additive mask.
    layer : int
        Where it acts if nobody says: first layer that no longer sees the dropped tokens.
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
        """Return the layers and budgets of the stages, as `prune_visual_tokens` takes them.

        Parameters
        ----------
        layer, budget : number, or sequence of numbers, or None
            As given by the user; None where not given. One layer is one that the model has.
        layers : int
            Decoder layers of the model.

        Raises
        ------
        TypeError
            If `budget` is missing.
        """
        if budget is None:
            msg = f"`budget` is missing: {self.name} needs the number of visual tokens to keep, or their share"
            raise TypeError(msg)
        return self.layer if layer is None else layer, budget

    @classmethod
    def published_layers(cls) -> str:
        """Return at which layers it acts by default, in words."""
        return str(cls.layer)

    def __call__(self, view: LayerView) -> object:
        """Return the indices of the candidates to keep, integers of shape (M,) in any order, or `Merged`.

        Raises
        ------
        NotImplementedError
            Always: each method has its own.
        """
        raise NotImplementedError
