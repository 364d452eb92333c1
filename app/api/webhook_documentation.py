"""The words of /docs about webhooks."""

from typing import Any

from app.api.documentation import REQUEST_ID_HEADER, problem_responses
from app.core.errors import (
    BadRequestError,
    CrossOriginError,
    InvalidRequestError,
    NotJsonError,
    ResultsFullError,
    ServiceError,
    ServiceUnavailableError,
    SlowUploadError,
    StorageFullError,
)
from app.core.webhook_errors import (
    DeliveryNotFoundError,
    TooManyWebhooksError,
    WebhookAddressError,
    WebhookDisabledError,
    WebhookNotFoundError,
    WebhookPortError,
    WebhooksClosedError,
)
from app.models.schemas import (
    EXAMPLE_DELIVERY_ID,
    Delivery,
    DeliveryList,
    Webhook,
    WebhookCreated,
    WebhookList,
    WebhookRequest,
    WebhookSecret,
)

DEFAULT_LIMIT = 50
LARGEST_LIMIT = 100
LARGEST_CURSOR = 9_999_999_999_999_999

_BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": WebhookRequest.model_json_schema()}},
    }
}


def _path(name: str, description: str, schema: dict[str, Any], example: str) -> dict[str, Any]:
    parameter = {"name": name, "in": "path", "required": True, "description": description}
    return {"parameters": [parameter | {"schema": schema, "example": example}]}


_UUID = {"type": "string", "format": "uuid"}
_WEBHOOK_ID = _path(
    "webhook_id", "As the registration named it.", _UUID, "8d2e1f5c-7b0a-4c55-9a86-0a8b3c6e2f41"
)
_DELIVERY_ID = _path(
    "delivery_id", "As the header `webhook-id` named it.", {"type": "string"}, EXAMPLE_DELIVERY_ID
)

_PAGE = {
    "parameters": [
        {
            "name": "webhook_id",
            "in": "query",
            "description": "Only the deliveries of this webhook.",
            "schema": {"type": "string"},
        },
        {
            "name": "limit",
            "in": "query",
            "description": "How many to list.",
            "schema": {
                "type": "integer",
                "minimum": 1,
                "maximum": LARGEST_LIMIT,
                "default": DEFAULT_LIMIT,
            },
        },
        {
            "name": "cursor",
            "in": "query",
            "description": "`next_cursor` of the page before.",
            "schema": {"type": "string", "pattern": "^[1-9][0-9]{0,15}$"},
        },
    ]
}


def _responses(
    status: int, *errors: type[ServiceError], **about_success: Any
) -> dict[int | str, dict[str, Any]]:
    problems = problem_responses(WebhooksClosedError, *errors, ServiceUnavailableError)
    return {status: {"headers": REQUEST_ID_HEADER, **about_success}} | problems


CREATE: dict[str, Any] = {
    "summary": "Register a webhook",
    "description": "From now on the service POSTs an event to the URL when a job or a batch has "
    "ended. The answer holds the secret that deliveries are signed with; it is shown this once.",
    "response_description": "The webhook is registered.",
    "response_model": WebhookCreated,
    "openapi_extra": _BODY,
    "responses": _responses(
        201,
        CrossOriginError,
        BadRequestError,
        SlowUploadError,
        NotJsonError,
        InvalidRequestError,
        WebhookAddressError,
        WebhookPortError,
        TooManyWebhooksError,
        ResultsFullError,
        StorageFullError,
        **{
            "headers": REQUEST_ID_HEADER
            | {"Location": {"description": "The webhook.", "schema": {"type": "string"}}}
        },
    ),
}

LIST: dict[str, Any] = {
    "summary": "List webhooks",
    "description": "All that are registered, the oldest first, without their secrets.",
    "response_description": "The webhooks.",
    "response_model": WebhookList,
    "responses": _responses(200),
}

GET: dict[str, Any] = {
    "summary": "Show a webhook",
    "description": "Where its events go, and whether it is enabled. Its secret is not shown.",
    "response_description": "The webhook.",
    "response_model": Webhook,
    "openapi_extra": _WEBHOOK_ID,
    "responses": _responses(200, WebhookNotFoundError),
}

DELETE: dict[str, Any] = {
    "summary": "Delete a webhook",
    "description": "It gets nothing any more: what waits for it, and its log, are erased.",
    "response_description": "The webhook is deleted.",
    "openapi_extra": _WEBHOOK_ID,
    "responses": _responses(204, CrossOriginError, WebhookNotFoundError),
}

ROTATE: dict[str, Any] = {
    "summary": "Give a webhook a new secret",
    "description": "For 24 hours the old one signs too, so that receivers can change over. The new "
    "secret is shown this once.",
    "response_description": "The new secret.",
    "response_model": WebhookSecret,
    "openapi_extra": _WEBHOOK_ID,
    "responses": _responses(
        200, CrossOriginError, WebhookNotFoundError, ResultsFullError, StorageFullError
    ),
}

LIST_DELIVERIES: dict[str, Any] = {
    "summary": "List deliveries",
    "description": "The latest deliveries with their attempts. Kept for `WEBHOOK_LOG_TTL` (a week "
    "unless configured), `WEBHOOK_LOG_LENGTH` of each webhook at most.",
    "response_description": "Some of the deliveries.",
    "response_model": DeliveryList,
    "openapi_extra": _PAGE,
    "responses": _responses(200, InvalidRequestError),
}

GET_DELIVERY: dict[str, Any] = {
    "summary": "Show a delivery",
    "description": "Its attempts: when, how long, what the receiver answered.",
    "response_description": "The delivery.",
    "response_model": Delivery,
    "openapi_extra": _DELIVERY_ID,
    "responses": _responses(200, DeliveryNotFoundError),
}

REPLAY: dict[str, Any] = {
    "summary": "Send a delivery again",
    "description": "Under the same `webhook-id`, with all its retries. It is sent at once, even "
    "if the receiver has asked for silence, or again if it is being sent just now.",
    "response_description": "It will be sent.",
    "response_model": Delivery,
    "openapi_extra": _DELIVERY_ID,
    "responses": _responses(
        202,
        CrossOriginError,
        DeliveryNotFoundError,
        WebhookDisabledError,
        ResultsFullError,
        StorageFullError,
    ),
}
