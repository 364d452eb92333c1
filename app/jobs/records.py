"""Reading jobs' records from Redis, for the API."""

from collections.abc import Sequence

import redis.asyncio

from app.core import keys
from app.jobs.job import Job
from app.jobs.redis_guard import RedisGuard


async def read_jobs(
    client: "redis.asyncio.Redis", guard: RedisGuard, job_ids: Sequence[str]
) -> list[Job | None]:
    """Jobs in the order of their ids; ``None`` for one without a record.

    Raises what :class:`RedisGuard` raises while Redis is away.
    """
    pipeline = client.pipeline(transaction=False)
    for job_id in job_ids:
        pipeline.hgetall(keys.job(job_id))
    records: list[dict[bytes, bytes]] = await guard.call(pipeline.execute)
    await _add_shared_answers(client, guard, records)
    return [
        Job.from_record(job_id, record) if record else None
        for job_id, record in zip(job_ids, records, strict=True)
    ]


async def _add_shared_answers(
    client: "redis.asyncio.Redis", guard: RedisGuard, records: list[dict[bytes, bytes]]
) -> None:
    """Put an answer that several jobs share into the record of each.

    A record that expires between the two looks is emptied, as if it had expired before the first.
    """
    sharing = [record for record in records if b"answer" in record]
    if not sharing:
        return
    pipeline = client.pipeline(transaction=False)
    for record in sharing:
        source = record[b"answer"].decode()
        pipeline.hget(keys.answers(record.get(b"batch", b"").decode() or source), source)
    for record, answer in zip(sharing, await guard.call(pipeline.execute), strict=True):
        if answer is None:
            record.clear()
        else:
            record[b"result"] = answer
