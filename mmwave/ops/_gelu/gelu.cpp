// GELU of bfloat16 on the CPU, in place.

#include <ATen/Parallel.h>
#include <torch/library.h>

#include "gelu.h"

namespace {

using namespace mmwave;

void gelu_(const at::Tensor& x) {
  BFloat16* data = x.mutable_data_ptr<BFloat16>();
  const int64_t whole = x.numel() / kLanes;
  at::parallel_for(0, whole, 1024, [&](int64_t begin, int64_t end) {
    for (int64_t at = begin * kLanes; at < end * kLanes; at += kLanes) narrow(gelu(widen_lanes(data + at)), data + at);
  });
  for (int64_t at = whole * kLanes; at < x.numel(); ++at) {
    Lanes one{};
    one[0] = widen(data[at]);
    narrow(gelu(one)[0], data[at]);
  }
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(mmwave_cpp, library) { library.def("gelu_(Tensor(a!) x) -> ()"); }

TORCH_LIBRARY_IMPL(mmwave_cpp, CPU, library) { library.impl("gelu_", &gelu_); }
