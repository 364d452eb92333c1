"""The Celery application: doorbells in, nothing else. Jobs live in the ledger (``app.jobs``).

``celery -A app.celery_app worker --loglevel=info`` is a complete worker: the modules in
``include`` add the model, the heartbeat and the sweeper to it.
"""

from celery import Celery
from kombu import Queue

from app.core import keys
from app.core.config import Settings, get_settings
from app.core.redis_client import broker_url

# A batch that takes longer than this is stuck, not slow: its process is ended and the jobs go back.
# No soft limit: an exception in the middle of a decoder would look like a damaged image.
TIME_LIMIT_SECONDS = 300


def create_celery_app(settings: Settings) -> Celery:
    """Build the application. Connects to nothing."""
    app = Celery("app", include=["app.tasks.classification", "app.tasks.worker"])
    timeout = settings.redis.timeout_seconds
    app.conf.update(
        broker_url=broker_url(settings.redis),
        broker_transport_options={
            # kombu passes None for each of these otherwise, and waits for ever.
            "socket_timeout": timeout,
            "socket_connect_timeout": timeout,
            "socket_keepalive": True,
            "health_check_interval": 10,
            # Kombu's own names are shared by every Celery application on the same Redis.
            "unacked_key": keys.UNACKED,
            "unacked_index_key": keys.UNACKED_INDEX,
            "unacked_mutex_key": keys.UNACKED_MUTEX,
        },
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_channel_error_retry=True,
        broker_pool_acquire_timeout=timeout,
        # A direct queue without an exchange of its own: a bell is one LPUSH.
        task_queues=[Queue(keys.DOORBELLS)],
        task_default_queue=keys.DOORBELLS,
        task_create_missing_queues=False,
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        task_ignore_result=True,
        task_store_errors_even_if_ignored=False,
        task_serializer="json",
        accept_content=["json"],
        task_time_limit=TIME_LIMIT_SECONDS,
        worker_prefetch_multiplier=1,
        worker_concurrency=settings.worker.processes,
        # The default of 4 s kills a process that loads a large model.
        worker_proc_alive_timeout=120,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        worker_soft_shutdown_timeout=5,
        worker_enable_soft_shutdown_on_idle=False,
        # Health comes from the ledger; nobody reads these.
        worker_send_task_events=False,
        worker_enable_remote_control=False,
        # Silent without a terminal: one line a doorbell says nothing about jobs.
        worker_redirect_stdouts=False,
        enable_utc=True,
    )
    return app


celery_app = create_celery_app(get_settings())
