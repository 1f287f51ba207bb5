"""The score of an evaluation, reached with what others load the artifact with."""

import numpy as np
import pytest
import torch
import transformers

from surgeon import evaluate, read_texts

SENTENCES = [
    "A river runs through the town.",
    "Nobody expected rain that week, least of all the farmers.",
    "Why?",
    "The committee will publish its report in the spring.",
]


def _tokens(folder):
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    return dict(tokenizer(SENTENCES, padding=True, return_tensors="np"))


def _pooled(states, tokens):
    mask = tokens["attention_mask"][..., None]
    return (states * mask).sum(1) / mask.sum(1)


def _transformers(folder):
    tokens = _tokens(folder)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    with torch.no_grad():
        states = model(**{name: torch.from_numpy(array) for name, array in tokens.items()})
    return _pooled(states.last_hidden_state.numpy(), tokens)


def _sentence_transformers(folder):
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(folder), device="cpu").encode(SENTENCES)


def _onnxruntime(folder):
    import onnxruntime

    tokens = _tokens(folder)
    session = onnxruntime.InferenceSession(folder / "onnx" / "model.onnx")
    return _pooled(session.run(["last_hidden_state"], tokens)[0], tokens)


def _openvino(folder):
    import openvino

    tokens = _tokens(folder)
    compiled = openvino.compile_model(
        folder / "onnx" / "model.onnx", "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    return _pooled(compiled(tokens)["last_hidden_state"], tokens)


def _onnx(folder):
    """What the onnx library checks and loads: it refuses data behind links, as transformers.js."""
    import onnx
    import onnxruntime

    path, tokens = folder / "onnx" / "model.onnx", _tokens(folder)
    assert (folder / "onnx" / "model.onnx_data").is_file()  # which transformers.js asks for
    onnx.checker.check_model(path, full_check=True)
    session = onnxruntime.InferenceSession(onnx.load(path).SerializeToString())
    return _pooled(session.run(["last_hidden_state"], tokens)[0], tokens)


@pytest.mark.parametrize(
    "embed",
    [
        _transformers,
        pytest.param(_sentence_transformers, marks=pytest.mark.slow),
        _onnxruntime,
        pytest.param(_openvino, marks=pytest.mark.slow),
        _onnx,
    ],
)
def test_what_others_load_scores_what_eval_says(minilm, minilm_patched, tmp_path, embed):
    (tmp_path / "lines.txt").write_text("\n".join(SENTENCES))
    result = evaluate(minilm_patched, texts=read_texts(tmp_path / "lines.txt"), controls=2)
    before, after = _transformers(minilm), embed(minilm_patched)
    cosines = (before * after).sum(1) / np.linalg.norm(before, axis=1)
    cosines /= np.linalg.norm(after, axis=1)
    assert result.task == "drift"
    assert result.patched.value == pytest.approx(1 - cosines.mean(), abs=1e-5)
    assert result.patched.value > 0.01
