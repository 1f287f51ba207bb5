"""What transformers gets of a checkpoint: a temporary folder that surgeon makes.

In a checkpoint's own folder, transformers acts on more than weights and sizes: it asks whether to
run the code that ``auto_map`` names, puts an adapter on top of the weights if peft is installed,
quantizes weights that are not quantized, loads kernels, and opens the files that settings name.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from surgeon.model import Checkpoint
from surgeon.model.checkpoint import CONFIG
from surgeon.model.files import matches, read_object
from surgeon.model.pickle_file import PickleFile
from surgeon.model.weight_files import INDEX_SUFFIX, SAFETENSORS
from surgeon.tasks.tokenizer import count_or_none

GENERATION_CONFIG = "generation_config.json"
_MOST_TOKENS = 2**31 - 1

_ADAPTER = "adapter_config.json"
_TOKENIZER_SETTINGS = ("tokenizer_config.json", "special_tokens_map.json")
_NO_TOKENIZER = (
    "*.py", "*.pyc", "adapter_*", "*.safetensors", "*.bin", f"*{INDEX_SUFFIX}", CONFIG,
    "*.md", ".git*", "LICENSE*", "*.onnx*", "*.h5", "*.msgpack", "*.ot", "*.pt", "*.pth", "*.ckpt",
    "*.gguf", "*.npz",
)  # fmt: skip

# Settings that choose code, weights or a form of output, at whatever depth: none of them is left.
_ACTING = frozenset({
    "auto_map", "trust_remote_code", "custom_generate", "custom_pipelines",
    "attn_implementation", "_attn_implementation", "_attn_implementation_internal",
    "experts_implementation", "_experts_implementation", "_experts_implementation_internal",
    "use_kernels", "kernel_config", "fusion_config", "distributed_config",
    "quantization_config", "compression_config", "transformers_weights", "dtype", "torch_dtype",
    "backbone", "backbone_kwargs", "use_pretrained_backbone", "use_timm_backbone",
    "return_dict", "torchscript",
})  # fmt: skip


@contextlib.contextmanager
def model_folder(checkpoint: Checkpoint) -> Iterator[Path]:
    """Yield a folder with only the configuration and the weights, as safetensors.

    The weights are links to the checkpoint's files; of a pickle, its tensors are written.
    """
    with _folder(checkpoint.config) as folder:
        names = {
            file.path: SAFETENSORS if len(checkpoint.files) == 1 else f"model-{number}.safetensors"
            for number, file in enumerate(checkpoint.files)
        }
        for file in checkpoint.files:
            if isinstance(file, PickleFile):
                file.write_safetensors(folder / names[file.path])
            else:
                (folder / names[file.path]).symlink_to(file.path.absolute())
        if len(names) > 1:
            weight_map = {name: names[home.path] for name, home in checkpoint.homes.items()}
            index = {"metadata": {}, "weight_map": weight_map}
            (folder / f"{SAFETENSORS}{INDEX_SUFFIX}").write_text(json.dumps(index), "utf-8")
        yield folder


@contextlib.contextmanager
def tokenizer_folder(source: Path) -> Iterator[Path]:
    """Yield a folder with what a tokenizer may be made of: no code, no weights.

    Raises:
        CheckpointError: a file of settings is not JSON.
    """
    with _folder(read_object(source / CONFIG) or {}) as folder:
        for name in _TOKENIZER_SETTINGS:
            settings = read_object(source / name)
            if settings is not None:
                # A path among them would be opened, wherever it leads to.
                own = {k: v for k, v in settings.items() if not k.endswith("_file")}
                _write(folder / name, own)
        for entry in tokenizer_files(source):
            if entry.name not in _TOKENIZER_SETTINGS:
                (folder / entry.name).symlink_to(entry.absolute())
        yield folder


def tokenizer_files(source: Path) -> list[Path]:
    """Return the files of a directory that a tokenizer may be made of."""
    return [
        entry
        for entry in source.iterdir()
        if entry.is_file() and not matches(entry.name, _NO_TOKENIZER)
    ]


def decoder_start(directory: Path, declared: object) -> int | None:
    """Return the token that a decoder's input begins with, if a configuration says it.

    ``declared`` is that of ``config.json``; ``generation_config.json`` may have it too.
    """
    generation = read_object(directory / GENERATION_CONFIG) or {}
    for value in (declared, generation.get("decoder_start_token_id")):
        start = count_or_none(value, least=0, most=_MOST_TOKENS)
        if start is not None:
            return start
    return None


def not_applied(directory: Path, config: Mapping[str, Any]) -> tuple[str, ...]:
    """Return, a sentence each, what is beside the weights and is not applied to the model."""
    settings = read_object(directory / _TOKENIZER_SETTINGS[0]) or {}
    sentences = [
        f"{name} names code of the checkpoint (auto_map: {code}), which was not run: the "
        f"{what} is transformers' own"
        for name, what, code in (
            (CONFIG, "model", code_named(config)),
            (_TOKENIZER_SETTINGS[0], "tokenizer", code_named(settings)),
        )
        if code
    ]
    if quantization_of(config):
        sentences.append(
            f"{CONFIG} has a quantization_config and the weights are plain, so that it was not "
            "applied: take it out, or other programs quantize them"
        )
    if (directory / _ADAPTER).is_file():
        sentences.append(
            f"{_ADAPTER} is beside the weights: that adapter was not applied, the weights are "
            "taken as they are"
        )
    return tuple(sentences)


def quantization_of(config: Mapping[str, Any]) -> str:
    """Return how a configuration says that the weights are quantized; "" where it does not."""
    declared = config.get("quantization_config") or config.get("compression_config")
    method = declared.get("quant_method") if isinstance(declared, dict) else None
    return str(method or "quantization_config") if declared else ""


def code_named(settings: Mapping[str, Any]) -> str:
    """Return the classes that ``auto_map`` names, at whatever depth; "" without one."""
    found: list[str] = []

    def look(entries: dict[str, Any]) -> dict[str, Any]:
        named = entries.get("auto_map")
        for value in named.values() if isinstance(named, dict) else [named]:
            # A tokenizer's is a pair, of which one may be missing.
            classes = value if isinstance(value, list) else [value]
            found.extend(str(one) for one in classes if one)
        return entries

    json.loads(json.dumps(settings), object_hook=look)
    return ", ".join(dict.fromkeys(found))


@contextlib.contextmanager
def _folder(config: Mapping[str, Any]) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="surgeon-") as name:
        _write(Path(name, CONFIG), config)
        yield Path(name)


def _write(path: Path, settings: Mapping[str, Any]) -> None:
    def rest(entries: dict[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in entries.items() if key not in _ACTING}

    kept = json.loads(json.dumps(settings), object_hook=rest)
    path.write_text(json.dumps(kept), "utf-8")
