// The operator on GPUs: launches the threads on PyTorch's current stream.
#include <cuda_runtime.h>
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Exception.h>
#include <torch/headeronly/util/Half.h>

#include <string>
#include <vector>

#include "../operator.h"
#include "softpool_plan.h"

namespace vidpool {
namespace {

constexpr int block_size = 128;

template <class Body, class Index>
__global__ void __launch_bounds__(block_size)
    run_body(const __grid_constant__ Body body, const Index count) {
  const Index i = Index(blockIdx.x) * block_size + Index(threadIdx.x);
  if (i < count) body(i);
}

void check(cudaError_t error) {
  STD_TORCH_CHECK(error == cudaSuccess, "soft pooling on CUDA: ", cudaGetErrorString(error));
}

// Work on a tensor's device, on the stream that is current there.
class Launcher {
 public:
  explicit Launcher(const Tensor& x) : x_(x), guard_(x.get_device_index()) {
    void* stream;
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(x.get_device_index(), &stream));
    stream_ = static_cast<cudaStream_t>(stream);
  }

  template <template <class...> class Body, class Shape, class Access, class Element, class Index>
  void run(int64_t count, const Body<Shape, Access, Element, Index>& body) const {
    const auto blocks = unsigned(divide_up(count, block_size));
    run_body<<<blocks, block_size, 0, stream_>>>(body, Index(count));
    check(cudaGetLastError());
  }

  void clear(void* to, int64_t bytes) const { check(cudaMemsetAsync(to, 0, bytes, stream_)); }

  template <class Real>
  Real* scratch(int64_t count) {
    using torch::headeronly::ScalarType;
    scratch_ = torch::stable::new_empty(x_, {count},
                                        sizeof(Real) == 8 ? ScalarType::Double : ScalarType::Float);
    return static_cast<Real*>(scratch_.mutable_data_ptr());
  }

  // half of what int32_t holds, for a thread's block may reach beyond the tensor
  int64_t limit() const { return INT32_MAX / 2; }

 private:
  Tensor x_, scratch_;
  torch::stable::accelerator::DeviceGuard guard_;
  cudaStream_t stream_;
};

// Call run(Element()) with the type of a tensor's elements.
template <class Run>
void with_element(const Tensor& x, const Run& run) {
  using torch::headeronly::ScalarType;
  switch (x.scalar_type()) {
    case ScalarType::Float:
      return run(float());
    case ScalarType::Double:
      return run(double());
    case ScalarType::Half:
      return run(torch::headeronly::Half());
    case ScalarType::BFloat16:
      return run(torch::headeronly::BFloat16());
    default:
      STD_TORCH_CHECK(false,
                      "soft pooling is implemented for float16, bfloat16, float32 and "
                      "float64 only");
  }
}

Tensor soft_pool(const Tensor& x, std::vector<int64_t> kernel_size, std::vector<int64_t> stride,
                 std::vector<int64_t> padding, std::vector<int64_t> dilation, bool ceil_mode,
                 std::string gradient) {
  Launcher launcher(x);
  const Call call(x, {kernel_size, stride, padding, dilation, ceil_mode, gradient});
  Tensor out = call.new_output();
  with_element(x, [&](auto element) {
    using Element = decltype(element);
    forward(call.pooling, static_cast<const Element*>(call.input.const_data_ptr()),
            static_cast<Element*>(out.mutable_data_ptr()), launcher);
  });
  return out;
}

Tensor soft_pool_backward(const Tensor& grad, const Tensor& x, std::vector<int64_t> kernel_size,
                          std::vector<int64_t> stride, std::vector<int64_t> padding,
                          std::vector<int64_t> dilation, bool ceil_mode, std::string gradient) {
  Launcher launcher(x);
  const Call call(x, {kernel_size, stride, padding, dilation, ceil_mode, gradient});
  call.check_gradient(grad);
  STD_TORCH_CHECK(grad.is_cuda() && grad.get_device_index() == x.get_device_index(),
                  "expected the gradient on the input's device");
  const Tensor grad_output = call.in_layout(grad);
  Tensor out = call.new_gradient();
  with_element(x, [&](auto element) {
    using Element = decltype(element);
    backward(call.pooling, static_cast<const Element*>(grad_output.const_data_ptr()),
             static_cast<const Element*>(call.input.const_data_ptr()),
             static_cast<Element*>(out.mutable_data_ptr()), launcher);
  });
  return out;
}

// What this library was compiled for, like "7.5 9.0"; newer GPUs compile the last one's PTX.
std::string cuda_architectures() {
  std::string names;
  for (const int arch : {__CUDA_ARCH_LIST__}) {
    if (!names.empty()) names += " ";
    names += std::to_string(arch / 100) + "." + std::to_string(arch / 10 % 10);
  }
  return names;
}

}  // namespace
}  // namespace vidpool

STABLE_TORCH_LIBRARY_FRAGMENT(vidpool, m) {
  m.def("cuda_architectures() -> str");
  m.impl("cuda_architectures", TORCH_BOX(&vidpool::cuda_architectures));
}

STABLE_TORCH_LIBRARY_IMPL(vidpool, CUDA, m) {
  m.impl("soft_pool", TORCH_BOX(&vidpool::soft_pool));
  m.impl("soft_pool_backward", TORCH_BOX(&vidpool::soft_pool_backward));
}
