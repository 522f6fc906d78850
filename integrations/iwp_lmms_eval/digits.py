"""The project's own task for lmms-eval: questions about coloured handwritten digits, drawn and asked offline."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from typing import Any

from datasets import Dataset, DatasetDict, Features, Image, Value
from lmms_eval.api.task import ConfigurableMessagesTask

from iwp_lmms_eval.conversations import Conversation
from iwp_miniature import KINDS, Example, Miniature

__all__ = ["TASK", "DigitsTask", "MiniatureEncoder", "digits_task"]

TASK = "iwp_digits"
ACCURACY = "accuracy"


class DigitsTask(ConfigurableMessagesTask):  # type: ignore[misc] # lmms-eval has no types
    """Questions that are in memory; made by `digits_task`."""

    def __init__(self, examples: Sequence[Example]) -> None:
        self._examples = _interleaved(examples)
        super().__init__(config=_config())

    def download(self, dataset_kwargs: object = None) -> None:  # noqa: ARG002 - lmms-eval's signature
        """Hold the questions, instead of downloading some."""
        columns: dict[str, list[Any]] = {
            "image": [each.scene.image for each in self._examples],
            "question": [each.question.text for each in self._examples],
            "answer": [each.question.answer for each in self._examples],
            "kind": [each.question.kind for each in self._examples],
        }
        features = Features({name: Image() if name == "image" else Value("string") for name in columns})
        self.dataset = DatasetDict({"test": Dataset.from_dict(columns, features=features)})
        self.dataset_no_image = self.dataset.remove_columns("image")


def digits_task(examples: Sequence[Example]) -> DigitsTask:
    """Return a task of lmms-eval.

    Parameters
    ----------
    examples : sequence of Example
        Of `iwp_miniature.draw_examples`, or others.

    Returns
    -------
    DigitsTask
        Its metrics are the accuracy, and that of each kind of questions; any number of its first questions holds all
        kinds and sizes about equally often.
    """
    return DigitsTask(examples)


@dataclass(frozen=True)
class MiniatureEncoder:
    """The image processor and tokenizer of a miniature, without torchvision, which its processor needs.

    Attributes
    ----------
    miniature : Miniature
    """

    miniature: Miniature

    @property
    def tokenizer(self) -> Any:
        """That of the miniature."""
        return self.miniature.tokenizer

    def encode(self, conversations: Sequence[Conversation]) -> Mapping[str, Any]:
        """Return the inputs of conversations that ask one question about one picture each."""
        images = [image for each in conversations for image in each.images]
        texts = [part["text"] for each in conversations for part in each.turns[-1]["content"] if part["type"] == "text"]
        return self.miniature.encode(images, texts)


def _config() -> dict[str, Any]:
    metrics = [{"metric": name, "aggregation": _mean, "higher_is_better": True} for name in (ACCURACY, *KINDS)]
    return {
        "task": TASK,
        "dataset_path": "in memory",
        "test_split": "test",
        "output_type": "generate_until",
        "doc_to_visual": lambda document: [document["image"]],
        "doc_to_text": lambda document, *_: document["question"],
        "doc_to_target": "answer",
        "process_results": _judged,
        "generation_kwargs": {"max_new_tokens": 2, "do_sample": False, "temperature": 0},
        "metric_list": metrics,
        "metadata": [{"version": 1.0}],
    }


def _judged(document: Mapping[str, str], results: Sequence[str]) -> dict[str, float]:
    right = float(results[0].strip() == document["answer"])
    return {ACCURACY: right, document["kind"]: right}


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _interleaved(examples: Sequence[Example]) -> list[Example]:
    """Order examples by turns of their kind, style and size."""
    alike: dict[tuple[Any, ...], list[Example]] = defaultdict(list)
    for example in examples:
        layout = example.scene.layout
        alike[KINDS.index(example.question.kind), layout.style, layout.rows, layout.columns].append(example)
    turns = zip_longest(*(alike[key] for key in sorted(alike)))
    return [example for example in chain.from_iterable(turns) if example is not None]
