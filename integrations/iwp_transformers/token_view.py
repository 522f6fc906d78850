"""Some tokens of one sample as a decoder layer sees them: states, queries, keys and values."""

from dataclasses import dataclass
from functools import cached_property
from typing import NoReturn

from torch import Tensor

from iwp_transformers.layer_inputs import LayerInputs

__all__ = ["Explained", "TokenView"]


class Explained:
    """Lists the existing attributes when an attribute is missing."""

    def __getattr__(self, name: str) -> NoReturn:
        """Raise.

        Raises
        ------
        AttributeError
            Always: Python calls this for missing attributes only.
        """
        known = ", ".join(key for key in dir(type(self)) if not key.startswith("_"))
        fields = ", ".join(key for key in getattr(self, "__dataclass_fields__", ()) if not key.startswith("_"))
        msg = f"{type(self).__name__} has no attribute {name!r}; it has {fields}, {known}"
        raise AttributeError(msg)


@dataclass(frozen=True, eq=False, repr=False)
class TokenView(Explained):
    """Some tokens of one sample as a decoder layer sees them. Floating-point tensors have the dtype of the model.

    Attributes
    ----------
    positions : torch.Tensor
        Shape (n,), int64, ascending: positions in the input sequence. Padding and tokens in the cache are counted.
    hidden : torch.Tensor
        Shape (n, E): states that enter the layer.
    queries, rotated_queries : torch.Tensor
        Shape (Hq, n, D), without and with rotary embedding.
    keys, rotated_keys : torch.Tensor
        Shape (H, n, D), without and with rotary embedding.
    values : torch.Tensor
        Shape (H, n, Dv).

    Notes
    -----
    Queries, keys and values are those that the layer passes to its attention function, for every model: after norms,
    gates and partial rotation.
    """

    positions: Tensor
    _inputs: LayerInputs
    _sample: int

    def __len__(self) -> int:
        """Return the number of tokens n."""
        return int(self.positions.shape[0])

    def __repr__(self) -> str:
        """Return how many tokens there are."""
        return f"TokenView({len(self)} tokens)"

    @cached_property
    def hidden(self) -> Tensor:
        """States that enter the layer."""
        return self._inputs.hidden[self._sample, self._rows]

    @cached_property
    def queries(self) -> Tensor:
        """Queries without rotary embedding."""
        return self._heads(self._inputs.unrotated.queries)

    @cached_property
    def keys(self) -> Tensor:
        """Keys without rotary embedding."""
        return self._heads(self._inputs.unrotated.keys)

    @cached_property
    def values(self) -> Tensor:
        """Values."""
        return self._heads(self._inputs.rotated.values)

    @cached_property
    def rotated_queries(self) -> Tensor:
        """Queries with rotary embedding."""
        return self._heads(self._inputs.rotated.queries)

    @cached_property
    def rotated_keys(self) -> Tensor:
        """Keys with rotary embedding."""
        return self._heads(self._inputs.rotated.keys)

    @cached_property
    def _rows(self) -> Tensor:
        return self._inputs.rows_of(self._sample, self.positions)

    def _heads(self, part: Tensor) -> Tensor:
        return part[self._sample][:, self._rows.to(part.device)]
