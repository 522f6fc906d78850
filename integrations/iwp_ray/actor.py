"""The process that answers batches of rows: a model, and the session that prunes it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import pyarrow as pa
import ray
import torch

from iwp_ray.answers import answer_table, failed
from iwp_ray.attempts import MOST_DEATHS
from iwp_ray.rows import Row, read_row, told
from iwp_transformers import prune_visual_tokens
from iwp_transformers.media.encoding import encode_batch
from iwp_transformers.timed_generation import timed_generation

__all__ = ["Loader", "PruningActor", "Task"]

Loader = Callable[[], tuple[Any, Any]]
"""Returns a model, on its device, and its processor."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """What is done with every row.

    Attributes
    ----------
    load : Loader
        Loads the model and its processor.
    settings : mapping
        Arguments of `prune_visual_tokens`.
    prompt : str or None
        Question of rows without a prompt.
    max_new_tokens : int
        Longest answer, in tokens.
    frames : int
        Frames taken from each video.
    threads : int
        Threads of PyTorch.
    root : pathlib.Path
        Folder that relative paths start from.
    """

    load: Loader
    settings: Mapping[str, Any]
    prompt: str | None
    max_new_tokens: int
    frames: int
    threads: int
    root: Path


class PruningActor:
    """Answers batches of rows with one model, which it loads once.

    Parameters
    ----------
    task : Task
    attempts : ray.actor.ActorHandle
        Of `Attempts`.

    Attributes
    ----------
    session : iwp_transformers.PruningSession
        Open as long as the process lives.
    """

    def __init__(self, task: Task, attempts: Any) -> None:
        torch.set_num_threads(task.threads)
        self._task, self._attempts = task, attempts
        # A process that took the place of one that died has its name; one of another run has not.
        self._name = ray.get_runtime_context().get_actor_id()
        self._model, self._processor = task.load()
        tokenizer = self._processor.tokenizer
        # What is generated stands behind the prompt, so rows of a batch have to end together.
        tokenizer.padding_side = "left"
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        self.session = prune_visual_tokens(self._model, history=1, **task.settings)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return the answers of a batch of rows, in their order."""
        contents = batch.to_pylist()
        keys = [repr(content["id"]) for content in contents]
        if self._begin("\n".join(["batch", *keys])) == 0:
            answers = self._answers(contents)
        else:
            # The process that had these rows died; alone, the row that kills is found.
            answers = [self._answer_alone(content, key) for content, key in zip(contents, keys, strict=True)]
        self._end("\n".join(["batch", *keys]))
        return answer_table(batch["id"], answers)

    def _begin(self, key: str) -> int:
        before: int = ray.get(self._attempts.begin.remote(f"{self._name} {key}"))
        return before

    def _end(self, key: str) -> None:
        ray.get(self._attempts.end.remote(f"{self._name} {key}"))

    def _answer_alone(self, content: Mapping[str, Any], key: str) -> Mapping[str, Any]:
        deaths = self._begin(key)
        if deaths >= MOST_DEATHS:
            answer: Mapping[str, Any] = failed(f"the process that worked on this row alone died {deaths} times")
        else:
            (answer,) = self._answers([content])
        self._end(key)
        return answer

    def _answers(self, contents: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        task = self._task
        rows = [read_row(content, prompt=task.prompt, root=task.root, frames=task.frames) for content in contents]
        answers: list[Mapping[str, Any]] = [failed(row.error or "") for row in rows]
        for kind in ("image", "video"):
            places = [place for place, row in enumerate(rows) if row.media is not None and row.media.count(kind)]
            for place, answer in zip(places, self._in_parts([rows[place] for place in places]), strict=True):
                answers[place] = {**answer, "read_seconds": rows[place].read_seconds}
        return answers

    def _in_parts(self, rows: Sequence[Row]) -> list[Mapping[str, Any]]:
        """Answer rows together. If that fails, answer each half, and so on down to the row that cannot be answered.

        Raises
        ------
        torch.AcceleratorError
            If the device is broken. The run ends, and can be continued.
        """
        if not rows:
            return []
        try:
            return self._together(rows)
        except torch.AcceleratorError:
            raise
        except Exception as error:
            if len(rows) == 1:
                return [failed(told(error))]
        half = len(rows) // 2
        return [*self._in_parts(rows[:half]), *self._in_parts(rows[half:])]

    def _together(self, rows: Sequence[Row]) -> list[Mapping[str, Any]]:
        began = perf_counter()
        media = [row.media for row in rows if row.media is not None]
        inputs = encode_batch(self._processor, self._model.config, [row.prompt for row in rows], media)
        inputs = inputs.to(self._model.device, self._model.dtype)
        encode_seconds = perf_counter() - began
        self.session.records.clear()
        timed = timed_generation(self._model, inputs, max_new_tokens=self._task.max_new_tokens)
        texts = self._processor.batch_decode(timed.ids, skip_special_tokens=True)
        (record,) = self.session.records
        shared = {
            "batch_rows": len(rows),
            "encode_seconds": encode_seconds,
            "first_token_seconds": timed.first_token_seconds,
            "decode_seconds": timed.decode_seconds,
            "selection_seconds": record.summary().selection_seconds,
        }
        of_rows = zip(texts, record.visual, record.kept_indices, record.tokens_by_layer, strict=True)
        return [
            {
                **shared,
                "answer": text.strip(),
                "visual_tokens": len(visual),
                "kept_indices": kept.tolist(),
                "tokens_by_layer": list(tokens),
            }
            for text, visual, kept, tokens in of_rows
        ]
