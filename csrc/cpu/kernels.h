// SoftPool on the CPU: what is the same for every instruction set.
//
// A map is pooled plane by plane. A plane is first copied into scratch memory, in the type that is
// computed in, padded with -inf and split into phases: the cells whose row and column have the same
// remainder by the stride lie together. There each of a window's cells has a constant distance from
// the window's first, and windows that lie side by side are the lanes of vectors, for any kernel
// size, stride, dilation and padding, and across the ends of narrow rows. The positions between
// two rows, which are no windows, are computed too and not used.
//
// Every window takes its own maximum m off its values: z = a - m, with which
//     out = m + sum(e^z z) / sum(e^z)
// is exact for any spread and offset. That takes one exponential a window and cell.
//
// Included once for every instruction set, after vector.h and elements.h.
#pragma once

namespace {

using vidpool::Gradient;
using vidpool::group;
using vidpool::PhaseSplit;
using vidpool::Pooling;
using vidpool::Scratch;
using vidpool::Tile;
using vidpool::Tiling;

template <class Real>
constexpr Real minus_infinity = -Real(__builtin_inf());
template <class Real>
constexpr Real lowest = sizeof(Real) == 4 ? Real(-__FLT_MAX__) : Real(-__DBL_MAX__);

// The two phases of a row under stride 2, from the row's first cell on instead of its padding's.
template <class Real>
struct Pair {
  Real *even, *odd;
  Pair(Real* phases, int64_t distance, int64_t padding)
      : even(phases + padding % 2 * distance + padding / 2),
        odd(phases + (padding + 1) % 2 * distance + (padding + 1) / 2) {}
};

// Copy a row of the input into its phases.
//
// Vectors may run over the end of a phase's row: the next is written afterwards, and there is room
// behind the last. They may read beyond a row of the input, but not beyond `input_end`; else the
// row's rest is first copied to `row`.
template <int bytes, class Element, class Real>
VIDPOOL_INLINE void split_row(const Pooling& p, const Tile& tile, const Element* input,
                              const Element* input_end, Real* phases, Real* row) {
  using V = typename Vector<Real, bytes>::type;
  constexpr int lanes = Vector<Real, bytes>::lanes;
  const int64_t stride = tile.w.stride, length = tile.pitch, unit = tile.unit;
  const int64_t padding = p.w.padding, cells = tile.cells_read;
  if constexpr (bytes > 16)
    if (cells <= lanes) return split_row<bytes / 2>(p, tile, input, input_end, phases, row);
  if (unit == 1 && stride == 1) {
    copy<bytes>(input, phases + padding, cells);
    fill(phases, minus_infinity<Real>, padding);
    fill(phases + padding + cells, minus_infinity<Real>, length - padding - cells);
    return;
  }
  if (unit == 1 && stride == 2 && tile.w.phases == 2) {
    const Pair<Real> pair(phases, tile.phase_size, padding);
    for (int64_t i = 0; i < cells; i += 2 * lanes) {
      V first, second, even, odd;
      if (input_end - input >= i + 2 * lanes) {
        first = read<bytes>(input + i);
        second = read<bytes>(input + i + lanes);
      } else {
        copy<bytes>(input + i, row, cells - i);
        first = load<V>(row);
        second = load<V>(row + lanes);
      }
      split_pair(first, second, even, odd, typename MakeLanes<lanes>::type());
      store(pair.even + i / 2, even);
      store(pair.odd + i / 2, odd);
    }
    Real* const phase[] = {phases, phases + tile.phase_size};
    for (int64_t q = 0; q < padding; ++q) phase[q & 1][q >> 1] = minus_infinity<Real>;
    for (int64_t q = padding + cells; q < 2 * length; ++q)
      phase[q & 1][q >> 1] = minus_infinity<Real>;
    return;
  }
  for (int64_t phase = 0; phase < tile.w.phases; ++phase) {
    int64_t w = tile.w.remainder(phase) - p.w.padding;
    Real* to = phases + phase * tile.phase_size;
    for (int64_t i = 0; i < length; ++i, w += stride, to += unit) {
      if (w >= 0 && w < p.w.size)
        copy<bytes>(input + w * p.channels, to, unit);
      else
        fill(to, minus_infinity<Real>, unit);
    }
  }
}

// Set n elements to 0, with the help of `row`.
template <int bytes, class Element, class Real>
VIDPOOL_INLINE void clear(Element* output, int64_t n, Real* row) {
  fill(row, Real(0), n);
  copy<bytes>(row, output, n);
}

// Copy a row of phases back to a row of the input's shape; cells of no window are 0.
template <int bytes, class Element, class Real>
VIDPOOL_INLINE void merge_row(const Pooling& p, const Tile& tile, const Real* phases,
                              Element* output, Real* row) {
  using V = typename Vector<Real, bytes>::type;
  constexpr int lanes = Vector<Real, bytes>::lanes;
  const int64_t stride = tile.w.stride, length = tile.pitch, unit = tile.unit;
  const int64_t cells = tile.cells_read;
  if (unit == 1 && stride == 1) {
    copy<bytes>(phases + p.w.padding, output, cells);
    if (cells < p.w.size) clear<bytes>(output + cells, p.w.size - cells, row);
    return;
  }
  if (unit == 1 && stride == 2 && tile.w.phases == 2) {
    const Pair<const Real> pair(phases, tile.phase_size, p.w.padding);
    for (int64_t i = 0; i < cells; i += 2 * lanes) {
      V first, second;
      merge_pair(load<V>(pair.even + i / 2), load<V>(pair.odd + i / 2), first, second,
                 typename MakeLanes<lanes>::type());
      if (i + 2 * lanes <= cells) {
        write<bytes>(output + i, first);
        write<bytes>(output + i + lanes, second);
      } else {
        store(row, first);
        store(row + lanes, second);
        copy<bytes>(row, output + i, cells - i);
      }
    }
    if (cells < p.w.size) clear<bytes>(output + cells, p.w.size - cells, row);
    return;
  }
  const bool complete = tile.w.phases == stride && cells == p.w.size;
  if (!complete)
    for (int64_t w = 0; w < p.w.size; ++w) clear<bytes>(output + w * p.channels, unit, row);
  for (int64_t phase = 0; phase < tile.w.phases; ++phase) {
    int64_t w = tile.w.remainder(phase) - p.w.padding;
    const Real* from = phases + phase * tile.phase_size;
    for (int64_t i = 0; i < length; ++i, w += stride, from += unit)
      if (w >= 0 && w < p.w.size) copy<bytes>(from, output + w * p.channels, unit);
  }
}

// Copy plane t of the input, as far as the tile's windows reach, into its phases.
template <int bytes, class Element, class Real>
VIDPOOL_INLINE void split_plane(const Pooling& p, const Tile& tile, const Element* input,
                                const Element* input_end, Real* phases, Real* row) {
  const int64_t row_size = tile.pitch * tile.unit;
  for (int64_t phase = 0; phase < tile.h.phases; ++phase) {
    Real* to = phases + phase * tile.w.phases * tile.phase_size;
    int64_t h = tile.first * p.h.stride + tile.h.remainder(phase) - p.h.padding;
    for (int64_t i = 0; i < tile.rows; ++i, h += p.h.stride, to += row_size) {
      if (h >= 0 && h < p.h.size)
        split_row<bytes>(p, tile, input + h * p.w.size * p.channels, input_end, to, row);
      else
        for (int64_t k = 0; k < tile.w.phases; ++k)
          fill(to + k * tile.phase_size, minus_infinity<Real>, row_size);
    }
  }
}

// Copy the tile's own rows of the gradient from its phases, or 0, to a plane of the result.
template <int bytes, class Element, class Real>
VIDPOOL_INLINE void merge_plane(const Pooling& p, const Tile& tile, const Real* phases,
                                Element* output, Real* row) {
  const int64_t row_size = tile.pitch * tile.unit;
  for (int64_t h = tile.own_begin; h < tile.own_end; ++h) {
    Element* to = output + h * p.w.size * p.channels;
    const int64_t padded = h + p.h.padding - tile.first * p.h.stride;
    const int64_t phase = padded < 0 ? -1 : tile.h.phase_of(padded % p.h.stride);
    if (phases != nullptr && phase >= 0 && padded / p.h.stride < tile.rows) {
      merge_row<bytes>(
          p, tile,
          phases + phase * tile.w.phases * tile.phase_size + padded / p.h.stride * row_size, to,
          row);
    } else {
      for (int64_t w = 0; w < p.w.size; ++w) clear<bytes>(to + w * p.channels, tile.unit, row);
    }
  }
}

// Several vectors of windows, side by side: one alone would wait for its own results.
template <class V, int n>
struct Group {
  V v[n];
};

template <int bytes, int n, class Real>
VIDPOOL_INLINE Group<typename Vector<Real, bytes>::type, n> find_peaks(const Real* const* cells,
                                                                       int64_t count, int64_t i) {
  using V = typename Vector<Real, bytes>::type;
  constexpr int lanes = Vector<Real, bytes>::lanes;
  Group<V, n> peak;
  for (int k = 0; k < n; ++k) peak.v[k] = V{} + minus_infinity<Real>;
  for (int64_t c = 0; c < count; ++c)
    for (int k = 0; k < n; ++k) peak.v[k] = at_least(peak.v[k], load<V>(cells[c] + i + k * lanes));
  return peak;
}

// Pool n vectors of windows from position i on; cell c of position i is cells[c][i].
template <int bytes, int n, class Real>
VIDPOOL_INLINE void pool_group(const Real* const* cells, int64_t count, int64_t i, Real* out) {
  using V = typename Vector<Real, bytes>::type;
  constexpr int lanes = Vector<Real, bytes>::lanes;
  const V bound = V{} + negligible<Real>;
  const auto peak = find_peaks<bytes, n>(cells, count, i);
  V shift[n], mass[n], moment[n];
  for (int k = 0; k < n; ++k) {
    shift[k] = at_least(V{} + lowest<Real>, peak.v[k]);
    mass[k] = moment[k] = V{};
  }
  for (int64_t c = 0; c < count; ++c) {
    for (int k = 0; k < n; ++k) {
      const V z = at_least(bound, load<V>(cells[c] + i + k * lanes) - shift[k]);
      const V weight = exp_weight<bytes>(z);
      mass[k] += weight;
      moment[k] += weight * z;
    }
  }
  for (int k = 0; k < n; ++k)
    store(out + i + k * lanes, peak.v[k] + moment[k] / at_least(V{} + Real(1), mass[k]));
}

// Pool `size` positions.
template <int bytes, class Real>
VIDPOOL_INLINE void pool(const Real* const* cells, int64_t count, int64_t size, Real* out) {
  constexpr int lanes = Vector<Real, bytes>::lanes;
  int64_t i = 0;
  for (; i + lanes * group < size + lanes; i += lanes * group)
    pool_group<bytes, group>(cells, count, i, out);
  for (; i < size; i += lanes) pool_group<bytes, 1>(cells, count, i, out);
}

// Add to `sums` the gradients of the cells of n vectors of windows, whose own are `grad`; where
// windows are disjoint, set them.
template <int bytes, int n, bool exact, bool disjoint, class Real>
VIDPOOL_INLINE void pool_group_backward(const Real* const* cells, Real* const* sums, int64_t count,
                                        int64_t i, const Real* grad, const Real* is_window,
                                        Real* weights) {
  using V = typename Vector<Real, bytes>::type;
  using Bits = typename Vector<Real, bytes>::bits;
  constexpr int lanes = Vector<Real, bytes>::lanes;
  const V bound = V{} + negligible<Real>;
  const auto peak = find_peaks<bytes, n>(cells, count, i);
  // the gradient of a cell is scale * weight * z + level * weight, without the first if not exact
  V shift[n], mass[n], moment[n], scale[n], level[n];
  Bits used[n];
  for (int k = 0; k < n; ++k) {
    shift[k] = at_least(V{} + lowest<Real>, peak.v[k]);
    mass[k] = moment[k] = V{};
  }
  for (int64_t c = 0; c < count; ++c) {
    for (int k = 0; k < n; ++k) {
      const V z = at_least(bound, load<V>(cells[c] + i + k * lanes) - shift[k]);
      const V weight = z <= bound ? V{} : exp_weight<bytes>(z);
      Real* const kept = weights + 2 * (c * n + k) * lanes;
      store(kept, weight);
      mass[k] += weight;
      if (exact) {
        const V product = weight * z;
        store(kept + lanes, product);
        moment[k] += product;
      }
    }
  }
  for (int k = 0; k < n; ++k) {
    mass[k] = at_least(V{} + Real(1), mass[k]);
    scale[k] = load<V>(grad + i + k * lanes) / mass[k];
    level[k] = exact ? scale[k] * (Real(1) - moment[k] / mass[k]) : scale[k];
    used[k] = load<Bits>(is_window + i + k * lanes);
  }
  for (int64_t c = 0; c < count; ++c) {
    for (int k = 0; k < n; ++k) {
      const Real* const kept = weights + 2 * (c * n + k) * lanes;
      V part = level[k] * load<V>(kept);
      if (exact) part += scale[k] * load<V>(kept + lanes);
      // where there is no window a NaN must not reach the cells of others
      part = (V)((Bits)part & used[k]);
      Real* const sum = sums[c] + i + k * lanes;
      if (!disjoint) part += load<V>(sum);
      store(sum, part);
    }
  }
}

template <int bytes, bool exact, bool disjoint, class Real>
VIDPOOL_INLINE void pool_backward(const Real* const* cells, Real* const* sums, int64_t count,
                                  int64_t size, const Real* grad, const Real* is_window,
                                  Real* weights) {
  constexpr int lanes = Vector<Real, bytes>::lanes;
  int64_t i = 0;
  for (; i + lanes * group < size + lanes; i += lanes * group)
    pool_group_backward<bytes, group, exact, disjoint>(cells, sums, count, i, grad, is_window,
                                                       weights);
  for (; i < size; i += lanes)
    pool_group_backward<bytes, 1, exact, disjoint>(cells, sums, count, i, grad, is_window, weights);
}

// Copy the rows of windows between `rows`, a pitch apart, and a plane of the output's shape.
template <int bytes, class Element, class Real>
VIDPOOL_INLINE void read_windows(const Pooling& p, const Tile& tile, const Element* plane,
                                 Real* rows) {
  for (int64_t i = 0; i < tile.windows; ++i, rows += tile.pitch * tile.unit) {
    const Element* from = plane + (tile.first + i) * p.w.count * p.channels;
    if (tile.unit == p.channels)
      copy<bytes>(from, rows, p.w.count * tile.unit);
    else
      for (int64_t w = 0; w < p.w.count; ++w)
        copy<bytes>(from + w * p.channels, rows + w * tile.unit, tile.unit);
  }
}

template <int bytes, class Element, class Real>
VIDPOOL_INLINE void write_windows(const Pooling& p, const Tile& tile, const Real* rows,
                                  Element* plane) {
  for (int64_t i = 0; i < tile.windows; ++i, rows += tile.pitch * tile.unit) {
    Element* to = plane + (tile.first + i) * p.w.count * p.channels;
    if (tile.unit == p.channels)
      copy<bytes>(rows, to, p.w.count * tile.unit);
    else
      for (int64_t w = 0; w < p.w.count; ++w)
        copy<bytes>(rows + w * tile.unit, to + w * p.channels, tile.unit);
  }
}

// The addresses of the cells of the tile's first window in row `to`, in the ring of `planes`;
// cells in planes outside the input are left out.
//
// Cells of neighbouring columns are far apart in this order: their places overlap, and a processor
// waits where it reads what it only just wrote in part.
template <class Real>
VIDPOOL_INLINE int64_t list_cells(const Pooling& p, const Tile& tile, int64_t to,
                                  const int64_t* offsets, Real* planes, Real** cells) {
  const int64_t plane_cells = p.h.kernel * p.w.kernel;
  const int64_t first = to * p.t.stride - p.t.padding;
  const int64_t begin = first < 0 ? (-first + p.t.dilation - 1) / p.t.dilation : 0;
  int64_t end = p.t.kernel;
  while (end > begin && first + (end - 1) * p.t.dilation >= p.t.size) --end;
  for (int64_t kt = begin; kt < end; ++kt) {
    Real* plane = planes + (first + kt * p.t.dilation) % tile.planes * tile.plane_size;
    for (int64_t cell = 0; cell < plane_cells; ++cell)
      cells[cell * (end - begin) + kt - begin] = plane + offsets[cell];
  }
  return end > begin ? plane_cells * (end - begin) : 0;
}

template <int bytes, class Element>
void forward(const Pooling& p, const Tiling& tiling, int64_t begin, int64_t end, const void* x,
             void* result) {
  using Real = typename Compute<Element>::type;
  Scratch<Real> scratch(p, tiling);
  const Element* const input_end = static_cast<const Element*>(x) + p.outer * p.input_volume();
  for (int64_t index = begin; index < end; ++index) {
    const Tile tile = tiling[index];
    const Element* input =
        static_cast<const Element*>(x) + tile.outer * p.input_volume() + tile.channel;
    Element* out = static_cast<Element*>(result) + tile.outer * p.output_volume() + tile.channel;
    tile.list_offsets(scratch.offsets);
    int64_t next = 0;  // planes before it are in the ring, or were, or are in no window
    for (int64_t to = 0; to < p.t.count; ++to) {
      for (; next < p.t.window_end(to); ++next)
        if (p.t.in_window(next))
          split_plane<bytes>(p, tile, input + next * p.input_plane(), input_end,
                             scratch.values + next % tile.planes * tile.plane_size, scratch.row);
      const int64_t count =
          list_cells(p, tile, to, scratch.offsets, scratch.values, scratch.value_cells);
      pool<bytes>(scratch.value_cells, count, tile.positions(), scratch.pooled);
      write_windows<bytes>(p, tile, scratch.pooled, out + to * p.output_plane());
    }
  }
}

template <int bytes, bool exact, bool disjoint, class Element>
void backward_tiles(const Pooling& p, const Tiling& tiling, int64_t begin, int64_t end,
                    const void* gradient, const void* x, void* result) {
  using Real = typename Compute<Element>::type;
  Scratch<Real> scratch(p, tiling);
  const Element* const input_end = static_cast<const Element*>(x) + p.outer * p.input_volume();
  int64_t marked_row = -1, marked_windows = -1;  // what `is_window` was made for
  for (int64_t index = begin; index < end; ++index) {
    const Tile tile = tiling[index];
    const int64_t map = tile.outer * p.input_volume() + tile.channel;
    const Element* input = static_cast<const Element*>(x) + map;
    Element* out = static_cast<Element*>(result) + map;
    const Element* grad =
        static_cast<const Element*>(gradient) + tile.outer * p.output_volume() + tile.channel;
    const int64_t row = tile.pitch * tile.unit, used = p.w.count * tile.unit;
    if (row != marked_row || tile.windows != marked_windows) {
      marked_row = row;
      marked_windows = tile.windows;
      fill(scratch.is_window, Real(0), tile.windows * row + bytes / int64_t(sizeof(Real)));
      for (int64_t i = 0; i < tile.windows; ++i)
        __builtin_memset(scratch.is_window + i * row, 0xff, used * sizeof(Real));
    }
    tile.list_offsets(scratch.offsets);

    int64_t next = 0, written = 0;
    for (int64_t to = 0; to < p.t.count; ++to) {
      for (; next < p.t.window_end(to); ++next) {
        if (!p.t.in_window(next)) continue;
        const int64_t place = next % tile.planes * tile.plane_size;
        split_plane<bytes>(p, tile, input + next * p.input_plane(), input_end,
                           scratch.values + place, scratch.row);
        if (!disjoint) fill(scratch.sums + place, Real(0), tile.plane_size);
      }
      read_windows<bytes>(p, tile, grad + to * p.output_plane(), scratch.pooled);
      const int64_t count =
          list_cells(p, tile, to, scratch.offsets, scratch.values, scratch.value_cells);
      list_cells(p, tile, to, scratch.offsets, scratch.sums, scratch.sum_cells);
      pool_backward<bytes, exact, disjoint>(scratch.value_cells, scratch.sum_cells, count,
                                            tile.positions(), scratch.pooled, scratch.is_window,
                                            scratch.weights);
      // the planes before the next window's first are complete
      const int64_t complete = to + 1 < p.t.count ? p.t.window_begin(to + 1) : p.t.size;
      for (; written < complete; ++written)
        merge_plane<bytes>(p, tile,
                           p.t.in_window(written)
                               ? scratch.sums + written % tile.planes * tile.plane_size
                               : nullptr,
                           out + written * p.input_plane(), scratch.row);
    }
  }
}

template <int bytes, class Element>
void backward(const Pooling& p, const Tiling& tiling, int64_t begin, int64_t end,
              const void* gradient, const void* x, void* result) {
  const bool exact = p.gradient == Gradient::exact;
  const bool disjoint = p.t.is_disjoint() && p.h.is_disjoint() && p.w.is_disjoint();
  const auto run = exact      ? disjoint ? backward_tiles<bytes, true, true, Element>
                                         : backward_tiles<bytes, true, false, Element>
                   : disjoint ? backward_tiles<bytes, false, true, Element>
                              : backward_tiles<bytes, false, false, Element>;
  run(p, tiling, begin, end, gradient, x, result);
}

}  // namespace

// Define the kernels of one instruction set, with vectors of `bytes`.
#define VIDPOOL_DEFINE_KERNELS(name, bytes)                                                 \
  const vidpool::Kernels vidpool::name = {#name,                                            \
                                          {forward<bytes, float>, forward<bytes, double>,   \
                                           forward<bytes, Half>, forward<bytes, BFloat16>}, \
                                          {backward<bytes, float>, backward<bytes, double>, \
                                           backward<bytes, Half>, backward<bytes, BFloat16>}}
