"""How many processes a cluster can hold, and what each of them gets. One processor is always left for reading."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real

__all__ = ["Placement", "fitted", "lacking"]

READING = 1.0
"""Processors that have to stay free: Ray Data reads and splits rows in tasks of one processor each."""

EPSILON = 1e-6
Resources = Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Processes, and what each of them holds.

    Attributes
    ----------
    actors : int
    cpus, gpus : float
        Of each actor.
    """

    actors: int
    cpus: float
    gpus: float


def fitted(nodes: Sequence[Resources], *, actors: int | None, cpus: float | None, gpus: float | None) -> Placement:
    """Choose what nodes can hold, if nobody else holds any of it.

    Parameters
    ----------
    nodes : sequence of mapping
        For each node, its `CPU` and `GPU`.
    actors : int or None
        Processes; by default one for each GPU, one where there is none.
    cpus, gpus : float or None
        Of each; by default one GPU where there are any, and an even share of the processors but for one.

    Returns
    -------
    Placement

    Raises
    ------
    ValueError
        If the nodes cannot hold that many, with a processor left for reading.

    Examples
    --------
    >>> fitted([{"CPU": 2.0}], actors=2, cpus=None, gpus=None)
    Placement(actors=2, cpus=0.5, gpus=0.0)
    >>> fitted([{"CPU": 16.0, "GPU": 4.0}], actors=None, cpus=None, gpus=None)
    Placement(actors=4, cpus=3.75, gpus=1.0)
    """
    _check(actors=actors, cpus=cpus, gpus=gpus)
    all_cpus, all_gpus = (sum(node.get(kind, 0.0) for node in nodes) for kind in ("CPU", "GPU"))
    each_gpus = (1.0 if all_gpus >= 1 else 0.0) if gpus is None else float(gpus)
    count = (max(1, int(all_gpus / each_gpus)) if each_gpus else 1) if actors is None else int(actors)
    each_cpus = _share(nodes, count, each_gpus, all_cpus) if cpus is None else float(cpus)
    chosen = Placement(actors=count, cpus=each_cpus, gpus=each_gpus)
    if not _fits(nodes, chosen):
        msg = (
            f"`actors` is {count} of {each_cpus:g} CPUs and {each_gpus:g} GPUs each, beside {READING:g} CPU for "
            f"reading, which {len(nodes)} nodes with {all_cpus:g} CPUs and {all_gpus:g} GPUs in all cannot hold: "
            "expected fewer `actors`, or less of `cpus_per_actor` or `gpus_per_actor`"
        )
        raise ValueError(msg)
    return chosen


def _check(**given: float | None) -> None:
    for name, value in given.items():
        least = 1 if name == "actors" else 0
        if value is None:
            continue
        number = isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
        if not number or value < least or (name == "actors" and value != int(value)):
            label = name if name == "actors" else f"{name}_per_actor"
            expected = "a whole number of at least 1" if name == "actors" else "a number of at least 0"
            msg = f"`{label}` is {value!r}, expected {expected}"
            raise ValueError(msg)


def _share(nodes: Sequence[Resources], actors: int, gpus: float, all_cpus: float) -> float:
    """Return the largest even share of processors that fits, in hundredths, since nodes are not of one size."""
    most = max(0, math.floor(100 * (all_cpus - READING) / actors))
    for hundredths in range(most, -1, -1):
        if _fits(nodes, Placement(actors=actors, cpus=hundredths / 100, gpus=gpus)):
            return hundredths / 100
    return 0.0


def _fits(nodes: Sequence[Resources], chosen: Placement) -> bool:
    """Whether nodes can hold all actors in whatever order they come, and reading beside them."""
    # Of each node, what is left once it holds as many actors as it can, and one node keeps a processor.
    rooms = [_room(node, chosen, 0.0) for node in nodes]
    return any(
        sum(rooms) - rooms[place] + _room(node, chosen, READING) >= chosen.actors
        for place, node in enumerate(nodes)
        if node.get("CPU", 0.0) >= READING - EPSILON
    )


def _room(node: Resources, chosen: Placement, kept: float) -> int:
    room = chosen.actors
    for needed, there in ((chosen.cpus, node.get("CPU", 0.0) - kept), (chosen.gpus, node.get("GPU", 0.0))):
        if needed:
            room = min(room, math.floor(there / needed + EPSILON))
    return max(room, 0)


def lacking(chosen: Placement, free: Resources) -> str | None:
    """Say what is not free at the moment.

    Parameters
    ----------
    chosen : Placement
    free : mapping
        What nobody holds: `CPU` and `GPU`, of all nodes together.

    Returns
    -------
    str or None
        None if everything is free.

    Examples
    --------
    >>> lacking(Placement(actors=2, cpus=0.5, gpus=0.0), {"CPU": 2.0})
    """
    wanted = {"CPU": chosen.actors * chosen.cpus + READING, "GPU": chosen.actors * chosen.gpus}
    for kind, amount in wanted.items():
        if free.get(kind, 0.0) < amount - EPSILON:
            return (
                f"`actors` is {chosen.actors}, which with reading need {amount:g} {kind}, of which others in the "
                f"cluster leave {free.get(kind, 0.0):g} free: expected fewer `actors`, or that they end first"
            )
    return None
