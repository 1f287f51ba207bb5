"""What was done to a checkpoint: plans, records, comparisons and checks."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.text import Text

from surgeon.console.printing import (
    SHOWN,
    in_layers,
    numbers,
    print_caution,
    print_json,
    print_line,
    print_note,
    print_table,
    print_text,
)
from surgeon.edit.changes import kinds_of

if TYPE_CHECKING:
    from surgeon.edit.files import FileState, Reason
    from surgeon.edit.plan import Plan
    from surgeon.edit.record import Record
    from surgeon.edit.verify import Comparison, Verification
    from surgeon.edit.write import Export
    from surgeon.onnx.cache import KeptGraph
    from surgeon.onnx_files.patch import OnnxPlan


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
    print_table(
        ["tensor", "dims", "old", "new"],
        [(e.tensor, numbers(e.dims), _values(e.old), _values(e.new)) for e in plan.edits],
        title=f"{plan.checkpoint.name}: {kinds_of(plan.edits)}",
    )
    print_text(
        f"{plan.parameters_changed} of {plan.checkpoint.parameters_total:,} parameters would "
        "change. Nothing was written."
    )
    for note in plan.notes:
        print_caution(note)


def show_inferred(planned: OnnxPlan) -> None:
    """Say how the operations that end a layer were found in an ONNX file, and what is split."""
    model, splits = planned.model, planned.splits
    layers = model.checkpoint.layers
    outputs = [found for found in model.graph_sites if found.site.role == "output"]
    ends = f"{outputs[0].site.gain} to {outputs[-1].site.gain}"
    print_note(f"{model.file}: {layers} layers, found {model.inferred}; they end in {ends}.")
    packed = [split for split in splits if model.graph.tensors[split.tensor].packed]
    shared = [split for split in splits if split not in packed]
    for found, why in ((shared, "are read elsewhere too"), (packed, "are stored in int32_data")):
        if found:
            print_note(
                f"{len(found)} initializers {why}, {found[0].tensor} among them: each gets a copy "
                "for the edited norms only."
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
    if moved := onnx.get("moved"):
        print_note(
            f"The tensors in {', '.join(moved)} do not lie at multiples of their elements' sizes, "
            "which ONNX asks for, so the graph has a copy of them that does."
        )


def _parity(onnx: Mapping[str, Any], files: Iterable[FileState]) -> str:
    """Say how near a graph is to PyTorch, and if that was measured with other weights, when."""
    parity = onnx["parity"]
    if parity is None:
        return "not compared with PyTorch"
    near = f"within {parity['largest']:.1e} of PyTorch"
    if set(parity["weights"]) <= {state.blake3 for state in files}:
        return near
    return f"{near} with other weights ({parity['measured'].partition('T')[0]})"


def show_record(record: Record, output: Path, *, json: bool) -> None:
    """Show what an operation did."""
    _note_graph(record.onnx or {})
    if json:
        print_json(record.summary(output))
        return
    splits = len(record.splits)
    others = f"{splits} initializers copied, all" if splits else "all"
    print_text(
        f"{record.model} ({record.architecture}): {record.parameters_changed} of "
        f"{record.parameters_total:,} parameters changed at dimensions "
        f"{numbers(record.dims)} ({kinds_of(record.edits)}; {_operation(record.recipe)}), "
        f"{others} other bytes as they were."
    )
    for note in record.notes:
        print_caution(note)
    if record.parameters_changed == 0:
        print_caution("The operation changed no value")
    if record.onnx is not None:
        parity = _parity(record.onnx, (change.after for change in record.files.values()))
        print_text(f"ONNX: {record.onnx['model']}, {parity}.")
    _show_conversion(record, "the artifact has its tensors")
    for reason, why in _LEFT_OUT.items():
        names = [name for name in record.left_out if record.left_out_because.get(name) == reason]
        if names:
            print_text(f"Left out, since {why}: {', '.join(names)}")
    print_text(f"Artifact: {output}")
    what, data = "verify", ""
    if record.onnx is not None:
        from surgeon.evaluation.workload import own_task
        from surgeon.onnx.facts import onnx_facts

        task = own_task(output, onnx_facts(record.onnx))
        needed = task.needs_table and task.sample is None
        what, data = "eval", f" --data FILE, of {task.rows}" if needed else ""
    elif record.onnx_patch and {"config.json", "tokenizer.json"} <= record.files.keys():
        what = "eval"  # of a file from elsewhere, by the files beside it
    print_line(f"Next: surgeon {what} {shlex.quote(str(output))}{data}")


def _operation(recipe: Mapping[str, Any]) -> str:
    """Say what a recorded recipe does to the dimensions."""
    factor = "" if recipe["factor"] is None else f" by {recipe['factor']:g}"
    return f"{recipe['mode']}{factor} in {in_layers(recipe.get('layers'))}"


def _show_conversion(record: Record, now: str) -> None:
    if record.converted_from:
        pickles, weights = ", ".join(record.converted_from), ", ".join(record.weights)
        print_text(f"{pickles} was a pickle: {now} as {weights}.")


def show_exported(done: Export, output: Path, *, json: bool) -> None:
    """Show what an export made, and how near to PyTorch it is."""
    _note_graph(done.onnx.to_json())
    if json:
        print_json({"output": str(output), **done.to_json()})
        return
    facts = done.onnx
    compared = f" over {facts.parity.sequences} sequences" if facts.parity else ""
    print_text(
        f"{done.model}: {output / facts.model} ({facts.task}, {facts.dtype}), "
        f"{_parity(facts.to_json(), done.files.values())}{compared}."
    )


def show_graphs(graphs: Sequence[KeptGraph], folder: Path, *, json: bool) -> None:
    """Show the graphs that are kept."""
    if json:
        print_json({"folder": str(folder), "graphs": [vars(graph) for graph in graphs]})
        return
    if graphs:
        print_table(
            ["key", "exported of", "task", "last used", ">bytes"],
            [(g.key[:8], g.model, g.task, g.used[:16], f"{g.bytes:,}") for g in graphs],
            title=str(folder),
        )
    else:
        print_text(f"No graphs are kept in {folder}.")


def show_cleared(count: int, folder: Path, *, json: bool) -> None:
    """Show how many graphs were removed."""
    if json:
        print_json({"folder": str(folder), "removed": count})
    else:
        print_text(f"{count} graphs removed from {folder}")


def show_restored(record: Record, output: Path, *, json: bool) -> None:
    """Show what a restore gave back, and what it could not."""
    if json:
        print_json(record.summary(output))
        return
    print_text(f"{record.model} restored to {output}")
    _show_conversion(record, "its tensors are back")
    if record.left_out:
        print_text(f"Not in the artifact, so not restored: {', '.join(record.left_out)}")


def show_small_patch(plan: Plan, path: Path, size: int, *, json: bool) -> None:
    """Show what a small patch holds."""
    if json:
        print_json({"output": str(path), "bytes": size, **plan.to_json()})
        return
    print_text(
        f"{path}: {size:,} bytes, {plan.parameters_changed} scalars of "
        f"{plan.checkpoint.name} at dimensions {numbers(plan.dims)}; surgeon apply "
        "performs it."
    )
    for note in plan.notes:
        print_caution(note)


def show_comparison(comparison: Comparison, *, json: bool) -> None:
    """Show which tensors differ, where and by how much."""
    if json:
        print_json(comparison.to_json())
        return
    if comparison.identical:
        print_text(f"Identical: all {comparison.compared} tensors, bit for bit.")
        return
    print_table(
        ["tensor", "what", ">scalars", "dims"],
        [
            (t.name, t.reason, f"{t.changed:,}", "spread" if t.dims is None else numbers(t.dims))
            for t in comparison.tensors
        ],
    )
    print_text(
        f"{comparison.scalars_changed:,} scalars differ, in {len(comparison.tensors):,} of "
        f"{comparison.compared:,} tensors."
    )


def show_verification(verification: Verification, *, json: bool) -> None:
    """Show every check, and what failed."""
    if json:
        print_json(verification.to_json())
        return
    marks = {True: Text("ok", "green"), False: Text("failed", "bold red")}
    rows = [(check.name, marks[check.passed], check.found) for check in verification.checks]
    heads = ["check", "", "found"][: 3 if any(found for *_, found in rows) else 2]
    print_table(heads, [row[: len(heads)] for row in rows], title=verification.model)
    if verification.passed:
        print_text(f"All {len(verification.checks)} checks passed.")


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
