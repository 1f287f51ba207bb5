"""Where each model family keeps its norms: one row per family, nothing else to touch.

A *site* is one place where a layer writes dimension d of the residual stream. The default site
is the last operation of the layer (Kovaleva et al. 2021, section 3): the output LayerNorm in
post-norm encoders, the output dense layer in GPT-2.

Templates are module paths below any model prefix (``bert.``, ``transformer.``, none, …), with
``{layer}`` for the layer number. Prefixes need no table: whatever stands before the template in
the tensor names is the prefix.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from surgeon.errors import CheckpointError, UnknownArchitectureError

Role: TypeAlias = Literal["output", "attention", "embeddings", "final"]
Kind: TypeAlias = Literal["layernorm", "dense"]
Objective: TypeAlias = Literal["mlm", "clm"]

ROLES: tuple[Role, ...] = ("output", "attention", "embeddings", "final")

_GAIN_NAMES = ("weight", "gamma")  # TensorFlow-born checkpoints say gamma and beta
_BIAS_NAMES = ("bias", "beta")


@dataclass(frozen=True)
class Site:
    """One place where a layer writes dimension d.

    ``gain`` and ``bias`` are tensor names. The dimension indexes ``axis`` of the gain and the
    only axis of the bias. For ``kind="dense"`` the gain is the weight matrix, so that a
    dimension is a slice of it.
    """

    role: Role
    kind: Kind
    layer: int | None
    gain: str
    bias: str | None
    axis: int


@dataclass(frozen=True)
class SiteTemplate:
    """The module path of a site in every layer of a family."""

    role: Role
    kind: Kind
    path: str
    axis: int = 0


@dataclass(frozen=True)
class Family:
    """A row of the registry.

    ``model_types`` are the values of ``model_type`` in ``config.json``; ``head`` are fragments
    of tensor names that only a checkpoint with the language-model head has (empty: the head is
    tied to the embeddings and known by ``architectures`` in the configuration);
    ``position_offset`` is how many rows of the position table are reserved.
    """

    name: str
    model_types: tuple[str, ...]
    templates: tuple[SiteTemplate, ...]
    objective: Objective
    head: tuple[str, ...] = ()
    position_offset: int = 0

    def sites(self, tensors: Collection[str]) -> tuple[Site, ...]:
        """Find every site of the family among tensor names, by role, then layer.

        Raises:
            CheckpointError: no layer is there, one is missing between others, or the names
                hold several models of the family.
        """
        found = [site for template in self.templates for site in _match(template, tensors)]
        if not any(site.role == "output" for site in found):
            wanted = self.templates[0].path.format(layer=0)
            raise CheckpointError(
                f"no tensor named like {wanted}.weight: the weights are not those of a {self.name} "
                "model; check model_type in config.json"
            )
        return tuple(sorted(found, key=lambda s: (ROLES.index(s.role), s.layer or 0)))


_BERT_LAYER = (
    SiteTemplate("output", "layernorm", "encoder.layer.{layer}.output.LayerNorm"),
    SiteTemplate("attention", "layernorm", "encoder.layer.{layer}.attention.output.LayerNorm"),
    SiteTemplate("embeddings", "layernorm", "embeddings.LayerNorm"),
)

FAMILIES: tuple[Family, ...] = (
    Family("BERT", ("bert",), _BERT_LAYER, "mlm", head=("cls.predictions.",)),
    Family(
        "RoBERTa",
        ("roberta", "xlm-roberta", "camembert"),
        _BERT_LAYER,
        "mlm",
        head=("lm_head.",),
        position_offset=2,  # positions count from padding_idx + 1
    ),
    # The discriminator has no language-model head: it is measured by drift.
    Family("ELECTRA", ("electra",), _BERT_LAYER, "mlm", head=("generator_predictions.",)),
    Family(
        "MPNet",
        ("mpnet",),
        (
            SiteTemplate("output", "layernorm", "encoder.layer.{layer}.output.LayerNorm"),
            SiteTemplate("attention", "layernorm", "encoder.layer.{layer}.attention.LayerNorm"),
            SiteTemplate("embeddings", "layernorm", "embeddings.LayerNorm"),
        ),
        "mlm",
        head=("lm_head.",),
        position_offset=2,
    ),
    Family(
        "DistilBERT",
        ("distilbert",),
        (
            SiteTemplate("output", "layernorm", "transformer.layer.{layer}.output_layer_norm"),
            SiteTemplate("attention", "layernorm", "transformer.layer.{layer}.sa_layer_norm"),
            SiteTemplate("embeddings", "layernorm", "embeddings.LayerNorm"),
        ),
        "mlm",
        head=("vocab_transform.",),
    ),
    # Pre-norm: the last operation of a layer is the output dense layer, a Conv1D whose weight
    # is stored (inputs, outputs), so a dimension is a column.
    Family(
        "GPT-2",
        ("gpt2",),
        (
            SiteTemplate("output", "dense", "h.{layer}.mlp.c_proj", axis=1),
            SiteTemplate("attention", "dense", "h.{layer}.attn.c_proj", axis=1),
            SiteTemplate("final", "layernorm", "ln_f"),
        ),
        "clm",
    ),
)


def family_of(model_type: str | None) -> Family:
    """Return the row for a ``model_type``.

    Raises:
        UnknownArchitectureError: there is none.
    """
    for family in FAMILIES:
        if model_type in family.model_types:
            return family
    known = ", ".join(sorted(name for family in FAMILIES for name in family.model_types))
    raise UnknownArchitectureError(
        f"config.json: model_type {model_type!r} is not an architecture that surgeon knows "
        f"(it knows {known})"
    )


def canonical_name(tensor: str) -> str:
    """Return a tensor name with the modern spelling of a LayerNorm's gain and bias."""
    module, _, leaf = tensor.rpartition(".")
    modern = {"gamma": "weight", "beta": "bias"}.get(leaf, leaf)
    return f"{module}.{modern}" if module else modern


def _match(template: SiteTemplate, tensors: Iterable[str]) -> list[Site]:
    path = re.escape(template.path).replace(re.escape("{layer}"), r"(?P<layer>0|[1-9]\d{0,4})")
    pattern = re.compile(rf"(?P<prefix>(?:.*\.)?){path}\.(?P<leaf>[^.]+)")
    modules: dict[int | None, dict[str, str]] = {}
    prefixes: set[str] = set()
    for name in tensors:
        match = pattern.fullmatch(name)
        if match and match["leaf"] in _GAIN_NAMES + _BIAS_NAMES:
            layer = int(match["layer"]) if "layer" in pattern.groupindex else None
            prefixes.add(match["prefix"])
            modules.setdefault(layer, {})[match["leaf"]] = name
    if len(prefixes) > 1:
        found = ", ".join(repr(prefix) for prefix in sorted(prefixes))
        raise CheckpointError(
            f"the weights hold several models, under {found}: split them into one directory each"
        )
    layers = [layer for layer in modules if layer is not None]
    if layers and sorted(layers) != list(range(len(layers))):
        missing = min(set(range(max(layers))) - set(layers))
        raise CheckpointError(
            f"the weights have no {template.path.format(layer=missing)}, though later layers are "
            "there: the checkpoint is incomplete"
        )
    return [_site(template, layer, leaves) for layer, leaves in sorted(modules.items(), key=_layer)]


def _layer(item: tuple[int | None, dict[str, str]]) -> int:
    return item[0] or 0


def _site(template: SiteTemplate, layer: int | None, leaves: dict[str, str]) -> Site:
    gain = next((leaves[leaf] for leaf in _GAIN_NAMES if leaf in leaves), None)
    bias = next((leaves[leaf] for leaf in _BIAS_NAMES if leaf in leaves), None)
    if gain is None:
        where = template.path.format(layer=layer)
        raise CheckpointError(f"the weights have a bias but no gain for {where}")
    return Site(template.role, template.kind, layer, gain, bias, template.axis)
