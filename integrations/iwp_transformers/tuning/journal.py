"""What was measured so far, in a file that every result is appended to, so that a run that is killed can go on."""

import os
from collections.abc import Mapping
from typing import Any

from iwp_transformers.json_lines import JsonLines

__all__ = ["Journal"]

FORMAT = 1


class Journal:
    """Results by what they are of; with a file, each is written as it comes.

    Parameters
    ----------
    path : path-like, optional
        A file of JSON lines; made if it is missing, gone on with if it is there. Without it, nothing is written.
    conditions : mapping
        What all results have in common, as JSON takes it: the model, the device, versions.

    Raises
    ------
    ValueError
        If the file is none that `tune` wrote, is damaged before its last line, or has other conditions.
    OSError
        If it cannot be read or written.
    """

    def __init__(self, path: "str | os.PathLike[str] | None", conditions: Mapping[str, Any]) -> None:
        self._file = None if path is None else JsonLines(path)
        self._results: dict[tuple[str, ...], dict[str, Any]] = {}
        if self._file is None:
            return
        lines = _checked_lines(self._file)
        if not lines:
            self._file.append({"iwp_tune": FORMAT, **conditions})
            return
        told = {name: value for name, value in lines[0].items() if name != "iwp_tune"}
        for name in {**told, **conditions}:
            if told.get(name) != conditions.get(name):
                msg = (
                    f"`journal` {str(path)!r} was measured with {name} {told.get(name)!r}, and now it is"
                    f" {conditions.get(name)!r}: go on with the same, or name another file"
                )
                raise ValueError(msg)
        self._results = {tuple(line["of"]): line["result"] for line in lines[1:]}

    def get(self, *of: str) -> dict[str, Any] | None:
        """Return the result of something, None if it was not measured."""
        return self._results.get(of)

    def put(self, result: dict[str, Any], *of: str) -> dict[str, Any]:
        """Write the result of something down, and return it."""
        self._results[of] = result
        if self._file is not None:
            self._file.append({"of": of, "result": result})
        return result


def _checked_lines(file: JsonLines) -> list[dict[str, Any]]:
    """Return the lines of a file; one that a killed run did not finish is cut off.

    Raises
    ------
    ValueError
        If they are not what `tune` writes.
    """
    try:
        lines = file.read()
        known = lines[0]["iwp_tune"] == FORMAT if lines else not file.torn
        known = known and all({"of", "result"} <= line.keys() for line in lines[1:])
    except (ValueError, KeyError):
        known = False
    if not known:
        msg = f"`journal` {str(file.path)!r} is no file that `tune` wrote, or is damaged: name another file"
        raise ValueError(msg)
    file.cut()
    return lines
