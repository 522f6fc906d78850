"""What stands where in the prompts of a batch."""

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Prompt", "prompt_of"]

# The label of a token that no loss is computed for.
IGNORED = -100


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
    """

    visual: tuple[Tensor, ...]
    text: Tensor
    real: Tensor
    asked: Tensor
    others: Tensor
    pinned: Tensor
    drafts: int


def prompt_of(visual: Tensor, real: Tensor, labels: Tensor | None, drafts: int) -> Prompt:
    """Describe the prompts of a batch.

    Parameters
    ----------
    visual : torch.Tensor
        Shape (B, T), bool: where placeholders of visual tokens stand.
    real : torch.Tensor
        Shape (B, T), bool: which tokens are no padding.
    labels : torch.Tensor, optional
        Shape (B, T): what each token should have been predicted to be; -100 for those that do not count.
    drafts : int
        Tokens at the end that assisted decoding guessed.
    """
    tokens = torch.arange(real.shape[1], device=real.device)
    asked = real & (tokens < real.shape[1] - drafts)
    visual = visual & asked
    read = tokens == (tokens * asked).amax(1, keepdim=True)
    if labels is not None:
        read[:, :-1] |= labels[:, 1:].to(real.device) != IGNORED
    positions = tuple(row.nonzero().squeeze(1) for row in visual)
    return Prompt(
        visual=positions,
        text=asked & ~visual,
        real=real,
        asked=asked,
        others=real & ~visual,
        pinned=visual & read,
        drafts=drafts,
    )
