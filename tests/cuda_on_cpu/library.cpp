// Copyright (c) mmsapa contributors. SPDX-License-Identifier: Apache-2.0
//
// The CUDA kernels as a library for the CPU, to be called through ctypes.
#include "emulate.h"
// Above has to come first.
#include "kernels.cu"

namespace {

using mmsapa::NormProjectShape;
using mmsapa::Shape;
using mmsapa::cuda::acc_type;
using mmsapa::cuda::Op;

// maps: query, key, value, result or its gradient, grad_query, grad_key,
// grad_value, prior or null.
template <typename T>
cudaError_t run(Op op, const Shape& s, void* const* maps) {
  const auto* prior = static_cast<const acc_type<T>*>(maps[7]);
  T* m[7];
  for (int i = 0; i < 7; ++i) m[i] = static_cast<T*>(maps[i]);
  // Not a number, wherever nobody has written.
  std::vector<char> space(mmsapa::cuda::workspace_bytes<T>(op, s), '\xff');
  void* work = space.data();
  switch (op) {
    case Op::kUpsample:
      return mmsapa::cuda::upsample<T>(s, m[0], m[1], m[2], prior, m[3], work,
                                       nullptr);
    case Op::kUpsampleBackward:
      return mmsapa::cuda::upsample_backward<T>(
          s, m[3], m[0], m[1], m[2], prior, m[4], m[5], m[6], work, nullptr);
  }
  return cudaErrorUnknown;
}

// maps: weights, value, result or its gradient, grad_weights, grad_value.
template <typename T>
cudaError_t run_reassemble(bool backward, const Shape& s, void* const* maps) {
  T* m[5];
  for (int i = 0; i < 5; ++i) m[i] = static_cast<T*>(maps[i]);
  if (!backward) {
    return mmsapa::cuda::reassemble<T>(s, m[0], m[1], m[2], nullptr);
  }
  return mmsapa::cuda::reassemble_backward<T>(s, m[2], m[0], m[1], m[3], m[4],
                                              nullptr);
}

// maps: x, weight, bias, out, mean, rstd, and backward its gradient, partial,
// grad_x, parts of grad_weight.
template <typename T>
cudaError_t run_norm_project(bool backward, const NormProjectShape& s,
                             double eps, void* const* maps) {
  const auto map = [&](int i) { return static_cast<T*>(maps[i]); };
  const auto sums = [&](int i) { return static_cast<acc_type<T>*>(maps[i]); };
  if (!backward) {
    return mmsapa::cuda::norm_project<T>(s, map(0), sums(1), sums(2), eps,
                                         map(3), sums(4), sums(5), nullptr);
  }
  return mmsapa::cuda::norm_project_backward<T>(
      s, map(6), map(0), sums(1), sums(2), map(3), sums(4), sums(5), sums(7),
      map(8), sums(9), nullptr);
}

// maps: x, weight, bias, out or its gradient, mean, rstd, grad_x, grad_weight,
// grad_bias.
template <typename T>
cudaError_t run_channel_norm(bool backward, const NormProjectShape& s,
                             double eps, void* const* maps) {
  const auto map = [&](int i) { return static_cast<T*>(maps[i]); };
  const auto sums = [&](int i) { return static_cast<acc_type<T>*>(maps[i]); };
  if (!backward) {
    return mmsapa::cuda::channel_norm<T>(s, map(0), sums(1), sums(2), eps,
                                         map(3), sums(4), sums(5), nullptr);
  }
  return mmsapa::cuda::channel_norm_backward<T>(s, map(3), map(0), sums(1),
                                                sums(4), sums(5), map(6),
                                                sums(7), sums(8), nullptr);
}

// Calls use() with a number of the type that a test means.
template <typename Use>
int with_type(int dtype, Use use) {
  switch (dtype) {
    case 0:
      return use(float());
    case 1:
      return use(double());
    case 2:
      return use(__half());
    default:
      return use(__nv_bfloat16());
  }
}

}  // namespace

extern "C" int emulate_run(int op, int dtype, const Shape* shape,
                           void* const* maps, int order,
                           int64_t workspace_bytes) {
  emulate::order = order;
  emulate::workspace_bytes = workspace_bytes;
  const Op which = static_cast<Op>(op);
  return with_type(dtype, [&](auto number) {
    return run<decltype(number)>(which, *shape, maps);
  });
}

extern "C" int emulate_reassemble(int backward, int dtype, const Shape* shape,
                                  void* const* maps, int order) {
  emulate::order = order;
  return with_type(dtype, [&](auto number) {
    return run_reassemble<decltype(number)>(backward, *shape, maps);
  });
}

extern "C" int emulate_norm_project(int backward, int dtype,
                                    const NormProjectShape* shape, double eps,
                                    void* const* maps, int order) {
  emulate::order = order;
  return with_type(dtype, [&](auto number) {
    return run_norm_project<decltype(number)>(backward, *shape, eps, maps);
  });
}

extern "C" int emulate_channel_norm(int backward, int dtype,
                                    const NormProjectShape* shape, double eps,
                                    void* const* maps, int order) {
  emulate::order = order;
  return with_type(dtype, [&](auto number) {
    return run_channel_norm<decltype(number)>(backward, *shape, eps, maps);
  });
}

extern "C" int64_t emulate_grad_weight_parts(const NormProjectShape* shape) {
  return mmsapa::cuda::grad_weight_parts(*shape);
}

extern "C" int emulate_needs_partial(const NormProjectShape* shape) {
  return mmsapa::cuda::needs_partial(*shape);
}
