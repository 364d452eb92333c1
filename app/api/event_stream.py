"""One answer of Server-Sent Events, after the HTML standard's rules for ``EventSource``."""

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from app.api.event_feeds import EventFeeds, Listener

# How long a client waits before it comes back. As long as a server takes to start again, about.
_RETRY_MS = 2000

_HEADERS = {
    "Cache-Control": "no-store",
    # nginx would hold events back until it has some kilobytes.
    "X-Accel-Buffering": "no",
}


class EventStream(Response):
    """The present state of ``key`` first, then each change, until the last or the client goes.

    A client that comes back and has the present state hears of the next; one that has the last is
    told by 204 to stay away.
    """

    media_type = "text/event-stream"

    def __init__(self, request: Request, feeds: EventFeeds, key: str) -> None:
        # No body of its own, as in starlette's StreamingResponse.
        self.status_code = 200
        self.init_headers(_HEADERS)
        self._feeds = feeds
        self._key = key
        self._known_version = request.headers.get("last-event-id", "")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        listener = Listener(send)
        with self._feeds.join(self._key, listener) as feed:
            feed.publish(await self._feeds.look(self._key))
            if feed.newest.is_last and feed.newest.version == self._known_version != "":
                await Response(status_code=204)(scope, receive, send)
                return
            start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
            await send(start)
            body = f"retry: {_RETRY_MS}\n\n".encode()
            await send({"type": "http.response.body", "body": body, "more_body": True})
            listener.open(feed, self._known_version)
            # All else is sent by the feed; this waits for the end, from whichever side.
            while (await receive())["type"] != "http.disconnect":
                pass
