"""Addresses of a Redis whose master Sentinel chooses.

``sentinel://user:password@host1:26379,host2:26379/master-name?db=0&sentinel_password=…``
"""

from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote, urlsplit

SENTINEL_SCHEME = "sentinel://"
_DEFAULT_PORT = 26379


@dataclass(frozen=True, slots=True)
class SentinelUrl:
    """Which sentinels to ask for which master, and what to tell each of them.

    ``username`` and ``password`` are those of Redis; the sentinels have a password of their own.
    """

    sentinels: tuple[tuple[str, int], ...]
    master_name: str
    db: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    sentinel_password: str | None = field(default=None, repr=False)


def find_sentinel_url(url: str) -> SentinelUrl | None:
    """The parts of a ``sentinel://`` URL, ``None`` for any other scheme.

    Raises :class:`ValueError`, in words for the user, when a part is missing or bad.
    """
    if not url.startswith(SENTINEL_SCHEME):
        return None
    location, _, query = url.removeprefix(SENTINEL_SCHEME).partition("?")
    authority, _, master_name = location.partition("/")
    if not master_name or "/" in master_name:
        raise ValueError("must name the master: sentinel://host:26379/master-name")
    credentials, _, addresses = authority.rpartition("@")
    username, _, password = credentials.partition(":")
    db, sentinel_password = _read_query(query)
    return SentinelUrl(
        sentinels=tuple(_read_address(address) for address in addresses.split(",")),
        master_name=unquote(master_name),
        db=db,
        username=unquote(username) or None,
        password=unquote(password) or None,
        sentinel_password=sentinel_password,
    )


def _read_address(address: str) -> tuple[str, int]:
    try:
        parts = urlsplit(f"//{address.strip()}")
        port = _DEFAULT_PORT if parts.port is None else parts.port
    except ValueError:
        raise ValueError("a sentinel's port must be a number from 1 to 65535") from None
    if not parts.hostname:
        raise ValueError("must name a host for every sentinel: sentinel://host:26379/master-name")
    return parts.hostname, port


def _read_query(query: str) -> tuple[int, str | None]:
    values = dict(parse_qsl(query))
    db = values.pop("db", "0")
    sentinel_password = values.pop("sentinel_password", None)
    if values:
        raise ValueError("takes only db and sentinel_password after the question mark")
    if not (db.isascii() and db.isdigit()):
        raise ValueError("db must be a number")
    return int(db), sentinel_password
