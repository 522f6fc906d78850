"""From conversations to the inputs of a model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from iwp_lmms_eval.conversations import Conversation
from iwp_lmms_eval.videos import read_frames

__all__ = ["Encoder", "ProcessorEncoder"]


class Encoder(Protocol):
    """What turns a batch of conversations into the inputs of a model."""

    @property
    def tokenizer(self) -> Any:
        """Its tokenizer, which pads on the left and has a token to pad with."""

    def encode(self, conversations: Sequence[Conversation]) -> Mapping[str, Any]:
        """Return the inputs of B samples: tensors by their names, `input_ids` of shape (B, T) among them."""


@dataclass(frozen=True)
class ProcessorEncoder:
    """The processor of a model, padding on the left.

    Attributes
    ----------
    processor : transformers.ProcessorMixin
    max_num_frames : int
        Frames taken from each video, at most.
    """

    processor: Any
    max_num_frames: int

    def __post_init__(self) -> None:
        """Let the tokenizer pad on the left: what is generated follows the last column."""
        self.tokenizer.padding_side = "left"
        if self.tokenizer.pad_token is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token

    @property
    def tokenizer(self) -> Any:
        """That of the processor."""
        return self.processor.tokenizer

    def encode(self, conversations: Sequence[Conversation]) -> Mapping[str, Any]:
        """Return the inputs, with a row for each conversation.

        Parameters
        ----------
        conversations : sequence of Conversation, length B

        Returns
        -------
        mapping of str to torch.Tensor
            On the CPU.
        """
        texts = [
            self.processor.apply_chat_template(each.turns, tokenize=False, add_generation_prompt=True)
            for each in conversations
        ]
        # Nested, since some processors treat the only image of a sample otherwise than one of several.
        images = [each.images for each in conversations if each.images]
        read = [read_frames(video, self.max_num_frames) for each in conversations for video in each.videos]
        given: dict[str, Any] = {"images": images} if images else {}
        if read:
            frames, metadata = zip(*read, strict=True)
            given |= {"videos": list(frames), "video_metadata": list(metadata), "do_sample_frames": False}
        inputs: Mapping[str, Any] = self.processor(text=texts, padding=True, return_tensors="pt", **given)
        return inputs
