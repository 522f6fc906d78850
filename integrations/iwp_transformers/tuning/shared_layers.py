"""What all settings of one sample have in common, computed once: features, and the layers before the pruned one."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any
from unittest.mock import patch

from torch import nn

from iwp_transformers.families import family_of
from iwp_transformers.wrappers import unwrapped

__all__ = ["SharedLayers"]


class SharedLayers:
    """Outputs of the parts of a model that run before anything is dropped, for forwards of one sample without a cache.

    Hooks of the layers are called all the same, with the very inputs that they would get.

    Parameters
    ----------
    model : torch.nn.Module
        The model.
    """

    def __init__(self, model: nn.Module) -> None:
        model = unwrapped(model)
        family = family_of(model)
        self._inner, text = family.stacks(model)
        self._layers: Sequence[nn.Module] = text.layers
        functions = (f"get_{medium.name}_features" for medium in family.media)
        self._encoders = [name for name in functions if hasattr(self._inner, name)]
        self._outputs: dict[object, Any] = {}

    def forget(self) -> None:
        """Begin another sample."""
        self._outputs.clear()

    @contextmanager
    def before(self, layer: int, *, encoders: bool = True) -> Iterator[None]:
        """Run what stands before a layer once: the first time, and never again until `forget`.

        Parameters
        ----------
        layer : int
            First layer that runs each time.
        encoders : bool
            Whether features are computed once, too; not for a rule that listens to the vision tower.
        """
        with ExitStack() as patches:
            for index, module in enumerate(self._layers[:layer]):
                patches.enter_context(patch.object(module, "forward", self._once(index, module.forward)))
            for name in self._encoders if encoders else ():
                run = self._once(name, getattr(self._inner, name))
                patches.enter_context(patch.object(self._inner, name, run))
            yield

    def _once(self, key: object, run: Callable[..., Any]) -> Callable[..., Any]:
        return partial(self._remembered, key, run)

    def _remembered(self, key: object, run: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if key not in self._outputs:
            self._outputs[key] = run(*args, **kwargs)
        return self._outputs[key]
