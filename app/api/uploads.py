"""Receiving an image: parsed once as it arrives, refused as soon as anything is wrong with it."""

from multipart import (
    MultipartError,
    MultipartSegment,
    PushMultipartParser,
    parse_options_header,
)
from starlette.requests import ClientDisconnect, Request

from app.api.bodies import read_body
from app.api.image_inspection import ImageInspector, create_size_error
from app.core.config import LimitSettings, Settings
from app.core.errors import (
    MalformedUploadError,
    MissingFileError,
    NotMultipartError,
    UnreadPartsError,
)
from app.jobs.content import ContentDigest
from app.jobs.in_flight import InFlightUpload
from app.jobs.payloads import PayloadWriter

FIELD = "file"

# What a form may add to its file: boundaries, headers, a few small fields nobody reads.
FORM_OVERHEAD_BYTES = 64 * 1024

# Fields nobody reads. Each costs as much as thousands of an image's bytes.
MOST_UNREAD_PARTS = 1000

# RFC 2046 allows 70; some clients write more.
_LONGEST_BOUNDARY = 256


class _ImageForm:
    """Pulls the one file out of a multipart body. Raises the errors of :func:`receive_image`."""

    def __init__(self, boundary: str) -> None:
        self.file_seen = False
        self.file_bytes = 0
        self._in_file = False
        self._unread_parts = 0
        self._parser = PushMultipartParser(boundary)

    def feed(self, chunk: bytes) -> bytes:
        """Take a piece of the body, give the piece of the file that was in it."""
        data = []
        for event in self._parser.parse(chunk):
            if isinstance(event, MultipartSegment):
                self._in_file = event.name == FIELD
                if self._in_file and self.file_seen:
                    raise MissingFileError(f"There are several fields {FIELD!r}. Send one image.")
                self.file_seen = self.file_seen or self._in_file
                self._unread_parts += not self._in_file
                if self._unread_parts > MOST_UNREAD_PARTS:
                    raise UnreadPartsError()
            elif event is not None and self._in_file:
                data.append(event)
                self.file_bytes += len(event)
        return data[0] if len(data) == 1 else b"".join(data)

    def close(self) -> None:
        """Raises :class:`MultipartError` unless the body was whole."""
        self._parser.close()


def read_boundary(request: Request) -> str:
    """What separates the parts of a form.

    Raises :class:`NotMultipartError` and :class:`MalformedUploadError`.
    """
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    if kind != "multipart/form-data":
        raise NotMultipartError()
    boundary: str = options.get("boundary", "")
    if not 0 < len(boundary) <= _LONGEST_BOUNDARY:
        raise MalformedUploadError("The Content-Type header has no proper multipart boundary.")
    return boundary


def read_length(request: Request) -> int:
    """How long the body says it is, 0 if it does not."""
    text = request.headers.get("content-length", "")
    return int(text) if text.isdecimal() else 0


def announced_bytes(request: Request, limits: LimitSettings) -> int:
    """How long the image is at least, by what the body says. Raises :class:`FileTooLargeError`."""
    length = read_length(request)
    if length > limits.file_size + FORM_OVERHEAD_BYTES:
        raise create_size_error(limits)
    return max(length - FORM_OVERHEAD_BYTES, 0)


async def receive_image(
    request: Request,
    upload: PayloadWriter,
    settings: Settings,
    digest: ContentDigest | None,
    in_flight: InFlightUpload,
) -> None:
    """Stream the image in a request's form into ``upload``, checking it on the way.

    ``digest`` gets its bytes too.

    Raises the 4xx errors of :mod:`app.core.errors`; the caller aborts the upload then.
    """
    limits = settings.limits
    largest_body = limits.file_size + FORM_OVERHEAD_BYTES
    form = _ImageForm(read_boundary(request))
    inspector = ImageInspector(limits)
    body_bytes = 0
    try:
        async for chunk in read_body(request, settings.http.upload_seconds):
            body_bytes += len(chunk)
            if body_bytes > largest_body:
                raise create_size_error(limits)
            data = form.feed(chunk)
            if body_bytes - form.file_bytes > FORM_OVERHEAD_BYTES:
                raise UnreadPartsError() if form.file_seen else MissingFileError()
            if data:
                in_flight.reach(form.file_bytes)
                inspector.feed(data)
                if digest is not None:
                    digest.update(data)
                await upload.write(data)
        form.close()
    except (MultipartError, ClientDisconnect) as error:
        raise MalformedUploadError() from error
    if not form.file_seen:
        raise MissingFileError()
    inspector.finish()
