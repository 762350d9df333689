// Copyright (c) mmsapa contributors. SPDX-License-Identifier: Apache-2.0
//
// Kernels for one kernel size K and scale S known to the compiler.
//
// dot and aggregate: a block takes a tile of cells and a thread one cell with
// its S*S queries, which share every key and value they read. The window maps
// of the cell, S*S*K*K numbers, stay in registers; low-res channels pass by
// in shared memory, with a halo that is 0 outside the map, and are fetched
// while those before are worked on. The lanes of a warp are neighbors in a
// row of cells, so that NCHW is read and written in whole lines.
//
// Included by kernels.cu alone.

namespace mmsapa::cuda::fused {

constexpr int kStaged = 8;  // channels between two barriers
constexpr int kBlocks = 3;  // on a multiprocessor, as registers allow

// Numbers that maps are fetched by, if they are whole in memory: where rows
// are a multiple of them, and begin at such columns.
constexpr int kVector = 4;

// Numbers of a word, the least that an asynchronous copy moves: what 16-bit
// maps are fetched by where vectors are not whole but words are.
template <typename scalar_t>
constexpr int kPerWord = kWordBytes / sizeof(scalar_t);

// How many numbers of a map can be copied at once: kVector, those of a word,
// or one.
template <typename scalar_t>
__device__ int copied_at_once(const scalar_t* map, int64_t width) {
  const auto address = reinterpret_cast<uintptr_t>(map);
  const auto whole = [&](int numbers) {
    return width % numbers == 0 && address % (numbers * sizeof(scalar_t)) == 0;
  };
  if (whole(kVector)) return kVector;
  return whole(kPerWord<scalar_t>) ? kPerWord<scalar_t> : 1;
}

// The numbers of a vector at column x that are inside a row.
__device__ inline int inside_row(int64_t x, int64_t width) {
  return x < 0 ? 0 : static_cast<int>(smaller(larger(width - x, 0), kVector));
}

// Begins to copy to shared memory the first `inside` numbers of a vector in
// each of `count` channels, as many at once as stated. Numbers of less than a
// word are copied there and then.
template <typename scalar_t>
__device__ void fetch(scalar_t* to, int to_stride, const scalar_t* from,
                      int64_t from_stride, int count, int inside,
                      int at_once) {
  constexpr int kWord = kPerWord<scalar_t>;
  if (at_once == kVector) {
    if (inside == 0) return;
#pragma unroll 4
    for (; count > 0; --count) {
      __pipeline_memcpy_async(to, from, kVector * sizeof(scalar_t));
      to += to_stride;
      from += from_stride;
    }
    return;
  }
#pragma unroll 1
  for (; count > 0; --count) {
#pragma unroll
    for (int j = 0; j < kVector; ++j) {
      if (j >= inside) continue;
      if (at_once < kWord) {
        to[j] = from[j];
      } else if (j % kWord == 0) {
        __pipeline_memcpy_async(to + j, from + j, kWordBytes);
      }
    }
    to += to_stride;
    from += from_stride;
  }
}

// What has arrived, for the thread that has fetched it.
template <typename scalar_t>
__device__ void widen_vector(const scalar_t* from, acc_type<scalar_t>* to) {
  using acc_t = acc_type<scalar_t>;
  const auto narrow = *reinterpret_cast<const Pack<scalar_t, kVector>*>(from);
  Pack<acc_t, kVector> wide;
#pragma unroll
  for (int j = 0; j < kVector; ++j) wide.lane[j] = widen(narrow.lane[j]);
  *reinterpret_cast<Pack<acc_t, kVector>*>(to) = wide;
}

// A window map in the workspace is [images, tiles_y, tiles_x, K*K, kThreads]
// of these: the phases of a cell. It is whole, so that nobody asks what
// exists, and a thread finds all its numbers at fixed distances.
template <int S, typename scalar_t>
using Phases = Pack<acc_type<scalar_t>, S * S>;

// The queries of one cell in a high-res map [channels, height, width], channel
// after channel. Those beyond its edge read as 0 and are not written.
template <int S, typename scalar_t>
class CellQueries {
 public:
  using acc_t = acc_type<scalar_t>;
  // As they are in memory.
  struct Raw {
    Pack<std::remove_const_t<scalar_t>, S> row[S];
  };

  // (y, x): the first query of the cell.
  __device__ CellQueries(scalar_t* map, int64_t height, int64_t width,
                         int64_t y, int64_t x)
      : at_(map + y * width + x),
        width_(width),
        plane_(height * width),
        rows_(static_cast<int>(smaller(larger(height - y, 0), S))),
        columns_(static_cast<int>(smaller(larger(width - x, 0), S))),
        packed_(columns_ == S && width % S == 0 &&
                reinterpret_cast<uintptr_t>(map) % sizeof(Row) == 0) {}

  __device__ void skip(int64_t channels) { at_ += channels * plane_; }

  __device__ Raw load_next() {
    Raw raw = {};
    if (packed_) {
#pragma unroll
      for (int y = 0; y < S; ++y) {
        if (y < rows_) {
          raw.row[y] = *reinterpret_cast<const Row*>(at_ + y * width_);
        }
      }
    } else {
#pragma unroll
      for (int p = 0; p < S * S; ++p) {
        const int y = p / S, x = p % S;
        if (y < rows_ && x < columns_) {
          raw.row[y].lane[x] = at_[y * width_ + x];
        }
      }
    }
    at_ += plane_;
    return raw;
  }

  __device__ void store_next(const acc_t (&from)[S * S]) {
    Raw raw;
#pragma unroll
    for (int p = 0; p < S * S; ++p) {
      raw.row[p / S].lane[p % S] = narrow<scalar_t>(from[p]);
    }
    if (packed_) {
#pragma unroll
      for (int y = 0; y < S; ++y) {
        if (y < rows_) *reinterpret_cast<Row*>(at_ + y * width_) = raw.row[y];
      }
    } else {
#pragma unroll
      for (int p = 0; p < S * S; ++p) {
        const int y = p / S, x = p % S;
        if (y < rows_ && x < columns_) {
          at_[y * width_ + x] = raw.row[y].lane[x];
        }
      }
    }
    at_ += plane_;
  }

  // Phases are row-major.
  static __device__ void widen(const Raw& raw, acc_t (&to)[S * S]) {
#pragma unroll
    for (int p = 0; p < S * S; ++p) {
      to[p] = cuda::widen(raw.row[p / S].lane[p % S]);
    }
  }

 private:
  using Row = Pack<std::remove_const_t<scalar_t>, S>;

  scalar_t* at_;
  int64_t width_;
  int64_t plane_;
  int rows_;
  int columns_;
  bool packed_;
};

// What a block of dot and aggregate kernels works on, and its threads' share.
template <int K, int S, typename scalar_t>
class TileOfCells {
 public:
  using acc_t = acc_type<scalar_t>;
  using Window = acc_t[K * K][S * S];

  // Columns on each side of the tile that are staged too, in whole vectors.
  static constexpr int kHalo = ceil_div(K / 2, kVector) * kVector;
  static constexpr int kWidth = kTileX + 2 * kHalo;
  static constexpr int kSize = kWidth * (kTileY + K - 1);
  static constexpr bool kNarrow = sizeof(scalar_t) < sizeof(acc_t);

  struct Stage {
    // Two, so that one is filled while the other is read.
    alignas(kVector * sizeof(acc_t)) acc_t cells[2][kStaged][kSize];
    // Where 16-bit numbers arrive, for the thread that fetches them to widen.
    alignas(kVector * sizeof(scalar_t))
        scalar_t arrived[kNarrow ? kStaged : 1][kNarrow ? kSize : 1];
  };

  // Blocks: `parts` times every tile of cells in the band's window maps.
  __device__ TileOfCells(const Shape& shape, const Band& band, Stage& stage)
      : shape_(shape), band_(band), stage_(stage) {
    int64_t rest = blockIdx.x;
    const int64_t tile_x = rest % tiles_x(shape) * kTileX;
    rest /= tiles_x(shape);
    const int64_t tile_y = band.first + rest % tiles_y(band) * kTileY;
    rest /= tiles_y(band);
    image_ = rest % band.images;
    part_ = rest / band.images;

    const int lane_x = threadIdx.x % kTileX, lane_y = threadIdx.x / kTileX;
    cell_x_ = tile_x + lane_x;
    cell_y_ = tile_y + lane_y;
    corner_ = lane_y * kWidth + lane_x + kHalo - K / 2;
    const int at = vector();
    const int64_t y = tile_y + at / kWidth - K / 2;
    const int64_t x = tile_x + at % kWidth - kHalo;
    source_ = y * shape.width + x;
    inside_ = y >= 0 && y < shape.height ? inside_row(x, shape.width) : 0;
    // What is outside stays 0.
    for (int channel = first_channel(); channel < kStaged;
         channel += kAtOnce) {
#pragma unroll
      for (int j = 0; j < kVector; ++j) {
        if (j < inside_) continue;
        arrival(0, channel)[j] = narrow<scalar_t>(0);
        arrival(1, channel)[j] = narrow<scalar_t>(0);
      }
    }
  }

  __device__ int64_t part() const { return part_; }

  // The thread's queries in a map of the query's size [N, channels, Hq, Wq].
  template <typename map_t>
  __device__ CellQueries<S, map_t> queries(map_t* map,
                                           int64_t channels) const {
    const int64_t height = shape_.query_height, width = shape_.query_width;
    map += (band_.image + image_) * channels * height * width;
    // The tile's last rows may lie beyond the band, where others write.
    const bool ours = cell_y_ >= band_.begin && cell_y_ < band_.end;
    return {map, height, width, ours ? cell_y_ * S : height, cell_x_ * S};
  }

  // As above, for reading: also beyond the rows whose results are written.
  template <typename map_t>
  __device__ CellQueries<S, const map_t> all_queries(const map_t* map,
                                                     int64_t channels) const {
    const int64_t height = shape_.query_height, width = shape_.query_width;
    map += (band_.image + image_) * channels * height * width;
    return {map, height, width, cell_y_ * S, cell_x_ * S};
  }

  // The channels [begin, end) of high: [N, channels, Hq, Wq] and
  // low: [N, channels, H, W], added to the prior [S*S, K*K] if there is one.
  __device__ void dot(const scalar_t* high, const scalar_t* low,
                      int64_t channels, int64_t begin, int64_t end,
                      const acc_t* prior, Window& window) {
    using From = CellQueries<S, const scalar_t>;
#pragma unroll
    for (int o = 0; o < K * K; ++o) {
#pragma unroll
      for (int p = 0; p < S * S; ++p) window[o][p] = 0;
    }
    // A cell that is not in the map has nothing but what is outside.
    if (prior && cell_y_ < shape_.height && cell_x_ < shape_.width) {
#pragma unroll
      for (int o = 0; o < K * K; ++o) {
        const int64_t y = cell_y_ + o / K - K / 2, x = cell_x_ + o % K - K / 2;
        const bool inside =
            y >= 0 && y < shape_.height && x >= 0 && x < shape_.width;
#pragma unroll
        for (int p = 0; p < S * S; ++p) {
          window[o][p] =
              inside ? prior[p * K * K + o] : -static_cast<acc_t>(INFINITY);
        }
      }
    }
    From from = all_queries(high, channels);
    from.skip(begin);
    int64_t left = end - begin;
    const auto load = [&] {
      return left-- > 0 ? from.load_next() : typename From::Raw();
    };
    // The arithmetic on kAhead channels hides the time that a load takes.
    typename From::Raw ahead[kAhead];
#pragma unroll
    for (int i = 0; i < kAhead; ++i) ahead[i] = load();
    for_each_channel(low, channels, begin, end, [&](const acc_t* cells) {
      acc_t factor[S * S];
      From::widen(ahead[0], factor);
#pragma unroll
      for (int i = 1; i < kAhead; ++i) ahead[i - 1] = ahead[i];
      ahead[kAhead - 1] = load();
#pragma unroll
      for (int o = 0; o < K * K; ++o) {
        const acc_t cell = cells[o / K * kWidth + o % K];
#pragma unroll
        for (int p = 0; p < S * S; ++p) window[o][p] += factor[p] * cell;
      }
    });
  }

  // The channels [begin, end) of low: [N, channels, H, W] and
  // high: [N, channels, Hq, Wq]
  __device__ void aggregate(const Window& window, const scalar_t* low,
                            int64_t channels, int64_t begin, int64_t end,
                            scalar_t* high) {
    auto to = queries(high, channels);
    to.skip(begin);
    for_each_channel(low, channels, begin, end, [&](const acc_t* cells) {
      acc_t sum[S * S] = {};
#pragma unroll
      for (int o = 0; o < K * K; ++o) {
        const acc_t cell = cells[o / K * kWidth + o % K];
#pragma unroll
        for (int p = 0; p < S * S; ++p) sum[p] += window[o][p] * cell;
      }
      to.store_next(sum);
    });
  }

 private:
  // A thread fetches the same vector in every kAtOnce-th staged channel; the
  // last threads have none.
  static constexpr int kVectors = kSize / kVector;
  static constexpr int kAtOnce = kThreads / kVectors;
  static_assert(kAtOnce > 0, "a stage has a thread for each vector");
  static constexpr int kAhead = 2;

  // Calls visit(the cell's window) for the channels [begin, end) of the image
  // in low: [N, channels, H, W]. To be called by the whole block.
  template <typename Visit>
  __device__ void for_each_channel(const scalar_t* low, int64_t channels,
                                   int64_t begin, int64_t end, Visit visit) {
    const int64_t plane = shape_.height * shape_.width;
    low += ((band_.image + image_) * channels + begin) * plane;
    const int at_once = copied_at_once(low, shape_.width);
    __syncthreads();  // the stage may be in use by a call before
    fetch(0, low, end - begin, at_once);
    int half = 0;
    for (int64_t left = end - begin; left > 0; left -= kStaged) {
      wait_for_copies();
      widen_arrived(half);
      // Now this half is full, and nobody reads the other one any more.
      __syncthreads();
      low += kStaged * plane;
      fetch(1 - half, low, left - kStaged, at_once);
      const acc_t* cells = stage_.cells[half][0] + corner_;
      for (int i = static_cast<int>(smaller(left, kStaged)); i > 0; --i) {
        visit(cells);
        cells += kSize;
      }
      half = 1 - half;
    }
  }

  // In a staged channel, the thread's.
  static __device__ int vector() { return threadIdx.x % kVectors * kVector; }

  static __device__ int first_channel() {
    const int channel = threadIdx.x / kVectors;
    return channel < kAtOnce ? channel : kStaged;
  }

  // Where the thread's vector of a channel arrives.
  __device__ scalar_t* arrival(int half, int channel) {
    if constexpr (kNarrow) {
      return stage_.arrived[channel] + vector();
    } else {
      return stage_.cells[half][channel] + vector();
    }
  }

  // At most kStaged and at most `count` channels of low: [count, H, W].
  __device__ void fetch(int half, const scalar_t* low, int64_t count,
                        int at_once) {
    const int64_t plane = shape_.height * shape_.width;
    const int first = first_channel();
    const int rest = static_cast<int>(smaller(kStaged, count)) - first;
    fused::fetch(arrival(half, first), kAtOnce * kSize,
                 low + first * plane + source_, kAtOnce * plane,
                 (rest + kAtOnce - 1) / kAtOnce, inside_, at_once);
  }

  // Each thread what it has fetched itself, so that no barrier is needed.
  __device__ void widen_arrived(int half) {
    if constexpr (kNarrow) {
      for (int c = first_channel(); c < kStaged; c += kAtOnce) {
        widen_vector(arrival(half, c), stage_.cells[half][c] + vector());
      }
    }
  }

  const Shape& shape_;
  const Band& band_;
  Stage& stage_;
  int64_t image_;  // of the band
  int64_t part_;
  int64_t cell_y_;
  int64_t cell_x_;
  int corner_;      // of the cell's window in a staged channel
  int64_t source_;  // in a plane, of the vector that the thread fetches
  int inside_;      // numbers of it that are in the map
};

template <int N, int P, typename acc_t>
__device__ void softmax(acc_t (&window)[N][P]) {
#pragma unroll
  for (int p = 0; p < P; ++p) {
    acc_t highest = window[0][p], sum = 0;
#pragma unroll
    for (int o = 1; o < N; ++o) highest = fmax(highest, window[o][p]);
#pragma unroll
    for (int o = 0; o < N; ++o) {
      window[o][p] = exp(window[o][p] - highest);
      sum += window[o][p];
    }
    const acc_t factor = 1 / sum;
#pragma unroll
    for (int o = 0; o < N; ++o) window[o][p] *= factor;
  }
}

// The numbers of the thread's cell in the block's tile of a window map.
template <int K, typename phases_t>
__device__ phases_t* own_map(phases_t* map) {
  return map + static_cast<int64_t>(blockIdx.x) * K * K * kThreads +
         threadIdx.x;
}

template <int K, int S, typename scalar_t, typename Window>
__device__ void keep(const Window& window, Phases<S, scalar_t>* kept) {
#pragma unroll
  for (int o = 0; o < K * K; ++o) {
    Phases<S, scalar_t> phases;
#pragma unroll
    for (int p = 0; p < S * S; ++p) phases.lane[p] = window[o][p];
    kept[o * kThreads] = phases;
  }
}

// Parts: runs of channels, for maps too small to fill a GPU. Each recomputes
// the weights.
template <int K, int S, typename scalar_t>
__global__ void __launch_bounds__(kThreads, kBlocks)
    upsample_kernel(Shape shape, Band band, int64_t parts,
                    const scalar_t* query,            // [N, E, Hq, Wq]
                    const scalar_t* key,              // [N, E, H, W]
                    const scalar_t* value,            // [N, C, H, W]
                    const acc_type<scalar_t>* prior,  // [S*S, K*K] or null
                    scalar_t* out)                    // [N, C, Hq, Wq]
{
  using Tile = TileOfCells<K, S, scalar_t>;
  MMSAPA_SHARED(stage, typename Tile::Stage);
  Tile tile(shape, band, stage);
  typename Tile::Window window;
  tile.dot(query, key, shape.embed, 0, shape.embed, prior, window);
  softmax(window);
  tile.aggregate(window, value, shape.channels,
                 tile.part() * shape.channels / parts,
                 (tile.part() + 1) * shape.channels / parts, out);
}

// What backward keeps: P, and dP in `parts`, each the sum over a run of
// channels. The maps and the parts are made side by side, so that small maps
// too fill a GPU.
template <int K, int S, typename scalar_t>
__global__ void __launch_bounds__(kThreads, kBlocks)
    window_maps_kernel(Shape shape, Band band, int64_t parts,
                       const scalar_t* query,            // [N, E, Hq, Wq]
                       const scalar_t* key,              // [N, E, H, W]
                       const scalar_t* value,            // [N, C, H, W]
                       const acc_type<scalar_t>* prior,  // or null
                       const scalar_t* grad_out,         // [N, C, Hq, Wq]
                       Phases<S, scalar_t>* maps)  // [1 + parts, images, ...]
{
  using Tile = TileOfCells<K, S, scalar_t>;
  MMSAPA_SHARED(stage, typename Tile::Stage);
  Tile tile(shape, band, stage);
  typename Tile::Window window;
  if (tile.part() == 0) {
    tile.dot(query, key, shape.embed, 0, shape.embed, prior, window);
    softmax(window);
  } else {
    tile.dot(grad_out, value, shape.channels,
             (tile.part() - 1) * shape.channels / parts,
             tile.part() * shape.channels / parts, nullptr, window);
  }
  keep<K, S, scalar_t>(window, own_map<K>(maps));
}

// dS, in place of the first part of dP. Thread: a query.
template <int K, int S, typename acc_t>
__global__ void __launch_bounds__(kThreads)
    softmax_backward_kernel(Shape shape, Band band, int64_t parts,
                            acc_t* maps)  // [1 + parts, images, ...]
{
  constexpr int kQueries = kThreads * S * S;  // of a tile
  const int64_t query =
      static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const int64_t size = map_size(shape, band);
  const acc_t* weights =
      maps + query / kQueries * kQueries * K * K + query % kQueries;
  acc_t* grads = maps + size + (weights - maps);
  acc_t weight[K * K], grad[K * K] = {}, delta = 0;
  for (int64_t part = 0; part < parts; ++part) {
#pragma unroll
    for (int o = 0; o < K * K; ++o) {
      grad[o] += grads[part * size + o * kQueries];
    }
  }
#pragma unroll
  for (int o = 0; o < K * K; ++o) {
    weight[o] = weights[o * kQueries];
    delta += weight[o] * grad[o];
  }
#pragma unroll
  for (int o = 0; o < K * K; ++o) {
    grads[o * kQueries] = weight[o] * (grad[o] - delta);
  }
}

template <int K, int S, typename scalar_t>
__global__ void __launch_bounds__(kThreads, kBlocks)
    aggregate_kernel(Shape shape, Band band, int64_t channels,
                     const Phases<S, scalar_t>* window_map,  // [images, ...]
                     const scalar_t* low,  // [N, channels, H, W]
                     scalar_t* high)       // [N, channels, Hq, Wq]
{
  using Tile = TileOfCells<K, S, scalar_t>;
  MMSAPA_SHARED(stage, typename Tile::Stage);
  Tile tile(shape, band, stage);
  typename Tile::Window window;
  window_map = own_map<K>(window_map);
#pragma unroll
  for (int o = 0; o < K * K; ++o) {
    const Phases<S, scalar_t> phases = window_map[o * kThreads];
#pragma unroll
    for (int p = 0; p < S * S; ++p) window[o][p] = phases.lane[p];
  }
  tile.aggregate(window, low, channels, 0, channels, high);
}

}  // namespace mmsapa::cuda::fused
