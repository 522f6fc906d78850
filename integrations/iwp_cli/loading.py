"""Processor and model from a folder or the Hub, with errors that say what to do."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import CONFIG_MAPPING, AutoConfig, AutoModelForImageTextToText, AutoProcessor
from transformers import __version__ as VERSION
from transformers import logging as transformers_logging

from iwp_cli.refusal import Refusal
from iwp_cli.requirements import torchvision_trouble
from iwp_transformers import ModelReport, inspect_model
from iwp_transformers.media.errors import first_line, quoted

__all__ = ["Checkpoint", "check_model", "inspected", "load_model", "load_processor", "quiet"]


def inspected(name: str, *, local_files_only: bool) -> ModelReport:
    """Tell what pruning would do with a model; reads its configuration and no weights.

    Parameters
    ----------
    name : str
        Folder, or owner and name on the Hub.
    local_files_only : bool
        Whether to keep off the network.

    Returns
    -------
    ModelReport

    Raises
    ------
    Refusal
        If there is no such folder or configuration, if it is damaged, or if Transformers has no model for it.
    """
    is_path = name.startswith((".", "/", "~")) or name.count("/") != 1 or "\\" in name
    # `os.path` has a plain answer for names that are too long, too.
    is_folder, folder = os.path.isdir(name), Path(name)
    if is_path and not is_folder:
        msg = (
            f"there is no folder {quoted(name)}: expected a folder with a model and its processor, or a name on the Hub"
        )
        raise Refusal(msg, code=1)
    if is_folder and not (folder / "config.json").is_file():
        adapter = " (it holds an adapter: name the folder of its base model)"
        hint = adapter if (folder / "adapter_config.json").is_file() else ""
        msg = f"{quoted(name)} has no config.json, which says what a model is{hint}"
        raise Refusal(msg, code=1)
    try:
        # Code that comes with a model is never run.
        config = AutoConfig.from_pretrained(name, local_files_only=local_files_only, trust_remote_code=False)
    except Exception as error:
        # A damaged configuration fails in many ways.
        raise Refusal(_unknown(name) or _reason(name, error), code=1) from error
    try:
        return inspect_model(config)
    except TypeError as error:
        msg = f"{quoted(name)} is of type {config.model_type!r}, of which Transformers has no model for images and text"
        raise Refusal(msg, code=1) from error
    except Exception as error:
        # A configuration can be whole and make no model, or need a library that is not installed.
        msg = f"{quoted(name)}: no model can be made from its config.json: {first_line(error)}"
        raise Refusal(msg, code=1) from error


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A model to load, and how.

    Attributes
    ----------
    name : str
        Folder, or owner and name on the Hub.
    device : str or None
        Where it runs; None for a GPU if there is one.
    dtype : str
        Number format of the weights, or "auto" for the checkpoint's.
    attention : str or None
        Attention implementation, None for the default.
    local_files_only : bool
        Whether to keep off the network.
    """

    name: str
    device: str | None
    dtype: str
    attention: str | None
    local_files_only: bool

    @property
    def place(self) -> torch.device:
        """Where it runs.

        Raises
        ------
        Refusal
            If there is no such device.
        """
        if self.device is None:
            return torch.device("cuda" if torch.cuda.is_available() else "cpu")
        try:
            place = torch.empty(0, device=self.device).device
        except (RuntimeError, AssertionError) as error:
            msg = f"--device: {self.device!r} cannot be used: {first_line(error)}"
            raise Refusal(msg) from error
        if place.type == "meta":
            msg = f"--device: {self.device!r} cannot be used: tensors there have no content"
            raise Refusal(msg)
        return place

    def check(self) -> ModelReport:
        """Return what pruning would do with it; reads no weights.

        Raises
        ------
        Refusal
            If there is no such device, or as `check_model` raises.
        """
        quiet()
        _ = self.place
        return check_model(self.name, local_files_only=self.local_files_only)

    def load(self) -> tuple[Any, Any]:
        """Return processor and model, the latter for inference on its device.

        Raises
        ------
        Refusal
            If one cannot be loaded.
        """
        processor = load_processor(self.name, local_files_only=self.local_files_only)
        network = load_model(
            self.name, dtype=self.dtype, attention=self.attention, local_files_only=self.local_files_only
        )
        return processor, network.to(self.place)


def quiet() -> None:
    """Keep Transformers from talking beside the command."""
    # The two functions carry no annotations, hence the ignores.
    transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]


def check_model(name: str, *, local_files_only: bool) -> ModelReport:
    """Return what pruning would do with a model that can be pruned and that sees; reads no weights.

    Parameters
    ----------
    name : str
        Folder, or owner and name on the Hub.
    local_files_only : bool
        Whether to keep off the network.

    Raises
    ------
    Refusal
        If there is none, or if it cannot be pruned, with the reason.
    """
    report = inspected(name, local_files_only=local_files_only)
    if report.refused:
        msg = f"{quoted(name)} is refused: {report.refused}"
        raise Refusal(msg, code=1)
    if not {"image", "video"} & {medium.name for medium in report.media}:
        msg = f"{quoted(name)} is a {report.model}, which sees neither images nor videos"
        raise Refusal(msg, code=1)
    return report


def _unknown(name: str) -> str | None:
    """Return in one sentence that Transformers does not know a folder's model; None where that is not the reason."""
    try:
        content = json.loads((Path(name) / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(content, dict):
        return f"{quoted(name)}: its config.json holds no configuration, but a {type(content).__name__}"
    kind = content.get("model_type")
    if kind in CONFIG_MAPPING:
        return None
    told = "names no model_type" if kind is None else f"is of type {kind!r}, which Transformers {VERSION} does not know"
    code = ", and the code that comes with it is not run" if content.get("auto_map") else ""
    return f"{quoted(name)} {told}{code}: expected a model that Transformers itself has"


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
