"""How answers can be printed. Apart, so that the command's help loads nothing else."""

from enum import StrEnum


class Format(StrEnum):
    """For whom: people, programs, spreadsheets."""

    TABLE = "table"
    JSONL = "jsonl"
    CSV = "csv"
