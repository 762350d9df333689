// Copyright (c) mmsapa contributors. SPDX-License-Identifier: Apache-2.0
//
// Kernels for any kernel size and scale, one sum each, with the window maps in
// memory: the workspace, or what reassembly is given. They serve what
// fused.cuh has no instance for, and double. A thread makes kBlocked results,
// so that what they share is read once.
//
// Included by kernels.cu alone.

namespace mmsapa::cuda::general {

constexpr int kBlocked = 8;
// On a multiprocessor at least. Left to itself the compiler aims at more, and
// spills.
constexpr int kBlocks = 4;

// A window map here is [images, K*K, rows, columns]: of all queries of the
// band's rows of cells, and of no others.
MMSAPA_HD inline int64_t map_rows(const Shape& shape, const Band& band) {
  return smaller(band.last * shape.scale, shape.query_height) -
         band.first * shape.scale;
}
MMSAPA_HD inline int64_t map_columns(const Shape& shape) {
  return shape.query_width;
}

// Splits a thread's running number into indices, the last one first.
struct Index {
  int64_t rest = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;

  __device__ int64_t next(int64_t size) {
    const int64_t index = rest % size;
    rest /= size;
    return index;
  }
};

// Pieces of at most kBlocked offsets that a window row is cut into.
MMSAPA_HD inline int64_t pieces(const Shape& shape) {
  return ceil_div(shape.kernel_size, kBlocked);
}

// Thread: image, window row, piece of it, query.
template <typename scalar_t, typename map_t>
__global__ void __launch_bounds__(kThreads, kBlocks)
    dot_kernel(Shape shape, Band band, int64_t channels,
               const scalar_t* high,             // [N, channels, Hq, Wq]
               const scalar_t* low,              // [N, channels, H, W]
               const acc_type<scalar_t>* prior,  // [S*S, K*K] or null
               map_t* window_map)  // [images, K*K, rows, columns]
{
  using acc_t = acc_type<scalar_t>;
  const int64_t rows = map_rows(shape, band), columns = map_columns(shape);
  Index index;
  const int64_t column = index.next(columns), row = index.next(rows);
  const int64_t dx = index.next(pieces(shape)) * kBlocked;
  const int64_t dy = index.next(shape.kernel_size);
  const int64_t image = index.rest;
  if (image >= band.images) return;

  const int64_t query_y = band.first * shape.scale + row;
  const int64_t y = query_y / shape.scale + dy - shape.radius();
  const int64_t x = column / shape.scale + dx - shape.radius();
  const int count =
      static_cast<int>(smaller(kBlocked, shape.kernel_size - dx));
  const bool row_inside = y >= 0 && y < shape.height;
  const auto inside = [&](int i) {
    return row_inside && i < count && x + i >= 0 && x + i < shape.width;
  };
  const int64_t plane = shape.height * shape.width;
  const int64_t high_plane = shape.query_height * shape.query_width;
  const int64_t first = (band.image + image) * channels;
  low += first * plane + y * shape.width;
  high += first * high_plane + query_y * shape.query_width + column;
  acc_t sum[kBlocked] = {};
  if (prior) {
    const int64_t phase =
        row % shape.scale * shape.scale + column % shape.scale;
    prior += phase * shape.window() + dy * shape.kernel_size + dx;
#pragma unroll
    for (int i = 0; i < kBlocked; ++i) {
      sum[i] = inside(i) ? prior[i] : -static_cast<acc_t>(INFINITY);
    }
  }
  for (int64_t c = 0; c < channels; ++c) {
    const acc_t scale = widen(high[c * high_plane]);
#pragma unroll
    for (int i = 0; i < kBlocked; ++i) {
      // Outside are zeros, of which a NaN makes more of its kind.
      sum[i] += scale * (inside(i) ? widen(low[c * plane + x + i]) : acc_t(0));
    }
  }
  const int64_t offset = image * shape.window() + dy * shape.kernel_size + dx;
  window_map += (offset * rows + row) * columns + column;
#pragma unroll
  for (int i = 0; i < kBlocked; ++i) {
    if (i < count) window_map[i * rows * columns] = narrow<map_t>(sum[i]);
  }
}

// Thread: image, query. In place.
template <typename acc_t>
__global__ void __launch_bounds__(kThreads, kBlocks)
    softmax_kernel(Shape shape, Band band,
                   acc_t* window_map)  // [images, K*K, rows, columns]
{
  const int64_t rows = map_rows(shape, band), columns = map_columns(shape);
  Index index;
  const int64_t column = index.next(columns), row = index.next(rows);
  const int64_t image = index.rest;
  if (image >= band.images) return;

  const int64_t window = shape.window(), step = rows * columns;
  window_map += (image * window * rows + row) * columns + column;
  acc_t highest = window_map[0];
  for (int64_t o = 1; o < window; ++o) {
    highest = fmax(highest, window_map[o * step]);
  }
  acc_t sum = 0;
  for (int64_t o = 0; o < window; ++o) {
    sum += exp(window_map[o * step] - highest);
  }
  for (int64_t o = 0; o < window; ++o) {
    window_map[o * step] = exp(window_map[o * step] - highest) / sum;
  }
}

// Thread: image, query. Turns `grads` from dP into dS.
template <typename acc_t>
__global__ void __launch_bounds__(kThreads, kBlocks)
    softmax_backward_kernel(Shape shape, Band band,
                            const acc_t* weights,  // [images, K*K, rows, cols]
                            acc_t* grads)          // [images, K*K, rows, cols]
{
  const int64_t rows = map_rows(shape, band), columns = map_columns(shape);
  Index index;
  const int64_t column = index.next(columns), row = index.next(rows);
  const int64_t image = index.rest;
  if (image >= band.images) return;

  const int64_t window = shape.window(), step = rows * columns;
  const int64_t start = (image * window * rows + row) * columns + column;
  acc_t delta = 0;
  for (int64_t o = 0; o < window; ++o) {
    delta += weights[start + o * step] * grads[start + o * step];
  }
  for (int64_t o = 0; o < window; ++o) {
    const int64_t at = start + o * step;
    grads[at] = weights[at] * (grads[at] - delta);
  }
}

// Thread: image, kBlocked channels, query.
template <typename scalar_t, typename map_t>
__global__ void __launch_bounds__(kThreads, kBlocks)
    aggregate_kernel(Shape shape, Band band, int64_t channels,
                     const map_t* window_map,  // [images, K*K, rows, columns]
                     const scalar_t* low,      // [N, channels, H, W]
                     scalar_t* high)           // [N, channels, Hq, Wq]
{
  using acc_t = acc_type<scalar_t>;
  const int64_t rows = map_rows(shape, band), columns = map_columns(shape);
  Index index;
  const int64_t query_x = index.next(shape.query_width);
  const int64_t query_y = band.begin * shape.scale +
                          index.next((band.end - band.begin) * shape.scale);
  const int64_t channel = index.next(ceil_div(channels, kBlocked)) * kBlocked;
  const int64_t image = index.rest;
  if (image >= band.images || query_y >= shape.query_height) return;

  const int64_t row = query_y - band.first * shape.scale;
  const int64_t y = query_y / shape.scale - shape.radius();
  const int64_t x = query_x / shape.scale - shape.radius();
  const int count = static_cast<int>(smaller(kBlocked, channels - channel));
  const int64_t plane = shape.height * shape.width;
  const int64_t high_plane = shape.query_height * shape.query_width;
  const int64_t first = (band.image + image) * channels + channel;
  low += first * plane;
  high += first * high_plane + query_y * shape.query_width + query_x;
  window_map += (image * shape.window() * rows + row) * columns + query_x;

  acc_t sum[kBlocked] = {};
  for (int64_t dy = 0; dy < shape.kernel_size; ++dy) {
    const bool row_inside = y + dy >= 0 && y + dy < shape.height;
    for (int64_t dx = 0; dx < shape.kernel_size; ++dx) {
      const bool inside = row_inside && x + dx >= 0 && x + dx < shape.width;
      const acc_t weight =
          widen(window_map[(dy * shape.kernel_size + dx) * rows * columns]);
      const int64_t cell = (y + dy) * shape.width + x + dx;
#pragma unroll
      for (int i = 0; i < kBlocked; ++i) {
        sum[i] += weight * (inside && i < count ? widen(low[i * plane + cell])
                                                : acc_t(0));
      }
    }
  }
#pragma unroll
  for (int i = 0; i < kBlocked; ++i) {
    if (i < count) high[i * high_plane] = narrow<scalar_t>(sum[i]);
  }
}

// Thread: image, kBlocked channels, key.
template <typename scalar_t, typename map_t>
__global__ void __launch_bounds__(kThreads, kBlocks)
    gather_kernel(Shape shape, Band band, int64_t channels,
                  const map_t* window_map,  // [images, K*K, rows, columns]
                  const scalar_t* high,     // [N, channels, Hq, Wq]
                  scalar_t* low)            // [N, channels, H, W]
{
  using acc_t = acc_type<scalar_t>;
  const int64_t rows = map_rows(shape, band), columns = map_columns(shape);
  Index index;
  const int64_t x = index.next(shape.width);
  const int64_t y = band.begin + index.next(band.end - band.begin);
  const int64_t channel = index.next(ceil_div(channels, kBlocked)) * kBlocked;
  const int64_t image = index.rest;
  if (image >= band.images) return;

  const int64_t scale = shape.scale, radius = shape.radius();
  const int count = static_cast<int>(smaller(kBlocked, channels - channel));
  const int64_t plane = shape.height * shape.width;
  const int64_t high_plane = shape.query_height * shape.query_width;
  const int64_t first = (band.image + image) * channels + channel;
  high += first * high_plane;
  low += first * plane + y * shape.width + x;
  window_map += image * shape.window() * rows * columns;

  const int64_t y_begin = larger(y - radius, 0);
  const int64_t y_end = smaller(y + radius + 1, shape.height);
  const int64_t x_begin = larger(x - radius, 0);
  const int64_t x_end = smaller(x + radius + 1, shape.width);
  acc_t sum[kBlocked] = {};
  for (int64_t cell_y = y_begin; cell_y < y_end; ++cell_y) {
    for (int64_t cell_x = x_begin; cell_x < x_end; ++cell_x) {
      const int64_t offset =
          (y - cell_y + radius) * shape.kernel_size + x - cell_x + radius;
      const map_t* weights =
          window_map + offset * rows * columns - band.first * scale * columns;
      const int64_t bottom = smaller((cell_y + 1) * scale, shape.query_height);
      const int64_t right = smaller((cell_x + 1) * scale, shape.query_width);
      for (int64_t query_y = cell_y * scale; query_y < bottom; ++query_y) {
        for (int64_t query_x = cell_x * scale; query_x < right; ++query_x) {
          const acc_t weight = widen(weights[query_y * columns + query_x]);
          const int64_t query = query_y * shape.query_width + query_x;
#pragma unroll
          for (int i = 0; i < kBlocked; ++i) {
            if (i < count) {
              sum[i] += weight * widen(high[i * high_plane + query]);
            }
          }
        }
      }
    }
  }
#pragma unroll
  for (int i = 0; i < kBlocked; ++i) {
    if (i < count) low[i * plane] = narrow<scalar_t>(sum[i]);
  }
}

}  // namespace mmsapa::cuda::general
