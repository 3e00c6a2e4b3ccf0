"""Selective recomputation: the same gradients bit for bit while less is stored."""

import copy
import gc
import threading

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from mmwave.inspect.memory import held_bytes, peak_bytes, saved_bytes
from mmwave.models.recompute import is_recomputable, selective_recompute
from mmwave.models.recompute.notes import Call
from mmwave.models.recompute.policy import CHEAP, PRODUCTS, WITHOUT_GRADIENT
from tests.contracts import build, images, registered, total
from tests.families import FAMILIES, TINY

UNIT = 100 * 8 * 4
"""Bytes of the block's input."""


class Block(nn.Module):
    """A channel MLP behind a norm."""

    def __init__(self, norm=None, act=None):
        super().__init__()
        torch.manual_seed(0)
        self.norm = norm or nn.LayerNorm(8)
        self.fc1, self.act, self.fc2 = nn.Linear(8, 32), act or nn.GELU(), nn.Linear(32, 8)

    def forward(self, x):
        return x + self.fc2(self.act(self.fc1(self.norm(x))))


def inputs(*shape):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(*(shape or (100, 8)), generator=generator).requires_grad_()


def run(function, *args, lean=True):
    with selective_recompute(lean):
        return function(*args)


def gradients(function, x, *parameters, lean=True, times=1):
    """The output, and the gradients of x and of parameters."""
    y = run(function, x, lean=lean)
    for k in range(times):
        y.float().square().sum().backward(retain_graph=k + 1 < times)
    found = [y, x.grad, *(p.grad for p in parameters)]
    for tensor in (x, *parameters):
        tensor.grad = None
    return found


def both(function, x, *parameters):
    """What is computed with everything stored, and with selective recomputation."""
    return [gradients(function, x, *parameters, lean=lean) for lean in (False, True)]


def assert_same_bits(function, x, *parameters):
    for a, b in zip(*both(function, x, *parameters), strict=True):
        assert torch.equal(a, b)


def held(function, x, lean):
    return held_bytes(lambda: run(function, x, lean=lean))


def test_gradients_are_equal_bit_for_bit():
    block = Block()
    wanted, got = both(block, inputs(), *block.parameters())
    assert all(g.abs().sum() > 0 for g in wanted)
    assert all(torch.equal(a, b) for a, b in zip(wanted, got, strict=True))


def test_outputs_of_products_are_stored_alone():
    block, x = Block(), inputs()
    # In units of the 8 channels of x: the output 1; the norm's output 1 and its mean and rstd 1/4;
    # before the activation 4, behind it 4.
    assert held(block, x, lean=False) == 10.25 * UNIT
    assert held(block, x, lean=True) == 5.25 * UNIT


@pytest.mark.parametrize(
    'act', ['GELU', 'ReLU', 'SiLU', 'Hardswish', 'PReLU', 'Mish', 'Sigmoid', 'Softmax', 'Tanh']
)
def test_activations(act):
    """Those that store their output too: ReLU, sigmoid, softmax and tanh."""
    module = nn.Softmax(dim=1) if act == 'Softmax' else getattr(nn, act)()
    block, x = Block(act=module), inputs()
    assert_same_bits(block, x, *block.parameters())
    assert held(block, x, lean=True) == 5.25 * UNIT


def test_chains_are_recomputed_from_what_is_stored():
    x, linear = inputs(), nn.Linear(8, 8)

    def function(x):
        y = F.gelu(linear(x))
        return linear((y.cos() * y.sin()).t().contiguous().t())

    assert_same_bits(function, x, *linear.parameters())
    assert held(function, x, lean=True) == 2 * UNIT  # outputs of both products


def test_what_several_need_is_recomputed_once(monkeypatch):
    calls = []
    repeat = Call._repeat
    monkeypatch.setattr(Call, '_repeat', lambda call: calls.append(call) or repeat(call))
    linears = nn.ModuleList(nn.Linear(8, 8) for _ in range(3))

    def function(x):
        y = F.gelu(x)
        return sum(linear(y) for linear in linears) + y.cos() * y.sin()

    gradients(function, inputs(), *linears.parameters(), times=2)
    assert len(calls) == 2 * 3  # gelu, sin and cos in either backward pass
    assert all(call.results is None for call in calls)


def test_activations_that_are_factors_are_stored():
    """Gates: the product is recomputed from them."""
    x, linear = inputs(), nn.Linear(8, 8)

    def function(x):
        return linear(F.gelu(x) * F.silu(x))

    assert_same_bits(function, x, *linear.parameters())
    assert held(function, x, lean=True) == 3 * UNIT  # both activations and the output
    assert held(function, x, lean=False) == 4 * UNIT


def test_views_of_an_output():
    x, weight = inputs(), torch.randn(3, 8, requires_grad=True)

    def function(x):
        y = torch.sin(x)
        return y[::2].t()[1:5].matmul(y[1::2]) @ weight.t()

    assert_same_bits(function, x, weight)


def test_an_output_in_another_memory_format_the_second_time():
    """As of a function that looks at whether autograd is on."""
    turned = torch.overrides.wrap_torch_function(lambda x: (x,))(
        lambda x: x.t() if torch.is_grad_enabled() else x.t().contiguous()
    )
    x, linear = inputs(), nn.Linear(100, 8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('mmwave.models.recompute.recorder.CHEAP_OPS', {turned})
        assert_same_bits(lambda x: linear(turned(x * 2)), x, *linear.parameters())


def test_backward_twice():
    block, x = Block(), inputs()
    once, twice = (gradients(block, x, *block.parameters(), times=k)[1:] for k in (1, 2))
    assert all(torch.equal(2 * a, b) for a, b in zip(once, twice, strict=True))


def test_gradients_of_gradients():
    block, found = Block().double(), []
    for lean in (False, True):
        x = inputs().double().detach().requires_grad_()
        y = run(block, x, lean=lean)
        (first,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
        found.append(torch.autograd.grad(first.square().sum(), [x, *block.parameters()]))
    assert all(g.abs().sum() > 0 for g in found[0][:-1])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize('frozen', [False, True])
def test_batch_norms_update_their_statistics_once(frozen):
    found = []
    for lean in (False, True):
        block = Block(nn.BatchNorm1d(8))
        block.norm.train(not frozen)
        found.append(
            (gradients(block, inputs(), *block.parameters(), lean=lean), block.norm.state_dict())
        )
    (grads_a, state_a), (grads_b, state_b) = found
    assert all(torch.equal(a, b) for a, b in zip(grads_a, grads_b, strict=True))
    assert all(torch.equal(state_a[k], state_b[k]) for k in state_a)
    assert state_b['num_batches_tracked'] == (0 if frozen else 1)


def test_dropout_draws_the_same_numbers():
    x, linear = inputs(), nn.Linear(8, 8)

    def function(x):
        torch.manual_seed(3)
        return linear(F.dropout(F.gelu(x), 0.4))

    assert_same_bits(function, x, *linear.parameters())
    # The product's output and, instead of dropout's output as well, the noise alone.
    assert held(function, x, lean=True) == 2 * UNIT
    assert held(function, x, lean=False) > 2 * UNIT


class Sine(torch.autograd.Function):
    """It ends in a cheap function, as that of synchronised batch norms does."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return torch.sin(x)

    @staticmethod
    def backward(ctx, gradient):
        return gradient * ctx.saved_tensors[0].cos()


def test_outputs_of_functions_with_a_backward_of_their_own(monkeypatch):
    monkeypatch.setattr('mmwave.models.recompute.recorder.WITHOUT_GRADIENT', {torch.sin})
    linear = nn.Linear(8, 8)

    def function(x):
        return linear(Sine.apply(x))

    assert_same_bits(function, inputs(), *linear.parameters())
    assert held(function, inputs(), lean=True) == UNIT
    assert torch.batch_norm_elemt in CHEAP & WITHOUT_GRADIENT


def test_only_what_asks_for_gradients_gets_them():
    block, x = Block(), inputs().detach()
    block.norm.requires_grad_(False)
    run(block, x).sum().backward()
    assert block.norm.weight.grad is None
    assert block.fc1.weight.grad.abs().sum() > 0
    with torch.no_grad():
        assert not run(block, x).requires_grad


def test_under_autocast():
    block, x = Block(), inputs()

    def function(x):
        with torch.autocast('cpu', dtype=torch.bfloat16):
            return block(x)

    wanted, got = both(function, x, *block.parameters())
    assert all(torch.equal(a, b) for a, b in zip(wanted, got, strict=True))
    assert held(function, x, lean=True) < held(function, x, lean=False) / 1.5
    with torch.autocast('cpu', dtype=torch.bfloat16):  # nor does it matter what is on later
        y = run(block, x)
        y.float().square().sum().backward()
    assert all(torch.equal(p.grad, g) for p, g in zip(block.parameters(), wanted[2:], strict=True))


def test_what_ran_without_autocast_is_recomputed_without(monkeypatch):
    # A function that autocast casts.
    monkeypatch.setattr('mmwave.models.recompute.recorder.CHEAP', {torch.Tensor.matmul})
    x, linear, found = inputs().detach(), nn.Linear(8, 8), []
    for lean in (False, True):
        y = run(lambda x: linear(x.matmul(linear.weight)).square().sum(), x, lean=lean)
        with torch.autocast('cpu', dtype=torch.bfloat16):
            found += torch.autograd.grad(y, linear.weight)
    assert torch.equal(*found)


def test_a_later_change_in_place_is_an_error():
    """As autograd has it for what is stored."""
    block, x = Block(), inputs()
    y = run(block, x)
    with torch.no_grad():
        block.norm.weight.mul_(2)
    with pytest.raises(RuntimeError, match='modified by an inplace operation'):
        y.sum().backward()


def test_a_later_change_of_what_a_product_stores_is_an_error():
    """Autograd checks no versions of what hooks store."""
    block, x = Block(), inputs()
    y = run(block, x)
    with torch.no_grad():
        block.fc2.weight.add_(1)
    with pytest.raises(RuntimeError, match='modified by an inplace operation'):
        y.sum().backward()


def test_copies_that_take_less_memory_are_stored():
    x, weight = inputs(1000, 64), torch.randn(4, 4, requires_grad=True)
    for function in (
        lambda x: (x + 1)[:, :4].contiguous() @ weight,
        lambda x: F.pad(x + 1, (0, -60)) @ weight,
        lambda x: (x[:, :4] + 1).bfloat16() @ weight.bfloat16(),
    ):
        assert_same_bits(function, x, weight)
        assert held(function, x, lean=True) <= held(function, x, lean=False)


def test_an_output_that_is_changed_in_place_is_stored_as_it_is_then():
    linear = nn.Linear(8, 8)

    def function(x):
        y = F.gelu(x)
        y.add_(1)
        return linear(y)

    assert_same_bits(function, inputs(), *linear.parameters())


def test_memory_that_is_used_again_is_not_taken_for_what_it_held():
    linear = nn.Linear(8, 8)

    def function(x):
        total = 0
        for k in range(50):  # temporaries of one size, whose memory the next ones get
            F.gelu(x * k)
            total = total + linear(x + k)
        return total

    assert_same_bits(function, inputs(), *linear.parameters())


def test_nothing_stays_behind():
    """No reference cycles: notes go with the graph, not when the collector comes."""

    def notes():
        return sum(type(o) is Call for o in gc.get_objects())

    block = Block()
    gc.collect()
    gc.disable()
    try:
        before = notes()
        y = run(block, inputs())
        assert notes() == before + 2
        del y
        assert notes() == before
        run(block, inputs()).sum().backward()
        assert notes() == before
    finally:
        gc.enable()


def test_it_steps_aside_where_others_decide_what_is_stored():
    block, x = Block(), inputs()
    counted = saved_bytes(lambda: block(x), apart_from=block.parameters())
    assert counted == saved_bytes(lambda: run(block, x), apart_from=block.parameters())
    wanted = gradients(block, x, *block.parameters(), lean=False)

    def checkpointed(x):
        return checkpoint(lambda x: run(block, x), x, use_reentrant=False)

    for lean in (False, True):  # checkpoints inside and outside
        got = gradients(checkpointed, x, *block.parameters(), lean=lean)
        assert all(torch.equal(a, b) for a, b in zip(wanted, got, strict=True))
    assert held(checkpointed, x, lean=False) == held(checkpointed, x, lean=True)


def test_where_hooks_on_saved_tensors_are_forbidden():
    block, x = Block(), inputs()
    with torch.autograd.graph.disable_saved_tensors_hooks('none here'):
        run(block, x).sum().backward()
    assert block.fc1.weight.grad.abs().sum() > 0


def test_tensors_of_inference_mode():
    linear = nn.Linear(8, 8)
    with torch.inference_mode():
        x = torch.randn(100, 8)
    run(lambda x: linear(F.gelu(x).clone()), x).sum().backward()
    assert linear.weight.grad.abs().sum() > 0


def test_what_needs_no_gradient_is_not_noted():
    sizes = []
    for lean in (False, True):
        model = build('WaveMLP', TINY['WaveMLP'], frozen_stages=4, lean=lean).train()
        x = images(2, 3, 64, 64)
        model(x)
        sizes.append(peak_bytes(lambda model=model, x=x: model(x)))
    assert sizes[1] <= 1.01 * sizes[0]


@pytest.mark.parametrize('name', TINY)
def test_a_graph_without_a_backward_pass_leaves_nothing_behind(name):
    """Nor does one that is only half used: an output that its operation saves holds no graph."""
    model, x = build(name, TINY[name]).train(), images(2, 3, 36, 40)

    def tensors():
        gc.collect()
        return sum(isinstance(o, torch.Tensor) for o in gc.get_objects())

    def use():
        outputs = model(x)
        torch.autograd.grad(outputs[-1].sum(), model.out_norms['3'].weight, retain_graph=True)

    use()
    before = tensors()
    for _ in range(3):
        use()
    assert tensors() == before


def test_transforms_and_modes():
    block, x = Block(), inputs()
    wanted = gradients(block, x, lean=False)[1]

    def loss(x):
        return run(block, x).square().sum()

    torch.testing.assert_close(torch.func.grad(loss)(x.detach()), wanted)
    _, slope = torch.func.jvp(loss, (x.detach(),), (torch.ones_like(x),))
    torch.testing.assert_close(slope, wanted.sum())
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        gradients(block, x)
    assert counter.get_total_flops() == 3 * 2 * 100 * 8 * 32 * 2  # no product is repeated


def test_compiles_to_one_graph():
    block, x = Block(), inputs()
    torch.compiler.reset()
    graph = torch.compile(lambda x: run(block, x), backend='aot_eager', fullgraph=True)
    wanted = gradients(block, x, *block.parameters())
    got = [graph(x)]
    got[0].square().sum().backward()
    got += [x.grad, *(p.grad for p in block.parameters())]
    for a, b in zip(got, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_hooks_of_modules_run_once_and_are_obeyed():
    block, x, calls = Block(), inputs(), []
    block.act.register_forward_hook(lambda module, args, y: calls.append(1) or 2 * y)
    assert_same_bits(block, x, *block.parameters())
    assert len(calls) == 2


def test_parts_with_hooks_inside_or_compiled_are_stored():
    block = Block()
    assert is_recomputable(block)
    block.register_forward_hook(lambda *_: None)
    assert is_recomputable(block)
    handle = block.norm.register_forward_pre_hook(lambda *_: None)
    assert not is_recomputable(block)
    handle.remove()
    handle = nn.modules.module.register_module_forward_hook(lambda *_: None)
    try:
        assert not is_recomputable(block)
    finally:
        handle.remove()
    assert is_recomputable(block)
    assert not is_recomputable(torch.compile(block, backend='eager'))
    block.norm.compile(backend='eager')
    assert not is_recomputable(block)


def test_threads_do_not_disturb_each_other():
    block, found = Block(), []
    wanted = gradients(block, inputs(), *block.parameters())

    def work():
        twin = copy.deepcopy(block)
        for _ in range(20):
            found.append(gradients(twin, inputs(), *twin.parameters()))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 80
    for got in found:
        assert all(torch.equal(a, b) for a, b in zip(wanted, got, strict=True))


def step(name, size, **options):
    """Outputs, gradients and buffers of a training step that drops whatever a family can drop."""
    accepted = registered()[name].arguments()
    rates = {k: 0.2 for k in ('drop_path_rate', 'drop_rate', 'token_drop_rate') if k in accepted}
    model = build(name, TINY[name], **rates, **options).train()
    x = images(4, 3, *size).requires_grad_(not model.with_cp)  # images need no gradient
    torch.manual_seed(5)  # the same branches and values are dropped
    outputs = model(x)
    total(outputs).backward()
    gradients = {f'gradient of {k}': p.grad for k, p in model.named_parameters()}
    return dict(enumerate(outputs)) | gradients | dict(model.named_buffers()) | {'image': x.grad}


@pytest.mark.parametrize('with_cp', [False, True])
@pytest.mark.parametrize(
    ('name', 'grid_mode'), [(n, m) for n, f in FAMILIES.items() for m in f.grid_modes or (None,)]
)
def test_backbones_in_every_grid_mode(name, grid_mode, with_cp):
    """On images that fill all windows or none; the published sizes: test_contract.py."""
    options = {} if grid_mode is None else dict(grid_mode=grid_mode)
    for size, act, norm_eval in (((64, 192), 'GELU', False), ((45, 70), 'PReLU', True)):
        options |= dict(act_cfg=dict(type=act), norm_eval=norm_eval, with_cp=with_cp)
        got, wanted = (step(name, size, lean=lean, **options) for lean in (True, False))
        assert got.keys() == wanted.keys()
        for key, tensor in wanted.items():
            assert got[key] is tensor is None or torch.equal(got[key], tensor), key
            assert tensor is None or tensor.isfinite().all(), key


def test_functions_of_the_policy():
    assert not CHEAP & PRODUCTS
    assert {F.layer_norm, F.gelu, torch.Tensor.mul, F.batch_norm, torch.addcmul} <= CHEAP
    assert {F.linear, F.conv2d, torch.bmm} <= PRODUCTS
    assert not {F.dropout, torch.rand_like, torch.bernoulli, torch.Tensor.add} & CHEAP


@pytest.mark.gpu
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_under_autocast_on_a_gpu(dtype):
    """Where autocast runs norms in float32, and casts for products."""
    block, x = Block().cuda(), inputs().detach().cuda().requires_grad_()

    def function(x):
        with torch.autocast('cuda', dtype=dtype):
            return block(block.fc2(block.act(block.fc1(x))))

    wanted, got = both(function, x, *block.parameters())
    assert all(torch.equal(a, b) for a, b in zip(wanted, got, strict=True))
    sizes = [held_bytes(lambda lean=lean: run(function, x, lean=lean), 'cuda') for lean in (0, 1)]
    assert sizes[1] < sizes[0] / 1.5
