// Copyright (c) mmsapa contributors. SPDX-License-Identifier: Apache-2.0
//
// The last line of defense, shared by the devices' bindings. mmsapa.ops
// checks the same with friendlier words; this serves those who call
// torch.ops.mmsapa directly.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/Optional.h>

#include <array>

#include "shape.h"

namespace mmsapa {

// Of a window's side in query pixels: it bounds the kernels' scratch, and no
// product of sizes within it can overflow.
constexpr int64_t kMaxWindow = 512;

// What kernels may read: a storage can be made smaller under its tensors.
inline void check_memory(const at::Tensor& tensor, const char* role) {
  TORCH_CHECK(tensor.defined() && tensor.layout() == at::kStrided, "expected ",
              role, " as a dense tensor");
  if (tensor.numel() == 0) return;
  int64_t last = tensor.storage_offset();
  for (int64_t d = 0; d < tensor.dim(); ++d)
    last += (tensor.size(d) - 1) * tensor.stride(d);
  const auto bytes = static_cast<int64_t>(tensor.storage().nbytes());
  TORCH_CHECK(last < bytes / tensor.element_size(), "expected ", role,
              " with a storage of all its numbers, got one of ", bytes,
              " bytes for ", tensor.sizes());
}

inline void check_map(const at::Tensor& map, const char* role) {
  check_memory(map, role);
  TORCH_CHECK(map.dim() == 4, "expected ", role, " of 4 dimensions, got ",
              map.sizes());
  const auto dtype = map.scalar_type();
  TORCH_CHECK(dtype == at::kFloat || dtype == at::kDouble ||
                  dtype == at::kHalf || dtype == at::kBFloat16,
              "expected ", role,
              " of float32, float64, float16 or bfloat16, got ", dtype);
}

// A tensor of these sizes, and otherwise like another.
inline void check_like(const at::Tensor& tensor, const at::Tensor& like,
                       at::IntArrayRef sizes, const char* role) {
  check_memory(tensor, role);
  TORCH_CHECK(tensor.sizes() == sizes, "expected ", role, " of size ", sizes,
              ", got ", tensor.sizes());
  TORCH_CHECK(tensor.device() == like.device() &&
                  tensor.scalar_type() == like.scalar_type(),
              "expected ", role, " of ", like.toString(), " on ",
              like.device(), ", got ", tensor.toString(), " on ",
              tensor.device());
}

inline void check_window(int64_t kernel_size, int64_t scale_factor) {
  TORCH_CHECK(kernel_size > 0 && kernel_size % 2 == 1,
              "expected an odd kernel_size, got ", kernel_size);
  TORCH_CHECK(scale_factor > 0, "expected a positive scale_factor, got ",
              scale_factor);
  TORCH_CHECK(kernel_size <= kMaxWindow && scale_factor <= kMaxWindow &&
                  kernel_size * scale_factor <= kMaxWindow,
              "expected kernel_size * scale_factor <= ", kMaxWindow, ", got ",
              kernel_size, " * ", scale_factor);
}

// Cells that have a query along one side.
inline int64_t cells(int64_t queries, int64_t scale_factor) {
  return queries == 0 ? 0 : (queries - 1) / scale_factor + 1;
}

// query [N, E, Hq, Wq], key [N, E, H, W], value [N, C, H, W].
inline Shape checked_shape(const at::Tensor& query, const at::Tensor& key,
                           const at::Tensor& value, int64_t kernel_size,
                           int64_t scale_factor) {
  check_map(query, "query");
  check_map(key, "key");
  check_window(kernel_size, scale_factor);
  const int64_t height = key.size(2), width = key.size(3);
  check_like(key, query, {query.size(0), query.size(1), height, width}, "key");
  TORCH_CHECK(cells(query.size(2), scale_factor) == height &&
                  cells(query.size(3), scale_factor) == width,
              "expected a query of scale_factor ", scale_factor,
              " times the key's size, got ", query.sizes(), " and ",
              key.sizes());
  check_map(value, "value");
  check_like(value, query, {key.size(0), value.size(1), height, width},
             "value");
  return {query.size(0), query.size(1), value.size(1), height,      width,
          query.size(2), query.size(3), kernel_size,   scale_factor};
}

// prior [s * s, K * K], of the type that the kernels sum in. The result is
// undefined where there is none. (Up to PyTorch 2.2 its optional is not
// std's.)
inline at::Tensor checked_prior(const c10::optional<at::Tensor>& prior,
                                const at::Tensor& query, const Shape& shape) {
  if (!prior || !prior->defined()) return {};
  check_memory(*prior, "prior");
  const auto dtype =
      query.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  const std::array<int64_t, 2> sizes{shape.phases(), shape.window()};
  TORCH_CHECK(prior->scalar_type() == dtype &&
                  prior->device() == query.device() &&
                  prior->sizes() == at::IntArrayRef(sizes),
              "expected a prior of ", dtype, " and size ",
              at::IntArrayRef(sizes), " on ", query.device(), ", got ",
              prior->toString(), " ", prior->sizes(), " on ", prior->device());
  TORCH_CHECK(!prior->requires_grad(),
              "expected a constant prior, got one that requires a gradient");
  return prior->contiguous();
}

// weights [N, K * K, Hq, Wq], value [N, C, H, W].
inline Shape checked_reassemble(const at::Tensor& weights,
                                const at::Tensor& value, int64_t kernel_size,
                                int64_t scale_factor) {
  check_map(weights, "weights");
  check_map(value, "value");
  check_window(kernel_size, scale_factor);
  const int64_t height = value.size(2), width = value.size(3);
  check_like(weights, value,
             {value.size(0), kernel_size * kernel_size, weights.size(2),
              weights.size(3)},
             "weights");
  TORCH_CHECK(cells(weights.size(2), scale_factor) == height &&
                  cells(weights.size(3), scale_factor) == width,
              "expected weights of scale_factor ", scale_factor,
              " times the value's size, got ", weights.sizes(), " and ",
              value.sizes());
  return {value.size(0),   weights.size(1), value.size(1), height,      width,
          weights.size(2), weights.size(3), kernel_size,   scale_factor};
}

// x [N, C, H, W], weight [E, C], bias [E].
inline NormProjectShape checked_norm_project(const at::Tensor& x,
                                             const at::Tensor& weight,
                                             const at::Tensor& bias) {
  check_map(x, "x");
  check_memory(weight, "weight");
  TORCH_CHECK(x.size(1) > 0, "expected x with channels, got ", x.sizes());
  TORCH_CHECK(weight.dim() == 2 && weight.size(1) == x.size(1),
              "expected a weight [E, C] for x ", x.sizes(), ", got ",
              weight.sizes());
  const auto dtype = x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  TORCH_CHECK(weight.scalar_type() == dtype && weight.device() == x.device(),
              "expected a weight of ", dtype, " beside x, got ",
              weight.toString(), " and ", x.toString());
  check_like(bias, weight, {weight.size(0)}, "bias");
  // Sizes of a map that is empty may have any product.
  return {x.size(0), x.size(1), weight.size(0),
          x.numel() == 0 ? 0 : x.size(2) * x.size(3)};
}

// x [N, C, H, W], weight [C], bias [C].
inline NormProjectShape checked_channel_norm(const at::Tensor& x,
                                             const at::Tensor& weight,
                                             const at::Tensor& bias) {
  check_map(x, "x");
  check_memory(weight, "norm_weight");
  TORCH_CHECK(x.size(1) > 0, "expected x with channels, got ", x.sizes());
  const auto dtype = x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  TORCH_CHECK(weight.scalar_type() == dtype && weight.device() == x.device() &&
                  weight.dim() == 1 && weight.size(0) == x.size(1),
              "expected a norm_weight [C] of ", dtype, " for x ", x.sizes(),
              ", got ", weight.toString(), " ", weight.sizes());
  check_like(bias, weight, weight.sizes(), "norm_bias");
  // Sizes of a map that is empty may have any product.
  return {x.size(0), x.size(1), x.size(1),
          x.numel() == 0 ? 0 : x.size(2) * x.size(3)};
}

inline void check_eps(double eps) {
  TORCH_CHECK(eps >= 0, "expected eps >= 0, got ", eps);
}

// What norm_project has made of x, and what flows back into it.
inline void check_projected(const at::Tensor& grad, const at::Tensor& x,
                            const at::Tensor& weight, const at::Tensor& out,
                            const at::Tensor& mean, const at::Tensor& rstd) {
  const int64_t n = x.size(0), h = x.size(2), w = x.size(3);
  check_like(grad, x, {n, weight.size(0), h, w}, "a gradient");
  check_like(out, x, {n, weight.size(0), h, w}, "out");
  check_like(mean, weight, {n, 1, h, w}, "mean");
  check_like(rstd, weight, {n, 1, h, w}, "rstd");
}

// What channel_norm has found in x, and what flows back into its result.
inline void check_normed(const at::Tensor& grad, const at::Tensor& x,
                         const at::Tensor& weight, const at::Tensor& mean,
                         const at::Tensor& rstd) {
  check_like(grad, x, x.sizes(), "a gradient");
  check_like(mean, weight, {x.size(0), 1, x.size(2), x.size(3)}, "mean");
  check_like(rstd, weight, mean.sizes(), "rstd");
}

}  // namespace mmsapa
