// What the kernels' library says of itself.

#include <torch/library.h>

#include "tiles.h"

TORCH_LIBRARY_FRAGMENT(mmwave_cpp, library) {
  // Whether its own products of bfloat16 are of use.
  library.def("multiplies() -> bool", [] { return mmwave::kMultiplies; });
}
