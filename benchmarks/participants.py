"""Who takes part in a round, all measured alike: our service, its peers, bare loops."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from benchmarks.bare_loop import run_bare_loops
from benchmarks.bystanders import Bystanders
from benchmarks.load import LoadResult, run_load
from benchmarks.models import BenchmarkModel, is_same_answer
from benchmarks.peer_servers import Peer
from benchmarks.processes import ServerError, cpu_seconds
from benchmarks.results import Row
from benchmarks.service import ask_for_answer, run_service
from benchmarks.uploads import SERVICE_FORM, UploadForm

WARM_UP_SECONDS = 2.0
PEER_START_SECONDS = 120.0


@dataclass(frozen=True)
class Session:
    """What a measurement has to work with."""

    folder: Path
    images: Sequence[Path]
    seconds: float


class Participant(Protocol):
    """Runs by itself for some seconds; gives a row with ``rate``, images a second, and more."""

    @property
    def name(self) -> str:
        """What rows call it."""

    def measure(self, session: Session) -> Row:
        """Start, warm up, measure, stop. Raises :class:`ServerError` when it can't."""


@dataclass(frozen=True)
class ServiceParticipant:
    """Our service, asked once for each image like the others: ``Prefer: wait``."""

    name: str
    model: BenchmarkModel
    variables: Mapping[str, str] = field(default_factory=dict)
    prepare: Callable[[int], None] = lambda port: None
    """Done to the service at this port before it is measured."""

    def measure(self, session: Session) -> Row:
        # The peers have no cache of results; with one, six images would all be hits.
        variables = {"ENGINE": self.model.engine, "RESULT_CACHE_ENTRIES": "0", **self.variables}
        with run_service(session.folder / self.name, **variables) as service:
            load = _Load(session, service.port, SERVICE_FORM, self.model)
            load.check()
            self.prepare(service.port)
            load.run(WARM_UP_SECONDS)
            before, bystanders = service.cpu_seconds(), Bystanders()
            result = load.run(session.seconds)
            spent = {group: after - before[group] for group, after in service.cpu_seconds().items()}
            others = bystanders.cores(sum(spent.values()) + result.load_cpu_seconds)
            memory = service.api_memory_mb()
        groups = {group: seconds * 1000 / result.requests for group, seconds in spent.items()}
        row = {**result.to_row(), "cpu_ms": sum(groups.values()), "groups": groups}
        return {**row, **memory, "others_cores": others}


@dataclass(frozen=True)
class PeerParticipant:
    """A peer with one of the models."""

    peer: Peer
    model: BenchmarkModel

    @property
    def name(self) -> str:
        """As its folder and environment are called."""
        return self.peer.name

    def measure(self, session: Session) -> Row:
        server, port = self.peer.start(session.folder / self.name, self.model)
        with server:
            load = _Load(session, port, self.peer.form, self.model)
            server.wait_for(load.is_answered, PEER_START_SECONDS)
            load.check()
            load.run(WARM_UP_SECONDS)
            before, bystanders = cpu_seconds(server.tree()), Bystanders()
            result = load.run(session.seconds)
            spent = cpu_seconds(server.tree()) - before
            others = bystanders.cores(spent + result.load_cpu_seconds)
        row = {**result.to_row(), "cpu_ms": spent * 1000 / result.requests}
        return {**row, "others_cores": others}


@dataclass(frozen=True)
class LoopParticipant:
    """Bare loops of one kind."""

    name: str
    loop: str
    model: BenchmarkModel

    def measure(self, session: Session) -> Row:
        return dict(run_bare_loops(self.loop, self.model, session.images, session.seconds))


class _Load:
    """Uploads of the session's images to one server."""

    def __init__(
        self, session: Session, port: int, form: UploadForm, model: BenchmarkModel
    ) -> None:
        self._images = [image.read_bytes() for image in session.images]
        self._answers = model.find_answers(tuple(session.images))
        self._requests = form.write_requests(
            list(session.images), session.folder / f"requests-{port}"
        )
        self._port, self._form = port, form

    def is_answered(self) -> bool:
        """Whether an upload is classified already."""
        try:
            ask_for_answer(self._port, self._form, self._images[0])
        except (OSError, ServerError):
            return False
        return True

    def check(self) -> None:
        """Raises :class:`ServerError` unless every image gets the model function's answer."""
        for image, expected in zip(self._images, self._answers, strict=True):
            answer = ask_for_answer(self._port, self._form, image)
            if not is_same_answer(answer, expected):
                raise ServerError(f"{self._form.path} answered {answer} instead of {expected}")

    def run(self, seconds: float) -> LoadResult:
        """Post in turn, and look at the class in every answer."""
        classes = sorted({name for name, _ in self._answers})
        return run_load(self._port, self._requests, seconds, classes=classes)
