"""The document and its pictures, made of the files of results and nothing else.

``python -m benchmarks.report`` writes them again without measuring.
"""

from pathlib import Path
from string import Template

from benchmarks.figures import Results
from benchmarks.sections import render_charts, render_sections
from benchmarks.workspace import RESULTS, ROOT

DOCUMENT = ROOT / "docs" / "performance.md"
PICTURES = ROOT / "docs" / "pictures"
_TEMPLATE = Path(__file__).with_name("performance.template.md")


def render_document(folder: Path = RESULTS) -> str:
    """docs/performance.md as the results in a folder make it."""
    return Template(_TEMPLATE.read_text(encoding="utf-8")).substitute(
        render_sections(Results(folder))
    )


def write_document() -> None:
    """Write the document and its pictures."""
    DOCUMENT.write_text(render_document(), encoding="utf-8")
    PICTURES.mkdir(exist_ok=True)
    for name, picture in render_charts(Results(RESULTS)).items():
        (PICTURES / f"{name}.svg").write_text(picture, encoding="utf-8")


if __name__ == "__main__":
    write_document()
