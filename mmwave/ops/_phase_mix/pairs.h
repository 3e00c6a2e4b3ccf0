// Waves of bfloat16 in pairs, and their mixing along a line.

#pragma once

#include "lanes.h"

#ifdef MMWAVE_PAIRS

namespace mmwave {

// In bfloat16 the processor multiplies two pairs of numbers at a time and adds both products to a sum in float32.
// Each output channel mixes two channels: waves and weights of a position are stored as C pairs, one for each output
// channel, with the even channel in the lower half.

// Cosine and sine to 4e-5 for |x| below 300, where the rounding error of bfloat16 is 2e-3: x in turns minus the
// nearest integer, then minimax polynomials on half a turn either way.
inline void cos_sin(Lanes x, Lanes& c, Lanes& s) {
  const Lanes turns = x * 0.159154943f;
  // inf - inf = NaN, as cos(inf).
  const Lanes r = (turns - turns) + _mm512_reduce_ps(turns, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  const Lanes r2 = r * r;
  c = (((45.621051f * r2 - 82.390806f) * r2 + 64.671442f) * r2 - 19.730942f) * r2 + 0.99995902f;
  s = r * ((((33.548355f * r2 - 74.90942f) * r2 + 81.447706f) * r2 - 41.336832f) * r2 + 6.2831611f);
}

inline Lanes even_of(__m512i pairs) { return (Lanes)_mm512_slli_epi32(pairs, 16); }
inline Lanes odd_of(__m512i pairs) { return (Lanes)_mm512_and_si512(pairs, _mm512_set1_epi32(0xFFFF0000)); }
inline __m512i paired(Lanes even, Lanes odd) {
  alignas(64) static constexpr uint16_t order[32] = {0,  16, 1,  17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
                                                     8,  24, 9,  25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
  return _mm512_permutexvar_epi16(_mm512_load_si512(order), (__m512i)_mm512_cvtne2ps_pbh(odd, even));
}

// Real and imaginary parts of a register of pairs of channels, stored `half` pairs apart; see unfold.
inline void unfold_pairs(const Lanes* amplitude, const Lanes* phase, Lanes least, uint32_t* parts, int64_t half) {
  Lanes c[2], s[2];
  for (int64_t odd = 0; odd < 2; ++odd) cos_sin(phase[odd] < least ? least : phase[odd], c[odd], s[odd]);
  _mm512_storeu_si512(parts, paired(amplitude[0] * c[0], amplitude[1] * c[1]));
  _mm512_storeu_si512(parts + half, paired(amplitude[0] * s[0], amplitude[1] * s[1]));
}

// Load a register of pairs of channels of one position, from channel 2g on.
template <bool split>
inline void read_pairs(const BFloat16* from, int64_t g, int64_t half, Lanes* into) {
  if (split) {
    into[0] = widen_lanes(from + g);
    into[1] = widen_lanes(from + half + g);
  } else {
    const __m512i both = _mm512_loadu_si512(from + 2 * g);
    into[0] = even_of(both);
    into[1] = odd_of(both);
  }
}

template <bool split>
inline void unfold_position(const BFloat16* amplitude, const BFloat16* phase, Lanes least, uint32_t* parts,
                            int64_t channels) {
  const int64_t half = channels / 2;
  for (int64_t g = 0; g < half; g += kLanes) {
    Lanes a[2], p[2];
    read_pairs<split>(amplitude, g, half, a);
    read_pairs<split>(phase, g, half, p);
    unfold_pairs(a, p, least, parts + g, half);
  }
}

// As mix_line of scalars in phase_mix.cpp, of pairs.
inline void mix_line(const uint32_t* waves, const uint32_t* kernel, int64_t length, int64_t channels, BFloat16* out,
                     int64_t step, double* total) {
  auto plus = [](Lanes sum, __m512i x, __m512i y) -> Lanes {
    return _mm512_dpbf16_ps(sum, (__m512bh)x, (__m512bh)y);
  };
  for (int64_t at = 0; at < channels; at += kLanes) {
    __m512i k[7];
#pragma GCC unroll 7
    for (int64_t t = 0; t < 7; ++t) k[t] = _mm512_loadu_si512(kernel + t * channels + at);
    const uint32_t* wave = waves + at;
    Lanes a{}, b{}, c{}, d{}, e{}, f{}, partial{};
    for (int64_t z = 0; z < length + 3; ++z, wave += channels) {
      const __m512i x = _mm512_loadu_si512(wave);
      const Lanes whole = plus(a, x, k[6]);
      a = plus(b, x, k[5]);
      b = plus(c, x, k[4]);
      c = plus(d, x, k[3]);
      d = plus(e, x, k[2]);
      e = plus(f, x, k[1]);
      f = plus(Lanes{}, x, k[0]);
      if (z < 3) continue;
      narrow(whole, out + (z - 3) * step + at);
      partial += whole;
      if (z % 16 == 0 || z == length + 2) move_to(total + at, partial);
    }
  }
}

// (C, 2, taps) -> (taps, C) pairs.
inline std::vector<uint32_t> paired_kernel(const at::Tensor& kernel) {
  const at::Tensor dense = kernel.contiguous();
  const BFloat16* k = dense.const_data_ptr<BFloat16>();
  const int64_t channels = kernel.size(0), taps = kernel.numel() / (2 * channels);
  std::vector<uint32_t> pairs(taps * channels);
  for (int64_t g = 0; g < channels; ++g, k += 2 * taps) {
    for (int64_t t = 0; t < taps; ++t) pairs[t * channels + g] = k[t].x | static_cast<uint32_t>(k[taps + t].x) << 16;
  }
  return pairs;
}

}  // namespace mmwave

#endif
