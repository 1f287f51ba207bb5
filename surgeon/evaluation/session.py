"""An onnxruntime session on the provider that was asked for, and on no other."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime

from surgeon.errors import EvaluationError
from surgeon.onnx.token_scores import GUESSES, LOSSES, with_token_scores
from surgeon.onnx.weights import load_graph, make_replaceable

ProviderName: TypeAlias = Literal["auto", "cpu", "cuda"]
Outputs: TypeAlias = tuple[npt.NDArray[Any], ...]

_CPU = "CPUExecutionProvider"
_PROVIDERS = {"cpu": _CPU, "cuda": "CUDAExecutionProvider"}
_CACHE_AXES = 4
_FATAL_ONLY = 4  # what fails is raised, and need not be printed too
_TYPES: Mapping[str, npt.DTypeLike] = {
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(bool)": np.bool_,
}
_SLOW_ON_CPU = ["SkipLayerNormFusion"]  # 2.5 times as slow as what it replaces (onnxruntime 1.32)
_PROBE = """<ir_version: 8, opset_import: ["": 17]>
probe (float[1] x) => (float[1] y) { y = Identity(x) }"""


@dataclass(frozen=True)
class Session:
    """A graph whose edited tensors every run may replace.

    One session serves all variants: each run feeds its own tensors, so that nothing else can
    differ between them. ``replaceable`` are the names of those tensors. ``width`` is the size of
    the first output's last axis. ``types`` are those of its inputs, which graphs from elsewhere may
    have otherwise (int32). ``caches`` are empty: one for each past key and value that it takes.
    """

    runtime: Any
    outputs: tuple[str, ...]
    replaceable: frozenset[str]
    width: int
    threads: int = 1
    types: Mapping[str, npt.DTypeLike] = field(default_factory=dict)
    caches: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)

    @property
    def providers(self) -> tuple[str, ...]:
        """The execution providers that run, as onnxruntime reports them."""
        return tuple(self.runtime.get_providers())

    def run(
        self, batch: Mapping[str, npt.NDArray[Any]], tensors: Mapping[str, npt.NDArray[Any]]
    ) -> Outputs:
        """Run a batch with those of these tensors that are replaceable.

        The outputs come in the order of ``outputs``.

        Raises:
            EvaluationError: onnxruntime cannot run the graph on it.
        """
        fed = {
            name: array.astype(self.types.get(name, array.dtype), copy=False)
            for name, array in batch.items()
        } | {name: values for name, values in tensors.items() if name in self.replaceable}
        rows = len(batch["input_ids"])
        fed |= {name: np.repeat(cache, rows, axis=0) for name, cache in self.caches.items()}
        try:
            if self.providers[0] == _PROVIDERS["cuda"]:
                return self.run_bound(fed, "cuda")
            return tuple(self.runtime.run(list(self.outputs), fed))
        except Exception as error:  # onnxruntime raises types of its own
            shape = " × ".join(map(str, batch["input_ids"].shape))
            raise EvaluationError(
                f"onnxruntime cannot run the graph on {shape} tokens ({one_line(error)})"
            ) from error

    def run_bound(self, fed: Mapping[str, npt.NDArray[Any]], device: str) -> Outputs:
        """Run with inputs and outputs bound to a device ("cuda", or "cpu" for tests).

        The outputs are made on the device, and only they are copied back.
        """
        binding = self.runtime.io_binding()
        for name, array in fed.items():
            value = onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array), device, 0)
            binding.bind_ortvalue_input(name, value)
        for name in self.outputs:
            binding.bind_output(name, device)
        self.runtime.run_with_iobinding(binding)
        return tuple(binding.copy_outputs_to_cpu())


def open_session(
    path: Path,
    outputs: Sequence[str],
    replaceable: Sequence[str],
    provider: ProviderName,
    *,
    per_token: bool = False,
    width: int = 1,
) -> Session:
    """Open an ONNX file with the named initializers open to replacement.

    ``auto`` takes CUDA where this onnxruntime has it and a device answers, else the CPU. Any
    other name is a promise: onnxruntime falls back to the CPU without failing, so what runs is
    looked up after the session exists.

    Args:
        path: the file.
        outputs: which of the graph's outputs it gives.
        replaceable: the initializers.
        provider: where to run.
        per_token: extend the graph to give losses and guesses at positions that are fed to it,
            made of the first output, instead (``onnx.token_scores``).
        width: the size of the first output's last axis, where the graph does not say.

    Raises:
        EvaluationError: the provider is missing or does not start; onnxruntime does not take the
            graph.
    """
    wanted = _provider(provider)
    options = _options()
    # One core per run: several small runs at once are faster than one whose threads wait.
    options.intra_op_num_threads = 1
    model = load_graph(path)
    options.add_session_config_entry(
        "session.model_external_initializers_file_folder_path", follow_links(model, path.parent)
    )
    (first,) = (value for value in model.graph.output if value.name == outputs[0])
    axes = first.type.tensor_type.shape.dim
    width = (axes[-1].dim_value if axes else 0) or width
    make_replaceable(model, replaceable, str(path))
    if per_token:
        with_token_scores(model, outputs[0])
        outputs = (LOSSES, GUESSES)
    try:
        runtime = onnxruntime.InferenceSession(
            model.SerializeToString(),
            options,
            providers=list(dict.fromkeys((wanted, _CPU))),
            disabled_optimizers=_SLOW_ON_CPU if wanted == _CPU else None,
        )
    except Exception as error:
        raise EvaluationError(
            f"{path}: onnxruntime does not take it ({one_line(error)})"
        ) from error
    _check_started(runtime, provider, wanted)
    threads = _cores() if runtime.get_providers()[0] == _CPU else 1
    taken = {i.name: i for i in runtime.get_inputs() if i.type in _TYPES}
    types = {name: _TYPES[value.type] for name, value in taken.items()}
    caches = {
        name: np.empty([1, *(n if isinstance(n, int) else 0 for n in value.shape[1:])], types[name])
        for name, value in taken.items()
        if is_cache(name, value.shape)
    }
    return Session(runtime, tuple(outputs), frozenset(replaceable), width, threads, types, caches)


def is_cache(name: str, shape: Sequence[object]) -> bool:
    """Whether an input is a past key or value: (batch, heads, 0 or more tokens, width).

    The number of tokens alone is free: the width of a cache that is empty still has to be right.
    """
    fixed = [length for length in shape[1:] if isinstance(length, int) and length > 0]
    return "past" in name and len(shape) == _CACHE_AXES and len(fixed) == _CACHE_AXES - 2


def follow_links(model: onnx.ModelProto, folder: Path) -> str:
    """Return the folder of a graph's data files; where links lead out of it, it names their ends.

    onnxruntime follows no such link, and the Hub's cache is made of them.
    """
    entries = [
        entry
        for tensor in model.graph.initializer
        for entry in tensor.external_data
        if entry.key == "location"
    ]
    ends = {entry.value: (folder / entry.value).resolve() for entry in entries}
    if all(folder.resolve() in end.parents for end in ends.values()):
        return str(folder)
    root = Path(os.path.commonpath([end.parent for end in ends.values()]))
    for entry in entries:
        entry.value = ends[entry.value].relative_to(root).as_posix()
    return str(root)


def check_provider(provider: ProviderName) -> None:
    """Refuse a provider that is missing, before anything is opened or exported for it.

    Raises:
        EvaluationError: the provider is missing, or does not start.
    """
    wanted = _provider(provider)
    if wanted != _CPU:
        probe = onnx.parser.parse_model(_PROBE).SerializeToString()
        runtime = onnxruntime.InferenceSession(probe, _options(), providers=[wanted, _CPU])
        _check_started(runtime, provider, wanted)


def _options() -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _FATAL_ONLY
    return options


def one_line(error: Exception) -> str:
    """Return what another library raised as one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def _provider(name: ProviderName) -> str:
    available = onnxruntime.get_available_providers()
    if name not in ("auto", *_PROVIDERS):
        raise EvaluationError(f"`provider` {name}: give auto, {' or '.join(_PROVIDERS)}")
    if name == "auto":
        return next(p for p in (_PROVIDERS["cuda"], _CPU) if p in available)
    if _PROVIDERS[name] not in available:
        raise EvaluationError(
            f"`provider` {name}: this onnxruntime has {', '.join(available)}; "
            f"{_remedy()}, or use `provider` cpu"
        )
    return _PROVIDERS[name]


def _check_started(runtime: Any, provider: ProviderName, wanted: str) -> None:
    if provider != "auto" and runtime.get_providers()[0] != wanted:
        raise EvaluationError(
            f"`provider` {provider}: {wanted} did not start and onnxruntime fell back to "
            f"{', '.join(runtime.get_providers())}; check the driver and the CUDA and cuDNN "
            "versions that onnxruntime-gpu asks for, or use `provider` cpu"
        )


def _cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _remedy() -> str:
    """Say what gives this machine the CUDA provider, by which wheels are installed."""
    if {"onnxruntime", "onnxruntime-gpu"} <= {d.name for d in metadata.distributions()}:
        return (
            "onnxruntime and onnxruntime-gpu are both installed and overwrite each other's files: "
            "uninstall both, then install onnxruntime-gpu"
        )
    return "install onnxruntime-gpu in place of onnxruntime"
