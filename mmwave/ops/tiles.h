// Products of bfloat16 in tiles that stay in registers, so that what follows them needs no memory.

#pragma once

#include <ATen/Parallel.h>

#include <algorithm>

#include "lanes.h"

namespace mmwave {

// Where the processor has tiles of its own (AMX), oneDNN's products, which use them, are far faster than these.
#if defined(MMWAVE_PAIRS) && !defined(__AMX_BF16__)
constexpr bool kMultiplies = true;
#else
constexpr bool kMultiplies = false;
#endif

#ifdef MMWAVE_PAIRS

// Columns that products take at a time where one matrix is all there is: COLUMNS of packed.py.
constexpr int64_t kColumns = 2 * kLanes;

// A matrix laid by `paired` of packed.py.
inline const uint32_t* pairs_of(const at::Tensor& laid) {
  return reinterpret_cast<const uint32_t*>(laid.const_data_ptr<int32_t>());
}

// M rows by N registers of columns: what `finish` is called with is float32, bias included. Rows of the first
// factor begin `step` apart. The second one is laid [k / 2][N * kLanes] pairs of following k, see pairs_of.
template <int M, int N, typename F>
inline void tile(const BFloat16* rows, int64_t step, const uint32_t* columns, int64_t pairs, const BFloat16* bias,
                 F finish) {
  Lanes sums[M][N];
#pragma GCC unroll 16
  for (int i = 0; i < M; ++i) {
#pragma GCC unroll 4
    for (int j = 0; j < N; ++j) sums[i][j] = widen_lanes(bias + j * kLanes);
  }
  for (int64_t k = 0; k < pairs; ++k) {
    __m512i column[N];
#pragma GCC unroll 4
    for (int j = 0; j < N; ++j) column[j] = _mm512_loadu_si512(columns + (k * N + j) * kLanes);
#pragma GCC unroll 16
    for (int i = 0; i < M; ++i) {
      int32_t pair;
      __builtin_memcpy(&pair, rows + i * step + 2 * k, sizeof pair);
      const __m512i row = _mm512_set1_epi32(pair);
#pragma GCC unroll 4
      for (int j = 0; j < N; ++j) sums[i][j] = _mm512_dpbf16_ps(sums[i][j], (__m512bh)row, (__m512bh)column[j]);
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < M; ++i) finish(i, sums[i]);
}

// The same of any number of rows, `finish` being told which. 24 registers of sums leave enough of the 32 for
// both factors.
template <int N, int M = 24 / N, typename F>
inline void tiles(int64_t count, const BFloat16* rows, int64_t step, const uint32_t* columns, int64_t pairs,
                  const BFloat16* bias, F finish) {
  int64_t i = 0;
  for (; i + M <= count; i += M) {
    tile<M, N>(rows + i * step, step, columns, pairs, bias, [&](int r, Lanes(&sums)[N]) { finish(i + r, sums); });
  }
  if constexpr (M > 1) {
    if (i < count) {
      tiles<N, M - 1>(count - i, rows + i * step, step, columns, pairs, bias,
                      [&](int64_t r, Lanes(&sums)[N]) { finish(i + r, sums); });
    }
  }
}

// `run(first, rows, between)` for some rows at a time of `count`, of which every thread gets as many but for a
// few; `between` is memory for `width` values a row that stays in the cache.
template <typename F>
void by_rows(int64_t count, int64_t width, F run) {
  constexpr int64_t most = 48, unit = 4;
  at::parallel_for(0, (count + unit - 1) / unit, 1, [&](int64_t begin, int64_t end) {
    Zeros<BFloat16> between(most * width);
    const int64_t last = std::min(end * unit, count);
    for (int64_t first = begin * unit; first < last; first += most) {
      run(first, std::min(most, last - first), between.data());
    }
  });
}

#endif

}  // namespace mmwave
