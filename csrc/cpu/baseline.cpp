// What every processor of the architecture can do: SSE2 on x86-64, NEON on 64-bit Arm.
#include "kernel_table.h"
//
#include "vector.h"
//
#include "elements.h"
//
#include "kernels.h"

VIDPOOL_DEFINE_KERNELS(baseline, 16);
