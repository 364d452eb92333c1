"""What requests and answers say of the result cache (RFC 9111, RFC 9211)."""

from starlette.requests import Request

from app.api.header_lists import list_items
from app.core.config import Settings
from app.jobs.job import Reception

_STATUS = {
    Reception.ACCEPTED: "classifier; fwd=miss",
    Reception.ANSWERED: "classifier; hit",
    Reception.JOINED: "classifier; fwd=miss; collapsed",
}


class CacheUse:
    """How one request uses the cache.

    ``shares``: its answer may be one for others; ``is_fresh``: it takes none of others.
    """

    def __init__(self, shares: bool, is_fresh: bool) -> None:
        self.shares = shares
        self.is_fresh = is_fresh

    def describe(self, reception: Reception) -> dict[str, str]:
        """The header of the answer; none while the cache is off or not to be used."""
        if not self.shares:
            return {}
        status = "classifier; fwd=request" if self.is_fresh else _STATUS[reception]
        return {"Cache-Status": status}


def read_cache_use(request: Request, settings: Settings) -> CacheUse:
    """``Cache-Control: no-cache`` asks for a new answer, ``no-store`` for one of its own."""
    if not settings.result.cache_entries:
        return CacheUse(shares=False, is_fresh=False)
    directives = {name for name, _ in list_items(request, "cache-control")}
    return CacheUse(shares="no-store" not in directives, is_fresh="no-cache" in directives)
