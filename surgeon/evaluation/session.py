"""An onnxruntime session on the provider that was asked for, and on no other."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime

from surgeon.errors import EvaluationError
from surgeon.onnx.token_scores import (
    GUESSES,
    LOSSES,
    with_token_scores,
)
from surgeon.onnx.weights import load_graph, make_replaceable

ProviderName: TypeAlias = Literal["auto", "cpu", "cuda"]

_CPU = "CPUExecutionProvider"
_PROVIDERS = {"cpu": _CPU, "cuda": "CUDAExecutionProvider"}
_FATAL_ONLY = 4  # what fails is raised, and told once
_TYPES: Mapping[str, npt.DTypeLike] = {
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(bool)": np.bool_,
}
_SLOW_ON_CPU = ["SkipLayerNormFusion"]  # 2.5 times as slow as what it replaces (onnxruntime 1.32)


@dataclass(frozen=True)
class Session:
    """A graph whose edited tensors every run may replace.

    One session serves all variants: each run feeds its own tensors, so that nothing else can
    differ between them. ``per_token`` says whether it gives losses and guesses at positions that
    are fed to it, or the model's own output. ``types`` are those of its inputs, which graphs from
    elsewhere may have otherwise (int32).
    """

    runtime: Any
    outputs: tuple[str, ...]
    per_token: bool
    width: int
    threads: int = 1
    types: Mapping[str, npt.DTypeLike] = field(default_factory=dict)

    @property
    def providers(self) -> tuple[str, ...]:
        """The execution providers that run, as onnxruntime reports them."""
        return tuple(self.runtime.get_providers())

    def run(
        self,
        batch: Mapping[str, npt.NDArray[Any]],
        tensors: Mapping[str, npt.NDArray[np.floating[Any]]],
    ) -> tuple[npt.NDArray[Any], ...]:
        """Run a batch and return the outputs, in the order of ``outputs``."""
        batch = {
            name: array.astype(self.types.get(name, array.dtype), copy=False)
            for name, array in batch.items()
        }
        try:
            if self.providers[0] == _PROVIDERS["cuda"]:
                return run_bound(self, batch, tensors, "cuda")
            return tuple(self.runtime.run(list(self.outputs), {**batch, **tensors}))
        except Exception as error:  # onnxruntime raises types of its own
            shape = " × ".join(map(str, batch["input_ids"].shape))
            raise EvaluationError(
                f"onnxruntime cannot run the graph on {shape} tokens ({_told(error)})"
            ) from error


def run_bound(
    session: Session,
    batch: Mapping[str, npt.NDArray[Any]],
    tensors: Mapping[str, npt.NDArray[np.floating[Any]]],
    device: str,
) -> tuple[npt.NDArray[Any], ...]:
    """Run a batch with its inputs and outputs bound to a device ("cuda", or "cpu" for tests).

    The outputs are made on the device, and only they are copied back.
    """
    binding = session.runtime.io_binding()
    for name, array in {**batch, **tensors}.items():
        contiguous = np.ascontiguousarray(array)
        binding.bind_ortvalue_input(
            name, onnxruntime.OrtValue.ortvalue_from_numpy(contiguous, device, 0)
        )
    for name in session.outputs:
        binding.bind_output(name, device)
    session.runtime.run_with_iobinding(binding)
    return tuple(binding.copy_outputs_to_cpu())


def open_session(
    path: Path,
    output: str,
    replaceable: tuple[str, ...],
    provider: ProviderName,
    *,
    further: tuple[str, ...] = (),
    per_token: bool = False,
    width: int = 1,
) -> Session:
    """Open an ONNX file with the named initializers open to replacement.

    It gives ``output`` and the ``further`` outputs; with ``per_token``, the graph is extended to
    score itself instead (``onnx_model.token_scores``). ``width`` is taken for that of the output
    where the graph does not say.

    ``auto`` takes CUDA where this onnxruntime has it and a device answers, else the CPU. Any
    other name is a promise: onnxruntime falls back to the CPU without failing, so what runs is
    looked up after the session exists.

    Raises:
        EvaluationError: the provider is not there, or does not start; onnxruntime does not take
            the graph.
    """
    wanted = _wanted(provider)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _FATAL_ONLY
    options.add_session_config_entry(
        "session.model_external_initializers_file_folder_path", str(path.parent)
    )
    # A core a run: several small runs at once are faster than one whose threads wait for another.
    options.intra_op_num_threads = 1
    model = load_graph(path)
    width = _width(model, output) or width
    make_replaceable(model, replaceable, str(path))
    if per_token:
        with_token_scores(model, output)
    try:
        runtime = onnxruntime.InferenceSession(
            model.SerializeToString(),
            options,
            providers=list(dict.fromkeys((wanted, _CPU))),
            disabled_optimizers=_SLOW_ON_CPU if wanted == _CPU else None,
        )
    except Exception as error:
        raise EvaluationError(f"{path}: onnxruntime does not take it ({_told(error)})") from error
    _check_started(runtime, provider, wanted)
    return Session(
        runtime,
        (LOSSES, GUESSES) if per_token else (output, *further),
        per_token,
        width,
        _cores() if runtime.get_providers()[0] == _CPU else 1,
        _types(runtime),
    )


def _told(error: Exception) -> str:
    """Make one line of what onnxruntime raised."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def _types(runtime: Any) -> dict[str, npt.DTypeLike]:
    """Return the types of the inputs that are made of texts, which a graph may have otherwise."""
    return {i.name: _TYPES[i.type] for i in runtime.get_inputs() if i.type in _TYPES}


def check_provider(provider: ProviderName) -> None:
    """Refuse a provider that is not there, before anything is opened or exported for it.

    Raises:
        EvaluationError: the provider is not there, or does not start.
    """
    wanted = _wanted(provider)
    if wanted == _CPU:
        return
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    again = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])
    node = onnx.helper.make_node("Identity", ["x"], ["y"])
    graph = onnx.helper.make_graph([node], "probe", [value], [again])
    opset = onnx.helper.make_opsetid("", 17)
    model = onnx.helper.make_model(graph, opset_imports=[opset], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _FATAL_ONLY
    runtime = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=[wanted, _CPU]
    )
    _check_started(runtime, provider, wanted)


def _wanted(provider: ProviderName) -> str:
    available = onnxruntime.get_available_providers()
    if provider == "auto":
        return next(p for p in (_PROVIDERS["cuda"], _CPU) if p in available)
    wanted = _PROVIDERS[provider]
    if wanted not in available:
        raise EvaluationError(
            f"--provider {provider}: this onnxruntime has {', '.join(available)}; "
            f"{_remedy()}, or use --provider cpu"
        )
    return wanted


def _check_started(runtime: Any, provider: ProviderName, wanted: str) -> None:
    if provider != "auto" and runtime.get_providers()[0] != wanted:
        raise EvaluationError(
            f"--provider {provider}: {wanted} did not start and onnxruntime fell back to "
            f"{', '.join(runtime.get_providers())}; check the driver and the CUDA and cuDNN "
            "versions that onnxruntime-gpu asks for, or use --provider cpu"
        )


def _cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _remedy() -> str:
    """Say what gives this machine the CUDA provider, by which wheels are installed."""
    wheels = {wheel for wheel in ("onnxruntime", "onnxruntime-gpu") if _is_installed(wheel)}
    if len(wheels) == 2:
        return (
            "onnxruntime and onnxruntime-gpu are both installed and overwrite each other's files: "
            "uninstall both, then install onnxruntime-gpu"
        )
    return "install onnxruntime-gpu in place of onnxruntime"


def _is_installed(wheel: str) -> bool:
    try:
        metadata.distribution(wheel)
    except metadata.PackageNotFoundError:
        return False
    return True


def _width(model: onnx.ModelProto, output: str) -> int:
    (value,) = (value for value in model.graph.output if value.name == output)
    dims = value.type.tensor_type.shape.dim
    return int(dims[-1].dim_value) if dims else 0
