"""Ray Serve: a deployment of two replicas that reads the request's body."""

import os
from typing import Any

import ray
from ray import serve
from starlette.requests import Request

from benchmarks.peers.model_function import create_classifier


@serve.deployment(
    num_replicas=int(os.environ["BENCHMARK_WORKERS"]),
    max_ongoing_requests=16,
    ray_actor_options={"num_cpus": 1},
    logging_config={"enable_access_log": False, "log_level": "WARNING"},
)
class Classifier:
    """One request, one image."""

    def __init__(self) -> None:
        self.classify = create_classifier()

    async def __call__(self, request: Request) -> dict[str, Any]:
        return self.classify(await request.body())


if __name__ == "__main__":
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        _temp_dir=os.environ["BENCHMARK_FOLDER"],
    )
    serve.start(
        http_options={"host": "127.0.0.1", "port": int(os.environ["BENCHMARK_PORT"])},
        logging_config={"enable_access_log": False, "log_level": "WARNING"},
    )
    serve.run(Classifier.bind(), blocking=True)  # type: ignore[attr-defined]
