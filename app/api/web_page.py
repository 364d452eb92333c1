"""The web page at ``/``: files of :mod:`app.web`, served as they are."""

from importlib.resources import files

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, Router

from app.api.page_file import MEDIA_TYPES, PageFile
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

# A few small files: read once, so that no request waits for a disk.
_FILES = {
    file.name: PageFile(file.name, file.read_bytes(), _POLICY)
    for file in files("app.web").iterdir()
    if file.name.rpartition(".")[2] in MEDIA_TYPES
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
