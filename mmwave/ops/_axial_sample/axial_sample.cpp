// axial_sample on the CPU: where to read and with what weights is computed once for each group of channels, then its
// channels are read and weighted as small vectors.
//
// The channels of a position are contiguous. Everything is computed in float32. What lies outside the map is masked
// rather than weighted by zero: NaN and infinities of the map do not reach positions that do not read them.

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <vector>

#include "lanes.h"

namespace {

using namespace mmwave;
using at::Tensor;

// A few neighbouring channels.
template <int64_t count>
struct Vectors {
  typedef float Floats __attribute__((vector_size(4 * count)));
  typedef uint32_t Words __attribute__((vector_size(4 * count)));
  typedef uint16_t Halves __attribute__((vector_size(2 * count)));
};
template <int64_t count>
using Floats = typename Vectors<count>::Floats;

template <int64_t count>
inline Floats<count> load(const float* from) {
  Floats<count> x;
  __builtin_memcpy(&x, from, sizeof x);
  return x;
}
template <int64_t count>
inline Floats<count> load(const BFloat16* from) {
  typename Vectors<count>::Halves halves;
  __builtin_memcpy(&halves, from, sizeof halves);
  const auto words = __builtin_convertvector(halves, typename Vectors<count>::Words) << 16;
  return __builtin_bit_cast(Floats<count>, words);
}

template <int64_t count>
inline void store(Floats<count> x, float* to) {
  __builtin_memcpy(to, &x, sizeof x);
}
template <int64_t count>
inline void store(Floats<count> x, BFloat16* to) {  // as narrow
  using Words = typename Vectors<count>::Words;
  const Words given = __builtin_bit_cast(Words, x);
  const Words nan = (Words)(x != x), rounded = (given + 0x7FFFu + ((given >> 16) & 1u)) >> 16;
  const auto halves = __builtin_convertvector((rounded & ~nan) | (0x7FC0u & nan), typename Vectors<count>::Halves);
  __builtin_memcpy(to, &halves, sizeof halves);
}

template <int64_t count>
inline Floats<count> masked(Floats<count> x, uint32_t mask) {
  using Words = typename Vectors<count>::Words;
  return __builtin_bit_cast(Floats<count>, (Words)(__builtin_bit_cast(Words, x) & mask));
}

// Where the groups of one position read, and the weights. A mask is zero outside the map, and the place there is 0.
struct Reads {
  std::vector<float> offsets, lower_weight, upper_weight;
  std::vector<int32_t> lower, upper;
  std::vector<uint32_t> lower_mask, upper_mask;

  explicit Reads(int64_t groups)
      : offsets(groups), lower_weight(groups), upper_weight(groups), lower(groups), upper(groups), lower_mask(groups),
        upper_mask(groups) {}

  template <typename U>
  void set(const U* from, int64_t step, int64_t place, int64_t length) {
    const int64_t groups = offsets.size();
    float* __restrict__ o = offsets.data();
    if (step == 1) {
      for (int64_t g = 0; g < groups; ++g) o[g] = widen(from[g]);
    } else {
      for (int64_t g = 0; g < groups; ++g) o[g] = widen(from[g * step]);
    }
    const float at = place, last = length - 1;
    float *__restrict__ a = lower_weight.data(), *__restrict__ b = upper_weight.data();
    int32_t *__restrict__ i = lower.data(), *__restrict__ j = upper.data();
    uint32_t *__restrict__ p = lower_mask.data(), *__restrict__ q = upper_mask.data();
    for (int64_t g = 0; g < groups; ++g) {
      const float exact = at + o[g], below = std::floor(exact), above = below + 1.0f;
      b[g] = exact - below;
      a[g] = 1.0f - b[g];
      // Not so for NaN.
      const bool inside = below >= 0.0f && below <= last, inside_above = above >= 0.0f && above <= last;
      i[g] = static_cast<int32_t>(inside ? below : 0.0f);
      j[g] = static_cast<int32_t>(inside_above ? above : 0.0f);
      p[g] = inside ? ~0u : 0u;
      q[g] = inside_above ? ~0u : 0u;
    }
  }
};

// Channels of one position, `size` for each group; `line` is the first position of its line.
template <int64_t count, typename T>
void sample(const T* line, int64_t step, const Reads& reads, int64_t groups, int64_t size, T* __restrict__ out) {
  for (int64_t g = 0; g < groups; ++g) {
    const T *a = line + reads.lower[g] * step + g * size, *b = line + reads.upper[g] * step + g * size;
    for (int64_t c = 0; c < size; c += count) {
      const auto lower = masked<count>(load<count>(a + c), reads.lower_mask[g]);
      const auto upper = masked<count>(load<count>(b + c), reads.upper_mask[g]);
      store<count>(lower * reads.lower_weight[g] + upper * reads.upper_weight[g], out + g * size + c);
    }
  }
}

// The backward of one position: the gradients of what it read are added to `sums`, indexed as `line` is, and that of
// its offsets is returned in `to_offsets`.
template <int64_t count, typename T>
void unsample(const T* line, int64_t step, float* sums, int64_t sums_step, const T* gradient, const Reads& reads,
              int64_t groups, int64_t size, float* to_offsets) {
  for (int64_t g = 0; g < groups; ++g) {
    const int64_t i = reads.lower[g], j = reads.upper[g], start = g * size;
    const T *a = line + i * step + start, *b = line + j * step + start, *given = gradient + start;
    float *to_a = sums + i * sums_step + start, *to_b = sums + j * sums_step + start;
    Floats<count> total{};
    for (int64_t c = 0; c < size; c += count) {
      const auto pull = load<count>(given + c);
      const auto lower = masked<count>(load<count>(a + c), reads.lower_mask[g]);
      const auto upper = masked<count>(load<count>(b + c), reads.upper_mask[g]);
      total += pull * (upper - lower);
      const auto to_lower = masked<count>(pull * reads.lower_weight[g], reads.lower_mask[g]);
      const auto to_upper = masked<count>(pull * reads.upper_weight[g], reads.upper_mask[g]);
      store<count>(load<count>(to_a + c) + to_lower, to_a + c);
      store<count>(load<count>(to_b + c) + to_upper, to_b + c);
    }
    float sum = 0;
#pragma GCC unroll 16
    for (int64_t c = 0; c < count; ++c) sum += total[c];
    to_offsets[g] = sum;
  }
}

// The largest power of two up to 16 that divides the number of channels of a group.
template <typename F>
void by_count(int64_t size, F run) {
  if (size % 16 == 0) return run(std::integral_constant<int64_t, 16>{});
  if (size % 8 == 0) return run(std::integral_constant<int64_t, 8>{});
  if (size % 4 == 0) return run(std::integral_constant<int64_t, 4>{});
  if (size % 2 == 0) return run(std::integral_constant<int64_t, 2>{});
  run(std::integral_constant<int64_t, 1>{});
}

Tensor empty_channels_last(const Tensor& like) {
  const auto& s = like.sizes();
  return at::empty({s[0], s[2], s[3], s[1]}, like.options()).permute({0, 3, 1, 2});
}

Tensor axial_sample(const Tensor& x, const Tensor& offsets, int64_t dim) {
  const Tensor out = empty_channels_last(x);
  const int64_t height = x.size(2), width = x.size(3), length = x.size(dim), groups = offsets.size(1);
  if (x.numel() == 0) return out;
  const int64_t size = x.size(1) / groups, grain = std::max<int64_t>(1, 16384 / (width * x.size(1)));
  auto run = [&](auto zero, auto offset_zero, auto constant) {
    using T = decltype(zero);
    using U = decltype(offset_zero);
    constexpr int64_t count = decltype(constant)::value;
    const T* from = x.const_data_ptr<T>();
    const U* moved = offsets.const_data_ptr<U>();
    T* to = out.mutable_data_ptr<T>();
    at::parallel_for(0, x.size(0) * height, grain, [&](int64_t begin, int64_t end) {
      Reads reads(groups);
      for (int64_t row = begin; row < end; ++row) {
        const int64_t n = row / height, h = row % height;
        for (int64_t w = 0; w < width; ++w) {
          reads.set(moved + n * offsets.stride(0) + h * offsets.stride(2) + w * offsets.stride(3), offsets.stride(1),
                    dim == 2 ? h : w, length);
          const T* line = from + n * x.stride(0) + (dim == 2 ? w * x.stride(3) : h * x.stride(2));
          sample<count>(line, x.stride(dim), reads, groups, size,
                        to + n * out.stride(0) + h * out.stride(2) + w * out.stride(3));
        }
      }
    });
  };
  by_type(x, [&](auto zero) {
    by_type(offsets, [&](auto other) { by_count(size, [&](auto constant) { run(zero, other, constant); }); });
  });
  return out;
}

// A task is a block of neighbouring lines of one image: whatever a position reads is in its own line, so that no two
// tasks add to the same gradient.
std::tuple<Tensor, Tensor> axial_sample_backward(const Tensor& gradient, const Tensor& x, const Tensor& offsets,
                                                 int64_t dim) {
  Tensor to_x = empty_channels_last(x), to_offsets = empty_channels_last(offsets);
  if (x.numel() == 0) return {to_x, to_offsets};
  const Tensor given = gradient.stride(1) == 1 ? gradient : gradient.contiguous(at::MemoryFormat::ChannelsLast);
  const int64_t channels = x.size(1), groups = offsets.size(1), size = channels / groups;
  const int64_t length = x.size(dim), across = 5 - dim, lines = x.size(across);
  // A quarter of a megabyte of gradients along the height, one row along the width.
  int64_t together = dim == 3 ? 1 : std::clamp<int64_t>((1 << 16) / (length * channels), 1, lines);
  together = std::min(together, std::max<int64_t>(1, x.size(0) * lines / at::get_num_threads()));
  const int64_t blocks = (lines + together - 1) / together;
  auto run = [&](auto zero, auto offset_zero, auto constant) {
    using T = decltype(zero);
    using U = decltype(offset_zero);
    constexpr int64_t count = decltype(constant)::value;
    constexpr bool direct = std::is_same_v<T, float>;
    at::parallel_for(0, x.size(0) * blocks, 1, [&](int64_t begin, int64_t end) {
      Reads reads(groups);
      std::vector<float> of_offsets(groups), buffer(direct ? 0 : length * together * channels);
      for (int64_t task = begin; task < end; ++task) {
        const int64_t n = task / blocks, first = task % blocks * together, last = std::min(first + together, lines);
        auto data = [&](auto* start, const Tensor& of) {
          return start + n * of.stride(0) + first * of.stride(across);
        };
        const T *from = data(x.const_data_ptr<T>(), x), *pull = data(given.const_data_ptr<T>(), given);
        const U* moved = data(offsets.const_data_ptr<U>(), offsets);
        T* to = data(to_x.mutable_data_ptr<T>(), to_x);
        U* to_moved = data(to_offsets.mutable_data_ptr<U>(), to_offsets);
        // A position's sums are `sums_step` from the next of its line, and `channels` from that of the next line.
        float* sums;
        int64_t sums_step;
        if constexpr (direct) {
          sums = to;
          sums_step = to_x.stride(dim);
        } else {
          sums = buffer.data();
          sums_step = (last - first) * channels;
        }
        for (int64_t z = 0; z < length; ++z) {
          std::memset(sums + z * sums_step, 0, (last - first) * channels * sizeof(float));
        }
        for (int64_t z = 0; z < length; ++z) {
          for (int64_t line = 0; line < last - first; ++line) {
            auto place = [&](const Tensor& of) { return z * of.stride(dim) + line * of.stride(across); };
            reads.set(moved + place(offsets), offsets.stride(1), z, length);
            unsample<count>(from + line * x.stride(across), x.stride(dim), sums + line * channels, sums_step,
                            pull + place(given), reads, groups, size, of_offsets.data());
            U* into = to_moved + place(to_offsets);
            for (int64_t g = 0; g < groups; ++g) narrow(of_offsets[g], into[g]);
          }
        }
        if constexpr (!direct) {
          for (int64_t z = 0; z < length; ++z) {
            const float* done = sums + z * sums_step;
            T* into = to + z * to_x.stride(dim);
            for (int64_t c = 0; c < (last - first) * channels; ++c) narrow(done[c], into[c]);
          }
        }
      }
    });
  };
  by_type(x, [&](auto zero) {
    by_type(offsets, [&](auto other) { by_count(size, [&](auto constant) { run(zero, other, constant); }); });
  });
  return {to_x, to_offsets};
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(mmwave_cpp, library) {
  library.def("axial_sample(Tensor x, Tensor offsets, int dim) -> Tensor");
  library.def("axial_sample_backward(Tensor gradient, Tensor x, Tensor offsets, int dim) -> (Tensor, Tensor)");
}

TORCH_LIBRARY_IMPL(mmwave_cpp, CPU, library) {
  library.impl("axial_sample", &axial_sample);
  library.impl("axial_sample_backward", &axial_sample_backward);
}
