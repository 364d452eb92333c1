"""The physical limit: decode and classify the same images in a plain loop, no service around it.

``python -m benchmarks.bare_loop IMAGE ROUNDS`` prints the CPU time of one image in milliseconds.
"""

import sys
import time
from pathlib import Path

from app.core.config import get_settings
from app.inference.images import decode
from app.models.ml_models import load_model, prepare_model

WARM_UP_ROUNDS = 20


def main() -> None:
    """Measure this process's CPU time over the rounds."""
    image, rounds = Path(sys.argv[1]), int(sys.argv[2])
    settings = get_settings()
    model = load_model(prepare_model(settings), settings)

    def classify(count: int) -> None:
        for _ in range(count):
            model.classify([decode(image.read_bytes(), model.manifest, settings.limits)])

    classify(WARM_UP_ROUNDS)
    started = time.process_time()
    classify(rounds)
    print((time.process_time() - started) * 1000 / rounds)


if __name__ == "__main__":
    main()
