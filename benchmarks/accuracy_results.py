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

__all__ = ["Measurement", "answered", "trained"]

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
        self._result = read(output) or {"header": self._now, "cells": {}}
        if any(self._result["header"].get(name) != value for name, value in conditions.items()):
            msg = f"--output {output} holds another measurement: {self._result['header']}"
            raise ValueError(msg)
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
        if missing and self._now["commit"] != self._result["header"]["commit"]:
            resumed = {name: self._now[name] for name in ("commit", "date", "command")}
            self._result["header"].setdefault("resumed", []).append(resumed)
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
        self.cells[name] = entry | {"right": np.packbits(right).tobytes().hex()}


def answered(entry: Mapping[str, Any], questions: int) -> Flags:
    """Return which questions were answered right, from an entry of a result file, which holds them as bits."""
    packed = np.frombuffer(bytes.fromhex(entry["right"]), dtype=np.uint8)
    return np.unpackbits(packed)[:questions].astype(bool)


def trained(folder: Path) -> dict[str, Any]:
    """Tell which weights a folder holds: the seed of their training and a digest."""
    log = read(folder / "training.json")
    digest = sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    return {"training_seed": log and log["recipe"]["seed"], "weights_sha256": digest[:16]}
