// linear_phase_mix on the CPU in bfloat16: a product whose outputs, the amplitudes and phases, are unfolded to waves
// while they are in registers, and the mixing of phase_mix.

#include <torch/library.h>

#include "_phase_mix/lines.h"
#include "tiles.h"

namespace {

using namespace mmwave;

#ifdef MMWAVE_PAIRS
// Mix the product of x (N, C, H, W), channels last, with `weight`, plus `bias`, along one axis. Columns of the product
// are, for every register of pairs of channels, the amplitudes of the even and of the odd channels and then their
// phases, which are rectified.
void along_products(const Lines& lines, const Tensor& x, const Tensor& weight, const Tensor& bias,
                    const Tensor& kernel, Tensor& out, double* totals, int64_t row) {
  const int64_t c = lines.map.c, half = c / 2;
  const BFloat16* given = x.const_data_ptr<BFloat16>();
  const BFloat16* b = bias.const_data_ptr<BFloat16>();
  const uint32_t* w = pairs_of(weight);
  along_pairs(lines, kernel, out, totals, row,
              [&](int64_t image, int64_t first, int64_t last, uint32_t* parts, int64_t line_size) {
    // Positions that are contiguous in memory are rows of one product: those of all lines, or of one row where the
    // lines are some of the map's columns.
    const bool along_width = lines.along_width;
    const int64_t number = last - first, length = lines.length;
    const bool whole = along_width || number == lines.count;
    const int64_t rows = whole ? number * length : number, side = along_width ? length : number;
    for (int64_t g = 0; g < half; g += kLanes) {
      for (int64_t z = 0; z < (whole ? 1 : length); ++z) {
        auto finish = [&](int64_t at, Lanes* sums) {
          const int64_t line = along_width ? at / side : at % side, place = along_width ? at % side : z + at / side;
          unfold_pairs(sums, sums + 2, Lanes{}, parts + line * line_size + place * c + g, half);
        };
        tiles<4>(rows, given + lines.at(x, image, first, z), c, w + 2 * g * c, half, b + 4 * g, finish);
      }
    }
  });
}
#endif

std::tuple<Tensor, Tensor, Tensor> linear_phase_mix(const Tensor& x, const Tensor& weight_h, const Tensor& bias_h,
                                                    const Tensor& weight_w, const Tensor& bias_w,
                                                    const Tensor& kernel_h, const Tensor& kernel_w) {
#ifdef MMWAVE_PAIRS
  auto mix = [&](bool of_rows, const Lines& lines, const Tensor& kernel, Tensor& out, double* totals, int64_t row) {
    along_products(lines, x, of_rows ? weight_h : weight_w, of_rows ? bias_h : bias_w, kernel, out, totals, row);
  };
  return mix_both_axes(x, kernel_h, kernel_w, mix);
#else
  TORCH_CHECK(false, "linear_phase_mix: this processor does not multiply bfloat16");
#endif
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(mmwave_cpp, library) {
  library.def(
      "linear_phase_mix(Tensor x, Tensor weight_h, Tensor bias_h, Tensor weight_w, Tensor bias_w, Tensor kernel_h, "
      "Tensor kernel_w) -> (Tensor, Tensor, Tensor)");
}

TORCH_LIBRARY_IMPL(mmwave_cpp, CPU, library) { library.impl("linear_phase_mix", &linear_phase_mix); }
