// axial_shift on the CPU: every result is copied once, whatever its type.
//
// Where the channels of a position are contiguous, runs of channels with equal offsets are copied as a whole; offsets
// that change from channel to channel but have few values are selected by masks. Otherwise rows must be contiguous.

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/library.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <map>
#include <vector>

namespace {

using at::Tensor;

struct Run {
  int64_t start, count, offset;
};

std::vector<Run> runs_of(at::IntArrayRef offsets) {
  std::vector<Run> runs;
  for (int64_t c = 0; c < static_cast<int64_t>(offsets.size()); ++c) {
    if (runs.empty() || runs.back().offset != offsets[c]) runs.push_back({c, 0, offsets[c]});
    ++runs.back().count;
  }
  return runs;
}

// Words of the source at the channels of one offset, zeros at the others.
template <typename Word>
struct Selected {
  int64_t offset;
  std::vector<Word> mask;
};

template <typename Word>
std::vector<Selected<Word>> selections(at::IntArrayRef offsets) {
  std::map<int64_t, std::vector<Word>> masks;
  for (int64_t c = 0; c < static_cast<int64_t>(offsets.size()); ++c) {
    auto& mask = masks[offsets[c]];
    mask.resize(offsets.size());
    mask[c] = ~Word{0};
  }
  std::vector<Selected<Word>> selected;
  for (auto& [offset, mask] : masks) selected.push_back({offset, std::move(mask)});
  return selected;
}

// The whole map, position by position; `copy(from, step, z, length, to)` copies the channels of position z of a line.
template <typename Word, typename Copy>
void by_position(const Tensor& out, const Tensor& x, int64_t dim, Copy copy) {
  const int64_t height = x.size(2), width = x.size(3), length = x.size(dim), step = x.stride(dim);
  const Word* from = static_cast<const Word*>(x.const_data_ptr());
  Word* to = static_cast<Word*>(out.mutable_data_ptr());
  const int64_t grain = std::max<int64_t>(1, 32768 / std::max<int64_t>(1, width * x.size(1)));
  at::parallel_for(0, x.size(0) * height, grain, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const int64_t n = row / height, h = row % height;
      for (int64_t w = 0; w < width; ++w) {
        const Word* position = from + n * x.stride(0) + h * x.stride(2) + w * x.stride(3);
        copy(position, step, dim == 2 ? h : w, length, to + n * out.stride(0) + h * out.stride(2) + w * out.stride(3));
      }
    }
  });
}

template <typename Word>
void by_runs(const Tensor& out, const Tensor& x, const std::vector<Run>& runs, int64_t dim) {
  by_position<Word>(out, x, dim, [&](const Word* from, int64_t step, int64_t z, int64_t length, Word* to) {
    for (const Run& run : runs) {
      const int64_t source = z + run.offset;
      if (source >= 0 && source < length) {
        std::memcpy(to + run.start, from + run.offset * step + run.start, run.count * sizeof(Word));
      } else {
        std::memset(to + run.start, 0, run.count * sizeof(Word));
      }
    }
  });
}

template <typename Word>
void by_masks(const Tensor& out, const Tensor& x, const std::vector<Selected<Word>>& selected, int64_t dim) {
  const int64_t channels = x.size(1);
  const std::vector<Word> zeros(channels);
  by_position<Word>(out, x, dim, [&](const Word* from, int64_t step, int64_t z, int64_t length, Word* to) {
    auto source = [&](int64_t offset) {
      return z + offset >= 0 && z + offset < length ? from + offset * step : zeros.data();
    };
    const int64_t count = selected.size();
    int64_t done = 0;
    if (count >= 3) {
      const Word *a = source(selected[0].offset), *b = source(selected[1].offset), *c = source(selected[2].offset);
      const Word *p = selected[0].mask.data(), *q = selected[1].mask.data(), *r = selected[2].mask.data();
      Word* __restrict__ into = to;
      for (int64_t i = 0; i < channels; ++i) into[i] = (a[i] & p[i]) | (b[i] & q[i]) | (c[i] & r[i]);
      done = 3;
    }
    for (; done < count; ++done) {
      const Word *a = source(selected[done].offset), *p = selected[done].mask.data();
      Word* __restrict__ into = to;
      if (done == 0) {
        for (int64_t i = 0; i < channels; ++i) into[i] = a[i] & p[i];
      } else {
        for (int64_t i = 0; i < channels; ++i) into[i] |= a[i] & p[i];
      }
    }
  });
}

// Rows are contiguous.
template <typename Word>
void by_rows(const Tensor& out, const Tensor& x, at::IntArrayRef offsets, int64_t dim) {
  const int64_t channels = x.size(1), height = x.size(2), width = x.size(3);
  const Word* from = static_cast<const Word*>(x.const_data_ptr());
  Word* to = static_cast<Word*>(out.mutable_data_ptr());
  const int64_t grain = std::max<int64_t>(1, 32768 / std::max<int64_t>(1, width * height));
  at::parallel_for(0, x.size(0) * channels, grain, [&](int64_t begin, int64_t end) {
    for (int64_t plane = begin; plane < end; ++plane) {
      const int64_t n = plane / channels, c = plane % channels, offset = offsets[c];
      // Beyond the map everything is zero, however far.
      const int64_t shift = dim == 3 ? std::clamp(offset, -width, width) : 0;
      for (int64_t h = 0; h < height; ++h) {
        const int64_t source = dim == 2 ? h + offset : h;
        Word* row = to + n * out.stride(0) + c * out.stride(1) + h * out.stride(2);
        if (source < 0 || source >= height) {
          std::memset(row, 0, width * sizeof(Word));
          continue;
        }
        const Word* line = from + n * x.stride(0) + c * x.stride(1) + source * x.stride(2);
        const int64_t before = std::max<int64_t>(0, -shift), behind = std::max<int64_t>(0, shift);
        std::memset(row, 0, before * sizeof(Word));
        std::memcpy(row + before, line + behind, (width - before - behind) * sizeof(Word));
        std::memset(row + width - behind, 0, behind * sizeof(Word));
      }
    }
  });
}

template <typename Word>
void shift(const Tensor& out, const Tensor& x, at::IntArrayRef offsets, int64_t dim) {
  if (x.stride(1) != 1) return by_rows<Word>(out, x, offsets, dim);
  const std::vector<Run> runs = runs_of(offsets);
  if (runs.size() * 8 > offsets.size()) {
    const std::vector<Selected<Word>> selected = selections<Word>(offsets);
    if (selected.size() <= 8) return by_masks<Word>(out, x, selected, dim);
  }
  by_runs<Word>(out, x, runs, dim);
}

Tensor axial_shift(const Tensor& x, at::IntArrayRef offsets, int64_t dim) {
  const auto& s = x.sizes();
  const Tensor out = x.stride(1) == 1 ? at::empty({s[0], s[2], s[3], s[1]}, x.options()).permute({0, 3, 1, 2})
                                      : at::empty(s, x.options());
  if (x.numel() == 0) return out;
  x.element_size() == 2 ? shift<uint16_t>(out, x, offsets, dim) : shift<uint32_t>(out, x, offsets, dim);
  return out;
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(mmwave_cpp, library) {
  library.def("axial_shift(Tensor x, int[] offsets, int dim) -> Tensor");
}

TORCH_LIBRARY_IMPL(mmwave_cpp, CPU, library) {
  library.impl("axial_shift", &axial_shift);
}
