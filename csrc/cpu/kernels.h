// SoftPool on the CPU: what is the same for every instruction set.
//
// A map is pooled tile by tile. Channels-last maps are read and written in place (channels_last.h).
// Other maps are pooled plane by plane (planes.h): cell by cell where that is faster and the values
// allow it (by_cell.h), else window by window (by_window.h).
//
// Included once for every instruction set, after vector.h and elements.h.
#pragma once

#include "planes.h"
//
#include "by_cell.h"
#include "by_window.h"
//
#include "channels_last.h"

namespace {

template <int bytes, class Element>
void forward_tiles(const Pooling& p, const Tiling& tiling, int64_t begin, int64_t end,
                   const Element* x, Element* result) {
  Scratch<Real<Element>> scratch(p, tiling, sizeof(Element), Vector<Real<Element>, bytes>::lanes);
  const Element* const input_end = x + p.outer * p.input_volume();
  for (int64_t index = begin; index < end; ++index) {
    const Tile tile = tiling[index];
    const Element* input = x + tile.outer * p.input_volume() + tile.channel;
    Element* out = result + tile.outer * p.output_volume() + tile.channel;
    scratch.prepare(tile);
    if (p.is_disjoint() || !forward_by_cell<bytes>(p, tile, input, input_end, out, scratch))
      forward_by_window<bytes>(p, tile, input, input_end, out, scratch);
  }
}

template <int bytes, class Element>
void forward_tiles_in_place(const Pooling& p, const Tiling& tiling, int64_t begin, int64_t end,
                            const Element* x, Element* result) {
  const ChannelScratch<Element> scratch(p, tiling);
  for (int64_t index = begin; index < end; ++index) {
    const Tile tile = tiling[index];
    const Element* input = x + tile.outer * p.input_volume() + tile.channel;
    Element* out = result + tile.outer * p.output_volume() + tile.channel;
    forward_in_place<bytes>(p, tile, input, out, scratch);
  }
}

template <int bytes, class Element>
void forward(const Pooling& p, const Tiling& tiling, int64_t begin, int64_t end, const void* x,
             void* result) {
  const auto run =
      is_channels_last(p) ? forward_tiles_in_place<bytes, Element> : forward_tiles<bytes, Element>;
  run(p, tiling, begin, end, static_cast<const Element*>(x), static_cast<Element*>(result));
}

template <int bytes, bool exact, bool disjoint, class Element>
void backward_tiles(const Pooling& p, const Tiling& tiling, int64_t begin, int64_t end,
                    const Element* gradient, const Element* x, Element* result) {
  const bool in_place = is_channels_last(p);
  std::optional<Scratch<Real<Element>>> scratch;
  std::optional<ChannelScratch<Element>> channel_scratch;
  if (in_place) channel_scratch.emplace(p, tiling);
  const Element* const input_end = x + p.outer * p.input_volume();
  const Element* const grad_end = gradient + p.outer * p.output_volume();
  for (int64_t index = begin; index < end; ++index) {
    const Tile tile = tiling[index];
    const int64_t map = tile.outer * p.input_volume() + tile.channel;
    const Element* input = x + map;
    Element* out = result + map;
    const Element* grad = gradient + tile.outer * p.output_volume() + tile.channel;
    if (in_place &&
        backward_in_place<bytes, exact, disjoint>(p, tile, grad, input, out, *channel_scratch))
      continue;
    if (!scratch) scratch.emplace(p, tiling, sizeof(Element), Vector<Real<Element>, bytes>::lanes);
    scratch->prepare(tile);
    if (!disjoint && !in_place &&
        backward_by_cell<bytes, exact>(p, tile, grad, grad_end, input, input_end, out, *scratch))
      continue;
    backward_by_window<bytes, exact, disjoint>(p, tile, grad, grad_end, input, input_end, out,
                                               *scratch);
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
  run(p, tiling, begin, end, static_cast<const Element*>(gradient), static_cast<const Element*>(x),
      static_cast<Element*>(result));
}

}  // namespace

// Define the kernels of one instruction set, with vectors of `bytes`.
#define VIDPOOL_DEFINE_KERNELS(name, bytes)                                                 \
  const vidpool::Kernels vidpool::name = {#name,                                            \
                                          {forward<bytes, float>, forward<bytes, double>,   \
                                           forward<bytes, Half>, forward<bytes, BFloat16>}, \
                                          {backward<bytes, float>, backward<bytes, double>, \
                                           backward<bytes, Half>, backward<bytes, BFloat16>}}
