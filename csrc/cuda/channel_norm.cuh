// Copyright (c) mmsapa contributors. SPDX-License-Identifier: Apache-2.0
//
// Layer normalization over channels. A thread has neighboring pixels, and
// passes over their channels twice: for the sums, and for the result.
//
// Included by kernels.cu alone, after norm_project.cuh, whose places and
// columns it takes.

namespace mmsapa::cuda::normed {

template <typename scalar_t>
__global__ void __launch_bounds__(kThreads)
    channel_norm_kernel(NormProjectShape shape, acc_type<scalar_t> eps,
                        const scalar_t* x,                 // [N, C, P]
                        const acc_type<scalar_t>* weight,  // [C]
                        const acc_type<scalar_t>* bias,    // [C]
                        scalar_t* out,                     // [N, C, P]
                        acc_type<scalar_t>* mean,          // [N, 1, P]
                        acc_type<scalar_t>* rstd)          // [N, 1, P]
{
  using acc_t = acc_type<scalar_t>;
  const Place<acc_t> place(shape, blockIdx.x);
  const Column<const scalar_t> from(x, shape.channels, shape.pixels, place);

  // Less the first channel: see forward_kernel.
  acc_t sum[kPixels<acc_t>] = {}, squares[kPixels<acc_t>] = {};
  const auto first = from.load();
  auto column = from;
#pragma unroll 4
  for (int64_t c = 0; c < shape.channels; ++c) {
    const auto raw = column.load_next();
#pragma unroll
    for (int j = 0; j < kPixels<acc_t>; ++j) {
      const acc_t y = widen(raw.lane[j]) - widen(first.lane[j]);
      sum[j] += y;
      squares[j] += y * y;
    }
  }
  acc_t center[kPixels<acc_t>], scale[kPixels<acc_t>];
#pragma unroll
  for (int j = 0; j < kPixels<acc_t>; ++j) {
    const acc_t shift = sum[j] / shape.channels;
    const acc_t variance = squares[j] / shape.channels - shift * shift;
    center[j] = widen(first.lane[j]) + shift;
    scale[j] = 1 / sqrt((variance < 0 ? 0 : variance) + eps);
    if (j < place.count && !(scale[j] > 0 && is_finite(scale[j]))) {
      statistics(
          shape, eps,
          x + place.image * shape.channels * shape.pixels + place.pixel + j,
          center[j], scale[j]);
    }
  }
  Column<acc_t>(mean, 1, shape.pixels, place).store_next(center);
  Column<acc_t>(rstd, 1, shape.pixels, place).store_next(scale);

  column = from;
  Column<scalar_t> to(out, shape.channels, shape.pixels, place);
#pragma unroll 4
  for (int64_t c = 0; c < shape.channels; ++c) {
    const auto raw = column.load_next();
    acc_t y[kPixels<acc_t>];
#pragma unroll
    for (int j = 0; j < kPixels<acc_t>; ++j) {
      y[j] = (widen(raw.lane[j]) - center[j]) * scale[j] * weight[c] + bias[c];
    }
    to.store_next(y);
  }
}

// With y = (x - mean) rstd and g = weight grad, for every pixel:
//   grad_x = rstd (g - mean of g - y (mean of g y))
template <typename scalar_t>
__global__ void __launch_bounds__(kThreads)
    channel_norm_grad_x_kernel(NormProjectShape shape,
                               const scalar_t* grad,              // [N, C, P]
                               const scalar_t* x,                 // [N, C, P]
                               const acc_type<scalar_t>* weight,  // [C]
                               const acc_type<scalar_t>* mean,    // [N, 1, P]
                               const acc_type<scalar_t>* rstd,    // [N, 1, P]
                               scalar_t* grad_x)                  // [N, C, P]
{
  using acc_t = acc_type<scalar_t>;
  const Place<acc_t> place(shape, blockIdx.x);
  const auto column = [&](auto* map, int64_t channels) {
    using element_t = std::remove_pointer_t<decltype(map)>;
    return Column<element_t>(map, channels, shape.pixels, place);
  };
  const auto center = column(mean, 1).load(), scale = column(rstd, 1).load();
  // Calls use(g, y) for every channel.
  const auto for_each = [&](auto use) {
    auto gradients = column(grad, shape.channels);
    auto maps = column(x, shape.channels);
#pragma unroll 4
    for (int64_t c = 0; c < shape.channels; ++c) {
      const auto grads = gradients.load_next();
      const auto raw = maps.load_next();
      acc_t g[kPixels<acc_t>], y[kPixels<acc_t>];
#pragma unroll
      for (int j = 0; j < kPixels<acc_t>; ++j) {
        g[j] = widen(grads.lane[j]) * weight[c];
        y[j] = (widen(raw.lane[j]) - center.lane[j]) * scale.lane[j];
      }
      use(g, y);
    }
  };
  acc_t sum[kPixels<acc_t>] = {}, product[kPixels<acc_t>] = {};
  for_each([&](auto& g, auto& y) {
#pragma unroll
    for (int j = 0; j < kPixels<acc_t>; ++j) {
      sum[j] += g[j];
      product[j] += g[j] * y[j];
    }
  });
  auto to = column(grad_x, shape.channels);
  for_each([&](auto& g, auto& y) {
    acc_t result[kPixels<acc_t>];
#pragma unroll
    for (int j = 0; j < kPixels<acc_t>; ++j) {
      result[j] = scale.lane[j] * (g[j] - sum[j] / shape.channels -
                                   y[j] * (product[j] / shape.channels));
    }
    to.store_next(result);
  });
}

// What the threads of a block have summed up.
template <typename acc_t>
struct Sums {
  acc_t weight[kThreads], bias[kThreads];
};

// Block: channel. Its threads share the pixels of all images.
template <typename scalar_t>
__global__ void __launch_bounds__(kThreads) channel_norm_grad_weight_kernel(
    NormProjectShape shape,
    const scalar_t* grad,             // [N, C, P]
    const scalar_t* x,                // [N, C, P]
    const acc_type<scalar_t>* mean,   // [N, 1, P]
    const acc_type<scalar_t>* rstd,   // [N, 1, P]
    acc_type<scalar_t>* grad_weight,  // [C]
    acc_type<scalar_t>* grad_bias)    // [C]
{
  using acc_t = acc_type<scalar_t>;
  MMSAPA_SHARED(shared, Sums<acc_t>);
  const int64_t channel = blockIdx.x;
  acc_t weight = 0, bias = 0;
  for (int64_t image = 0; image < shape.batch; ++image) {
    const int64_t plane = (image * shape.channels + channel) * shape.pixels;
#pragma unroll 4
    for (int64_t p = threadIdx.x; p < shape.pixels; p += kThreads) {
      const int64_t pixel = image * shape.pixels + p;
      const acc_t g = widen(grad[plane + p]);
      weight += g * ((widen(x[plane + p]) - mean[pixel]) * rstd[pixel]);
      bias += g;
    }
  }
  shared.weight[threadIdx.x] = weight;
  shared.bias[threadIdx.x] = bias;
  for (int half = kThreads / 2; half > 0; half /= 2) {
    __syncthreads();
    if (threadIdx.x < half) {
      shared.weight[threadIdx.x] += shared.weight[threadIdx.x + half];
      shared.bias[threadIdx.x] += shared.bias[threadIdx.x + half];
    }
  }
  if (threadIdx.x == 0) {
    grad_weight[channel] = shared.weight[0];
    grad_bias[channel] = shared.bias[0];
  }
}

}  // namespace mmsapa::cuda::normed
