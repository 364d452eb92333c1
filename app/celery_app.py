"""The Celery application: doorbells in, nothing else. Jobs live in the ledger (``app.jobs``).

``celery -A app.celery_app worker --loglevel=info`` is a complete worker: the modules in
``include`` add the model, the heartbeat and the sweeper to it.
"""

from celery import Celery
from kombu import Queue

from app.core import keys
from app.core.config import EngineName, Settings, get_settings
from app.core.redis_client import broker_transport_options, broker_url
from app.inference.fingerprints import has_gpu


def create_celery_app(settings: Settings) -> Celery:
    """Build the application. Connects to nothing."""
    app = Celery(
        "app",
        include=["app.tasks.classification", "app.tasks.worker"],
        task_cls="app.tasks.requests:DoorbellTask",
    )
    timeout = settings.redis.timeout_seconds
    app.conf.update(
        broker_url=broker_url(settings.redis),
        broker_transport_options={
            # kombu passes None for each of these otherwise, and waits for ever.
            "socket_timeout": timeout,
            "socket_connect_timeout": timeout,
            "socket_keepalive": True,
            # An answer that is this late, and one second, means a dead connection. kombu looks as
            # often, so the worst case is eleven seconds.
            "health_check_interval": 5,
            # A lost bell is rung again by the sweeper. So bells are not acknowledged, and kombu
            # writes nothing: its books cost more than the bell and are refused by a full Redis.
            "ack_emulation": False,
            # All bells are alike: one list instead of one a priority.
            "priority_steps": [0],
            **broker_transport_options(settings.redis),
        },
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_channel_error_retry=True,
        broker_pool_acquire_timeout=timeout,
        # A bell is one LPUSH to the queue's own list: there is nothing to declare.
        task_queues=[Queue(keys.DOORBELLS, no_ack=True, no_declare=True)],
        task_default_queue=keys.DOORBELLS,
        task_create_missing_queues=False,
        task_ignore_result=True,
        task_store_errors_even_if_ignored=False,
        task_serializer="json",
        accept_content=["json"],
        task_soft_time_limit=settings.worker.soft_limit_seconds,
        task_time_limit=settings.worker.time_limit_seconds,
        worker_consumer="app.tasks.broker:DoorbellConsumer",
        # No more bells than processes that are free: the next worker may have one. This counts
        # requests, which are right after a reconnect too, and not what is unacknowledged.
        worker_disable_prefetch=True,
        worker_enable_prefetch_count_reduction=False,
        worker_concurrency=settings.worker.processes,
        # CUDA does not survive a fork.
        worker_pool_start_method="spawn" if _may_use_gpu(settings) else "fork",
        # The default of 4 s kills a process that loads a large model.
        worker_proc_alive_timeout=120,
        # Ends tasks that are acknowledged late, and here none is; False warns at every reconnect.
        worker_cancel_long_running_tasks_on_connection_loss=True,
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


def _may_use_gpu(settings: Settings) -> bool:
    return settings.engine.uses_gpu or (settings.engine is EngineName.AUTO and has_gpu())


celery_app = create_celery_app(get_settings())
