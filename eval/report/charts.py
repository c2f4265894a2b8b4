"""Curves and bars as inline SVG: no library in the page, colours from its style sheet, nothing drawn by a script.

Every function gives `Markup`, built with `Markup.format`, which escapes what it is given.
"""

from collections.abc import Sequence

import numpy as np
from markupsafe import Markup

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 440, 300, 46, 18, 12, 40
"""Of a chart with two axes, in its own units; the page's script draws curves of single classes into the same frame."""


def curve_chart(
    curves: Sequence[tuple[str, str, np.ndarray, np.ndarray]], x_label: str, y_label: str, *, diagonal: bool = False
) -> Markup:
    """Lines over the unit square.

    Args:
      curves: of each line its name, style class, and x and y within 0..1; points that are NaN are left out.
      x_label, y_label: names of the axes.
      diagonal: draw where y equals x.
    """
    parts = [_frame(x_label, y_label)]
    if diagonal:
        parts.append(Markup('<polyline class="ideal" points="{}"/>').format(_points(np.arange(2.0), np.arange(2.0))))
    for name, style, x, y in curves:
        seen = ~np.isnan(y)
        parts.append(
            Markup('<polyline class="line {}" points="{}"><title>{}</title></polyline>').format(
                style, _points(x[seen], y[seen]), name
            )
        )
        if diagonal:
            parts += [
                Markup(
                    '<circle class="dot {}" cx="{:.1f}" cy="{:.1f}" r="3"><title>{:.3f} / {:.3f}</title></circle>'
                ).format(style, _x(a), _y(b), a, b)
                for a, b in zip(x[seen], y[seen], strict=True)
            ]
    return _svg(parts, f"{y_label} over {x_label}")


def histogram(edges: np.ndarray, true: np.ndarray, false: np.ndarray) -> Markup:
    """Counts per bin, true and false positives side by side, on a logarithmic scale: most detections score low."""
    most = max(int(true.max(initial=0)), int(false.max(initial=0)), 1)
    top = np.log10(most + 1)

    def height(n: int | np.integer) -> float:
        return float(np.log10(n + 1) / top)

    parts = [_frame("score", "detections (logarithmic)", ticks=False)]
    for level in range(int(np.floor(np.log10(most))) + 1):
        y = _y(height(10**level))
        parts.append(
            Markup(
                '<line class="grid" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>'
                '<text class="tick end" x="{}" y="{:.1f}">{}</text>'
            ).format(LEFT, WIDTH - RIGHT, y, y, LEFT - 5, y + 4, f"{10**level:,}")
        )
    bar = '<rect class="bar {}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"/>'
    for k in range(len(true)):
        x, half = _x(edges[k]), (_x(edges[k + 1]) - _x(edges[k]) - 1) / 2
        title = f"score {edges[k]:.2f} to {edges[k + 1]:.2f}: {true[k]:,} true, {false[k]:,} false positives"
        both = [
            Markup(bar).format(name, left, _y(height(n)), half, _y(0.0) - _y(height(n)))
            for name, n, left in (("true", true[k], x), ("false", false[k], x + half))
        ]
        parts.append(Markup("<g><title>{}</title>{}</g>").format(title, Markup("").join(both)))
    return _svg(parts, "detections by score")


def series(x: Sequence[float], y: Sequence[float], x_label: str, name: str, *, unit: bool = False) -> Markup:
    """One line from 0 to the last ``x``, such as a loss over epochs, over its own range or (``unit``) 0 to 1."""
    low, high = (0.0, 1.0) if unit else (min(0.0, *y), max(y))
    high, last = high if high > low else low + 1, max(x) or 1
    across, up = np.array(x) / last, (np.array(y) - low) / (high - low)
    x_ticks = [f"{last * k / 5:.3g}" for k in range(6)]
    parts = [_frame(x_label, "", x_ticks=x_ticks, y_ticks=[f"{low + (high - low) * k / 5:.2g}" for k in range(6)])]
    parts.append(Markup('<polyline class="line first" points="{}"/>').format(_points(across, up)))
    dot = Markup('<circle class="dot first" cx="{:.1f}" cy="{:.1f}" r="2"><title>{:g}: {:.4g}</title></circle>')
    if len(x) <= 60:
        parts += [dot.format(_x(a), _y(b), at, value) for a, b, at, value in zip(across, up, x, y, strict=True)]
    return _svg(parts, f"{name} over {x_label}")


def heat_map(
    counts: np.ndarray,
    x_label: str,
    y_label: str,
    x_ticks: Sequence[str],
    y_ticks: Sequence[str],
    *,
    down: bool = False,
) -> Markup:
    """Cells that are darker the more they hold, on a logarithmic scale.

    Args:
      counts: ``[rows, columns]``, the first row at the bottom, or at the top where ``down``.
      x_label, y_label: names of the axes.
      x_ticks, y_ticks: six words each, from the left and from the bottom.
      down: the first row is at the top, as in an image.
    """
    rows, columns = counts.shape
    most = np.log1p(max(int(counts.max(initial=0)), 1))
    parts = [_frame(x_label, y_label, x_ticks=x_ticks, y_ticks=y_ticks)]
    cell = Markup(
        '<rect class="heat" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}" fill-opacity="{:.2f}">'
        "<title>{}</title></rect>"
    )
    width, height = _x(1 / columns) - _x(0.0), _y(0.0) - _y(1 / rows)
    for row, column in np.argwhere(counts > 0).tolist():
        top = _y(1 - row / rows) if down else _y((row + 1) / rows)
        number = int(counts[row, column])
        shade = 0.1 + 0.9 * np.log1p(number) / most
        parts.append(cell.format(_x(column / columns), top, width, height, shade, f"{number:,} objects"))
    return _svg(parts, f"objects by {x_label} and {y_label}")


def bars(rows: Sequence[tuple[str, float, str]]) -> Markup:
    """Horizontal bars from 0, the longest as long as the chart: a name, a length of at least 0, and words about it."""
    longest = max([length for _, length, _ in rows], default=0.0) or 1.0
    parts = []
    for k, (name, length, words) in enumerate(rows):
        y = 8 + 30 * k
        parts.append(
            Markup(
                '<text class="name" x="0" y="{}">{}</text>'
                '<rect class="bar cost" x="110" y="{}" width="{:.1f}" height="18"/>'
                '<text class="tick" x="{:.1f}" y="{}">{}</text>'
            ).format(y + 14, name, y, 150 * length / longest, 116 + 150 * length / longest, y + 14, words)
        )
    height = 30 * len(rows) + 8
    return Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        WIDTH, height, "bars", Markup("").join(parts)
    )


def _svg(parts: list[Markup], label: str) -> Markup:
    return Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        WIDTH, HEIGHT, label, Markup("").join(parts)
    )


UNIT_TICKS = tuple(f"{k / 5:.1f}" for k in range(6))


def _frame(
    x_label: str,
    y_label: str,
    *,
    ticks: bool = True,
    x_ticks: Sequence[str] = UNIT_TICKS,
    y_ticks: Sequence[str] = UNIT_TICKS,
) -> Markup:
    parts = []
    for k in range(6):
        x, y, label = _x(k / 5), _y(k / 5), y_ticks[k]
        parts.append(
            Markup('<text class="tick middle" x="{:.1f}" y="{}">{}</text>').format(x, HEIGHT - BOTTOM + 16, x_ticks[k])
        )
        if ticks:
            parts.append(
                Markup(
                    '<line class="grid" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>'
                    '<text class="tick end" x="{}" y="{:.1f}">{}</text>'
                ).format(LEFT, WIDTH - RIGHT, y, y, LEFT - 5, y + 4, label)
            )
    middle = (TOP + HEIGHT - BOTTOM) / 2
    parts.append(
        Markup(
            '<text class="axis middle" x="{}" y="{}">{}</text>'
            '<text class="axis middle" x="{}" y="{}" transform="rotate(-90 {} {})">{}</text>'
        ).format((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 6, x_label, 11, middle, 11, middle, y_label)
    )
    return Markup("").join(parts)


def _x(value: float) -> float:
    return LEFT + float(value) * (WIDTH - LEFT - RIGHT)


def _y(value: float) -> float:
    return HEIGHT - BOTTOM - float(value) * (HEIGHT - TOP - BOTTOM)


def _points(x: np.ndarray, y: np.ndarray) -> str:
    return " ".join(f"{_x(a):.1f},{_y(b):.1f}" for a, b in zip(x, y, strict=True))
