"""The headers of every answer that tell browsers and caches what to do with it.

They are added in one place behind all routes, so that none is without.
"""

from starlette.types import Scope

from app.core.config import CorsSettings

RawHeaders = list[tuple[bytes, bytes]]

_POLICY = b"content-security-policy"
_CACHE_CONTROL = b"cache-control"

REVALIDATED = b"private, no-cache"
"""Kept by the client alone, and asked for anew each time: without it, caches keep even a 404."""

NOT_KEPT = b"no-store"


class AnswerHeaders:
    """Completes the headers of an answer.

    An answer may have a Content-Security-Policy of its own; one that has none is no page, so it may
    load nothing and stand in no frame. It may have a Cache-Control of its own, else it gets that of
    its route (:attr:`~app.api.direct_route.DirectRoute.cache_control`), refusals included.
    """

    def __init__(self, settings: CorsSettings) -> None:
        may_be_read_elsewhere = bool(settings.list_origins())
        self._common = (
            # Nobody guesses that an upload is a script.
            (b"x-content-type-options", b"nosniff"),
            (b"referrer-policy", b"no-referrer"),
            (
                b"cross-origin-resource-policy",
                b"cross-origin" if may_be_read_elsewhere else b"same-origin",
            ),
        )
        self._strict = (
            *self._common,
            (_POLICY, b"default-src 'none'; frame-ancestors 'none'"),
        )

    def complete(self, headers: RawHeaders, scope: Scope) -> None:
        """Add what is missing."""
        known = dict(headers)
        if _CACHE_CONTROL not in known:
            value = getattr(scope.get("route"), "cache_control", REVALIDATED)
            headers.append((_CACHE_CONTROL, value))
        headers += self._common if _POLICY in known else self._strict
