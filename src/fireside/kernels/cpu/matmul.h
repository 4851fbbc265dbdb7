// Products of packed weight matrices with a few or many tokens.
//
// Weights are packed in tiles of 16 rows, so that a vector lane is an output row and no horizontal sum is needed.
// For each (row, token) the sum runs over the columns in one fixed order, whatever company it is computed in: results
// are the same to the bit for one token alone and for the same token among 500.
//
// Quantised weights: value = scale * (q - zero) or scale * q + min, per group of 32 or 16 columns.
// Activations are quantised to int8 per token and run of 32 columns; the products within a group are exact integers.
#pragma once

#include "activations.h"

namespace fireside {

enum Kind : int32_t { FLOAT32 = 0, BFLOAT16 = 1, FLOAT16 = 2, QUANTIZED = 3 };

// The C side of kernels/cpu/packing.py's struct: keep both in step.
struct Matrix {
    const void* weights;              // [tile][run][...], see `unpack`; floats: [tile][column][16]
    const f16 *scales, *mins;         // [tile][group][16]; no mins where `zero` says it all
    const int8_t *scale_factors, *min_factors;  // [tile][group][16], or none; scales and mins are then
                                                // [tile][SUPER columns][16], and a group's own their product
    int32_t kind, rows, columns, bits, group, zero;

    int tiles() const { return (rows + LANES - 1) / LANES; }
    int strips() const { return (tiles() + 1) / 2; }
};

constexpr int SUPER = 256;          // columns of a K-quant's block
constexpr int STRIP = 2 * LANES;    // rows that are multiplied at once: one load of a token's values serves two tiles
constexpr int TOKEN_BLOCK = 128;    // and tokens: their products, and a run of their values, stay in the first cache

// What the rows of one tile have in a group of columns: numbers that are the same for all tokens.
struct GroupScale {
    f32x16 scale, min;
};
template <int G, bool FACTORS, bool MINS>
inline GroupScale group_scale(const Matrix& m, int tile, int group) {
    const size_t at = ((size_t)tile * (m.columns / G) + group) * LANES;
    if constexpr (FACTORS) {
        const size_t block = ((size_t)tile * (m.columns / SUPER) + group / (SUPER / G)) * LANES;
        return {load_f16(m.scales + block) * load_i8(m.scale_factors + at),
                MINS ? load_f16(m.mins + block) * load_i8(m.min_factors + at) : f32x16{}};
    }
    return {load_f16(m.scales + at), MINS ? load_f16(m.mins + at) : f32x16{}};
}

// A run's weights in one tile: w[j] holds the four columns from 4 j on, [16 rows][4]. In memory, as many vectors as
// bits leave: the low four bits of w[0..3] lie in the low halves of four vectors and those of w[4..7] in the high
// halves; a further vector holds one more bit of each of the eight, or two vectors two more bits of four each.
template <int BITS>
inline void unpack(const uint8_t* packed, u8x64 (&w)[8]) {
    if constexpr (BITS == 8) {
#pragma GCC unroll 8
        for (int j = 0; j < 8; ++j) w[j] = load<u8x64>(packed + 64 * j);
        return;
    }
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
        const u8x64 low = load<u8x64>(packed + 64 * j);
        w[j] = low & 15;
        w[j + 4] = bits<u8x64>(bits<u32x16>(low) >> 4) & 15;
    }
    if constexpr (BITS > 4) {
        constexpr int MORE = BITS - 4, PER = 8 / MORE;
        constexpr uint8_t PLACES = ((1 << MORE) - 1) << 4;
#pragma GCC unroll 8
        for (int j = 0; j < 8; ++j) {
            const u32x16 high = load<u32x16>(packed + 256 + 64 * (j / PER));
            const int shift = 4 - MORE * (j % PER);  // to the fifth bit of each byte
            const u32x16 moved = shift > 0 ? high << shift : high >> -shift;
            w[j] = w[j] | (bits<u8x64>(moved) & PLACES);
        }
    }
}

template <int BITS, int G, bool FACTORS, bool MINS>
struct QuantizedProduct {
    static constexpr int HALVES = RUN / G;  // groups of a run
    static constexpr int BYTES = RUN * LANES * BITS / 8;
    static constexpr int AHEAD = 2048;  // bytes

    struct Tile {  // of one run
        u8x64 w[8];
        GroupScale group[HALVES];

        void read(const Matrix& m, int tile, int run) {
            const size_t runs = m.columns / RUN;
            const uint8_t* packed = (const uint8_t*)m.weights + ((size_t)tile * runs + run) * BYTES;
            for (int line = 0; line < BYTES; line += 64) __builtin_prefetch(packed + AHEAD + line);
            unpack<BITS>(packed, w);
#pragma GCC unroll 2
            for (int h = 0; h < HALVES; ++h) group[h] = group_scale<G, FACTORS, MINS>(m, tile, run * HALVES + h);
        }
    };

    // result[r] += tile r times a token's values in one run.
    template <int R>
    static void add(f32x16 (&result)[R], const Tile (&tiles)[R], const int8_t* values, const int32_t* sums, float scale,
                    int zero) {
        f32x16 product[R];
#pragma GCC unroll 2
        for (int h = 0; h < HALVES; ++h) {
            i32x16 sum[R];
            const int offset = MINS ? 0 : -zero * (HALVES == 1 ? sums[0] + sums[1] : sums[h]);
#pragma GCC unroll 2
            for (int r = 0; r < R; ++r) sum[r] = splat(offset);
#pragma GCC unroll 8
            for (int j = h * 8 / HALVES; j < (h + 1) * 8 / HALVES; ++j) {
                int32_t word;
                std::memcpy(&word, values + 4 * j, 4);
#pragma GCC unroll 2
                for (int r = 0; r < R; ++r) sum[r] = dot4<(1 << BITS) - 1>(sum[r], tiles[r].w[j], word);
            }
#pragma GCC unroll 2
            for (int r = 0; r < R; ++r)
                product[r] = h ? fma(to_float(sum[r]), tiles[r].group[h].scale, product[r])
                               : to_float(sum[r]) * tiles[r].group[h].scale;
        }
#pragma GCC unroll 2
        for (int r = 0; r < R; ++r) result[r] = fma(product[r], splat(scale), result[r]);
    }

    // result[r] += the minimums of tile r times the sum of a token's values.
    template <int R>
    static void add_mins(f32x16 (&result)[R], const Tile (&tiles)[R], float total, const int32_t* sums,
                         const int32_t* error_sums, float scale) {
#pragma GCC unroll 2
        for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
            for (int h = 0; h < HALVES; ++h) {
                const float half = scale * ((float)sums[h] + (float)error_sums[h] / FINER);
                result[r] = fma(tiles[r].group[h].min, splat(HALVES == 1 ? total : half), result[r]);
            }
    }

    // Few tokens: one tile at a time, their sums in registers.
    template <int T>
    static void few(const Matrix& m, int tile, const Activations& a, int first, float* out) {
        f32x16 result[T][1];
        for (int t = 0; t < T; ++t) result[t][0] = f32x16{};
        for (int run = 0; run < m.columns / RUN; ++run) {
            Tile weights[1];
            weights[0].read(m, tile, run);
#pragma GCC unroll 4
            for (int t = 0; t < T; ++t) {
                const size_t at = (size_t)run * a.tokens + first + t;
                const float scale = a.scales[at];
                add(result[t], weights, a.quants + at * RUN, a.sums + 2 * at, scale, m.zero);
                if constexpr (MINS)
                    add_mins(result[t], weights, a.totals[at], a.sums + 2 * at, a.error_sums + 2 * at, scale);
                if (a.outliers[at])
                    add(result[t], weights, a.errors + at * RUN, a.error_sums + 2 * at, scale / FINER, m.zero);
            }
        }
        for (int t = 0; t < T; ++t) store(out + t * STRIP, result[t][0]);
    }

    // Many tokens: unpacked weights of R tiles stay in registers while the tokens pass by, whose sums are in memory.
    template <int R>
    static void many(const Matrix& m, int tile, const Activations& a, int first, int count, float* __restrict out) {
        std::memset(out, 0, (size_t)count * STRIP * sizeof(float));
        const int zero = m.zero;
        for (int run = 0; run < m.columns / RUN; ++run) {
            Tile weights[R];
            for (int r = 0; r < R; ++r) weights[r].read(m, tile + r, run);
            const size_t at = (size_t)run * a.tokens + first;
            const int8_t *values = a.quants + at * RUN, *errors = a.errors + at * RUN;
            const int32_t *sums = a.sums + 2 * at, *error_sums = a.error_sums + 2 * at;
            const float *scales = a.scales + at, *totals = a.totals + at;
            const auto update = [&](int t, auto change) {
                f32x16 result[R];
#pragma GCC unroll 2
                for (int r = 0; r < R; ++r) result[r] = load<f32x16>(out + t * STRIP + r * LANES);
                change(result);
#pragma GCC unroll 2
                for (int r = 0; r < R; ++r) store(out + t * STRIP + r * LANES, result[r]);
            };
            for (int t = 0; t < count; ++t)
                update(t, [&](f32x16 (&result)[R]) {
                    add(result, weights, values + t * RUN, sums + 2 * t, scales[t], zero);
                    if constexpr (MINS)
                        add_mins(result, weights, totals[t], sums + 2 * t, error_sums + 2 * t, scales[t]);
                });
            a.each_outlier(run, first, count, [&](int t) {
                update(t, [&](f32x16 (&result)[R]) {
                    add(result, weights, errors + t * RUN, error_sums + 2 * t, scales[t] / FINER, zero);
                });
            });
        }
    }
};

template <Kind KIND>
inline f32x16 load_weights(const void* weights, size_t at) {
    if constexpr (KIND == FLOAT32) return load<f32x16>((const float*)weights + at);
    else if constexpr (KIND == BFLOAT16) return load_bf16((const bf16*)weights + at);
    else return load_f16((const f16*)weights + at);
}

template <Kind KIND>
struct FloatProduct {
    template <int T>
    static void few(const Matrix& m, int tile, const Activations& a, int first, float* out) {
        const float* values = a.values + (size_t)first * a.columns;
        f32x16 result[T];
        for (int t = 0; t < T; ++t) result[t] = f32x16{};
        for (int c = 0; c < m.columns; ++c) {
            const f32x16 w = load_weights<KIND>(m.weights, ((size_t)tile * m.columns + c) * LANES);
#pragma GCC unroll 8
            for (int t = 0; t < T; ++t) result[t] = fma(w, splat(values[t * a.columns + c]), result[t]);
        }
        for (int t = 0; t < T; ++t) store(out + t * STRIP, result[t]);
    }
};

// From so many tokens on, `many` is the faster where registers are wide (measured; they give the same bits).
constexpr int MANY = 4;

template <class Product>
[[gnu::noinline]] void multiply_tiles(const Matrix& m, int tile, int tiles, const Activations& a, int first, int count,
                                      float* out) {
    if constexpr (FIRESIDE_WIDTH == 64 && requires { &Product::template many<1>; })
        if (count >= MANY)
            return tiles == 2 ? Product::template many<2>(m, tile, a, first, count, out)
                              : Product::template many<1>(m, tile, a, first, count, out);
    for (int r = 0; r < tiles; ++r) {
        int t = 0;
        const auto run = [&](auto width) {
            constexpr int T = decltype(width)::value;
            for (; count - t >= T; t += T)
                Product::template few<T>(m, tile + r, a, first + t, out + t * STRIP + r * LANES);
        };
        if constexpr (FIRESIDE_WIDTH == 64 && !requires { &Product::template many<1>; })
            run(std::integral_constant<int, 8>());  // in narrower registers there is no room
        if constexpr (FIRESIDE_WIDTH >= 32) run(std::integral_constant<int, 4>());
        run(std::integral_constant<int, 2>());
        run(std::integral_constant<int, 1>());
    }
}

// out[t][i] = row STRIP * strip + i of the product with token first + t, for at most TOKEN_BLOCK tokens. Rows that a last
// strip lacks are not written.
inline void multiply_strip(const Matrix& m, int strip, const Activations& a, int first, int count, float* out) {
    const int tile = 2 * strip, tiles = std::min(2, m.tiles() - tile);
    const auto run = [&](auto product) {
        multiply_tiles<decltype(product)>(m, tile, tiles, a, first, count, out);
    };
    if (m.kind == FLOAT32) return run(FloatProduct<FLOAT32>());
    if (m.kind == BFLOAT16) return run(FloatProduct<BFLOAT16>());
    if (m.kind == FLOAT16) return run(FloatProduct<FLOAT16>());
    const bool mins = m.mins != nullptr;
    if (m.scale_factors) {
        if (m.bits == 6) return run(QuantizedProduct<6, 16, true, false>());            // Q6_K
        if (m.bits == 5) return run(QuantizedProduct<5, 32, true, true>());             // Q5_K
        if (m.group == 32) return run(QuantizedProduct<4, 32, true, true>());           // Q4_K
        return mins ? run(QuantizedProduct<4, 16, true, true>())                        // Q2_K
                    : run(QuantizedProduct<4, 16, true, false>());                      // Q3_K
    }
    if (m.bits == 8) return run(QuantizedProduct<8, 32, false, false>());               // Q8_0
    if (m.bits == 5)
        return mins ? run(QuantizedProduct<5, 32, false, true>())                       // Q5_1
                    : run(QuantizedProduct<5, 32, false, false>());                     // Q5_0
    return mins ? run(QuantizedProduct<4, 32, false, true>())                           // Q4_1
                : run(QuantizedProduct<4, 32, false, false>());                         // Q4_0
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
    const auto number = [&](const f16* numbers, const int8_t* factors, int column) {
        if (!factors) return half_to_float(numbers[(tile * (m.columns / m.group) + column / m.group) * LANES + lane]);
        return half_to_float(numbers[(tile * (m.columns / SUPER) + column / SUPER) * LANES + lane]) *
               (float)factors[(tile * (m.columns / m.group) + column / m.group) * LANES + lane];
    };
    for (int c = 0; c < m.columns; ++c) {
        const size_t run = tile * (m.columns / RUN) + c / RUN;
        const uint8_t* byte = (const uint8_t*)m.weights + run * RUN * LANES * m.bits / 8 + lane * 4 + c % 4;
        const int j = c % RUN / 4;  // as in `unpack`
        int q = byte[64 * (m.bits == 8 ? j : j % 4)];
        if (m.bits < 8) {
            const int more = m.bits - 4;
            q = j < 4 ? q & 15 : q >> 4;
            if (more) {
                const int per = 8 / more;
                q |= (byte[256 + 64 * (j / per)] >> more * (j % per) & ((1 << more) - 1)) << 4;
            }
        }
        const float scale = number(m.scales, m.scale_factors, c);
        out[c] = m.mins ? scale * (float)q + number(m.mins, m.min_factors, c) : scale * (float)(q - m.zero);
    }
}

}  // namespace fireside
