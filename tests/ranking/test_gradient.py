import dataclasses

import numpy as np
import pytest
from ranking.test_ablation import _by_hand
from task_models import save_model

from surgeon import open_checkpoint, ranking_sample
from surgeon.progress import silent
from surgeon.ranking.torch_runner import open_torch_runner
from surgeon.tasks.examples import batch_examples
from surgeon.torch_model.forward import first_order


@pytest.mark.parametrize("task", ["rtd", "plm", "denoising"])
def test_an_effect_is_how_fast_the_loss_changes_as_gain_and_bias_shrink(task, tmp_path):
    sample = ranking_sample()
    texts = dataclasses.replace(sample, lines=sample.lines[:2])
    runner = open_torch_runner(open_checkpoint(save_model(task, tmp_path / task)), texts, silent)
    example = runner.examples(runner.settings(0))[0]
    batch = batch_examples([example], runner.model.graph_inputs, 0)
    effects = first_order(runner.model, runner.layers, batch, example, 0).sum(axis=0)
    model, dim = runner.model.model, int(np.abs(effects).argmax())
    parameters = dict(model.named_parameters())

    def loss(factor):
        values = [
            (runner.model.parameters[tensor].values(parameters), axis)
            for sites in runner.layers
            for site in sites
            for tensor, axis in ((site.gain, site.axis), (site.bias, 0))
            if tensor
        ]
        for tensor, axis in values:
            tensor.select(axis, dim).mul_(factor)
        found = _by_hand(model, example) / example.labels.size
        for tensor, axis in values:
            tensor.select(axis, dim).div_(factor)
        return found

    slope = (loss(1.05) - loss(0.95)) / 0.1
    assert effects[dim] == pytest.approx(slope, rel=0.02)
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert all(parameter.grad is None for parameter in model.parameters())
