// Products of packed weight matrices with a few or many tokens.
//
// Weights are packed in tiles of 16 rows, so that a vector lane is an output row and no horizontal sum is needed.
// For each (row, token) the sum runs over the columns in one fixed order, whatever the tile of tokens it is
// computed in: results are the same to the bit for one token alone and for the same token among 500.
//
// Quantised weights: value = scale * (q - zero) or scale * q + min, per group of 32 or 16 columns.
// Activations are quantised to int8 per token and group of 32 columns; the products within a group are exact
// integers.
#pragma once

#include <algorithm>
#include <cmath>

#include "simd.h"

namespace fireside {

constexpr int GROUP = 32;  // columns that share one activation scale

enum Kind : int32_t { FLOAT32 = 0, BFLOAT16 = 1, FLOAT16 = 2, QUANTIZED = 3 };

// The C side of kernels/cpu/library.py's struct: keep both in step.
struct Matrix {
    const void* weights;  // [tile][...][16], see `tile_product`
    const void* scales;   // [tile][group][16], f16 or f32
    const void* mins;     // like scales, or null when `zero` says it all
    int32_t kind, rows, columns, bits, group, zero, wide_scales, padding;

    int tiles() const { return (rows + LANES - 1) / LANES; }
};

// A few channels of a language model carry values far above the rest, and the one scale of their group leaves the
// group's others few bits. Where a group's largest value exceeds this many times the token's root mean square, the
// rounding errors themselves are quantised, and their products added. About a group in ten needs it; the error of
// the logits then falls to less than half (docs/log.md).
constexpr float OUTLIER = 5.0f;
constexpr float FINER = 254.0f;  // steps of the errors' scale within one step of the first: |error| <= 1/2 -> 127

// Tokens as the matrices want them: in float, and in int8 with per-group scales.
struct Activations {
    float* values = nullptr;     // [tokens][columns]
    int8_t* quants = nullptr;    // [tokens][columns]
    int8_t* errors = nullptr;    // [tokens][columns], written only where `outliers` says so
    uint8_t* outliers = nullptr; // [tokens][columns / 32]
    float* scales = nullptr;     // [tokens][columns / 32]
    int32_t* sums = nullptr;     // [tokens][columns / 16], of quants over half a group
    int32_t* error_sums = nullptr;
    float* totals = nullptr;     // [tokens][columns / 32], sums of the quantised values over a group
    int columns = 0;

    void quantize(int token) const {
        const float* x = values + (size_t)token * columns;
        const size_t group = (size_t)token * (columns / GROUP);
        f32x16 squares = f32x16{};
        for (int i = 0; i < columns; i += LANES) squares = fma(load<f32x16>(x + i), load<f32x16>(x + i), squares);
        const float square = horizontal_sum(squares);
        const float limit = OUTLIER * std::sqrt(square / (float)columns);
        for (int g = 0; g < columns / GROUP; ++g) {
            const f32x16 a = load<f32x16>(x + g * GROUP), b = load<f32x16>(x + g * GROUP + LANES);
            const float largest = horizontal_max(max(max(a, -a), max(b, -b)));
            const f32x16 inverse = splat(largest > 0 ? 127.0f / largest : 0.0f);
            // A maximum passes over NaN, and int8 has none: that a value is no number is told by the scale.
            scales[group + g] = std::isnan(square) ? square : largest / 127.0f;
            outliers[group + g] = largest > limit;
            int total = 0, error_total = 0;
            for (int h = 0; h < 2; ++h) {
                const size_t half = 2 * (group + g) + h;
                const f32x16 exact = min(max((h ? b : a) * inverse, splat(-127.0f)), splat(127.0f));
                const i32x16 q = round_to_int(exact);
                sums[half] = put(quants + half * LANES, q);
                total += sums[half];
                if (!outliers[group + g]) continue;
                error_sums[half] = put(errors + half * LANES, round_to_int((exact - to_float(q)) * splat(FINER)));
                error_total += error_sums[half];
            }
            totals[group + g] = scales[group + g] * ((float)total + (float)error_total / FINER);
        }
    }

   private:
    static int32_t put(int8_t* out, i32x16 q) {
        store_bytes(out, q);
        int32_t lanes[LANES], sum = 0;
        store(lanes, q);
        for (const int32_t lane : lanes) sum += lane;
        return sum;
    }
};

template <int BITS, int G, bool WIDE, bool MINS, int T>
inline void quantized_tile(const Matrix& m, int tile, const Activations& a, int first, f32x16 (&out)[T]) {
    const int groups = m.columns / G;
    constexpr int VECTORS = G / 4;                            // of 64 weights, one four-column strip of 16 rows each
    constexpr int BYTES = G * LANES * BITS / 8;
    constexpr int SCALE_BYTES = WIDE ? 4 : 2;
    const uint8_t* weights = (const uint8_t*)m.weights + (size_t)tile * groups * BYTES;
    const uint8_t* scales = (const uint8_t*)m.scales + (size_t)tile * groups * LANES * SCALE_BYTES;
    const uint8_t* mins = (const uint8_t*)m.mins + (MINS ? (size_t)tile * groups * LANES * SCALE_BYTES : 0);
    const auto widen = [](const uint8_t* p) { return WIDE ? load<f32x16>(p) : load_f16((const f16*)p); };
    const size_t column = (size_t)first * a.columns;
    f32x16 result[T];  // not `out` itself: the compiler must see that it aliases nothing to keep it in registers
    for (int t = 0; t < T; ++t) result[t] = f32x16{};
    for (int g = 0; g < groups; ++g) {
        u8x64 w[VECTORS];
        if constexpr (BITS == 4) {
#pragma GCC unroll 8
            for (int j = 0; j < VECTORS / 2; ++j) {
                const u8x64 packed = load<u8x64>(weights + (size_t)g * BYTES + 64 * j);
                w[j] = packed & 15;
                w[j + VECTORS / 2] = bits<u8x64>(bits<u32x16>(packed) >> 4) & 15;
            }
        } else {
#pragma GCC unroll 8
            for (int j = 0; j < VECTORS; ++j) w[j] = load<u8x64>(weights + (size_t)g * BYTES + 64 * j);
        }
        const f32x16 scale = widen(scales + (size_t)g * LANES * SCALE_BYTES);
        const f32x16 min = MINS ? widen(mins + (size_t)g * LANES * SCALE_BYTES) : f32x16{};
        // The products of one group of one token's int8 values with the tile's 16 rows.
        const auto products = [&](const int8_t* values, const int32_t* value_sums, size_t at) {
            const int32_t* sum = value_sums + at / 16;
            i32x16 acc = MINS ? i32x16{} : splat(-m.zero * (G == 32 ? sum[0] + sum[1] : sum[0]));
#pragma GCC unroll 8
            for (int j = 0; j < VECTORS; ++j) {
                int32_t word;
                std::memcpy(&word, values + at + 4 * j, 4);
                acc = dot4<BITS == 4 ? 15 : 255>(acc, w[j], word);
            }
            return to_float(acc) * scale;
        };
#pragma GCC unroll 8
        for (int t = 0; t < T; ++t) {
            const size_t at = column + (size_t)t * a.columns + g * G;
            const float a_scale = a.scales[at / GROUP];
            result[t] = fma(products(a.quants, a.sums, at), splat(a_scale), result[t]);
            if (a.outliers[at / GROUP])
                result[t] = fma(products(a.errors, a.error_sums, at), splat(a_scale / FINER), result[t]);
            if constexpr (MINS) {
                float total = a.totals[at / GROUP];
                if constexpr (G == 16) {
                    total = a_scale * (float)a.sums[at / 16];
                    if (a.outliers[at / GROUP]) total += a_scale / FINER * (float)a.error_sums[at / 16];
                }
                result[t] = fma(min, splat(total), result[t]);
            }
        }
    }
    for (int t = 0; t < T; ++t) out[t] = result[t];
}

template <Kind KIND>
inline f32x16 load_weights(const void* weights, size_t at) {
    if constexpr (KIND == FLOAT32) return load<f32x16>((const float*)weights + at);
    else if constexpr (KIND == BFLOAT16) return load_bf16((const bf16*)weights + at);
    else return load_f16((const f16*)weights + at);
}

template <Kind KIND, int T>
inline void float_tile(const Matrix& m, int tile, const Activations& a, int first, f32x16 (&out)[T]) {
    const float* values = a.values + (size_t)first * a.columns;
    f32x16 result[T];
    for (int t = 0; t < T; ++t) result[t] = f32x16{};
    for (int c = 0; c < m.columns; ++c) {
        const f32x16 w = load_weights<KIND>(m.weights, ((size_t)tile * m.columns + c) * LANES);
#pragma GCC unroll 8
        for (int t = 0; t < T; ++t) result[t] = fma(w, splat(values[t * a.columns + c]), result[t]);
    }
    for (int t = 0; t < T; ++t) out[t] = result[t];
}

// out[t] = rows 16 * tile .. 16 * tile + 15 of the product with token first + t.
// Not inlined: every caller would bring a copy of every kernel, and compiling takes long enough.
template <int T>
[[gnu::noinline]] void tile_product(const Matrix& m, int tile, const Activations& a, int first, f32x16 (&out)[T]) {
    if (m.kind == FLOAT32) return float_tile<FLOAT32, T>(m, tile, a, first, out);
    if (m.kind == BFLOAT16) return float_tile<BFLOAT16, T>(m, tile, a, first, out);
    if (m.kind == FLOAT16) return float_tile<FLOAT16, T>(m, tile, a, first, out);
    const bool mins = m.mins != nullptr;
    if (m.bits == 4 && !m.wide_scales)
        return mins ? quantized_tile<4, 32, false, true, T>(m, tile, a, first, out)
                    : quantized_tile<4, 32, false, false, T>(m, tile, a, first, out);
    if (m.bits == 4 && m.group == 32) return quantized_tile<4, 32, true, true, T>(m, tile, a, first, out);
    if (m.bits == 4)
        return mins ? quantized_tile<4, 16, true, true, T>(m, tile, a, first, out)
                    : quantized_tile<4, 16, true, false, T>(m, tile, a, first, out);
    if (!m.wide_scales)
        return mins ? quantized_tile<8, 32, false, true, T>(m, tile, a, first, out)
                    : quantized_tile<8, 32, false, false, T>(m, tile, a, first, out);
    if (m.group == 32) return quantized_tile<8, 32, true, true, T>(m, tile, a, first, out);
    return mins ? quantized_tile<8, 16, true, true, T>(m, tile, a, first, out)
                : quantized_tile<8, 16, true, false, T>(m, tile, a, first, out);
}

// Calls take(token, product) for `count` tokens from `first` on and one tile of rows, up to eight tokens at a time.
template <class Take>
inline void multiply_tile(const Matrix& m, int tile, int first, const Activations& a, int count, Take take) {
    int t = first;
    const int end = first + count;
    const auto run = [&](auto width) {
        constexpr int T = decltype(width)::value;
        if constexpr (T <= FIRESIDE_WIDTH / 8)  // more would not fit the registers
            for (; end - t >= T; t += T) {
                f32x16 out[T];
                tile_product<T>(m, tile, a, t, out);
                for (int i = 0; i < T; ++i) take(t + i, out[i]);
            }
    };
    run(std::integral_constant<int, 8>());
    run(std::integral_constant<int, 4>());
    run(std::integral_constant<int, 2>());
    run(std::integral_constant<int, 1>());
}

// One row of a matrix in float: embedding lookup reads the same packed weights as the output head.
inline void unpack_row(const Matrix& m, int row, float* out) {
    const size_t tile = row / LANES, lane = row % LANES;
    if (m.kind != QUANTIZED) {
        for (int c = 0; c < m.columns; ++c) {
            const size_t at = (tile * m.columns + c) * LANES + lane;
            if (m.kind == FLOAT32) out[c] = ((const float*)m.weights)[at];
            else if (m.kind == BFLOAT16) out[c] = bits<float>((uint32_t)((const bf16*)m.weights)[at] << 16);
            else out[c] = half_to_float(((const f16*)m.weights)[at]);
        }
        return;
    }
    const size_t groups = m.columns / m.group;
    const auto value = [&](const void* p, size_t at) {
        return m.wide_scales ? ((const float*)p)[at] : half_to_float(((const f16*)p)[at]);
    };
    for (size_t g = 0; g < groups; ++g) {
        const float scale = value(m.scales, (tile * groups + g) * LANES + lane);
        const float min = m.mins ? value(m.mins, (tile * groups + g) * LANES + lane) : 0.0f;
        const uint8_t* w = (const uint8_t*)m.weights + (tile * groups + g) * m.group * LANES * m.bits / 8;
        for (int c = 0; c < m.group; ++c) {
            int q;
            if (m.bits == 4) {
                const int half = m.group / 2;
                const uint8_t byte = w[(c % half) / 4 * 64 + lane * 4 + c % 4];
                q = c < half ? byte & 15 : byte >> 4;
            } else {
                q = w[c / 4 * 64 + lane * 4 + c % 4];
            }
            out[g * m.group + c] = m.mins ? scale * (float)q + min : scale * (float)(q - m.zero);
        }
    }
}

}  // namespace fireside
