"""Times as the wire shows them. The ledger's own clock is Redis's TIME, in milliseconds."""

from datetime import UTC, datetime


def to_datetime(milliseconds: int) -> datetime:
    """A ledger time (milliseconds since 1970) as an aware UTC datetime."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def format_utc(moment: datetime) -> str:
    """ISO 8601 with milliseconds and ``Z``, as every answer writes times."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def format_milliseconds(milliseconds: int) -> str:
    """A ledger time as every answer writes it."""
    return format_utc(to_datetime(milliseconds))


def now() -> datetime:
    """The present, aware, UTC."""
    return datetime.now(UTC)
