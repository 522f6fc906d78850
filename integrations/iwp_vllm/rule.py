"""What every rule that chooses is."""

from dataclasses import dataclass
from numbers import Integral
from typing import ClassVar

from torch import Tensor

from iwp_vllm.seen import Seen

__all__ = ["Rule"]


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A rule that chooses, with its options as fields.

    Attributes
    ----------
    layer : int
        Decoder layer by whose inputs tokens are chosen; the layers before it run on all tokens.
    """

    name: ClassVar[str]
    least_layer: ClassVar[int] = 0
    layer: int = 0

    def __post_init__(self) -> None:
        """Check the layer.

        Raises
        ------
        TypeError
            If it is no int.
        ValueError
            If it is less than the rule needs.
        """
        if isinstance(self.layer, bool) or not isinstance(self.layer, Integral):
            msg = f"`layer` is {self.layer!r}, expected an int"
            raise TypeError(msg)
        if self.layer < self.least_layer:
            msg = f"`layer` is {self.layer}, expected at least {self.least_layer} with method {self.name!r}"
            raise ValueError(msg)

    @property
    def reads_text(self) -> bool:
        """Whether the choice depends on the text of the prompt."""
        return False

    def __call__(self, seen: Seen, count: int) -> Tensor:
        """Return which tokens stay.

        Parameters
        ----------
        seen : Seen
            What enters layer `layer`.
        count : int
            M.

        Returns
        -------
        torch.Tensor
            Shape (M,), int64, ascending: indices among the N tokens of the image.

        Raises
        ------
        NotImplementedError
            Always: each rule has its own.
        """
        raise NotImplementedError
