"""A model in PyTorch with texts to run through it: what the detectors that run the model share."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from surgeon.errors import (
    WEIGHTS_ONLY,
    CheckpointError,
    EvaluationError,
    ExportError,
    SelectionError,
    SurgeonError,
    suggesting,
)
from surgeon.families import Site, by_layer
from surgeon.model import Checkpoint
from surgeon.model.checkpoint import find_not_finite
from surgeon.progress import Progress
from surgeon.tasks.configuration import check_sizes, longest_text
from surgeon.tasks.examples import Encoder, Example, batch_examples, batches_by_length
from surgeon.tasks.registry import TASKS
from surgeon.tasks.task import BASELINE, BatchScores, Floats, Settings, Task, TaskName, Variant
from surgeon.tasks.tokenizer import sentinels_of
from surgeon.text import GivenTexts, Texts, as_texts, ranking_sample
from surgeon.torch_model import memory_left
from surgeon.torch_model.live import LiveCheckpoint

if TYPE_CHECKING:
    from surgeon.torch_model.loading import TorchModel


# The tasks whose output has a row for each token, of which some are asked for.
_AT_POSITIONS = ("mlm", "clm")
# The tasks with a head of its own that text alone is enough for.
_BY_TEXT = ("mlm", "clm", "rtd", "plm", "denoising")

_BYTES = 4  # of a parameter in float32

_Model = TypeVar("_Model", bound=Checkpoint)


@dataclass(frozen=True, eq=False)
class TorchRunner:
    """Runs a model in PyTorch, whole or without dimensions at the output sites of all layers.

    ``layers`` are the output sites of each layer: one, or those of experts. ``sequences`` are the
    tokens of each of the ``texts``, of which ``truncated`` were cut. ``left_out`` says why a head
    that is there is not scored ("": it is), and ``not_applied`` which code and adapters beside the
    weights had no part.
    """

    checkpoint: Checkpoint
    model: TorchModel
    layers: tuple[tuple[Site, ...], ...]
    tokenizer: Any
    max_length: int
    texts: Texts
    sequences: tuple[tuple[int, ...], ...]
    truncated: int
    left_out: str = ""
    not_applied: tuple[str, ...] = ()

    @property
    def task(self) -> Task:
        """The model's own task, or drift where that takes labels."""
        return TASKS[self.model.task]

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a person should know about the model and the texts."""
        cut = self.truncated
        texts = "text was" if cut == 1 else "texts were"
        found = (f"{cut} {texts} cut to {self.max_length} tokens",) if cut else ()
        return (*self.not_applied, *found)

    def with_texts(self, texts: Texts) -> TorchRunner:
        """Return the same model with other texts."""
        sequences, truncated = _encode(texts, self.tokenizer, self.max_length)
        return replace(self, texts=texts, sequences=sequences, truncated=truncated)

    def shuffled(self, seed: int) -> TorchRunner:
        """Return the same with its different texts in random order: the first are a sample."""
        different = tuple(dict.fromkeys(filter(None, self.sequences)))
        order = np.random.default_rng([seed, len(different)]).permutation(len(different))
        return replace(self, sequences=tuple(different[number] for number in order))

    def of_first(self, count: int) -> TorchRunner:
        """Return the same with its first texts alone."""
        return replace(self, sequences=self.sequences[:count])

    def settings(self, seed: int) -> Settings:
        """Return the settings of the task, all but the seed at their defaults."""
        from surgeon.torch_model.loading import decoder_start_of

        mask_id = self.tokenizer.mask_token_id
        return Settings(
            seed,
            self.task.options.get("mask_rate", 0.0),
            mask_id,
            tuple(sorted(set(self.tokenizer.all_special_ids))),
            sentinels=sentinels_of(self.tokenizer, mask_id),
            vocabulary=len(self.tokenizer),
            decoder_start_id=decoder_start_of(self.model),
            model_type=self.model.model.config.model_type,
        )

    def examples(self, settings: Settings) -> tuple[Example, ...]:
        """Make the examples of the task from the texts.

        Raises:
            EvaluationError: fewer than two texts have anything to score.
        """
        prepare = self.task.prepare
        assert prepare is not None
        prepared = [prepare(ids, settings) for ids in self.sequences]
        examples = tuple(example for example in prepared if example is not None)
        if len(examples) < 2:
            raise EvaluationError(
                f"`texts` {self.texts.name}: {len(examples)} of {len(self.texts.lines)} texts have "
                "tokens that this model's tokenizer knows and an interval takes 2; give text of "
                "the kind the model was trained on"
            )
        return examples

    def run(self, variant: Variant, examples: Sequence[Example]) -> Iterator[BatchScores]:
        """Yield the examples batch by batch, scored without the variant's dimensions."""
        from surgeon.torch_model.forward import without_dims

        sites = [site for layer in self.layers for site in layer]
        with without_dims(self.model, sites, variant.dims):
            for numbers in batches_by_length(examples, self._width):
                yield numbers, self._scores([examples[number] for number in numbers])

    def _scores(self, examples: Sequence[Example]) -> Iterable[Floats]:
        from surgeon.torch_model.forward import run, run_at

        pad = int(self.tokenizer.pad_token_id or 0)
        batch = batch_examples(examples, self.model.graph_inputs, pad)
        if self.task.name not in _AT_POSITIONS:
            return map(self.task.observe, run(self.model, batch), examples)
        logits = run_at(self.model, batch, [example.positions for example in examples])
        # The logits are those of the scored positions alone, in their order.
        asked = (Example(e.ids, np.arange(e.positions.size), e.labels) for e in examples)
        return map(self.task.observe, logits, asked)

    @property
    def _width(self) -> int:
        """How many numbers a batch's output has per token, on average."""
        config = self.model.model.config.get_text_config()
        if self.task.name in ("drift", "rtd"):
            return int(config.hidden_size)
        share = self.task.options.get("mask_rate", 1.0) if self.task.name in _AT_POSITIONS else 1.0
        return round(float(config.vocab_size) * share)

    def not_finite(self, variant: Variant = BASELINE) -> SurgeonError:
        """Return the error for an output that is not finite: it names the tensor, if one is."""
        if variant.dims:
            return EvaluationError(
                f"without dims {list(variant.dims)}, the model's output is not finite: there is no "
                "score"
            )
        if found := find_not_finite(self.checkpoint):
            return CheckpointError(f"{found}, as is all that the model makes of them; repair them")
        return EvaluationError(
            f"{self.checkpoint.name}: its weights are finite, and its states on {self.texts.name} "
            "are not: they overflow in float32; give other data"
        )


def open_torch_runner(
    checkpoint: Checkpoint, given: GivenTexts | None, progress: Progress, device: str = "auto"
) -> TorchRunner:
    """Load a checkpoint in PyTorch, on a device, and tokenize texts for it.

    Without texts it is the built-in sample that ranks.

    Raises:
        ExportError: transformers cannot load it, or not as it is stored, or it does not fit.
        EvaluationError: it has no tokenizer, or one that does not know the texts' words.
        SelectionError: there is no such device.
    """
    texts = ranking_sample() if given is None else as_texts(given)
    if isinstance(checkpoint, LiveCheckpoint):
        return _live_runner(checkpoint, texts, device)
    if importlib.util.find_spec("torch") is None:
        raise ExportError(
            "PyTorch, which runs the model, is not installed: pip install torch", WEIGHTS_ONLY
        )
    if not checkpoint.config:
        raise ExportError(
            f"{checkpoint.source}: has no config.json beside it, without which no model runs; put "
            "it and the tokenizer's files there",
            WEIGHTS_ONLY,
        )
    _check_memory(checkpoint)
    progress("loading PyTorch", 0, 0)
    from surgeon.torch_model.directory import not_applied
    from surgeon.torch_model.loading import find_device, load_model, move
    from surgeon.torch_model.tokenizer import load_tokenizer

    device = find_device(device)
    check_sizes(checkpoint, WEIGHTS_ONLY)
    progress("loading the model", 0, 0)
    with suggesting(WEIGHTS_ONLY):
        tokenizer = load_tokenizer(checkpoint.directory)
    if tokenizer is None:
        raise EvaluationError(
            f"{checkpoint.directory}: no tokenizer in it that reads text; put its files "
            f"(tokenizer.json, or vocab.txt and tokenizer_config.json) there, or {WEIGHTS_ONLY}"
        )
    with suggesting(WEIGHTS_ONLY):
        task, model = _load_for_text(checkpoint, tokenizer, load_model)
        move(model.model, checkpoint, device)
    notes = not_applied(checkpoint.directory, checkpoint.config)
    return _runner(model, tokenizer, texts, task, notes)


def _live_runner(checkpoint: LiveCheckpoint, texts: Texts, device: str) -> TorchRunner:
    """Run a model that is in memory, as it is and where it is."""
    from surgeon.torch_model.loading import ready_live

    tokenizer, here = checkpoint.tokenizer, checkpoint.model.device
    if device not in ("auto", here.type, str(here)):
        raise SelectionError(
            f"`device` {device}: the model is on {here} and runs there; move it to {device} first"
        )
    if not hasattr(tokenizer, "mask_token_id"):
        raise EvaluationError("`tokenizer`: the method runs the model on text; give transformers'")
    body = checkpoint.model.base_model is checkpoint.model
    if body and checkpoint.model.get_output_embeddings() is None:
        # BART's embeddings are its head, which its body in memory has not.
        return _runner(ready_live(checkpoint, "drift"), tokenizer, texts, "drift")
    task, model = _load_for_text(checkpoint, tokenizer, ready_live)
    return _runner(model, tokenizer, texts, task)


def _load_for_text(
    checkpoint: _Model, tokenizer: Any, load: Callable[[_Model, TaskName], TorchModel]
) -> tuple[TaskName, TorchModel]:
    """Load a model for its own task, or its body where text alone is not enough for that."""
    from surgeon.torch_model.heads import detect_task
    from surgeon.torch_model.loading import decoder_start_of

    task = detect_task(checkpoint)
    model = load(checkpoint, task if task in _BY_TEXT else "drift")
    mask_id = tokenizer.mask_token_id
    hides = mask_id is not None or sentinels_of(tokenizer, mask_id)
    if task == "denoising" and (not hides or decoder_start_of(model) is None):
        model = load(checkpoint, "drift")
    return task, model


def _runner(
    model: TorchModel,
    tokenizer: Any,
    texts: Texts,
    task: TaskName,
    not_applied: tuple[str, ...] = (),
) -> TorchRunner:
    checkpoint = model.checkpoint
    max_length = longest_text(checkpoint.config, checkpoint.family, tokenizer.model_max_length)
    sequences, truncated = _encode(texts, tokenizer, max_length)
    return TorchRunner(
        checkpoint=checkpoint,
        model=model,
        layers=tuple(by_layer(checkpoint.sites)),
        tokenizer=tokenizer,
        max_length=max_length,
        texts=texts,
        sequences=sequences,
        truncated=truncated,
        left_out=_why_left_out(task) if task != model.task else "",
        not_applied=not_applied,
    )


def _check_memory(checkpoint: Checkpoint) -> None:
    """Refuse a model that does not fit into memory, before it is loaded."""
    needed, free = _BYTES * checkpoint.parameters_total, memory_left()
    if needed > free:
        raise ExportError(
            f"{checkpoint.name}: its weights take {needed / 1e9:.1f} GB in float32, and "
            f"{free / 1e9:.1f} GB of memory are free, which fit {free / _BYTES:,.0f} parameters",
            WEIGHTS_ONLY,
        )


def _why_left_out(task: str) -> str:
    lacks = (
        "a mask token and a start of the decoder, which are not there"
        if task in _BY_TEXT
        else "labels"
    )
    return f"without its head, since {task} takes {lacks}"


def _encode(
    texts: Texts, tokenizer: Any, max_length: int
) -> tuple[tuple[tuple[int, ...], ...], int]:
    """Return the tokens of each text and how many were cut; refuse what the model cannot read."""
    from surgeon.torch_model.tokenizer import text_encoder

    encoder = Encoder(text_encoder(tokenizer), max_length, tokenizer.unk_token_id)
    encoded = encoder.encode(texts.lines)
    encoder.check_known(encoded, texts.lines, texts.name)
    return tuple(example.ids for example in encoded.examples), encoded.truncated
