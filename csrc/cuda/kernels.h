// Copyright (c) mmsapa contributors. SPDX-License-Identifier: Apache-2.0
//
// The CUDA side of SAPA over raw pointers: no PyTorch, so that nvcc alone
// compiles it.
//
// All maps are contiguous and of one type, scalar_t: float, double, __half or
// __nv_bfloat16. Sums are kept in float, for double in double. Nothing is
// added atomically, so results are the same in every run.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>

#include "shape.h"

namespace mmsapa::cuda {

enum class Op { kUpsample, kUpsampleBackward, kKernels, kKernelsBackward };

// Bytes of device memory `op` wants as its workspace; 0 where it wants none.
// Bounded: large calls are worked off in bands. Align it to 16 bytes.
template <typename scalar_t>
size_t workspace_bytes(Op op, const Shape& shape);

template <typename scalar_t>
cudaError_t upsample(const Shape& shape,
                     const scalar_t* query,  // [N, E, Hq, Wq]
                     const scalar_t* key,    // [N, E, H, W]
                     const scalar_t* value,  // [N, C, H, W]
                     scalar_t* out,          // [N, C, Hq, Wq]
                     void* workspace, cudaStream_t stream);

// A gradient whose pointer is null is not computed.
template <typename scalar_t>
cudaError_t upsample_backward(const Shape& shape,
                              const scalar_t* grad_out,  // [N, C, Hq, Wq]
                              const scalar_t* query,     // [N, E, Hq, Wq]
                              const scalar_t* key,       // [N, E, H, W]
                              const scalar_t* value,     // [N, C, H, W]
                              scalar_t* grad_query,      // [N, E, Hq, Wq]
                              scalar_t* grad_key,        // [N, E, H, W]
                              scalar_t* grad_value,      // [N, C, H, W]
                              void* workspace, cudaStream_t stream);

template <typename scalar_t>
cudaError_t kernels(const Shape& shape,
                    const scalar_t* query,  // [N, E, Hq, Wq]
                    const scalar_t* key,    // [N, E, H, W]
                    scalar_t* weights,      // [N, K*K, Hq, Wq]
                    void* workspace, cudaStream_t stream);

// A gradient whose pointer is null is not computed.
template <typename scalar_t>
cudaError_t kernels_backward(const Shape& shape,
                             const scalar_t* grad_weights,  // [N, K*K, Hq, Wq]
                             const scalar_t* query,         // [N, E, Hq, Wq]
                             const scalar_t* key,           // [N, E, H, W]
                             scalar_t* grad_query,          // [N, E, Hq, Wq]
                             scalar_t* grad_key,            // [N, E, H, W]
                             void* workspace, cudaStream_t stream);

}  // namespace mmsapa::cuda
