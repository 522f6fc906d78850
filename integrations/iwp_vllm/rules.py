"""The rules that choose among the tokens of one image or video, and what of the prompt each of them reads."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from hashlib import sha256
from typing import Any, ClassVar

import torch
from torch import Tensor

from iwp_core.methods import divprune, fastv, random_tokens, trimtokenator, uniform
from iwp_vllm.iwp import IWP
from iwp_vllm.rule import Rule
from iwp_vllm.seen import Seen

__all__ = ["IWP", "RULES", "DivPrune", "FastV", "Random", "Rule", "TrimTokenator", "Uniform", "rule_named"]


@dataclass(frozen=True, kw_only=True)
class DivPrune(Rule):
    """`iwp_core.methods.divprune` on what enters the layer; as published, on the embeddings."""

    name: ClassVar[str] = "divprune"

    def __call__(self, seen: Seen, count: int) -> Tensor:
        """Return the indices to keep, shape (M,), ascending."""
        kept: Tensor = divprune(seen.hidden[seen.visual], count)
        return kept


@dataclass(frozen=True, kw_only=True)
class FastV(Rule):
    """`iwp_core.methods.fastv` on the last token's attention in the layer before."""

    name: ClassVar[str] = "fastv"
    least_layer: ClassVar[int] = 1
    layer: int = 2

    @property
    def reads_text(self) -> bool:
        """Always."""
        return True

    def __call__(self, seen: Seen, count: int) -> Tensor:
        """Return the indices to keep, shape (M,), ascending."""
        kept: Tensor = fastv(seen.last_attention[:, seen.visual], count)
        return kept


@dataclass(frozen=True, kw_only=True)
class TrimTokenator(Rule):
    """`iwp_core.methods.trimtokenator` on what enters the layer; as published, on the embeddings."""

    name: ClassVar[str] = "trimtokenator"

    @property
    def reads_text(self) -> bool:
        """Always."""
        return True

    def __call__(self, seen: Seen, count: int) -> Tensor:
        """Return the indices to keep, shape (M,), ascending."""
        kept: Tensor = trimtokenator(seen.hidden[seen.visual], seen.hidden[seen.question], count)
        return kept


@dataclass(frozen=True, kw_only=True)
class Random(Rule):
    """`iwp_core.methods.random_tokens`, drawn anew for every image.

    The same image has the same draw in every engine of a model folder: vLLM's digest of an image holds the folder.

    Attributes
    ----------
    seed : int
        At least 0; compare at least three.
    """

    name: ClassVar[str] = "random"
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the options.

        Raises
        ------
        TypeError, ValueError
            If one is out of range.
        """
        super().__post_init__()
        random_tokens(torch.ones(1, 1), 1, seed=self.seed)

    def __call__(self, seen: Seen, count: int) -> Tensor:
        """Return the indices to keep, shape (M,), ascending."""
        drawn = int.from_bytes(sha256(repr((self.seed, seen.source)).encode()).digest()[:8])
        kept: Tensor = random_tokens(seen.hidden[seen.visual], count, seed=drawn)
        return kept


@dataclass(frozen=True, kw_only=True)
class Uniform(Rule):
    """`iwp_core.methods.uniform`: evenly spaced tokens."""

    name: ClassVar[str] = "uniform"

    def __call__(self, seen: Seen, count: int) -> Tensor:
        """Return the indices to keep, shape (M,), ascending."""
        kept: Tensor = uniform(seen.hidden[seen.visual], count)
        return kept


RULES: Mapping[str, type[Rule]] = {rule.name: rule for rule in (IWP, DivPrune, FastV, TrimTokenator, Random, Uniform)}
"""By name, as in `hf_overrides`."""


def rule_named(method: object, options: Mapping[str, Any]) -> Rule:
    """Return a rule with its options.

    Parameters
    ----------
    method : str
        One of `RULES`.
    options : mapping
        Its fields by name; those that are missing have their defaults.

    Raises
    ------
    TypeError
        If a value is of the wrong kind.
    ValueError
        If the rule or an option is unknown, or a value out of range.

    Examples
    --------
    >>> rule_named("fastv", {"layer": 3})
    FastV(layer=3)
    """
    if not isinstance(method, str) or method not in RULES:
        msg = (
            f"`method` is {method!r}, expected one of {', '.join(map(repr, RULES))}: the other methods read the vision"
            " tower, change states, or act at several layers, which vLLM does not offer"
        )
        raise ValueError(msg)
    rule = RULES[method]
    known = [each.name for each in fields(rule)]
    unknown = [name for name in options if name not in known]
    if unknown:
        allowed = ", ".join(("budget", "method", "tower_cache_mib", *known))
        msg = f"`hf_overrides['iwp']` names {', '.join(map(str, unknown))}, expected of method {method!r}: {allowed}"
        raise ValueError(msg)
    if options.get("query") == "image" and "layer" not in options:
        return rule(**{**options, "layer": 0})
    return rule(**options)
