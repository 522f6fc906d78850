"""Make a torchvision built for another PyTorch importable, so that the processors can be tested beside it.

Beside a PyTorch without CUDA, the CUDA build of torchvision stops at import because its compiled operators are not
there, and with it stops every model of Transformers. The image transforms, which are all that the processors use,
need none of those operators; it is enough that two of them have a schema.
"""

import importlib
from importlib.util import find_spec

SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


def define_missing() -> None:
    """Define the two schemas if torchvision is installed and does not import without them."""
    if find_spec("torch") is None or find_spec("torchvision") is None:
        return
    try:
        importlib.import_module("torchvision")
    except RuntimeError:
        torch = importlib.import_module("torch")
        # The definitions live as long as their library object.
        define_missing.library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[attr-defined]
        for operator in ("nms", "qnms"):
            define_missing.library.define(operator + SCHEMA)  # type: ignore[attr-defined]
        importlib.import_module("torchvision")
