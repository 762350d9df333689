// Copyright (c) mmsapa contributors. SPDX-License-Identifier: Apache-2.0
//
// The CPU kernels. No guard against a second inclusion: each instruction set
// has a source file that names itself (MMSAPA_ISA), what the compiler may use
// (MMSAPA_TARGET), and how wide its vectors are, and includes this.
#include <ATen/Parallel.h>
#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "kernels.h"
#ifdef MMSAPA_X86
#include <immintrin.h>
#endif

// From here on, so that no shared inline function of the headers above is
// compiled for a machine that may not be there.
#ifdef MMSAPA_TARGET
#define MMSAPA_PRAGMA(x) _Pragma(#x)
#define MMSAPA_TARGET_PRAGMA(isa) MMSAPA_PRAGMA(GCC target(isa))
#pragma GCC push_options
MMSAPA_TARGET_PRAGMA(MMSAPA_TARGET)
#endif

namespace mmsapa::cpu::MMSAPA_ISA {
namespace {

// clang-format off
#include "vectors.h"
#include "sapa_impl.h"
#include "norm_project_impl.h"
// clang-format on

}  // namespace

template <typename T>
const Kernels<T>& table() {
  using A = Accumulate<T>;
  static const Kernels<T> kTable{
      &upsample<T, A>,     &upsample_backward<T, A>,
      &kernels<T, A>,      &kernels_backward<T, A>,
      &norm_project<T, A>, &norm_project_backward<T, A>};
  return kTable;
}

template const Kernels<float>& table<float>();
template const Kernels<double>& table<double>();
template const Kernels<c10::Half>& table<c10::Half>();
template const Kernels<c10::BFloat16>& table<c10::BFloat16>();

}  // namespace mmsapa::cpu::MMSAPA_ISA

#ifdef MMSAPA_TARGET
#pragma GCC pop_options
#endif
