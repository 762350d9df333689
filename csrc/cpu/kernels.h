// Copyright (c) mmsapa contributors. SPDX-License-Identifier: Apache-2.0
//
// The CPU kernels, compiled once for each instruction set.
#pragma once

#include <cstdint>
#include <type_traits>

#include "shape.h"

// Instruction sets are chosen function by function with GCC's pragma.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define MMSAPA_X86
#endif

namespace mmsapa::cpu {

// What kernels of T sum in, and take and give the numbers that T is too
// narrow for.
template <typename T>
using Accumulate =
    std::conditional_t<std::is_same_v<T, double>, double, float>;

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

  // The weight is centred: its rows sum to 0.
  void (*norm_project)(const NormProjectShape&,
                       const T* x,                   // [N, C, P]
                       const Accumulate<T>* weight,  // [E, C]
                       const Accumulate<T>* bias,    // [E]
                       double eps,
                       T* out,                // [N, E, P]
                       Accumulate<T>* mean,   // [N, P]
                       Accumulate<T>* rstd);  // [N, P]

  void (*norm_project_backward)(
      const NormProjectShape&,
      const T* grad,                // [N, E, P]
      const T* x,                   // [N, C, P]
      const Accumulate<T>* weight,  // [E, C]
      const Accumulate<T>* bias,    // [E]
      const T* out,                 // [N, E, P]
      const Accumulate<T>* mean,    // [N, P]
      const Accumulate<T>* rstd,    // [N, P]
      T* grad_x,                    // [N, C, P] or null
      Accumulate<T>* grad_weight,   // [E, C], zero, or null
      Accumulate<T>* grad_bias);    // [E], zero, or null
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
