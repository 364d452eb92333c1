"""The web page at ``/``: files of :mod:`app.web`, served as they are."""

from hashlib import sha256
from importlib.resources import files

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, Router

from app.api.entity_tags import is_known
from app.core.errors import NotFoundError

# Nothing but the page's own files, and no script or style in its markup. Thumbnails are data URLs.
_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
        # Text never becomes markup or script, whatever a file is called.
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)

_MEDIA_TYPES = {
    "css": "text/css",
    "html": "text/html",
    "js": "text/javascript",
    "svg": "image/svg+xml",
}


class _WebFile:
    """A file of the page with the headers that it is sent with."""

    def __init__(self, name: str, content: bytes) -> None:
        self._content = content
        self._media_type = _MEDIA_TYPES[name.rpartition(".")[2]]
        self._headers = {
            "Content-Security-Policy": _POLICY,
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
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


# A few small files: read once, so that no request waits for a disk.
_FILES = {
    file.name: _WebFile(file.name, file.read_bytes())
    for file in files("app.web").iterdir()
    if file.name.rpartition(".")[2] in _MEDIA_TYPES
}


async def get_page(request: Request) -> Response:
    """The page."""
    return _FILES["index.html"].answer(request)


async def get_web_file(request: Request) -> Response:
    """What the page consists of. Raises :class:`NotFoundError`."""
    file = _FILES.get(request.path_params["name"])
    if file is None:
        raise NotFoundError()
    return file.answer(request)


# Not FastAPI's: pages are no part of the documented API.
router = Router(routes=[Route("/", get_page), Route("/web/{name}", get_web_file)])
