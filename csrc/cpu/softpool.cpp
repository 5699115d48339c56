// The operator on the CPU: chooses the kernels and spreads the tiles over PyTorch's threads.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include <algorithm>
#include <cstdlib>
#include <string>
#include <vector>

#include "../operator.h"
#include "kernel_table.h"

namespace vidpool {
namespace {

// The kernels that this processor runs, best first.
std::vector<const Kernels*> runnable_kernels() {
  std::vector<const Kernels*> found;
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
    found.push_back(&avx512);
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
      __builtin_cpu_supports("f16c"))
    found.push_back(&avx2);
#endif
  found.push_back(&baseline);
  return found;
}

// The best, or those that the environment asks for (as ATEN_CPU_CAPABILITY does for PyTorch).
const Kernels& kernels() {
  static const std::vector<const Kernels*> runnable = runnable_kernels();
  const char* wanted = std::getenv("VIDPOOL_CPU_CAPABILITY");
  if (wanted == nullptr || *wanted == 0) return *runnable.front();
  std::string names;
  for (const Kernels* candidate : runnable) {
    if (wanted == std::string(candidate->name)) return *candidate;
    names += std::string(" ") + candidate->name;
  }
  STD_TORCH_CHECK(false, "VIDPOOL_CPU_CAPABILITY is '", wanted,
                  "', but here there are only:", names);
}

ElementType element_type(const Tensor& x) {
  using torch::headeronly::ScalarType;
  switch (x.scalar_type()) {
    case ScalarType::Float:
      return float32;
    case ScalarType::Double:
      return float64;
    case ScalarType::Half:
      return float16;
    case ScalarType::BFloat16:
      return bfloat16;
    default:
      STD_TORCH_CHECK(false,
                      "soft pooling is implemented for float16, bfloat16, float32 and "
                      "float64 only");
  }
}

// Call `run(tiling, begin, end)` on PyTorch's threads, for all tiles together.
template <class Run>
void for_tiles(const Pooling& pooling, bool backward, const Run& run) {
  if (pooling.outer * pooling.input_volume() == 0) return;  // no batch
  constexpr double worth_a_thread = 1 << 15;                // cells that windows visit
  const double windows = double(pooling.outer * pooling.output_volume());
  const double work = windows * double(pooling.t.kernel * pooling.h.kernel * pooling.w.kernel);
  // Not by the number of threads: the order of sums, and so the last bit, should not depend on it.
  const Tiling tiling(pooling, backward, int64_t(std::clamp(work / worth_a_thread, 1., 64.)));
  const double share = worth_a_thread / work;
  if (share >= 1) return run(tiling, 0, tiling.size());
  const auto grain = std::max<int64_t>(1, int64_t(double(tiling.size()) * share));
  torch::stable::parallel_for(0, tiling.size(), grain,
                              [&](int64_t begin, int64_t end) { run(tiling, begin, end); });
}

Tensor soft_pool(const Tensor& x, std::vector<int64_t> kernel_size, std::vector<int64_t> stride,
                 std::vector<int64_t> padding, std::vector<int64_t> dilation, bool ceil_mode,
                 std::string gradient) {
  const Call call(x, {kernel_size, stride, padding, dilation, ceil_mode, gradient});
  const auto run = kernels().forward[element_type(x)];
  Tensor out = call.new_output();
  const void* from = call.input.const_data_ptr();
  void* to = out.mutable_data_ptr();
  for_tiles(call.pooling, false, [&](const Tiling& tiling, int64_t begin, int64_t end) {
    run(call.pooling, tiling, begin, end, from, to);
  });
  return out;
}

Tensor soft_pool_backward(const Tensor& grad, const Tensor& x, std::vector<int64_t> kernel_size,
                          std::vector<int64_t> stride, std::vector<int64_t> padding,
                          std::vector<int64_t> dilation, bool ceil_mode, std::string gradient) {
  const Call call(x, {kernel_size, stride, padding, dilation, ceil_mode, gradient});
  call.check_gradient(grad);
  const auto run = kernels().backward[element_type(x)];
  const Tensor grad_output = call.in_layout(grad);
  Tensor out = call.new_gradient();
  const void* grad_from = grad_output.const_data_ptr();
  const void* from = call.input.const_data_ptr();
  void* to = out.mutable_data_ptr();
  for_tiles(call.pooling, true, [&](const Tiling& tiling, int64_t begin, int64_t end) {
    run(call.pooling, tiling, begin, end, grad_from, from, to);
  });
  return out;
}

std::string cpu_capability() {
  return kernels().name;
}

}  // namespace
}  // namespace vidpool

STABLE_TORCH_LIBRARY_FRAGMENT(vidpool, m) {
  m.def("cpu_capability() -> str");
  m.impl("cpu_capability", TORCH_BOX(&vidpool::cpu_capability));
}

STABLE_TORCH_LIBRARY_IMPL(vidpool, CPU, m) {
  m.impl("soft_pool", TORCH_BOX(&vidpool::soft_pool));
  m.impl("soft_pool_backward", TORCH_BOX(&vidpool::soft_pool_backward));
}
