"""Files of settings: the arguments of `prune_visual_tokens` as JSON."""

import inspect
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from iwp_transformers.presets import preset_named
from iwp_transformers.session import prune_visual_tokens

__all__ = ["load_settings", "save_settings"]

# What JSON has no form for, and what is no part of how to prune.
UNWRITABLE = {"model", "strategy", "selector", "history"}


def load_settings(path: "str | os.PathLike[str]") -> dict[str, Any]:
    """Read the arguments of `prune_visual_tokens` from a file that `tune` wrote, or that has the same form.

    Parameters
    ----------
    path : path-like
        A JSON file with an object ``settings``. It holds arguments of `prune_visual_tokens` that are numbers, strings
        or lists of these, and perhaps ``preset``, the name of a preset. Anything else in the file is ignored.

    Returns
    -------
    dict of str to object
        To be passed as ``prune_visual_tokens(model, **settings)``, which checks the values.

    Raises
    ------
    OSError
        If there is no such file.
    ValueError
        If the file is not JSON, has no such object, or the object has an entry of another name.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     file = Path(folder) / "iwp.json"
    ...     _ = file.write_text('{"settings": {"budget": [0.5, 0.2], "layer": [2, 6], "method": "divprune"}}')
    ...     load_settings(file)
    {'budget': (0.5, 0.2), 'layer': (2, 6), 'method': 'divprune'}
    """
    allowed = [name for name in inspect.signature(prune_visual_tokens).parameters if name not in UNWRITABLE]
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        msg = f"`path` {str(path)!r} is no JSON: {error}"
        raise ValueError(msg) from error
    settings = content.get("settings") if isinstance(content, Mapping) else None
    if not isinstance(settings, Mapping):
        msg = f'`path` {str(path)!r} has no object "settings", as `iwp tune` writes it'
        raise ValueError(msg)
    arguments = {name: tuple(value) if isinstance(value, list) else value for name, value in settings.items()}
    preset = preset_named(arguments.pop("preset")) if "preset" in arguments else {}
    unknown = [name for name in arguments if name not in allowed]
    if unknown:
        msg = f"`path` {str(path)!r} sets {', '.join(unknown)}, expected some of {', '.join(allowed)}, preset"
        raise ValueError(msg)
    return {**preset, **arguments}


def save_settings(path: "str | os.PathLike[str]", settings: Mapping[str, Any], told: Mapping[str, Any]) -> None:
    """Write a file of settings; an interrupted write leaves the file that was there.

    Parameters
    ----------
    path : path-like
        Where to.
    settings : mapping
        As `load_settings` reads them.
    told : mapping
        What people may want to know beside, as JSON takes it.

    Raises
    ------
    OSError
        If it cannot be written.
    """
    place = Path(path)
    unfinished = place.with_name(f"{place.name}.unfinished")
    unfinished.write_text(json.dumps({"settings": dict(settings), **told}, indent=2) + "\n", encoding="utf-8")
    unfinished.replace(place)
