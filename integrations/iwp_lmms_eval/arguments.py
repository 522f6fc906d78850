"""From ``--model_args`` to the arguments of `prune_visual_tokens`: what commas separate there, colons separate here."""

import ast
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, fields
from importlib import import_module
from inspect import signature
from pathlib import Path
from types import MappingProxyType
from typing import Any

import iwp_transformers
from iwp_core import MMR, PCMMR, Strategy, Tolerance, TopK
from iwp_core.budget import check_budget
from iwp_transformers import presets, prune_visual_tokens
from iwp_transformers.methods import Method, method_class

__all__ = ["PRESETS", "PRUNING", "pruning_arguments", "written"]

PRESETS: Mapping[str, Mapping[str, Any]] = MappingProxyType({"paper": {}, **presets.PRESETS})
"""Settings by the names that `preset` has for them."""

STRATEGIES: Mapping[str, Callable[..., Strategy]] = {kind.__name__: kind for kind in (PCMMR, MMR, TopK)}
TOLERANCE = "tolerance"


def pruning_arguments(given: Mapping[str, object]) -> dict[str, Any] | None:
    """Return the keyword arguments of `prune_visual_tokens`, or None if nothing is to be pruned.

    Parameters
    ----------
    given : mapping of str to object
        What was asked for, as lmms-eval hands it over (numbers, booleans, strings) or as Python values; one that is
        None was not given. Names are those of `PRUNING`. Several layers or budgets are separated by colons:
        ``layer=4:12:20``, ``budget=0.5:0.25:0.1``; so are the options of a method and of a strategy:
        ``method=vispruner:important=0.3``, ``strategy=PCMMR:penalty=8:growth=4``. A budget can be
        ``tolerance:share=0.05``, or an object of JSON that has one for each modality.

    Raises
    ------
    TypeError
        If a name is none of `PRUNING`, or an option none of its method.
    ValueError
        If a value is none that its name can have, `budget` is missing, or `settings` comes with anything else.

    Examples
    --------
    >>> pruning_arguments({"method": "divprune", "budget": "0.5:0.25:0.1", "layer": "4:12:20"})["layer"]
    (4, 12, 20)
    >>> pruning_arguments({"budget": 0.222, "preset": "per-query"})["heads"]
    'softmax_mean_per_query'
    >>> pruning_arguments({}) is None
    True
    """
    asked = {name: value for name, value in given.items() if value is not None}
    for name in asked:
        if name not in PRUNING:
            msg = f"`{name}` is no argument of the model `iwp`, expected one of {', '.join(PRUNING)}"
            raise TypeError(msg)
    if "settings" in asked:
        return _from_file(asked)
    if not asked:
        return None
    if "budget" not in asked and "method" not in asked:
        msg = f"`budget` is missing: {', '.join(asked)} need the number of visual tokens to keep, or their share"
        raise ValueError(msg)
    preset = _preset(asked.pop("preset", "paper"))
    return {**preset, **{name: PRUNING[name](value) for name, value in asked.items()}}


def written(rule: Mapping[str, Any] | None, given: Mapping[str, object]) -> dict[str, str] | None:
    """Return a rule in words that are the same in every run, and for all ways to write the same rule.

    Parameters
    ----------
    rule : mapping or None
        What `pruning_arguments` returned.
    given : mapping
        What it was made from: a function does not say the same of itself in every run.

    Examples
    --------
    >>> written(pruning_arguments({"budget": 0.5, "strategy": "PCMMR:penalty=5"}), {})
    {'budget': '0.5'}
    """
    if rule is None:
        return None
    usual = {name: each.default for name, each in signature(prune_visual_tokens).parameters.items()}
    if "method" in rule or "selector" in rule:
        # Each has a layer of its own, for which the usual one stands.
        del usual["layer"]
    told = {name: repr(value) for name, value in rule.items() if name not in usual or value != usual[name]}
    return {name: str(given[name]) if name == "selector" else text for name, text in sorted(told.items())}


def _from_file(asked: Mapping[str, object]) -> dict[str, Any]:
    others = [f"`{name}`" for name in asked if name != "settings"]
    if others:
        msg = f"`settings` and {', '.join(others)} are given: a file of settings holds all of them; drop one"
        raise ValueError(msg)
    load = getattr(iwp_transformers, "load_settings", None)
    if load is None:
        msg = "`settings` is given, and this version of iwp writes no file of settings: expected the other arguments"
        raise ValueError(msg)
    path = Path(str(asked["settings"]))
    if not path.is_file():
        msg = f"`settings` is {str(path)!r}, which is no file: expected what `iwp tune` wrote"
        raise ValueError(msg)
    loaded: dict[str, Any] = load(path)
    return loaded


def _preset(name: object) -> Mapping[str, Any]:
    if name not in PRESETS:
        msg = f"`preset` is {name!r}, expected one of {', '.join(PRESETS)}"
        raise ValueError(msg)
    return PRESETS[str(name)]


def _budget(value: object) -> Any:
    if isinstance(value, str) and value.startswith("{"):
        return {name: _one_budget(part) for name, part in _json("budget", value).items()}
    if isinstance(value, str) and ":" in value and not value.startswith(TOLERANCE):
        return tuple(_one_budget(part, least=0) for part in value.split(":"))
    if isinstance(value, Mapping):
        return {name: _one_budget(part) for name, part in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return tuple(_one_budget(part, least=0) for part in value)
    return _one_budget(value)


def _one_budget(value: object, *, least: int = 1) -> Any:
    if isinstance(value, str) and value.split(":")[0] == TOLERANCE:
        return _called("budget", value, {TOLERANCE: Tolerance})
    if isinstance(value, Tolerance):
        return value
    number = _number("budget", value)
    if number or least:
        check_budget(number)
    return number


def _layers(name: str) -> Callable[[object], Any]:
    def read(value: object) -> Any:
        if isinstance(value, str) and ":" not in value:
            return _integer(name, value)
        parts = value.split(":") if isinstance(value, str) else value
        return tuple(_integer(name, part) for part in parts) if isinstance(parts, Sequence) else _integer(name, parts)

    return read


def _method(value: object) -> object:
    if isinstance(value, Method):
        return value
    name = str(value).split(":", maxsplit=1)[0]
    return _called("method", str(value), {name: method_class(name)})


def _strategy(value: object) -> object:
    return _called("strategy", value, STRATEGIES) if isinstance(value, str) else value


def _called(argument: str, value: str, kinds: Mapping[str, Callable[..., Any]]) -> Any:
    """Return an object that is written as its name and its options: ``name:option=value:option=value``.

    Raises
    ------
    TypeError
        If it has no such option, or needs one that is not there.
    ValueError
        If the name is unknown, or an option is there twice.
    """
    name, *written = value.split(":")
    if name not in kinds:
        msg = f"`{argument}` is {value!r}, expected one of {', '.join(kinds)}"
        raise ValueError(msg)
    known: Any = kinds[name]
    allowed = [field.name for field in fields(known)]
    options = {}
    for part in written:
        option, _, text = part.partition("=")
        if option not in allowed or not text:
            expected = f"one of {', '.join(allowed)}" if allowed else "no options"
            msg = f"`{argument}` is {value!r}, and {name} has no option {part!r}: expected {expected}, as option=value"
            raise TypeError(msg)
        if option in options:
            msg = f"`{argument}` is {value!r}, with {option} twice: expected it once"
            raise ValueError(msg)
        options[option] = _value(text)
    needed = [field.name for field in fields(known) if field.default is MISSING and field.default_factory is MISSING]
    for option in needed:
        if option not in options:
            msg = f"`{argument}` is {value!r}, and {name} needs {option}: expected {name}:{option}=value"
            raise TypeError(msg)
    return known(**options)


def _selector(value: object) -> object:
    """Return a callable that is written as ``package.module.function``.

    Raises
    ------
    ValueError
        If it cannot be imported.
    """
    if not isinstance(value, str):
        return value
    module, _, name = value.rpartition(".")
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        msg = f"`selector` is {value!r}, which cannot be imported ({error}): expected package.module.function"
        raise ValueError(msg) from error


def _heads(value: object) -> object:
    return _value(value) if isinstance(value, str) else value


def _switch(name: str) -> Callable[[object], bool]:
    def read(value: object) -> bool:
        if not isinstance(value, bool):
            msg = f"`{name}` is {value!r}, expected True or False"
            raise ValueError(msg)
        return value

    return read


def _json(name: str, text: str) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(text)
    except (ValueError, RecursionError) as error:
        msg = f'`{name}` is {text!r}, which is no JSON ({error}): expected such as {{"image": 0.2, "video": 64}}'
        raise ValueError(msg) from error
    return content


def _number(name: str, value: object) -> float:
    number = _value(value) if isinstance(value, str) else value
    if isinstance(number, bool) or not isinstance(number, int | float):
        msg = f"`{name}` is {value!r}, expected numbers such as 0.222 or 64, several as 0.5:0.25:0.1"
        raise ValueError(msg)
    return number


def _integer(name: str, value: object) -> int:
    number = _value(value) if isinstance(value, str) else value
    if isinstance(number, bool) or not isinstance(number, int):
        msg = f"`{name}` is {value!r}, expected integers from 0 on, several as 4:12:20"
        raise ValueError(msg)
    return number


def _value(text: object) -> object:
    """Return what a literal of Python says, the text itself where it is none."""
    try:
        return ast.literal_eval(str(text))
    except (ValueError, SyntaxError):
        return text


PRUNING: Mapping[str, Callable[[Any], Any]] = MappingProxyType({
    "settings": str,
    "preset": str,
    "method": _method,
    "budget": _budget,
    "layer": _layers("layer"),
    "layers": _layers("layers"),
    "strategy": _strategy,
    "magnitude": str,
    "similarity": str,
    "heads": _heads,
    "query": str,
    "rope_in_magnitude": _switch("rope_in_magnitude"),
    "rope_in_duplication": _switch("rope_in_duplication"),
    "selector": _selector,
})
"""The arguments that say how to prune, each with what reads it."""
