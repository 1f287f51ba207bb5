"""An onnxruntime session on the provider that was asked for, and on no other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import onnxruntime

from surgeon.errors import EvaluationError
from surgeon.onnx_model.weights import with_replaceable

ProviderName: TypeAlias = Literal["auto", "cpu", "cuda"]

_CPU = "CPUExecutionProvider"
_PROVIDERS = {"cpu": _CPU, "cuda": "CUDAExecutionProvider"}
_ERRORS_ONLY = 3


@dataclass(frozen=True)
class Session:
    """A graph whose edited tensors every run may replace.

    One session serves all variants: each run feeds its own tensors, so that nothing else can
    differ between them.
    """

    runtime: Any
    output: str

    @property
    def providers(self) -> tuple[str, ...]:
        """The execution providers that run, as onnxruntime reports them."""
        return tuple(self.runtime.get_providers())

    @property
    def width(self) -> int:
        """The size of the output's last axis."""
        size = self.runtime.get_outputs()[0].shape[-1]
        return size if isinstance(size, int) else 1

    def run(
        self,
        batch: Mapping[str, npt.NDArray[np.int64]],
        tensors: Mapping[str, npt.NDArray[np.float32]],
    ) -> npt.NDArray[np.float32]:
        """Run a batch; the output has shape (sequences, tokens, width)."""
        (result,) = self.runtime.run([self.output], {**batch, **tensors})
        array: npt.NDArray[np.float32] = result
        return array


def open_session(
    path: Path, output: str, replaceable: tuple[str, ...], provider: ProviderName
) -> Session:
    """Open an ONNX file with the named initializers open to replacement.

    ``auto`` takes CUDA where this onnxruntime has it and a device answers, else the CPU. Any
    other name is a promise: onnxruntime falls back to the CPU without failing, so what runs is
    looked up after the session exists.

    Raises:
        EvaluationError: the provider is not there, or does not start.
    """
    available = onnxruntime.get_available_providers()
    if provider == "auto":
        wanted = next(p for p in (_PROVIDERS["cuda"], _CPU) if p in available)
    else:
        wanted = _PROVIDERS[provider]
    if wanted not in available:
        raise EvaluationError(
            f"--provider {provider}: this onnxruntime has {', '.join(available)}; "
            "install onnxruntime-gpu in place of onnxruntime, or use --provider cpu"
        )
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _ERRORS_ONLY
    options.add_session_config_entry(
        "session.model_external_initializers_file_folder_path", str(path.parent)
    )
    runtime = onnxruntime.InferenceSession(
        with_replaceable(path, replaceable), options, providers=list(dict.fromkeys((wanted, _CPU)))
    )
    if provider != "auto" and runtime.get_providers()[0] != wanted:
        raise EvaluationError(
            f"--provider {provider}: {wanted} did not start and onnxruntime fell back to "
            f"{', '.join(runtime.get_providers())}; check the driver and the CUDA and cuDNN "
            "versions that onnxruntime-gpu asks for, or use --provider cpu"
        )
    return Session(runtime, output)
