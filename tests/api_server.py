"""The API on a real socket, in a thread of the test's process."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from starlette.types import ASGIApp

from app.api.connections.server import BoundedServer
from app.core.config import Settings


@contextmanager
def run_api(app: ASGIApp, **options: Any) -> Iterator[str]:
    """Serve ``app`` on a free loopback port; gives its URL. ``options`` are uvicorn's."""
    settings = getattr(getattr(app, "state", None), "settings", None) or Settings()
    options = {"port": 0, "log_level": "warning"} | options
    server = BoundedServer(app, settings, **options)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        deadline = time.monotonic() + 10
        while not server.started:
            assert thread.is_alive() and time.monotonic() < deadline, "the API did not start"
            time.sleep(0.005)
        own = server.servers[0].sockets[0].getsockname()
        yield own if isinstance(own, str) else f"http://127.0.0.1:{own[1]}"
    finally:
        server.should_exit = True
        thread.join()
