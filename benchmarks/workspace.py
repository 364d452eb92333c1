"""Where the benchmarks keep what they make, and what they share with every process they start."""

import os
import socket
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WORKSPACE = ROOT / ".benchmarks"
ENVIRONMENTS = WORKSPACE / "environments"
MODEL_CACHE = WORKSPACE / "models"
RESULTS = ROOT / "benchmarks" / "results"

WORKERS = 2
"""Worker processes of every server, and processes of a bare loop."""
CONNECTIONS = 16
"""Connections of the load generator: enough to keep two workers and their batches full."""
JPEG_BYTES = 108 * 1024
"""What an upload of a benchmark measures, about."""

ONE_THREAD = {
    name: "1"
    for name in (
        "OMP_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "MKL_NUM_THREADS",
        "NUMEXPR_NUM_THREADS",
    )
}

# Settings of whoever runs the benchmarks must not reach the servers that are compared.
_FOREIGN = ("REDIS_URL", "DATA_DIR", "ENGINE", "MODEL_PATH", "QUEUE_", "WORKER_", "PAYLOAD_")


def clean_environment(**variables: str) -> dict[str, str]:
    """This process's environment without settings of the service, one thread for each library."""
    inherited = {name: text for name, text in os.environ.items() if not name.startswith(_FOREIGN)}
    shared = {"NO_COLOR": "1", "PYTHONPATH": str(ROOT), "MODEL_CACHE_DIR": str(MODEL_CACHE)}
    return inherited | ONE_THREAD | shared | variables


def find_port() -> int:
    """A loopback port that nothing listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
