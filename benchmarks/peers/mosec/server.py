"""Mosec: one stage of two processes; the request's body is the image, as it takes bytes best."""

import os
from typing import Any

from mosec import Server, Worker

from benchmarks.peers.model_function import create_classifier


class Classifier(Worker):
    """One request, one image."""

    def __init__(self) -> None:
        super().__init__()
        self.classify = create_classifier()

    def deserialize(self, data: bytes) -> bytes:
        return data

    def forward(self, data: bytes) -> dict[str, Any]:
        return self.classify(data)


if __name__ == "__main__":
    server = Server()
    server.append_worker(Classifier, num=int(os.environ["BENCHMARK_WORKERS"]))
    server.run()
