// How the work is cut into tiles.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <numeric>
#include <vector>

#include "../pooling.h"

namespace vidpool {

// Elements of room behind a row or plane for the rest of a vector that begins inside.
constexpr int64_t slack = 16;
// Vectors that are computed side by side.
constexpr int group = 2;

// Cells of one dimension by their remainder by the stride; only remainders that occur are phases.
struct PhaseSplit {
  int64_t kernel, stride, dilation, period, phases, overhang;

  explicit PhaseSplit(const Axis& axis)
      : kernel(axis.kernel),
        stride(axis.stride),
        dilation(axis.dilation),
        period(axis.stride / std::gcd(axis.stride, axis.dilation)),
        phases(std::min(axis.kernel, period)),
        overhang(offset(axis.kernel - 1)) {}

  int64_t remainder(int64_t phase) const { return phase * dilation % stride; }
  // the phase with a remainder, or -1
  int64_t phase_of(int64_t wanted) const {
    if (dilation == 1) return wanted < phases ? wanted : -1;
    for (int64_t phase = 0; phase < phases; ++phase)
      if (remainder(phase) == wanted) return phase;
    return -1;
  }
  // where a window's cell lies: its phase, and its distance there from the window's own position
  int64_t phase(int64_t cell) const { return cell % period; }
  int64_t offset(int64_t cell) const { return cell * dilation / stride; }
  // of the cells at `length` positions from `first` on, in all phases, those in the input
  int64_t count_cells(const Axis& axis, int64_t first, int64_t length) const {
    int64_t count = 0;
    for (int64_t phase = 0; phase < phases; ++phase) {
      int64_t cell = first * stride + remainder(phase) - axis.padding;
      for (int64_t i = 0; i < length; ++i, cell += stride) count += cell >= 0 && cell < axis.size;
    }
    return count;
  }
};

// A window's first cell in the input; axis.size or more if there is none.
inline int64_t first_cell(const Axis& axis, int64_t window) {
  const int64_t begin = window * axis.stride - axis.padding;
  return begin >= 0 ? begin : begin + (-begin + axis.dilation - 1) / axis.dilation * axis.dilation;
}

// Call `use` with each window that has a cell.
template <class Use>
void for_windows_of(const Axis& axis, int64_t cell, const Use& use) {
  for (int64_t k = axis.kernel; k-- > 0;) {
    const int64_t first = cell + axis.padding - k * axis.dilation;
    if (first >= 0 && first % axis.stride == 0 && first / axis.stride < axis.count)
      use(first / axis.stride);
  }
}

// The windows of each cell of a row.
class Columns {
 public:
  explicit Columns(const Axis& w) : ends_(new int64_t[w.size + 1]()) {
    for_cells(w, [&](int64_t cell, int64_t) { ++ends_[cell + 1]; });
    for (int64_t cell = 0; cell < w.size; ++cell) {
      if (ends_[cell + 1] == 0) unpooled_.push_back(cell);
      ends_[cell + 1] += ends_[cell];
    }
    windows_.reset(new int64_t[ends_[w.size]]);
    std::vector<int64_t> next(ends_.get(), ends_.get() + w.size);
    for_cells(w, [&](int64_t cell, int64_t window) { windows_[next[cell]++] = window; });
  }

  const int64_t* begin(int64_t cell) const { return windows_.get() + ends_[cell]; }
  const int64_t* end(int64_t cell) const { return windows_.get() + ends_[cell + 1]; }
  // the cells in no window
  const std::vector<int64_t>& unpooled() const { return unpooled_; }

 private:
  // Call `use` with each cell of each window that lies in the input.
  template <class Use>
  static void for_cells(const Axis& w, const Use& use) {
    for (int64_t window = 0; window < w.count; ++window)
      for (int64_t k = 0; k < w.kernel; ++k) {
        const int64_t cell = window * w.stride - w.padding + k * w.dilation;
        if (cell >= 0 && cell < w.size) use(cell, window);
      }
  }

  std::unique_ptr<int64_t[]> ends_, windows_;
  std::vector<int64_t> unpooled_;
};

// Whether a map is read in place (channels_last.h): its channels fill a vector of any instruction
// set.
inline bool is_channels_last(const Pooling& p) {
  return p.channels >= slack;
}

// Planes of windows whose sums are kept while a map is read in place. The backward pass also needs
// earlier windows that share planes of the input with the current ones.
inline int64_t planes_in_ring(const Pooling& p, bool backward) {
  const int64_t overlap = (p.t.extent() - 1) / p.t.stride + 1;
  return std::min(backward ? 2 * overlap - 1 : overlap, p.t.count);
}

// Some rows of the windows of one map, of one or of some channels.
struct Tile {
  PhaseSplit h, w;
  int64_t outer = 0, channel = 0;      // which map, and the first channel
  int64_t unit = 1;                    // channels side by side
  int64_t first = 0, windows = 0;      // first row of windows, and how many
  int64_t own_begin = 0, own_end = 0;  // rows of the input whose gradient it writes
  int64_t planes = 1;                  // planes of the input that a window reaches over
  int64_t rows = 0, pitch = 0;         // rows and columns of a phase
  int64_t width = 0;                   // windows in a row
  int64_t cells_read = 0;              // of a row of the input, those that windows reach
  int64_t cells = 0;                   // of a plane of the input, those in its phases
  int64_t phase_size = 0, plane_size = 0;

  Tile(const PhaseSplit& h, const PhaseSplit& w) : h(h), w(w) {}

  int64_t positions() const { return windows ? ((windows - 1) * pitch + width) * unit : 0; }
  // where in its phase a window's cell lies, from the window's own position on
  int64_t offset(int64_t kh, int64_t kw) const {
    return (h.offset(kh) * pitch + w.offset(kw)) * unit;
  }
  int64_t reach() const { return offset(h.kernel - 1, w.kernel - 1); }
  // elements for the windows of a plane, and with as many zeros around them as cells reach back to
  int64_t window_size() const { return windows * pitch * unit + slack; }
  int64_t shared_size() const { return reach() + rows * pitch * unit + slack; }
};

class Tiling {
 public:
  // `backward` also needs sums; `wanted` tiles or more, if that does not cut too small
  Tiling(const Pooling& p, bool backward, int64_t wanted)
      : p_(p), backward_(backward), h_(p.h), w_(p.w) {
    // disjoint windows that are read in place keep nothing in scratch memory
    const bool keeps_nothing = is_channels_last(p) && p.is_disjoint();
    const bool is_whole = keeps_nothing && p.outer * p.h.count >= wanted;
    blocks_ = is_whole ? 1 : (p.channels + max_unit - 1) / max_unit;
    unit_ = 0;
    for (int64_t block = 0; block < blocks_; ++block)
      unit_ = std::max(unit_, first_channel(block + 1) - first_channel(block));
    planes_ = std::min(p.t.extent(), p.t.size);
    const int64_t row = planes_ * h_.phases * w_.phases * (p.w.count + w_.overhang) * unit_;
    int64_t windows = max_values / (row * (backward ? 2 : 1)) - h_.overhang;
    if (keeps_nothing)
      windows = p.h.count;
    else if (is_channels_last(p))
      windows = max_sums / (planes_in_ring(p, backward) * p.w.count * 2 * unit_);
    const int64_t maps = p.outer * blocks_, bands = (wanted + maps - 1) / maps;
    windows = std::min(windows, (p.h.count + bands - 1) / bands);
    windows = std::max(windows, 2 * (h_.overhang + 1));  // below, neighbours repeat too much
    windows = std::min(windows, p.h.count);
    const int64_t rows = backward ? p.h.size : p.h.count;
    bands_ = (p.h.count + windows - 1) / windows;
    band_ = (rows + bands_ - 1) / bands_;
    bands_ = (rows + band_ - 1) / band_;
    columns_ = w_.count_cells(p.w, 0, p.w.count + w_.overhang);
  }

  int64_t size() const { return p_.outer * blocks_ * bands_; }

  Tile operator[](int64_t index) const {
    const int64_t band = index % bands_, block = index / bands_ % blocks_;
    Tile tile(h_, w_);
    tile.outer = index / bands_ / blocks_;
    tile.channel = first_channel(block);
    tile.unit = first_channel(block + 1) - tile.channel;
    const int64_t begin = band * band_;
    if (backward_) {
      const Axis& h = p_.h;
      tile.own_begin = begin;
      tile.own_end = std::min(begin + band_, h.size);
      // every window that reaches into these rows
      tile.first = std::max<int64_t>(0, begin + h.padding - h.extent() + h.stride) / h.stride;
      const int64_t end = std::min((tile.own_end - 1 + h.padding) / h.stride + 1, h.count);
      tile.windows = std::max<int64_t>(0, end - tile.first);
    } else {
      tile.first = begin;
      tile.windows = std::min(band_, p_.h.count - begin);
    }
    tile.planes = planes_;
    tile.rows = tile.windows + h_.overhang;
    tile.width = p_.w.count;
    tile.pitch = p_.w.count + w_.overhang;
    tile.cells_read = std::min(p_.w.size, w_.stride * tile.pitch - p_.w.padding);
    tile.cells = h_.count_cells(p_.h, tile.first, tile.rows) * columns_ * tile.unit;
    tile.phase_size = tile.rows * tile.pitch * tile.unit + slack;
    tile.plane_size = h_.phases * w_.phases * tile.phase_size;
    return tile;
  }

  // more windows and more channels than in any tile
  Tile largest() const {
    Tile tile = (*this)[0];
    tile.unit = unit_;
    tile.windows = backward_ ? std::min(band_ / p_.h.stride + h_.overhang + 2, p_.h.count) : band_;
    tile.rows = tile.windows + h_.overhang;
    tile.phase_size = tile.rows * tile.pitch * unit_ + slack;
    tile.plane_size = h_.phases * w_.phases * tile.phase_size;
    return tile;
  }

  bool backward() const { return backward_; }

 private:
  // Blocks of channels begin at multiples of 16 and have 16 or more, unless the map has fewer.
  int64_t first_channel(int64_t block) const {
    return block == blocks_ ? p_.channels : block * p_.channels / blocks_ / slack * slack;
  }

  static constexpr int64_t max_unit = 64;         // channels; 256 bytes of float32
  static constexpr int64_t max_values = 1 << 14;  // in scratch memory, so that caches hold it
  static constexpr int64_t max_sums = 1 << 16;    // likewise, where a map is read in place

  Pooling p_;
  bool backward_;
  PhaseSplit h_, w_;
  int64_t blocks_, unit_, planes_, bands_, band_, columns_;
};

}  // namespace vidpool
