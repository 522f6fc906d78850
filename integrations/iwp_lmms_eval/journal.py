"""Answers on disk, batch by batch, so that a run that was killed goes on where it stopped."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from iwp_lmms_eval.answering import Answer
from iwp_lmms_eval.figures import Figures

__all__ = ["Asked", "Journal"]

Asked = str
"""Which question: task, split, document, repeat and options, as JSON."""


class Journal:
    """A file with a line for each batch that was answered; what it holds is not asked again.

    Parameters
    ----------
    path : pathlib.Path
        Made if it is missing, its folder too.
    settings : mapping
        What the answers depend on, as JSON takes it.

    Raises
    ------
    ValueError
        If the file holds answers of other settings, or is no journal.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        self._path = path
        self.figures = Figures()
        self.answers: dict[Asked, Answer] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        written = path.read_bytes() if path.exists() else b""
        # A line without its end is what was being written when the run was killed.
        whole = written[: written.rfind(b"\n") + 1]
        if len(whole) < len(written):
            os.truncate(path, len(whole))
        header, *batches = self._lines(whole) if whole else [{"settings": dict(settings)}]
        if not whole:
            self._append(header)
        if header.get("settings") != json.loads(json.dumps(dict(settings))):
            msg = f"`journal` is {str(path)!r}, which holds answers of other settings: expected a new file, or the same"
            raise ValueError(msg)
        for batch in batches:
            self._hold(batch)

    def add(self, asked: Sequence[Asked], answers: Sequence[Answer], figures: Figures) -> None:
        """Write down a batch, at once.

        Parameters
        ----------
        asked : sequence of str, length B
        answers : sequence of Answer, length B
        figures : Figures
            Of the batch.
        """
        told = [[each.text, each.prompt_tokens, each.new_tokens] for each in answers]
        batch = {"asked": list(asked), "answers": told, "figures": figures.to_dict()}
        self._append(batch)
        self._hold(batch)

    def _hold(self, batch: Mapping[str, Any]) -> None:
        for asked, (text, prompt_tokens, new_tokens) in zip(batch["asked"], batch["answers"], strict=True):
            self.answers[asked] = Answer(text=text, prompt_tokens=prompt_tokens, new_tokens=new_tokens)
        self.figures += Figures.from_dict(batch["figures"])

    def _append(self, content: Mapping[str, Any]) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(content) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def _lines(self, whole: bytes) -> list[dict[str, Any]]:
        try:
            return [dict(json.loads(line)) for line in whole.splitlines()]
        except (TypeError, ValueError) as error:
            msg = f"`journal` is {str(self._path)!r}, which is none ({error}): expected a new file, or one written here"
            raise ValueError(msg) from error
