// Copyright (c) mmsapa contributors. SPDX-License-Identifier: Apache-2.0
//
// The CUDA kernels, and how a call is cut into launches of them: in bands of
// rows, so that what it keeps fits a workspace.
//
// Everything SAPA does is one of three sums over the window of a cell, and
// the fused and the general kernels are built of them:
//
//   dot        window map[p, o] = sum over c of high[c, p] low[c, cell(p) + o]
//   aggregate  high[c, p]       = sum over o of window map[p, o]
//                                               low[c, cell(p) + o]
//   gather     low[c, k]        = sum over the (p, o) with cell(p) + o = k of
//                                 window map[p, o] high[c, p]
//
// Reassembly is aggregate(weights, value) of weights that are given, and its
// gradients dot(grad_out, value) and gather(weights, grad_out). SAPA: with P =
// softmax(dot(query, key)), out = aggregate(P, value), and backward
// dP = dot(grad_out, value), dS = P (dP - sum of P dP), grad_query =
// aggregate(dS, key), grad_key = gather(dS, query), grad_value =
// gather(P, grad_out). Low-res maps read as 0 outside, before the softmax.
// With a prior, dot(query, key) begins with it, and outside with -infinity.
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "kernels.h"
#ifdef __CUDACC__
#include <cuda_pipeline_primitives.h>
#endif

#include <cmath>

// The only launch and the only shared memory there are; a test may define
// them, and the copies of cuda_pipeline_primitives.h, to run the kernels
// elsewhere.
#ifndef MMSAPA_LAUNCH
#define MMSAPA_LAUNCH(kernel, blocks, threads, stream, ...) \
  kernel<<<blocks, threads, 0, stream>>>(__VA_ARGS__)
#define MMSAPA_SHARED(name, ...) __shared__ __VA_ARGS__ name
#endif

// The most a workspace takes, unless a single row of cells needs more.
#ifndef MMSAPA_WORKSPACE_BYTES
#define MMSAPA_WORKSPACE_BYTES (int64_t{64} << 20)
#endif

// ---- what the kernels share -----------------------------------------------

namespace mmsapa::cuda {

// One-dimensional blocks everywhere: y and z of a grid end at 65535.
constexpr int kThreads = 128;
constexpr int kWarps = kThreads / 32;

// PyTorch compiles with the implicit half conversions switched off.
__device__ inline float widen(float v) { return v; }
__device__ inline double widen(double v) { return v; }
__device__ inline float widen(__half v) { return __half2float(v); }
__device__ inline float widen(__nv_bfloat16 v) { return __bfloat162float(v); }

template <typename scalar_t>
__device__ inline scalar_t narrow(acc_type<scalar_t> v) {
  return v;
}
template <>
__device__ inline __half narrow<__half>(float v) {
  return __float2half(v);
}
template <>
__device__ inline __nv_bfloat16 narrow<__nv_bfloat16>(float v) {
  return __float2bfloat16(v);
}

// S numbers to be moved at once.
template <typename scalar_t, int S>
struct alignas(S * sizeof(scalar_t)) Pack {
  scalar_t lane[S];
};

// Of an asynchronous copy: the fewest there may be.
constexpr int kWordBytes = 4;

// For those that the thread itself has begun. Others see what it has copied
// behind a barrier after that.
__device__ inline void wait_for_copies() {
  __pipeline_commit();
  __pipeline_wait_prior(0);
  // The compiler does not know that the copies write: what is read behind
  // here must not be read before.
  asm volatile("" ::: "memory");
}

MMSAPA_HD constexpr int64_t ceil_div(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}
MMSAPA_HD constexpr int64_t smaller(int64_t a, int64_t b) {
  return a < b ? a : b;
}
MMSAPA_HD constexpr int64_t larger(int64_t a, int64_t b) {
  return a > b ? a : b;
}

// The part of a call that one round of launches works on, so that its window
// maps fit the workspace: whole images, or rows of cells of one image.
//
// Rows [begin, end) get their results. Backward keeps window maps of [first,
// last), a radius more on each side: from there too the keys of [begin, end)
// are seen.
struct Band {
  int64_t image;
  int64_t images;
  int64_t begin;
  int64_t end;
  int64_t first;
  int64_t last;
};

// Fused kernels work on whole tiles of cells, a cell a thread, and keep window
// maps tile by tile. So the workspace has room for whole tiles.
constexpr int kTileX = 32;  // a warp's width
constexpr int kTileY = kThreads / kTileX;

MMSAPA_HD inline int64_t tiles_x(const Shape& shape) {
  return ceil_div(shape.width, kTileX);
}
MMSAPA_HD inline int64_t tiles_y(const Band& band) {
  return ceil_div(band.last - band.first, kTileY);
}
MMSAPA_HD inline int64_t tiles(const Shape& shape, const Band& band) {
  return band.images * tiles_y(band) * tiles_x(shape);
}
// Numbers of one window map.
MMSAPA_HD inline int64_t map_size(const Shape& shape, const Band& band) {
  return tiles(shape, band) * kThreads * shape.window() * shape.phases();
}

}  // namespace mmsapa::cuda

// clang-format off
#include "fused.cuh"
#include "gather.cuh"
#include "general.cuh"
#include "norm_project.cuh"
#include "channel_norm.cuh"
// clang-format on

// ---- launches -------------------------------------------------------------

#define MMSAPA_TRY(call)                    \
  do {                                      \
    const cudaError_t error = (call);       \
    if (error != cudaSuccess) return error; \
  } while (false)

namespace mmsapa::cuda {
namespace {

template <typename... Params, typename... Args>
cudaError_t launch(void (*kernel)(Params...), int64_t blocks,
                   cudaStream_t stream, Args... args) {
  if (blocks == 0) return cudaSuccess;
  if (blocks > INT32_MAX) return cudaErrorInvalidConfiguration;
  MMSAPA_LAUNCH(kernel, static_cast<unsigned>(blocks), kThreads, stream,
                args...);
  return cudaGetLastError();
}

// Calls run with the fused kernels' K and S and returns true, or returns
// false where there is no instance. Double has none: a cell's window maps
// would not fit the registers.
template <int kernel_size, int scale>
struct Instance {
  static constexpr int K = kernel_size;
  static constexpr int S = scale;
};

template <typename scalar_t, typename Run>
bool fused_instance(const Shape& shape, Run run) {
  if constexpr (sizeof(scalar_t) <= sizeof(float)) {
    if (shape.scale == 2 && shape.kernel_size == 5) {
      run(Instance<5, 2>());
      return true;
    }
    if (shape.scale == 2 && shape.kernel_size == 3) {
      run(Instance<3, 2>());
      return true;
    }
  }
  return false;
}

template <typename scalar_t>
bool is_fused(const Shape& shape) {
  return fused_instance<scalar_t>(shape, [](auto) {});
}

// Everything at once, for calls that keep no window map.
Band whole(const Shape& shape) {
  return {0, shape.batch, 0, shape.height, 0, shape.height};
}

// Two for each multiprocessor of a large GPU. Calls that make fewer are split
// more finely, at the price of some work done twice.
constexpr int64_t kEnoughBlocks = 256;

// Runs that the channels are cut into, of at least `least` channels.
int64_t parts_of(const Shape& shape, int64_t least) {
  const int64_t wanted = kEnoughBlocks / larger(tiles(shape, whole(shape)), 1);
  return larger(smaller(wanted, shape.channels / least), 1);
}
// Each makes the weights again, on multiprocessors that would idle.
int64_t forward_parts(const Shape& shape) { return parts_of(shape, 8); }
// Each writes a window map, for one thread a query to add up.
int64_t backward_parts(const Shape& shape) { return parts_of(shape, 32); }

// How a call that keeps `maps` window maps is cut into bands.
struct Bands {
  int64_t images;
  int64_t rows;
  int64_t halo;   // rows kept on each side of the `rows`
  int64_t bytes;  // of all window maps of a band

  Bands(const Shape& shape, int64_t maps, int64_t halo_rows, size_t size)
      : halo(halo_rows) {
    const int64_t tiles = ceil_div(shape.height, kTileY);
    const int64_t row = maps * map_size(shape, Band{0, 1, 0, 1, 0, 1}) *
                        static_cast<int64_t>(size);  // of tiles
    const int64_t fit = row > 0 ? MMSAPA_WORKSPACE_BYTES / row : tiles;
    if (fit >= tiles) {
      rows = larger(shape.height, 1);
      images = larger(smaller(fit / larger(tiles, 1), shape.batch), 1);
    } else {
      rows = larger(fit * kTileY - 2 * halo, 1);
      images = 1;
    }
    const int64_t kept = smaller(rows + 2 * halo, shape.height);
    bytes = images * ceil_div(kept, kTileY) * row;
  }

  template <typename Run>
  cudaError_t for_each(const Shape& shape, Run run) const {
    for (int64_t image = 0; image < shape.batch; image += images) {
      for (int64_t row = 0; row < shape.height; row += rows) {
        const int64_t end = smaller(row + rows, shape.height);
        MMSAPA_TRY(run(Band{image, smaller(images, shape.batch - image), row,
                            end, larger(row - halo, 0),
                            smaller(end + halo, shape.height)}));
      }
    }
    return cudaSuccess;
  }
};

template <typename scalar_t>
Bands bands_of(Op op, const Shape& shape) {
  const bool backward = op == Op::kUpsampleBackward;
  const int64_t grads = is_fused<scalar_t>(shape) ? backward_parts(shape) : 1;
  return Bands(shape, backward ? 1 + grads : 1, backward ? shape.radius() : 0,
               sizeof(acc_type<scalar_t>));
}

// Blocks for one thread an item of the band's window maps, `each` items a
// query.
int64_t blocks_for(const Shape& shape, const Band& band, int64_t each) {
  return ceil_div(band.images * each * general::map_rows(shape, band) *
                      general::map_columns(shape),
                  kThreads);
}

// window_map: [images, K*K, rows, columns]
template <typename scalar_t, typename map_t>
cudaError_t general_dot(const Shape& shape, const Band& band, int64_t channels,
                        const scalar_t* high, const scalar_t* low,
                        const acc_type<scalar_t>* prior, map_t* window_map,
                        cudaStream_t stream) {
  const int64_t each = shape.kernel_size * general::pieces(shape);
  return launch(general::dot_kernel<scalar_t, map_t>,
                blocks_for(shape, band, each), stream, shape, band, channels,
                high, low, prior, window_map);
}

template <typename acc_t>
cudaError_t general_softmax(const Shape& shape, const Band& band,
                            acc_t* window_map, cudaStream_t stream) {
  return launch(general::softmax_kernel<acc_t>, blocks_for(shape, band, 1),
                stream, shape, band, window_map);
}

template <typename scalar_t, typename map_t>
cudaError_t general_aggregate(const Shape& shape, const Band& band,
                              int64_t channels, const map_t* window_map,
                              const scalar_t* low, scalar_t* high,
                              cudaStream_t stream) {
  const int64_t threads = band.images * ceil_div(channels, general::kBlocked) *
                          (band.end - band.begin) * shape.scale *
                          shape.query_width;
  return launch(general::aggregate_kernel<scalar_t, map_t>,
                ceil_div(threads, kThreads), stream, shape, band, channels,
                window_map, low, high);
}

template <typename scalar_t, typename map_t>
cudaError_t general_gather(const Shape& shape, const Band& band,
                           int64_t channels, const map_t* window_map,
                           const scalar_t* high, scalar_t* low,
                           cudaStream_t stream) {
  const int64_t threads = band.images * ceil_div(channels, general::kBlocked) *
                          (band.end - band.begin) * shape.width;
  return launch(general::gather_kernel<scalar_t, map_t>,
                ceil_div(threads, kThreads), stream, shape, band, channels,
                window_map, high, low);
}

// low: [N, channels, H, W], from high: [N, channels, Hq, Wq]
template <typename scalar_t>
cudaError_t gather(const Shape& shape, const Band& band, int64_t channels,
                   const acc_type<scalar_t>* window_map, const scalar_t* high,
                   scalar_t* low, cudaStream_t stream) {
  cudaError_t error = cudaSuccess;
  const auto run = [&](auto instance) {
    using I = decltype(instance);
    const auto* map =
        reinterpret_cast<const fused::Phases<I::S, scalar_t>*>(window_map);
    const auto with = [&](auto kernel, int64_t blocks) {
      error = launch(kernel, blocks, stream, shape, band, channels, map, high,
                     low);
    };
    using Narrow = fused::Gather<I::K, I::S, 1, scalar_t>;
    using Wide = fused::Gather<I::K, I::S, 4, scalar_t>;
    const int64_t blocks = Wide::blocks(shape, band, channels);
    // The embedding is often narrow, and small maps make few blocks.
    if (channels <= 32 || blocks < kEnoughBlocks) {
      with(fused::gather_kernel<I::K, I::S, 1, scalar_t>,
           Narrow::blocks(shape, band, channels));
    } else {
      with(fused::gather_kernel<I::K, I::S, 4, scalar_t>, blocks);
    }
  };
  if (fused_instance<scalar_t>(shape, run)) return error;
  return general_gather(shape, band, channels, window_map, high, low, stream);
}

template <typename scalar_t>
struct Backward {
  const Shape& shape;
  const scalar_t* grad_out;         // [N, C, Hq, Wq]
  const scalar_t* query;            // [N, E, Hq, Wq]
  const scalar_t* key;              // [N, E, H, W]
  const scalar_t* value;            // [N, C, H, W]
  const acc_type<scalar_t>* prior;  // [S*S, K*K] or null
  scalar_t* grad_query;             // [N, E, Hq, Wq] or null
  scalar_t* grad_key;               // [N, E, H, W] or null
  scalar_t* grad_value;             // [N, C, H, W] or null
  cudaStream_t stream;

  using acc_t = acc_type<scalar_t>;

  cudaError_t run(void* workspace) const {
    if (!grad_query && !grad_key && !grad_value) return cudaSuccess;
    return bands_of<scalar_t>(Op::kUpsampleBackward, shape)
        .for_each(shape, [&](const Band& band) {
          acc_t* weights = static_cast<acc_t*>(workspace);
          acc_t* grads = weights + map_size(shape, band);
          MMSAPA_TRY(query_pass(band, weights, grads));
          if (grad_value) {
            MMSAPA_TRY(gather(shape, band, shape.channels, weights, grad_out,
                              grad_value, stream));
          }
          if (grad_key) {
            MMSAPA_TRY(gather(shape, band, shape.embed, grads, query, grad_key,
                              stream));
          }
          return cudaSuccess;
        });
  }

  // weights, grads: [images, K*K, rows, columns], to become P and dS
  cudaError_t query_pass(const Band& band, acc_t* weights,
                         acc_t* grads) const {
    cudaError_t error = cudaSuccess;
    const auto run = [&](auto instance) {
      using I = decltype(instance);
      auto* maps = reinterpret_cast<fused::Phases<I::S, scalar_t>*>(weights);
      const bool wanted = grad_query || grad_key;
      const int64_t parts = wanted ? backward_parts(shape) : 0;
      error = launch(fused::window_maps_kernel<I::K, I::S, scalar_t>,
                     tiles(shape, band) * (1 + parts), stream, shape, band,
                     parts, query, key, value, prior, grad_out, maps);
      if (!wanted || error != cudaSuccess) return;
      error = launch(fused::softmax_backward_kernel<I::K, I::S, acc_t>,
                     tiles(shape, band) * I::S * I::S, stream, shape, band,
                     parts, weights);
      if (!grad_query || error != cudaSuccess) return;
      error = launch(fused::aggregate_kernel<I::K, I::S, scalar_t>,
                     tiles(shape, band), stream, shape, band, shape.embed,
                     maps + map_size(shape, band) / (I::S * I::S), key,
                     grad_query);
    };
    if (fused_instance<scalar_t>(shape, run)) return error;

    MMSAPA_TRY(general_dot(shape, band, shape.embed, query, key, prior,
                           weights, stream));
    MMSAPA_TRY(general_softmax(shape, band, weights, stream));
    if (!grad_query && !grad_key) return cudaSuccess;
    MMSAPA_TRY(general_dot(shape, band, shape.channels, grad_out, value,
                           nullptr, grads, stream));
    MMSAPA_TRY(launch(general::softmax_backward_kernel<acc_t>,
                      blocks_for(shape, band, 1), stream, shape, band, weights,
                      grads));
    if (!grad_query) return cudaSuccess;
    return general_aggregate(shape, band, shape.embed, grads, key, grad_query,
                             stream);
  }
};

// Outputs of a thread of norm_project: SAPA embeds in 32 channels, and a gate
// adds one.
constexpr int kOutputs = 32;
constexpr int kMoreOutputs = 36;

// Calls run with them as a constant.
template <typename Run>
cudaError_t with_outputs(const NormProjectShape& shape, Run run) {
  if (shape.outputs > kOutputs && shape.outputs <= kMoreOutputs) {
    return run(std::integral_constant<int, kMoreOutputs>());
  }
  return run(std::integral_constant<int, kOutputs>());
}

}  // namespace

template <typename scalar_t>
size_t workspace_bytes(Op op, const Shape& shape) {
  if (op == Op::kUpsample && is_fused<scalar_t>(shape)) return 0;
  return static_cast<size_t>(bands_of<scalar_t>(op, shape).bytes);
}

template <typename scalar_t>
cudaError_t upsample(const Shape& shape, const scalar_t* query,
                     const scalar_t* key, const scalar_t* value,
                     const acc_type<scalar_t>* prior, scalar_t* out,
                     void* workspace, cudaStream_t stream) {
  cudaError_t error = cudaSuccess;
  const auto run = [&](auto instance) {
    using I = decltype(instance);
    const Band band = whole(shape);
    const int64_t parts = forward_parts(shape);
    error = launch(fused::upsample_kernel<I::K, I::S, scalar_t>,
                   tiles(shape, band) * parts, stream, shape, band, parts,
                   query, key, value, prior, out);
  };
  if (fused_instance<scalar_t>(shape, run)) return error;

  auto* weights = static_cast<acc_type<scalar_t>*>(workspace);
  return bands_of<scalar_t>(Op::kUpsample, shape)
      .for_each(shape, [&](const Band& band) {
        MMSAPA_TRY(general_dot(shape, band, shape.embed, query, key, prior,
                               weights, stream));
        MMSAPA_TRY(general_softmax(shape, band, weights, stream));
        return general_aggregate(shape, band, shape.channels, weights, value,
                                 out, stream);
      });
}

template <typename scalar_t>
cudaError_t upsample_backward(const Shape& shape, const scalar_t* grad_out,
                              const scalar_t* query, const scalar_t* key,
                              const scalar_t* value,
                              const acc_type<scalar_t>* prior,
                              scalar_t* grad_query, scalar_t* grad_key,
                              scalar_t* grad_value, void* workspace,
                              cudaStream_t stream) {
  const Backward<scalar_t> backward{shape,      grad_out, query,      key,
                                    value,      prior,    grad_query, grad_key,
                                    grad_value, stream};
  return backward.run(workspace);
}

template <typename scalar_t>
cudaError_t reassemble(const Shape& shape, const scalar_t* weights,
                       const scalar_t* value, scalar_t* out,
                       cudaStream_t stream) {
  return general_aggregate(shape, whole(shape), shape.channels, weights, value,
                           out, stream);
}

template <typename scalar_t>
cudaError_t reassemble_backward(const Shape& shape, const scalar_t* grad,
                                const scalar_t* weights, const scalar_t* value,
                                scalar_t* grad_weights, scalar_t* grad_value,
                                cudaStream_t stream) {
  const Band band = whole(shape);
  if (grad_weights) {
    MMSAPA_TRY(general_dot(shape, band, shape.channels, grad, value, nullptr,
                           grad_weights, stream));
  }
  if (!grad_value) return cudaSuccess;
  return general_gather(shape, band, shape.channels, weights, grad, grad_value,
                        stream);
}

template <typename scalar_t>
cudaError_t norm_project(const NormProjectShape& shape, const scalar_t* x,
                         const acc_type<scalar_t>* weight,
                         const acc_type<scalar_t>* bias, double eps,
                         scalar_t* out, acc_type<scalar_t>* mean,
                         acc_type<scalar_t>* rstd, cudaStream_t stream) {
  return with_outputs(shape, [&](auto outputs) {
    return launch(normed::forward_kernel<outputs, scalar_t>,
                  normed::groups<outputs>(shape) *
                      normed::Place<acc_type<scalar_t>>::blocks(shape),
                  stream, shape, static_cast<acc_type<scalar_t>>(eps), x,
                  weight, bias, out, mean, rstd);
  });
}

int64_t grad_weight_parts(const NormProjectShape& shape) {
  int64_t tiles = 0;
  with_outputs(shape, [&](auto outputs) {
    tiles = normed::Outer<outputs, float>::tiles(shape);
    return cudaSuccess;
  });
  const int64_t runs = shape.batch * normed::runs(shape);
  return larger(smaller(2 * kEnoughBlocks / tiles, runs), 1) * kWarps;
}

bool needs_partial(const NormProjectShape& shape) {
  return shape.outputs > kMoreOutputs;
}

template <typename scalar_t>
cudaError_t norm_project_backward(
    const NormProjectShape& shape, const scalar_t* grad, const scalar_t* x,
    const acc_type<scalar_t>* weight, const acc_type<scalar_t>* bias,
    const scalar_t* out, const acc_type<scalar_t>* mean,
    const acc_type<scalar_t>* rstd, acc_type<scalar_t>* partial,
    scalar_t* grad_x, acc_type<scalar_t>* grad_weight, cudaStream_t stream) {
  return with_outputs(shape, [&](auto outputs) {
    if (grad_x) {
      MMSAPA_TRY(launch(normed::grad_x_kernel<outputs, scalar_t>,
                        normed::Place<acc_type<scalar_t>>::blocks(shape),
                        stream, shape, grad, x, weight, bias, out, mean, rstd,
                        partial, grad_x));
    }
    if (!grad_weight) return cudaSuccess;
    using O = normed::Outer<outputs, acc_type<scalar_t>>;
    const int64_t parts = grad_weight_parts(shape);
    return launch(normed::grad_weight_kernel<outputs, scalar_t>,
                  parts / kWarps * O::tiles(shape), stream, shape, parts, grad,
                  x, mean, rstd, grad_weight);
  });
}

template <typename scalar_t>
cudaError_t channel_norm(const NormProjectShape& shape, const scalar_t* x,
                         const acc_type<scalar_t>* weight,
                         const acc_type<scalar_t>* bias, double eps,
                         scalar_t* out, acc_type<scalar_t>* mean,
                         acc_type<scalar_t>* rstd, cudaStream_t stream) {
  return launch(normed::channel_norm_kernel<scalar_t>,
                normed::Place<acc_type<scalar_t>>::blocks(shape), stream,
                shape, static_cast<acc_type<scalar_t>>(eps), x, weight, bias,
                out, mean, rstd);
}

template <typename scalar_t>
cudaError_t channel_norm_backward(
    const NormProjectShape& shape, const scalar_t* grad, const scalar_t* x,
    const acc_type<scalar_t>* weight, const acc_type<scalar_t>* mean,
    const acc_type<scalar_t>* rstd, scalar_t* grad_x,
    acc_type<scalar_t>* grad_weight, acc_type<scalar_t>* grad_bias,
    cudaStream_t stream) {
  if (grad_x) {
    MMSAPA_TRY(launch(normed::channel_norm_grad_x_kernel<scalar_t>,
                      normed::Place<acc_type<scalar_t>>::blocks(shape), stream,
                      shape, grad, x, weight, mean, rstd, grad_x));
  }
  if (!grad_weight) return cudaSuccess;
  return launch(normed::channel_norm_grad_weight_kernel<scalar_t>,
                shape.channels, stream, shape, grad, x, mean, rstd,
                grad_weight, grad_bias);
}

#define MMSAPA_INSTANTIATE(scalar_t)                                         \
  template size_t workspace_bytes<scalar_t>(Op, const Shape&);               \
  template cudaError_t upsample(                                             \
      const Shape&, const scalar_t*, const scalar_t*, const scalar_t*,       \
      const acc_type<scalar_t>*, scalar_t*, void*, cudaStream_t);            \
  template cudaError_t upsample_backward(                                    \
      const Shape&, const scalar_t*, const scalar_t*, const scalar_t*,       \
      const scalar_t*, const acc_type<scalar_t>*, scalar_t*, scalar_t*,      \
      scalar_t*, void*, cudaStream_t);                                       \
  template cudaError_t reassemble(const Shape&, const scalar_t*,             \
                                  const scalar_t*, scalar_t*, cudaStream_t); \
  template cudaError_t reassemble_backward(                                  \
      const Shape&, const scalar_t*, const scalar_t*, const scalar_t*,       \
      scalar_t*, scalar_t*, cudaStream_t);                                   \
  template cudaError_t norm_project<scalar_t>(                               \
      const NormProjectShape&, const scalar_t*, const acc_type<scalar_t>*,   \
      const acc_type<scalar_t>*, double, scalar_t*, acc_type<scalar_t>*,     \
      acc_type<scalar_t>*, cudaStream_t);                                    \
  template cudaError_t norm_project_backward<scalar_t>(                      \
      const NormProjectShape&, const scalar_t*, const scalar_t*,             \
      const acc_type<scalar_t>*, const acc_type<scalar_t>*, const scalar_t*, \
      const acc_type<scalar_t>*, const acc_type<scalar_t>*,                  \
      acc_type<scalar_t>*, scalar_t*, acc_type<scalar_t>*, cudaStream_t);    \
  template cudaError_t channel_norm<scalar_t>(                               \
      const NormProjectShape&, const scalar_t*, const acc_type<scalar_t>*,   \
      const acc_type<scalar_t>*, double, scalar_t*, acc_type<scalar_t>*,     \
      acc_type<scalar_t>*, cudaStream_t);                                    \
  template cudaError_t channel_norm_backward<scalar_t>(                      \
      const NormProjectShape&, const scalar_t*, const scalar_t*,             \
      const acc_type<scalar_t>*, const acc_type<scalar_t>*,                  \
      const acc_type<scalar_t>*, scalar_t*, acc_type<scalar_t>*,             \
      acc_type<scalar_t>*, cudaStream_t);

MMSAPA_INSTANTIATE(float)
MMSAPA_INSTANTIATE(double)
MMSAPA_INSTANTIATE(__half)
MMSAPA_INSTANTIATE(__nv_bfloat16)

}  // namespace mmsapa::cuda
