// Copyright (c) mmsapa contributors. SPDX-License-Identifier: Apache-2.0
//
// The CPU kernels, compiled once for each instruction set.
#pragma once

#include <cstdint>

#include "shape.h"

// Instruction sets are chosen function by function with GCC's pragma.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define MMSAPA_X86
#endif

namespace mmsapa::cpu {

// All maps are contiguous; sizes stand in shape.h. A null gradient is not
// wanted, and its work is left out.
template <typename T>
struct Kernels {
  void (*upsample)(const Shape&,
                   const T* query,  // [N, E, Hq, Wq]
                   const T* key,    // [N, E, H, W]
                   const T* value,  // [N, C, H, W]
                   T* out);         // [N, C, Hq, Wq]

  void (*upsample_backward)(const Shape&,
                            const T* grad,   // [N, C, Hq, Wq]
                            const T* query,  // [N, E, Hq, Wq]
                            const T* key,    // [N, E, H, W]
                            const T* value,  // [N, C, H, W]
                            T* grad_query,   // [N, E, Hq, Wq] or null
                            T* grad_key,     // [N, E, H, W] or null
                            T* grad_value);  // [N, C, H, W] or null

  void (*kernels)(const Shape&,
                  const T* query,  // [N, E, Hq, Wq]
                  const T* key,    // [N, E, H, W]
                  T* weights);     // [N, K * K, Hq, Wq]

  void (*kernels_backward)(const Shape&,
                           const T* grad,   // [N, K * K, Hq, Wq]
                           const T* query,  // [N, E, Hq, Wq]
                           const T* key,    // [N, E, H, W]
                           T* grad_query,   // [N, E, Hq, Wq] or null
                           T* grad_key);    // [N, E, H, W] or null
};

// T is float, double, c10::Half or c10::BFloat16.
#define MMSAPA_DECLARE(isa)  \
  namespace isa {            \
  template <typename T>      \
  const Kernels<T>& table(); \
  }
MMSAPA_DECLARE(baseline)
#ifdef MMSAPA_X86
MMSAPA_DECLARE(avx2)
MMSAPA_DECLARE(avx512)
#endif
#undef MMSAPA_DECLARE

}  // namespace mmsapa::cpu
