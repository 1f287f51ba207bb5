"""Data: files, columns and labels, and the errors about them."""

import dataclasses
import importlib.util
import json
import os
import sys

import numpy as np
import pytest

from surgeon.errors import EvaluationError
from surgeon.tasks.data import _parts, read_table, read_texts_of
from surgeon.tasks.labels import is_missing, match_labels
from surgeon.tasks.registry import TASKS
from surgeon.tasks.table import Columns, Names, Table, locate, parse_cell
from surgeon.text import Texts, as_texts

ROWS = [{"text": "Good, “really”.", "label": "yes"}, {"text": "Bad\nindeed", "label": "no"}]
LINES = "\n".join(map(json.dumps, ROWS)) + "\n"
CSV = 'text,label\n"Good, “really”.",yes\n"Bad\nindeed",no\n'
ASKED = {"id": "1", "question": "Who?", "answers": [{"text": "She", "answer_start": 0}]}
SQUAD = {"data": [{"title": "t", "paragraphs": [{"context": "She did.", "qas": [ASKED]}]}]}


@pytest.mark.parametrize(
    ("name", "content", "rows"),
    [
        ("d.csv", CSV, ROWS),
        ("d.jsonl", LINES, ROWS),
        ("d.json", json.dumps(ROWS), ROWS),
        ("d.json", LINES, ROWS),  # JSON Lines by another name
        ("d.ndjson", LINES, ROWS),
        ("d.jsonl", LINES.replace("\n", "\n\n"), ROWS),
        ("d.json", json.dumps({"data": ROWS}), ROWS),
        ("d.csv", "text,label\n,\n", [{"text": "", "label": ""}]),
        ("d.tsv", 'text\tlabel\nHe said "no\t1\n', [{"text": 'He said "no', "label": "1"}]),
        ("d.csv", 'text\tlabel\n"No\t1\n', [{"text": '"No', "label": "1"}]),  # STS-B's are such
        ("d.tsv", 'text\tlabel\n"No."\t1\n', [{"text": '"No."', "label": "1"}]),
        ("d.tsv", 'text\tlabel\nGood, “really”.\tyes\n"Bad\nindeed"\tno\n', ROWS),
        ("d.tsv", 'text\tlabel\n"He said ""no"""\t1\n', [{"text": 'He said "no"', "label": "1"}]),
        ("d.tsv", '"text"\t"label"\r\n"He"\t"1"\r\n', [{"text": "He", "label": "1"}]),
        ("d.json", json.dumps(SQUAD), [{**ASKED, "context": "She did."}]),
    ],
)
def test_rows_are_read_from_every_format(tmp_path, name, content, rows):
    (tmp_path / name).write_text(content, encoding="utf-8")
    table = read_table(tmp_path / name)
    assert [dict(row) for row in table.rows] == rows
    assert table.raw == content.encode()


def test_texts_may_come_through_a_pipe_and_not_from_a_device_without_end():
    with pytest.raises(EvaluationError, match="/dev/zero: no such file"):
        read_texts_of("/dev/zero", Columns())
    reading, writing = os.pipe()
    with os.fdopen(writing, "w") as pipe:
        pipe.write("one\ntwo\n")
    assert read_texts_of(f"/dev/fd/{reading}", Columns()).lines == ("one", "two")
    os.close(reading)


@pytest.mark.parametrize("text", ["One text.\nAnother one.", "one " * 99])
def test_a_text_where_a_path_belongs_is_said_to_be_one(text):
    with pytest.raises(
        EvaluationError, match=r"'one .*'… is text and not a path; give a text file"
    ):
        as_texts(text.lower())


def test_parquet_gives_the_same_rows_too(tmp_path):
    parquet, arrow = pytest.importorskip("pyarrow.parquet"), pytest.importorskip("pyarrow")
    parquet.write_table(arrow.Table.from_pylist(ROWS), tmp_path / "d.parquet")
    assert list(read_table(tmp_path / "d.parquet").rows) == ROWS


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("d.xls", b"x", r"rows are read from \.csv"),
        ("d.csv", b"", "no rows"),
        ("d.csv", b"a,b\n1\n", "row 2 has 1 cells and the first has 2; .* in quotation marks"),
        ("d.json", b'{"text": {"0": "a"}}', 'a list of rows, such as .* orient="records"'),
        ("d.csv", b"\xff\xfet\x00", r"not UTF-8 \(byte 0\), UTF-16; .*-f utf-16 -t utf-8 d.csv"),
        ("d.csv", b"\x1f\x8b\x08\x00", r"d\.csv: a binary file; unpack it, or save it as UTF-8"),
        ("d.csv", b'"a', "not a CSV file"),
        ("d.jsonl", b"[1]\n", "row 1 is not an object"),
        ("d.jsonl", b"{", "not a JSONL file .*line 1, column 2"),
        ("d.json", b'{"data": [{"paragraphs": 3}]}', "SQuAD"),
    ],
)
def test_what_is_no_table_is_one_line_with_the_reason(tmp_path, name, content, complaint):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(EvaluationError, match=complaint) as caught:
        read_table(tmp_path / name)
    assert "\n" not in str(caught.value)


def _located(tmp_path, content, columns=None, *, pair=None, label=True):
    (tmp_path / "d.csv").write_text(content)
    found = locate(read_table(tmp_path / "d.csv"), columns or Columns(), pair=pair, label=label)
    return found.text, found.pair, found.label, len(found.table.rows)


def test_columns_are_found_by_their_usual_names_or_as_they_are_named(tmp_path):
    usual = "id,premise,hypothesis,gold_label\n1,a,b,c\n"
    assert _located(tmp_path, usual) == ("premise", "hypothesis", "gold_label", 1)
    named = Columns("x", "y", "z")
    assert _located(tmp_path, "z,y,x\n1,2,3\n", named) == ("x", "y", "z", 1)


def test_a_file_without_a_header_is_read_from_its_first_line(tmp_path):
    assert _located(tmp_path, "A dog.,A cat.,1.5\nB,C,2\n", pair=True) == ("1", "2", "3", 2)
    assert _located(tmp_path, "A dog.,yes\nB,no\n") == ("1", None, "2", 2)
    by_number = Columns("3", None, "1")
    (tmp_path / "d.csv").write_text("review,sentiment\nFine.,yes\n")
    located = locate(read_table(tmp_path / "d.csv"), Columns())
    with pytest.raises(
        EvaluationError, match=r"d\.csv, read without a header \(.*\): the label senti"
    ):
        match_labels(located.labels, (), ("yes", "no"), located.table.name)
    assert _located(tmp_path, "yes,x,A dog.,y\nno,x,B,y\n", by_number) == ("3", None, "1", 2)
    (tmp_path / "d.csv").write_text("Review\nFine.\n")
    assert "d.csv, read without a header" in read_texts_of(str(tmp_path / "d.csv"), Columns()).name


_QNLI = Columns(usual=Names(("question",), ("sentence",), ("label",)))


@pytest.mark.parametrize(
    ("content", "options", "complaint"),
    [
        ("a,b,c,d\n1,2,3,4\n", {"columns": Columns("nope")}, "no column nope; it has a, b, c, d"),
        ("text,b,c,d\n1,2,3,4\n", {}, "no column for the label"),
        ("text,label,c,d\n1,2,3,4\n", {"pair": True}, "no column for the pair"),
        ("text,label\n", {}, "has a header and no rows"),
        ("text,text,label\na,b,c\n", {}, "2 columns are called text; give each a name"),
        ("text,label,label\na,b,c\n", {}, "2 columns are called label"),
        ("text,label,c,d\na,b,c,d\n", {"columns": Columns(pair="nope")}, "no column nope"),
        ("sentence,label,c,d\na,b,c,d\n", {"columns": _QNLI}, "no column for the pair"),
    ],
)
def test_a_table_whose_columns_cannot_be_told_is_refused(tmp_path, content, options, complaint):
    with pytest.raises(EvaluationError, match=complaint):
        _located(tmp_path, content, **options)


@pytest.mark.parametrize(
    ("name", "content", "column", "lines"),
    [
        ("d.csv", CSV, None, ["Good, “really”.", "Bad\nindeed"]),
        ("d.jsonl", LINES, None, ["Good, “really”.", "Bad\nindeed"]),
        ("d.ndjson", LINES, None, ["Good, “really”.", "Bad\nindeed"]),
        ("d.tsv", "text\tlabel\nGood.\tyes\nBad\\nindeed\tno\n", None, ["Good.", "Bad\\nindeed"]),
        ("d.jsonl", '{"text": " a\\n\\tb\\r\\n"}\n{"text": null}\n', None, [" a\n\tb\r\n"]),
        ("d.csv", "note,text\na,One.\nb,Two.\n", "note", ["a", "b"]),
        ("d.txt", "note,text\na,One.\nb,Two.\n", None, ["note,text", "a,One.", "b,Two."]),
        ("d.txt", "\tif x:\n\n        return 1\n", None, ["\tif x:", "        return 1"]),
        ("d.csv", 'One.\n"Two, three."\n', None, ["One.", "Two, three."]),  # of one column
        ("d.csv", "text\nOne; two.\nThree.\n", None, ["One; two.", "Three."]),
        ("d.csv", "One.,yes\nTwo.,no\n", "1", ["One.", "Two."]),
    ],
)
def test_texts_are_lines_or_a_column(tmp_path, name, content, column, lines):
    (tmp_path / name).write_text(content, encoding="utf-8")
    assert list(read_texts_of(str(tmp_path / name), Columns(column)).lines) == lines


def test_texts_in_memory_are_strings_and_one_at_least_is_not_blank():
    assert Texts.of(["One.", " "]).lines == ("One.",)
    wrong = ([], "holds no text"), ([" "], "holds no text"), ([1], "found int")
    table = {"text": ["One."]}
    for texts, complaint in (
        *wrong,
        *((no, "give a list") for no in (1, table, np.array([["One."]]))),
    ):
        with pytest.raises(EvaluationError, match=complaint):
            Texts.of(texts)


@pytest.mark.parametrize("value", [["a", "b"], {"en": "a"}, b"a"])
def test_what_is_no_text_is_not_taken_for_one(value):
    table = Table("d", ({"text": "a"}, {"text": value}), b"")
    with pytest.raises(EvaluationError, match=r"d, row 2: a text is needed, and this is .*: .*a"):
        table.texts("text")


def test_a_csv_file_of_two_columns_without_a_header_needs_the_number_of_one(tmp_path):
    (tmp_path / "d.csv").write_text("One.,yes\nTwo.,no\n")
    with pytest.raises(EvaluationError, match=r"no column for the text.*`text_column`.*number"):
        read_texts_of(str(tmp_path / "d.csv"), Columns())


def test_a_row_without_a_text_is_named_and_one_without_a_label_has_none(tmp_path):
    path = tmp_path / "d.jsonl"
    path.write_text('{"text": "One.", "label": 1}\n{"text": "Two."}\n{"label": 0}\n')
    table = read_table(path)
    assert table.values("label") == [1, None, 0]
    with pytest.raises(EvaluationError, match=r"`texts` d\.jsonl, row 3: no text; give each"):
        table.texts("text")


MNLI = ("entailment", "neutral", "contradiction")


def test_columns_that_nothing_reads_may_have_one_name(tmp_path):
    assert _located(tmp_path, "text,x,x,label\na,b,c,d\n") == ("text", None, "label", 1)
    assert _located(tmp_path, "a,a,b\nc,c,d\n") == ("1", "2", "3", 2)  # no header
    assert _located(tmp_path, "1,a,1\n0,b,0\n", Columns("2", None, "1")) == ("2", None, "1", 2)


def test_a_task_s_own_names_are_no_reason_to_refuse_a_file_without_a_header(tmp_path):
    columns = Columns(usual=Names(("sentence1",), ("sentence2",), ("label",)))
    content = "a man,a boy,2.5\na cat,a dog,1\n"
    assert _located(tmp_path, content, columns) == ("1", "2", "3", 2)
    with pytest.raises(EvaluationError, match="no column sentence1"):
        _located(tmp_path, content, dataclasses.replace(columns, text="sentence1"))
    with pytest.raises(EvaluationError, match="no column for the text, such as sentence1"):
        _located(tmp_path, "a man,2.5\na cat,1\n", columns)  # where pairs are needed


@pytest.mark.parametrize(
    ("values", "classes", "labels", "expected"),
    [
        (["neutral", "entailment"], (), ("CONTRADICTION", "Neutral", "Entailment"), [1, 2]),
        (["not entailment"], (), ("entailment", "not_entailment"), [1]),
        ([0, 2, 1], MNLI, ("contradiction", "entailment", "neutral"), [1, 0, 2]),
        (["1", 0, "LABEL_1"], (), ("LABEL_0", "LABEL_1"), [1, 0, 1]),
        (["contradiction"], MNLI, ("LABEL_0", "LABEL_1", "LABEL_2"), [2]),
        ([True, False], (), ("LABEL_0", "LABEL_1"), [1, 0]),
        ([1, 5], (), ("1", "5"), [0, 1]),  # stars, say: the name of the label is a number
        ([1.0, "5.0"], (), ("1", "5"), [0, 1]),
        (["1.0", 0.0], (), ("LABEL_0", "LABEL_1"), [1, 0]),
        (["a", "A"], (), ("a", "A"), [0, 1]),
        (["cafe\u0301"], (), ("th\u00e9", "caf\u00e9"), [1]),  # accents apart, as macOS has them
    ],
)
def test_labels_are_matched_by_name_and_integers_by_what_they_stand_for(
    values, classes, labels, expected
):
    assert match_labels(values, classes, labels, "data") == expected


@pytest.mark.parametrize(
    ("values", "classes", "labels", "complaint"),
    [
        (["yes", "maybe"], (), ("yes", "no"), "label maybe .*have maybe, yes .*model yes, no"),
        ([0, 1], (), ("negative", "positive"), "label 0 .*model negative, positive"),
        ([2], (), ("LABEL_0", "LABEL_1"), "label 2 "),
        ([1.5], (), ("LABEL_0", "LABEL_1"), "label 1.5 "),
        ([0], MNLI, ("yes", "no"), r"label 0 \(entailment\) "),
        ([-2], MNLI, MNLI, "label -2 "),
        (["a"], (), ("yes", "no"), "use the names in id2label of config.json$"),
        ([f"l{n}" for n in range(99)], (), ("a",), "l15, l16, l17 and 89 more and the model a;"),
        (["long " * 99], (), ("a",), "the data have (long ){8}… and the model"),
        ([["yes"]], (), ("yes", "no"), r"label \['yes'\] is not a name or.*`label_column`"),
    ],
)
def test_a_label_that_the_model_does_not_have_lists_both_sides(values, classes, labels, complaint):
    with pytest.raises(EvaluationError, match=complaint):
        match_labels(values, classes, labels, "data")


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("hf:org/name", ("org/name", None, None)),
        ("hf:org/name:config", ("org/name", "config", None)),
        ("hf:org/name:test", ("org/name", None, "test")),
        ("hf:org/name:validation_matched", ("org/name", None, "validation_matched")),
        ("hf:org/name:mnli:train[:9]", ("org/name", "mnli", "train[:9]")),
        ("hf:org/name:train[5:9]", ("org/name", None, "train[5:9]")),
        ("hf:org/name:mnli:train", ("org/name", "mnli", "train")),
        ("hf:", None),
        ("hf:a:b:c:d", None),
        ("hf:org/name:", None),
    ],
)
def test_a_data_set_of_the_hub_is_named_in_up_to_three_parts(name, parts):
    if parts is None:
        with pytest.raises(EvaluationError, match=r"give hf:org/name\[:config\]\[:split\]"):
            _parts(name)
    else:
        assert _parts(name) == parts


@pytest.mark.parametrize(
    ("source", "module"), [("hf:org/name", "datasets"), ("d.parquet", "pyarrow")]
)
def test_a_package_that_is_missing_is_told_with_what_to_install(
    tmp_path, monkeypatch, source, module
):
    monkeypatch.setitem(sys.modules, module, None)  # as Python has it for what cannot be imported
    monkeypatch.setitem(sys.modules, f"{module}.parquet", None)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "d.parquet").write_bytes(b"PAR1")
    with pytest.raises(EvaluationError, match=r"pip install 'norm-surgeon\[data\]'"):
        read_table(source)


@pytest.mark.skipif(importlib.util.find_spec("datasets") is None, reason="takes the extra data")
def test_a_data_set_in_a_folder_is_read_as_one_of_the_hub(tmp_path):
    (tmp_path / "validation.csv").write_text("text,label\nOne.,yes\nTwo.,no\n")
    table = read_table(f"hf:{tmp_path}")
    assert [dict(row) for row in table.rows] == [
        {"text": "One.", "label": "yes"},
        {"text": "Two.", "label": "no"},
    ]
    with pytest.raises(EvaluationError, match=r"hf:.*nothing.*:config"):
        read_table(f"hf:{tmp_path}/nothing")


SEPARATORS = "\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"  # where str.splitlines would split too


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_end_at_line_feeds_and_carriage_returns_and_nowhere_else(tmp_path, end):
    rows = [{"text": f"a{other}b {number}"} for number, other in enumerate(SEPARATORS)]
    texts = [row["text"] for row in rows]
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    cells = ["text", *texts]
    for name, content in (("d.jsonl", lines), ("d.txt", texts), ("d.csv", cells), ("d.tsv", cells)):
        (tmp_path / name).write_bytes(end.join(content).encode())
        assert list(read_texts_of(str(tmp_path / name), Columns()).lines) == texts, name


def test_a_file_of_text_is_one_document_if_asked(tmp_path):
    path = tmp_path / "d.txt"
    path.write_text("\tif x:\n\n        return 1\n")
    whole = read_texts_of(str(path), Columns(), document=True)
    assert whole.lines == ("\tif x:\n\n        return 1\n",)
    with pytest.raises(EvaluationError, match=r"`document`: `texts` .*d\.jsonl is a table"):
        read_texts_of(str(tmp_path / "d.jsonl"), Columns(), document=True)
    path.write_bytes("caf\xe9\n".encode("latin1"))
    with pytest.raises(
        EvaluationError, match=r"not UTF-8 \(byte 3\).*iconv -f latin1 -t utf-8 d\.t"
    ):
        read_texts_of(str(path), Columns())


@pytest.mark.parametrize("delimiter", [";", "\t", "|"])
def test_a_csv_file_may_have_another_delimiter(tmp_path, delimiter):
    rows = ["text,label", "A film, fine,yes", "Bad; very,no"]
    lines = [delimiter.join(f'"{cell}"' for cell in row.rsplit(",", 1)) for row in rows]
    assert _located(tmp_path, "\n".join(lines)) == ("text", None, "label", 2)
    texts = read_texts_of(str(tmp_path / "d.csv"), Columns()).lines
    assert texts == ("A film, fine", "Bad; very")


WORDS = [["EU", "rejects"], ["Peter", "Blackburn"]]
TAGS = [["B-ORG", "O"], ["B-PER", "I-PER"]]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("d.tsv", "EU NNP B-ORG\nrejects VBZ O\n\nPeter NNP B-PER\nBlackburn NNP I-PER"),
        ("d.tsv", "EU\tB-ORG\nrejects\tO\n\nPeter\tB-PER\nBlackburn\tI-PER\n\n"),
        ("d.txt", "-DOCSTART- O\n\nEU B-ORG\nrejects O\n\nPeter B-PER\nBlackburn I-PER\n"),
        ("d.conll", "EU  x B-ORG \nrejects  x O\n \nPeter  x B-PER\nBlackburn  x I-PER\n"),
        ("d.bio", "# i\nEU\tx\tB-ORG\nrejects\tx\tO\n\n# i\nPeter\tx\tB-PER\nBlackburn\tx\tI-PER"),
    ],
)
def test_blank_lines_part_the_sentences_of_conll_files(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    table = read_table(tmp_path / name).sentences()
    first, *_, last = table.columns
    assert [row[first] for row in table.rows] == WORDS
    assert [row[last] for row in table.rows] == TAGS


def test_a_word_that_begins_with_a_hash_is_no_comment(tmp_path):
    (tmp_path / "d.conll").write_text("#EU B-ORG\nwins O\n\n# number 2\n# O\n")
    words = read_table(tmp_path / "d.conll").sentences().values("1")
    assert words == [["#EU", "wins"], ["#"]]


_OWN = {
    "glue/mrpc": ("Quality|#1 ID|#2 ID|#1 String|#2 String", "#1 String|#2 String|Quality"),
    "glue/stsb": ("index|genre|sentence1|sentence2|score", "sentence1|sentence2|score"),
    "glue/mnli": ("index|sentence1|sentence2|label1|gold_label", "sentence1|sentence2|gold_label"),
    "glue/qqp": ("id|qid1|question1|question2|is_duplicate", "question1|question2|is_duplicate"),
    "glue/cola": ("gj04|1||The sailors rode.", "4||2"),  # without a header
    "glue/sst2": ("Text|Label", "Text||Label"),
    "pairs": ("field|sentence_good|sentence_bad", "sentence_good|sentence_bad"),
    "question-answering": ("question|context|answer", "question|context|answer"),
    "token-classification": ("words|ner", "words||ner"),
}


@pytest.mark.parametrize("task", _OWN)
def test_a_task_s_columns_are_found_under_the_names_of_its_own_files(tmp_path, task):
    header, named = (text.split("|") for text in _OWN[task])
    row = ["gj04", "0", "*", "Sail the."] if task == "glue/cola" else [*"abcde"][: len(header)]
    (tmp_path / "d.tsv").write_text("".join("\t".join(line) + "\n" for line in (header, row)))
    labelled = len(named) == 3
    usual = Columns(usual=TASKS[task].columns)
    pair = None if labelled else True
    found = locate(read_table(tmp_path / "d.tsv"), usual, pair=pair, label=labelled)
    assert [found.text, found.pair, found.label][: len(named)] == [name or None for name in named]


def test_what_integers_stand_for_is_read_with_parquet_files_of_the_hub(tmp_path):
    datasets = pytest.importorskip("datasets")
    names = datasets.ClassLabel(names=["O", "B-PER"])
    features = {
        "tokens": datasets.Sequence(datasets.Value("string")),
        "tags": [names],
        "one": names,
    }
    data = datasets.Dataset.from_dict(
        {"tokens": [["a"]], "tags": [[1]], "one": [0]}, features=datasets.Features(features)
    )
    data.to_parquet(tmp_path / "d.parquet")
    table = read_table(tmp_path / "d.parquet")
    assert table.classes == {"tags": ("O", "B-PER"), "one": ("O", "B-PER")}
    assert table.rows[0]["tags"] == [1]


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        ("{'text': ['a', \"it's\"], 'at': [1]}", {"text": ["a", "it's"], "at": [1]}),
        ('["O", null]', ["O", None]),
        ("['O', None]", ["O", None]),
        ("France", "France"),
        (["a"], ["a"]),
    ],
)
def test_a_list_that_a_cell_spells_out_is_read(cell, value):
    assert parse_cell(cell, "d, row 1") == value


@pytest.mark.parametrize(
    "cell", ["['O' 'B-PER']", "{'text': array(['a'], dtype=object)}", "[0 1]", "["]
)
def test_what_a_cell_does_not_spell_out_is_refused(cell):
    with pytest.raises(
        EvaluationError, match=r"d, row 1: cannot read the list .*JSON Lines or Parq"
    ):
        parse_cell(cell, "d, row 1")


@pytest.mark.parametrize("value", [None, "", "-", -1, "-1", -1.0, "-1.0", -100, float("nan")])
def test_a_missing_label_is_known_in_every_way_of_writing_it(value):
    assert is_missing(value)
    if value in ("-", "-1", -1, -1.0, "-1.0", -100):
        assert not is_missing(value, ("-", "-1", "-100"))  # a label of the model's


@pytest.mark.parametrize("value", [0, "0", "no", "1", 1.5, -2, False, ["a"]])
def test_a_label_is_not_missing(value):
    assert not is_missing(value)


@pytest.mark.parametrize(
    ("labels", "hint"),
    [
        (("NEGATIVE", "POSITIVE"), "name the task: `task` glue/sst2$"),
        (("contradiction", "Neutral", "entailment"), "`task` glue/mnli$"),
        (("not_entailment", "entailment"), "`task` glue/qnli or glue/rte or glue/wnli$"),
        (("joy", "anger"), "use the names in id2label of config.json in place of the numbers$"),
    ],
)
def test_integers_of_named_outputs_name_the_task_that_knows_them(labels, hint):
    with pytest.raises(EvaluationError, match=hint):
        match_labels([0, 1], (), labels, "data")
