"""What was asked of an evaluation → the task, its settings and its examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from surgeon.errors import EvaluationError
from surgeon.evaluation.artifact import Artifact, tokenizer_of
from surgeon.onnx.facts import OnnxFacts
from surgeon.tasks.configuration import read_config, read_pooling
from surgeon.tasks.data import read_table, read_texts_of
from surgeon.tasks.examples import Encoder, Example, Prepared
from surgeon.tasks.registry import TASKS, EvaluationSettings, TaskOptions
from surgeon.tasks.statistics import Groups
from surgeon.tasks.table import Columns, Table
from surgeon.tasks.task import INVERTED, Data, Settings, Task
from surgeon.tasks.tokenizer import beginning_id, read_tokenizer, sentinels_of
from surgeon.text import Texts, built_in_sample

_MULTI_LABEL = "multi_label_classification"


@dataclass(frozen=True)
class Dataset:
    """What was measured on. ``tokens`` and ``examples`` are those that were scored on.

    ``scored_tokens`` is 0 where the score is not per token. ``skipped`` texts had nothing to
    score, ``truncated`` ones were cut to the model's length, ``unknown`` tokens are not in the
    vocabulary. ``unit`` is what each example is one of: texts, windows, blocks or pairs.
    """

    name: str
    sha256: str
    examples: int
    tokens: int
    scored_tokens: int
    skipped: int
    truncated: int
    unknown: int
    unit: str = "texts"


@dataclass(frozen=True, eq=False)
class Workload:
    """Examples ready to run, of which every variant sees the same.

    ``prepared`` has them, and how they came about; ``longest`` is how many tokens a text is cut to.
    """

    task: Task
    settings: Settings
    data: Data
    prepared: Prepared
    longest: int

    @property
    def examples(self) -> tuple[Example, ...]:
        """The examples, in the order in which they run."""
        return self.prepared.examples

    @cached_property
    def texts(self) -> Groups:
        """The number of the text that each example is, in the order of their appearance."""
        numbers: dict[tuple[tuple[int, ...], ...], int] = {}
        texts = (tuple(part.ids for part in example.sequences) for example in self.examples)
        return np.array([numbers.setdefault(text, len(numbers)) for text in texts], np.int64)

    def in_random_order(self) -> Workload:
        """Return the same with the texts in random order, each with all the examples that it is."""
        rng = np.random.default_rng([self.settings.seed, len(self.examples)])
        places = rng.permutation(int(self.texts.max()) + 1)
        order = np.argsort(np.argsort(places)[self.texts], kind="stable")
        examples = tuple(self.examples[number] for number in order)
        return replace(self, prepared=replace(self.prepared, examples=examples))

    def dataset(self, seen: int | None = None) -> Dataset:
        """Return what a result says of the data, if this many examples were seen (None: all)."""
        examples, prepared = self.examples[:seen], self.prepared
        return Dataset(
            name=self.data.name,
            sha256=self.data.sha256,
            examples=len(examples),
            tokens=sum(example.tokens for example in examples),
            scored_tokens=sum(example.scored for example in examples),
            skipped=prepared.given - len(self.examples),
            truncated=prepared.truncated,
            unknown=prepared.unknown,
            unit=prepared.unit,
        )


def prepare(
    artifact: Artifact,
    asked: EvaluationSettings,
    data: Data | Sequence[str] | str | Path | None = None,
    metric: str | None = None,
) -> Workload:
    """Choose the task, read the data and make the examples that an evaluation runs.

    Args:
        artifact: what is evaluated.
        asked: the settings, those of the recipe among them.
        data: texts or rows, or what names some (None: what ``asked`` names, or the task's own).
        metric: what the verdict is about (None: the task's own).

    Raises:
        EvaluationError: the data cannot be read or give no examples, the graph has no head for
            the task, or a setting is not for it.
    """
    task = choose_metric(_choose_task(artifact, asked.task), metric)
    settings = _settings(artifact, task, asked)
    read = _read_data(task, asked.data if data is None else data, settings)
    encoder = _encoder(artifact, task, settings)
    prepared = _examples(task, settings, read, encoder)
    return Workload(task, settings, read, prepared, encoder.max_length)


def _choose_task(artifact: Artifact, name: str | None) -> Task:
    """Return the task of a name, or (None) that of the model's head."""
    facts = artifact.facts
    if read_config(artifact.directory).get("problem_type") == _MULTI_LABEL:
        raise EvaluationError(
            f"{artifact.directory}: config.json declares the problem_type {_MULTI_LABEL}, in which "
            "a text has any number of labels at once, and no task scores that; restore, verify and "
            "diff work"
        )
    if name is not None and name not in TASKS:
        raise EvaluationError(f"`task` {name}: no such task; there are {', '.join(TASKS)}")
    wanted = TASKS[name] if name else own_task(artifact.directory, facts)
    if wanted.name == "classification" == facts.task and len(facts.labels) == 1:
        wanted = TASKS["regression"]
    fitting = [task for task in TASKS.values() if _fits(task, artifact)]
    if wanted not in fitting:
        labels = f" with {len(facts.labels)} labels" if facts.labels else ""
        takes = "a model exported without a head" if "drift" in wanted.heads else "another head"
        raise EvaluationError(
            f"`task` {wanted.name}: takes {takes}, and the graph of {artifact.name} gives "
            f"what its head for {facts.task}{labels} does; leave it out, or give one of "
            f"{', '.join(task.name for task in fitting)}"
        )
    return wanted


def own_task(directory: Path, facts: OnnxFacts) -> Task:
    """Return what an artifact is scored on where no task is named: what its head is for.

    An encoder-decoder that has no token to hide others with was trained on sources and targets.
    """
    known = facts.tokenizer
    if facts.task != "denoising" or known is None or known.mask_id is not None:
        return TASKS[facts.task]
    hides = sentinels_of(tokenizer_of(directory, facts), None)
    return TASKS["denoising" if hides else "seq2seq"]


def _fits(task: Task, artifact: Artifact) -> bool:
    head, labels = artifact.facts.task, artifact.facts.labels
    one_number = head == "classification" and len(labels) == 1
    return head in task.heads and task.numeric == one_number


def choose_metric(task: Task, name: str | None) -> Task:
    """Return a task whose verdict is about the metric of a name, or (None) about its own.

    Raises:
        EvaluationError: the task has no such metric.
    """
    if name is None:
        return task
    metric = {_folded(metric): metric for metric in task.metrics}.get(_folded(name))
    if metric is None:
        known = ", ".join(metric.removeprefix(INVERTED) for metric in task.metrics)
        raise EvaluationError(
            f"`metric` {name}: the task {task.name} has no such metric; give one of {known}"
        )
    if metric == task.metric:
        return task
    inverted = metric.startswith(INVERTED)
    unit = f"{INVERTED}the {metric.removeprefix(INVERTED)} of all examples" if inverted else metric
    return replace(task, metric=metric, unit=unit)


def _folded(metric: str) -> str:
    """Return what a metric's name has in common with how people write it."""
    return "".join(filter(str.isalnum, metric.removeprefix(INVERTED).casefold()))


def _settings(artifact: Artifact, task: Task, asked: EvaluationSettings) -> Settings:
    """Check the options and fill in the task's defaults."""
    values = _used(task, asked)
    text, pair, label = (values.get(f"{role}_column") for role in ("text", "pair", "label"))
    facts, tokenizer = artifact.facts, artifact.facts.tokenizer
    return Settings(
        seed=asked.seed or 0,
        mask_rate=values.get("mask_rate") or 0.0,
        mask_id=tokenizer.mask_id if tokenizer else None,
        special_ids=tokenizer.special_ids if tokenizer else (),
        sentinels=sentinels_of(artifact.tokenizer, tokenizer.mask_id) if tokenizer else (),
        vocabulary=artifact.tokenizer.get_vocab_size(),
        masking=values.get("masking") or "all",
        block=values.get("block"),
        stride=values.get("stride"),
        bos=_bos(artifact, values.get("bos", False)),
        document=bool(values.get("document")),
        columns=Columns(text, pair, label, task.columns),
        labels=facts.labels,
        head=facts.task,
        decoder_start_id=facts.decoder_start_id,
        model_type=str(read_config(artifact.directory).get("model_type", "")),
        pooling=read_pooling(artifact.directory) if task.name == "sts" else None,
    )


def _used(task: Task, options: TaskOptions) -> Mapping[str, Any]:
    """Return the task's options, those that were given in place of its defaults."""
    given = {name: getattr(options, name) for name in TaskOptions.model_fields}
    for name, value in given.items():
        if value is not None and value is not False and name not in task.options:
            users = ", ".join(other.name for other in TASKS.values() if name in other.options)
            raise EvaluationError(
                f"`{name}` {value}: the task {task.name} does not use it; leave "
                f"it out (it is for {users})"
            )
    return {
        name: default if given[name] is None else given[name]
        for name, default in task.options.items()
    }


def _bos(artifact: Artifact, wanted: bool | None) -> int | None:  # noqa: FBT001
    """Return the token to put before each text; ``wanted`` is None for one if there is one."""
    causal = artifact.facts.task == "clm"
    if wanted is False or (wanted is None and not causal):
        return None
    found = beginning_id(artifact.directory, artifact.facts.tokenizer)
    if wanted and (found is None or not causal):
        raise EvaluationError(
            "`bos`: takes a causal model whose tokenizer names a BOS or EOS token in "
            "tokenizer_config.json; leave it out"
        )
    return found


def _read_data(
    task: Task, data: Data | Sequence[str] | str | Path | None, settings: Settings
) -> Data:
    """Read what was named, or the task's own sample."""
    if settings.document and not isinstance(data, str | Path):
        raise EvaluationError("`document`: is for a text file that `texts` names")
    if isinstance(data, Table) and not task.needs_table:
        raise EvaluationError(f"`texts` {data.name}: texts are needed, and these are labelled rows")
    if isinstance(data, Texts | Table):
        return data
    if not isinstance(data, str | Path | None):
        return Texts.of(data)
    source = task.sample if data is None else str(data)
    if not task.needs_table:
        if source is None:
            return built_in_sample()
        return read_texts_of(source, settings.columns, document=settings.document)
    if source is None:
        raise EvaluationError(
            f"`texts`: {task.name} takes {task.rows}; give a CSV, TSV, JSON, JSON Lines or "
            "Parquet file, or hf:org/name"
        )
    return read_table(source)


def _encoder(artifact: Artifact, task: Task, settings: Settings) -> Encoder:
    """Return the tokenizer of the model for a task, with the limits that go with it.

    With ``bos``, that token is the one special token that it adds.
    """
    facts, pooling = artifact.facts, settings.pooling
    tokenizer = artifact.tokenizer
    if task.sides:
        tokenizer = tokenizer_of(artifact.directory, facts, sides=True)
    if settings.bos is not None:
        tokenizer = read_tokenizer(artifact.directory, facts.tokenizer, settings.bos)
    longest = facts.max_length
    if pooling is not None and pooling.max_length is not None:
        longest = min(longest, pooling.max_length)
    return Encoder(tokenizer, longest, facts.tokenizer.unknown_id if facts.tokenizer else None)


def _examples(task: Task, settings: Settings, data: Data, encoder: Encoder) -> Prepared:
    """Make the task's examples, two or more, of texts that the tokenizer knows."""
    prepared = task.read(data, encoder, settings)
    encoder.check_known(prepared, data.lines, data.name)
    given, found = prepared.given, len(prepared.examples)
    if found == 1:
        one = "only one example" if given == 1 else f"only one of {given} gives an example"
        advice = "cut it with `block` N" if settings.document else "give two or more"
        if settings.block is not None:
            advice = f"give more text, or a `block` below {settings.block}"
        raise EvaluationError(f"`texts` {data.name}: {one}, and an interval takes 2; {advice}")
    if not found and task.needs_table:
        raise EvaluationError(
            f"`texts` {data.name}: none of {given} rows has a label to compare with and a text "
            "that this model's tokenizer knows; give labelled rows, or name the columns with "
            "`label_column` and `text_column`"
        )
    if not found:
        texts = given or len(data.lines)  # of no token at all, no block is made
        raise EvaluationError(
            f"`texts` {data.name}: none of {texts} texts has tokens that this model's tokenizer "
            "knows; give text of the kind the model was trained on"
        )
    return prepared
