"""Answers of a model to a batch of conversations, and what they took."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any

import torch
from transformers import StoppingCriteriaList

from iwp_lmms_eval.conversations import Conversation
from iwp_lmms_eval.encoding import Encoder
from iwp_lmms_eval.figures import Figures
from iwp_lmms_eval.generation import Options, StopAtWords, cut_at
from iwp_transformers import prune_visual_tokens
from iwp_transformers.memory import PeakMemory
from iwp_transformers.timed_generation import TokenClock

__all__ = ["Answer", "Answerer"]


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a sample was answered.

    Attributes
    ----------
    text : str
    prompt_tokens, new_tokens : int
        Padding, and the token that ends an answer, not counted.
    """

    text: str
    prompt_tokens: int
    new_tokens: int


@dataclass(frozen=True)
class Answerer:
    """A model that answers conversations, its visual tokens pruned.

    Attributes
    ----------
    model : transformers.PreTrainedModel
        For inference.
    encoder : Encoder
    pruning : mapping or None
        Arguments of `prune_visual_tokens`; None answers with all tokens.
    """

    model: Any
    encoder: Encoder
    pruning: Mapping[str, Any] | None

    def answer(self, conversations: Sequence[Conversation], options: Options) -> tuple[list[Answer], Figures]:
        """Answer a batch.

        Parameters
        ----------
        conversations : sequence of Conversation, length B
        options : Options

        Returns
        -------
        answers : list of Answer, length B
        figures : Figures
            Of the batch.
        """
        inputs = {name: self._placed(value) for name, value in self.encoder.encode(conversations).items()}
        prompt, tokenizer, clock = inputs["input_ids"].shape[1], self.encoder.tokenizer, TokenClock()
        criteria = StoppingCriteriaList([clock])
        if options.until:
            criteria.append(StopAtWords(tokenizer, options.until, prompt))
        pruned = nullcontext() if self.pruning is None else prune_visual_tokens(self.model, **self.pruning)
        with torch.inference_mode(), pruned as session, _peak_memory(self.model) as memories:
            began = perf_counter()
            ids = self.model.generate(
                **inputs, **options.arguments, pad_token_id=tokenizer.pad_token_id, stopping_criteria=criteria
            )
            new = ids[:, prompt:].cpu()
            seconds = perf_counter() - began
        # Beams and several sequences read one prompt: the mask alone tells its length.
        lengths = inputs["attention_mask"].sum(-1).tolist()
        texts = tokenizer.batch_decode(new, skip_special_tokens=True)
        counts = _counts(new, self.model.generation_config.eos_token_id, tokenizer.pad_token_id)
        answers = [
            Answer(text=cut_at(text, options.until), prompt_tokens=length, new_tokens=count)
            for text, length, count in zip(texts, lengths, counts, strict=True)
        ]
        figures = replace(
            Figures() if session is None else Figures.of_records(session.records),
            samples=len(answers),
            new_tokens=sum(counts),
            seconds=seconds,
            first_token_seconds=clock.moments[0] - began,
            peak_bytes=_total(memories),
        )
        return answers, figures

    def _placed(self, value: Any) -> Any:
        if not isinstance(value, torch.Tensor):
            return value
        # Pictures come as float32, whatever the model computes in.
        return value.to(self.model.device, self.model.dtype if value.is_floating_point() else None)


@contextmanager
def _peak_memory(model: Any) -> Iterator[list[PeakMemory]]:
    """Measure every device that holds a part of a model."""
    devices = sorted({each.device for each in model.parameters()} - {torch.device("meta")}, key=str)
    with ExitStack() as stack:
        yield [stack.enter_context(PeakMemory(device)) for device in devices]


def _total(memories: Sequence[PeakMemory]) -> int | None:
    known = [memory.bytes for memory in memories if memory.bytes is not None]
    return sum(known) if known else None


def _counts(new: torch.Tensor, ends: int | Sequence[int] | None, padding: int) -> list[int]:
    """Return how many tokens each row has before the one that ends it, or the padding behind it."""
    stops = {padding, *(ends if isinstance(ends, Sequence) else [ends])}
    return [next((place for place, token in enumerate(row) if token in stops), len(row)) for row in new.tolist()]
