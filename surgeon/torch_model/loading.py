"""Checkpoint → a model in PyTorch, with its editable tensors found by name and by value."""

from __future__ import annotations

import contextlib
import inspect
import io
import logging
import re
import sys
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import transformers
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from surgeon.errors import ExportError, SelectionError
from surgeon.harmless import listed
from surgeon.model import Checkpoint
from surgeon.model.checkpoint import CONFIG
from surgeon.tasks.task import TaskName
from surgeon.torch_model.directory import code_named, decoder_start, model_folder, quantization_of
from surgeon.torch_model.heads import HEADS, Head, detect_task
from surgeon.torch_model.live import LiveCheckpoint, parameters_of
from surgeon.torch_model.parameters import Parameter, check_tensors, find_parameters, match_names

# Not in some files and no random numbers: transformers fills it with zeros.
_FILLED = ("final_logits_bias",)
# Segments are compared and not embedded, so that the configuration has no vocabulary of them.
_SEGMENTS_COMPARED = ("xlnet",)
_PLAIN = ("F64", "F32", "F16", "BF16")
_NUMBER_OF_EXPERT = re.compile(r"\.experts\.\d+\.")
_COLOURS = re.compile("\x1b\\[[0-9;]*m")

# Best first, for auto.
_THERE: Mapping[str, Callable[[], bool]] = {
    "cuda": torch.cuda.is_available,
    "mps": torch.backends.mps.is_available,
    "cpu": lambda: True,
}
_DTYPES = {"F16": torch.float16, "BF16": torch.bfloat16}


@dataclass(frozen=True)
class TorchModel:
    """A model in PyTorch, ready to run.

    ``inputs`` names the arrays that are made of the tokens, ``parameters`` says where the model
    has each editable tensor of the checkpoint, and ``sources`` which tensor of the checkpoint each
    of its own is, by their names.
    """

    checkpoint: Checkpoint
    head: Head
    model: Any
    inputs: tuple[str, ...]
    parameters: Mapping[str, Parameter]
    sources: Mapping[str, str]

    @property
    def graph_inputs(self) -> tuple[str, ...]:
        """All that the exported graph takes: PyTorch makes the head's further inputs up."""
        return (*self.inputs, *self.head.inputs)

    @property
    def task(self) -> TaskName:
        """What the model's head is scored on."""
        return self.head.task

    @property
    def output(self) -> str:
        """Which of the model's outputs its task is scored on; the first of several."""
        return self.head.outputs[0]


def load_model(checkpoint: Checkpoint, task: TaskName | None = None) -> TorchModel:
    """Load a checkpoint in float32, with the class that its task asks for.

    None of the checkpoint's code runs, no adapter is applied, and every tensor that the model
    then holds is compared with the files.

    Args:
        checkpoint: the opened checkpoint, on disk.
        task: load it for this one (None: for the head that is there).

    Raises:
        ExportError: transformers cannot load it, or not as it is stored.
    """
    head = HEADS[task or detect_task(checkpoint)]
    with _for_transformers(checkpoint, "cannot load the model") as folder:
        model, report = getattr(transformers, head.auto_class).from_pretrained(
            folder,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            dtype=torch.float32,
            attn_implementation="eager",  # exports to a cleaner graph than SDPA
            ignore_mismatched_sizes=True,  # the report has them, an error would not
            output_loading_info=True,
        )
    # Without a head, the pooler is not among the outputs; anything else would be random numbers.
    ignored = (*_FILLED, "pooler") if head.task == "drift" else _FILLED
    # Marian names what it computes as it is called below a head, of its body too.
    computed = getattr(model, "_keys_to_ignore_on_load_missing", None) or ()
    derived = {
        name
        for name in report["missing_keys"]
        if any(part in name for part in ignored) or any(n.endswith(f".{name}") for n in computed)
    }
    _check_report(checkpoint, model, report, derived)
    sources = check_tensors(checkpoint, model, derived)
    return _ready(checkpoint, head, model, find_parameters(checkpoint, model, sources), sources)


def load_without_weights(checkpoint: Checkpoint) -> TorchModel:
    """Make the model of a checkpoint with parameters that have shapes and no storage.

    Its tensors are matched with the checkpoint's by their names and shapes alone.

    Raises:
        ExportError: transformers cannot make it, or one of its tensors cannot be told by its name.
    """
    head = HEADS[detect_task(checkpoint)]
    mode, register = FakeTensorMode(), torch.nn.Module.register_parameter

    def without_storage(module: Any, name: str, parameter: Any) -> None:
        register(module, name, parameter)
        if parameter is not None and not isinstance(parameter, FakeTensor):  # else it is tied
            with mode:
                empty = torch.empty(parameter.shape, dtype=parameter.dtype)
            register(module, name, torch.nn.Parameter(empty, requires_grad=False))

    remedy = "let them be loaded, without `parity=False`"
    with (
        _for_transformers(
            checkpoint, "cannot make the model without its weights", remedy
        ) as folder,
        mock.patch.object(torch.nn.Module, "register_parameter", without_storage),
    ):
        config = transformers.AutoConfig.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
        model = getattr(transformers, head.auto_class).from_config(
            config, trust_remote_code=False, dtype=torch.float32, attn_implementation="eager"
        )
    return _ready(checkpoint, head, model, {}, match_names(checkpoint, model))


def ready_live(checkpoint: LiveCheckpoint, task: TaskName) -> TorchModel:
    """Take a model that is in memory for a task, or its body for drift.

    Raises:
        ExportError: a tensor that is edited is not a parameter of it.
    """
    model = checkpoint.model.base_model if task == "drift" else checkpoint.model
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    held = {n: names.get(id(p)) for n, p in parameters_of(checkpoint.model).items()}
    edited = [name for site in checkpoint.sites for name in (site.gain, site.bias) if name]
    for name in edited:
        if held.get(name) is None:
            raise ExportError(
                f"{checkpoint.name}: {name} is not a parameter of {type(model).__name__}"
            )
    parameters = {name: Parameter(held[name] or "") for name in edited}
    inputs = _input_names(checkpoint.name, model)
    return TorchModel(checkpoint, HEADS[task], model, inputs, parameters, {})


def find_device(asked: str) -> str:
    """Return the device of a name, or for "auto" the best that is there.

    Raises:
        SelectionError: PyTorch has none of that name here.
    """
    there = [name for name, is_there in _THERE.items() if is_there()]
    if asked == "auto":
        return there[0]
    if asked not in there:
        raise SelectionError(
            f"`device` {asked}: PyTorch {torch.__version__} has {' and '.join(there)} here; use "
            "one of these, or auto"
        )
    return asked


def move(model: torch.nn.Module, checkpoint: Checkpoint, device: str) -> None:
    """Move a model that was loaded in float32 to a device, in the dtype of most of its weights.

    On the CPU it stays in float32.

    Raises:
        ExportError: it does not fit.
    """
    if device == "cpu":
        return
    sizes: dict[str, int] = {}
    for info in checkpoint.tensors.values():
        sizes[info.dtype] = sizes.get(info.dtype, 0) + info.size
    dtype = _DTYPES.get(max(sizes, key=lambda name: sizes[name]), torch.float32)
    try:
        model.to(device=device, dtype=dtype)
    except torch.OutOfMemoryError as error:
        raise ExportError(
            f"{checkpoint.name}: its {checkpoint.parameters_total:,} parameters in {dtype} do not "
            f"fit into the memory of {device}",
            "use `device` cpu",
        ) from error


@contextlib.contextmanager
def _for_transformers(checkpoint: Checkpoint, what: str, remedy: str = "") -> Iterator[Path]:
    """Yield the folder that transformers gets; what it raises is one line that says ``what``."""
    _refuse_unknown_code(checkpoint)
    _refuse_packed(checkpoint)
    _refuse_uneven_experts(checkpoint)
    with model_folder(checkpoint) as folder:
        try:
            with quiet():
                yield folder
        except Exception as error:
            where = (folder, checkpoint.directory)
            what = f"{checkpoint.name}: transformers {what}"
            raise export_error(what, error, remedy, where) from error


def _ready(
    checkpoint: Checkpoint,
    head: Head,
    model: Any,
    parameters: Mapping[str, Parameter],
    sources: Mapping[str, str],
) -> TorchModel:
    model.eval()
    model.config.use_cache = False
    inputs = _input_names(checkpoint.name, model)
    return TorchModel(checkpoint, head, model, inputs, parameters, sources)


def padding_id_of(config: Any, tokenizer: Any | None) -> int:
    """Return the token that fills up shorter sequences of a batch; 0 where none is declared.

    The configuration's comes first: RoBERTa counts its positions by it, and GPT-2 finds the last
    token of a sequence to classify by it.
    """
    text = config.get_text_config()
    declared = (getattr(text, "pad_token_id", None), getattr(tokenizer, "pad_token_id", None))
    return next((pad for pad in declared if pad is not None and 0 <= pad < text.vocab_size), 0)


def decoder_start_of(loaded: TorchModel) -> int | None:
    """Return the token that a decoder's input begins with; None without an input or a token."""
    if "decoder_input_ids" not in loaded.head.inputs:
        return None
    declared = getattr(loaded.model.config, "decoder_start_token_id", None)
    return decoder_start(loaded.checkpoint.directory, declared)


def export_error(
    what: str, error: Exception, remedy: str = "", folder: tuple[Path, Path] | None = None
) -> ExportError:
    """Make one line of what another library raised.

    Args:
        what: what failed.
        error: what was raised.
        remedy: what to do about it.
        folder: one that the reader does not know, and what it stands for.
    """
    cause = error.__cause__ or error
    text = _COLOURS.sub("", str(cause) if str(cause).strip() else str(error))
    if folder:
        text = text.replace(str(folder[0]), str(folder[1]))
    reason = next((line.strip() for line in text.splitlines() if line.strip()), "no reason given")
    reason = reason.replace("`", "'")  # what stands in backticks would be shown as an option
    return ExportError(f"{what} ({type(cause).__name__}: {reason})", remedy)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep the output of other libraries off the screen, and standard input out of their reach.

    Errors still rise. What asks a question finds no answer: it must not take one that was meant
    for somebody else.
    """
    verbosity = transformers.logging.get_verbosity()
    bars = transformers.logging.is_progress_bar_enabled()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    standard_input, sys.stdin = sys.stdin, io.StringIO()
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        sys.stdin = standard_input
        logging.disable(previous)
        transformers.logging.set_verbosity(verbosity)
        if bars:
            transformers.logging.enable_progress_bar()


def _refuse_unknown_code(checkpoint: Checkpoint) -> None:
    """Refuse a model that only code of its own can compute."""
    model_type = checkpoint.config.get("model_type")
    code = code_named(checkpoint.config)
    known = isinstance(model_type, str) and model_type in transformers.CONFIG_MAPPING
    if code and not known:
        raise ExportError(
            f"{checkpoint.directory / CONFIG}: transformers has no model_type {model_type!r}, and "
            f"the code that the checkpoint brings (auto_map: {code}) is not run"
        )


def _refuse_packed(checkpoint: Checkpoint) -> None:
    """Refuse quantized weights; a ``quantization_config`` that was left beside floats is nothing.

    Integers of 64 bits and booleans are buffers, of positions and of masks.
    """
    method = quantization_of(checkpoint.config)
    for name, info in checkpoint.tensors.items():
        scales = listed(checkpoint.scales_of(name))
        if (method or scales) and info.dtype not in (*_PLAIN, "I64", "BOOL"):
            says = f"config.json says ({method})" if method else f"{scales} beside it says"
            raise ExportError(
                f"{checkpoint.where(name)}: {name} is {info.dtype}, quantized as {says}, and "
                "PyTorch is given plain weights only"
            )


def _refuse_uneven_experts(checkpoint: Checkpoint) -> None:
    """Refuse experts of one layer that differ in size: transformers does not say which do."""
    first: dict[str, tuple[str, tuple[int, ...]]] = {}
    for name, info in checkpoint.tensors.items():
        alike = _NUMBER_OF_EXPERT.sub(".experts.*.", name)
        other, shape = first.setdefault(alike, (name, info.shape))
        if shape != info.shape:
            raise ExportError(
                f"{checkpoint.where(name)}: {name} is {list(info.shape)}, and {other} "
                f"{list(shape)}: experts of several sizes are not loaded",
                "fetch the weights again, if they should be alike",
            )


def _check_report(
    checkpoint: Checkpoint, model: Any, report: Mapping[str, Any], derived: Collection[str]
) -> None:
    """Check that the files have all that the model holds, in its sizes."""
    for name, in_file, by_config in sorted(report["mismatched_keys"]):
        raise ExportError(
            f"{checkpoint.name}: {name} is {list(in_file)} in the weights, and by config.json "
            f"{list(by_config)}",
            "take both from one place",
        )
    if missing := sorted(set(report["missing_keys"]) - set(derived)):
        raise ExportError(
            f"{checkpoint.name}: transformers finds no weights for {missing[0]} of its "
            f"{type(model).__name__}"
        )


def _input_names(name: str, model: Any) -> tuple[str, ...]:
    taken = list(inspect.signature(model.forward).parameters)
    if "input_ids" not in taken:
        raise ExportError(
            f"{name}: {type(model).__name__} takes {taken[0]}, and only models that take text "
            "have an ONNX half"
        )
    config = model.config
    segments = 2 if config.model_type in _SEGMENTS_COMPARED else 0
    typed = "token_type_ids" in taken and getattr(config, "type_vocab_size", segments) > 1
    return ("input_ids", "attention_mask", *(("token_type_ids",) if typed else ()))
