// Matrix products of bfloat16 in tiles that stay in registers, for what follows to be fused with them.

#pragma once

#include <ATen/Parallel.h>

#include <algorithm>

#include "lanes.h"

namespace mmwave {

// With AMX, which oneDNN's products use, those are far faster than these.
#if defined(MMWAVE_PAIRS) && !defined(__AMX_BF16__)
constexpr bool kMultiplies = true;
#else
constexpr bool kMultiplies = false;
#endif

#ifdef MMWAVE_PAIRS

// Columns that products with a single matrix compute at a time: COLUMNS of packed.py.
constexpr int64_t kColumns = 2 * kLanes;

// A matrix packed by `paired` of packed.py.
inline const uint32_t* pairs_of(const at::Tensor& packed) {
  return reinterpret_cast<const uint32_t*>(packed.const_data_ptr<int32_t>());
}

// M rows by N registers of columns: `finish` is called with sums in float32, bias included. Rows of the first factor
// are `step` apart. The second one is packed as [k / 2][N * kLanes] pairs of consecutive k, see pairs_of.
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

// The same for any number of rows; `finish` receives the row's index. 24 registers of sums leave enough of the 32
// for both factors.
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

// Call `run(first, rows, between)` for a few of `count` rows at a time, which are divided evenly among threads;
// `between` is scratch memory for `width` values per row that stays in the cache.
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
