import json

import pytest
from artifacts import edit_json
from families import EVERY, save_family

from surgeon import open_checkpoint
from surgeon.errors import CheckpointError
from surgeon.model.checkpoint import within_config

_COUNTS = {
    "num_hidden_layers", "n_layer", "n_layers", "num_layers", "encoder_layers", "decoder_layers",
    "num_encoder_layers", "num_decoder_layers", "num_hidden_groups",
    "encoder_num_hidden_layers", "decoder_num_hidden_layers",
}  # fmt: skip


def _shift(config, by):
    """Change every number of layers in a configuration."""
    return {
        key: value + by
        if key in _COUNTS
        else _shift(value, by)
        if isinstance(value, dict)
        else value
        for key, value in config.items()
    }


# Nemotron-H's, as transformers writes it, lists the layers and says no number.
@pytest.mark.parametrize("name", [name for name in EVERY if not name.startswith("nemotron_h")])
def test_layers_that_the_weights_lack_are_missed_and_those_beyond_are_not_run(tmp_path, name):
    save_family(name, tmp_path)
    path = tmp_path / "config.json"
    # All keys, as most published models have them: the library leaves the defaults out.
    whole = json.loads(EVERY[name].config.to_json_string(use_diff=False))
    config = {**whole, **json.loads(path.read_text())}
    path.write_text(json.dumps(config))
    before = open_checkpoint(tmp_path)
    assert before.sites  # found now, before the configuration changes
    path.write_text(json.dumps(_shift(config, 1)))
    with pytest.raises(CheckpointError, match=r"config\.json: says \d.* layers, the weights have"):
        assert open_checkpoint(tmp_path).sites
    if all(count > 1 for count in EVERY[name].stacks.values()):
        path.write_text(json.dumps(_shift(config, -1)))
        kept, left = open_checkpoint(tmp_path).sites, max(EVERY[name].stacks.values()) - 1
        assert kept == tuple(site for site in before.sites if (site.layer or 0) < left)


def test_the_layers_of_an_incomplete_model_are_counted_in_one_line(source, refused, done):
    edit_json(source / "config.json", num_hidden_layers=6)
    patch = ["patch", source, "--dims", "3", "--dry-run"]
    told = f"surgeon: {source}/config.json: says 6 layers, the weights have 3"
    assert refused(*patch) == f"{told}: the checkpoint is incomplete; fetch it again"
    done(*patch, "--sites-pattern", r".*\d\.output\.LayerNorm")


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"num_hidden_layers": "6"},
        {"num_hidden_layers": True},
        {"num_hidden_layers": None, "text_config": [6]},
        {"num_hidden_layers": 6, "n_layer": 3},
        {"model_type": "albert", "num_hidden_layers": 6},
    ],
)
def test_a_configuration_that_leaves_the_number_open_is_not_held_against_the_weights(tiny, config):
    sites = open_checkpoint(tiny("bert")).sites
    assert within_config(sites, config, "config.json") == sites
