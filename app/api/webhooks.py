"""Webhooks: register where events go, see what was delivered, send it again."""

from typing import cast

from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import Response

from app.api import webhook_documentation as documentation
from app.api.bodies import read_body
from app.api.direct_route import ConfidentialRoute, create_answer, create_router, get_settings
from app.api.job_paths import ANONYMOUS
from app.api.query_parameters import read_number
from app.api.version_prefix import link_to
from app.core.clock import to_datetime
from app.core.errors import BadRequestError, InvalidRequestError, NotJsonError
from app.models import schemas
from app.webhooks.deliveries import DeliveryLog
from app.webhooks.registry import WebhookRegistry
from app.webhooks.webhook import Delivery, EventType, Webhook

router = create_router("webhooks", "/webhooks", ConfidentialRoute)

_JSON = "application/json"
_LARGEST_BODY_BYTES = 16_384


def _get_registry(request: Request) -> WebhookRegistry:
    registry = cast(WebhookRegistry, request.app.state.webhooks)
    registry.check()
    return registry


def _get_log(request: Request) -> DeliveryLog:
    return cast(DeliveryLog, request.app.state.deliveries)


@router.post("", status_code=201, **documentation.CREATE)
async def create_webhook(request: Request) -> Response:
    registry = _get_registry(request)
    wish = await _read_wish(request)
    events = [EventType(name) for name in dict.fromkeys(wish.events)]
    webhook, secret = await registry.create(ANONYMOUS, wish.url, events)
    document = schemas.WebhookCreated(**_describe(webhook).model_dump(), secret=secret)
    return create_answer(
        document, 201, {"Location": link_to(request.scope, f"/webhooks/{webhook.id}")}
    )


@router.get("", **documentation.LIST)
async def list_webhooks(request: Request) -> Response:
    webhooks = await _get_registry(request).list_all(ANONYMOUS)
    return create_answer(schemas.WebhookList(webhooks=[_describe(item) for item in webhooks]))


@router.get("/deliveries", **documentation.LIST_DELIVERIES)
async def list_deliveries(request: Request) -> Response:
    webhooks = await _get_registry(request).list_all(ANONYMOUS)
    limit = read_number(
        request, "limit", documentation.DEFAULT_LIMIT, 1, documentation.LARGEST_LIMIT
    )
    # Numbers begin at 1: without a cursor, from the newest on.
    before = read_number(request, "cursor", 0, 1, documentation.LARGEST_CURSOR) or None
    wanted = request.query_params.getlist("webhook_id")
    ids = [webhook.id for webhook in webhooks if not wanted or webhook.id in wanted]
    page = await _get_log(request).list_newest(ids, limit, before)
    return create_answer(
        schemas.DeliveryList(
            deliveries=[_describe_delivery(item) for item in page.deliveries],
            next_cursor=str(page.next_number) if page.next_number else None,
        )
    )


@router.get("/deliveries/{delivery_id}", **documentation.GET_DELIVERY)
async def get_delivery(request: Request) -> Response:
    _get_registry(request)
    delivery = await _get_log(request).get(ANONYMOUS, request.path_params["delivery_id"])
    return create_answer(_describe_delivery(delivery))


@router.post("/deliveries/{delivery_id}/replay", status_code=202, **documentation.REPLAY)
async def replay_delivery(request: Request) -> Response:
    _get_registry(request)
    log, delivery_id = _get_log(request), request.path_params["delivery_id"]
    await log.replay(ANONYMOUS, delivery_id)
    return create_answer(_describe_delivery(await log.get(ANONYMOUS, delivery_id)), 202)


@router.get("/{webhook_id:uuid}", **documentation.GET)
async def get_webhook(request: Request) -> Response:
    webhook = await _get_registry(request).get(ANONYMOUS, _read_id(request))
    return create_answer(_describe(webhook))


@router.delete("/{webhook_id:uuid}", status_code=204, **documentation.DELETE)
async def delete_webhook(request: Request) -> Response:
    await _get_registry(request).delete(ANONYMOUS, _read_id(request))
    return Response(status_code=204)


@router.post("/{webhook_id:uuid}/rotate-secret", **documentation.ROTATE)
async def rotate_webhook_secret(request: Request) -> Response:
    webhook_id = _read_id(request)
    secret = await _get_registry(request).rotate_secret(ANONYMOUS, webhook_id)
    return create_answer(
        schemas.WebhookSecret(webhook_id=request.path_params["webhook_id"], secret=secret)
    )


async def _read_wish(request: Request) -> schemas.WebhookRequest:
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != _JSON:
        raise NotJsonError()
    body = b""
    async for chunk in read_body(request, get_settings(request).http.json_seconds):
        body += chunk
        if len(body) > _LARGEST_BODY_BYTES:
            raise InvalidRequestError(f"The body has more than {_LARGEST_BODY_BYTES:,} bytes.")
    try:
        return schemas.WebhookRequest.model_validate_json(body)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        if problem["type"] == "json_invalid":
            raise BadRequestError('Send JSON, like {"url": "https://…"}.') from None
        place = ".".join(map(str, problem["loc"])) or "The body"
        raise InvalidRequestError(f"{place}: {problem['msg']}.") from None


def _read_id(request: Request) -> str:
    return str(request.path_params["webhook_id"])


def _describe(webhook: Webhook) -> schemas.Webhook:
    return schemas.Webhook.model_validate(
        {
            "webhook_id": webhook.id,
            "url": webhook.url,
            "events": list(webhook.events),
            "enabled": webhook.is_enabled,
            "created_at": to_datetime(webhook.created_ms),
            "dropped": webhook.dropped,
        }
    )


def _describe_delivery(delivery: Delivery) -> schemas.Delivery:
    return schemas.Delivery.model_validate(
        {
            "delivery_id": delivery.id,
            "webhook_id": delivery.webhook_id,
            "type": delivery.type,
            "job_id": delivery.job_id or None,
            "batch_id": delivery.batch_id or None,
            "status": delivery.state,
            "reason": delivery.reason or None,
            "created_at": to_datetime(delivery.created_ms),
            "next_attempt_at": to_datetime(delivery.due_ms) if delivery.due_ms else None,
            "ended_at": to_datetime(delivery.ended_ms) if delivery.ended_ms else None,
            "attempts": [
                note | {"started_at": to_datetime(note["started_ms"])} for note in delivery.trail
            ],
        }
    )
