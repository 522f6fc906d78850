"""What the command line needs beside this package; imports neither torch nor Transformers."""

import importlib
from importlib.metadata import version

from iwp_transformers.media.errors import first_line


def torchvision_trouble() -> str | None:
    """Return what to do about torchvision, None if it works."""
    advice = f"install the build that belongs to your PyTorch {version('torch')}: https://pytorch.org/get-started"
    try:
        importlib.import_module("torchvision")
    except ModuleNotFoundError:
        return f"the model's processor needs torchvision, which is not installed: {advice}"
    except Exception as error:
        # A build for another PyTorch fails with whatever its operators raise.
        return f"the model's processor needs torchvision, which does not load ({first_line(error)}): {advice}"
    return None
