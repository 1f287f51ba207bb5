"""Each family and head: patched, exported, and run beside PyTorch on the patched safetensors."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from artifacts import patch
from families import EVERY, save_family
from heads import HEADS, save_head

from surgeon import open_checkpoint
from surgeon.errors import ExportError
from surgeon.onnx.weights import read_initializers

_PRE_TRAINED = {
    "mlm": [
        "bert", "roberta", "xlm-roberta", "camembert", "electra", "mpnet", "distilbert", "albert",
        "deberta", "deberta-v2, as v3", "modernbert", "esm", "longformer",
    ],
    "clm": [
        "gpt2", "gpt_neo", "gpt_neox", "opt", "opt, post-norm", "bloom", "llama", "mistral",
        "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "gemma3", "gemma3n_text", "phi", "phi3",
        # Of the kin those that are least like the above, then mixtures of experts.
        "openai-gpt", "nemotron", "lfm2", "qwen3_5_text", "mixtral", "minimax_m2", "qwen2_moe",
        "deepseek_v2", "deepseek_v3", "ernie4_5_moe", "hunyuan_v1_moe", "llama4_text",
    ],
    "plm": ["xlnet"],
    "denoising": ["bart", "led", "mbart", "t5", "m2m_100"],
    "drift": ["clip_text_model"],
}  # fmt: skip
TASKS = {name: task for task, names in _PRE_TRAINED.items() for name in names}
TASKS |= {name: head.task for name, head in HEADS.items()}
# Their layers are all of one form, as BERT's, GPT-2's and Llama's are, which have two here.
_OF_ONE_LAYER = {
    "roberta", "xlm-roberta", "camembert", "electra", "mpnet", "distilbert", "deberta", "esm",
    "gpt_neox", "opt", "opt, post-norm", "bloom", "mistral", "gemma", "phi", "phi3", "openai-gpt",
    "nemotron",
}  # fmt: skip


def _case(name, *values):
    # A group is a model, so that with ``--dist loadgroup`` one worker exports it, once.
    return pytest.param(name, *values, marks=(pytest.mark.slow, pytest.mark.xdist_group(name)))


_EACH = [_case(name) for name in TASKS]
_END = 2  # BART's end of a sequence, which its classifier looks for


@pytest.fixture(scope="module")
def patched(tmp_path_factory):
    """Patch a tiny model of a family or head, with its ONNX half, once."""
    made = {}

    def patch_once(name):
        if name not in made:
            folder = tmp_path_factory.mktemp("patched")
            if name in HEADS:
                save_head(name, folder / "model")
            else:
                save_family(name, folder / "model", 1 if name in _OF_ONE_LAYER else None)
            made[name] = folder / "out", patch(folder / "model", folder / "out", onnx=True)
        return made[name]

    return patch_once


def _batches(facts):
    """Batches of one, of equal and of mixed lengths, and what of their outputs is not padding."""
    rng = np.random.default_rng(1)
    for lengths in ([2], [3, 3], [2, 40, 17]):
        width = max(lengths)
        ids = np.zeros((len(lengths), width), dtype=np.int64)
        mask = np.zeros_like(ids)
        for row, length in enumerate(lengths):
            at = slice(width - length, None) if facts["padding"] == "left" else slice(length)
            ids[row, at] = [*rng.integers(5, 40, size=length - 1), _END]
            mask[row, at] = 1
        batch = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        batch["decoder_input_ids"] = rng.integers(5, 40, size=(len(lengths), 4))
        batch["perm_mask"] = (rng.random((len(lengths), width, width)) < 0.3).astype(np.float32)
        batch["target_mapping"] = np.eye(width, dtype=np.float32)[
            rng.integers(width, size=(len(lengths), 3))
        ]
        whole = facts["task"] in ("classification", "plm", "denoising")
        real = np.ones(len(lengths), dtype=bool) if whole else mask.astype(bool)
        yield {name: batch[name] for name in facts["inputs"]}, real


@pytest.mark.parametrize("name", _EACH)
def test_onnx_and_pytorch_agree_on_the_patched_weights_of_every_family_and_head(patched, name):
    out, record = patched(name)
    assert record.parameters_changed > 0
    assert record.onnx["task"] == TASKS[name]
    assert record.onnx["parity"]["largest"] <= 1e-4
    assert record.onnx["parity"]["largest_unoptimized"] <= 1e-4
    model = {**EVERY, **HEADS}[name].model.from_pretrained(out).eval()
    session = onnxruntime.InferenceSession(out / "onnx" / "model.onnx")
    outputs = record.onnx["outputs"]
    spread = 0
    for batch, real in _batches(record.onnx):
        with torch.no_grad():
            expected = model(**{k: torch.from_numpy(v) for k, v in batch.items()})
        for output, got in zip(outputs, session.run(outputs, batch), strict=True):
            wanted = expected[output].numpy()
            assert got.shape == wanted.shape
            np.testing.assert_allclose(got[real], wanted[real], atol=1e-4)
            spread = max(spread, np.ptp(wanted[real]))
    assert spread > 0.01  # else any graph would agree


@pytest.mark.parametrize("name", _EACH)
def test_every_editable_vector_is_an_initializer_in_use_and_equal_bit_for_bit(patched, name):
    out, record = patched(name)
    checkpoint = open_checkpoint(out)
    names = {n for site in checkpoint.sites for n in (site.gain, site.bias) if n}
    assert {edit.tensor for edit in record.edits} <= names
    assert set(record.onnx["vectors"]) == names
    graph = onnx.load(out / "onnx" / "model.onnx").graph
    used = {name for node in _nodes(graph) for name in node.input}
    assert names - used == set()
    for vector, values in read_initializers(out / "onnx" / "model.onnx", names).items():
        assert values.tobytes() == checkpoint.read(vector).tobytes()


@pytest.mark.parametrize("name", [_case("qwen3_5_text"), _case("gemma3n_text")])
def test_a_graph_holds_beyond_the_lengths_that_it_was_compared_at(patched, name):
    out, _ = patched(name)
    session = onnxruntime.InferenceSession(out / "onnx" / "model.onnx")
    model = EVERY[name].model.from_pretrained(out).eval()
    for length in (63, 64, 65, 128, 150):
        ids = np.random.default_rng(length).integers(5, 40, size=(2, length))
        batch = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
        with torch.no_grad():
            wanted = model(**{k: torch.from_numpy(v) for k, v in batch.items()}).logits.numpy()
        np.testing.assert_allclose(session.run(["logits"], batch)[0], wanted, atol=1e-4)


def _nodes(graph):
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _nodes(attribute.g)


@pytest.mark.parametrize(
    ("name", "inputs", "outputs"),
    [
        _case("bert", ["input_ids", "attention_mask", "token_type_ids"], ["logits"]),
        _case("roberta, classification", ["input_ids", "attention_mask"], ["logits"]),
        _case(
            "bert, questions",
            ["input_ids", "attention_mask", "token_type_ids"],
            ["start_logits", "end_logits"],
        ),
        _case("bart", ["input_ids", "attention_mask", "decoder_input_ids"], ["logits"]),
        _case("clip_text_model", ["input_ids", "attention_mask"], ["last_hidden_state"]),
        _case(
            "xlnet",
            ["input_ids", "attention_mask", "token_type_ids", "perm_mask", "target_mapping"],
            ["logits"],
        ),
    ],
)
def test_inputs_and_outputs_have_the_names_and_types_of_optimum(patched, name, inputs, outputs):
    out, record = patched(name)
    session = onnxruntime.InferenceSession(out / "onnx" / "model.onnx")
    floats = {"perm_mask", "target_mapping"}
    assert [(i.name, i.type) for i in session.get_inputs()] == [
        (i, "tensor(float)" if i in floats else "tensor(int64)") for i in inputs
    ]
    assert [(o.name, o.type) for o in session.get_outputs()] == [
        (o, "tensor(float)") for o in outputs
    ]
    assert list(record.onnx["inputs"]) == inputs
    assert list(record.onnx["outputs"]) == outputs
    assert record.onnx["output"] == outputs[0]


_LABELS = {
    "roberta, classification": ("neutral", "entailment", "contradiction"),
    "electra, regression": ("similarity",),
    "bert, questions": (),
}


@pytest.mark.slow
def test_the_facts_name_the_labels_in_the_order_of_the_outputs(patched):
    labels = {name: patched(name)[1].onnx["labels"] for name in _LABELS}
    assert labels == _LABELS


@pytest.mark.slow
def test_the_facts_name_the_decoder_s_first_token_and_the_side_of_padding(patched):
    assert patched("bart")[1].onnx["decoder_start_id"] == 2
    assert patched("bart, classification")[1].onnx["decoder_start_id"] is None
    assert patched("bert")[1].onnx["padding"] == "right"
    assert patched("xlnet, classification")[1].onnx["padding"] == "left"


@pytest.mark.parametrize("name", ["vit", "whisper", "wav2vec2", "clip"])
def test_a_model_that_takes_no_text_alone_is_one_line(tmp_path, name):
    save_family(name, tmp_path / "model")
    with pytest.raises(ExportError, match=r"token|text.*`onnx=False`") as raised:
        patch(tmp_path / "model", tmp_path / "out", onnx=True)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "out").exists()
