"""Copies of the service with one of its safeguards switched off, which the suite must notice."""

import shutil
from dataclasses import dataclass
from pathlib import Path

APP = Path(__file__).parent.parent.parent / "app"


@dataclass(frozen=True, slots=True)
class Mutation:
    """``old``, found exactly once in ``file`` under ``app/``, becomes ``new``.

    ``scenario`` must fail then.
    """

    name: str
    file: str
    old: str
    new: str
    scenario: str

    def apply(self, folder: Path) -> Path:
        """Copy ``app/`` into ``folder``, changed so. Returns what to put on PYTHONPATH."""
        shutil.copytree(APP, folder / "app", ignore=shutil.ignore_patterns("__pycache__"))
        file = folder / "app" / self.file
        text = file.read_text()
        count = text.count(self.old)
        assert count == 1, f"{self.name}: {self.file} holds the text {count} times:\n{self.old}"
        file.write_text(text.replace(self.old, self.new))
        return folder


MUTATIONS = [
    Mutation(
        "the sweeper recovers no leases",
        "jobs/scripts/sweep.lua",
        "for _, id in ipairs(lost) do",
        "for _, id in ipairs({}) do",
        "kill-both-workers",
    ),
    Mutation(
        "old claims may finish a job",
        "jobs/scripts/finishing.lua",
        "if record.state == 'processing' and record.attempts == attempt then",
        "if record.state then",
        "stop-worker",
    ),
    Mutation(
        "lost doorbells are not rung again",
        "jobs/scripts/sweep.lua",
        "conclude()",
        "write_backlog() send_news()",
        "lose-doorbells",
    ),
]
