// Copyright (c) mmsapa contributors. SPDX-License-Identifier: Apache-2.0
//
// Gradients of key and value, for one kernel size K and scale S known to the
// compiler: what the queries give to the cells they see.
//
// No two keys share a weight, so a thread takes 4 x 4 keys of several
// channels, and the lanes of a warp are channels.
//
// Included by kernels.cu alone, after fused.cuh.

namespace mmsapa::cuda::fused {

constexpr int kKeys = kVector;  // a thread's keys in x and in y

// A warp takes kKeys x kKeys keys, a block kWarps of these side by side; a
// lane takes M channels. The rows of queries that see the keys pass by in
// shared memory: `highs` for the block, lanes reading the same queries of
// neighboring channels, and `weights` for each warp, all lanes reading the
// same.
template <int K, int S, int M, typename scalar_t>
struct Gather {
  using acc_t = acc_type<scalar_t>;

  static constexpr int kChannels = 32 * M;
  static constexpr int kCells = kKeys + K - 1;  // in a row, that see a key
  // Queries on each side of those of the keys' own cells, in whole vectors.
  static constexpr int kHalo = ceil_div(K / 2 * S, kVector) * kVector;
  static constexpr int kQueries = kKeys * kWarps * S + 2 * kHalo;
  // Vectors of neighboring channels are an odd number of them apart, so that
  // lanes find theirs in different banks.
  static constexpr int kStride = (kQueries / kVector | 1) * kVector;
  static constexpr bool kNarrow = sizeof(scalar_t) < sizeof(acc_t);
  static_assert(kKeys * S % kVector == 0, "queries of a warp are vectors");

  using Vector = Pack<acc_t, kVector>;

  alignas(Vector) acc_t highs[kChannels][kStride];
  Pack<acc_t, kKeys> weights[kWarps][S][kCells * S][kKeys];
  // Where 16-bit numbers arrive, for the thread that fetches them to widen.
  alignas(kVector * sizeof(scalar_t))
      scalar_t arrived[kNarrow ? kChannels : 1][kNarrow ? kStride : 1];

  __device__ scalar_t* arrival(int channel, int query) {
    if constexpr (kNarrow) {
      return &arrived[channel][query];
    } else {
      return &highs[channel][query];
    }
  }

  __device__ Vector& vector(int channel, int query) {
    return *reinterpret_cast<Vector*>(&highs[channel][query]);
  }

  static int64_t blocks(const Shape& shape, const Band& band,
                        int64_t channels) {
    return band.images * ceil_div(channels, kChannels) *
           ceil_div(band.end - band.begin, kKeys) *
           ceil_div(shape.width, kKeys * kWarps);
  }
};

template <int K, int S, int M, typename scalar_t>
__global__ void __launch_bounds__(kThreads, M == 1 ? 4 : kBlocks)
    gather_kernel(Shape shape, Band band, int64_t channels,
                  const Phases<S, scalar_t>*
                      window_map,        // [images, tiles, K*K, kThreads]
                  const scalar_t* high,  // [N, channels, Hq, Wq]
                  scalar_t* low)         // [N, channels, H, W]
{
  using G = Gather<K, S, M, scalar_t>;
  using acc_t = acc_type<scalar_t>;
  MMSAPA_SHARED(shared, G);

  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int64_t blocks_x = ceil_div(shape.width, kKeys * kWarps);
  const int64_t blocks_y = ceil_div(band.end - band.begin, kKeys);
  const int64_t groups = ceil_div(channels, G::kChannels);
  int64_t rest = blockIdx.x;
  const int64_t block_x = rest % blocks_x * (kKeys * kWarps);
  rest /= blocks_x;
  const int64_t key_y = band.begin + rest % blocks_y * kKeys;
  rest /= blocks_y;
  const int64_t channel = rest % groups * G::kChannels;
  const int64_t image = rest / groups;
  const int64_t key_x = block_x + warp * kKeys;
  const int count =
      static_cast<int>(smaller(channels - channel, G::kChannels));

  const int64_t high_plane = shape.query_height * shape.query_width;
  const int64_t first = (band.image + image) * channels + channel;
  high += first * high_plane;

  // The thread fetches one vector of a row of queries in every kAtOnce-th
  // channel: neighbors read what is side by side in memory.
  constexpr int kVectors = G::kQueries / kVector;
  constexpr int kAtOnce = kThreads / kVectors;
  const bool fetches = threadIdx.x < kAtOnce * kVectors;
  const int fetch_begin = threadIdx.x / kVectors;
  const int fetch_end = fetches ? count : 0;
  const int query = threadIdx.x % kVectors * kVector;
  const int64_t query_x = block_x * S - G::kHalo + query;
  const int inside = inside_row(query_x, shape.query_width);
  const int at_once = copied_at_once(high, shape.query_width);
  // What is outside stays 0.
  for (int c = fetch_begin; c < fetch_end; c += kAtOnce) {
#pragma unroll
    for (int j = 0; j < kVector; ++j) {
      if (j >= inside) *shared.arrival(c, query + j) = narrow<scalar_t>(0);
    }
  }

  acc_t sum[kKeys][kKeys][M] = {};
  const int64_t cell_begin = larger(key_y - K / 2, 0);
  const int64_t cell_end = smaller(key_y + kKeys + K / 2, band.last);
  for (int64_t cell_y = cell_begin; cell_y < cell_end; ++cell_y) {
    // The row of their windows in which the cells see the first key.
    const int top = static_cast<int>(key_y - cell_y + K / 2);
    const int64_t tile_y = (cell_y - band.first) / kTileY;
    const int64_t tile_row = (image * tiles_y(band) + tile_y) * tiles_x(shape);
    const int thread_row =
        static_cast<int>((cell_y - band.first) % kTileY) * kTileX;

    __syncthreads();  // the row before is done with
    // Cells from left to right, as they lie in memory.
    for (int i = lane; i < kKeys * K * kKeys; i += 32) {
      const int x = i % kKeys, dx = i / kKeys % K, y = i / (kKeys * K);
      const int dy = top + y;
      const int cell = x + K - 1 - dx;  // of the kCells the warp reads
      const int64_t cell_x = key_x - K / 2 + cell;
      const int64_t tile = tile_row + cell_x / kTileX;
      const acc_t* from = window_map[(tile * K * K + dy * K + dx) * kThreads +
                                     thread_row + cell_x % kTileX]
                              .lane;
      const bool seen =
          dy >= 0 && dy < K && cell_x >= 0 && cell_x < shape.width;
#pragma unroll
      for (int p = 0; p < S * S; ++p) {
        acc_t* to = &shared.weights[warp][p / S][cell * S + p % S][y].lane[x];
        // Weights of a query that is not there may be no numbers.
        if (seen && cell_x * S + p % S < shape.query_width) {
          __pipeline_memcpy_async(to, from + p, kWordBytes);
        } else {
          *to = 0;
        }
      }
    }

    for (int phase_y = 0; phase_y < S; ++phase_y) {
      const int64_t query_y = cell_y * S + phase_y;
      if (query_y >= shape.query_height) break;
      if (phase_y > 0) __syncthreads();  // as above
      const scalar_t* from = high + query_y * shape.query_width + query_x;
      fetch(shared.arrival(fetch_begin, query), kAtOnce * G::kStride,
            from + fetch_begin * high_plane, kAtOnce * high_plane,
            (fetch_end - fetch_begin + kAtOnce - 1) / kAtOnce, inside,
            at_once);
      wait_for_copies();
      if constexpr (G::kNarrow) {
        for (int c = fetch_begin; c < fetch_end; c += kAtOnce) {
          widen_vector(shared.arrival(c, query), &shared.highs[c][query]);
        }
      }
      __syncthreads();

      // From the first vector on that has a query of a cell that sees a key.
      constexpr int kBefore = G::kHalo - K / 2 * S;
#pragma unroll
      for (int v = 0; v < kBefore + G::kCells * S; v += kVector) {
        typename G::Vector factor[M];
#pragma unroll
        for (int m = 0; m < M; ++m) {
          factor[m] = shared.vector(lane + 32 * m, warp * kKeys * S + v);
        }
#pragma unroll
        for (int y = 0; y < kKeys; ++y) {
          if (top + y < 0 || top + y >= K) continue;
#pragma unroll
          for (int j = 0; j < kVector; ++j) {
            const int q = v + j - kBefore;
            if (q < 0 || q >= G::kCells * S) continue;
            const Pack<acc_t, kKeys> weight =
                shared.weights[warp][phase_y][q][y];
#pragma unroll
            for (int x = 0; x < kKeys; ++x) {
              const int dx = x + K - 1 - q / S;
              if (dx < 0 || dx >= K) continue;
#pragma unroll
              for (int m = 0; m < M; ++m) {
                sum[y][x][m] += weight.lane[x] * factor[m].lane[j];
              }
            }
          }
        }
      }
    }
  }

  // By way of `highs`, so that neighboring lanes write neighboring keys.
  const int64_t plane = shape.height * shape.width;
  constexpr int kRow = kKeys * kWarps;
  low += first * plane + key_y * shape.width + block_x;
#pragma unroll
  for (int y = 0; y < kKeys; ++y) {
    __syncthreads();  // the queries, or the row before, are done with
#pragma unroll
    for (int m = 0; m < M; ++m) {
      typename G::Vector keys;
#pragma unroll
      for (int x = 0; x < kKeys; ++x) keys.lane[x] = sum[y][x][m];
      shared.vector(lane + 32 * m, warp * kKeys) = keys;
    }
    __syncthreads();
    if (key_y + y >= band.end) return;
    const int x = threadIdx.x % kRow;
    if (block_x + x >= shape.width) continue;
    for (int c = threadIdx.x / kRow; c < count; c += kThreads / kRow) {
      low[c * plane + y * shape.width + x] =
          narrow<scalar_t>(shared.highs[c][x]);
    }
  }
}

}  // namespace mmsapa::cuda::fused
