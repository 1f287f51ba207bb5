import functools
import shutil

import pytest
import torch
from artifacts import edit_tensors, stored_tensors
from families import EVERY, FAMILIES, KIN, MIXTURES, ODD, save_family, save_family_in_shards

from surgeon import Recipe, make_plan, open_checkpoint, rank_by_layernorm, write_artifact
from surgeon.edit.changes import kinds_of

DIMS = [3, 9]
OTHER = [4]
_SAVE = {"whole": save_family, "shards": save_family_in_shards}


def _with_stream(stream, *tables):
    """Each family of the tables that has such a stream."""
    names = [name for table in tables for name, row in table.items() if row.stream == stream]
    return pytest.mark.parametrize("name", names)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Save a family's tiny model in a layout, once."""

    @functools.cache
    def save(name, layout="whole"):
        folder = tmp_path_factory.mktemp("family") / "model"
        _SAVE[layout](name, folder)
        return folder

    return save


@pytest.fixture(scope="module")
def patched(saved, tmp_path_factory):
    """Patch a family's tiny model once: the plan and the artifact."""

    @functools.cache
    def patch(name, layout="whole", sites=("output",)):
        output = tmp_path_factory.mktemp("artifact") / "out"
        checkpoint = open_checkpoint(saved(name, layout))
        # The layers of Mamba are one block each.
        there = tuple(role for role in sites if role in {s.role for s in checkpoint.sites})
        plan = make_plan(checkpoint, Recipe(dims=tuple(DIMS), sites=there))
        write_artifact(plan, output, onnx=False)
        return plan, output

    return patch


@functools.cache
def _load(name, folder):
    return EVERY[name].model.from_pretrained(folder).eval()


def _run(name, model, watched):
    """Run a model and return the first input and output of each watched module's every call."""
    calls = []

    def note(_module, positional, named, output):
        entering = positional[0] if positional else named["hidden_states"]
        leaving = output[0] if isinstance(output, tuple | list) else output
        calls.append((entering, leaving.clone()))  # Falcon adds to it in place

    hooks = [module.register_forward_hook(note, with_kwargs=True) for module in watched]
    with torch.no_grad():
        model(**EVERY[name].inputs)
    for hook in hooks:
        hook.remove()
    return calls


def _blocks(name, model):
    classes = EVERY[name].block.split()
    return [module for module in model.modules() if type(module).__name__ in classes]


def _first_layers(name, model):
    lists = [m for m in model.modules() if isinstance(m, torch.nn.ModuleList) and len(m)]
    blocks = _blocks(name, model)
    return [layers[0] for layers in lists if any(layers[0] is block for block in blocks)]


def _modules_of(tensors, folder, loaded):
    """The modules of a loaded model that hold tensors of the file, known by their values."""
    stored = stored_tensors(folder)
    modules = []
    for tensor in tensors:
        holders = [
            module
            for module in loaded.modules()
            for parameter in module.parameters(recurse=False)
            if parameter.shape == stored[tensor].shape and torch.equal(parameter, stored[tensor])
        ]
        assert len(holders) == 1, tensor
        modules += holders
    return modules


@pytest.mark.parametrize("name", [*FAMILIES, *ODD, *KIN])
def test_transformers_sees_exactly_the_planned_entries_changed(saved, patched, name):
    plan, output = patched(name)
    stored = stored_tensors(saved(name))
    waiting = {edit.tensor: edit for edit in plan.edits}
    before = _load(name, saved(name)).state_dict()
    after = _load(name, output).state_dict()
    assert before.keys() == after.keys()
    for key, old in before.items():
        # A loaded tensor may have another name than in the file, and has its values.
        same = [t for t in waiting if stored[t].shape == old.shape and torch.equal(stored[t], old)]
        expected = old.clone()
        if same:
            edit = waiting.pop(same[0])
            zero = -EVERY[name].offset if edit.param == "gain" else 0
            expected.index_fill_(edit.axis, torch.tensor(DIMS), zero)
            assert not torch.equal(expected, old)
        assert torch.equal(after[key], expected), key
    assert not waiting


@pytest.mark.parametrize("name", [*FAMILIES, *ODD])
def test_shards_get_the_values_that_one_file_gets(patched, name):
    plan, output = patched(name, "shards")
    assert len(plan.checkpoint.files) > 1
    whole, shards = stored_tensors(patched(name)[1]), stored_tensors(output)
    assert whole.keys() == shards.keys()
    assert all(torch.equal(tensor, shards[key]) for key, tensor in whole.items())


@pytest.mark.parametrize("layout", _SAVE)
@pytest.mark.parametrize("name", MIXTURES)
def test_of_a_mixture_exactly_the_planned_entries_change(saved, patched, name, layout):
    """In its files, since transformers merges its experts."""
    plan, output = patched(name, layout, ("output", "attention"))
    edits = {edit.tensor: edit for edit in plan.edits}
    before, after = stored_tensors(saved(name, layout)), stored_tensors(output)
    assert before.keys() == after.keys() >= edits.keys()
    for key, old in before.items():
        expected = old.clone()
        if edit := edits.get(key):
            expected.index_fill_(edit.axis, torch.tensor(DIMS), 0)
            assert not torch.equal(expected, old)
        assert torch.equal(after[key], expected), key
    layers = sum(MIXTURES[name].stacks.values())
    assert plan.checkpoint.layers == rank_by_layernorm(plan.checkpoint).layers == layers


def _calls(name):
    return EVERY[name].calls or sum(EVERY[name].stacks.values())


@_with_stream("post", FAMILIES, KIN)
def test_the_stream_is_zero_at_the_dims_after_each_post_norm_layer(patched, name):
    _, output = patched(name)
    model = _load(name, output)
    calls = _run(name, model, _blocks(name, model))
    assert len(calls) == _calls(name)
    for _, leaving in calls:
        assert (leaving[..., DIMS] == 0).all()
        assert (leaving[..., OTHER] != 0).any()


@_with_stream("pre", FAMILIES, KIN, {"gemma3n_text": ODD["gemma3n_text"]})
def test_the_last_operation_of_each_pre_norm_layer_adds_zero_at_the_dims(patched, name):
    plan, output = patched(name)
    model = _load(name, output)
    gains = [edit.tensor for edit in plan.edits if edit.param == "gain"]
    calls = _run(name, model, _modules_of(gains, output, model))
    assert len(calls) == _calls(name)
    for _, added in calls:
        assert (added[..., DIMS] == 0).all()
        assert (added[..., OTHER] != 0).any()


@_with_stream("pre", FAMILIES, KIN, MIXTURES)
def test_output_and_attention_sites_are_all_that_writes_to_a_pre_norm_stream(patched, name):
    _, output = patched(name, sites=("output", "attention"))
    model = _load(name, output)
    calls = _run(name, model, _blocks(name, model))
    assert len(calls) == _calls(name)
    for entering, leaving in calls:
        assert torch.equal(leaving[..., DIMS], entering[..., DIMS])
        assert not torch.equal(leaving[..., OTHER], entering[..., OTHER])


def test_gemma_3n_gives_what_it_gives_without_the_dims_of_its_feed_forward_blocks(saved, patched):
    name = "gemma3n_text"
    whole = EVERY[name].model.from_pretrained(saved(name)).eval()
    zeroed = _load(name, patched(name)[1])
    with torch.no_grad():
        before, wanted = whole(**EVERY[name].inputs).logits, zeroed(**EVERY[name].inputs).logits
        for layer in whole.model.layers:
            layer.post_feedforward_layernorm.register_forward_hook(
                lambda _module, _entering, out: out.index_fill(-1, torch.tensor(DIMS), 0)
            )
        assert torch.equal(whole(**EVERY[name].inputs).logits, wanted)
    assert not torch.allclose(before, wanted, atol=1e-3)


@_with_stream("post", FAMILIES)
def test_output_and_attention_sites_are_all_the_norms_of_a_post_norm_layer(saved, name):
    model = _load(name, saved(name))
    norms = {
        id(module)
        for block in _blocks(name, model)
        for module in block.modules()
        if type(module).__name__.endswith("LayerNorm")
    }
    sites = [s for s in open_checkpoint(saved(name)).sites if s.role in ("output", "attention")]
    assert set(map(id, _modules_of([s.gain for s in sites], saved(name), model))) == norms


@pytest.mark.parametrize(
    ("name", "stacks"),
    [
        *((name, 1) for name in ("bert", "roberta", "xlm-roberta", "camembert", "mpnet")),
        *((name, 1) for name in ("distilbert", "deberta", "deberta-v2, as v3", "wav2vec2")),
        *((name, 1) for name in ("bloom", "modernbert", "clip_vision_model")),
        ("bart", 2),
        ("mbart", 2),
    ],
)
def test_the_embeddings_site_is_the_last_operation_before_the_first_layer(patched, name, stacks):
    _, output = patched(name, sites=("embeddings",))
    model = _load(name, output)
    first = _run(name, model, _first_layers(name, model))
    assert len(first) == len(FAMILIES[name].stacks)
    zeroed = [entering for entering, _ in first if (entering[..., DIMS] == 0).all()]
    assert len(zeroed) == stacks
    assert all((entering[..., OTHER] != 0).any() for entering in zeroed)


@_with_stream("pre", FAMILIES)
def test_the_final_site_takes_what_the_last_layer_of_each_stack_gives(saved, name):
    model = _load(name, saved(name))
    sites = [site for site in open_checkpoint(saved(name)).sites if site.role == "final"]
    assert len(sites) == len(FAMILIES[name].stacks)
    final = _modules_of([site.gain for site in sites], saved(name), model)
    layers = _run(name, model, _blocks(name, model))
    given = [out for _, out in layers if not any(torch.equal(out, into) for into, _ in layers)]
    assert len(given) == len(sites)
    given += [leaving[:, 0] for leaving in given]  # a vision tower normalises one token
    taken = [entering for entering, _ in _run(name, model, final)]
    assert len(taken) == len(sites)
    for entering in taken:
        assert any(torch.equal(entering, leaving) for leaving in given)


@pytest.mark.parametrize("layout", _SAVE)
def test_after_deberta_v2_s_convolution_too_the_stream_is_zero(patched, layout):
    name = "deberta-v2, with a convolution"
    plan, output = patched(name, layout)
    assert [edit.tensor for edit in plan.edits if edit.layer == 0] == [
        "deberta.encoder.conv.LayerNorm.weight",
        "deberta.encoder.conv.LayerNorm.bias",
    ]
    _check_states(name, output)


@pytest.mark.parametrize("name", ["squeezebert", "xlm", "flaubert"])
def test_the_stream_is_zero_after_each_layer_that_is_called_as_no_module(patched, name):
    _check_states(name, patched(name)[1])


def _check_states(name, folder):
    with torch.no_grad():
        states = _load(name, folder)(**EVERY[name].inputs, output_hidden_states=True).hidden_states
    assert len(states) == 3
    for state in states[1:]:
        assert (state[..., DIMS] == 0).all()
        assert (state[..., OTHER] != 0).any()


@pytest.mark.parametrize("name", ["clip", "clip, two widths", "siglip", "siglip2"])
def test_of_two_towers_that_of_text_is_edited_and_the_scan_says_so(saved, name):
    checkpoint = open_checkpoint(saved(name))
    assert {site.stack for site in checkpoint.sites} == {"text"}
    assert checkpoint.hidden_size == 16
    assert rank_by_layernorm(checkpoint).evidence == (
        "weight norm and bias of the output dense layer (text), "
        "not vision, which has dimensions of its own"
    )


@pytest.mark.parametrize(
    ("name", "evidence", "criterion"),
    [
        ("bert", "gain and bias of the output LayerNorm", "both beyond 3σ"),
        ("bart", "gain and bias of the output LayerNorm (encoder and decoder)", "both beyond 3σ"),
        ("gemma2", "gain of the output RMSNorm", "beyond 3σ"),
        ("llama", "weight norm of the output dense layer", "beyond 3σ"),
        ("gpt_neo", "weight norm and bias of the output dense layer", "both beyond 3σ"),
    ],
)
def test_a_scan_says_what_it_looked_at(saved, name, evidence, criterion):
    ranking = rank_by_layernorm(open_checkpoint(saved(name)))
    assert ranking.evidence == evidence
    assert ranking.criterion.startswith(criterion)


def test_a_scan_counts_the_decoder_s_layers_after_the_encoder_s(saved, tmp_path):
    names = [f"model.decoder.layers.1.final_layer_norm.{leaf}" for leaf in ("weight", "bias")]
    ranking = rank_by_layernorm(_with_40(saved("bart"), tmp_path, names, 5))
    assert ranking.layers == 4
    assert {d.dim: d.layers for d in ranking.dimensions if d.layers} == {5: (3,)}


def test_the_gain_alone_flags_a_dimension_of_an_rmsnorm(saved, tmp_path):
    names = [f"model.layers.{layer}.post_feedforward_layernorm.weight" for layer in range(2)]
    ranking = rank_by_layernorm(_with_40(saved("gemma2"), tmp_path, names, 7))
    assert ranking.outliers == (7,)


def test_albert_counts_its_shared_layer_once(saved):
    assert rank_by_layernorm(open_checkpoint(saved("albert"))).layers == 1


def test_layers_are_chosen_within_each_stack(saved):
    plan = make_plan(open_checkpoint(saved("bart")), Recipe(dims=(3,), layers=(1,)))
    assert {(edit.stack, edit.layer) for edit in plan.edits} == {("encoder", 1), ("decoder", 1)}
    assert kinds_of(plan.edits) == "decoder output layernorm, encoder output layernorm"


def _with_40(source, folder, names, dim):
    """A copy of a model with 40 at a dimension of these vectors."""
    shutil.copytree(source, folder, dirs_exist_ok=True)
    edit_tensors(folder, lambda tensors: [tensors[name][dim].fill_(40) for name in names])
    return open_checkpoint(folder)
