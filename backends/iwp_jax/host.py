"""Where an array's numbers are: within a trace, on a CPU, where NumPy reads them in place, or elsewhere."""

from dataclasses import replace
from typing import Any

import jax
import numpy as np
from jax import Array

from iwp_core._arrays import namespace, widened
from iwp_core._validate import all_finite as reference_all_finite
from iwp_core.samples import Samples

__all__ = ["all_finite", "is_traced", "lies_on_host", "on_host"]


def is_traced(array: Any) -> bool:
    """Return whether an array stands for numbers that are not known yet."""
    return isinstance(array, jax.core.Tracer)


def lies_on_host(*arrays: Any) -> bool:
    """Return whether NumPy can read arrays where they are."""
    return all(not is_traced(x) and {device.platform for device in x.devices()} == {"cpu"} for x in arrays)


def all_finite(array: Array) -> bool:
    """Ask NumPy; see `iwp_core.kernels.all_finite`."""
    return reference_all_finite(_viewed(array))


def on_host(samples: Samples) -> Samples:
    """Return the same samples as NumPy arrays, without a copy but for dtypes that NumPy lacks."""
    views = {name: _viewed(array) for name, array in samples.arrays.items()}
    if samples.magnitude_keys is samples.keys:
        views["magnitude_keys"] = views["keys"]
    return replace(samples, xp=namespace(views["keys"]), **views)


def _viewed(array: Array) -> Any:
    return widened(np.asarray(array))
