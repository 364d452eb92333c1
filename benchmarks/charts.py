"""Pictures of results: horizontal bars with the least and the most of all rounds as whiskers."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_WIDTH, _LABEL, _VALUE = 720, 190, 110
_ROW, _BAR, _TOP = 30, 16, 44
_STYLE = """
text{font:13px system-ui,sans-serif;fill:#1f2328}
.title{font-size:15px;font-weight:600}
.bar{fill:#8aa4c8}.own{fill:#2f6f4f}.whisker{stroke:#1f2328;stroke-width:1.5;fill:none}
.axis{stroke:#8c959f;stroke-width:1}
@media (prefers-color-scheme:dark){
text{fill:#e6edf3}.bar{fill:#5b7cab}.own{fill:#4fae7f}.whisker{stroke:#e6edf3}.axis{stroke:#6e7681}}
"""


@dataclass(frozen=True)
class Bar:
    """A labelled value with its range. ``own``: ours, in another colour."""

    label: str
    value: float
    least: float
    most: float
    own: bool = False


def render_bars(title: str, unit: str, bars: Sequence[Bar], digits: int = 0) -> str:
    """An SVG that is readable on light and on dark pages; every value stands in it as text."""
    height = _TOP + _ROW * len(bars) + 12
    scale = (_WIDTH - _LABEL - _VALUE) / max(bar.most for bar in bars)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img" '
        'aria-labelledby="title">',
        f"<style>{_STYLE}</style>",
        f'<text id="title" class="title" x="8" y="22">{escape(title)}</text>',
    ]
    for number, bar in enumerate(bars):
        lines += _render_bar(bar, _TOP + _ROW * number, scale, f"{bar.value:.{digits}f} {unit}")
    lines.append(f'<path class="axis" d="M{_LABEL} {_TOP - 6}V{height - 10}"/>')
    return "\n".join([*lines, "</svg>", ""])


def _render_bar(bar: Bar, top: int, scale: float, text: str) -> list[str]:
    middle, kind = top + _BAR / 2, "own" if bar.own else "bar"
    least, most = (_LABEL + end * scale for end in (bar.least, bar.most))
    whisker = f"M{least:.1f} {middle}H{most:.1f}"
    whisker += "".join(f"M{x:.1f} {middle - 4}v8" for x in (least, most))
    return [
        f'<text x="{_LABEL - 8}" y="{middle + 4}" text-anchor="end">{escape(bar.label)}</text>',
        f'<rect class="{kind}" x="{_LABEL}" y="{top}" width="{bar.value * scale:.1f}" '
        f'height="{_BAR}" rx="2"/>',
        f'<path class="whisker" d="{whisker}"/>',
        f'<text x="{most + 8:.1f}" y="{middle + 4}">{escape(text)}</text>',
    ]
