// phase_mix on the CPU: one pass over each map, one cosine and sine of each phase, sums in the same pass.
//
// The channels of a position are contiguous; see phase_mix in __init__.py for the definition and for the two orders of
// channels. Everything is computed in float32, long sums in float64; in bfloat16 the waves are rounded in between, as
// in the reference. Most loops over channels are left to the compiler to vectorise.

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <type_traits>
#include <vector>

#include "_phase_mix/lines.h"

namespace {

using namespace mmwave;

// Cosine and sine together: reduced to +-pi/4 in three steps (Cody and Waite), then polynomials. Accurate to one or two
// ulp for |x| below 8192. The constants are those of Cephes' sinf and cosf.
inline void cos_sin(float x, float& c, float& s) {
  const float turns = x * 0.636619772f;  // quarters of a turn
  const float magic = 12582912.0f;       // 1.5 * 2^23: adding it rounds to a whole number
  const float q = (turns + magic) - magic;
  float r = std::fma(q, -1.5703125f, x);
  r = std::fma(q, -4.837512969970703125e-4f, r);
  r = std::fma(q, -7.549789948768648e-8f, r);
  const float r2 = r * r;
  const float sine =
      std::fma(r2 * r, std::fma(r2, std::fma(r2, -1.9515295891e-4f, 8.3321608736e-3f), -1.6666654611e-1f), r);
  const float cosine = std::fma(
      r2 * r2, std::fma(r2, std::fma(r2, 2.443315711809948e-5f, -1.388731625493765e-3f), 4.166664568298827e-2f),
      std::fma(r2, -0.5f, 1.0f));
  const int32_t quarter = static_cast<int32_t>(q);
  const bool swapped = quarter & 1;
  const float a = swapped ? sine : cosine;
  const float b = swapped ? cosine : sine;
  c = ((quarter + 1) & 2) ? -a : a;
  s = (quarter & 2) ? -b : b;
}

// Load C channels of one position as float32, the even ones first. In the map the odd ones start `start` after the even
// ones, and either are `step` apart.
template <typename T, int64_t step>
inline void load(const T* __restrict__ from, int64_t start, float* __restrict__ to, int64_t channels) {
  const int64_t half = channels / 2;
  for (int64_t g = 0; g < half; ++g) to[g] = widen(from[g * step]);
  for (int64_t g = 0; g < half; ++g) to[half + g] = widen(from[start + g * step]);
}

// Real and imaginary parts of one position, C of each; with `turning` also cosines and sines. Phases are clamped to at
// least `least`.
template <bool turning>
inline void unfold(const float* __restrict__ amplitude, const float* __restrict__ phase, float least,
                   float* __restrict__ wave, float* __restrict__ turned, int64_t channels) {
  for (int64_t c = 0; c < channels; ++c) {
    float cosine, sine;
    cos_sin(phase[c] < least ? least : phase[c], cosine, sine);
    wave[c] = amplitude[c] * cosine;
    wave[channels + c] = amplitude[c] * sine;
    if (turning) {
      turned[c] = cosine;
      turned[channels + c] = sine;
    }
  }
}

// Output channels of one position: each mixes two neighbouring channels of one part over K positions. `waves` are the
// 2C parts of the first of them, kernel is [K][2][C].
template <typename T>
inline void mix(const float* waves, const float* __restrict__ kernel, int64_t taps, int64_t channels,
                float* __restrict__ sum, T* __restrict__ out, double* __restrict__ total) {
  const int64_t half = channels / 2;
  for (int64_t part = 0; part < 2; ++part) {
    float* into = sum + part * half;
    for (int64_t g = 0; g < half; ++g) into[g] = 0;
    for (int64_t t = 0; t < taps; ++t) {
      const float* wave = waves + (2 * t + part) * channels;
      const float* k = kernel + part * half + t * 2 * channels;
      for (int64_t g = 0; g < half; ++g) into[g] += k[g] * wave[g] + k[channels + g] * wave[half + g];
    }
  }
  for (int64_t g = 0; g < channels; ++g) narrow(sum[g], out[g]);
  for (int64_t g = 0; g < channels; ++g) total[g] += sum[g];
}

// The same for seven taps along a whole line, a few channels at a time: weights and the sums of the outputs that a
// position contributes to stay in registers, so that every wave is loaded once. `waves` are `length` positions and
// three of zeros, outputs are `step` apart.
template <typename T>
inline void mix_line(const float* waves, const float* kernel, int64_t length, int64_t channels, T* out, int64_t step,
                     double* total) {
  const int64_t half = channels / 2;
  for (int64_t at = 0; at < channels; at += kLanes) {
    const int64_t part = at / half;
    Lanes even[7], odd[7];
#pragma GCC unroll 7
    for (int64_t t = 0; t < 7; ++t) {
      even[t] = widen_lanes(kernel + t * 2 * channels + at);
      odd[t] = widen_lanes(kernel + (t * 2 + 1) * channels + at);
    }
    // A position has C real parts, then C imaginary ones, the even channels first.
    const float* wave = waves + part * half + at;
    // Partial sums of the outputs from three positions back to two ahead.
    Lanes a{}, b{}, c{}, d{}, e{}, f{}, partial{};
    for (int64_t z = 0; z < length + 3; ++z, wave += 2 * channels) {
      const Lanes x = widen_lanes(wave), y = widen_lanes(wave + half);
      const Lanes whole = odd[6] * y + (even[6] * x + a);
      a = odd[5] * y + (even[5] * x + b);
      b = odd[4] * y + (even[4] * x + c);
      c = odd[3] * y + (even[3] * x + d);
      d = odd[2] * y + (even[2] * x + e);
      e = odd[1] * y + (even[1] * x + f);
      f = odd[0] * y + even[0] * x;
      if (z < 3) continue;
      narrow(whole, out + (z - 3) * step + at);
      partial += whole;
      // Sum a few positions in float32, then add them to the total in float64.
      if (z % 16 == 0 || z == length + 2) move_to(total + at, partial);
    }
  }
}

// The backward of one position: gradients of its parts, which contribute to K outputs, and the contribution of the
// gradient of its output to those of the kernel, from K positions. gradients[t] is that of the output to which this
// position contributes by tap t.
inline void unmix(const float* const* gradients, const float* const* waves, const float* gradient, const float* kernel,
                  int64_t taps, int64_t channels, float* back, float* kernel_sum) {
  const int64_t half = channels / 2;
  for (int64_t i = 0; i < 2 * channels; ++i) back[i] = 0;
  for (int64_t t = 0; t < taps; ++t) {
    const int64_t row = t * 2 * channels;
    for (int64_t part = 0; part < 2; ++part) {
      const int64_t at = row + part * half;
      float* even = back + part * channels;
      float* odd = even + half;
      if (const float* g = gradients[t]) {
        g += part * half;
        const float* a = kernel + at;
        const float* b = kernel + at + channels;
        for (int64_t c = 0; c < half; ++c) even[c] += a[c] * g[c];
        for (int64_t c = 0; c < half; ++c) odd[c] += b[c] * g[c];
      }
      if (const float* wave = waves[t]) {
        wave += part * channels;
        const float* g = gradient + part * half;
        float* a = kernel_sum + at;
        float* b = kernel_sum + at + channels;
        for (int64_t c = 0; c < half; ++c) a[c] += g[c] * wave[c];
        for (int64_t c = 0; c < half; ++c) b[c] += g[c] * wave[half + c];
      }
    }
  }
}

// Gradients of the amplitudes and phases of one position from those of its parts.
template <typename T, int64_t step>
inline void refold(const float* back, const float* wave, const float* turned, int64_t start, T* amplitude, T* phase,
                   int64_t channels) {
  const int64_t half = channels / 2;
  for (int64_t second = 0; second < 2; ++second) {
    const int64_t at = second * half;
    T* a = amplitude + second * start;
    T* p = phase + second * start;
    for (int64_t g = 0; g < half; ++g) {
      const float real = back[at + g], imag = back[channels + at + g];
      narrow(real * turned[at + g] + imag * turned[channels + at + g], a[g * step]);
      narrow(imag * wave[at + g] - real * wave[channels + at + g], p[g * step]);
    }
  }
}

// Mix along one axis. Sums over all positions of a group of lines are added to `totals`, where those of an image are
// `row` apart.
template <typename T>
void along(const Lines& lines, const Tensor& amplitude, const Tensor& phase, const Tensor& kernel, bool split,
           bool rectify, Tensor& out, double* totals, int64_t row) {
  const float least = rectify ? 0.0f : -std::numeric_limits<float>::infinity();
  const int64_t taps = kernel.size(0), reach = taps / 2, c = lines.map.c, length = lines.length;
  const T* a = amplitude.const_data_ptr<T>();
  const T* p = phase.const_data_ptr<T>();
  const float* k = kernel.const_data_ptr<float>();
  T* o = out.mutable_data_ptr<T>();
  at::parallel_for(0, lines.tasks(), 1, [&](int64_t begin, int64_t end) {
    // The parts of all positions of every line, with zeros before and after.
    const int64_t line_size = (length + 2 * reach) * 2 * c;
    Zeros<float> parts(lines.together * line_size), wide_a(c), wide_p(c), sum(c);
    const bool by_line = taps == 7 && c / 2 % kLanes == 0;
    auto read = [&](const T* from, float* to) -> const float* {
      if constexpr (std::is_same_v<T, float>) {
        if (split) return from;
      }
      split ? load<T, 1>(from, c / 2, to, c) : load<T, 2>(from, 1, to, c);
      return to;
    };
    for (int64_t task = begin; task < end; ++task) {
      const int64_t image = task / lines.groups, group = task % lines.groups;
      const int64_t first = lines.first(group), last = lines.first(group + 1);
      double* total = totals + image * row + group * c;
      for (int64_t z = 0; z < length; ++z) {
        for (int64_t line = first; line < last; ++line) {
          float* into = parts.data() + (line - first) * line_size + (z + reach) * 2 * c;
          unfold<false>(read(a + lines.at(amplitude, image, line, z), wide_a.data()),
                        read(p + lines.at(phase, image, line, z), wide_p.data()), least, into, nullptr, c);
        }
      }
      for (int64_t line = first; line < last; ++line) {
        const float* waves = parts.data() + (line - first) * line_size;
        T* into = o + lines.at(out, image, line, 0);
        const int64_t step = lines.at(out, image, line, 1) - lines.at(out, image, line, 0);
        if (by_line) {
          mix_line(waves + reach * 2 * c, k, length, c, into, step, total);
          continue;
        }
        for (int64_t z = 0; z < length; ++z) {
          mix(waves + z * 2 * c, k, taps, c, sum.data(), into + z * step, total);
        }
      }
    }
  });
}

#ifdef MMWAVE_PAIRS
bool takes_pairs(const Tensor& map, const Tensor& kernel) {
  return map.scalar_type() == at::kBFloat16 && kernel.scalar_type() == at::kBFloat16 &&
         map.size(1) % (2 * kLanes) == 0 && kernel.numel() == 14 * map.size(1);
}

void along_maps(const Lines& lines, const Tensor& amplitude, const Tensor& phase, const Tensor& kernel, bool split,
                bool rectify, Tensor& out, double* totals, int64_t row) {
  const Lanes least = every(rectify ? 0.0f : -std::numeric_limits<float>::infinity());
  const BFloat16* a = amplitude.const_data_ptr<BFloat16>();
  const BFloat16* p = phase.const_data_ptr<BFloat16>();
  along_pairs(lines, kernel, out, totals, row,
              [&](int64_t image, int64_t first, int64_t last, uint32_t* parts, int64_t line_size) {
    for (int64_t z = 0; z < lines.length; ++z) {
      for (int64_t line = first; line < last; ++line) {
        auto read = split ? unfold_position<true> : unfold_position<false>;
        read(a + lines.at(amplitude, image, line, z), p + lines.at(phase, image, line, z), least,
             parts + (line - first) * line_size + z * lines.map.c, lines.map.c);
      }
    }
  });
}
#endif

// The backward along one axis. `shift` (N, C) is added to the gradient of every position.
template <typename T>
void back_along(const Tensor& gradient, const Tensor& shift, const Tensor& amplitude, const Tensor& phase,
                const Tensor& kernel, bool split, bool rectify, Tensor& to_amplitude, Tensor& to_phase,
                Tensor& partial, bool along_width) {
  const float least = rectify ? 0.0f : -std::numeric_limits<float>::infinity();
  const Map m{amplitude.size(0), amplitude.size(1), amplitude.size(2), amplitude.size(3)};
  const int64_t taps = kernel.size(0), reach = taps / 2, c = m.c;
  const int64_t length = along_width ? m.w : m.h, lines = along_width ? m.h : m.w;
  const T* a = amplitude.const_data_ptr<T>();
  const T* p = phase.const_data_ptr<T>();
  const T* g = gradient.const_data_ptr<T>();
  const float* k = kernel.const_data_ptr<float>();
  const float* on_top = shift.const_data_ptr<float>();
  T* out_a = to_amplitude.mutable_data_ptr<T>();
  T* out_p = to_phase.mutable_data_ptr<T>();
  float* sums = partial.mutable_data_ptr<float>();
  at::parallel_for(0, m.n * lines, 1, [&](int64_t begin, int64_t end) {
    std::vector<float> wide_a(c), wide_p(c);
    auto read = [&](const T* from, float* to) {
      split ? load<T, 1>(from, c / 2, to, c) : load<T, 2>(from, 1, to, c);
    };
    std::vector<float> wave_ring(taps * 2 * c), turned_ring(taps * 2 * c), gradient_ring(taps * c), back(2 * c);
    std::vector<const float*> waves(taps), gradients(taps);
    for (int64_t task = begin; task < end; ++task) {
      const int64_t i = task / lines, line = task % lines;
      float* kernel_sum = sums + task * taps * 2 * c;
      auto offset = [&](const Tensor& x, int64_t z) { return along_width ? m.at(x, i, line, z) : m.at(x, i, z, line); };
      for (int64_t z = 0; z < length + reach; ++z) {
        if (z < length) {
          float* wave = wave_ring.data() + (z % taps) * 2 * c;
          float* turned = turned_ring.data() + (z % taps) * 2 * c;
          read(a + offset(amplitude, z), wide_a.data());
          read(p + offset(phase, z), wide_p.data());
          unfold<true>(wide_a.data(), wide_p.data(), least, wave, turned, c);
          float* into = gradient_ring.data() + (z % taps) * c;
          const T* from_g = g + offset(gradient, z);
          for (int64_t j = 0; j < c; ++j) into[j] = widen(from_g[j]) + on_top[i * c + j];
        }
        const int64_t centre = z - reach;
        if (centre < 0) continue;
        for (int64_t t = 0; t < taps; ++t) {
          const int64_t from = centre + t - reach, to = centre + reach - t;
          waves[t] = from >= 0 && from < length ? wave_ring.data() + (from % taps) * 2 * c : nullptr;
          gradients[t] = to >= 0 && to < length ? gradient_ring.data() + (to % taps) * c : nullptr;
        }
        const int64_t slot = centre % taps;
        unmix(gradients.data(), waves.data(), gradient_ring.data() + slot * c, k, taps, c, back.data(), kernel_sum);
        const float* wave = wave_ring.data() + slot * 2 * c;
        const float* turned = turned_ring.data() + slot * 2 * c;
        T* into_a = out_a + offset(to_amplitude, centre);
        T* into_p = out_p + offset(to_phase, centre);
        if (split) {
          refold<T, 1>(back.data(), wave, turned, c / 2, into_a, into_p, c);
        } else {
          refold<T, 2>(back.data(), wave, turned, 1, into_a, into_p, c);
        }
      }
    }
  });
}

// (C, 2, taps) -> (taps, 2, C), so that the weights of a tap are contiguous across channels.
Tensor channels_last_kernel(const Tensor& kernel) {
  return kernel.reshape({kernel.size(0), 2, -1}).permute({2, 1, 0}).to(at::kFloat).contiguous();
}

std::tuple<Tensor, Tensor, Tensor> phase_mix(const Tensor& amplitude_h, const Tensor& phase_h,
                                             const Tensor& amplitude_w, const Tensor& phase_w, const Tensor& kernel_h,
                                             const Tensor& kernel_w, bool split, bool rectify) {
  auto mix = [&](bool of_rows, const Lines& lines, const Tensor& kernel, Tensor& out, double* totals, int64_t row) {
    const Tensor &amplitude = of_rows ? amplitude_h : amplitude_w, &phase = of_rows ? phase_h : phase_w;
#ifdef MMWAVE_PAIRS
    if (takes_pairs(amplitude, kernel)) {
      return along_maps(lines, amplitude, phase, kernel, split, rectify, out, totals, row);
    }
#endif
    by_type(amplitude, [&](auto zero) {
      along<decltype(zero)>(lines, amplitude, phase, channels_last_kernel(kernel), split, rectify, out, totals, row);
    });
  };
  return mix_both_axes(amplitude_h, kernel_h, kernel_w, mix);
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> phase_mix_backward(
    const Tensor& gradient_h, const Tensor& gradient_w, const Tensor& gradient_mean, const Tensor& amplitude_h,
    const Tensor& phase_h, const Tensor& amplitude_w, const Tensor& phase_w, const Tensor& kernel_h,
    const Tensor& kernel_w, bool split, bool rectify) {
  const int64_t n = amplitude_h.size(0), c = amplitude_h.size(1), h = amplitude_h.size(2), w = amplitude_h.size(3);
  const Tensor shift = (gradient_mean.to(at::kFloat) / static_cast<double>(h * w)).contiguous();
  auto dense = [](const Tensor& x) { return x.contiguous(at::MemoryFormat::ChannelsLast); };
  const Tensor g_h = dense(gradient_h), g_w = dense(gradient_w);
  Tensor a_h = empty_channels_last(amplitude_h), p_h = empty_channels_last(amplitude_h);
  Tensor a_w = empty_channels_last(amplitude_h), p_w = empty_channels_last(amplitude_h);
  const int64_t taps = kernel_h.size(3);
  const auto floats = amplitude_h.options().dtype(at::kFloat);
  Tensor sums_h = at::zeros({n * h, taps, 2, c}, floats), sums_w = at::zeros({n * w, taps, 2, c}, floats);
  const Tensor k_h = channels_last_kernel(kernel_h), k_w = channels_last_kernel(kernel_w);
  by_type(amplitude_h, [&](auto zero) {
    using T = decltype(zero);
    back_along<T>(g_h, shift, amplitude_h, phase_h, k_h, split, rectify, a_h, p_h, sums_h, true);
    back_along<T>(g_w, shift, amplitude_w, phase_w, k_w, split, rectify, a_w, p_w, sums_w, false);
  });
  if (rectify) {
    p_h.masked_fill_(phase_h.le(0), 0);
    p_w.masked_fill_(phase_w.le(0), 0);
  }
  auto of_kernel = [](const Tensor& sums, const Tensor& kernel) {
    return sums.sum(0).permute({2, 1, 0}).reshape(kernel.sizes()).to(kernel.scalar_type()).contiguous();
  };
  return {a_h, p_h, a_w, p_w, of_kernel(sums_h, kernel_h), of_kernel(sums_w, kernel_w)};
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(mmwave_cpp, library) {
  library.def(
      "phase_mix(Tensor amplitude_h, Tensor phase_h, Tensor amplitude_w, Tensor phase_w, Tensor kernel_h, Tensor "
      "kernel_w, bool split, bool rectify) -> (Tensor, Tensor, Tensor)");
  library.def(
      "phase_mix_backward(Tensor gradient_h, Tensor gradient_w, Tensor gradient_mean, Tensor amplitude_h, Tensor "
      "phase_h, Tensor amplitude_w, Tensor phase_w, Tensor kernel_h, Tensor kernel_w, bool split, bool "
      "rectify) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)");
}

TORCH_LIBRARY_IMPL(mmwave_cpp, CPU, library) {
  library.impl("phase_mix", &phase_mix);
  library.impl("phase_mix_backward", &phase_mix_backward);
}
