"""Decoding in a process of its own: the same pixels, and an end to everything that has none."""

import io
import os
import resource
import signal
import subprocess
import sys

import numpy as np
import psutil
import pytest
from PIL import Image

from app.core.config import LimitSettings
from app.core.job_errors import (
    DecoderLostError,
    DecodingStalledError,
    ImageTooCostlyError,
    JobFailedError,
    OversizedImageError,
    TruncatedImageError,
)
from app.inference.decoding.guard import Budget, GuardedDecoder, cpu_alarm
from app.inference.images import decode
from tests.framing import FRAMING
from tests.image_files import make_png
from tests.jpeg_files import PROGRESSIVE, Scan, make_jpeg, render_frame
from tests.service import wait_until
from tests.workplace import read_sample

LIMITS = LimitSettings()


# Two seconds of a processor for 240 bytes.
SLOW = make_jpeg(render_frame(10_000, 5_000, PROGRESSIVE), [Scan(), *[Scan(high=1)] * 19])


def _draw_in_scans(mode: str) -> bytes:
    file = io.BytesIO()
    Image.new(mode, (5_000, 4_000)).save(file, "JPEG", progressive=True)
    return file.getvalue()


LARGE = make_png(7_000, 7_000, bytes(7_000 * 28_001), colour=6)


def decode_guarded(data: bytes, budget: Budget = Budget()) -> "np.ndarray":
    decoder = GuardedDecoder(data, FRAMING, LIMITS, budget)
    try:
        wait_until(decoder.is_done)
        return decoder.read_pixels()
    finally:
        decoder.close()


@pytest.mark.parametrize("name", ["cat.jpg", "coffee.jpg"])
def test_pixels_are_those_that_are_decoded_without_a_guard(name: str) -> None:
    data = read_sample(name)
    np.testing.assert_array_equal(decode_guarded(data), decode(data, FRAMING, LIMITS))


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (read_sample("cat.jpg")[:5_000], TruncatedImageError),
        (_draw_in_scans("CMYK")[:20_000], TruncatedImageError),
        (make_png(16_000, 16_000, b""), OversizedImageError),
    ],
)
def test_a_bad_image_fails_as_without_a_guard(data: bytes, error: type[JobFailedError]) -> None:
    with pytest.raises(error) as guarded:
        decode_guarded(data)
    with pytest.raises(error) as bare:
        decode(data, FRAMING, LIMITS)
    assert guarded.value.text == bare.value.text


def test_the_kernel_ends_a_decoder_that_takes_too_much_time() -> None:
    before = os.times()
    with pytest.raises(ImageTooCostlyError):
        decode_guarded(SLOW, Budget(cpu_seconds=1))
    after = os.times()
    used = after.children_user + after.children_system
    used -= before.children_user + before.children_system
    assert used < 1.5


@pytest.mark.parametrize(
    ("data", "megabytes"), [(LARGE, 300), (SLOW, 160), (_draw_in_scans("CMYK"), 180)]
)
def test_a_decoder_that_takes_too_much_memory_says_so(data: bytes, megabytes: int) -> None:
    """Also where libjpeg did not get it, which Pillow takes for damage."""
    with pytest.raises(ImageTooCostlyError):
        decode_guarded(data, Budget(memory_bytes=megabytes * 1_000_000))


def test_an_image_without_a_decoder_leaves_no_file_open() -> None:
    lowest = os.dup(0)
    os.close(lowest)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + 1, hard))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            GuardedDecoder(SLOW, FRAMING, LIMITS, Budget())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert os.dup(0) == lowest
    os.close(lowest)


def test_a_large_image_is_decoded_without_a_second_copy() -> None:
    # 196 MB, and the libraries' share.
    assert decode_guarded(LARGE, Budget(memory_bytes=450_000_000)).shape == (224, 224, 3)


@pytest.mark.parametrize(
    ("cpu_seconds", "longest_seconds", "wall_seconds"),
    [(3, 80.0, 30.0), (3, 20.0, 20.0), (5, 80.0, 50.0), (60, 80.0, 80.0)],
)
def test_real_time_ends_before_the_soft_limit_strikes(
    cpu_seconds: int, longest_seconds: float, wall_seconds: float
) -> None:
    assert Budget.create(cpu_seconds, LIMITS, longest_seconds).wall_seconds == wall_seconds


def test_a_decoder_that_stalls_may_be_tried_again() -> None:
    seconds = iter((0.0, 29.0, 31.0))
    decoder = GuardedDecoder(SLOW, FRAMING, LIMITS, Budget(), lambda: next(seconds))
    assert [decoder.is_done(), decoder.is_done()] == [False, True]
    with pytest.raises(DecodingStalledError):
        decoder.read_pixels()
    decoder.close()
    assert not psutil.pid_exists(decoder.pid)


def test_a_decoder_that_is_killed_by_others_may_be_tried_again() -> None:
    decoder = GuardedDecoder(SLOW, FRAMING, LIMITS, Budget())
    os.kill(decoder.pid, signal.SIGKILL)
    wait_until(decoder.is_done)
    with pytest.raises(DecoderLostError):
        decoder.read_pixels()
    decoder.close()


def test_a_decoder_ends_with_the_process_that_wants_its_pixels() -> None:
    program = (
        "import sys; "
        "from app.core.config import LimitSettings; "
        "from app.inference.decoding.guard import Budget, GuardedDecoder; "
        "from tests.framing import FRAMING; "
        "data = sys.stdin.buffer.read(); "
        "decoder = GuardedDecoder(data, FRAMING, LimitSettings(), Budget(cpu_seconds=60)); "
        "print(decoder.pid, flush=True); "
        "decoder.wait(60)"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert parent.stdin is not None and parent.stdout is not None
    parent.stdin.write(SLOW)
    parent.stdin.close()
    decoder = psutil.Process(int(parent.stdout.readline()))
    # It has to have begun, and asked the kernel for that.
    wait_until(lambda: decoder.memory_info().rss > 100 << 20)
    parent.kill()
    parent.wait()
    wait_until(lambda: not decoder.is_running() or decoder.status() == psutil.STATUS_ZOMBIE)


def test_a_decoder_is_a_slim_process() -> None:
    program = (
        "import sys, app.inference.decoding.decoder; "
        "heavy = 'torch', 'onnxruntime', 'openvino', 'celery', 'redis', 'pydantic'; "
        "print([name for name in heavy if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.stdout.strip() == "[]", run.stderr


def test_a_decoder_is_told_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADMIN_TOKEN", "a secret")
    decoder = GuardedDecoder(SLOW, FRAMING, LIMITS, Budget())
    environment = psutil.Process(decoder.pid).environ()
    decoder.close()
    assert "OMP_NUM_THREADS" in environment and "ADMIN_TOKEN" not in environment


def test_an_alarm_ends_the_process_in_the_middle_of_a_decoder() -> None:
    child = os.fork()
    if not child:
        with cpu_alarm(0.1):
            decode(SLOW, FRAMING, LIMITS)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGPROF


def test_an_alarm_is_off_when_the_image_is_decoded() -> None:
    with cpu_alarm(60):
        decode(read_sample("cat.jpg"), FRAMING, LIMITS)
    assert signal.getitimer(signal.ITIMER_PROF) == (0.0, 0.0)
