/* Multi-index hashing: codes are looked up by their parts, in growing distance. */
#include "tables.h"

static inline uint32_t key_of(const Table *table, const uint64_t *code) {
    return (uint32_t)((code[table->word] >> table->shift) & ((1ull << table->n_bits) - 1));
}

static double n_masks(int n_bits, int n_set) {
    double n = 1;
    for (int i = 0; i < n_set; i++) n = n * (n_bits - i) / (i + 1);
    return n;
}

/* Whether a look-up of an earlier table or a smaller radius has found this code before. */
POPCNT static inline int seen_before(const Tables *tables, int t, int radius, const uint64_t *code, const uint64_t *query) {
    for (int other = 0; other < tables->n_tables; other++) {
        if (other == t) continue;
        const Table *table = &tables->tables[other];
        int apart = __builtin_popcount(key_of(table, code) ^ key_of(table, query));
        if (apart <= (other < t ? radius : radius - 1)) return 1;
    }
    return 0;
}

#define AT_ONCE 64

/* Looks up all keys at exactly this distance in table t; returns the cost, or -1 when it went beyond the budget. */
POPCNT static double look_up(
    Finder *finder, const Groups *groups, const Tables *tables, int t, int radius, double budget
) {
    const Table *table = &tables->tables[t];
    const uint32_t key = key_of(table, finder->query);
    const uint64_t end = 1ull << table->n_bits;
    const int n_words = groups->n_words;
    double cost = 0;
    uint64_t mask = radius ? (1ull << radius) - 1 : 0;
    int more = radius <= table->n_bits;
    while (more) {
        uint32_t keys[AT_ONCE];
        int n_keys = 0;
        while (more && n_keys < AT_ONCE) {
            keys[n_keys++] = key ^ (uint32_t)mask;
            __builtin_prefetch(table->starts + keys[n_keys - 1]);
            if (!mask) {
                more = 0;
            } else {
                /* The next number with as many bits set. */
                uint64_t lowest = mask & -mask, ripple = mask + lowest;
                mask = (((ripple ^ mask) >> 2) / lowest) | ripple;
                more = mask < end;
            }
        }
        for (int i = 0; i < n_keys; i++) {
            uint32_t start = table->starts[keys[i]];
            if (table->positions) __builtin_prefetch(table->positions + start);
            else __builtin_prefetch(groups->codes + (uint64_t)start * n_words);
        }
        for (int i = 0; i < n_keys; i++) {
            uint64_t start = table->starts[keys[i]], stop = table->starts[keys[i] + 1];
            if (stop > (uint64_t)table->n_positions) stop = table->n_positions;
            if (start >= stop) start = stop;
            cost += tables->look_up_cost + tables->candidate_cost * (stop - start);
            if (table->positions)
                for (uint64_t at = start; at < stop && at < start + AT_ONCE; at++)
                    __builtin_prefetch(groups->codes + (uint64_t)table->positions[at] * n_words);
            for (uint64_t at = start; at < stop; at++) {
                uint64_t g = table->positions ? table->positions[at] : at;
                if (g >= (uint64_t)groups->n) continue;
                if (table->positions && at + AT_ONCE < stop)
                    __builtin_prefetch(groups->codes + (uint64_t)table->positions[at + AT_ONCE] * n_words);
                const uint64_t *code = groups->codes + g * n_words;
                int distance = distance_of(code, finder->query, n_words);
                if (distance <= finder->bound && !seen_before(tables, t, radius, code, finder->query))
                    finder_add(finder, groups, g, distance);
            }
        }
        if (cost > budget) return -1;
    }
    return cost;
}

int find_by_tables(Finder *finder, const Groups *groups, const Tables *tables) {
    double budget = (double)groups->n, spent = 0;
    for (int radius = 0;; radius++) {
        for (int t = 0; t < tables->n_tables; t++) {
            /* What has not been seen differs in more than `radius` bits from tables before t, in as many from others. */
            int unseen = tables->n_tables * radius + t;
            if (unseen > finder->bound) return 1;
            /* All that is still to be looked up for certainty, if the bound stays. */
            double ahead = spent;
            for (int r = radius, other = t; tables->n_tables * r + other <= finder->bound && ahead <= budget;) {
                ahead += n_masks(tables->tables[other].n_bits, r) * tables->look_up_cost;
                if (++other == tables->n_tables) other = 0, r++;
            }
            /* The first look-ups are cheap, and tell how near the answer is. */
            if (ahead > budget && radius > 0) return 0;
            double cost = look_up(finder, groups, tables, t, radius, budget - spent);
            if (cost < 0) return 0;
            spent += cost;
        }
    }
}

void build_table(const Groups *groups, const Table *table, uint32_t *starts, uint32_t *positions) {
    const int64_t n_keys = 1ll << table->n_bits;
    const uint64_t *code = groups->codes;
    memset(starts, 0, (n_keys + 1) * sizeof(uint32_t));
    for (int64_t g = 0; g < groups->n; g++, code += groups->n_words) starts[key_of(table, code) + 1]++;
    for (int64_t key = 0; key < n_keys; key++) starts[key + 1] += starts[key];
    if (!positions) return;
    /* Each start runs to its stop, which is the next one's start: shift them back afterwards. */
    code = groups->codes;
    for (int64_t g = 0; g < groups->n; g++, code += groups->n_words)
        positions[starts[key_of(table, code)]++] = (uint32_t)g;
    memmove(starts + 1, starts, n_keys * sizeof(uint32_t));
    starts[0] = 0;
}
