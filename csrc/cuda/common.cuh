// Copyright (c) mmsapa contributors. SPDX-License-Identifier: Apache-2.0
//
// What the kernels share.
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
// With P = softmax(dot(query, key)), out = aggregate(P, value), and backward
// dP = dot(grad_out, value), dS = P (dP - sum of P dP), grad_query =
// aggregate(dS, key), grad_key = gather(dS, query), grad_value =
// gather(P, grad_out). Low-res maps read as 0 outside, before the softmax.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#ifdef __CUDACC__
#include <cuda_pipeline_primitives.h>
#endif
#include <cuda_runtime_api.h>

#include <cmath>
#include <cstdint>

#include "kernels.h"
#include "shape.h"

// The only launch there is; a test may define it, and the copies of
// cuda_pipeline_primitives.h, to run the kernels elsewhere.
#ifndef MMSAPA_LAUNCH
#define MMSAPA_LAUNCH(kernel, blocks, threads, stream, ...) \
  kernel<<<blocks, threads, 0, stream>>>(__VA_ARGS__)
#endif

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

template <typename... Params, typename... Args>
cudaError_t launch(void (*kernel)(Params...), int64_t blocks,
                   cudaStream_t stream, Args... args) {
  if (blocks == 0) return cudaSuccess;
  if (blocks > INT32_MAX) return cudaErrorInvalidConfiguration;
  MMSAPA_LAUNCH(kernel, static_cast<unsigned>(blocks), kThreads, stream,
                args...);
  return cudaGetLastError();
}

}  // namespace mmsapa::cuda
