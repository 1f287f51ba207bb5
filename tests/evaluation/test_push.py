import dataclasses
import json
import os
import shutil

import pytest
from artifacts import EVALUATION, files_of, flip_bit, patch, run_python
from safetensors.numpy import load_file
from small_models import save_shards

from surgeon import read_evaluation, read_record, save_evaluation, verify
from surgeon.errors import CheckpointError, EvaluationError, OutputError
from surgeon.evaluation.push import push


@pytest.fixture(scope="module")
def made(tiny, tmp_path_factory):
    """A tiny artifact with an evaluation, beside a file whose name is a pattern."""
    source = tmp_path_factory.mktemp("source") / "tiny"
    shutil.copytree(tiny("bert"), source)
    (source / "notes [draft].txt").write_text("patterns are not names")
    output = tmp_path_factory.mktemp("artifact") / "out"
    patch(source, output)
    _evaluate(output, "tiny", [3, 9])
    return output


def _evaluate(artifact, model, dims):
    """Save an evaluation as if it had been of this model and these dims."""
    patched = {**EVALUATION["patched"], "dims": dims}
    dataset = {**EVALUATION["dataset"], "sha256": "0" * 64}
    document = {**EVALUATION, "model": model, "patched": patched, "dataset": dataset}
    (artifact / "surgeon" / "eval.json").write_text(json.dumps(document))
    save_evaluation(read_evaluation(artifact), artifact)


@pytest.fixture
def artifact(made, tmp_path):
    return shutil.copytree(made, tmp_path / "out")


@pytest.fixture
def hub(serving, monkeypatch):
    server = serving({}, xet=False)
    server.token = "hf_right"
    monkeypatch.setenv("HF_TOKEN", "hf_right")
    return server


def _assert_uploaded(hub, files):
    """All files are uploaded as they are, but the card and the record that has its hash."""
    others = [{**of, "README.md": b"", "surgeon/record.json": b""} for of in (hub.uploaded, files)]
    assert others[0] == others[1]
    assert hub.uploaded["README.md"].startswith(files["README.md"])


def _pulled(hub, folder):
    """What was uploaded, as a folder that passes every check."""
    for name, content in hub.uploaded.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    assert verify(folder).passed
    return folder


def test_what_is_uploaded_is_the_artifact_byte_for_byte_beside_the_card(hub, artifact, capfd):
    told, whole = [], files_of(artifact)
    url = push(artifact, "org/patched", progress=lambda *report: told.append(report))
    assert url == f"{hub.url}/org/patched/commit/{'c' * 40}"
    _assert_uploaded(hub, whole)
    assert files_of(artifact) == whole
    own = ("record.json", "eval.json", "evaluations/name-texts-00000000.json")
    own = {f"surgeon/{name}" for name in (*own, "excised.safetensors")}
    assert hub.uploaded.keys() >= {"README.md", "model.safetensors", "notes [draft].txt", *own}
    authorized = {r.authorization for r in hub.requests if not r.path.startswith("/lfs/")}
    assert authorized == {"Bearer hf_right"}
    assert ("uploading to org/patched", 0, 0) in told
    assert capfd.readouterr() == ("", "")


def test_the_card_that_is_uploaded_shows_every_evaluation_and_the_record_has_its_hash(
    hub, artifact, tmp_path
):
    first = read_evaluation(artifact)
    hostile = "x | <img src=//a> [b](http://c) `d` **e**\n# f"
    data = dataclasses.replace(first.dataset, name=hostile, examples=1500, unit="windows")
    other = {"metric": "1 − F1", "mask_rate": 0.15, "options": {"masking": "bert"}, "dataset": data}
    save_evaluation(dataclasses.replace(first, task="mlm", stopped_after=9, **other), artifact)
    push(artifact, "org/patched")
    card = hub.uploaded["README.md"].decode()
    heads, _, *rows = card.partition("\n## Evaluations\n\n")[2].splitlines()
    assert heads.startswith("| task | data | n | verdict | score | change (95% interval) |")
    code = r"``x \| <img src=//a> [b](http://c) `d` **e** # f, sha256 00000000…``"
    verdict = "intact, no worse than random removals"
    for_f1 = "F1 0.5 → 0.5 | -0.1 (-0.2 to +0) | 0.5 to 0.5 | 2 | 0 | 15% bert"
    for_name = "name 0.5 → 0.5 | +0.1 (+0 to +0.2) | 0.5 to 0.5 | 2 | 0 | "
    assert rows == [
        f"| mlm | {code} | 1,500 windows, early stop | {verdict} | {for_f1} |",
        f"| name | texts, sha256 00000000… | 9 texts | {verdict} | {for_name} |",
    ]
    pulled, uploaded = _pulled(hub, tmp_path / "pulled"), dict(hub.uploaded)
    push(pulled, "org/again")
    assert hub.uploaded == uploaded


def test_what_an_eval_left_that_was_killed_is_not_uploaded(hub, artifact):
    whole = files_of(artifact)
    for name in ("eval.partial.npz", ".eval.json.0123456789abcdef.surgeon-staging"):
        (artifact / "surgeon" / name).touch()
    assert push(artifact, "org/patched")
    _assert_uploaded(hub, whole)


def test_pushing_again_adds_to_the_same_repository(hub, artifact):
    assert push(artifact, "org/patched") == push(artifact, "org/patched", private=True)


def test_a_name_without_an_organization_goes_to_whose_token_it_is(hub, artifact):
    assert push(artifact, "patched") == f"{hub.url}/somebody/patched/commit/{'c' * 40}"
    _assert_uploaded(hub, files_of(artifact))


def test_evaluations_of_what_was_there_before_do_not_stay(hub, artifact, tmp_path):
    before = shutil.copytree(artifact, hub.repositories.setdefault("org/patched", tmp_path / "was"))
    (before / "notes.txt").write_text("mine")
    (before / "surgeon" / "notes.txt").write_text("mine")
    older = "surgeon/evaluations/mlm-00000000.json"
    (before / older).write_text("{}")
    (artifact / "surgeon" / "eval.json").unlink()
    shutil.rmtree(artifact / "surgeon" / "evaluations")
    push(artifact, "org/patched", unverified=True)
    assert older in hub.deleted
    assert hub.deleted == files_of(before).keys() - files_of(artifact).keys() - {
        "notes.txt", "surgeon/notes.txt"
    }  # fmt: skip


def test_weights_that_loaders_would_take_first_are_not_left_beside(hub, tiny, tmp_path):
    whole = shutil.copytree(tiny("bert"), tmp_path / "whole")
    sharded = shutil.copytree(whole, tmp_path / "sharded")
    save_shards(load_file(sharded / "model.safetensors"), sharded)
    (sharded / "model.safetensors").unlink()
    patch(sharded, tmp_path / "out")
    hub.repositories["org/patched"] = whole
    with pytest.raises(OutputError, match=r"org/patched: has model\.safetensors, which loaders"):
        push(tmp_path / "out", "org/patched", unverified=True)
    assert hub.uploaded == {}


def test_the_pipeline_of_xet_uploads_small_files_too(hub, artifact, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", False)
    hub.large_uploads = False
    assert push(artifact, "org/patched").startswith(f"{hub.url}/org/patched/commit/")
    _assert_uploaded(hub, files_of(artifact))


def test_an_artifact_that_was_never_evaluated_needs_to_be_asked_for(hub, artifact):
    (artifact / "surgeon" / "eval.json").unlink()
    shutil.rmtree(artifact / "surgeon" / "evaluations")
    _is_refused(artifact, "never evaluated.*`onnx=False`.*`unverified=True`", hub)
    push(artifact, "org/patched", unverified=True)
    _assert_uploaded(hub, files_of(artifact))
    assert hub.uploaded["README.md"].endswith(b"None: what the edit does was not measured.\n")


@pytest.mark.parametrize(("model", "dims"), [("other", [3, 9]), ("tiny", [3])])
@pytest.mark.parametrize("unverified", [False, True])
def test_an_evaluation_of_something_else_is_refused(hub, artifact, model, dims, unverified):
    _evaluate(artifact, model, dims)
    _is_refused(artifact, "is about another edit", hub, unverified=unverified)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"model": 1, "patched": 2}'])
def test_a_damaged_evaluation_is_refused(hub, artifact, text):
    (artifact / "surgeon" / "eval.json").write_text(text)
    _is_refused(artifact, "eval.json: damaged", hub)


def _lie_about_a_path(artifact):
    # A record is untrusted: what it names outside of the artifact is not even opened.
    record = read_record(artifact)
    files = {**record.files, "../outside": record.files["config.json"]}
    shutil.copy(artifact / "config.json", artifact.parent / "outside")
    content = dataclasses.replace(record, files=files).to_bytes()
    (artifact / "surgeon" / "record.json").write_bytes(content)


_CHANGED = {
    "a changed byte": (lambda a: flip_bit(a / "model.safetensors"), "safetensors: changed since"),
    "an edited card": (lambda a: (a / "README.md").write_text("mine"), "README.md: changed since"),
    "a missing file": (lambda a: (a / "config.json").unlink(), "config.json is missing"),
    "a further file": (lambda a: (a / ".env").write_text("KEY=1"), r"\.env: not made by surgeon"),
    "a link": (lambda a: (a / "surgeon" / "x").symlink_to("/etc/passwd"), "x: a link"),
    "a linked folder": (lambda a: (a / "onnx").symlink_to(a.parent), "onnx: a link"),
    "a path outside": (_lie_about_a_path, r"\.\./outside is missing"),
}


@pytest.mark.parametrize("case", _CHANGED)
def test_an_artifact_that_is_not_as_surgeon_made_it_is_refused(hub, artifact, case):
    change, complaint = _CHANGED[case]
    change(artifact)
    _is_refused(artifact, complaint, hub)
    _is_refused(artifact, complaint, hub, unverified=True)


def test_what_is_no_artifact_is_refused(hub, tiny):
    with pytest.raises(CheckpointError, match="it is no artifact"):
        push(tiny("bert"), "org/patched")
    assert hub.requests == []


@pytest.mark.parametrize("repo_id", ["a/b/c", "../x", "", "a b"])
def test_what_is_no_name_of_a_repository_is_refused(hub, artifact, repo_id):
    with pytest.raises(OutputError, match="no name of a repository"):
        push(artifact, repo_id)
    assert hub.requests == []


@pytest.fixture
def of_a_folder(tiny, tmp_path):
    """An artifact of a directory whose name is no Hub id."""
    source = shutil.copytree(tiny("bert"), tmp_path / "my model")
    output = tmp_path / "of a folder"
    patch(source, output, dims=(3,))
    return output


def test_a_base_model_that_the_hub_does_not_take_is_refused_before_anything_is_made(
    hub, of_a_folder
):
    with pytest.raises(OutputError, match=r"'my model' as its base model.*`base_model` ORG/NAME"):
        push(of_a_folder, "org/patched", unverified=True)
    with pytest.raises(OutputError, match="`base_model` my model: no Hub id"):
        push(of_a_folder, "org/patched", unverified=True, base_model="my model")
    assert hub.requests == []


def test_a_header_that_the_hub_refuses_is_told_before_anything_is_made(hub, artifact):
    hub.card_errors = ("license is not valid", "tags must be an array")
    with pytest.raises(OutputError, match=r"README.md: the Hub does not take its header: lic"):
        push(artifact, "org/patched")
    assert "org/patched" not in hub.repositories


def test_a_base_model_that_is_named_is_in_the_card_and_the_record_that_are_uploaded(
    hub, of_a_folder, tmp_path
):
    before = files_of(of_a_folder)
    page = "https://huggingface.co/google-bert/bert-base-uncased"
    push(of_a_folder, " org/patched/ ", unverified=True, base_model=page)
    assert files_of(of_a_folder) == before
    assert b"base_model: google-bert/bert-base-uncased\n" in hub.uploaded["README.md"]
    changed = {name for name, content in hub.uploaded.items() if content != before[name]}
    assert changed == {"README.md", "surgeon/record.json"}
    _pulled(hub, tmp_path / "pulled")


@pytest.mark.parametrize("outage", ["offline", "refused"])
def test_a_push_without_a_network_says_nothing_of_files(hub, artifact, monkeypatch, capfd, outage):
    if outage == "offline":
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        _fails_in_one_line(artifact, "org/patched: HF_HUB_OFFLINE is set; unset it", capfd)
    else:
        monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
        _fails_in_one_line(artifact, "org/patched: http://127.0.0.1:9 cannot be reached", capfd)


def test_a_private_artifact_does_not_go_where_others_see_it(hub, artifact):
    hub.public = True
    push(artifact, "org/patched")
    hub.uploaded.clear()
    with pytest.raises(OutputError, match="org/patched: exists and is public"):
        push(artifact, "org/patched", private=True)
    assert hub.uploaded == {}


@pytest.mark.parametrize(
    ("token", "complaint"),
    [
        (None, "does not let you write.*HF_TOKEN"),
        ("hf_wrong", "does not accept the token .Invalid credentials"),
    ],
)
def test_who_may_not_write_is_told_so_in_one_line(
    hub, artifact, monkeypatch, capfd, token, complaint
):
    monkeypatch.delenv("HF_TOKEN")
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    _fails_in_one_line(artifact, complaint, capfd)


@pytest.mark.parametrize("failing", ["/api/repos/create", "/org/patched.git", "/lfs/", "/api/mod"])
def test_a_hub_that_fails_on_the_way_is_one_line(hub, artifact, capfd, failing):
    hub.status, hub.failing = 418, failing
    _fails_in_one_line(artifact, "418", capfd)


def test_what_is_no_hub_is_one_line(hub, artifact, capfd):
    hub.status, hub.failing = 200, "/api/repos/create"
    _fails_in_one_line(artifact, "does not answer like the Hub", capfd)


def _fails_in_one_line(artifact, complaint, capfd):
    with pytest.raises(CheckpointError, match=complaint) as caught:
        push(artifact, "org/patched")
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def _is_refused(artifact, complaint, hub, *, unverified=False):
    with pytest.raises((OutputError, EvaluationError), match=complaint) as caught:
        push(artifact, "org/patched", unverified=unverified)
    assert "\n" not in str(caught.value)
    assert hub.requests == []
    assert hub.uploaded == {}


def test_in_a_process_of_its_own_the_environment_rules(hub, artifact):
    code = "import sys; from pathlib import Path; from surgeon.evaluation.push import push\n"
    code += "print(push(Path(sys.argv[1]), 'org/patched', private=True))"
    kept = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    settings = dict.fromkeys(("HF_HUB_DISABLE_XET", "HF_HUB_DISABLE_TELEMETRY"), "1")
    settings |= {"HF_ENDPOINT": hub.url, "HF_TOKEN": "hf_right"}
    done = run_python("-c", code, artifact, env=kept | settings)
    assert done.stdout.split() == [f"{hub.url}/org/patched/commit/{'c' * 40}"]
    assert done.stderr == ""
    _assert_uploaded(hub, files_of(artifact))
    (created,) = [r for r in hub.requests if r.path == "/api/repos/create"]
    assert json.loads(created.body)["visibility"] == "private"
