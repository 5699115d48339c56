#include "operator.h"

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/ops.h>
#include <torch/headeronly/util/Exception.h>

#include <algorithm>

namespace vidpool {
namespace {

std::string to_string(const std::vector<int64_t>& values) {
  std::string text = "(";
  for (size_t i = 0; i < values.size(); ++i) text += (i ? ", " : "") + std::to_string(values[i]);
  return text + ")";
}

std::vector<int64_t> sizes_of(const Tensor& x) {
  const auto sizes = x.sizes();
  return {sizes.begin(), sizes.end()};
}

// Strides without gaps; the second dimension varies fastest where the layout is channels-last.
std::vector<int64_t> dense_strides(const std::vector<int64_t>& sizes, bool channels_last) {
  std::vector<int64_t> strides(sizes.size());
  int64_t step = 1;
  const auto lay = [&](size_t dim) {
    strides[dim] = step;
    step *= sizes[dim];
  };
  if (channels_last) lay(1);
  for (size_t dim = sizes.size(); dim-- > 0;)
    if (!(channels_last && dim == 1)) lay(dim);
  return strides;
}

Tensor empty(const std::vector<int64_t>& sizes, bool channels_last, const Tensor& like) {
  const std::vector<int64_t> strides = dense_strides(sizes, channels_last);
  int32_t dtype, device;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_dtype(like.get(), &dtype));
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(like.get(), &device));
  AtenTensorHandle handle;
  TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(int64_t(sizes.size()), sizes.data(),
                                                  strides.data(), dtype, device,
                                                  like.get_device_index(), &handle));
  return Tensor(handle);
}

// A window of one dimension, checked, and how often it fits.
Axis make_axis(const Options& options, size_t i, int64_t size) {
  Axis axis{
      size, 0, options.kernel_size[i], options.stride[i], options.padding[i], options.dilation[i]};
  STD_TORCH_CHECK(axis.kernel > 0 && axis.stride > 0 && axis.dilation > 0,
                  "kernel_size, stride and dilation should be greater than zero, but got ",
                  axis.kernel, ", ", axis.stride, " and ", axis.dilation);
  STD_TORCH_CHECK(std::max({axis.kernel, axis.stride, axis.dilation}) <= INT32_MAX,
                  "kernel_size, stride and dilation should be less than 2^31, but got ",
                  axis.kernel, ", ", axis.stride, " and ", axis.dilation);
  STD_TORCH_CHECK(axis.padding >= 0 && axis.padding <= axis.kernel / 2,
                  "padding should be non-negative and at most half of kernel_size, but got ",
                  axis.padding, " and ", axis.kernel);
  const int64_t room = size + 2 * axis.padding - axis.extent();
  const int64_t up = options.ceil_mode ? axis.stride - 1 : 0;
  if (room + up >= 0) axis.count = (room + up) / axis.stride + 1;
  // a window that ceil_mode adds has to start inside the input or its left padding
  if (options.ceil_mode && (axis.count - 1) * axis.stride >= size + axis.padding) --axis.count;
  return axis;
}

}  // namespace

Call::Call(const Tensor& x, const Options& options) : input(x) {
  const size_t pooled = options.kernel_size.size();
  STD_TORCH_CHECK(pooled >= 1 && pooled <= 3, "kernel_size should have 1, 2 or 3 entries, but got ",
                  to_string(options.kernel_size));
  STD_TORCH_CHECK(
      options.stride.size() == pooled && options.padding.size() == pooled &&
          options.dilation.size() == pooled,
      "stride, padding and dilation should have as many entries as kernel_size, but got ",
      to_string(options.stride), ", ", to_string(options.padding), " and ",
      to_string(options.dilation));
  STD_TORCH_CHECK(options.gradient == "exact" || options.gradient == "paper",
                  "gradient should be 'exact' or 'paper', but got '", options.gradient, "'");
  const std::vector<int64_t> sizes = sizes_of(x);
  const bool batched = sizes.size() == pooled + 2;
  bool empty_map = !batched && sizes.size() != pooled + 1;
  for (size_t dim = batched; dim < sizes.size(); ++dim) empty_map |= sizes[dim] == 0;
  STD_TORCH_CHECK(!empty_map, "expected a non-empty ", pooled + 1, "D or ", pooled + 2,
                  "D (batch mode, batch size may be 0) tensor, but got shape ", to_string(sizes));

  double cells = 1;
  for (const int64_t kernel : options.kernel_size) cells *= double(kernel);
  STD_TORCH_CHECK(cells <= INT32_MAX,
                  "a window should have less than 2^31 cells, but kernel_size is ",
                  to_string(options.kernel_size));
  Axis* const axes[] = {&pooling.t, &pooling.h, &pooling.w};
  const size_t first = sizes.size() - pooled;
  output_sizes = sizes;
  for (size_t i = 0; i < pooled; ++i) {
    Axis& axis = *axes[3 - pooled + i];
    axis = make_axis(options, i, sizes[first + i]);
    output_sizes[first + i] = axis.count;
    STD_TORCH_CHECK(axis.count > 0, "Given input size ",
                    to_string({sizes.begin() + int64_t(first), sizes.end()}), ", kernel_size ",
                    to_string(options.kernel_size), " and dilation ", to_string(options.dilation),
                    ": calculated output size is too small");
  }
  channels_last = batched && x.stride(1) == 1 && !x.is_contiguous();
  input = in_layout(x);
  const int64_t batch = batched ? sizes[0] : 1, channels = sizes[batched];
  pooling.outer = channels_last ? batch : batch * channels;
  pooling.channels = channels_last ? channels : 1;
  pooling.gradient = options.gradient == "exact" ? Gradient::exact : Gradient::paper;
  pooling = merge_unpooled(pooling);
}

void Call::check_gradient(const Tensor& grad) const {
  STD_TORCH_CHECK(sizes_of(grad) == output_sizes, "expected a gradient of shape ",
                  to_string(output_sizes), ", but got shape ", to_string(sizes_of(grad)));
  STD_TORCH_CHECK(grad.scalar_type() == input.scalar_type(),
                  "expected a gradient of the input's dtype");
}

Tensor Call::in_layout(const Tensor& tensor) const {
  const std::vector<int64_t> sizes = sizes_of(tensor);
  const std::vector<int64_t> strides = dense_strides(sizes, channels_last);
  bool dense = true;
  for (size_t dim = 0; dim < sizes.size(); ++dim)
    dense &= sizes[dim] == 1 || tensor.stride(int64_t(dim)) == strides[dim];
  if (dense) return tensor;
  Tensor copy = empty(sizes, channels_last, tensor);
  torch::stable::copy_(copy, tensor);
  return copy;
}

Tensor Call::new_output() const {
  return empty(output_sizes, channels_last, input);
}

Tensor Call::new_gradient() const {
  return empty(sizes_of(input), channels_last, input);
}

}  // namespace vidpool
