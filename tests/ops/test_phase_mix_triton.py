"""The Triton kernels of ``phase_mix`` against the reference.

On a CUDA device, and without one under Triton's interpreter. Whether kernels are interpreted is
decided when Triton is imported, so the latter is a subprocess with ``TRITON_INTERPRET=1`` that runs
this file again.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mmwave.ops._phase_mix import phase_mix_reference
from mmwave.ops._phase_mix import triton as backend
from mmwave.ops._phase_mix.triton import phase_mix_triton
from mmwave.ops.backend import select
from tests.contracts import relative_error

INTERPRETED = os.environ.get('TRITON_INTERPRET') == '1'
NAMES = ('width', 'height', 'mean', 'a_h', 'p_h', 'a_w', 'p_w', 'k_h', 'k_w')
IMPLEMENTATIONS = {'triton': phase_mix_triton, 'reference': phase_mix_reference}


def tensors(
    n: int,
    c: int,
    h: int,
    w: int,
    *,
    taps: int = 7,
    layout: str = 'contiguous',
    dtype: torch.dtype = torch.float32,
    device: str = 'cpu',
    largest: float = 3.0,
) -> list[Tensor]:
    """Return four maps and two kernels; phases range from -``largest`` to ``largest``."""
    generator = torch.Generator().manual_seed(h * 100 + w)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    maps = [draw(n, h, w, c) for _ in range(4)]
    for i in (1, 3):
        maps[i] = maps[i] / maps[i].abs().max() * largest
    if layout == 'slices':  # of one map with the channels last, and a fifth between them
        merged = torch.cat([*maps[:2], draw(n, h, w, c), *maps[2:]], dim=3).to(device, dtype)
        parts = merged.permute(0, 3, 1, 2).split(c, dim=1)
        maps = [parts[i] for i in (0, 1, 3, 4)]
    elif layout == 'channels_last':
        maps = [x.to(device, dtype).permute(0, 3, 1, 2) for x in maps]
    elif layout == 'mixed':  # of different strides, and the channels last in the first
        maps = [x.to(device, dtype).permute(0, 3, 1, 2) for x in maps]
        maps[1:3] = [x.contiguous() for x in maps[1:3]]
    else:
        maps = [x.to(device, dtype).permute(0, 3, 1, 2).contiguous() for x in maps]
    return [*maps, *(k.to(device, dtype) for k in (draw(c, 2, 1, taps), draw(c, 2, taps, 1)))]


def results(function, inputs, split=False, pull_in=None, dtype=None):
    """Return three outputs and six gradients, computed in ``dtype``."""
    inputs = [x.detach().to(dtype or x.dtype).requires_grad_() for x in inputs]
    outputs = function(*inputs, split=split)
    generator = torch.Generator().manual_seed(0)
    pull = [torch.randn(o.shape, generator=generator).to(pull_in or o.dtype) for o in outputs]
    pull = [p.to(o) for p, o in zip(pull, outputs, strict=True)]
    return [*(o.detach() for o in outputs), *torch.autograd.grad(outputs, inputs, pull)]


def assert_equals_reference(inputs, split=False, bound=6e-7):
    got = results(phase_mix_triton, inputs, split)
    wanted = results(phase_mix_reference, inputs, split, dtype=torch.float64)
    for name, a, b in zip(NAMES, got, wanted, strict=True):
        assert a.shape == b.shape, name
        assert b.abs().max() > 0, name
        assert relative_error(a.double(), b) < bound, name


class Kernels:
    """Tests for every device."""

    device: str

    @pytest.mark.parametrize(
        ('shape', 'split', 'layout', 'taps'),
        [
            ((2, 4, 5, 9), False, 'contiguous', 7),
            ((2, 4, 5, 9), True, 'slices', 7),
            ((1, 2, 1, 1), False, 'contiguous', 7),
            ((1, 6, 1, 7), True, 'channels_last', 7),
            ((1, 6, 7, 1), False, 'channels_last', 7),
            ((1, 2, 3, 63), True, 'contiguous', 7),  # several segments of the width
            ((1, 4, 63, 2), False, 'slices', 5),  # and of the height
            ((1, 2, 2, 130), False, 'contiguous', 1),  # several blocks of lines
            ((2, 68, 5, 2), True, 'slices', 3),  # several blocks of lines and of channels
            ((1, 68, 2, 5), False, 'channels_last', 3),
            ((1, 10, 4, 3), True, 'contiguous', 3),
            ((1, 4, 3, 5), False, 'mixed', 3),
        ],
    )
    def test_values_and_gradients(self, shape, split, layout, taps):
        inputs = tensors(*shape, taps=taps, layout=layout, device=self.device)
        assert_equals_reference(inputs, split)

    def test_kernels_of_any_strides(self):
        *maps, k_h, k_w = tensors(1, 4, 3, 5, taps=3, device=self.device)
        k_h = k_h.contiguous(memory_format=torch.channels_last)
        assert_equals_reference([*maps, k_h, k_w])
        k_w = k_w.contiguous(memory_format=torch.channels_last)
        assert_equals_reference([*maps, k_h, k_w])

    def test_gradients_that_are_not_dense(self):
        inputs = [x.requires_grad_() for x in tensors(2, 4, 3, 5, taps=3, device=self.device)]
        exact = [x.detach().double().requires_grad_() for x in inputs]
        grads = []
        for function, given in ((phase_mix_triton, inputs), (phase_mix_reference, exact)):
            along_width, _, mean = function(*given)
            # Expanded gradients of two results, the one of the mean too; none of the third.
            grads.append(torch.autograd.grad(along_width.sum() + mean[:, :1].sum(), given))
        for a, b in zip(*grads, strict=True):
            assert relative_error(a.double(), b) < 6e-7

    @pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16, torch.float16])
    @pytest.mark.parametrize('largest', [3.0, 200.0])
    def test_at_most_twice_as_far_from_float64_as_the_reference(self, dtype, largest):
        inputs = tensors(1, 8, 3, 17, dtype=dtype, largest=largest, device=self.device)
        exact = results(phase_mix_reference, inputs, dtype=torch.float64, pull_in=dtype)
        got, reference = (results(f, inputs) for f in (phase_mix_triton, phase_mix_reference))
        for name, a, b, wanted in zip(NAMES, got, reference, exact, strict=True):
            assert a.dtype is dtype, name
            # Half an ulp: the result must be rounded once, in any case.
            bound = 2 * relative_error(b.double(), wanted) + torch.finfo(dtype).eps / 2
            assert relative_error(a.double(), wanted) <= bound, name

    def turn(self, angles: Tensor) -> tuple[Tensor, Tensor]:
        """Return the kernel's cosines and sines of (1, C, H, W) in split order."""
        ones = torch.ones_like(angles)
        kernel = torch.zeros(angles.shape[1], 2, 1, 1, device=self.device)
        out = []
        for half in (0, 1):
            kernel.zero_()[:, half] = 1
            out.append(phase_mix_triton(ones, angles, ones, angles, kernel, kernel, split=True)[0])
        cosine, sine = zip(*(o.chunk(2, dim=1) for o in out), strict=True)
        return torch.cat(cosine, 1), torch.cat(sine, 1)

    def test_sines_of_large_angles(self):
        steps = torch.arange(1, 1025, dtype=torch.float64)
        # All sizes to 1e5, and the numbers next to multiples of a quarter turn.
        sizes = torch.logspace(-6, 5, 1024, dtype=torch.float64) * (-1) ** steps
        near = steps * 60 * torch.pi / 2
        for angles in (sizes, near):
            angles = angles.float().to(self.device).view(1, 64, 4, 4)
            for got, function in zip(self.turn(angles), (torch.cos, torch.sin), strict=True):
                assert (got - function(angles.double())).abs().max() < 1.2e-7

    def test_waves_stay_bounded_and_non_finite_angles_give_nan(self):
        large = torch.tensor([1e6, -3e7, 1e9, -1e12, 1e20, -3e38], device=self.device)
        for got in self.turn(large.view(1, 6, 1, 1)):
            assert got.abs().max() <= 1
        # Repeated, so that no pair has a finite angle and a non-finite one.
        infinite = torch.tensor([float('inf'), -float('inf'), float('nan')], device=self.device)
        for got in self.turn(infinite.repeat(2).view(1, 6, 1, 1)):
            assert got.isnan().all()

    @pytest.mark.parametrize('layout', ['contiguous', 'slices'])
    def test_layout_of_results(self, layout):
        got = results(
            phase_mix_triton, tensors(2, 4, 3, 5, taps=1, layout=layout, device=self.device)
        )
        dense = torch.channels_last if layout == 'slices' else torch.contiguous_format
        for x in (*got[:2], *got[3:7]):
            assert x.is_contiguous(memory_format=dense)

    def test_everything_is_written(self):
        inputs = tensors(1, 6, 5, 17, taps=3, device=self.device)
        assert torch.empty(1, device=self.device).isnan()
        for x in results(phase_mix_triton, inputs):
            assert x.isfinite().all()

    def test_deterministic(self):
        inputs = tensors(2, 4, 18, 3, taps=3, device=self.device)
        for a, b in zip(*(results(phase_mix_triton, inputs) for _ in range(2)), strict=True):
            assert torch.equal(a, b)

    def test_saves_only_its_inputs(self):
        inputs = [x.requires_grad_() for x in tensors(1, 4, 3, 5, taps=3, device=self.device)]
        kept = []
        with torch.autograd.graph.saved_tensors_hooks(kept.append, lambda x: x):
            phase_mix_triton(*inputs)
        assert {x.data_ptr() for x in kept} == {x.data_ptr() for x in inputs}

    @pytest.mark.parametrize('maps_in', [torch.bfloat16, torch.float32])
    def test_autocast(self, maps_in):
        inputs = tensors(1, 4, 3, 5, taps=3, device=self.device)
        inputs = [x.to(maps_in) for x in inputs[:4]] + inputs[4:]
        exact = phase_mix_reference(*(x.double() for x in inputs))
        with torch.autocast(self.device, dtype=torch.bfloat16):
            assert not phase_mix_triton.unsupported(*inputs)
            got, reference = (f(*inputs) for f in (phase_mix_triton, phase_mix_reference))
        assert phase_mix_triton.unsupported(*inputs) == (
            ''
            if maps_in is torch.float32
            else 'the tensors are of torch.bfloat16 and of torch.float32'
        )
        for a, b, wanted in zip(got, reference, exact, strict=True):
            assert a.dtype is b.dtype is torch.bfloat16
            assert relative_error(a.double(), wanted) < relative_error(b.double(), wanted) + 4e-3
        leaves = [x.requires_grad_() for x in inputs]
        with torch.autocast(self.device, dtype=torch.bfloat16):
            total = sum(x.float().square().sum() for x in phase_mix_triton(*leaves))
        for x, gradient in zip(leaves, torch.autograd.grad(total, leaves), strict=True):
            assert gradient.dtype is x.dtype

    def test_offsets_beyond_32_bits(self, tmp_path):
        far = 2**30  # elements from one row to the next: the third lies beyond 2^31
        size = 3 * far + 64
        if self.device == 'cpu':  # a sparse file
            memory = torch.from_file(str(tmp_path / 'maps'), True, size, dtype=torch.float16)
        else:
            memory = torch.empty(size, dtype=torch.float16, device=self.device)
        small = tensors(1, 4, 4, 2, taps=3, layout='channels_last', device=self.device)
        inputs = [x.half() for x in small]
        strided = [memory.as_strided((1, 4, 4, 2), (4 * far, 1, far, 8), 16 * i) for i in range(4)]
        for x, values in zip(strided, inputs[:4], strict=True):
            x.copy_(values)
        got = phase_mix_triton(*strided, *inputs[4:])
        for a, b in zip(got, phase_mix_triton(*inputs), strict=True):
            assert torch.equal(a, b)
        along = [x.requires_grad_() for x in (*strided, *inputs[4:])]
        beside = [x.requires_grad_() for x in inputs]
        pull = [torch.randn_like(x) for x in got]
        for a, b in zip(
            torch.autograd.grad(phase_mix_triton(*along), along, pull),
            torch.autograd.grad(phase_mix_triton(*beside), beside, pull),
            strict=True,
        ):
            assert torch.equal(a, b)

    @pytest.mark.parametrize(
        ('layout', 'dtype'), [('contiguous', torch.float32), ('slices', torch.bfloat16)]
    )
    def test_registration(self, layout, dtype):
        inputs = tensors(1, 4, 1, 2, taps=1, layout=layout, dtype=dtype, device=self.device)
        leaves = [x.detach().requires_grad_() for x in inputs]
        torch.library.opcheck(backend._op, (*leaves, True, dtype))
        pull = [x.detach() for x in phase_mix_triton(*leaves)]
        torch.library.opcheck(backend._backward_op, (*inputs, *pull, True))

    def test_compiles_to_one_node_for_every_size(self):
        graphs = []

        def keep(graph, example):
            graphs.append(graph)
            from torch._dynamo.backends.debugging import aot_eager

            return aot_eager(graph, example)

        def mix(*inputs):
            return select('phase_mix', IMPLEMENTATIONS, *inputs)(*inputs)

        compiled = torch.compile(mix, fullgraph=True, dynamic=True, backend=keep)
        for size in ((3, 6), (5, 2)):
            inputs = tensors(1, 4, *size, taps=1, device=self.device)
            wanted = results(lambda *x, split: mix(*x), inputs)
            for a, b in zip(results(lambda *x, split: compiled(*x), inputs), wanted, strict=True):
                assert torch.equal(a, b)
        assert len(graphs) == 1
        ops = [str(node.target) for node in graphs[0].graph.nodes if node.op == 'call_function']
        assert [op for op in ops if 'getitem' not in op] == ['mmwave.phase_mix.default']

    def test_the_reference_is_exported(self):
        class Mix(torch.nn.Module):
            def forward(self, *inputs):
                chosen = phase_mix_triton
                if phase_mix_triton.unsupported(*inputs) == 'the reference is exported':
                    chosen = phase_mix_reference
                return chosen(*inputs)

        inputs = tuple(tensors(1, 4, 3, 5, taps=3, device=self.device))
        for strict in (True, False):
            graph = str(torch.export.export(Mix(), inputs, strict=strict).graph)
            assert 'conv2d' in graph
            assert 'mmwave.phase_mix' not in graph
        graph = str(torch.jit.trace(Mix(), inputs).inlined_graph)
        assert 'aten::cos' in graph
        assert 'mmwave::' not in graph
        assert not phase_mix_triton.unsupported(*inputs)

    def test_what_it_does_not_support(self):
        def reason(*inputs):
            return phase_mix_triton.unsupported(*inputs)

        inputs = tensors(1, 4, 2, 2, device=self.device)
        assert reason(*inputs) == ''
        assert reason(*tensors(1, 3, 2, 2, device=self.device)) == (
            '3 channels are not an even number'
        )
        doubled = [x.double() for x in inputs]
        assert reason(*doubled) == 'torch.float64 is not supported'
        assert reason(inputs[0].half(), *inputs[1:]) == (
            'the tensors are of torch.float16 and of torch.float32'
        )
        assert reason(*(x[:0] for x in inputs[:4]), *inputs[4:]) == 'the maps are empty'
        assert reason(*inputs[:5], inputs[5].to('meta')) == (
            f'the tensors are on {inputs[0].device} and on meta'
        )


if INTERPRETED:

    class TestInterpreted(Kernels):
        device = 'cpu'

else:

    @pytest.mark.long
    def test_kernels_under_the_interpreter():
        """Run the tests above in a process in which kernels are interpreted."""
        pytest.importorskip('triton', reason='triton is not installed')
        environment = {k: v for k, v in os.environ.items() if not k.startswith('PYTEST')}
        file = Path(__file__)
        done = subprocess.run(
            [
                sys.executable,
                '-m',
                'pytest',
                '-q',
                '-p',
                'no:xdist',
                '-p',
                'no:cacheprovider',
                file,
            ],
            env={**environment, 'TRITON_INTERPRET': '1'},
            cwd=file.parents[2],
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
        assert 'skipped' not in done.stdout.splitlines()[-1]

    @pytest.mark.slow
    @pytest.mark.parametrize('one', ['in_c out_c to_c mean_c', 'in_w out_w to_w mean_c'])
    @pytest.mark.parametrize('name', ['forward_kernel', 'backward_kernel'])
    def test_compiles_for_a_gpu_without_spilled_registers(name, one, tmp_path):
        """The interpreter accepts Python that the compiler does not, and specialises no strides."""
        triton = pytest.importorskip('triton', reason='triton is not installed')
        from triton.backends.compiler import GPUTarget
        from triton.compiler import ASTSource

        from mmwave.ops._phase_mix import triton_kernels

        kernel = getattr(triton_kernels, name)
        last = 'in_c' in one
        lines, pairs = (4, 32) if last else (32, 4)
        tile = dict(BLOCK_LINES=lines, BLOCK_PAIRS=pairs)
        fixed = dict(SPLIT=last, KERNEL_SIZE=7) | tile | dict.fromkeys(one.split(), 1)
        types = dict.fromkeys(('kernel_h', 'kernel_w', 'sums', 'parts_h', 'parts_w'), '*fp32')
        types |= {'scale': 'fp32'} | dict.fromkeys(fixed, 'constexpr')
        maps = {'amplitude', 'phase', 'along_width', 'along_height', 'mean'}
        maps |= {'to_amplitude', 'to_phase'}
        for argument in kernel.arg_names:
            is_map = argument.removesuffix('_h').removesuffix('_w') in maps
            types.setdefault(argument, '*bf16' if is_map else 'i32')
        source = ASTSource(
            kernel,
            {x: types[x] for x in kernel.arg_names},
            {(i,): fixed[x] for i, x in enumerate(kernel.arg_names) if x in fixed},
        )
        target = GPUTarget('cuda', 90, 32)
        compiled = triton.compile(source, target=target, options={'num_warps': 4})
        (tmp_path / 'kernel.cubin').write_bytes(compiled.asm['cubin'])
        tool = Path(triton.__file__).parent / 'backends/nvidia/bin/cuobjdump'
        usage = subprocess.run(
            [tool, '--dump-resource-usage', tmp_path / 'kernel.cubin'],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        assert 'STACK:0' in usage
        # With the channels last: a multiprocessor holds five programs forward and four backward.
        registers = int(usage.split('REG:')[1].split()[0])
        assert registers <= (96 if name == 'forward_kernel' else 128) or not last

    @pytest.mark.gpu
    @pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
    class TestOnGPU(Kernels):
        device = 'cuda'

    def test_the_cpu_runs_the_reference():
        inputs = tensors(1, 2, 2, 2)
        assert phase_mix_triton.unsupported(*inputs) == (
            'the tensors are on cpu, not on a CUDA device'
        )
        assert select('phase_mix', IMPLEMENTATIONS, *inputs) is phase_mix_reference


def test_triton_is_optional_and_imported_lazily():
    # Torch may import Triton itself: what counts is who imports it.
    code = """
import inspect, sys
asked = []
class Watch:
    def find_spec(name, *_):
        if name != 'triton':
            return
        files = [f.filename for f in inspect.stack()]
        # importlib.util.find_spec imports nothing.
        if '<frozen importlib.util>' not in files:
            asked.extend(file for file in files if 'mmwave' in file)
sys.meta_path.insert(0, Watch)
if {blocked}:
    sys.modules['triton'] = None
import torch
from mmwave.ops._phase_mix import phase_mix_triton
reason = phase_mix_triton.unsupported(*[torch.zeros(2, 2, 1, 1)] * 6)
print([name for name in asked if name == {file!r}])
print(reason)
"""
    for blocked, reason in (
        (False, 'the tensors are on cpu, not on a CUDA device'),
        (True, 'triton is not installed'),
    ):
        done = subprocess.run(
            [sys.executable, '-c', code.format(blocked=blocked, file=backend.__file__)],
            env={k: v for k, v in os.environ.items() if k != 'TRITON_INTERPRET'},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.stdout.splitlines() == ['[]', reason], done.stderr
