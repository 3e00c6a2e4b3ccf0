// Scalars and SIMD vectors of float32 and bfloat16.

#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#if defined(__AVX512BF16__) && defined(__AVX512DQ__) && defined(__AVX512BW__)
#include <immintrin.h>
// The processor multiplies pairs of bfloat16 (VDPBF16PS).
#define MMWAVE_PAIRS 1
#endif

namespace mmwave {

using at::BFloat16;

inline uint32_t bits(float x) { return __builtin_bit_cast(uint32_t, x); }
inline float number(uint32_t x) { return __builtin_bit_cast(float, x); }

inline float widen(float x) { return x; }
inline float widen(BFloat16 x) { return number(static_cast<uint32_t>(x.x) << 16); }

inline void narrow(float x, float& out) { out = x; }
inline void narrow(float x, BFloat16& out) {
  // Round to nearest, ties to even; NaN stays NaN.
  const uint32_t given = bits(x), rounded = (given + 0x7FFFu + ((given >> 16) & 1u)) >> 16;
  const uint32_t nan = 0u - static_cast<uint32_t>(x != x);  // a mask
  out.x = static_cast<uint16_t>((rounded & ~nan) | (0x7FC0u & nan));
}

// The number of float32 values in a SIMD register.
#if defined(__AVX512F__)
constexpr int64_t kLanes = 16;
#elif defined(__AVX__)
constexpr int64_t kLanes = 8;
#else
constexpr int64_t kLanes = 4;
#endif
typedef float Lanes __attribute__((vector_size(4 * kLanes)));
typedef uint32_t Bits __attribute__((vector_size(4 * kLanes)));
typedef uint16_t HalfWords __attribute__((vector_size(2 * kLanes)));

inline Lanes widen_lanes(const float* from) {
  Lanes x;
  __builtin_memcpy(&x, from, sizeof x);
  return x;
}
inline Lanes widen_lanes(const BFloat16* from) {
  HalfWords words;
  __builtin_memcpy(&words, from, sizeof words);
  const Bits x = __builtin_convertvector(words, Bits) << 16;
  return __builtin_bit_cast(Lanes, x);
}

inline void narrow(Lanes x, float* out) { __builtin_memcpy(out, &x, sizeof x); }
inline void narrow(Lanes x, BFloat16* out) {  // as the scalar one
#ifdef MMWAVE_PAIRS
  const __m256i words = (__m256i)_mm512_cvtneps_pbh(x);
#else
  const Bits given = __builtin_bit_cast(Bits, x);
  const Bits nan = static_cast<Bits>(x != x), rounded = (given + 0x7FFFu + ((given >> 16) & 1u)) >> 16;
  const HalfWords words = __builtin_convertvector((rounded & ~nan) | (0x7FC0u & nan), HalfWords);
#endif
  __builtin_memcpy(out, &words, sizeof words);
}

// Zero-initialised memory aligned to SIMD registers: loads that cross a cache line run at half the speed.
template <typename T>
class Zeros {
 public:
  explicit Zeros(int64_t count) : memory_((count * sizeof(T) + sizeof(Lanes) - 1) / sizeof(Lanes)) {}
  T* data() { return reinterpret_cast<T*>(memory_.data()); }

 private:
  std::vector<Lanes> memory_;
};

// Add the sums to totals in float64 and reset them.
inline void move_to(double* totals, Lanes& sums) {
  for (int64_t i = 0; i < kLanes; ++i) totals[i] += sums[i];
  sums = Lanes{};
}

inline Lanes every(float x) { return x - Lanes{}; }

template <typename F>
void by_type(const at::Tensor& like, F run) {
  if (like.scalar_type() == at::kFloat) {
    run(float{});
  } else {
    run(BFloat16{});
  }
}

}  // namespace mmwave
