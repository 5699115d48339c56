// What one thread does, as functors that take the thread's number.
//
// Windows are those of Pooling: over maps of shape (t, h, w, channels), `outer` of them. With
// z = a - peak, where peak is the largest of a window's cells,
//     out = peak + mu,  mu = moment / mass = sum(e^z z) / sum(e^z),
//     gradient = grad e^z / mass (1 + z - mu), or without the last factor (Gradient::paper).
// All of it stays relative to the peak, so that neither large values nor large spreads cost
// accuracy. Cells of -inf have e^z = 0, and z is kept finite so that 0 z is 0 and not NaN; a NaN
// or +inf makes the mass NaN, and so everything that its window has a part in.
//
// The weights' error is below 3e-7 of a window's largest weight in float32 (ex2.approx: 2 ulp, and
// the rounding of z log2(e) matters less the smaller the weight).
//
// Everything also compiles as plain C++: tests run the threads on the host.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>

#ifdef __CUDACC__
#define VIDPOOL_DEVICE __host__ __device__ __forceinline__
#else
#define VIDPOOL_DEVICE inline
#endif
#ifdef __CUDA_ARCH__
#define VIDPOOL_UNROLL _Pragma("unroll")
#else
#define VIDPOOL_UNROLL
#endif

namespace vidpool {

// the type that is computed in
template <class Element>
using Compute = std::conditional_t<std::is_same_v<Element, double>, double, float>;

template <class Real>
constexpr Real lowest = std::numeric_limits<Real>::lowest();
template <class Real>
constexpr Real minus_infinity = -std::numeric_limits<Real>::infinity();
template <class Real>
constexpr Real negligible = Real(-1e4);  // e^z is 0 for this z

// e^z for z <= 0
VIDPOOL_DEVICE float weight_of(float z) {
  const float exponent = z * 1.44269504f;
#ifdef __CUDA_ARCH__
  float weight;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(weight) : "f"(exponent));
  return weight;
#else
  return std::exp2(exponent);
#endif
}
VIDPOOL_DEVICE double weight_of(double z) { return std::exp(z); }

// `bound` or x; NaN where x is NaN
VIDPOOL_DEVICE float at_least(float bound, float x) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  float larger;
  asm("max.NaN.f32 %0, %1, %2;" : "=f"(larger) : "f"(bound), "f"(x));
  return larger;
#else
  return x < bound ? bound : x;
#endif
}
VIDPOOL_DEVICE double at_least(double bound, double x) { return x < bound ? bound : x; }

// the larger one; the other where one is NaN
VIDPOOL_DEVICE float larger_of(float a, float b) {
#ifdef __CUDA_ARCH__
  return fmaxf(a, b);
#else
  return b > a ? b : a;
#endif
}
VIDPOOL_DEVICE double larger_of(double a, double b) { return b > a ? b : a; }

// 1 / x for x >= 1
VIDPOOL_DEVICE float inverse_of(float x) {
#ifdef __CUDA_ARCH__
  float inverse;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(inverse) : "f"(x));
  return inverse;
#else
  return 1.f / x;
#endif
}
VIDPOOL_DEVICE double inverse_of(double x) { return 1. / x; }

// a cell relative to the peak
template <class Real>
VIDPOOL_DEVICE Real z_of(Real cell, Real peak) {
  return at_least(negligible<Real>, cell - peak);
}

template <class Index>
VIDPOOL_DEVICE bool is_within(Index i, Index size) {
  using Unsigned = std::make_unsigned_t<Index>;
  return Unsigned(i) < Unsigned(size);
}

// Sums over cells; what passes from parts of a window to the whole.
template <class Real>
struct Sums {
  Real peak = lowest<Real>;  // never -inf, so that it can be subtracted
  Real mass = 0, moment = 0;

  VIDPOOL_DEVICE void add(const Sums& part) {
    const Real z = z_of(part.peak, peak);
    const Real weight = weight_of(z);
    mass += weight * part.mass;
    moment += weight * (part.moment + z * part.mass);
  }
  // 0 for a window without any value, whose weights are all 0
  VIDPOOL_DEVICE Real inverse_mass() const { return mass == 0 ? Real(0) : inverse_of(mass); }
  VIDPOOL_DEVICE Real result() const {
    return mass == 0 ? minus_infinity<Real> : peak + moment * inverse_of(mass);
  }
};

template <class Real>
VIDPOOL_DEVICE Sums<Real> join(const Sums<Real>& a, const Sums<Real>& b, const Sums<Real>& c) {
  Sums<Real> sums;
  sums.peak = larger_of(larger_of(a.peak, b.peak), c.peak);
  sums.add(a);
  sums.add(b);
  sums.add(c);
  return sums;
}

// What the gradient of a window's cells depends on besides z: it is scale e^z (slope z + offset),
// where the slope is 1, or 0 for Gradient::paper.
template <class Real>
struct Factors {
  Real scale, offset;

  VIDPOOL_DEVICE Factors(const Sums<Real>& sums, Real grad, Real slope) {
    const Real inverse = sums.inverse_mass();
    scale = grad * inverse;
    offset = 1 - slope * (sums.moment * inverse);
  }
};

// Division of what is not negative; in 32 bits by a multiplication.
template <class Index>
struct Divisor {
  Index value;

  explicit Divisor(int64_t value) : value(value) {}
  VIDPOOL_DEVICE Index divide(Index n) const { return n / value; }
};

template <>
struct Divisor<int32_t> {
  int32_t value;
  uint32_t factor, shift = 0;

  explicit Divisor(int64_t value) : value(int32_t(value)) {
    while ((int64_t(1) << shift) < value) ++shift;
    factor = uint32_t((((uint64_t(1) << shift) - value) << 32) / value + 1);
  }
  VIDPOOL_DEVICE int32_t divide(int32_t n) const {
    return int32_t((uint32_t(uint64_t(uint32_t(n)) * factor >> 32) + uint32_t(n)) >> shift);
  }
};

template <class Index>
struct Place {
  Index outer, t, h, w, channel;
};

// Which thread works where; the last of a place's numbers changes first.
template <class Index>
struct Numbering {
  Divisor<Index> t, h, w, channels;

  template <class Access>
  VIDPOOL_DEVICE Place<Index> at(Index i) const {
    Place<Index> at{0, 0, 0, 0, 0};
    if constexpr (Access::side == 1) i = split(i, channels, at.channel);  // else there is one
    i = split(i, w, at.w);
    at.channel *= Access::channels;
    at.w *= Access::side;
    i = split(i, h, at.h);
    at.outer = split(i, t, at.t);
    return at;
  }

 private:
  VIDPOOL_DEVICE static Index split(Index i, const Divisor<Index>& by, Index& rest) {
    const Index quotient = by.divide(i);
    rest = i - quotient * by.value;
    return quotient;
  }
};

// One pooled dimension, as Axis.
template <class Index>
struct Dim {
  Index size, count, kernel, padding, dilation;
  Divisor<Index> stride;

  VIDPOOL_DEVICE Index cell(Index window, Index k) const {
    return window * stride.value - padding + k * dilation;
  }
};

// A part of a Pooling that Index can count the elements of.
template <class Index>
struct Map {
  Dim<Index> t, h, w;
  Index channels;
  // elements from one row, plane and map to the next
  Index row, plane, volume;
  Index window_row, window_plane, window_volume;

  VIDPOOL_DEVICE Index cell(const Place<Index>& at) const {
    return at.outer * volume + at.t * plane + at.h * row + at.w * channels + at.channel;
  }
  VIDPOOL_DEVICE Index window(const Place<Index>& at) const {
    return at.outer * window_volume + at.t * window_plane + at.h * window_row + at.w * channels +
           at.channel;
  }
};

// What a thread works on at once, its lanes: neighbouring channels, or windows side by side in a map
// of one channel where every second column is a window's and there are as many windows as fit.
template <int channels_, int side_>
struct Access {
  static constexpr int channels = channels_, side = side_, lanes = channels * side;
};
using Single = Access<1, 1>;
using Columns = Access<1, 2>;
using Channels = Access<4, 1>;

template <class Element, int n>
struct alignas(n * sizeof(Element)) Pack {
  Element elements[n];
};

#ifdef __CUDA_ARCH__
// Reads of 2 to 16 bytes, without a branch; where `valid` is false there are two halves of `fill`.
// The memory is not written to by the same kernel.
#define VIDPOOL_READ(type, registers)                       \
  "{.reg .pred valid; setp.ne.b32 valid, %" registers ", 0;" \
  "@valid ld.global.nc." type " "
VIDPOOL_DEVICE void read_if(bool valid, const void* from, uint32_t fill, uint16_t (&to)[1]) {
  to[0] = uint16_t(fill);
  asm(VIDPOOL_READ("u16", "1") "%0, [%2];}" : "+h"(to[0]) : "r"(int(valid)), "l"(from));
}
VIDPOOL_DEVICE void read_if(bool valid, const void* from, uint32_t fill, uint32_t (&to)[1]) {
  to[0] = fill;
  asm(VIDPOOL_READ("u32", "1") "%0, [%2];}" : "+r"(to[0]) : "r"(int(valid)), "l"(from));
}
VIDPOOL_DEVICE void read_if(bool valid, const void* from, uint32_t fill, uint32_t (&to)[2]) {
  to[0] = to[1] = fill;
  asm(VIDPOOL_READ("v2.u32", "2") "{%0, %1}, [%3];}"
      : "+r"(to[0]), "+r"(to[1])
      : "r"(int(valid)), "l"(from));
}
VIDPOOL_DEVICE void read_if(bool valid, const void* from, uint32_t fill, uint32_t (&to)[4]) {
  to[0] = to[1] = to[2] = to[3] = fill;
  asm(VIDPOOL_READ("v4.u32", "4") "{%0, %1, %2, %3}, [%5];}"
      : "+r"(to[0]), "+r"(to[1]), "+r"(to[2]), "+r"(to[3])
      : "r"(int(valid)), "l"(from));
}
#undef VIDPOOL_READ
#endif

// n elements; -inf where `valid` is false
template <class Element, int n, class Real>
VIDPOOL_DEVICE void load_if(bool valid, const Element* from, Real (&to)[n]) {
  constexpr Element infinity = std::numeric_limits<Element>::infinity();
  Pack<Element, n> pack;
#ifdef __CUDA_ARCH__
  if constexpr (sizeof pack <= 16) {
    using Word = std::conditional_t<sizeof pack == 2, uint16_t, uint32_t>;
    constexpr auto bits =
        std::bit_cast<std::conditional_t<sizeof(Element) == 2, uint16_t, uint32_t>>(infinity);
    constexpr uint32_t fill = sizeof(Element) == 2 ? 0x80008000 | bits << 16 | bits : 0x80000000 | bits;
    Word words[sizeof pack / sizeof(Word)];
    read_if(valid, from, fill, words);
    memcpy(&pack, words, sizeof pack);
  }
#else
  for (int i = 0; i < n; ++i) pack.elements[i] = -infinity;
  if (valid) pack = *reinterpret_cast<const Pack<Element, n>*>(from);
#endif
  VIDPOOL_UNROLL
  for (int i = 0; i < n; ++i) to[i] = Real(pack.elements[i]);
}

template <class Element, int n, class Real>
VIDPOOL_DEVICE void load(const Element* from, Real (&to)[n]) {
  const auto pack = *reinterpret_cast<const Pack<Element, n>*>(from);
  VIDPOOL_UNROLL
  for (int i = 0; i < n; ++i) to[i] = Real(pack.elements[i]);
}

template <class Element, int n, class Real>
VIDPOOL_DEVICE void store(const Real (&from)[n], Element* to) {
  Pack<Element, n> pack;
  VIDPOOL_UNROLL
  for (int i = 0; i < n; ++i) pack.elements[i] = Element(from[i]);
  *reinterpret_cast<Pack<Element, n>*>(to) = pack;
}

// Load a block of cells, the first of them at `at`; -inf where there is no cell. With windows side by
// side all but the first of an odd number of columns are read as one vector; they are cells.
template <class Access, int planes, int rows, int columns, class Element, class Index, class Real>
VIDPOOL_DEVICE void load_block(const Map<Index>& map, const Element* x, const Place<Index>& at,
                               Real (&cells)[planes * rows][columns][Access::channels]) {
  const Index first = map.cell(at);
  VIDPOOL_UNROLL
  for (int i = 0; i < planes * rows; ++i) {
    const bool is_row = is_within<Index>(at.t + i / rows, map.t.size) &&
                        is_within<Index>(at.h + i % rows, map.h.size);
    const Element* row = x + (first + i / rows * map.plane + i % rows * map.row);
    if constexpr (Access::side > 1) {
      constexpr int odd = columns % 2;
      Real vector[columns - odd];
      if constexpr (odd) load_if(is_row && at.w >= 0, row, cells[i][0]);
      load_if(is_row, row + odd, vector);
      VIDPOOL_UNROLL
      for (int k = odd; k < columns; ++k) cells[i][k][0] = vector[k - odd];
    } else {
      VIDPOOL_UNROLL
      for (int k = 0; k < columns; ++k)
        load_if(is_row && is_within<Index>(at.w + k, map.w.size), row + k * map.channels,
                cells[i][k]);
    }
  }
}

// The opposite; what is no cell is left out.
template <class Access, int planes, int rows, int columns, class Element, class Index, class Real>
VIDPOOL_DEVICE void store_block(const Map<Index>& map,
                                const Real (&cells)[planes * rows][columns][Access::channels],
                                const Place<Index>& at, Element* out) {
  const Index first = map.cell(at);
  VIDPOOL_UNROLL
  for (int i = 0; i < planes * rows; ++i) {
    const bool is_row = is_within<Index>(at.t + i / rows, map.t.size) &&
                        is_within<Index>(at.h + i % rows, map.h.size);
    Element* row = out + (first + i / rows * map.plane + i % rows * map.row);
    if constexpr (Access::side > 1) {
      Real vector[columns];
      VIDPOOL_UNROLL
      for (int k = 0; k < columns; ++k) vector[k] = cells[i][k][0];
      if (is_row) store(vector, row);
    } else {
      VIDPOOL_UNROLL
      for (int k = 0; k < columns; ++k)
        if (is_row && is_within<Index>(at.w + k, map.w.size))
          store(cells[i][k], row + k * map.channels);
    }
  }
}

// Windows of kt x k x k cells as networks have them: two cells apart (planes only where kt > 1)
// and, where k is odd, padded so that they are centred on every second cell.
template <int kt_, int k_>
struct Shape {
  static_assert(k_ == 2 || k_ == 3);
  static constexpr int kt = kt_, k = k_;
  static constexpr int stride_t = kt == 1 ? 1 : 2, stride = 2;
  static constexpr int padding_t = (kt - 1) / 2, padding = (k - 1) / 2;
  static constexpr bool may_overlap = k > stride, may_be_disjoint = !may_overlap;
  // windows below each other, which have a row of cells in common, that one thread pools
  static constexpr int run = may_overlap ? 4 : 1;

  // the first cell of a thread's first window
  template <class Index>
  VIDPOOL_DEVICE static Place<Index> first_cell(Place<Index> at) {
    at.t = at.t * stride_t - padding_t;
    at.h = at.h * stride - padding;
    at.w = at.w * stride - padding;
    return at;
  }
};

// Some rows of a thread's windows, kt planes of them: the cells, or their z and weights.
template <class Shape, class Access, int rows, class Real>
struct Cells {
  static constexpr int lanes = Access::lanes, k = Shape::k, count = Shape::kt * rows * k;
  static constexpr int columns = k + (Access::side - 1) * Shape::stride;

  Real z[count][lanes], weights[count][lanes];

  template <class Element, class Index>
  VIDPOOL_DEVICE void load(const Map<Index>& map, const Element* x, const Place<Index>& first) {
    Real block[Shape::kt * rows][columns][Access::channels];
    load_block<Access, Shape::kt, rows, columns>(map, x, first, block);
    VIDPOOL_UNROLL
    for (int i = 0; i < count; ++i) {
      VIDPOOL_UNROLL
      for (int lane = 0; lane < lanes; ++lane)
        z[i][lane] = block[i / k][i % k + column_of(lane)][lane / Access::side];
    }
  }

  // where windows are disjoint
  template <class Element, class Index>
  VIDPOOL_DEVICE void store(const Map<Index>& map, const Place<Index>& first, Element* out) const {
    Real block[Shape::kt * rows][columns][Access::channels];
    VIDPOOL_UNROLL
    for (int i = 0; i < count; ++i) {
      VIDPOOL_UNROLL
      for (int lane = 0; lane < lanes; ++lane)
        block[i / k][i % k + column_of(lane)][lane / Access::side] = z[i][lane];
    }
    store_block<Access, Shape::kt, rows, columns>(map, block, first, out);
  }

  VIDPOOL_DEVICE Sums<Real> sum(int lane) {
    Sums<Real> sums;
    VIDPOOL_UNROLL
    for (int i = 0; i < count; ++i) sums.peak = larger_of(sums.peak, z[i][lane]);
    VIDPOOL_UNROLL
    for (int i = 0; i < count; ++i) {
      z[i][lane] = z_of(z[i][lane], sums.peak);
      weights[i][lane] = weight_of(z[i][lane]);
      const Real moment = weights[i][lane] * z[i][lane];
      sums.mass = i == 0 ? weights[i][lane] : sums.mass + weights[i][lane];
      sums.moment = i == 0 ? moment : sums.moment + moment;
    }
    return sums;
  }

 private:
  VIDPOOL_DEVICE static constexpr int column_of(int lane) {
    return Access::side > 1 ? lane * Shape::stride : 0;
  }
};

// Any other windows.
struct AnyShape {
  static constexpr bool may_overlap = true, may_be_disjoint = true;
  static constexpr int run = 1;
};

// Call visit(offset) for the cells of one window.
template <class Index, class Visit>
VIDPOOL_DEVICE void for_cells(const Map<Index>& map, const Place<Index>& at, const Visit& visit) {
  for (Index i = 0; i < map.t.kernel; ++i) {
    const Index t = map.t.cell(at.t, i);
    if (!is_within(t, map.t.size)) continue;
    for (Index j = 0; j < map.h.kernel; ++j) {
      const Index h = map.h.cell(at.h, j);
      if (!is_within(h, map.h.size)) continue;
      for (Index k = 0; k < map.w.kernel; ++k) {
        const Index w = map.w.cell(at.w, k);
        if (is_within(w, map.w.size)) visit(map.cell({at.outer, t, h, w, at.channel}));
      }
    }
  }
}

template <class Element, class Index>
VIDPOOL_DEVICE Sums<Compute<Element>> sum_window(const Map<Index>& map, const Element* x,
                                                 const Place<Index>& at) {
  using Real = Compute<Element>;
  Sums<Real> sums;
  for_cells(map, at, [&](Index cell) { sums.peak = larger_of(sums.peak, Real(x[cell])); });
  for_cells(map, at, [&](Index cell) {
    const Real z = z_of(Real(x[cell]), sums.peak);
    const Real weight = weight_of(z);
    sums.mass += weight;
    sums.moment += weight * z;
  });
  return sums;
}

// Sum up `rows` rows of a thread's windows, from `row` on.
template <class Shape, class Access, int rows, class Element, class Index, class Real>
VIDPOOL_DEVICE void sum_rows(const Map<Index>& map, const Element* x, const Place<Index>& at,
                             int row, Sums<Real> (&sums)[Access::lanes]) {
  Place<Index> first = Shape::first_cell(at);
  first.h += row;
  Cells<Shape, Access, rows, Real> cells;
  cells.load(map, x, first);
  VIDPOOL_UNROLL
  for (int lane = 0; lane < Access::lanes; ++lane) sums[lane] = cells.sum(lane);
}

// Call use(offset, sums) for each window of one thread, the lanes' at once.
template <class Shape, class Access, class Element, class Index, class Use>
VIDPOOL_DEVICE void for_windows(const Map<Index>& map, const Element* x, Place<Index> at,
                                const Use& use) {
  constexpr int lanes = Access::lanes;
  Sums<Compute<Element>> sums[lanes];
  if constexpr (std::is_same_v<Shape, AnyShape>) {
    sums[0] = sum_window(map, x, at);
    use(map.window(at), sums);
  } else if constexpr (Shape::may_be_disjoint) {
    sum_rows<Shape, Access, Shape::k>(map, x, at, 0, sums);
    use(map.window(at), sums);
  } else {
    Sums<Compute<Element>> upper[lanes], middle[lanes], lower[lanes];
    at.h *= Shape::run;
    sum_rows<Shape, Access, 1>(map, x, at, 0, upper);
    for (int i = 0; i < Shape::run && at.h < map.h.count; ++i, ++at.h) {
      sum_rows<Shape, Access, 1>(map, x, at, 1, middle);
      sum_rows<Shape, Access, 1>(map, x, at, 2, lower);
      VIDPOOL_UNROLL
      for (int lane = 0; lane < lanes; ++lane) {
        sums[lane] = join(upper[lane], middle[lane], lower[lane]);
        upper[lane] = lower[lane];
      }
      use(map.window(at), sums);
    }
  }
}

// A thread pools one window, or Shape::run.
template <class Shape_, class Access_, class Element, class Index_>
struct Forward {
  using Shape = Shape_;
  using Access = Access_;
  using Index = Index_;
  using Real = Compute<Element>;
  static constexpr int lanes = Access::lanes;

  Map<Index> map;
  Numbering<Index> numbering;
  const Element* x;
  Element* out;

  VIDPOOL_DEVICE void operator()(Index i) const {
    const auto write = [&](Index window, const Sums<Real>(&sums)[lanes]) {
      Real results[lanes];
      VIDPOOL_UNROLL
      for (int lane = 0; lane < lanes; ++lane) results[lane] = sums[lane].result();
      store(results, out + window);
    };
    for_windows<Shape, Access>(map, x, numbering.template at<Access>(i), write);
  }
};

// Where windows are disjoint: a thread writes the gradients of one window's cells.
template <class Shape_, class Access_, class Element, class Index_>
struct Spread {
  using Shape = Shape_;
  using Access = Access_;
  using Index = Index_;
  using Real = Compute<Element>;
  static constexpr int lanes = Access::lanes;

  Map<Index> map;
  Numbering<Index> numbering;
  const Element *grad, *x;
  Real slope;
  Element* out;

  VIDPOOL_DEVICE void operator()(Index i) const {
    const Place<Index> at = numbering.template at<Access>(i);
    Real grads[lanes];
    load(grad + map.window(at), grads);
    if constexpr (std::is_same_v<Shape, AnyShape>) {
      const Sums<Real> sums = sum_window(map, x, at);
      const Factors<Real> factors(sums, grads[0], slope);
      for_cells(map, at, [&](Index cell) {
        const Real z = z_of(Real(x[cell]), sums.peak);
        out[cell] = Element(factors.scale * weight_of(z) * (slope * z + factors.offset));
      });
    } else {
      Cells<Shape, Access, Shape::k, Real> cells;
      cells.load(map, x, Shape::first_cell(at));
      VIDPOOL_UNROLL
      for (int lane = 0; lane < lanes; ++lane) {
        const Factors<Real> factors(cells.sum(lane), grads[lane], slope);
        VIDPOOL_UNROLL
        for (int i = 0; i < cells.count; ++i)
          cells.z[i][lane] = factors.scale * cells.weights[i][lane] *
                             (slope * cells.z[i][lane] + factors.offset);
      }
      cells.store(map, Shape::first_cell(at), out);
    }
  }
};

// Each window's peak and factors.
template <class Real>
struct Windows {
  Real *peak, *scale, *offset;
};

// Where windows overlap, first: a thread finds peak and factors of one window, or of Shape::run.
template <class Shape_, class Access_, class Element, class Index_>
struct Prepare {
  using Shape = Shape_;
  using Access = Access_;
  using Index = Index_;
  using Real = Compute<Element>;
  static constexpr int lanes = Access::lanes;

  Map<Index> map;
  Numbering<Index> numbering;
  const Element *grad, *x;
  Real slope;
  Windows<Real> windows;

  VIDPOOL_DEVICE void operator()(Index i) const {
    const auto write = [&](Index window, const Sums<Real>(&sums)[lanes]) {
      Real grads[lanes], peaks[lanes], scales[lanes], offsets[lanes];
      load(grad + window, grads);
      VIDPOOL_UNROLL
      for (int lane = 0; lane < lanes; ++lane) {
        const Factors<Real> factors(sums[lane], grads[lane], slope);
        peaks[lane] = sums[lane].peak;
        scales[lane] = factors.scale;
        offsets[lane] = factors.offset;
      }
      store(peaks, windows.peak + window);
      store(scales, windows.scale + window);
      store(offsets, windows.offset + window);
    };
    for_windows<Shape, Access>(map, x, numbering.template at<Access>(i), write);
  }
};

// Then: a thread adds up the gradients of a block of stride_t x stride x stride cells, or of one.
template <class Shape_, class Access_, class Element, class Index_>
struct Gather {
  using Shape = Shape_;
  using Access = Access_;
  using Index = Index_;
  using Real = Compute<Element>;
  static constexpr int lanes = Access::lanes;

  Map<Index> map;
  Numbering<Index> numbering;
  const Element* x;
  Real slope;
  Windows<Real> windows;
  Element* out;

  VIDPOOL_DEVICE void operator()(Index i) const {
    const Place<Index> at = numbering.template at<Access>(i);
    if constexpr (std::is_same_v<Shape, AnyShape>)
      gather_cell(at);
    else
      gather_block(at);
  }

 private:
  VIDPOOL_DEVICE void gather_cell(const Place<Index>& at) const {
    const Index cell = map.cell(at);
    const Real value = Real(x[cell]);
    Real sum = 0;
    for_windows_of(map.t, at.t, [&](Index t) {
      for_windows_of(map.h, at.h, [&](Index h) {
        for_windows_of(map.w, at.w, [&](Index w) {
          const Index window = map.window({at.outer, t, h, w, at.channel});
          const Real z = z_of(value, windows.peak[window]);
          sum += windows.scale[window] * weight_of(z) * (slope * z + windows.offset[window]);
        });
      });
    });
    out[cell] = Element(sum);
  }

  // Call visit(window) for the windows that hold a cell, in one dimension.
  template <class Visit>
  VIDPOOL_DEVICE static void for_windows_of(const Dim<Index>& dim, Index cell, const Visit& visit) {
    for (Index k = 0; k < dim.kernel; ++k) {
      const Index first = cell + dim.padding - k * dim.dilation;
      if (first < 0) break;
      const Index window = dim.stride.divide(first);
      if (window * dim.stride.value == first && window < dim.count) visit(window);
    }
  }

  // With a Shape's padding every cell lies in some window, also at the ends. Of a block, cell i is
  // cell k = i + padding - stride j of the block's window j.
  VIDPOOL_DEVICE void gather_block(const Place<Index>& at) const {
    constexpr int st = Shape::stride_t, s = Shape::stride, columns = s * Access::side;
    constexpr int pt = Shape::padding_t, p = Shape::padding;
    constexpr int wt = (st - 1 + pt) / st + 1, wh = (s - 1 + p) / s + 1, ww = (columns - 1 + p) / s + 1;
    constexpr int channels = Access::channels;
    const Place<Index> first{at.outer, at.t * st, at.h * s, at.w * s, at.channel};
    Real cells[st * s][columns][channels], sums[st * s][columns][channels] = {};
    load_block<Access, st, s, columns>(map, x, first, cells);
    VIDPOOL_UNROLL
    for (int i = 0; i < wt * wh; ++i) {
      const Place<Index> row{at.outer, at.t + i / wh, at.h + i % wh, at.w, at.channel};
      const bool is_row = row.t < map.t.count && row.h < map.h.count;
      const Index offset = map.window(row);
      VIDPOOL_UNROLL
      for (int j = 0; j < ww; ++j) {
        // a peak of inf gives cells no weight
        Real peaks[channels], scales[channels] = {}, offsets[channels] = {};
        VIDPOOL_UNROLL
        for (int c = 0; c < channels; ++c) peaks[c] = -minus_infinity<Real>;
        if (is_row && at.w + j < map.w.count) {
          load(windows.peak + (offset + j * map.channels), peaks);
          load(windows.scale + (offset + j * map.channels), scales);
          load(windows.offset + (offset + j * map.channels), offsets);
        }
        VIDPOOL_UNROLL
        for (int c = 0; c < st * s * columns; ++c) {
          const int row_c = c / columns, column_c = c % columns;
          const int kt = row_c / s + pt - st * (i / wh), kh = row_c % s + p - s * (i % wh);
          const int kw = column_c + p - s * j;
          if (kt < 0 || kt >= Shape::kt || kh < 0 || kh >= Shape::k || kw < 0 || kw >= Shape::k)
            continue;
          VIDPOOL_UNROLL
          for (int channel = 0; channel < channels; ++channel) {
            const Real z = z_of(cells[row_c][column_c][channel], peaks[channel]);
            sums[row_c][column_c][channel] +=
                scales[channel] * weight_of(z) * (slope * z + offsets[channel]);
          }
        }
      }
    }
    store_block<Access, st, s, columns>(map, sums, first, out);
  }
};

}  // namespace vidpool
