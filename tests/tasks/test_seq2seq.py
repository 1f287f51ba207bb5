"""Targets are tokenized, shifted and scored as transformers does with ``labels``."""

import hashlib
import json
import string
from functools import partial

import pytest
import sentencepiece
import torch
import transformers as t
from task_models import word_tokenizer
from tiny import BART, T5, make_unequal
from tokenizers import processors
from transformers.models.mbart import tokenization_mbart
from transformers.models.mbart50 import tokenization_mbart50

from surgeon.errors import EvaluationError
from surgeon.tasks.data import read_table
from surgeon.tasks.examples import Encoder
from surgeon.tasks.registry import TASKS
from surgeon.tasks.table import Columns, Table
from surgeon.tasks.task import Settings
from surgeon.torch_model.tokenizer import text_encoder

_TASK = TASKS["seq2seq"]
_SOURCES = ("the ferry leaves at nine", "a fox", "bread keeps longer in a bag", "rain")
_TARGETS = ("die faehre legt um neun ab", "ein fuchs", "brot bleibt laenger frisch", "regen")
_PAIRS = tuple(zip(_SOURCES, _TARGETS, strict=True))
_PIECES = ["<s>", "<pad>", "</s>", "<unk>", "▁", *string.ascii_lowercase]


def _numbered(*pieces):
    return {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}


def _unigram(of, *pieces, folder):
    return of(vocab=[(piece, -1.0) for piece in pieces])


def _nllb(folder):
    return t.NllbTokenizer(vocab=_numbered(*_PIECES), merges=[])


def _words(folder):
    return word_tokenizer()


def _save_spm(path, texts):
    """Train SentencePiece, and return its pieces."""
    how = {"vocab_size": 30, "hard_vocab_limit": False, "minloglevel": 2}
    stem = path.with_suffix("")
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts * 9), model_prefix=stem, **how
    )
    trained = sentencepiece.SentencePieceProcessor(str(path.with_suffix(".model").rename(path)))
    return [trained.id_to_piece(number) for number in range(len(trained))]


def _m2m_100(folder):
    pieces = _save_spm(folder / "spm.model", _SOURCES + _TARGETS)
    vocabulary = _numbered(*_PIECES[:4], *pieces)
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    return t.M2M100Tokenizer(str(folder / "vocab.json"), str(folder / "spm.model"))


def _marian(folder):
    texts = {"source": _SOURCES, "target": _TARGETS}
    pieces = [piece for n in texts for piece in _save_spm(folder / f"{n}.spm", texts[n])]
    (folder / "vocab.json").write_text(json.dumps(_numbered("</s>", "<pad>", *pieces)))
    files = {f"{name}_spm": str(folder / f"{name}.spm") for name in texts}
    names = {"source_lang": "en", "target_lang": "de"}
    return t.MarianTokenizer(**files, vocab=str(folder / "vocab.json"), **names)


def _read(tokenizer, config, *columns, rows=None):
    encoder = Encoder(text_encoder(tokenizer, sides=True), 64, tokenizer.unk_token_id)
    settings = Settings(
        0,
        0.0,
        None,
        (),
        columns=Columns(*columns, usual=_TASK.columns),
        decoder_start_id=config.decoder_start_token_id,
        model_type=config.model_type,
    )
    rows = rows or [dict(zip(columns, pair, strict=True)) for pair in _PAIRS]
    return _TASK.read(Table("pairs.csv", tuple(rows), b""), encoder, settings)


_MBART = partial(
    _unigram, t.MBartTokenizer, *_PIECES, *tokenization_mbart.FAIRSEQ_LANGUAGE_CODES, "<mask>"
)
_MBART_50 = partial(
    _unigram, t.MBart50Tokenizer, *_PIECES, *tokenization_mbart50.FAIRSEQ_LANGUAGE_CODES, "<mask>"
)
_T5 = partial(_unigram, t.T5Tokenizer, "<pad>", *_PIECES[2:])
_PLAIN = ("source", "target")


@pytest.mark.parametrize(
    ("make", "config", "start", "columns"),
    [
        (_nllb, t.M2M100Config, 2, ("eng_Latn", "deu_Latn")),
        (_MBART, t.MBartConfig, None, ("en_XX", "ro_RO")),
        (_MBART_50, t.MBartConfig, 2, ("en_XX", "de_DE")),
        (_m2m_100, t.M2M100Config, 2, ("en", "de")),
        (_marian, t.MarianConfig, 1, ("en", "de")),
        (_words, t.BartConfig, 3, _PLAIN),
        (_T5, t.T5Config, 0, _PLAIN),
    ],
    ids=["NLLB", "mBART", "mBART-50", "M2M-100", "Marian", "BART", "T5"],
)
@torch.no_grad()
def test_the_loss_is_transformers_own(tmp_path, make, config, start, columns):
    tokenizer = make(folder=tmp_path)
    sizes = T5 if config is t.T5Config else BART
    pad = {"pad_token_id": tokenizer.pad_token_id, "decoder_start_token_id": start}
    config = config(**{**sizes, "vocab_size": len(tokenizer) + 200, **pad})
    model = make_unequal(t.AutoModelForSeq2SeqLM.from_config, config, seed=1, by=0.3).eval()
    prepared = _read(tokenizer, config, *columns)
    assert (prepared.given, prepared.unit, prepared.unknown) == (len(_SOURCES), "pairs", 0)
    if columns is not _PLAIN:
        tokenizer.src_lang, tokenizer.tgt_lang = columns
    for example, (source, target) in zip(prepared.examples, _PAIRS, strict=True):
        batch = tokenizer(source, text_target=target, return_tensors="pt")
        ids, decoder_ids = torch.tensor([example.ids]), torch.tensor([example.decoder_ids])
        asked = model(ids, decoder_input_ids=decoder_ids)
        loss, _, tokens = _TASK.observe(asked.logits[0].numpy(), example)
        own = model(batch["input_ids"], labels=batch["labels"])
        assert tokens == batch["labels"].numel()
        assert loss / tokens == pytest.approx(own.loss.item(), rel=1e-5)


@pytest.mark.parametrize(
    ("columns", "unknown"),
    [
        (_PLAIN, r"source .* `text_column`, or write src_lang"),
        (("eng_Latn", "xx_Latn"), r"xx_Latn .* `pair_column`, or write tgt_lang"),
        (("eng_Latn", "a"), r"a .* such as eng_Latn"),  # a piece of a word
        (("eng_Latn", "</s>"), r"</s> .* such as eng_Latn"),
        (("eng_Latn", "$A"), r"\$A .* such as eng_Latn"),  # what a template calls a text
    ],
)
def test_a_language_that_is_not_known_is_refused(columns, unknown):
    with pytest.raises(EvaluationError, match=f"pairs.csv: the name of the column {unknown}"):
        _read(_nllb(None), t.M2M100Config(), *columns)


def test_languages_that_the_files_name_need_no_columns_of_their_names():
    tokenizer = t.NllbTokenizer(
        vocab=_numbered(*_PIECES), merges=[], src_lang="eng_Latn", tgt_lang="deu_Latn"
    )
    wanted = _read(_nllb(None), t.M2M100Config(decoder_start_token_id=2), "eng_Latn", "deu_Latn")
    found = _read(tokenizer, t.M2M100Config(decoder_start_token_id=2), *_PLAIN)
    for one, other in zip(found.examples, wanted.examples, strict=True):
        assert (one.ids, one.labels.tolist()) == (other.ids, other.labels.tolist())


def test_a_tokenizer_that_marks_a_language_and_knows_no_target_is_refused():
    tokenizer = word_tokenizer()
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="$A [SEP] the", special_tokens=[("[SEP]", 3), ("the", 9)]
    )
    with pytest.raises(EvaluationError, match="tokenizer_class"):
        _read(tokenizer, t.BartConfig(), *_PLAIN)


def test_translations_of_the_hub_s_form_have_a_column_for_each_language(tmp_path):
    path = tmp_path / "wmt.jsonl"
    rows = [{"translation": {"de": b, "en": a}} for a, b in _PAIRS]
    path.write_text("\n".join(map(json.dumps, rows)))
    config = t.BartConfig(decoder_start_token_id=3)
    named = _read(word_tokenizer(), config, "en", "de", rows=read_table(path).rows)
    plain = _read(word_tokenizer(), config, *_PLAIN)
    assert [example.ids for example in named.examples] == [e.ids for e in plain.examples]
    assert read_table(path).sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_marian_looks_for_its_languages_and_asks_for_the_one_to_write(tmp_path):
    tokenizer = _marian(tmp_path)
    tokenizer.supported_language_codes = [">>deu<<"]
    rows = [{"de": b, "en": f">>deu<< {a}" if n else a} for n, (a, b) in enumerate(_PAIRS)]
    config = t.MarianConfig(decoder_start_token_id=1)
    prepared = _read(tokenizer, config, rows=rows)
    assert prepared.notes == (
        "sources that do not begin with the language to write, such as >>deu<<: 1",
    )
    assert [len(e.labels) for e in prepared.examples] == [
        len(tokenizer(text_target=b).input_ids) for b in _TARGETS
    ]


@pytest.mark.parametrize("task", ["pairs", "seq2seq"])
def test_a_header_of_unknown_names_that_is_read_as_a_row_is_noted(tmp_path, task):
    (tmp_path / "d.csv").write_text("prompt,answer\na fox,rain\n")
    encoder = Encoder(text_encoder(word_tokenizer(), sides=True), 32, 0)
    settings = Settings(0, 0.0, None, (), decoder_start_id=1, columns=Columns())
    prepared = TASKS[task].read(read_table(tmp_path / "d.csv"), encoder, settings)
    assert prepared.given == 2
    assert "d.csv, read without a header (name the columns if it has one)" in prepared.notes
