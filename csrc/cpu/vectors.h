// Copyright (c) mmsapa contributors. SPDX-License-Identifier: Apache-2.0
//
// Vectors of MMSAPA_VECTOR_BYTES, and scratch memory for them. Included by
// kernels_impl.h alone, inside the namespace of an instruction set.

// ---- vectors --------------------------------------------------------------

template <typename A>
struct Vector {
  static constexpr int64_t kLanes = MMSAPA_VECTOR_BYTES / sizeof(A);
  using Int = std::conditional_t<sizeof(A) == 4, int32_t, int64_t>;
  typedef A type __attribute__((vector_size(MMSAPA_VECTOR_BYTES)));
  typedef Int integers __attribute__((vector_size(MMSAPA_VECTOR_BYTES)));
  typedef A unaligned __attribute__((vector_size(MMSAPA_VECTOR_BYTES),
                                     aligned(sizeof(A)), may_alias));
};

template <typename A>
using Vec = typename Vector<A>::type;

template <typename A>
inline Vec<A> load(const A* from) {
  return *reinterpret_cast<const typename Vector<A>::unaligned*>(from);
}

template <typename A>
inline void store(A* to, Vec<A> x) {
  *reinterpret_cast<typename Vector<A>::unaligned*>(to) = x;
}

template <typename To, typename From>
inline To bit_cast(const From& from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof(to));
  return to;
}

// ---- half types, held as float --------------------------------------------

typedef uint16_t HalfBits
    __attribute__((vector_size(MMSAPA_VECTOR_BYTES / 2)));
typedef uint32_t FloatBits __attribute__((vector_size(MMSAPA_VECTOR_BYTES)));

inline HalfBits load_bits(const void* from) {
  HalfBits bits;
  std::memcpy(&bits, from, sizeof(bits));
  return bits;
}

template <typename A>
inline Vec<A> load_as(const A* from) {
  return load(from);
}

template <typename A>
inline void store_as(A* to, Vec<A> x) {
  store(to, x);
}

template <typename A>
inline Vec<A> load_as(const c10::BFloat16* from) {
  return bit_cast<Vec<float>>(
      __builtin_convertvector(load_bits(from), FloatBits) << 16);
}

// To the nearest, ties to even; the only trap is a NaN whose payload is low.
template <typename A>
inline void store_as(c10::BFloat16* to, Vec<A> x) {
  const auto bits = bit_cast<FloatBits>(x);
  const auto rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  const auto nan = FloatBits{} + 0x7fc0;
  const auto half = __builtin_convertvector(x == x ? rounded : nan, HalfBits);
  std::memcpy(to, &half, sizeof(half));
}

#ifdef MMSAPA_F16C
template <typename A>
inline Vec<A> load_as(const c10::Half* from) {
  const HalfBits bits = load_bits(from);
#if MMSAPA_VECTOR_BYTES == 64
  return bit_cast<Vec<float>>(_mm512_cvtph_ps(bit_cast<__m256i>(bits)));
#else
  return bit_cast<Vec<float>>(_mm256_cvtph_ps(bit_cast<__m128i>(bits)));
#endif
}

template <typename A>
inline void store_as(c10::Half* to, Vec<A> x) {
#if MMSAPA_VECTOR_BYTES == 64
  const auto half =
      _mm512_cvtps_ph(bit_cast<__m512>(x), _MM_FROUND_TO_NEAREST_INT);
#else
  const auto half =
      _mm256_cvtps_ph(bit_cast<__m256>(x), _MM_FROUND_TO_NEAREST_INT);
#endif
  std::memcpy(to, &half, sizeof(half));
}
#else
template <typename A>
inline Vec<A> load_as(const c10::Half* from) {
  Vec<A> x;
  for (int64_t i = 0; i < Vector<A>::kLanes; ++i) x[i] = from[i];
  return x;
}

template <typename A>
inline void store_as(c10::Half* to, Vec<A> x) {
  for (int64_t i = 0; i < Vector<A>::kLanes; ++i) to[i] = x[i];
}
#endif

// The first `count` numbers, and zeros after them; `count` may be anything.
template <typename A, typename T>
inline Vec<A> load_as(const T* from, int64_t count) {
  if (count >= Vector<A>::kLanes) return load_as<A>(from);
  Vec<A> x = {};
  for (int64_t i = 0; i < count; ++i) x[i] = static_cast<A>(from[i]);
  return x;
}

template <typename A, typename T>
inline void store_as(T* to, Vec<A> x, int64_t count) {
  if (count >= Vector<A>::kLanes) return store_as<A>(to, x);
  for (int64_t i = 0; i < count; ++i) to[i] = static_cast<T>(x[i]);
}

// Past the caches, which a large map would only empty. `to` is aligned to a
// vector; fence() makes it visible to other threads.
template <typename A>
inline void stream(A* to, Vec<A> x) {
#if !defined(MMSAPA_X86)
  store(to, x);
#elif MMSAPA_VECTOR_BYTES == 64
  _mm512_stream_si512(reinterpret_cast<__m512i*>(to), bit_cast<__m512i>(x));
#elif MMSAPA_VECTOR_BYTES == 32
  _mm256_stream_si256(reinterpret_cast<__m256i*>(to), bit_cast<__m256i>(x));
#else
  _mm_stream_si128(reinterpret_cast<__m128i*>(to), bit_cast<__m128i>(x));
#endif
}

// As store_as, and past the caches where the result `streams` and that can be
// done.
template <typename A, typename T>
inline void write_as(T* to, Vec<A> x, int64_t count, bool streams) {
  if constexpr (std::is_same_v<T, A>) {
    if (streams && count >= Vector<A>::kLanes &&
        reinterpret_cast<uintptr_t>(to) % sizeof(x) == 0)
      return stream(to, x);
  }
  store_as<A>(to, x, count);
}

// Channels by which loads are announced: each channel has a page of its own,
// and no hardware looks ahead from one to another.
constexpr int64_t kAhead = 2;
// A result from this size on would not stay in the caches.
constexpr int64_t kStreamedBytes = 2 << 20;

inline void fence() {
#ifdef MMSAPA_X86
  _mm_sfence();
#endif
}

// ---- shuffles -------------------------------------------------------------

// Two vectors side by side: their lanes of even or odd number, and what undoes
// that.
enum class Order { kEven, kOdd, kFirst, kSecond };

constexpr int source_lane(Order order, int lane, int lanes) {
  switch (order) {
    case Order::kEven:
      return 2 * lane;
    case Order::kOdd:
      return 2 * lane + 1;
    case Order::kFirst:
      return lane / 2 + lane % 2 * lanes;
    default:
      return (lanes + lane) / 2 + lane % 2 * lanes;
  }
}

template <Order kOrder, typename A, int... I>
inline Vec<A> shuffle(Vec<A> x, Vec<A> y, std::integer_sequence<int, I...>) {
  constexpr int kLanes = Vector<A>::kLanes;
#ifdef __clang__
  return __builtin_shufflevector(x, y, source_lane(kOrder, I, kLanes)...);
#else
  return __builtin_shuffle(
      x, y, typename Vector<A>::integers{source_lane(kOrder, I, kLanes)...});
#endif
}

template <Order kOrder, typename A>
inline Vec<A> shuffle(Vec<A> x, Vec<A> y) {
  return shuffle<kOrder, A>(
      x, y, std::make_integer_sequence<int, Vector<A>::kLanes>());
}

// Lane i of the result is the sum of the lanes of x[i].
template <typename A, int kCount = Vector<A>::kLanes>
inline Vec<A> sums_of(const Vec<A>* x) {
  if constexpr (kCount == 1) {
    return *x;
  } else {
    Vec<A> half[kCount / 2];
#pragma GCC unroll 8
    for (int i = 0; i < kCount / 2; ++i)
      half[i] = shuffle<Order::kEven, A>(x[2 * i], x[2 * i + 1]) +
                shuffle<Order::kOdd, A>(x[2 * i], x[2 * i + 1]);
    return sums_of<A, kCount / 2>(half);
  }
}

// ---- e^x ------------------------------------------------------------------

// e^x for x <= 0, to an ulp or two, and NaN for NaN: x = n ln 2 + r, |r| <=
// ln 2 / 2, e^r by its Taylor series, times 2^n. As 2^n need not be a normal
// number, it is 2^(n + kSmall) times 2^-kSmall.
template <typename A>
inline Vec<A> exp_nonpositive(Vec<A> x) {
  constexpr bool kFloat = sizeof(A) == 4;
  constexpr A kLowest = kFloat ? -104 : -745.14;  // below it e^x is 0
  constexpr A kLog2e = 1.442695040888963407;
  // ln 2 in two parts: n times the first is exact.
  constexpr A kLn2High = kFloat ? 0.693145751953125 : 0.693147180369123816490;
  constexpr A kLn2Low =
      kFloat ? 1.42860682030941723212e-6 : 1.90821492927058770002e-10;
  constexpr int kMantissaBits = kFloat ? 23 : 52;
  constexpr int kSmall = kMantissaBits + 1;
  constexpr int kBias = kFloat ? 127 : 1023;
  // Adding it rounds to an integer, and leaves the exponent of
  // 2^(n + kSmall) in the lowest bits.
  constexpr A kRound =
      (kFloat ? 12582912.0 : 6755399441055744.0) + kSmall + kBias;
  constexpr A kUnit = A(1) / (int64_t{1} << kSmall);
  constexpr int kDegree = kFloat ? 7 : 13;

  const Vec<A> shifted = x * kLog2e + kRound;
  const Vec<A> n = shifted - kRound;
  const Vec<A> r = (x - n * kLn2High) - n * kLn2Low;
  Vec<A> series = Vec<A>{} + A(1);
#pragma GCC unroll 16
  for (int i = kDegree; i > 1; --i) series = series * (r * (A(1) / i)) + A(1);
  series = series * (r * kUnit) + kUnit;
  using Int = typename Vector<A>::integers;
  const auto power = bit_cast<Vec<A>>(bit_cast<Int>(shifted) << kMantissaBits);
  return x < kLowest ? Vec<A>{} : series * power;
}

// ---- memory ---------------------------------------------------------------

struct OutOfMemory : std::bad_alloc {
  const char* what() const noexcept override {
    return "mmsapa: expected memory for the operator's scratch, got none; "
           "take smaller maps or a smaller kernel_size * scale_factor";
  }
};

// Zeroed, aligned scratch of one thread.
template <typename A>
class Buffer {
 public:
  explicit Buffer(int64_t size) {
    const size_t bytes = (size * sizeof(A) + 127) / 64 * 64;
    data_.reset(static_cast<A*>(std::aligned_alloc(64, bytes)));
    if (!data_) throw OutOfMemory();
    std::memset(data_.get(), 0, bytes);
  }
  A* get() const { return data_.get(); }

 private:
  struct Free {
    void operator()(A* p) const { std::free(p); }
  };
  std::unique_ptr<A[], Free> data_;
};

inline int64_t round_up(int64_t x, int64_t multiple) {
  return (x + multiple - 1) / multiple * multiple;
}
