"""A result file of answers, which grows cell by cell: what it holds already is kept, so that a stopped run goes on."""

from collections.abc import Callable, Iterable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from _harness import header, read, write_to
from accuracy_evaluation import Evaluation
from answers import Flags, accuracies
from rich.progress import track

__all__ = ["Measurement", "answered", "opened", "packed", "tell_resumed", "trained", "unpacked"]

Measured = tuple[Flags | None, Mapping[str, Any]]


class Measurement:
    """The answers of one miniature to the same questions under many rules.

    Parameters
    ----------
    evaluation : Evaluation
        The questions.
    output : Path
        The result file.
    command : str
        That measures it.
    conditions : dict
        What has to be the same for all cells of the file.

    Raises
    ------
    ValueError
        If the file holds a measurement under other conditions.
    """

    def __init__(self, evaluation: Evaluation, output: Path, command: str, conditions: dict[str, Any]) -> None:
        self._evaluation, self._output = evaluation, output
        self._now = header(command, **conditions)
        self._result = opened(output, self._now, conditions, "cells")
        self.cells: dict[str, Any] = self._result["cells"]
        # Figures follow from the answers, whatever an earlier version made of them.
        for name, entry in self.cells.items():
            if "right" in entry:
                self._enter(name, answered(entry, len(evaluation.examples)), entry)

    def measure(self, wanted: Mapping[str, Callable[[], Measured]], anew: Iterable[str] = ()) -> None:
        """Measure the cells that are missing, and write the file after each.

        Parameters
        ----------
        wanted : mapping
            For each cell, what measures it: which answers are right, None where there are none, and what else is told.
            The first is ``"full"``, all visual tokens.
        anew : iterable of str
            Cells that are measured again.
        """
        again = set(anew)
        missing = [name for name in wanted if name not in self.cells or name in again]
        if missing:
            tell_resumed(self._result, self._now)
        for name in track(missing, description=self._output.stem):
            self._enter(name, *wanted[name]())
            write_to(self._output, self._result)

    def _enter(self, name: str, right: Flags | None, told: Mapping[str, Any]) -> None:
        if right is None:
            self.cells[name] = dict(told)
            return
        asked, entry = self._evaluation, dict(told)
        full = None if name == "full" else answered(self.cells["full"], len(asked.examples))
        entry |= accuracies(right, asked.kinds, asked.styles, full=full)
        self.cells[name] = entry | {"right": packed(right)}


def opened(output: Path, now: dict[str, Any], conditions: Mapping[str, Any], part: str) -> dict[str, Any]:
    """Return what a file holds of the same conditions, or an empty result with the header of now.

    Parameters
    ----------
    output : Path
        The result file.
    now : dict
        The header of this run.
    conditions : mapping
        What of the header has to be the same.
    part : str
        The name of what grows.

    Raises
    ------
    ValueError
        If the file holds a measurement under other conditions.
    """
    result = read(output) or {"header": now, part: {}}
    if any(result["header"].get(name) != value for name, value in conditions.items()):
        msg = f"--output {output} holds another measurement: {result['header']}"
        raise ValueError(msg)
    return result


def tell_resumed(result: dict[str, Any], now: Mapping[str, Any]) -> None:
    """Let a result tell that a run at another commit adds to it."""
    if now["commit"] != result["header"]["commit"]:
        resumed = {name: now[name] for name in ("commit", "date", "command")}
        result["header"].setdefault("resumed", []).append(resumed)


def packed(flags: Flags) -> str:
    """Return yes or no of each question as a result file holds it: bits in hexadecimal digits."""
    return np.packbits(flags).tobytes().hex()


def unpacked(text: str, questions: int) -> Flags:
    """Return yes or no of each question from what `packed` made."""
    return np.unpackbits(np.frombuffer(bytes.fromhex(text), dtype=np.uint8))[:questions].astype(bool)


def answered(entry: Mapping[str, Any], questions: int) -> Flags:
    """Return which questions were answered right, from an entry of a result file."""
    return unpacked(entry["right"], questions)


def trained(folder: Path) -> dict[str, Any]:
    """Tell which weights a folder holds: the seed of their training and a digest."""
    log = read(folder / "training.json")
    digest = sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    return {"training_seed": log and log["recipe"]["seed"], "weights_sha256": digest[:16]}
