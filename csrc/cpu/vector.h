// Vectors of the compiler's own making (GCC and Clang's vector extension) and the exponential.
//
// Included once for every instruction set, after the compiler was told which; so everything here
// has internal linkage.
#pragma once

#define VIDPOOL_INLINE static inline __attribute__((always_inline))
// Loops over a plane: alone each has enough registers.
#define VIDPOOL_OUTLINE static __attribute__((noinline))

namespace {

// the numbers of a vector's lanes, as a pack
template <int... i>
struct Lanes {};
template <int n, int... i>
struct MakeLanes : MakeLanes<n - 1, n - 1, i...> {};
template <int... i>
struct MakeLanes<0, i...> {
  using type = Lanes<i...>;
};

template <class Real, int bytes>
struct Vector;

template <int bytes>
struct Vector<float, bytes> {
  static constexpr int lanes = bytes / 4;
  typedef float type __attribute__((vector_size(bytes)));
  typedef uint32_t bits __attribute__((vector_size(bytes)));
};

template <int bytes>
struct Vector<double, bytes> {
  static constexpr int lanes = bytes / 8;
  typedef double type __attribute__((vector_size(bytes)));
  typedef uint64_t bits __attribute__((vector_size(bytes)));
};

template <class V, class Element>
VIDPOOL_INLINE V load(const Element* from) {
  V v;
  __builtin_memcpy(&v, from, sizeof v);
  return v;
}

template <class V, class Element>
VIDPOOL_INLINE void store(Element* to, V v) {
  __builtin_memcpy(to, &v, sizeof v);
}

// Every second lane of a vector pair, and the pair that such lanes came from.
template <class V, int... i>
VIDPOOL_INLINE void split_pair(V first, V second, V& even, V& odd, Lanes<i...>) {
  even = __builtin_shufflevector(first, second, (2 * i)...);
  odd = __builtin_shufflevector(first, second, (2 * i + 1)...);
}

template <class V, int... i>
VIDPOOL_INLINE void merge_pair(V even, V odd, V& first, V& second, Lanes<i...>) {
  constexpr int n = sizeof...(i);
  first = __builtin_shufflevector(even, odd, (i / 2 + i % 2 * n)...);
  second = __builtin_shufflevector(even, odd, (n / 2 + i / 2 + i % 2 * n)...);
}

// The larger of two; where x is NaN the result is NaN, where only `bound` is it is x.
template <class V>
VIDPOOL_INLINE V at_least(V bound, V x) {
  return x < bound ? bound : x;
}

// Below `negligible` a weight e^z counts as this one, which changes no sum that holds a 1; above it
// neither the weight nor its product with a gradient of ordinary size is denormal (slow).
template <class Real>
constexpr Real negligible = sizeof(Real) == 4 ? Real(-64) : Real(-640);

// e^z for negligible <= z <= 0, and NaN for NaN.
//
// z = n ln 2 + r with |r| <= ln(2) / 2; e^r is a polynomial (relative error 1e-7 in float32,
// minimax under p(0) = 1; Taylor in float64), and n is added to its exponent.
template <int bytes>
VIDPOOL_INLINE typename Vector<float, bytes>::type exp_weight(
    typename Vector<float, bytes>::type z) {
  using V = typename Vector<float, bytes>::type;
  using Bits = typename Vector<float, bytes>::bits;
  constexpr float magic = 12582912.f;  // 1.5 * 2^23: adding it rounds to an integer
  const V shifted = z * 1.44269504f + magic;
  const V n = shifted - magic;
  const V r = z - n * 0.693147181f;  // |n| < 128, so one constant is exact enough
  const V r2 = r * r;                // Estrin's order, which waits less than Horner's
  const V high = r * 0.00829030573f + 0.0418979749f;
  const V middle = r * 0.166676372f + 0.499991506f;
  const V p = (high * r2 + middle) * r2 + (r * 0.999999702f + 1.f);
  return (V)((Bits)p + ((Bits)shifted << 23));
}

template <int bytes>
VIDPOOL_INLINE typename Vector<double, bytes>::type exp_weight(
    typename Vector<double, bytes>::type z) {
  using V = typename Vector<double, bytes>::type;
  using Bits = typename Vector<double, bytes>::bits;
  constexpr double magic = 6755399441055744.;  // 1.5 * 2^52
  const V shifted = z * 1.4426950408889634 + magic;
  const V n = shifted - magic;
  const V r = (z - n * 0.693147180369123816490) - n * 1.90821492927058770002e-10;
  V p = r * (1. / 6227020800.) + 1. / 479001600.;
  p = p * r + 1. / 39916800.;
  p = p * r + 1. / 3628800.;
  p = p * r + 1. / 362880.;
  p = p * r + 1. / 40320.;
  p = p * r + 1. / 5040.;
  p = p * r + 1. / 720.;
  p = p * r + 1. / 120.;
  p = p * r + 1. / 24.;
  p = p * r + 1. / 6.;
  p = p * r + .5;
  p = p * r + 1.;
  p = p * r + 1.;
  return (V)((Bits)p + ((Bits)shifted << 52));
}

}  // namespace
