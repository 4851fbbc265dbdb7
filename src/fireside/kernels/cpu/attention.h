// Causal attention of a few query heads over one key/value head of the paged cache.
//
// Cache blocks hold 16 positions: keys transposed, [head_dim][16], so that one vector holds one dimension of 16
// keys; values as [16][head_dim]. Everything is summed in float.
//
// The reduction over positions is fixed: 16 positions at a time within partitions of 256, which begin at
// multiples of 256, then partition after partition. Partitions may be computed by different threads, queries in
// tiles of any size: each query's numbers stay the same to the bit.
#pragma once

#include <limits>

#include "simd.h"

namespace fireside {

constexpr int BLOCK = 16;
constexpr int PARTITION = 256;
constexpr int MAX_QUERIES = 8;  // in one tile: more would not fit the registers
constexpr int MAX_HEAD_DIM = 256;

inline f32x16 load_kv(const float* p) { return load<f32x16>(p); }
inline f32x16 load_kv(const bf16* p) { return load_bf16(p); }
inline void store_kv(float* p, f32x16 v) { store(p, v); }
inline void store_kv(bf16* p, f32x16 v) { store_bf16(p, v); }

// A running softmax-weighted sum: after the last position, the answer is sum / weight.
struct Partial {
    float peak;          // largest score so far
    float weight;        // sum of exp(score - peak)
    float sum[MAX_HEAD_DIM];

    void reset() {
        peak = -std::numeric_limits<float>::infinity();
        weight = std::numeric_limits<float>::quiet_NaN();  // stays if every score is NaN: so is the answer then
    }

    void add(const Partial& other, int head_dim) {
        if (other.peak == -std::numeric_limits<float>::infinity()) return;
        if (peak == -std::numeric_limits<float>::infinity()) {
            peak = other.peak, weight = other.weight;
            std::memcpy(sum, other.sum, head_dim * sizeof(float));
            return;
        }
        const float top = peak > other.peak ? peak : other.peak;
        const float mine = exp(splat(peak - top))[0], theirs = exp(splat(other.peak - top))[0];
        for (int d = 0; d < head_dim; d += LANES)
            store(sum + d, fma(load<f32x16>(other.sum + d), splat(theirs), load<f32x16>(sum + d) * splat(mine)));
        weight = weight * mine + other.weight * theirs;
        peak = top;
    }
};

struct Query {
    const float* vector;  // [head_dim], rotated and scaled
    int begin, end;       // the positions it sees
};

// One partition for NQ queries. keys(b) and values(b) give the block of positions 16 b .. 16 b + 15.
template <int NQ, class Element, class Keys, class Values>
void attend(const Query* queries, int partition, int head_dim, Keys keys, Values values, Partial* partials) {
    int last = 0, first = std::numeric_limits<int>::max();
    for (int q = 0; q < NQ; ++q) {
        last = queries[q].end > last ? queries[q].end : last;
        first = queries[q].begin < first ? queries[q].begin : first;
    }
    const int begin = partition * PARTITION > first ? partition * PARTITION : first / BLOCK * BLOCK;
    const int end = (partition + 1) * PARTITION < last ? (partition + 1) * PARTITION : last;
    float peaks[NQ];
    f32x16 weights[NQ];
    alignas(64) float sums[NQ][MAX_HEAD_DIM];
    alignas(64) float p[NQ][LANES];
    const float nothing = -std::numeric_limits<float>::infinity();
    constexpr int32_t LANE[LANES] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    const i32x16 lane = load<i32x16>(LANE);
    for (int q = 0; q < NQ; ++q) {
        peaks[q] = nothing;
        weights[q] = f32x16{};
        for (int d = 0; d < head_dim; d += LANES) store(sums[q] + d, f32x16{});
    }
    for (int position = begin; position < end; position += BLOCK) {
        const Element* key = keys(position / BLOCK);
        f32x16 scores[NQ];
        for (int q = 0; q < NQ; ++q) scores[q] = f32x16{};
        for (int d = 0; d < head_dim; ++d) {
            const f32x16 k = load_kv(key + d * BLOCK);
#pragma GCC unroll 8
            for (int q = 0; q < NQ; ++q) scores[q] = fma(k, splat(queries[q].vector[d]), scores[q]);
        }
        for (int q = 0; q < NQ; ++q) {
            if (position >= queries[q].end || position + BLOCK <= queries[q].begin) {
                store(p[q], f32x16{});
                continue;
            }
            const i32x16 at = lane + position;
            const f32x16 seen = select((at >= queries[q].begin) & (at < queries[q].end), scores[q], splat(nothing));
            const float peak = horizontal_max(seen);
            if (peak > peaks[q]) {
                const f32x16 shrink = exp(splat(peaks[q] - peak));  // 0 the first time
                weights[q] = weights[q] * shrink;
                for (int d = 0; d < head_dim; d += LANES) store(sums[q] + d, load<f32x16>(sums[q] + d) * shrink);
                peaks[q] = peak;
            }
            const f32x16 weight = exp(seen - splat(peaks[q]));
            weights[q] = weights[q] + weight;
            store(p[q], weight);
        }
        const Element* value = values(position / BLOCK);
        const int count = end - position < BLOCK ? end - position : BLOCK;  // never reads what another sequence left
        for (int d = 0; d < head_dim; d += LANES) {
            f32x16 sum[NQ];
            for (int q = 0; q < NQ; ++q) sum[q] = load<f32x16>(sums[q] + d);
            for (int s = 0; s < count; ++s) {
                const f32x16 v = load_kv(value + s * head_dim + d);
#pragma GCC unroll 8
                for (int q = 0; q < NQ; ++q) sum[q] = fma(v, splat(p[q][s]), sum[q]);
            }
            for (int q = 0; q < NQ; ++q) store(sums[q] + d, sum[q]);
        }
    }
    for (int q = 0; q < NQ; ++q) {
        partials[q].peak = peaks[q];
        partials[q].weight = horizontal_sum(weights[q]);
        std::memcpy(partials[q].sum, sums[q], head_dim * sizeof(float));
    }
}

template <class Element, class Keys, class Values>
void attend(int count, const Query* queries, int partition, int head_dim, Keys keys, Values values, Partial* out) {
    switch (count) {
        case 1: return attend<1, Element>(queries, partition, head_dim, keys, values, out);
        case 2: return attend<2, Element>(queries, partition, head_dim, keys, values, out);
        case 3: return attend<3, Element>(queries, partition, head_dim, keys, values, out);
        case 4: return attend<4, Element>(queries, partition, head_dim, keys, values, out);
        case 5: return attend<5, Element>(queries, partition, head_dim, keys, values, out);
        case 6: return attend<6, Element>(queries, partition, head_dim, keys, values, out);
        case 7: return attend<7, Element>(queries, partition, head_dim, keys, values, out);
        default: return attend<8, Element>(queries, partition, head_dim, keys, values, out);
    }
}

}  // namespace fireside
