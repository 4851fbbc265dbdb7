// Tokens as quantised weights want them: in int8, with a scale per token and run of 32 columns.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <memory>
#include <new>

#include "simd.h"

namespace fireside {

constexpr int RUN = 32;  // columns that share one activation scale

// A few channels of a language model carry values far above the rest, and the one scale of their run leaves the run's
// others few bits. Where a run's largest value exceeds this many times the token's root mean square, the rounding
// errors themselves are quantised, and their products added. About a run in ten needs it; the error of the logits
// then falls to less than half (docs/log.md).
constexpr float OUTLIER = 4.5f;
constexpr float FINER = 254.0f;  // steps of the errors' scale within one step of the first: |error| <= 1/2 -> 127

class Scratch {  // one growing allocation per use
   public:
    template <class T>
    T* get(size_t count) {
        const size_t bytes = count * sizeof(T) + 64;
        if (bytes > size_) {
            data_.reset(new (std::align_val_t(64)) uint8_t[bytes]);
            size_ = bytes;
        }
        return (T*)data_.get();
    }

   private:
    struct Delete {
        void operator()(uint8_t* p) const { operator delete[](p, std::align_val_t(64)); }
    };
    std::unique_ptr<uint8_t, Delete> data_;
    size_t size_ = 0;
};

// The tokens of one product. Runs come first, so that a product reads the same run of many tokens in one stream.
struct Activations {
    int tokens, columns;
    const float* values;   // [tokens][columns]: what weights in float are multiplied with
    int8_t* quants;        // [runs][tokens][32]
    int8_t* errors;        // like quants, written for outliers only
    uint8_t* outliers;     // [runs][tokens], 1 for an outlier
    float* scales;         // [runs][tokens]
    float* totals;         // [runs][tokens], sums of the quantised values
    int32_t* sums;         // [runs][tokens][2], of half a run's quants
    int32_t* error_sums;   // the same of its errors; 0 if it is no outlier

    // x: [columns], of token t.
    void quantize(int t, const float* x) const {
        f32x16 squares = f32x16{};
        for (int i = 0; i < columns; i += LANES) squares = fma(load<f32x16>(x + i), load<f32x16>(x + i), squares);
        const float square = horizontal_sum(squares);
        const float limit = OUTLIER * std::sqrt(square / (float)columns);
        for (int run = 0; run < columns / RUN; ++run) {
            const size_t at = (size_t)run * tokens + t;
            const f32x16 halves[2] = {load<f32x16>(x + run * RUN), load<f32x16>(x + run * RUN + LANES)};
            const float largest = horizontal_max(max(max(halves[0], -halves[0]), max(halves[1], -halves[1])));
            const f32x16 inverse = splat(largest > 0 ? 127.0f / largest : 0.0f);
            // A maximum passes over NaN, and int8 has none: that a value is no number is told by the scale.
            scales[at] = std::isnan(square) ? square : largest / 127.0f;
            outliers[at] = largest > limit;
            const f32x16 low = splat(-127.0f), high = splat(127.0f);
            const f32x16 exact[2] = {min(max(halves[0] * inverse, low), high), min(max(halves[1] * inverse, low), high)};
            const i32x16 q[2] = {round_to_int(exact[0]), round_to_int(exact[1])};
            write(quants + at * RUN, q, sums + 2 * at);
            if (outliers[at]) {
                const i32x16 error[2] = {round_to_int((exact[0] - to_float(q[0])) * splat(FINER)),
                                         round_to_int((exact[1] - to_float(q[1])) * splat(FINER))};
                write(errors + at * RUN, error, error_sums + 2 * at);
            } else {
                error_sums[2 * at] = error_sums[2 * at + 1] = 0;
            }
            const int total = sums[2 * at] + sums[2 * at + 1], error_total = error_sums[2 * at] + error_sums[2 * at + 1];
            totals[at] = scales[at] * ((float)total + (float)error_total / FINER);
        }
    }

    // 32 int8 values and the sums of both halves.
    static void write(int8_t* bytes, const i32x16 (&q)[2], int32_t* half_sums) {
        for (int h = 0; h < 2; ++h) {
            store_bytes(bytes + h * LANES, q[h]);
            half_sums[h] = byte_sum(bytes + h * LANES);
        }
    }

    // Calls take(i) for each outlier among tokens first + i, i < count, of a run.
    template <class Take>
    void each_outlier(int run, int first, int count, Take take) const {
        const uint8_t* flags = outliers + (size_t)run * tokens + first;
        for (int start = 0; start < count; start += 64) {  // by bits, since to ask each costs a guess of the processor's
            const int some = std::min(64, count - start);
            uint64_t found = 0;
            for (int i = 0; i < some; i += 8) {  // beyond the last flag there is room to read
                uint64_t bytes;
                std::memcpy(&bytes, flags + start + i, 8);
                bytes &= 0x0101010101010101;
                found |= (bytes * 0x0102040810204080 >> 56) << i;  // the lowest bits of eight bytes, side by side
            }
            for (found &= ~0ull >> (64 - some); found; found &= found - 1) take(start + std::countr_zero(found));
        }
    }
};

class ActivationBuffer {
   public:
    void reserve(int tokens, int columns) {
        const size_t count = (size_t)(columns / RUN + 1) * tokens;
        values = values_.get<float>((size_t)tokens * columns);
        space_ = {0, 0, values, quants_.get<int8_t>(count * RUN), errors_.get<int8_t>(count * RUN),
                  outliers_.get<uint8_t>(count), scales_.get<float>(count), totals_.get<float>(count),
                  sums_.get<int32_t>(2 * count), error_sums_.get<int32_t>(2 * count)};
    }

    // For no more than was reserved. What was there before is lost.
    Activations of(int tokens, int columns) const {
        Activations view = space_;
        view.tokens = tokens, view.columns = columns;
        return view;
    }

    float* values = nullptr;

   private:
    Activations space_{};
    Scratch values_, quants_, errors_, outliers_, scales_, totals_, sums_, error_sums_;
};

}  // namespace fireside
