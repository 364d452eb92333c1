"""`classifier dead`: look at jobs that were given up, retry them, purge them."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar
from uuid import UUID

import typer

from app.admin_token import find_admin_token
from app.command_line import (
    COMMAND_ATTEMPTS,
    DEFAULT_URL,
    JsonOption,
    UrlOption,
    complain,
    stop,
    stop_unanswered,
)
from app.core.config import get_settings
from app.core.errors import ConfigurationError
from app.core.foreign_text import render_json

if TYPE_CHECKING:
    from classifier_client import AsyncClassifier

Answer = TypeVar("Answer")

_DEFAULT_LIMIT = 20
_LARGEST_LIMIT = 1000  # of one request
_NOT_FOUND = 404
_PATH = "admin/dead-letters"

dead = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Look at jobs that were given up, retry them, purge them.",
    epilog="These commands need the service's admin token: ADMIN_TOKEN, or the one that "
    "`classifier up` keeps in its data folder, DATA_DIR.",
)

IdArgument = Annotated[UUID, typer.Argument(metavar="ID", help="The job_id of a dead letter.")]
IdsArgument = Annotated[
    list[UUID] | None, typer.Argument(metavar="ID", help="The job_ids of dead letters.")
]


def _require_token() -> str:
    try:
        token = find_admin_token(get_settings())
    except ConfigurationError as error:
        stop(error, 2)
    if token is None:
        stop(
            "no admin token: set ADMIN_TOKEN to the service's, or DATA_DIR to the data folder "
            "of `classifier up`",
            2,
        )
    return token


def _ask(url: str, question: "Callable[[AsyncClassifier], Awaitable[Answer]]") -> Answer:
    """What the service answers, with the admin token."""
    from classifier_client import AsyncClassifier, ProblemError, UnreachableError

    async def run() -> Answer:
        async with AsyncClassifier(url, token=token, attempts=COMMAND_ATTEMPTS) as client:
            return await question(client)

    token = _require_token()
    try:
        return asyncio.run(run())
    except ProblemError as error:
        stop(error, 1)
    except UnreachableError as error:
        stop_unanswered(error)


@dead.command("list")
def list_dead_letters(
    limit: Annotated[
        int, typer.Option(min=1, max=_LARGEST_LIMIT, help="How many to list at most.")
    ] = _DEFAULT_LIMIT,
    url: UrlOption = DEFAULT_URL,
    as_json: JsonOption = False,
) -> None:
    """List dead letters, the latest death first.

    Example: `classifier dead list --limit 100`
    """
    document = _ask(url, lambda client: client.ask("GET", f"{_PATH}?limit={limit}"))
    if as_json:
        print(render_json(document))
        return
    letters = document["dead_letters"]
    if not letters:
        print("no dead letters")
        return
    from rich.console import Console

    from app.tables import create_dead_letters_table

    Console().print(create_dead_letters_table(letters))
    if document["total"] > len(letters):
        print(f"{len(letters)} of {document['total']}; --limit shows more")


@dead.command()
def show(
    job_id: IdArgument,
    save: Annotated[
        Path | None, typer.Option(dir_okay=False, metavar="FILE", help="Write the image there.")
    ] = None,
    url: UrlOption = DEFAULT_URL,
    as_json: JsonOption = False,
) -> None:
    """Show why a job was given up, and what was tried: when, and by which worker.

    Example: `classifier dead show 5a3bd5de-6a4c-4f4e-9d0f-0d3a3a8f4c11 --save image.jpg`
    """

    async def ask(client: "AsyncClassifier") -> tuple[Mapping[str, Any], bytes | None]:
        letter = await client.ask("GET", f"{_PATH}/{job_id}")
        return letter, await client.download(f"{_PATH}/{job_id}/upload") if save else None

    letter, upload = _ask(url, ask)
    if save and upload is not None:
        try:
            save.write_bytes(upload)
        except OSError as error:
            stop(f"can't write {save}: {error.strerror}", 1)
    if as_json:
        print(render_json(letter))
    else:
        _print_letter(letter)


def _print_letter(letter: Mapping[str, Any]) -> None:
    from rich.console import Console

    from app.tables import create_attempts_table, create_document_table

    console = Console()
    fields = {key: value for key, value in letter.items() if key not in ("attempts", "error")}
    told = f"{letter['error']['code']}: {letter['error']['detail']}"
    console.print(create_document_table(fields | {"error": told}))
    console.print()
    console.print(create_attempts_table(letter["attempts"]))


@dead.command()
def retry(
    job_ids: IdsArgument = None,
    everything: Annotated[bool, typer.Option("--all", help="Retry all dead letters.")] = False,
    url: UrlOption = DEFAULT_URL,
) -> None:
    """Put dead letters back into the queue. They keep their ids.

    Example: `classifier dead retry --all`
    """
    ids = _choose(job_ids, everything)
    if everything:
        count = _ask(url, lambda client: client.ask("POST", f"{_PATH}/retry"))["retried"]
    else:
        count = _ask(url, lambda client: _do_each(client, ids, "POST", "/retry"))
    print(f"retried: {count}")
    raise typer.Exit(count < len(ids))


@dead.command()
def purge(
    job_ids: IdsArgument = None,
    everything: Annotated[bool, typer.Option("--all", help="Purge all dead letters.")] = False,
    sure: Annotated[bool, typer.Option("--yes", help="Don't ask before --all.")] = False,
    url: UrlOption = DEFAULT_URL,
) -> None:
    """Erase dead letters and their images for good.

    Example: `classifier dead purge 5a3bd5de-6a4c-4f4e-9d0f-0d3a3a8f4c11`
    """
    ids = _choose(job_ids, everything)
    if everything:
        if not sure:
            total = _ask(url, lambda client: client.ask("GET", f"{_PATH}?limit=1"))["total"]
            typer.confirm(f"Erase all {total} dead letters and their images?", abort=True)
        count = _ask(url, lambda client: client.ask("DELETE", _PATH))["purged"]
    else:
        count = _ask(url, lambda client: _do_each(client, ids, "DELETE"))
    print(f"purged: {count}")
    raise typer.Exit(count < len(ids))


def _choose(job_ids: list[UUID] | None, everything: bool) -> list[str]:
    """The ids that were given, none with --all."""
    if bool(job_ids) == everything:
        raise typer.BadParameter("name dead letters by their ids, or say --all")
    return [str(job_id) for job_id in dict.fromkeys(job_ids or ())]


async def _do_each(
    client: "AsyncClassifier", job_ids: list[str], method: str, action: str = ""
) -> int:
    """Do it to each, say which are no dead letters, and return how many were."""
    from classifier_client import ProblemError

    count = 0
    for job_id in job_ids:
        try:
            await client.ask(method, f"{_PATH}/{job_id}{action}")
        except ProblemError as error:
            if error.status != _NOT_FOUND:
                raise
            complain(f"{job_id}: {error}")
        else:
            count += 1
    return count
