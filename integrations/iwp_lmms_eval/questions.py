"""The requests of lmms-eval: each with a key of its own, in batches that are generated alike."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from iwp_lmms_eval.conversations import Conversation, conversation_of

__all__ = ["Question", "SampleError", "batches_of", "questions_of"]


class SampleError(RuntimeError):
    """Samples that could not be answered; the message names them, and the error that kept them from it.

    Parameters
    ----------
    questions : sequence of Question
        One of them, or all.
    error : Exception
    """

    def __init__(self, questions: "Sequence[Question]", error: Exception) -> None:
        named = ", or ".join(map(str, questions))
        super().__init__(f"{named} cannot be answered: {type(error).__name__}: {error}")


@dataclass(frozen=True, kw_only=True)
class Question:
    """One request.

    Attributes
    ----------
    place : int
        Its place among the requests.
    task, split : str
    document : int
        Which of the split.
    stated : mapping
        The task's options of generation.
    key : str
        All that tells it from others, as JSON; it stays the same from run to run.
    ask : callable
        Takes the document, returns the messages.
    """

    place: int
    task: str
    split: str
    document: int
    stated: Mapping[str, Any]
    key: str
    ask: Any

    def conversation(self, documents: Mapping[str, Mapping[str, Any]]) -> Conversation:
        """Return what is asked.

        Parameters
        ----------
        documents : mapping
            By task and split: sequences of documents.

        Raises
        ------
        SampleError
            If the document or a picture of it cannot be read.
        """
        try:
            return conversation_of(self.ask(documents[self.task][self.split][self.document]))
        except Exception as error:
            raise SampleError([self], error) from error

    def __str__(self) -> str:
        """Return where it stands."""
        return f"document {self.document} of task {self.task!r}, split {self.split!r}"


def questions_of(requests: Iterable[Any]) -> list[Question]:
    """Return the questions that requests of lmms-eval hold.

    Parameters
    ----------
    requests : iterable of lmms_eval.api.instance.Instance
        Of a task whose messages are chats; one that stands there several times is asked as often.
    """
    repeats: Counter[str] = Counter()
    questions = []
    for place, request in enumerate(requests):
        _, ask, stated, document, task, split = request.args
        alike = json.dumps([task, split, document, stated], sort_keys=True, default=str)
        key = json.dumps([alike, repeats[alike]])
        repeats[alike] += 1
        question = Question(place=place, task=task, split=split, document=document, stated=stated, key=key, ask=ask)
        questions.append(question)
    return questions


def batches_of(questions: Iterable[Question], size: int) -> Iterator[Sequence[Question]]:
    """Yield batches of at most `size` questions with the same options, in the order of the questions."""
    alike: dict[str, list[Question]] = defaultdict(list)
    for question in questions:
        alike[json.dumps(question.stated, sort_keys=True, default=str)].append(question)
    for group in alike.values():
        for start in range(0, len(group), size):
            yield group[start : start + size]
