"""`classifier classify`: images in, answers out."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterable
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

from rich.progress import Progress

from app.classify_command.formats import Format
from app.classify_command.journal import Journal, NoJournal, open_journal
from app.classify_command.outputs import Output, create_output
from app.classify_command.progress import create_progress
from app.classify_command.run import Run
from app.classify_command.sources import Source, SourceError, find_sources
from app.command_line import complain, stop, stop_unanswered
from classifier_client import AsyncClassifier, ProblemError, UnreachableError
from classifier_client.requests import Options

if TYPE_CHECKING:
    from app.classify_command.folder_watch import FolderWatch


def classify_sources(
    arguments: list[str],
    *,
    url: str,
    watched: str | None,
    format: Format,
    top_k: int | None,
    threshold: float | None,
    is_bulk: bool,
    fresh: bool,
) -> int:
    """Classify what the arguments name, then what appears in the folder ``watched``.

    Returns the exit code: 1 when an image could not be classified. Ends the command in one line
    and with 2 when an argument is wrong or the service does not answer, with 130 after Ctrl-C.
    """
    options: Options = {}
    if top_k is not None:
        options["top_k"] = top_k
    if threshold is not None:
        options["threshold"] = threshold
    if is_bulk:
        options["priority"] = "bulk"
    farewell = "interrupted"
    try:
        with ExitStack() as opened:
            # Before the rest is looked for: what appears meanwhile belongs to one of the two.
            watch = opened.enter_context(_watch(watched)) if watched is not None else None
            sources = find_sources(arguments)
            asyncio.run(_probe(url))
            journal = opened.enter_context(_open_journal(url, options, sources, watch, fresh))
            if journal.is_kept:
                farewell += "; the same command goes on from here"
            output = create_output(format, endless=watch is not None)
            progress = opened.enter_context(create_progress())
            return asyncio.run(_classify(url, options, sources, watch, journal, output, progress))
    except KeyboardInterrupt:
        stop(farewell, 130)
    except SourceError as error:
        stop(error, 2)
    except UnreachableError as error:
        stop_unanswered(error)


async def _classify(
    url: str,
    options: Options,
    sources: list[Source],
    watch: "FolderWatch | None",
    journal: Journal,
    output: Output,
    progress: Progress,
) -> int:
    """The exit code. Raises :class:`KeyboardInterrupt` when Ctrl-C came before all was sent."""
    task = progress.add_task("classifying", total=len(sources) or None)
    if watch:
        # The second Ctrl-C is as deadly as ever.
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGINT, _stop_once, loop, watch)
        complain(f"watching {watch.folder}; Ctrl-C ends that")
    answers = []
    async with AsyncClassifier(url) as client:
        async for answer in Run(client, journal, options).classify(_iterate(sources, watch)):
            answers.append(answer)
            output.show(answer)
            progress.advance(task)
        if len(answers) < len(sources):
            raise KeyboardInterrupt  # what was sent is answered, the rest is for another run
        has_failed = any(answer.problem for answer in answers)
        if watch:
            progress.update(task, total=None)
            with NoJournal() as unkept:
                async for answer in Run(client, unkept, options).classify(watch.images()):
                    has_failed = has_failed or answer.problem is not None
                    output.show(answer)
                    progress.advance(task)
    progress.stop()
    if all(answer.is_final for answer in answers):
        journal.finish()
    output.end(sorted(answers, key=lambda answer: answer.position))
    return int(has_failed)


def _watch(folder: str) -> "FolderWatch":
    """Raises :class:`SourceError` for what is no folder, and where no folder can be watched."""
    try:
        # Only here: there is no inotify outside Linux, nor what speaks to it.
        from app.classify_command.folder_watch import FolderWatch
    except ImportError:
        raise SourceError("--watch needs asyncinotify, which runs on Linux only") from None
    return FolderWatch(folder)


async def _probe(url: str) -> None:
    """Nobody shall try again and again where nothing answers. Raises :class:`UnreachableError`."""
    async with AsyncClassifier(url, attempts=1) as client:
        with suppress(ProblemError):
            await client.ask("GET", "health/live")


def _open_journal(
    url: str,
    options: Options,
    sources: list[Source],
    watch: "FolderWatch | None",
    fresh: bool,
) -> Journal:
    """For the images that are named.

    Says what it knows of earlier runs, and when there is no going on with this one.
    """
    if not sources:
        return NoJournal()  # what appears in a folder does not appear again
    roots = {source.root for source in sources if source.root is not None}
    watched = watch and os.path.abspath(watch.folder)
    try:
        journal = open_journal(url, {**options, "watch": watched}, roots, fresh=fresh)
    except OSError as error:
        complain(f"this run can't be resumed, should it be interrupted: {error}")
        return NoJournal()
    if sent := journal.count_sent(sources):
        images = f"{sent} of {len(sources)} images"
        complain(f"already sent by an earlier run: {images}; --fresh sends all again")
    return journal


async def _iterate(sources: Iterable[Source], watch: "FolderWatch | None") -> AsyncIterator[Source]:
    for source in sources:
        if watch and watch.is_stopped:
            return
        yield source


def _stop_once(loop: asyncio.AbstractEventLoop, watch: "FolderWatch") -> None:
    loop.remove_signal_handler(signal.SIGINT)
    complain("ending when what was sent is answered; Ctrl-C again ends at once")
    watch.stop()
