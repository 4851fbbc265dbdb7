// What the decoder is told: the model once, a batch at every step. Mirrored by library.py; fireside_abi() changes
// whenever these do.
#pragma once

#include "kv_cache.h"
#include "matmul.h"

namespace fireside {

struct Layer {
    Matrix query, key, value, output, gate, up, down;
    const float *attention_norm, *mlp_norm, *query_norm, *key_norm;  // the last two null without QK-norm
    const float *query_bias, *key_bias, *value_bias, *output_bias, *gate_bias, *up_bias, *down_bias;  // null: none
};

struct Config {
    int32_t layers, hidden_size, intermediate_size, heads, kv_heads, head_dim, vocab_size, sliding_window;
    int32_t threads;
    float rms_norm_eps;
    const float *cosines, *sines;  // [max_position][head_dim / 2]
    Cache cache;
    Matrix embedding, head;
    const float* final_norm;
    const Layer* layer;
};

struct Batch {
    int32_t tokens, sequences, table_width, logits;
    const int32_t *token_ids, *positions, *query_starts, *context_lengths, *block_tables, *logit_indices;
    float* out;  // [logits][vocab_size]
};

}  // namespace fireside
