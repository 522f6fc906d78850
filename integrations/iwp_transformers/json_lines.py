"""A file of JSON lines that grows as results come, so that a run that was killed can go on."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["JsonLines"]


class JsonLines:
    """Objects of JSON, a line each; the file is made with the first.

    Parameters
    ----------
    path : path-like
        It may be missing, but for its folder.

    Attributes
    ----------
    path : pathlib.Path
        The file.
    torn : bytes
        What stands behind the last whole line: what a run was writing when it was killed.

    Raises
    ------
    OSError
        If it cannot be read.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        content = self.path.read_bytes() if self.path.exists() else b""
        self._whole = content[: content.rfind(b"\n") + 1]
        self.torn = content[len(self._whole) :]

    def read(self) -> list[dict[str, Any]]:
        """Return the whole lines; the file stays as it is.

        Raises
        ------
        ValueError
            If one is no object of JSON.
        """
        try:
            lines = [json.loads(line) for line in self._whole.splitlines()]
        except RecursionError as error:
            msg = "a line is nested too deep"
            raise ValueError(msg) from error
        for line in lines:
            if not isinstance(line, dict):
                msg = f"{line!r} is no object"
                raise ValueError(msg)
        return lines

    def cut(self) -> None:
        """Take what is torn off the file, once the rest is known to be one's own."""
        if self.torn:
            os.truncate(self.path, len(self._whole))
            self.torn = b""

    def append(self, line: Mapping[str, Any]) -> None:
        """Write an object down; it is on the disk when this returns."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
            file.flush()
            os.fsync(file.fileno())
