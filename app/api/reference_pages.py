"""``/docs``, ``/redoc`` and the contract that both show: Swagger UI and Redoc, sent from here.

Most machines that run this see no CDN, and a page with buttons that change jobs shall run nobody
else's script. The libraries are the files of the package `fastapi-offline`; its pages have their
scripts in the markup, which no strict policy allows.
"""

import json
from importlib.resources import files

from anyio.to_thread import run_sync
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, Router

from app.api.page_file import PageFile
from app.api.version_prefix import PREFIX
from app.core.errors import NotFoundError

_RULES = (
    "default-src 'none'",
    "script-src 'self'",
    # The libraries draw their icons with data URLs.
    "img-src 'self' data:",
    "connect-src 'self'",
    "form-action 'none'",
    "base-uri 'none'",
    "frame-ancestors 'none'",
)

_SWAGGER_POLICY = "; ".join((*_RULES, "style-src 'self'"))

# Redoc fills style elements from its script, which a policy lets pass that allows empty ones. Of
# one it writes the text, which is the second's: that of perfect-scrollbar.
_REDOC_STYLES = (
    "'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='",
    "'sha256-QMIg+bpjm3JdElJ388KYke01izlUW0UoNOeKjpMxdgc='",
)

_REDOC_POLICY = "; ".join(
    (
        *_RULES,
        f"style-src 'self' {' '.join(_REDOC_STYLES)}",
        # Its search runs in a worker, whose script is a part of its own.
        "worker-src blob:",
    )
)

_OWN = {
    name: PageFile(name, files("app.reference").joinpath(name).read_bytes(), policy)
    for name, policy in {
        "docs.html": _SWAGGER_POLICY,
        "docs.js": _SWAGGER_POLICY,
        "redoc.html": _REDOC_POLICY,
        "redoc.js": _REDOC_POLICY,
        "redoc.css": _REDOC_POLICY,
    }.items()
}

# 2.8 MB that are seldom asked for: read then, and not kept.
_LIBRARIES = frozenset({"swagger-ui-bundle.js", "swagger-ui.css", "redoc.standalone.js"})

# The one thing that Redoc fetches from elsewhere, beside the link to its makers.
_FOREIGN_LOGO = b"https://cdn.redoc.ly/redoc/logo-mini.svg"
_NO_LOGO = b"data:,"


async def get_docs(request: Request) -> Response:
    """Swagger UI."""
    return _OWN["docs.html"].answer(request)


async def get_redoc(request: Request) -> Response:
    """Redoc."""
    return _OWN["redoc.html"].answer(request)


async def get_reference_file(request: Request) -> Response:
    """One of the files that the two consist of. Raises :class:`NotFoundError`."""
    name = request.path_params["name"]
    if name in _OWN:
        return _OWN[name].answer(request)
    if name in _LIBRARIES:
        return (await run_sync(_read_library, name)).answer(request)
    raise NotFoundError()


def _read_library(name: str) -> PageFile:
    content = files("fastapi_offline").joinpath("static", name).read_bytes()
    return PageFile(name, content.replace(_FOREIGN_LOGO, _NO_LOGO), _SWAGGER_POLICY)


async def get_contract(request: Request) -> Response:
    """The contract, its servers where the client of this request sees them."""
    outside = request.scope.get("root_path", "").removesuffix(PREFIX)
    contract = request.app.openapi()
    servers = [server | {"url": outside + server["url"]} for server in contract["servers"]]
    text = json.dumps(contract | {"servers": servers}, ensure_ascii=False)
    return Response(text, media_type="application/json")


# Not FastAPI's: pages are no part of the documented API.
router = Router(
    routes=[
        Route("/docs", get_docs),
        Route("/docs/{name}", get_reference_file),
        Route("/redoc", get_redoc),
        Route("/openapi.json", get_contract),
    ]
)
