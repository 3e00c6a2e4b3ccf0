// Properties of the kernels' library.

#include <torch/library.h>

#include "tiles.h"

TORCH_LIBRARY_FRAGMENT(mmwave_cpp, library) {
  // Whether its own products of bfloat16 are faster than oneDNN's.
  library.def("multiplies() -> bool", [] { return mmwave::kMultiplies; });
}
