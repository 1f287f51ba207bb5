import json
import shutil

import pytest
import torch
import transformers as t
from artifacts import edit_json, record_files
from tiny import TEXT
from tokenizers import Tokenizer, models, pre_tokenizers

from surgeon import open_checkpoint
from surgeon.errors import CheckpointError, EvaluationError
from surgeon.families import family_of
from surgeon.tasks.configuration import check_sizes, longest_text
from surgeon.tasks.examples import Encoder

_SMALL = {**TEXT, "num_hidden_layers": 1, "max_position_embeddings": 16}
_WORDS = ["the", "river", "runs", "past", "old", "towns"]


def _with_config(source, target, **values):
    shutil.copytree(source, target)
    edit_json(target / "config.json", **values)
    return target


@pytest.fixture
def refused_by_all(refused):
    """Every command that needs them to belong together refuses a model, and writes nothing."""

    def check(folder, complaint):
        out = folder.parent / "out"
        for command, *options in (
            ["patch", "--dims", "1", "-o", out],
            ["export", "-o", out],
            ["scan", "--method", "activations"],
        ):
            assert "defect" not in refused(command, folder, *options, says=complaint)
        assert [path.name for path in folder.parent.iterdir()] == [folder.name]

    return check


@pytest.mark.parametrize(
    ("family", "change", "complaint"),
    [
        ("bert", {"max_position_embeddings": 32}, "position_embeddings.weight has 64 rows and "),
        ("bert", {"vocab_size": 30}, "/config.json says vocab_size 30: give the config.json of"),
        ("bert", {"type_vocab_size": 5}, "token_type_embeddings.weight has 2 rows"),
        ("bert", {"pad_token_id": 40}, "says pad_token_id 40 and bert.embeddings.word_embed"),
        ("gpt2", {"n_positions": 32}, "wpe.weight has 64 rows and "),
        ("gpt2", {"vocab_size": 50}, "wte.weight has 40 rows and "),
        ("distilbert", {"max_position_embeddings": 128}, "says max_position_embeddings 128"),
        ("mpnet", {"vocab_size": 41}, "says vocab_size 41"),
        ("bert", {"architectures": 5}, "architectures is not a list of class names"),
        ("roberta", {"pad_token_id": 63}, "with pad_token_id 63 none is left for a token"),
    ],
)
def test_a_config_of_other_sizes_than_the_weights_is_refused(
    tiny, tmp_path, refused_by_all, family, change, complaint
):
    refused_by_all(_with_config(tiny(family), tmp_path / "model", **change), complaint)


@pytest.mark.parametrize(
    ("model", "values", "found"),
    [
        (t.BertForSequenceClassification, {"id2label": ..., "label2id": ...}, "has no id2label"),
        (t.BertForTokenClassification, {"id2label": {"0": "a", "1": "b"}}, "names 2 labels"),
        (t.BertForSequenceClassification, {"id2label": ..., "num_labels": 4}, "has no id2label"),
        (t.BertForSequenceClassification, {"id2label": {"0": "only"}}, "names 1 labels"),
    ],
)
def test_a_classifier_of_other_labels_than_the_config_names_is_refused(
    tmp_path, refused_by_all, model, values, found
):
    source = tmp_path / "source"
    model(t.BertConfig(**_SMALL, num_labels=3)).save_pretrained(source)
    check_sizes(open_checkpoint(source), "")
    folder = _with_config(source, tmp_path / "changed" / "model", **values)
    complaint = f"classifier.weight has 3 rows, one a label, and {folder}/config.json {found}"
    refused_by_all(folder, complaint)


def test_classifiers_of_other_families_and_uncounted_labels_are_known(tmp_path):
    for model, config in (
        (t.RobertaForSequenceClassification, t.RobertaConfig(**_SMALL, num_labels=3)),
        (t.GPT2ForSequenceClassification, t.GPT2Config(n_embd=16, n_layer=1, n_head=2)),
    ):
        folder = tmp_path / model.__name__
        model(config).save_pretrained(folder)
        check_sizes(open_checkpoint(folder), "")
        wrong = _with_config(
            folder, tmp_path / f"{model.__name__}-5", id2label=dict.fromkeys("abcde")
        )
        with pytest.raises(CheckpointError, match="rows, one a label, and"):
            check_sizes(open_checkpoint(wrong), "")


def _tokenizer(folder, count):
    vocabulary = {f"w{number}": number for number in range(count)}
    Tokenizer(models.WordLevel(vocabulary, "w0")).save(str(folder / "tokenizer.json"))


def _lines(folder, count):
    (folder / "vocab.txt").write_text("".join(f"w{number}\n" for number in range(count)) + "\n")


def _by_number(folder, count):
    (folder / "vocab.json").write_text(json.dumps({f"w{n}": n for n in range(count)}))


def _added(folder, count):
    _lines(folder, 30)
    (folder / "added_tokens.json").write_text(json.dumps({"<new>": count - 1}))


def _added_in_settings(folder, count):
    _by_number(folder, 30)
    added = {"added_tokens_decoder": {str(count - 1): {"content": "<new>"}}}
    (folder / "tokenizer_config.json").write_text(json.dumps(added))


@pytest.mark.parametrize("write", [_tokenizer, _lines, _by_number, _added, _added_in_settings])
def test_a_tokenizer_with_more_tokens_than_the_model_is_refused(
    tiny, tmp_path, refused_by_all, write
):
    folder = shutil.copytree(tiny("bert"), tmp_path / "model")
    write(folder, 40)
    check_sizes(open_checkpoint(folder), "")
    write(folder, 41)
    refused_by_all(folder, "the tokenizer has 41 tokens and the model 40: the two do not belong")


def test_an_artifact_whose_tokenizer_has_grown_is_not_judged(embedder_patched, tmp_path, refused):
    artifact = shutil.copytree(embedder_patched, tmp_path / "artifact")
    tokenizer = Tokenizer.from_file(str(artifact / "tokenizer.json"))
    further = 801 - tokenizer.get_vocab_size()
    tokenizer.add_tokens([f"<new {number}>" for number in range(further)])
    tokenizer.save(str(artifact / "tokenizer.json"))
    record_files(artifact)
    grown = "the tokenizer has 801 tokens and the model 800"
    refused("eval", artifact, "--controls", "1", says=grown)
    assert not (artifact / "surgeon" / "eval.json").exists()


@pytest.mark.parametrize(
    ("model", "config"),
    [
        (t.RobertaModel, t.RobertaConfig(**_SMALL, pad_token_id=3)),
        (t.RobertaModel, t.RobertaConfig(**_SMALL, pad_token_id=0)),
        (t.XLMRobertaModel, t.XLMRobertaConfig(**_SMALL, pad_token_id=4)),
        (t.CamembertModel, t.CamembertConfig(**_SMALL, pad_token_id=1)),
        (t.EsmModel, t.EsmConfig(**_SMALL, pad_token_id=5, position_embedding_type="absolute")),
        (t.RobertaPreLayerNormModel, t.RobertaPreLayerNormConfig(**_SMALL, pad_token_id=2)),
        (t.Data2VecTextModel, t.Data2VecTextConfig(**_SMALL, pad_token_id=6)),
        (t.MPNetModel, t.MPNetConfig(**_SMALL, pad_token_id=3)),  # always from 2 on
        (t.BertModel, t.BertConfig(**_SMALL, pad_token_id=3)),
        (t.MptModel, t.MptConfig(d_model=16, n_heads=2, n_layers=1, vocab_size=40, max_seq_len=16)),
    ],
)
def test_the_longest_text_is_the_longest_that_the_model_runs_on(model, config):
    longest = longest_text(config.to_dict(), family_of(config.model_type), None)
    loaded = model(config).eval()
    loaded(torch.full((1, longest), 20))
    with pytest.raises((IndexError, RuntimeError)):
        loaded(torch.full((1, longest + 1), 20))


@pytest.mark.parametrize("limit", [-1, 0, None, "512", 1e30, int(1e30), True, [12], float("nan")])
def test_a_length_that_is_none_is_no_limit(limit):
    assert longest_text(_SMALL, family_of("bert"), limit) == 16
    assert longest_text({"max_position_embeddings": -1}, family_of("xlnet"), limit) == 512
    assert longest_text({"max_position_embeddings": limit}, family_of("bert"), 12) == 12


def test_texts_in_the_other_case_of_letters_are_told_so():
    vocabulary = {"[UNK]": 0, **{word: n for n, word in enumerate(_WORDS, 1)}}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    encoder = Encoder(tokenizer, 512, 0)

    def check(texts):
        encoder.check_known(encoder.encode(texts), texts, "my.txt")

    known = [" ".join(_WORDS), "the old river unheard"]
    check(known)
    with pytest.raises(
        EvaluationError,
        match=r"^10 of 10 tokens of my\.txt.*it knows them in lower case: give `texts` FILE",
    ):
        check([text.upper() for text in known])
    with pytest.raises(EvaluationError, match="give `texts` FILE, text of the kind"):
        check(["quite other words than those"])
    with pytest.raises(EvaluationError, match="give `texts` FILE, text of the kind"):
        encoder.check_known(encoder.encode(["quite other"]), ["quite other", *known], "rows")
