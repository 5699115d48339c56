// AVX-512 (F, BW, DQ, VL): Intel servers since Skylake (2017), AMD since Zen 4 (2022).
#if defined(__x86_64__)

#include <immintrin.h>

#include "kernel_table.h"

#if defined(__clang__)
#pragma clang attribute push(                                                    \
    __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c"))), \
    apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")
#endif

#include "vector.h"
//
#include "elements.h"
//
#include "kernels.h"

VIDPOOL_DEFINE_KERNELS(avx512, 64);

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#endif
