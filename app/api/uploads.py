"""Receiving an image: parsed once as it arrives, refused as soon as anything is wrong with it."""

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request

from app.api.image_header import ImageHeader, ImageHeaderReader
from app.core.config import LimitSettings
from app.core.errors import (
    EmptyFileError,
    FileTooLargeError,
    ImageTooLargeError,
    MalformedUploadError,
    MissingFileError,
    NotMultipartError,
)
from app.jobs.content import ContentDigest
from app.jobs.payloads import PayloadWriter

FIELD = "file"

# What a form may add to its file: boundaries, headers, a few small fields nobody reads.
FORM_OVERHEAD_BYTES = 64 * 1024


class _ImageForm:
    """Pulls the one file out of a multipart body. Raises the errors of :func:`receive_image`."""

    def __init__(self, boundary: bytes) -> None:
        self.complete = False
        self.file_seen = False
        self._chunks: list[bytes] = []
        self._header_name = b""
        self._header_value = b""
        self._in_file = False
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin_part,
                "on_header_field": self._add_header_name,
                "on_header_value": self._add_header_value,
                "on_header_end": self._end_header,
                "on_part_data": self._add_data,
                "on_end": self._end,
            },
        )

    def feed(self, chunk: bytes) -> bytes:
        """Take a piece of the body, give the piece of the file that was in it."""
        self._parser.write(chunk)
        data = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        self._chunks.clear()
        return data

    def _begin_part(self) -> None:
        self._in_file = False

    def _add_header_name(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def _add_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _end_header(self) -> None:
        if self._header_name.lower() == b"content-disposition":
            _, options = parse_options_header(self._header_value)
            if options.get(b"name") == FIELD.encode():
                if self.file_seen:
                    raise MissingFileError(f"There are several fields {FIELD!r}. Send one image.")
                self.file_seen = self._in_file = True
        self._header_name = self._header_value = b""

    def _add_data(self, data: bytes, start: int, end: int) -> None:
        if self._in_file:
            self._chunks.append(data[start:end])

    def _end(self) -> None:
        self.complete = True


def _open_form(request: Request) -> _ImageForm:
    kind, options = parse_options_header(request.headers.get("content-type"))
    if kind != b"multipart/form-data":
        raise NotMultipartError()
    boundary = options.get(b"boundary")
    if not boundary:
        raise MalformedUploadError("The Content-Type header has no multipart boundary.")
    try:
        return _ImageForm(boundary)
    except FormParserError:
        raise MalformedUploadError("The multipart boundary is too long.") from None


def announced_bytes(request: Request, limits: LimitSettings) -> int:
    """How long the image is at least, by what the body says. Raises :class:`FileTooLargeError`."""
    text = request.headers.get("content-length", "")
    length = int(text) if text.isdecimal() else 0
    if length > limits.file_size + FORM_OVERHEAD_BYTES:
        raise _file_too_large(limits)
    return max(length - FORM_OVERHEAD_BYTES, 0)


def _file_too_large(limits: LimitSettings) -> FileTooLargeError:
    return FileTooLargeError(f"The image file may have {limits.file_size:,} bytes at most.")


def _check_dimensions(header: ImageHeader, limits: LimitSettings) -> None:
    width, height = header.width, header.height
    if max(width, height) > limits.image_side or width * height > limits.image_pixels:
        raise ImageTooLargeError(
            f"The image has {width} × {height} pixels; allowed are {limits.image_side:,} a side "
            f"and {limits.image_pixels:,} in all. Scale it down."
        )


async def receive_image(
    request: Request, upload: PayloadWriter, limits: LimitSettings, digest: ContentDigest | None
) -> None:
    """Stream the image in a request's form into ``upload``, checking it on the way.

    ``digest`` gets its bytes too.

    Raises the 4xx errors of :mod:`app.core.errors`; the caller aborts the upload then.
    """
    largest_body = limits.file_size + FORM_OVERHEAD_BYTES
    form = _open_form(request)
    reader = ImageHeaderReader()
    body_bytes = file_bytes = 0
    try:
        async for chunk in request.stream():
            body_bytes += len(chunk)
            data = form.feed(chunk)
            file_bytes += len(data)
            if file_bytes > limits.file_size or body_bytes > largest_body:
                raise _file_too_large(limits)
            if reader.header is None and data:
                reader.feed(data)
                if reader.header is not None:
                    _check_dimensions(reader.header, limits)
            if data:
                if digest is not None:
                    digest.update(data)
                await upload.write(data)
    except (FormParserError, ClientDisconnect) as error:
        raise MalformedUploadError() from error
    if not form.complete:
        raise MalformedUploadError()
    if not form.file_seen:
        raise MissingFileError()
    if not file_bytes:
        raise EmptyFileError()
    reader.finish()
