"""Exports run a traced program again only for what is not known of it."""

import pytest
import torch

from surgeon.onnx import traced_once


class _Masked(torch.nn.Module):
    def forward(self, x, mask):
        kept = (mask & mask).to(torch.bool).to("cpu")
        return torch.nn.functional.gelu(x.to(x.dtype).masked_fill(~kept, 0.0)).to(torch.float16)


class _InPlace(torch.nn.Module):
    """What is changed in place is of no use elsewhere, unless ``use`` makes it so."""

    def __init__(self, use):
        super().__init__()
        self.use = use

    def forward(self, x, _mask):
        made = x * 2
        used = self.use(made)
        made += x
        made /= 3
        return made, used


def _dropped(made):
    kept = torch.nn.functional.dropout(made, training=False)  # the same tensor, as it happens
    kept += 1
    return kept


class _Repeated(torch.nn.Module):
    def __init__(self, times):
        super().__init__()
        self.times = times

    def forward(self, x, _mask):
        return x.repeat_interleave(self.times, 1, output_size=6)


_GELU = torch.ops.aten.gelu.default


@pytest.mark.parametrize(
    ("module", "table", "again"),
    [
        (_Masked(), {}, False),
        (_Masked(), {_GELU: None}, True),
        (_Repeated(2), {}, False),
        (_Repeated(torch.tensor([1, 2, 3])), {}, True),
        (_InPlace(lambda _: torch.ones(1)), {}, False),
        (_InPlace(lambda made: made - 1), {}, True),
        (_InPlace(lambda made: made.view(-1)), {}, True),
        (_InPlace(lambda made: made.add_(torch.tensor(1))), {}, True),  # which stays a float
        (_InPlace(_dropped), {}, True),
        (_InPlace(lambda made: torch._foreach_add_([made], 1)), {}, True),  # of a list
    ],
)
def test_a_model_is_traced_again_only_where_onnx_lacks_an_operation(
    monkeypatch, module, table, again
):
    """What tracing again would change is neither left nor looked for in vain."""
    traced = []
    monkeypatch.setattr(
        traced_once,
        "_run_decompositions",
        lambda program, _table: traced.append(program) or program,
    )
    given = torch.randn(2, 3), torch.tensor([[1, 0, 1], [1, 1, 0]])
    program = torch.export.export(module.eval(), given)
    expected = module(*given)
    made = traced_once.decompose(program, table)
    assert bool(traced) == again
    torch.testing.assert_close(made.module()(*given), expected)
    targets = [n.target.name() for n in made.graph.nodes if n.op == "call_function"]
    left = ("aten::to.", "aten::__and__", "aten::add_", "aten::div_", "aten::detach")
    assert again or not any(name.startswith(left) for name in targets)


class _Mixed(torch.nn.Module):
    """PyTorch converts what these operations take by itself, and ONNX has to be told."""

    def forward(self, x, n):
        return torch.sqrt(n) * x + (n > 0.5) * 2 + n / 2, torch.tanh(torch.sin(x)).half() * 3 + n


def test_the_casts_that_pytorch_does_by_itself_are_found_without_running_the_rest(monkeypatch):
    ran = []
    run_node = traced_once._run_node
    monkeypatch.setattr(
        traced_once,
        "_run_node",
        lambda interpreter, node: ran.append(str(node.target)) or run_node(interpreter, node),
    )
    given = torch.randn(3), torch.tensor([1, 2, 3])

    def export():
        model = _Mixed().eval()
        program = torch.onnx.export(model, given, dynamo=True, optimize=False, verbose=False)
        return [
            (node.op_type, *(value.dtype for value in (*node.inputs, *node.outputs)))
            for node in program.model.graph
        ]

    expected = export()
    with traced_once.traced_once(64):
        assert export() == expected
    assert [name for name, *_ in expected].count("Cast") > 4
    assert "aten.sqrt.default" in ran  # of integers: it is given floats
    assert not {"aten.sin.default", "aten.tanh.default"} & set(ran)


def test_rules_are_tried_at_nodes_of_their_own_operation_only_and_the_graph_is_the_same(
    monkeypatch,
):
    tried, match = [], traced_once._match

    def note(matcher, model, graph, node, **options):
        tried.append((matcher.pattern.output_nodes[0].op, node.op_type))
        return match(matcher, model, graph, node, **options)

    def graph():
        model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.ReLU(), torch.nn.ReLU())
        program = torch.onnx.export(model.eval(), (torch.ones(3, 2),), dynamo=True, verbose=False)
        nodes = program.model_proto.graph.node  # whose metadata has the line of the call
        return [(node.op_type, *node.input, *node.output, *node.attribute) for node in nodes]

    theirs = graph()
    monkeypatch.setattr(traced_once, "_match", note)
    with traced_once.traced_once(64):
        assert graph() == theirs
    assert tried
    assert all(operation.matches(found) for operation, found in tried)


class _ByParts(torch.nn.Module):
    def forward(self, x):
        return torch.stack([x[8 * part : 8 * part + 8].sum() for part in range(x.shape[0] // 8)])


@pytest.mark.parametrize(
    ("model", "untraced"),
    [(_ByParts(), [2, 3, 4, 5, 8, 9, 32, 33, 64]), (torch.nn.ReLU(), [])],
)
def test_lengths_that_a_program_was_not_traced_for_are_told(model, untraced):
    with traced_once.traced_once(64) as found:
        torch.onnx.export(
            model.eval(), (torch.ones(17),), dynamic_shapes=({0: "length"},), verbose=False
        )
    assert found == untraced
