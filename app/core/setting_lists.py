"""Reading settings that are lists: separated by commas, with blanks as people like."""


def split_list(text: str) -> list[str]:
    """The parts of a list, without blanks around them and without empty ones."""
    return [part.strip() for part in text.split(",") if part.strip()]
