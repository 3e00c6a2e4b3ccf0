# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, assignment"
# ruff: noqa: RUF005
# Triton's compiler supports few annotations, and only ``+`` to extend a tuple.
"""The Triton kernels behind ``triton.py``, which imports this file when they first run.

A program holds BLOCK_LINES lines by BLOCK_PAIRS pairs of channels in registers, one element per
thread, and iterates over one segment of the lines. A pair is what the op mixes: the channels 2k and
2k + 1, whose real parts yield output k and whose imaginary parts output C/2 + k. A step loads the
next position of the four tiles, computes its sines and cosines once, and accumulates it into the
KERNEL_SIZE outputs in reach, which shift by one: an element is loaded once per segment, and twice
only where segments overlap. The programs of both directions are one launch.

Offsets are of 64 bits: maps of more than 2^31 elements are safe.
"""

import triton
import triton.language as tl

# Integers by which the compiler must not specialise: another image size needs no new kernel.
_SIZES = ('pairs', 'height', 'width', 'segment_h', 'segment_w', 'programs_h')
_FREE = (*_SIZES, 'in_n', 'in_h', 'out_n', 'out_h', 'tap_g', 'tap_j', 'tap_t')


@triton.jit
def _cos_sin(angle):
    """Return cosine and sine of ``angle``, float32: to the last bits for angles below 1e5.

    Quarter turns are subtracted with pi/2 in four parts of eight bits, whose multiples are exact.
    Where they no longer suffice the result is wrong but still bounded; that of inf and NaN is NaN.
    """
    # Adding 1.5 * 2^23 rounds to an integer, which is then in the last bits.
    shifted = angle * 0.6366197723675814 + 12582912.0
    turns = shifted - 12582912.0
    quadrant = shifted.to(tl.int32, bitcast=True)
    x = angle - turns * 1.5703125
    x = x - turns * 0.0004825592041015625
    x = x - turns * 1.2665987014770508e-06
    x = x - turns * 9.92093629470503e-10
    x = tl.where(tl.abs(x) > 0.81, x * 0.0, x)
    y = x * x
    # Least maximal error for |x| <= 0.81: 2.4e-9 and 1.3e-10.
    sine = -0.16666647791862488 + y * (0.008331801742315292 - y * 0.0001947383425431326)
    sine = x + x * (y * sine)
    cosine = 0.04166664183139801 + y * (-0.0013887168606743217 + y * 2.4415518055320717e-05)
    cosine = (1.0 - 0.5 * y) + (y * y) * cosine
    odd = (quadrant & 1) != 0
    real = tl.where(odd, sine, cosine)
    imaginary = tl.where(odd, cosine, sine)
    real = tl.where(((quadrant + 1) & 2) != 0, -real, real)
    imaginary = tl.where((quadrant & 2) != 0, -imaginary, imaginary)
    return real, imaginary


@triton.jit
def _place(
    pid, pairs, lines, length, segment, BLOCK_LINES: tl.constexpr, BLOCK_PAIRS: tl.constexpr
):
    """Return image, row of partial results, start and end, lines and pairs of this program."""
    pair_blocks = tl.cdiv(pairs, BLOCK_PAIRS)
    line_blocks = tl.cdiv(lines, BLOCK_LINES)
    parts = line_blocks * tl.cdiv(length, segment)
    row = pid // pair_blocks
    part = row % parts
    image = row // parts
    start = part // line_blocks * segment
    stop = tl.minimum(start + segment, length)
    line = (part % line_blocks).to(tl.int64) * BLOCK_LINES + tl.arange(0, BLOCK_LINES)[:, None]
    pair = (pid % pair_blocks).to(tl.int64) * BLOCK_PAIRS + tl.arange(0, BLOCK_PAIRS)[None, :]
    return image.to(tl.int64), part, start, stop, line, pair


@triton.jit
def _as_tile(position):
    """Return a position as a 1x1 tile: Triton 3.9's interpreter treats scalar masks as ints."""
    return tl.full([1, 1], 0, tl.int32) + position


@triton.jit
def _taps(kernel, channel, parity, tap_strides, inside, KERNEL_SIZE: tl.constexpr):
    """Load the taps of output ``channel`` for the even (0) or odd (1) input of its pair."""
    taps = ()
    for t in tl.static_range(KERNEL_SIZE):
        at = kernel + channel * tap_strides[0] + parity * tap_strides[1] + t * tap_strides[2]
        taps = taps + (tl.load(at, mask=inside, other=0.0).to(tl.float32),)
    return taps


@triton.jit
def _read(at, other, inside):
    """Load a tile of each of two channels that are ``other`` apart, in float32; 0 outside."""
    first = tl.load(at, mask=inside, other=0.0).to(tl.float32)
    second = tl.load(at + other, mask=inside, other=0.0).to(tl.float32)
    return first, second


@triton.jit
def _scatter(sums, even, even_taps, odd, odd_taps, KERNEL_SIZE: tl.constexpr):
    """Add a pair of waves to the sums of the outputs in reach, the first output first."""
    added = ()
    for j in tl.static_range(KERNEL_SIZE):
        total = (
            sums[j] + even * even_taps[KERNEL_SIZE - 1 - j] + odd * odd_taps[KERNEL_SIZE - 1 - j]
        )
        added = added + (total,)
    return added


@triton.jit
def _gather(window, taps, KERNEL_SIZE: tl.constexpr):
    """Return the gradient of a wave from those of the outputs in reach, the first output first."""
    total = window[KERNEL_SIZE - 1] * taps[0]
    for t in tl.static_range(1, KERNEL_SIZE):
        total += window[KERNEL_SIZE - 1 - t] * taps[t]
    return total


@triton.jit
def _correlate(sums, window, wave, KERNEL_SIZE: tl.constexpr):
    """Add to the sums, one per tap, the products of a wave and the gradients in its reach."""
    added = ()
    for t in tl.static_range(KERNEL_SIZE):
        added = added + (sums[t] + window[KERNEL_SIZE - 1 - t] * wave,)
    return added


@triton.jit
def _mix(
    pid,
    amplitude,
    phase,
    kernel,
    mixed,
    sums,
    sums_rows,
    pairs,
    lines,
    length,
    segment,
    scale,
    in_strides,
    out_strides,
    tap_strides,
    SPLIT: tl.constexpr,
    KERNEL_SIZE: tl.constexpr,
    BLOCK_LINES: tl.constexpr,
    BLOCK_PAIRS: tl.constexpr,
):
    """One direction of ``forward_kernel``; ``sums`` points at its first row of an image."""
    in_n, in_c, in_line, in_at = in_strides
    out_n, out_c, out_line, out_at = out_strides
    REACH: tl.constexpr = KERNEL_SIZE // 2
    image, part, start, stop, line, pair = _place(
        pid, pairs, lines, length, segment, BLOCK_LINES, BLOCK_PAIRS
    )
    own = pair < pairs
    lanes = (line < lines) & own
    even_real = _taps(kernel, pair, 0, tap_strides, own, KERNEL_SIZE)
    odd_real = _taps(kernel, pair, 1, tap_strides, own, KERNEL_SIZE)
    even_imag = _taps(kernel, pair + pairs, 0, tap_strides, own, KERNEL_SIZE)
    odd_imag = _taps(kernel, pair + pairs, 1, tap_strides, own, KERNEL_SIZE)
    if SPLIT:
        source = line * in_line + pair * in_c
        other = pairs.to(tl.int64) * in_c
    else:
        source = line * in_line + 2 * pair * in_c
        other = in_c
    mixed_other = pairs.to(tl.int64) * out_c
    first = tl.maximum(start - REACH, 0)
    source += image * in_n + first.to(tl.int64) * in_at
    amplitude += source
    phase += source
    mixed += image * out_n + line * out_line + pair * out_c
    mixed += (first - REACH).to(tl.int64) * out_at

    zero = tl.zeros([BLOCK_LINES, BLOCK_PAIRS], tl.float32)
    # Entry j is the sum so far of output at - REACH + j.
    real = (zero,) * KERNEL_SIZE
    imag = (zero,) * KERNEL_SIZE
    sum_real = zero
    sum_imag = zero
    even, odd = _read(amplitude, other, lanes)
    even_phase, odd_phase = _read(phase, other, lanes)
    for at in range(first, stop + REACH):
        # Prefetch the next position while this one is computed.
        amplitude += in_at
        phase += in_at
        here = _as_tile(at)
        inside = lanes & (here + 1 < length)
        next_even, next_odd = _read(amplitude, other, inside)
        next_even_phase, next_odd_phase = _read(phase, other, inside)
        cosine, sine = _cos_sin(even_phase)
        real_even = even * cosine
        imag_even = even * sine
        cosine, sine = _cos_sin(odd_phase)
        real_odd = odd * cosine
        imag_odd = odd * sine
        real = _scatter(real, real_even, even_real, real_odd, odd_real, KERNEL_SIZE)
        imag = _scatter(imag, imag_even, even_imag, imag_odd, odd_imag, KERNEL_SIZE)
        complete = here - REACH >= start
        tl.store(mixed, real[0].to(mixed.dtype.element_ty), mask=lanes & complete)
        tl.store(mixed + mixed_other, imag[0].to(mixed.dtype.element_ty), mask=lanes & complete)
        mixed += out_at
        sum_real += tl.where(complete, real[0], 0.0)
        sum_imag += tl.where(complete, imag[0], 0.0)
        real = real[1:] + (zero,)
        imag = imag[1:] + (zero,)
        even = next_even
        odd = next_odd
        even_phase = next_even_phase
        odd_phase = next_odd_phase
    sums += (image * sums_rows + part) * 2 * pairs + pair
    tl.store(sums, tl.sum(sum_real, axis=0, keep_dims=True) * scale, mask=own)
    tl.store(sums + pairs, tl.sum(sum_imag, axis=0, keep_dims=True) * scale, mask=own)


@triton.jit(do_not_specialize=(*_FREE, 'sums_rows', 'sums_h', 'scale'))
def forward_kernel(
    amplitude_h,
    phase_h,
    amplitude_w,
    phase_w,
    kernel_h,
    kernel_w,
    along_width,
    along_height,
    sums,
    sums_rows,
    sums_h,
    pairs,
    height,
    width,
    segment_h,
    segment_w,
    programs_h,
    scale,
    in_n,
    in_c,
    in_h,
    in_w,
    out_n,
    out_c,
    out_h,
    out_w,
    tap_g,
    tap_j,
    tap_t,
    SPLIT: tl.constexpr,
    KERNEL_SIZE: tl.constexpr,
    BLOCK_LINES: tl.constexpr,
    BLOCK_PAIRS: tl.constexpr,
):
    """Mix along the width (the first ``programs_h`` programs) and along the height.

    ``sums`` (N, sums_rows, C) receives each program's sum over its positions times ``scale``; the
    first ``sums_h`` rows of an image are of the width.
    """
    pid = tl.program_id(0)
    if pid < programs_h:
        _mix(
            pid,
            amplitude_h,
            phase_h,
            kernel_h,
            along_width,
            sums,
            sums_rows,
            pairs,
            height,
            width,
            segment_h,
            scale,
            (in_n, in_c, in_h, in_w),
            (out_n, out_c, out_h, out_w),
            (tap_g, tap_j, tap_t),
            SPLIT,
            KERNEL_SIZE,
            BLOCK_LINES,
            BLOCK_PAIRS,
        )
    else:
        _mix(
            pid - programs_h,
            amplitude_w,
            phase_w,
            kernel_w,
            along_height,
            sums + sums_h.to(tl.int64) * 2 * pairs,
            sums_rows,
            pairs,
            width,
            height,
            segment_w,
            scale,
            (in_n, in_c, in_w, in_h),
            (out_n, out_c, out_w, out_h),
            (tap_g, tap_j, tap_t),
            SPLIT,
            KERNEL_SIZE,
            BLOCK_LINES,
            BLOCK_PAIRS,
        )


@triton.jit
def _mix_backward(
    pid,
    amplitude,
    phase,
    kernel,
    gradient,
    gradient_mean,
    amplitude_gradient,
    phase_gradient,
    kernel_parts,
    pairs,
    lines,
    length,
    segment,
    scale,
    in_strides,
    out_strides,
    to_strides,
    mean_strides,
    tap_strides,
    SPLIT: tl.constexpr,
    KERNEL_SIZE: tl.constexpr,
    BLOCK_LINES: tl.constexpr,
    BLOCK_PAIRS: tl.constexpr,
):
    """One direction of ``backward_kernel``."""
    in_n, in_c, in_line, in_at = in_strides
    out_n, out_c, out_line, out_at = out_strides
    to_n, to_c, to_line, to_at = to_strides
    mean_n, mean_c = mean_strides
    REACH: tl.constexpr = KERNEL_SIZE // 2
    image, _, start, stop, line, pair = _place(
        pid, pairs, lines, length, segment, BLOCK_LINES, BLOCK_PAIRS
    )
    own = pair < pairs
    lanes = (line < lines) & own
    even_real = _taps(kernel, pair, 0, tap_strides, own, KERNEL_SIZE)
    odd_real = _taps(kernel, pair, 1, tap_strides, own, KERNEL_SIZE)
    even_imag = _taps(kernel, pair + pairs, 0, tap_strides, own, KERNEL_SIZE)
    odd_imag = _taps(kernel, pair + pairs, 1, tap_strides, own, KERNEL_SIZE)
    if SPLIT:
        source = line * in_line + pair * in_c
        target = line * to_line + pair * to_c
        other = pairs.to(tl.int64) * in_c
        to_other = pairs.to(tl.int64) * to_c
    else:
        source = line * in_line + 2 * pair * in_c
        target = line * to_line + 2 * pair * to_c
        other = in_c
        to_other = to_c
    source += image * in_n + start.to(tl.int64) * in_at
    amplitude += source
    phase += source
    target += image * to_n + start.to(tl.int64) * to_at
    amplitude_gradient += target
    phase_gradient += target
    gradient += image * out_n + line * out_line + pair * out_c
    gradient += (start - REACH).to(tl.int64) * out_at
    gradient_other = pairs.to(tl.int64) * out_c
    mean_real, mean_imag = _read(
        gradient_mean + image * mean_n + pair * mean_c, pairs.to(tl.int64) * mean_c, own
    )
    mean_real *= scale
    mean_imag *= scale

    zero = tl.zeros([BLOCK_LINES, BLOCK_PAIRS], tl.float32)
    # Entry j is the gradient of output at - REACH + j.
    window_real = ()
    window_imag = ()
    for j in tl.static_range(KERNEL_SIZE):
        at = start - REACH + j
        within = (_as_tile(at) >= 0) & (_as_tile(at) < length)
        got_real, got_imag = _read(gradient, gradient_other, lanes & within)
        gradient += out_at
        window_real = window_real + (got_real + tl.where(within, mean_real, 0.0),)
        window_imag = window_imag + (got_imag + tl.where(within, mean_imag, 0.0),)
    # Entry t is the gradient of tap t, from the positions of this segment.
    taps_even_real = (zero,) * KERNEL_SIZE
    taps_odd_real = (zero,) * KERNEL_SIZE
    taps_even_imag = (zero,) * KERNEL_SIZE
    taps_odd_imag = (zero,) * KERNEL_SIZE
    even, odd = _read(amplitude, other, lanes)
    even_phase, odd_phase = _read(phase, other, lanes)
    for at in range(start, stop):
        # Prefetch the next position while this one is computed.
        amplitude += in_at
        phase += in_at
        here = _as_tile(at)
        inside = lanes & (here + 1 < length)
        next_even, next_odd = _read(amplitude, other, inside)
        next_even_phase, next_odd_phase = _read(phase, other, inside)
        within = here + 1 + REACH < length
        got_real, got_imag = _read(gradient, gradient_other, lanes & within)
        gradient += out_at
        cosine_even, sine_even = _cos_sin(even_phase)
        cosine_odd, sine_odd = _cos_sin(odd_phase)
        real_even = even * cosine_even
        imag_even = even * sine_even
        real_odd = odd * cosine_odd
        imag_odd = odd * sine_odd
        to_real_even = _gather(window_real, even_real, KERNEL_SIZE)
        to_real_odd = _gather(window_real, odd_real, KERNEL_SIZE)
        to_imag_even = _gather(window_imag, even_imag, KERNEL_SIZE)
        to_imag_odd = _gather(window_imag, odd_imag, KERNEL_SIZE)
        taps_even_real = _correlate(taps_even_real, window_real, real_even, KERNEL_SIZE)
        taps_odd_real = _correlate(taps_odd_real, window_real, real_odd, KERNEL_SIZE)
        taps_even_imag = _correlate(taps_even_imag, window_imag, imag_even, KERNEL_SIZE)
        taps_odd_imag = _correlate(taps_odd_imag, window_imag, imag_odd, KERNEL_SIZE)
        dtype = amplitude_gradient.dtype.element_ty
        moved = to_real_even * cosine_even + to_imag_even * sine_even
        tl.store(amplitude_gradient, moved.to(dtype), mask=lanes)
        moved = to_real_odd * cosine_odd + to_imag_odd * sine_odd
        tl.store(amplitude_gradient + to_other, moved.to(dtype), mask=lanes)
        turned = to_imag_even * real_even - to_real_even * imag_even
        tl.store(phase_gradient, turned.to(dtype), mask=lanes)
        turned = to_imag_odd * real_odd - to_real_odd * imag_odd
        tl.store(phase_gradient + to_other, turned.to(dtype), mask=lanes)
        amplitude_gradient += to_at
        phase_gradient += to_at
        window_real = window_real[1:] + (got_real + tl.where(within, mean_real, 0.0),)
        window_imag = window_imag[1:] + (got_imag + tl.where(within, mean_imag, 0.0),)
        even = next_even
        odd = next_odd
        even_phase = next_even_phase
        odd_phase = next_odd_phase
    # (rows, C, 2, KERNEL_SIZE), a row for each program of the same pairs, summed in this order.
    row = (pid // tl.cdiv(pairs, BLOCK_PAIRS)).to(tl.int64)
    real_to = kernel_parts + (row * 2 * pairs + pair) * (2 * KERNEL_SIZE)
    imag_to = real_to + pairs.to(tl.int64) * (2 * KERNEL_SIZE)
    for t in tl.static_range(KERNEL_SIZE):
        tl.store(real_to + t, tl.sum(taps_even_real[t], axis=0, keep_dims=True), mask=own)
        tl.store(
            real_to + KERNEL_SIZE + t, tl.sum(taps_odd_real[t], axis=0, keep_dims=True), mask=own
        )
        tl.store(imag_to + t, tl.sum(taps_even_imag[t], axis=0, keep_dims=True), mask=own)
        tl.store(
            imag_to + KERNEL_SIZE + t, tl.sum(taps_odd_imag[t], axis=0, keep_dims=True), mask=own
        )


@triton.jit(do_not_specialize=(*_FREE, 'to_n', 'to_h', 'mean_n', 'scale'))
def backward_kernel(
    amplitude_h,
    phase_h,
    amplitude_w,
    phase_w,
    kernel_h,
    kernel_w,
    along_width,
    along_height,
    mean,
    to_amplitude_h,
    to_phase_h,
    to_amplitude_w,
    to_phase_w,
    parts_h,
    parts_w,
    pairs,
    height,
    width,
    segment_h,
    segment_w,
    programs_h,
    scale,
    in_n,
    in_c,
    in_h,
    in_w,
    out_n,
    out_c,
    out_h,
    out_w,
    to_n,
    to_c,
    to_h,
    to_w,
    mean_n,
    mean_c,
    tap_g,
    tap_j,
    tap_t,
    SPLIT: tl.constexpr,
    KERNEL_SIZE: tl.constexpr,
    BLOCK_LINES: tl.constexpr,
    BLOCK_PAIRS: tl.constexpr,
):
    """Gradients of the four maps and, in parts to be summed, of the taps.

    ``along_width``, ``along_height`` (strides ``out_``) and ``mean`` are the gradients of the three
    results, ``to_`` are those of the maps.
    """
    pid = tl.program_id(0)
    if pid < programs_h:
        _mix_backward(
            pid,
            amplitude_h,
            phase_h,
            kernel_h,
            along_width,
            mean,
            to_amplitude_h,
            to_phase_h,
            parts_h,
            pairs,
            height,
            width,
            segment_h,
            scale,
            (in_n, in_c, in_h, in_w),
            (out_n, out_c, out_h, out_w),
            (to_n, to_c, to_h, to_w),
            (mean_n, mean_c),
            (tap_g, tap_j, tap_t),
            SPLIT,
            KERNEL_SIZE,
            BLOCK_LINES,
            BLOCK_PAIRS,
        )
    else:
        _mix_backward(
            pid - programs_h,
            amplitude_w,
            phase_w,
            kernel_w,
            along_height,
            mean,
            to_amplitude_w,
            to_phase_w,
            parts_w,
            pairs,
            width,
            height,
            segment_w,
            scale,
            (in_n, in_c, in_w, in_h),
            (out_n, out_c, out_w, out_h),
            (to_n, to_c, to_w, to_h),
            (mean_n, mean_c),
            (tap_g, tap_j, tap_t),
            SPLIT,
            KERNEL_SIZE,
            BLOCK_LINES,
            BLOCK_PAIRS,
        )
