"""Every error that a user can meet, declared once: what it is called, what it answers, what to do.

``code`` never changes once released: clients compare it. ``detail`` may be worded anew.
"""

from typing import ClassVar


class ConfigurationError(Exception):
    """Raised when a setting, a model file or a manifest is wrong; its text says what to change."""


class ServiceError(Exception):
    """Raised when a request or a job can't be served. Subclasses say why; handled in one place."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal-error"
    title: ClassVar[str] = "Internal error"
    detail: ClassVar[str] = (
        "Something went wrong on our side. Try again; if it stays, quote the request id."
    )
    retry_after_seconds: ClassVar[int | None] = None
    record_code: ClassVar[str] = ""
    """The name in a job's record, where ``code`` also names another kind of error."""

    def __init__(
        self,
        detail: str | None = None,
        *,
        headers: dict[str, str] | None = None,
        job_id: str | None = None,
        batch_id: str | None = None,
    ) -> None:
        """``job_id``, ``batch_id``: the job or batch in question, where there is one."""
        self.text = detail or type(self).detail
        self.headers = dict(headers or {})
        self.job_id = job_id
        self.batch_id = batch_id
        if self.retry_after_seconds is not None:
            self.headers.setdefault("Retry-After", str(self.retry_after_seconds))
        super().__init__(self.text)


class InternalError(ServiceError):
    """Raised when nothing more precise is known; its text never shows a cause."""


class BadRequestError(ServiceError):
    """Raised when a request can't be read."""

    status, code, title = 400, "bad-request", "Bad request"
    detail = "The request could not be read. Compare it with /docs."


class InvalidIdempotencyKeyError(BadRequestError):
    """Raised when the header Idempotency-Key holds no key."""

    code, title = "invalid-idempotency-key", "Invalid Idempotency-Key"
    detail = (
        "Idempotency-Key must be sent once, as 1 to 255 printable ASCII characters in quotes; "
        "letters, digits and hyphens may go without."
    )


class MalformedUploadError(BadRequestError):
    """Raised when a multipart body is broken or ends too early."""

    code, title = "malformed-upload", "Malformed upload"
    detail = "The multipart body is damaged or incomplete. Send it again."


class NotFoundError(ServiceError):
    """Raised when no route has the path."""

    status, code, title = 404, "not-found", "Not found"
    detail = "There is nothing at this address. /docs lists what there is."


class JobNotFoundError(NotFoundError):
    """Raised when a job id was never given out, or its job has expired."""

    code, title = "job-not-found", "Job not found"
    detail = "No job has this id. It was never accepted, or its result has expired."


class JobErasedError(ServiceError):
    """Raised when a job was erased by its owner."""

    status, code, title = 410, "job-erased", "Job erased"
    detail = "This job was erased, with its image and its result."


class JobExpiredError(ServiceError):
    """Raised when an idempotency key comes again whose job is not kept any longer."""

    status, code, title = 410, "job-expired", "Job expired"
    detail = (
        "The image was accepted under this Idempotency-Key before, and its result is not kept any "
        "longer. Send it with a new key to have it classified again."
    )


class JobEndedError(ServiceError):
    """Raised when a job is to be cancelled that has ended."""

    status, code, title = 409, "job-ended", "Job has ended"
    detail = "The job has ended and can't be cancelled any more. Its result says what came of it."


class BatchNotFoundError(NotFoundError):
    """Raised when a batch id was never given out, or its batch has expired."""

    code, title = "batch-not-found", "Batch not found"
    detail = "No batch has this id. It was never accepted, or its results have expired."


class BatchErasedError(ServiceError):
    """Raised when a batch was erased by its owner."""

    status, code, title = 410, "batch-erased", "Batch erased"
    detail = "This batch was erased, with its images and its results."


class BatchExpiredError(ServiceError):
    """Raised when an idempotency key comes again whose batch is not kept any longer."""

    status, code, title = 410, "batch-expired", "Batch expired"
    detail = (
        "The batch was accepted under this Idempotency-Key before, and its results are not kept "
        "any longer. Send it with a new key to have it classified again."
    )


class BatchEndedError(ServiceError):
    """Raised when a batch is to be cancelled whose jobs have all ended."""

    status, code, title = 409, "batch-ended", "Batch has ended"
    detail = "The batch has ended and can't be cancelled any more. Its results are there."


class MethodNotAllowedError(ServiceError):
    """Raised when the path exists but not with this method."""

    status, code, title = 405, "method-not-allowed", "Method not allowed"
    detail = "This address does not take this method. The Allow header names those it takes."

    def __init__(self, *, headers: dict[str, str]) -> None:
        methods = {method.strip() for method in headers.get("Allow", "").split(",")}
        if "GET" in methods:
            methods.add("HEAD")
        super().__init__(headers=headers | {"Allow": ", ".join(sorted(methods))})


class MisdirectedRequestError(ServiceError):
    """Raised when a request names no host, several, or one that this service is not."""

    status, code, title = 421, "misdirected-request", "Not this host"
    # Without the name itself, which anybody may have written.
    detail = (
        "The request's Host is no name of this service. Use its address, or list the name in "
        "ALLOWED_HOSTS and start the service again."
    )


class BatchTooLargeError(ServiceError):
    """Raised when the images of a batch take more than QUEUE_MAX_BYTES, and never could wait."""

    status, code, title = 413, "batch-too-large", "Batch too large"
    detail = (
        "The images of a batch may have QUEUE_MAX_BYTES together at most (2 GiB unless "
        "configured). Send several batches."
    )


class SlowUploadError(ServiceError):
    """Raised when a body stops arriving, or takes too long."""

    status, code, title = 408, "slow-upload", "Upload took too long"
    detail = (
        "The body came too slowly, or stopped. Send it again; over a slow line, send smaller files "
        "and smaller batches."
    )


class SlowRequestError(ServiceError):
    """Raised when the head of a request is begun and not completed in time."""

    status, code, title = 408, "slow-request", "Request took too long"
    detail = "The request's headers did not all arrive in time. Send it again."


class HeadTooLargeError(ServiceError):
    """Raised when a request's line, headers or trailers are more than HTTP_HEAD_… allows."""

    status, code, title = 431, "head-too-large", "Headers too large"
    detail = "The request has too many headers, or too much in them, its address or its trailers."


class NotMultipartError(ServiceError):
    """Raised when a body is not multipart/form-data."""

    status, code, title = 415, "not-multipart", "Not a form upload"
    detail = "Send the image as multipart/form-data in the field 'file'."


class NotJsonError(ServiceError):
    """Raised when a body is not sent as JSON.

    Web pages of other origins may send everything else without asking first.
    """

    status, code, title = 415, "not-json", "Not JSON"
    detail = "Send JSON with the header 'Content-Type: application/json'."


class InvalidRequestError(ServiceError):
    """Raised when a request is readable but says something that can't be meant."""

    status, code, title = 422, "invalid-request", "Invalid request"
    detail = "A value is missing or not allowed."


class MissingFileError(InvalidRequestError):
    """Raised when an upload has no field 'file', or more than one."""

    code, title = "missing-file", "No image in the request"
    detail = "Send exactly one file in the field 'file'."


class MissingImagesError(MissingFileError):
    """Raised when a batch has no images."""

    detail = "Send images in fields 'file', or a zip file of images in the field 'archive'."


class UnreadPartsError(InvalidRequestError):
    """Raised when a form brings more than its images and what belongs to them."""

    code, title = "unread-parts", "Too much beside the images"
    detail = (
        "The form holds more than 1,000 fields that nobody reads, or too many bytes beside its "
        "images. Send the images alone."
    )


class TooManyImagesError(InvalidRequestError):
    """Raised when a batch has more images than are accepted in one step."""

    code, title = "too-many-images", "Too many images"
    detail = "A batch has too many images. Send several batches."


class MalformedArchiveError(InvalidRequestError):
    """Raised when an archive is not a zip file, or damaged."""

    code, title = "malformed-archive", "Not a zip file"
    detail = "The archive is not a zip file, or is damaged. Pack it again."


class UnsafeArchiveError(InvalidRequestError):
    """Raised when an archive is encrypted, or would unpack to more than fits or makes sense."""

    code, title = "unsafe-archive", "Archive refused"
    detail = "The archive can't be unpacked safely."


class IdempotencyKeyInUseError(ServiceError):
    """Raised when the first request with an idempotency key is still arriving."""

    status, code, title = 409, "idempotency-key-in-use", "Idempotency-Key in use"
    detail = "Another request with this Idempotency-Key is still arriving. Send this one again."
    retry_after_seconds = 1


class IdempotencyKeyReusedError(InvalidRequestError):
    """Raised when an idempotency key comes with other images or options than before."""

    code, title = "idempotency-key-reused", "Idempotency-Key reused"
    detail = (
        "This Idempotency-Key came with other images or other options before. Use a new key for "
        "each new request."
    )


class CrossOriginError(ServiceError):
    """Raised when a web page of another origin would change something."""

    status, code, title = 403, "cross-origin", "Page of another origin"
    detail = (
        "Pages of other origins may change nothing here. If this is the service's own page, a "
        "reverse proxy must pass the Host header on, or name this origin in CORS_ORIGINS."
    )


class UnauthorizedError(ServiceError):
    """Raised when /admin is asked without the right token."""

    status, code, title = 401, "unauthorized", "Not authorized"
    detail = "Send the service's admin token: Authorization: Bearer …"


class AdminClosedError(ServiceError):
    """Raised when /admin is asked and no token is set."""

    status, code, title = 403, "admin-closed", "Administration is closed"
    detail = "This service has no admin token. Set ADMIN_TOKEN and start it again."


class DeadLetterNotFoundError(NotFoundError):
    """Raised when no dead letter has the id."""

    code, title = "dead-letter-not-found", "Dead letter not found"
    detail = "No dead letter has this id. It was retried, purged, or has expired."


class QueueFullError(ServiceError):
    """Raised when QUEUE_MAX_JOBS or QUEUE_MAX_BYTES is reached."""

    status, code, title = 429, "queue-full", "Too much work"
    detail = "The queue is full. Send the image again after the time in Retry-After."
    retry_after_seconds = 5

    def __init__(self, retry_after_seconds: int | None = None) -> None:
        seconds = retry_after_seconds or type(self).retry_after_seconds
        super().__init__(headers={"Retry-After": str(seconds)})


class ResultsFullError(QueueFullError):
    """Raised when RESULT_MAX_RECORDS is reached, or Redis's memory has no room for another job."""

    code, title = "results-full", "Too many results"
    detail = (
        "The service keeps as many results as it has room for. Send the image again after the "
        "time in Retry-After, when older ones have expired."
    )
    retry_after_seconds = 60


class ServiceUnavailableError(ServiceError):
    """Raised when Redis or the payload store can't be reached."""

    status, code, title = 503, "service-unavailable", "Service unavailable"
    detail = "The service can't reach its storage at the moment. Try again shortly."
    retry_after_seconds = 2


class TooManyConnectionsError(ServiceUnavailableError):
    """Raised when HTTP_CONNECTIONS or HTTP_CONNECTIONS_PER_CLIENT is reached."""

    code, title = "too-many-connections", "Too many connections"
    detail = "There are too many open connections. Close some, or try again shortly."


class StorageFullError(ServiceUnavailableError):
    """Raised when the disk of the payload store, or of Redis, has no room for another job."""

    code, title = "storage-full", "No room for another image"
    detail = "The service has no room for another image. Try again later."
    retry_after_seconds = 10
