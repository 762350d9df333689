// Copyright (c) mmsapa contributors. SPDX-License-Identifier: Apache-2.0
//
// The CUDA side of SAPA over raw pointers: no PyTorch, so that nvcc alone
// compiles it.
//
// All maps are contiguous and of one type, scalar_t: float, double, __half or
// __nv_bfloat16. Sums are kept in float, for double in double. Nothing is
// added atomically, so results are the same in every run. A prior is added to
// the logits, and where there is one, cells outside the map take no part.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "shape.h"

namespace mmsapa::cuda {

// What sums are kept in; and weights, biases and statistics of norm_project.
template <typename scalar_t>
using acc_type =
    std::conditional_t<std::is_same_v<std::remove_const_t<scalar_t>, double>,
                       double, float>;

enum class Op { kUpsample, kUpsampleBackward };

// Bytes of device memory `op` wants as its workspace; 0 where it wants none.
// Bounded: large calls are processed in bands of rows. Align it to 16 bytes.
template <typename scalar_t>
size_t workspace_bytes(Op op, const Shape& shape);

template <typename scalar_t>
cudaError_t upsample(const Shape& shape,
                     const scalar_t* query,            // [N, E, Hq, Wq]
                     const scalar_t* key,              // [N, E, H, W]
                     const scalar_t* value,            // [N, C, H, W]
                     const acc_type<scalar_t>* prior,  // [S*S, K*K] or null
                     scalar_t* out,                    // [N, C, Hq, Wq]
                     void* workspace, cudaStream_t stream);

// A gradient whose pointer is null is not computed.
template <typename scalar_t>
cudaError_t upsample_backward(const Shape& shape,
                              const scalar_t* grad_out,  // [N, C, Hq, Wq]
                              const scalar_t* query,     // [N, E, Hq, Wq]
                              const scalar_t* key,       // [N, E, H, W]
                              const scalar_t* value,     // [N, C, H, W]
                              const acc_type<scalar_t>* prior,  // as above
                              scalar_t* grad_query,  // [N, E, Hq, Wq]
                              scalar_t* grad_key,    // [N, E, H, W]
                              scalar_t* grad_value,  // [N, C, H, W]
                              void* workspace, cudaStream_t stream);

template <typename scalar_t>
cudaError_t reassemble(const Shape& shape,
                       const scalar_t* weights,  // [N, K*K, Hq, Wq]
                       const scalar_t* value,    // [N, C, H, W]
                       scalar_t* out,            // [N, C, Hq, Wq]
                       cudaStream_t stream);

// A gradient whose pointer is null is not computed.
template <typename scalar_t>
cudaError_t reassemble_backward(const Shape& shape,
                                const scalar_t* grad,     // [N, C, Hq, Wq]
                                const scalar_t* weights,  // [N, K*K, Hq, Wq]
                                const scalar_t* value,    // [N, C, H, W]
                                scalar_t* grad_weights,   // [N, K*K, Hq, Wq]
                                scalar_t* grad_value,     // [N, C, H, W]
                                cudaStream_t stream);

// The rows of weight sum to 0.
template <typename scalar_t>
cudaError_t norm_project(const NormProjectShape& shape,
                         const scalar_t* x,                 // [N, C, P]
                         const acc_type<scalar_t>* weight,  // [E, C]
                         const acc_type<scalar_t>* bias,    // [E]
                         double eps,
                         scalar_t* out,             // [N, E, P]
                         acc_type<scalar_t>* mean,  // [N, 1, P]
                         acc_type<scalar_t>* rstd,  // [N, 1, P]
                         cudaStream_t stream);

// Parts that the gradient of the weight is made in, to be added up.
int64_t grad_weight_parts(const NormProjectShape& shape);

// Whether the gradient of x is made in several steps, which need `partial`.
bool needs_partial(const NormProjectShape& shape);

// A gradient whose pointer is null is not computed.
template <typename scalar_t>
cudaError_t norm_project_backward(
    const NormProjectShape& shape,
    const scalar_t* grad,              // [N, E, P]
    const scalar_t* x,                 // [N, C, P]
    const acc_type<scalar_t>* weight,  // [E, C]
    const acc_type<scalar_t>* bias,    // [E]
    const scalar_t* out,               // [N, E, P]
    const acc_type<scalar_t>* mean,    // [N, 1, P]
    const acc_type<scalar_t>* rstd,    // [N, 1, P]
    acc_type<scalar_t>* partial,       // [N, C, P] if needed
    scalar_t* grad_x,                  // [N, C, P]
    acc_type<scalar_t>* grad_weight,   // [parts, E, C]
    cudaStream_t stream);

template <typename scalar_t>
cudaError_t channel_norm(const NormProjectShape& shape,
                         const scalar_t* x,                 // [N, C, P]
                         const acc_type<scalar_t>* weight,  // [C]
                         const acc_type<scalar_t>* bias,    // [C]
                         double eps,
                         scalar_t* out,             // [N, C, P]
                         acc_type<scalar_t>* mean,  // [N, 1, P]
                         acc_type<scalar_t>* rstd,  // [N, 1, P]
                         cudaStream_t stream);

// A gradient whose pointer is null is not computed; those of weight and bias
// come together.
template <typename scalar_t>
cudaError_t channel_norm_backward(const NormProjectShape& shape,
                                  const scalar_t* grad,  // [N, C, P]
                                  const scalar_t* x,     // [N, C, P]
                                  const acc_type<scalar_t>* weight,  // [C]
                                  const acc_type<scalar_t>* mean,  // [N, 1, P]
                                  const acc_type<scalar_t>* rstd,  // [N, 1, P]
                                  scalar_t* grad_x,                // [N, C, P]
                                  acc_type<scalar_t>* grad_weight,  // [C]
                                  acc_type<scalar_t>* grad_bias,    // [C]
                                  cudaStream_t stream);

}  // namespace mmsapa::cuda
