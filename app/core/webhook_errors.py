"""Errors of webhooks and their deliveries."""

from app.core.errors import InvalidRequestError, NotFoundError, ServiceError


class WebhooksClosedError(ServiceError):
    """Raised when webhooks are asked for and there is no history to make them from."""

    status, code, title = 403, "webhooks-closed", "No webhooks here"
    detail = (
        "This service keeps no history, which webhooks are made from: QUEUE_HISTORY_LENGTH is 0."
    )


class WebhookNotFoundError(NotFoundError):
    """Raised when no webhook of the caller's has the id."""

    code, title = "webhook-not-found", "Webhook not found"
    detail = "No webhook has this id. It was never registered, or is deleted."


class WebhookAddressError(InvalidRequestError):
    """Raised when a webhook's URL leads where deliveries never go."""

    code, title = "webhook-address-refused", "Webhook address refused"
    detail = "Webhooks go to public addresses only, unless WEBHOOK_ALLOWED_NETWORKS names others."


class WebhookPortError(InvalidRequestError):
    """Raised when a webhook's URL names a port that deliveries never go to."""

    code, title = "webhook-port-refused", "Webhook port refused"
    detail = (
        "Webhooks go to port 80, port 443, or one from 1024 on that is not among "
        "WEBHOOK_DENIED_PORTS."
    )


class TooManyWebhooksError(ServiceError):
    """Raised when WEBHOOK_MAX_ENDPOINTS is reached."""

    status, code, title = 409, "too-many-webhooks", "Too many webhooks"
    detail = "There are as many webhooks as allowed. Delete one first."


class WebhookDisabledError(ServiceError):
    """Raised when a delivery shall go to a webhook that takes none any more."""

    status, code, title = 409, "webhook-disabled", "Webhook disabled"
    detail = "Its webhook is deleted or has answered 410 Gone. Register it anew."


class DeliveryNotFoundError(NotFoundError):
    """Raised when no delivery of the caller's has the id."""

    code, title = "delivery-not-found", "Delivery not found"
    detail = "No delivery has this id. It was never made, or is too old to be kept."
