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
  constexpr int size = 8 * sizeof(Element), per_word = sizeof(Word) / sizeof(Element);
  constexpr auto fill = minus_infinity_bits<Element>;
  Pack<Word, n / per_word> words;
  for (Word& word : words.elements) word = Word(per_word > 1 ? fill * 0x10001u : fill);
  if (valid) words = *reinterpret_cast<const decltype(words)*>(from);
  for (int i = 0; i < n; ++i) {
    const auto bits = Bits<Element>(words.elements[i / per_word] >> i % per_word * size);
    Element element;
    memcpy(&element, &bits, sizeof element);
    to[i] = Real(element);
  }
}

template <class Element, int n, class Real>
VIDPOOL_DEVICE void store(const Real (&from)[n], Element* to) {
  Pack<Element, n> pack;
  for (int i = 0; i < n; ++i) pack.elements[i] = Element(from[i]);
  *reinterpret_cast<Pack<Element, n>*>(to) = pack;
}

// Call visit(i, is_row, offset) for the rows of a block of cells that begins at `at`: whether row i
// is part of the map, and the offset of its first cell.
template <int planes, int rows, class Index, class Visit>
VIDPOOL_DEVICE void for_rows(const Map<Index>& map, const Place<Index>& at, const Visit& visit) {
  const Index first = map.cell(at);
  for (int i = 0; i < planes * rows; ++i) {
    const bool is_row = is_within<Index>(at.t + i / rows, map.t.size) &&
                        is_within<Index>(at.h + i % rows, map.h.size);
    visit(i, is_row, first + i / rows * map.plane + i % rows * map.row);
  }
}

// Load such a block; cells outside of the map are -inf.
template <class Access, int planes, int rows, int columns, class Element, class Index, class Real>
VIDPOOL_DEVICE void load_block(const Map<Index>& map, const Element* x, const Place<Index>& at,
                               Real (&cells)[planes * rows][columns][Access::channels]) {
  for_rows<planes, rows>(map, at, [&](int i, bool is_row, Index row) {
    if constexpr (Access::side > 1) {
      constexpr int odd = columns % 2;  // a column before the aligned ones
      Real vector[columns - odd];
      if constexpr (odd) load_if(is_row && at.w >= 0, x + row, cells[i][0]);
      load_if(is_row, x + row + odd, vector);
      for (int k = odd; k < columns; ++k) cells[i][k][0] = vector[k - odd];
    } else {
      for (int k = 0; k < columns; ++k)
        load_if(is_row && is_within<Index>(at.w + k, map.w.size), x + row + k * map.channels,
                cells[i][k]);
    }
  });
}

// Store a block that begins at an aligned column; cells outside of the map are skipped.
template <class Access, int planes, int rows, int columns, class Element, class Index, class Real>
VIDPOOL_DEVICE void store_block(const Map<Index>& map,
                                const Real (&cells)[planes * rows][columns][Access::channels],
                                const Place<Index>& at, Element* out) {
  for_rows<planes, rows>(map, at, [&](int i, bool is_row, Index row) {
    if constexpr (Access::side > 1) {
      Real vector[columns];
      for (int k = 0; k < columns; ++k) vector[k] = cells[i][k][0];
      if (is_row) store(vector, out + row);
    } else {
      for (int k = 0; k < columns; ++k)
        if (is_row && is_within<Index>(at.w + k, map.w.size))
          store(cells[i][k], out + row + k * map.channels);
    }
  });
}

}  // namespace vidpool
