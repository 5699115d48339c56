// What each thread does, as functors that take the thread's number.
#pragma once

#include <type_traits>

#include "memory.cuh"

namespace vidpool {

// Windows of kt x k x k cells without dilation, of any stride and padding.
template <int kt_, int k_>
struct Shape {
  static_assert(k_ == 2 || k_ == 3);
  static constexpr int kt = kt_, k = k_;
  // Windows below each other that one thread pools. Those of 3 rows usually have rows in common.
  static constexpr int run = k == 3 ? 4 : 1;
  // Cells of one thread of Gather in time, and in height and width.
  static constexpr int block_t = kt > 1 ? 2 : 1, block = 2;
};

// Windows of any size and dilation, which only the Map has.
struct AnyShape {
  static constexpr int kt = 0, k = 0;
  static constexpr int run = 1;
  static constexpr int block_t = 1, block = 1;
};

// The first cell of a window, or of the two windows of Quads.
template <class Shape, class Access, class Index>
VIDPOOL_DEVICE Place<Index> first_cell(const Map<Index>& map, const Place<Index>& at) {
  if constexpr (Access::side == 1) return map.first_cell(at);
  constexpr int kt = Shape::kt, k = Shape::k;
  return {at.outer, at.t * Shape::block_t - (kt - 1) / 2, at.h * 2 - (k - 1) / 2,
          at.w * 2 - (k - 1) / 2, at.channel};
}

// Some rows of a thread's windows. Adding them up replaces each cell by its z and its weight.
template <class Shape, class Access, int rows, class Real>
struct Cells {
  static constexpr int lanes = Access::lanes, k = Shape::k, count = Shape::kt * rows * k;
  static constexpr int columns = k + (Access::side - 1) * 2;

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

  // Store z as the cells of disjoint windows.
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

  // Sums relative to the largest cell or to `floor`. Replaces z, until now the cells.
  VIDPOOL_DEVICE Sums<Real> sum(int lane, Real floor = lowest<Real>) {
    Sums<Real> sums{floor};
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
    return Access::side > 1 ? lane * 2 : 0;
  }
  VIDPOOL_DEVICE static constexpr int channel_of(int lane) { return Access::side > 1 ? 0 : lane; }
};

// Call visit(offset) for the cells of one window of any shape.
template <class Index, class Visit>
VIDPOOL_DEVICE void for_cells(const Map<Index>& map, const Place<Index>& at, const Visit& visit) {
  const Place<Index> first = map.first_cell(at);
  for (Index i = 0; i < map.t.kernel; ++i) {
    const Index t = first.t + i * map.t.dilation;
    if (!is_within(t, map.t.size)) continue;
    for (Index j = 0; j < map.h.kernel; ++j) {
      const Index h = first.h + j * map.h.dilation;
      if (!is_within(h, map.h.size)) continue;
      for (Index k = 0; k < map.w.kernel; ++k) {
        const Index w = first.w + k * map.w.dilation;
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
    sums.add(z, weight_of(z));
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
  } else if constexpr (Shape::run == 1) {
    Cells<Shape, Access, Shape::k, Real> cells;
    cells.load(map, x, first_cell<Shape, Access>(map, at));
    VIDPOOL_UNROLL
    for (int lane = 0; lane < lanes; ++lane) sums[lane] = cells.sum(lane);
    use(map.window(at), sums);
  } else {
    Cells<Shape, Access, 1, Real> cells;
    Sums<Real> upper[lanes], lower[lanes];  // of the first and the last row of a window
    const auto load_row = [&](int row) {
      Place<Index> first = first_cell<Shape, Access>(map, at);
      first.h += row;
      cells.load(map, x, first);
    };
    const auto add_row = [&](int row, Sums<Real>(&to)[lanes]) {
      load_row(row);
      VIDPOOL_UNROLL
      for (int lane = 0; lane < lanes; ++lane) to[lane] = cells.sum(lane);
    };
    at.h *= Shape::run;
    add_row(0, upper);
    for (int i = 0; i < Shape::run && at.h < map.h.count; ++i, ++at.h) {
      if (Access::side == 1 && i > 0 && map.h.stride.value != 2) add_row(0, upper);
      add_row(2, lower);
      load_row(1);
      VIDPOOL_UNROLL
      for (int lane = 0; lane < lanes; ++lane) {
        sums[lane] = cells.sum(lane, larger_of(upper[lane].peak, lower[lane].peak));
        sums[lane].add(upper[lane]);
        sums[lane].add(lower[lane]);
        upper[lane] = lower[lane];  // the first row of the next window, if the stride is 2
      }
      use(map.window(at), sums);
    }
  }
}

// Writes the results of the thread's windows.
template <class Shape, class Access, class Element, class Index>
struct Forward {
  using Real = Compute<Element>;

  Map<Index> map;
  Numbering<Index> numbering;
  const Element* x;
  Element* out;

  VIDPOOL_DEVICE void operator()(Index i) const {
    const auto write = [&](Index window, const Sums<Real>(&sums)[Access::lanes]) {
      Real results[Access::lanes];
      VIDPOOL_UNROLL
      for (int lane = 0; lane < Access::lanes; ++lane) results[lane] = sums[lane].result();
      store(results, out + window);
    };
    for_windows<Shape, Access>(map, x, numbering.template at<Access>(i), write);
  }
};

// Backward pass of disjoint windows: writes the gradients of the cells of the thread's windows.
template <class Shape, class Access, class Element, class Index>
struct Spread {
  using Real = Compute<Element>;

  Map<Index> map;
  Numbering<Index> numbering;
  const Element *grad, *x;
  Real is_exact;
  Element* out;

  VIDPOOL_DEVICE void operator()(Index i) const {
    const Place<Index> at = numbering.template at<Access>(i);
    Real grads[Access::lanes];
    load(grad + map.window(at), grads);
    if constexpr (std::is_same_v<Shape, AnyShape>) {
      const auto factors = Factors<Real>::of(sum_window(map, x, at), grads[0], is_exact);
      for_cells(map, at,
                [&](Index cell) { out[cell] = Element(factors.gradient_of(Real(x[cell]))); });
    } else {
      const Place<Index> first = first_cell<Shape, Access>(map, at);
      Cells<Shape, Access, Shape::k, Real> cells;
      cells.load(map, x, first);
      VIDPOOL_UNROLL
      for (int lane = 0; lane < Access::lanes; ++lane) {
        const auto factors = Factors<Real>::of(cells.sum(lane), grads[lane], is_exact);
        VIDPOOL_UNROLL
        for (int i = 0; i < cells.count; ++i)
          cells.z[i][lane] = factors.gradient(cells.z[i][lane], cells.weights[i][lane]);
      }
      cells.store(map, first, out);
    }
  }
};

// The Factors of all windows, which Prepare writes and Gather reads.
template <class Real>
struct AllFactors {
  Real *peaks, *slopes, *offsets;

  template <int n, class Index>
  VIDPOOL_DEVICE void load_from(Index window, Factors<Real> (&to)[n]) const {
    Real peaks_[n], slopes_[n], offsets_[n];
    load(peaks + window, peaks_);
    load(slopes + window, slopes_);
    load(offsets + window, offsets_);
    VIDPOOL_UNROLL
    for (int i = 0; i < n; ++i) to[i] = {peaks_[i], slopes_[i], offsets_[i]};
  }
  template <int n, class Index>
  VIDPOOL_DEVICE void store_to(Index window, const Factors<Real> (&from)[n]) const {
    Real peaks_[n], slopes_[n], offsets_[n];
    VIDPOOL_UNROLL
    for (int i = 0; i < n; ++i) {
      peaks_[i] = from[i].peak;
      slopes_[i] = from[i].slope;
      offsets_[i] = from[i].offset;
    }
    store(peaks_, peaks + window);
    store(slopes_, slopes + window);
    store(offsets_, offsets + window);
  }
};

// Backward pass of overlapping windows, first step: writes the factors of the thread's windows.
template <class Shape, class Access, class Element, class Index>
struct Prepare {
  using Real = Compute<Element>;

  Map<Index> map;
  Numbering<Index> numbering;
  const Element *grad, *x;
  Real is_exact;
  AllFactors<Real> all_factors;

  VIDPOOL_DEVICE void operator()(Index i) const {
    const auto write = [&](Index window, const Sums<Real>(&sums)[Access::lanes]) {
      Real grads[Access::lanes];
      Factors<Real> factors[Access::lanes];
      load(grad + window, grads);
      VIDPOOL_UNROLL
      for (int lane = 0; lane < Access::lanes; ++lane)
        factors[lane] = Factors<Real>::of(sums[lane], grads[lane], is_exact);
      all_factors.store_to(window, factors);
    };
    for_windows<Shape, Access>(map, x, numbering.template at<Access>(i), write);
  }
};

// Second step: adds up the gradients of the thread's block of cells over their windows.
template <class Shape, class Access, class Element, class Index>
struct Gather {
  using Real = Compute<Element>;

  Map<Index> map;
  Numbering<Index> numbering;
  const Element* x;
  AllFactors<Real> all_factors;
  Element* out;

  VIDPOOL_DEVICE void operator()(Index i) const {
    const Place<Index> at = numbering.template at<Access>(i);
    if constexpr (std::is_same_v<Shape, AnyShape>)
      gather_cell(at);
    else
      gather_block(at);
  }

 private:
  static constexpr int planes = Shape::block_t, rows = Shape::block;
  static constexpr int columns = Shape::block * Access::side, channels = Access::channels;

  VIDPOOL_DEVICE void gather_cell(const Place<Index>& at) const {
    const Index cell = map.cell(at);
    const Real value = Real(x[cell]);
    Real sum = 0;
    for_windows_of(map.t, at.t, [&](Index t) {
      for_windows_of(map.h, at.h, [&](Index h) {
        for_windows_of(map.w, at.w, [&](Index w) {
          Factors<Real> factors[1];
          all_factors.load_from(map.window({at.outer, t, h, w, at.channel}), factors);
          sum += factors[0].gradient_of(value);
        });
      });
    });
    out[cell] = Element(sum);
  }

  // Call visit(window) for the windows that hold a cell.
  template <class Visit>
  VIDPOOL_DEVICE static void for_windows_of(const Dim<Index>& dim, Index cell, const Visit& visit) {
    if (dim.dilation == 1) {
      const auto windows = dim.windows_of(cell, 1);
      for (Index window = windows.begin; window < windows.end; ++window) visit(window);
      return;
    }
    for (Index k = 0; k < dim.kernel; ++k) {
      const Index first = cell + dim.padding - k * dim.dilation;
      if (first < 0) break;
      const Index window = dim.stride.divide(first);
      if (window * dim.stride.value == first && window < dim.count) visit(window);
    }
  }

  VIDPOOL_DEVICE void gather_block(const Place<Index>& at) const {
    const Place<Index> first{at.outer, at.t * planes, at.h * rows, at.w * Shape::block, at.channel};
    Real cells[planes * rows][columns][channels];
    Real sums[planes * rows][columns][channels] = {};
    load_block<Access, planes, rows, columns>(map, x, first, cells);
    // Add what some windows at (t, h) contribute. In each dimension, cell i of the block is cell
    // i + offset of the first window; windows of Quads lie 2 columns apart.
    const auto add = [&]<int n>(const Factors<Real>(&factors)[n], Index offset_t, Index offset_h,
                                Index offset_w) {
      VIDPOOL_UNROLL
      for (int i = 0; i < planes * rows; ++i) {
        if (!is_within<Index>(offset_t + i / rows, Shape::kt) ||
            !is_within<Index>(offset_h + i % rows, Shape::k))
          continue;
        VIDPOOL_UNROLL
        for (int j = 0; j < n / channels; ++j) {
          VIDPOOL_UNROLL
          for (int k = 0; k < columns; ++k) {
            if (!is_within<Index>(offset_w + k - 2 * j, Shape::k)) continue;
            VIDPOOL_UNROLL
            for (int c = 0; c < channels; ++c)
              sums[i][k][c] += factors[j + c].gradient_of(cells[i][k][c]);
          }
        }
      }
    };
    if constexpr (Access::side > 1) {
      static_assert(Shape::k == 3);
      VIDPOOL_UNROLL
      for (int j = 0; j < planes * rows; ++j) {
        const Index t = at.t + j / rows, h = at.h + j % rows;
        if (t >= map.t.count || h >= map.h.count) continue;
        const Index window = map.window({at.outer, t, h, at.w, at.channel});
        Factors<Real> own[2], next[1] = {{infinity<Real>, 0, 0}};  // a peak of inf adds nothing
        all_factors.load_from(window, own);
        if (at.w + 2 < map.w.count) all_factors.load_from(window + 2, next);
        add({own[0], own[1], next[0]}, (Shape::kt - 1) / 2 - 2 * (j / rows), 1 - 2 * (j % rows), 1);
      }
    } else {
      const auto ts = map.t.windows_of(first.t, planes), hs = map.h.windows_of(first.h, rows);
      const auto ws = map.w.windows_of(first.w, columns);
      for (Index t = ts.begin; t < ts.end; ++t) {
        for (Index h = hs.begin; h < hs.end; ++h) {
          for (Index w = ws.begin; w < ws.end; ++w) {
            Factors<Real> factors[channels];
            all_factors.load_from(map.window({at.outer, t, h, w, at.channel}), factors);
            add(factors, first.t - map.t.first_cell(t), first.h - map.h.first_cell(h),
                first.w - map.w.first_cell(w));
          }
        }
      }
    }
    store_block<Access, planes, rows, columns>(map, sums, first, out);
  }
};

}  // namespace vidpool
