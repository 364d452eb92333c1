"""A few candidates of the search for the most that an upload can cost, and recipes that had it."""

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import pytest

from tests.attacks.decoding_costs import measure, search
from tests.costly_recipes import Recipe, bake

_JPEG = {"format": "JPEG", "between": "", "data_bytes": 0, "restarts": 0, "storm_bytes": 10_000_000}

RECIPES: dict[str, Recipe] = {
    "refined scans of 50 MP": {
        **_JPEG,
        "coding": 0xC2,
        "shape": (10_000, 5_000),
        "sampling": (0x11,) * 4,
        "scans": 20,
        "pattern": "DC",
        "data": b"",
        "storm": "",
    },
    "quantisation tables": {
        **_JPEG,
        "coding": 0xC0,
        "shape": (8, 8),
        "sampling": (0x11,) * 3,
        "scans": 1,
        "pattern": "one",
        "data": b"",
        "storm": "DQT",
    },
    "colour profiles": {
        "format": "PNG",
        "kind": (6, 16),
        "shape": (4_000, 3_000),
        "interlaced": True,
        "filter": 4,
        "pixels": "stripes",
        "piece": 8_192,
        "transparency": False,
        "storm": "iCCP",
        "storm_bytes": 10_000_000,
    },
}


def run_apart(function: Callable[..., Any], *arguments: Any) -> Any:
    """The result of a function in a small process of its own.

    The system counts what a process took before it became another program, and this one has a
    model loaded.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def assert_within_budget(cpu_seconds: float, megabytes: float) -> None:
    assert cpu_seconds <= 3.5 and megabytes <= 700


@pytest.mark.parametrize("name", RECIPES)
def test_what_once_was_worst_stays_within_its_budget(name: str) -> None:
    cost = run_apart(measure, bake(RECIPES[name]))
    assert_within_budget(cost.cpu_seconds, cost.megabytes)


def test_whatever_is_tried_stays_within_its_budget() -> None:
    for found in run_apart(search, 12, 15, 12):
        assert_within_budget(found.cost.cpu_seconds, found.cost.megabytes)
