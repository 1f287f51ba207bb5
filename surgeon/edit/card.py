"""The artifact's model card: what was done to which base model, and how to undo it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from surgeon.edit.changes import Edit, kinds_of
from surgeon.edit.plan import Plan
from surgeon.edit.recipe_file import parse_yaml
from surgeon.harmless import fence_for, listed, markdown, markdown_code

# Facts about the base model that stay true of an edited copy. Its evaluation results do not.
_KEPT = ("license", "license_name", "license_link", "language", "library_name", "pipeline_tag")
_MOST_READ = 1_000_000  # bytes of the source's card, whose header comes first
_ROWS = 60
_SHOWN = 4


def write_card(plan: Plan, source_card: Path, path: Path) -> None:
    """Write the card to ``path``, with the facts of the source's own, if the artifact has it."""
    base = markdown(plan.checkpoint.name)
    base = f"[{base}](surgeon/source/README.md)" if source_card.is_file() else base
    path.write_text(_card(plan, base, read_front_matter(source_card)), encoding="utf-8")


def read_front_matter(card: Path) -> Mapping[str, str | list[str]]:
    """Return the texts and lists of texts in a model card's YAML header.

    An absent or damaged header is empty: a broken card is no reason to refuse the patch.
    """
    if not card.is_file():
        return {}
    with card.open("rb") as file:
        text = file.read(_MOST_READ).decode("utf-8", "replace")
    parts = text.replace("\r\n", "\n").split("---\n", 2)
    if len(parts) < 3 or parts[0].strip():
        return {}
    try:
        fields = parse_yaml(parts[1], plain=True).content
    except ValueError:
        return {}
    return {
        name: value
        for name, value in (fields.items() if isinstance(fields, dict) else ())
        if all(isinstance(part, str) for part in (value if isinstance(value, list) else (value,)))
    }


def _card(plan: Plan, base: str, source: Mapping[str, str | list[str]]) -> str:
    import yaml

    name = plan.checkpoint.name
    kept = {key: source[key] for key in _KEPT if key in source}
    own = source.get("tags")
    tags = [*(own if isinstance(own, list) else ()), "norm-surgeon", "outlier-dimensions"]
    fields = {"base_model": name, **kept, "tags": list(dict.fromkeys(tags))}
    header = yaml.safe_dump(fields, sort_keys=False)
    recipe = yaml.safe_dump(_plain(plan.recipe.to_json()), sort_keys=False).rstrip()
    fence = fence_for(recipe, least=3)
    total = plan.checkpoint.parameters_total
    return f"""---
{header}---

# {markdown(name)}, dimensions {listed(plan.dims)} edited

This is {base} with **{plan.parameters_changed} of {total:,}
parameters changed** ({plan.parameters_changed / total:.2g} of them), by
[surgeon](https://pypi.org/project/norm-surgeon/). It is meant for research into what these
dimensions do; do not expect it to work as well as its base model. Every other byte of the
weights is the base model's.{_choice(plan)}

## Recipe

{fence}yaml
{recipe}
{fence}

## Edits

{markdown(plan.checkpoint.family.name)}; edited: {"; ".join((kinds_of(plan.edits), *plan.notes))}.

{_table(plan.edits)}

All old and new values, and the hash of every file before and after, are in
`surgeon/record.json`; the old values, bit for bit, in `surgeon/excised.safetensors`.

## Effect

`surgeon eval` measures it and keeps the newest result on each task and data set in
`surgeon/evaluations`, with its baseline and random removals; `surgeon report` shows them all.

## Undo

    pip install norm-surgeon
    surgeon restore PATH_OF_THIS_FOLDER -o original/
"""


def _choice(plan: Plan) -> str:
    """Say what chose the dimensions, and whether what they do was measured."""
    if plan.ranking is None:
        return ""
    chosen = f" The dimensions were chosen by {plan.ranking.method}: {plan.ranking.basis}"
    if plan.ranking.measured:
        chosen += ", by removing each"
    elif plan.checkpoint.can_run:
        chosen += " (`surgeon scan MODEL --method ablation` measures what removing each does)"
    return "; ".join(filter(None, (chosen, plan.relaxed))) + "."


def _plain(value: Any) -> Any:
    """Return JSON values with lists for tuples, and without the fields that say nothing."""
    if isinstance(value, Mapping):
        return {name: _plain(part) for name, part in value.items() if part not in (None, "")}
    return [_plain(part) for part in value] if isinstance(value, tuple) else value


def _table(edits: Sequence[Edit]) -> str:
    rows = ["| tensor | entries | what | old | new |", "|---|---|---|---|---|"]
    for edit in edits[:_ROWS]:
        dims = listed(edit.dims)
        old, new = _values(edit.old), _values(edit.new)
        tensor = markdown_code(edit.tensor).replace("|", "\\|")
        layer = "" if edit.layer is None else f"layer {edit.layer}"
        place = " ".join(filter(None, (edit.stack, layer, edit.role, edit.kind, edit.param)))
        rows.append(f"| {tensor} | {dims} | {place} | {old} | {new} |")
    if len(edits) > _ROWS:
        rows.append(f"| and {len(edits) - _ROWS} more tensors | | | | |")
    return "\n".join(rows)


def _values(values: Any) -> str:
    if values.size > _SHOWN and values.ndim > 1:
        same = bool((values == values.flat[0]).all())
        return f"{values.size} × {float(values.flat[0]):.4g}" if same else f"{values.size} values"
    return listed((f"{float(value):.4g}" for value in values.reshape(-1)), _SHOWN)
