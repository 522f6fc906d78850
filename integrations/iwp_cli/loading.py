"""Processor and model from a folder or the Hub, with errors that say what to do."""

from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor

from iwp_cli.refusal import Refusal, quoted
from iwp_cli.requirements import first_line, torchvision_trouble
from iwp_transformers import supported_models

__all__ = ["check_model", "load_model", "load_processor"]


def check_model(name: str, *, local_files_only: bool) -> None:
    """Raise unless `name` leads to a model that can be pruned; reads its configuration and no weights.

    Parameters
    ----------
    name : str
        Folder, or owner and name on the Hub.
    local_files_only : bool
        Whether to keep off the network.

    Raises
    ------
    Refusal
        If there is none, or if no family serves it; the message lists those that are served.
    """
    is_path = name.startswith((".", "/", "~")) or name.count("/") != 1 or "\\" in name
    if is_path and not Path(name).is_dir():
        msg = (
            f"there is no folder {quoted(name)}: expected a folder with a model and its processor, or a name on the Hub"
        )
        raise Refusal(msg, code=1)
    try:
        config = AutoConfig.from_pretrained(name, local_files_only=local_files_only)
    except Exception as error:
        # A damaged configuration fails in many ways.
        raise Refusal(_reason(name, error), code=1) from error
    classes = config.architectures or [type(config).__name__]
    if not set(classes) & set(supported_models()):
        msg = f"{quoted(name)} is a {', '.join(classes)}, expected one of: {', '.join(supported_models())}"
        raise Refusal(msg, code=1)


def load_processor(name: str, *, local_files_only: bool) -> Any:
    """Load the processor of a model.

    Parameters
    ----------
    name : str
        Folder, or name on the Hub.
    local_files_only : bool
        Whether to keep off the network.

    Returns
    -------
    transformers.ProcessorMixin

    Raises
    ------
    Refusal
        If it cannot be loaded, with what to install where torchvision is the reason.
    """
    try:
        auto: Any = AutoProcessor
        processor = auto.from_pretrained(name, local_files_only=local_files_only)
    except Exception as error:
        # Without torchvision, Transformers fails in many ways, a few of which do not mention it.
        raise Refusal(torchvision_trouble() or _reason(name, error), code=1) from error
    if not hasattr(processor, "image_processor"):
        # A tokenizer comes back where the rest of the processor could not be made.
        msg = torchvision_trouble() or f"{quoted(name)} has a tokenizer, but no processor for images"
        raise Refusal(msg, code=1)
    return processor


def load_model(name: str, *, dtype: str, attention: str | None, local_files_only: bool) -> Any:
    """Load a model for inference.

    Parameters
    ----------
    name : str
        Folder, or name on the Hub.
    dtype : str
        Number format of the weights, or "auto" for the checkpoint's.
    attention : str or None
        Attention implementation, None for the default.
    local_files_only : bool
        Whether to keep off the network.

    Returns
    -------
    transformers.PreTrainedModel

    Raises
    ------
    Refusal
        If it cannot be loaded.
    """
    try:
        auto: Any = AutoModelForImageTextToText
        return auto.from_pretrained(
            name, dtype=dtype, attn_implementation=attention, local_files_only=local_files_only
        ).eval()
    except Exception as error:
        # So do damaged weights, and an attention that is not installed.
        raise Refusal(_reason(name, error), code=1) from error


def _reason(name: str, error: Exception) -> str:
    return f"{quoted(name)} cannot be loaded: {first_line(error)}"
