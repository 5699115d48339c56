// Moving planes between tensors and scratch memory.
//
// A plane is copied into scratch memory in the type that is computed in, padded with -inf and split
// into phases: the cells whose row and column have the same remainder by the stride lie together.
// There each of a window's cells has a constant distance from the window's first, and windows that
// lie side by side are the lanes of vectors, for any kernel size, stride, dilation and padding, and
// across the ends of narrow rows. The positions between two rows, which are no windows, are
// computed too and not used.
//
// Included once for every instruction set, after vector.h and elements.h.
#pragma once

namespace {

using vidpool::Gradient;
using vidpool::group;
using vidpool::Pooling;
using vidpool::Scratch;
using vidpool::slack;
using vidpool::Tile;
using vidpool::Tiling;

static_assert(slack >= Vector<float, 64>::lanes, "a vector may run over the end of a plane");

template <class Real>
constexpr Real minus_infinity = -Real(__builtin_inf());
template <class Real>
constexpr Real lowest = sizeof(Real) == 4 ? Real(-__FLT_MAX__) : Real(-__DBL_MAX__);

// How the rows of a tensor relate to those of phases.
enum class Rows {
  whole,    // stride 1, one channel: a row is a phase's row
  paired,   // stride 2, one channel: a row's cells are in one phase or the other
  strided,  // else: cell by cell
};

inline Rows row_kind(const Pooling& p, const Tile& tile) {
  if (p.channels > 1) return Rows::strided;
  if (tile.w.stride == 1) return Rows::whole;
  return tile.w.stride == 2 && tile.w.phases == 2 ? Rows::paired : Rows::strided;
}

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
template <int bytes, Rows rows, class Element, class Real>
VIDPOOL_INLINE void split_row(const Pooling& p, const Tile& tile, const Element* input,
                              const Element* input_end, Real* phases, Real* row) {
  using V = typename Vector<Real, bytes>::type;
  constexpr int lanes = Vector<Real, bytes>::lanes;
  const int64_t length = tile.pitch, padding = p.w.padding, cells = tile.cells_read;
  if constexpr (rows == Rows::whole) {
    copy_row<bytes>(input, input_end, phases + padding, phases + length + slack, cells);
    fill(phases, minus_infinity<Real>, padding);
    fill(phases + padding + cells, minus_infinity<Real>, length - padding - cells);
  } else if constexpr (rows == Rows::paired) {
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
  } else {
    for (int64_t phase = 0; phase < tile.w.phases; ++phase) {
      int64_t w = tile.w.remainder(phase) - padding;
      Real* to = phases + phase * tile.phase_size;
      for (int64_t i = 0; i < length; ++i, w += p.w.stride, to += tile.unit) {
        if (w >= 0 && w < p.w.size)
          copy<bytes>(input + w * p.channels, to, tile.unit);
        else
          fill(to, minus_infinity<Real>, tile.unit);
      }
    }
  }
}

// Set n elements to 0, with the help of `row`.
template <int bytes, class Element, class Real>
VIDPOOL_INLINE void clear(Element* output, int64_t n, Real* row) {
  fill(row, Real(0), n);
  copy<bytes>(row, output, n);
}

// Write a vector of a row of which `n` elements are left; beyond these only where there is room
// before `output_end`.
template <int bytes, class V, class Element, class Real>
VIDPOOL_INLINE void write_rest(V a, Element* output, Element* output_end, int64_t n, Real* row) {
  if (output_end - output >= Vector<Real, bytes>::lanes) return write<bytes>(output, a);
  if (n <= 0) return;
  store(row, a);
  copy<bytes>(row, output, n);
}

// Where a plane's cells come from: what is kept there. by_cell.h has another.
template <int bytes, class Real>
struct Stored {
  using V = typename Vector<Real, bytes>::type;

  V get(int64_t phase, int64_t at) const { return load<V>(values + phase * phase_size + at); }

  const Real* values;
  int64_t phase_size;
};

// Make a row of the input's shape of the rows at `at` in the phases from `phase` on; cells of no
// window are 0.
//
// Vectors may run over the row's end, into rows that are written afterwards, up to `output_end`.
template <int bytes, Rows rows, class Source, class Element, class Real>
VIDPOOL_INLINE void merge_row(const Pooling& p, const Tile& tile, const Source& source,
                              int64_t phase, int64_t at, Element* output, Element* output_end,
                              Real* row) {
  using V = typename Vector<Real, bytes>::type;
  constexpr int lanes = Vector<Real, bytes>::lanes;
  const int64_t length = tile.pitch, padding = p.w.padding, cells = tile.cells_read;
  if constexpr (rows == Rows::whole) {
    for (int64_t i = 0; i < cells; i += lanes)
      write_rest<bytes>(source.get(phase, at + padding + i), output + i, output_end, cells - i,
                        row);
    if (cells < p.w.size) clear<bytes>(output + cells, p.w.size - cells, row);
  } else if constexpr (rows == Rows::paired) {
    const int64_t even = at + padding / 2, odd = at + (padding + 1) / 2;
    const int64_t even_phase = phase + padding % 2, odd_phase = phase + (padding + 1) % 2;
    for (int64_t i = 0; i < cells; i += 2 * lanes) {
      V first, second;
      merge_pair(source.get(even_phase, even + i / 2), source.get(odd_phase, odd + i / 2), first,
                 second, typename MakeLanes<lanes>::type());
      write_rest<bytes>(first, output + i, output_end, cells - i, row);
      write_rest<bytes>(second, output + i + lanes, output_end, cells - i - lanes, row);
    }
    if (cells < p.w.size) clear<bytes>(output + cells, p.w.size - cells, row);
  } else {
    if (tile.w.phases < p.w.stride || cells < p.w.size)
      for (int64_t w = 0; w < p.w.size; ++w) clear<bytes>(output + w * p.channels, tile.unit, row);
    for (int64_t k = 0; k < tile.w.phases; ++k) {
      int64_t w = tile.w.remainder(k) - padding, from = at;
      for (int64_t i = 0; i < length; ++i, w += p.w.stride, from += tile.unit) {
        if (w < 0 || w >= p.w.size) continue;
        Element* const cell = output + w * p.channels;
        for (int64_t c = 0; c < tile.unit; c += lanes)
          write_rest<bytes>(source.get(phase + k, from + c), cell + c, cell + tile.unit,
                            tile.unit - c, row);
      }
    }
  }
}

template <int bytes, Rows rows, class Element, class Real>
VIDPOOL_OUTLINE void split_rows(const Pooling& pooling, const Tile& at, const Element* input,
                                const Element* input_end, Real* phases, Real* row) {
  const Pooling p = pooling;  // no store can change a copy, so loops need not read it again
  const Tile tile = at;
  const int64_t row_size = tile.pitch * tile.unit;
  for (int64_t phase = 0; phase < tile.h.phases; ++phase) {
    Real* to = phases + phase * tile.w.phases * tile.phase_size;
    int64_t h = tile.first * p.h.stride + tile.h.remainder(phase) - p.h.padding;
    for (int64_t i = 0; i < tile.rows; ++i, h += p.h.stride, to += row_size) {
      if (h >= 0 && h < p.h.size)
        split_row<bytes, rows>(p, tile, input + h * p.w.size * p.channels, input_end, to, row);
      else
        for (int64_t k = 0; k < tile.w.phases; ++k)
          fill(to + k * tile.phase_size, minus_infinity<Real>, row_size);
    }
  }
}

// Copy a plane of the input, as far as the tile's windows reach, into its phases.
template <int bytes, class Element, class Real>
VIDPOOL_INLINE void split_plane(const Pooling& p, const Tile& tile, const Element* input,
                                const Element* input_end, Real* phases, Real* row) {
  if constexpr (bytes > 16)  // narrow rows, narrow vectors
    if (p.channels == 1 && tile.cells_read <= Vector<Real, bytes>::lanes)
      return split_plane<bytes / 2>(p, tile, input, input_end, phases, row);
  const Rows kind = row_kind(p, tile);
  const auto split = kind == Rows::whole    ? split_rows<bytes, Rows::whole, Element, Real>
                     : kind == Rows::paired ? split_rows<bytes, Rows::paired, Element, Real>
                                            : split_rows<bytes, Rows::strided, Element, Real>;
  split(p, tile, input, input_end, phases, row);
}

template <int bytes, Rows rows, class Source, class Element, class Real>
VIDPOOL_OUTLINE void merge_rows(const Pooling& pooling, const Tile& at, const Source& from,
                                Element* output, Real* row) {
  const Pooling p = pooling;
  const Tile tile = at;
  const Source source = from;
  const int64_t row_size = p.w.size * p.channels;
  Element* const output_end = output + tile.own_end * row_size;
  const int64_t padded = tile.own_begin + p.h.padding - tile.first * p.h.stride;
  // the row's place in its phase, and the remainder that makes the phase
  int64_t i = padded < 0 ? -1 : padded / p.h.stride;
  int64_t remainder = padded - i * p.h.stride;
  for (int64_t h = tile.own_begin; h < tile.own_end; ++h, ++remainder) {
    if (remainder >= p.h.stride) {
      remainder = 0;
      ++i;
    }
    Element* const to = output + h * row_size;
    const int64_t phase = i < 0 || i >= tile.rows ? -1 : tile.h.phase_of(remainder);
    if (phase >= 0)
      merge_row<bytes, rows>(p, tile, source, phase * tile.w.phases, i * tile.pitch * tile.unit, to,
                             output_end, row);
    else
      for (int64_t w = 0; w < p.w.size; ++w) clear<bytes>(to + w * p.channels, tile.unit, row);
  }
}

// Write the tile's own rows of a plane of the result from phases.
template <int bytes, template <int, class> class Source, class Element, class Real, class... From>
VIDPOOL_INLINE void merge_plane(const Pooling& p, const Tile& tile, Element* output, Real* row,
                                From... from) {
  if constexpr (bytes > 16)
    if (p.channels == 1 && tile.cells_read <= Vector<Real, bytes>::lanes)
      return merge_plane<bytes / 2, Source>(p, tile, output, row, from...);
  using Cells = Source<bytes, Real>;
  const Rows kind = row_kind(p, tile);
  const auto merge = kind == Rows::whole ? merge_rows<bytes, Rows::whole, Cells, Element, Real>
                     : kind == Rows::paired
                         ? merge_rows<bytes, Rows::paired, Cells, Element, Real>
                         : merge_rows<bytes, Rows::strided, Cells, Element, Real>;
  merge(p, tile, Cells{from...}, output, row);
}

// Set the tile's own rows of a plane of the result to 0.
template <int bytes, class Element, class Real>
VIDPOOL_OUTLINE void clear_plane(const Pooling& p, const Tile& tile, Element* output, Real* row) {
  for (int64_t i = tile.own_begin * p.w.size; i < tile.own_end * p.w.size; ++i)
    clear<bytes>(output + i * p.channels, tile.unit, row);
}

// Copy the rows of windows between `rows`, a pitch apart, and a plane of the output's shape.
template <int bytes, class Element, class Real>
VIDPOOL_OUTLINE void read_windows(const Pooling& pooling, const Tile& at, const Element* plane,
                                  const Element* plane_end, Real* rows) {
  const Pooling p = pooling;  // no store can change a copy, so loops need not read it again
  const Tile tile = at;
  const int64_t row_size = tile.pitch * tile.unit;
  for (int64_t i = 0; i < tile.windows; ++i, rows += row_size) {
    const Element* from = plane + (tile.first + i) * p.w.count * p.channels;
    if (tile.unit == p.channels)
      copy_row<bytes>(from, plane_end, rows, rows + row_size + slack, p.w.count * tile.unit);
    else
      for (int64_t w = 0; w < p.w.count; ++w)
        copy<bytes>(from + w * p.channels, rows + w * tile.unit, tile.unit);
  }
}

template <int bytes, class Element, class Real>
VIDPOOL_OUTLINE void write_windows(const Pooling& pooling, const Tile& at, const Real* rows,
                                   Element* plane) {
  const Pooling p = pooling;  // no store can change a copy, so loops need not read it again
  const Tile tile = at;
  const int64_t row_size = tile.pitch * tile.unit;
  Element* const end = plane + (tile.first + tile.windows) * p.w.count * p.channels;
  for (int64_t i = 0; i < tile.windows; ++i, rows += row_size) {
    Element* to = plane + (tile.first + i) * p.w.count * p.channels;
    if (tile.unit == p.channels)
      copy_row<bytes>(rows, rows + row_size + slack, to, end, p.w.count * tile.unit);
    else
      for (int64_t w = 0; w < p.w.count; ++w)
        copy<bytes>(rows + w * tile.unit, to + w * p.channels, tile.unit);
  }
}

}  // namespace
