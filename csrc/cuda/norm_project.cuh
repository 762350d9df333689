// Copyright (c) mmsapa contributors. SPDX-License-Identifier: Apache-2.0
//
// Layer normalization over channels and a projection, fused: the map is read
// once.
//
// A thread has neighboring pixels, and M outputs of them in registers:
// forward their sums, backward their gradients. So it needs every number of x
// once, a few channels ahead of time. The weights pass by in shared memory,
// fetched while those before are worked on.
//
// Gradient of the weight: there lanes are channels and outputs are in
// registers, while the pixels pass by in shared memory.
//
// Included by kernels.cu alone.

namespace mmsapa::cuda::normed {

constexpr int kAhead = 8;    // channels of x
constexpr int kStaged = 32;  // channels, or pixels, between two barriers

// A number in double takes two registers. So a thread has fewer pixels then,
// and a multiprocessor fewer blocks. From sm_100 on nvcc 13 takes more
// registers.
template <typename acc_t>
constexpr int kPixels = sizeof(acc_t) > sizeof(float) ? 1 : 2;
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 1000
template <typename acc_t>
constexpr int kBlocks = 2;
#else
template <typename acc_t>
constexpr int kBlocks = sizeof(acc_t) > sizeof(float) ? 2 : 3;
#endif

// Of M outputs; one at least, for mean, rstd and grad_x are wanted anyway.
template <int M>
MMSAPA_HD int64_t groups(const NormProjectShape& shape) {
  return larger(ceil_div(shape.outputs, M), 1);
}

// Numbers of M outputs, side by side. Threads write them in columns: an odd
// number of packs spreads these over the banks.
template <int M, typename acc_t>
struct Row {
  Pack<acc_t, 4> packs[M / 4 | 1];

  __device__ acc_t& at(int i) { return packs[i / 4].lane[i % 4]; }
};

// sums [M, N] += row [M] times numbers [N]
template <int M, int N, typename acc_t>
__device__ void add_outer(const Row<M, acc_t>& row, const acc_t (&numbers)[N],
                          acc_t (&sums)[M][N]) {
#pragma unroll
  for (int q = 0; q < M / 4; ++q) {
    const Pack<acc_t, 4> factors = row.packs[q];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
#pragma unroll
      for (int j = 0; j < N; ++j) {
        sums[q * 4 + i][j] += factors.lane[i] * numbers[j];
      }
    }
  }
}

// sums [N] += row [M] times numbers [M, N]
template <int M, int N, typename acc_t>
__device__ void add_inner(const Row<M, acc_t>& row,
                          const acc_t (&numbers)[M][N], acc_t (&sums)[N]) {
#pragma unroll
  for (int q = 0; q < M / 4; ++q) {
    const Pack<acc_t, 4> factors = row.packs[q];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
#pragma unroll
      for (int j = 0; j < N; ++j) {
        sums[j] += factors.lane[i] * numbers[q * 4 + i][j];
      }
    }
  }
}

// Pixels [pixel, pixel + count) of an image, none for threads beyond the last.
template <typename acc_t>
struct Place {
  int64_t image;
  int64_t pixel;
  int count;

  MMSAPA_HD static int64_t places(const NormProjectShape& shape) {
    return ceil_div(shape.pixels, kPixels<acc_t>);
  }
  static int64_t blocks(const NormProjectShape& shape) {
    return ceil_div(shape.batch * places(shape), kThreads);
  }

  __device__ Place(const NormProjectShape& shape, int64_t block) {
    const int64_t index = block * kThreads + threadIdx.x;
    image = index / places(shape);
    pixel = index % places(shape) * kPixels<acc_t>;
    count =
        image < shape.batch
            ? static_cast<int>(smaller(shape.pixels - pixel, kPixels<acc_t>))
            : 0;
  }
};

// A place in a map [N, channels, pixels], channel after channel. Pixels that
// do not exist read as 0 and are not written.
template <typename scalar_t>
class Column {
 public:
  using acc_t = acc_type<scalar_t>;
  using Raw = Pack<std::remove_const_t<scalar_t>, kPixels<acc_t>>;

  __device__ Column(scalar_t* map, int64_t channels, int64_t pixels,
                    const Place<acc_t>& place)
      : at_(map + place.image * channels * pixels + place.pixel),
        plane_(pixels),
        count_(place.count),
        packed_(count_ == kPixels<acc_t> && pixels % kPixels<acc_t> == 0 &&
                reinterpret_cast<uintptr_t>(map) % sizeof(Raw) == 0) {}

  __device__ void skip(int64_t channels) { at_ += channels * plane_; }

  __device__ Raw load() const {
    Raw raw = {};
    if (packed_) {
      raw = *reinterpret_cast<const Raw*>(at_);
    } else {
#pragma unroll
      for (int j = 0; j < kPixels<acc_t>; ++j) {
        if (j < count_) raw.lane[j] = at_[j];
      }
    }
    return raw;
  }

  __device__ Raw load_next() {
    const Raw raw = load();
    at_ += plane_;
    return raw;
  }

  __device__ void store_next(const acc_t (&from)[kPixels<acc_t>]) {
    Raw raw;
#pragma unroll
    for (int j = 0; j < kPixels<acc_t>; ++j)
      raw.lane[j] = narrow<scalar_t>(from[j]);
    if (packed_) {
      *reinterpret_cast<Raw*>(at_) = raw;
    } else {
#pragma unroll
      for (int j = 0; j < kPixels<acc_t>; ++j) {
        if (j < count_) at_[j] = raw.lane[j];
      }
    }
    at_ += plane_;
  }

 private:
  scalar_t* at_;
  int64_t plane_;
  int count_;
  bool packed_;
};

template <int M, typename acc_t>
struct Stage {
  // Two, so that one is filled while the other is read.
  Row<M, acc_t> weights[2][kStaged];
};

// Begins to copy the weights [E, C] of M outputs and kStaged channels.
template <int M, typename acc_t>
__device__ void fetch(const NormProjectShape& shape, const acc_t* weight,
                      int64_t output, int64_t channel,
                      Row<M, acc_t> (&to)[kStaged]) {
  // More of these at once, and registers would spill.
#pragma unroll 2
  for (int i = threadIdx.x; i < M * kStaged; i += kThreads) {
    const int c = i % kStaged, e = i / kStaged;
    if (output + e < shape.outputs && channel + c < shape.channels) {
      __pipeline_memcpy_async(
          &to[c].at(e), weight + (output + e) * shape.channels + channel + c,
          sizeof(acc_t));
    } else {
      to[c].at(e) = 0;
    }
  }
}

// Calls visit(channel, numbers of x, weights of the outputs from `output` on)
// for every channel and some that do not exist, whose numbers are 0. To be
// called by the whole block.
template <int M, typename scalar_t, typename Visit>
__device__ void for_each_channel(const NormProjectShape& shape,
                                 Column<const scalar_t> x,
                                 const acc_type<scalar_t>* weight,
                                 int64_t output,
                                 Stage<M, acc_type<scalar_t>>& stage,
                                 Visit visit) {
  using Raw = typename Column<const scalar_t>::Raw;
  int64_t left = shape.channels;
  const auto load = [&] { return left-- > 0 ? x.load_next() : Raw(); };
  Raw ahead[kAhead];
#pragma unroll
  for (int i = 0; i < kAhead; ++i) ahead[i] = load();
  __syncthreads();  // the stage may be in use by a call before
  fetch<M>(shape, weight, output, 0, stage.weights[0]);
  int half = 0;
  for (int64_t c = 0; c < shape.channels; c += kStaged) {
    wait_for_copies();
    // Now this half is full, and nobody reads the other one any more.
    __syncthreads();
    fetch<M>(shape, weight, output, c + kStaged, stage.weights[1 - half]);
    for (int k = 0; k < smaller(kStaged, shape.channels - c); k += kAhead) {
#pragma unroll
      for (int i = 0; i < kAhead; ++i) {
        const Raw now = ahead[i];
        ahead[i] = load();
        visit(c + k + i, now, stage.weights[half][k + i]);
      }
    }
    half = 1 - half;
  }
}

template <typename acc_t>
__device__ bool is_finite(acc_t x) {
  return x - x == 0;
}

// Mean and rstd of a pixel, by the definition and without short cuts: what
// overflows squares, or is no number, needs that.
template <typename scalar_t>
__device__ void statistics(const NormProjectShape& shape,
                           acc_type<scalar_t> eps,
                           const scalar_t* x,  // [C, P], of the pixel
                           acc_type<scalar_t>& center,
                           acc_type<scalar_t>& scale) {
  double mean = 0, variance = 0;
  for (int64_t c = 0; c < shape.channels; ++c) {
    mean += static_cast<double>(widen(x[c * shape.pixels])) / shape.channels;
  }
  for (int64_t c = 0; c < shape.channels; ++c) {
    const double y = widen(x[c * shape.pixels]) - mean;
    variance += y * y / shape.channels;
  }
  center = static_cast<acc_type<scalar_t>>(mean);
  scale = 1 / sqrt(static_cast<acc_type<scalar_t>>(variance) + eps);
}

// Writes M outputs of a pixel, and its mean and rstd where they are wanted, by
// the definition.
template <int M, typename scalar_t>
__device__ void project_pixel(const NormProjectShape& shape, int64_t image,
                              int64_t pixel, int64_t output,
                              acc_type<scalar_t> eps,
                              const scalar_t* x,                 // [N, C, P]
                              const acc_type<scalar_t>* weight,  // [E, C]
                              const acc_type<scalar_t>* bias,    // [E]
                              scalar_t* out,                     // [N, E, P]
                              acc_type<scalar_t>* mean,          // [N, 1, P]
                              acc_type<scalar_t>* rstd)          // [N, 1, P]
{
  using acc_t = acc_type<scalar_t>;
  const int64_t pixels = shape.pixels, channels = shape.channels;
  x += image * channels * pixels + pixel;
  acc_t center, scale;
  statistics(shape, eps, x, center, scale);
  if (output == 0) {
    mean[image * pixels + pixel] = center;
    rstd[image * pixels + pixel] = scale;
  }
  out += image * shape.outputs * pixels + pixel;
  const int64_t end = smaller(output + M, shape.outputs);
  for (int64_t e = output; e < end; ++e) {
    acc_t product = 0;
    for (int64_t c = 0; c < channels; ++c) {
      product +=
          weight[e * channels + c] * ((widen(x[c * pixels]) - center) * scale);
    }
    out[e * pixels] = narrow<scalar_t>(product + bias[e]);
  }
}

// Rows of the weight sum to 0, so that W x = W (x - s) for any number s. With
// the pixel's first channel for s, little cancels, however far from 0 x is:
// (s - mean)^2 is no more than the variance times the channels.
//
// Blocks: for every M outputs, side by side, for they read the same x. All
// need rstd, and the first ones write it.
template <int M, typename scalar_t>
__global__ void __launch_bounds__(kThreads, kBlocks<acc_type<scalar_t>>)
    forward_kernel(NormProjectShape shape, acc_type<scalar_t> eps,
                   const scalar_t* x,                 // [N, C, P]
                   const acc_type<scalar_t>* weight,  // [E, C]
                   const acc_type<scalar_t>* bias,    // [E]
                   scalar_t* out,                     // [N, E, P]
                   acc_type<scalar_t>* mean,          // [N, 1, P]
                   acc_type<scalar_t>* rstd)          // [N, 1, P]
{
  using acc_t = acc_type<scalar_t>;
  MMSAPA_SHARED(stage, Stage<M, acc_t>);
  const int64_t output = blockIdx.x % groups<M>(shape) * M;
  const Place<acc_t> place(shape, blockIdx.x / groups<M>(shape));
  const Column<const scalar_t> from(x, shape.channels, shape.pixels, place);

  acc_t product[M][kPixels<acc_t>] = {}, sum[kPixels<acc_t>] = {},
        squares[kPixels<acc_t>] = {};
  const auto first = from.load();
  for_each_channel<M, scalar_t>(
      shape, from, weight, output, stage,
      [&](int64_t c, const auto& raw, auto& weights) {
        acc_t shifted[kPixels<acc_t>];
#pragma unroll
        for (int j = 0; j < kPixels<acc_t>; ++j) {
          const acc_t s = widen(first.lane[j]);
          shifted[j] = c < shape.channels ? widen(raw.lane[j]) - s : 0;
          sum[j] += shifted[j];
          squares[j] += shifted[j] * shifted[j];
        }
        add_outer(weights, shifted, product);
      });

  acc_t center[kPixels<acc_t>], scale[kPixels<acc_t>];
#pragma unroll
  for (int j = 0; j < kPixels<acc_t>; ++j) {
    const acc_t shift = sum[j] / shape.channels;
    const acc_t variance = squares[j] / shape.channels - shift * shift;
    center[j] = widen(first.lane[j]) + shift;
    scale[j] = 1 / sqrt((variance < 0 ? 0 : variance) + eps);
  }
  if (output == 0) {
    Column<acc_t>(mean, 1, shape.pixels, place).store_next(center);
    Column<acc_t>(rstd, 1, shape.pixels, place).store_next(scale);
  }
  Column<scalar_t> to(out, shape.outputs, shape.pixels, place);
  to.skip(output);
#pragma unroll
  for (int e = 0; e < M; ++e) {
    if (output + e >= shape.outputs) break;
    acc_t result[kPixels<acc_t>];
#pragma unroll
    for (int j = 0; j < kPixels<acc_t>; ++j) {
      result[j] = product[e][j] * scale[j] + bias[output + e];
    }
    to.store_next(result);
  }
  // Last, so that it takes no registers from the rest.
#pragma unroll
  for (int j = 0; j < kPixels<acc_t>; ++j) {
    if (j < place.count && !(scale[j] > 0 && is_finite(scale[j]))) {
      project_pixel<M>(shape, place.image, place.pixel + j, output, eps, x,
                       weight, bias, out, mean, rstd);
    }
  }
}

// Writes the gradient of a pixel with no need of `out`, which had no room for
// it or a bias added that is no number.
template <typename scalar_t>
__device__ void grad_x_of_pixel(const NormProjectShape& shape, int64_t image,
                                int64_t pixel,
                                const scalar_t* grad,              // [N, E, P]
                                const scalar_t* x,                 // [N, C, P]
                                const acc_type<scalar_t>* weight,  // [E, C]
                                const acc_type<scalar_t>* mean,    // [N, 1, P]
                                const acc_type<scalar_t>* rstd,    // [N, 1, P]
                                scalar_t* grad_x)                  // [N, C, P]
{
  using acc_t = acc_type<scalar_t>;
  const int64_t pixels = shape.pixels;
  const acc_t center = mean[image * pixels + pixel];
  const acc_t scale = rstd[image * pixels + pixel];
  grad += image * shape.outputs * pixels + pixel;
  x += image * shape.channels * pixels + pixel;
  grad_x += image * shape.channels * pixels + pixel;
  const auto product = [&](int64_t c) {
    acc_t sum = 0;
    for (int64_t e = 0; e < shape.outputs; ++e) {
      sum +=
          weight[e * shape.channels + c] * (widen(grad[e * pixels]) * scale);
    }
    return sum;
  };
  acc_t factor = 0, total = 0;
  for (int64_t c = 0; c < shape.channels; ++c) {
    const acc_t sum = product(c);
    factor += sum * (widen(x[c * pixels]) - center);
    total += sum;
  }
  // The mean's gradient is the total: 0, or NaN where grad is not finite.
  const acc_t slope =
      (factor + (total - total)) * scale * scale / shape.channels;
  for (int64_t c = 0; c < shape.channels; ++c) {
    grad_x[c * pixels] =
        narrow<scalar_t>(product(c) - (widen(x[c * pixels]) - center) * slope);
  }
}

// With W centered, z = W x, out = rstd z + bias, for every pixel:
//   grad_x = rstd W^T grad - (x - mean) rstd^2 / C sum_e grad (out - bias)
// Where there are more than M outputs, `partial` keeps the product so far.
template <int M, typename scalar_t>
__global__ void __launch_bounds__(kThreads, kBlocks<acc_type<scalar_t>>)
    grad_x_kernel(NormProjectShape shape,
                  const scalar_t* grad,              // [N, E, P]
                  const scalar_t* x,                 // [N, C, P]
                  const acc_type<scalar_t>* weight,  // [E, C]
                  const acc_type<scalar_t>* bias,    // [E]
                  const scalar_t* out,               // [N, E, P]
                  const acc_type<scalar_t>* mean,    // [N, 1, P]
                  const acc_type<scalar_t>* rstd,    // [N, 1, P]
                  acc_type<scalar_t>* partial,       // [N, C, P] or null
                  scalar_t* grad_x)                  // [N, C, P]
{
  using acc_t = acc_type<scalar_t>;
  MMSAPA_SHARED(stage, Stage<M, acc_t>);
  const Place<acc_t> place(shape, blockIdx.x);
  const auto column = [&](auto* map, int64_t channels) {
    return Column<std::remove_pointer_t<decltype(map)>>(map, channels,
                                                        shape.pixels, place);
  };
  const auto center = column(mean, 1).load(), scale = column(rstd, 1).load();
  auto grads = column(grad, shape.outputs), outs = column(out, shape.outputs);
  acc_t factor[kPixels<acc_t>] = {};
  for (int64_t group = 0; group < groups<M>(shape); ++group) {
    const int64_t output = group * M;
    acc_t scaled[M][kPixels<acc_t>] = {};
#pragma unroll
    for (int e = 0; e < M; ++e) {
      if (output + e >= shape.outputs) break;
      const auto g = grads.load_next(), o = outs.load_next();
      const acc_t b = bias[output + e];
#pragma unroll
      for (int j = 0; j < kPixels<acc_t>; ++j) {
        scaled[e][j] = widen(g.lane[j]) * scale.lane[j];
        factor[j] += scaled[e][j] * (widen(o.lane[j]) - b);
      }
    }
    acc_t slope[kPixels<acc_t>];
#pragma unroll
    for (int j = 0; j < kPixels<acc_t>; ++j) {
      slope[j] = factor[j] * scale.lane[j] / shape.channels;
    }
    const bool is_first = group == 0, is_last = group + 1 == groups<M>(shape);
    auto before = column(partial, shape.channels), after = before;
    auto to = column(grad_x, shape.channels);
    for_each_channel<M, scalar_t>(
        shape, column(x, shape.channels), weight, output, stage,
        [&](int64_t c, const auto& raw, auto& weights) {
          const bool exists = c < shape.channels;
          Pack<acc_t, kPixels<acc_t>> sum = {};
          if (exists && !is_first) sum = before.load_next();
          add_inner(weights, scaled, sum.lane);
          if (!exists) return;
          if (!is_last) {
            after.store_next(sum.lane);
            return;
          }
#pragma unroll
          for (int j = 0; j < kPixels<acc_t>; ++j) {
            sum.lane[j] -= (widen(raw.lane[j]) - center.lane[j]) * slope[j];
          }
          to.store_next(sum.lane);
        });
  }
  // Last, and by what is written, so that it takes no registers from the rest:
  // a slope that is not finite leaves no channel finite.
  const auto written = column(grad_x, shape.channels).load();
#pragma unroll
  for (int j = 0; j < kPixels<acc_t>; ++j) {
    if (j < place.count && !is_finite(widen(written.lane[j]))) {
      grad_x_of_pixel(shape, place.image, place.pixel + j, grad, x, weight,
                      mean, rstd, grad_x);
    }
  }
}

// Of kStaged pixels, of an image.
MMSAPA_HD inline int64_t runs(const NormProjectShape& shape) {
  return ceil_div(shape.pixels, kStaged);
}

// What a block of the kernel below works on: M outputs, kChannels channels,
// and a share of the runs of all images.
template <int M, typename acc_t>
struct Outer {
  static constexpr int kEach = 2;  // channels of a lane
  static constexpr int kChannels = 32 * kEach;

  Row<M, acc_t> scaled[kStaged];
  acc_t centered[kStaged][kChannels + 1];  // padded: written across channels

  MMSAPA_HD static int64_t tiles(const NormProjectShape& shape) {
    return groups<M>(shape) * ceil_div(shape.channels, kChannels);
  }
};

// grad_weight in parts, to be added up: a block of its own for every kWarps of
// them, whose warps share the runs and sum over pixels of their own.
template <int M, typename scalar_t>
__global__ void __launch_bounds__(kThreads, kBlocks<acc_type<scalar_t>>)
    grad_weight_kernel(NormProjectShape shape, int64_t parts,
                       const scalar_t* grad,             // [N, E, P]
                       const scalar_t* x,                // [N, C, P]
                       const acc_type<scalar_t>* mean,   // [N, 1, P]
                       const acc_type<scalar_t>* rstd,   // [N, 1, P]
                       acc_type<scalar_t>* grad_weight)  // [parts, E, C]
{
  using acc_t = acc_type<scalar_t>;
  using O = Outer<M, acc_t>;
  MMSAPA_SHARED(shared, O);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int64_t tile = blockIdx.x % O::tiles(shape);
  const int64_t share = blockIdx.x / O::tiles(shape);
  const int64_t output = tile % groups<M>(shape) * M;
  const int64_t channel = tile / groups<M>(shape) * O::kChannels;
  const int outputs = static_cast<int>(smaller(shape.outputs - output, M));
  const int channels =
      static_cast<int>(smaller(shape.channels - channel, O::kChannels));

  acc_t sum[M][O::kEach] = {};
  const int64_t all = shape.batch * runs(shape), shares = parts / kWarps;
  const int64_t end = (share + 1) * all / shares;
  for (int64_t run = share * all / shares; run < end; ++run) {
    const int64_t image = run / runs(shape);
    const int64_t pixel = run % runs(shape) * kStaged + lane;
    const bool exists = pixel < shape.pixels;
    const int64_t at = image * shape.pixels + pixel;
    const acc_t scale = exists ? rstd[at] : 0, center = exists ? mean[at] : 0;
    const scalar_t* g =
        grad + (image * shape.outputs + output) * shape.pixels + pixel;
    const scalar_t* from =
        x + (image * shape.channels + channel) * shape.pixels + pixel;
    __syncthreads();  // the run before is done with
#pragma unroll
    for (int i = 0; i < M; i += kWarps) {
      const int e = i + warp;
      const bool inside = exists && e < outputs;
      shared.scaled[lane].at(e) =
          inside ? widen(g[e * shape.pixels]) * scale : 0;
    }
#pragma unroll
    for (int i = 0; i < O::kChannels; i += kWarps) {
      const int c = i + warp;
      const bool inside = exists && c < channels;
      shared.centered[lane][c] =
          inside ? widen(from[c * shape.pixels]) - center : 0;
    }
    __syncthreads();
#pragma unroll 2
    for (int k = warp; k < kStaged; k += kWarps) {
      acc_t centered[O::kEach];
#pragma unroll
      for (int j = 0; j < O::kEach; ++j) {
        centered[j] = shared.centered[k][lane + 32 * j];
      }
      add_outer(shared.scaled[k], centered, sum);
    }
  }

  grad_weight +=
      ((share * kWarps + warp) * shape.outputs + output) * shape.channels +
      channel;
#pragma unroll
  for (int e = 0; e < M; ++e) {
#pragma unroll
    for (int j = 0; j < O::kEach; ++j) {
      const int c = lane + 32 * j;
      if (e < outputs && c < channels) {
        grad_weight[e * shape.channels + c] = sum[e][j];
      }
    }
  }
}

}  // namespace mmsapa::cuda::normed
