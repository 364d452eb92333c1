"""Log lines: to standard error, in UTC, each with the request it belongs to."""

import logging
import time


def configure_logging(level: str, request_id: logging.Filter) -> None:
    """Give the ``app`` loggers their handler. Celery brings its own, so workers don't call this."""
    formatter = logging.Formatter(
        "%(asctime)s.%(msecs)03dZ %(levelname)s [%(request_id)s] %(name)s: %(message)s",
        "%Y-%m-%dT%H:%M:%S",
    )
    formatter.converter = time.gmtime
    handler = logging.StreamHandler()
    handler.setFormatter(formatter)
    handler.addFilter(request_id)
    logger = logging.getLogger("app")
    logger.handlers = [handler]
    logger.setLevel(level)
    logger.propagate = False
