"""The model `iwp` of lmms-eval; imported by lmms-eval, and by what runs it."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lmms_eval.api.instance import GenerationResult, TokenCounts
from lmms_eval.api.model import lmms
from lmms_eval.models.model_utils.gen_metrics import log_metrics
from tqdm import tqdm

from iwp_lmms_eval.answering import Answer, Answerer
from iwp_lmms_eval.arguments import pruning_arguments, written
from iwp_lmms_eval.figures import Figures
from iwp_lmms_eval.generation import options_of
from iwp_lmms_eval.journal import Journal
from iwp_lmms_eval.loading import load_answerer
from iwp_lmms_eval.questions import Question, SampleError, batches_of, questions_of
from iwp_lmms_eval.versions import measured_versions

__all__ = ["AnsweringModel", "PrunedModel"]


class AnsweringModel(lmms):  # type: ignore[misc] # lmms-eval has no types
    """What lmms-eval evaluates: an `Answerer`, asked in batches.

    Parameters
    ----------
    answerer : Answerer
    batch_size : int
        Samples of a batch, at most.
    max_new_tokens : int
        Longest answer, of tasks that state none.
    journal : Journal, optional
        Where answers are kept; those that it holds are not asked again.

    Attributes
    ----------
    figures : Figures
        What the answers took, those of the journal included.
    """

    is_simple = False

    def __init__(
        self, answerer: Answerer, *, batch_size: int = 1, max_new_tokens: int = 1024, journal: Journal | None = None
    ) -> None:
        super().__init__()
        self.batch_size, self.device, self.config = batch_size, answerer.model.device, answerer.model.config
        self.figures = Figures() if journal is None else journal.figures
        self._answerer: Answerer | None = answerer
        self._max_new_tokens, self._journal = max_new_tokens, journal

    def generate_until(self, requests: Sequence[Any]) -> list[GenerationResult]:
        """Answer requests, in their order.

        Raises
        ------
        SampleError
            If one cannot be answered; the message names it.
        RuntimeError
            If the weights were released, as lmms-eval does after an evaluation.
        """
        questions = questions_of(requests)
        known = {} if self._journal is None else self._journal.answers
        answers = {each.place: known[each.key] for each in questions if each.key in known}
        left = [each for each in questions if each.place not in answers]
        with tqdm(total=len(questions), initial=len(answers), disable=self.rank != 0, desc="iwp") as bar:
            for batch in batches_of(left, self.batch_size):
                told, figures = self._answered(batch)
                answers |= {question.place: answer for question, answer in zip(batch, told, strict=True)}
                self.figures += figures
                if self._journal is not None:
                    self._journal.add([question.key for question in batch], told, figures)
                bar.update(len(batch))
        self._log()
        return [_result(answers[each.place]) for each in questions]

    def _answered(self, batch: Sequence[Question]) -> tuple[list[Answer], Figures]:
        if self._answerer is None:
            msg = "lmms-eval releases the weights after an evaluation: make another model for the next"
            raise RuntimeError(msg)
        conversations = [question.conversation(self.task_dict) for question in batch]
        options = options_of(batch[0].stated, max_new_tokens=self._max_new_tokens)
        try:
            return self._answerer.answer(conversations, options)
        except Exception as error:
            raise SampleError(batch, error) from error

    def _log(self) -> None:
        figures = self.figures
        log_metrics(
            total_elapsed_time=figures.seconds,
            total_gen_tokens=figures.new_tokens,
            avg_speed=figures.new_tokens / figures.seconds if figures.seconds else 0.0,
            additional_metrics={"total_requests": figures.samples, **figures.means()},
        )

    def clean(self) -> None:
        """Release the weights; lmms-eval calls this once everything is answered."""
        self._answerer = None
        super().clean()

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        """Raise: probabilities of given answers are not computed.

        Raises
        ------
        NotImplementedError
            Always.
        """
        msg = "the model `iwp` generates, and rates no given answers: expected tasks of output_type generate_until"
        raise NotImplementedError(msg)

    def generate_until_multi_round(self, requests: Sequence[Any]) -> list[str]:
        """Raise: questions that follow from answers are not asked.

        Raises
        ------
        NotImplementedError
            Always.
        """
        msg = "the model `iwp` answers single rounds: expected tasks of output_type generate_until"
        raise NotImplementedError(msg)


class PrunedModel(AnsweringModel):
    """What ``--model iwp`` names, made from ``--model_args``.

    Parameters
    ----------
    pretrained : str
        Folder of a model and its processor, or name on the Hub.
    batch_size : int or str, default 1
        Samples of a batch, at most.
    max_batch_size : int, optional
        Not used: batches do not adapt.
    max_new_tokens : int, default 1024
        Longest answer, of tasks that state none.
    journal : str, optional
        File for answers, by which a run that was killed goes on, with the same versions of packages; one for each
        process of several.
    device, device_map, dtype, attn_implementation, max_num_frames, min_pixels, max_pixels
        As `load_answerer`.
    **pruning
        As `pruning_arguments`; without any, all tokens stay.

    Raises
    ------
    TypeError, ValueError, NotImplementedError
        If an argument is none, or the model cannot be pruned as asked; before its weights are read.
    """

    def __init__(
        self,
        pretrained: str,
        *,
        batch_size: int | str = 1,
        max_batch_size: int | None = None,  # noqa: ARG002 - lmms-eval hands it over
        max_new_tokens: int = 1024,
        journal: str | None = None,
        device: str | None = None,
        device_map: Any = None,
        dtype: str = "auto",
        attn_implementation: str | None = None,
        max_num_frames: int = 32,
        min_pixels: int | None = None,
        max_pixels: int | None = None,
        **pruning: object,
    ) -> None:
        size, max_new_tokens = _count("batch_size", batch_size), _count("max_new_tokens", max_new_tokens)
        rule = pruning_arguments(pruning)
        pixels = {"min_pixels": min_pixels, "max_pixels": max_pixels}
        limits: dict[str, Any] = {"max_num_frames": _count("max_num_frames", max_num_frames)}
        limits |= {name: None if value is None else _count(name, value) for name, value in pixels.items()}
        told: dict[str, Any] = {"pretrained": pretrained, **limits, "max_new_tokens": max_new_tokens}
        told |= {"dtype": dtype, "attn_implementation": attn_implementation, "pruning": written(rule, pruning)}
        told["versions"] = measured_versions()
        notes = None if journal is None else Journal(_own_file(journal), told)
        answerer = load_answerer(
            pretrained,
            rule,
            device=device,
            device_map=device_map,
            dtype=dtype,
            attn_implementation=attn_implementation,
            **limits,
        )
        super().__init__(answerer, batch_size=size, max_new_tokens=max_new_tokens, journal=notes)


def _count(name: str, value: int | str) -> int:
    if not str(value).isdecimal() or not int(value):
        msg = f"`{name}` is {value!r}, expected an integer of at least 1"
        raise ValueError(msg)
    return int(value)


def _own_file(journal: str) -> Path:
    """Return the file of this process: each of several answers questions of its own."""
    alone = int(os.environ.get("WORLD_SIZE", "1")) == 1
    return Path(journal if alone else f"{journal}.{os.environ['RANK']}")


def _result(answer: Answer) -> GenerationResult:
    counts = TokenCounts(input_tokens=answer.prompt_tokens, output_tokens=answer.new_tokens)
    return GenerationResult(text=answer.text, token_counts=counts)
