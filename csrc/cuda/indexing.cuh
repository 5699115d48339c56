// Which windows or cells a thread works on, and where these lie in memory.
#pragma once

#include <cstdint>
#include <type_traits>

#include "arithmetic.cuh"

namespace vidpool {

template <class Index>
VIDPOOL_DEVICE bool is_within(Index i, Index size) {
  using Unsigned = std::make_unsigned_t<Index>;
  return Unsigned(i) < Unsigned(size);
}

// Division of non-negative numbers. In 32 bits it is a multiplication.
template <class Index>
struct Divisor {
  Index value;
  uint32_t factor, shift = 0;

  explicit Divisor(int64_t value) : value(Index(value)) {
    while ((int64_t(1) << shift) < value) ++shift;
    factor = uint32_t((((uint64_t(1) << shift) - value) << 32) / value + 1);
  }
  VIDPOOL_DEVICE Index divide(Index n) const {
    if constexpr (sizeof(Index) == 8) return n / value;
    return Index((uint32_t(uint64_t(uint32_t(n)) * factor >> 32) + uint32_t(n)) >> shift);
  }
};

// Position of a cell in the input, or of a window in the output.
template <class Index>
struct Place {
  Index outer, t, h, w, channel;
};

// How much a thread works on at once, its lanes: adjacent channels, or adjacent windows of a row.
// Windows that are `centred` have a stride of 2 and a padding of (kernel - 1) / 2 in each dimension
// with more than one cell.
template <int channels_, int side_, bool centred_>
struct Access {
  static constexpr int channels = channels_, side = side_, lanes = channels * side;
  static constexpr bool centred = centred_;
};
using Single = Access<1, 1, false>;
using Channels = Access<4, 1, false>;
using CentredChannels = Access<4, 1, true>;
// Two windows of a map with one channel, whose four columns are aligned: one load reads them all.
using Quads = Access<1, 2, true>;

// Order of the threads: the last component of a place varies fastest.
template <class Index>
struct Numbering {
  Divisor<Index> t, h, w, channels;

  template <class Access>
  VIDPOOL_DEVICE Place<Index> at(Index i) const {
    Place<Index> at{0, 0, 0, 0, 0};
    if constexpr (Access::side == 1) i = split(i, channels, at.channel);
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

// One pooled dimension; its members are those of Axis.
template <class Index>
struct Dim {
  Index size, count, kernel, padding, dilation;
  Divisor<Index> stride;

  VIDPOOL_DEVICE Index first_cell(Index window) const { return window * stride.value - padding; }

  // Call visit(cell) for the cells of a window that lie in the map.
  template <class Visit>
  VIDPOOL_DEVICE void for_cells(Index window, const Visit& visit) const {
    for (Index k = 0; k < kernel; ++k) {
      const Index cell = first_cell(window) + k * dilation;
      if (is_within(cell, size)) visit(cell);
    }
  }

  struct Range {
    Index begin, end;
  };
  // The windows without dilation that hold any of `cells` adjacent cells.
  VIDPOOL_DEVICE Range windows_of(Index first, Index cells) const {
    const Index padded = first + padding, last = stride.divide(padded + cells - 1);
    return {padded < kernel ? 0 : stride.divide(padded - kernel) + 1,
            last < count ? last + 1 : count};
  }

  // Call visit(window) for the windows that hold a cell.
  template <class Visit>
  VIDPOOL_DEVICE void for_windows_of(Index cell, const Visit& visit) const {
    if (dilation == 1) {
      const Range windows = windows_of(cell, 1);
      for (Index window = windows.begin; window < windows.end; ++window) visit(window);
      return;
    }
    for (Index first = cell + padding, k = 0; k < kernel && first >= 0; ++k, first -= dilation) {
      const Index window = stride.divide(first);
      if (window * stride.value == first && window < count) visit(window);
    }
  }
};

// A Pooling with sizes in Index.
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

}  // namespace vidpool
