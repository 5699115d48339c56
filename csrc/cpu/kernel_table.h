// The kernels of each instruction set; the machine decides at run time which are used.
#pragma once

#include <cstdint>
#include <optional>

#include "../pooling.h"
#include "scratch.h"
#include "tiling.h"

namespace vidpool {

struct Half {
  uint16_t bits;
};
struct BFloat16 {
  uint16_t bits;
};

enum ElementType { float32, float64, float16, bfloat16 };

struct Kernels {
  const char* name;
  // by ElementType; they do the tiles from `begin` to `end`
  void (*forward[4])(const Pooling&, const Tiling&, int64_t begin, int64_t end, const void* x,
                     void* out);
  void (*backward[4])(const Pooling&, const Tiling&, int64_t begin, int64_t end, const void* grad,
                      const void* x, void* out);
};

extern const Kernels baseline;
#if defined(__x86_64__)
extern const Kernels avx2;
extern const Kernels avx512;
#endif

}  // namespace vidpool
