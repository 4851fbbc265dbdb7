// A whole step of a Llama-family decoder in one call: for every token of a mixed batch of prefill chunks and decode
// steps, from embedding to logits, with one parallel region.
//
// Few tokens: all threads share the rows of every matrix, and meet at a barrier between phases. Many tokens: each
// thread takes slices of tokens through a whole layer by itself, which keeps their numbers in its own cache, and the
// threads meet once a layer, before anybody attends to keys and values of others. A token's numbers are the same.
//
// Long, because all of it works on the buffers of the one step; what a phase computes has files of its own.

#include <numeric>

#include "attention_plan.h"
#include "threads.h"

namespace fireside {

// From so many tokens for each thread on, tokens are shared out. That reads all weights once a thread, but rows of few
// tokens are done so soon that threads spend as long handing each other what they made, the more so where they share no
// cache (docs/log.md).
constexpr int TOKENS_PER_THREAD = 8;
constexpr int SLICE = 64;  // most tokens of a slice: what they need in a layer fits the second-level cache

struct Slice {
    int first, count;
};

// Those who work on a slice: every thread a part of each phase, or one thread alone.
struct Team {
    Pool* pool;                      // null: alone
    Counter* counter;                // of the next phase
    const ActivationBuffer &shared, &own;

    template <class Body>
    void each(int count, Body body) {
        // In a few runs for each thread: each costs a turn at the counter, and a stretch of memory begins anew.
        if (pool) return counter++->each(count, std::max(1, count / (2 * pool->size)), body);
        for (int i = 0; i < count; ++i) body(i);
    }
    void wait() {
        if (pool) pool->barrier.wait();
    }
};

class Decoder {
   public:
    explicit Decoder(const Config& config) : c_(config), layers_(config.layer, config.layer + config.layers),
          pool_(config.threads), own_(config.threads), counters_(12 * config.layers + 12),
          widest_(std::max({config.hidden_size, config.heads * config.head_dim, config.intermediate_size})) {
        for (auto& buffer : own_) buffer.reserve(SLICE, widest_);
    }

    void forward(const Batch& batch) {
        batch_ = &batch;
        const int n = batch.tokens, q_width = c_.heads * c_.head_dim, kv_width = c_.kv_heads * c_.head_dim;
        // All memory is taken here: a thread that finds none within the step would leave the others at a barrier.
        hidden_ = hidden_storage_.get<float>((size_t)n * c_.hidden_size);
        query_ = query_storage_.get<float>((size_t)n * q_width);
        key_ = key_storage_.get<float>((size_t)n * kv_width);
        value_ = value_storage_.get<float>((size_t)n * kv_width);
        attended_ = attended_storage_.get<float>((size_t)n * q_width);
        gated_ = gated_storage_.get<float>((size_t)n * c_.intermediate_size);
        shared_.reserve(std::max(n, batch.logits), widest_);
        const bool by_tokens = n >= TOKENS_PER_THREAD * pool_.size;
        const int slices = (n + SLICE - 1) / SLICE;
        const int even = (slices + pool_.size - 1) / pool_.size * pool_.size;  // as many for each thread
        slice_ = by_tokens ? (n + even - 1) / even : n;
        rows_.resize(n);
        std::iota(rows_.begin(), rows_.end(), 0);
        all_.make(batch, c_, rows_, slice_, !by_tokens);
        rows_.assign(batch.logit_indices, batch.logit_indices + batch.logits);
        wanted_.make(batch, c_, rows_, std::max(1, batch.logits), true);
        partials_ = partial_storage_.get<Partial>(std::max(all_.partials, wanted_.partials));
        for (auto& counter : counters_) counter.next.store(0, std::memory_order_relaxed);
        pool_.run([](void* self, int thread) { ((Decoder*)self)->run(thread); }, this);
    }

   private:
    void run(int thread) {
        Team everybody{&pool_, counters_.data(), shared_, own_[thread]};
        Team alone{nullptr, nullptr, own_[thread], own_[thread]};
        const int slices = (int)all_.starts.size() - 1, last = c_.layers - 1;
        const bool by_tokens = slices > 1;
        // What all layers but the last, or the first of them, do in one go for the same tokens.
        const auto for_slices = [&](auto body) {
            if (!by_tokens) {
                body(Slice{0, batch_->tokens}, everybody);
            } else {
                everybody.counter++->each(slices, 1, [&](int i) {  // the last has the most to attend to: it begins
                    const int first = (slices - 1 - i) * slice_;
                    body(Slice{first, std::min(slice_, batch_->tokens - first)}, alone);
                });
            }
            everybody.wait();
        };
        for_slices([&](Slice slice, Team& team) {
            team.each(slice.count, [&](int t) { embed(slice.first + t); });
            team.wait();
            begin_layer(0, slice, team);
        });
        for (int index = 0; index < last; ++index)
            for_slices([&](Slice slice, Team& team) {
                end_layer(index, all_, slice, team);
                team.wait();
                begin_layer(index + 1, slice, team);
            });
        // In the last layer, nothing but keys and values is needed of tokens whose logits are not wanted.
        const Slice wanted{0, batch_->logits};
        if (wanted.count == 0) return;
        if (wanted.count < batch_->tokens) {
            if (thread == 0)
                for (int r = 0; r < wanted.count; ++r) move_up(wanted_.token[r], r);
            everybody.wait();
        }
        end_layer(last, wanted_, wanted, everybody);
        everybody.wait();
        write_logits(wanted, everybody);
    }

    void embed(int t) { unpack_row(c_.embedding, batch_->token_ids[t], hidden_ + (size_t)t * c_.hidden_size); }

    void move_up(int from, int to) {  // in ascending order, so that nothing is overwritten that is still needed
        if (from == to) return;
        std::memcpy(hidden_ + (size_t)to * c_.hidden_size, hidden_ + (size_t)from * c_.hidden_size,
                    c_.hidden_size * sizeof(float));
        const size_t width = (size_t)c_.heads * c_.head_dim;
        std::memcpy(query_ + to * width, query_ + from * width, width * sizeof(float));
    }

    // Up to the cached keys and values.
    void begin_layer(int index, Slice slice, Team& team) {
        const Layer& layer = layers_[index];
        project(layer, slice, team);
        team.wait();
        team.each(slice.count, [&](int t) { rotate_and_store(layer, index, slice.first + t); });
    }

    // The rest, once everybody's keys and values are in the cache. The slice is one of `plan`.
    void end_layer(int index, const AttentionPlan& plan, Slice slice, Team& team) {
        const Layer& layer = layers_[index];
        const size_t which = &plan == &all_ ? slice.first / slice_ : 0;
        const AttentionUnit* units = plan.units.data() + plan.starts[which];
        team.each(plan.starts[which + 1] - plan.starts[which], [&](int u) { attend_unit(plan, units[u], index); });
        team.wait();
        if (!plan.merges.empty()) {
            team.each((int)plan.merges.size(), [&](int u) { merge_unit(plan.merges[u]); });
            team.wait();
        }
        add_product(layer.output, layer.output_bias, attended_, slice, team);
        team.wait();
        feed_forward(layer, slice, team);
        team.wait();
        add_product(layer.down, layer.down_bias, gated_, slice, team);
    }

    // The input of a product: fill(buffer, activations, token of the slice) makes one token's. Very few are prepared by
    // every thread for itself, which is cheaper than a barrier.
    template <class Fill>
    Activations prepare(int tokens, int columns, Team& team, Fill fill) {
        if (tokens <= FEW_TOKENS || !team.pool) {
            const Activations in = team.own.of(tokens, columns);
            for (int t = 0; t < tokens; ++t) fill(team.own, in, t);
            return in;
        }
        const Activations in = team.shared.of(tokens, columns);
        team.each(tokens, [&](int t) { fill(team.shared, in, t); });
        team.wait();
        return in;
    }

    Activations normalized(const float* weight, bool quantized, Slice slice, Team& team) {
        const int hidden = c_.hidden_size;
        return prepare(slice.count, hidden, team, [&](const ActivationBuffer& buffer, const Activations& in, int t) {
            float* out = buffer.values + (size_t)t * hidden;
            normalize(hidden_ + (size_t)(slice.first + t) * hidden, weight, hidden, out);
            if (quantized) in.quantize(t, out);
        });
    }

    // Rows that are there already, one a token.
    Activations given(const float* rows, const Matrix& matrix, Slice slice, Team& team) {
        const int width = matrix.columns;
        rows += (size_t)slice.first * width;
        if (matrix.kind != QUANTIZED) {
            Activations in = team.own.of(slice.count, width);
            in.values = rows;
            return in;
        }
        return prepare(slice.count, width, team, [&](const ActivationBuffer&, const Activations& in, int t) {
            in.quantize(t, rows + (size_t)t * width);
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

    // Calls body(strip, first token, tokens) for all strips of rows and blocks of tokens.
    template <class Body>
    static void over_strips(int tokens, int strips, Team& team, Body body) {
        const int blocks = (tokens + TOKEN_BLOCK - 1) / TOKEN_BLOCK;
        team.each(blocks * strips, [&](int unit) {
            const int first = unit / strips * TOKEN_BLOCK;
            body(unit % strips, first, std::min(TOKEN_BLOCK, tokens - first));
        });
    }

    // One strip of a product: take(token, first row, 16 sums with their bias).
    template <class Take>
    static void multiply(const Matrix& matrix, const float* bias, int strip, const Activations& in, int first, int count,
                         Take take) {
        alignas(64) float products[TOKEN_BLOCK * STRIP];
        multiply_strip(matrix, strip, in, first, count, products);
        for (int row = strip * STRIP; row < std::min(matrix.rows, (strip + 1) * STRIP); row += LANES) {
            const f32x16 add = bias ? load<f32x16>(bias + row) : f32x16{};
            const float* sums = products + row % STRIP;
            for (int t = 0; t < count; ++t) take(first + t, row, load<f32x16>(sums + t * STRIP) + add);
        }
    }

    void project(const Layer& layer, Slice slice, Team& team) {
        const struct { const Matrix& matrix; const float* bias; float* out; } targets[3] = {
            {layer.query, layer.query_bias, query_}, {layer.key, layer.key_bias, key_},
            {layer.value, layer.value_bias, value_}};
        int strips = 0;
        bool quantized = false;
        for (const auto& target : targets) {
            strips += target.matrix.strips();
            quantized |= target.matrix.kind == QUANTIZED;
        }
        const Activations in = normalized(layer.attention_norm, quantized, slice, team);
        over_strips(slice.count, strips, team, [&](int strip, int first, int count) {
            const auto* target = targets;
            while (strip >= target->matrix.strips()) strip -= target++->matrix.strips();
            float* out = target->out + (size_t)slice.first * target->matrix.rows;
            multiply(target->matrix, target->bias, strip, in, first, count, [&](int t, int row, f32x16 v) {
                store(out + (size_t)t * target->matrix.rows + row, v);
            });
        });
    }

    // In pairs (i, i + head_dim / 2), as in Hugging Face's models.
    void rotate(float* __restrict head, int position, float scale) const {
        const int half = c_.head_dim / 2;
        const float* __restrict cosines = c_.cosines + (size_t)position * half;
        const float* __restrict sines = c_.sines + (size_t)position * half;
        for (int i = 0; i < half; ++i) {
            const float x = head[i], y = head[i + half];
            head[i] = (x * cosines[i] - y * sines[i]) * scale;
            head[i + half] = (y * cosines[i] + x * sines[i]) * scale;
        }
    }

    void rotate_and_store(const Layer& layer, int index, int t) {
        const int position = batch_->positions[t], d = c_.head_dim, sequence = all_.sequence[t];
        const float scale = 1.0f / std::sqrt((float)d);
        for (int h = 0; h < c_.heads; ++h) {
            float* head = query_ + ((size_t)t * c_.heads + h) * d;
            if (layer.query_norm) normalize(head, layer.query_norm, d, head);
            rotate(head, position, scale);
        }
        const int block = batch_->block_tables[(size_t)sequence * batch_->table_width + position / BLOCK];
        const bool last = t + 1 == batch_->query_starts[sequence + 1];
        for (int h = 0; h < c_.kv_heads; ++h) {
            float* head = key_ + ((size_t)t * c_.kv_heads + h) * d;
            if (layer.key_norm) normalize(head, layer.key_norm, d, head);
            rotate(head, position, 1.0f);
            const float* value = value_ + ((size_t)t * c_.kv_heads + h) * d;
            c_.cache.with_element([&](auto* element) {
                const auto at = view<std::remove_pointer_t<decltype(element)>>(index, block, h);
                write_position(at, head, value, d, position % BLOCK, last);
            });
        }
    }

    template <class Element>
    BlockView<Element> view(int layer, int block, int head) const {
        const size_t at = ((size_t)layer * c_.cache.blocks + block) * c_.kv_heads + head;
        const size_t size = (size_t)BLOCK * c_.head_dim;
        Element *keys = (Element*)c_.cache.keys + at * size, *values = (Element*)c_.cache.values + at * size;
        if constexpr (sizeof(Element) > 1) return {keys, values, nullptr, nullptr};
        return {keys, values, c_.cache.key_scales + at * BLOCK, c_.cache.value_scales + at * BLOCK};
    }

    void attend_unit(const AttentionPlan& plan, const AttentionUnit& unit, int layer) {
        c_.cache.with_element([&](auto* element) {
            attend_unit<std::remove_pointer_t<decltype(element)>>(plan, unit, layer);
        });
    }

    template <class Element>
    void attend_unit(const AttentionPlan& plan, const AttentionUnit& unit, int layer) {
        Query queries[MAX_QUERIES];
        int count = 0;
        for (int r = unit.row; r < unit.row + unit.rows; ++r)
            for (int h = unit.head; h < unit.head + unit.heads; ++h) {
                const int end = batch_->positions[plan.token[r]] + 1;
                const int begin = c_.sliding_window ? std::max(0, end - c_.sliding_window) : 0;
                queries[count++] = {query_ + ((size_t)r * c_.heads + h) * c_.head_dim, begin, end};
            }
        const int32_t* table = batch_->block_tables + (size_t)unit.sequence * batch_->table_width;
        const int kv_head = unit.head / (c_.heads / c_.kv_heads);
        const auto block = [&](int b) { return view<Element>(layer, table[b], kv_head); };
        Partial total[MAX_QUERIES], part[MAX_QUERIES];
        if (unit.partition >= 0) {
            attend<Element>(count, queries, unit.partition, c_.head_dim, block, part);
            std::copy_n(part, count, partials_ + unit.partial);
            return;
        }
        for (int q = 0; q < count; ++q) total[q].reset();
        const int last = queries[count - 1].end;  // of the last token: the furthest
        for (int p = 0; p * PARTITION < last; ++p) {
            attend<Element>(count, queries, p, c_.head_dim, block, part);
            for (int q = 0; q < count; ++q) total[q].add(part[q], c_.head_dim);
        }
        finish(unit, total);
    }

    void merge_unit(const AttentionUnit& unit) {
        const int count = unit.rows * unit.heads;
        Partial total[MAX_QUERIES];
        for (int q = 0; q < count; ++q) {
            total[q].reset();
            for (int p = 0; p < unit.partitions; ++p)
                total[q].add(partials_[unit.partial + p * count + q], c_.head_dim);
        }
        finish(unit, total);
    }

    void finish(const AttentionUnit& unit, const Partial* total) {
        for (int r = 0; r < unit.rows; ++r)
            for (int h = 0; h < unit.heads; ++h) {
                float* out = attended_ + ((size_t)(unit.row + r) * c_.heads + unit.head + h) * c_.head_dim;
                total[r * unit.heads + h].write(out, c_.head_dim);
            }
    }

    // hidden += matrix * input + bias
    void add_product(const Matrix& matrix, const float* bias, const float* input, Slice slice, Team& team) {
        const Activations in = given(input, matrix, slice, team);
        float* hidden = hidden_ + (size_t)slice.first * c_.hidden_size;
        over_strips(slice.count, matrix.strips(), team, [&](int strip, int first, int count) {
            multiply(matrix, bias, strip, in, first, count, [&](int t, int row, f32x16 v) {
                float* out = hidden + (size_t)t * c_.hidden_size + row;
                store(out, load<f32x16>(out) + v);
            });
        });
    }

    // SwiGLU (Shazeer, 2020): silu(gate) * up, strip by strip, so that neither half is ever written out.
    void feed_forward(const Layer& layer, Slice slice, Team& team) {
        const bool quantized = layer.gate.kind == QUANTIZED || layer.up.kind == QUANTIZED;
        const Activations in = normalized(layer.mlp_norm, quantized, slice, team);
        float* gated = gated_ + (size_t)slice.first * c_.intermediate_size;
        over_strips(slice.count, layer.gate.strips(), team, [&](int strip, int first, int count) {
            f32x16 gates[2][TOKEN_BLOCK];
            multiply(layer.gate, layer.gate_bias, strip, in, first, count, [&](int t, int row, f32x16 v) {
                gates[row % STRIP / LANES][t - first] = v / (exp(-v) + 1.0f);
            });
            multiply(layer.up, layer.up_bias, strip, in, first, count, [&](int t, int row, f32x16 v) {
                store(gated + (size_t)t * c_.intermediate_size + row, gates[row % STRIP / LANES][t - first] * v);
            });
        });
    }

    void write_logits(Slice wanted, Team& team) {
        const Activations in = normalized(c_.final_norm, c_.head.kind == QUANTIZED, wanted, team);
        over_strips(wanted.count, c_.head.strips(), team, [&](int strip, int first, int count) {
            multiply(c_.head, nullptr, strip, in, first, count, [&](int r, int row, f32x16 v) {
                store_logits(r, row, v);
            });
        });
    }

    void store_logits(int wanted, int first, f32x16 v) const {
        float* out = batch_->out + (size_t)wanted * c_.vocab_size;
        if (first + LANES <= c_.vocab_size) return store(out + first, v);
        for (int i = 0; first + i < c_.vocab_size; ++i) out[first + i] = v[i];
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
    AttentionPlan all_, wanted_;
    std::vector<int> rows_;
    int slice_ = 0;
    const Batch* batch_ = nullptr;
    float *hidden_ = nullptr, *query_ = nullptr, *key_ = nullptr, *value_ = nullptr, *attended_ = nullptr;
    float* gated_ = nullptr;
    Partial* partials_ = nullptr;
};

}  // namespace fireside

extern "C" {

int fireside_abi() { return 2; }

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
void fireside_multiply(const fireside::Matrix* matrix, const float* tokens, int count, float* out) {
    using namespace fireside;
    ActivationBuffer buffer;
    buffer.reserve(count, matrix->columns);
    Activations in = buffer.of(count, matrix->columns);
    in.values = tokens;
    for (int t = 0; t < count && matrix->kind == QUANTIZED; ++t) in.quantize(t, tokens + (size_t)t * matrix->columns);
    float products[TOKEN_BLOCK * STRIP];
    for (int first = 0; first < count; first += TOKEN_BLOCK)
        for (int strip = 0; strip < matrix->strips(); ++strip) {
            const int some = std::min(TOKEN_BLOCK, count - first);
            multiply_strip(*matrix, strip, in, first, some, products);
            for (int t = 0; t < some; ++t)
                for (int row = strip * STRIP; row < std::min(matrix->rows, (strip + 1) * STRIP); ++row)
                    out[(size_t)(first + t) * matrix->rows + row] = products[t * STRIP + row % STRIP];
        }
}

void fireside_unpack_row(const fireside::Matrix* matrix, int row, float* out) {
    fireside::unpack_row(*matrix, row, out);
}
}
