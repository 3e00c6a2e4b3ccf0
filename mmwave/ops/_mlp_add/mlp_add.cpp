// mlp_add_ on the CPU in bfloat16: a few rows at a time go through both layers, the hidden values stay in the cache,
// and activation and shortcut are applied to sums that are still in registers.

#include <torch/library.h>

#include "gelu.h"
#include "tiles.h"

namespace {

using namespace mmwave;
using at::Tensor;

// x (P, C) and source (P, C_in); weights packed by kColumns columns, see tile.
void mlp_add_(const Tensor& x, const Tensor& source, const Tensor& weight1, const Tensor& bias1,
              const Tensor& weight2, const Tensor& bias2) {
#ifdef MMWAVE_PAIRS
  const int64_t out = x.size(1), in = source.size(1), hidden = bias1.size(0);
  BFloat16* sums = x.mutable_data_ptr<BFloat16>();
  const BFloat16* given = source.const_data_ptr<BFloat16>();
  const uint32_t *w1 = pairs_of(weight1), *w2 = pairs_of(weight2);
  const BFloat16 *b1 = bias1.const_data_ptr<BFloat16>(), *b2 = bias2.const_data_ptr<BFloat16>();
  by_rows(x.size(0), hidden, [&](int64_t first, int64_t rows, BFloat16* between) {
    for (int64_t c = 0; c < hidden; c += kColumns) {
      tiles<2>(rows, given + first * in, in, w1 + c * in / 2, in / 2, b1 + c, [&](int64_t row, Lanes* sum) {
        BFloat16* to = between + row * hidden + c;
        narrow(gelu(sum[0]), to);
        narrow(gelu(sum[1]), to + kLanes);
      });
    }
    for (int64_t c = 0; c < out; c += kColumns) {
      tiles<2>(rows, between, hidden, w2 + c * hidden / 2, hidden / 2, b2 + c, [&](int64_t row, Lanes* sum) {
        BFloat16* to = sums + (first + row) * out + c;
        narrow(sum[0] + widen_lanes(to), to);
        narrow(sum[1] + widen_lanes(to + kLanes), to + kLanes);
      });
    }
  });
#else
  TORCH_CHECK(false, "mlp_add_: this processor does not multiply bfloat16");
#endif
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(mmwave_cpp, library) {
  library.def(
      "mlp_add_(Tensor(a!) x, Tensor source, Tensor weight1, Tensor bias1, Tensor weight2, Tensor bias2) -> ()");
}

TORCH_LIBRARY_IMPL(mmwave_cpp, CPU, library) { library.impl("mlp_add_", &mlp_add_); }
