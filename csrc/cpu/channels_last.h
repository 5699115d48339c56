// SoftPool of channels-last maps, which are read and written in place: the channels are the lanes.
//
// Copying such maps into phases (planes.h) costs more than pooling them, and the copies do not fit
// into the caches. Disjoint windows are pooled one by one: forward by the formula of by_cell.h,
// which reads and converts each cell once, or of by_window.h where the values demand it; backward
// by the formula of by_window.h. Overlapping windows are pooled by the formula of by_cell.h: the
// cells of a row are summed over the windows of the row, then the rows over the windows of the
// plane, then the planes. The backward pass computes the weights again, because reading them from
// the outer caches takes longer.
//
// Included once for every instruction set, after by_cell.h and by_window.h.
#pragma once

namespace {

using vidpool::ChannelsLastScratch;
using vidpool::first_cell;
using vidpool::for_windows_of;
using vidpool::is_channels_last;

template <class Element>
using ChannelScratch = ChannelsLastScratch<Element, Real<Element>>;

// Whether a comparison holds in every lane.
template <class Real, int bytes>
VIDPOOL_INLINE bool all_set(typename Vector<Real, bytes>::bits holds) {
  bool all = true;
  for (int lane = 0; lane < Vector<Real, bytes>::lanes; ++lane) all &= holds[lane] != 0;
  return all;
}

struct NoPrefetch {
  void fetch(int64_t, int64_t) const {}
};

// Call `use` with the place of each of a window's cells that lie in the input. The order is that of
// list_cells in by_window.h.
template <class Use>
VIDPOOL_INLINE void for_cells_of(const Pooling& p, int64_t to, int64_t row, int64_t column,
                                 const Use& use) {
  for (int64_t kw = 0; kw < p.w.kernel; ++kw) {
    const int64_t w = column * p.w.stride - p.w.padding + kw * p.w.dilation;
    if (w < 0 || w >= p.w.size) continue;
    for (int64_t kh = 0; kh < p.h.kernel; ++kh) {
      const int64_t h = row * p.h.stride - p.h.padding + kh * p.h.dilation;
      if (h < 0 || h >= p.h.size) continue;
      for (int64_t kt = 0; kt < p.t.kernel; ++kt) {
        const int64_t t = to * p.t.stride - p.t.padding + kt * p.t.dilation;
        if (t >= 0 && t < p.t.size) use(((t * p.h.size + h) * p.w.size + w) * p.channels);
      }
    }
  }
}

// Pool n vectors of channels of a window, whose values have to be ordinary.
template <int bytes, int n, class Element, class Bits>
VIDPOOL_INLINE void pool_ordinary(const Element* const* cells, int64_t count, int64_t c,
                                  Element* out, Bits& is_ordinary) {
  using V = typename Vector<Real<Element>, bytes>::type;
  constexpr int lanes = Vector<Real<Element>, bytes>::lanes;
  constexpr Real<Element> limit = ordinary<Real<Element>> * ordinary<Real<Element>>;
  V mass[n] = {}, moment[n] = {};
  for (int64_t cell = 0; cell < count; ++cell)
    for (int k = 0; k < n; ++k) {
      const V a = read<bytes>(cells[cell] + c + k * lanes);
      is_ordinary &= (Bits)(a * a <= limit);
      const V weight = exp_weight<bytes>(a);
      mass[k] += weight;
      moment[k] += weight * a;
    }
  for (int k = 0; k < n; ++k) {
    // a window of padding alone has no mass
    const V none = V{} + minus_infinity<Real<Element>>;
    write<bytes>(out + c + k * lanes, mass[k] > 0 ? moment[k] / mass[k] : none);
  }
}

// Pool the tile's windows one by one. `only_ordinary` is faster; it returns false, with part of the
// result written, at a value that is not ordinary.
template <int bytes, bool only_ordinary, class Element>
VIDPOOL_OUTLINE bool forward_in_place_by_window(const Pooling& p, const Tile& tile,
                                                const Element* input, Element* out,
                                                const ChannelScratch<Element>& scratch) {
  constexpr int lanes = Vector<Real<Element>, bytes>::lanes;
  const int64_t last = tile.unit - lanes;
  typename Vector<Real<Element>, bytes>::bits is_ordinary;
  const auto pool = [&]<int n>(int64_t count, int64_t c, Element* pooled) {
    if constexpr (only_ordinary)
      pool_ordinary<bytes, n>(scratch.cells, count, c, pooled, is_ordinary);
    else
      pool_group<bytes, n>(scratch.cells, count, c, NoPrefetch(), pooled);
  };
  for (int64_t to = 0; to < p.t.count; ++to)
    for (int64_t row = tile.first; row < tile.first + tile.windows; ++row) {
      is_ordinary = ~decltype(is_ordinary){};
      for (int64_t column = 0; column < p.w.count; ++column) {
        int64_t count = 0;
        for_cells_of(p, to, row, column,
                     [&](int64_t place) { scratch.cells[count++] = input + place; });
        Element* const pooled = out + ((to * p.h.count + row) * p.w.count + column) * p.channels;
        int64_t c = 0;
        for (; c + lanes * group <= tile.unit; c += lanes * group)
          pool.template operator()<group>(count, c, pooled);
        for (; c < tile.unit; c += lanes)
          pool.template operator()<1>(count, std::min(c, last), pooled);
      }
      if (!all_set<Real<Element>, bytes>(is_ordinary)) return false;
    }
  return true;
}

// Whether a row of disjoint windows belongs to the tile: it may reach into the next tile's rows.
inline bool owns_windows(const Pooling& p, const Tile& tile, int64_t row) {
  const int64_t begin = p.h.window_begin(row);
  return begin >= tile.own_begin && begin < tile.own_end;
}

// Set the gradients of the tile's cells that are in no window to 0.
template <class Element>
VIDPOOL_OUTLINE void clear_unpooled(const Pooling& p, const Tile& tile, Element* out,
                                    const ChannelScratch<Element>& scratch) {
  for (int64_t t = 0; t < p.t.size; ++t)
    for (int64_t h = tile.own_begin; h < tile.own_end; ++h) {
      Element* const row = out + (t * p.h.size + h) * p.w.size * p.channels;
      const auto clear_cell = [&](int64_t w) {
        std::memset(row + w * p.channels, 0, tile.unit * sizeof(Element));
      };
      if (p.t.in_window(t) && p.h.in_window(h))
        for (const int64_t w : scratch.columns.unpooled()) clear_cell(w);
      else
        for (int64_t w = 0; w < p.w.size; ++w) clear_cell(w);
    }
}

// Set the gradients of the cells of the tile's windows, which are disjoint, and of its other cells.
template <int bytes, bool exact, class Element>
VIDPOOL_OUTLINE void backward_in_place_by_window(const Pooling& p, const Tile& tile,
                                                 const Element* grad, const Element* input,
                                                 Element* out,
                                                 const ChannelScratch<Element>& scratch) {
  constexpr int lanes = Vector<Real<Element>, bytes>::lanes;
  constexpr const Real<Element>* all_windows = nullptr;  // no position lies between two rows
  const int64_t last = tile.unit - lanes;
  clear_unpooled(p, tile, out, scratch);
  for (int64_t to = 0; to < p.t.count; ++to)
    for (int64_t row = tile.first; row < tile.first + tile.windows; ++row) {
      if (!owns_windows(p, tile, row)) continue;
      for (int64_t column = 0; column < p.w.count; ++column) {
        int64_t count = 0;
        for_cells_of(p, to, row, column, [&](int64_t place) {
          scratch.cells[count] = input + place;
          scratch.gradients[count++] = out + place;
        });
        const Element* const own =
            grad + ((to * p.h.count + row) * p.w.count + column) * p.channels;
        int64_t c = 0;
        for (; c + lanes * group <= tile.unit; c += lanes * group)
          pool_group_backward<bytes, group, exact, true>(scratch.cells, scratch.gradients, count, c,
                                                         NoPrefetch(), own, all_windows,
                                                         scratch.weights);
        for (; c < tile.unit; c += lanes)
          pool_group_backward<bytes, 1, exact, true>(scratch.cells, scratch.gradients, count,
                                                     std::min(c, last), NoPrefetch(), own,
                                                     all_windows, scratch.weights);
      }
    }
}

// Read a vector of a cell's channels from `c` on; zeros beyond the last.
template <int bytes, class Element>
VIDPOOL_INLINE typename Vector<Real<Element>, bytes>::type read_channels(const Element* cell,
                                                                         int64_t c, int64_t unit,
                                                                         Real<Element>* buffer) {
  constexpr int lanes = Vector<Real<Element>, bytes>::lanes;
  if (c + lanes <= unit) return read<bytes>(cell + c);
  store(buffer, read<bytes>(cell + unit - lanes));
  return load<typename Vector<Real<Element>, bytes>::type>(buffer + c - (unit - lanes));
}

// Add the weights and products of n vectors of a cell's channels to the entries of its windows.
template <int bytes, int n, class Element, class Bits>
VIDPOOL_INLINE void sum_cell(const Element* cell, int64_t c, int64_t unit, const int64_t* begin,
                             const int64_t* end, Real<Element>* row, int64_t pitch,
                             Real<Element>* buffer, Bits& is_ordinary) {
  using V = typename Vector<Real<Element>, bytes>::type;
  constexpr int lanes = Vector<Real<Element>, bytes>::lanes;
  constexpr Real<Element> limit = ordinary<Real<Element>> * ordinary<Real<Element>>;
  V weight[n], product[n];
  for (int k = 0; k < n; ++k) {
    const V a =
        n == 1 ? read_channels<bytes>(cell, c, unit, buffer) : read<bytes>(cell + c + k * lanes);
    is_ordinary &= (Bits)(a * a <= limit);
    weight[k] = exp_weight<bytes>(a);
    product[k] = weight[k] * a;
  }
  for (const int64_t* window = begin; window < end; ++window) {
    Real<Element>* const entry = row + *window * 2 * pitch + c;
    for (int k = 0; k < n; ++k) {
      Real<Element>*const mass = entry + k * lanes, *const moment = mass + pitch;
      store(mass, load<V>(mass) + weight[k]);
      store(moment, load<V>(moment) + product[k]);
    }
  }
}

// Sum the weights and products of a row of cells over the row's windows; false if a value is not
// ordinary.
template <int bytes, class Element>
VIDPOOL_OUTLINE bool sum_row(const Pooling& p, int64_t unit, const Element* input,
                             const ChannelScratch<Element>& scratch, Real<Element>* row) {
  using Bits = typename Vector<Real<Element>, bytes>::bits;
  constexpr int lanes = Vector<Real<Element>, bytes>::lanes;
  const int64_t pitch = scratch.pitch, size = p.w.size, step = p.channels;
  Bits is_ordinary = ~Bits{};
  fill(row, Real<Element>(0), scratch.row_size);
  for (int64_t w = 0; w < size; ++w, input += step) {
    const int64_t *const begin = scratch.columns.begin(w), *const end = scratch.columns.end(w);
    if (begin == end) continue;
    int64_t c = 0;
    for (; c + lanes * group <= unit; c += lanes * group) {
      __builtin_prefetch(input + c + size * step, 0, 2);
      sum_cell<bytes, group>(input, c, unit, begin, end, row, pitch, scratch.channels, is_ordinary);
    }
    for (; c < unit; c += lanes)
      sum_cell<bytes, 1>(input, c, unit, begin, end, row, pitch, scratch.channels, is_ordinary);
  }
  return all_set<Real<Element>, bytes>(is_ordinary);
}

// The entries of the tile's windows at `to`.
template <class Scratch>
inline auto sums_at(const Scratch& scratch, int64_t to) {
  return scratch.sums + to % scratch.outputs * scratch.sums_size;
}

// Add the cells of plane `t` to the sums of the tile's windows; false if a value is not ordinary.
template <int bytes, class Element>
VIDPOOL_OUTLINE bool sum_plane_in_place(const Pooling& p, const Tile& tile, int64_t t,
                                        const Element* input,
                                        const ChannelScratch<Element>& scratch) {
  using V = typename Vector<Real<Element>, bytes>::type;
  constexpr int lanes = Vector<Real<Element>, bytes>::lanes;
  const int64_t ring = scratch.row_count;
  const Element* const plane = input + t * p.input_plane();
  int64_t next = p.h.window_begin(tile.first);
  for (int64_t i = 0; i < tile.windows; ++i) {
    for (const int64_t end = p.h.window_end(tile.first + i); next < end; ++next)
      if (p.h.in_window(next) &&
          !sum_row<bytes>(p, tile.unit, plane + next * p.w.size * p.channels, scratch,
                          scratch.row + next % ring * scratch.row_size))
        return false;
    int64_t count = 0;
    for (int64_t k = 0; k < p.h.kernel; ++k) {
      const int64_t h = (tile.first + i) * p.h.stride - p.h.padding + k * p.h.dilation;
      if (h >= 0 && h < p.h.size) scratch.rows[count++] = scratch.row + h % ring * scratch.row_size;
    }
    for_windows_of(p.t, t, [&](int64_t to) {
      const bool is_first = t == first_cell(p.t, to);
      Real<Element>* const sums = sums_at(scratch, to) + i * scratch.row_size;
      for (int64_t at = 0; at < scratch.row_size; at += lanes) {
        V sum = is_first ? V{} : load<V>(sums + at);
        for (int64_t k = 0; k < count; ++k) sum += load<V>(scratch.rows[k] + at);
        store(sums + at, sum);
      }
    });
  }
  return true;
}

// Sum the cells of all planes up to those of the windows at `to`; false if a value is not ordinary.
template <int bytes, class Element>
VIDPOOL_INLINE bool sum_planes_in_place(const Pooling& p, const Tile& tile, int64_t to,
                                        const Element* input,
                                        const ChannelScratch<Element>& scratch, int64_t& next) {
  for (; next < p.t.window_end(to); ++next)
    if (p.t.in_window(next) && !sum_plane_in_place<bytes>(p, tile, next, input, scratch))
      return false;
  if (first_cell(p.t, to) >= p.t.size)
    fill(sums_at(scratch, to), Real<Element>(0), scratch.sums_size);
  return true;
}

// Returns false, with part of the result written, at a value that is not ordinary.
template <int bytes, class Element>
VIDPOOL_OUTLINE bool forward_in_place_by_cell(const Pooling& p, const Tile& tile,
                                              const Element* input, Element* out,
                                              const ChannelScratch<Element>& scratch) {
  using V = typename Vector<Real<Element>, bytes>::type;
  constexpr int lanes = Vector<Real<Element>, bytes>::lanes;
  const int64_t pitch = scratch.pitch, last = tile.unit - lanes;
  int64_t next = 0;
  for (int64_t to = 0; to < p.t.count; ++to) {
    if (!sum_planes_in_place<bytes>(p, tile, to, input, scratch, next)) return false;
    const Real<Element>* entry = sums_at(scratch, to);
    Element* pooled = out + (to * p.h.count + tile.first) * p.w.count * p.channels;
    for (int64_t i = 0; i < tile.windows * p.w.count; ++i) {
      for (int64_t c = 0; c < tile.unit; c += lanes) {
        const int64_t at = std::min(c, last);
        const V mass = load<V>(entry + at), moment = load<V>(entry + pitch + at);
        // a window of padding alone has no mass
        write<bytes>(pooled + at, mass > 0 ? moment / mass : V{} + minus_infinity<Real<Element>>);
      }
      entry += 2 * pitch;
      pooled += p.channels;
    }
  }
  return true;
}

// Turn the masses and moments of the windows at `to` into scales and levels.
template <int bytes, bool exact, class Element>
VIDPOOL_OUTLINE void weigh_gradients(const Pooling& p, const Tile& tile, int64_t to,
                                     const Element* grad, const ChannelScratch<Element>& scratch) {
  using V = typename Vector<Real<Element>, bytes>::type;
  constexpr int lanes = Vector<Real<Element>, bytes>::lanes;
  const int64_t pitch = scratch.pitch;
  Real<Element>* entry = sums_at(scratch, to);
  grad += (to * p.h.count + tile.first) * p.w.count * p.channels;
  for (int64_t i = 0; i < tile.windows * p.w.count; ++i) {
    for (int64_t c = 0; c < tile.unit; c += lanes) {
      const V mass = load<V>(entry + c), moment = load<V>(entry + pitch + c);
      const V scale = read_channels<bytes>(grad, c, tile.unit, scratch.channels) / mass;
      store(entry + c, scale);
      store(entry + pitch + c, exact ? scale * (1 - moment / mass) : scale);
    }
    entry += 2 * pitch;
    grad += p.channels;
  }
}

// List the rows of entries of the tile's windows that have row `h` of plane `t`.
template <class Scratch>
inline int64_t list_rows(const Pooling& p, const Tile& tile, int64_t t, int64_t h,
                         const Scratch& scratch) {
  int64_t count = 0;
  for_windows_of(p.t, t, [&](int64_t to) {
    for_windows_of(p.h, h, [&](int64_t row) {
      if (row >= tile.first && row < tile.first + tile.windows)
        scratch.rows[count++] = sums_at(scratch, to) + (row - tile.first) * scratch.row_size;
    });
  });
  return count;
}

// Write the gradients of a row of cells; `scratch.rows` lists the rows of their windows.
template <int bytes, bool exact, class Element>
VIDPOOL_OUTLINE void write_gradients(const Pooling& p, int64_t unit, int64_t count,
                                     const Element* input, Element* out,
                                     const ChannelScratch<Element>& scratch) {
  using V = typename Vector<Real<Element>, bytes>::type;
  constexpr int lanes = Vector<Real<Element>, bytes>::lanes;
  const int64_t pitch = scratch.pitch, last = unit - lanes;
  for (int64_t i = 0; i < scratch.row_size; i += lanes) {
    V sum{};
    for (int64_t k = 0; k < count; ++k) sum += load<V>(scratch.rows[k] + i);
    store(scratch.row + i, sum);
  }
  for (int64_t w = 0; w < p.w.size; ++w, input += p.channels, out += p.channels) {
    const int64_t *const begin = scratch.columns.begin(w), *const end = scratch.columns.end(w);
    if (count == 0 || begin == end) {
      clear<bytes>(out, unit, scratch.channels);
      continue;
    }
    for (int64_t c = 0; c < unit; c += lanes) {
      const int64_t at = std::min(c, last);
      V scale{}, level{};
      for (const int64_t* window = begin; window < end; ++window) {
        const Real<Element>* const entry = scratch.row + *window * 2 * pitch + at;
        if (exact) scale += load<V>(entry);
        level += load<V>(entry + pitch);
      }
      const V a = read<bytes>(input + at), weight = exp_weight<bytes>(a);
      write<bytes>(out + at, exact ? weight * (level + scale * a) : weight * level);
    }
  }
}

// Returns false, with part of the result written, at a value that is not ordinary.
template <int bytes, bool exact, class Element>
VIDPOOL_OUTLINE bool backward_in_place_by_cell(const Pooling& p, const Tile& tile,
                                               const Element* grad, const Element* input,
                                               Element* out,
                                               const ChannelScratch<Element>& scratch) {
  int64_t next = 0, written = 0;
  for (int64_t to = 0; to < p.t.count; ++to) {
    if (!sum_planes_in_place<bytes>(p, tile, to, input, scratch, next)) return false;
    weigh_gradients<bytes, exact>(p, tile, to, grad, scratch);
    for (const int64_t complete = p.t.complete_after(to); written < complete; ++written)
      for (int64_t h = tile.own_begin; h < tile.own_end; ++h) {
        const int64_t place = (written * p.h.size + h) * p.w.size * p.channels;
        const int64_t count = list_rows(p, tile, written, h, scratch);
        write_gradients<bytes, exact>(p, tile.unit, count, input + place, out + place, scratch);
      }
  }
  return true;
}

// Pool the tile, by the faster formula where the values allow it.
template <int bytes, class Element>
VIDPOOL_INLINE void forward_in_place(const Pooling& p, const Tile& tile, const Element* input,
                                     Element* out, const ChannelScratch<Element>& scratch) {
  const bool is_done = p.is_disjoint()
                           ? forward_in_place_by_window<bytes, true>(p, tile, input, out, scratch)
                           : forward_in_place_by_cell<bytes>(p, tile, input, out, scratch);
  if (!is_done) forward_in_place_by_window<bytes, false>(p, tile, input, out, scratch);
}

// Set the gradients of the tile's cells; false, with part of them set, at a value that is not
// ordinary where windows overlap.
template <int bytes, bool exact, bool disjoint, class Element>
VIDPOOL_INLINE bool backward_in_place(const Pooling& p, const Tile& tile, const Element* grad,
                                      const Element* input, Element* out,
                                      const ChannelScratch<Element>& scratch) {
  if constexpr (!disjoint)
    return backward_in_place_by_cell<bytes, exact>(p, tile, grad, input, out, scratch);
  backward_in_place_by_window<bytes, exact>(p, tile, grad, input, out, scratch);
  return true;
}

}  // namespace
