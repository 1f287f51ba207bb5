"""Atlases for people: what there is to do, how it went, and why models failed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from surgeon.console.printing import out, print_json, print_note, print_text
from surgeon.study.engines import duration

if TYPE_CHECKING:
    from surgeon.study.atlas_summary import Atlas, Outlook

_REASONS_SHOWN = 10


def show_outlook(ahead: Outlook, *, json: bool) -> None:
    """Show what there is to do for an atlas."""
    if json:
        print_json(ahead.to_json())
        return
    failed = f", {ahead.failed:,} failed" if ahead.failed else ""
    print_text(
        f"{ahead.models:,} models, {ahead.done:,} done already{failed}: {ahead.left:,} to scan, in "
        f"{duration(ahead.seconds)} at least by --rate. Nothing was asked for."
    )


def show_atlas(atlas: Atlas, *, json: bool) -> None:
    """Show how an atlas ended."""
    if json:
        print_json(atlas.to_json())
        return
    earlier = f", {atlas.kept:,} of them by an earlier run" if atlas.kept else ""
    scanned = atlas.models - atlas.kept
    table = Table(
        title=f"{atlas.models:,} models{earlier}",
        caption=f"{atlas.bytes_read:,} bytes in {atlas.seconds:,.1f} s"
        + (f": {atlas.bytes_read / scanned:,.0f} bytes a model" if scanned else ""),
    )
    table.add_column("", overflow="fold")
    table.add_column("models", justify="right")
    table.add_row("scanned", f"{atlas.done:,}")
    table.add_row("  with outliers", f"{atlas.with_outliers:,}")
    table.add_row("failed", f"{atlas.failed:,}")
    for reason, models in atlas.reasons[:_REASONS_SHOWN]:
        table.add_row(f"  {reason}", f"{models:,}")
    if others := atlas.reasons[_REASONS_SHOWN:]:
        table.add_row("  other reasons", f"{sum(models for _, models in others):,}")
    out().print(table)
    print_text(f"Atlas: {atlas.output}")
    if atlas.failed:
        print_note("The table says why each failed; --retry tries those again.")
