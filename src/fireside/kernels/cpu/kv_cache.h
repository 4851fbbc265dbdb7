// How keys and values lie in memory: as bfloat16 (the default), float, or int8 with a scale per position and head.
//
// A block holds 16 positions of one key/value head. Everything is read in pairs: keys as [head_dim / 2] pairs of
// dimensions for 16 positions, values as [8][head_dim / 16] pairs of positions for 16 dimensions. Each pair is 32 numbers
// side by side, so that one vector of bfloat16 holds it whole, as AVX-512's dot product of bfloat16 pairs wants it.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>

#include "simd.h"

namespace fireside {

constexpr int BLOCK = 16;      // positions
constexpr int PAIR = 2 * LANES;  // numbers

// What a pair's two numbers are multiplied with.
template <class Element>
struct PairFactor {
    float first, second;
};
template <class Element>
inline void store_factors(PairFactor<Element>* eight, f32x16 v) {
    store(eight, v);
}

template <class Element>
inline int place(int lane, int which) {  // in a pair
    return which * LANES + lane;
}
template <>
inline int place<bf16>(int lane, int which) {
    return 2 * lane + which;
}

// sum + first numbers * factor.first + second numbers * factor.second
inline f32x16 multiply(f32x16 sum, const float* pair, PairFactor<float> factor) {
    sum = fma(load<f32x16>(pair), splat(factor.first), sum);
    return fma(load<f32x16>(pair + LANES), splat(factor.second), sum);
}
inline f32x16 multiply(f32x16 sum, const int8_t* pair, PairFactor<int8_t> factor) {
    sum = fma(load_i8(pair), splat(factor.first), sum);
    return fma(load_i8(pair + LANES), splat(factor.second), sum);
}

#if FIRESIDE_WIDTH == 64 && defined(__AVX512BF16__)
// The processor's own product: factors are rounded to bfloat16 too, sums stay in float.
template <>
struct PairFactor<bf16> {
    int32_t both;
};
inline void store_factors(PairFactor<bf16>* eight, f32x16 v) { store_bf16((bf16*)eight, v); }
inline f32x16 multiply(f32x16 sum, const bf16* pair, PairFactor<bf16> factor) {
    return (f32x16)_mm512_dpbf16_ps((__m512)sum, (__m512bh)_mm512_loadu_si512(pair),
                                    (__m512bh)_mm512_set1_epi32(factor.both));
}
#else
inline f32x16 multiply(f32x16 sum, const bf16* pair, PairFactor<bf16> factor) {
    const u32x16 both = load<u32x16>(pair);
    sum = fma(bits<f32x16>(both << 16), splat(factor.first), sum);
    return fma(bits<f32x16>(both & 0xffff0000u), splat(factor.second), sum);
}
#endif

// One block of one head: keys, values, and for int8 the scales of its positions.
template <class Element>
struct BlockView {
    Element *keys, *values;
    float *key_scales, *value_scales;
};

// One model's cache. The C side of library.py's struct: keep both in step.
struct Cache {
    void *keys, *values;                  // [layers][blocks][kv_heads][16 * head_dim]
    float *key_scales, *value_scales;     // [layers][blocks][kv_heads][16], for int8
    int32_t element_size, blocks;         // 4: float, 2: bfloat16, 1: int8

    // Calls body(a pointer to the type of its numbers).
    template <class Body>
    auto with_element(Body body) const {
        if (element_size == 4) return body((float*)nullptr);
        if (element_size == 2) return body((bf16*)nullptr);
        return body((int8_t*)nullptr);
    }
};

// Sixteen numbers as they are stored.
inline void convert(float* out, f32x16 x, float) { store(out, x); }
inline void convert(bf16* out, f32x16 x, float) { store_bf16(out, x); }
inline void convert(int8_t* out, f32x16 x, float inverse_scale) {
    store_bytes(out, round_to_int(x * splat(inverse_scale)));
}

// The scale of int8 numbers, and 0 where no scale is needed. NaN and infinity end up in it.
template <class Element>
inline float scale_of(const float* x, int head_dim) {
    if constexpr (sizeof(Element) > 1) return 0.0f;
    float largest = 0.0f;
    bool finite = true;
    for (int d = 0; d < head_dim; ++d) {
        largest = std::max(largest, std::abs(x[d]));
        finite &= std::isfinite(x[d]);
    }
    return finite ? largest / 127.0f : std::numeric_limits<float>::quiet_NaN();
}

// Writes one position's key and value. `last`: no later position is known, so that the other half of the value's pair
// must read as zeros and not as what another sequence left there.
template <class Element>
void write_position(const BlockView<Element>& block, const float* key, const float* value, int head_dim, int slot,
                    bool last) {
    constexpr bool SCALED = sizeof(Element) == 1;
    const float scales[2] = {scale_of<Element>(key, head_dim), scale_of<Element>(value, head_dim)};
    const float inverses[2] = {scales[0] > 0.0f ? 1.0f / scales[0] : 0.0f, scales[1] > 0.0f ? 1.0f / scales[1] : 0.0f};
    const bool alone = last && slot % 2 == 0;
    if constexpr (SCALED) {
        block.key_scales[slot] = scales[0], block.value_scales[slot] = scales[1];
        if (alone) block.value_scales[slot + 1] = 0.0f;
    }
    for (int start = 0; start < head_dim; start += LANES) {
        Element lanes[LANES];
        convert(lanes, load<f32x16>(key + start), inverses[0]);
        Element* pairs = block.keys + start / 2 * PAIR;
        for (int i = 0; i < LANES; ++i) pairs[i / 2 * PAIR + place<Element>(slot, i % 2)] = lanes[i];
        convert(lanes, load<f32x16>(value + start), inverses[1]);
        pairs = block.values + slot / 2 * head_dim * 2 + start / LANES * PAIR;
        for (int i = 0; i < LANES; ++i) {
            pairs[place<Element>(i, slot % 2)] = lanes[i];
            if (alone) pairs[place<Element>(i, 1)] = 0;
        }
    }
}

}  // namespace fireside
