"""`classifier webhooks`: the process that sends webhooks."""

import logging

from app.command_line import stop
from app.core.config import get_settings
from app.core.errors import ConfigurationError


def webhooks() -> None:
    """Run a sender of webhooks alone; `classifier up` starts one, too.

    Example: `REDIS_URL=redis://redis.internal classifier webhooks`

    One is enough; several share the work.
    """
    from app.webhooks.sending.process import run_until_signal

    settings = get_settings()
    logging.basicConfig(
        level=settings.log.level, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    # It would tell every request.
    logging.getLogger("httpcore2").setLevel(logging.WARNING)
    try:
        run_until_signal(settings)
    except ConfigurationError as error:
        stop(error, 2)
