"""The plots of the measurements of task vectors: frames with axes, points that may be joined, a legend; as SVG."""

import math
from dataclasses import dataclass, field
from pathlib import Path

WIDTH, HEIGHT, LEFT, TOP, GAP = 410.0, 320.0, 64.0, 64.0, 76.0
STYLE = (
    "text{font:13px system-ui,sans-serif;fill:#24292f}.title{font-weight:600}.end{text-anchor:end}"
    ".middle{text-anchor:middle}.grid{stroke:#d8dee4}.full{stroke:#24292f;stroke-dasharray:5 4}"
)
Points = list[tuple[float, float]]


@dataclass(frozen=True)
class Axis:
    """The range of an axis, and the values that it names."""

    span: tuple[float, float]
    ticks: tuple[float, ...]
    is_log: bool = False

    def contains(self, value: float) -> bool:
        return self.span[0] <= value <= self.span[1]

    def share(self, value: float) -> float:
        low, high = self.span
        return math.log(value / low) / math.log(high / low) if self.is_log else (value - low) / (high - low)


@dataclass
class Panel:
    """A frame: its axes, and the points of every series."""

    title: str
    caption: str  # of the axis across
    across: Axis
    up: Axis
    width: float = WIDTH
    left: float = LEFT
    parts: list[str] = field(default_factory=list)

    def x(self, value: float) -> float:
        return self.left + self.across.share(value) * self.width

    def y(self, value: float) -> float:
        return TOP + HEIGHT - self.up.share(value) * HEIGHT

    def frame(self) -> list[str]:
        right, bottom = self.left + self.width, TOP + HEIGHT
        parts = [f'<text x="{self.left}" y="{TOP - 14}" class="title">{self.title}</text>']
        for tick in self.up.ticks:
            y = self.y(tick)
            parts.append(f'<line x1="{self.left}" y1="{y:.1f}" x2="{right}" y2="{y:.1f}" class="grid"/>')
            parts.append(f'<text x="{self.left - 8}" y="{y + 4:.1f}" class="end">{tick:g}</text>')
        for tick in self.across.ticks:
            x = self.x(tick)
            parts.append(f'<line x1="{x:.1f}" y1="{TOP}" x2="{x:.1f}" y2="{bottom}" class="grid"/>')
            parts.append(f'<text x="{x:.1f}" y="{bottom + 18}" class="middle">{tick:g}</text>')
        parts.append(f'<text x="{self.left + self.width / 2}" y="{bottom + 40}" class="middle">{self.caption}</text>')
        return parts

    def level(self, value: float, text: str) -> None:
        """A dashed line all across."""
        y, right = self.y(value), self.left + self.width
        self.parts.append(f'<line x1="{self.left}" y1="{y:.1f}" x2="{right}" y2="{y:.1f}" class="full"/>')
        self.parts.append(f'<text x="{right - 6}" y="{y - 7:.1f}" class="end">{text}</text>')

    def note(self, text: str) -> None:
        self.parts.append(f'<text x="{self.left + 10}" y="{TOP + HEIGHT - 10}">{text}</text>')

    def points(self, found: Points, colour: str, is_joined: bool = True) -> None:
        inside = [(a, b) for a, b in sorted(found) if self.across.contains(a) and self.up.contains(b)]
        places = [(self.x(a), self.y(b)) for a, b in inside]
        if is_joined and len(places) > 1:
            path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
            self.parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        self.parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5" fill="{colour}"/>' for x, y in places]


def side_by_side(*panels: Panel) -> None:
    left = LEFT
    for panel in panels:
        panel.left = left
        left += panel.width + GAP


def draw(file: Path, label: str, panels: list[Panel], colours: dict[str, str]) -> None:
    """Writes the plot; `colours` is the legend."""
    right, height = panels[-1].left + panels[-1].width + 18, TOP + HEIGHT + 52
    parts = [line for panel in panels for line in panel.frame() + panel.parts]
    x = LEFT
    for series, colour in colours.items():
        parts.append(f'<circle cx="{x + 5}" cy="18" r="4.5" fill="{colour}"/><text x="{x + 15}" y="22">{series}</text>')
        x += 40 + 7 * len(series)
    file.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {max(right, x):g} {height:g}" role="img" '
        f'aria-label="{label}"><style>{STYLE}</style><rect width="{max(right, x):g}" height="{height:g}" fill="#ffffff"/>'
        + "\n".join(parts)
        + "</svg>\n"
    )
