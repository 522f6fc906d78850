"""The samples of a user, each read when it is its turn."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from iwp_transformers.families import family_of
from iwp_transformers.wrappers import unwrapped

__all__ = ["Samples"]


class Samples:
    """Inputs of a model, sample by sample.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        Who they are for.
    given : sequence of mapping
        Each the inputs of one sample; an item may be made when it is asked for.
    names : sequence of str, optional
        By which a person knows them. Default: their numbers, from 0.

    Raises
    ------
    TypeError
        If `given` is no sequence.
    ValueError
        If there is no sample, or another number of names.
    """

    def __init__(self, model: Any, given: Sequence[Mapping[str, Any]], names: Sequence[str] | None) -> None:
        if isinstance(given, (Mapping, str)) or not hasattr(given, "__getitem__") or not hasattr(given, "__len__"):
            msg = f"`samples` is a {type(given).__name__}, expected a sequence with the model's inputs of each sample"
            raise TypeError(msg)
        if not len(given):
            msg = "`samples` is empty, expected the model's inputs of one sample or more"
            raise ValueError(msg)
        if names is not None and len(names) != len(given):
            msg = f"`names` holds {len(names)}, expected one for each of {len(given)} samples"
            raise ValueError(msg)
        self.names = [f"sample {index}" for index in range(len(given))] if names is None else [*map(str, names)]
        self._model, self._given = model, given
        whole: Any = unwrapped(model)
        self._family = family_of(whole)
        self._config: Any = self._family.inner_of(whole).config

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._given)

    def inputs(self, index: int) -> dict[str, Any]:
        """Return the inputs of a sample on the model's device, floating ones in its number format.

        Raises
        ------
        TypeError
            If they are no mapping.
        ValueError
            If they are not of one sample, or hold no visual token.
        """
        given = self._given[index]
        if not isinstance(given, Mapping):
            msg = f"it is a {type(given).__name__}, expected a mapping with the model's inputs"
            raise TypeError(msg)
        ids = given.get("input_ids")
        if not isinstance(ids, Tensor) or ids.ndim != 2 or len(ids) != 1:  # noqa: PLR2004 - samples, tokens
            shape = tuple(ids.shape) if isinstance(ids, Tensor) else type(ids).__name__
            msg = f"its `input_ids` are {shape}, expected a tensor of shape (1, tokens): one sample"
            raise ValueError(msg)
        inputs = {name: self._placed(value) for name, value in given.items() if value is not None}
        placeholders = self._family.placeholders(self._config, inputs)
        if not any(bool((ids == token).any()) for token in placeholders.values()):
            msg = "it holds no visual token of the model"
            raise ValueError(msg)
        return inputs

    def _placed(self, value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        dtype = self._model.dtype if value.is_floating_point() else value.dtype
        return value.to(self._model.device, dtype)
