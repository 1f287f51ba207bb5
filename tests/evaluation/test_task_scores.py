"""Each task's score is what PyTorch, scikit-learn and scipy make of the same examples."""

import csv
import functools
import itertools
import json
import math
import re
import shutil
from collections import Counter

import numpy as np
import pytest
import torch
import transformers
from antibodies import antibodies
from artifacts import edit_json, patch, record_files, texts_of
from scipy import stats
from sklearn import metrics
from task_models import MODELS, each, save_model, word_tokenizer
from tiny import BART, T5, make_unequal

from surgeon import TaskOptions, evaluate
from surgeon.errors import EvaluationError
from surgeon.evaluation import fill_ins as fill_ins_module
from surgeon.evaluation.artifact import open_artifact
from surgeon.evaluation.runner import open_runner
from surgeon.evaluation.workload import prepare
from surgeon.tasks.data import read_table
from surgeon.tasks.registry import EvaluationSettings
from surgeon.tasks.task import BASELINE, observe
from surgeon.text import built_in_sample

LINES = sorted(built_in_sample().lines, key=len)[:24]
NAMES = ("entailment", "neutral", "contradiction")
_ANTIBERTY = pytest.param("antiberty", marks=pytest.mark.slow)
_BLOCKS = {"masking": "bert", "block": 50, "mask_rate": 0.3}
LOSS, METRIC = {"abs": 1e-4}, {"abs": 1e-6}


@pytest.fixture(scope="module")
def made(tmp_path_factory, patched_once):
    """Give (PyTorch's model, artifact) of a name in MODELS, each made once."""
    folder = tmp_path_factory.mktemp("tasks")

    @functools.cache
    def make(name):
        source = save_model(name, folder / name)
        return MODELS[name][0].from_pretrained(source).eval(), patched_once(source, 3, 8)

    return make


@pytest.fixture(scope="module")
def tokenizer():
    return word_tokenizer()


def _rows(folder, rows):
    path = folder / "data.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def _examples(artifact, texts, **options):
    return prepare(open_artifact(artifact), EvaluationSettings(**options), texts).examples


def _cross_entropy(logits, example):
    """Return the summed loss at an example's positions, and the number of right guesses."""
    scored = logits.double()[torch.tensor(example.positions)]
    labels = torch.tensor(example.labels)
    loss = torch.nn.functional.cross_entropy(scored, labels, reduction="sum")
    return loss.item(), (scored.argmax(1) == labels).sum().item()


@torch.no_grad()
@pytest.mark.parametrize("options", [{}, pytest.param(_BLOCKS, marks=pytest.mark.slow)])
def test_masked_loss_of_texts_and_in_blocks_with_bert_s_masking(
    antiberty, antiberty_patched, options
):
    texts = texts_of(antibodies(4))
    result = evaluate(antiberty_patched, texts=texts, options=TaskOptions(**options), controls=1)
    model = transformers.AutoModelForMaskedLM.from_pretrained(antiberty).eval()
    examples = _examples(antiberty_patched, texts, **options)
    pairs = [_cross_entropy(model(torch.tensor([e.ids])).logits[0], e) for e in examples]
    tokens = sum(e.labels.size for e in examples)
    assert result.dataset.scored_tokens == tokens
    assert result.baseline.value == pytest.approx(sum(a for a, _ in pairs) / tokens, **LOSS)
    assert result.baseline.others["top1"] == pytest.approx(sum(b for _, b in pairs) / tokens)
    if not options:
        return
    assert result.options == {**options, "document": False}
    whole = transformers.AutoTokenizer.from_pretrained(antiberty)
    stream = [t for line in texts.lines for t in whole(line, add_special_tokens=False).input_ids]
    original = []
    for example in examples:
        ids = np.array(example.ids)
        assert len(ids) == 50 or example is examples[-1]
        assert (ids[0], ids[-1]) == (whole.cls_token_id, whole.sep_token_id)
        ids[example.positions] = example.labels
        original += ids[1:-1].tolist()
    assert original == stream


@torch.no_grad()
def test_causal_loss_of_long_texts_with_a_stride(iglm_s, iglm_s_patched):
    length, stride = open_artifact(iglm_s_patched).facts.max_length, 100
    lines = [" ".join(antibodies(9)), *antibodies(2)]
    options = TaskOptions(stride=stride)
    result = evaluate(iglm_s_patched, texts=texts_of(lines), options=options, controls=1)
    model = transformers.AutoModelForCausalLM.from_pretrained(iglm_s).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(iglm_s)
    loss = count = size = 0
    for line in lines:  # the loop of the documentation of transformers
        ids, previous = tokenizer(line, return_tensors="pt").input_ids, 0
        for begin in range(0, ids.shape[1], stride):
            end = min(begin + length, ids.shape[1])
            labels = ids[:, begin:end].clone()
            labels[:, : previous - begin] = -100
            number = (labels[0, 1:] != -100).sum().item()
            mean = model(ids[:, begin:end], labels=labels).loss.item()
            loss, count, previous = loss + mean * number, count + number, end
            if end == ids.shape[1]:
                break
        size += len(line.encode()) - len(tokenizer.decode(ids[0, :1], skip_special_tokens=True))
    assert max(len(tokenizer(line).input_ids) for line in lines) > length
    assert result.dataset.scored_tokens == count
    assert result.dataset.truncated == 0
    assert result.baseline.value == pytest.approx(loss / count, **LOSS)
    bits = loss / math.log(2) / size
    assert result.baseline.others["bits per byte"] == pytest.approx(bits, **LOSS)


@torch.no_grad()
def test_causal_loss_of_texts_with_newlines_after_a_bos_token(iglm_s, iglm_s_patched, tmp_path):
    artifact = shutil.copytree(iglm_s_patched, tmp_path / "artifact")
    rows = [{"text": line.replace(" ", "\n", 3)} for line in antibodies(3)]
    data, options = _rows(tmp_path, rows), TaskOptions(bos=True)
    with pytest.raises(EvaluationError, match="`bos`: takes a causal model whose tokenizer names"):
        evaluate(artifact, texts=data, options=options, controls=1)
    edit_json(artifact / "tokenizer_config.json", bos_token="[CLS]")
    record_files(artifact)
    result = evaluate(artifact, texts=data, options=options, controls=1)
    model = transformers.AutoModelForCausalLM.from_pretrained(iglm_s).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(iglm_s)
    losses = [_log_probability(model, tokenizer, row["text"], special=False) for row in rows]
    tokens = sum(len(tokenizer(r["text"], add_special_tokens=False).input_ids) for r in rows)
    words = sum(len(re.split(r"\s+", row["text"])) for row in rows)
    assert result.dataset.scored_tokens == tokens
    assert result.baseline.value == pytest.approx(-sum(losses) / tokens, **LOSS)
    word_perplexity = math.exp(-sum(losses) / words)
    assert result.baseline.others["word perplexity"] == pytest.approx(word_perplexity, rel=1e-4)
    size = sum(len(row["text"].encode()) for row in rows)
    bits = -sum(losses) / size / math.log(2)
    assert result.baseline.others["bits per byte"] == pytest.approx(bits, **LOSS)


def _log_probability(model, tokenizer, text, *, special=True):
    """Return that of a text after [CLS], with the tokenizer's [SEP] behind it or not."""
    ids = [tokenizer.cls_token_id, *tokenizer(text, add_special_tokens=False).input_ids]
    ids = torch.tensor([[*ids, *([tokenizer.sep_token_id] if special else [])]])
    return -model(ids, labels=ids).loss.double().item() * (ids.shape[1] - 1)


def _pseudo_log_likelihood(model, tokenizer, text):
    """Return the sum over a text's tokens, each hidden alone (Salazar et al. 2020)."""
    ids, total = tokenizer(text, return_tensors="pt").input_ids, 0.0
    for place in range(1, ids.shape[1] - 1):
        hidden = ids.clone()
        hidden[0, place] = tokenizer.mask_token_id
        logits = model(hidden).logits[0, place].double()
        total += logits.log_softmax(0)[ids[0, place]].item()
    return total


@torch.no_grad()
@pytest.mark.parametrize("name", ["iglm_s", _ANTIBERTY])
def test_minimal_pairs(request, tmp_path, name):
    loader, score = {
        "iglm_s": (transformers.AutoModelForCausalLM, _log_probability),
        "antiberty": (transformers.AutoModelForMaskedLM, _pseudo_log_likelihood),
    }[name]
    source, artifact = (request.getfixturevalue(n) for n in (name, f"{name}_patched"))
    goods = [line[:18] for line in antibodies(4)]
    bads = [f"{good[:8]}{good[8:12][::-1]}{good[12:]}" for good in goods]
    rows = [
        {"UID": "swap", "sentence_good": a, "sentence_bad": b}
        for a, b in zip((*goods[:2], *bads[2:]), (*bads[:2], *goods[2:]), strict=True)
    ]
    artifact = shutil.copytree(artifact, tmp_path / "artifact")
    result = evaluate(artifact, texts=_rows(tmp_path, rows), task="pairs", controls=1)
    model = loader.from_pretrained(source).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(source)
    margins = [
        score(model, tokenizer, row["sentence_good"]) - score(model, tokenizer, row["sentence_bad"])
        for row in rows
    ]
    assert (result.dataset.examples, result.dataset.unit) == (4, "pairs")
    assert result.baseline.value == pytest.approx(np.mean([margin <= 0 for margin in margins]))
    assert result.baseline.others["log-odds"] == pytest.approx(np.mean(margins), abs=1e-3)
    opened = open_artifact(artifact)
    work = prepare(opened, EvaluationSettings(task="pairs"), read_table(tmp_path / "data.jsonl"))
    runner = open_runner(opened, work.task, "cpu", 3)  # fewer than a pair has in the masked model
    kept = observe(runner, BASELINE, work.examples)
    np.testing.assert_allclose(kept[:, 0] - kept[:, 1], margins, atol=1e-3)


@torch.no_grad()
def test_replaced_token_detection(made):
    model, artifact = made("rtd")
    result = evaluate(artifact, texts=texts_of(LINES), controls=1)
    loss, labels, guesses = 0, [], []
    for example in _examples(artifact, texts_of(LINES)):
        ids, expected = torch.tensor([example.ids]), torch.tensor(example.labels)[None]
        output = model(ids, labels=expected)
        loss += output.loss.item() * len(example.ids)
        labels += example.labels.tolist()
        guesses += (output.logits[0] > 0).long().tolist()
    assert result.task == "rtd"
    assert result.baseline.value == pytest.approx(loss / len(labels), **LOSS)
    others = result.baseline.others
    assert others["accuracy"] == pytest.approx(metrics.accuracy_score(labels, guesses), **METRIC)
    assert others["F1"] == pytest.approx(metrics.f1_score(labels, guesses), **METRIC)


@pytest.mark.slow
@torch.no_grad()
def test_permuted_tokens(made):
    model, artifact = made("plm")
    result = evaluate(artifact, texts=texts_of(LINES), controls=1)
    loss = tokens = 0
    for example in _examples(artifact, texts_of(LINES)):
        places = torch.tensor(example.places)
        hidden = ((places > 0) & (places >= places[:, None])).float()[None]  # (token, other)
        asked = places.nonzero()[:, 0].tolist()
        mapping = torch.nn.functional.one_hot(torch.tensor(asked), len(places)).float()[None]
        ids = torch.tensor([example.ids])
        logits = model(ids, perm_mask=hidden, target_mapping=mapping).logits[0]
        labels = ids[0, asked]
        loss += torch.nn.functional.cross_entropy(logits, labels, reduction="sum").item()
        tokens += len(asked)
    assert result.baseline.value == pytest.approx(loss / tokens, **LOSS)
    assert result.baseline.others["perplexity"] == pytest.approx(np.exp(loss / tokens), rel=1e-3)


@pytest.mark.slow
@torch.no_grad()
def test_text_infilling(made, tokenizer):
    model, artifact = made("denoising")
    result = evaluate(artifact, texts=texts_of(LINES), controls=1)
    loss = tokens = 0
    examples = _examples(artifact, texts_of(LINES))
    for example, line in zip(examples, LINES, strict=True):
        labels = tokenizer(line, return_tensors="pt").input_ids
        mean = model(input_ids=torch.tensor([example.ids]), labels=labels).loss.item()
        loss, tokens = loss + mean * labels.numel(), tokens + labels.numel()
    assert result.dataset.scored_tokens == tokens
    assert result.baseline.value == pytest.approx(loss / tokens, **LOSS)


@pytest.mark.slow
@torch.no_grad()
def test_t5_s_spans_are_scored_with_its_sentinels(tmp_path, json_of):
    tokenizer = word_tokenizer()
    sentinels = [f"<extra_id_{number}>" for number in range(20)]
    tokenizer.add_special_tokens({"additional_special_tokens": sentinels})
    tokenizer.mask_token = None
    config = transformers.T5Config(**T5 | {"vocab_size": 840}, decoder_start_token_id=0)
    model = make_unequal(transformers.T5ForConditionalGeneration, config, seed=1, by=0.3).eval()
    for made in (model, tokenizer):
        made.save_pretrained(tmp_path / "t5")
    artifact = tmp_path / "out"
    patch(tmp_path / "t5", artifact, dims=(3, 8), onnx=True)
    result = evaluate(artifact, texts=texts_of(LINES), controls=1)
    assert (result.task, result.fill_ins) == ("denoising", ())
    losses, labels = [], []
    for example in _examples(artifact, texts_of(LINES)):
        assert set(example.ids) & set(tokenizer.convert_tokens_to_ids(sentinels))
        labels.append(torch.tensor(example.labels)[None])
        inputs = torch.tensor([example.ids])
        losses.append(model(input_ids=inputs, labels=labels[-1]).loss * labels[-1].numel())
    tokens = sum(map(torch.numel, labels))
    assert result.dataset.scored_tokens == tokens
    assert result.baseline.value == pytest.approx(sum(losses).item() / tokens, **LOSS)
    ranked = json_of("scan", tmp_path / "t5", "--method", "ablation", "--top", "1")
    assert ranked["measured"]["task"] == "denoising"


@pytest.mark.slow
@torch.no_grad()
def test_an_encoder_decoder_that_hides_no_token_is_scored_on_sources_and_targets(
    tmp_path, done, json_of, refused
):
    source, artifact, tokenizer = tmp_path / "marian", tmp_path / "out", word_tokenizer()
    tokenizer.mask_token = None
    sizes = {**BART, "vocab_size": len(tokenizer), "pad_token_id": 0, "eos_token_id": 3}
    config = transformers.MarianConfig(**sizes, decoder_start_token_id=0, forced_eos_token_id=None)
    make_unequal(transformers.MarianMTModel, config, seed=1, by=0.3).save_pretrained(source)
    tokenizer.save_pretrained(source)
    model = transformers.MarianMTModel.from_pretrained(source).eval()  # its positions are computed
    needed = "labelled rows, with columns such as source and target"
    told = done("patch", source, "--dims", "3,8", "-o", artifact).out
    assert f"Next: surgeon eval {artifact} --data FILE, of {needed}" in told
    refused("eval", artifact, says=f"seq2seq takes {needed}")
    pairs = list(itertools.pairwise(LINES))
    data = _rows(tmp_path, [{"source": a, "target": b} for a, b in pairs])
    result = json_of("eval", artifact, "--data", data, "--controls", "1")
    loss = tokens = 0
    for pair in pairs:
        first, labels = (tokenizer(text, return_tensors="pt").input_ids for text in pair)
        mean = model(input_ids=first, labels=labels).loss.item()
        loss, tokens = loss + mean * labels.numel(), tokens + labels.numel()
    assert (result["task"], result["dataset"]["unit"]) == ("seq2seq", "pairs")
    assert result["dataset"]["scored_tokens"] == tokens
    assert result["baseline"]["value"] == pytest.approx(loss / tokens, **LOSS)


@torch.no_grad()
def test_classes_are_found_by_name_in_any_order(made, tokenizer, tmp_path):
    model, artifact = made("classification")
    rows = [
        {"premise": a, "hypothesis": b, "label": n % 3}  # of GLUE's order: entailment first
        for n, (a, b) in enumerate(itertools.pairwise(LINES))
    ]
    result = evaluate(artifact, texts=_rows(tmp_path, rows), task="glue/mnli", controls=1)
    named = [{**row, "label": NAMES[row["label"]]} for row in rows]
    again = evaluate(artifact, texts=_rows(tmp_path, named), controls=1)
    expected, guesses, loss = [], [], 0
    for row in rows:
        inputs = tokenizer(row["premise"], row["hypothesis"], truncation=True, max_length=64)
        logits = model(**inputs.convert_to_tensors("pt", prepend_batch_axis=True)).logits[0]
        names = [model.config.id2label[n].lower() for n in range(3)]
        expected.append(NAMES[row["label"]])
        guesses.append(names[logits.argmax()])
        loss -= logits.double().log_softmax(0)[names.index(expected[-1])].item()
    wrong = 1 - metrics.accuracy_score(expected, guesses)
    assert 0 < wrong < 1
    for one in (result, again):
        assert one.metric == "error rate"
        assert one.baseline.value == pytest.approx(wrong, **METRIC)
        assert one.baseline.others["accuracy"] == pytest.approx(1 - wrong, **METRIC)
        assert one.baseline.others["log-loss"] == pytest.approx(loss / len(rows), **LOSS)
    others = again.baseline.others
    f1 = metrics.f1_score(expected, guesses, average="macro")
    assert others["F1 (macro)"] == pytest.approx(f1, **METRIC)
    matthews = metrics.matthews_corrcoef(expected, guesses)
    assert others["Matthews"] == pytest.approx(matthews, **METRIC)
    reports = metrics.classification_report(expected, guesses, output_dict=True)
    assert [report.label for report in again.labels] == list(model.config.id2label.values())
    for report in again.labels:
        known = reports[report.label.lower()]
        assert report.support == known["support"]
        for ours, theirs in (("precision", "precision"), ("recall", "recall"), ("F1", "f1-score")):
            assert report.baseline[ours] == pytest.approx(known[theirs], **METRIC)


@pytest.mark.slow
def test_blanks_of_an_encoder_decoder_are_whole_words(made, tokenizer):
    model, artifact = made("denoising")
    result = evaluate(artifact, texts=texts_of(LINES), controls=1)
    assert 1 <= len(result.fill_ins) <= 5
    words = set(" ".join(LINES).lower().replace(",", " ").replace(".", " ").split())
    for blank in result.fill_ins:
        assert blank.expected in words
        ids = tokenizer(blank.text.replace("____", "[MASK]"), return_tensors="pt").input_ids
        whole = tokenizer(blank.text.replace("____", blank.expected), return_tensors="pt").input_ids
        place = (ids[0] == tokenizer.mask_token_id).nonzero().item()
        decoder = torch.cat([torch.tensor([[3]]), whole[:, :-1]], dim=1)
        with torch.no_grad():
            logits = model(input_ids=ids, decoder_input_ids=decoder).logits[0, place]
        assert whole[0, place] == tokenizer.convert_tokens_to_ids(blank.expected)
        guess = tokenizer.decode([int(logits.argmax())]).removeprefix("##")
        assert guess == blank.baseline
    long = evaluate(artifact, texts=texts_of(LINES), controls=1, options=TaskOptions(block=6))
    assert long.fill_ins == ()
    assert "no block has a length to be read" in " ".join(long.warnings)


def test_a_word_is_told_by_how_it_is_written(tokenizer):
    backend = tokenizer.backend_tokenizer
    ids = backend.encode("the zq . the the").ids  # zq is no word of the vocabulary: z ##q
    pieces = [backend.id_to_token(token) for token in ids]
    whole = [fill_ins_module._is_word(backend, ids[n - 1 : n + 2]) for n in range(1, len(ids) - 1)]
    assert pieces[1:-1] == ["the", "z", "##q", ".", "the", "the"]
    assert whole == [True, False, False, False, True, True]


def test_rows_without_a_label_are_counted_and_told(made, tmp_path):
    _, artifact = made("classification")
    rows = [{"text": f"text {n}", "label": "neutral" if n > 1 else ""} for n in range(6)]
    result = evaluate(artifact, texts=_rows(tmp_path, rows), controls=1)
    assert (result.dataset.examples, result.dataset.skipped) == (4, 2)
    assert "2 of 6 texts or rows were left out" in " ".join(result.warnings)
    assert {"scipy", "tokenizers", "numpy", "onnxruntime"} <= set(result.versions)
    for few, complaint in (
        (rows[2:3], "only one example, and an interval takes 2; give two or more"),
        (rows[:3], "only one of 3 gives an example"),
        (rows[:2], "none of 2 rows has a label"),
    ):
        with pytest.raises(EvaluationError, match=complaint):
            evaluate(artifact, texts=_rows(tmp_path, few), controls=1)
    with pytest.raises(EvaluationError, match="`task` drift: takes a model exported without a he"):
        evaluate(artifact, texts=texts_of(["a", "b"]), task="drift")


def test_columns_that_are_not_scored_do_not_make_unknown_texts_known(made, tmp_path):
    _, artifact = made("classification")
    rows = [{"text": "\u65e5\u672c", "label": "neutral", "note": line} for line in LINES]
    with pytest.raises(EvaluationError, match=r"48 of 96 tokens of data\.jsonl are unknown to t"):
        evaluate(artifact, texts=_rows(tmp_path, rows), controls=1)


@pytest.mark.parametrize(
    ("name", "wanted"), [("rtd", "texts are needed, and"), ("classification", "labelled rows are")]
)
def test_rows_are_not_taken_for_texts_nor_texts_for_rows(made, tmp_path, name, wanted):
    table = read_table(_rows(tmp_path, [{"text": "the day"}, {"text": "a day"}]))
    with pytest.raises(EvaluationError, match=f"`texts` .*: {wanted}"):
        _examples(made(name)[1], table if name == "rtd" else texts_of(LINES))


def test_too_few_blocks_are_named_as_such(made):
    _, artifact = made("rtd")
    for line, complaint in (
        ("the day", "only one example, .* give more text, or a `block` below 16"),
        ("\x07", "none of 2 texts has tokens"),
    ):
        with pytest.raises(EvaluationError, match=complaint):
            evaluate(artifact, texts=texts_of([line] * 2), options=TaskOptions(block=16))


@torch.no_grad()
def test_one_output_is_a_regression(made, tokenizer, tmp_path):
    model, artifact = made("regression")
    rows = [{"text": line, "label": n % 5 + 0.5} for n, line in enumerate(LINES)]
    result = evaluate(artifact, texts=_rows(tmp_path, rows), controls=1)
    guesses = [model(**tokenizer(line, return_tensors="pt")).logits.item() for line in LINES]
    expected = [row["label"] for row in rows]
    error = metrics.mean_squared_error(expected, guesses)
    assert result.metric == "squared error"
    assert result.baseline.value == pytest.approx(error, **LOSS)
    pearson, spearman = stats.pearsonr(expected, guesses), stats.spearmanr(expected, guesses)
    assert result.baseline.others["Pearson"] == pytest.approx(pearson.statistic, abs=1e-5)
    assert result.baseline.others["Spearman"] == pytest.approx(spearman.statistic, **METRIC)


@pytest.mark.slow
def test_sentence_similarity_is_that_of_sentence_transformers(minilm, minilm_patched, tmp_path):
    from sentence_transformers import SentenceTransformer

    rng = np.random.default_rng(0)
    lines = built_in_sample().lines[:40]
    pairs = list(zip(lines, lines[5:], strict=False))
    scores = [round(float(rng.uniform(0, 5)), 2) for _ in pairs]
    path = tmp_path / "pairs.csv"  # as STS-B comes: without a header
    rows = [[*pair, score] for pair, score in zip(pairs, scores, strict=True)]
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    result = evaluate(minilm_patched, texts=path, task="sts", controls=1)
    for source, score in ((minilm, result.baseline), (minilm_patched, result.patched)):
        model = SentenceTransformer(str(source), device="cpu")
        sides = zip(*pairs, strict=True)
        first, second = (model.encode([*side]).astype(np.float64) for side in sides)
        cosines = (first * second).sum(1)  # its last module normalises
        spearman = stats.spearmanr(cosines, scores).statistic
        assert score.value == pytest.approx(1 - spearman, **METRIC)
        pearson = stats.pearsonr(cosines, scores).statistic
        assert score.others["Pearson"] == pytest.approx(pearson, abs=1e-5)
    assert result.ci95[0] <= result.delta <= result.ci95[1]


@torch.no_grad()
def test_labels_of_words(made, tokenizer, tmp_path):
    model, artifact = made("token-classification")
    names = [model.config.id2label[n] for n in range(4)]
    rng = np.random.default_rng(0)
    rows = [
        {"tokens": words, "tags": [names[n] for n in rng.integers(4, size=len(words))]}
        for words in map(str.split, LINES)
    ]
    options = TaskOptions(label_column="tags")
    result = evaluate(artifact, texts=_rows(tmp_path, rows), options=options, controls=1)
    expected, guesses, right, found, there = [], [], 0, 0, 0
    for row in rows:
        inputs = tokenizer(row["tokens"], is_split_into_words=True, return_tensors="pt")
        logits, words = model(**inputs).logits[0], inputs.word_ids()
        first = [words.index(n) for n in range(len(row["tokens"]))]
        got = [names[n] for n in logits[first].argmax(1).tolist()]
        expected, guesses = expected + row["tags"], guesses + got
        spans = [_bio(labels) for labels in (got, row["tags"])]
        right, found = right + len(spans[0] & spans[1]), found + len(spans[0])
        there += len(spans[1])
    wrong = 1 - metrics.accuracy_score(expected, guesses)
    assert result.dataset.scored_tokens == len(expected)
    assert result.baseline.value == pytest.approx(wrong, **METRIC)
    assert right > 0
    assert result.baseline.others["precision"] == pytest.approx(right / found, **METRIC)
    assert result.baseline.others["F1"] == pytest.approx(2 * right / (found + there), **METRIC)


def _bio(labels):
    """Return the entities of BIO labels, by asking of each stretch whether it is one."""
    marks = [(label[:1], label[2:]) for label in (*labels, "O")]
    spans = set()
    for start in range(len(labels)):
        mark, kind = marks[start]
        before = marks[start - 1] if start else ("O", "")
        if mark == "B" or (mark == "I" and before[1] != kind):
            end = start + 1
            while marks[end] == ("I", kind):
                end += 1
            spans.add((kind, start, end))
    return spans


@torch.no_grad()
def test_answers_to_questions(made, tokenizer, tmp_path):
    model, artifact = made("question-answering")
    context = " ".join(built_in_sample().lines[:8])
    questions = [f"What did {line.split()[1]} do?" for line in LINES[:12]]
    words = context.split()
    answers = [" ".join(words[n * len(words) // 12 :][:25]) for n in range(12)]
    tree = [
        {"question": question, "id": str(n), "answers": [{"text": answers[n], "answer_start": 0}]}
        for n, question in enumerate(questions)
    ]
    path = tmp_path / "squad.json"
    path.write_text(json.dumps({"data": [{"paragraphs": [{"context": context, "qas": tree}]}]}))
    result = evaluate(artifact, texts=path, controls=1)
    overlaps = []
    for question, expected in zip(questions, answers, strict=True):
        best = (-np.inf, "")
        inputs = tokenizer(
            question, context, truncation="only_second", max_length=64, stride=16,
            return_overflowing_tokens=True, return_offsets_mapping=True,
        )  # fmt: skip
        assert len(inputs.input_ids) > 2
        for window, ids in enumerate(inputs.input_ids):
            types = torch.tensor([inputs.token_type_ids[window]])
            output = model(torch.tensor([ids]), token_type_ids=types)
            starts, ends = output.start_logits[0].tolist(), output.end_logits[0].tolist()
            inside = [n for n, part in enumerate(inputs.sequence_ids(window)) if part == 1]
            for first in inside:
                for last in [n for n in inside if first <= n < first + 30]:
                    offsets = inputs.offset_mapping[window]
                    text = context[offsets[first][0] : offsets[last][1]]
                    best = max(best, (starts[first] + ends[last], text))
        overlaps.append(_overlap(best[1], expected))
    assert 0 < np.mean(overlaps) < 1
    assert result.baseline.value == pytest.approx(1 - np.mean(overlaps), **METRIC)
    assert result.baseline.others["F1"] == pytest.approx(np.mean(overlaps), **METRIC)


def _overlap(answer, expected):
    def words(text):
        kept = "".join(c for c in text.lower() if c.isalnum() or c.isspace())
        return Counter(w for w in kept.split() if w not in ("a", "an", "the"))

    first, second = words(answer), words(expected)
    return 2 * (first & second).total() / (first.total() + second.total())


@pytest.mark.parametrize(
    "name",
    ["minilm", _ANTIBERTY, "iglm_s", *each("rtd", "plm", "denoising", "classification")],
)
def test_batch_size_and_order_leave_every_example_s_score_as_it_is(made, request, tmp_path, name):
    artifact = made(name)[1] if name in MODELS else request.getfixturevalue(f"{name}_patched")
    rows = [{"text": line, "label": NAMES[n % 3]} for n, line in enumerate(LINES)]
    data = texts_of(antibodies(3) if name in ("antiberty", "iglm_s") else LINES)
    data = read_table(_rows(tmp_path, rows)) if name == "classification" else data
    opened = open_artifact(artifact)
    work = prepare(opened, EvaluationSettings(), data)
    expected = observe(open_runner(opened, work.task, "cpu", 1), BASELINE, work.examples)
    for batch_size in (2, 8, 64, None):
        runner = open_runner(opened, work.task, "cpu", batch_size)
        backward = observe(runner, BASELINE, work.examples[::-1])[::-1]
        np.testing.assert_allclose(backward, expected, atol=1e-5, rtol=1e-5)
