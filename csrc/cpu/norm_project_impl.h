// Copyright (c) mmsapa contributors. SPDX-License-Identifier: Apache-2.0
//
// Layer normalisation over channels and a projection, in one reading of the
// map. Included by kernels_impl.h alone, inside the namespace of an
// instruction set.
//
// The vector lanes are pixels. A tile of them is staged in the cache, where
// mean, variance and products are taken of it; the normalised map is never
// written. Staged maps are cut into panels, [panels][rows][kPanel] pixels, so
// that products read them from front to back.

constexpr int kVectors = 2;  // in a row of a panel
constexpr int kProductRows = MMSAPA_VECTOR_BYTES == 64 ? 8 : 4;
// Of the gradient of the weight, kOuterRows outputs by as many channels as
// make a whole number of vectors.
constexpr int kOuterRows = 4;
constexpr int kOuterCols = MMSAPA_VECTOR_BYTES == 64 ? 4 : 2;
// A staged map stays in the cache.
constexpr int64_t kStagedBytes = 256 << 10;
constexpr int64_t kMaxPixels = 1024;
// The gradient of the weight is summed in so many parts, whatever the number
// of threads: then it is the same for any.
constexpr int64_t kParts = 32;

template <typename A>
constexpr int64_t kPanel = kVectors * Vector<A>::kLanes;

// [rows, depth] to [rows / kProductRows][depth][kProductRows], so that
// multiply() reads it from front to back; zero beyond the last row.
template <typename A, typename At>
Buffer<A> packed(int64_t rows, int64_t depth, At at) {
  Buffer<A> buffer(round_up(rows, kProductRows) * depth);
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t k = 0; k < depth; ++k)
      buffer.get()[(r / kProductRows * depth + k) * kProductRows +
                   r % kProductRows] = at(r, k);
  return buffer;
}

// matrix [rows, depth], packed, times a panel [depth][kPanel]; each row is
// given to write(row, vector of the panel, product). Meanwhile ahead(k) is
// called for every row of the panel, to fetch what comes next.
template <typename A, typename Ahead, typename Write>
void multiply(const A* matrix, int64_t rows, int64_t depth, const A* panel,
              Ahead ahead, Write write) {
  constexpr int64_t kLanes = Vector<A>::kLanes;
  for (int64_t r = 0; r < rows; r += kProductRows) {
    Vec<A> sum[kProductRows][kVectors] = {};
    const A* from = panel;
    for (int64_t k = 0; k < depth; ++k, from += kPanel<A>) {
      if (r == 0) ahead(k);
      Vec<A> x[kVectors];
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) x[v] = load(from + v * kLanes);
#pragma GCC unroll 8
      for (int i = 0; i < kProductRows; ++i) {
        const A factor = *matrix++;
#pragma GCC unroll 8
        for (int v = 0; v < kVectors; ++v) sum[i][v] += factor * x[v];
      }
    }
    for (int64_t i = 0; i < std::min<int64_t>(kProductRows, rows - r); ++i)
      for (int v = 0; v < kVectors; ++v) write(r + i, v, sum[i][v]);
  }
}

// sums [rows / kOuterRows][cols / kOuterCols][kOuterRows][kOuterCols] +=
// lhs rhs^T over all pixels; lhs and rhs are panels of so many rows.
template <typename A>
void add_outer(const A* lhs, int64_t rows, const A* rhs, int64_t cols,
               int64_t panels, A* sums) {
  constexpr int64_t kLanes = Vector<A>::kLanes;
  constexpr int kSums = kOuterRows * kOuterCols;
  for (int64_t r = 0; r < rows; r += kOuterRows)
    for (int64_t c = 0; c < cols; c += kOuterCols, sums += kSums) {
      Vec<A> sum[kSums] = {};
      for (int64_t panel = 0; panel < panels; ++panel) {
        const A* left = lhs + (panel * rows + r) * kPanel<A>;
        const A* right = rhs + (panel * cols + c) * kPanel<A>;
#pragma GCC unroll 8
        for (int v = 0; v < kVectors; ++v) {
          Vec<A> y[kOuterCols];
#pragma GCC unroll 8
          for (int j = 0; j < kOuterCols; ++j)
            y[j] = load(right + j * kPanel<A> + v * kLanes);
#pragma GCC unroll 8
          for (int i = 0; i < kOuterRows; ++i) {
            const Vec<A> x = load(left + i * kPanel<A> + v * kLanes);
#pragma GCC unroll 8
            for (int j = 0; j < kOuterCols; ++j)
              sum[i * kOuterCols + j] += x * y[j];
          }
        }
      }
#pragma GCC unroll 8
      for (int i = 0; i < kSums; i += kLanes)
        store(sums + i, load(sums + i) + sums_of<A>(sum + i));
    }
}

// Pixels [begin, begin + size) of one image.
struct PixelTile {
  int64_t image, begin, size;
};

class PixelTiling {
 public:
  template <typename A>
  static PixelTiling of(const NormProjectShape& s, A) {
    const int64_t fit = kStagedBytes / (s.channels * sizeof(A));
    const int64_t most =
        round_up(std::clamp<int64_t>(fit, 1, kMaxPixels), kPanel<A>);
    const int64_t across = std::max<int64_t>(1, (s.pixels + most - 1) / most);
    return PixelTiling(s,
                       round_up((s.pixels + across - 1) / across, kPanel<A>));
  }
  int64_t size() const { return images_ * across_; }
  int64_t pixels() const { return pixels_; }
  PixelTile operator()(int64_t i) const {
    const int64_t begin = i % across_ * pixels_;
    return {i / across_, begin, std::min(pixels_, size_ - begin)};
  }

 private:
  PixelTiling(const NormProjectShape& s, int64_t pixels)
      : images_(s.batch),
        size_(s.pixels),
        pixels_(pixels),
        across_((s.pixels + pixels - 1) / pixels) {}
  int64_t images_, size_, pixels_, across_;
};

// Calls use(channel, pixel of the tile, vector) for every vector of the tile,
// zeros after its last pixel.
template <typename A, typename T, typename Use>
void for_each_vector(const NormProjectShape& s, const PixelTile& tile,
                     const T* map /* [N, channels, P] */, int64_t channels,
                     Use use) {
  for (int64_t c = 0; c < channels; ++c) {
    const T* plane = map + (tile.image * channels + c) * s.pixels + tile.begin;
    const T* later = c + kAhead < channels ? plane + kAhead * s.pixels : plane;
    for (int64_t j = 0; j < round_up(tile.size, kPanel<A>);
         j += Vector<A>::kLanes) {
      __builtin_prefetch(later + j);
      use(c, j, load_as<A>(plane + j, tile.size - j));
    }
  }
}

// Where pixel j of row r stands in panels of `rows` rows.
template <typename A>
int64_t in_panels(int64_t rows, int64_t r, int64_t j) {
  return (j / kPanel<A> * rows + r) * kPanel<A> + j % kPanel<A>;
}

// A tile's pixels into panels, less their first channel, with the sums over
// channels of what is left and of its squares. As that channel is one of the
// numbers, the squared mean of what is left is at most C times the variance,
// and their difference loses C ulps at most.
template <typename T, typename A>
void stage(const NormProjectShape& s, const PixelTile& tile,
           const T* x /* [N, C, P] */, A* panels, A* sums /* [pixels] */,
           A* squares /* [pixels] */) {
  constexpr int64_t kLanes = Vector<A>::kLanes;
  constexpr int kSums = 4 * kVectors;  // in registers
  for (int64_t j = 0; j < tile.size; j += kSums * kLanes) {
    const int64_t size = tile.size - j;
    const int64_t count =
        std::min<int64_t>(kSums, round_up(size, kPanel<A>) / kLanes);
    const auto add = [&](auto whole) {
      const T* pixels =
          x + tile.image * s.channels * s.pixels + tile.begin + j;
      A* panel = panels + j * s.channels;
      Vec<A> shift[kSums] = {}, sum[kSums] = {}, square[kSums] = {};
      for (int64_t c = 0; c < s.channels; ++c, pixels += s.pixels) {
#pragma GCC unroll 8
        for (int v = 0; v < kSums; ++v) {
          if (!whole && v >= count) break;
          const T* from = pixels + v * kLanes;
          Vec<A> y =
              whole ? load_as<A>(from) : load_as<A>(from, size - v * kLanes);
          if (c == 0) shift[v] = y;
          y -= shift[v];
          store(panel + (v / kVectors * s.channels + c) * kPanel<A> +
                    v % kVectors * kLanes,
                y);
          sum[v] += y;
          square[v] += y * y;
        }
      }
      for (int v = 0; v < count; ++v) {
        store(sums + j + v * kLanes, sum[v]);
        store(squares + j + v * kLanes, square[v]);
      }
    };
    if (size >= kSums * kLanes)
      add(std::true_type());
    else
      add(std::false_type());
  }
}

// Normalizes a pixel in its panel, and returns mean and 1 / sigma, by the
// definition and without short cuts: what overflows squares, or is no number,
// needs that.
template <typename A, typename T>
std::pair<A, A> normalize(const NormProjectShape& s,
                          const T* x /* [C, P], of the pixel */, A eps,
                          A* column /* [C][kPanel], of the pixel */) {
  double mean = 0, variance = 0;
  for (int64_t c = 0; c < s.channels; ++c)
    mean += static_cast<double>(x[c * s.pixels]) / s.channels;
  for (int64_t c = 0; c < s.channels; ++c) {
    const double y = static_cast<double>(x[c * s.pixels]) - mean;
    variance += y * y / s.channels;
  }
  const A rstd = A(1) / std::sqrt(static_cast<A>(variance) + eps);
  for (int64_t c = 0; c < s.channels; ++c)
    column[c * kPanel<A>] =
        (static_cast<A>(x[c * s.pixels]) - static_cast<A>(mean)) * rstd;
  return {static_cast<A>(mean), rstd};
}

template <typename T, typename A>
void norm_project(const NormProjectShape& s, const T* x, const A* weight,
                  const A* bias, double eps, T* out, A* mean, A* rstd) {
  constexpr int64_t kLanes = Vector<A>::kLanes;
  const PixelTiling tiles = PixelTiling::of(s, A());
  const Buffer<A> matrix = packed<A>(
      s.outputs, s.channels,
      [&](int64_t e, int64_t c) { return weight[e * s.channels + c]; });
  at::parallel_for(0, tiles.size(), 1, [&](int64_t begin, int64_t end) {
    Buffer<A> panels(s.channels * tiles.pixels());
    Buffer<A> sums(tiles.pixels()), squares(tiles.pixels());
    for (int64_t i = begin; i < end; ++i) {
      const PixelTile tile = tiles(i);
      stage(s, tile, x, panels.get(), sums.get(), squares.get());
      const PixelTile next = tiles(std::min(i + 1, end - 1));
      const T* later = x + next.image * s.channels * s.pixels + next.begin;
      const T* shifts = x + tile.image * s.channels * s.pixels + tile.begin;
      const int64_t first = tile.image * s.pixels + tile.begin;
      for (int64_t j = 0; j < tile.size; j += kPanel<A>) {
        A* panel = panels.get() + j * s.channels;
        Vec<A> scale[kVectors];
        for (int v = 0; v < kVectors; ++v) {
          const int64_t at = j + v * kLanes, rest = tile.size - at;
          const Vec<A> centre = load(sums.get() + at) / A(s.channels);
          const Vec<A> variance =
              load(squares.get() + at) / A(s.channels) - centre * centre;
          for (int64_t l = 0; l < kLanes; ++l)
            scale[v][l] =
                A(1) / std::sqrt(std::max(variance[l], A(0)) + A(eps));
          store_as<A>(mean + first + at,
                      centre + load_as<A>(shifts + at, rest), rest);
          store_as<A>(rstd + first + at, scale[v], rest);
          for (int64_t l = 0; l < std::min(kLanes, rest); ++l) {
            if (scale[v][l] > 0 && std::isfinite(scale[v][l])) continue;
            std::tie(mean[first + at + l], rstd[first + at + l]) =
                normalize<A>(s, shifts + at + l, A(eps),
                             panel + v * kLanes + l);
            scale[v][l] = 1;
          }
        }
        T* to = out + tile.image * s.outputs * s.pixels + tile.begin + j;
        multiply<A>(
            matrix.get(), s.outputs, s.channels, panel,
            [&](int64_t c) {
              for (int v = 0; v < kVectors; ++v)
                __builtin_prefetch(later + c * s.pixels + j + v * kLanes, 0,
                                   2);
            },
            [&](int64_t e, int v, Vec<A> product) {
              const int64_t at = v * kLanes;
              store_as<A>(to + e * s.pixels + at, product * scale[v] + bias[e],
                          tile.size - j - at);
            });
      }
    }
  });
}

// Of one pixel: sum_e grad (out - bias), where the bias is no number or `out`
// had no room for the sum. NaN where grad is not finite, for then the mean's
// gradient is none.
template <typename A>
A factor_without_out(const NormProjectShape& s, const A* weight /* [E, C] */,
                     const A* scaled /* [E][kPanel] */,
                     const A* centred /* [C][kPanel] */) {
  A factor = 0, total = 0;
  for (int64_t c = 0; c < s.channels; ++c) {
    A product = 0;
    for (int64_t e = 0; e < s.outputs; ++e)
      product += weight[e * s.channels + c] * scaled[e * kPanel<A>];
    factor += product * centred[c * kPanel<A>];
    total += product;
  }
  return factor + (total - total);
}

// With W centred, z = W x, out = rstd z + bias, for every pixel:
//   grad_x = rstd W^T grad - (x - mean) rstd^2 / C sum_e grad (out - bias)
template <typename T, typename A>
void norm_project_backward(const NormProjectShape& s, const T* grad,
                           const T* x, const A* weight, const A* bias,
                           const T* out, const A* mean, const A* rstd,
                           T* grad_x, A* grad_weight, A* grad_bias) {
  const PixelTiling tiles = PixelTiling::of(s, A());
  const int64_t rows = round_up(s.outputs, kOuterRows);
  const int64_t cols = round_up(s.channels, kOuterCols);
  const int64_t parts = std::min(kParts, tiles.size());
  const Buffer<A> matrix = packed<A>(
      s.channels, s.outputs,
      [&](int64_t c, int64_t e) { return weight[e * s.channels + c]; });
  Buffer<A> weights(parts * rows * cols);
  const bool streams =
      s.batch * s.channels * s.pixels * static_cast<int64_t>(sizeof(T)) >=
      kStreamedBytes;
  Buffer<A> biases(parts * s.outputs * Vector<A>::kLanes);
  at::parallel_for(0, parts, 1, [&](int64_t begin, int64_t end) {
    constexpr int64_t kLanes = Vector<A>::kLanes;
    // Rows beyond the last output or channel stay zero.
    Buffer<A> centred(cols * tiles.pixels()), scaled(rows * tiles.pixels());
    Buffer<A> factors(tiles.pixels());
    for (int64_t part = begin; part < end; ++part)
      for (int64_t i = part * tiles.size() / parts;
           i < (part + 1) * tiles.size() / parts; ++i) {
        const PixelTile tile = tiles(i);
        const A* centre = mean + tile.image * s.pixels + tile.begin;
        const A* scale = rstd + tile.image * s.pixels + tile.begin;
        const T* result = out + tile.image * s.outputs * s.pixels + tile.begin;
        std::fill_n(factors.get(), tiles.pixels(), A(0));
        for_each_vector<A>(
            s, tile, grad, s.outputs, [&](int64_t e, int64_t j, Vec<A> g) {
              const int64_t rest = tile.size - j;
              const Vec<A> z =
                  load_as<A>(result + e * s.pixels + j, rest) - bias[e];
              store(factors.get() + j, load(factors.get() + j) + g * z);
              store(scaled.get() + in_panels<A>(rows, e, j),
                    g * load_as<A>(scale + j, rest));
              A* sum = biases.get() + (part * s.outputs + e) * kLanes;
              store(sum, load(sum) + g);
            });
        for_each_vector<A>(s, tile, x, s.channels,
                           [&](int64_t c, int64_t j, Vec<A> v) {
                             store(centred.get() + in_panels<A>(cols, c, j),
                                   v - load_as<A>(centre + j, tile.size - j));
                           });
        const int64_t panels = (tile.size + kPanel<A> - 1) / kPanel<A>;
        if (grad_weight)
          add_outer<A>(scaled.get(), rows, centred.get(), cols, panels,
                       weights.get() + part * rows * cols);
        if (!grad_x) continue;
        for (int64_t j = 0; j < tile.size; j += kPanel<A>) {
          for (int64_t l = j; l < std::min(j + kPanel<A>, tile.size); ++l)
            if (!std::isfinite(factors.get()[l]))
              factors.get()[l] = factor_without_out<A>(
                  s, weight, scaled.get() + in_panels<A>(rows, 0, l),
                  centred.get() + in_panels<A>(cols, 0, l));
          Vec<A> factor[kVectors];
          for (int v = 0; v < kVectors; ++v) {
            const int64_t at = j + v * kLanes;
            const Vec<A> r = load_as<A>(scale + at, tile.size - at);
            factor[v] = load(factors.get() + at) * r * r / A(s.channels);
          }
          T* to = grad_x + tile.image * s.channels * s.pixels + tile.begin + j;
          multiply<A>(
              matrix.get(), s.channels, s.outputs, scaled.get() + j * rows,
              [](int64_t) {},
              [&](int64_t c, int v, Vec<A> product) {
                const int64_t at = v * kLanes;
                const Vec<A> y =
                    load(centred.get() + in_panels<A>(cols, c, j) + at);
                write_as<A>(to + c * s.pixels + at, product - factor[v] * y,
                            tile.size - j - at, streams);
              });
        }
      }
    fence();
  });
  for (int64_t part = 0; part < parts; ++part) {
    constexpr int64_t kLanes = Vector<A>::kLanes;
    for (int64_t l = 0; l < s.outputs * kLanes && grad_bias; ++l)
      grad_bias[l / kLanes] += biases.get()[part * s.outputs * kLanes + l];
    for (int64_t e = 0; e < s.outputs && grad_weight; ++e)
      for (int64_t c = 0; c < s.channels; ++c) {
        const int64_t block =
            e / kOuterRows * (cols / kOuterCols) + c / kOuterCols;
        grad_weight[e * s.channels + c] +=
            weights.get()[part * rows * cols +
                          (block * kOuterRows + e % kOuterRows) * kOuterCols +
                          c % kOuterCols];
      }
  }
}
