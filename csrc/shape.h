// Copyright (c) mmsapa contributors. SPDX-License-Identifier: Apache-2.0
//
// Sizes of one call, shared by every device. Plain numbers, no PyTorch.
#pragma once

#include <cstdint>

#ifdef __CUDACC__
#define MMSAPA_HD __host__ __device__
#else
#define MMSAPA_HD
#endif

namespace mmsapa {

// query  [batch, embed, query_height, query_width]
// key    [batch, embed, height, width]
// value  [batch, channels, height, width]
// out    [batch, channels, query_height, query_width]
//
// The query (y, x) belongs to the cell (y / scale, x / scale) of the low-res
// map and sees the kernel_size x kernel_size cells around it. The last row
// and column of cells may hold fewer than `scale` queries:
// (height - 1) * scale < query_height <= height * scale.
struct Shape {
  int64_t batch;
  int64_t embed;
  int64_t channels;
  int64_t height;
  int64_t width;
  int64_t query_height;
  int64_t query_width;
  int64_t kernel_size;
  int64_t scale;

  MMSAPA_HD int64_t radius() const { return kernel_size / 2; }
  MMSAPA_HD int64_t window() const { return kernel_size * kernel_size; }
  MMSAPA_HD int64_t phases() const { return scale * scale; }
};

// Sizes of a normalization over channels, with a projection or without, which
// has as many outputs as channels.
//
// x      [batch, channels, pixels]
// weight [outputs, channels], of the projection
// out    [batch, outputs, pixels]
struct NormProjectShape {
  int64_t batch;
  int64_t channels;
  int64_t outputs;
  int64_t pixels;
};

}  // namespace mmsapa
