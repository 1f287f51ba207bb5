"""What was asked of an evaluation → the task, its settings and its examples."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from surgeon.errors import EvaluationError
from surgeon.evaluation.artifact import Artifact
from surgeon.scoring.data import Columns, read_data
from surgeon.scoring.encoder import MOST_UNKNOWN, Encoder, Prepared
from surgeon.scoring.examples import Encoded
from surgeon.scoring.pooling import Pooling, read_pooling
from surgeon.scoring.tasks import TASKS, Settings, Task
from surgeon.scoring.tasks.task import Data, Masking
from surgeon.surgery.expectation import EvaluationSettings, recorded_settings
from surgeon.text import Texts, built_in_sample


@dataclass(frozen=True)
class TaskOptions:
    """What a user may set about a task; None: the task's default.

    Attributes:
        mask_rate: the share of tokens that are masked, replaced or asked for.
        masking: whether a chosen token always becomes the mask token ("all"), or does in 80 of
            100 cases, with 10 other tokens and 10 as they are ("bert").
        block: the tokens of each block of the corpus, in place of one text after another.
        stride: the tokens by which windows over a long text move.
        text_column: the column of the text, by name, or by number in a file without a header.
        pair_column: of the second text.
        label_column: of the label.
    """

    mask_rate: float | None = None
    masking: Masking | None = None
    block: int | None = None
    stride: int | None = None
    text_column: str | None = None
    pair_column: str | None = None
    label_column: str | None = None


def settings_for(artifact: Artifact, asked: EvaluationSettings) -> EvaluationSettings:
    """Fill in what the artifact's recipe says of its evaluation where nothing was asked for.

    Where the recipe is about another task than the one that is scored, it says nothing.
    """
    recorded = recorded_settings(artifact.record.recipe)
    task = recorded.task
    about_another = task is not None and TASKS[task].head != artifact.facts.task
    if about_another or asked.task not in (None, task):
        return asked
    return dataclasses.replace(recorded, **asked.given())


def choose_task(artifact: Artifact, name: str | None) -> Task:
    """Return the task of a name, or (None) that of the model's head.

    Raises:
        EvaluationError: there is no such task, or the model's head is for another.
    """
    facts = artifact.facts
    single = facts.task == "classification" and len(facts.labels) == 1
    if name is not None and name not in TASKS:
        raise EvaluationError(f"--task {name}: no such task; there are {', '.join(TASKS)}")
    wanted = TASKS[name or facts.task]
    if single and wanted.name == "classification":
        wanted = TASKS["regression"]
    fitting = [task for task in TASKS.values() if _fits(task, artifact)]
    if wanted not in fitting:
        there = f" with {len(facts.labels)} labels" if facts.labels else ""
        takes = "a model exported without a head" if wanted.head == "drift" else "another head"
        raise EvaluationError(
            f"--task {wanted.name}: takes {takes}, and the graph of {artifact.record.model} gives "
            f"what its head for {facts.task}{there} does; leave it out, or choose of "
            f"{', '.join(task.name for task in fitting)}"
        )
    return wanted


def _fits(task: Task, artifact: Artifact) -> bool:
    if task.head == "classification" == artifact.facts.task:
        return (len(artifact.facts.labels) == 1) == task.numeric
    return task.head == artifact.facts.task


def make_settings(artifact: Artifact, task: Task, options: TaskOptions, seed: int) -> Settings:
    """Check the options and fill in the task's defaults.

    Raises:
        EvaluationError: a number is out of range, or the task does not use an option.
    """
    values = _used(task, options)
    rate, block, stride = values.get("mask_rate"), values.get("block"), values.get("stride")
    if seed < 0:
        raise EvaluationError(f"--seed {seed}: give a number of 0 or more")
    if rate is not None and not 0 < rate < 1:
        raise EvaluationError(f"--mask-rate {rate:g}: give a share between 0 and 1")
    for name, number in (("block", block), ("stride", stride)):
        if number is not None and number < 1:
            raise EvaluationError(f"--{name} {number}: give a number of 1 or more")
    if values.get("masking") not in (None, "all", "bert"):
        raise EvaluationError(f"--masking {values['masking']}: give all or bert")
    facts, usual = artifact.facts, task.columns
    tokenizer = facts.tokenizer
    return Settings(
        seed=seed,
        mask_rate=rate or 0.0,
        mask_id=tokenizer.mask_id if tokenizer else None,
        special_ids=tokenizer.special_ids if tokenizer else (),
        vocabulary=artifact.tokenizer.get_vocab_size(),
        masking=values.get("masking") or "all",
        block=block,
        stride=stride,
        columns=Columns(
            values.get("text_column") or usual.text,
            values.get("pair_column") or usual.pair,
            values.get("label_column") or usual.label,
            asked=any(values.get(f"{role}_column") for role in ("text", "pair", "label")),
        ),
        labels=facts.labels,
        decoder_start_id=facts.decoder_start_id,
        pooling=read_pooling(artifact.directory) if task.name == "sts" else None,
    )


def _used(task: Task, options: TaskOptions) -> Mapping[str, Any]:
    given = {f.name: getattr(options, f.name) for f in fields(options)}
    for name, value in given.items():
        if value is not None and name not in task.options:
            users = ", ".join(other.name for other in TASKS.values() if name in other.options)
            raise EvaluationError(
                f"--{name.replace('_', '-')} {value}: the task {task.name} does not use it; leave "
                f"it out (it is for {users})"
            )
    return {
        name: default if given[name] is None else given[name]
        for name, default in task.options.items()
    }


def find_data(task: Task, data: Data | str | Path | None, columns: Columns) -> Data:
    """Read what was named, or the task's own sample.

    Raises:
        EvaluationError: it cannot be read, or the task has no sample of its own.
    """
    if not isinstance(data, str | Path | None):
        return data
    if data is None and task.sample is None and task.needs == "table":
        raise EvaluationError(
            f"--data: {task.name} takes labelled rows; give a CSV, TSV, JSON, JSON Lines or "
            "Parquet file, or hf:org/name"
        )
    source = task.sample if data is None else str(data)
    return built_in_sample() if source is None else read_data(source, task.needs, columns)


def make_examples(artifact: Artifact, task: Task, settings: Settings, data: Data) -> Prepared:
    """Tokenize data with the artifact's own tokenizer and make the task's examples.

    Raises:
        EvaluationError: the artifact has no tokenizer or one that does not know the words of the
            data, or fewer than two examples come of them.
    """
    encoder = encoder_of(artifact, settings.pooling)
    prepared = task.read(data, encoder, settings)
    tokens = sum(example.tokens for example in prepared.examples)  # of texts left out, none
    if data.lines and prepared.unknown > MOST_UNKNOWN * tokens:
        encoder.check_known(encoder.encode(data.lines), data.lines, data.name)
    given, there = prepared.given, len(prepared.examples)
    if there == 1:
        found = "only one example" if given == 1 else f"only one of {given} gives an example"
        raise EvaluationError(
            f"--data {data.name}: {found}, and an interval takes 2; give two or more"
        )
    if not there and task.needs == "table":
        raise EvaluationError(
            f"--data {data.name}: none of {given} rows has a label to compare with; give labelled "
            "rows, or name the column with --label-column"
        )
    if not there:
        raise EvaluationError(
            f"--data {data.name}: none of {given} texts has tokens that this model's tokenizer "
            "knows; give text of the kind the model was trained on"
        )
    return prepared


def encoder_of(artifact: Artifact, pooling: Pooling | None = None) -> Encoder:
    """Return the artifact's tokenizer with the limits that go with it.

    Raises:
        EvaluationError: the artifact has no tokenizer, or it cannot be read.
    """
    facts = artifact.facts
    return Encoder(
        artifact.tokenizer,
        longest_of(artifact, pooling),
        facts.tokenizer.unknown_id if facts.tokenizer else None,
    )


def longest_of(artifact: Artifact, pooling: Pooling | None) -> int:
    """Return how many tokens a text is cut to: the model's limit, or a lower one of a sentence."""
    limits = (artifact.facts.max_length, pooling.max_length if pooling else None)
    return min(limit for limit in limits if limit is not None)


def encode_for(artifact: Artifact, texts: Texts) -> Encoded:
    """Tokenize texts with the artifact's own tokenizer, cut to the model's length."""
    return encoder_of(artifact).encode(texts.lines)
