// blend_ on the CPU in bfloat16: the blend of a few positions stays in the cache, and the shortcut is added to sums
// that are still in registers.

#include <torch/library.h>

#include <vector>

#include "tiles.h"

namespace {

using namespace mmwave;
using at::Tensor;

// Maps and shortcut (N, .., C), factors (N, 1, .., C); weight packed by kColumns columns, see tile.
void blend_(const Tensor& first, at::TensorList others, at::TensorList factors, const Tensor& weight,
            const Tensor& bias, const Tensor& shortcut) {
#ifdef MMWAVE_PAIRS
  if (first.numel() == 0) return;
  const int64_t channels = first.size(-1), count = first.numel() / channels, positions = count / first.size(0);
  std::vector<Tensor> dense_maps{first}, dense_factors;
  for (const Tensor& map : others) dense_maps.push_back(map.contiguous());
  for (const Tensor& factor : factors) dense_factors.push_back(factor.contiguous());
  const Tensor dense_bias = bias.contiguous(), dense_shortcut = shortcut.contiguous();
  std::vector<const BFloat16*> map_data, factor_data;
  for (const Tensor& map : dense_maps) map_data.push_back(map.const_data_ptr<BFloat16>());
  for (const Tensor& factor : dense_factors) factor_data.push_back(factor.const_data_ptr<BFloat16>());
  const int64_t number = factors.size();
  const BFloat16 *b = dense_bias.const_data_ptr<BFloat16>(), *beside = dense_shortcut.const_data_ptr<BFloat16>();
  const uint32_t* w = pairs_of(weight);
  BFloat16* out = first.mutable_data_ptr<BFloat16>();
  by_rows(count, channels, [&](int64_t start, int64_t rows, BFloat16* blended) {
    for (int64_t row = 0; row < rows; ++row) {
      const int64_t at = (start + row) * channels, image = (start + row) / positions * channels;
      for (int64_t c = 0; c < channels; c += kLanes) {
        Lanes sum{};
        for (int64_t m = 0; m < number; ++m) {
          sum += widen_lanes(map_data[m] + at + c) * widen_lanes(factor_data[m] + image + c);
        }
        narrow(sum, blended + row * channels + c);
      }
    }
    for (int64_t c = 0; c < channels; c += kColumns) {
      tiles<2>(rows, blended, channels, w + c * channels / 2, channels / 2, b + c, [&](int64_t row, Lanes* sum) {
        const int64_t at = (start + row) * channels + c;
        narrow(sum[0] + widen_lanes(beside + at), out + at);
        narrow(sum[1] + widen_lanes(beside + at + kLanes), out + at + kLanes);
      });
    }
  });
#else
  TORCH_CHECK(false, "blend_: this processor does not multiply bfloat16");
#endif
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(mmwave_cpp, library) {
  library.def(
      "blend_(Tensor(a!) first, Tensor[] others, Tensor[] factors, Tensor weight, Tensor bias, Tensor shortcut) -> ()");
}

TORCH_LIBRARY_IMPL(mmwave_cpp, CPU, library) { library.impl("blend_", &blend_); }
