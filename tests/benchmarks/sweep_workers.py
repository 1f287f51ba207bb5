"""What a second worker gives a sweep of small cells on one machine.

    python tests/benchmarks/sweep_workers.py [ROUNDS]

Sweeps every dimension of a tiny BERT, a thousand cells in all, with one worker and with two, in
turn. The workers' start counts. Prints cells a second (medians) and their ratio.
"""

from __future__ import annotations

import json
import shutil
import statistics
import sys
import tempfile
from pathlib import Path

import torch
import transformers

from surgeon.study.engines import choose_engine
from surgeon.study.grid import check_grid
from surgeon.study.sweep import run_sweep

_DIMS, _SEEDS = 64, 16


def make_model(folder: Path) -> None:
    """A BERT of two layers and a tokenizer that knows letters."""
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=31,
        hidden_size=_DIMS,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
        max_position_embeddings=64,
        architectures=["BertForMaskedLM"],
    )
    transformers.BertForMaskedLM(config).save_pretrained(folder)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *map(chr, range(97, 123))]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}')


def main(rounds: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_model(folder / "model")
        (folder / "text.txt").write_text("a b c d e f g h\nh g f e d c b a\nz y x w v u\n" * 8)
        (folder / "grid.yaml").write_text(
            f"models: [model]\nselections: [{{each: 0-{_DIMS - 1}}}]\n"
            f"seeds: {json.dumps(list(range(_SEEDS)))}\ntasks: [{{data: text.txt, controls: 10}}]\n"
        )
        grid, times = check_grid(folder / "grid.yaml").valid(), {1: [], 2: []}
        for number in range(rounds + 1):
            for workers, kept in times.items():
                shutil.rmtree(folder / "out", ignore_errors=True)
                engine = choose_engine("local", workers)
                done = run_sweep(grid, folder / "out", engine=engine, models=folder / "exported")
                assert done.done == done.total
                if number:  # the first round exports the model
                    kept.append(done.seconds)
    one, two = (done.total / statistics.median(kept) for kept in times.values())
    print(f"{done.total} cells: {one:.1f} a second with one worker, {two:.1f} with two")
    print(f"two workers / one: {two / one:.2f}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
