// Element types of tensors, read and written as vectors of the type that is computed in.
//
// Included once for every instruction set, like vector.h.
#pragma once

namespace {

using vidpool::BFloat16;
using vidpool::Half;

// the type that sums are held in
template <class Element>
struct Compute {
  using type = float;
};
template <>
struct Compute<double> {
  using type = double;
};
template <class Element>
using Real = typename Compute<Element>::type;

template <int bytes>
using Floats = typename Vector<float, bytes>::type;
template <int bytes>
struct Integers {
  typedef uint32_t wide __attribute__((vector_size(bytes)));
  typedef uint16_t narrow __attribute__((vector_size(bytes / 2)));
};

template <int bytes, class Real>
VIDPOOL_INLINE typename Vector<Real, bytes>::type read(const Real* from) {
  return load<typename Vector<Real, bytes>::type>(from);
}

template <int bytes, class Real>
VIDPOOL_INLINE void write(Real* to, typename Vector<Real, bytes>::type x) {
  store(to, x);
}

template <int bytes>
VIDPOOL_INLINE Floats<bytes> read(const BFloat16* from) {
  using I = Integers<bytes>;
  const auto bits = load<typename I::narrow>(from);
  return (Floats<bytes>)(__builtin_convertvector(bits, typename I::wide) << 16);
}

template <int bytes>
VIDPOOL_INLINE void write(BFloat16* to, Floats<bytes> x) {
  using I = Integers<bytes>;
  const auto bits = (typename I::wide)x;
  const auto rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;  // to nearest even
  const auto nan = (bits & 0x7fffffff) > 0x7f800000;
  store(to, __builtin_convertvector(nan ? bits * 0 + 0x7fc0 : rounded, typename I::narrow));
}

template <int bytes>
VIDPOOL_INLINE Floats<bytes> read(const Half* from) {
#ifdef __F16C__
#ifdef __AVX512F__
  if constexpr (bytes == 64) return (Floats<bytes>)_mm512_cvtph_ps(load<__m256i>(from));
#endif
  if constexpr (bytes == 32) return (Floats<bytes>)_mm256_cvtph_ps(load<__m128i>(from));
  if constexpr (bytes == 16)
    return (Floats<bytes>)_mm_cvtph_ps(_mm_cvtsi64_si128(load<long long>(from)));
#else
  using Wide = typename Integers<bytes>::wide;
  const Wide bits = __builtin_convertvector(load<typename Integers<bytes>::narrow>(from), Wide);
  const Wide magnitude = (bits & 0x7fff) << 13;
  // a product, since it also normalises what is denormal; inf and NaN keep their exponent
  const Wide value = (Wide)((Floats<bytes>)magnitude * 0x1p112f);
  const Wide special = (Wide)(magnitude >= 0x0f800000) & 0x7f800000;
  return (Floats<bytes>)(value | special | (bits & 0x8000) << 16);
#endif
}

template <int bytes>
VIDPOOL_INLINE void write(Half* to, Floats<bytes> x) {
#ifdef __F16C__
#ifdef __AVX512F__
  if constexpr (bytes == 64) store(to, _mm512_cvtps_ph((__m512)x, 0));
#endif
  if constexpr (bytes == 32) store(to, _mm256_cvtps_ph((__m256)x, 0));
  if constexpr (bytes == 16) store(to, _mm_cvtsi128_si64(_mm_cvtps_ph((__m128)x, 0)));
#else
  using Wide = typename Integers<bytes>::wide;
  const Wide bits = (Wide)x, magnitude = bits & 0x7fffffff;
  const Wide normal = (magnitude + 0xc8000fff + ((magnitude >> 13) & 1)) >> 13;
  const Wide denormal = (Wide)((Floats<bytes>)magnitude + 0.5f) - 0x3f000000;
  const Wide special = magnitude > 0x7f800000 ? bits * 0 + 0x7e00 : bits * 0 + 0x7c00;
  const Wide finite = magnitude < 0x38800000 ? denormal : normal;
  const Wide half = (magnitude < 0x47800000 ? finite : special) | ((bits >> 16) & 0x8000);
  store(to, __builtin_convertvector(half, typename Integers<bytes>::narrow));
#endif
}

// Copy n elements of one type to another: whole vectors, the last of which may overlap the one
// before it, or smaller vectors where there are not enough for one.
template <int bytes, class From, class To>
VIDPOOL_INLINE void copy(const From* from, To* to, int64_t n) {
  constexpr int lanes = bytes / int(sizeof(typename Compute<From>::type));
  if (n >= lanes) {
    for (int64_t i = 0; i < n - lanes; i += lanes) write<bytes>(to + i, read<bytes>(from + i));
    write<bytes>(to + n - lanes, read<bytes>(from + n - lanes));
  } else if constexpr (bytes > 16) {
    copy<bytes / 2>(from, to, n);
  } else {
    From padded[lanes] = {};
    To converted[lanes];
    for (int64_t i = 0; i < n; ++i) padded[i] = from[i];
    write<bytes>(converted, read<bytes>(padded));
    for (int64_t i = 0; i < n; ++i) to[i] = converted[i];
  }
}

// Copy a row of n elements in whole vectors, which may run over its end: into what is written
// later, and not to or beyond the given ends.
template <int bytes, class From, class To>
VIDPOOL_INLINE void copy_row(const From* from, const From* from_end, To* to, To* to_end,
                             int64_t n) {
  constexpr int lanes = bytes / int(sizeof(typename Compute<From>::type));
  if constexpr (bytes > 16)
    if (n <= lanes / 2) return copy_row<bytes / 2>(from, from_end, to, to_end, n);
  const int64_t whole = (n + lanes - 1) / lanes * lanes;
  if (from_end - from < whole || to_end - to < whole) return copy<bytes>(from, to, n);
  for (int64_t i = 0; i < n; i += lanes) write<bytes>(to + i, read<bytes>(from + i));
}

template <class Real>
VIDPOOL_INLINE void fill(Real* to, Real value, int64_t n) {
  for (int64_t i = 0; i < n; ++i) to[i] = value;
}

}  // namespace
