"""The tokenizer of a model directory, in the form that needs no transformers to run."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import transformers

from surgeon.scoring.tokenizer import TokenizerFacts

_TOKENIZER = "tokenizer.json"


def load_tokenizer(source: Path) -> Any | None:
    """Return the tokenizer of a model directory; None where it has none in the fast format."""
    try:
        with quiet():
            tokenizer = transformers.AutoTokenizer.from_pretrained(source, local_files_only=True)
    except Exception as error:  # noqa: BLE001  (whatever the files hold, there is none to use)
        logging.getLogger(__name__).debug("no tokenizer in %s: %s", source, error)
        return None
    # Without any file of a vocabulary, transformers makes a tokenizer of special tokens alone.
    empty = len(tokenizer) <= len(tokenizer.all_special_ids)
    return None if empty or not tokenizer.is_fast else tokenizer


def save_tokenizer(source: Path, folder: Path, tokenizer: Any, pad: int) -> TokenizerFacts:
    """Write the tokenizer to ``folder`` unless the source has it in that format already.

    Afterwards the ``tokenizers`` library alone can encode text for the graph.
    """
    file = _TOKENIZER
    if not (source / _TOKENIZER).is_file():
        file = f"{folder.name}/{_TOKENIZER}"
        (folder / _TOKENIZER).write_text(tokenizer.backend_tokenizer.to_str(), encoding="utf-8")
    return TokenizerFacts(
        file=file,
        mask_id=tokenizer.mask_token_id,
        pad_id=pad,
        unknown_id=tokenizer.unk_token_id,
        special_ids=tuple(sorted(set(tokenizer.all_special_ids))),
    )


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep the chatter of transformers and the exporter off the screen; errors still rise."""
    verbosity = transformers.logging.get_verbosity()
    bars = transformers.logging.is_progress_bar_enabled()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(previous)
        transformers.logging.set_verbosity(verbosity)
        if bars:
            transformers.logging.enable_progress_bar()
