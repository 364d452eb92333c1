"""Every Redis key, channel and stream. Nothing else in the house spells one."""

import base64
import hashlib

PREFIX = "classifier:"

JOB = PREFIX + "job:"  # + job id: hash, the job's record; expires RESULT_TTL after it ended
HOLDER = PREFIX + "holder:"  # + holder: set of the job ids that one worker process holds
PAYLOAD = PREFIX + "payload:"  # + job id: string, the upload (only with PAYLOAD_STORE=redis);
# expires until the job is accepted, and with a dead letter
JOBS = PREFIX + "jobs:"  # + owner: sorted set of job ids by when they came, in µs; those of expired
# records stay for a while
OWNERS = PREFIX + "owners"  # sorted set of owners with such a list by when it was last swept, in ms
BATCH = PREFIX + "batch:"  # + batch id: hash, the batch's record with its jobs counted by state;
# expires, with what is below, RESULT_TTL after its last job ended
BATCH_JOBS = PREFIX + "batch-jobs:"  # + batch id: list of its jobs' ids in the sender's order
BATCH_ENDED = PREFIX + "batch-ended:"  # + batch id: list of those that ended, in that order
ANSWERS = (
    PREFIX + "answers:"
)  # + job or batch id: hash, the answers that the job's followers, or the
# batch's jobs, share, each by the id of the job that was classified; expires with the last of them
ERASED = PREFIX + "erased:"  # + job id: string, the request that erased a job and whose it was;
# expires RESULT_TTL after that
LIVE = PREFIX + "live:"  # + channel's name: the channel of one process that watches jobs; a message
# is JSON, [[job id, [field, value, … of its record]], …]
IDEMPOTENCY = PREFIX + "idempotency:"  # + name: string, the id of the job or batch that a
# sender's key is reserved for or, with the fingerprint of what was sent, bound to; expires
IDEMPOTENCY_COUNTS = PREFIX + "idempotency-counts:"  # + owner: hash, how many keys of theirs were
# bound for a day, by the hour since 1970; expires
WORKER = PREFIX + "worker:"  # + worker name: string, its last heartbeat as JSON; expires

QUEUE = PREFIX + "queue"  # list of interactive job ids that wait, next first
BULK_QUEUE = PREFIX + "bulk-queue"  # the same of bulk jobs
BULK_PASSED = PREFIX + "bulk-passed"  # counter: claims in a row that let bulk jobs wait
DELAYED = PREFIX + "delayed"  # sorted set of job ids that wait for a retry by when it is due, in ms
DEADLINES = PREFIX + "deadlines"  # sorted set of unfinished job ids by their deadline, in ms
DEAD = PREFIX + "dead"  # sorted set of dead letters' job ids by when they died, in ms
BACKLOG_JOBS = PREFIX + "backlog-jobs"  # counter: unfinished jobs
BACKLOG_BYTES = PREFIX + "backlog-bytes"  # counter: what the uploads of unfinished jobs take
DRAIN = PREFIX + "drain"  # hash: how many jobs end per second while others wait
FLIGHTS = PREFIX + "flights"  # hash: the unfinished job that answers for a content, by its digest
FOLLOWERS = PREFIX + "followers:"  # + job id: list of the jobs of its content that wait for it
CACHE = PREFIX + "cache:"  # + model identity + ":" + content's digest: string, the id of the job
# that has the answer; expires
CACHE_USE = PREFIX + "cache-use"  # sorted set of those keys by when each was used last, in ms
CACHE_COUNTS = PREFIX + "cache-counts"  # hash: how many jobs were answered, joined, classified
MODEL = PREFIX + "model"  # string: the identity of the model that the workers run
LEASES = PREFIX + "leases"  # sorted set of job ids by when their claim runs out, in ms
HISTORY = PREFIX + "history"  # stream of every job's transitions and every batch's end, capped
WORKERS = PREFIX + "workers"  # sorted set of worker names by when their heartbeat runs out, in ms
LEDGER_ID = PREFIX + "ledger-id"  # string: tells this ledger from others
SWEEPER = PREFIX + "sweeper"  # string: who sweeps now; expires

# The Celery queue of doorbells. With the Redis transport it is a list of this very name, so that
# scripts can ring and can count the bells that nobody has answered.
DOORBELLS = PREFIX + "doorbells"
BELLS_RUNG = PREFIX + "bells-rung"  # counter: numbers the bells, so that no two are alike

WEBHOOKS = PREFIX + "webhooks"  # sorted set of all webhooks' ids by when they were made, in ms
OWNER_WEBHOOKS = PREFIX + "webhooks:"  # + owner: the same of one owner
WEBHOOK = PREFIX + "webhook:"  # + webhook's id: hash
WEBHOOK_DUE = PREFIX + "webhook-due:"  # + webhook's id: sorted set of its unfinished deliveries by
# when the next attempt is due, in ms; one that is being sent, by when its lease runs out
WEBHOOK_LOG = (
    PREFIX + "webhook-log:"
)  # + webhook's id: sorted set of its latest deliveries by number
WEBHOOKS_DUE = PREFIX + "webhooks-due"  # sorted set of webhooks' ids by when one of theirs is due
DELIVERY = PREFIX + "delivery:"  # + delivery's id: hash; expires once it has ended
DELIVERY_NUMBER = PREFIX + "delivery-number"  # counter: numbers the deliveries
WEBHOOK_CURSOR = PREFIX + "webhook-cursor"  # string: the last entry of HISTORY that was planned
WEBHOOK_LOSS = PREFIX + "webhook-loss"  # string: since when events were lost, in ms; expires
WEBHOOK_BELL = PREFIX + "webhook-bell"  # channel: senders listen; a message says that there is work


def job(job_id: str) -> str:
    """The key of a job's record."""
    return JOB + job_id


def jobs(owner: str) -> str:
    """The key of the list of an owner's jobs."""
    return JOBS + owner


def batch(batch_id: str) -> str:
    """The key of a batch's record."""
    return BATCH + batch_id


def batch_jobs(batch_id: str) -> str:
    """The key of the list of a batch's jobs."""
    return BATCH_JOBS + batch_id


def batch_ended(batch_id: str) -> str:
    """The key of the list of a batch's jobs that ended."""
    return BATCH_ENDED + batch_id


def answers(shelf: str) -> str:
    """The key of the answers that the followers of a job, or the jobs of a batch, share."""
    return ANSWERS + shelf


def erased(job_id: str) -> str:
    """The key of what is left of an erased job."""
    return ERASED + job_id


def holder(name: str) -> str:
    """The key of the set of jobs that a worker process holds."""
    return HOLDER + name


def payload(job_id: str) -> str:
    """The key of a job's upload."""
    return PAYLOAD + job_id


def worker(name: str) -> str:
    """The key of a worker's heartbeat."""
    return WORKER + name


def name_idempotency_key(owner: str, key: str) -> str:
    """The name of a sender's key: of a known length, and never that of another sender."""
    digest = hashlib.sha256(f"{owner}\0{key}".encode(), usedforsecurity=False).digest()
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")
