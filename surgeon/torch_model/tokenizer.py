"""The tokenizer of a checkpoint, in the form that needs no transformers to run where it has one."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import transformers

from surgeon.errors import EvaluationError, ExportError
from surgeon.tasks.tokenizer import (
    MOST_CHARACTERS,
    TOKEN_ROLES,
    TOKENIZER,
    UNBOUNDED,
    BoundedTokenizer,
    TokenizerFacts,
    check_texts,
    length_or_none,
    panics_as_errors,
)
from surgeon.torch_model.directory import tokenizer_folder
from surgeon.torch_model.loading import export_error, quiet

if TYPE_CHECKING:
    from tokenizers import Tokenizer


_SENTENCEPIECE = ("*.model", "*.spm")
_VOCABULARIES = (
    TOKENIZER, "vocab*", *_SENTENCEPIECE, "*.tiktoken", "merges.txt", "tekken.json",
)  # fmt: skip


def load_tokenizer(source: Path) -> Any | None:
    """Return the tokenizer of a model directory; None where it has none.

    Raises:
        CheckpointError: its settings are not JSON.
        ExportError: it is there, and cannot be read.
    """
    names = sorted(entry.name for entry in source.iterdir() if entry.is_file())
    vocabulary = next((n for p in _VOCABULARIES for n in names if fnmatch(n, p)), None)
    with tokenizer_folder(source) as folder:
        try:
            with quiet(), panics_as_errors(str(source / (vocabulary or TOKENIZER))):
                tokenizer = transformers.AutoTokenizer.from_pretrained(
                    folder, local_files_only=True, trust_remote_code=False
                )
                if tokenizer.is_fast:
                    BoundedTokenizer(tokenizer.backend_tokenizer, TOKENIZER)  # expands no text
        except Exception as error:
            if vocabulary is None:
                return None
            _check_installed(source, names)
            what = f"{source / vocabulary}: transformers cannot read this tokenizer"
            remedy = (
                "update transformers and tokenizers, or save the tokenizer again with those here"
            )
            raise export_error(what, error, remedy, (folder, source)) from error
    # A file may say "512" or -1, which the library compares with numbers of tokens.
    tokenizer.model_max_length = length_or_none(tokenizer.model_max_length) or UNBOUNDED
    # Without any file of a vocabulary, transformers makes a tokenizer of only special tokens.
    return None if len(tokenizer) <= len(tokenizer.all_special_ids) else tokenizer


def _check_installed(source: Path, names: Sequence[str]) -> None:
    """Name the package that a tokenizer takes: transformers complains about the last it tries."""
    pieces = next((n for p in _SENTENCEPIECE for n in names if fnmatch(n, p)), None)
    if pieces is None or TOKENIZER in names:
        return
    binary = (source / pieces).read_bytes()[:1] == b"\n"  # the first tag of a protobuf
    package = "sentencepiece" if binary else "tiktoken"
    if importlib.util.find_spec(package) is None:
        what = f"{source / pieces}: {package}, which reads this tokenizer, is not installed"
        raise ExportError(what, f"pip install {package}")


def save_tokenizer(source: Path, folder: Path, tokenizer: Any, pad: int) -> TokenizerFacts:
    """Write the tokenizer to ``folder`` unless the source has it in a form that is read already.

    Afterwards the ``tokenizers`` library can encode text for the graph, unless transformers has
    the tokenizer in Python only.
    """
    file = TOKENIZER
    if not tokenizer.is_fast:
        own = tokenizer.vocab_files_names.values()
        file = next((name for name in own if (source / name).is_file()), "tokenizer_config.json")
    elif not (source / TOKENIZER).is_file():
        file = f"{folder.name}/{TOKENIZER}"
        (folder / TOKENIZER).write_text(tokenizer.backend_tokenizer.to_str(), encoding="utf-8")
    return TokenizerFacts(
        file=file,
        mask_id=tokenizer.mask_token_id,
        pad_id=pad,
        unknown_id=tokenizer.unk_token_id,
        special_ids=tuple(sorted(set(tokenizer.all_special_ids))),
        kind="tokenizers" if tokenizer.is_fast else "transformers",
    )


def text_encoder(tokenizer: Any, *, sides: bool = False) -> Tokenizer:
    """Return what encodes text, without padding and truncation.

    Of a tokenizer in Python only, or one that is to know both ``sides``, source and target, it has
    what scoring uses of ``tokenizers.Tokenizer``.
    """
    if sides or not tokenizer.is_fast:
        return _LibraryTokenizer(tokenizer)  # type: ignore[return-value]  # as much as is used
    backend = BoundedTokenizer(tokenizer.backend_tokenizer, TOKENIZER, tokenizer.truncation_side)
    backend.no_padding()
    backend.no_truncation()
    return backend  # type: ignore[return-value]  # all that a tokenizer does, in bounds


@dataclass(frozen=True)
class _PythonEncoding:
    ids: list[int]
    type_ids: list[int]
    special_tokens_mask: list[int]
    offsets: tuple[tuple[int, int], ...] = ()

    @property
    def word_ids(self) -> NoReturn:
        raise EvaluationError(
            "the model's tokenizer is in Python only and does not say where in its text a token "
            "is, which this task needs; save the tokenizer as tokenizer.json and patch again"
        )

    sequence_ids = overflowing = word_ids


class _LibraryTokenizer:
    """A tokenizer of transformers behind the methods of ``tokenizers.Tokenizer`` in use.

    It knows more than those do: how a target is written, of a model that reads sources.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._most: int | None = None
        self._characters = MOST_CHARACTERS
        if tokenizer.is_fast:
            self._characters = BoundedTokenizer(tokenizer.backend_tokenizer, TOKENIZER).most

    @property
    def languages(self) -> tuple[str | None, str | None]:
        """The languages of sources and of targets, where the model's files name them."""
        named = {k: v for k, v in self._tokenizer.init_kwargs.items() if isinstance(v, str)}
        source = named.get("src_lang") or named.get("source_lang")
        return source, named.get("tgt_lang") or named.get("target_lang")

    @property
    def target_codes(self) -> tuple[str, ...]:
        """What a source begins with, so that Marian writes in one of several languages."""
        return tuple(getattr(self._tokenizer, "supported_language_codes", ()))

    def choose_languages(self, data: str, source: str, target: str) -> None:
        """Take the languages that two columns are called by, or those that the files name.

        Raises:
            EvaluationError: the tokenizer puts the code of a language around a text, and knows none
                of these, or none of a target.
        """
        ours = self._tokenizer
        roles = {getattr(ours, f"{role}_token") for role in TOKEN_ROLES}
        if not hasattr(ours, "set_tgt_lang_special_tokens"):
            around = ours.convert_ids_to_tokens(self.encode_batch([""], target=True)[0].ids)
            if not roles.issuperset(around):
                raise EvaluationError(
                    "the tokenizer puts tokens around a text that say of what kind it is, and "
                    "does not know those of a target; name the model's own tokenizer_class in "
                    "tokenizer_config.json and patch again"
                )
            return
        # NLLB's codes are tokens. PLBART's "__python__" may be called python.
        codes = getattr(ours, "lang_code_to_id", None)
        known = set(ours.all_special_tokens) - roles
        if codes is not None:
            known = {code for code, number in codes.items() if number != ours.unk_token_id}
        usual, sides = ours.src_lang, (("src", "text", source), ("tgt", "pair", target))
        for named, (side, role, column) in zip(self.languages, sides, strict=True):
            chosen = [name for name in (column, named) if {name, f"__{name}__"} & known]
            if not chosen:
                raise EvaluationError(
                    f"`texts` {data}: the name of the column {column} is not a language code of "
                    f"the tokenizer, such as {usual}, and tokenizer_config.json has no "
                    f"{side}_lang; rename the column and give it with `{role}_column`, or write "
                    f"{side}_lang there and patch again"
                )
            setattr(ours, f"{side}_lang", chosen[0])

    def enable_truncation(self, max_length: int, **_how: Any) -> None:
        self._most = max_length

    def no_truncation(self) -> None:
        self._most = None

    def encode(
        self,
        text: Any,
        *,
        is_pretokenized: bool = False,
        add_special_tokens: bool = True,
        target: bool = False,
    ) -> _PythonEncoding:
        first, second = text if isinstance(text, tuple) else (text, None)
        texts = {"text_target": text} if target else {"text": first, "text_pair": second}
        with quiet():
            encoded = self._tokenizer(
                **texts,
                add_special_tokens=add_special_tokens,
                is_split_into_words=is_pretokenized,
                truncation=self._most is not None,
                max_length=self._most,
                return_token_type_ids=True,
                return_special_tokens_mask=True,
            )
        return _PythonEncoding(
            encoded["input_ids"], encoded["token_type_ids"], encoded["special_tokens_mask"]
        )

    def encode_batch(self, texts: Sequence[Any], **how: Any) -> list[_PythonEncoding]:
        check_texts(texts, self._characters)
        with panics_as_errors(TOKENIZER):
            return [self.encode(text, **how) for text in texts]

    def get_vocab(self) -> dict[str, int]:
        found: dict[str, int] = self._tokenizer.get_vocab()
        return found

    def get_vocab_size(self) -> int:
        # Marian may have vocabularies of two sizes.
        return max(len(self._tokenizer), len(getattr(self._tokenizer, "target_encoder", ())))

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        numbers = [int(number) for number in ids]
        text: str = self._tokenizer.decode(numbers, skip_special_tokens=skip_special_tokens)
        return text

    def id_to_token(self, number: int) -> str | None:
        token: str | None = self._tokenizer.convert_ids_to_tokens(int(number))
        return token
