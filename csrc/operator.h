// From the operator's arguments, PyTorch tensors, to a Pooling and back.
#pragma once

#include <torch/csrc/stable/tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "pooling.h"

namespace vidpool {

using torch::stable::Tensor;

// The operator's arguments but its tensors, each with one entry a pooled dimension.
struct Options {
  std::vector<int64_t> kernel_size, stride, padding, dilation;
  bool ceil_mode;
  std::string gradient;
};

// One call: the input as the kernels take it, and what they have to do.
struct Call {
  Tensor input;
  bool channels_last;
  Pooling pooling;
  std::vector<int64_t> output_sizes;

  // Throws where max pooling would: on arguments that fit neither each other nor x.
  Call(const Tensor& x, const Options& options);

  // Throws unless `grad` has the output's shape and the input's dtype.
  void check_gradient(const Tensor& grad) const;
  // `tensor` itself, or a copy, in the memory layout of this call
  Tensor in_layout(const Tensor& tensor) const;
  Tensor new_output() const;
  Tensor new_gradient() const;
};

}  // namespace vidpool
