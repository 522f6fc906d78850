"""Published methods by name. Each is in a file of its own, which is imported when the method is first asked for."""

from collections.abc import Mapping
from importlib import import_module
from types import MappingProxyType

from iwp_transformers.methods._method import Budget, Layers, Merged, Method, Paper

__all__ = ["METHODS", "Budget", "Layers", "Merged", "Method", "Paper", "method_class", "method_named"]

METHODS: Mapping[str, str] = MappingProxyType({
    "iwp": "iwp.IWP",
    "random": "random_tokens.Random",
    "uniform": "uniform.Uniform",
    "pooling": "pooling.Pooling",
    "fastv": "fastv.FastV",
    "fastv-reverse": "fastv_reverse.FastVReverse",
    "fastv-window": "fastv_window.FastVWindow",
    "fastv-visual": "fastv_visual.FastVVisual",
    "fastv-balanced": "fastv_balanced.FastVBalanced",
    "divprune": "divprune.DivPrune",
    "cdpruner": "cdpruner.CDPruner",
    "scope": "scope.SCOPE",
    "visionzip": "visionzip.VisionZip",
    "vispruner": "vispruner.VisPruner",
    "fastervlm": "fastervlm.FasterVLM",
    "tome": "tome.ToMe",
    "pact": "pact.PACT",
    "prumerge": "prumerge.PruMerge",
    "holov": "holov.HoloV",
    "divprune-star": "divprune_star.DivPruneStar",
    "trimtokenator": "trimtokenator.TrimTokenator",
    "sparsevlm": "sparsevlm.SparseVLM",
    "pyramiddrop": "pyramiddrop.PyramidDrop",
    "mustdrop": "mustdrop.MustDrop",
    "v2drop": "v2drop.V2Drop",
    "vtw": "vtw.VTW",
    "dart": "dart.DART",
})
"""Where the class of each method stands, by the name of the method."""


def method_class(name: str) -> type[Method]:
    """Return the class of a method.

    Parameters
    ----------
    name : str
        One of `METHODS`.

    Returns
    -------
    type
        The subclass of `Method`.

    Raises
    ------
    ValueError
        If there is no such method. The message lists all names.

    Examples
    --------
    >>> method_class("divprune").paper.arxiv
    '2503.02175'
    """
    if name not in METHODS:
        msg = f"`method` is {name!r}, expected one of {', '.join(METHODS)}"
        raise ValueError(msg)
    module, attribute = METHODS[name].split(".")
    found: type[Method] = getattr(import_module(f"{__name__}.{module}"), attribute)
    return found


def method_named(method: str | Method) -> Method:
    """Return the method of a name, with default options. A `Method` object is returned unchanged.

    Parameters
    ----------
    method : str or Method
        As given to `prune_visual_tokens`.

    Returns
    -------
    Method
        The method.

    Raises
    ------
    TypeError
        If `method` is neither a string nor a `Method`.
    ValueError
        If there is no method of that name.

    Examples
    --------
    >>> method_named("fastv-window")
    FastVWindow(window=4)
    """
    if isinstance(method, Method):
        return method
    if isinstance(method, str):
        return method_class(method)()
    hint = "; a class is called first, with its options" if isinstance(method, type) else ""
    msg = f"`method` is {method!r}, expected a name or a `Method`; any other rule is a `selector`{hint}"
    raise TypeError(msg)
