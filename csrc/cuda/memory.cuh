// Loads and stores of several elements at once, and of blocks of cells that may reach beyond a map.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>

#include "indexing.cuh"

namespace vidpool {

template <class Element, int n>
struct alignas(n * sizeof(Element)) Pack {
  Element elements[n];
};

template <class Element, int n, class Real>
VIDPOOL_DEVICE void load(const Element* from, Real (&to)[n]) {
  const auto pack = *reinterpret_cast<const Pack<Element, n>*>(from);
  VIDPOOL_UNROLL
  for (int i = 0; i < n; ++i) to[i] = Real(pack.elements[i]);
}

template <class Element>
using Bits = std::conditional_t<sizeof(Element) == 2, uint16_t, uint32_t>;
template <class Element>
constexpr auto minus_infinity_bits =
    Bits<Element>(std::bit_cast<Bits<Element>>(std::numeric_limits<Element>::infinity()) |
                  1u << (8 * sizeof(Element) - 1));

// Load n elements if they are valid, otherwise -inf. Only the load of whole words is conditional,
// so that the compiler makes a predicated instruction of it instead of a branch.
template <class Element, int n, class Real>
VIDPOOL_DEVICE void load_if(bool valid, const Element* from, Real (&to)[n]) {
  using Word = std::conditional_t<n * sizeof(Element) == 2, uint16_t, uint32_t>;
  constexpr int bits = 8 * sizeof(Element), per_word = sizeof(Word) / sizeof(Element);
  constexpr auto fill = minus_infinity_bits<Element>;
  Pack<Word, n / per_word> words;
  VIDPOOL_UNROLL
  for (Word& word : words.elements) word = Word(per_word > 1 ? fill * 0x10001u : fill);
  if (valid) words = *reinterpret_cast<const decltype(words)*>(from);
  VIDPOOL_UNROLL
  for (int i = 0; i < n; ++i) {
    const auto element = Bits<Element>(words.elements[i / per_word] >> i % per_word * bits);
    to[i] = Real(*reinterpret_cast<const Element*>(&element));
  }
}

template <class Element, int n, class Real>
VIDPOOL_DEVICE void store(const Real (&from)[n], Element* to) {
  Pack<Element, n> pack;
  VIDPOOL_UNROLL
  for (int i = 0; i < n; ++i) pack.elements[i] = Element(from[i]);
  *reinterpret_cast<Pack<Element, n>*>(to) = pack;
}

// Load a block of cells that begins at `at`; cells outside of the map are -inf.
template <class Access, int planes, int rows, int columns, class Element, class Index, class Real>
VIDPOOL_DEVICE void load_block(const Map<Index>& map, const Element* x, const Place<Index>& at,
                               Real (&cells)[planes * rows][columns][Access::channels]) {
  const Index first = map.cell(at);
  VIDPOOL_UNROLL
  for (int i = 0; i < planes * rows; ++i) {
    const bool is_row = is_within<Index>(at.t + i / rows, map.t.size) &&
                        is_within<Index>(at.h + i % rows, map.h.size);
    const Element* row = x + (first + i / rows * map.plane + i % rows * map.row);
    if constexpr (Access::side > 1) {
      constexpr int odd = columns % 2;  // a column before the aligned ones
      Real vector[columns - odd];
      if constexpr (odd) load_if(is_row && at.w >= 0, row, cells[i][0]);
      load_if(is_row, row + odd, vector);
      VIDPOOL_UNROLL
      for (int k = odd; k < columns; ++k) cells[i][k][0] = vector[k - odd];
    } else {
      VIDPOOL_UNROLL
      for (int k = 0; k < columns; ++k)
        load_if(is_row && is_within<Index>(at.w + k, map.w.size), row + k * map.channels,
                cells[i][k]);
    }
  }
}

// Store such a block, which begins at an aligned column; cells outside of the map are skipped.
template <class Access, int planes, int rows, int columns, class Element, class Index, class Real>
VIDPOOL_DEVICE void store_block(const Map<Index>& map,
                                const Real (&cells)[planes * rows][columns][Access::channels],
                                const Place<Index>& at, Element* out) {
  const Index first = map.cell(at);
  VIDPOOL_UNROLL
  for (int i = 0; i < planes * rows; ++i) {
    const bool is_row = is_within<Index>(at.t + i / rows, map.t.size) &&
                        is_within<Index>(at.h + i % rows, map.h.size);
    Element* row = out + (first + i / rows * map.plane + i % rows * map.row);
    if constexpr (Access::side > 1) {
      Real vector[columns];
      VIDPOOL_UNROLL
      for (int k = 0; k < columns; ++k) vector[k] = cells[i][k][0];
      if (is_row) store(vector, row);
    } else {
      VIDPOOL_UNROLL
      for (int k = 0; k < columns; ++k)
        if (is_row && is_within<Index>(at.w + k, map.w.size))
          store(cells[i][k], row + k * map.channels);
    }
  }
}

}  // namespace vidpool
