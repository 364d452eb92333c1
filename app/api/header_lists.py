"""Headers that are lists: ``Prefer``, ``Cache-Control``."""

from collections.abc import Iterator
from urllib.request import parse_http_list

from starlette.requests import Request


def list_items(request: Request, name: str) -> Iterator[tuple[str, str]]:
    """The items of a header, lines joined: each one's name in lower case, and its value or ``""``.

    ``wait=10; a=b`` is ``("wait", "10")``: nothing here has a parameter.
    """
    for line in request.headers.getlist(name):
        for item in parse_http_list(line):
            key, _, value = item.partition(";")[0].partition("=")
            yield key.strip().lower(), value.strip().strip('"')
