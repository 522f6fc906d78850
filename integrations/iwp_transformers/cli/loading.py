"""Processor and model from a folder or the Hub, with errors that say what to do."""

import importlib
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor, PreTrainedModel, ProcessorMixin

from iwp_transformers.families import supported_models


class LoadingError(RuntimeError):
    """A model or processor that cannot be loaded; the message says why."""


def check_name(name: str) -> None:
    """Raise if `name` can only be a folder, and there is none.

    Parameters
    ----------
    name : str
        Folder, or owner and name on the Hub.

    Raises
    ------
    LoadingError
        If the folder is missing.
    """
    is_path = name.startswith((".", "/", "~")) or name.count("/") != 1 or "\\" in name
    if is_path and not Path(name).is_dir():
        msg = f"there is no folder '{name}': expected a folder with a model and its processor, or a name on the Hub"
        raise LoadingError(msg)


def load_processor(name: str, *, local_files_only: bool) -> ProcessorMixin:
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
    LoadingError
        If it cannot be loaded, with what to install where torchvision is the reason.
    """
    try:
        processor = AutoProcessor.from_pretrained(name, local_files_only=local_files_only)
    except Exception as error:
        # Without torchvision, Transformers fails in many ways, a few of which do not mention it.
        raise LoadingError(torchvision_trouble() or _reason(name, error)) from error
    if not hasattr(processor, "image_processor"):
        # A tokenizer comes back where the rest of the processor could not be made.
        msg = torchvision_trouble() or f"'{name}' has a tokenizer, but no processor for images"
        raise LoadingError(msg)
    return processor


def load_model(name: str, *, dtype: str, attention: str | None, local_files_only: bool) -> PreTrainedModel:
    """Load a model that can be pruned.

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
        Ready for inference.

    Raises
    ------
    LoadingError
        If it cannot be loaded, or is of no supported family; that is found out before the weights are read.
    """
    try:
        config = AutoConfig.from_pretrained(name, local_files_only=local_files_only)
        classes = config.architectures or [type(config).__name__]
        if not set(classes) & set(supported_models()):
            msg = f"'{name}' is a {', '.join(classes)}, expected one of: {', '.join(supported_models())}"
            raise LoadingError(msg)
        return AutoModelForImageTextToText.from_pretrained(
            name, dtype=dtype, attn_implementation=attention, local_files_only=local_files_only
        ).eval()
    except (OSError, ValueError, ImportError) as error:
        raise LoadingError(_reason(name, error)) from error


def torchvision_trouble() -> str | None:
    """Return what to do about torchvision, None if it works."""
    advice = f"install the build that belongs to your PyTorch {torch.__version__}: https://pytorch.org/get-started"
    try:
        importlib.import_module("torchvision")
    except ImportError:
        return f"the model's processor needs torchvision, which is not installed: {advice}"
    except Exception as error:
        # A build for another PyTorch fails with whatever its operators raise.
        return f"the model's processor needs torchvision, which does not load ({_first_line(error)}): {advice}"
    return None


def _reason(name: str, error: Exception) -> str:
    return f"'{name}' cannot be loaded: {_first_line(error)}"


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
