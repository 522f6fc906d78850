"""What stands where in the prompts of a batch."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Prompt", "prompt_of"]


@dataclass(frozen=True, eq=False)
class Prompt:
    """What stands where in the prompts of a batch.

    Attributes
    ----------
    visual : tuple of torch.Tensor
        For each sample, int64 and ascending: positions of its visual tokens.
    text, real : torch.Tensor
        Shape (B, T), bool: which tokens are text of the prompt, and which are no padding.
    asked : torch.Tensor
        Shape (B, T), bool: which tokens are of the prompt: no padding, and no draft.
    others : torch.Tensor
        Shape (B, T), bool: which tokens stay without being asked for: text, and drafts.
    pinned : torch.Tensor
        Shape (B, T), bool: visual tokens whose own row is read, which stay whatever the rule says: one that ends its
        prompt, since the next token is read from it, and one that is followed by a label.
    drafts : int
        Tokens behind the prompts that assisted decoding guessed; no question is read from them.
    modalities : mapping of str to torch.Tensor
        For each modality, shape (B, T), bool: which visual tokens are its.
    """

    visual: tuple[Tensor, ...]
    text: Tensor
    real: Tensor
    asked: Tensor
    others: Tensor
    pinned: Tensor
    drafts: int
    modalities: Mapping[str, Tensor]

    def rows_by_modality(self) -> dict[str, tuple[Tensor, ...]]:
        """Return, for each modality and sample, the rows of its tokens."""
        return {name: _rows(where) for name, where in self.modalities.items()}


def prompt_of(modalities: Mapping[str, Tensor], real: Tensor, labelled: Tensor | None, drafts: int) -> Prompt:
    """Describe the prompts of a batch.

    Parameters
    ----------
    modalities : mapping of str to torch.Tensor
        For each modality, shape (B, T), bool: where placeholders of its tokens stand.
    real : torch.Tensor
        Shape (B, T), bool: which tokens are no padding.
    labelled : torch.Tensor, optional
        Shape (B, T), bool: which rows a loss is computed of.
    drafts : int
        Tokens at the end that assisted decoding guessed.
    """
    tokens = torch.arange(real.shape[1], device=real.device)
    asked = real & (tokens < real.shape[1] - drafts)
    modalities = {name: where & asked for name, where in modalities.items()}
    visual = torch.stack(list(modalities.values())).any(0)
    read = tokens == (tokens * asked).amax(1, keepdim=True)
    if labelled is not None:
        read |= labelled.to(real.device)
    return Prompt(
        visual=_rows(visual),
        text=asked & ~visual,
        real=real,
        asked=asked,
        others=real & ~visual,
        pinned=visual & read,
        drafts=drafts,
        modalities=modalities,
    )


def _rows(where: Tensor) -> tuple[Tensor, ...]:
    return tuple(row.nonzero().squeeze(1) for row in where)
