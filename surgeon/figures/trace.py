"""The picture of a training run: the outliers over its steps, against all other dimensions."""

from __future__ import annotations

from collections.abc import Sequence

from surgeon.figures.picture import INK, QUIET, Band, Line, Lines, Mark, Picture, Threshold
from surgeon.figures.scan import outliers_in_words
from surgeon.harmless import from_to, shortened
from surgeon.ranking.ranking import BY_WEIGHTS
from surgeon.study.training_run import Trace, Trajectory

_COLOURS = ("#b2182b", "#08306b", "#e08214", "#35978f", "#762a83", "#8c510a", "#4a90c8", "#1b7837")
_CANDIDATES = 3
_NAME = 64  # characters


def draw_trace(trace: Trace) -> Picture:
    """Describe the picture of a trace: gain, bias where there is one, and the distance.

    Each line is an outlier of the last checkpoint or, where there is none, one of the strongest
    dimensions, drawn quietly.
    """
    biased = trace.trajectories[0].bias_z is not None
    vectors = f"both {trace.gain_name} and bias" if biased else trace.gain_name
    reached = f"|z-score| that {trace.needed} of {trace.layers} layers reach in {vectors}"
    titles = {
        "gain_z": f"{trace.gain_name.capitalize()}: z-score, mean over layers",
        **({"bias_z": "Bias: z-score, mean over layers"} if biased else {}),
        "reach": reached,
    }
    panels = tuple((_panel(trace, series, title),) for series, title in titles.items())
    return Picture(headline(trace), words(trace), panels, width=9.0, shared="x")


def _panel(trace: Trace, series: str, title: str) -> Lines:
    """Describe the panel of a series that both the trajectories and the bulk have."""
    steps, distance = trace.steps, series == "reach"
    lines, band = [], None
    if trace.bulk is not None:
        bulk = getattr(trace.bulk, series)
        low, meaning = (bulk.median, "median") if distance else (bulk.p1, "1st")
        band = Band(steps, low, bulk.p99, f"the bulk: {meaning} to 99th percentile")
        between = zip(bulk.median, low, bulk.p99, strict=True)
        hover = [f"{one:.2f}σ; band {from_to(ends, '.2f')}" for one, *ends in between]
        lines.append(
            Line(name="bulk", colour=QUIET, xs=steps, ys=bulk.median, hover=hover, thin=True)
        )
    lines += [
        _line(trace, trajectory, getattr(trajectory, series), colour)
        for trajectory, colour in drawn_lines(trace).items()
    ]
    return Lines(
        title=title,
        x_title="training step" if distance else "",
        lines=tuple(lines),
        x_range=(steps[0], steps[-1]),
        band=band,
        threshold=Threshold(trace.sigma, f"{trace.sigma:g}σ") if distance else None,
        marks=_marks(trace),
    )


def _line(trace: Trace, trajectory: Trajectory, values: Sequence[float], colour: str) -> Line:
    since = "" if trajectory.left_at is None else f", outlier from {trajectory.left_at:,}"
    return Line(
        name=f"dim {trajectory.dim}{since}",
        colour=colour,
        xs=trace.steps,
        ys=values,
        hover=[
            f"{value:+.2f}σ, flagged by {score * trace.layers:.0f} of {trace.layers}"
            for value, score in zip(values, trajectory.score, strict=True)
        ],
        end=str(trajectory.dim),
        bold=trajectory.outlier,
        mark=trajectory.left_at,
    )


def _marks(trace: Trace) -> tuple[Mark, ...]:
    """Name the steps at which what is drawn became an outlier."""
    colours: dict[int, str] = {}
    for trajectory, colour in drawn_lines(trace).items():
        if trajectory.left_at is not None:
            # Of no line where several did at once.
            colours[trajectory.left_at] = INK if trajectory.left_at in colours else colour
    return tuple(
        Mark(step, f"step {step:,}", colour, bold=False) for step, colour in sorted(colours.items())
    )


def drawn_lines(trace: Trace) -> dict[Trajectory, str]:
    """Return what to draw, each with its colour: the outliers, or else candidates."""
    if not trace.outliers:
        return dict.fromkeys(trace.trajectories[:_CANDIDATES], QUIET)
    outliers = (trajectory for trajectory in trace.trajectories if trajectory.outlier)
    return dict(zip(outliers, _COLOURS, strict=False))


def headline(trace: Trace) -> str:
    """Say in a line what was found in which run."""
    name = shortened(trace.name, _NAME)
    if not trace.outliers:
        return f"{name}: no outlier dimension at step {trace.steps[-1]:,}, the last"
    return f"{name}: {outliers_in_words(trace.outliers, ' at the end', BY_WEIGHTS)}"


def words(trace: Trace) -> tuple[str, ...]:
    """Say in lines of their own what was looked at, what an outlier is, and what is drawn."""
    size = f"{trace.layers} layers × {trace.hidden_size:,} dimensions"
    drawn, found = len(drawn_lines(trace)), len(trace.outliers)
    if not found:
        lines = f"Lines: the {drawn} strongest dimensions, none of them an outlier"
    elif drawn < found:
        lines = f"Lines: the {drawn} strongest of {found} outliers"
    else:
        lines = "Lines: the outliers of the last checkpoint"
    dots = "; dots: where each became an outlier for good" if found else ""
    checkpoints = f"{len(trace.steps)} checkpoints"
    return (
        f"{shortened(trace.architecture)}, {size}; {trace.evidence}; {checkpoints}",
        f"Criterion: {trace.criterion}",
        lines + dots,
    )
