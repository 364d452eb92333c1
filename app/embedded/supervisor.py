"""One machine, one command: a Redis of its own, the API and a worker, under one roof.

Redis starts first and stops last. A child that fails while everything starts ends the whole; later
it is started again. The ledger makes every way of stopping safe: what was accepted is in Redis's
append-only file, and what a worker held returns to the queue.
"""

import asyncio
import contextlib
import os
import shlex
import signal
import sys
import time
from pathlib import Path

from app.admin_token import keep_admin_token
from app.core.config import Settings
from app.embedded.child_process import ChildCommand, ChildKeeper, describe_end
from app.embedded.machine_memory import choose_redis_memory
from app.embedded.preconditions import check_port, check_redis, locked_folder
from app.embedded.redis_server import PrivateRedis
from app.embedded.terminal import Terminal
from classifier_client import AsyncClassifier, ProblemError, UnreachableError

SAMPLE = Path(__file__).parents[1] / "samples" / "cat.jpg"

# The first start converts the model for each engine and times them all, half a minute on two cores.
START_SECONDS = 180.0
PATIENCE_SECONDS = 5.0  # a later start is done by then; a longer one deserves a word
SAMPLE_SECONDS = 60.0
HEALTH_POLL_SECONDS = 0.1
# All that it takes to stop stays under ten seconds, after which service managers and users lose
# patience: the worker's grace (WORKER_GRACE_SECONDS), this for what follows it, and Redis.
HAND_BACK_SECONDS = 2.5
REDIS_GRACE_SECONDS = 2.0


class Supervisor:
    """Starts the children, says when they are ready, keeps them running, stops them in order."""

    def __init__(
        self, settings: Settings, redis: PrivateRedis | None, lock: int, admin_token: str
    ) -> None:
        colours = sys.stdout.isatty() and "NO_COLOR" not in os.environ
        self._terminal = Terminal(sys.stdout.buffer, colours=colours)
        self._redis = redis
        self._lock = lock
        self._url = service_url(settings)
        # They are made from the history.
        self._has_webhooks = settings.queue.history_length > 0
        self._grace_seconds = settings.worker.grace_seconds + HAND_BACK_SECONDS
        self._environment = {
            **os.environ,
            "REDIS_URL": redis.url if redis else settings.redis.url,
            "DATA_DIR": str(settings.data_dir.resolve()),
            "PYTHONUNBUFFERED": "1",
        }
        self._api_environment = self._environment | {"ADMIN_TOKEN": admin_token}
        self._keepers: list[ChildKeeper] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._syncing: asyncio.Task[None] | None = None

    async def run(self) -> int:
        """Run until a signal or a failed start; returns the exit code."""
        loop = asyncio.get_running_loop()
        self._end: asyncio.Future[int] = loop.create_future()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self._on_signal)
        opening = asyncio.create_task(self._open())
        opening.add_done_callback(self._on_opened)
        try:
            return await self._end
        finally:
            opening.cancel()
            await self._close()

    def _on_opened(self, opening: asyncio.Task[None]) -> None:
        if not opening.cancelled() and (error := opening.exception()) and not self._end.done():
            self._end.set_exception(error)

    def _on_signal(self) -> None:
        if self._end.done():
            for keeper in self._keepers:
                keeper.kill()
        else:
            self._end.set_result(0)

    def _fail(self, reason: str, code: int = 1) -> None:
        if not self._end.done():
            self._terminal.say(reason)
            self._end.set_result(code)

    async def _open(self) -> None:
        started = time.monotonic()
        self._terminal.say("starting; Ctrl-C stops everything and loses nothing")
        try:
            async with asyncio.timeout(START_SECONDS):
                await self._start_children()
                async with AsyncClassifier(self._url) as client:
                    await self._wait_healthy(client)
                    answer = await self._classify_sample(client)
        except TimeoutError:
            self._fail(f"not ready after {START_SECONDS:.0f} s: see the lines above")
        except ProblemError as error:
            self._fail(f"the sample image could not be classified: {error}")
        except UnreachableError as error:
            self._fail(str(error))
        else:
            for keeper in self._keepers:
                keeper.settle()
            self._announce(time.monotonic() - started, answer)

    async def _start_children(self) -> None:
        if self._redis:
            self._terminal.hold("redis")  # it introduces itself in lines marked as warnings
            self._start(
                ChildCommand(
                    "redis",
                    self._redis.arguments(),
                    os.environ,
                    orphan_signal=signal.SIGTERM,
                    # As long as it lives the data folder is in use, whoever started it.
                    descriptors=(self._lock,),
                )
            )
            await self._redis.wait_ready()
            self._syncing = asyncio.create_task(self._redis.keep_synced(self._terminal.say))
            self._terminal.release("redis", show=False)
        children = [("api", self._api_environment), ("worker", self._environment)]
        if self._has_webhooks:
            children.append(("webhooks", self._environment))
        for source, environment in children:
            # -P: the working directory may hold an `app` of its own.
            arguments = [sys.executable, "-P", "-m", "app.cli", source]
            self._start(ChildCommand(source, arguments, environment))

    def _start(self, command: ChildCommand) -> None:
        keeper = ChildKeeper(command, self._terminal.write, self._terminal.say)
        self._keepers.append(keeper)
        self._tasks.add(asyncio.create_task(self._keep(keeper)))

    async def _keep(self, keeper: ChildKeeper) -> None:
        try:
            code = await keeper.keep()
        except OSError as error:
            self._fail(f"{keeper.source} can't be started: {error}")
            return
        self._terminal.release(keeper.source, show=not self._end.done())
        # 2 says that the configuration is wrong; the child has printed what.
        reason = f"{keeper.source} {describe_end(code)} before everything was ready"
        self._fail(reason, 2 if code == 2 else 1)

    async def _wait_healthy(self, client: AsyncClassifier) -> None:
        patience = time.monotonic() + PATIENCE_SECONDS
        while True:
            with contextlib.suppress(UnreachableError):
                if (await client.health()).workers_available:
                    return
            if time.monotonic() > patience:
                self._terminal.say("the first start finds the fastest engine: this takes a while")
                patience = float("inf")
            await asyncio.sleep(HEALTH_POLL_SECONDS)

    async def _classify_sample(self, client: AsyncClassifier) -> str:
        """The answer in words. Jobs from an earlier run go first: it does not wait for them all."""
        try:
            async with asyncio.timeout(SAMPLE_SECONDS):
                result = await client.classify(SAMPLE)
        except TimeoutError:
            return f"{SAMPLE.name} waits behind earlier jobs"
        best = result.predictions[0]
        return f"{SAMPLE.name} → {best.class_name} ({best.confidence:.1%})"

    def _announce(self, seconds: float, answer: str) -> None:
        curl = shlex.join(["curl", "-F", f"file=@{SAMPLE}", f"{self._url}/classify"])
        self._terminal.say(f"ready after {seconds:.1f} s at {self._url}")
        self._terminal.say(answer)
        self._terminal.say(f"web page: {self._url}/, documentation: {self._url}/docs; try it:")
        self._terminal.show(f"\n{curl}\n")

    async def _close(self) -> None:
        self._terminal.say("stopping; once more kills at once")
        redis = [keeper for keeper in self._keepers if keeper.source == "redis"]
        others = [keeper for keeper in self._keepers if keeper.source != "redis"]
        # Both at once: what the API still accepts is in the ledger, worker or not.
        await asyncio.gather(*(keeper.stop(self._grace_seconds) for keeper in others))
        for keeper in redis:
            self._terminal.hold("redis")  # its farewells are marked as warnings, too
            await keeper.stop(REDIS_GRACE_SECONDS)
        await asyncio.gather(*self._tasks)
        if self._syncing:
            self._syncing.cancel()
        self._terminal.say("stopped")


def service_url(settings: Settings) -> str:
    """Where this machine reaches the service; 127.0.0.1 when it listens everywhere."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.listen.host, settings.listen.host)
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.listen.port}"


def run_embedded(settings: Settings) -> int:
    """Run everything until a signal; returns the exit code.

    Uses the Redis of REDIS_URL where that is set. Raises :class:`ConfigurationError` when
    something is in the way that only the user can change.
    """
    data_dir = settings.data_dir.resolve()
    check_port(settings.listen.host, settings.listen.port)
    with locked_folder(data_dir) as lock:
        admin_token = keep_admin_token(settings)
        if "url" in settings.redis.model_fields_set:
            check_redis(settings)
            return asyncio.run(Supervisor(settings, None, lock, admin_token).run())
        redis = PrivateRedis(
            data_dir, settings.durability, settings.redis.max_memory or choose_redis_memory()
        )
        try:
            return asyncio.run(Supervisor(settings, redis, lock, admin_token).run())
        finally:
            redis.close()
