// SoftPool on the CPU: what is the same for every instruction set.
//
// A map is pooled tile by tile and plane by plane (planes.h): cell by cell where that is faster and
// the values allow it (by_cell.h), else window by window (by_window.h).
//
// Included once for every instruction set, after vector.h and elements.h.
#pragma once

#include "planes.h"
//
#include "by_cell.h"
#include "by_window.h"

namespace {

template <int bytes, class Element>
void forward(const Pooling& p, const Tiling& tiling, int64_t begin, int64_t end, const void* x,
             void* result) {
  using Real = typename Compute<Element>::type;
  Scratch<Real> scratch(p, tiling, sizeof(Element), Vector<Real, bytes>::lanes);
  const Element* const input_end = static_cast<const Element*>(x) + p.outer * p.input_volume();
  for (int64_t index = begin; index < end; ++index) {
    const Tile tile = tiling[index];
    const Element* input =
        static_cast<const Element*>(x) + tile.outer * p.input_volume() + tile.channel;
    Element* out = static_cast<Element*>(result) + tile.outer * p.output_volume() + tile.channel;
    scratch.prepare(tile);
    if (p.is_disjoint() || !forward_by_cell<bytes>(p, tile, input, input_end, out, scratch))
      forward_by_window<bytes>(p, tile, input, input_end, out, scratch);
  }
}

template <int bytes, bool exact, bool disjoint, class Element>
void backward_tiles(const Pooling& p, const Tiling& tiling, int64_t begin, int64_t end,
                    const void* gradient, const void* x, void* result) {
  using Real = typename Compute<Element>::type;
  Scratch<Real> scratch(p, tiling, sizeof(Element), Vector<Real, bytes>::lanes);
  const Element* const input_end = static_cast<const Element*>(x) + p.outer * p.input_volume();
  const Element* const grad_end =
      static_cast<const Element*>(gradient) + p.outer * p.output_volume();
  for (int64_t index = begin; index < end; ++index) {
    const Tile tile = tiling[index];
    const int64_t map = tile.outer * p.input_volume() + tile.channel;
    const Element* input = static_cast<const Element*>(x) + map;
    Element* out = static_cast<Element*>(result) + map;
    const Element* grad =
        static_cast<const Element*>(gradient) + tile.outer * p.output_volume() + tile.channel;
    scratch.prepare(tile);
    if constexpr (!disjoint)
      if (backward_by_cell<bytes, exact>(p, tile, grad, grad_end, input, input_end, out, scratch))
        continue;
    backward_by_window<bytes, exact, disjoint>(p, tile, grad, grad_end, input, input_end, out,
                                               scratch);
  }
}

template <int bytes, class Element>
void backward(const Pooling& p, const Tiling& tiling, int64_t begin, int64_t end,
              const void* gradient, const void* x, void* result) {
  const bool exact = p.gradient == Gradient::exact;
  const auto run = exact             ? p.is_disjoint() ? backward_tiles<bytes, true, true, Element>
                                                       : backward_tiles<bytes, true, false, Element>
                   : p.is_disjoint() ? backward_tiles<bytes, false, true, Element>
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
