// The scratch memory that a tile needs.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>

#include "../pooling.h"
#include "tiling.h"

namespace vidpool {

// Memory for any of a tiling's tiles.
template <class Real>
class Scratch {
 public:
  // for elements of a size in memory, of which so many make a vector
  Scratch(const Pooling& p, const Tiling& tiling, int64_t element_size, int64_t lanes)
      : backward_(tiling.backward()) {
    const Tile tile = tiling.largest();
    const bool by_cell = !p.is_disjoint();
    const int64_t plane_cells = p.h.kernel * p.w.kernel, cells = p.t.kernel * plane_cells;
    const int64_t planes_size = tile.planes * tile.plane_size + slack;
    const int64_t sums_size = by_cell ? tile.planes * tile.window_size() : 0;
    const int64_t shared_size = by_cell && backward_ ? tile.planes * tile.shared_size() + slack : 0;
    const struct {
      Real** begin;
      int64_t size;
    } parts[] = {
        {&values, planes_size},
        {&partners, backward_ || by_cell ? planes_size : 0},
        {&pooled, tile.window_size()},
        {&row, std::max(p.w.size, tile.unit) + 2 * slack},
        {&is_window, backward_ ? tile.window_size() : 0},
        {&weights, backward_ ? 2 * cells * group * slack : 0},
        {&masses, sums_size},
        {&moments, sums_size},
        {&levels, shared_size},
        {&scales, shared_size},
    };
    int64_t size = 0;
    for (const auto& part : parts) size += part.size;
    memory_.reset(new Real[size]);
    Real* next = memory_.get();
    for (const auto& part : parts) {
      *part.begin = next;
      next += part.size;
    }
    pointers_.reset(new Real*[(backward_ ? 2 : 1) * cells]);
    value_cells = pointers_.get();
    partner_cells = value_cells + cells;
    const int64_t phases = tile.h.phases * tile.w.phases;
    indices_.reset(new int64_t[2 * plane_cells + phases + 1 + p.t.kernel + cells]);
    offsets = indices_.get();
    reaches = offsets + plane_cells;
    reach_ends = reaches + plane_cells;
    places = reach_ends + phases + 1;
    upcoming = places + p.t.kernel;
    // Disjoint windows take up a vector for each cell where they lie side by side; others are left.
    upcoming_step = by_cell ? 0 : plane_cells * element_size;
    int64_t* offset = upcoming;
    for (int64_t cell = 0; cell < plane_cells; ++cell)
      for (int64_t kt = 0; kt < p.t.kernel; ++kt)
        *offset++ = by_cell ? 0 : (kt * p.input_plane() + cell * lanes) * element_size;
    // Lanes that are computed but not used read what nobody wrote. Let it be no denormal: slow.
    std::fill(values, values + planes_size, Real(0));
    std::fill(pooled, pooled + tile.window_size(), Real(0));
  }

  // Fill what depends on a tile's shape alone; most tiles have that of the tile before.
  void prepare(const Tile& tile) {
    if (tile.windows == windows_ && tile.unit == unit_) return;
    windows_ = tile.windows;
    unit_ = tile.unit;
    int64_t* to = offsets;
    for (int64_t kw = 0; kw < tile.w.kernel; ++kw)
      for (int64_t kh = 0; kh < tile.h.kernel; ++kh)
        *to++ = (tile.h.phase(kh) * tile.w.phases + tile.w.phase(kw)) * tile.phase_size +
                tile.offset(kh, kw);
    if (!backward_) return;
    to = reaches;
    int64_t* end = reach_ends;
    *end++ = 0;
    for (int64_t h = 0; h < tile.h.phases; ++h)
      for (int64_t w = 0; w < tile.w.phases; ++w) {
        for (int64_t kh = h; kh < tile.h.kernel; kh += tile.h.period)
          for (int64_t kw = w; kw < tile.w.kernel; kw += tile.w.period) *to++ = tile.offset(kh, kw);
        *end++ = to - reaches;
      }
    const int64_t row = tile.pitch * unit_;
    std::fill(is_window, is_window + windows_ * row + slack, Real(0));
    for (int64_t i = 0; i < windows_; ++i)
      std::memset(is_window + i * row, 0xff, tile.width * unit_ * sizeof(Real));
  }

  Real* values;      // the planes of the input that a window needs, in phases, as a ring
  Real* partners;    // their gradients (by_window.h) or products with their weights (by_cell.h)
  Real* pooled;      // results, or gradients of results
  Real* row;         // part of a row of the input or of its gradient, on the way to or from phases
  int64_t* offsets;  // where in a plane the cells of the first window lie
  Real* is_window;   // backward: all bits set where `pooled` is that of a window, else none

  // by_window.h: addresses of a window's cells in `values` and `partners`
  Real** value_cells;
  Real** partner_cells;
  int64_t* upcoming;      // for each cell where in the planes that follow to read ahead
  int64_t upcoming_step;  // and how far to go on for each window
  Real* weights;  // backward: of the cells of a group of vectors of windows, and their products

  // by_cell.h, for each of the planes
  Real *masses, *moments;  // the sums over a window's weights and products
  Real *levels, *scales;   // backward: the sums over the windows at a place, in zeros
  int64_t* places;         // which planes have the cells of a window
  int64_t* reaches;        // how far before a cell its windows lie, phase by phase
  int64_t* reach_ends;     // where each phase's begin, and all end

 private:
  bool backward_;
  int64_t windows_ = -1, unit_ = -1;
  std::unique_ptr<Real[]> memory_;
  std::unique_ptr<Real*[]> pointers_;
  std::unique_ptr<int64_t[]> indices_;
};

// Memory for the kernels that read channels-last maps in place (channels_last.h).
//
// An entry holds two numbers of each of a tile's channels, such as a window's mass and moment.
template <class Element, class Real>
class ChannelsLastScratch {
 public:
  ChannelsLastScratch(const Pooling& p, const Tiling& tiling) : columns(p.w) {
    const Tile tile = tiling.largest();
    outputs = planes_in_ring(p, tiling.backward());
    pitch = (tile.unit + slack - 1) / slack * slack;
    row_size = p.w.count * 2 * pitch;
    sums_size = tile.windows * row_size;
    const int64_t cell_count = p.t.kernel * p.h.kernel * p.w.kernel;
    row_count = std::min(p.h.extent(), p.h.size);
    const int64_t rows_size = row_count * row_size;
    const int64_t total = p.is_disjoint() ? 0 : rows_size + outputs * sums_size;
    const bool keeps_weights = tiling.backward() && p.is_disjoint();
    memory_.reset(
        new Real[2 * pitch + total + (keeps_weights ? 2 * cell_count * group * slack : 0)]);
    channels = memory_.get();
    row = channels + 2 * pitch;
    sums = row + rows_size;
    weights = channels + 2 * pitch + total;
    std::fill(channels, channels + 2 * pitch, Real(0));
    rows_.reset(new Real*[p.t.kernel * p.h.kernel]);
    rows = rows_.get();
    cells_.reset(new const Element*[cell_count]);
    cells = cells_.get();
    gradients_.reset(new Element*[cell_count]);
    gradients = gradients_.get();
  }

  Columns columns;
  int64_t outputs;    // planes of the output in the ring
  int64_t pitch;      // numbers of each kind in an entry
  int64_t row_size;   // of the entries of a row of windows
  int64_t sums_size;  // of the entries of a tile's windows in a plane of the output
  Real* channels;     // a cell's last channels if they do not fill a vector, and zeros
  int64_t row_count;  // rows of the input in the ring
  Real* row;          // entries of rows of windows, in a ring of rows of the input
  Real* sums;         // entries of the tile's windows, in a ring of planes of the output
  Real** rows;        // the rows in `sums` of the windows that have a row of the input

  // by_window.h: a window's cells, their gradients, and the weights of a group of windows
  const Element** cells;
  Element** gradients;
  Real* weights;

 private:
  std::unique_ptr<Real[]> memory_;
  std::unique_ptr<Real*[]> rows_;
  std::unique_ptr<const Element*[]> cells_;
  std::unique_ptr<Element*[]> gradients_;
};

}  // namespace vidpool
