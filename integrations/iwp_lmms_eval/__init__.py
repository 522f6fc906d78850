"""The model `iwp` of lmms-eval: any model that iwp serves, with visual tokens pruned; and the papers' tables.

lmms-eval finds it through the entry point `lmms_eval.models`; nothing here is imported unless lmms-eval, or
``iwp reproduce``, asks for it. ``docs/evaluation.md`` says how to install and use both.
"""

from importlib import import_module
from typing import Any

__all__ = ["MODEL", "manifests"]

MODEL = "iwp"
"""What ``lmms-eval --model`` calls it."""


def manifests() -> list[Any]:
    """Return what lmms-eval registers: the name of the model, and where its class stands.

    Returns
    -------
    list of lmms_eval.models.registry_v2.ModelManifest
        One, whose class is imported when it is first evaluated.
    """
    registry = import_module("lmms_eval.models.registry_v2")
    return [registry.ModelManifest(model_id=MODEL, chat_class_path=f"{__name__}.model.PrunedModel")]
