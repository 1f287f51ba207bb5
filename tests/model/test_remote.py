import json
import shutil
import time
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import torch
import transformers
from artifacts import flip_bit, run_python
from safetensors.numpy import save_file
from safetensors.torch import load_file
from small_models import BERT_BASE, write_bert_base, write_sparse

from surgeon import open_checkpoint, rank_by_layernorm, read_zscores
from surgeon.errors import CheckpointError
from surgeon.model import remote
from surgeon.model.hub_errors import seconds_asked_for
from surgeon.model.ranges import FRUGAL, QUICK, ByteRange, Meter, runs_of
from surgeon.model.remote import open_remote
from surgeon.ranking import zscores

_INDEX = "model.safetensors.index.json"


@pytest.fixture(scope="module")
def bert_base(tmp_path_factory) -> Path:
    return write_bert_base(tmp_path_factory.mktemp("sparse") / "bert-base")


@pytest.fixture
def small(tmp_path, tiny) -> Path:
    """A copy of a tiny model to break."""
    folder = tmp_path / "small"
    transformers.BertForMaskedLM.from_pretrained(tiny("bert")).save_pretrained(folder)
    return folder


@pytest.fixture
def hub(serving, bert_base, small):
    return serving({"org/bert-base": bert_base, "small": small})


def _norms(file):
    return [name for name in file.tensors if ".output.LayerNorm." in name and "att" not in name]


def test_ranking_bert_base_reads_under_2_mb_concurrently(hub, bert_base):
    hub.delay = 0.02
    checkpoint = open_remote("org/bert-base")
    sites = [site for site in checkpoint.sites if site.role == "output"]
    checkpoint.prefetch(name for site in sites for name in (site.gain, site.bias))
    asked = len(hub.requests)
    ranking = rank_by_layernorm(checkpoint)
    assert len(hub.requests) == asked
    assert ranking.outliers == (308,)
    local = open_checkpoint(bert_base)
    assert ranking.dimensions == rank_by_layernorm(local).dimensions
    assert local.files[0].path.stat().st_size > 430_000_000
    assert hub.sent < 2_000_000
    assert hub.most_in_flight > 1


def test_large_tensors_are_fetched_a_few_layers_at_a_time_and_forgotten(
    hub, small, tiny, monkeypatch
):
    """As if no more than a layer and a half of this GPT-2's output dense layers fitted."""
    for path in tiny("gpt2").iterdir():
        shutil.copy(path, small)
    local = open_checkpoint(small)
    sites = [site for site in local.sites if site.role == "output"]
    layer = sum(local.tensors[name].size * 4 for name in (sites[0].gain, sites[0].bias))
    monkeypatch.setattr(zscores, "_AT_ONCE", layer * 3 // 2)
    monkeypatch.setattr(remote, "_MOST_KEPT", 0)
    model = open_remote("small")
    (file,) = model.files
    held = []
    prefetch = remote.RemoteWeights.prefetch

    def watched(weights, names):
        prefetch(weights, names)
        held.append(sum(map(len, weights._fetched.values())))

    monkeypatch.setattr(remote.RemoteWeights, "prefetch", watched)
    found, expected = read_zscores(model), read_zscores(local)
    np.testing.assert_array_equal(found.gain, expected.gain)
    np.testing.assert_array_equal(found.bias, expected.bias)
    assert max(held) == layer
    assert file._fetched == {}


def test_arrays_are_those_of_the_file_and_every_byte_is_counted(hub, bert_base):
    model = open_remote("org/bert-base")
    (file,) = model.files
    local = open_checkpoint(bert_base).files[0]
    assert file.tensors == local.tensors
    assert list(file.tensors) == list(local.tensors)
    assert model.config == BERT_BASE
    file.prefetch(_norms(file))
    for name in _norms(file):
        np.testing.assert_array_equal(file.read(name), local.read(name), strict=True)
    assert model.meter.received == hub.sent_of_files


def test_near_tensors_come_in_one_request_and_far_ones_do_not(hub):
    (file,) = open_remote("org/bert-base").files
    hub.requests.clear()
    file.prefetch(_norms(file))
    assert len(_norms(file)) == 24
    assert len(_parts(hub)) == 12
    file.prefetch(_norms(file))
    file.read(_norms(file)[0])
    assert len(_parts(hub)) == 12


def test_a_gap_that_is_small_is_read_and_one_that_is_large_is_not(hub, small):
    small_gap, large_gap = 2**14 - 1, 2**14  # of float32: 64 KiB less one number, and 64 KiB
    shapes = {"a": (2,), "gap": (small_gap,), "b": (2,), "wide gap": (large_gap,), "c": (2,)}
    filled = {name: np.arange(2) + n for n, name in enumerate("abc")}
    write_sparse(small / "model.safetensors", shapes, filled)
    (file,) = open_remote("small").files
    hub.requests.clear()
    file.prefetch("cab")
    assert len(_parts(hub)) == 2
    assert [file.read(name).tolist() for name in "abc"] == [[0, 1], [1, 2], [2, 3]]
    assert len(_parts(hub)) == 2


def _parts(hub):
    return [r for r in hub.requests if r.range and r.path.startswith("/cdn/")]


def test_a_tensor_is_read_without_a_prefetch(hub, small):
    model = open_remote("small")
    local = open_checkpoint(small)
    name = "bert.embeddings.word_embeddings.weight"
    np.testing.assert_array_equal(model.read(name), local.read(name), strict=True)


@pytest.mark.parametrize(("tensors", "requests"), [(10, 1), (3000, 2)])
def test_a_header_takes_a_second_request_only_if_it_is_long(hub, small, tensors, requests):
    values = {f"a.tensor.with.a.long.name.{n}": np.float32([n]) for n in range(tensors)}
    save_file(values | {"empty": np.zeros((0, 4), np.float32)}, small / "model.safetensors")
    (file,) = open_remote("small").files
    assert len(file.tensors) == tensors + 1
    assert len(_parts(hub)) == requests
    assert file.read("empty").shape == (0, 4)
    file.prefetch(file.tensors)
    assert [file.read(name)[0] for name in values] == list(range(tensors))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float8_e4m3fn", "int64"])
def test_dtypes_are_those_of_the_file(hub, small, dtype):
    values = np.arange(6).reshape(2, 3).astype(getattr(ml_dtypes, dtype, dtype))
    save_file({"a": values}, small / "model.safetensors")
    (file,) = open_remote("small").files
    if dtype == "int64":
        with pytest.raises(CheckpointError, match=r"stored as I64 .* cannot be edited exactly"):
            file.read("a")
        return
    assert file.read("a").dtype == values.dtype
    np.testing.assert_array_equal(file.read("a"), values)


@pytest.fixture
def sharded(small):
    model = transformers.BertForMaskedLM.from_pretrained(small)
    (small / "model.safetensors").unlink()
    model.save_pretrained(small, max_shard_size="8KB")
    return small


def test_shards_are_read_as_one_model(hub, sharded):
    hub.delay = 0.02
    model = open_remote("small")
    local = open_checkpoint(sharded)
    assert len(local.files) > 2
    assert model.tensors == local.tensors
    model.prefetch(local.tensors)
    asked = len(hub.requests)
    for name in local.tensors:
        np.testing.assert_array_equal(model.read(name), local.read(name), strict=True)
    assert len(hub.requests) == asked
    assert hub.most_in_flight > 1


def _index(change):
    """Change which shard the index gives for each tensor."""

    def act(_hub, folder):
        document = json.loads((folder / _INDEX).read_bytes())
        change(document["weight_map"], sorted(folder.glob("*.safetensors")))
        (folder / _INDEX).write_text(json.dumps(document))

    return act


def _twice(weight_map, shards):
    first, second = shards[:2]
    second.write_bytes(first.read_bytes())
    for name in [name for name, shard in weight_map.items() if shard == second.name]:
        del weight_map[name]
    weight_map["x"] = second.name


def _write(name, content):
    return lambda _hub, folder: (folder / name).write_bytes(content)


def _lengthen(name, size):
    def act(_hub, folder):
        with (folder / name).open("ab") as file:
            file.truncate(size)

    return act


def _list(sizes):
    return lambda hub, _: setattr(hub, "listed", sizes)


def _claim(length):
    def act(_hub, folder):
        path = folder / "model.safetensors"
        path.write_bytes(length.to_bytes(8, "little") + path.read_bytes()[8:])

    return act


_NO_JSON = "not valid JSON|not a JSON object|no weight_map"
_SHARDED = [
    (_index(lambda m, _: m.update(a="../../x")), r"'\.\./\.\./x' is not the name of a file"),
    (_index(lambda m, _: m.update(a="/etc/passwd")), "is not the name of a file"),
    (_index(lambda m, _: m.update(a=7)), "7 is not the name of a file"),
    (_index(lambda m, _: m.update(a="x.safetensors")), "names x.safetensors, which is not there"),
    (_index(lambda m, _: m.update(a=m["cls.predictions.bias"])), "has no a, though"),
    (_index(lambda m, _: m.clear()), "no weight_map"),
    (_index(_twice), "is also in model-00001-of-"),
    *(
        (_write(name, text), _NO_JSON)
        for name in (_INDEX, "config.json")
        for text in (b"{", b"[]", b"[" * 10**5)
    ),
    (_lengthen(_INDEX, 100_000_001), "an index has"),
]
_SMALL = [
    (_lengthen("config.json", 100_000_000), "config.json: .* over 10000000 bytes"),
    (lambda _, folder: (folder / "config.json").unlink(), "config.json: no such file"),
    (lambda _, folder: (folder / "model.safetensors").unlink(), "no weights in it"),
    (lambda hub, _: hub.gated.add("small"), "accept its terms"),
    (_list({"model.safetensors": 12345}), "of 12345: an invalid Content-Range"),
    *((_claim(n), f"claims {n} bytes") for n in (2**60, 2**63, 2**64 - 1, 200_000_000, 10**6)),
    *((_write("model.safetensors", b"\0" * size), "small") for size in (0, 7, 8)),
]


@pytest.mark.parametrize(("change", "complaint"), _SHARDED)
def test_an_index_that_does_not_fit_is_refused(hub, sharded, change, complaint):
    change(hub, sharded)
    _is_refused("small", complaint)


@pytest.mark.parametrize(("change", "complaint"), _SMALL)
def test_what_is_no_model_or_may_not_be_read_is_refused_and_not_read_to_its_end(
    hub, small, change, complaint
):
    change(hub, small)
    _is_refused("small", complaint)
    assert hub.sent < 20_000_000


@pytest.fixture
def pickled(small):
    """The small model beside itself as a pickle, in both formats of torch."""

    def save(*, legacy, change=lambda state: state):
        state = change(load_file(small / "model.safetensors"))
        kept = (small / "model.safetensors").rename(small.parent / "kept.safetensors")
        path = small / "pytorch_model.bin"
        torch.save(state, path, _use_new_zipfile_serialization=not legacy)
        return kept, path

    return save


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("reading", [QUICK, FRUGAL])
def test_a_pickle_is_read_by_ranges_as_safetensors_are(hub, small, pickled, legacy, reading):
    expected = rank_by_layernorm(open_checkpoint(small))
    wide = {"bert.embeddings.word_embeddings.weight": torch.zeros(2**18, 16)}
    _, path = pickled(legacy=legacy, change=lambda state: state | wide)
    hub.listed = {path.name: None}  # a mirror may know no sizes
    model = open_remote("small", reading=reading)
    assert rank_by_layernorm(model).dimensions == expected.dimensions
    assert model.meter.received < 600_000 < path.stat().st_size / 20
    assert len(hub.requests) < 20
    assert {r.range is None for r in hub.requests if r.file == path.name} == {False}


def test_a_storage_that_is_elsewhere_is_noticed_when_it_is_read(hub, pickled):
    kept, path = pickled(legacy=True)
    (file,) = open_remote("small").files
    name = next(name for name in file.tensors if name.endswith("output.LayerNorm.weight"))
    flip_bit(path, file.heads[name].start)
    assert kept.is_file()
    with pytest.raises(CheckpointError, match=r"pytorch_model.bin: a tensor does not lie where"):
        file.read(name)


def test_a_tensor_within_another_one_is_read_with_it(hub, pickled):
    whole = torch.arange(64.0)
    pickled(legacy=False, change=lambda state: state | {"whole": whole, "inner": whole[8:16]})
    (file,) = open_remote("small").files
    file.prefetch(["whole", "inner"])
    assert file.read("whole").tolist() == list(range(64))
    assert file.read("inner").tolist() == list(range(8, 16))


def test_a_scattered_tensor_says_to_download(hub, pickled):
    name = "cls.predictions.transform.dense.weight"
    pickled(legacy=False, change=lambda state: state | {name: state[name].t()})
    (file,) = open_remote("small").files
    with pytest.raises(CheckpointError, match=r"not lie in one piece.*hf download small"):
        file.read(name)


def test_pickles_are_scanned_without_torch(hub, pickled):
    pickled(legacy=True)
    code = "import sys; from surgeon.model.remote import open_remote\n"
    code += "print(len(open_remote('small').files[0].tensors) > 10, 'torch' in sys.modules)"
    assert run_python("-c", code).stdout.split() == ["True", "False"]


@pytest.mark.parametrize(
    ("fault", "complaint"),
    [
        ("no ranges", "sends whole files"),
        ("shifted range", "invalid Content-Range"),
        ("late start", "invalid Content-Range"),
        ("early end", "invalid Content-Range"),
        ("lying size", "invalid Content-Range"),
        ("no numbers", "invalid Content-Range"),
        ("short body", "sent 130972 bytes instead of 131072"),
        ("long body", "sent over 131072 bytes"),
        ("broken body", "cannot be reached"),
    ],
)
def test_a_server_that_cheats_is_refused_and_not_read_to_its_end(hub, waited, fault, complaint):
    hub.fault = fault
    _is_refused("org/bert-base", complaint)
    time.sleep(0.1)  # for the server to count what it got rid of
    assert hub.sent < 30_000_000


def test_a_part_that_cheats_after_an_honest_header_is_refused(hub, waited):
    (file,) = open_remote("org/bert-base").files
    for fault in ("no ranges", "shifted range", "lying size", "short body", "broken body"):
        hub.fault = fault
        with pytest.raises(CheckpointError, match="org/bert-base"):
            file.prefetch(_norms(file))
    hub.fault = None
    file.prefetch(_norms(file))


def test_one_huge_tensor_is_left_to_a_download(hub, small):
    write_sparse(small / "model.safetensors", {"a": (2**28 + 1,)}, {})
    (file,) = open_remote("small").files
    with pytest.raises(CheckpointError, match="too many to read in one part; download"):
        file.read("a")


def test_a_passing_outage_is_waited_for_and_a_lasting_one_is_told(hub, waited):
    hub.status, hub.failing, hub.failures = 503, "/cdn/", 2
    assert open_remote("small").files[0].tensors
    hub.failures = None
    _is_refused("small", "server error 503 of http://localhost")


def test_the_server_s_wait_is_kept_to_and_a_guess_grows(hub, waited):
    hub.status, hub.failures, hub.failing = 429, 2, "/api/"
    hub.headers = {"Retry-After": "7"}
    open_remote("small")
    assert all(7 <= seconds < 9 for seconds in waited)
    hub.headers, hub.failures = {"RateLimit": '"api";r=0;t=55'}, 1
    open_remote("small")
    assert 55 <= waited[2] < 57
    waited.clear()
    hub.headers, hub.status, hub.failures = {}, 503, 5
    open_remote("small", reading=FRUGAL)
    assert len(waited) == 5
    for number, seconds in enumerate(waited):
        assert 0.25 * 2**number <= seconds <= 0.5 * 2**number


def test_a_wait_that_is_too_long_and_a_try_too_many_are_told(hub, waited):
    hub.status, hub.failing = 429, "/cdn/"
    hub.headers = {"Retry-After": "3600"}
    _is_refused("small", "rate limit of http://localhost")
    assert waited == []
    hub.headers = {"Retry-After": "1"}
    _is_refused("small", "rate limit of http://localhost")
    assert len(waited) == 2


@pytest.mark.parametrize(
    ("until", "seconds"),
    [
        ("Wed, 21 Oct 2015 07:29:10 GMT", 70),
        ("Wednesday, 21-Oct-15 07:28:07 GMT", 7),
        ("Wed Oct 21 07:28:07 2015", 7),
        ("Wed, 21 Oct 2015 07:27:00 GMT", 0),
        ("soon", None),
    ],
)
def test_a_wait_until_a_date_counts_from_the_server_s_own(until, seconds):
    now = "Wed, 21 Oct 2015 07:28:00 GMT"
    assert seconds_asked_for({"Retry-After": until, "Date": now}) == seconds


def test_a_frugal_reading_takes_the_header_and_the_norms_and_asks_the_hub_once(hub, bert_base):
    meter = Meter()
    model = open_remote("org/bert-base", reading=FRUGAL, meter=meter)
    (file,) = model.files
    model.prefetch(_norms(file))
    ranking = rank_by_layernorm(model)
    assert ranking.dimensions == rank_by_layernorm(open_checkpoint(bert_base)).dimensions
    header = min(info.start for info in file.tensors.values())
    norms = sum(info.end - info.start for n, info in file.tensors.items() if n in _norms(file))
    configuration = (bert_base / "config.json").stat().st_size
    assert meter.received == model.meter.received == header + norms + configuration
    asked = [r.path for r in hub.requests if "/resolve/" in r.path]
    assert sorted(path.rpartition("/")[2] for path in asked) == ["config.json", "model.safetensors"]


def test_an_address_that_is_good_for_one_request_is_asked_for_again(hub):
    hub.single_use = True
    (file,) = open_remote("small", reading=FRUGAL).files
    file.prefetch(file.tensors)
    assert file.read("cls.predictions.bias").size


def test_small_gaps_are_read_and_larger_ones_are_left_out():
    near = [ByteRange(0, 100), ByteRange(20, 30), ByteRange(109, 209)]
    far = ByteRange(219, 229)
    assert list(runs_of([far, *near], 10)) == [near, [far]]


def test_the_token_goes_to_the_hub_and_not_to_its_cdn(hub, monkeypatch):
    hub.token = "hf_right"
    monkeypatch.setenv("HF_TOKEN", "hf_right")
    (file,) = open_remote("small").files
    file.prefetch(file.tensors)
    sent = {(r.path.startswith("/cdn/"), r.authorization) for r in hub.requests}
    assert sent == {(True, None), (False, "Bearer hf_right")}


def _is_refused(model, complaint):
    with pytest.raises(CheckpointError, match=complaint) as caught:
        open_remote(model)
    assert "\n" not in str(caught.value)
    assert model in str(caught.value)
