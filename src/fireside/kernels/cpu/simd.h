// Sixteen lanes of float or int32, on whatever the machine has.
//
// The vector types are the compiler's own, as wide as the machine's registers; where these hold fewer than sixteen
// lanes, sixteen are a pair, or a pair of pairs (GCC would keep wider vectors in memory, and take minutes to compile
// them). Only what such types cannot express is written per instruction set: fused multiply-add, the four-way byte
// dot product, and half precision. Compile with -ffp-contract=off: every fused operation here is explicit, so that
// all template instantiations round alike and a token's numbers cannot depend on the batch it sits in.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace fireside {

constexpr int LANES = 16;

#if defined(__AVX512F__) && defined(__AVX512VNNI__)
#define FIRESIDE_WIDTH 64  // bytes of a register
#elif defined(__AVX2__)  // and AVX-512 without the dot product, which is rare
#define FIRESIDE_WIDTH 32
#else
#define FIRESIDE_WIDTH 16
#endif

typedef float f32 __attribute__((vector_size(FIRESIDE_WIDTH)));
typedef int32_t i32 __attribute__((vector_size(FIRESIDE_WIDTH)));
typedef uint32_t u32 __attribute__((vector_size(FIRESIDE_WIDTH)));
typedef uint8_t u8 __attribute__((vector_size(FIRESIDE_WIDTH)));
typedef uint16_t u16 __attribute__((vector_size(FIRESIDE_WIDTH / 2)));  // as many lanes as f32
typedef int8_t i8 __attribute__((vector_size(FIRESIDE_WIDTH / 4)));

template <class H>
struct Pair {
    H low, high;

    auto operator[](int i) const {
        constexpr int half = (int)(sizeof(H) / sizeof(low[0]));
        return i < half ? low[i] : high[i - half];
    }
};
template <class H>
constexpr bool is_pair = false;
template <class H>
constexpr bool is_pair<Pair<H>> = true;

#if FIRESIDE_WIDTH == 64
template <class V>
using Wide = V;
#elif FIRESIDE_WIDTH == 32
template <class V>
using Wide = Pair<V>;
#else
template <class V>
using Wide = Pair<Pair<V>>;
#endif

typedef Wide<f32> f32x16;
typedef Wide<i32> i32x16;
typedef Wide<u32> u32x16;
typedef Wide<u8> u8x64;

typedef uint16_t bf16;  // bit patterns; arithmetic is always in float
typedef uint16_t f16;

template <class H>
inline Pair<H> join(H low, H high) {
    return {low, high};
}

template <class V>
inline V load(const void* p) {
    if constexpr (is_pair<V>) {
        typedef decltype(V::low) H;
        return join(load<H>(p), load<H>((const char*)p + sizeof(H)));
    } else {
        V v;
        std::memcpy(&v, p, sizeof v);
        return v;
    }
}

template <class V>
inline void store(void* p, V v) {
    if constexpr (is_pair<V>) {
        store(p, v.low);
        store((char*)p + sizeof v.low, v.high);
    } else {
        std::memcpy(p, &v, sizeof v);
    }
}

template <class V, class Scalar>
inline V broadcast(Scalar x) {
    if constexpr (is_pair<V>) return join(broadcast<decltype(V::low)>(x), broadcast<decltype(V::low)>(x));
    else return x - V{};  // the form that GCC turns into one instruction
}
inline f32x16 splat(float x) { return broadcast<f32x16>(x); }
inline i32x16 splat(int32_t x) { return broadcast<i32x16>(x); }

// Operators of pairs: those of their halves. A scalar becomes a vector of itself, as with the compiler's own types.
#define FIRESIDE_PAIRWISE(OP)                                                                   \
    template <class H>                                                                          \
    inline auto operator OP(Pair<H> a, Pair<H> b) {                                             \
        return join(a.low OP b.low, a.high OP b.high);                                          \
    }                                                                                           \
    template <class H, class Scalar, class = std::enable_if_t<std::is_arithmetic_v<Scalar>>>    \
    inline auto operator OP(Pair<H> a, Scalar b) {                                              \
        return a OP broadcast<Pair<H>>((decltype(a[0]))b);                                      \
    }
FIRESIDE_PAIRWISE(+)
FIRESIDE_PAIRWISE(-)
FIRESIDE_PAIRWISE(*)
FIRESIDE_PAIRWISE(/)
FIRESIDE_PAIRWISE(&)
FIRESIDE_PAIRWISE(|)
FIRESIDE_PAIRWISE(>)
FIRESIDE_PAIRWISE(<)
FIRESIDE_PAIRWISE(>=)
#undef FIRESIDE_PAIRWISE
template <class H>
inline Pair<H> operator-(Pair<H> a) {
    return join(-a.low, -a.high);
}
template <class H>
inline Pair<H> operator<<(Pair<H> a, int count) {
    return join(a.low << count, a.high << count);
}
template <class H>
inline Pair<H> operator>>(Pair<H> a, int count) {
    return join(a.low >> count, a.high >> count);
}

// Lane by lane, a where the mask is set and b elsewhere.
template <class M, class V>
inline V select(M mask, V a, V b) {
    if constexpr (is_pair<V>) return join(select(mask.low, a.low, b.low), select(mask.high, a.high, b.high));
    else return mask ? a : b;
}

template <class To, class From>
inline To bits(From v) {
    static_assert(sizeof(To) == sizeof(From));
    if constexpr (is_pair<From>) {
        return join(bits<decltype(To::low)>(v.low), bits<decltype(To::low)>(v.high));
    } else {
        To r;
        std::memcpy(&r, &v, sizeof r);
        return r;
    }
}

// a * b + c, rounded once where the machine can (always on AVX2 and on ARM).
inline f32 fma(f32 a, f32 b, f32 c) {
#if FIRESIDE_WIDTH == 64
    return (f32)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif FIRESIDE_WIDTH == 32 && defined(__FMA__)
    return (f32)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#elif defined(__FMA__)
    return (f32)_mm_fmadd_ps((__m128)a, (__m128)b, (__m128)c);
#elif defined(__aarch64__)
    return (f32)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
#else
    return a * b + c;
#endif
}
template <class H>
inline Pair<H> fma(Pair<H> a, Pair<H> b, Pair<H> c) {
    return join(fma(a.low, b.low, c.low), fma(a.high, b.high, c.high));
}

inline f32x16 max(f32x16 a, f32x16 b) { return select(a > b, a, b); }  // b if either is NaN
inline f32x16 min(f32x16 a, f32x16 b) { return select(a < b, a, b); }

// Horizontal reductions in one fixed tree: halves, quarters, eighths.
template <class Op>
inline float reduce(f32x16 v, Op op) {
    float x[LANES];
    store(x, v);
    for (int width = 8; width > 0; width /= 2)
        for (int i = 0; i < width; ++i) x[i] = op(x[i], x[i + width]);
    return x[0];
}
inline float horizontal_max(f32x16 v) {
#if FIRESIDE_WIDTH == 64
    return _mm512_reduce_max_ps((__m512)v);  // a maximum has no rounding: any order gives the same
#else
    return reduce(v, [](float a, float b) { return a > b ? a : b; });
#endif
}
inline float horizontal_sum(f32x16 v) {
    return reduce(v, [](float a, float b) { return a + b; });
}

template <class V>
inline auto to_float(V v) {
    if constexpr (is_pair<V>) return join(to_float(v.low), to_float(v.high));
    else return __builtin_convertvector(v, f32);
}

// Nearest integer, ties to even, for |v| < 2^22: adding 1.5 * 2^23 leaves the integer in the low mantissa bits.
inline i32x16 round_to_int(f32x16 v) {
    const f32x16 magic = splat(12582912.0f);
    return bits<i32x16>(v + magic) - bits<i32x16>(magic);
}

// The low byte of each lane.
template <class V>
inline void store_bytes(int8_t* p, V v) {
    if constexpr (is_pair<V>) {
        store_bytes(p, v.low);
        store_bytes(p + sizeof v.low / 4, v.high);
    } else {
        store(p, __builtin_convertvector(v, i8));
    }
}

// The sum of sixteen signed bytes.
inline int32_t byte_sum(const int8_t* p) {
#if defined(__SSE2__)
    const __m128i biased = _mm_xor_si128(_mm_loadu_si128((const __m128i*)p), _mm_set1_epi8(-128));
    const __m128i sums = _mm_sad_epu8(biased, _mm_setzero_si128());  // of eight bytes each
    return _mm_cvtsi128_si32(sums) + _mm_extract_epi16(sums, 4) - 16 * 128;
#elif defined(__aarch64__)
    return vaddlvq_s8(vld1q_s8(p));
#else
    int32_t sum = 0;
    for (int i = 0; i < 16; ++i) sum += p[i];
    return sum;
#endif
}

template <class V = f32x16>
inline V load_i8(const int8_t* p) {
    if constexpr (is_pair<V>) {
        typedef decltype(V::low) H;
        return join(load_i8<H>(p), load_i8<H>(p + sizeof(H) / 4));
    } else {
        return __builtin_convertvector(load<i8>(p), f32);
    }
}

template <class V = f32x16>
inline V load_bf16(const bf16* p) {
    if constexpr (is_pair<V>) {
        typedef decltype(V::low) H;
        return join(load_bf16<H>(p), load_bf16<H>(p + sizeof(H) / 4));
    } else {
        return bits<f32>(__builtin_convertvector(load<u16>(p), u32) << 16);
    }
}
// To nearest, ties to even; NaN as arithmetic makes it stays NaN.
template <class V>
inline void store_bf16(bf16* p, V v) {
    if constexpr (is_pair<V>) {
        store_bf16(p, v.low);
        store_bf16(p + sizeof v.low / 4, v.high);
    } else {
#if FIRESIDE_WIDTH == 64 && defined(__AVX512BF16__)
        store(p, _mm512_cvtneps_pbh((__m512)v));
#else
        const u32 u = bits<u32>(v), rounded = (u + 0x7fff + ((u >> 16) & 1)) >> 16;
#if FIRESIDE_WIDTH == 64
        store(p, _mm512_cvtepi32_epi16((__m512i)rounded));
#else
        store(p, __builtin_convertvector(rounded, u16));
#endif
#endif
    }
}

inline float half_to_float(f16 h) {
    const uint32_t sign = (uint32_t)(h & 0x8000) << 16, exponent = (h >> 10) & 0x1f, mantissa = h & 0x3ff;
    if (exponent == 0) return (sign ? -1.0f : 1.0f) * (float)mantissa * 0x1p-24f;
    if (exponent == 31) return bits<float>(sign | 0x7f800000u | mantissa << 13);
    return bits<float>(sign | (exponent + 112) << 23 | mantissa << 13);
}
template <class V = f32x16>
inline V load_f16(const f16* p) {
    if constexpr (is_pair<V>) {
        typedef decltype(V::low) H;
        return join(load_f16<H>(p), load_f16<H>(p + sizeof(H) / 4));
    } else {
#if FIRESIDE_WIDTH == 64
        return (f32)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)p));
#elif FIRESIDE_WIDTH == 32 && defined(__F16C__)
        return (f32)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)p));
#elif defined(__aarch64__)
        return (f32)vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p)));
#else
        f32 r;
        for (int i = 0; i < FIRESIDE_WIDTH / 4; ++i) r[i] = half_to_float(p[i]);
        return r;
#endif
    }
}

// acc[i] += sum over b in 0..3 of w[4i + b] (unsigned, at most MAX_WEIGHT) * byte b of `word` (signed), exactly.
template <int MAX_WEIGHT>
inline i32 dot4(i32 acc, u8 w, int32_t word) {
#if FIRESIDE_WIDTH == 64
    return (i32)_mm512_dpbusd_epi32((__m512i)acc, (__m512i)w, _mm512_set1_epi32(word));
#elif FIRESIDE_WIDTH == 32
    const __m256i x = (__m256i)w, b = _mm256_set1_epi32(word);
#if defined(__AVXVNNI__)
    return (i32)_mm256_dpbusd_avx_epi32((__m256i)acc, x, b);
#else
    // vpmaddubsw saturates at 32,767: two products of at most 15 * 128 fit, of 255 * 128 do not.
    // So wide weights go through in two nibbles.
    const __m256i ones = _mm256_set1_epi16(1), low = _mm256_set1_epi8(15);
    const __m256i lows = MAX_WEIGHT > 15 ? _mm256_and_si256(x, low) : x;
    __m256i sum = _mm256_add_epi32((__m256i)acc, _mm256_madd_epi16(_mm256_maddubs_epi16(lows, b), ones));
    if (MAX_WEIGHT > 15) {
        const __m256i highs = _mm256_and_si256(_mm256_srli_epi16(x, 4), low);
        const __m256i part = _mm256_madd_epi16(_mm256_maddubs_epi16(highs, b), ones);
        sum = _mm256_add_epi32(sum, _mm256_slli_epi32(part, 4));
    }
    return (i32)sum;
#endif
#else
    const u32 bytes = bits<u32>(w);
    for (int b = 0; b < 4; ++b) acc += bits<i32>((bytes >> (8 * b)) & 255) * (int32_t)(int8_t)(word >> (8 * b));
    return acc;
#endif
}
template <int MAX_WEIGHT, class A, class W>
inline Pair<A> dot4(Pair<A> acc, Pair<W> w, int32_t word) {
    return join(dot4<MAX_WEIGHT>(acc.low, w.low, word), dot4<MAX_WEIGHT>(acc.high, w.high, word));
}

// e^x to about one unit in the last place from -87 to 88; 0 below, and above as at 88.
inline f32x16 exp(f32x16 x) {
    const f32x16 low = splat(-87.0f), high = splat(88.0f);
    const i32x16 vanished = x < low;
    x = select(vanished, low, x);
    x = select(x > high, high, x);
    const i32x16 n = round_to_int(x * splat(1.44269504f));
    const f32x16 k = to_float(n);
    f32x16 r = fma(k, splat(-0.693359375f), x);  // ln 2 in two parts (Cody and Waite)
    r = fma(k, splat(2.12194440e-4f), r);
    f32x16 p = splat(1.0f / 5040);
    p = fma(p, r, splat(1.0f / 720));
    p = fma(p, r, splat(1.0f / 120));
    p = fma(p, r, splat(1.0f / 24));
    p = fma(p, r, splat(1.0f / 6));
    p = fma(p, r, splat(0.5f));
    p = fma(p, r, splat(1.0f));
    p = fma(p, r, splat(1.0f));
    const f32x16 scaled = bits<f32x16>(bits<i32x16>(p) + (n << 23));
    return select(vanished, f32x16{}, scaled);
}

}  // namespace fireside
