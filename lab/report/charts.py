"""The report's pictures as inline SVG, drawn by Matplotlib.

Takes values and returns text; reads and writes nothing. The same values give the same bytes, and colours are the
page's own CSS variables, so that a chart follows the page into dark mode.
"""

from __future__ import annotations

import html
import io
import math
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from lab.report.collect import Curve

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Matplotlib knows no CSS variables: it draws with these stand-ins, which are replaced in the SVG.
COLORS = {"ink": "#000001", "grid": "#000002", "base": "#000003", "tuned": "#000004", "quantized": "#000005"}
WIDTH = 5.0  # inches of 72 units: about a phone's width, so that letters keep their size there

RC = {
    "svg.fonttype": "none",
    "svg.hashsalt": "llm-tuning-lab",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # comes with Matplotlib: measures are the same on every machine
    "font.size": 10,
    "text.color": COLORS["ink"],
    "axes.labelcolor": COLORS["ink"],
    "axes.edgecolor": COLORS["grid"],
    "xtick.color": COLORS["grid"],
    "ytick.color": COLORS["grid"],
    "xtick.labelcolor": COLORS["ink"],
    "ytick.labelcolor": COLORS["ink"],
    "grid.color": COLORS["grid"],
    "grid.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
}


def loss_chart(curve: Curve) -> str:
    """Training and held-out loss over steps; empty where neither has a finite point."""
    series = [_finite(curve.train), _finite(curve.held_out)]
    if not any(series):
        return ""

    def draw(axes: Axes) -> None:
        for points, label, color, marker in zip(
            series, ("training", "held out"), ("base", "tuned"), ("", "o"), strict=True
        ):
            if points:
                steps, losses = zip(*points, strict=True)
                alone = "o" if len(points) == 1 else marker
                axes.plot(steps, losses, label=label, color=COLORS[color], marker=alone, markersize=4, linewidth=1.8)
        axes.set_ylim(bottom=0)
        axes.set_xlabel("step")
        axes.set_ylabel("loss")
        axes.grid(axis="y")
        axes.legend(frameon=False)

    return _svg(draw, 3.0, "Loss over training steps")


def _finite(points: list[tuple[int, float]]) -> list[tuple[int, float]]:
    return [(step, loss) for step, loss in points if math.isfinite(loss)]


def exact_chart(figures: Mapping[str, Mapping[str, Any]]) -> str:
    """One bar a contender: share of exact tool calls; empty where no call was held out."""
    bars = {name: found for name, found in figures.items() if found["tool_call_exact"] is not None}
    if not bars:
        return ""
    shares = [100 * found["tool_call_exact"] for found in bars.values()]

    def draw(axes: Axes) -> None:
        places = range(len(bars))
        axes.barh(places, shares, height=0.62, color=[COLORS[name] for name in bars])
        for place, share, found in zip(places, shares, bars.values(), strict=True):
            count = f"{share:.1f} %  ({found['num_exact']} of {found['num_tool_calls']})"
            axes.text(share + 1.5, place, count, va="center")
        axes.set_yticks(places, labels=list(bars))
        axes.invert_yaxis()
        axes.set_xlim(0, 150)  # room for the words beside a full bar
        axes.set_xticks([0, 25, 50, 75, 100], labels=["0", "25", "50", "75", "100 %"])
        axes.tick_params(axis="y", length=0)
        axes.spines["bottom"].set_bounds(0, 100)

    return _svg(draw, 0.7 + 0.55 * len(bars), "Exact tool calls of each contender")


def _svg(draw: Callable[[Axes], None], height: float, label: str) -> str:
    """Draw on a fresh figure and return its `<svg>` element."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(RC):
        figure: Figure = Figure(figsize=(WIDTH, height), layout="constrained")
        draw(figure.add_subplot())
        return _inline(_saved(figure), label)


def _saved(figure: Figure) -> str:
    buffer = io.StringIO()
    # A date would make every report another; the other three would make a block of RDF without them.
    metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(buffer, format="svg", transparent=True, metadata=metadata)
    return buffer.getvalue()


def _inline(svg: str, label: str) -> str:
    """The element without XML prologue and fixed size, in the page's colours."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    svg = svg.replace("<svg", f'<svg role="img" aria-label="{html.escape(label)}"', 1)
    for name, color in COLORS.items():
        svg = svg.replace(color, f"var(--{name})")
    return svg
