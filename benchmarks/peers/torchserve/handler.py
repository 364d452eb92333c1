"""TorchServe: a custom handler as its documentation has it; a worker calls it with a batch."""

from typing import Any

from benchmarks.peers.model_function import create_classifier


class ClassifierHandler:
    """One request, one image: the batch size is left at 1."""

    def initialize(self, context: Any) -> None:
        self.classify = create_classifier()

    def handle(self, rows: list[dict[str, Any]], context: Any) -> list[dict[str, Any]]:
        return [self.classify(bytes(row.get("data") or row["body"])) for row in rows]
