"""The options of an engine, from `hf_overrides`, and of a request, from `mm_processor_kwargs`."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from iwp_core.budget import check_budget
from iwp_vllm.rules import IWP, Rule, rule_named

__all__ = ["OF_REQUEST", "Options", "requested", "without_requested"]

OF_REQUEST = ("iwp_budget", "iwp_prompt")
"""Names in a request's `mm_processor_kwargs`."""

OF_ENGINE = ("budget", "tower_cache_mib")


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of all requests of an engine, or of one request.

    Attributes
    ----------
    budget : int or float
        Number of tokens to keep of each image or video, or their share; 1.0 keeps all.
    rule : Rule
        How they are chosen.
    prompt : str or None
        Prompt to choose by, in place of the request's own.
    tower_cache_mib : int
        Memory on the host for outputs of the vision tower, in MiB; 0 keeps none.
    """

    budget: float = 1.0
    rule: Rule = field(default_factory=IWP)
    prompt: str | None = None
    tower_cache_mib: int = 256

    @classmethod
    def of_engine(cls, given: object) -> "Options":
        """Read ``hf_overrides["iwp"]``.

        Parameters
        ----------
        given : mapping or None
            `budget` and `tower_cache_mib`, `method` (default "iwp"), and the options of the method, such as `layer`.

        Raises
        ------
        TypeError
            If it is no mapping, or a number or a text is none.
        ValueError
            If a name or a value is unknown, or a number out of range.

        Examples
        --------
        >>> Options.of_engine({"budget": 0.222, "method": "divprune"})
        Options(budget=0.222, rule=DivPrune(layer=0), prompt=None, tower_cache_mib=256)
        """
        if given is None:
            return cls()
        if not isinstance(given, Mapping):
            msg = f"`hf_overrides['iwp']` is {given!r}, expected a mapping such as {{'budget': 0.222}}"
            raise TypeError(msg)
        chosen = dict(given)
        engine = {name: chosen.pop(name) for name in OF_ENGINE if name in chosen}
        options = cls(rule=rule_named(chosen.pop("method", "iwp"), chosen), **engine)
        check_budget(options.budget)
        _check_size(options.tower_cache_mib)
        return options

    def of_request(self, given: Mapping[str, object]) -> "Options":
        """Return the options of one request.

        Parameters
        ----------
        given : mapping
            Its `mm_processor_kwargs`; names that do not begin with ``iwp`` are the processor's own.

        Raises
        ------
        TypeError
            If the budget is no real number, or the prompt no text.
        ValueError
            If a name is unknown or the budget out of range; if a prompt is given to a rule that reads none.
        """
        asked = requested(given)
        unknown = [name for name in asked if name not in OF_REQUEST]
        if unknown:
            msg = f"`mm_processor_kwargs` names {', '.join(unknown)}, expected {' or '.join(OF_REQUEST)}"
            raise ValueError(msg)
        budget, prompt = asked.get("iwp_budget", self.budget), asked.get("iwp_prompt")
        check_budget(budget)
        if prompt is not None and not isinstance(prompt, str):
            msg = f"`iwp_prompt` is {prompt!r}, expected a text"
            raise TypeError(msg)
        if prompt is not None and not self.rule.reads_text:
            msg = f"`iwp_prompt` is given, but {self.rule} chooses from the image alone"
            raise ValueError(msg)
        return replace(self, budget=budget, prompt=prompt)


def requested(given: Mapping[str, object]) -> dict[str, Any]:
    """Return those of a request's `mm_processor_kwargs` that are for this plugin."""
    return {name: value for name, value in given.items() if name.startswith("iwp")}


def without_requested(given: Mapping[str, object]) -> dict[str, object]:
    """Return those of a request's `mm_processor_kwargs` that are for the model's own processor."""
    return {name: value for name, value in given.items() if not name.startswith("iwp")}


def _check_size(mib: object) -> None:
    """Raise unless it is a size in MiB.

    Raises
    ------
    TypeError
        If it is no int.
    ValueError
        If it is negative.
    """
    msg = f"`tower_cache_mib` is {mib!r}, expected an int >= 0: memory in MiB"
    if isinstance(mib, bool) or not isinstance(mib, int):
        raise TypeError(msg)
    if mib < 0:
        raise ValueError(msg)
