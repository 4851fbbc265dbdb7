// Causal attention of a few query heads over one key/value head of the paged cache.
//
// The reduction over positions is fixed: one after the other (pair after pair) within partitions of 256, which begin at
// multiples of 256, then partition after partition. Partitions may be computed by different threads, queries in tiles of
// any size: each query's numbers stay the same to the bit.
#pragma once

#include "kv_cache.h"

namespace fireside {

constexpr int PARTITION = 256;
constexpr int MAX_QUERIES = FIRESIDE_WIDTH == 64 ? 12 : 8;  // in one tile: more would not fit the registers
constexpr int MAX_HEAD_DIM = 256;

// A softmax-weighted sum over some positions. Of several, the answer is sum / weight.
struct Partial {
    float peak;          // largest score; scores that are no numbers do not count
    float weight;        // sum of exp(score - peak): 0 if there was nothing to see, no number if a score was none
    float sum[MAX_HEAD_DIM];

    void reset() { weight = 0.0f; }

    void add(const Partial& other, int head_dim) {
        if (other.weight == 0.0f) return;
        if (weight == 0.0f) {
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

    void write(float* out, int head_dim) const {
        const float nothing = std::numeric_limits<float>::quiet_NaN();  // only damaged weights leave nothing to see
        for (int d = 0; d < head_dim; d += LANES)
            store(out + d, weight == 0.0f ? splat(nothing) : load<f32x16>(sum + d) * splat(1.0f / weight));
    }
};

struct Query {
    const float* vector;  // [head_dim], rotated and scaled
    int begin, end;       // the positions it sees
};

// One partition for NQ queries. view(b) gives the block of positions 16 b .. 16 b + 15.
template <int NQ, class Element, class View>
void attend(const Query* queries, int partition, int head_dim, View view, Partial* partials) {
    constexpr bool SCALED = sizeof(Element) == 1;
    int last = 0, first = std::numeric_limits<int>::max();
    for (int q = 0; q < NQ; ++q) {
        last = std::max(last, queries[q].end);
        first = std::min(first, queries[q].begin);
    }
    const int begin = std::max(partition * PARTITION, first / BLOCK * BLOCK);
    const int end = std::min((partition + 1) * PARTITION, last);
    const float nothing = -std::numeric_limits<float>::infinity();
    constexpr int32_t LANE[LANES] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    const i32x16 lane = load<i32x16>(LANE);

    // Few queries leave registers for several blocks, or runs of dimensions, at once: their sums do not wait for each
    // other.
    constexpr int WIDE = FIRESIDE_WIDTH < 64 || NQ > 6 ? 1 : NQ > 3 ? 2 : 4;
    alignas(64) float scores[NQ][PARTITION];
    PairFactor<Element> factors[NQ][MAX_HEAD_DIM / 2];
    static_assert(PARTITION <= MAX_HEAD_DIM);  // `factors` serves both products
    for (int q = 0; q < NQ; ++q)
        for (int d = 0; d < head_dim; d += LANES) store_factors(factors[q] + d / 2, load<f32x16>(queries[q].vector + d));
    const auto score = [&](int position, auto width) {
        constexpr int W = decltype(width)::value;
        const Element *keys[W], *next[W];
        f32x16 sums[W][NQ];
        for (int w = 0; w < W; ++w) {
            keys[w] = view(position / BLOCK + w).keys;
            next[w] = position + (W + w) * BLOCK < end ? view(position / BLOCK + W + w).keys : keys[w];
            for (int q = 0; q < NQ; ++q) sums[w][q] = f32x16{};
        }
        for (int i = 0; i < head_dim / 2; ++i)
#pragma GCC unroll 4
            for (int w = 0; w < W; ++w) {
                if constexpr (WIDE > 1) __builtin_prefetch(next[w] + i * PAIR);  // blocks lie apart from each other
#pragma GCC unroll 12
                for (int q = 0; q < NQ; ++q) sums[w][q] = multiply(sums[w][q], keys[w] + i * PAIR, factors[q][i]);
            }
        for (int w = 0; w < W; ++w) {
            const i32x16 at = lane + (position + w * BLOCK);
            for (int q = 0; q < NQ; ++q) {
                f32x16 sum = sums[w][q];
                if constexpr (SCALED) sum = sum * load<f32x16>(view(position / BLOCK + w).key_scales);
                const auto seen = (at >= queries[q].begin) & (at < queries[q].end);
                store(scores[q] + position + w * BLOCK - begin, select(seen, sum, splat(nothing)));
            }
        }
    };
    int position = begin;
    for (; position + (WIDE - 1) * BLOCK < end; position += WIDE * BLOCK) score(position, std::integral_constant<int, WIDE>());
    for (; position < end; position += BLOCK) score(position, std::integral_constant<int, 1>());

    const int blocks = (end - begin + BLOCK - 1) / BLOCK;
    for (int q = 0; q < NQ; ++q) {
        f32x16 highest = splat(nothing), weights = f32x16{};
        for (int b = 0; b < blocks; ++b) highest = max(load<f32x16>(scores[q] + b * BLOCK), highest);
        const float peak = horizontal_max(highest);
        const f32x16 shift = splat(peak == nothing ? 0.0f : peak);
        for (int b = 0; b < blocks; ++b) {
            f32x16 weight = exp(load<f32x16>(scores[q] + b * BLOCK) - shift);
            weights = weights + weight;
            if constexpr (SCALED) weight = weight * load<f32x16>(view(begin / BLOCK + b).value_scales);
            store_factors(factors[q] + b * BLOCK / 2, weight);
        }
        partials[q].peak = peak;
        partials[q].weight = horizontal_sum(weights);
    }

    const int pairs = (end - begin + 1) / 2;  // never reads what another sequence left
    const auto weigh = [&](int d, auto width) {
        constexpr int W = decltype(width)::value;
        f32x16 sums[W][NQ];
        for (int w = 0; w < W; ++w)
            for (int q = 0; q < NQ; ++q) sums[w][q] = f32x16{};
        for (int b = 0; b < blocks; ++b) {
            const Element* values = view(begin / BLOCK + b).values + 2 * d;
            const Element* next = b + 1 < blocks ? view(begin / BLOCK + b + 1).values + 2 * d : values;
            const int some = std::min(BLOCK / 2, pairs - b * BLOCK / 2);
            for (int i = 0; i < some; ++i)
#pragma GCC unroll 4
                for (int w = 0; w < W; ++w) {
                    const int at = i * head_dim * 2 + w * PAIR;
                    if constexpr (WIDE > 1) __builtin_prefetch(next + at);
#pragma GCC unroll 12
                    for (int q = 0; q < NQ; ++q)
                        sums[w][q] = multiply(sums[w][q], values + at, factors[q][b * BLOCK / 2 + i]);
                }
        }
        for (int w = 0; w < W; ++w)
            for (int q = 0; q < NQ; ++q) store(partials[q].sum + d + w * LANES, sums[w][q]);
    };
    int d = 0;
    for (; d + WIDE * LANES <= head_dim; d += WIDE * LANES) weigh(d, std::integral_constant<int, WIDE>());
    for (; d < head_dim; d += LANES) weigh(d, std::integral_constant<int, 1>());
}

// Up to MAX_QUERIES of them. There must be room for as many in `queries` and `partials`.
template <class Element, class View>
void attend(int count, Query* queries, int partition, int head_dim, View view, Partial* partials) {
    const auto run = [&](auto width) {
        constexpr int NQ = decltype(width)::value;
        for (int q = count; q < NQ; ++q) queries[q] = queries[0];  // sizes without a kernel are filled up
        attend<NQ, Element>(queries, partition, head_dim, view, partials);
    };
    if (count == 1) return run(std::integral_constant<int, 1>());
    if (count == 2) return run(std::integral_constant<int, 2>());
    if (count == 3) return run(std::integral_constant<int, 3>());
    if (count == 4) return run(std::integral_constant<int, 4>());
    if (count <= 6) return run(std::integral_constant<int, 6>());
    if (count <= 8) return run(std::integral_constant<int, 8>());
    if constexpr (MAX_QUERIES == 12) return run(std::integral_constant<int, 12>());
}

}  // namespace fireside
