// Copyright (c) mmsapa contributors. SPDX-License-Identifier: Apache-2.0
//
// The CPU kernels as PyTorch operators. The schemas are defined in
// mmsapa/ops/registrations.py, where the other registrations stand.
#include <ATen/Dispatch.h>
#include <ATen/Version.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros_like.h>
#include <torch/library.h>

#include <algorithm>
#include <array>
#include <string>
#include <tuple>

#include "checks.h"
#include "dispatch.h"
#include "parallel.h"

namespace mmsapa {
namespace {

// Of the widest instruction set that PyTorch uses on this machine, which is
// what ATEN_CPU_CAPABILITY says where it is set.
template <typename T>
const cpu::DispatchTable<T>& dispatch() {
#ifdef __x86_64__
  static const std::string capability = at::get_cpu_capability();
  if (capability == "AVX512") return cpu::avx512::dispatch_table<T>();
  if (capability == "AVX2") return cpu::avx2::dispatch_table<T>();
#endif
  return cpu::baseline::dispatch_table<T>();
}

// `map` with its pixels side by side, as the kernels read it. Convolutions and
// transformers give maps with their channels side by side (channels_last), and
// PyTorch copies these number by number, in the time that a kernel takes.
at::Tensor contiguous_map(const at::Tensor& map) {
  if (map.is_contiguous() ||
      !map.is_contiguous(at::MemoryFormat::ChannelsLast))
    return map.contiguous();
  const int64_t channels = map.size(1), pixels = map.size(2) * map.size(3);
  constexpr int64_t kPixels = 32;
  const int64_t blocks = (pixels + kPixels - 1) / kPixels;
  auto out = at::empty_like(map, at::MemoryFormat::Contiguous);
  AT_DISPATCH_FLOATING_TYPES_AND2(
      at::kHalf, at::kBFloat16, map.scalar_type(), "contiguous_map", [&] {
        // Of a cache line, whose other pixels then are in the cache.
        constexpr int64_t kChannels = 64 / sizeof(scalar_t);
        const scalar_t* from = map.const_data_ptr<scalar_t>();
        scalar_t* to = out.mutable_data_ptr<scalar_t>();
        cpu::parallel_for(
            0, map.size(0) * blocks, 1, [&](int64_t begin, int64_t end) {
              for (int64_t i = begin; i < end; ++i) {
                const int64_t image = i / blocks * channels * pixels;
                const int64_t first = i % blocks * kPixels;
                const int64_t last = std::min(first + kPixels, pixels);
                for (int64_t c = 0; c < channels; c += kChannels)
                  for (int64_t k = c; k < std::min(c + kChannels, channels);
                       ++k)
                    for (int64_t p = first; p < last; ++p)
                      to[image + k * pixels + p] =
                          from[image + p * channels + k];
              }
            });
      });
  return out;
}

// Without value channels the weights' NaN still show in a gradient.
bool has_gradients(const Shape& s) {
  return s.batch != 0 && s.embed + s.channels != 0 && s.query_height != 0 &&
         s.query_width != 0;
}

// A gradient of the size of `like`, to be written; empty where it is not
// wanted, and zero where nothing flows into it.
at::Tensor gradient(const at::Tensor& like, bool wanted, bool written) {
  if (!wanted) return at::empty({0}, like.options());
  return written ? at::empty_like(like, at::MemoryFormat::Contiguous)
                 : at::zeros_like(like, at::MemoryFormat::Contiguous);
}

template <typename T>
T* data_or_null(const at::Tensor& tensor, bool wanted) {
  return wanted ? tensor.data_ptr<T>() : nullptr;
}

// Null where there is no prior.
template <typename T>
const cpu::Accumulate<T>* constants(const at::Tensor& prior) {
  return prior.defined() ? prior.const_data_ptr<cpu::Accumulate<T>>()
                         : nullptr;
}

at::Tensor sapa_upsample(const at::Tensor& query, const at::Tensor& key,
                         const at::Tensor& value, int64_t kernel_size,
                         int64_t scale_factor,
                         const c10::optional<at::Tensor>& prior) {
  const Shape shape =
      checked_shape(query, key, value, kernel_size, scale_factor);
  const auto q = contiguous_map(query), k = contiguous_map(key),
             v = contiguous_map(value), p = checked_prior(prior, query, shape);
  auto out = at::empty(
      {shape.batch, shape.channels, shape.query_height, shape.query_width},
      value.options());
  if (out.numel() == 0) return out;
  AT_DISPATCH_FLOATING_TYPES_AND2(
      at::kHalf, at::kBFloat16, q.scalar_type(), "sapa_upsample", [&] {
        dispatch<scalar_t>().upsample(
            shape, q.const_data_ptr<scalar_t>(), k.const_data_ptr<scalar_t>(),
            v.const_data_ptr<scalar_t>(), constants<scalar_t>(p),
            out.data_ptr<scalar_t>());
      });
  return out;
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> sapa_upsample_backward(
    const at::Tensor& grad, const at::Tensor& query, const at::Tensor& key,
    const at::Tensor& value, int64_t kernel_size, int64_t scale_factor,
    std::array<bool, 3> mask, const c10::optional<at::Tensor>& prior) {
  const Shape shape =
      checked_shape(query, key, value, kernel_size, scale_factor);
  check_like(
      grad, query,
      {shape.batch, shape.channels, shape.query_height, shape.query_width},
      "a gradient");
  const auto g = contiguous_map(grad), q = contiguous_map(query),
             k = contiguous_map(key), v = contiguous_map(value),
             p = checked_prior(prior, query, shape);
  auto grad_query = gradient(query, mask[0], has_gradients(shape));
  auto grad_key = gradient(key, mask[1], has_gradients(shape));
  auto grad_value = gradient(value, mask[2], has_gradients(shape));
  if (has_gradients(shape)) {
    AT_DISPATCH_FLOATING_TYPES_AND2(
        at::kHalf, at::kBFloat16, q.scalar_type(), "sapa_upsample_backward",
        [&] {
          dispatch<scalar_t>().upsample_backward(
              shape, g.const_data_ptr<scalar_t>(),
              q.const_data_ptr<scalar_t>(), k.const_data_ptr<scalar_t>(),
              v.const_data_ptr<scalar_t>(), constants<scalar_t>(p),
              data_or_null<scalar_t>(grad_query, mask[0]),
              data_or_null<scalar_t>(grad_key, mask[1]),
              data_or_null<scalar_t>(grad_value, mask[2]));
        });
  }
  return {grad_query, grad_key, grad_value};
}

at::Tensor reassemble(const at::Tensor& weights, const at::Tensor& value,
                      int64_t kernel_size, int64_t scale_factor) {
  const Shape shape =
      checked_reassemble(weights, value, kernel_size, scale_factor);
  const auto w = contiguous_map(weights), v = contiguous_map(value);
  auto out = at::empty(
      {shape.batch, shape.channels, shape.query_height, shape.query_width},
      value.options());
  if (out.numel() == 0) return out;
  AT_DISPATCH_FLOATING_TYPES_AND2(
      at::kHalf, at::kBFloat16, v.scalar_type(), "reassemble", [&] {
        dispatch<scalar_t>().reassemble(shape, w.const_data_ptr<scalar_t>(),
                                        v.const_data_ptr<scalar_t>(),
                                        out.data_ptr<scalar_t>());
      });
  return out;
}

std::tuple<at::Tensor, at::Tensor> reassemble_backward(
    const at::Tensor& grad, const at::Tensor& weights, const at::Tensor& value,
    int64_t kernel_size, int64_t scale_factor, std::array<bool, 2> mask) {
  const Shape shape =
      checked_reassemble(weights, value, kernel_size, scale_factor);
  check_like(
      grad, value,
      {shape.batch, shape.channels, shape.query_height, shape.query_width},
      "a gradient");
  const auto g = contiguous_map(grad), w = contiguous_map(weights),
             v = contiguous_map(value);
  auto grad_weights = gradient(weights, mask[0], g.numel() != 0);
  auto grad_value = gradient(value, mask[1], g.numel() != 0);
  if (g.numel() == 0) return {grad_weights, grad_value};
  AT_DISPATCH_FLOATING_TYPES_AND2(
      at::kHalf, at::kBFloat16, v.scalar_type(), "reassemble_backward", [&] {
        dispatch<scalar_t>().reassemble_backward(
            shape, g.const_data_ptr<scalar_t>(), w.const_data_ptr<scalar_t>(),
            v.const_data_ptr<scalar_t>(),
            data_or_null<scalar_t>(grad_weights, mask[0]),
            data_or_null<scalar_t>(grad_value, mask[1]));
      });
  return {grad_weights, grad_value};
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> norm_project(
    const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
    double eps) {
  const NormProjectShape shape = checked_norm_project(x, weight, bias);
  check_eps(eps);
  const auto map = contiguous_map(x), w = weight.contiguous(),
             b = bias.contiguous();
  auto out = at::empty({shape.batch, shape.outputs, x.size(2), x.size(3)},
                       x.options());
  auto mean = at::empty({shape.batch, 1, x.size(2), x.size(3)}, b.options());
  auto rstd = at::empty_like(mean);
  if (mean.numel() == 0) return {out, mean, rstd};
  AT_DISPATCH_FLOATING_TYPES_AND2(
      at::kHalf, at::kBFloat16, x.scalar_type(), "norm_project", [&] {
        using A = cpu::Accumulate<scalar_t>;
        dispatch<scalar_t>().norm_project(
            shape, map.const_data_ptr<scalar_t>(), w.const_data_ptr<A>(),
            b.const_data_ptr<A>(), eps, out.data_ptr<scalar_t>(),
            mean.data_ptr<A>(), rstd.data_ptr<A>());
      });
  return {out, mean, rstd};
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> norm_project_backward(
    const at::Tensor& grad, const at::Tensor& x, const at::Tensor& weight,
    const at::Tensor& bias, const at::Tensor& out, const at::Tensor& mean,
    const at::Tensor& rstd, std::array<bool, 3> mask) {
  const NormProjectShape shape = checked_norm_project(x, weight, bias);
  check_projected(grad, x, weight, out, mean, rstd);
  const auto g = contiguous_map(grad), map = contiguous_map(x),
             w = weight.contiguous(), b = bias.contiguous(),
             o = out.contiguous(), m = mean.contiguous(),
             r = rstd.contiguous();
  auto grad_x = gradient(x, mask[0], g.numel() != 0);
  auto grad_weight = gradient(weight, mask[1], false);
  auto grad_bias = gradient(bias, mask[2], false);
  if (g.numel() == 0) return {grad_x, grad_weight, grad_bias};
  AT_DISPATCH_FLOATING_TYPES_AND2(
      at::kHalf, at::kBFloat16, x.scalar_type(), "norm_project_backward", [&] {
        using A = cpu::Accumulate<scalar_t>;
        dispatch<scalar_t>().norm_project_backward(
            shape, g.const_data_ptr<scalar_t>(),
            map.const_data_ptr<scalar_t>(), w.const_data_ptr<A>(),
            b.const_data_ptr<A>(), o.const_data_ptr<scalar_t>(),
            m.const_data_ptr<A>(), r.const_data_ptr<A>(),
            data_or_null<scalar_t>(grad_x, mask[0]),
            data_or_null<A>(grad_weight, mask[1]),
            data_or_null<A>(grad_bias, mask[2]));
      });
  return {grad_x, grad_weight, grad_bias};
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> channel_norm(
    const at::Tensor& x, const at::Tensor& norm_weight,
    const at::Tensor& norm_bias, double eps) {
  const NormProjectShape shape =
      checked_channel_norm(x, norm_weight, norm_bias);
  check_eps(eps);
  const auto map = contiguous_map(x), w = norm_weight.contiguous(),
             b = norm_bias.contiguous();
  auto out = at::empty(x.sizes(), x.options());
  auto mean = at::empty({shape.batch, 1, x.size(2), x.size(3)}, w.options());
  auto rstd = at::empty_like(mean);
  if (out.numel() == 0) return {out, mean, rstd};
  AT_DISPATCH_FLOATING_TYPES_AND2(
      at::kHalf, at::kBFloat16, x.scalar_type(), "channel_norm", [&] {
        using A = cpu::Accumulate<scalar_t>;
        dispatch<scalar_t>().channel_norm(
            shape, map.const_data_ptr<scalar_t>(), w.const_data_ptr<A>(),
            b.const_data_ptr<A>(), eps, out.data_ptr<scalar_t>(),
            mean.data_ptr<A>(), rstd.data_ptr<A>());
      });
  return {out, mean, rstd};
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> channel_norm_backward(
    const at::Tensor& grad, const at::Tensor& x, const at::Tensor& norm_weight,
    const at::Tensor& norm_bias, const at::Tensor& mean,
    const at::Tensor& rstd, std::array<bool, 3> mask) {
  const NormProjectShape shape =
      checked_channel_norm(x, norm_weight, norm_bias);
  check_normed(grad, x, norm_weight, mean, rstd);
  const auto g = contiguous_map(grad), map = contiguous_map(x),
             w = norm_weight.contiguous(), m = mean.contiguous(),
             r = rstd.contiguous();
  auto grad_x = gradient(x, mask[0], g.numel() != 0);
  auto grad_weight = gradient(norm_weight, mask[1], false);
  auto grad_bias = gradient(norm_bias, mask[2], false);
  if (g.numel() == 0) return {grad_x, grad_weight, grad_bias};
  AT_DISPATCH_FLOATING_TYPES_AND2(
      at::kHalf, at::kBFloat16, x.scalar_type(), "channel_norm_backward", [&] {
        using A = cpu::Accumulate<scalar_t>;
        dispatch<scalar_t>().channel_norm_backward(
            shape, g.const_data_ptr<scalar_t>(),
            map.const_data_ptr<scalar_t>(), w.const_data_ptr<A>(),
            m.const_data_ptr<A>(), r.const_data_ptr<A>(),
            data_or_null<scalar_t>(grad_x, mask[0]),
            data_or_null<A>(grad_weight, mask[1]),
            data_or_null<A>(grad_bias, mask[2]));
      });
  return {grad_x, grad_weight, grad_bias};
}

}  // namespace

// Called from Python, and 0 if the schemas are not those of this library.
// TORCH_LIBRARY_IMPL would end the process then, while it is being loaded.
extern "C" C10_EXPORT int mmsapa_register_cpu() try {
  static const auto library = [] {
    auto m = MAKE_TORCH_LIBRARY_IMPL(mmsapa, CPU);
    m.impl("sapa_upsample", &sapa_upsample);
    m.impl("sapa_upsample_backward", &sapa_upsample_backward);
    m.impl("reassemble", &reassemble);
    m.impl("reassemble_backward", &reassemble_backward);
    m.impl("norm_project", &norm_project);
    m.impl("norm_project_backward", &norm_project_backward);
    m.impl("channel_norm", &channel_norm);
    m.impl("channel_norm_backward", &channel_norm_backward);
    return m;
  }();
  return 1;
} catch (const c10::Error&) {
  return 0;
}

}  // namespace mmsapa
