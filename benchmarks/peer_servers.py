"""The peers: how each is installed, started, and asked, by its own documentation."""

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.models import BenchmarkModel
from benchmarks.processes import Server
from benchmarks.uploads import UploadForm
from benchmarks.workspace import ENVIRONMENTS, ROOT, WORKERS, clean_environment, find_port

_PEERS = ROOT / "benchmarks" / "peers"
_SHARED_REQUIREMENTS = _PEERS / "model_function.txt"


@dataclass(frozen=True)
class Launch:
    """What a peer's command line is made of."""

    python: Path
    port: int
    folder: Path


@dataclass(frozen=True)
class Peer:
    """A server of the comparison. ``needs``: a program beyond Python, and the package with it.

    ``twin``: the peer whose folder and environment it shares, if it is one that is set otherwise.
    """

    name: str
    title: str
    form: UploadForm
    command: Callable[[Launch], list[str]]
    variables: Mapping[str, str] = field(default_factory=dict)
    needs: tuple[str, str] | None = None
    twin: str = ""

    @property
    def environment(self) -> Path:
        """Its virtual environment."""
        return ENVIRONMENTS / (self.twin or self.name)

    @property
    def requirements(self) -> Path:
        """What is installed there."""
        return _PEERS / (self.twin or self.name) / "requirements.txt"

    def find_obstacle(self) -> str | None:
        """Why it can't run here, or ``None``."""
        if self.needs and shutil.which(self.needs[0]) is None:
            return f"{self.needs[0]} is missing: install {self.needs[1]}"
        return None

    def version(self) -> str:
        """As its requirements pin it."""
        line = self.requirements.read_text().splitlines()[1]
        return line.partition("==")[2]

    def start(self, folder: Path, model: BenchmarkModel) -> tuple[Server, int]:
        """Start it on a free port; gives the server, which is not ready yet, and the port."""
        port = find_port()
        folder.mkdir(parents=True, exist_ok=True)
        launch = Launch(self.environment / "bin" / "python", port, folder)
        variables = {
            "BENCHMARK_PORT": str(port),
            "BENCHMARK_FOLDER": str(folder),
            "BENCHMARK_WORKERS": str(WORKERS),
            "PATH": f"{launch.python.parent}:{clean_environment()['PATH']}",
            **model.environment(),
            **{
                name: text.format(port=port, folder=folder) for name, text in self.variables.items()
            },
        }
        command = self.command(launch)
        return Server(self.name, command, clean_environment(**variables), folder), port


def _module(name: str) -> Callable[[Launch], list[str]]:
    return lambda launch: [str(launch.python), "-m", f"benchmarks.peers.{name}.server"]


def _bentoml(launch: Launch) -> list[str]:
    service = "benchmarks.peers.bentoml.server:Classifier"
    options = ["--host", "127.0.0.1", "--port", str(launch.port), "--working-dir", str(ROOT)]
    return [str(launch.python), "-m", "bentoml", "serve", service, *options]


def _torchserve(launch: Launch) -> list[str]:
    """Pack the handler into an archive, write the settings, start in the foreground."""
    store = launch.folder / "store"
    store.mkdir(exist_ok=True)
    handler = _PEERS / "torchserve" / "handler.py"
    pack = [launch.python.with_name("torch-model-archiver"), "--model-name", "classifier"]
    pack += ["--version", "1.0", "--handler", handler, "--export-path", store, "--force"]
    subprocess.run([str(word) for word in pack], check=True, capture_output=True)
    settings = {
        "inference_address": f"http://127.0.0.1:{launch.port}",
        "management_address": f"http://127.0.0.1:{find_port()}",
        "metrics_address": f"http://127.0.0.1:{find_port()}",
        "grpc_inference_port": find_port(),
        "grpc_management_port": find_port(),
        "default_workers_per_model": WORKERS,
        "disable_system_metrics": "true",
        "job_queue_size": 1000,
        "model_store": store,
        "vmargs": f"-Dlog4j.configurationFile=file://{_PEERS / 'torchserve' / 'log4j2.xml'}",
    }
    path = launch.folder / "config.properties"
    path.write_text("".join(f"{name}={text}\n" for name, text in settings.items()))
    start = [launch.python.with_name("torchserve"), "--start", "--foreground", "--ts-config", path]
    start += ["--models", "classifier=classifier.mar", "--disable-token-auth"]
    return [str(word) for word in start]


PEERS = (
    Peer("litserve", "LitServe", UploadForm("/predict", "file"), _module("litserve")),
    Peer(
        "bentoml",
        "BentoML",
        UploadForm("/classify"),
        _bentoml,
        {"BENTOML_HOME": "{folder}/bentoml", "BENTOML_DO_NOT_TRACK": "True"},
    ),
    Peer(
        "mosec",
        "Mosec",
        UploadForm("/inference"),
        _module("mosec"),
        {
            "MOSEC_PORT": "{port}",
            "MOSEC_ADDRESS": "127.0.0.1",
            "MOSEC_LOG_LEVEL": "error",
            "MOSEC_TIMEOUT": "30000",
        },
    ),
    Peer(
        "ray_serve",
        "Ray Serve",
        UploadForm("/"),
        _module("ray_serve"),
        {"RAY_USAGE_STATS_ENABLED": "0"},
    ),
    Peer(
        "ray_serve_tuned",
        "Ray Serve, throughput-optimised",
        UploadForm("/"),
        _module("ray_serve"),
        {"RAY_SERVE_THROUGHPUT_OPTIMIZED": "1", "RAY_USAGE_STATS_ENABLED": "0"},
        twin="ray_serve",
    ),
    Peer(
        "torchserve",
        "TorchServe",
        UploadForm("/predictions/classifier"),
        _torchserve,
        {"LOG_LOCATION": "{folder}/logs", "METRICS_LOCATION": "{folder}/logs"},
        needs=("java", "Debian's openjdk-17-jre-headless"),
    ),
)


def install(peer: Peer) -> None:
    """Make the peer's virtual environment, unless it is there and its requirements are the same."""
    text = peer.requirements.read_bytes() + _SHARED_REQUIREMENTS.read_bytes()
    stamp, digest = peer.environment / "installed", hashlib.sha256(text).hexdigest()
    if stamp.exists() and stamp.read_text() == digest:
        return
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(peer.environment)], check=True)
    pip = [str(peer.environment / "bin" / "python"), "-m", "pip", "install", "-qq"]
    pip += ["--disable-pip-version-check", "-r", str(peer.requirements)]
    subprocess.run(pip, check=True)
    stamp.write_text(digest)
