// What a pooling operator has to do, without any tensor: sizes, windows and memory layout.
#pragma once

#include <cstdint>

namespace vidpool {

enum class Gradient { exact, paper };

// One pooled dimension: `count` windows over `size` cells.
struct Axis {
  int64_t size = 1;
  int64_t count = 1;
  int64_t kernel = 1;
  int64_t stride = 1;
  int64_t padding = 0;
  int64_t dilation = 1;

  // cells from a window's first to its last
  int64_t extent() const { return (kernel - 1) * dilation + 1; }
  bool is_disjoint() const { return stride >= extent(); }
  // the cells of window `i` that lie in the input are among those from begin to end
  int64_t window_begin(int64_t i) const {
    const int64_t begin = i * stride - padding;
    return begin < 0 ? 0 : begin < size ? begin : size;
  }
  int64_t window_end(int64_t i) const {
    const int64_t end = i * stride - padding + extent();
    return end < size ? end : size;
  }
  // whether any window has this cell
  bool in_window(int64_t cell) const {
    for (int64_t k = 0; k < kernel; ++k) {
      const int64_t first = cell + padding - k * dilation;
      if (first >= 0 && first % stride == 0 && first / stride < count) return true;
    }
    return false;
  }
  // the cells before it are in no window after window `i`
  int64_t complete_after(int64_t i) const { return i + 1 < count ? window_begin(i + 1) : size; }
  bool is_pooled() const { return kernel != 1 || stride != 1; }
};

// A map of shape (outer, channels, t, h, w), pooled over its last three dimensions.
//
// In memory it is (outer, t, h, w, channels), without gaps. A contiguous (N, C, T, H, W) tensor has
// outer = N * C and one channel, a channels-last one has outer = N and all its channels here.
struct Pooling {
  int64_t outer = 1;
  int64_t channels = 1;
  Axis t, h, w;
  Gradient gradient = Gradient::exact;

  int64_t input_plane() const { return h.size * w.size * channels; }
  int64_t input_volume() const { return t.size * input_plane(); }
  int64_t output_plane() const { return h.count * w.count * channels; }
  int64_t output_volume() const { return t.count * output_plane(); }
  bool is_disjoint() const { return t.is_disjoint() && h.is_disjoint() && w.is_disjoint(); }
};

// A dimension that is not pooled holds independent maps. Moving it outwards leaves fewer and larger
// pieces of work, also where a map has a single row.
inline Pooling merge_unpooled(Pooling p) {
  if (!p.t.is_pooled()) {
    p.outer *= p.t.size;
    p.t = Axis{};
  }
  if (p.t.size == 1 && p.t.count == 1 && p.t.kernel == 1 && !p.h.is_pooled()) {
    p.h.size *= p.outer;
    p.h.count = p.h.size;
    p.outer = 1;
  }
  return p;
}

}  // namespace vidpool
