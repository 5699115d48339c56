// What each thread does, as functors that take the thread's number.
//
// For a window whose largest cell is `peak`, with z = a - peak:
//     mass = sum(e^z), moment = sum(e^z z), mu = moment / mass,
//     out = peak + mu, gradient = grad e^z / mass (1 + z - mu), or without the last factor.
// All of it is relative to the peak, so neither large values nor large spreads cost accuracy. Cells
// of -inf have e^z = 0, and z is kept finite lest 0 z is NaN. NaN and +inf make the mass NaN, and
// so whatever their window has a part in.
//
// In float32 the error of e^z is below 3e-7: 2 ulp of ex2.approx, and z log2(e) is rounded, which
// matters the less the smaller e^z is.
//
// All this compiles as plain C++ too, so tests can run the threads without a GPU.
#pragma once

#include <bit>
#include <cassert>
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
VIDPOOL_DEVICE double weight_of(double z) {
  return std::exp(z);
}

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
VIDPOOL_DEVICE double at_least(double bound, double x) {
  return x < bound ? bound : x;
}

// the larger one; the other where one is NaN
VIDPOOL_DEVICE float larger_of(float a, float b) {
#ifdef __CUDA_ARCH__
  return fmaxf(a, b);
#else
  return b > a ? b : a;
#endif
}
VIDPOOL_DEVICE double larger_of(double a, double b) {
  return b > a ? b : a;
}

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
VIDPOOL_DEVICE double inverse_of(double x) {
  return 1. / x;
}

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

// Sums over cells: all of a window, or some rows of it.
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
  // without any value mass and moment are 0; with one the mass holds a 1
  VIDPOOL_DEVICE Real inverse_mass() const { return inverse_of(at_least(Real(1), mass)); }
  VIDPOOL_DEVICE Real result() const {
    return mass == 0 ? minus_infinity<Real> : peak + moment * inverse_mass();
  }
};

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
    if constexpr (!Access::vectors) i = split(i, channels, at.channel);  // else there is one
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

// What a thread works on at once, its lanes: neighbouring channels, or `side` windows side by side.
// With `vectors` a map has one channel, and each window two columns that begin at an even one,
// which are read together; what it has besides is the column before them.
template <int channels_, int side_, bool vectors_>
struct Access {
  static constexpr int channels = channels_, side = side_, lanes = channels * side;
  static constexpr bool vectors = vectors_;
};
using Single = Access<1, 1, false>;
using Pairs = Access<1, 1, true>;
using Quads = Access<1, 2, true>;
using Channels = Access<4, 1, false>;

template <class Element, int n>
struct alignas(n * sizeof(Element)) Pack {
  Element elements[n];
};

// Read 2 to 16 bytes, which no thread writes, where `valid`; else leave `to` as it is. With a
// branch instead nvcc would compute every address anew.
#ifdef __CUDA_ARCH__
#define VIDPOOL_READ_IF(operand, type) \
  "{.reg .pred p; setp.ne.s32 p, " operand ", 0; @p ld.global.nc." type " "
VIDPOOL_DEVICE void read_if(bool valid, const void* from, uint16_t (&to)[1]) {
  asm(VIDPOOL_READ_IF("%1", "u16") "%0, [%2];}" : "+h"(to[0]) : "r"(int(valid)), "l"(from));
}
VIDPOOL_DEVICE void read_if(bool valid, const void* from, uint32_t (&to)[1]) {
  asm(VIDPOOL_READ_IF("%1", "u32") "%0, [%2];}" : "+r"(to[0]) : "r"(int(valid)), "l"(from));
}
VIDPOOL_DEVICE void read_if(bool valid, const void* from, uint32_t (&to)[2]) {
  asm(VIDPOOL_READ_IF("%2", "v2.u32") "{%0, %1}, [%3];}"
      : "+r"(to[0]), "+r"(to[1])
      : "r"(int(valid)), "l"(from));
}
VIDPOOL_DEVICE void read_if(bool valid, const void* from, uint32_t (&to)[4]) {
  asm(VIDPOOL_READ_IF("%4", "v4.u32") "{%0, %1, %2, %3}, [%5];}"
      : "+r"(to[0]), "+r"(to[1]), "+r"(to[2]), "+r"(to[3])
      : "r"(int(valid)), "l"(from));
}
#undef VIDPOOL_READ_IF
#else
template <class Word, int n>
void read_if(bool valid, const void* from, Word (&to)[n]) {
  if (!valid) return;
  assert(uintptr_t(from) % sizeof to == 0);
  std::memcpy(to, from, sizeof to);
}
#endif

template <class Element>
using Bits = std::conditional_t<sizeof(Element) == 2, uint16_t, uint32_t>;
template <class Element>
constexpr auto infinity_bits =
    std::bit_cast<Bits<Element>>(std::numeric_limits<Element>::infinity());
template <class Element>
constexpr auto minus_infinity_bits =
    Bits<Element>(infinity_bits<Element> | 1u << (8 * sizeof(Element) - 1));

// Load n elements, or n times the one with the bits `fill`.
template <class Element, int n, class Real>
VIDPOOL_DEVICE void load_if(bool valid, const Element* from, Bits<Element> fill, Real (&to)[n]) {
  using Word = std::conditional_t<n * sizeof(Element) == 2, uint16_t, uint32_t>;
  Word words[n * sizeof(Element) / sizeof(Word)];
  VIDPOOL_UNROLL
  for (Word& word : words) word = Word(sizeof(Element) < sizeof(Word) ? fill * 0x10001u : fill);
  read_if(valid, from, words);
  Pack<Element, n> pack;
  memcpy(&pack, words, sizeof pack);
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

// Load a block of cells, the first of them at `at`; -inf where there is no cell.
template <class Access, int planes, int rows, int columns, class Element, class Index, class Real>
VIDPOOL_DEVICE void load_block(const Map<Index>& map, const Element* x, const Place<Index>& at,
                               Real (&cells)[planes * rows][columns][Access::channels]) {
  constexpr auto nothing = minus_infinity_bits<Element>;
  const Index first = map.cell(at);
  VIDPOOL_UNROLL
  for (int i = 0; i < planes * rows; ++i) {
    const bool is_row = is_within<Index>(at.t + i / rows, map.t.size) &&
                        is_within<Index>(at.h + i % rows, map.h.size);
    const Element* row = x + (first + i / rows * map.plane + i % rows * map.row);
    if constexpr (Access::vectors) {
      constexpr int odd = columns % 2;
      Real vector[columns - odd];
      if constexpr (odd) load_if(is_row && at.w >= 0, row, nothing, cells[i][0]);
      load_if(is_row, row + odd, nothing, vector);
      VIDPOOL_UNROLL
      for (int k = odd; k < columns; ++k) cells[i][k][0] = vector[k - odd];
    } else {
      VIDPOOL_UNROLL
      for (int k = 0; k < columns; ++k)
        load_if(is_row && is_within<Index>(at.w + k, map.w.size), row + k * map.channels, nothing,
                cells[i][k]);
    }
  }
}

// Store such a block, of an even number of columns.
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
    if constexpr (Access::vectors) {
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
  // windows below each other that one thread pools; overlapping ones have a row in common
  static constexpr int run = may_overlap ? 4 : 1;

  template <class Index>
  VIDPOOL_DEVICE static Place<Index> first_cell(Place<Index> at) {
    at.t = at.t * stride_t - padding_t;
    at.h = at.h * stride - padding;
    at.w = at.w * stride - padding;
    return at;
  }
};

// The cells in some rows of a thread's windows, or when they are summed up their z and weights.
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
        z[i][lane] = block[i / k][i % k + column_of(lane)][channel_of(lane)];
    }
  }

  // of windows that are disjoint
  template <class Element, class Index>
  VIDPOOL_DEVICE void store(const Map<Index>& map, const Place<Index>& first, Element* out) const {
    Real block[Shape::kt * rows][columns][Access::channels];
    VIDPOOL_UNROLL
    for (int i = 0; i < count; ++i) {
      VIDPOOL_UNROLL
      for (int lane = 0; lane < lanes; ++lane)
        block[i / k][i % k + column_of(lane)][channel_of(lane)] = z[i][lane];
    }
    store_block<Access, Shape::kt, rows, columns>(map, block, first, out);
  }

  VIDPOOL_DEVICE Real peak(int lane) const {
    Real peak = lowest<Real>;
    VIDPOOL_UNROLL
    for (int i = 0; i < count; ++i) peak = larger_of(peak, z[i][lane]);
    return peak;
  }

  // add to sums whose peak is at least the cells'
  VIDPOOL_DEVICE void add_to(Sums<Real>& sums, int lane) {
    VIDPOOL_UNROLL
    for (int i = 0; i < count; ++i) {
      z[i][lane] = z_of(z[i][lane], sums.peak);
      weights[i][lane] = weight_of(z[i][lane]);
      sums.mass += weights[i][lane];
      sums.moment += weights[i][lane] * z[i][lane];
    }
  }

  VIDPOOL_DEVICE Sums<Real> sum(int lane) {
    Sums<Real> sums;
    sums.peak = peak(lane);
    add_to(sums, lane);
    return sums;
  }

 private:
  VIDPOOL_DEVICE static constexpr int column_of(int lane) {
    return Access::side > 1 ? lane * Shape::stride : 0;
  }
  VIDPOOL_DEVICE static constexpr int channel_of(int lane) { return Access::side > 1 ? 0 : lane; }
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

// Call use(offset, sums) for the thread's windows, all lanes at once.
template <class Shape, class Access, class Element, class Index, class Use>
VIDPOOL_DEVICE void for_windows(const Map<Index>& map, const Element* x, Place<Index> at,
                                const Use& use) {
  using Real = Compute<Element>;
  constexpr int lanes = Access::lanes;
  Sums<Real> sums[lanes];
  if constexpr (std::is_same_v<Shape, AnyShape>) {
    sums[0] = sum_window(map, x, at);
    use(map.window(at), sums);
  } else if constexpr (Shape::may_be_disjoint) {
    Cells<Shape, Access, Shape::k, Real> cells;
    cells.load(map, x, Shape::first_cell(at));
    VIDPOOL_UNROLL
    for (int lane = 0; lane < lanes; ++lane) sums[lane] = cells.sum(lane);
    use(map.window(at), sums);
  } else {
    Cells<Shape, Access, 1, Real> cells;
    const auto load_row = [&](int row) {
      Place<Index> first = Shape::first_cell(at);
      first.h += row;
      cells.load(map, x, first);
    };
    Sums<Real> upper[lanes], lower[lanes];  // of a window's first and last row
    at.h *= Shape::run;
    load_row(0);
    VIDPOOL_UNROLL
    for (int lane = 0; lane < lanes; ++lane) upper[lane] = cells.sum(lane);
    for (int i = 0; i < Shape::run && at.h < map.h.count; ++i, ++at.h) {
      load_row(2);
      VIDPOOL_UNROLL
      for (int lane = 0; lane < lanes; ++lane) lower[lane] = cells.sum(lane);
      load_row(1);
      VIDPOOL_UNROLL
      for (int lane = 0; lane < lanes; ++lane) {
        Sums<Real> total;
        total.peak = larger_of(larger_of(upper[lane].peak, lower[lane].peak), cells.peak(lane));
        cells.add_to(total, lane);
        total.add(upper[lane]);
        total.add(lower[lane]);
        sums[lane] = total;
        upper[lane] = lower[lane];
      }
      use(map.window(at), sums);
    }
  }
}

// Pools the thread's windows.
template <class Shape, class Access, class Element, class Index>
struct Forward {
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

// Where windows are disjoint: writes the gradients of the cells of the thread's windows.
template <class Shape, class Access, class Element, class Index>
struct Spread {
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
          cells.z[i][lane] =
              factors.scale * cells.weights[i][lane] * (slope * cells.z[i][lane] + factors.offset);
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

// Where windows overlap, first: finds peak and factors of the thread's windows.
template <class Shape, class Access, class Element, class Index>
struct Prepare {
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

// The cells of a thread of Gather, those of so many strides below and beside each other.
template <class Shape, class Access>
struct Block {
  static constexpr int below = Access::lanes == 1 ? 2 : 1;
  static constexpr int planes = Shape::stride_t, rows = Shape::stride * below;
  static constexpr int columns = Shape::stride * Access::side;
};

// Then: adds up the gradients of the thread's block of cells, or with AnyShape of its one cell.
template <class Shape, class Access, class Element, class Index>
struct Gather {
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
    const Index padded = cell + dim.padding;
    if (dim.dilation == 1) {
      const Index end = dim.stride.divide(padded) + 1;
      Index window = padded < dim.kernel ? 0 : dim.stride.divide(padded - dim.kernel) + 1;
      for (; window < end && window < dim.count; ++window) visit(window);
      return;
    }
    for (Index k = 0; k < dim.kernel; ++k) {
      const Index first = padded - k * dim.dilation;
      if (first < 0) break;
      const Index window = dim.stride.divide(first);
      if (window * dim.stride.value == first && window < dim.count) visit(window);
    }
  }

  // n windows side by side, the first of them at column w
  template <int n>
  VIDPOOL_DEVICE void load_windows(bool is_row, const Real* from, Index w, Bits<Real> fill,
                                   Real (&to)[n][Access::channels]) const {
    constexpr int even = Access::vectors ? Access::side : 0;
    if constexpr (Access::vectors) {
      Real vector[even];
      load_if(is_row, from, fill, vector);
      VIDPOOL_UNROLL
      for (int i = 0; i < even; ++i) to[i][0] = vector[i];
    }
    const Index step = Access::vectors ? 1 : map.channels;
    VIDPOOL_UNROLL
    for (int i = even; i < n; ++i)
      load_if(is_row && w + i < map.w.count, from + i * step, fill, to[i]);
  }

  // With a Shape's padding every cell lies in some window, also at the ends. In each dimension cell
  // i of the block is cell k = i + padding - stride j of its window j.
  VIDPOOL_DEVICE void gather_block(const Place<Index>& at) const {
    using B = Block<Shape, Access>;
    constexpr int channels = Access::channels, st = Shape::stride_t, s = Shape::stride;
    constexpr int windows_t = (B::planes - 1 + Shape::padding_t) / st + 1;
    constexpr int windows_h = (B::rows - 1 + Shape::padding) / s + 1;
    constexpr int windows_w = (B::columns - 1 + Shape::padding) / s + 1;
    Place<Index> window = at;
    window.h *= B::below;
    const Place<Index> first{at.outer, window.t * st, window.h * s, window.w * s, at.channel};
    Real cells[B::planes * B::rows][B::columns][channels];
    Real sums[B::planes * B::rows][B::columns][channels] = {};
    load_block<Access, B::planes, B::rows, B::columns>(map, x, first, cells);
    VIDPOOL_UNROLL
    for (int j = 0; j < windows_t * windows_h; ++j) {
      const int jt = j / windows_h, jh = j % windows_h;
      const bool is_row = window.t + jt < map.t.count && window.h + jh < map.h.count;
      const Index row = map.window(window) + jt * map.window_plane + jh * map.window_row;
      Real peaks[windows_w][channels], scales[windows_w][channels], offsets[windows_w][channels];
      // a peak of inf gives cells no weight
      load_windows(is_row, windows.peak + row, window.w, infinity_bits<Real>, peaks);
      load_windows(is_row, windows.scale + row, window.w, 0, scales);
      load_windows(is_row, windows.offset + row, window.w, 0, offsets);
      VIDPOOL_UNROLL
      for (int i = 0; i < B::planes * B::rows * B::columns; ++i) {
        const int row_i = i / B::columns, iw = i % B::columns;
        const int kt = row_i / B::rows + Shape::padding_t - st * jt;
        const int kh = row_i % B::rows + Shape::padding - s * jh;
        if (kt < 0 || kt >= Shape::kt || kh < 0 || kh >= Shape::k) continue;
        VIDPOOL_UNROLL
        for (int jw = 0; jw < windows_w; ++jw) {
          const int kw = iw + Shape::padding - s * jw;
          if (kw < 0 || kw >= Shape::k) continue;
          VIDPOOL_UNROLL
          for (int c = 0; c < channels; ++c) {
            const Real z = z_of(cells[row_i][iw][c], peaks[jw][c]);
            sums[row_i][iw][c] += scales[jw][c] * weight_of(z) * (slope * z + offsets[jw][c]);
          }
        }
      }
    }
    store_block<Access, B::planes, B::rows, B::columns>(map, sums, first, out);
  }
};

}  // namespace vidpool
