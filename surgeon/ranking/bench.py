"""A model in PyTorch with examples to score it on: what the detectors that run it share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from surgeon.errors import (
    CheckpointError,
    EvaluationError,
    SurgeonError,
)
from surgeon.families import Site, by_layer
from surgeon.model import Checkpoint
from surgeon.model.checkpoint import find_not_finite
from surgeon.progress import Progress
from surgeon.tasks.examples import (
    Encoded,
    Encoder,
    Example,
    batch_examples,
    batches_by_length,
)
from surgeon.tasks.registry import (
    TASKS,
    Scores,
    Settings,
    Task,
)
from surgeon.tasks.sizes import check_sizes, longest_text
from surgeon.tasks.task import Floats
from surgeon.text import Texts

if TYPE_CHECKING:
    from surgeon.torch_model.loading import TorchModel


# The tasks whose output has a row for each token, of which some are asked for.
_AT_POSITIONS = ("mlm", "clm")
# The tasks with a head of its own that text alone is enough for.
_BY_TEXT = ("mlm", "clm", "rtd", "plm", "denoising")


@dataclass(frozen=True, eq=False)
class Bench:
    """A loaded model, where it came from, its output sites, and the texts as token sequences.

    ``layers`` are the output sites of each layer: one, or those of experts.
    ``left_out`` says why a head that is there is not weighed; "" where it is.
    """

    source: Checkpoint
    loaded: TorchModel
    layers: tuple[tuple[Site, ...], ...]
    tokenizer: Any
    max_length: int
    texts: Texts
    encoded: Encoded
    left_out: str = ""
    not_applied: tuple[str, ...] = ()

    def reading(self, texts: Texts) -> Bench:
        """Return the same model with other texts."""
        encoded = _encode(texts, self.tokenizer, self.max_length)
        return replace(self, texts=texts, encoded=encoded)

    @property
    def sites(self) -> tuple[Site, ...]:
        """The output sites of all layers."""
        return tuple(site for layer in self.layers for site in layer)

    @property
    def pad(self) -> int:
        """The token that fills a batch."""
        return int(self.tokenizer.pad_token_id or 0)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a person should know about the texts."""
        cut = self.encoded.truncated
        texts = "text was" if cut == 1 else "texts were"
        told = (f"{cut} {texts} cut to {self.max_length} tokens",) if cut else ()
        return (*self.not_applied, *told)


def not_finite(bench: Bench) -> SurgeonError:
    """Return the error for a model, as it is, whose output is not finite: the tensor, if one is."""
    if found := find_not_finite(bench.source):
        return CheckpointError(f"{found}, as is all that the model makes of them; repair them")
    return EvaluationError(
        f"{bench.source.name}: its weights are finite, and its states on {bench.texts.name} are "
        "not: they overflow in float32; give other --data"
    )


def open_bench(checkpoint: Checkpoint, texts: Texts, progress: Progress) -> Bench:
    """Load a checkpoint in PyTorch and tokenize texts for it.

    Raises:
        ExportError: transformers cannot load it, or not as it is stored.
        EvaluationError: it has no tokenizer, or one that does not know the texts' words.
    """
    progress("loading PyTorch", 0, 0)
    from surgeon.torch_model.directory import not_applied
    from surgeon.torch_model.forward import INSTEAD
    from surgeon.torch_model.heads import choose_task
    from surgeon.torch_model.loading import decoder_start_of, load_model
    from surgeon.torch_model.tokenizer import load_tokenizer

    check_sizes(checkpoint, INSTEAD)
    progress("loading the model", 0, 0)
    tokenizer = load_tokenizer(checkpoint.directory, INSTEAD)
    if tokenizer is None:
        raise EvaluationError(
            f"{checkpoint.directory}: no tokenizer in it that reads text; put its files "
            f"(tokenizer.json, or vocab.txt and tokenizer_config.json) there, or {INSTEAD}"
        )
    task = choose_task(checkpoint)
    # What other heads are for takes labels: their body alone is weighed.
    loaded = load_model(checkpoint, INSTEAD, task if task in _BY_TEXT else "drift")
    if task == "denoising" and None in (tokenizer.mask_token_id, decoder_start_of(loaded)):
        loaded = load_model(checkpoint, INSTEAD, "drift")
    length = longest_text(checkpoint.config, checkpoint.family, tokenizer.model_max_length)
    return Bench(
        source=checkpoint,
        loaded=loaded,
        layers=tuple(by_layer(checkpoint.sites)),
        tokenizer=tokenizer,
        max_length=length,
        texts=texts,
        encoded=_encode(texts, tokenizer, length),
        left_out=_why_left_out(task) if task != loaded.task else "",
        not_applied=not_applied(checkpoint.directory, checkpoint.config),
    )


def _why_left_out(task: str) -> str:
    lacks = (
        "a mask token and a start of the decoder, which are not there"
        if task in _BY_TEXT
        else "labels"
    )
    return f"without its head, since {task} takes {lacks}"


def _encode(texts: Texts, tokenizer: Any, max_length: int) -> Encoded:
    """Tokenize texts, and refuse those that the model cannot read."""
    from surgeon.torch_model.tokenizer import text_encoder

    encoder = Encoder(text_encoder(tokenizer), max_length, tokenizer.unk_token_id)
    encoded = encoder.encode(texts.lines)
    encoder.check_known(encoded, texts.lines, texts.name)
    return encoded


@dataclass(frozen=True, eq=False)
class Scale:
    """A bench's own task, ready to weigh removals on: the examples, and the model as it is."""

    bench: Bench
    task: Task
    settings: Settings
    examples: tuple[Example, ...]

    def observe(self, dims: Sequence[int], numbers: Sequence[int] | None = None) -> Floats:
        """Run the examples (all, or those of the numbers) without dimensions; (examples, kept).

        Raises:
            CheckpointError: the output is not finite, since a tensor is not.
            EvaluationError: the output is not finite for another reason.
        """
        from surgeon.torch_model.forward import removed

        chosen = [self.examples[n] for n in numbers] if numbers is not None else self.examples
        kept: list[Floats | None] = [None] * len(chosen)
        with removed(self.bench.loaded, self.bench.sites, dims):
            for batch in batches_by_length(chosen, self._width):
                for number, seen in zip(batch, self._run([chosen[n] for n in batch]), strict=True):
                    kept[number] = seen
        observed: Floats = np.stack([row for row in kept if row is not None])
        if not np.isfinite(observed).all():
            if not dims:
                raise not_finite(self.bench)
            raise EvaluationError(
                f"without dims {list(dims)}, the model's output is not finite: there is no score"
            )
        return observed

    def score(self, observed: Floats, baseline: Floats) -> Scores:
        """Return the task's metric per example."""
        return self.task.scores(self.task.against(observed, baseline), self.settings)[
            self.task.metric
        ]

    def _run(self, examples: Sequence[Example]) -> Iterator[Floats]:
        from surgeon.torch_model.forward import run, run_at

        loaded = self.bench.loaded
        batch = batch_examples(examples, loaded.graph_inputs, self.bench.pad)
        if loaded.task not in _AT_POSITIONS:
            for output, example in zip(run(loaded, batch), examples, strict=True):
                yield self.task.observe(output, example)
            return
        logits = run_at(loaded, batch, [example.positions for example in examples])
        for output, example in zip(logits, examples, strict=True):
            # The logits are those of the scored positions alone, in their order.
            here = np.arange(example.positions.size)
            yield self.task.observe(output, Example(example.ids, here, example.labels))

    @property
    def _width(self) -> int:
        """How many numbers a batch's output has per token, on average."""
        config = self.bench.loaded.model.config.get_text_config()
        if self.task.name in ("drift", "rtd"):
            return int(config.hidden_size)
        share = self.task.options.get("mask_rate", 1.0) if self.task.name in _AT_POSITIONS else 1.0
        return round(float(config.vocab_size) * share)


def open_scale(bench: Bench, seed: int) -> Scale:
    """Prepare a bench's texts for the task that its model is scored on.

    Raises:
        EvaluationError: fewer than two texts have anything to score.
    """
    from surgeon.torch_model.loading import decoder_start_of

    task, tokenizer = TASKS[bench.loaded.task], bench.tokenizer
    settings = Settings(
        seed,
        task.options.get("mask_rate", 0.0),
        tokenizer.mask_token_id,
        tuple(sorted(set(tokenizer.all_special_ids))),
        vocabulary=len(tokenizer),
        decoder_start_id=decoder_start_of(bench.loaded),
    )
    assert task.prepare is not None
    prepared = [task.prepare(ids, settings) for ids in bench.encoded.sequences]
    examples = tuple(example for example in prepared if example is not None)
    if len(examples) < 2:
        raise EvaluationError(
            f"--data {bench.texts.name}: {len(examples)} of {len(bench.texts.lines)} texts have "
            "tokens that this model's tokenizer knows and an interval takes 2; give text of the "
            "kind the model was trained on"
        )
    return Scale(bench, task, settings, examples)
