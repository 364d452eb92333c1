"""LitServe: a LitAPI that takes the file of a form, two workers.

Not with ``fast_queue``: with two API processes it gave nearly all requests to one worker.
"""

import os
from typing import Any

import litserve
from fastapi import Request

from benchmarks.peers.model_function import create_classifier


class ClassifierAPI(litserve.LitAPI):
    """One request, one image."""

    def setup(self, device: str) -> None:
        self.classify = create_classifier()

    def decode_request(self, request: Request) -> bytes:
        data: bytes = request["file"].file.read()
        return data

    def predict(self, data: bytes) -> dict[str, Any]:
        return self.classify(data)

    def encode_response(self, output: dict[str, Any]) -> dict[str, Any]:
        return output


if __name__ == "__main__":
    server = litserve.LitServer(
        ClassifierAPI(api_path="/predict"),
        accelerator="cpu",
        workers_per_device=int(os.environ["BENCHMARK_WORKERS"]),
    )
    server.run(
        host="127.0.0.1",
        port=int(os.environ["BENCHMARK_PORT"]),
        log_level="warning",
        generate_client_file=False,
    )
