// SoftPool window by window, for any values.
//
// Every window takes its own maximum m off its values: z = a - m, with which
//     out = m + sum(e^z z) / sum(e^z)
// is exact for any spread and offset. That takes one exponential a window and cell.
//
// Included once for every instruction set, after planes.h.
#pragma once

namespace {

// The memory that will be read next, which is fetched into the cache while windows are computed.
struct Upcoming {
  const char* begin;
  const int64_t* offsets;  // of the first vector for each cell
  int64_t step;            // from one window to the next

  void fetch(int64_t cell, int64_t window) const {
    __builtin_prefetch(begin + offsets[cell] + window * step, 0, 2);
  }
};

// Several vectors of windows, side by side: one alone would wait for its own results.
template <class V, int n>
struct Group {
  V v[n];
};

template <int bytes, int n, class Element, class Real = typename Compute<Element>::type>
VIDPOOL_INLINE Group<typename Vector<Real, bytes>::type, n> find_peaks(const Element* const* cells,
                                                                       int64_t count, int64_t i) {
  using V = typename Vector<Real, bytes>::type;
  constexpr int lanes = Vector<Real, bytes>::lanes;
  Group<V, n> peak;
  for (int k = 0; k < n; ++k) peak.v[k] = V{} + minus_infinity<Real>;
  for (int64_t c = 0; c < count; ++c)
    for (int k = 0; k < n; ++k)
      peak.v[k] = at_least(peak.v[k], read<bytes>(cells[c] + i + k * lanes));
  return peak;
}

// Pool n vectors of windows from position i on; cell c of position i is cells[c][i].
template <int bytes, int n, class Element, class Prefetch>
VIDPOOL_INLINE void pool_group(const Element* const* cells, int64_t count, int64_t i,
                               const Prefetch& upcoming, Element* out) {
  using Real = typename Compute<Element>::type;
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
      upcoming.fetch(c, i + k * lanes);
      const V z = at_least(bound, read<bytes>(cells[c] + i + k * lanes) - shift[k]);
      const V weight = exp_weight<bytes>(z);
      mass[k] += weight;
      moment[k] += weight * z;
    }
  }
  for (int k = 0; k < n; ++k)
    write<bytes>(out + i + k * lanes, peak.v[k] + moment[k] / at_least(V{} + Real(1), mass[k]));
}

// Pool `size` positions.
template <int bytes, class Real>
VIDPOOL_OUTLINE void pool(const Real* const* cells, int64_t count, int64_t size,
                          const Upcoming& upcoming, Real* out) {
  constexpr int lanes = Vector<Real, bytes>::lanes;
  int64_t i = 0;
  for (; i + lanes * group < size + lanes; i += lanes * group)
    pool_group<bytes, group>(cells, count, i, upcoming, out);
  for (; i < size; i += lanes) pool_group<bytes, 1>(cells, count, i, upcoming, out);
}

// Add to `sums` the gradients of the cells of n vectors of windows, whose own are `grad`; where
// windows are disjoint, set them. Without `is_window` every position is a window.
template <int bytes, int n, bool exact, bool disjoint, class Element, class Prefetch, class Real>
VIDPOOL_INLINE void pool_group_backward(const Element* const* cells, Element* const* sums,
                                        int64_t count, int64_t i, const Prefetch& upcoming,
                                        const Element* grad, const Real* is_window, Real* weights) {
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
      upcoming.fetch(c, i + k * lanes);
      const V z = at_least(bound, read<bytes>(cells[c] + i + k * lanes) - shift[k]);
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
    scale[k] = read<bytes>(grad + i + k * lanes) / mass[k];
    level[k] = exact ? scale[k] * (Real(1) - moment[k] / mass[k]) : scale[k];
    used[k] = is_window ? load<Bits>(is_window + i + k * lanes) : ~Bits{};
  }
  for (int64_t c = 0; c < count; ++c) {
    for (int k = 0; k < n; ++k) {
      const Real* const kept = weights + 2 * (c * n + k) * lanes;
      V part = level[k] * load<V>(kept);
      if (exact) part += scale[k] * load<V>(kept + lanes);
      // where there is no window a NaN must not reach the cells of others
      part = (V)((Bits)part & used[k]);
      Element* const sum = sums[c] + i + k * lanes;
      if (!disjoint) part += read<bytes>(sum);
      write<bytes>(sum, part);
    }
  }
}

template <int bytes, bool exact, bool disjoint, class Real>
VIDPOOL_OUTLINE void pool_backward(const Real* const* cells, Real* const* sums, int64_t count,
                                   int64_t size, const Upcoming& upcoming, const Real* grad,
                                   const Real* is_window, Real* weights) {
  constexpr int lanes = Vector<Real, bytes>::lanes;
  int64_t i = 0;
  for (; i + lanes * group < size + lanes; i += lanes * group)
    pool_group_backward<bytes, group, exact, disjoint>(cells, sums, count, i, upcoming, grad,
                                                       is_window, weights);
  for (; i < size; i += lanes)
    pool_group_backward<bytes, 1, exact, disjoint>(cells, sums, count, i, upcoming, grad, is_window,
                                                   weights);
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

// The planes after those of the windows at `to`, of this map or the next, where windows are
// disjoint.
template <class Element, class Real>
VIDPOOL_INLINE Upcoming upcoming_planes(const Pooling& p, const Tile& tile, int64_t to,
                                        const Element* input, const Scratch<Real>& scratch) {
  const int64_t plane = to + 1 < p.t.count ? (to + 1) * p.t.stride : p.t.size;
  const int64_t row = plane * p.h.size + tile.first * p.h.stride;
  return {reinterpret_cast<const char*>(input + row * p.w.size * p.channels), scratch.upcoming,
          scratch.upcoming_step};
}

template <int bytes, class Element, class Real>
VIDPOOL_INLINE void forward_by_window(const Pooling& p, const Tile& tile, const Element* input,
                                      const Element* input_end, Element* out,
                                      const Scratch<Real>& scratch) {
  int64_t next = 0;  // planes before it are in the ring, or were, or are in no window
  for (int64_t to = 0; to < p.t.count; ++to) {
    for (; next < p.t.window_end(to); ++next)
      if (p.t.in_window(next))
        split_plane<bytes>(p, tile, input + next * p.input_plane(), input_end,
                           scratch.values + next % tile.planes * tile.plane_size, scratch.row);
    const int64_t count =
        list_cells(p, tile, to, scratch.offsets, scratch.values, scratch.value_cells);
    pool<bytes>(scratch.value_cells, count, tile.positions(),
                upcoming_planes(p, tile, to, input, scratch), scratch.pooled);
    write_windows<bytes>(p, tile, scratch.pooled, out + to * p.output_plane());
  }
}

template <int bytes, bool exact, bool disjoint, class Element, class Real>
VIDPOOL_INLINE void backward_by_window(const Pooling& p, const Tile& tile, const Element* grad,
                                       const Element* grad_end, const Element* input,
                                       const Element* input_end, Element* out,
                                       const Scratch<Real>& scratch) {
  int64_t next = 0, written = 0;
  for (int64_t to = 0; to < p.t.count; ++to) {
    for (; next < p.t.window_end(to); ++next) {
      if (!p.t.in_window(next)) continue;
      const int64_t place = next % tile.planes * tile.plane_size;
      split_plane<bytes>(p, tile, input + next * p.input_plane(), input_end, scratch.values + place,
                         scratch.row);
      if (!disjoint) fill(scratch.partners + place, Real(0), tile.plane_size);
    }
    read_windows<bytes>(p, tile, grad + to * p.output_plane(), grad_end, scratch.pooled);
    const int64_t count =
        list_cells(p, tile, to, scratch.offsets, scratch.values, scratch.value_cells);
    list_cells(p, tile, to, scratch.offsets, scratch.partners, scratch.partner_cells);
    pool_backward<bytes, exact, disjoint>(scratch.value_cells, scratch.partner_cells, count,
                                          tile.positions(),
                                          upcoming_planes(p, tile, to, input, scratch),
                                          scratch.pooled, scratch.is_window, scratch.weights);
    const int64_t complete = p.t.complete_after(to);
    for (; written < complete; ++written) {
      Element* const plane = out + written * p.input_plane();
      if (p.t.in_window(written))
        merge_plane<bytes, Stored>(p, tile, plane, scratch.row,
                                   scratch.partners + written % tile.planes * tile.plane_size,
                                   tile.phase_size);
      else
        clear_plane<bytes>(p, tile, plane, scratch.row);
    }
  }
}

}  // namespace
