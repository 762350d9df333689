// Copyright (c) mmsapa contributors. SPDX-License-Identifier: Apache-2.0
//
// The CUDA kernels as a library for the CPU, to be called through ctypes.
#include "emulate.h"
// Above has to come first.
#include "kernels.cu"

namespace {

using mmsapa::Shape;
using mmsapa::cuda::Op;

// maps: query, key, value, result or its gradient, grad_query, grad_key,
// grad_value.
template <typename T>
cudaError_t run(Op op, const Shape& s, void* const* maps) {
  T* m[7];
  for (int i = 0; i < 7; ++i) m[i] = static_cast<T*>(maps[i]);
  // Not a number, wherever nobody has written.
  std::vector<char> space(mmsapa::cuda::workspace_bytes<T>(op, s), '\xff');
  void* work = space.data();
  switch (op) {
    case Op::kUpsample:
      return mmsapa::cuda::upsample<T>(s, m[0], m[1], m[2], m[3], work,
                                       nullptr);
    case Op::kUpsampleBackward:
      return mmsapa::cuda::upsample_backward<T>(
          s, m[3], m[0], m[1], m[2], m[4], m[5], m[6], work, nullptr);
    case Op::kKernels:
      return mmsapa::cuda::kernels<T>(s, m[0], m[1], m[3], work, nullptr);
    case Op::kKernelsBackward:
      return mmsapa::cuda::kernels_backward<T>(s, m[3], m[0], m[1], m[4], m[5],
                                               work, nullptr);
  }
  return cudaErrorUnknown;
}

}  // namespace

extern "C" int emulate_run(int op, int dtype, const Shape* shape,
                           void* const* maps, int order,
                           int64_t workspace_bytes) {
  emulate::order = order;
  emulate::workspace_bytes = workspace_bytes;
  const Op which = static_cast<Op>(op);
  switch (dtype) {
    case 0:
      return run<float>(which, *shape, maps);
    case 1:
      return run<double>(which, *shape, maps);
    case 2:
      return run<__half>(which, *shape, maps);
    default:
      return run<__nv_bfloat16>(which, *shape, maps);
  }
}
