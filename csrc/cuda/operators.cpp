// Copyright (c) mmsapa contributors. SPDX-License-Identifier: Apache-2.0
//
// Hands PyTorch's CUDA tensors to the kernels. The schemas are declared in
// Python, beside the other registrations.
//
// Of PyTorch's CUDA headers only c10's: those of ATen want the headers of
// libraries that are not used here.
#include <ATen/Dispatch.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <torch/library.h>

#include <array>
#include <tuple>

#include "checks.h"
#include "kernels.h"

namespace mmsapa {
namespace {

// What the kernels call the type of a tensor's elements.
template <typename scalar_t>
struct Element {
  using type = scalar_t;
};
template <>
struct Element<at::Half> {
  using type = __half;
};
template <>
struct Element<at::BFloat16> {
  using type = __nv_bfloat16;
};

template <typename scalar_t>
using element_type = typename Element<scalar_t>::type;

#define MMSAPA_DISPATCH(tensor, name, ...)                  \
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, \
                                  (tensor).scalar_type(), name, __VA_ARGS__)

template <typename element_t>
const element_t* input(const at::Tensor& tensor) {
  return static_cast<const element_t*>(tensor.const_data_ptr());
}

// Null where there is no prior.
template <typename element_t>
const cuda::acc_type<element_t>* constants(const at::Tensor& prior) {
  return prior.defined() ? input<cuda::acc_type<element_t>>(prior) : nullptr;
}

// Null for an empty tensor: so a gradient that nobody wants, see below, is
// not computed.
template <typename element_t>
element_t* output(const at::Tensor& tensor) {
  return tensor.numel() == 0 ? nullptr
                             : static_cast<element_t*>(tensor.data_ptr());
}

template <typename element_t>
at::Tensor workspace(cuda::Op op, const Shape& shape, const at::Tensor& like) {
  const auto bytes = cuda::workspace_bytes<element_t>(op, shape);
  return at::empty({static_cast<int64_t>(bytes)},
                   like.options().dtype(at::kByte));
}

// A gradient like `input`, or an empty tensor where it is not wanted.
at::Tensor gradient(const at::Tensor& input, bool wanted) {
  return wanted ? at::empty(input.sizes(), input.options())
                : at::empty({0}, input.options());
}

at::Tensor sapa_upsample(const at::Tensor& query,  // [N, E, Hq, Wq]
                         const at::Tensor& key,    // [N, E, H, W]
                         const at::Tensor& value,  // [N, C, H, W]
                         int64_t kernel_size, int64_t scale_factor,
                         const c10::optional<at::Tensor>& prior) {
  const Shape shape =
      checked_shape(query, key, value, kernel_size, scale_factor);
  const c10::cuda::CUDAGuard guard(query.device());
  const at::Tensor q = query.contiguous();
  const at::Tensor k = key.contiguous();
  const at::Tensor v = value.contiguous();
  const at::Tensor p = checked_prior(prior, query, shape);
  const at::Tensor out = at::empty(
      {shape.batch, shape.channels, shape.query_height, shape.query_width},
      q.options());
  if (out.numel() == 0) return out;
  MMSAPA_DISPATCH(q, "sapa_upsample", [&] {
    using element_t = element_type<scalar_t>;
    const at::Tensor space =
        workspace<element_t>(cuda::Op::kUpsample, shape, q);
    C10_CUDA_CHECK(cuda::upsample(
        shape, input<element_t>(q), input<element_t>(k), input<element_t>(v),
        constants<element_t>(p), output<element_t>(out), space.data_ptr(),
        c10::cuda::getCurrentCUDAStream()));
  });
  return out;
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> sapa_upsample_backward(
    const at::Tensor& grad,   // [N, C, Hq, Wq]
    const at::Tensor& query,  // [N, E, Hq, Wq]
    const at::Tensor& key,    // [N, E, H, W]
    const at::Tensor& value,  // [N, C, H, W]
    int64_t kernel_size, int64_t scale_factor, std::array<bool, 3> mask,
    const c10::optional<at::Tensor>& prior) {
  const Shape shape =
      checked_shape(query, key, value, kernel_size, scale_factor);
  check_like(
      grad, query,
      {shape.batch, shape.channels, shape.query_height, shape.query_width},
      "a gradient");
  const c10::cuda::CUDAGuard guard(query.device());
  const at::Tensor g = grad.contiguous();
  const at::Tensor q = query.contiguous();
  const at::Tensor k = key.contiguous();
  const at::Tensor v = value.contiguous();
  const at::Tensor p = checked_prior(prior, query, shape);
  const at::Tensor grad_query = gradient(q, mask[0]);
  const at::Tensor grad_key = gradient(k, mask[1]);
  const at::Tensor grad_value = gradient(v, mask[2]);
  MMSAPA_DISPATCH(q, "sapa_upsample_backward", [&] {
    using element_t = element_type<scalar_t>;
    const at::Tensor space =
        workspace<element_t>(cuda::Op::kUpsampleBackward, shape, q);
    C10_CUDA_CHECK(cuda::upsample_backward(
        shape, input<element_t>(g), input<element_t>(q), input<element_t>(k),
        input<element_t>(v), constants<element_t>(p),
        output<element_t>(grad_query), output<element_t>(grad_key),
        output<element_t>(grad_value), space.data_ptr(),
        c10::cuda::getCurrentCUDAStream()));
  });
  return {grad_query, grad_key, grad_value};
}

at::Tensor reassemble(const at::Tensor& weights,  // [N, K*K, Hq, Wq]
                      const at::Tensor& value,    // [N, C, H, W]
                      int64_t kernel_size, int64_t scale_factor) {
  const Shape shape =
      checked_reassemble(weights, value, kernel_size, scale_factor);
  const c10::cuda::CUDAGuard guard(value.device());
  const at::Tensor w = weights.contiguous();
  const at::Tensor v = value.contiguous();
  const at::Tensor out = at::empty(
      {shape.batch, shape.channels, shape.query_height, shape.query_width},
      v.options());
  if (out.numel() == 0) return out;
  MMSAPA_DISPATCH(v, "reassemble", [&] {
    using element_t = element_type<scalar_t>;
    C10_CUDA_CHECK(cuda::reassemble(
        shape, input<element_t>(w), input<element_t>(v),
        output<element_t>(out), c10::cuda::getCurrentCUDAStream()));
  });
  return out;
}

std::tuple<at::Tensor, at::Tensor> reassemble_backward(
    const at::Tensor& grad,     // [N, C, Hq, Wq]
    const at::Tensor& weights,  // [N, K*K, Hq, Wq]
    const at::Tensor& value,    // [N, C, H, W]
    int64_t kernel_size, int64_t scale_factor, std::array<bool, 2> mask) {
  const Shape shape =
      checked_reassemble(weights, value, kernel_size, scale_factor);
  check_like(
      grad, value,
      {shape.batch, shape.channels, shape.query_height, shape.query_width},
      "a gradient");
  const c10::cuda::CUDAGuard guard(value.device());
  const at::Tensor g = grad.contiguous();
  const at::Tensor w = weights.contiguous();
  const at::Tensor v = value.contiguous();
  const at::Tensor grad_weights = gradient(w, mask[0]);
  const at::Tensor grad_value = gradient(v, mask[1]);
  MMSAPA_DISPATCH(v, "reassemble_backward", [&] {
    using element_t = element_type<scalar_t>;
    C10_CUDA_CHECK(cuda::reassemble_backward(
        shape, input<element_t>(g), input<element_t>(w), input<element_t>(v),
        output<element_t>(grad_weights), output<element_t>(grad_value),
        c10::cuda::getCurrentCUDAStream()));
  });
  return {grad_weights, grad_value};
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> norm_project(
    const at::Tensor& x,       // [N, C, H, W]
    const at::Tensor& weight,  // [E, C]
    const at::Tensor& bias,    // [E]
    double eps) {
  const NormProjectShape shape = checked_norm_project(x, weight, bias);
  check_eps(eps);
  const c10::cuda::CUDAGuard guard(x.device());
  const at::Tensor map = x.contiguous();
  const at::Tensor w = weight.contiguous();
  const at::Tensor b = bias.contiguous();
  const at::Tensor out = at::empty(
      {shape.batch, shape.outputs, x.size(2), x.size(3)}, x.options());
  const at::Tensor mean =
      at::empty({shape.batch, 1, x.size(2), x.size(3)}, weight.options());
  const at::Tensor rstd = at::empty_like(mean);
  MMSAPA_DISPATCH(x, "norm_project", [&] {
    using element_t = element_type<scalar_t>;
    using acc_t = cuda::acc_type<element_t>;
    C10_CUDA_CHECK(cuda::norm_project(
        shape, input<element_t>(map), input<acc_t>(w), input<acc_t>(b), eps,
        output<element_t>(out), output<acc_t>(mean), output<acc_t>(rstd),
        c10::cuda::getCurrentCUDAStream()));
  });
  return {out, mean, rstd};
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> norm_project_backward(
    const at::Tensor& grad,    // [N, E, H, W]
    const at::Tensor& x,       // [N, C, H, W]
    const at::Tensor& weight,  // [E, C]
    const at::Tensor& bias,    // [E]
    const at::Tensor& out,     // [N, E, H, W]
    const at::Tensor& mean,    // [N, 1, H, W]
    const at::Tensor& rstd,    // [N, 1, H, W]
    std::array<bool, 3> mask) {
  const NormProjectShape shape = checked_norm_project(x, weight, bias);
  check_projected(grad, x, weight, out, mean, rstd);
  const c10::cuda::CUDAGuard guard(x.device());
  const at::Tensor g = grad.contiguous();
  const at::Tensor map = x.contiguous();
  const at::Tensor w = weight.contiguous();
  const at::Tensor b = bias.contiguous();
  const at::Tensor o = out.contiguous();
  const at::Tensor m = mean.contiguous();
  const at::Tensor r = rstd.contiguous();
  const at::Tensor grad_x = gradient(map, mask[0]);
  const at::Tensor partial = at::empty(
      mask[0] && cuda::needs_partial(shape) ? x.sizes() : at::IntArrayRef{0},
      weight.options());
  const at::Tensor parts =
      at::empty({mask[1] ? cuda::grad_weight_parts(shape) : 0, shape.outputs,
                 shape.channels},
                weight.options());
  MMSAPA_DISPATCH(x, "norm_project_backward", [&] {
    using element_t = element_type<scalar_t>;
    using acc_t = cuda::acc_type<element_t>;
    C10_CUDA_CHECK(cuda::norm_project_backward(
        shape, input<element_t>(g), input<element_t>(map), input<acc_t>(w),
        input<acc_t>(b), input<element_t>(o), input<acc_t>(m), input<acc_t>(r),
        output<acc_t>(partial), output<element_t>(grad_x),
        output<acc_t>(parts), c10::cuda::getCurrentCUDAStream()));
  });
  return {
      grad_x, mask[1] ? parts.sum(0) : gradient(w, false),
      mask[2] ? g.sum({0, 2, 3}, false, w.scalar_type()) : gradient(b, false)};
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> channel_norm(
    const at::Tensor& x,            // [N, C, H, W]
    const at::Tensor& norm_weight,  // [C]
    const at::Tensor& norm_bias,    // [C]
    double eps) {
  const NormProjectShape shape =
      checked_channel_norm(x, norm_weight, norm_bias);
  check_eps(eps);
  const c10::cuda::CUDAGuard guard(x.device());
  const at::Tensor map = x.contiguous();
  const at::Tensor w = norm_weight.contiguous();
  const at::Tensor b = norm_bias.contiguous();
  const at::Tensor out = at::empty(x.sizes(), x.options());
  const at::Tensor mean =
      at::empty({shape.batch, 1, x.size(2), x.size(3)}, w.options());
  const at::Tensor rstd = at::empty_like(mean);
  MMSAPA_DISPATCH(x, "channel_norm", [&] {
    using element_t = element_type<scalar_t>;
    using acc_t = cuda::acc_type<element_t>;
    C10_CUDA_CHECK(cuda::channel_norm(
        shape, input<element_t>(map), input<acc_t>(w), input<acc_t>(b), eps,
        output<element_t>(out), output<acc_t>(mean), output<acc_t>(rstd),
        c10::cuda::getCurrentCUDAStream()));
  });
  return {out, mean, rstd};
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> channel_norm_backward(
    const at::Tensor& grad,         // [N, C, H, W]
    const at::Tensor& x,            // [N, C, H, W]
    const at::Tensor& norm_weight,  // [C]
    const at::Tensor& norm_bias,    // [C]
    const at::Tensor& mean,         // [N, 1, H, W]
    const at::Tensor& rstd,         // [N, 1, H, W]
    std::array<bool, 3> mask) {
  const NormProjectShape shape =
      checked_channel_norm(x, norm_weight, norm_bias);
  check_normed(grad, x, norm_weight, mean, rstd);
  const c10::cuda::CUDAGuard guard(x.device());
  const at::Tensor g = grad.contiguous();
  const at::Tensor map = x.contiguous();
  const at::Tensor w = norm_weight.contiguous();
  const at::Tensor m = mean.contiguous();
  const at::Tensor r = rstd.contiguous();
  const at::Tensor grad_x = gradient(map, mask[0]);
  const bool parameters = mask[1] || mask[2];
  const at::Tensor grad_weight = gradient(w, parameters);
  const at::Tensor grad_bias = gradient(w, parameters);
  MMSAPA_DISPATCH(x, "channel_norm_backward", [&] {
    using element_t = element_type<scalar_t>;
    using acc_t = cuda::acc_type<element_t>;
    C10_CUDA_CHECK(cuda::channel_norm_backward(
        shape, input<element_t>(g), input<element_t>(map), input<acc_t>(w),
        input<acc_t>(m), input<acc_t>(r), output<element_t>(grad_x),
        output<acc_t>(grad_weight), output<acc_t>(grad_bias),
        c10::cuda::getCurrentCUDAStream()));
  });
  return {grad_x, mask[1] ? grad_weight : gradient(w, false),
          mask[2] ? grad_bias : gradient(w, false)};
}

}  // namespace
}  // namespace mmsapa

// As mmsapa_register_cpu.
extern "C" C10_EXPORT int mmsapa_register_cuda() try {
  static const auto library = [] {
    auto m = MAKE_TORCH_LIBRARY_IMPL(mmsapa, CUDA);
    m.impl("sapa_upsample", &mmsapa::sapa_upsample);
    m.impl("sapa_upsample_backward", &mmsapa::sapa_upsample_backward);
    m.impl("reassemble", &mmsapa::reassemble);
    m.impl("reassemble_backward", &mmsapa::reassemble_backward);
    m.impl("norm_project", &mmsapa::norm_project);
    m.impl("norm_project_backward", &mmsapa::norm_project_backward);
    m.impl("channel_norm", &mmsapa::channel_norm);
    m.impl("channel_norm_backward", &mmsapa::channel_norm_backward);
    return m;
  }();
  return 1;
} catch (const c10::Error&) {
  return 0;
}
