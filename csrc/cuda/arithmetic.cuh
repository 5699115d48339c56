// Arithmetic of SoftPool on one window.
//
// For a window with largest cell `peak`, and z = cell - peak:
//     mass = sum(e^z), moment = sum(e^z z), mu = moment / mass, result = peak + mu,
//     gradient of a cell = grad e^z / mass (1 + z - mu); the paper's is without the last factor.
// Everything is relative to the peak, so neither large values nor large spreads cost accuracy.
// A cell of -inf has e^z = 0; z is kept finite because 0 * -inf would be NaN. NaN and +inf make the
// mass NaN, and with it the window's result and gradients. In float32 the relative error of e^z is
// below 3e-7: 2 ulp of ex2.approx, and the rounding of z log2(e), which matters less for small e^z.
//
// All headers here compile as plain C++ as well, so that tests can run the threads on the host.
#pragma once

#include <cmath>
#include <limits>
#include <type_traits>

#ifdef __CUDACC__
#define VIDPOOL_DEVICE __host__ __device__ __forceinline__
#else
#define VIDPOOL_DEVICE inline
#endif
#ifdef __CUDA_ARCH__
#define VIDPOOL_UNROLL _Pragma("unroll")
#else
#define VIDPOOL_UNROLL
#endif

namespace vidpool {

// The type of intermediate results.
template <class Element>
using Compute = std::conditional_t<std::is_same_v<Element, double>, double, float>;

template <class Real>
constexpr Real lowest = std::numeric_limits<Real>::lowest();
template <class Real>
constexpr Real infinity = std::numeric_limits<Real>::infinity();
template <class Real>
constexpr Real negligible = Real(-1e4);  // e^z is 0 for this z

// e^z for z <= 0
VIDPOOL_DEVICE float weight_of(float z) {
  float weight = z * 1.44269504f;
#ifdef __CUDA_ARCH__
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(weight) : "f"(weight));
  return weight;
#else
  return std::exp2(weight);
#endif
}
VIDPOOL_DEVICE double weight_of(double z) {
  return std::exp(z);
}

// max(bound, x); NaN if x is NaN
template <class Real>
VIDPOOL_DEVICE Real at_least(Real bound, Real x) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  if constexpr (std::is_same_v<Real, float>) {
    asm("max.NaN.f32 %0, %1, %2;" : "=f"(x) : "f"(bound), "f"(x));
    return x;
  }
#endif
  return x < bound ? bound : x;
}

// 1 / x for x >= 1
template <class Real>
VIDPOOL_DEVICE Real inverse_of(Real x) {
#ifdef __CUDA_ARCH__
  if constexpr (std::is_same_v<Real, float>) {
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(x) : "f"(x));
    return x;
  }
#endif
  return 1 / x;
}

template <class Real>
VIDPOOL_DEVICE Real z_of(Real cell, Real peak) {
  return at_least(negligible<Real>, cell - peak);
}

// Sums over the cells of a window, or of some of its rows.
template <class Real>
struct Sums {
  Real peak = lowest<Real>;  // never -inf, so that it can be subtracted
  Real mass = 0, moment = 0;

  VIDPOOL_DEVICE void add(Real z, Real weight) {
    mass += weight;
    moment += weight * z;
  }
  VIDPOOL_DEVICE void add(const Sums& part) {
    const Real z = z_of(part.peak, peak);
    const Real weight = weight_of(z);
    mass += weight * part.mass;
    moment += weight * (part.moment + z * part.mass);
  }
  // If all cells are -inf, the mass is 0; otherwise the peak contributes 1.
  VIDPOOL_DEVICE Real result() const {
    return mass == 0 ? -infinity<Real> : peak + moment * inverse_of(mass);
  }
};

// What a window contributes to the gradient of its cells: e^z (slope z + offset).
template <class Real>
struct Factors {
  Real peak, slope, offset;

  // is_exact: 1 for Gradient::exact, 0 for Gradient::paper
  VIDPOOL_DEVICE static Factors of(const Sums<Real>& sums, Real grad, Real is_exact) {
    const Real inverse = inverse_of(at_least(Real(1), sums.mass)), scale = grad * inverse;
    const Real slope = is_exact * scale;
    return {sums.peak, slope, scale - slope * (sums.moment * inverse)};
  }
  VIDPOOL_DEVICE Real gradient(Real z, Real weight) const { return weight * (slope * z + offset); }
  VIDPOOL_DEVICE Real gradient(Real cell) const {
    const Real z = z_of(cell, peak);
    return gradient(z, weight_of(z));
  }
};

}  // namespace vidpool
