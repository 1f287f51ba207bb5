"""What every form of a trace's picture says and shows: words, lines, bands, colours."""

from __future__ import annotations

from dataclasses import dataclass

from surgeon.figures.content import INK, QUIET
from surgeon.harmless import shortened
from surgeon.study.trace_result import (
    Band,
    Course,
    Trace,
)

LINES = ("#b2182b", "#08306b", "#e08214", "#35978f", "#762a83", "#8c510a", "#4a90c8", "#1b7837")
"""Of the outliers, strongest first; told apart by their names at the ends too."""
BAND = "#dfe4e8"

_CANDIDATES = 3
_LISTED = 8
_NAME = 64  # characters


@dataclass(frozen=True)
class Panel:
    """One chart over the steps: a series per course, a percentile band of the bulk beside them.

    ``low`` and ``high`` bound the band, which ``says`` describes. ``threshold`` is a line to
    draw, None for none.
    """

    title: str
    series: tuple[tuple[float, ...], ...]
    low: tuple[float, ...]
    middle: tuple[float, ...]
    high: tuple[float, ...]
    says: str
    threshold: float | None = None


def shown(trace: Trace) -> tuple[Course, ...]:
    """Return the courses to draw: of the outliers, or else of the strongest candidates."""
    outliers = tuple(course for course in trace.courses if course.outlier)
    return outliers[: len(LINES)] if outliers else trace.courses[:_CANDIDATES]


def colours(trace: Trace) -> tuple[str, ...]:
    """Return a colour for each course that is shown; candidates are all quiet."""
    return LINES[: len(shown(trace))] if trace.outliers else (QUIET,) * len(shown(trace))


def panels(trace: Trace) -> list[Panel]:
    """Return the panels, one below the other: gain, bias where there is one, the distance."""
    drawn, bulk = shown(trace), trace.bulk
    gain = tuple(course.gain_z for course in drawn)
    found = [_signed(trace.gain_name, gain, bulk.gain_z if bulk else None)]
    biases = tuple(course.bias_z for course in drawn if course.bias_z is not None)
    if biases:
        found.append(_signed("bias", biases, bulk.bias_z if bulk else None))
    both = f"in both {trace.gain_name} and bias" if biases else f"in {trace.gain_name}"
    band = bulk.reach if bulk else None
    found.append(
        Panel(
            title=f"|z-score| that {trace.needed} of {trace.layers} layers reach {both}",
            series=tuple(course.reach for course in drawn),
            low=band.median if band else (),
            middle=band.median if band else (),
            high=band.p99 if band else (),
            says="the bulk: median to 99th percentile",
            threshold=trace.sigma,
        )
    )
    return found


def _signed(name: str, series: tuple[tuple[float, ...], ...], band: Band | None) -> Panel:
    return Panel(
        title=f"{name.capitalize()}: z-score, mean over layers",
        series=series,
        low=band.p1 if band else (),
        middle=band.median if band else (),
        high=band.p99 if band else (),
        says="the bulk: 1st to 99th percentile",
    )


def headline(trace: Trace) -> str:
    """Say in a line what was found in which run."""
    name = shortened(trace.name, _NAME)
    found = len(trace.outliers)
    if not found:
        return f"{name}: no outlier dimension at step {trace.steps[-1]:,}, the last"
    dims = ", ".join(map(str, trace.outliers[:_LISTED])) + (", …" if found > _LISTED else "")
    return f"{name}: {found} outlier dimension{'s' if found > 1 else ''} at the end ({dims})"


def subtitle(trace: Trace) -> list[str]:
    """Say in lines of their own what was looked at, what an outlier is, and what is drawn."""
    size = (
        f"{shortened(trace.architecture)}, {trace.layers} layers × {trace.hidden_size:,} dimensions"
    )
    drawn = shown(trace)
    if not trace.outliers:
        lines = f"Lines: the {len(drawn)} strongest dimensions, none of them an outlier"
    elif len(drawn) < len(trace.outliers):
        lines = f"Lines: the {len(drawn)} strongest of {len(trace.outliers)} outliers"
    else:
        lines = "Lines: the outliers of the last checkpoint"
    marks = "; dots: where each left the bulk for good" if trace.outliers else ""
    return [
        f"{size}; {trace.evidence}; {len(trace.steps)} checkpoints",
        f"Criterion: {trace.criterion}",
        lines + marks,
    ]


def left_at(trace: Trace) -> dict[int, str]:
    """Return the steps at which what is shown left the bulk, each with a colour, ascending."""
    found: dict[int, str] = {}
    for course, colour in zip(shown(trace), colours(trace), strict=True):
        if course.left_at is not None:
            # Of no line where several left at once.
            found[course.left_at] = INK if course.left_at in found else colour
    return dict(sorted(found.items()))
