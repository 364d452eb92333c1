"""A file of a page that people look at, and the headers that it is sent with."""

from hashlib import sha256

from starlette.requests import Request
from starlette.responses import Response

from app.api.entity_tags import is_known

MEDIA_TYPES = {
    "css": "text/css",
    "html": "text/html",
    "js": "text/javascript",
    "svg": "image/svg+xml",
}


class PageFile:
    """A file's content under the policy of its page.

    Nobody may put the page into a frame, nor hold on to the window that it opens in.
    """

    def __init__(self, name: str, content: bytes, policy: str) -> None:
        self._content = content
        self._media_type = MEDIA_TYPES[name.rpartition(".")[2]]
        self._headers = {
            "Content-Security-Policy": policy,
            # What browsers obeyed before `frame-ancestors`, and scanners look for.
            "X-Frame-Options": "DENY",
            "Cross-Origin-Opener-Policy": "same-origin",
            # Asked for anew at each visit, sent anew only after an update: the files fit together.
            "Cache-Control": "no-cache",
            # Weak, since the compressed form has the same (RFC 9110, 8.8.1).
            "ETag": f'W/"{sha256(content).hexdigest()[:32]}"',
        }

    def answer(self, request: Request) -> Response:
        """The file, or 304 if the browser has it."""
        if is_known(request, self._headers["ETag"]):
            return Response(status_code=304, headers=self._headers)
        return Response(self._content, media_type=self._media_type, headers=self._headers)
