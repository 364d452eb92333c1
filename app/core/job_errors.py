"""How an accepted job can fail.

What a result may say is in :data:`JOB_ERRORS`, by its name in a job's record.
"""

from typing import ClassVar

from app.core.errors import ServiceError
from app.core.image_errors import IMAGE_ERRORS


class JobFailedError(ServiceError):
    """Raised when a job ends without predictions through no fault of its image."""

    code, title = "classification-failed", "Classification failed"
    detail = "The model could not classify this image. Submit it again."


class UndecodableImageError(JobFailedError):
    """Raised when an image's data is damaged."""

    status, code, title = 422, "undecodable-image", "Damaged image"
    detail = "The image is damaged and can't be decoded. Export it again and resubmit."


class TruncatedImageError(UndecodableImageError):
    """Raised when an image's data ends too early."""

    code, title = "truncated-image", "Truncated image"
    detail = "The image file ends too early, as after a broken transfer. Send the whole file."


class OversizedImageError(JobFailedError):
    """Raised when decoding would need more memory than allowed."""

    status, code, title = 422, "oversized-image", "Image too large to decode"
    detail = "The image unpacks to more pixels than allowed. Scale it down."


class ImageTooCostlyError(JobFailedError):
    """Raised when decoding takes more time or memory than any image needs that a program wrote."""

    status, code, title = 422, "image-too-costly", "Image too costly to decode"
    detail = (
        "Decoding this image takes far more time or memory than its size asks for. Export it "
        "again, as a baseline JPEG or a plain PNG."
    )


class PayloadLostError(JobFailedError):
    """Raised when a job's upload is no longer in the payload store."""

    code, title = "payload-lost", "Upload lost"
    detail = "The uploaded file is no longer there. Submit the image again."


class DeadlineExceededError(JobFailedError):
    """Raised when a job's deadline passed before a worker came to it."""

    status, code, title = 504, "deadline-exceeded", "Deadline exceeded"
    detail = "The job's time was up before it was its turn. Submit the image again."


class JobCancelledError(JobFailedError):
    """Raised when the result of a job is asked for that its owner has cancelled."""

    status, code, title = 410, "job-cancelled", "Job cancelled"
    detail = "The job was cancelled before it was done. Submit the image again if it is wanted."


class AttemptsExhaustedError(JobFailedError):
    """Raised when a job was tried again and again, in vain."""

    code, title = "attempts-exhausted", "Gave up after several attempts"
    detail = "The service could not classify this image now. Submit it again later."


class WorkerLostError(AttemptsExhaustedError):
    """Raised when a job lost its worker too often."""

    detail = "The workers that took this job were lost again and again. Submit the image again."


class TimedOutError(AttemptsExhaustedError):
    """Raised when classifying a job's image took too long, again and again."""

    detail = "Classifying this image took too long, each time. Sending it again will not help."


class RetryableJobError(AttemptsExhaustedError):
    """Raised when a job can't be done now and perhaps can later. ``reason`` says why not now."""

    reason: ClassVar[str] = "unknown"


class PayloadUnreadableError(RetryableJobError):
    """Raised when the payload store can't be read."""

    reason = "payload_unreadable"


class ModelUnavailableError(RetryableJobError):
    """Raised when a job names another model than its worker's; another worker may have it."""

    code, title = "model-unavailable", "Model not available"
    detail = "No worker came to this job that has the model it names. GET /health lists models."
    reason = "other_model"


class OutOfMemoryError(RetryableJobError):
    """Raised when decoding or the engine ran out of memory."""

    reason = "out_of_memory"


class DecodingStalledError(RetryableJobError):
    """Raised when a decoder used little time of the processor and yet did not end."""

    reason = "decoding_stalled"


class DecoderLostError(RetryableJobError):
    """Raised when a guarded decoder died, and not of its limits."""

    reason = "decoder_lost"


_JOB_ERRORS: tuple[type[ServiceError], ...] = (
    *IMAGE_ERRORS,
    JobFailedError,
    UndecodableImageError,
    TruncatedImageError,
    OversizedImageError,
    ImageTooCostlyError,
    PayloadLostError,
    DeadlineExceededError,
    JobCancelledError,
    AttemptsExhaustedError,
    ModelUnavailableError,
)

JOB_ERRORS = {error.record_code or error.code: error for error in _JOB_ERRORS}
