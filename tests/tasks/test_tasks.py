import dataclasses
import json
import math
import re

import numpy as np
import pytest
import torch
import transformers as t
from artifacts import edit_json
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score
from task_models import word_tokenizer
from tokenizers import processors

from surgeon.errors import EvaluationError, SurgeonError
from surgeon.tasks.configuration import Pooling, read_pooling
from surgeon.tasks.data import read_table
from surgeon.tasks.examples import Encoder, Example, batches_by_length
from surgeon.tasks.masked import mask
from surgeon.tasks.questions import compare_answers
from surgeon.tasks.registry import TASKS
from surgeon.tasks.table import Columns
from surgeon.tasks.task import Settings
from surgeon.tasks.token_labels import entities_of, in_scheme
from surgeon.tasks.tokenizer import (
    BoundedTokenizer,
    begin_with,
    find_tokenizer,
    read_tokenizer,
)
from surgeon.text import Texts
from surgeon.torch_model.tokenizer import text_encoder

_SETTINGS = Settings(seed=0, mask_rate=0.15, mask_id=4, special_ids=(0, 1, 2, 3, 4))
_SEQUENCE = (2, *range(5, 45), 3)


def test_a_share_of_the_ordinary_tokens_is_masked_and_no_other():
    example = mask(_SEQUENCE, _SETTINGS)
    ids = np.array(example.ids)
    assert len(example.positions) == 6  # 15% of 40
    assert (ids[example.positions] == 4).all()
    np.testing.assert_array_equal(example.labels, np.array(_SEQUENCE)[example.positions])
    untouched = np.setdiff1d(np.arange(42), example.positions)
    np.testing.assert_array_equal(ids[untouched], np.array(_SEQUENCE)[untouched])


def test_a_short_sequence_has_one_mask():
    assert len(mask((2, 9, 3), _SETTINGS).positions) == 1


def test_causal_labels_are_the_next_tokens():
    example = TASKS["clm"].prepare((7, 8, 9), _SETTINGS)
    assert example.positions.tolist() == [0, 1]
    assert example.labels.tolist() == [8, 9]
    assert TASKS["clm"].prepare((7,), _SETTINGS) is None


@pytest.mark.parametrize("scale", [1, 1000])
def test_the_loss_is_pytorch_s_cross_entropy(scale):
    logits = np.random.default_rng(0).normal(size=(42, 50)).astype(np.float32) * scale
    example = mask(_SEQUENCE, _SETTINGS)
    total, correct, count = TASKS["mlm"].observe(logits, example)
    positions, labels = torch.tensor(example.positions), torch.tensor(example.labels)
    expected = torch.nn.functional.cross_entropy(
        torch.tensor(logits).double()[positions], labels, reduction="sum"
    )
    assert total == pytest.approx(expected.item(), rel=1e-12)
    assert correct == (logits[example.positions].argmax(1) == example.labels).sum()
    assert count == 6


def test_perplexity_is_the_exponential_of_the_loss_where_it_can_be():
    measure = TASKS["clm"].measure
    observed = np.array([[6.0, 1, 2, 0, 0], [2.0, 1, 2, 0, 0]])
    assert measure(observed, _SETTINGS)["perplexity"].value == pytest.approx(math.exp(2))
    assert "perplexity" not in measure(observed * [1000, 1, 1, 1, 1], _SETTINGS)


def test_drift_is_zero_for_the_same_one_for_nothing_in_common_and_two_for_the_opposite():
    baseline = np.array([[1.0, 2.0], [1.0, 0.0], [3.0, 1.0], [1.0, 1.0]])
    variant = np.array([[1.0, 2.0], [0.0, 5.0], [-6.0, -2.0], [0.0, 0.0]])
    kept = TASKS["drift"].against(variant, baseline)
    drift = TASKS["drift"].measure(kept, _SETTINGS)["drift"].total
    np.testing.assert_allclose(drift, [0, 1, 2, 1])
    assert drift[0] == 0.0


def test_padding_does_not_enter_the_embedding():
    states = np.random.default_rng(0).normal(size=(9, 4)).astype(np.float32)
    example = TASKS["drift"].prepare((1, 2, 3), _SETTINGS)
    np.testing.assert_allclose(TASKS["drift"].observe(states, example), states[:3].mean(0))


@given(st.lists(st.integers(1, 600), max_size=60), st.sampled_from([1, 384, 30522, 250_000]))
def test_batches_hold_every_example_once_within_the_budget(lengths, width):
    nothing = np.empty(0, dtype=np.int64)
    examples = [Example((0,) * length, nothing, nothing) for length in lengths]
    batches = list(batches_by_length(examples, width))
    assert sorted(n for batch in batches for n in batch) == list(range(len(lengths)))
    for batch in batches:
        padded = len(batch) * max(lengths[n] for n in batch)
        assert len(batch) == 1 or padded <= 2048
        assert len(batch) == 1 or padded * width <= 48_000_000


@pytest.mark.parametrize(
    ("labels", "spans"),
    [
        ("O B-PER I-PER O", [("PER", 1, 3)]),
        ("B-PER B-PER", [("PER", 0, 1), ("PER", 1, 2)]),
        ("I-PER I-LOC", [("PER", 0, 1), ("LOC", 1, 2)]),
        ("B-PER I-LOC I-LOC", [("PER", 0, 1), ("LOC", 1, 3)]),
        ("S-PER B-LOC E-LOC I-LOC", [("PER", 0, 1), ("LOC", 1, 3), ("LOC", 3, 4)]),
        ("NOUN NOUN VERB", [("NOUN", 0, 2), ("VERB", 2, 3)]),
        ("S S B", [("S", 0, 2), ("B", 2, 3)]),  # kinds of one letter
        ("O O", []),
    ],
)
def test_entities_are_read_as_conll_does(labels, spans):
    assert entities_of(labels.split()) == spans


@pytest.mark.parametrize(
    ("answer", "expected", "f1", "exact"),
    [
        ("The  cat!", ("a cat",), 1.0, 1.0),
        ("black cat", ("cat", "black cat sat"), 0.8, 0.0),
        ("dog", ("cat",), 0.0, 0.0),
        ("", (), 1.0, 1.0),  # a question without an answer
        ("dog", (), 0.0, 0.0),
    ],
)
def test_answers_are_compared_as_squad_does(answer, expected, f1, exact):
    assert compare_answers(answer, expected) == (pytest.approx(f1), exact)


def test_f1_of_glue_is_that_of_the_class_that_means_the_same_whatever_its_output():
    expected, guesses = np.array([1, 1, 1, 0, 0]), np.array([1, 1, 0, 1, 0])
    for order in ((0, 1), (1, 0)):
        names = [("not_equivalent", "equivalent")[n] for n in order]
        settings = Settings(0, 0.0, None, (), labels=tuple(names))
        place = np.argsort(order)
        observed = np.column_stack([place[expected], np.eye(2)[place[guesses]]])
        found = TASKS["glue/mrpc"].measure(observed, settings)
        assert found["F1"].value == pytest.approx(f1_score(expected, guesses))
        assert found["accuracy"].value == pytest.approx(0.6)


def test_all_nine_tasks_of_glue_are_there():
    glue = {name.removeprefix("glue/") for name in TASKS if name.startswith("glue/")}
    assert glue == {"cola", "sst2", "mrpc", "stsb", "qqp", "mnli", "qnli", "rte", "wnli"}
    assert all(TASKS[f"glue/{name}"].sample.startswith(f"hf:nyu-mll/glue:{name}:") for name in glue)


def _sentence_transformer(folder, pooling, *kinds):
    modules = [{"path": "" if k == "Transformer" else f"1_{k}", "type": f"st.{k}"} for k in kinds]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))


@pytest.mark.parametrize(
    ("config", "modes"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, ("cls",)),
        ({"pooling_mode_max_tokens": True, "pooling_mode_mean_tokens": True}, ("max", "mean")),
        ({"pooling_mode": "lasttoken"}, ("lasttoken",)),
        ({"pooling_mode": ["mean", "weightedmean"]}, ("mean", "weightedmean")),
        ({"pooling_mode": "mean_sqrt_len_tokens"}, ("mean_sqrt_len_tokens",)),
    ],
)
def test_pooling_is_that_of_sentence_transformers(tmp_path, config, modes):
    from sentence_transformers.models import Pooling

    _sentence_transformer(tmp_path, config, "Transformer", "Pooling", "Normalize")
    pooling = read_pooling(tmp_path)
    assert pooling.modes == modes
    states = np.random.default_rng(0).normal(size=(5, 8)).astype(np.float32)
    features = {
        "token_embeddings": torch.tensor(states)[None],
        "attention_mask": torch.ones(1, 5, dtype=torch.int64),
    }
    theirs = Pooling(8, pooling_mode=list(modes))(features)["sentence_embedding"][0]
    parts = np.split(theirs.numpy(), len(modes))
    ours = np.split(pooling.pool(states), len(modes))
    # sentence-transformers has an order of its own for modes side by side; no cosine depends on it.
    for part in ours:
        assert any(np.allclose(part, other, atol=1e-5) for other in parts)


@pytest.mark.parametrize("modules", ["Transformer Pooling Dense", "Transformer"])
def test_a_module_with_weights_of_its_own_and_none_that_pools_are_refused(tmp_path, modules):
    _sentence_transformer(tmp_path, {}, *modules.split())
    last = modules.split()[-1]
    with pytest.raises(EvaluationError, match=rf"{last}, and sts embeds only .* `task` drift"):
        read_pooling(tmp_path)
    assert read_pooling(tmp_path / "nothing") is None


def test_a_prompt_that_is_not_pooled_is_refused(tmp_path):
    _sentence_transformer(tmp_path, {"include_prompt": False}, "Transformer", "Pooling")
    prompts = {"prompts": {"query": "query: "}, "default_prompt_name": "query"}
    (tmp_path / _PROMPTS).write_text(json.dumps(prompts))
    with pytest.raises(EvaluationError, match=r"leaves the prompt out .*; give `task` drift"):
        read_pooling(tmp_path)


@pytest.mark.parametrize("kind", ["bert", "roberta", "xlm-roberta", "distilbert", "xlnet"])
@pytest.mark.parametrize("folder", ["", "0_Transformer"])
def test_the_limits_of_a_sentence_are_found_under_older_names_too(tmp_path, kind, folder):
    _sentence_transformer(tmp_path, {"pooling_mode": "cls"}, "Transformer", "Pooling")
    modules = json.loads((tmp_path / "modules.json").read_text())
    modules[0]["path"] = folder
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    (tmp_path / folder).mkdir(exist_ok=True)
    limits = {"max_seq_length": 8, "do_lower_case": True}
    (tmp_path / folder / f"sentence_{kind}_config.json").write_text(json.dumps(limits))
    assert read_pooling(tmp_path) == Pooling(("cls",), max_length=8, lower_case=True)


@pytest.mark.parametrize("length", [-1, "128", 1e30, None, 0])
def test_a_sentence_s_length_that_is_none_is_no_limit(tmp_path, length):
    _sentence_transformer(tmp_path, {}, "Transformer", "Pooling")
    (tmp_path / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": length}))
    assert read_pooling(tmp_path).max_length is None


_PROMPTS = "config_sentence_transformers.json"


@pytest.mark.parametrize(
    ("file", "content", "complaint"),
    [
        ("modules.json", [{"idx": 0, "type": "st.Transformer"}], "is not a list of modules"),
        ("modules.json", {"0": "Transformer"}, "is not a list of modules"),
        ("modules.json", [{"type": "st.Pooling", "path": "../other"}], "is not a list of modules"),
        ("modules.json", None, "is not a list of modules"),
        ("1_Pooling/config.json", [1], "not a JSON object"),
        ("1_Pooling/config.json", {"pooling_mode": [7]}, "pools by 7; known are"),
        ("1_Pooling/config.json", {"pooling_mode": "attention"}, "pools by attention; known are"),
        ("sentence_bert_config.json", "8", "not a JSON object"),
        (_PROMPTS, {"prompts": {"q": 5}, "default_prompt_name": "q"}, "its prompts have no text "),
        (_PROMPTS, {"prompts": {"q": ""}, "default_prompt_name": ["q"]}, "its prompts have no "),
        (_PROMPTS, {"default_prompt_name": "q"}, "its prompts have no text called q"),
    ],
)
def test_sentence_transformers_files_of_an_odd_shape_are_named(tmp_path, file, content, complaint):
    _sentence_transformer(tmp_path, {}, "Transformer", "Pooling")
    (tmp_path / file).write_text(json.dumps(content))
    with pytest.raises(SurgeonError, match=f"{file}: {complaint}"):
        read_pooling(tmp_path)


@pytest.mark.parametrize(
    ("tags", "labels", "written"),
    [
        ("I-PER I-PER B-PER O", "O B-PER I-PER", "B-PER I-PER B-PER O"),  # IOB1
        ("S-PER O B-LOC I-LOC E-LOC", "O B-PER I-PER B-LOC I-LOC", "B-PER O B-LOC I-LOC I-LOC"),
        ("B-PER O B-LOC I-LOC I-LOC", "O B-PER I-PER E-PER S-PER", "S-PER O B-LOC I-LOC E-LOC"),
        ("B-PER I-PER B-PER", "O I-PER", "I-PER I-PER I-PER"),
        ("B-PER I-PER O", "O PER", "PER PER O"),
        ("U-PER O", "O B-PER I-PER L-PER U-PER", "U-PER O"),
    ],
)
def test_entities_are_written_in_the_scheme_of_the_model(tags, labels, written):
    assert " ".join(in_scheme(tags.split(), labels.split())) == written


BIO = ("O", "B-PER", "I-PER")


def _table(folder, name, rows):
    """Write rows in the format of a file's name, and read them."""
    path = folder / name
    if path.suffix == ".jsonl":
        path.write_text("\n".join(map(json.dumps, rows)))
    else:
        delimiter = "," if path.suffix == ".csv" else "\t"
        lines = [rows[0], *(row.values() for row in rows)]
        path.write_text("\n".join(delimiter.join(map(str, line)) for line in lines))
    return read_table(path)


def _read(task, data, labels=(), tokenizer=None, **settings):
    tokenizer = tokenizer or word_tokenizer().backend_tokenizer
    given = Settings(0, 0.15, 4, (0, 1, 2, 3, 4), labels=labels, **settings)
    given = dataclasses.replace(given, columns=Columns(usual=TASKS[task].columns))
    return TASKS[task].read(data, Encoder(tokenizer, 64, None), given)


@pytest.mark.parametrize("name", ["d.csv", "d.tsv", "d.jsonl"])
@pytest.mark.parametrize(
    ("task", "labels", "row", "label"),
    [
        ("classification", ("bad", "good"), {"text": "the day", "label": None}, "good"),
        ("glue/sst2", ("negative", "positive"), {"sentence": "the day", "label": None}, 1),
        ("regression", ("LABEL_0",), {"text": "the day", "label": None}, 2.5),
        ("glue/stsb", ("LABEL_0",), {"sentence1": "the", "sentence2": "day", "label": None}, 5.0),
        ("sts", (), {"text": "the", "text2": "day", "score": None}, 0.0),
        ("token-classification", BIO, {"tokens": "the", "ner_tags": None}, "O"),
        ("question-answering", (), {"question": "a", "context": "the day", "answer": None}, "day"),
    ],
)
def test_minus_one_is_a_missing_label_in_every_task_and_format(
    tmp_path, name, task, labels, row, label
):
    last = list(row)[-1]
    rows = [{**row, last: value} for value in (-1, label, -1, label, label)]
    prepared = _read(task, _table(tmp_path, name, rows), labels)
    assert (len(prepared.examples), prepared.given) == (3, 5)
    nothing = _table(tmp_path, name, [{**row, last: -1.0}] * 3)
    assert _read(task, nothing, labels).examples == ()


def test_minus_one_is_a_number_on_a_scale_below_zero_and_a_label_of_a_model_that_has_it(tmp_path):
    rows = [{"text": "the day", "label": value} for value in (-1, -0.5, 1, "", "-")]
    assert len(_read("regression", _table(tmp_path, "d.csv", rows)).examples) == 3
    rows = [{"text": "the day", "label": value} for value in (-1, 0, 1)]
    prepared = _read("classification", _table(tmp_path, "d.csv", rows), ("-1", "0", "1"))
    assert [example.reference for example in prepared.examples] == [0, 1, 2]


@pytest.mark.parametrize("task", ["regression", "sts"])
def test_a_label_that_must_be_a_number_names_its_row(tmp_path, task):
    for label in ("much", [1]):
        rows = [{"text": "the", "text2": "day", "label": label} for label in (1, label)]
        with pytest.raises(EvaluationError, match=r"row 2: the label .* is not a number, and the"):
            _read(task, _table(tmp_path, "d.jsonl", rows))


def test_both_texts_of_a_pair_are_read(tmp_path):
    row = {"sentence1": "the", "sentence2": "day", "label": 5.0}
    (example,) = _read("glue/stsb", _table(tmp_path, "d.jsonl", [row])).examples
    assert example.ids == tuple(word_tokenizer()("the", "day").input_ids)


def test_words_without_a_label_are_passed_over(tmp_path):
    for tags, labels in ((["O", -100, "B-PER"], BIO), ([0, -100, 1], ("LABEL_0", "LABEL_1"))):
        row = {"tokens": ["the", "day", "the"], "ner_tags": tags}
        data = _table(tmp_path, "d.jsonl", [row])
        (example,) = _read("token-classification", data, labels).examples
        assert (example.positions.tolist(), example.labels.tolist()) == ([1, 3], [0, 1])


def test_a_causal_model_whose_tokenizer_knows_no_places_is_scored_by_its_tokens():
    own = t.ByT5Tokenizer()  # in Python alone
    prepared = _read("clm", Texts("d", ("the day", "a river"), b""), (), text_encoder(own))
    assert [e.ids for e in prepared.examples] == [
        tuple(own(s).input_ids) for s in ("the day", "a river")
    ]
    observed = [[7.0, 1.0, len(e.labels), *e.reference] for e in prepared.examples]
    assert set(TASKS["clm"].scores(np.array(observed), _SETTINGS)) == {"loss", "top1", "perplexity"}


def test_a_column_that_numbers_the_words_is_not_taken_for_the_words(tmp_path):
    lines = "1\tthe\tO\tO\n2\tday\tB-PER\tO\n\n1\tday\tB-PER\tO\n"  # as GermEval has it
    (tmp_path / "d.conll").write_text(lines)
    with pytest.raises(EvaluationError, match="the first column numbers the words"):
        _read("token-classification", read_table(tmp_path / "d.conll"), BIO)
    (tmp_path / "d.conll").write_text(lines.replace("1\t", "").replace("2\t", ""))
    assert len(_read("token-classification", read_table(tmp_path / "d.conll"), BIO).examples) == 2


def test_words_that_are_too_many_are_cut_as_transformers_does(tmp_path):
    rows = [{"tokens": ["the", "day"] * 40, "ner_tags": ["O", "B-PER"] * 40}] * 2
    prepared = _read("token-classification", _table(tmp_path, "d.jsonl", rows), BIO)
    cut = word_tokenizer()(
        rows[0]["tokens"], is_split_into_words=True, truncation=True, max_length=64
    )
    for example in prepared.examples:
        assert example.ids == tuple(cut.input_ids)
        assert example.positions.tolist() == list(range(1, 63))
    assert prepared.truncated == 2


@pytest.mark.parametrize("file", ["tokenizer_config.json", "tokenizer.json"])
def test_texts_are_cut_at_the_end_that_the_files_name_as_transformers_does(tmp_path, file):
    made = word_tokenizer()
    if file == "tokenizer.json":
        made.backend_tokenizer.enable_truncation(512, direction="left")
    made.save_pretrained(tmp_path)
    if file == "tokenizer_config.json":
        edit_json(tmp_path / file, truncation_side="left")
    own, (facts, _) = t.AutoTokenizer.from_pretrained(tmp_path), find_tokenizer(tmp_path, ".", 0)
    texts = ["one day the river runs", ("the day", "a river of the old town")]
    for tokenizer in (read_tokenizer(tmp_path, facts), text_encoder(own)):
        examples = Encoder(tokenizer, 6, 1).encode(texts).examples
        for text, example in zip(texts, examples, strict=True):
            pair = text if isinstance(text, tuple) else (text,)
            assert example.ids == tuple(own(*pair, truncation=True, max_length=6).input_ids)
    assert examples[0].ids[-2] == own.convert_tokens_to_ids("runs")


def test_a_prompt_is_in_lower_case_where_the_texts_are(tmp_path):
    own = t.ByT5Tokenizer()  # which tells the cases apart
    rows = [{"text": "The", "text2": "DAY", "score": 1}]
    pooling = Pooling(prompt="Query: ", lower_case=True)
    data = _table(tmp_path, "d.jsonl", rows)
    (pair,) = _read("sts", data, (), text_encoder(own), pooling=pooling).examples
    assert [own.decode(e.ids[:-1]) for e in pair.sequences] == ["query: the", "query: day"]


def test_tags_of_another_scheme_are_compared_as_entities(tmp_path):
    rows = [{"tokens": ["the", "day", "the"], "ner_tags": ["I-PER", "I-PER", "O"]}]
    (example,) = _read("token-classification", _table(tmp_path, "d.jsonl", rows), BIO).examples
    assert example.labels.tolist() == [1, 2, 0]
    task, logits = TASKS["token-classification"], np.zeros((5, 3))
    for guessed, wrong in (([1, 2, 0], 0), ([2, 2, 0], 0), ([0, 2, 0], 2)):
        logits[:] = 0
        logits[[1, 2, 3], guessed] = 1
        assert task.observe(logits, example)[0] == wrong
    rows[0]["ner_tags"] = ["S-PER", "O", "S-PER"]
    (example,) = _read("token-classification", _table(tmp_path, "d.jsonl", rows), BIO).examples
    assert example.labels.tolist() == [1, 0, 1]


@pytest.mark.parametrize(
    ("tags", "rewritten"),
    [
        ("B-PER I-PER O", False),  # the model's own
        ("B-PER O I-PER", False),
        ("I-PER B-PER O", True),  # IOB1: the second begins behind another
        ("S-PER O O", True),
    ],
)
def test_guesses_are_rewritten_where_the_tags_are(tmp_path, tags, rewritten):
    rows = [{"tokens": ["the", "day", "the"], "ner_tags": tags.split()}]
    (example,) = _read("token-classification", _table(tmp_path, "d.jsonl", rows), BIO).examples
    assert example.reference[1] is rewritten
    guessed, logits = [2, *example.labels[1:]], np.zeros((5, 3))  # I- where B- is right
    logits[[1, 2, 3], guessed] = 1
    assert TASKS["token-classification"].observe(logits, example)[0] == (not rewritten)


def _without_special_tokens():
    tokenizer = word_tokenizer().backend_tokenizer
    tokenizer.post_processor = processors.TemplateProcessing(single="$A", pair="$A $B:1")
    return tokenizer


@pytest.mark.parametrize("special", [True, False])
@pytest.mark.parametrize("empty", ["", " ", "\u200b"])
@pytest.mark.parametrize(
    ("task", "row"),
    [
        ("classification", {"text": "", "label": "LABEL_1"}),
        ("regression", {"text": "", "label": 1.5}),
        ("sts", {"text": "", "text2": "day", "score": 1}),
        ("sts", {"text2": "", "text": "day", "score": 1}),
        ("token-classification", {"tokens": [""], "ner_tags": ["LABEL_1"]}),
        ("question-answering", {"context": "", "question": "day", "answers": ["day"]}),
        ("pairs", {"good": "", "bad": "day"}),
        ("pairs", {"bad": "", "good": "day"}),
    ],
)
def test_a_text_without_a_token_is_left_out_of_every_task(tmp_path, task, row, empty, special):
    name = next(iter(row))
    full = "the day" if isinstance(row[name], str) else ["day"]
    none = empty if isinstance(row[name], str) else [empty]
    rows = [{**row, name: value} for value in (full, none, full)]
    tokenizer = word_tokenizer().backend_tokenizer if special else _without_special_tokens()
    data = _table(tmp_path, "d.jsonl", rows)
    prepared = _read(task, data, ("LABEL_0", "LABEL_1"), tokenizer, head="mlm")
    assert (len(prepared.examples), prepared.given) == (2, 3)


@pytest.mark.parametrize("task", ["mlm", "clm", "rtd", "plm", "denoising", "drift"])
@pytest.mark.parametrize("special", [True, False])
def test_a_line_without_a_token_is_left_out_of_every_task(task, special):
    lines = ("the day is here", "\u200b", "a day")
    tokenizer = word_tokenizer().backend_tokenizer if special else _without_special_tokens()
    settings = {"vocabulary": 800, "decoder_start_id": 3}
    prepared = _read(task, Texts("d", lines, b""), (), tokenizer, **settings)
    assert (len(prepared.examples), prepared.given) == (2, 3)
    if task in ("mlm", "clm"):
        blocks = _read(task, Texts("d", lines[1:], b""), (), tokenizer, block=4, **settings)
        assert [len(example.ids) for example in blocks.examples] == [4 if special else 2]


@pytest.mark.parametrize("text", ["def f(x):\n    return x\n", " the day ", "the", "a\u2003é b"])
def test_bytes_and_words_are_counted_as_lm_eval_does(text):
    tokenizer = _without_special_tokens()
    begin_with(tokenizer, 2)
    prepared = _read("clm", Texts("d", (text, text), b""), (), tokenizer)
    for example in prepared.examples:
        assert example.ids[0] == 2
        assert tuple(example.reference) == (len(text.encode()), len(re.split(r"\s+", text)))
    assert (prepared.unit, prepared.notes) == ("texts", ())


def test_windows_and_blocks_of_a_causal_model_score_each_token_once():
    tokenizer, line = _without_special_tokens(), "the day is here " * 40
    texts = Texts("d", (line, line), b"")
    whole = tokenizer.encode(line).ids
    windows = _read("clm", texts, (), tokenizer)
    assert windows.unit == "windows"
    assert [t for e in windows.examples for t in e.labels.tolist()] == [*whole[1:], *whole[1:]]
    assert "the first token is not scored" in " ".join(windows.notes)
    blocks = _read("clm", texts, (), tokenizer, block=10)
    assert (blocks.unit, {len(e.ids) for e in blocks.examples}) == ("blocks", {10})
    assert [t for e in blocks.examples for t in e.ids] == whole * 2
    begin_with(tokenizer, 2)
    begun = _read("clm", texts, (), tokenizer, block=11)
    assert [t for e in begun.examples for t in e.labels.tolist()] == whole * 2
    size, words = sum(example.reference for example in begun.examples)
    assert (size, words) == (2 * len(line), 2 * len(re.split(r"\s+", line)))
    with pytest.raises(EvaluationError, match="`block` 1: give a number from 2 to 64"):
        _read("clm", texts, (), tokenizer, block=1)
    with pytest.raises(EvaluationError, match=r"`stride` 9: .* `block`"):
        _read("clm", texts, (), tokenizer, block=10, stride=9)


@pytest.mark.parametrize(
    ("form", "cls"),
    [("[CLS] $A [SEP] $B:1 [SEP]:1", 0), ("$A [SEP] $B:1 [SEP]:1 [CLS]:2", -1)],  # BERT's, XLNet's
)
def test_no_answer_is_what_the_cls_token_stands_for_wherever_it_is(tmp_path, form, cls):
    tokenizer = word_tokenizer().backend_tokenizer
    ends = [("[CLS]", 2), ("[SEP]", 3)]
    tokenizer.post_processor = processors.TemplateProcessing("$A", form, ends)
    rows = [{"question": "the", "context": "day", "answers": answers} for answers in ([], ["day"])]
    prepared = _read("question-answering", _table(tmp_path, "d.jsonl", rows), (), tokenizer)
    for example in prepared.examples:
        size = len(example.ids)
        assert example.ids[cls] == 2
        logits = np.zeros((1, 2, size + 3), dtype=np.float32)  # padded
        logits[:, :, range(size)[cls]] = 1
        observe, answers = TASKS["question-answering"].observe, example.reference.answers
        assert observe(logits, example).tolist() == [float(not answers)] * 2
        logits[:, :, example.ids.index(tokenizer.token_to_id("day"))] = 2  # is above that
        assert observe(logits, example).tolist() == [float(bool(answers))] * 2


@pytest.mark.parametrize(
    ("value", "answers"),
    [
        ({"text": ["day"], "answer_start": [4]}, ("day",)),
        ({"text": []}, ()),
        ({"text": "day"}, ("day",)),
        ([{"text": "day"}, "the"], ("day", "the")),
        ("['day', 'the']", ("day", "the")),
        ("[day]", ("[day]",)),  # which is in the context
        ("", ()),
    ],
)
def test_answers_are_read_however_they_are_written(tmp_path, value, answers):
    row = {"question": "the", "context": "the [day]", "answers": value}
    (example,) = _read("question-answering", _table(tmp_path, "d.jsonl", [row])).examples
    assert example.reference.answers == answers


def test_an_answer_ends_behind_its_beginning_and_within_thirty_tokens(tmp_path):
    row = {"question": "a", "context": "the day " * 20, "answer": "the day"}
    (example,) = _read("question-answering", _table(tmp_path, "d.jsonl", [row])).examples
    logits = np.zeros((1, 2, len(example.ids)), dtype=np.float32)
    logits[0, 0, 5] = 9
    logits[0, 1, [4, 6, 35]] = 9, 1, 9  # before it, behind it, and one too far
    assert TASKS["question-answering"].observe(logits, example).tolist() == [1, 1]


def test_a_token_that_a_file_describes_is_known_by_its_content(tmp_path):
    word_tokenizer().save_pretrained(tmp_path)
    edit_json(tmp_path / "tokenizer_config.json", mask_token={"content": "[SEP]"})
    assert find_tokenizer(tmp_path, ".", 0)[0].mask_id == 3


def test_a_question_without_room_for_its_context_is_not_a_text_that_is_too_long(tmp_path):
    tokenizer = BoundedTokenizer(word_tokenizer().backend_tokenizer, "tokenizer.json")
    row = {"question": "the day " * 40, "context": "the day", "answer": "day"}
    with pytest.raises(EvaluationError, match="leaves no room for its context in the 64 tokens"):
        _read("question-answering", _table(tmp_path, "d.jsonl", [row]), (), tokenizer)
    row = {**row, "question": "the", "context": "day " * 300_000}
    with pytest.raises(EvaluationError, match=r"begins with 'the' has 1,200,003 characters"):
        _read("question-answering", _table(tmp_path, "d.jsonl", [row]), (), tokenizer)


def test_a_model_without_a_mask_token_or_a_start_of_its_decoder_is_no_model_to_fill_in_text():
    settings = dataclasses.replace(_SETTINGS, decoder_start_id=3)
    with pytest.raises(EvaluationError, match=r"no mask token, .*; if .*, name it in tokenizer_c"):
        TASKS["denoising"].prepare(_SEQUENCE, dataclasses.replace(settings, mask_id=None))
    with pytest.raises(EvaluationError, match=r"decoder_start_token_id in config\.json and patch"):
        TASKS["denoising"].prepare(_SEQUENCE, _SETTINGS)


def test_pairs_that_are_the_same_to_the_tokenizer_are_left_out(tmp_path):
    rows = [{"good": "the day", "bad": "day the"}, {"good": "The day", "bad": "the  day"}]
    prepared = _read("pairs", _table(tmp_path, "d.csv", rows), head="clm")
    assert (len(prepared.examples), prepared.given, prepared.unit) == (1, 2, "pairs")
    assert "reads both sentences as the same: 1" in prepared.notes[0]


def test_each_label_has_its_own_report():
    settings = Settings(0, 0.0, None, (), labels=("bad", "good", "none"))
    observed = np.array([[0, 1, 0, 0], [0, 0, 1, 0], [1, 0, 1, 0], [1, 0, 1, 0]], dtype=np.float64)
    report = TASKS["classification"].by_label(observed, settings)
    bad = {"precision": 1.0, "recall": 0.5, "F1": pytest.approx(2 / 3), "support": 2}
    assert report["bad"] == bad
    assert report["good"]["precision"] == pytest.approx(2 / 3)
    assert report["none"] == {"precision": 0.0, "recall": 0.0, "F1": 0.0, "support": 0}
