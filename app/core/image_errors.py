"""Errors of an image: how it is refused on its way; in a batch its job fails so."""

from app.core.errors import InvalidRequestError, ServiceError


class FileTooLargeError(ServiceError):
    """Raised when an upload outgrows MAX_FILE_SIZE."""

    status, code, title = 413, "file-too-large", "File too large"
    detail = "The image file is too large. Send a smaller one."


class ImageTooLargeError(ServiceError):
    """Raised when an image has too many pixels, whatever its file's size."""

    status, code, title = 413, "image-too-large", "Image has too many pixels"
    detail = "The image has too many pixels. Scale it down."


class UnsupportedImageError(ServiceError):
    """Raised when an upload is neither JPEG nor PNG by its first bytes."""

    status, code, title = 415, "unsupported-image", "Not a JPEG or PNG image"
    detail = "The file is neither JPEG nor PNG, whatever its name says. Convert it first."


class UnsupportedCodingError(UnsupportedImageError):
    """Raised when a JPEG is coded in a way that hardly any program reads, and no browser."""

    status, title = 422, "JPEG of a coding that no browser shows"
    record_code = "unsupported-coding"
    detail = (
        "The JPEG is arithmetic-coded, lossless or hierarchical, which no browser shows. Export it "
        "as an ordinary JPEG, or as PNG."
    )


class MalformedImageError(ServiceError):
    """Raised when an upload begins like an image but its header makes no sense."""

    status, code, title = 422, "malformed-image", "Damaged image header"
    detail = "The image's header is damaged or incomplete. Export it again and resubmit."


class EmptyFileError(InvalidRequestError):
    """Raised when the uploaded file has no bytes."""

    code, title = "empty-file", "Empty file"
    detail = "The file is empty. Send a JPEG or PNG image."


# How an image is refused on its way; in a batch its job fails so.
IMAGE_ERRORS: tuple[type[ServiceError], ...] = (
    FileTooLargeError,
    ImageTooLargeError,
    UnsupportedImageError,
    UnsupportedCodingError,
    MalformedImageError,
    EmptyFileError,
)
