// Which threads run for a Pooling. What launches them is a parameter, since tests have no GPU:
//   run(count, body): call body(i) for 0 <= i < count, after what was launched before;
//   clear(to, bytes): set bytes to 0, likewise;
//   scratch<Real>(count): memory that what is launched may use;
//   limit(): so many elements are counted in 32 bits.
#pragma once

#include <algorithm>
#include <cstdint>
#include <initializer_list>
#include <type_traits>

#include "../pooling.h"
#include "softpool_threads.cuh"

namespace vidpool {

// Where only w is pooled, each row is a map of its own; so there are enough to be cut into parts.
inline Pooling split_rows(Pooling p) {
  if (p.t.size == 1 && p.t.count == 1 && p.t.kernel == 1 && !p.h.is_pooled()) {
    p.outer *= p.h.size;
    p.h = Axis{};
  }
  return p;
}

// Whether every cell is in a window, where windows are disjoint.
inline bool covers(const Axis& axis) {
  return axis.kernel == axis.stride && axis.count * axis.stride - axis.padding >= axis.size;
}

template <int kt, int k>
bool has_size(const Pooling& p) {
  const auto has = [](const Axis& axis, int kernel) {
    return axis.kernel == kernel && (axis.dilation == 1 || kernel == 1);
  };
  return has(p.t, kt) && has(p.h, k) && has(p.w, k);
}

inline bool is_centred(const Pooling& p) {
  const auto is_centred = [](const Axis& axis) {
    return axis.stride == (axis.kernel == 1 ? 1 : 2) && axis.padding == (axis.kernel - 1) / 2;
  };
  return is_centred(p.t) && is_centred(p.h) && is_centred(p.w);
}

template <class Index>
Dim<Index> make_dim(const Axis& axis) {
  return {Index(axis.size),    Index(axis.count),    Index(axis.kernel),
          Index(axis.padding), Index(axis.dilation), Divisor<Index>(axis.stride)};
}

template <class Index>
Map<Index> make_map(const Pooling& p) {
  const auto t = make_dim<Index>(p.t), h = make_dim<Index>(p.h), w = make_dim<Index>(p.w);
  const Index c = Index(p.channels), row = w.size * c, plane = h.size * row;
  const Index window_row = w.count * c, window_plane = h.count * window_row;
  return {t, h, w, c, row, plane, t.size * plane, window_row, window_plane, t.count * window_plane};
}

// `t` x `h` x `w` threads for each map and Access::channels channels.
template <class Access, class Index>
struct Threads {
  int64_t count;
  Numbering<Index> numbering;

  Threads(const Pooling& p, int64_t t, int64_t h, int64_t w)
      : count(p.outer * t * h * w * (p.channels / Access::channels)),
        numbering{Divisor<Index>(t), Divisor<Index>(h), Divisor<Index>(w),
                  Divisor<Index>(p.channels / Access::channels)} {}
};

inline int64_t divide_up(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}

template <class Shape, class Access, class Index>
Threads<Access, Index> window_threads(const Pooling& p) {
  return {p, p.t.count, divide_up(p.h.count, Shape::run), p.w.count / Access::side};
}

template <class Shape, class Access, class Index>
Threads<Access, Index> block_threads(const Pooling& p) {
  return {p, divide_up(p.t.size, Shape::block_t), divide_up(p.h.size, Shape::block),
          divide_up(p.w.size, Shape::block * Access::side)};
}

// Call run(Shape(), Access(), Index()) with what suits the windows and the tensors' addresses best.
template <class Element, class Run>
void choose(const Pooling& p, int64_t limit, std::initializer_list<const Element*> tensors,
            const Run& run) {
  int64_t largest = std::max(p.input_volume(), p.output_volume());
  for (const Axis& axis : {p.t, p.h, p.w})
    largest = std::max(largest, axis.size + axis.count * axis.stride + axis.extent());
  if (largest > limit) return run(AnyShape(), Single(), int64_t());
  const auto is_aligned = [&](size_t elements) {
    return std::all_of(tensors.begin(), tensors.end(), [&](const Element* tensor) {
      return uintptr_t(tensor) % (elements * sizeof(Element)) == 0;
    });
  };
  const auto with_access = [&](auto shape) {
    const bool has_quads = p.channels == 1 && p.w.size % 4 == 0 && p.w.count * 2 == p.w.size;
    if (has_quads && is_centred(p) && is_aligned(4)) return run(shape, Quads(), int32_t());
    if (p.channels % Channels::channels == 0 && is_aligned(Channels::channels)) {
      if constexpr (shape.k == 3)
        if (is_centred(p)) return run(shape, CentredChannels(), int32_t());
      return run(shape, Channels(), int32_t());
    }
    run(shape, Single(), int32_t());
  };
  if constexpr (!std::is_same_v<Element, double>) {
    if (has_size<2, 2>(p) && p.is_disjoint()) return with_access(Shape<2, 2>());
    if (has_size<1, 2>(p) && p.is_disjoint()) return with_access(Shape<1, 2>());
    if (has_size<3, 3>(p)) return with_access(Shape<3, 3>());
    if (has_size<1, 3>(p)) return with_access(Shape<1, 3>());
  }
  run(AnyShape(), Single(), int32_t());
}

// Call run(part, first) for parts that begin with map `first`, of as many maps as `limit` allows.
template <class Run>
void for_parts(const Pooling& p, int64_t limit, const Run& run) {
  const int64_t volume = std::max(p.input_volume(), p.output_volume());
  const int64_t maps = std::max<int64_t>(1, limit / volume);
  Pooling part = p;
  for (int64_t first = 0; first < p.outer; first += maps) {
    part.outer = std::min(maps, p.outer - first);
    run(part, first);
  }
}

template <class Element, class Launcher>
void forward(const Pooling& pooling, const Element* x, Element* out, Launcher& launcher) {
  const int64_t limit = launcher.limit();
  for_parts(split_rows(pooling), limit, [&](const Pooling& p, int64_t first) {
    const Element* const input = x + first * p.input_volume();
    Element* const output = out + first * p.output_volume();
    choose<Element>(p, limit, {input, output}, [&]<class S, class A, class I>(S, A, I) {
      const auto windows = window_threads<S, A, I>(p);
      launcher.run(windows.count,
                   Forward<S, A, Element, I>{make_map<I>(p), windows.numbering, input, output});
    });
  });
}

template <class Element, class Launcher>
void backward(const Pooling& pooling, const Element* grad, const Element* x, Element* out,
              Launcher& launcher) {
  using Real = Compute<Element>;
  const Pooling whole = split_rows(pooling);
  const int64_t limit = launcher.limit();
  const Real is_exact = whole.gradient == Gradient::exact ? 1 : 0;
  AllFactors<Real> factors{};
  if (whole.outer == 0) return;
  for_parts(whole, limit, [&](const Pooling& p, int64_t first) {
    const Element* const input = x + first * p.input_volume();
    const Element* const gradient = grad + first * p.output_volume();
    Element* const output = out + first * p.input_volume();
    choose<Element>(p, limit, {input, gradient, output}, [&]<class S, class A, class I>(S, A, I) {
      const auto map = make_map<I>(p);
      const auto windows = window_threads<S, A, I>(p);
      if constexpr (S::k != 3) {
        if (p.is_disjoint()) {
          if (!(covers(p.t) && covers(p.h) && covers(p.w)))
            launcher.clear(output, p.outer * p.input_volume() * int64_t(sizeof(Element)));
          return launcher.run(
              windows.count,
              Spread<S, A, Element, I>{map, windows.numbering, gradient, input, is_exact, output});
        }
      }
      if constexpr (S::k != 2) {
        if (factors.peaks == nullptr) {  // the first part is the largest
          const int64_t count = p.outer * p.output_volume();
          const int64_t aligned = divide_up(count, Channels::channels) * Channels::channels;
          factors.peaks = launcher.template scratch<Real>(3 * aligned);
          factors.slopes = factors.peaks + aligned;
          factors.offsets = factors.slopes + aligned;
        }
        launcher.run(windows.count, Prepare<S, A, Element, I>{map, windows.numbering, gradient,
                                                              input, is_exact, factors});
        const auto blocks = block_threads<S, A, I>(p);
        launcher.run(blocks.count,
                     Gather<S, A, Element, I>{map, blocks.numbering, input, factors, output});
      }
    });
  });
}

}  // namespace vidpool
