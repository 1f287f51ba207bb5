"""What was done to a checkpoint: plans, records, comparisons and checks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from surgeon.console.printing import (
    SHOWN,
    numbers,
    out,
    print_json,
    print_note,
    print_text,
)
from surgeon.edit.changes import kinds_of

if TYPE_CHECKING:
    from surgeon.edit.plan import Plan
    from surgeon.edit.record import Record
    from surgeon.edit.source_files import Reason
    from surgeon.edit.verify import Comparison, Verification
    from surgeon.edit.write import Export
    from surgeon.onnx_files.plan import OnnxPlan


_LEFT_OUT: dict[Reason, str] = {
    "weights": "they hold the unpatched weights, or the state of their training",
    "links": "they are links that lead out of the model's folder or nowhere",
    "no files": "they are no files that can be copied",
    "bookkeeping": "they are the books of git and of the Hub",
}


def show_plan(plan: Plan, *, json: bool) -> None:
    """Show what an operation would do, tensor by tensor."""
    if json:
        print_json(plan.to_json())
        return
    table = Table(title=f"{plan.checkpoint.name}: {kinds_of(plan.edits)}")
    for column in ("tensor", "dims", "old", "new"):
        table.add_column(column, overflow="fold")
    for edit in plan.edits:
        table.add_row(edit.tensor, numbers(edit.dims), _values(edit.old), _values(edit.new))
    console = out()
    console.print(table)
    console.print(
        f"{plan.parameters_changed} of {plan.checkpoint.parameters_total:,} parameters would "
        "change. Nothing was written.",
        soft_wrap=True,
    )
    _show_notes(plan.notes)


def show_inferred(planned: OnnxPlan) -> None:
    """Say how the operations that end a layer were found in an ONNX file, and what is split."""
    model, splits = planned.model, planned.splits
    layers = model.checkpoint.layers
    outputs = [found for found in model.graph_sites if found.site.role == "output"]
    ends = f"{outputs[0].site.gain} to {outputs[-1].site.gain}"
    print_note(f"{model.file}: {layers} layers, told {model.inferred}; they end in {ends}.")
    packed = [split for split in splits if model.graph.tensors[split.tensor].packed]
    shared = [split for split in splits if split not in packed]
    for found, why in ((shared, "are read elsewhere too"), (packed, "are stored in int32_data")):
        if found:
            print_note(
                f"{len(found)} initializers {why}, {found[0].tensor} among them: each gets a copy "
                "for the edited norms alone."
            )


def _note_graph(onnx: Mapping[str, Any]) -> None:
    """Say what the graph has nothing of, and why."""
    for sentence in onnx.get("not_applied", ()):
        print_note(f"{sentence}.")
    for key, why in (
        ("head_left_out", "whose head no task scores: the graph leaves it out"),
        ("head_missing", "and the weights have no such head: the graph is of the model below it"),
    ):
        if declared := onnx.get(key):
            print_note(
                f"config.json declares {declared}, {why}, and eval measures how far the "
                "representations drift."
            )


def show_record(record: Record, output: Path, *, json: bool) -> None:
    """Show what an operation did."""
    _note_graph(record.onnx or {})
    if json:
        print_json(record.summary(output))
        return
    console = out()
    splits = len(record.splits)
    others = f"{splits} initializers copied, all" if splits else "all"
    console.print(
        f"{record.model} ({record.architecture}): {record.parameters_changed} of "
        f"{record.parameters_total:,} parameters changed at dimensions "
        f"{numbers(record.dims)} ({kinds_of(record.edits)}), {others} other bytes as they were.",
        soft_wrap=True,
    )
    _show_notes(record.notes)
    if record.parameters_changed == 0:
        print_text("The operation changed no value.", style="yellow")
    if record.onnx is not None:
        parity = record.onnx["parity"]["largest"]
        console.print(
            f"ONNX: {record.onnx['model']}, within {parity:.1e} of PyTorch.", soft_wrap=True
        )
    if record.converted_from:
        console.print(
            f"{', '.join(record.converted_from)} was a pickle: the artifact has its "
            f"tensors as {', '.join(record.weights)}.",
            soft_wrap=True,
        )
    for line in _left_out(record):
        console.print(line, soft_wrap=True)
    console.print(f"Artifact: {output}", soft_wrap=True)


def _show_notes(notes: tuple[str, ...]) -> None:
    for note in notes:
        print_text(f"{note[:1].upper() + note[1:]}.", style="yellow")


def _left_out(record: Record) -> Iterator[str]:
    """Say what the artifact does not have of its source, reason by reason."""
    for reason, told in _LEFT_OUT.items():
        names = [name for name in record.left_out if record.left_out_because.get(name) == reason]
        if names:
            yield f"Left out, since {told}: {', '.join(names)}"


def show_exported(done: Export, output: Path, *, json: bool) -> None:
    """Show what an export made, and how near to PyTorch it is."""
    _note_graph(done.onnx.to_json())
    if json:
        print_json({"output": str(output), **done.to_json()})
        return
    facts, parity = done.onnx, done.onnx.parity
    assert parity is not None  # an export compares
    out().print(
        f"{done.model}: {output / facts.model} ({facts.task}, {facts.dtype}), within "
        f"{parity.largest:.1e} of PyTorch over {parity.sequences} sequences.",
        soft_wrap=True,
    )


def show_restored(record: Record, output: Path, *, json: bool) -> None:
    """Show what a restore gave back, and what it could not."""
    if json:
        print_json(record.summary(output))
        return
    console = out()
    console.print(f"{record.model} restored to {output}", soft_wrap=True)
    if record.converted_from:
        console.print(
            f"{', '.join(record.converted_from)} was a pickle: its tensors are back as "
            f"{', '.join(record.weights)}.",
            soft_wrap=True,
        )
    if record.left_out:
        console.print(
            f"Not in the artifact, so not restored: {', '.join(record.left_out)}",
            soft_wrap=True,
        )


def show_small_patch(plan: Plan, path: Path, size: int, *, json: bool) -> None:
    """Show what a small patch holds."""
    if json:
        print_json({"output": str(path), "bytes": size, **plan.to_json()})
        return
    out().print(
        f"{path}: {size:,} bytes, {plan.parameters_changed} scalars of "
        f"{plan.checkpoint.name} at dimensions {numbers(plan.dims)}; surgeon apply "
        "performs it.",
        soft_wrap=True,
    )
    _show_notes(plan.notes)


def show_comparison(comparison: Comparison, *, json: bool) -> None:
    """Show which tensors differ, where and by how much."""
    if json:
        print_json(comparison.to_json())
        return
    console = out()
    if comparison.identical:
        console.print(f"Identical: all {comparison.compared} tensors, bit for bit.", soft_wrap=True)
        return
    table = Table(caption=f"{comparison.scalars_changed:,} scalars differ")
    for column in ("tensor", "what", "scalars", "dims"):
        table.add_column(column, overflow="fold")
    for tensor in comparison.tensors:
        dims = "spread" if tensor.dims is None else numbers(tensor.dims)
        table.add_row(tensor.name, tensor.reason, f"{tensor.changed:,}", dims)
    console.print(table)


def show_verification(verification: Verification, *, json: bool) -> None:
    """Show every check, and what failed."""
    if json:
        print_json(verification.to_json())
        return
    table = Table(title=verification.model)
    for column in ("check", "", "found"):
        table.add_column(column, overflow="fold")
    for check in verification.checks:
        mark = Text("ok", "green") if check.passed else Text("failed", "bold red")
        table.add_row(check.name, mark, check.found)
    out().print(table)


def show_pushed(artifact: Path, url: str, *, json: bool) -> None:
    """Show where an artifact is now."""
    if json:
        print_json({"artifact": str(artifact), "url": url})
        return
    print_text(f"{artifact} is at {url}")


def _values(values: Any) -> str:
    if values.ndim > 1:
        return f"{values.size} values"
    return ", ".join(f"{float(value):.4g}" for value in values[:SHOWN])
