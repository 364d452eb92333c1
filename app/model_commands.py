"""`classifier models`: the model, and how fast and how true each engine is on this machine."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.command_line import complain, require_worker, stop
from app.core.config import EngineName, get_settings
from app.core.errors import ConfigurationError
from app.core.foreign_text import escape_controls

if TYPE_CHECKING:
    from app.models.ml_models import PreparedModel

models = typer.Typer(rich_markup_mode="markdown", invoke_without_command=True)


@models.callback()
def show(context: typer.Context) -> None:
    """Show the model, and how fast and how true each engine is on this machine.

    Example: `classifier models`

    The first time measures every engine, which takes a while; the choice is kept in the data
    folder. `classifier models tune` tries them all again.
    """
    if context.invoked_subcommand is not None:
        return
    require_worker()
    settings = get_settings()
    from rich.console import Console

    from app.models.ml_models import prepare_model

    try:
        with Console(stderr=True).status("measuring engines"):
            model = prepare_model(settings)
    except ConfigurationError as error:
        stop(error, 2)
    _print_model(model)


@models.command()
def tune(
    images: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="32 or more images like those to classify: offers the -int8 engines, and compares "
            "all of them on a quarter. Default: MODEL_CALIBRATION_DIR.",
        ),
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Measure again what was measured before.")
    ] = False,
) -> None:
    """Try every engine that is installed, and choose the fastest that answers right.

    Example: `classifier models tune --images photos/ --fresh`

    An engine is measured once for a model and a machine. If the machine was busy then, let it rest
    and say --fresh. Workers choose when they start.
    """
    require_worker()
    settings = get_settings()
    from rich.console import Console
    from rich.progress import Progress

    from app.inference.engines.catalogue import list_candidates
    from app.models.ml_models import tune_model

    if images is not None:
        own = settings.model.model_copy(update={"calibration_dir": images})
        settings = settings.model_copy(update={"model": own})
    console = Console(stderr=True)
    try:
        with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
            task = progress.add_task("measuring", total=len(list_candidates()))

            def tell(engine: EngineName) -> None:
                progress.update(task, description=f"measuring {engine}", advance=1)

            model = tune_model(settings, fresh, tell)
    except ConfigurationError as error:
        stop(error, 2)
    _print_model(model)
    if images is not None and get_settings().model.calibration_dir != images:
        folder = escape_controls(str(images.absolute()))
        print(f"workers use this after a restart with MODEL_CALIBRATION_DIR={folder}")


def _print_model(model: "PreparedModel") -> None:
    from rich.console import Console

    from app.tables import create_document_table, create_engine_table

    console = Console()
    manifest = model.manifest
    about = {"model": f"{manifest.name} {manifest.version}", "file": model.source.path}
    about |= {"sha-256": model.digest, "classes": len(manifest.labels)}
    about |= {"input": f"{manifest.input_size} × {manifest.input_size} pixels"}
    console.print(create_document_table(about))
    console.print(create_engine_table(model))
    for reason in model.reasons:
        complain(reason)
