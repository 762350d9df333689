// Copyright (c) mmsapa contributors. SPDX-License-Identifier: Apache-2.0
//
// The last line of defence, shared by the devices' bindings. mmsapa.ops
// checks the same with friendlier words; this serves those who call
// torch.ops.mmsapa directly.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

#include "shape.h"

namespace mmsapa {

// query [N, E, Hq, Wq], key [N, E, H, W], value [N, C, H, W] or none.
inline Shape checked_shape(const at::Tensor& query, const at::Tensor& key,
                           const std::optional<at::Tensor>& value,
                           int64_t kernel_size, int64_t scale_factor) {
  TORCH_CHECK(query.dim() == 4 && key.dim() == 4,
              "expected query and key of 4 dimensions, got ", query.sizes(),
              " and ", key.sizes());
  TORCH_CHECK(kernel_size > 0 && kernel_size % 2 == 1,
              "expected an odd kernel_size, got ", kernel_size);
  TORCH_CHECK(scale_factor > 0, "expected a positive scale_factor, got ",
              scale_factor);
  const int64_t height = key.size(2), width = key.size(3);
  TORCH_CHECK(query.size(0) == key.size(0) && query.size(1) == key.size(1),
              "expected query and key of one batch and embedding, got ",
              query.sizes(), " and ", key.sizes());
  for (const int64_t d : {2, 3}) {
    TORCH_CHECK(query.size(d) > (key.size(d) - 1) * scale_factor &&
                    query.size(d) <= key.size(d) * scale_factor,
                "expected a query of scale_factor ", scale_factor,
                " times the key's size, got ", query.sizes(), " and ",
                key.sizes());
  }
  TORCH_CHECK(query.device() == key.device() &&
                  query.scalar_type() == key.scalar_type(),
              "expected query and key of one device and dtype, got ",
              query.toString(), " and ", key.toString());
  if (value) {
    TORCH_CHECK(value->dim() == 4 && value->size(0) == key.size(0) &&
                    value->size(2) == height && value->size(3) == width,
                "expected a value of the key's batch and size, got ",
                value->sizes(), " and ", key.sizes());
    TORCH_CHECK(value->device() == key.device() &&
                    value->scalar_type() == key.scalar_type(),
                "expected key and value of one device and dtype, got ",
                key.toString(), " and ", value->toString());
  }
  return {query.size(0), query.size(1), value ? value->size(1) : 0,
          height,        width,         query.size(2),
          query.size(3), kernel_size,   scale_factor};
}

// x [N, C, H, W], weight [E, C], bias [E].
inline NormProjectShape checked_norm_project(const at::Tensor& x,
                                             const at::Tensor& weight,
                                             const at::Tensor& bias) {
  TORCH_CHECK(x.dim() == 4 && x.size(1) > 0,
              "expected x of 4 dimensions with channels, got ", x.sizes());
  TORCH_CHECK(weight.dim() == 2 && weight.size(1) == x.size(1) &&
                  bias.dim() == 1 && bias.size(0) == weight.size(0),
              "expected a weight [E, C] and a bias [E] for x ", x.sizes(),
              ", got ", weight.sizes(), " and ", bias.sizes());
  const auto dtype = x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  TORCH_CHECK(weight.scalar_type() == dtype && bias.scalar_type() == dtype &&
                  weight.device() == x.device() && bias.device() == x.device(),
              "expected weight and bias of ", dtype, " beside x, got ",
              weight.toString(), ", ", bias.toString(), " and ", x.toString());
  return {x.size(0), x.size(1), weight.size(0), x.size(2) * x.size(3)};
}

// What flows back into a result of these sizes.
inline void check_gradient(const at::Tensor& grad, const at::Tensor& like,
                           at::IntArrayRef sizes) {
  TORCH_CHECK(grad.sizes() == sizes, "expected a gradient of size ", sizes,
              ", got ", grad.sizes());
  TORCH_CHECK(grad.device() == like.device() &&
                  grad.scalar_type() == like.scalar_type(),
              "expected a gradient of the input's device and dtype, got ",
              grad.toString(), " and ", like.toString());
}

}  // namespace mmsapa
