// A whole step of a Llama-family decoder in one call: for every token of a mixed batch of prefill chunks and
// decode steps, from embedding to logits, with one parallel region and a barrier between phases.
//
// The structs here are mirrored by library.py; fireside_abi() changes whenever they do.

#include <memory>
#include <new>

#include "attention.h"
#include "matmul.h"
#include "threads.h"

namespace fireside {

struct Layer {
    Matrix query, key, value, output, gate, up, down;
    const float *attention_norm, *mlp_norm, *query_norm, *key_norm;  // the last two null without QK-norm
    const float *query_bias, *key_bias, *value_bias, *output_bias, *gate_bias, *up_bias, *down_bias;  // null: none
};

struct Config {
    int32_t layers, hidden_size, intermediate_size, heads, kv_heads, head_dim, vocab_size, sliding_window;
    int32_t num_blocks, kv_is_float, threads, padding;
    float rms_norm_eps, padding2;
    const float *cosines, *sines;  // [max_position][head_dim / 2]
    void *keys, *values;           // [layers][num_blocks][kv_heads][16 * head_dim]
    Matrix embedding, head;
    const float* final_norm;
    const Layer* layer;
};

struct Batch {
    int32_t tokens, sequences, table_width, logits;
    const int32_t *token_ids, *positions, *query_starts, *context_lengths, *block_tables, *logit_indices;
    float* out;  // [logits][vocab_size]
};

// Rows of one token tile that a product visits before the next: their activations stay in the second-level cache.
constexpr int TOKEN_BLOCK = 128;
// Up to so many tokens, every thread prepares all inputs of a product for itself: cheaper than a barrier.
constexpr int REDUNDANT_TOKENS = 4;

struct AttentionUnit {
    int sequence, token, tokens, head, heads;  // query tokens and query heads; all share one key/value head
    int partition;                             // -1: all of them, in order
    int partial;                               // where its partial results go when the partitions are shared out
};

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

class ActivationBuffer : public Activations {
   public:
    void resize(int tokens, int width) {
        columns = width;
        values = values_.get<float>((size_t)tokens * width);
        const size_t count = (size_t)tokens * width;  // a little more below: widths that are not whole groups
        quants = quants_.get<int8_t>(count);
        errors = errors_.get<int8_t>(count);
        outliers = outliers_.get<uint8_t>(count / GROUP + 1);
        scales = scales_.get<float>(count / GROUP + 1);
        sums = sums_.get<int32_t>(count / LANES + 1);
        error_sums = error_sums_.get<int32_t>(count / LANES + 1);
        totals = totals_.get<float>(count / GROUP + 1);
    }

   private:
    Scratch values_, quants_, errors_, outliers_, scales_, sums_, error_sums_, totals_;
};

class Decoder {
   public:
    explicit Decoder(const Config& config) : c_(config), layers_(config.layer, config.layer + config.layers),
          pool_(config.threads), own_(config.threads), counters_(12 * config.layers + 8),
          widest_(std::max({config.hidden_size, config.heads * config.head_dim, config.intermediate_size})) {
        for (auto& buffer : own_) buffer.resize(REDUNDANT_TOKENS, widest_);
    }

    void forward(const Batch& batch) {
        batch_ = &batch;
        const int n = batch.tokens, q_width = c_.heads * c_.head_dim, kv_width = c_.kv_heads * c_.head_dim;
        hidden_ = hidden_storage_.get<float>((size_t)n * c_.hidden_size);
        query_ = query_storage_.get<float>((size_t)n * q_width);
        key_ = key_storage_.get<float>((size_t)n * kv_width);
        value_ = value_storage_.get<float>((size_t)n * kv_width);
        attended_ = attended_storage_.get<float>((size_t)n * q_width);
        gated_ = gated_storage_.get<float>((size_t)n * c_.intermediate_size);
        // All memory is taken here: a thread that finds none within the step would leave the others at a barrier.
        shared_.resize(std::max(n, batch.logits), widest_);
        plan_attention();
        partials_ = partial_storage_.get<Partial>(partial_count_);
        for (auto& counter : counters_) counter.next.store(0, std::memory_order_relaxed);
        pool_.run([](void* self, int thread) { ((Decoder*)self)->run(thread); }, this);
    }

   private:
    void run(int thread) {
        const int n = batch_->tokens, hidden = c_.hidden_size;
        Counter* counter = counters_.data();
        counter++->each(n, 1, [&](int t) {
            unpack_row(c_.embedding, batch_->token_ids[t], hidden_ + (size_t)t * hidden);
        });
        pool_.barrier.wait();
        for (int index = 0; index < c_.layers; ++index) {
            const Layer& layer = layers_[index];
            project(layer, thread, counter);
            pool_.barrier.wait();
            counter++->each(n, 1, [&](int t) { rotate_and_store(layer, index, t); });
            pool_.barrier.wait();
            const int units = (int)units_.size();
            counter++->each(units, 1, [&](int u) { attend_unit(units_[u], index); });
            if (!merges_.empty()) {
                pool_.barrier.wait();
                counter->each((int)merges_.size(), 1, [&](int u) { merge_unit(merges_[u]); });
            }
            ++counter;
            pool_.barrier.wait();
            add_product(layer.output, layer.output_bias, attended_, thread, counter);
            pool_.barrier.wait();
            feed_forward(layer, thread, counter);
            pool_.barrier.wait();
            add_product(layer.down, layer.down_bias, gated_, thread, counter);
            pool_.barrier.wait();
        }
        write_logits(thread, counter);
    }

    // The input of a product: fill(token, float*) writes one token's row. Small batches are prepared by every
    // thread for itself, large ones together.
    template <class Fill>
    const Activations& prepare(int tokens, int columns, int thread, Counter*& counter, Fill fill) {
        const bool redundant = tokens <= REDUNDANT_TOKENS;
        ActivationBuffer& buffer = redundant ? own_[thread] : shared_;
        const auto one = [&](int t) {
            fill(t, buffer.values + (size_t)t * columns);
            if (columns % GROUP == 0) buffer.quantize(t);
        };
        if (redundant) {
            buffer.resize(tokens, columns);
            for (int t = 0; t < tokens; ++t) one(t);
            return buffer;
        }
        if (thread == 0) buffer.resize(tokens, columns);
        pool_.barrier.wait();
        counter++->each(tokens, 4, one);
        pool_.barrier.wait();
        return buffer;
    }

    const Activations& normalized(int thread, Counter*& counter, const float* weight) {
        return prepare(batch_->tokens, c_.hidden_size, thread, counter, [&](int t, float* out) {
            normalize(hidden_ + (size_t)t * c_.hidden_size, weight, c_.hidden_size, out);
        });
    }

    // RMSNorm (Zhang and Sennrich, 2019).
    void normalize(const float* x, const float* weight, int width, float* out) const {
        f32x16 squares = f32x16{};
        for (int i = 0; i < width; i += LANES) squares = fma(load<f32x16>(x + i), load<f32x16>(x + i), squares);
        const f32x16 scale = splat(1.0f / std::sqrt(horizontal_sum(squares) / (float)width + c_.rms_norm_eps));
        for (int i = 0; i < width; i += LANES)
            store(out + i, load<f32x16>(x + i) * scale * load<f32x16>(weight + i));
    }

    // Runs take(token, first row, product) over all tokens and tiles of one or more matrices that share an input.
    template <class Body>
    void over_tiles(int tokens, int tiles, Counter* counter, Body body) {
        const int blocks = (tokens + TOKEN_BLOCK - 1) / TOKEN_BLOCK;
        const int run = tiles / (8 * pool_.size) > 1 ? tiles / (8 * pool_.size) : 1;
        counter->each(blocks * tiles, run, [&](int unit) {
            const int first = unit / tiles * TOKEN_BLOCK;
            body(unit % tiles, first, std::min(TOKEN_BLOCK, tokens - first));
        });
    }

    static void store_rows(float* row, int first, int rows, f32x16 v) {
        if (first + LANES <= rows) return store(row + first, v);
        for (int i = 0; first + i < rows; ++i) row[first + i] = v[i];
    }
    static f32x16 bias_of(const float* bias, int first) { return bias ? load<f32x16>(bias + first) : f32x16{}; }

    void project(const Layer& layer, int thread, Counter*& counter) {
        const Activations& in = normalized(thread, counter, layer.attention_norm);
        const struct { const Matrix& matrix; const float* bias; float* out; } targets[3] = {
            {layer.query, layer.query_bias, query_}, {layer.key, layer.key_bias, key_},
            {layer.value, layer.value_bias, value_}};
        const int tiles[3] = {layer.query.tiles(), layer.key.tiles(), layer.value.tiles()};
        over_tiles(batch_->tokens, tiles[0] + tiles[1] + tiles[2], counter++, [&](int tile, int first, int count) {
            int which = 0;
            while (tile >= tiles[which]) tile -= tiles[which++];
            const auto& target = targets[which];
            const f32x16 bias = bias_of(target.bias, tile * LANES);
            multiply_tile(target.matrix, tile, first, in, count, [&](int t, f32x16 v) {
                store(target.out + (size_t)t * target.matrix.rows + tile * LANES, v + bias);
            });
        });
    }

    void rotate(float* head, int position) const {  // pairs (i, i + head_dim / 2), as in Hugging Face's models
        const int half = c_.head_dim / 2;
        const float* cosines = c_.cosines + (size_t)position * half;
        const float* sines = c_.sines + (size_t)position * half;
        for (int i = 0; i < half; ++i) {
            const float x = head[i], y = head[i + half];
            head[i] = x * cosines[i] - y * sines[i];
            head[i + half] = y * cosines[i] + x * sines[i];
        }
    }

    void rotate_and_store(const Layer& layer, int index, int t) {
        const int position = batch_->positions[t], d = c_.head_dim;
        const float scale = 1.0f / std::sqrt((float)d);
        for (int h = 0; h < c_.heads; ++h) {
            float* head = query_ + ((size_t)t * c_.heads + h) * d;
            if (layer.query_norm) normalize(head, layer.query_norm, d, head);
            rotate(head, position);
            for (int i = 0; i < d; ++i) head[i] *= scale;
        }
        const int block = batch_->block_tables[(size_t)sequence_of_[t] * batch_->table_width + position / BLOCK];
        for (int h = 0; h < c_.kv_heads; ++h) {
            float* head = key_ + ((size_t)t * c_.kv_heads + h) * d;
            if (layer.key_norm) normalize(head, layer.key_norm, d, head);
            rotate(head, position);
            const size_t at = cache_offset(index, block, h);
            const float* value = value_ + ((size_t)t * c_.kv_heads + h) * d;
            if (c_.kv_is_float) write_kv((float*)c_.keys + at, (float*)c_.values + at, head, value, position % BLOCK);
            else write_kv((bf16*)c_.keys + at, (bf16*)c_.values + at, head, value, position % BLOCK);
        }
    }

    template <class Element>
    void write_kv(Element* keys, Element* values, const float* key, const float* value, int slot) const {
        for (int i = 0; i < c_.head_dim; i += LANES) {
            Element lanes[LANES];
            store_kv(lanes, load<f32x16>(key + i));
            for (int j = 0; j < LANES; ++j) keys[(i + j) * BLOCK + slot] = lanes[j];
            store_kv(values + slot * c_.head_dim + i, load<f32x16>(value + i));
        }
    }

    size_t cache_offset(int layer, int block, int head) const {
        return (((size_t)layer * c_.num_blocks + block) * c_.kv_heads + head) * BLOCK * c_.head_dim;
    }

    // Cuts the batch's attention into units of similar size. A sequence with few new tokens and a long past is
    // cut along its past, so that one stream uses every core.
    void plan_attention() {
        units_.clear();
        merges_.clear();
        sequence_of_.resize(batch_->tokens);
        partial_count_ = 0;
        const int group = c_.heads / c_.kv_heads, heads = std::min(group, MAX_QUERIES);
        const int tokens_per_tile = std::max(1, MAX_QUERIES / group);
        for (int s = 0; s < batch_->sequences; ++s) {
            const int begin = batch_->query_starts[s], end = batch_->query_starts[s + 1];
            for (int t = begin; t < end; ++t) sequence_of_[t] = s;
            const int partitions = (batch_->context_lengths[s] + PARTITION - 1) / PARTITION;
            const bool split = partitions > 1 && (end - begin) <= REDUNDANT_TOKENS;
            for (int kv = 0; kv < c_.kv_heads; ++kv)
                for (int h = 0; h < group; h += heads)
                    for (int t = begin; t < end; t += tokens_per_tile) {
                        AttentionUnit unit{s, t, std::min(tokens_per_tile, end - t), kv * group + h,
                                           std::min(heads, group - h), -1, partial_count_};
                        if (!split) {
                            units_.push_back(unit);
                            continue;
                        }
                        merges_.push_back(unit);
                        for (unit.partition = 0; unit.partition < partitions; ++unit.partition) {
                            unit.partial = partial_count_;
                            units_.push_back(unit);
                            partial_count_ += unit.tokens * unit.heads;
                        }
                    }
        }
    }

    int partitions_of(const AttentionUnit& unit) const {
        return (batch_->context_lengths[unit.sequence] + PARTITION - 1) / PARTITION;
    }

    void attend_unit(const AttentionUnit& unit, int layer) {
        if (c_.kv_is_float) attend_unit<float>(unit, layer);
        else attend_unit<bf16>(unit, layer);
    }

    template <class Element>
    void attend_unit(const AttentionUnit& unit, int layer) {
        Query queries[MAX_QUERIES];
        int count = 0;
        for (int t = unit.token; t < unit.token + unit.tokens; ++t)
            for (int h = unit.head; h < unit.head + unit.heads; ++h) {
                const int end = batch_->positions[t] + 1;
                const int begin = c_.sliding_window ? std::max(0, end - c_.sliding_window) : 0;
                queries[count++] = {query_ + ((size_t)t * c_.heads + h) * c_.head_dim, begin, end};
            }
        const int32_t* table = batch_->block_tables + (size_t)unit.sequence * batch_->table_width;
        const int kv_head = unit.head / (c_.heads / c_.kv_heads);
        const auto keys = [&](int b) { return (const Element*)c_.keys + cache_offset(layer, table[b], kv_head); };
        const auto values = [&](int b) { return (const Element*)c_.values + cache_offset(layer, table[b], kv_head); };
        if (unit.partition >= 0)
            return attend<Element>(count, queries, unit.partition, c_.head_dim, keys, values,
                                   partials_ + unit.partial);
        Partial total[MAX_QUERIES], part[MAX_QUERIES];
        for (int q = 0; q < count; ++q) total[q].reset();
        const int last = queries[count - 1].end;  // of the last token: the furthest
        for (int p = 0; p * PARTITION < last; ++p) {
            attend<Element>(count, queries, p, c_.head_dim, keys, values, part);
            for (int q = 0; q < count; ++q) total[q].add(part[q], c_.head_dim);
        }
        finish(unit, total);
    }

    void merge_unit(const AttentionUnit& unit) {
        const int count = unit.tokens * unit.heads;
        Partial total[MAX_QUERIES];
        for (int q = 0; q < count; ++q) {
            total[q].reset();
            for (int p = 0; p < partitions_of(unit); ++p)
                total[q].add(partials_[unit.partial + p * count + q], c_.head_dim);
        }
        finish(unit, total);
    }

    void finish(const AttentionUnit& unit, const Partial* total) {
        for (int t = 0; t < unit.tokens; ++t)
            for (int h = 0; h < unit.heads; ++h) {
                const Partial& p = total[t * unit.heads + h];
                float* out = attended_ + ((size_t)(unit.token + t) * c_.heads + unit.head + h) * c_.head_dim;
                const f32x16 inverse = splat(1.0f / p.weight);
                for (int d = 0; d < c_.head_dim; d += LANES) store(out + d, load<f32x16>(p.sum + d) * inverse);
            }
    }

    // hidden += matrix * input + bias
    void add_product(const Matrix& matrix, const float* bias, const float* input, int thread, Counter*& counter) {
        const int width = matrix.columns, hidden = c_.hidden_size;
        const Activations& in = prepare(batch_->tokens, width, thread, counter, [&](int t, float* out) {
            std::memcpy(out, input + (size_t)t * width, width * sizeof(float));
        });
        over_tiles(batch_->tokens, matrix.tiles(), counter++, [&](int tile, int first, int count) {
            const f32x16 add = bias_of(bias, tile * LANES);
            multiply_tile(matrix, tile, first, in, count, [&](int t, f32x16 v) {
                float* out = hidden_ + (size_t)t * hidden + tile * LANES;
                store(out, load<f32x16>(out) + (v + add));
            });
        });
    }

    // SwiGLU (Shazeer, 2020): silu(gate) * up, tile by tile, so that neither half is ever written out.
    void feed_forward(const Layer& layer, int thread, Counter*& counter) {
        const Activations& in = normalized(thread, counter, layer.mlp_norm);
        const int width = c_.intermediate_size;
        over_tiles(batch_->tokens, layer.gate.tiles(), counter++, [&](int tile, int first, int count) {
            f32x16 gates[TOKEN_BLOCK];
            const f32x16 gate_bias = bias_of(layer.gate_bias, tile * LANES);
            const f32x16 up_bias = bias_of(layer.up_bias, tile * LANES);
            multiply_tile(layer.gate, tile, first, in, count, [&](int t, f32x16 v) { gates[t - first] = v + gate_bias; });
            multiply_tile(layer.up, tile, first, in, count, [&](int t, f32x16 v) {
                const f32x16 gate = gates[t - first];
                store(gated_ + (size_t)t * width + tile * LANES, gate / (exp(-gate) + 1.0f) * (v + up_bias));
            });
        });
    }

    void write_logits(int thread, Counter*& counter) {
        const int wanted = batch_->logits;
        const Activations& in = prepare(wanted, c_.hidden_size, thread, counter, [&](int i, float* out) {
            const float* x = hidden_ + (size_t)batch_->logit_indices[i] * c_.hidden_size;
            normalize(x, c_.final_norm, c_.hidden_size, out);
        });
        over_tiles(wanted, c_.head.tiles(), counter++, [&](int tile, int first, int count) {
            multiply_tile(c_.head, tile, first, in, count, [&](int i, f32x16 v) {
                store_rows(batch_->out + (size_t)i * c_.vocab_size, tile * LANES, c_.vocab_size, v);
            });
        });
    }

    const Config c_;
    const std::vector<Layer> layers_;
    Pool pool_;
    std::vector<ActivationBuffer> own_;
    ActivationBuffer shared_;
    std::vector<Counter> counters_;
    const int widest_;  // of the inputs of products
    Scratch hidden_storage_, query_storage_, key_storage_, value_storage_, attended_storage_, gated_storage_;
    Scratch partial_storage_;
    std::vector<AttentionUnit> units_, merges_;
    std::vector<int> sequence_of_;
    const Batch* batch_ = nullptr;
    float *hidden_ = nullptr, *query_ = nullptr, *key_ = nullptr, *value_ = nullptr, *attended_ = nullptr;
    float* gated_ = nullptr;
    Partial* partials_ = nullptr;
    int partial_count_ = 0;
};

}  // namespace fireside

extern "C" {

int fireside_abi() { return 1; }

fireside::Decoder* fireside_decoder_new(const fireside::Config* config) {
    try {
        return new fireside::Decoder(*config);
    } catch (...) {
        return nullptr;  // no memory or no threads: the caller says so
    }
}

void fireside_decoder_free(fireside::Decoder* decoder) { delete decoder; }

int fireside_decoder_forward(fireside::Decoder* decoder, const fireside::Batch* batch) {
    try {
        decoder->forward(*batch);
        return 0;
    } catch (...) {
        return 1;
    }
}

// out[t][row] = matrix * tokens[t], on one thread: what the tests compare with PyTorch.
int fireside_multiply(const fireside::Matrix* matrix, const float* tokens, int count, float* out) {
    fireside::ActivationBuffer in;
    in.resize(count, matrix->columns);
    std::memcpy(in.values, tokens, (size_t)count * matrix->columns * sizeof(float));
    for (int t = 0; t < count && matrix->columns % fireside::GROUP == 0; ++t) in.quantize(t);
    for (int tile = 0; tile < matrix->tiles(); ++tile)
        fireside::multiply_tile(*matrix, tile, 0, in, count, [&](int t, fireside::f32x16 v) {
            for (int i = 0; i < fireside::LANES && tile * fireside::LANES + i < matrix->rows; ++i)
                out[(size_t)t * matrix->rows + tile * fireside::LANES + i] = v[i];
        });
    return 0;
}

void fireside_unpack_row(const fireside::Matrix* matrix, int row, float* out) {
    fireside::unpack_row(*matrix, row, out);
}
}
