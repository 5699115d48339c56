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
  // Windows below each other that one thread pools. Those of 3 rows often have rows in common.
  static constexpr int run = k == 3 ? 4 : 1;
  // A thread of Gather has a block of so many cells in time, and in height and width.
  static constexpr int block_t = kt > 1 ? 2 : 1, block = 2;
};

// Windows of any size and dilation, which only the Map has.
struct AnyShape {
  static constexpr int kt = 0, k = 0, run = 1, block_t = 1, block = 1;
};

// The first cell of a window, or of the two windows of Quads.
template <class Shape, class Access, class Index>
VIDPOOL_DEVICE Place<Index> first_cell(const Map<Index>& map, const Place<Index>& window) {
  const auto [outer, t, h, w, channel] = window;
  if constexpr (Access::centred) {
    constexpr int stride_t = Shape::kt > 1 ? 2 : 1, padding = (Shape::k - 1) / 2;
    return {outer, t * stride_t - (Shape::kt - 1) / 2, h * 2 - padding, w * 2 - padding, channel};
  }
  return {outer, map.t.first_cell(t), map.h.first_cell(h), map.w.first_cell(w), channel};
}

// The cells in some rows of a thread's windows, or after they are summed up their z and weights.
template <class Shape, class Access, int rows, class Real>
struct Cells {
  static constexpr int lanes = Access::lanes, k = Shape::k, count = Shape::kt * rows * k;
  static constexpr int columns = k + (Access::side - 1) * 2;
  using Block = Real[Shape::kt * rows][columns][Access::channels];

  Real z[count][lanes], weights[count][lanes];

  template <class Element, class Index>
  VIDPOOL_DEVICE void load(const Map<Index>& map, const Element* x, const Place<Index>& first) {
    Block block;
    load_block<Access, Shape::kt, rows, columns>(map, x, first, block);
    for (int i = 0; i < count; ++i)
      for (int lane = 0; lane < lanes; ++lane) z[i][lane] = cell_of(block, i, lane);
  }

  // Store z as the cells of disjoint windows.
  template <class Element, class Index>
  VIDPOOL_DEVICE void store(const Map<Index>& map, const Place<Index>& first, Element* out) const {
    Block block;
    for (int i = 0; i < count; ++i)
      for (int lane = 0; lane < lanes; ++lane) cell_of(block, i, lane) = z[i][lane];
    store_block<Access, Shape::kt, rows, columns>(map, block, first, out);
  }

  // Sum up relative to the largest cell, or to `peak` if that is larger.
  VIDPOOL_DEVICE Sums<Real> sum(int lane, Real peak = lowest<Real>) {
    for (int i = 0; i < count; ++i) peak = std::fmax(peak, z[i][lane]);
    for (int i = 0; i < count; ++i) {
      z[i][lane] = z_of(z[i][lane], peak);
      weights[i][lane] = weight_of(z[i][lane]);
    }
    Sums<Real> sums{peak, weights[0][lane], weights[0][lane] * z[0][lane]};
    for (int i = 1; i < count; ++i) sums.add(z[i][lane], weights[i][lane]);
    return sums;
  }

 private:
  VIDPOOL_DEVICE static Real& cell_of(Block& block, int i, int lane) {
    return Access::side > 1 ? block[i / k][i % k + lane * 2][0] : block[i / k][i % k][lane];
  }
};

// Call visit(offset) for the cells of one window of any shape.
template <class Index, class Visit>
VIDPOOL_DEVICE void for_cells(const Map<Index>& map, const Place<Index>& at, const Visit& visit) {
  map.t.for_cells(at.t, [&](Index t) {
    map.h.for_cells(at.h, [&](Index h) {
      map.w.for_cells(at.w, [&](Index w) { visit(map.cell({at.outer, t, h, w, at.channel})); });
    });
  });
}

template <class Element, class Index>
VIDPOOL_DEVICE Sums<Compute<Element>> sum_window(const Map<Index>& map, const Element* x,
                                                 const Place<Index>& at) {
  using Real = Compute<Element>;
  Sums<Real> sums;
  for_cells(map, at, [&](Index cell) { sums.peak = std::fmax(sums.peak, Real(x[cell])); });
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
    for (int lane = 0; lane < lanes; ++lane) sums[lane] = cells.sum(lane);
    use(map.window(at), sums);
  } else {
    Cells<Shape, Access, 1, Real> cells;
    Sums<Real> upper[lanes], middle[lanes], lower[lanes];  // of the rows of a window
    const auto load_row = [&](int row) {
      Place<Index> first = first_cell<Shape, Access>(map, at);
      first.h += row;
      cells.load(map, x, first);
    };
    const auto sum_row = [&](int row, Sums<Real>(&to)[lanes]) {
      load_row(row);
      for (int lane = 0; lane < lanes; ++lane) to[lane] = cells.sum(lane);
    };
    const Index stride = Access::centred ? 2 : map.h.stride.value;
    at.h *= Shape::run;
    sum_row(0, upper);
    for (int i = 0; i < Shape::run && at.h < map.h.count; ++i, ++at.h) {
      // rows that this window has in common with the one above are already summed up
      if (i > 0 && stride > 2) sum_row(0, upper);
      sum_row(2, lower);
      if (Access::centred)  // no other window has this row
        load_row(1);
      else if (i == 0 || stride > 1)
        sum_row(1, middle);
      for (int lane = 0; lane < lanes; ++lane) {
        const Real peak = std::fmax(upper[lane].peak, lower[lane].peak);
        if constexpr (Access::centred) {
          sums[lane] = cells.sum(lane, peak);
        } else {
          sums[lane] = {std::fmax(peak, middle[lane].peak)};
          sums[lane].add(middle[lane]);
        }
        sums[lane].add(upper[lane]);
        sums[lane].add(lower[lane]);
        upper[lane] = stride == 1 ? middle[lane] : lower[lane];
        middle[lane] = lower[lane];
      }
      use(map.window(at), sums);
    }
  }
}

// Writes the results of the thread's windows.
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
      for (int lane = 0; lane < lanes; ++lane) results[lane] = sums[lane].result();
      store(results, out + window);
    };
    for_windows<Shape, Access>(map, x, numbering.template at<Access>(i), write);
  }
};

// Backward pass of disjoint windows: writes the gradients of the cells of the thread's windows.
template <class Shape, class Access, class Element, class Index>
struct Spread {
  using Real = Compute<Element>;
  static constexpr int lanes = Access::lanes;

  Map<Index> map;
  Numbering<Index> numbering;
  const Element *grad, *x;
  Real is_exact;
  Element* out;

  VIDPOOL_DEVICE void operator()(Index i) const {
    const Place<Index> at = numbering.template at<Access>(i);
    Real grads[lanes];
    load(grad + map.window(at), grads);
    if constexpr (std::is_same_v<Shape, AnyShape>) {
      const auto factors = Factors<Real>::of(sum_window(map, x, at), grads[0], is_exact);
      for_cells(map, at, [&](Index cell) { out[cell] = Element(factors.gradient(Real(x[cell]))); });
    } else {
      const Place<Index> first = first_cell<Shape, Access>(map, at);
      Cells<Shape, Access, Shape::k, Real> cells;
      cells.load(map, x, first);
      for (int lane = 0; lane < lanes; ++lane) {
        const auto factors = Factors<Real>::of(cells.sum(lane), grads[lane], is_exact);
        for (int i = 0; i < cells.count; ++i)
          cells.z[i][lane] = factors.gradient(cells.z[i][lane], cells.weights[i][lane]);
      }
      cells.store(map, first, out);
    }
  }
};

// The Factors of all windows.
template <class Real>
struct AllFactors {
  Real *peaks, *slopes, *offsets;

  template <int n, class Index>
  VIDPOOL_DEVICE void load_to(Factors<Real>* to, Index window) const {
    Real peak[n], slope[n], offset[n];
    load(peaks + window, peak);
    load(slopes + window, slope);
    load(offsets + window, offset);
    for (int i = 0; i < n; ++i) to[i] = {peak[i], slope[i], offset[i]};
  }
};

// Backward pass of overlapping windows, first: writes the factors of the thread's windows.
template <class Shape, class Access, class Element, class Index>
struct Prepare {
  using Real = Compute<Element>;
  static constexpr int lanes = Access::lanes;

  Map<Index> map;
  Numbering<Index> numbering;
  const Element *grad, *x;
  Real is_exact;
  AllFactors<Real> all_factors;

  VIDPOOL_DEVICE void operator()(Index i) const {
    const auto write = [&](Index window, const Sums<Real>(&sums)[lanes]) {
      Real grads[lanes], peaks[lanes], slopes[lanes], offsets[lanes];
      load(grad + window, grads);
      for (int lane = 0; lane < lanes; ++lane) {
        const auto factors = Factors<Real>::of(sums[lane], grads[lane], is_exact);
        peaks[lane] = factors.peak;
        slopes[lane] = factors.slope;
        offsets[lane] = factors.offset;
      }
      store(peaks, all_factors.peaks + window);
      store(slopes, all_factors.slopes + window);
      store(offsets, all_factors.offsets + window);
    };
    for_windows<Shape, Access>(map, x, numbering.template at<Access>(i), write);
  }
};

// Then: adds up the gradients of the thread's block of cells over the windows that hold them.
template <class Shape, class Access, class Element, class Index>
struct Gather {
  using Real = Compute<Element>;
  static constexpr int planes = Shape::block_t, rows = Shape::block;
  static constexpr int side = Access::side, columns = Shape::block * side;
  static constexpr int channels = Access::channels, lanes = Access::lanes;

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
  VIDPOOL_DEVICE void gather_cell(const Place<Index>& at) const {
    const Index cell = map.cell(at);
    const Real value = Real(x[cell]);
    Real sum = 0;
    map.t.for_windows_of(at.t, [&](Index t) {
      map.h.for_windows_of(at.h, [&](Index h) {
        map.w.for_windows_of(at.w, [&](Index w) {
          Factors<Real> factors;
          all_factors.template load_to<1>(&factors, map.window({at.outer, t, h, w, at.channel}));
          sum += factors.gradient(value);
        });
      });
    });
    out[cell] = Element(sum);
  }

  VIDPOOL_DEVICE void gather_block(const Place<Index>& at) const {
    const Place<Index> first{at.outer, at.t * planes, at.h * rows, at.w * Shape::block, at.channel};
    Real cells[planes * rows][columns][channels];
    Real sums[planes * rows][columns][channels] = {};
    load_block<Access, planes, rows, columns>(map, x, first, cells);
    // Add what a window contributes, or what three windows of Quads do, which are two columns
    // apart. In each dimension, cell i of the block is cell i + offset of the first window.
    const auto add = [&](const Place<Index>& at, Index offset_t, Index offset_h, Index offset_w) {
      const Index window = map.window(at);
      Factors<Real> factors[lanes + side - 1];
      all_factors.template load_to<lanes>(factors, window);
      if constexpr (side > 1) {
        factors[lanes] = {infinity<Real>, 0, 0};  // with a peak of inf it contributes nothing
        if (at.w + 2 < map.w.count) all_factors.template load_to<1>(factors + lanes, window + 2);
      }
      for (int i = 0; i < planes * rows; ++i) {
        if (!is_within<Index>(offset_t + i / rows, Shape::kt)) continue;
        if (!is_within<Index>(offset_h + i % rows, Shape::k)) continue;
        for (int j = 0; j < (side > 1 ? 3 : 1); ++j) {
          for (int k = 0; k < columns; ++k) {
            if (!is_within<Index>(offset_w + k - 2 * j, Shape::k)) continue;
            for (int c = 0; c < channels; ++c)
              sums[i][k][c] += factors[j + c].gradient(cells[i][k][c]);
          }
        }
      }
    };
    if constexpr (Access::centred) {
      constexpr int count_w = side > 1 ? 1 : 2, padding_t = (Shape::kt - 1) / 2;
      VIDPOOL_UNROLL
      for (int j = 0; j < planes * rows * count_w; ++j) {
        const int t = j / (rows * count_w), h = j / count_w % rows, w = j % count_w;
        const Place<Index> window{at.outer, at.t + t, at.h + h, at.w + w, at.channel};
        if (window.t < map.t.count && window.h < map.h.count && window.w < map.w.count)
          add(window, padding_t - 2 * t, 1 - 2 * h, 1 - 2 * w);
      }
    } else {
      const auto ts = map.t.windows_of(first.t, planes), hs = map.h.windows_of(first.h, rows);
      const auto ws = map.w.windows_of(first.w, columns);
      for (Index t = ts.begin; t < ts.end; ++t)
        for (Index h = hs.begin; h < hs.end; ++h)
          for (Index w = ws.begin; w < ws.end; ++w)
            add({at.outer, t, h, w, at.channel}, first.t - map.t.first_cell(t),
                first.h - map.h.first_cell(h), first.w - map.w.first_cell(w));
    }
    store_block<Access, planes, rows, columns>(map, sums, first, out);
  }
};

}  // namespace vidpool
