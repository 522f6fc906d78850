"""The model families that are served, and how to find a model's own."""

from torch import nn
from transformers import PreTrainedModel

from iwp_transformers.families._family import Family, Medium
from iwp_transformers.families._inference import inferred_family, warn_of_inferred
from iwp_transformers.families.llama4 import LLAMA4
from iwp_transformers.families.llava_next import LLAVA_NEXT
from iwp_transformers.families.llava_onevision import LLAVA_ONEVISION
from iwp_transformers.families.qwen2_5_vl import QWEN2_5_VL
from iwp_transformers.families.qwen2_vl import QWEN2_VL

__all__ = ["FAMILIES", "Family", "Medium", "family_of", "is_inferred", "supported_models", "warn_of_inferred"]

FAMILIES = (LLAVA_ONEVISION, LLAVA_NEXT, QWEN2_5_VL, QWEN2_VL, LLAMA4)


def supported_models() -> tuple[str, ...]:
    """Return the class names of the models that have a file in this package; others are served by inference."""
    return tuple(name for family in FAMILIES for name in family.models)


def family_of(model: nn.Module) -> Family:
    """Return the family of a model.

    Classes are compared by name, so that no model of Transformers has to be imported.

    Parameters
    ----------
    model : torch.nn.Module
        A model of Transformers, or one of a subclass.

    Returns
    -------
    Family
        What the integration knows about it.

    Raises
    ------
    TypeError
        If no family serves the model, and none can be inferred; the message says what is missing.
    """
    names = {base.__name__ for base in type(model).__mro__}
    for family in FAMILIES:
        if names.intersection(family.models):
            return family
    if not isinstance(model, PreTrainedModel):
        msg = (
            f"`model` is a {type(model).__name__}, expected a vision-language model of Transformers, such as one of:"
            f" {', '.join(supported_models())}"
        )
        raise TypeError(msg)
    return inferred_family(model)


def is_inferred(family: Family) -> bool:
    """Tell whether a family has no file of its own."""
    return not any(family is known for known in FAMILIES)
