// The CUDA kernels' threads, run one after the other on the host, for test_cuda_on_host.py.
#include <algorithm>
#include <cassert>
#include <cstdint>
#include <cstring>
#include <vector>

#include "../../csrc/cuda/softpool_plan.h"

namespace {

struct Kernel {
  int step, kernel_t, kernel, channels, side, centred, bits;
};

template <template <class...> class A, template <class...> class B>
constexpr bool is_same = false;
template <template <class...> class A>
constexpr bool is_same<A, A> = true;

class Launcher {
 public:
  Launcher(int64_t limit, Kernel* last) : limit_(limit), last_(last) {}

  template <template <class...> class Body, class Shape, class Access, class Element, class Index>
  void run(int64_t count, const Body<Shape, Access, Element, Index>& body) {
    assert(sizeof(Index) == 8 || count <= limit_);
    // last first: no thread may rely on another
    for (int64_t i = count; i-- > 0;) body(Index(i));
    const bool steps[] = {is_same<Body, vidpool::Forward>, is_same<Body, vidpool::Spread>,
                          is_same<Body, vidpool::Prepare>, is_same<Body, vidpool::Gather>};
    last_->step = int(std::find(steps, steps + 4, true) - steps);
    last_->kernel_t = Shape::kt;
    last_->kernel = Shape::k;
    last_->channels = Access::channels;
    last_->side = Access::side;
    last_->centred = Access::centred;
    last_->bits = 8 * sizeof(Index);
  }
  void clear(void* to, int64_t bytes) { std::memset(to, 0, size_t(bytes)); }
  template <class Real>
  Real* scratch(int64_t count) {
    scratch_.assign(size_t(count) * sizeof(Real), 0xff);  // NaN
    return reinterpret_cast<Real*>(scratch_.data());
  }
  int64_t limit() const { return limit_; }

 private:
  int64_t limit_;
  Kernel* last_;
  std::vector<unsigned char> scratch_;
};

vidpool::Axis axis(const int64_t* numbers) {
  return {numbers[0], numbers[1], numbers[2], numbers[3], numbers[4], numbers[5]};
}

// `numbers`: outer and channels; then size, count, kernel, stride, padding and dilation of t, h and
// w. The last kernel that ran is written to `last`. Without `grad` this is the forward pass.
template <class Element>
void run(const int64_t* numbers, bool paper, int64_t limit, const Element* grad, const Element* x,
         Element* out, Kernel* last) {
  const vidpool::Pooling pooling = vidpool::merge_unpooled(
      {numbers[0], numbers[1], axis(numbers + 2), axis(numbers + 8), axis(numbers + 14),
       paper ? vidpool::Gradient::paper : vidpool::Gradient::exact});
  Launcher launcher(limit, last);
  if (grad != nullptr)
    vidpool::backward(pooling, grad, x, out, launcher);
  else
    vidpool::forward(pooling, x, out, launcher);
}

}  // namespace

extern "C" void run_float(const int64_t* numbers, bool paper, int64_t limit, const float* grad,
                          const float* x, float* out, Kernel* last) {
  run(numbers, paper, limit, grad, x, out, last);
}
extern "C" void run_double(const int64_t* numbers, bool paper, int64_t limit, const double* grad,
                           const double* x, double* out, Kernel* last) {
  run(numbers, paper, limit, grad, x, out, last);
}
