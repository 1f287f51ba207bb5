"""How fast an evaluation scores, against the PyTorch loop that a user would otherwise write.

Prints ratios of medians, measured in turn in the same run:

- all-MiniLM-L6-v2 on sentences of natural length: examples a second, against PyTorch with batches
  of 32 padded in the order of arrival;
- a BERT of base size, random weights, masked loss on blocks of 128 tokens: against PyTorch's
  forward with labels on the same blocks;
- the useful floating-point operations of the latter as a share of the machine's float32 peak, by
  a large matrix product;
- the peak memory of ``surgeon eval`` on it, against the size of its weights.

Run: ``python tests/benchmarks/evaluate_speed.py [rounds]``.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
import transformers
from measure import SURGEON, minilm, run

from surgeon import built_in_sample
from surgeon.evaluation.artifact import open_artifact
from surgeon.evaluation.runner import OnnxRunner, open_runner
from surgeon.tasks.examples import Example
from surgeon.tasks.registry import TASKS
from surgeon.tasks.task import BASELINE, observe

_BLOCK, _BLOCKS, _MASKED = 128, 32, 19
_BATCH = 32


def runner_of(artifact: Path) -> OnnxRunner:
    """Open an artifact to score its baseline."""
    opened = open_artifact(artifact)
    return open_runner(opened, TASKS[opened.facts.task], "cpu")


def in_turn(rounds: int, *steps: Callable[[], object]) -> list[float]:
    """Return the median time of each step in seconds, run in turn; the first round is not kept."""
    times: list[list[float]] = [[] for _ in steps]
    for number in range(rounds + 1):
        for step, kept in zip(steps, times, strict=True):
            start = time.perf_counter()
            step()
            if number:
                kept.append(time.perf_counter() - start)
    return [statistics.median(kept) for kept in times]


def patch(model: Path, output: Path) -> Path:
    """Make an artifact of a model without dimensions 1 and 2."""
    options = ["--dims", "1,2", "-o", str(output)]
    subprocess.run([*SURGEON, "patch", str(model), *options], check=True, capture_output=True)
    return output


def sentences(folder: Path, rounds: int) -> None:
    """Compare examples a second on sentences of natural length."""
    source = minilm()
    runner = runner_of(patch(source, folder / "minilm"))
    tokenizer = transformers.AutoTokenizer.from_pretrained(source)
    model = transformers.AutoModel.from_pretrained(source).eval()
    lines = list(built_in_sample().lines) * 2
    nothing = np.empty(0, dtype=np.int64)
    examples = [Example(tuple(ids), nothing, nothing) for ids in tokenizer(lines)["input_ids"]]

    def torch_loop() -> None:
        with torch.inference_mode():
            for start in range(0, len(lines), _BATCH):
                batch = tokenizer(lines[start : start + _BATCH], padding=True, return_tensors="pt")
                states = model(**batch).last_hidden_state
                mask = batch["attention_mask"][..., None]
                (states * mask).sum(1) / mask.sum(1)

    own, peer = in_turn(rounds, lambda: observe(runner, BASELINE, examples), torch_loop)
    print(f"sentences: {len(lines) / own:.0f} a second, PyTorch {len(lines) / peer:.0f}")
    print(f"sentences: times as many as PyTorch:       {peer / own:.2f}")


def blocks(folder: Path, rounds: int) -> None:
    """Compare the masked loss on blocks of 128 tokens at BERT-base size."""
    torch.manual_seed(0)
    config = transformers.BertConfig(architectures=["BertForMaskedLM"])
    model = transformers.BertForMaskedLM(config).eval()
    source = folder / "base"
    model.save_pretrained(source)
    write_tokenizer(source, config.vocab_size)
    artifact = patch(source, folder / "base-out")
    runner = runner_of(artifact)
    rng = np.random.default_rng(0)
    examples = [masked(rng, config.vocab_size) for _ in range(_BLOCKS)]
    ids = torch.tensor(np.array([example.ids for example in examples]))
    labels = torch.full_like(ids, -100)
    for row, example in enumerate(examples):
        labels[row, example.positions] = torch.from_numpy(example.labels)

    def torch_loop() -> None:
        with torch.inference_mode():
            for start in range(0, _BLOCKS, 16):
                part = slice(start, start + 16)
                model(input_ids=ids[part], labels=labels[part]).loss.item()

    side = torch.randn(2048, 2048)
    own, peer, product = in_turn(
        rounds, lambda: observe(runner, BASELINE, examples), torch_loop, lambda: side @ side
    )
    peak = 2 * 2048**3 / product
    print(f"blocks of 128: {_BLOCKS / own:.1f} a second, PyTorch {_BLOCKS / peer:.1f}")
    print(f"blocks of 128: times as many as PyTorch:   {peer / own:.2f}")
    print(f"share of the float32 matmul peak:          {useful_flops(config) / own / peak:.2f}")
    weights = (source / "model.safetensors").stat().st_size / 2**20
    text = folder / "text.txt"
    words = (" ".join(f"t{n}" for n in rng.integers(5, 30000, 60)) for _ in range(40))
    text.write_text("\n".join(words))
    _, memory = run([*SURGEON, "eval", str(artifact), "--data", str(text), "--controls", "2"])
    bound = 1.5 * weights + 300
    print(f"peak memory of eval: {memory:.0f} MiB, weights {weights:.0f}, bound {bound:.0f}")


def masked(rng: np.random.Generator, vocabulary: int) -> Example:
    """Make a block with 15% of its tokens masked."""
    ids = rng.integers(5, vocabulary, _BLOCK)
    positions = np.sort(rng.choice(_BLOCK, _MASKED, replace=False))
    labels = ids[positions].copy()
    ids[positions] = 4
    return Example(tuple(ids.tolist()), positions, labels)


def useful_flops(config: transformers.BertConfig) -> float:
    """Count the multiplications and additions that the losses of all blocks take."""
    hidden, inner = config.hidden_size, config.intermediate_size
    per_token = 2 * (4 * hidden**2 + 2 * hidden * inner) + 4 * _BLOCK * hidden
    head = 2 * (hidden**2 + hidden * config.vocab_size)
    per_block = _BLOCK * config.num_hidden_layers * per_token + _MASKED * head
    return float(_BLOCKS * per_block)


def write_tokenizer(folder: Path, vocabulary: int) -> None:
    """Write a tokenizer of made-up words, one for each row of the embeddings."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words: Sequence[str] = [*special, *(f"t{n}" for n in range(5, vocabulary))]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}')


def main(rounds: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        sentences(Path(folder), rounds)
        blocks(Path(folder), rounds)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
