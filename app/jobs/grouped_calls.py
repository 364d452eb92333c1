"""Group commit: calls that arrive while one is under way share the next.

A round trip to Redis, or a hop to another thread, costs an event loop far more than the work it
carries. Under load most calls find one under way, wait for it, and then go together; a lone call
goes at once, but for a few rounds of the event loop: what is ready by then goes along.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Generic, TypeVar

# Rounds of the event loop before a group leaves. An upload under way needs about as many from its
# last bytes to its call; they take some 10 µs each while there is nothing else to do.
_ROUNDS = 5

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class GroupedCall(Generic[Item, Answer]):
    """Calls ``run`` with everything that waits, one group at a time.

    ``run`` gives an answer for each item, in order. What it raises, every caller of the group gets.
    A caller that has waited for ``patience_seconds``, for its group or another before it, gets
    :class:`TimeoutError`.
    """

    def __init__(
        self,
        run: Callable[[list[Item]], Awaitable[Sequence[Answer]]],
        largest_group: int,
        patience_seconds: float | None = None,
    ) -> None:
        self._run = run
        self._largest_group = largest_group
        self._patience_seconds = patience_seconds
        self._waiting: list[tuple[Item, asyncio.Future[Answer]]] = []
        self._runner: asyncio.Task[None] | None = None

    async def __call__(self, item: Item) -> Answer:
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        self._waiting.append((item, future))
        if self._runner is None:
            self._runner = asyncio.create_task(self._run_groups())
        if self._patience_seconds is None:
            answer: Answer = await future
            return answer
        # asyncio.timeout does the same for five times the price.
        alarm = loop.call_later(self._patience_seconds, _expire, future)
        try:
            answer = await future
        finally:
            alarm.cancel()
        return answer

    async def _run_groups(self) -> None:
        try:
            while self._waiting:
                for _ in range(_ROUNDS):
                    await asyncio.sleep(0)
                group = self._waiting[: self._largest_group]
                del self._waiting[: self._largest_group]
                await self._run_group(group)
        finally:
            self._runner = None

    async def _run_group(self, group: list[tuple[Item, asyncio.Future[Answer]]]) -> None:
        try:
            answers = await self._run([item for item, _ in group])
        except BaseException as error:
            for _, future in group:
                # A caller that was cancelled no longer waits.
                if not future.done():
                    future.set_exception(error)
            if not isinstance(error, Exception):
                raise
        else:
            for (_, future), answer in zip(group, answers, strict=True):
                if not future.done():
                    future.set_result(answer)


def _expire(future: "asyncio.Future[Any]") -> None:
    if not future.done():
        future.set_exception(TimeoutError())
