"""Which processes a cluster can hold beside reading: judged by packing them, one by one, onto nodes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iwp_ray.placement import Placement, fitted, lacking

NODES = st.lists(
    st.builds(lambda cpus, gpus: {"CPU": float(cpus), "GPU": float(gpus)}, st.integers(0, 6), st.integers(0, 3)),
    min_size=1,
    max_size=4,
)


def packs(nodes: list[dict[str, float]], chosen: Placement) -> bool:
    """Whether the processes go onto the nodes, one after another, once reading has its processor on any of them."""
    for reader in range(len(nodes)):
        free = [dict(node) for node in nodes]
        free[reader]["CPU"] -= 1
        if free[reader]["CPU"] < 0:
            continue
        left = chosen.actors
        for node in free:
            while left and node["CPU"] > chosen.cpus - 1e-9 and node["GPU"] > chosen.gpus - 1e-9:
                node["CPU"] -= chosen.cpus
                node["GPU"] -= chosen.gpus
                left -= 1
        if not left:
            return True
    return False


@given(
    nodes=NODES,
    actors=st.none() | st.integers(1, 8),
    cpus=st.none() | st.sampled_from([0.0, 0.5, 1.0, 2.0]),
    gpus=st.none() | st.sampled_from([0.0, 0.5, 1.0]),
)
def test_what_is_chosen_can_be_scheduled_and_what_cannot_is_refused(
    nodes: list[dict[str, float]], actors: int | None, cpus: float | None, gpus: float | None
) -> None:
    """An answer packs; a refusal of something that was said in full does not."""
    try:
        chosen = fitted(nodes, actors=actors, cpus=cpus, gpus=gpus)
    except ValueError:
        if actors is not None and gpus is not None:
            assert not packs(nodes, Placement(actors=actors, cpus=cpus or 0.0, gpus=gpus))
        return

    assert packs(nodes, chosen)
    assert chosen.actors == (actors or chosen.actors)


def test_one_processor_is_enough() -> None:
    """The process takes none of it, so that reading has it."""
    assert fitted([{"CPU": 1.0}], actors=None, cpus=None, gpus=None) == Placement(actors=1, cpus=0.0, gpus=0.0)


@pytest.mark.parametrize(
    ("given_", "message"),
    [
        ({"actors": 0}, "`actors` is 0, expected a whole number of at least 1"),
        ({"actors": 1.5}, r"`actors` is 1\.5, expected a whole"),
        ({"actors": "2"}, "`actors` is '2', expected a whole"),
        ({"actors": float("nan")}, "`actors` is nan, expected a whole"),
        ({"cpus": -1.0}, r"`cpus_per_actor` is -1\.0, expected a number of at least 0"),
        ({"gpus": float("nan")}, "`gpus_per_actor` is nan, expected"),
        (
            {"actors": 3, "cpus": 1.0},
            r"`actors` is 3 of 1 CPUs and 0 GPUs each, beside 1 CPU for reading, which 1 nodes",
        ),
    ],
)
def test_what_is_out_of_range_is_named(given_: dict[str, Any], message: str) -> None:
    """Argument, what it was, and what is allowed."""
    with pytest.raises(ValueError, match=message):
        fitted([{"CPU": 3.0}], **{"actors": None, "cpus": None, "gpus": None, **given_})


def test_processors_that_others_hold_are_told() -> None:
    """Both numbers."""
    told = lacking(Placement(actors=2, cpus=1.5, gpus=0.0), {"CPU": 2.0})

    assert told == (
        "`actors` is 2, which with reading need 4 CPU, of which others in the cluster leave 2 free: "
        "expected fewer `actors`, or that they end first"
    )
