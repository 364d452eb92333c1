"""The `classifier` command: runs the service, and talks to one that runs."""

import asyncio
import gc
import os
import sys
import warnings
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import typer

from app.classify_command.formats import Format
from app.command_line import (
    COMMAND_ATTEMPTS,
    DEFAULT_URL,
    JsonOption,
    UrlOption,
    complain,
    require_worker,
    stop,
    stop_unanswered,
)
from app.core.config import get_settings
from app.core.errors import ConfigurationError
from app.core.foreign_text import render_json
from app.dead_letter_commands import dead
from app.model_commands import models
from app.webhook_commands import webhooks

# What shows results and speaks HTTP is imported where it is used: the API and the worker start
# through this module, and start sooner and smaller without it.

DISTRIBUTION = "image-classifier-service"
API_GRACE_SECONDS = 5  # for answers under way; `classifier up` and containers kill after more

cli = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="Classify images: accepted jobs are never lost. Start with **classifier up**.",
)

HostOption = Annotated[
    str | None, typer.Option(help="Address to listen on. Default: LISTEN_HOST, 127.0.0.1.")
]
PortOption = Annotated[
    int | None, typer.Option(min=1, max=65_535, help="Port. Default: LISTEN_PORT, 8000.")
]
ProcessesOption = Annotated[
    int | None,
    typer.Option(min=1, help="Processes that classify. Default: WORKER_PROCESSES, one a core."),
]


def _set(**variables: object) -> None:
    """Make options win over everything else, for this process and those it starts."""
    os.environ.update({name: str(value) for name, value in variables.items() if value is not None})


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"classifier {version(DISTRIBUTION)}")
        raise typer.Exit


@cli.callback()
def _root(
    _version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    pass


# --- Running the service -------------------------------------------------------------------------


@cli.command()
def up(
    host: HostOption = None,
    port: PortOption = None,
    workers: ProcessesOption = None,
    data_dir: Annotated[
        Path | None, typer.Option(file_okay=False, help="Data folder. Default: DATA_DIR, ./data.")
    ] = None,
) -> None:
    """Run everything on this machine: a Redis of its own, the API and workers.

    Example: `classifier up --port 9000 --workers 2`

    Uses the Redis of REDIS_URL instead where that is set. Ctrl-C stops everything and loses
    nothing: jobs that wait go on at the next start.
    """
    require_worker()
    from app.embedded.supervisor import run_embedded

    _set(LISTEN_HOST=host, LISTEN_PORT=port, WORKER_PROCESSES=workers, DATA_DIR=data_dir)
    try:
        code = run_embedded(get_settings())
    except ConfigurationError as error:
        stop(error, 2)
    raise typer.Exit(code)


@cli.command()
def api(host: HostOption = None, port: PortOption = None) -> None:
    """Run the web API alone.

    Example: `REDIS_URL=redis://redis.internal classifier api --host 0.0.0.0`
    """
    from app.api.connections.server import serve
    from app.embedded.preconditions import check_port

    _set(LISTEN_HOST=host, LISTEN_PORT=port)
    settings = get_settings()
    try:
        check_port(settings.listen.host, settings.listen.port)
    except ConfigurationError as error:
        stop(error, 2)
    # What is loaded stays. The garbage collector would look at all of it again and again, which
    # takes a fifth of a second while nothing else goes on.
    __import__("app.main")
    gc.freeze()
    serve(
        "app.main:app",
        settings,
        host=settings.listen.host,
        port=settings.listen.port,
        log_level=settings.log.level.lower(),
        timeout_graceful_shutdown=API_GRACE_SECONDS,
    )


@cli.command()
def worker(processes: ProcessesOption = None) -> None:
    """Run a worker alone: as many processes as the machine has cores, each with the model.

    Example: `REDIS_URL=redis://redis.internal classifier worker --processes 4`
    """
    require_worker()
    from celery.bin.celery import celery
    from celery.exceptions import SecurityWarning

    # It warns root of pickled messages, which this service does not accept.
    warnings.simplefilter("ignore", SecurityWarning)
    _set(WORKER_PROCESSES=processes)
    settings = get_settings()
    # Celery looks for -A in the working directory first, where another `app` may lie. It takes
    # ours when that is imported already, which is why this does not exec the celery command.
    __import__("app.celery_app")
    celery.main(
        args=[
            *("--quiet", "-A", "app.celery_app", "worker"),
            f"--loglevel={settings.log.level}",
            f"--concurrency={settings.worker.processes}",
        ],
        prog_name="celery",
    )


cli.command()(webhooks)


# --- Using a service that runs -------------------------------------------------------------------


@cli.command()
def classify(
    images: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="IMAGE...", help="Files, folders, globs, http(s) URLs, - for stdin."
        ),
    ] = None,
    watch: Annotated[
        str | None,
        typer.Option(metavar="FOLDER", help="Go on with what appears there, until Ctrl-C."),
    ] = None,
    output: Annotated[Format, typer.Option(help="How to print the answers.")] = Format.TABLE,
    top_k: Annotated[
        int | None, typer.Option(min=1, max=100, help="How many classes. Default: 5.")
    ] = None,
    threshold: Annotated[
        float | None, typer.Option(min=0, max=1, help="Leave out less confident classes.")
    ] = None,
    batch: Annotated[bool, typer.Option("--batch", help="Let all other jobs go first.")] = False,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Send all images, also those sent by an earlier run.")
    ] = False,
    url: UrlOption = DEFAULT_URL,
    as_json: Annotated[bool, typer.Option("--json", help="The same as --output jsonl.")] = False,
) -> None:
    """Classify images with a service that runs, and wait for the answers.

    Example: `classifier classify photos/*.jpg`

    Folders are searched for JPEG and PNG files, the folders in them too. A run that was interrupted
    goes on when it is started again, and sends nothing twice.

    With `--output jsonl`: one JSON object a line as each image ends, its file and result or
    problem; with `csv`: a row for each prediction. Exit code 1 when an image could not be
    classified, 2 when the service does not answer.
    """
    from app.classify_command.command import classify_sources

    if not images and watch is None:
        raise typer.BadParameter("name images, or a folder to --watch")
    code = classify_sources(
        images or [],
        url=url,
        watched=watch,
        format=Format.JSONL if as_json else output,
        top_k=top_k,
        threshold=threshold,
        is_bulk=batch,
        fresh=fresh,
    )
    raise typer.Exit(code)


@cli.command()
def status(
    job_id: Annotated[UUID, typer.Argument(metavar="ID", help="The job_id of a submitted image.")],
    url: UrlOption = DEFAULT_URL,
    as_json: JsonOption = False,
) -> None:
    """Show where a job is and, when it has ended, what came of it.

    Example: `classifier status 5a3bd5de-6a4c-4f4e-9d0f-0d3a3a8f4c11`

    Exit code 1 when there is no such job or it has failed, 2 when the service does not answer.
    """
    from rich.console import Console

    from app.tables import create_document_table, create_prediction_table
    from classifier_client import ProblemError, UnreachableError

    try:
        document, result = asyncio.run(_ask_job(url, str(job_id)))
    except ProblemError as error:
        stop(error, 1)
    except UnreachableError as error:
        stop_unanswered(error)
    if as_json:
        print(render_json({**document, "result": result and dict(result)}))
        return
    console = Console()
    console.print(create_document_table(document))
    if result:
        console.print(create_prediction_table([(str(job_id), result["predictions"])]))


async def _ask_job(url: str, job_id: str) -> tuple[Mapping[str, Any], Mapping[str, Any] | None]:
    from classifier_client import AsyncClassifier

    async with AsyncClassifier(url, attempts=COMMAND_ATTEMPTS) as client:
        status = await client.status(job_id)
        has_result = status.status in ("completed", "failed")
        result = await client.result(job_id) if has_result else None
        return status.document, result.document if result else None


cli.add_typer(dead, name="dead")


# --- Looking at this machine ---------------------------------------------------------------------


cli.add_typer(models, name="models")


@cli.command()
def config(as_json: JsonOption = False) -> None:
    """Show every setting, its value, and where that came from."""
    from rich.console import Console

    from app.core.config_reference import list_values
    from app.tables import create_settings_table

    values = list_values(get_settings())
    if as_json:
        document = {
            value.variable.name: {"value": value.text, "from": value.origin} for value in values
        }
        print(render_json(document, indent=2))
    else:
        Console().print(create_settings_table(values))


def main() -> None:
    """The entry point. Exit codes: 1 for what failed, 2 for usage and configuration."""
    try:
        code = cli(standalone_mode=False)
    except typer.TyperException as error:
        # Of a bare command the help was printed.
        if message := error.format_message():
            # How a parser calls what it refuses is nothing to the user.
            complain(message.replace("Value error, ", ""))
        code = error.exit_code
    except typer.Abort:
        code = 1
    sys.exit(code)


if __name__ == "__main__":
    main()
