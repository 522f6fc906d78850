"""Backend plugins: found by the type of an array, loaded on first use, never changing an answer.

A distribution registers a backend under the entry-point group ``iwp.backends``. The entry's name is the root
module of the array library (``torch``), its object a module with a ``name`` and a table of ``kernels``.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache, wraps
from importlib.metadata import EntryPoint, entry_points
from types import MappingProxyType
from typing import Any, ParamSpec, Protocol, TypeVar

__all__ = [
    "Backend",
    "Kernel",
    "backend_context",
    "forget",
    "is_traced",
    "overridable",
    "overridable_functions",
    "use_backend",
]

GROUP = "iwp.backends"
OFF_SWITCH = "IWP_NO_PLUGINS"
CHOICES = ("auto", "reference")

P = ParamSpec("P")
R = TypeVar("R")


def _always(*_args: Any, **_kwargs: Any) -> bool:
    return True


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """A faster way to run one reference function of the core.

    Parameters
    ----------
    run : callable
        Takes the arguments of the reference function and returns what it returns.
    supports : callable, optional
        Takes the same arguments, and returns whether `run` can handle them. If not, the reference runs. It returns
        False where it would otherwise raise. Default: always True.

    Examples
    --------
    >>> Kernel(run=max).supports(1, 2)
    True
    """

    run: Callable[..., Any]
    supports: Callable[..., bool] = _always


class Backend(Protocol):
    """What an entry point of the group ``iwp.backends`` must load: an object, usually a module, with these attributes.

    Attributes
    ----------
    name : str
        Name of the backend in messages.
    kernels : mapping of str to Kernel
        From the name of an overridable function to its kernel. `iwp_core.kernels` lists the core's; any other name is
        an error when the backend is loaded.

    Notes
    -----
    A backend may also have ``context``, a callable without arguments that returns a context manager. Every public
    function enters it once around its work. It is the place to switch off whatever makes the library compute less
    precisely than its dtypes promise, such as autocast or reduced-precision products.

    It may also have ``is_traced``, a callable that returns whether the values of an array are not known yet, because a
    program is being traced. It then needs a kernel for `select_batch` that handles such arrays.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> backend: Backend = SimpleNamespace(name="loopback", kernels={})
    """

    @property
    def name(self) -> str: ...

    @property
    def kernels(self) -> Mapping[str, Kernel]: ...


_functions: dict[str, Callable[..., Any]] = {}


def overridable_functions() -> Mapping[str, Callable[..., Any]]:
    """Return the reference functions that a backend may replace, by name."""
    return MappingProxyType(_functions)


_choice: ContextVar[str] = ContextVar("iwp_backend", default="auto")


@contextmanager
def use_backend(choice: str) -> Iterator[None]:
    """Choose, within a ``with`` block, whether plugins run.

    Parameters
    ----------
    choice : {"auto", "reference"}
        "auto" (the state without this function) uses the plugin of an array's library where there is one;
        "reference" uses the core's own code only. The environment variable ``IWP_NO_PLUGINS=1`` does the same
        for a whole process.

    Raises
    ------
    ValueError
        If `choice` is neither.

    Examples
    --------
    >>> with use_backend("reference"):
    ...     pass
    """
    if choice not in CHOICES:
        msg = f"`choice` is {choice!r}, expected one of {', '.join(map(repr, CHOICES))}"
        raise ValueError(msg)
    token = _choice.set(choice)
    try:
        yield
    finally:
        _choice.reset(token)


def overridable(function: Callable[P, R]) -> Callable[P, R]:
    """Let the backend of the first argument's library run `function` instead of its body.

    Parameters
    ----------
    function : callable
        A reference function; its ``__name__`` is the key that backends list in their ``kernels``, and its first
        positional argument is the array whose type finds the backend.

    Returns
    -------
    callable
        A function of the same signature.

    Raises
    ------
    RuntimeError
        When called: if the backend of the array's library cannot be loaded or has a kernel for no overridable function,
        or if two are registered.

    Examples
    --------
    >>> @overridable
    ... def total(x):
    ...     return sum(x)
    >>> total([1, 2])
    3
    """
    key = function.__name__
    _functions[key] = function

    @wraps(function)
    def dispatch(*args: P.args, **kwargs: P.kwargs) -> R:
        backend = _backend_of(args[0])
        kernel = backend.kernels.get(key) if backend is not None else None
        if kernel is not None and kernel.supports(*args, **kwargs):
            result: R = kernel.run(*args, **kwargs)
            return result
        return function(*args, **kwargs)

    return dispatch


def backend_context(array: object) -> AbstractContextManager[Any]:
    """Return the context that the array's backend wants around a computation, or an empty one."""
    context = getattr(_backend_of(array), "context", None)
    return nullcontext() if context is None else context()


def is_traced(array: object) -> bool:
    """Return whether the array's backend says that its numbers are not known, since a program is being traced."""
    asked: Callable[[object], bool] | None = getattr(_backend_of(array), "is_traced", None)
    return asked is not None and asked(array)


def forget() -> None:
    """Drop what discovery has cached, so that newly registered entry points are seen."""
    _entries.cache_clear()
    _load.cache_clear()
    _backend_for_type.cache_clear()


def _backend_of(array: object) -> Backend | None:
    if _choice.get() == "reference":
        return None
    kind: Any = type(array)
    return _backend_for_type(kind)


@cache
def _backend_for_type(kind: Any) -> Backend | None:
    """Find a backend whose name is the root module of the type or of one of its bases."""
    if os.environ.get(OFF_SWITCH, "") not in ("", "0"):
        return None
    for base in kind.__mro__:
        root = base.__module__.partition(".")[0]
        if root in _entries():
            return _load(root)
    return None


@cache
def _entries() -> dict[str, list[EntryPoint]]:
    found: dict[str, list[EntryPoint]] = {}
    for entry in entry_points(group=GROUP):
        found.setdefault(entry.name, []).append(entry)
    return found


@cache
def _load(name: str) -> Backend:
    entries = _entries()[name]
    plugin = f"the plugin {name!r} of the group {GROUP!r} ({', '.join(sorted(entry.value for entry in entries))})"
    if len(entries) > 1:
        msg = f"{plugin} is registered {len(entries)} times, expected once: uninstall the others"
        raise RuntimeError(msg)
    try:
        backend: Backend = entries[0].load()
        usable = isinstance(backend.name, str) and isinstance(backend.kernels, Mapping)
    except Exception as error:  # whatever a plugin's import raises is reported as one kind of failure, naming it
        msg = f"{plugin} failed to load: {error!r}; {OFF_SWITCH}=1 runs without plugins"
        raise RuntimeError(msg) from error
    if not usable:
        msg = f"{plugin} has no `name: str` and `kernels: Mapping`"
        raise RuntimeError(msg)
    unknown = sorted(set(backend.kernels) - set(_functions))
    if unknown:
        found, known = (", ".join(map(repr, names)) for names in (unknown, sorted(_functions)))
        msg = f"{plugin} has kernels for {found}, expected names of overridable functions: {known}"
        raise RuntimeError(msg)
    return backend
