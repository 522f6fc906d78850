"""Answers on disk, batch by batch, so that a run that was killed goes on where it stopped."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from iwp_lmms_eval.answering import Answer
from iwp_lmms_eval.figures import Figures
from iwp_transformers.json_lines import JsonLines

__all__ = ["Asked", "Journal"]

Asked = str
"""Which question: task, split, document, repeat and options, as JSON."""

START = b'{"settings": '


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
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = JsonLines(path)
        self.figures = Figures()
        self.answers: dict[Asked, Answer] = {}
        header = {"settings": json.loads(json.dumps(dict(settings)))}
        lines = self._lines()
        # Half of a first line that was written here is gone with no loss; any other file stays as it is.
        before = lines[0].get("settings") if lines else header["settings"]
        if not (lines or _begins_as_here(self._file.torn)) or before != header["settings"]:
            told = ", ".join(_differences(before, header["settings"])) or "it does not say which"
            msg = (
                f"`journal` is {str(path)!r}, which holds answers of other settings ({told}): expected a new file, or"
                " the same settings"
            )
            raise ValueError(msg)
        self._file.cut()
        if not lines:
            self._file.append(header)
        for batch in lines[1:]:
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
        self._file.append(batch)
        self._hold(batch)

    def _hold(self, batch: Mapping[str, Any]) -> None:
        for asked, (text, prompt_tokens, new_tokens) in zip(batch["asked"], batch["answers"], strict=True):
            self.answers[asked] = Answer(text=text, prompt_tokens=prompt_tokens, new_tokens=new_tokens)
        self.figures += Figures.from_dict(batch["figures"])

    def _lines(self) -> list[dict[str, Any]]:
        try:
            return self._file.read()
        except ValueError as error:
            path = str(self._file.path)
            msg = f"`journal` is {path!r}, which is none ({error}): expected a new file, or one written here"
            raise ValueError(msg) from error


def _differences(before: object, now: object, name: str = "") -> list[str]:
    """Return what differs between two settings, entry by entry."""
    if not (isinstance(before, Mapping) and isinstance(now, Mapping)):
        return [] if before == now or not name else [f"{name} was {before!r} and is {now!r}"]
    entries = [*before, *(entry for entry in now if entry not in before)]
    return [
        told for each in entries for told in _differences(before.get(each), now.get(each), f"{name} {each}".strip())
    ]


def _begins_as_here(torn: bytes) -> bool:
    return torn[: len(START)] == START[: len(torn)]
