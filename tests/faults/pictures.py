"""The images that the suite sends, and what the service says of them while all is calm."""

import io
import json
import time
from dataclasses import dataclass
from pathlib import Path

import httpx2
from PIL import Image

from tests.faults.trapped_worker import Trap
from tests.image_files import encode

SAMPLES = Path(__file__).parent.parent.parent / "app" / "samples"
_SIDE = 256
_JPEG_QUALITY = 85
_CALM_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Prediction:
    """The class that the service is surest of, and how sure."""

    class_name: str
    confidence: float


def make_pictures() -> dict[str, bytes]:
    """Six small JPEGs, two of each sample: as it is and mirrored; by name."""
    pictures = {}
    for path in sorted(SAMPLES.glob("*.jpg")):
        with Image.open(path) as sample:
            sample.thumbnail((_SIDE, _SIDE))
            mirrored = sample.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            pictures[path.stem] = encode(sample, "JPEG", quality=_JPEG_QUALITY)
            pictures[f"{path.stem} mirrored"] = encode(mirrored, "JPEG", quality=_JPEG_QUALITY)
    return pictures


def make_traps() -> dict[str, bytes]:
    """The images that set a trapped engine off, by the trap's name."""
    return {trap.name.lower(): trap.render() for trap in Trap}


def ask_calmly(url: str, pictures: dict[str, bytes]) -> dict[str, Prediction]:
    """What the service says of each picture now."""
    expected = {}
    with httpx2.Client(base_url=url, timeout=30) as client:
        for name, picture in pictures.items():
            reply = client.post("/classify", files={"file": io.BytesIO(picture)})
            assert reply.status_code == 202, reply.text
            expected[name] = _wait_for(client, reply.json()["job_id"])
    return expected


def read_prediction(body: bytes) -> Prediction:
    """The first prediction of an answer of ``GET /result``."""
    best = json.loads(body)["predictions"][0]
    return Prediction(best["class_name"], best["confidence"])


def _wait_for(client: httpx2.Client, job_id: str) -> Prediction:
    deadline = time.monotonic() + _CALM_SECONDS
    while (reply := client.get(f"/result/{job_id}")).status_code == 202:
        assert time.monotonic() < deadline, "the service classifies nothing"
        time.sleep(0.02)
    assert reply.status_code == 200, reply.text
    return read_prediction(reply.content)
