"""What has to happen at once when the server is told to stop.

uvicorn lets requests end first and tells the application after that, so a request that waits would
hold it up. Its own handlers of the signals go on to do their work.
"""

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def call_at_stop_signal(action: Callable[[], None]) -> Iterator[None]:
    """Call ``action`` on the running event loop when a signal says that the process shall stop.

    Signals come to a process's main thread alone: a server in another, as in tests, gets none.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    previous = {number: signal.getsignal(number) for number in _SIGNALS}

    def handle(number: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(action)
        handler = previous[signal.Signals(number)]
        if callable(handler):
            handler(number, frame)

    for number in _SIGNALS:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
