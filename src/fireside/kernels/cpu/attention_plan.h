// Which queries attend together, and which threads' work that is.
#pragma once

#include <vector>

#include "attention.h"
#include "model.h"

namespace fireside {

// Up to so many new tokens of a sequence, its past is cut for several threads to share.
constexpr int FEW_TOKENS = 4;

struct AttentionUnit {
    int sequence, row, rows, head, heads;  // query rows and query heads; all share one key/value head
    int partition;                         // -1: all of them, in order
    int partitions;                        // of the sequence
    int partial;                           // where its partial results go when the partitions are shared out
};

// Rows are tokens of a batch: all of them, or in the last layer those whose logits are wanted.
struct AttentionPlan {
    std::vector<int> token, sequence;            // of each row
    std::vector<AttentionUnit> units, merges;    // merges: for each unit cut along its past, how it comes together
    std::vector<int> starts;                     // the first unit of each slice, and the end
    size_t partials = 0;

    // Cuts the rows into slices of `slice` rows, and their attention into units of similar size. `cut`: also along the
    // past, so that one stream uses every core.
    void make(const Batch& batch, const Config& config, const std::vector<int>& rows, int slice, bool cut) {
        token = rows;
        sequence.resize(rows.size());
        units.clear(), merges.clear(), starts.clear();
        partials = 0;
        const int count = (int)rows.size();
        for (int r = 0, s = 0; r < count; ++r) {
            while (rows[r] >= batch.query_starts[s + 1]) ++s;
            sequence[r] = s;
        }
        for (int first = 0; first < count; first += slice) {
            starts.push_back((int)units.size());
            const int end = std::min(first + slice, count);
            for (int r = first, next; r < end; r = next) {
                next = r;
                while (next < end && sequence[next] == sequence[r]) ++next;
                add(batch, config, sequence[r], r, next, cut && next - r <= FEW_TOKENS);
            }
        }
        starts.push_back((int)units.size());
    }

   private:
    void add(const Batch& batch, const Config& config, int s, int begin, int end, bool cut) {
        const int group = config.heads / config.kv_heads, heads = std::min(group, MAX_QUERIES);
        const int per_unit = std::max(1, MAX_QUERIES / group);
        const int partitions = (batch.context_lengths[s] + PARTITION - 1) / PARTITION;
        for (int kv = 0; kv < config.kv_heads; ++kv)
            for (int h = 0; h < group; h += heads)
                for (int r = begin; r < end; r += per_unit) {
                    AttentionUnit unit{s, r, std::min(per_unit, end - r), kv * group + h, std::min(heads, group - h),
                                       -1, partitions, (int)partials};
                    if (!cut || partitions == 1) {
                        units.push_back(unit);
                        continue;
                    }
                    merges.push_back(unit);
                    for (unit.partition = 0; unit.partition < partitions; ++unit.partition) {
                        unit.partial = (int)partials;
                        units.push_back(unit);
                        partials += unit.rows * unit.heads;
                    }
                }
    }
};

}  // namespace fireside
