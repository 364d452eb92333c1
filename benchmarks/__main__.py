"""Measures this service and its peers side by side on this machine, and writes the document."""

import argparse
import logging
import signal
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from rich.console import Console

from app.core.errors import ConfigurationError
from benchmarks.images import find_images, make_images
from benchmarks.load import INSTALL_WRK, find_wrk
from benchmarks.measurements import MEASUREMENTS, Measurement, Plan
from benchmarks.participants import Session
from benchmarks.peer_servers import PEERS, Peer, install
from benchmarks.processes import ServerError
from benchmarks.report import write_document
from benchmarks.versions import is_checkout
from benchmarks.workspace import RESULTS

Item = TypeVar("Item", Peer, Measurement)

ROUNDS = 5
SECONDS = 8.0
_QUICK = Plan(rounds=1, seconds=1.0, queued_jobs=2_000)
_CHOICES = ", ".join(measurement.name for measurement in MEASUREMENTS)


def main() -> int:
    """Install what is missing, measure, write. Exit code 2 for what only the user can mend."""
    # Ended by a signal or Ctrl-C: the same way out, past everything that stops servers.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    logging.basicConfig(level=logging.ERROR)
    options = _parse()
    console = Console(stderr=True)
    try:
        _run(options, console)
    except (ServerError, ConfigurationError) as error:
        console.print(f"benchmarks: {error}", markup=False)
        return 1
    except KeyboardInterrupt:
        console.print("benchmarks: stopped; what was measured before is written")
        return 130
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"default {ROUNDS}")
    parser.add_argument(
        "--seconds", type=float, default=SECONDS, help=f"of one measurement, default {SECONDS:g}"
    )
    names = ",".join(peer.name for peer in PEERS)
    parser.add_argument("--peers", default=names, help=f"comma-separated, default {names}")
    parser.add_argument("--images", type=Path, help="folder of JPEGs to send; default: made")
    parser.add_argument("--only", default="", help=f"comma-separated: {_CHOICES}")
    parser.add_argument(
        "--against",
        type=Path,
        metavar="PATH",
        help="another checkout, for the measurement versions",
    )
    parser.add_argument("--quick", action="store_true", help="one second each: tries the harness")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder for the results")
    options = parser.parse_args()
    options.peers = [_find(PEERS, name, "--peers", parser) for name in _split(options.peers)]
    options.only = [_find(MEASUREMENTS, name, "--only", parser) for name in _split(options.only)]
    if options.images and not (options.images.is_dir() and find_images(options.images)):
        parser.error(f"--images {options.images}: there is no JPEG or PNG in that folder")
    if options.against and not is_checkout(options.against):
        parser.error(f"--against {options.against}: there is no checkout of the service")
    for measurement in options.only:
        if measurement.needs_baseline and not options.against:
            parser.error(f"--only {measurement.name} needs --against PATH, another checkout")
    if options.rounds < 1 or options.seconds < 1:
        parser.error("--rounds and --seconds are at least 1")
    if find_wrk() is None:
        parser.error(INSTALL_WRK)
    return options


def _split(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


def _find(known: Sequence[Item], name: str, option: str, parser: argparse.ArgumentParser) -> Item:
    for item in known:
        if item.name == name:
            return item
    parser.error(f"{option}: {name} is none of {', '.join(item.name for item in known)}")


def _run(options: argparse.Namespace, console: Console) -> None:
    plan = _QUICK if options.quick else Plan(options.rounds, options.seconds)
    plan = replace(plan, baseline=options.against)
    chosen = options.only or [
        each for each in MEASUREMENTS if plan.baseline or not each.needs_baseline
    ]
    peers: list[Peer] = []
    if any(measurement.compares_peers for measurement in chosen):
        peers = _install(options.peers, console)
    for measurement in chosen:
        with tempfile.TemporaryDirectory(prefix="benchmark-") as name:
            folder = Path(name)
            images = (
                find_images(options.images) if options.images else make_images(folder / "images")
            )
            session = Session(folder, images, plan.seconds)
            console.rule(measurement.name)
            measurement.run(session, plan, peers, options.results, console.print)
    if options.results == RESULTS:
        write_document()


def _install(peers: list[Peer], console: Console) -> list[Peer]:
    """Those that can run here, installed."""
    possible = []
    for peer in peers:
        if obstacle := peer.find_obstacle():
            console.print(f"{peer.title} is left out: {obstacle}")
            continue
        with console.status(f"installing {peer.title}, unless it is there"):
            install(peer)
        possible.append(peer)
    return possible


if __name__ == "__main__":
    raise SystemExit(main())
