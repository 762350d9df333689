// Copyright (c) mmsapa contributors. SPDX-License-Identifier: Apache-2.0
//
// The CPU kernels as PyTorch operators. The schemas are defined in
// mmsapa/ops/registrations.py, where the other registrations stand.
#include <ATen/Dispatch.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros_like.h>
#include <torch/library.h>

#include <array>
#include <tuple>

#include "checks.h"
#include "kernels.h"

namespace mmsapa {
namespace {

// The widest instruction set that this machine has.
template <typename T>
const cpu::Kernels<T>& kernels() {
#ifdef MMSAPA_X86
  if (__builtin_cpu_supports("avx512f") &&
      __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
    return cpu::avx512::table<T>();
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
    return cpu::avx2::table<T>();
#endif
  return cpu::baseline::table<T>();
}

// A gradient of the size of `like`, zero where nothing flows into it; empty
// where it is not wanted.
at::Tensor gradient(const at::Tensor& like, bool wanted) {
  return wanted ? at::zeros_like(like, at::MemoryFormat::Contiguous)
                : at::empty({0}, like.options());
}

template <typename T>
T* data_or_null(const at::Tensor& tensor, bool wanted) {
  return wanted ? tensor.data_ptr<T>() : nullptr;
}

at::Tensor sapa_upsample(const at::Tensor& query, const at::Tensor& key,
                         const at::Tensor& value, int64_t kernel_size,
                         int64_t scale_factor) {
  const Shape shape =
      checked_shape(query, key, value, kernel_size, scale_factor);
  const auto q = query.contiguous(), k = key.contiguous(),
             v = value.contiguous();
  auto out = at::empty(
      {shape.batch, shape.channels, shape.query_height, shape.query_width},
      value.options());
  if (out.numel() == 0) return out;
  AT_DISPATCH_FLOATING_TYPES_AND2(
      at::kHalf, at::kBFloat16, q.scalar_type(), "sapa_upsample", [&] {
        kernels<scalar_t>().upsample(
            shape, q.const_data_ptr<scalar_t>(), k.const_data_ptr<scalar_t>(),
            v.const_data_ptr<scalar_t>(), out.data_ptr<scalar_t>());
      });
  return out;
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> sapa_upsample_backward(
    const at::Tensor& grad, const at::Tensor& query, const at::Tensor& key,
    const at::Tensor& value, int64_t kernel_size, int64_t scale_factor,
    std::array<bool, 3> mask) {
  const Shape shape =
      checked_shape(query, key, value, kernel_size, scale_factor);
  check_gradient(
      grad, query,
      {shape.batch, shape.channels, shape.query_height, shape.query_width});
  const auto g = grad.contiguous(), q = query.contiguous(),
             k = key.contiguous(), v = value.contiguous();
  auto grad_query = gradient(query, mask[0]);
  auto grad_key = gradient(key, mask[1]);
  auto grad_value = gradient(value, mask[2]);
  if (g.numel() != 0) {
    AT_DISPATCH_FLOATING_TYPES_AND2(
        at::kHalf, at::kBFloat16, q.scalar_type(), "sapa_upsample_backward",
        [&] {
          kernels<scalar_t>().upsample_backward(
              shape, g.const_data_ptr<scalar_t>(),
              q.const_data_ptr<scalar_t>(), k.const_data_ptr<scalar_t>(),
              v.const_data_ptr<scalar_t>(),
              data_or_null<scalar_t>(grad_query, mask[0]),
              data_or_null<scalar_t>(grad_key, mask[1]),
              data_or_null<scalar_t>(grad_value, mask[2]));
        });
  }
  return {grad_query, grad_key, grad_value};
}

at::Tensor sapa_kernels(const at::Tensor& query, const at::Tensor& key,
                        int64_t kernel_size, int64_t scale_factor) {
  const Shape shape =
      checked_shape(query, key, std::nullopt, kernel_size, scale_factor);
  const auto q = query.contiguous(), k = key.contiguous();
  auto weights = at::empty(
      {shape.batch, shape.window(), shape.query_height, shape.query_width},
      query.options());
  if (weights.numel() == 0) return weights;
  AT_DISPATCH_FLOATING_TYPES_AND2(
      at::kHalf, at::kBFloat16, q.scalar_type(), "sapa_kernels", [&] {
        kernels<scalar_t>().kernels(shape, q.const_data_ptr<scalar_t>(),
                                    k.const_data_ptr<scalar_t>(),
                                    weights.data_ptr<scalar_t>());
      });
  return weights;
}

std::tuple<at::Tensor, at::Tensor> sapa_kernels_backward(
    const at::Tensor& grad, const at::Tensor& query, const at::Tensor& key,
    int64_t kernel_size, int64_t scale_factor, std::array<bool, 2> mask) {
  const Shape shape =
      checked_shape(query, key, std::nullopt, kernel_size, scale_factor);
  check_gradient(
      grad, query,
      {shape.batch, shape.window(), shape.query_height, shape.query_width});
  const auto g = grad.contiguous(), q = query.contiguous(),
             k = key.contiguous();
  auto grad_query = gradient(query, mask[0]);
  auto grad_key = gradient(key, mask[1]);
  if (g.numel() != 0) {
    AT_DISPATCH_FLOATING_TYPES_AND2(
        at::kHalf, at::kBFloat16, q.scalar_type(), "sapa_kernels_backward",
        [&] {
          kernels<scalar_t>().kernels_backward(
              shape, g.const_data_ptr<scalar_t>(),
              q.const_data_ptr<scalar_t>(), k.const_data_ptr<scalar_t>(),
              data_or_null<scalar_t>(grad_query, mask[0]),
              data_or_null<scalar_t>(grad_key, mask[1]));
        });
  }
  return {grad_query, grad_key};
}

}  // namespace

TORCH_LIBRARY_IMPL(mmsapa, CPU, m) {
  m.impl("sapa_upsample", &sapa_upsample);
  m.impl("sapa_upsample_backward", &sapa_upsample_backward);
  m.impl("sapa_kernels", &sapa_kernels);
  m.impl("sapa_kernels_backward", &sapa_kernels_backward);
}

}  // namespace mmsapa
