"""A model in memory: ranked, and edited for as long as a block runs."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import transformers
from artifacts import patch
from families import EVERY, save_family
from safetensors.torch import load_file
from tiny import BART, DISTIL, LLAMA, T5
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed.fsdp import FullyShardedDataParallel
from transformers import AutoConfig, AutoModel, AutoTokenizer

import surgeon
from surgeon.errors import CheckpointError, EvaluationError, ExportError, SelectionError
from surgeon.text import Texts, built_in_sample


@pytest.fixture(params=["bert", "gpt2"])
def folder(request, tiny):
    return tiny(request.param)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_model_without_dimensions_has_the_weights_of_an_artifact(folder, dtype, tmp_path):
    model = AutoModel.from_pretrained(folder, dtype=dtype)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.save_pretrained(tmp_path / "source")
    patch(tmp_path / "source", tmp_path / "out", dims=(3, 9), mode="mean")
    wanted = load_file(tmp_path / "out" / "model.safetensors")
    with surgeon.removed(model, dims=[3, 9], mode="mean") as plan:
        assert plan.dims == (3, 9)
        now = model.state_dict()
        assert all(torch.equal(now[name], wanted[name]) for name in wanted)
        assert any(not torch.equal(now[name], before[name]) for name in wanted)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_a_model_that_moves_within_the_block_gets_its_weights_back_where_it_is(tiny):
    model = AutoModel.from_pretrained(tiny("bert"))
    wanted = {name: tensor.half() for name, tensor in model.state_dict().items()}
    with surgeon.removed(model, dims=[3]):
        model.half()
        norm = model.encoder.layer[0].output.LayerNorm
        norm.weight = torch.nn.Parameter(norm.weight.detach().clone())
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in model.state_dict().items())


def test_blocks_that_overlap_end_in_any_order(tiny):
    model = AutoModel.from_pretrained(tiny("bert"))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    gain = model.encoder.layer[0].output.LayerNorm.weight
    old = gain.detach().clone()
    ways = ({"dims": [4, 5], "mode": "scale", "factor": 0.5}, {"dims": [3, 4]}, {"dims": [4]})
    first, second, third = (surgeon.removed(model, **way) for way in ways)
    for block in (first, second, third):
        block.__enter__()
    for block, left in ((second, 0 * old), (third, old / 2), (first, old)):
        block.__exit__(None, None, None)
        assert gain[3] == old[3]
        assert gain[4] == left[4]
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_a_state_of_copies_and_narrow_or_inferring_weights_are_edited_all_the_same(tiny):
    with torch.inference_mode():
        model = AutoModel.from_pretrained(tiny("bert")).to(torch.float8_e4m3fn)
    bits = model.encoder.layer[0].output.LayerNorm.weight.data.view(torch.uint8)
    before, state = bits.clone(), model.state_dict
    model.state_dict = lambda **how: {name: t.clone() for name, t in state(**how).items()}
    with surgeon.removed(model, dims=[3]):
        assert bits[3] == 0
    assert torch.equal(bits, before)


@pytest.mark.parametrize("name", ["mixtral", "gpt_oss"])
def test_a_mixture_in_memory_does_without_dimensions_what_its_artifact_does(name, tmp_path):
    save_family(name, tmp_path / "model")
    patch(tmp_path / "model", tmp_path / "out", dims=(3, 9))
    kind, inputs = EVERY[name].model, EVERY[name].inputs
    model, patched = (kind.from_pretrained(tmp_path / of).eval() for of in ("model", "out"))
    with torch.no_grad(), surgeon.removed(model, dims=[3, 9]):
        without, wanted = model(**inputs).logits, patched(**inputs).logits
    assert torch.equal(without, wanted)
    with torch.no_grad():
        assert not torch.equal(model(**inputs).logits, wanted)


def test_what_an_error_interrupts_is_put_back_nan_and_all(tiny):
    model = AutoModel.from_pretrained(tiny("bert"))
    gain = model.encoder.layer[0].output.LayerNorm.weight
    with torch.no_grad():
        gain[3] = torch.tensor(0x7FC12345, dtype=torch.int32).view(torch.float32)
    bits = gain.detach().view(torch.int32).clone()

    def fail():
        with surgeon.removed(model, dims=[3], layers=(0,)):
            assert gain[3] == 0
            raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        fail()
    assert torch.equal(gain.detach().view(torch.int32), bits)
    with pytest.raises(SelectionError, match=r"LayerNorm.weight holds values whose mean is not f"):
        surgeon.removed(model, dims=[4], mode="mean").__enter__()


def test_a_model_in_memory_is_ranked_as_its_checkpoint(folder):
    model = AutoModel.from_pretrained(folder)
    live, stored = surgeon.open_live(model), surgeon.open_checkpoint(folder)
    assert len(repr(live)) < 80
    found, expected = map(surgeon.rank_by_layernorm, (live, stored))
    assert found.dimensions == expected.dimensions
    np.testing.assert_array_equal(*(surgeon.read_zscores(one).gain for one in (live, stored)))
    with pytest.raises(CheckpointError, match="give a PreTrainedModel of transformers; found str"):
        surgeon.rank(str(folder))
    for dims, mode, told in (([3], "zeros", "did you mean zero"), (3, "zero", "give Sequence")):
        with pytest.raises(SelectionError, match=told):
            surgeon.removed(model, dims=dims, mode=mode).__enter__()
    with surgeon.removed(model, dims=np.flatnonzero([0, 0, 0, 1])) as plan:
        assert plan.dims == (3,)


@pytest.mark.parametrize("method", ["ablation", "activations", "gradient"])
def test_what_runs_the_model_ranks_one_in_memory_as_its_checkpoint(method, tmp_path, embedder):
    tokenizer, texts = AutoTokenizer.from_pretrained(embedder), built_in_sample().lines[:24]
    model = AutoModel.from_pretrained(embedder).train()
    model.encoder.train = pytest.fail  # which may merge weights for inference
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    found = surgeon.rank(model, tokenizer, texts, method=method)
    stored = surgeon.open_checkpoint(embedder)
    expected = surgeon.rank_dimensions(stored, method, surgeon.Options(texts=Texts.of(texts)))
    assert [d.dim for d in found.dimensions[:8]] == [d.dim for d in expected.dimensions[:8]]
    strengths = [[d.strength for d in ranking.dimensions] for ranking in (found, expected)]
    np.testing.assert_allclose(*strengths, rtol=1e-3, atol=1e-5)
    assert model.training
    assert all(p.requires_grad and (p.grad == 1).all() for p in model.parameters())
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())


@pytest.mark.parametrize(
    "wrap",
    [
        lambda model: torch.compile(model, backend="eager"),
        lambda model: SimpleNamespace(get_base_model=lambda: model),  # as PEFT's do
    ],
    ids=["compiled", "with an adapter"],
)
def test_a_model_that_is_wrapped_is_edited_and_ranked_as_the_one_in_it(folder, wrap):
    model = AutoModel.from_pretrained(folder)
    wrapped, before = wrap(model), {n: t.clone() for n, t in model.state_dict().items()}
    with surgeon.removed(wrapped, dims=[3]) as plan:
        changed = [n for n, t in model.state_dict().items() if not torch.equal(t, before[n])]
        assert set(changed) == {edit.tensor for edit in plan.edits}
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    found, expected = (surgeon.rank(one, method="layernorm") for one in (wrapped, model))
    assert found == expected


def test_inference_mode_and_a_compiled_call_change_no_ranking(embedder):
    model, tokenizer = (kind.from_pretrained(embedder) for kind in (AutoModel, AutoTokenizer))
    texts = built_in_sample().lines[:4]
    expected = surgeon.rank(model, tokenizer, texts, method="gradient")
    with torch.inference_mode():
        assert surgeon.rank(model, tokenizer, texts, method="gradient") == expected
    expected = surgeon.rank(model, tokenizer, texts, method="activations")
    with torch.inference_mode():
        made = AutoModel.from_pretrained(embedder)
    assert surgeon.rank(made, tokenizer, texts, method="activations") == expected
    model.compile(backend="eager")
    assert surgeon.rank(model, tokenizer, texts, method="activations") == expected
    compiled = torch.compile(made, backend="eager")
    found = (surgeon.rank(one, tokenizer, texts, count=1) for one in (compiled, made))
    assert next(found) == next(found)


def test_layers_that_are_shared_and_compiled_on_their_own_are_ranked_and_edited(embedder):
    tokenizer, texts = AutoTokenizer.from_pretrained(embedder), built_in_sample().lines[:4]
    model = AutoModel.from_config(AutoConfig.from_pretrained(embedder, num_hidden_layers=2))
    layers, model.config.return_dict = model.encoder.layer, False
    layers[1] = layers[0]
    expected = surgeon.rank(model, tokenizer, texts, method="gradient")
    layers[0] = torch.compile(layers[0], backend="eager")
    assert surgeon.rank(model, tokenizer, texts, method="gradient") == expected
    gain = layers[1].output.LayerNorm.weight
    before = gain.detach().clone()
    with surgeon.removed(model, dims=[3], mode="scale", factor=0.5):
        assert gain[3] == before[3] / 2
    assert torch.equal(gain, before)
    assert not model.config.return_dict


@pytest.mark.filterwarnings("ignore:FSDP is switching")
def test_what_is_quantized_or_split_up_is_refused(embedder):
    config = transformers.LlamaConfig(**LLAMA)
    model, other = (transformers.LlamaForCausalLM(config) for _ in range(2))
    one_process = {"rank": 0, "world_size": 1, "store": torch.distributed.HashStore()}
    torch.distributed.init_process_group("gloo", **one_process)
    split = FullyShardedDataParallel(other, use_orig_params=True, device_id=torch.device("cpu"))
    torch.distributed.destroy_process_group()
    with pytest.raises(CheckpointError, match="found FullyShardedDataParallel"):
        surgeon.removed(split, dims=[3]).__enter__()
    for layer in model.model.layers:
        weight = layer.mlp.down_proj.weight.detach().to(torch.int8)
        layer.mlp.down_proj.weight = torch.nn.Parameter(weight, requires_grad=False)
    with pytest.raises(ExportError, match=r"of torch.int8: what is quantized.*`method` activa"):
        surgeon.rank(model, AutoTokenizer.from_pretrained(embedder), method="gradient")


@pytest.mark.slow
def test_a_compiled_call_sees_a_removal_and_its_end(tiny):
    model = AutoModel.from_pretrained(tiny("bert")).eval()
    compiled = torch.compile(model, backend="eager")
    ids = torch.tensor([[5, 6, 7]])

    def states():
        with torch.no_grad():
            found = [one(ids).last_hidden_state for one in (compiled, model)]
        torch.testing.assert_close(*found)
        return found[0]

    before = states()
    with surgeon.removed(compiled, dims=[3]):
        assert not torch.equal(states(), before)
    assert torch.equal(states(), before)


def test_a_model_without_values_is_refused(tiny):
    for place, complaint in (
        (torch.device("meta"), "is on the meta device, without values"),
        (FakeTensorMode(), "weight: FakeTensor of 16 values, not read or edited in place"),
    ):
        with place:
            model = AutoModel.from_config(AutoConfig.from_pretrained(tiny("bert")))
        with pytest.raises(CheckpointError, match=complaint):
            surgeon.removed(model, dims=[3]).__enter__()


def test_a_model_with_the_heads_of_pre_training_is_ranked_by_its_language_model(embedder):
    tokenizer, texts = AutoTokenizer.from_pretrained(embedder), built_in_sample().lines[:8]
    both = transformers.BertForPreTraining(AutoConfig.from_pretrained(embedder))
    alone = transformers.BertForMaskedLM(both.config)
    alone.load_state_dict(both.state_dict(), strict=False)
    how = {"tokenizer": tokenizer, "texts": texts, "method": "gradient"}
    assert surgeon.rank(both, **how).dimensions == surgeon.rank(alone, **how).dimensions
    assert surgeon.open_live(both).parameters_total == both.num_parameters()


@pytest.mark.parametrize("stem", ["Bart", "T5"])
def test_a_body_in_memory_is_ranked_by_its_drift_and_a_head_by_its_loss(embedder, stem):
    tokenizer, texts = AutoTokenizer.from_pretrained(embedder), built_in_sample().lines[:4]
    sizes = {"Bart": BART, "T5": T5}[stem] | {"vocab_size": len(tokenizer)}
    config = getattr(transformers, f"{stem}Config")(**sizes, decoder_start_token_id=3)
    for head, task in (("Model", "drift"), ("ForConditionalGeneration", "denoising")):
        model = getattr(transformers, stem + head)(config)
        assert surgeon.rank(model, tokenizer, texts).measured.task == task
    tokenizer.mask_token = None
    if stem == "T5":  # whose body is not apart from its head
        with pytest.raises(ExportError, match="T5ForConditionalGeneration gives no last_hidden"):
            surgeon.rank(model, tokenizer, texts)


def test_a_decoder_that_makes_no_input_of_its_own_reads_the_text_behind_its_start(embedder):
    tokenizer, texts = AutoTokenizer.from_pretrained(embedder), built_in_sample().lines[:8]
    config = transformers.T5Config(**T5 | {"vocab_size": len(tokenizer)}, decoder_start_token_id=3)
    model, peaks = transformers.T5Model(config).eval(), np.zeros((4, 16))
    stacks = (*model.encoder.block, *model.decoder.block)

    def note(number, written):
        np.maximum(peaks[number], written.abs().amax((0, 1)).numpy(), out=peaks[number])

    assert surgeon.rank(model, tokenizer, texts).measured.task == "drift"
    found = surgeon.rank(model, tokenizer, texts, method="activations")
    for number, block in enumerate(stacks):
        block.layer[-1].DenseReluDense.wo.register_forward_hook(
            lambda _module, _into, out, number=number: note(number, out)
        )
    for text in texts:
        ids = tokenizer(text, return_tensors="pt").input_ids
        with torch.no_grad():
            model(input_ids=ids, decoder_input_ids=torch.cat([torch.tensor([[3]]), ids[:, :-1]], 1))
    sizes = (peaks / np.median(peaks, axis=1, keepdims=True)).mean(axis=0)
    assert [d.score for d in found.dimensions] == pytest.approx(sorted(sizes)[::-1], rel=1e-4)


def test_a_configuration_without_a_cache_is_afterwards_as_it_was():
    model = transformers.DistilBertModel(transformers.DistilBertConfig(**DISTIL))
    before = model.config.to_dict()
    assert "use_cache" not in before
    assert surgeon.rank(model, method="layernorm").dimensions
    assert model.config.to_dict() == before


def test_a_model_in_memory_is_ranked_by_the_head_that_it_has(tmp_path, embedder):
    """A classifier takes labels: its body's drift is measured, in bfloat16 as it is."""
    kind = transformers.AutoModelForSequenceClassification
    model = kind.from_pretrained(embedder, dtype=torch.bfloat16)
    tokenizer, texts = AutoTokenizer.from_pretrained(embedder), built_in_sample().lines[:16]
    found = surgeon.rank(model, tokenizer, texts)
    assert (found.measured.task, found.measured.texts) == ("drift", "texts")
    assert "without its head" in found.evidence
    for none in (None, tokenizer.backend_tokenizer):
        with pytest.raises(EvaluationError, match="`tokenizer`: the method runs the model on text"):
            surgeon.rank(model, none)
    with pytest.raises(CheckpointError, match="`model`: give a PreTrainedModel"):
        surgeon.rank(tokenizer, model)
    with pytest.raises(SelectionError, match="`device` cuda: the model is on cpu"):
        surgeon.rank(model, tokenizer, texts, method="activations", device="cuda")
    for device in ("cpu", torch.device("cpu")):
        assert surgeon.rank(model, tokenizer, texts, method="activations", device=device)
        recipe = surgeon.Recipe(remove_outliers=1, method="activations", relax=True)
        assert surgeon.make_plan(surgeon.open_checkpoint(embedder), recipe, device=device).dims
    assert surgeon.rank(model, method="layernorm").basis == "by weights, not measured"
