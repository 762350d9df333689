// Copyright (c) mmsapa contributors. SPDX-License-Identifier: Apache-2.0
//
// The CPU kernels in dispatch tables, one for each instruction set and element
// type. A source file that names an instruction set (MMSAPA_ISA), what the
// compiler may use for it (MMSAPA_TARGET) and how wide its vectors are
// (MMSAPA_VECTOR_BYTES) compiles the kernels by including this.
#pragma once

#include <cstdint>
#include <type_traits>

#include "shape.h"

namespace mmsapa::cpu {

// What kernels of T sum in, and take and give the numbers that T is too
// narrow for.
template <typename T>
using Accumulate =
    std::conditional_t<std::is_same_v<T, double>, double, float>;

// All maps are contiguous; sizes stand in shape.h. A null gradient is not
// wanted, and its work is left out. A prior is added to the logits, and where
// there is one, cells outside the map take no part.
template <typename T>
struct DispatchTable {
  void (*upsample)(const Shape&,
                   const T* query,              // [N, E, Hq, Wq]
                   const T* key,                // [N, E, H, W]
                   const T* value,              // [N, C, H, W]
                   const Accumulate<T>* prior,  // [s * s, K * K] or null
                   T* out);                     // [N, C, Hq, Wq]

  void (*upsample_backward)(const Shape&,
                            const T* grad,               // [N, C, Hq, Wq]
                            const T* query,              // [N, E, Hq, Wq]
                            const T* key,                // [N, E, H, W]
                            const T* value,              // [N, C, H, W]
                            const Accumulate<T>* prior,  // as above
                            T* grad_query,   // [N, E, Hq, Wq] or null
                            T* grad_key,     // [N, E, H, W] or null
                            T* grad_value);  // [N, C, H, W] or null

  void (*reassemble)(const Shape&,
                     const T* weights,  // [N, K * K, Hq, Wq]
                     const T* value,    // [N, C, H, W]
                     T* out);           // [N, C, Hq, Wq]

  void (*reassemble_backward)(const Shape&,
                              const T* grad,     // [N, C, Hq, Wq]
                              const T* weights,  // [N, K * K, Hq, Wq]
                              const T* value,    // [N, C, H, W]
                              T* grad_weights,   // [N, K * K, Hq, Wq] or null
                              T* grad_value);    // [N, C, H, W] or null

  // The weight is centered: its rows sum to 0.
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

  void (*channel_norm)(const NormProjectShape&,
                       const T* x,                   // [N, C, P]
                       const Accumulate<T>* weight,  // [C]
                       const Accumulate<T>* bias,    // [C]
                       double eps,
                       T* out,                // [N, C, P]
                       Accumulate<T>* mean,   // [N, P]
                       Accumulate<T>* rstd);  // [N, P]

  void (*channel_norm_backward)(
      const NormProjectShape&,
      const T* grad,                // [N, C, P]
      const T* x,                   // [N, C, P]
      const Accumulate<T>* weight,  // [C]
      const Accumulate<T>* mean,    // [N, P]
      const Accumulate<T>* rstd,    // [N, P]
      T* grad_x,                    // [N, C, P] or null
      Accumulate<T>* grad_weight,   // [C], zero, or null
      Accumulate<T>* grad_bias);    // [C], zero, or null
};

// T is float, double, c10::Half or c10::BFloat16.
#define MMSAPA_DECLARE(isa)                 \
  namespace isa {                           \
  template <typename T>                     \
  const DispatchTable<T>& dispatch_table(); \
  }
MMSAPA_DECLARE(baseline)
#ifdef __x86_64__
MMSAPA_DECLARE(avx2)
MMSAPA_DECLARE(avx512)
#endif
#undef MMSAPA_DECLARE

}  // namespace mmsapa::cpu

#if defined(MMSAPA_ISA) && (defined(__x86_64__) || !defined(MMSAPA_TARGET))
#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <new>
#include <tuple>
#include <utility>
#include <vector>

#ifdef __x86_64__
#include <immintrin.h>
#endif

#include "parallel.h"

// From here on, so that no shared inline function of the headers above is
// compiled for a machine that may not be there.
#ifdef MMSAPA_TARGET
#define MMSAPA_PRAGMA(x) _Pragma(#x)
#ifdef __clang__
#define MMSAPA_TARGET_PRAGMA(isa)                                  \
  MMSAPA_PRAGMA(clang attribute push(__attribute__((target(isa))), \
                                     apply_to = function))
#else
#define MMSAPA_TARGET_PRAGMA(isa) MMSAPA_PRAGMA(GCC target(isa))
#pragma GCC push_options
#endif
MMSAPA_TARGET_PRAGMA(MMSAPA_TARGET)
#endif

namespace mmsapa::cpu::MMSAPA_ISA {
namespace {

// clang-format off
#include "vectors.inc"
#include "sapa.inc"
#include "reassemble.inc"
#include "norm_project.inc"
#include "channel_norm.inc"
// clang-format on

}  // namespace

template <typename T>
const DispatchTable<T>& dispatch_table() {
  using A = Accumulate<T>;
  static const DispatchTable<T> kTable{
      &upsample<T, A>,     &upsample_backward<T, A>,
      &reassemble<T, A>,   &reassemble_backward<T, A>,
      &norm_project<T, A>, &norm_project_backward<T, A>,
      &channel_norm<T, A>, &channel_norm_backward<T, A>};
  return kTable;
}

template const DispatchTable<float>& dispatch_table<float>();
template const DispatchTable<double>& dispatch_table<double>();
template const DispatchTable<c10::Half>& dispatch_table<c10::Half>();
template const DispatchTable<c10::BFloat16>& dispatch_table<c10::BFloat16>();

}  // namespace mmsapa::cpu::MMSAPA_ISA

#ifdef MMSAPA_TARGET
#ifdef __clang__
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif
#endif  // MMSAPA_ISA
