"""Both kinds of Python client behind one face, so that each test asks the same of both."""

import asyncio
import inspect
from collections.abc import Callable, Iterator
from typing import Any

from classifier_client import AsyncClassifier

Create = Callable[..., Any]


class Awaited:
    """An asynchronous client for tests that don't await: each call runs the loop to its end."""

    def __init__(self, url: str, **options: Any) -> None:
        self._runner = asyncio.Runner()
        self._client = AsyncClassifier(url, **options)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            came = getattr(self._client, name)(*args, **kwargs)
            return self._runner.run(came) if inspect.iscoroutine(came) else self._each(came)

        return call

    def _each(self, values: Any) -> Iterator[Any]:
        async def take() -> Any:
            return await anext(values)

        try:
            while True:
                try:
                    yield self._runner.run(take())
                except StopAsyncIteration:
                    return
        finally:
            self._runner.run(values.aclose())

    def close(self) -> None:
        self._runner.run(self._client.close())
        self._runner.close()
