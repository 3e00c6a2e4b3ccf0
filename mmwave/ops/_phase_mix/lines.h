// Mixing maps line by line: the division among threads, and the outputs. Shared by phase_mix and linear_phase_mix.

#pragma once

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <cstdint>
#include <tuple>
#include <vector>

#include "_phase_mix/pairs.h"
#include "lanes.h"

namespace mmwave {

using at::Tensor;

// Sizes of a map (N, C, H, W), and offsets in memory.
struct Map {
  int64_t n, c, h, w;
  int64_t at(const Tensor& x, int64_t i, int64_t y, int64_t z) const {
    return i * x.stride(0) + y * x.stride(2) + z * x.stride(3);
  }
};

// Lines of a map along one axis, in groups of neighbouring ones, which are unfolded position by position, so that
// memory is read contiguously. A task is such a group of lines of one image.
struct Lines {
  Map map;
  bool along_width;
  int64_t length, count, together, groups;

  Lines(const Tensor& x, int64_t taps, bool along_width)
      : map{x.size(0), x.size(1), x.size(2), x.size(3)}, along_width(along_width) {
    length = along_width ? map.w : map.h;
    count = along_width ? map.h : map.w;
    const int64_t part = x.scalar_type() == at::kFloat ? sizeof(float) : sizeof(BFloat16);
    // As many lines per group as have their parts fit into half a megabyte, or along the width as fill a few tiles of
    // products; at least as many groups as threads, of about equal size.
    const int64_t whole = std::max<int64_t>(1, length);
    int64_t most = along_width ? (48 + whole - 1) / whole : (1 << 19) / ((length + taps) * 2 * map.c * part);
    const int64_t share = (map.n * count + at::get_num_threads() - 1) / at::get_num_threads();
    most = std::max<int64_t>(1, std::min({most, share, count}));
    if (most > 6 && most < count) most -= most % 6;
    groups = std::max<int64_t>(1, (count + most - 1) / most);
    together = (count + groups - 1) / groups;
  }
  int64_t tasks() const { return map.n * groups; }
  int64_t first(int64_t group) const { return group * count / groups; }
  int64_t at(const Tensor& x, int64_t image, int64_t line, int64_t z) const {
    return along_width ? map.at(x, image, line, z) : map.at(x, image, z, line);
  }
};

#ifdef MMWAVE_PAIRS
// Mix in bfloat16 along one axis. `fill(image, first, last, parts, line_size)` unfolds the lines from `first` to `last`
// to `parts`, where lines are `line_size` apart. Sums over all positions of a group of lines are added to `totals`,
// where those of an image are `row` apart.
template <typename Fill>
void along_pairs(const Lines& lines, const Tensor& kernel, Tensor& out, double* totals, int64_t row, Fill fill) {
  const int64_t c = lines.map.c, length = lines.length;
  const std::vector<uint32_t> k = paired_kernel(kernel);
  BFloat16* o = out.mutable_data_ptr<BFloat16>();
  at::parallel_for(0, lines.tasks(), 1, [&](int64_t begin, int64_t end) {
    // The parts of all positions of every line, followed by zeros.
    const int64_t line_size = (length + 3) * c;
    Zeros<uint32_t> parts(lines.together * line_size);
    for (int64_t task = begin; task < end; ++task) {
      const int64_t image = task / lines.groups, group = task % lines.groups;
      const int64_t first = lines.first(group), last = lines.first(group + 1);
      fill(image, first, last, parts.data(), line_size);
      for (int64_t line = first; line < last; ++line) {
        const int64_t start = lines.at(out, image, line, 0), step = lines.at(out, image, line, 1) - start;
        mix_line(parts.data() + (line - first) * line_size, k.data(), length, c, o + start, step,
                 totals + image * row + group * c);
      }
    }
  });
}
#endif

// An uninitialised map of the shape of `like` in channels_last.
inline Tensor empty_channels_last(const Tensor& like) {
  const auto& s = like.sizes();
  return at::empty({s[0], s[2], s[3], s[1]}, like.options()).permute({0, 3, 1, 2});
}

// Both mixed maps and the mean of their sum. `mix(of_rows, lines, kernel, out, totals, row)` is called for the rows,
// with true, then for the columns, with false.
template <typename Mix>
std::tuple<Tensor, Tensor, Tensor> mix_both_axes(const Tensor& like, const Tensor& kernel_h, const Tensor& kernel_w,
                                                 Mix mix) {
  const int64_t n = like.size(0), c = like.size(1), h = like.size(2), w = like.size(3);
  Tensor out_h = empty_channels_last(like), out_w = empty_channels_last(like);
  const Lines rows(like, kernel_h.size(3), true), columns(like, kernel_w.size(2), false);
  const int64_t groups = rows.groups + columns.groups;
  Tensor totals = at::zeros({n, groups, c}, like.options().dtype(at::kDouble));
  double* of_rows = totals.mutable_data_ptr<double>();
  mix(true, rows, kernel_h, out_h, of_rows, groups * c);
  mix(false, columns, kernel_w, out_w, of_rows + rows.groups * c, groups * c);
  const Tensor mean = totals.sum(1).div_(static_cast<double>(h * w));
  return {out_h, out_w, mean.to(like.scalar_type())};
}

}  // namespace mmwave
