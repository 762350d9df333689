// Copyright (c) mmsapa contributors. SPDX-License-Identifier: Apache-2.0
//
// SAPA and its window maps, forward and backward. Included by kernels_impl.h
// alone, inside the namespace of an instruction set.
//
// The vector lanes are neighbouring cells of one low-res row, so the s * s
// queries of a cell ("phases") share every load of its window. Windows are
// staged in float with zeros around them: that is the border rule, without a
// branch. Three loops do all the arithmetic, forward and backward alike:
//
//   add_dots   scores[o] += lhs . window[o]      logits, gradient of weights
//   aggregate  out = sum_o weights[o] window[o]  output, gradient of query
//   gather     window's share of every query     gradients of key and value
//
// `gather` owns what it writes: the result is the same for any number of
// threads.

// ---- blocking -------------------------------------------------------------

// Channels staged at a time; a multiple of every block of channels below.
constexpr int64_t kStagedChannels = 16;
// A tile of cells: wide enough for long runs, small enough for the caches.
constexpr int64_t kTileRows = 4;
constexpr int64_t kTileCols = 64;
// What the backward pass may keep of the weights and their gradient, for each
// of the threads that share an image: every channel reads all of it, so it has
// to stay in the cache. More would only mean fewer times that threads meet.
constexpr int64_t kWorkspaceBytes = 512 << 10;
constexpr int64_t kMostWorkspaces = 8;

// Register blocks: 32 vector registers with AVX-512, 16 otherwise.
constexpr int kPhaseBlock = MMSAPA_VECTOR_BYTES == 64 ? 4 : 2;
constexpr int kAggregateBlock = 4;
constexpr int kGatherBlock = MMSAPA_VECTOR_BYTES == 64 ? 4 : 2;

// Calls f with the register blocks of this kernel size and scale as types:
// kW offsets of a window's row (or column) by kP phases.
template <typename F>
inline void with_blocks(const Shape& s, F f) {
  const auto phases = [&](auto window) {
    if (s.phases() % kPhaseBlock == 0)
      f(window, std::integral_constant<int, kPhaseBlock>());
    else
      f(window, std::integral_constant<int, 1>());
  };
  if (s.kernel_size == 5)
    phases(std::integral_constant<int, 5>());
  else if (s.kernel_size == 3)
    phases(std::integral_constant<int, 3>());
  else
    phases(std::integral_constant<int, 1>());
}

// Cells [row, row + rows) x [col, col + cols) of one image.
struct Tile {
  int64_t image, row, rows, col, cols;
};

// A band of rows, cut into tiles.
class Tiling {
 public:
  Tiling(const Shape& s, int64_t row, int64_t rows, int64_t lanes)
      : row_(row), rows_(rows), width_(s.width) {
    const int64_t across = (s.width + kTileCols - 1) / kTileCols;
    cols_ = round_up((s.width + across - 1) / across, lanes);
    across_ = (s.width + cols_ - 1) / cols_;
    down_ = (rows + kTileRows - 1) / kTileRows;
  }
  int64_t size() const { return across_ * down_; }
  int64_t cols() const { return cols_; }
  Tile operator()(int64_t image, int64_t i) const {
    const int64_t row = row_ + i / across_ * kTileRows;
    const int64_t col = i % across_ * cols_;
    return {image, row, std::min(kTileRows, row_ + rows_ - row), col,
            std::min(cols_, width_ - col)};
  }

 private:
  int64_t row_, rows_, width_, cols_, across_, down_;
};

// ---- staging --------------------------------------------------------------

// A tile's cells and the windows around them, zeros outside the map. A vector
// of cells to the left and to the right, so that rows start aligned.
// to [channels][tile.rows + K - 1][stride]
template <typename T, typename A>
void stage_windows(const Shape& s, const T* planes /* [channels, H, W] */,
                   int64_t channels, const Tile& tile, A* to, int64_t stride) {
  constexpr int64_t kLanes = Vector<A>::kLanes;
  const int64_t r = s.radius(), margin = round_up(r, kLanes);
  const int64_t plane_size = s.height * s.width;
  for (int64_t c = 0; c < channels; ++c) {
    const T* plane = planes + c * plane_size;
    const T* later =
        c + kAhead < channels ? plane + kAhead * plane_size : plane;
    for (int64_t y = tile.row - r; y < tile.row + tile.rows + r;
         ++y, to += stride) {
      const bool inside = y >= 0 && y < s.height;
      for (int64_t j = 0; j < stride; j += kLanes) {
        const int64_t x = tile.col - margin + j;
        Vec<A> cells = {};
        if (inside && x >= 0)
          cells = load_as<A>(plane + y * s.width + x, s.width - x);
        store(to + j, cells);
      }
    }
  }
}

// A row of queries, taken apart into the phases of its cells; zeros where a
// cell at the border has no such query.
// to [scale][stride], zero to the end of the last vector
template <typename T, typename A>
void split_row(int64_t scale, const T* row, int64_t queries, int64_t cols,
               A* to, int64_t stride) {
  constexpr int64_t kLanes = Vector<A>::kLanes;
  if (scale == 2) {
    for (int64_t j = 0; j < cols; j += kLanes) {
      const int64_t x = 2 * j, rest = queries - x;
      const Vec<A> first = load_as<A>(row + x, rest);
      const Vec<A> second = load_as<A>(row + x + kLanes, rest - kLanes);
      store(to + j, shuffle<Order::kEven, A>(first, second));
      store(to + stride + j, shuffle<Order::kOdd, A>(first, second));
    }
    return;
  }
  for (int64_t b = 0; b < scale; ++b) {
    A* phase = to + b * stride;
    std::fill_n(phase, round_up(cols, kLanes), A(0));
    for (int64_t x = b; x < queries; x += scale)
      phase[x / scale] = static_cast<A>(row[x]);
  }
}

// A tile's row of queries [col * scale, ...) in [channels, Hq, Wq], which is
// not there where a cell at the border has no such query.
struct QueryRow {
  int64_t offset, size;

  QueryRow(const Shape& s, int64_t row, int64_t phase, int64_t col,
           int64_t cols) {
    const int64_t y = row * s.scale + phase, x = col * s.scale;
    offset = y * s.query_width + x;
    size =
        y < s.query_height ? std::min(cols * s.scale, s.query_width - x) : 0;
  }
};

// One row of cells of a high-res map, taken apart into its phases.
// to [channels][phases][phase_stride]
template <typename T, typename A>
void split_phases(const Shape& s, const T* planes /* [channels, Hq, Wq] */,
                  int64_t channels, int64_t row, int64_t col, int64_t cols,
                  A* to, int64_t channel_stride, int64_t phase_stride) {
  const int64_t plane_size = s.query_height * s.query_width;
  for (int64_t a = 0; a < s.scale; ++a) {
    const QueryRow queries(s, row, a, col, cols);
    for (int64_t c = 0; c < channels; ++c)
      split_row(s.scale, planes + c * plane_size + queries.offset,
                queries.size, cols,
                to + c * channel_stride + a * s.scale * phase_stride,
                phase_stride);
  }
}

// The reverse: one row of cells, put back together.
template <typename T, typename A>
void merge_phases(const Shape& s, const A* from, int64_t channel_stride,
                  int64_t phase_stride, int64_t channels, int64_t row,
                  int64_t col, int64_t cols,
                  T* planes /* [channels, Hq, Wq] */) {
  const int64_t plane_size = s.query_height * s.query_width;
  for (int64_t a = 0; a < s.scale; ++a) {
    const QueryRow queries(s, row, a, col, cols);
    for (int64_t c = 0; c < channels; ++c) {
      const A* phases = from + c * channel_stride + a * s.scale * phase_stride;
      T* to = planes + c * plane_size + queries.offset;
      for (int64_t b = 0; b < s.scale; ++b)
        for (int64_t x = b; x < queries.size; x += s.scale)
          to[x] = static_cast<T>(phases[b * phase_stride + x / s.scale]);
    }
  }
}

// ---- the three loops ------------------------------------------------------

// Scores of one row of cells: [phases][K * K][stride].
template <typename A>
struct Scores {
  A* data;
  int64_t stride;
};

// scores[p][o][j] += sum_c lhs[c][p][j] * windows[c][j + o]
template <typename A>
void add_dots(const Shape& s, const A* lhs /* [channels][phases][stride] */,
              int64_t lhs_stride,
              const A* windows /* [channels][rows][stride] */,
              int64_t window_stride, int64_t plane_stride, int64_t channels,
              int64_t cols, Scores<A> scores) {
  const int64_t K = s.kernel_size, phases = s.phases();
  with_blocks(s, [&](auto window_block, auto phase_block) {
    constexpr int kW = window_block, kP = phase_block;
    for (int64_t j = 0; j < cols; j += Vector<A>::kLanes)
      for (int64_t p = 0; p < phases; p += kP)
        for (int64_t dy = 0; dy < K; ++dy)
          for (int64_t dx = 0; dx < K; dx += kW) {
            A* score =
                scores.data + ((p * K + dy) * K + dx) * scores.stride + j;
            Vec<A> sum[kP][kW];
#pragma GCC unroll 8
            for (int q = 0; q < kP; ++q)
#pragma GCC unroll 8
              for (int o = 0; o < kW; ++o)
                sum[q][o] = load(score + (q * K * K + o) * scores.stride);
            const A* left = lhs + p * lhs_stride + j;
            const A* right = windows + dy * window_stride + dx + j;
            for (int64_t c = 0; c < channels; ++c) {
              Vec<A> x[kP];
#pragma GCC unroll 8
              for (int q = 0; q < kP; ++q) x[q] = load(left + q * lhs_stride);
#pragma GCC unroll 8
              for (int o = 0; o < kW; ++o) {
                const Vec<A> y = load(right + o);
#pragma GCC unroll 8
                for (int q = 0; q < kP; ++q) sum[q][o] += x[q] * y;
              }
              left += phases * lhs_stride;
              right += plane_stride;
            }
#pragma GCC unroll 8
            for (int q = 0; q < kP; ++q)
#pragma GCC unroll 8
              for (int o = 0; o < kW; ++o)
                store(score + (q * K * K + o) * scores.stride, sum[q][o]);
          }
  });
}

// sum_o weights[p][o][j] * windows[c][j + o], given to
// write(c, p, j, sums of kP phases from p on)
template <typename A, typename Write>
void aggregate(const Shape& s, Scores<A> weights,
               const A* windows /* [channels][rows][stride] */,
               int64_t window_stride, int64_t plane_stride, int64_t channels,
               int64_t cols, Write write) {
  const int64_t K = s.kernel_size, phases = s.phases();
  with_blocks(s, [&](auto, auto phase_block) {
    constexpr int kP = phase_block, kC = kAggregateBlock;
    for (int64_t j = 0; j < cols; j += Vector<A>::kLanes)
      for (int64_t c = 0; c < channels; c += kC)
        for (int64_t p = 0; p < phases; p += kP) {
          Vec<A> sum[kC][kP] = {};
          const A* weight = weights.data + p * K * K * weights.stride + j;
          const A* window = windows + c * plane_stride + j;
          for (int64_t dy = 0; dy < K; ++dy) {
            for (int64_t dx = 0; dx < K; ++dx) {
              Vec<A> w[kP];
#pragma GCC unroll 8
              for (int q = 0; q < kP; ++q)
                w[q] = load(weight + q * K * K * weights.stride);
#pragma GCC unroll 8
              for (int i = 0; i < kC; ++i) {
                const Vec<A> x = load(window + i * plane_stride + dx);
#pragma GCC unroll 8
                for (int q = 0; q < kP; ++q) sum[i][q] += w[q] * x;
              }
              weight += weights.stride;
            }
            window += window_stride;
          }
#pragma GCC unroll 8
          for (int i = 0; i < kC; ++i) write(c + i, p, j, sum[i]);
        }
  });
}

// rows[dy][c][j] += sum_{p, dx} weights[p][dy, dx][j - dx] * lhs[c][p][j - dx]
// for dx, dy in [-K/2, K/2]: what one row of queries gives to the rows of
// cells that it sees.
template <typename A>
void gather(const Shape& s, Scores<A> weights,
            const A* lhs /* [kGatherBlock][phases][stride] */,
            int64_t lhs_stride, int64_t cols,
            A* const* rows /* K rows of [kGatherBlock][stride] */,
            int64_t row_stride) {
  const int64_t K = s.kernel_size, r = s.radius(), phases = s.phases();
  with_blocks(s, [&](auto window_block, auto) {
    constexpr int kW = window_block, kC = kGatherBlock;
    for (int64_t j = 0; j < cols; j += Vector<A>::kLanes)
      for (int64_t dy = 0; dy < K; dy += kW) {
        Vec<A> sum[kW][kC] = {};
        for (int64_t dx = 0; dx < K; ++dx) {
          const int64_t from = j - (dx - r);
          for (int64_t p = 0; p < phases; ++p) {
            Vec<A> x[kC];
#pragma GCC unroll 8
            for (int i = 0; i < kC; ++i)
              x[i] = load(lhs + (i * phases + p) * lhs_stride + from);
            const A* weight =
                weights.data + ((p * K + dy) * K + dx) * weights.stride + from;
#pragma GCC unroll 8
            for (int o = 0; o < kW; ++o) {
              const Vec<A> w = load(weight + o * K * weights.stride);
#pragma GCC unroll 8
              for (int i = 0; i < kC; ++i) sum[o][i] += w * x[i];
            }
          }
        }
#pragma GCC unroll 8
        for (int o = 0; o < kW; ++o)
#pragma GCC unroll 8
          for (int i = 0; i < kC; ++i) {
            A* to = rows[dy + o] + i * row_stride + j;
            store(to, load(to) + sum[o][i]);
          }
      }
  });
}

// ---- softmax --------------------------------------------------------------

// Logits to weights, in place.
template <typename A>
void softmax(const Shape& s, Scores<A> scores, int64_t cols) {
  const int64_t window = s.window();
  for (int64_t j = 0; j < cols; j += Vector<A>::kLanes)
    for (int64_t p = 0; p < s.phases(); ++p) {
      A* score = scores.data + p * window * scores.stride + j;
      Vec<A> max = load(score);
      for (int64_t o = 1; o < window; ++o) {
        const Vec<A> x = load(score + o * scores.stride);
        max = x > max ? x : max;
      }
      Vec<A> sum = {};
      for (int64_t o = 0; o < window; ++o) {
        const Vec<A> e =
            exp_nonpositive<A>(load(score + o * scores.stride) - max);
        store(score + o * scores.stride, e);
        sum += e;
      }
      const Vec<A> scale = A(1) / sum;
      for (int64_t o = 0; o < window; ++o)
        store(score + o * scores.stride,
              load(score + o * scores.stride) * scale);
    }
}

// Gradient of the weights to gradient of the logits, in place.
template <typename A>
void softmax_backward(const Shape& s, Scores<A> weights, Scores<A> grads,
                      int64_t cols) {
  const int64_t window = s.window();
  for (int64_t j = 0; j < cols; j += Vector<A>::kLanes)
    for (int64_t p = 0; p < s.phases(); ++p) {
      const A* weight = weights.data + p * window * weights.stride + j;
      A* grad = grads.data + p * window * grads.stride + j;
      Vec<A> delta = {};
      for (int64_t o = 0; o < window; ++o)
        delta +=
            load(weight + o * weights.stride) * load(grad + o * grads.stride);
      for (int64_t o = 0; o < window; ++o)
        store(grad + o * grads.stride,
              load(weight + o * weights.stride) *
                  (load(grad + o * grads.stride) - delta));
    }
}

// Zeros for the queries that a row of cells does not have, of `stride` cells.
// Theirs are made of zeros: that is a number only where the keys are.
template <typename A>
void clear_absent(const Shape& s, int64_t row, int64_t col, int64_t cols,
                  Scores<A> scores) {
  for (int64_t a = 0; a < s.scale; ++a) {
    const QueryRow queries(s, row, a, col, cols);
    for (int64_t b = 0; b < s.scale; ++b) {
      const int64_t present =
          queries.size > b ? (queries.size - b - 1) / s.scale + 1 : 0;
      const int64_t rest = round_up(cols, Vector<A>::kLanes) - present;
      A* phase = scores.data + (a * s.scale + b) * s.window() * scores.stride;
      for (int64_t o = 0; o < s.window() && rest > 0; ++o)
        std::fill_n(phase + o * scores.stride + present, rest, A(0));
    }
  }
}

// ---- a tile ---------------------------------------------------------------

// What one thread needs to work on tiles of up to `cols` columns.
template <typename A>
class Worker {
 public:
  Worker(const Shape& shape, int64_t cols)
      : s(shape),
        cols_(cols),
        margin_(round_up(shape.radius(), Vector<A>::kLanes)),
        stride_(cols + 2 * margin_),
        windows_(kStagedChannels * (kTileRows + shape.kernel_size - 1) *
                 stride_),
        phases_(kStagedChannels * shape.phases() * cols) {}

  // scores of the tile's rows += lhs . windows of rhs, over all channels
  template <typename T>
  void score(const Tile& tile, const T* lhs /* [N, channels, Hq, Wq] */,
             const T* rhs /* [N, channels, H, W] */, int64_t channels,
             Scores<A> scores, int64_t row_stride) {
    for (int64_t c = 0; c < channels; c += kStagedChannels) {
      const int64_t count = std::min(kStagedChannels, channels - c);
      stage(tile, rhs, channels, c, count);
      for (int64_t i = 0; i < tile.rows; ++i) {
        split_phases(s, high_res(lhs, tile, channels, c), count, tile.row + i,
                     tile.col, tile.cols, phases_.get(), s.phases() * cols_,
                     cols_);
        add_dots<A>(s, phases_.get(), cols_, windows(i), stride_, plane(tile),
                    count, tile.cols,
                    {scores.data + i * row_stride, scores.stride});
      }
    }
  }

  // out = weighted sum of the windows of rhs, channel by channel
  template <typename T>
  void weighted_sum(const Tile& tile, Scores<A> weights, int64_t row_stride,
                    const T* rhs /* [N, channels, H, W] */, int64_t channels,
                    T* out /* [N, channels, Hq, Wq] */) {
    for (int64_t c = 0; c < channels; c += kStagedChannels) {
      const int64_t count = std::min(kStagedChannels, channels - c);
      stage(tile, rhs, channels, c, count);
      T* planes = high_res(out, tile, channels, c);
      for (int64_t i = 0; i < tile.rows; ++i) {
        const auto sum = [&](auto write) {
          aggregate<A>(s, {weights.data + i * row_stride, weights.stride},
                       windows(i), stride_, plane(tile),
                       round_up(count, kAggregateBlock), tile.cols, write);
        };
        if (s.scale == 2) {
          sum(row_writer(tile, i, channels, count, planes));
        } else {
          sum([&](int64_t channel, int64_t p, int64_t j, auto& sums) {
            for (const Vec<A>& x : sums)
              store(phases_.get() + (channel * s.phases() + p++) * cols_ + j,
                    x);
          });
          merge_phases(s, phases_.get(), s.phases() * cols_, cols_, count,
                       tile.row + i, tile.col, tile.cols, planes);
        }
      }
    }
    fence();
  }

 private:
  // For scale 2: interleaves the phases of row i in registers and writes them
  // straight into the map.
  template <typename T>
  auto row_writer(const Tile& tile, int64_t i, int64_t channels, int64_t count,
                  T* planes /* [count, Hq, Wq] */) const {
    const int64_t plane_size = s.query_height * s.query_width;
    const QueryRow rows[] = {{s, tile.row + i, 0, tile.col, tile.cols},
                             {s, tile.row + i, 1, tile.col, tile.cols}};
    const bool streams =
        s.batch * channels * plane_size * sizeof(T) >= kStreamedBytes;
    return [=](int64_t channel, int64_t p, int64_t j, auto& sums) {
      if (channel >= count) return;
      for (size_t q = 0; q + 1 < std::size(sums); q += 2) {
        constexpr int64_t kLanes = Vector<A>::kLanes;
        const QueryRow& row = rows[(p + q) / 2];
        const int64_t size = row.size - 2 * j;
        T* to = planes + channel * plane_size + row.offset + 2 * j;
        write_as<A>(to, shuffle<Order::kFirst, A>(sums[q], sums[q + 1]), size,
                    streams);
        write_as<A>(to + kLanes,
                    shuffle<Order::kSecond, A>(sums[q], sums[q + 1]),
                    size - kLanes, streams);
      }
    };
  }

  template <typename T>
  T* high_res(T* map, const Tile& tile, int64_t channels, int64_t c) const {
    return map + (tile.image * channels + c) * s.query_height * s.query_width;
  }

  int64_t plane(const Tile& tile) const {
    return (tile.rows + s.kernel_size - 1) * stride_;
  }

  // Of the tile's row i, from the first offset of the first cell on.
  const A* windows(int64_t i) {
    return windows_.get() + i * stride_ + margin_ - s.radius();
  }

  template <typename T>
  void stage(const Tile& tile, const T* map, int64_t channels, int64_t c,
             int64_t count) {
    stage_windows(s, map + (tile.image * channels + c) * s.height * s.width,
                  count, tile, windows_.get(), stride_);
  }

  const Shape s;
  const int64_t cols_, margin_, stride_;
  Buffer<A> windows_;  // [kStagedChannels][rows + K - 1][stride_]
  Buffer<A> phases_;   // [kStagedChannels][phases][cols_]
};

// ---- forward --------------------------------------------------------------

// Weights of every tile, given to `use(worker, tile, weights, row_stride)`.
template <typename T, typename A, typename Use>
void for_each_tile(const Shape& s, const T* query, const T* key, Use use) {
  const Tiling tiles(s, 0, s.height, Vector<A>::kLanes);
  const int64_t stride = tiles.cols();
  const int64_t row_stride = s.phases() * s.window() * stride;
  at::parallel_for(
      0, s.batch * tiles.size(), 1, [&](int64_t begin, int64_t end) {
        Worker<A> worker(s, stride);
        Buffer<A> buffer(kTileRows * row_stride);
        const Scores<A> scores{buffer.get(), stride};
        for (int64_t i = begin; i < end; ++i) {
          const Tile tile = tiles(i / tiles.size(), i % tiles.size());
          std::fill_n(scores.data, tile.rows * row_stride, A(0));
          worker.score(tile, query, key, s.embed, scores, row_stride);
          for (int64_t y = 0; y < tile.rows; ++y)
            softmax<A>(s, {scores.data + y * row_stride, stride}, tile.cols);
          use(worker, tile, scores, row_stride);
        }
      });
}

template <typename T, typename A>
void upsample(const Shape& s, const T* query, const T* key, const T* value,
              T* out) {
  for_each_tile<T, A>(s, query, key,
                      [&](Worker<A>& worker, const Tile& tile,
                          Scores<A> weights, int64_t row_stride) {
                        worker.weighted_sum(tile, weights, row_stride, value,
                                            s.channels, out);
                      });
}

template <typename T, typename A>
void kernels(const Shape& s, const T* query, const T* key, T* weights) {
  for_each_tile<T, A>(
      s, query, key,
      [&](Worker<A>&, const Tile& tile, Scores<A> scores, int64_t row_stride) {
        T* image =
            weights + tile.image * s.window() * s.query_height * s.query_width;
        for (int64_t y = 0; y < tile.rows; ++y)
          merge_phases(s, scores.data + y * row_stride, scores.stride,
                       s.window() * scores.stride, s.window(), tile.row + y,
                       tile.col, tile.cols, image);
      });
}

// ---- backward -------------------------------------------------------------

// Gathers the gradient of one low-res map, kGatherBlock channels and one row
// of queries at a time. A row of cells is complete, and written, when the
// last row of queries that sees it has been given.
template <typename T, typename A>
class Gatherer {
 public:
  Gatherer(const Shape& s, int64_t channels, int64_t width)
      : s(s),
        channels_(channels),
        width_(width),
        blocks_((channels + kGatherBlock - 1) / kGatherBlock),
        sums_(blocks_ * s.kernel_size * kGatherBlock * width) {}

  int64_t blocks() const { return blocks_; }

  // Rows [row, row + rows) of queries, of one block of channels.
  void add(int64_t block, int64_t row, int64_t rows,
           const T* lhs /* [channels, Hq, Wq] */, Scores<A> weights,
           int64_t row_stride, int64_t pad, A* phases,
           T* grad /* [channels, H, W] */) {
    const int64_t K = s.kernel_size, r = s.radius();
    const int64_t first = block * kGatherBlock;
    const int64_t count = std::min<int64_t>(kGatherBlock, channels_ - first);
    std::vector<A*> targets(K);
    for (int64_t y = row; y < row + rows; ++y) {
      split_phases(s, lhs + first * s.query_height * s.query_width, count, y,
                   0, s.width, phases + pad, s.phases() * width_, width_);
      for (int64_t o = 0; o < K; ++o) targets[o] = sums(block, y + o - r);
      gather<A>(s, {weights.data + (y - row) * row_stride, weights.stride},
                phases + pad, width_, s.width, targets.data(), width_);
      flush(block, y - r, first, count, grad);
      if (y == s.height - 1)
        for (int64_t rest = y - r + 1; rest <= y; ++rest)
          flush(block, rest, first, count, grad);
    }
  }

 private:
  // The sums of a row of cells, in a ring of K rows: [kGatherBlock][width_].
  // Rows outside the map have a place there like any other, and no reader.
  A* sums(int64_t block, int64_t y) {
    const int64_t slot = (y + s.kernel_size) % s.kernel_size;
    return sums_.get() +
           (block * s.kernel_size + slot) * kGatherBlock * width_;
  }

  void flush(int64_t block, int64_t y, int64_t first, int64_t count, T* grad) {
    A* sum = sums(block, y);
    if (y >= 0)
      for (int64_t c = 0; c < count; ++c)
        for (int64_t x = 0; x < s.width; ++x)
          grad[((first + c) * s.height + y) * s.width + x] =
              static_cast<T>(sum[c * width_ + x]);
    std::fill_n(sum, kGatherBlock * width_, A(0));
  }

  const Shape s;
  const int64_t channels_, width_, blocks_;
  Buffer<A> sums_;
};

// Band by band of query rows: first weights and gradient of the logits, in
// parallel over tiles, then what they give to keys and values, in parallel
// over channels. `grad_of_weights(worker, tile, out, row_stride)` fills in
// the gradient of the weights, which it finds zero.
template <typename T, typename A, typename GradOfWeights>
void backward_of_image(const Shape& s, int64_t image, const T* grad,
                       const T* query, const T* key, T* grad_query,
                       T* grad_key, T* grad_value,
                       GradOfWeights grad_of_weights) {
  const int64_t lanes = Vector<A>::kLanes;
  // Room for shifts by a window's radius, to either side.
  const int64_t pad = round_up(s.radius(), lanes);
  const int64_t width = round_up(s.width, lanes) + 2 * pad;
  const int64_t row_stride = s.phases() * s.window() * width;
  const int64_t threads = at::in_parallel_region() ? 1 : at::get_num_threads();
  const int64_t band =
      std::clamp<int64_t>(std::min(threads, kMostWorkspaces) *
                              kWorkspaceBytes / (2 * row_stride * sizeof(A)),
                          1, round_up(s.height, kTileRows));
  Buffer<A> weight_buffer(band * row_stride), grad_buffer(band * row_stride);
  const Scores<A> weights{weight_buffer.get() + pad, width};
  const Scores<A> grads{grad_buffer.get() + pad, width};
  const int64_t high_res = s.query_height * s.query_width;
  const int64_t low_res = s.height * s.width;
  Gatherer<T, A> keys(s, grad_key ? s.embed : 0, width);
  Gatherer<T, A> values(s, grad_value ? s.channels : 0, width);
  const bool scores_wanted = grad_query || grad_key;

  for (int64_t row = 0; row < s.height; row += band) {
    const int64_t rows = std::min(band, s.height - row);
    const Tiling tiles(s, row, rows, lanes);
    at::parallel_for(0, tiles.size(), 1, [&](int64_t begin, int64_t end) {
      Worker<A> worker(s, tiles.cols());
      for (int64_t i = begin; i < end; ++i) {
        const Tile tile = tiles(image, i);
        const int64_t at = (tile.row - row) * row_stride + tile.col;
        const Scores<A> p{weights.data + at, width};
        const Scores<A> d{grads.data + at, width};
        const int64_t tile_cols = round_up(tile.cols, lanes);
        for (int64_t y = 0; y < tile.rows; ++y)
          for (int64_t o = 0; o < s.phases() * s.window(); ++o) {
            std::fill_n(p.data + y * row_stride + o * width, tile_cols, A(0));
            std::fill_n(d.data + y * row_stride + o * width, tile_cols, A(0));
          }
        worker.score(tile, query, key, s.embed, p, row_stride);
        for (int64_t y = 0; y < tile.rows; ++y) {
          const Scores<A> scores{p.data + y * row_stride, width};
          softmax<A>(s, scores, tile.cols);
          clear_absent(s, tile.row + y, tile.col, tile.cols, scores);
        }
        if (!scores_wanted) continue;
        grad_of_weights(worker, tile, d, row_stride);
        for (int64_t y = 0; y < tile.rows; ++y) {
          const Scores<A> scores{d.data + y * row_stride, width};
          softmax_backward<A>(s, {p.data + y * row_stride, width}, scores,
                              tile.cols);
          clear_absent(s, tile.row + y, tile.col, tile.cols, scores);
        }
        if (grad_query)
          worker.weighted_sum(tile, d, row_stride, key, s.embed, grad_query);
      }
    });
    at::parallel_for(
        0, keys.blocks() + values.blocks(), 1,
        [&](int64_t begin, int64_t end) {
          Buffer<A> phases(kGatherBlock * s.phases() * width);
          for (int64_t i = begin; i < end; ++i) {
            const int64_t v = i - keys.blocks();
            if (v < 0)
              keys.add(i, row, rows, query + image * s.embed * high_res, grads,
                       row_stride, pad, phases.get(),
                       grad_key + image * s.embed * low_res);
            else
              values.add(v, row, rows, grad + image * s.channels * high_res,
                         weights, row_stride, pad, phases.get(),
                         grad_value + image * s.channels * low_res);
          }
        });
  }
}

// Images in parallel where there are enough of them, else within each.
template <typename F>
void for_each_image(const Shape& s, F f) {
  const int64_t grain = s.batch < at::get_num_threads() ? s.batch : 1;
  at::parallel_for(0, s.batch, grain, [&](int64_t begin, int64_t end) {
    for (int64_t image = begin; image < end; ++image) f(image);
  });
}

template <typename T, typename A>
void upsample_backward(const Shape& s, const T* grad, const T* query,
                       const T* key, const T* value, T* grad_query,
                       T* grad_key, T* grad_value) {
  for_each_image(s, [&](int64_t image) {
    backward_of_image<T, A>(
        s, image, grad, query, key, grad_query, grad_key, grad_value,
        [&](Worker<A>& worker, const Tile& tile, Scores<A> out,
            int64_t row_stride) {
          worker.score(tile, grad, value, s.channels, out, row_stride);
        });
  });
}

template <typename T, typename A>
void kernels_backward(const Shape& s, const T* grad, const T* query,
                      const T* key, T* grad_query, T* grad_key) {
  for_each_image(s, [&](int64_t image) {
    backward_of_image<T, A>(
        s, image, grad, query, key, grad_query, grad_key,
        static_cast<T*>(nullptr),
        [&](Worker<A>&, const Tile& tile, Scores<A> out, int64_t row_stride) {
          const T* planes =
              grad + tile.image * s.window() * s.query_height * s.query_width;
          for (int64_t y = 0; y < tile.rows; ++y)
            split_phases(s, planes, s.window(), tile.row + y, tile.col,
                         tile.cols, out.data + y * row_stride, out.stride,
                         s.window() * out.stride);
        });
  });
}
