// AVX2 with FMA and F16C: Intel since Haswell (2013), AMD since Excavator (2015).
#if defined(__x86_64__)

#include <immintrin.h>

#include "kernel_table.h"

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")
#endif

#include "vector.h"
//
#include "elements.h"
//
#include "kernels.h"

VIDPOOL_DEFINE_KERNELS(avx2, 32);

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#endif
