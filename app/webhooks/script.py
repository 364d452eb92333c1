"""The scripts behind webhooks as Redis gets them: with the keys' names and the rules filled in."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Self

from app.core import keys
from app.core.config import Settings
from app.jobs.script import fill_in

_SCRIPTS = Path(__file__).parent / "scripts"
_KEY_NAMES = (
    "DELIVERY",
    "DELIVERY_NUMBER",
    "HISTORY",
    "JOB",
    "OWNER_WEBHOOKS",
    "WEBHOOK",
    "WEBHOOKS",
    "WEBHOOKS_DUE",
    "WEBHOOK_BELL",
    "WEBHOOK_CURSOR",
    "WEBHOOK_DUE",
    "WEBHOOK_LOG",
    "WEBHOOK_LOSS",
)

# Between the end of an attempt and the moment at which nobody expects its report any more.
_REPORT_SECONDS = 15

# Lost events are something that whoever runs the service should see on the next day, too.
_LOSS_TTL_SECONDS = 86_400


@dataclass(frozen=True, slots=True)
class Rules:
    """What the scripts go by. The same in every process on one Redis. Times are milliseconds."""

    lease: int
    history_length: int
    max_endpoints: int
    max_memory: int
    max_pending: int
    log_length: int
    log_ttl: int
    loss_ttl: int

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """The rules that the settings make."""
        webhook = settings.webhook
        return cls(
            lease=int((webhook.timeout_seconds + _REPORT_SECONDS) * 1000),
            history_length=settings.queue.history_length,
            max_endpoints=webhook.max_endpoints,
            max_memory=settings.redis.max_memory or 0,
            max_pending=webhook.max_pending,
            log_length=webhook.log_length,
            log_ttl=webhook.log_ttl * 1000,
            loss_ttl=_LOSS_TTL_SECONDS * 1000,
        )


@cache
def render_script(name: str, rules: Rules) -> str:
    """A script's text: what all share and itself, with keys' names and rules filled in."""
    constants = {key: f"'{getattr(keys, key)}'" for key in _KEY_NAMES}
    constants |= {field.upper(): str(getattr(rules, field)) for field in rules.__slots__}
    script = "\n".join((_SCRIPTS / f"{file}.lua").read_text() for file in ("prelude", name))
    return fill_in(script, constants)
