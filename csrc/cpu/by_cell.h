// SoftPool cell by cell, for windows that overlap and values of ordinary size.
//
// Where no value is far from 0, every window may use the same weights e^a:
//     out = sum(e^a a) / sum(e^a)
// takes one exponential a cell, however many windows it is in. So does the gradient of a cell,
//     e^a (sum(level) + a sum(scale))    with scale = g / sum(e^a), level = scale (1 - out)
// where the sums are over its windows and g is a window's gradient; without the second if not
// exact.
//
// Included once for every instruction set, after planes.h.
#pragma once

namespace {

// Larger values are left to by_window.h. Up to here e^a and its inverse are far from infinite and
// from denormal, also in products with gradients of any ordinary size (1e-30 to 1e30 in float32);
// and results, and gradients beside their window's, err by a few units in the last place of 16.
template <class Real>
constexpr Real ordinary = 16;

// Turn the values of a plane into weights e^a, and put e^a a into `products`. What is not an
// ordinary value, such as padding, gets 0. Returns the number of ordinary values.
//
// Meanwhile the memory from `upcoming` on, which will be read next, is fetched into the cache:
// `step` bytes for each vector.
template <int bytes, class Real>
VIDPOOL_OUTLINE int64_t weigh_plane(const Tile& tile, Real* values, Real* products,
                                    const char* upcoming, int64_t step) {
  using V = typename Vector<Real, bytes>::type;
  using Bits = typename Vector<Real, bytes>::bits;
  constexpr int lanes = Vector<Real, bytes>::lanes;
  const int64_t size = tile.rows * tile.pitch * tile.unit;
  Bits count{};
  for (int64_t phase = 0; phase < tile.h.phases * tile.w.phases; ++phase) {
    fill(values + size, minus_infinity<Real>, tile.phase_size - size);
    for (int64_t i = 0; i < size; i += lanes) {
      __builtin_prefetch(upcoming, 0, 2);
      upcoming += step;
      const V a = load<V>(values + i);
      const Bits is_ordinary = (Bits)(a * a <= ordinary<Real> * ordinary<Real>);
      const V finite = (V)((Bits)a & is_ordinary);
      const V weight = (V)((Bits)exp_weight<bytes>(finite) & is_ordinary);
      store(values + i, weight);
      store(products + i, weight * finite);
      count -= is_ordinary;
    }
    values += tile.phase_size;
    products += tile.phase_size;
  }
  int64_t total = 0;
  for (int lane = 0; lane < lanes; ++lane) total += int64_t(count[lane]);
  return total;
}

// Sum up the cells that each window has in a plane.
template <int bytes, int n, class Real>
VIDPOOL_INLINE void sum_group(const Real* weights, const Real* products, const int64_t* offsets,
                              int64_t cells, int64_t i, Real* masses, Real* moments) {
  using V = typename Vector<Real, bytes>::type;
  constexpr int lanes = Vector<Real, bytes>::lanes;
  V mass[n] = {}, moment[n] = {};
  for (int64_t c = 0; c < cells; ++c)
    for (int k = 0; k < n; ++k) {
      mass[k] += load<V>(weights + offsets[c] + i + k * lanes);
      moment[k] += load<V>(products + offsets[c] + i + k * lanes);
    }
  for (int k = 0; k < n; ++k) {
    store(masses + i + k * lanes, mass[k]);
    store(moments + i + k * lanes, moment[k]);
  }
}

template <int bytes, class Real>
VIDPOOL_OUTLINE void sum_plane(const Real* weights, const Real* products, const int64_t* offsets,
                               int64_t cells, int64_t size, Real* masses, Real* moments) {
  constexpr int lanes = Vector<Real, bytes>::lanes;
  int64_t i = 0;
  for (; i + lanes * group < size + lanes; i += lanes * group)
    sum_group<bytes, group>(weights, products, offsets, cells, i, masses, moments);
  for (; i < size; i += lanes)
    sum_group<bytes, 1>(weights, products, offsets, cells, i, masses, moments);
}

// The rows of a ring of planes that hold the planes of window `to`.
inline int64_t list_planes(const Pooling& p, const Tile& tile, int64_t to, int64_t* places) {
  int64_t count = 0;
  for (int64_t k = 0; k < p.t.kernel; ++k) {
    const int64_t t = to * p.t.stride - p.t.padding + k * p.t.dilation;
    if (t >= 0 && t < p.t.size) places[count++] = t % tile.planes;
  }
  return count;
}

// Read plane `t` and prepare its weights and sums; false if a value is not ordinary.
template <int bytes, class Element, class Real>
VIDPOOL_INLINE bool read_plane(const Pooling& p, const Tile& tile, int64_t t, const Element* input,
                               const Element* input_end, const Scratch<Real>& scratch) {
  const int64_t place = t % tile.planes;
  Real* const weights = scratch.values + place * tile.plane_size;
  Real* const products = scratch.partners + place * tile.plane_size;
  split_plane<bytes>(p, tile, input + t * p.input_plane(), input_end, weights, scratch.row);
  const auto* upcoming = reinterpret_cast<const char*>(
      input + (t + 1) * p.input_plane() +
      std::max<int64_t>(0, tile.first * p.h.stride - p.h.padding) * p.w.size * p.channels);
  constexpr int64_t step = Vector<Real, bytes>::lanes * int64_t(sizeof(Element));
  if (weigh_plane<bytes>(tile, weights, products, upcoming, step) != tile.cells) return false;
  sum_plane<bytes>(weights, products, scratch.offsets, p.h.kernel * p.w.kernel, tile.positions(),
                   scratch.masses + place * tile.window_size(),
                   scratch.moments + place * tile.window_size());
  return true;
}

// The result at vector i, from the sums of a window's planes.
template <class V, class Real>
VIDPOOL_INLINE void sum_planes(const Tile& tile, const Scratch<Real>& scratch, int64_t planes,
                               int64_t i, V& mass, V& moment) {
  mass = moment = V{};
  for (int64_t k = 0; k < planes; ++k) {
    const int64_t from = scratch.places[k] * tile.window_size() + i;
    mass += load<V>(scratch.masses + from);
    moment += load<V>(scratch.moments + from);
  }
}

// Pool the windows whose planes are listed.
template <int bytes, class Real>
VIDPOOL_OUTLINE void pool_windows(const Tile& tile, int64_t planes, const Scratch<Real>& scratch) {
  using V = typename Vector<Real, bytes>::type;
  for (int64_t i = 0; i < tile.positions(); i += Vector<Real, bytes>::lanes) {
    V mass, moment;
    sum_planes(tile, scratch, planes, i, mass, moment);
    // a window of padding alone has no mass
    store(scratch.pooled + i, mass > 0 ? moment / mass : V{} + minus_infinity<Real>);
  }
}

// Returns false, with part of the result written, at a value that is not ordinary.
template <int bytes, class Element, class Real>
VIDPOOL_INLINE bool forward_by_cell(const Pooling& p, const Tile& tile, const Element* input,
                                    const Element* input_end, Element* out,
                                    const Scratch<Real>& scratch) {
  int64_t next = 0;
  for (int64_t to = 0; to < p.t.count; ++to) {
    for (; next < p.t.window_end(to); ++next)
      if (p.t.in_window(next) && !read_plane<bytes>(p, tile, next, input, input_end, scratch))
        return false;
    pool_windows<bytes>(tile, list_planes(p, tile, to, scratch.places), scratch);
    write_windows<bytes>(p, tile, scratch.pooled, out + to * p.output_plane());
  }
  return true;
}

// Add the levels and scales of the windows at `to` to those of their planes.
template <int bytes, bool exact, class Real>
VIDPOOL_OUTLINE void spread_windows(const Tile& tile, int64_t planes,
                                    const Scratch<Real>& scratch) {
  using V = typename Vector<Real, bytes>::type;
  using Bits = typename Vector<Real, bytes>::bits;
  constexpr int lanes = Vector<Real, bytes>::lanes;
  for (int64_t i = 0; i < tile.positions(); i += lanes) {
    V mass, moment;
    sum_planes(tile, scratch, planes, i, mass, moment);
    const Bits used = load<Bits>(scratch.is_window + i);
    V scale = load<V>(scratch.pooled + i) / mass;
    V level = exact ? scale * (Real(1) - moment / mass) : scale;
    scale = (V)((Bits)scale & used);
    level = (V)((Bits)level & used);
    for (int64_t k = 0; k < planes; ++k) {
      const int64_t to = scratch.places[k] * tile.shared_size() + tile.reach() + i;
      store(scratch.levels + to, level + load<V>(scratch.levels + to));
      if (exact) store(scratch.scales + to, scale + load<V>(scratch.scales + to));
    }
  }
}

// The gradients of a plane's cells.
template <bool exact>
struct Gradients {
  template <int bytes, class Real>
  struct Of {
    using V = typename Vector<Real, bytes>::type;

    V get(int64_t phase, int64_t at) const {
      V level{}, scale{};
      for (int64_t k = reach_ends[phase]; k < reach_ends[phase + 1]; ++k) {
        level += load<V>(levels + at - reaches[k]);
        if (exact) scale += load<V>(scales + at - reaches[k]);
      }
      V part = level * load<V>(weights + phase * phase_size + at);
      if (exact) part += scale * load<V>(products + phase * phase_size + at);
      return part;
    }

    const Real *weights, *products, *levels, *scales;
    const int64_t *reaches, *reach_ends;
    int64_t phase_size;
  };
};

// Returns false, with part of the result written, at a value that is not ordinary.
template <int bytes, bool exact, class Element, class Real>
VIDPOOL_INLINE bool backward_by_cell(const Pooling& p, const Tile& tile, const Element* grad,
                                     const Element* grad_end, const Element* input,
                                     const Element* input_end, Element* out,
                                     const Scratch<Real>& scratch) {
  int64_t next = 0, written = 0;
  for (int64_t to = 0; to < p.t.count; ++to) {
    for (; next < p.t.window_end(to); ++next) {
      if (!p.t.in_window(next)) continue;
      if (!read_plane<bytes>(p, tile, next, input, input_end, scratch)) return false;
      const int64_t shared = next % tile.planes * tile.shared_size();
      fill(scratch.levels + shared, Real(0), tile.shared_size());
      if (exact) fill(scratch.scales + shared, Real(0), tile.shared_size());
    }
    read_windows<bytes>(p, tile, grad + to * p.output_plane(), grad_end, scratch.pooled);
    spread_windows<bytes, exact>(tile, list_planes(p, tile, to, scratch.places), scratch);
    const int64_t complete = p.t.complete_after(to);
    for (; written < complete; ++written) {
      Element* const plane = out + written * p.input_plane();
      if (p.t.in_window(written)) {
        const int64_t place = written % tile.planes;
        const int64_t shared = place * tile.shared_size() + tile.reach();
        merge_plane<bytes, Gradients<exact>::template Of>(
            p, tile, plane, scratch.row, scratch.values + place * tile.plane_size,
            scratch.partners + place * tile.plane_size, scratch.levels + shared,
            scratch.scales + shared, scratch.reaches, scratch.reach_ends, tile.phase_size);
      } else {
        clear_plane<bytes>(p, tile, plane, scratch.row);
      }
    }
  }
  return true;
}

}  // namespace
