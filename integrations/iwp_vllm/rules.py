"""The rules that choose among the tokens of one image or video, and what of the prompt each of them reads."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from hashlib import sha256
from numbers import Integral
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor

from iwp_core import select_tokens
from iwp_core.methods import divprune, fastv, random_tokens, trimtokenator, uniform
from iwp_core.presets import PER_QUERY
from iwp_vllm.seen import Seen

__all__ = ["IWP", "RULES", "DivPrune", "FastV", "Random", "Rule", "TrimTokenator", "Uniform", "rule_named"]

Query = Literal["text", "image", "last_text"]


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A rule that chooses, with its options as fields.

    Attributes
    ----------
    layer : int
        Decoder layer at whose entrance it chooses; those before it run in full.
    """

    name: ClassVar[str]
    least_layer: ClassVar[int] = 0
    layer: int = 0

    def __post_init__(self) -> None:
        """Check the layer.

        Raises
        ------
        TypeError
            If it is no int.
        ValueError
            If it is less than the rule needs.
        """
        if isinstance(self.layer, bool) or not isinstance(self.layer, Integral):
            msg = f"`layer` is {self.layer!r}, expected an int"
            raise TypeError(msg)
        if self.layer < self.least_layer:
            msg = f"`layer` is {self.layer}, expected at least {self.least_layer} with method {self.name!r}"
            raise ValueError(msg)

    @property
    def reads_text(self) -> bool:
        """Whether the choice depends on the text of the prompt."""
        return False

    def __call__(self, seen: Seen, count: int) -> Tensor:
        """Return which tokens stay.

        Parameters
        ----------
        seen : Seen
            What enters layer `layer`.
        count : int
            M.

        Returns
        -------
        torch.Tensor
            Shape (M,), int64, ascending: indices among the N tokens of the image.

        Raises
        ------
        NotImplementedError
            Always: each rule has its own.
        """
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class IWP(Rule):
    """`iwp_core.select_tokens`: the options are those of `prune_visual_tokens` in Transformers, with its defaults.

    Attributes
    ----------
    query : {"text", "image", "last_text"}
        Whose queries weigh the tokens: those of the text after the image, those of the image's own tokens, or that of
        the last token. "image" reads no text: the layers before `layer` run over the image alone.
    magnitude, similarity, heads : str, str, str or float
        As in `select_tokens`.
    preset : {None, "per_query"}
        "per_query" is `iwp_core.presets.PER_QUERY` with rotary embedding in the magnitude.
    rope_in_magnitude, rope_in_duplication : bool
        Which keys and queries carry the rotary embedding.
    """

    name: ClassVar[str] = "iwp"
    layer: int = 4
    query: Query = "text"
    magnitude: str = "dual"
    similarity: str = "dual"
    heads: str | float = "mean"
    preset: str | None = None
    rope_in_magnitude: bool = False
    rope_in_duplication: bool = True

    def __post_init__(self) -> None:
        """Check all options now, and not in the first request.

        Raises
        ------
        TypeError
            If `layer` is no int.
        ValueError
            If a name is unknown, or `heads` needs what text and image together are not asked for.
        """
        super().__post_init__()
        for name, allowed in (("query", get_args(Query)), ("preset", (None, "per_query"))):
            if getattr(self, name) not in allowed:
                msg = f"`{name}` is {getattr(self, name)!r}, expected one of {', '.join(map(repr, allowed))}"
                raise ValueError(msg)
        if self.heads == "max" or not isinstance(self.heads, str):
            msg = f"`heads` is {self.heads!r}, which needs a query's share of all that it sees; expected a mean"
            raise ValueError(msg)
        if self.preset is not None and self.heads != "mean":
            msg = f"`heads` is {self.heads!r} beside `preset`, which sets it: expected one of the two"
            raise ValueError(msg)
        # A budget that keeps both of two tokens is answered after the checks of all names.
        token = torch.ones(1, 2, 1)
        select_tokens(token, token, token[:, :1], 2, hidden=token[0], **self._metrics())

    @property
    def reads_text(self) -> bool:
        """Whether text asks."""
        return self.query != "image"

    def __call__(self, seen: Seen, count: int) -> Tensor:
        """Return the indices to keep, shape (M,), ascending."""
        visual, asked = seen.visual, self._asked(seen)
        rotated = self.rope_in_magnitude or self.preset is not None
        kept: Tensor = select_tokens(
            (seen.rotated_keys if self.rope_in_duplication else seen.keys)[:, visual],
            seen.values[:, visual],
            (seen.rotated_queries if rotated else seen.queries)[:, asked],
            count,
            magnitude_keys=(seen.rotated_keys if rotated else seen.keys)[:, visual],
            hidden=seen.hidden[visual] if self.similarity == "hidden" else None,
            validate=False,
            **self._metrics(),
        )
        return kept

    def _asked(self, seen: Seen) -> slice:
        if self.query == "image":
            return seen.visual
        return seen.question if self.query == "text" else slice(seen.question.stop - 1, seen.question.stop)

    def _metrics(self) -> dict[str, Any]:
        names = {"magnitude": self.magnitude, "similarity": self.similarity}
        return names | (dict(PER_QUERY) if self.preset else {"heads": self.heads})


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
    """`iwp_core.methods.random_tokens`, drawn anew for every image and the same for the same one.

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
