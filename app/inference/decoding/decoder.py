"""A guarded decoder: ``python -m app.inference.decoding.decoder REQUEST < upload > pixels``.

Started by :mod:`app.inference.decoding.guard`, one an image.
"""

import ctypes
import errno
import json
import os
import signal
import sys

from app.core.job_errors import ImageTooCostlyError, JobFailedError, UndecodableImageError
from app.inference.decoding.guard import REFUSED, DecodingRequest, limit_resources, render_error
from app.inference.images import decode

# Behind the worker processes, which have 5 already: others' images go first.
_NICENESS = 5

_PR_SET_PDEATHSIG = 1


def main() -> int:
    """Decode standard input to standard output. Returns the exit code."""
    request = DecodingRequest(*json.loads(sys.argv[1]))
    limit_resources(request.cpu_seconds, request.memory_bytes)
    _die_with(request.parent)
    os.nice(_NICENESS)
    data = sys.stdin.buffer.read()
    system_error = _find_system_error()
    system_error.value = 0
    try:
        reply, code = decode(data, request, request).tobytes(), 0
    except MemoryError:
        reply, code = render_error(ImageTooCostlyError()), REFUSED
    except UndecodableImageError as error:
        # libjpeg reports memory that it did not get as it reports damage. The C library's note of
        # it stays: what succeeds leaves it alone.
        is_out_of_memory = system_error.value == errno.ENOMEM
        reply = render_error(ImageTooCostlyError() if is_out_of_memory else error)
        code = REFUSED
    except JobFailedError as error:
        reply, code = render_error(error), REFUSED
    sys.stdout.buffer.write(reply)
    sys.stdout.buffer.flush()
    return code


def _find_system_error() -> ctypes.c_int:
    """Return this thread's ``errno`` itself: Python shows it only in exceptions of its own."""
    find = ctypes.CDLL(None).__errno_location
    find.restype = ctypes.POINTER(ctypes.c_int)
    place: ctypes.c_int = find().contents
    return place


def _die_with(parent: int) -> None:
    """End with the worker process that wants the pixels, also if it is killed."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit(1)


if __name__ == "__main__":
    # Nothing is left to tidy up that is worth the time.
    os._exit(main())
