"""Calls that meet share a round; nobody waits for more than that, nobody is forgotten."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from app.jobs.grouped_calls import GroupedCall


class Runner:
    """Doubles numbers, one gate-guarded round at a time, and remembers the groups."""

    def __init__(self) -> None:
        self.groups: list[list[int]] = []
        self.gate = asyncio.Event()

    async def __call__(self, items: list[int]) -> list[int]:
        self.groups.append(items)
        await self.gate.wait()
        if 13 in items:
            raise ValueError("unlucky")
        return [item * 2 for item in items]


async def settle() -> None:
    """Let every task run as far as it can."""
    for _ in range(20):
        await asyncio.sleep(0)


def run(scenario: Callable[[Runner], Awaitable[None]]) -> Runner:
    async def main() -> Runner:
        runner = Runner()
        async with asyncio.timeout(5):
            await scenario(runner)
        return runner

    return asyncio.run(main())


def test_a_lone_call_goes_at_once() -> None:
    async def scenario(runner: Runner) -> None:
        runner.gate.set()
        assert await GroupedCall(runner, 10)(4) == 8

    assert run(scenario).groups == [[4]]


def test_calls_that_arrive_during_a_round_share_the_next() -> None:
    async def scenario(runner: Runner) -> None:
        call = GroupedCall(runner, 10)
        first = asyncio.ensure_future(call(1))
        await settle()
        rest = [asyncio.ensure_future(call(number)) for number in (2, 3, 4)]
        await settle()
        runner.gate.set()
        assert await asyncio.gather(first, *rest) == [2, 4, 6, 8]

    assert run(scenario).groups == [[1], [2, 3, 4]]


def test_no_group_is_larger_than_allowed() -> None:
    async def scenario(runner: Runner) -> None:
        runner.gate.set()
        call = GroupedCall(runner, 2)
        assert await asyncio.gather(*(call(n) for n in range(5))) == [0, 2, 4, 6, 8]

    assert run(scenario).groups == [[0, 1], [2, 3], [4]]


def test_a_failure_reaches_its_group_and_no_other() -> None:
    async def scenario(runner: Runner) -> None:
        runner.gate.set()
        call = GroupedCall(runner, 2)
        answers = await asyncio.gather(*(call(n) for n in (12, 13, 14)), return_exceptions=True)
        assert [type(answer) for answer in answers] == [ValueError, ValueError, int]
        with pytest.raises(ValueError, match="unlucky"):
            await call(13)
        assert await call(1) == 2

    run(scenario)


def test_a_caller_that_gives_up_takes_nobody_with_it() -> None:
    async def scenario(runner: Runner) -> None:
        call = GroupedCall(runner, 10)
        impatient, patient = (asyncio.ensure_future(call(n)) for n in (1, 2))
        await settle()
        impatient.cancel()
        runner.gate.set()
        assert await patient == 4

    run(scenario)


def test_a_caller_that_has_waited_long_enough_gives_up_alone() -> None:
    async def scenario(runner: Runner) -> None:
        hasty, patient = GroupedCall(runner, 1, 0.001), GroupedCall(runner, 1, 60)
        waiting = asyncio.ensure_future(patient(1))
        with pytest.raises(TimeoutError):
            await hasty(2)
        runner.gate.set()
        assert await waiting == 2

    run(scenario)
