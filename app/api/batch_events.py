"""Following a batch live: its state as Server-Sent Events."""

from app.api.batch_documents import describe_batch
from app.api.event_feeds import Event, Tell, render_event
from app.jobs.batch import Batch
from app.jobs.batches import Batches


class BatchSource:
    """The changes of batches, by their ids."""

    def __init__(self, batches: Batches) -> None:
        self._batches = batches

    def follow(self, key: str, tell: Tell) -> None:
        self._batches.live.follow(
            key, lambda batch: tell(None if batch is None else _render(batch))
        )

    def unfollow(self, key: str) -> None:
        self._batches.live.unfollow(key)

    async def look(self, key: str) -> Event:
        return _render(await self._batches.look(key))


def _render(batch: Batch) -> Event:
    document = describe_batch(batch).model_dump_json()
    position = (batch.changes,)
    return render_event("batch", str(batch.changes), position, document, batch.has_ended())
