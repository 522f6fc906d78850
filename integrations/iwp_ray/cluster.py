"""What the connected cluster can hold now."""

import time

import ray

from iwp_ray.placement import Placement, fitted, lacking

__all__ = ["placement"]

# Seconds that a run before this one gets to give its processors back.
PATIENCE = 30.0


def placement(*, actors: int | None, cpus: float | None, gpus: float | None) -> Placement:
    """Choose processes that the connected cluster can hold, waiting a while for what others hold.

    Parameters
    ----------
    actors : int or None
    cpus, gpus : float or None
        As of `fitted`.

    Returns
    -------
    Placement

    Raises
    ------
    ValueError
        If it could not be scheduled, or not before others give back what they hold.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    chosen = fitted(nodes, actors=actors, cpus=cpus, gpus=gpus)
    deadline = time.monotonic() + PATIENCE
    while (reason := lacking(chosen, ray.available_resources())) and time.monotonic() < deadline:
        time.sleep(0.5)
    if reason:
        raise ValueError(reason)
    return chosen
