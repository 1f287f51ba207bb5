"""What the norms do while an encoder is pre-trained: a small one, on this machine, then traced.

A BERT of 4 layers × 128 dimensions learns to fill masked tokens in the sources of Python's
standard library, which every machine has, with a tokenizer trained on them. Every 100 steps its
weights are kept; ``surgeon trace`` then tells which dimensions became outliers, and when, and the
last checkpoint is scored without each dimension. Kovaleva et al. 2021 saw one of 512 leave after
50,000 steps of BERT-medium.

Run: ``python tests/benchmarks/pretrain_and_trace.py FOLDER [--steps 4000]``. It takes about a
quarter of an hour on one core, and 300 MB; what is in FOLDER already is not computed again.
``tests/pretraining.npz`` holds the norms of one such run, every 400 steps.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import BertConfig, BertForMaskedLM

_LAYERS, _HIDDEN, _HEADS, _VOCABULARY = 4, 128, 4, 4096
_BATCH, _LENGTH, _MASKED = 32, 64, 0.15
_RATE, _WARM_UP, _DECAY = 1e-3, 200, 0.01
_EVERY = 100
_JUDGED = 16  # batches
_SPECIAL = ["[PAD]", "[MASK]"]
_MASK = 1


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=4000)
    asked = parser.parse_args()
    run = asked.folder / "run"
    run.mkdir(parents=True, exist_ok=True)
    if not (run / f"step-{asked.steps}").is_dir():
        pretrain(run, asked.folder / "losses.json", asked.steps)
    trace(asked.folder, run)


def pretrain(run: Path, losses_file: Path, steps: int) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    tokens = tokenized(library_sources())
    model = BertForMaskedLM(
        BertConfig(
            vocab_size=_VOCABULARY,
            hidden_size=_HIDDEN,
            num_hidden_layers=_LAYERS,
            num_attention_heads=_HEADS,
            intermediate_size=4 * _HIDDEN,
            max_position_embeddings=_LENGTH,
        )
    )
    # As BERT was trained: no weight decay on gains and biases.
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": _DECAY},
            {"params": [p for p in model.parameters() if p.ndim == 1], "weight_decay": 0.0},
        ],
        lr=_RATE,
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: min((step + 1) / _WARM_UP, max(0.0, (steps - step) / (steps - _WARM_UP))),
    )
    print(
        f"{tokens.size:,} tokens, {model.num_parameters():,} parameters, {steps} steps", flush=True
    )
    model.save_pretrained(run / "step-0")
    rng, recent, losses, started = np.random.default_rng(0), [], {}, time.perf_counter()
    for step in range(1, steps + 1):
        loss = masked_loss(model, *masked_batch(tokens, rng))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        recent.append(loss.item())
        if step % _EVERY == 0:
            model.save_pretrained(run / f"step-{step}")
            losses[step], recent = float(np.mean(recent)), []
            seconds = time.perf_counter() - started
            print(f"step {step}: loss {losses[step]:.3f}, {seconds:.0f} s", flush=True)
    losses_file.write_text(json.dumps(losses, indent=1))


def library_sources() -> str:
    """The standard library's modules, without its tests and what is installed beside it."""
    root = Path(sysconfig.get_path("stdlib"))
    others = {"test", "tests", "idlelib", "site-packages", "dist-packages", "__pycache__"}
    paths = sorted(p for p in root.rglob("*.py") if not others & set(p.relative_to(root).parts))
    return "\n".join(path.read_text(encoding="utf-8", errors="replace") for path in paths)


def tokenized(text: str) -> np.ndarray:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=_VOCABULARY, special_tokens=_SPECIAL, show_progress=False
    )
    lines = text.splitlines(keepends=True)
    tokenizer.train_from_iterator(lines, trainer)
    return np.concatenate([np.array(e.ids, dtype=np.int64) for e in tokenizer.encode_batch(lines)])


def masked_batch(tokens: np.ndarray, rng: np.random.Generator) -> tuple[torch.Tensor, ...]:
    """Return what the model reads, where it is scored, and the tokens it should say there."""
    starts = rng.integers(0, tokens.size - _LENGTH, _BATCH)
    whole = tokens[starts[:, None] + np.arange(_LENGTH)]
    scored = rng.random(whole.shape) < _MASKED
    fate = rng.random(whole.shape)
    read = np.where(scored & (fate < 0.8), _MASK, whole)
    drawn = rng.integers(len(_SPECIAL), _VOCABULARY, whole.shape)
    read = np.where(scored & (fate >= 0.9), drawn, read)
    return torch.from_numpy(read), torch.from_numpy(scored), torch.from_numpy(whole[scored])


def masked_loss(
    model: BertForMaskedLM, read: torch.Tensor, scored: torch.Tensor, expected: torch.Tensor
) -> torch.Tensor:
    hidden = model.bert(input_ids=read).last_hidden_state[scored]
    return torch.nn.functional.cross_entropy(model.cls(hidden), expected)


def trace(folder: Path, run: Path) -> None:
    losses = json.loads((folder / "losses.json").read_text())
    first, last = min(losses, key=int), max(losses, key=int)
    print(
        f"loss {math.log(_VOCABULARY):.2f} (guessing), {losses[first]:.2f} at step {first}, "
        f"{losses[last]:.2f} at step {last}"
    )
    outputs = ["-o", str(folder / "trace.json"), "--plot", str(folder / "trace.png"), "--force"]
    command = [sys.executable, "-m", "surgeon", "trace", str(run), *outputs]
    subprocess.run(command, check=True)
    traced = json.loads((folder / "trace.json").read_text())
    remove(run / f"step-{last}", traced["outliers"])


def remove(checkpoint: Path, outliers: list[int]) -> None:
    """Print the loss of the last checkpoint without each outlier, and without other dimensions."""
    torch.set_num_threads(1)
    model = BertForMaskedLM.from_pretrained(checkpoint).eval()
    tokens, rng = tokenized(library_sources()), np.random.default_rng(1)
    batches = [masked_batch(tokens, rng) for _ in range(_JUDGED)]
    others = [dim for dim in range(_HIDDEN) if dim not in outliers]
    without = {dim: loss_without(model, dim, batches) for dim in range(_HIDDEN)}
    drawn = sorted(without[dim] for dim in others)
    whole = loss_without(model, None, batches)
    print(f"loss of the last checkpoint, on text that it learned from: {whole:.3f}")
    for dim in outliers:
        larger = sum(other > without[dim] for other in without.values())
        print(f"without {dim}: {without[dim]:.3f}; larger without {larger} of the {_HIDDEN} dims")
    print(f"without another: {drawn[0]:.3f} to {drawn[-1]:.3f}, median {np.median(drawn):.3f}")


@torch.no_grad()
def loss_without(model: BertForMaskedLM, dim: int | None, batches: list) -> float:
    norms = [layer.output.LayerNorm for layer in model.bert.encoder.layer]
    vectors = [vector for norm in norms for vector in (norm.weight, norm.bias)]
    kept = [vector.clone() for vector in vectors]
    if dim is not None:
        for vector in vectors:
            vector[dim] = 0
    found = float(np.mean([masked_loss(model, *batch).item() for batch in batches]))
    for vector, whole in zip(vectors, kept, strict=True):
        vector.copy_(whole)
    return found


if __name__ == "__main__":
    main()
