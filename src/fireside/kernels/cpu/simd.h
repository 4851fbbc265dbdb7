// Sixteen lanes of float or int32, on whatever the machine has.
//
// The vector types are the compiler's own (GCC and Clang lower 64-byte vectors to AVX-512, AVX2, SSE or NEON);
// only what they cannot express is written per instruction set: fused multiply-add, the four-way byte dot
// product, and half precision. Compile with -ffp-contract=off: every fused operation here is explicit, so that
// all template instantiations round alike and a token's numbers cannot depend on the batch it sits in.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace fireside {

constexpr int LANES = 16;

typedef float f32x16 __attribute__((vector_size(64)));
typedef int32_t i32x16 __attribute__((vector_size(64)));
typedef uint32_t u32x16 __attribute__((vector_size(64)));
typedef uint16_t u16x16 __attribute__((vector_size(32)));
typedef uint8_t u8x64 __attribute__((vector_size(64)));

typedef uint16_t bf16;  // bit patterns; arithmetic is always in float
typedef uint16_t f16;

template <class V>
inline V load(const void* p) {
    V v;
    std::memcpy(&v, p, sizeof v);
    return v;
}

template <class V>
inline void store(void* p, V v) {
    std::memcpy(p, &v, sizeof v);
}

inline f32x16 splat(float x) { return x - f32x16{}; }  // the form that GCC turns into one broadcast
inline i32x16 splat(int32_t x) { return x - i32x16{}; }

template <class To, class From>
inline To bits(From v) {
    static_assert(sizeof(To) == sizeof(From));
    To r;
    std::memcpy(&r, &v, sizeof r);
    return r;
}

// a * b + c, rounded once where the machine can (always on AVX2 and later).
inline f32x16 fma(f32x16 a, f32x16 b, f32x16 c) {
#if defined(__AVX512F__)
    return (f32x16)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__FMA__)
    f32x16 r;
    for (int h = 0; h < 2; ++h) {
        const __m256 x = _mm256_loadu_ps((const float*)&a + 8 * h), y = _mm256_loadu_ps((const float*)&b + 8 * h);
        _mm256_storeu_ps((float*)&r + 8 * h, _mm256_fmadd_ps(x, y, _mm256_loadu_ps((const float*)&c + 8 * h)));
    }
    return r;
#else
    return a * b + c;
#endif
}

inline f32x16 max(f32x16 a, f32x16 b) { return a > b ? a : b; }

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
#if defined(__AVX512F__)
    return _mm512_reduce_max_ps((__m512)v);  // a maximum has no rounding: any order gives the same
#else
    return reduce(v, [](float a, float b) { return a > b ? a : b; });
#endif
}
inline float horizontal_sum(f32x16 v) {
    return reduce(v, [](float a, float b) { return a + b; });
}

inline f32x16 to_float(i32x16 v) { return __builtin_convertvector(v, f32x16); }

// Nearest integer, ties to even, for |v| < 2^22: adding 1.5 * 2^23 leaves the integer in the low mantissa bits.
inline i32x16 round_to_int(f32x16 v) {
    const f32x16 magic = splat(12582912.0f);
    return bits<i32x16>(v + magic) - bits<i32x16>(magic);
}

inline f32x16 load_bf16(const bf16* p) {
    return bits<f32x16>(__builtin_convertvector(load<u16x16>(p), u32x16) << 16);
}
inline void store_bf16(bf16* p, f32x16 v) {  // to nearest, ties to even; NaN as arithmetic makes it stays NaN
    const u32x16 u = bits<u32x16>(v);
    store(p, __builtin_convertvector((u + 0x7fff + ((u >> 16) & 1)) >> 16, u16x16));
}

inline float half_to_float(f16 h) {
    const uint32_t sign = (uint32_t)(h & 0x8000) << 16, exponent = (h >> 10) & 0x1f, mantissa = h & 0x3ff;
    if (exponent == 0) return (sign ? -1.0f : 1.0f) * (float)mantissa * 0x1p-24f;
    if (exponent == 31) return bits<float>(sign | 0x7f800000u | mantissa << 13);
    return bits<float>(sign | (exponent + 112) << 23 | mantissa << 13);
}
inline f32x16 load_f16(const f16* p) {
#if defined(__AVX512F__)
    return (f32x16)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)p));
#elif defined(__F16C__)
    f32x16 r;
    for (int h = 0; h < 2; ++h)
        _mm256_storeu_ps((float*)&r + 8 * h, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)(p + 8 * h))));
    return r;
#else
    f32x16 r;
    for (int i = 0; i < LANES; ++i) r[i] = half_to_float(p[i]);
    return r;
#endif
}

// acc[i] += sum over b in 0..3 of w[4i + b] (unsigned, at most MAX_WEIGHT) * a[b] (signed), exactly.
template <int MAX_WEIGHT>
inline i32x16 dot4(i32x16 acc, u8x64 w, const int8_t* a) {
    int32_t word;
    std::memcpy(&word, a, 4);
#if defined(__AVX512VNNI__)
    return (i32x16)_mm512_dpbusd_epi32((__m512i)acc, (__m512i)w, _mm512_set1_epi32(word));
#elif defined(__AVX2__)
    // vpmaddubsw saturates at 32,767: two products of at most 15 * 128 fit, of 255 * 128 do not.
    // So wide weights go through in two nibbles. (AVX-512 without VNNI takes this path too: it is rare.)
    const __m256i b = _mm256_set1_epi32(word), ones = _mm256_set1_epi16(1), low = _mm256_set1_epi8(15);
    i32x16 r;
    for (int h = 0; h < 2; ++h) {
        const __m256i x = _mm256_loadu_si256((const __m256i*)((const uint8_t*)&w + 32 * h));
        __m256i sum = _mm256_loadu_si256((const __m256i*)((const int32_t*)&acc + 8 * h));
#if defined(__AVXVNNI__)
        sum = _mm256_dpbusd_avx_epi32(sum, x, b);
        (void)ones, (void)low;
#else
        const __m256i lows = MAX_WEIGHT > 15 ? _mm256_and_si256(x, low) : x;
        sum = _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(lows, b), ones));
        if (MAX_WEIGHT > 15) {
            const __m256i highs = _mm256_and_si256(_mm256_srli_epi16(x, 4), low);
            const __m256i part = _mm256_madd_epi16(_mm256_maddubs_epi16(highs, b), ones);
            sum = _mm256_add_epi32(sum, _mm256_slli_epi32(part, 4));
        }
#endif
        _mm256_storeu_si256((__m256i*)((int32_t*)&r + 8 * h), sum);
    }
    return r;
#else
    int32_t r[LANES];
    store(r, acc);
    for (int i = 0; i < LANES; ++i)
        for (int b = 0; b < 4; ++b) r[i] += (int32_t)w[4 * i + b] * a[b];
    return load<i32x16>(r);
#endif
}

// e^x to about one unit in the last place over the float range; below -87 it is 0.
inline f32x16 exp(f32x16 x) {
    const f32x16 low = splat(-87.0f), high = splat(88.0f);
    const i32x16 vanished = x < low;
    x = x < low ? low : x;
    x = x > high ? high : x;
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
    return vanished ? f32x16{} : scaled;
}

}  // namespace fireside
