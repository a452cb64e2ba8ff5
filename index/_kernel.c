/* Search of binary codes: scans, multi-index hashing, lists. The Python side of it: kernel.py.

A code is n_words uint64 words. `Groups` are distinct codes; group g has the ids ids[offsets[g]] ... ids[offsets[g + 1] - 1],
ascending; without offsets it has one id, ids[g], and without ids that is g itself. All answers are ordered by (distance, id)
and hold what brute force would find. Functions work on plain buffers, release the GIL and may run in many threads. Arrays may
lie in files: whatever they hold, nothing is read or written out of bounds.
*/
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if !defined(__GNUC__)
#error "needs GCC or Clang; without this module search goes through faiss"
#endif
#if defined(__x86_64__)
#include <immintrin.h>
#define POPCNT __attribute__((target("popcnt")))
#define AVX512 __attribute__((target("avx512f,avx512vl,avx512bw,avx512dq,avx512vpopcntdq,popcnt")))
#else
#define POPCNT
#endif

#define MAX_WORDS 16
#define MAX_LEVELS (64 * MAX_WORDS + 1)
#define MAX_TABLES 64
/* Codes that all queries of a batch see before the next ones are read: they stay in the first cache. */
#define BLOCK_BYTES 16384
#define FAR 0x7fffffff

typedef struct {
    const uint64_t *codes;
    int64_t n;
    int n_words;
    const int64_t *offsets;
    /* int64, or uint32 where they are narrow. */
    const void *ids;
    int64_t n_ids;
    int narrow;
} Groups;

static inline int64_t group_size(const Groups *groups, int64_t g) {
    if (!groups->offsets) return 1;
    uint64_t start = (uint64_t)groups->offsets[g], stop = (uint64_t)groups->offsets[g + 1];
    return start <= stop && stop <= (uint64_t)groups->n_ids ? (int64_t)(stop - start) : 0;
}

/* Writes the first n ids of a group, or as many as there are; returns how many. */
static inline int64_t group_ids(const Groups *groups, int64_t g, int64_t n, int64_t *out) {
    int64_t size = group_size(groups, g), start = groups->offsets ? groups->offsets[g] : g;
    /* In a file that somebody writes to, the start may be another one by now. */
    if (size > n) size = n;
    if (start < 0 || start > groups->n_ids - size) return 0;
    for (int64_t i = 0; i < size; i++)
        out[i] = !groups->ids   ? start + i
                 : groups->narrow ? ((const uint32_t *)groups->ids)[start + i]
                                  : ((const int64_t *)groups->ids)[start + i];
    return size;
}

static inline int distance_of(const uint64_t *a, const uint64_t *b, int n_words) {
    int sum = 0;
    for (int w = 0; w < n_words; w++) sum += __builtin_popcountll(a[w] ^ b[w]);
    return sum;
}

/* -- what one query has found -- */

typedef struct {
    int64_t group;
    int distance;
} Hit;

typedef struct {
    const uint64_t *query;
    int64_t k;
    /* What is further than `limit` cannot change the answer: `bound`, the k-th distance as far as is known; or, where ids
    come in ascending order, one less, once k are within it. `nearer` ids are known that are nearer than the bound. */
    int limit, bound;
    int ascending;
    int64_t nearer;
    /* Ids found, by distance: a part of what all queries of the task have. */
    int64_t *counts;
    Hit *hits;
    int64_t n_hits, capacity;
    int failed;
} Finder;

static int finder_start(Finder *finder, const uint64_t *query, int64_t k, int radius, int ascending, int n_levels) {
    finder->query = query;
    finder->k = k;
    finder->limit = finder->bound = radius;
    finder->ascending = ascending;
    finder->nearer = 0;
    memset(finder->counts, 0, n_levels * sizeof(int64_t));
    finder->n_hits = 0;
    finder->failed = 0;
    if (!finder->hits) {
        finder->capacity = 64;
        finder->hits = malloc(finder->capacity * sizeof(Hit));
    }
    return finder->hits ? 0 : -1;
}

static void finder_make_room(Finder *finder) {
    int64_t kept = 0;
    for (int64_t i = 0; i < finder->n_hits; i++)
        if (finder->hits[i].distance <= finder->bound) finder->hits[kept++] = finder->hits[i];
    finder->n_hits = kept;
    if (2 * kept < finder->capacity) return;
    Hit *hits = realloc(finder->hits, 2 * finder->capacity * sizeof(Hit));
    if (!hits) {
        finder->failed = 1;
        finder->n_hits = 0;
        return;
    }
    finder->hits = hits;
    finder->capacity *= 2;
}

static inline void finder_add(Finder *finder, const Groups *groups, int64_t g, int distance) {
    int64_t size = group_size(groups, g);
    if (distance > finder->limit || size == 0) return;
    if (finder->n_hits == finder->capacity) finder_make_room(finder);
    finder->hits[finder->n_hits++] = (Hit){g, distance};
    finder->counts[distance] += size;
    if (distance < finder->bound) {
        finder->nearer += size;
        while (finder->nearer >= finder->k) finder->nearer -= finder->counts[--finder->bound];
    }
    int full = finder->ascending && finder->nearer + finder->counts[finder->bound] >= finder->k;
    finder->limit = finder->bound - full;
}

/* Partial sort: afterwards the `n` smallest of the array are its first ones, in no order. */
static void select_smallest(int64_t *array, int64_t length, int64_t n) {
    int64_t low = 0, high = length - 1;
    while (low < high) {
        int64_t pivot = array[low + (high - low) / 2], i = low, j = high;
        while (i <= j) {
            while (array[i] < pivot) i++;
            while (array[j] > pivot) j--;
            if (i <= j) {
                int64_t swap = array[i];
                array[i++] = array[j];
                array[j--] = swap;
            }
        }
        if (n - 1 <= j) high = j;
        else if (n - 1 >= i) low = i;
        else return;
    }
}

static int by_value(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static void sort_ids(int64_t *ids, int64_t n) {
    if (n > 32) {
        qsort(ids, n, sizeof(int64_t), by_value);
        return;
    }
    for (int64_t i = 1; i < n; i++) {
        int64_t id = ids[i], j = i;
        for (; j > 0 && ids[j - 1] > id; j--) ids[j] = ids[j - 1];
        ids[j] = id;
    }
}

/* Returns the number of ids that the answer has. */
static int64_t finder_length(const Finder *finder) {
    int64_t total = finder->nearer + finder->counts[finder->bound];
    return total < finder->k ? total : finder->k;
}

/* Writes the answer, by (distance, id); returns its length, or -1 without memory. */
static int64_t finder_write(Finder *finder, const Groups *groups, int32_t *distances, int64_t *ids) {
    int64_t starts[MAX_LEVELS + 1], next[MAX_LEVELS], written = 0;
    int bound = finder->bound;
    if (finder->failed) return -1;
    /* The hits by distance: a counting sort of their numbers. */
    memset(starts, 0, (bound + 2) * sizeof(int64_t));
    for (int64_t i = 0; i < finder->n_hits; i++)
        if (finder->hits[i].distance <= bound) starts[finder->hits[i].distance + 1]++;
    for (int level = 0; level <= bound; level++) starts[level + 1] += starts[level];
    memcpy(next, starts, (bound + 1) * sizeof(int64_t));
    int64_t n_kept = starts[bound + 1];
    int64_t *order = malloc((n_kept + 1) * sizeof(int64_t));
    if (!order) return -1;
    for (int64_t i = 0; i < finder->n_hits; i++)
        if (finder->hits[i].distance <= bound) order[next[finder->hits[i].distance]++] = finder->hits[i].group;
    for (int level = 0; level <= bound && written < finder->k; level++) {
        int64_t wanted = finder->k - written, n_ids = 0;
        if (finder->counts[level] <= wanted) {
            for (int64_t h = starts[level]; h < starts[level + 1]; h++)
                n_ids += group_ids(groups, order[h], wanted - n_ids, ids + written + n_ids);
            sort_ids(ids + written, n_ids);
        } else {
            /* More than are wanted: of each group, no more than its first ids can belong to the answer. */
            int64_t room = 0;
            for (int64_t h = starts[level]; h < starts[level + 1]; h++) {
                int64_t size = group_size(groups, order[h]);
                room += size < wanted ? size : wanted;
            }
            int64_t *all = malloc((room + 1) * sizeof(int64_t));
            if (!all) {
                free(order);
                return -1;
            }
            for (int64_t h = starts[level]; h < starts[level + 1]; h++) {
                int64_t most = room - n_ids < wanted ? room - n_ids : wanted;
                n_ids += group_ids(groups, order[h], most, all + n_ids);
            }
            if (n_ids < wanted) wanted = n_ids;
            select_smallest(all, n_ids, wanted);
            n_ids = wanted;
            sort_ids(all, n_ids);
            memcpy(ids + written, all, n_ids * sizeof(int64_t));
            free(all);
        }
        for (int64_t i = 0; i < n_ids; i++) distances[written + i] = level;
        written += n_ids;
    }
    free(order);
    return written;
}

/* -- the scan -- */

typedef void (*Scan)(Finder *finder, const Groups *groups, int64_t first, int64_t last);

POPCNT static void scan_words(Finder *finder, const Groups *groups, int64_t first, int64_t last) {
    const int n_words = groups->n_words;
    const uint64_t *code = groups->codes + first * n_words;
    for (int64_t g = first; g < last; g++, code += n_words) {
        int distance = distance_of(code, finder->query, n_words);
        if (__builtin_expect(distance <= finder->limit, 0)) finder_add(finder, groups, g, distance);
    }
}

POPCNT static void scan_1_word(Finder *finder, const Groups *groups, int64_t first, int64_t last) {
    const uint64_t query = finder->query[0];
    for (int64_t g = first; g < last; g++) {
        int distance = __builtin_popcountll(groups->codes[g] ^ query);
        if (__builtin_expect(distance <= finder->limit, 0)) finder_add(finder, groups, g, distance);
    }
}

#if defined(__x86_64__)
/* Adds the lanes of a vector of distances that are within the limit, in the order of groups: first + i is lanes[i]. */
AVX512 static void add_lanes(
    Finder *finder, const Groups *groups, int64_t first, __m512i distances, const int *lanes
) {
    int64_t values[8];
    _mm512_storeu_si512(values, distances);
    for (int i = 0; i < 8; i++)
        if (values[lanes[i]] <= finder->limit) finder_add(finder, groups, first + i, (int)values[lanes[i]]);
}

static const int IN_ORDER[8] = {0, 1, 2, 3, 4, 5, 6, 7};
static const int OF_2_WORDS[8] = {0, 2, 4, 6, 1, 3, 5, 7};
static const int OF_4_WORDS[8] = {0, 2, 1, 3, 4, 6, 5, 7};

AVX512 static inline __m512i counts_at(const uint64_t *codes, __m512i query) {
    return _mm512_popcnt_epi64(_mm512_xor_si512(_mm512_loadu_si512(codes), query));
}

AVX512 static inline __m512i sums_of_pairs(__m512i a, __m512i b) {
    return _mm512_add_epi64(_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b));
}

AVX512 static void scan_1_word_avx512(Finder *finder, const Groups *groups, int64_t first, int64_t last) {
    const uint64_t *codes = groups->codes;
    const __m512i query = _mm512_set1_epi64((long long)finder->query[0]);
    __m512i limit = _mm512_set1_epi64(finder->limit);
    int64_t g = first;
    for (; g + 32 <= last; g += 32) {
        __m512i a = counts_at(codes + g, query), b = counts_at(codes + g + 8, query);
        __m512i c = counts_at(codes + g + 16, query), d = counts_at(codes + g + 24, query);
        __m512i least = _mm512_min_epu64(_mm512_min_epu64(a, b), _mm512_min_epu64(c, d));
        if (__builtin_expect(_mm512_cmple_epi64_mask(least, limit) != 0, 0)) {
            add_lanes(finder, groups, g, a, IN_ORDER);
            add_lanes(finder, groups, g + 8, b, IN_ORDER);
            add_lanes(finder, groups, g + 16, c, IN_ORDER);
            add_lanes(finder, groups, g + 24, d, IN_ORDER);
            limit = _mm512_set1_epi64(finder->limit);
        }
    }
    scan_1_word(finder, groups, g, last);
}

AVX512 static void scan_2_words_avx512(Finder *finder, const Groups *groups, int64_t first, int64_t last) {
    const uint64_t *q = finder->query;
    const __m512i query = _mm512_set4_epi64((long long)q[1], (long long)q[0], (long long)q[1], (long long)q[0]);
    __m512i limit = _mm512_set1_epi64(finder->limit);
    int64_t g = first;
    for (; g + 16 <= last; g += 16) {
        const uint64_t *codes = groups->codes + 2 * g;
        __m512i a = sums_of_pairs(counts_at(codes, query), counts_at(codes + 8, query));
        __m512i b = sums_of_pairs(counts_at(codes + 16, query), counts_at(codes + 24, query));
        if (__builtin_expect(_mm512_cmple_epi64_mask(_mm512_min_epu64(a, b), limit) != 0, 0)) {
            add_lanes(finder, groups, g, a, OF_2_WORDS);
            add_lanes(finder, groups, g + 8, b, OF_2_WORDS);
            limit = _mm512_set1_epi64(finder->limit);
        }
    }
    scan_words(finder, groups, g, last);
}

AVX512 static void scan_4_words_avx512(Finder *finder, const Groups *groups, int64_t first, int64_t last) {
    const uint64_t *q = finder->query;
    const __m512i query = _mm512_set4_epi64((long long)q[3], (long long)q[2], (long long)q[1], (long long)q[0]);
    __m512i limit = _mm512_set1_epi64(finder->limit);
    int64_t g = first;
    for (; g + 8 <= last; g += 8) {
        const uint64_t *codes = groups->codes + 4 * g;
        __m512i a = sums_of_pairs(counts_at(codes, query), counts_at(codes + 8, query));
        __m512i b = sums_of_pairs(counts_at(codes + 16, query), counts_at(codes + 24, query));
        __m512i sums = _mm512_add_epi64(_mm512_shuffle_i64x2(a, b, 0x88), _mm512_shuffle_i64x2(a, b, 0xdd));
        if (__builtin_expect(_mm512_cmple_epi64_mask(sums, limit) != 0, 0)) {
            add_lanes(finder, groups, g, sums, OF_4_WORDS);
            limit = _mm512_set1_epi64(finder->limit);
        }
    }
    scan_words(finder, groups, g, last);
}

AVX512 static void scan_words_avx512(Finder *finder, const Groups *groups, int64_t first, int64_t last) {
    const int n_words = groups->n_words;
    const int n_whole = n_words / 8, n_rest = n_words % 8;
    const __mmask8 rest = (__mmask8)((1u << n_rest) - 1);
    const uint64_t *q = finder->query, *code = groups->codes + first * n_words;
    for (int64_t g = first; g < last; g++, code += n_words) {
        __m512i sum = _mm512_setzero_si512();
        for (int v = 0; v < n_whole; v++)
            sum = _mm512_add_epi64(sum, counts_at(code + 8 * v, _mm512_loadu_si512(q + 8 * v)));
        if (n_rest) {
            __m512i left = _mm512_maskz_loadu_epi64(rest, code + 8 * n_whole);
            __m512i right = _mm512_maskz_loadu_epi64(rest, q + 8 * n_whole);
            sum = _mm512_add_epi64(sum, _mm512_popcnt_epi64(_mm512_xor_si512(left, right)));
        }
        int distance = (int)_mm512_reduce_add_epi64(sum);
        if (__builtin_expect(distance <= finder->limit, 0)) finder_add(finder, groups, g, distance);
    }
}
#endif

#if defined(__x86_64__)
static int has_avx512(void) {
    return __builtin_cpu_supports("avx512vpopcntdq") && __builtin_cpu_supports("avx512bw")
        && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
#endif

static Scan scan_for(int n_words) {
#if defined(__x86_64__)
    if (has_avx512()) {
        if (n_words == 1) return scan_1_word_avx512;
        if (n_words == 2) return scan_2_words_avx512;
        if (n_words == 4) return scan_4_words_avx512;
        if (n_words > 4) return scan_words_avx512;
    }
#endif
    return n_words == 1 ? scan_1_word : scan_words;
}

/* -- multi-index hashing: Norouzi, Punjani & Fleet, "Fast exact search in Hamming space with multi-index hashing", 2014 -- */

/* Table t is over bits [shift, shift + n_bits) of one word: the groups with key x are positions[starts[x]] ...
positions[starts[x + 1] - 1]; without positions, the groups themselves are in that order. */
typedef struct {
    int word, shift, n_bits;
    const uint32_t *starts;
    const uint32_t *positions;
    int64_t n_positions;
} Table;

typedef struct {
    int n_tables;
    Table tables[MAX_TABLES];
    /* What a look-up and a candidate cost, in codes scanned. */
    double look_up_cost, candidate_cost;
} Tables;

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

/* Finds the answer by look-ups; returns 0 when a scan has to, because it is cheaper. */
static int find_by_tables(Finder *finder, const Groups *groups, const Tables *tables) {
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

/* -- lists: an inverted file over the cells of centroids -- */

/* List l is the groups starts[l] ... starts[l + 1] - 1, all within radii[l] of centroids[l]. */
typedef struct {
    int64_t n, n_probes;
    const uint64_t *centroids;
    const int64_t *starts;
    const int32_t *radii;
    int64_t reach;
} Lists;

typedef void (*Measure)(const uint64_t *codes, int64_t n, int n_words, const uint64_t *query, int32_t *out);

#define MEASURE(attributes, name)                                                                                      \
    attributes static void name(const uint64_t *codes, int64_t n, int n_words, const uint64_t *query, int32_t *out) {  \
        if (n_words == 1)                                                                                              \
            for (int64_t i = 0; i < n; i++) out[i] = (int32_t)__builtin_popcountll(codes[i] ^ query[0]);               \
        else if (n_words == 2)                                                                                         \
            for (int64_t i = 0; i < n; i++) out[i] = (int32_t)distance_of(codes + 2 * i, query, 2);                    \
        else if (n_words == 4)                                                                                         \
            for (int64_t i = 0; i < n; i++) out[i] = (int32_t)distance_of(codes + 4 * i, query, 4);                    \
        else                                                                                                           \
            for (int64_t i = 0; i < n; i++) out[i] = (int32_t)distance_of(codes + n_words * i, query, n_words);        \
    }

/* Sets the place of the smallest distance, the first of them, and the smallest of all others. */
#define TWO_NEAREST(attributes, name)                                                                                  \
    attributes static void name(const int32_t *distances, int64_t n, int64_t *first, int32_t *second) {                \
        int32_t least = FAR, other = FAR;                                                                              \
        for (int64_t i = 0; i < n; i++) least = distances[i] < least ? distances[i] : least;                           \
        for (*first = 0; *first < n && distances[*first] != least;) ++*first;                                          \
        const int64_t at = *first;                                                                                     \
        for (int64_t i = 0; i < at; i++) other = distances[i] < other ? distances[i] : other;                          \
        for (int64_t i = at + 1; i < n; i++) other = distances[i] < other ? distances[i] : other;                      \
        *second = other;                                                                                               \
    }

MEASURE(POPCNT, measure)
TWO_NEAREST(POPCNT, two_nearest)
#if defined(__x86_64__)
MEASURE(AVX512, measure_avx512)
TWO_NEAREST(AVX512, two_nearest_avx512)
#endif

typedef void (*TwoNearest)(const int32_t *distances, int64_t n, int64_t *first, int32_t *second);

static TwoNearest two_nearest_for(void) {
#if defined(__x86_64__)
    if (has_avx512()) return two_nearest_avx512;
#endif
    return two_nearest;
}

static Measure measure_for(void) {
#if defined(__x86_64__)
    if (has_avx512()) return measure_avx512;
#endif
    return measure;
}

/* Whatever the array holds, no list reaches beyond the groups. */
static inline int64_t list_start(const Lists *lists, const Groups *groups, int64_t l) {
    int64_t start = lists->starts[l];
    return start < 0 ? 0 : start > groups->n ? groups->n : start;
}

/* Whether a list whose centroid is so far is beyond those that are scanned. */
static int is_beyond(const Finder *finder, const Lists *lists, int64_t n_probed, int distance, int nearest) {
    if (n_probed >= lists->n_probes && (finder->k == INT64_MAX || finder_length(finder) == finder->k)) return 1;
    return 100 * (int64_t)(distance - nearest) > lists->reach * finder->limit;
}

/* Scans lists, the nearest centroid first, until one is further than that by more than `reach` hundredths of the limit: of
the k-th distance so far. A list is passed over when no code of it can be near enough. With a reach of 100 times as many
hundredths as there are bits, the answer is exact. Needs 2 * lists->n of scratch. */
static void find_by_lists(
    Finder *finder, const Groups *groups, const Lists *lists, Scan scan, Measure measure_all, int32_t *scratch
) {
    int32_t *distances = scratch, *order = scratch + lists->n, second;
    int64_t starts[MAX_LEVELS + 1], n_probed = 0, first;
    const int n_levels = 64 * groups->n_words + 1;
    if (lists->n_probes < 1) return;
    measure_all(lists->centroids, lists->n, groups->n_words, finder->query, distances);
    two_nearest_for()(distances, lists->n, &first, &second);
    const int nearest = distances[first];
    if (nearest - lists->radii[first] <= finder->limit) {
        scan(finder, groups, list_start(lists, groups, first), list_start(lists, groups, first + 1));
        n_probed++;
    }
    /* Most often that is all, and the others need not be brought into an order. */
    if (lists->n == 1 || is_beyond(finder, lists, n_probed, second, nearest)) return;
    memset(starts, 0, (n_levels + 1) * sizeof(int64_t));
    for (int64_t l = 0; l < lists->n; l++) starts[distances[l] + 1]++;
    for (int level = 0; level < n_levels; level++) starts[level + 1] += starts[level];
    for (int64_t l = 0; l < lists->n; l++) order[starts[distances[l]]++] = (int32_t)l;
    for (int64_t i = 1; i < lists->n; i++) {
        const int32_t l = order[i];
        if (is_beyond(finder, lists, n_probed, distances[l], nearest)) break;
        if (distances[l] - lists->radii[l] > finder->limit) continue;
        if (i + 1 < lists->n) {
            const uint64_t *next = groups->codes + list_start(lists, groups, order[i + 1]) * groups->n_words;
            __builtin_prefetch(next);
            __builtin_prefetch(next + 8);
        }
        scan(finder, groups, list_start(lists, groups, l), list_start(lists, groups, (int64_t)l + 1));
        n_probed++;
    }
}

/* -- a graph: Malkov & Yashunin, "Efficient and robust approximate nearest neighbor search using HNSW graphs", 2018 -- */

/* Group g has its links from offsets[g] on: 2 * m of level 0, then m of each level that it is in; below 0: none. */
typedef struct {
    int64_t n_links;
    const int32_t *links;
    const int64_t *offsets;
    int64_t entry, ef;
    int m, top;
    /* One group for each query that the walk does not enter, or -1; or NULL. */
    const int64_t *skipped;
} Graph;

/* What a walk needs: a set of the groups seen (g + 1, hashed), and those to go on from, in a stack for each distance. */
typedef struct {
    int32_t *seen;
    int64_t n_seen, capacity;
    struct { int32_t group, next; } *open;
    int64_t n_open, open_capacity;
    int32_t stacks[MAX_LEVELS];
} Walk;

static inline int64_t place_in(const int32_t *seen, int64_t capacity, int32_t value) {
    int64_t at = (int64_t)(((uint64_t)(uint32_t)value * 0x9E3779B97F4A7C15ull) >> 32) & (capacity - 1);
    while (seen[at] && seen[at] != value) at = (at + 1) & (capacity - 1);
    return at;
}

/* Returns 1 when the group was not seen before, and notes it; -1 without memory. */
static int walk_sees(Walk *walk, int32_t g) {
    int64_t at = place_in(walk->seen, walk->capacity, g + 1);
    if (walk->seen[at]) return 0;
    walk->seen[at] = g + 1;
    if (2 * ++walk->n_seen < walk->capacity) return 1;
    int32_t *seen = calloc(2 * walk->capacity, sizeof(int32_t));
    if (!seen) return -1;
    for (int64_t i = 0; i < walk->capacity; i++)
        if (walk->seen[i]) seen[place_in(seen, 2 * walk->capacity, walk->seen[i])] = walk->seen[i];
    free(walk->seen);
    walk->seen = seen;
    walk->capacity *= 2;
    return 1;
}

static int walk_push(Walk *walk, int32_t g, int distance) {
    if (walk->n_open == walk->open_capacity) {
        void *open = realloc(walk->open, 2 * walk->open_capacity * sizeof(*walk->open));
        if (!open) return -1;
        walk->open = open;
        walk->open_capacity *= 2;
    }
    walk->open[walk->n_open].group = g;
    walk->open[walk->n_open].next = walk->stacks[distance];
    walk->stacks[distance] = (int32_t)walk->n_open++;
    return 0;
}

static int walk_start(Walk *walk, int n_levels) {
    if (!walk->seen) {
        walk->capacity = 4096;
        walk->open_capacity = 1024;
        walk->seen = malloc(walk->capacity * sizeof(int32_t));
        walk->open = malloc(walk->open_capacity * sizeof(*walk->open));
        if (!walk->seen || !walk->open) return -1;
    }
    memset(walk->seen, 0, walk->capacity * sizeof(int32_t));
    memset(walk->stacks, -1, n_levels * sizeof(int32_t));
    walk->n_seen = walk->n_open = 0;
    return 0;
}

/* Returns the links of a group in a level; whatever the arrays hold, they lie within them. */
static inline const int32_t *links_of(const Graph *graph, int64_t g, int level, int *n) {
    int64_t start = graph->offsets[g], stop = graph->offsets[g + 1], skip = level ? (int64_t)graph->m * (level + 1) : 0;
    *n = 0;
    if (start < 0 || stop > graph->n_links || start > stop || stop - start < skip) return graph->links;
    int64_t most = level ? graph->m : 2 * graph->m;
    *n = (int)(stop - start - skip < most ? stop - start - skip : most);
    return graph->links + start + skip;
}

/* Walks the graph towards the query; all codes that it meets are candidates. Returns -1 without memory. */
POPCNT static int find_by_graph(
    Finder *finder, const Groups *groups, const Graph *graph, int64_t skipped, Walk *walk
) {
    const int n_words = groups->n_words, n_levels = 64 * n_words + 1;
    /* The ef nearest so far are within `bound`, `nearer` of them nearer than it. Where all within a radius are wanted,
    the walk goes on from all of them. */
    const int wanted = finder->k == INT64_MAX ? finder->bound : -1;
    int64_t counts[MAX_LEVELS], nearer = 0;
    int bound = n_levels - 1, n_links, lowest;
    int64_t current = graph->entry;
    if (current < 0 || current >= groups->n) return 0;
    if (walk_start(walk, n_levels)) return -1;
    memset(counts, 0, n_levels * sizeof(int64_t));
    lowest = distance_of(groups->codes + current * n_words, finder->query, n_words);
    for (int level = graph->top; level > 0; level--)
        for (int better = 1; better;) {
            const int32_t *links = links_of(graph, current, level, &n_links);
            better = 0;
            for (int i = 0; i < n_links && links[i] >= 0; i++) {
                if (links[i] >= groups->n || links[i] == skipped) continue;
                int distance = distance_of(groups->codes + (int64_t)links[i] * n_words, finder->query, n_words);
                if (distance < lowest) {
                    lowest = distance;
                    current = links[i];
                    better = 1;
                }
            }
        }
    if (walk_sees(walk, (int32_t)current) < 0 || walk_push(walk, (int32_t)current, lowest)) return -1;
    if (current != skipped) finder_add(finder, groups, current, lowest);
    counts[lowest]++;
    for (;;) {
        while (lowest < n_levels && walk->stacks[lowest] < 0) lowest++;
        if (lowest >= n_levels || (lowest > bound && lowest > wanted)) return 0;
        int32_t at = walk->stacks[lowest], fresh[AT_ONCE];
        walk->stacks[lowest] = walk->open[at].next;
        const int32_t *links = links_of(graph, walk->open[at].group, 0, &n_links);
        for (int first = 0; first < n_links; first += AT_ONCE) {
            int n_fresh = 0;
            for (int i = first; i < n_links && i < first + AT_ONCE && links[i] >= 0; i++) {
                if (links[i] >= groups->n || links[i] == skipped) continue;
                int new = walk_sees(walk, links[i]);
                if (new < 0) return -1;
                if (!new) continue;
                fresh[n_fresh++] = links[i];
                __builtin_prefetch(groups->codes + (int64_t)links[i] * n_words);
            }
            for (int i = 0; i < n_fresh; i++) {
                int distance = distance_of(groups->codes + (int64_t)fresh[i] * n_words, finder->query, n_words);
                if (distance <= finder->limit) finder_add(finder, groups, fresh[i], distance);
                if (nearer + counts[bound] >= graph->ef && distance >= bound && distance > wanted) continue;
                if (walk_push(walk, fresh[i], distance)) return -1;
                __builtin_prefetch(graph->offsets + fresh[i]);
                if (distance < lowest) lowest = distance;
                counts[distance]++;
                if (distance < bound) {
                    nearer++;
                    while (nearer >= graph->ef) nearer -= counts[--bound];
                }
            }
        }
    }
}

/* -- building -- */

static void build_table(const Groups *groups, const Table *table, uint32_t *starts, uint32_t *positions) {
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

typedef struct {
    uint64_t key;
    int64_t at;
} Keyed;

typedef struct {
    const uint64_t *code;
    int64_t at;
    int n_words;
} Coded;

static int by_code(const void *a, const void *b) {
    const Coded *x = a, *y = b;
    for (int w = 1; w < x->n_words; w++)
        if (x->code[w] != y->code[w]) return x->code[w] < y->code[w] ? -1 : 1;
    return (x->at > y->at) - (x->at < y->at);
}

/* Writes the order of the codes by their words, the first one first, then by place; returns -1 without memory. */
static int sort_codes(const uint64_t *codes, int64_t n, int n_words, int64_t *order) {
    Keyed *from = malloc((n + 1) * sizeof(Keyed)), *to = malloc((n + 1) * sizeof(Keyed));
    int64_t(*counts)[256] = calloc(8, sizeof(*counts));
    int failed = !from || !to || !counts;
    if (!failed) {
        for (int64_t i = 0; i < n; i++) {
            from[i] = (Keyed){codes[i * n_words], i};
            for (int digit = 0; digit < 8; digit++) counts[digit][(from[i].key >> (8 * digit)) & 255]++;
        }
        for (int digit = 0; digit < 8; digit++) {
            int64_t place = 0, largest = 0;
            for (int value = 0; value < 256; value++) {
                int64_t count = counts[digit][value];
                if (count > largest) largest = count;
                counts[digit][value] = place;
                place += count;
            }
            if (largest == n) continue; /* all the same */
            for (int64_t i = 0; i < n; i++) to[counts[digit][(from[i].key >> (8 * digit)) & 255]++] = from[i];
            Keyed *swap = from;
            from = to;
            to = swap;
        }
        for (int64_t i = 0; i < n; i++) order[i] = from[i].at;
    }
    /* Equal first words: by the others. */
    for (int64_t i = 0, stop; n_words > 1 && !failed && i < n; i = stop) {
        for (stop = i + 1; stop < n && from[stop].key == from[i].key;) stop++;
        if (stop == i + 1) continue;
        Coded *run = malloc((stop - i) * sizeof(Coded));
        if (!run) {
            failed = 1;
            break;
        }
        for (int64_t j = i; j < stop; j++) run[j - i] = (Coded){codes + from[j].at * n_words, from[j].at, n_words};
        qsort(run, stop - i, sizeof(Coded), by_code);
        for (int64_t j = i; j < stop; j++) order[j] = run[j - i].at;
        free(run);
    }
    free(from);
    free(to);
    free(counts);
    return failed ? -1 : 0;
}

/* -- the module -- */

typedef struct {
    Groups groups;
    Tables tables;
    Lists lists;
    Graph graph;
    int64_t first, last, n_queries, k;
    int radius, ascending, n_levels;
    const uint64_t *queries;
} Task;

typedef struct {
    int64_t n;
    Finder *finders;
    int64_t *counts;
    char *answered;
    int64_t *limits;
    int32_t *distances;
    int64_t *ids;
} Answer;

static int start_finder(const Task *task, Finder *finder, int64_t q, int radius) {
    const uint64_t *query = task->queries + q * task->groups.n_words;
    return finder_start(finder, query, task->k, radius, task->ascending, task->n_levels);
}

/* Scans with all queries that are not answered, block by block. */
static void find_by_scan(const Task *task, Answer *answer, const char *answered) {
    const Scan scan = scan_for(task->groups.n_words);
    const int64_t step = BLOCK_BYTES / (8 * task->groups.n_words);
    for (int64_t first = task->first; first < task->last; first += step) {
        int64_t last = first + step < task->last ? first + step : task->last;
        for (int64_t q = 0; q < task->n_queries; q++)
            if (!answered[q]) scan(&answer->finders[q], &task->groups, first, last);
    }
}

static int find_in_lists(const Task *task, Answer *answer) {
    const Scan scan = scan_for(task->groups.n_words);
    int32_t *scratch = malloc((2 * task->lists.n + 1) * sizeof(int32_t));
    if (!scratch) return -1;
    for (int64_t q = 0; q < task->n_queries; q++)
        find_by_lists(&answer->finders[q], &task->groups, &task->lists, scan, measure_for(), scratch);
    free(scratch);
    return 0;
}

static int find_in_graph(const Task *task, Answer *answer) {
    Walk *walk = calloc(1, sizeof(Walk));
    int failed = !walk;
    for (int64_t q = 0; q < task->n_queries && !failed; q++) {
        int64_t skipped = task->graph.skipped ? task->graph.skipped[q] : -1;
        failed = find_by_graph(&answer->finders[q], &task->groups, &task->graph, skipped, walk);
    }
    if (walk) {
        free(walk->seen);
        free(walk->open);
    }
    free(walk);
    return failed ? -1 : 0;
}

static int find(const Task *task, Answer *answer) {
    int open = 0;
    answer->n = task->n_queries;
    answer->finders = calloc(task->n_queries + 1, sizeof(Finder));
    answer->counts = malloc((task->n_queries + 1) * task->n_levels * sizeof(int64_t));
    answer->limits = malloc((task->n_queries + 1) * sizeof(int64_t));
    answer->answered = calloc(task->n_queries + 1, 1);
    if (!answer->finders || !answer->counts || !answer->limits || !answer->answered) return -1;
    for (int64_t q = 0; q < task->n_queries; q++) answer->finders[q].counts = answer->counts + q * task->n_levels;
    for (int64_t q = 0; q < task->n_queries; q++)
        if (start_finder(task, &answer->finders[q], q, task->radius)) return -1;
    if (task->lists.n) {
        if (find_in_lists(task, answer)) return -1;
    } else if (task->graph.links) {
        if (find_in_graph(task, answer)) return -1;
    } else {
        for (int64_t q = 0; q < task->n_queries; q++) {
            Finder *finder = &answer->finders[q];
            if (task->tables.n_tables) answer->answered[q] = (char)find_by_tables(finder, &task->groups, &task->tables);
            if (answer->answered[q]) continue;
            /* What the look-ups have found bounds the scan. */
            if (start_finder(task, finder, q, finder->bound)) return -1;
            open = 1;
        }
        if (open) find_by_scan(task, answer, answer->answered);
    }
    answer->limits[0] = 0;
    for (int64_t q = 0; q < task->n_queries; q++)
        answer->limits[q + 1] = answer->limits[q] + finder_length(&answer->finders[q]);
    int64_t n_found = answer->limits[task->n_queries];
    answer->distances = malloc((n_found + 1) * sizeof(int32_t));
    answer->ids = malloc((n_found + 1) * sizeof(int64_t));
    if (!answer->distances || !answer->ids) return -1;
    for (int64_t q = 0; q < task->n_queries; q++) {
        int64_t at = answer->limits[q];
        if (finder_write(&answer->finders[q], &task->groups, answer->distances + at, answer->ids + at) < 0) return -1;
        free(answer->finders[q].hits);
        answer->finders[q].hits = NULL;
    }
    return 0;
}

static void answer_free(Answer *answer) {
    for (int64_t q = 0; answer->finders && q < answer->n; q++) free(answer->finders[q].hits);
    free(answer->finders);
    free(answer->counts);
    free(answer->answered);
    free(answer->limits);
    free(answer->distances);
    free(answer->ids);
}

static PyObject *as_bytes(const void *data, int64_t n_bytes) {
    return PyBytes_FromStringAndSize((const char *)data, (Py_ssize_t)n_bytes);
}

/* Checks that a buffer holds so many bytes; buffers of None have none. */
static int holds(const Py_buffer *buffer, int64_t n_bytes, const char *name) {
    if (buffer->len >= n_bytes) return 1;
    PyErr_Format(PyExc_ValueError, "%s: %zd bytes, not %lld", name, buffer->len, (long long)n_bytes);
    return 0;
}

static int parse_lists(PyObject *given, const Groups *groups, Lists *lists, Py_buffer *buffers, int *n_buffers) {
    Py_buffer *centroids = &buffers[*n_buffers], *starts = centroids + 1, *radii = centroids + 2;
    long long n_probes, reach;
    if (given == Py_None) return 0;
    if (!PyArg_ParseTuple(given, "y*y*y*LL", centroids, starts, radii, &n_probes, &reach)) return -1;
    lists->reach = reach < 0 ? 0 : reach > 1000 * MAX_LEVELS ? 1000 * MAX_LEVELS : reach;
    *n_buffers += 3;
    lists->n = centroids->len / (8 * groups->n_words);
    lists->n_probes = n_probes;
    if (!holds(starts, (lists->n + 1) * 8, "starts") || !holds(radii, lists->n * 4, "radii")) return -1;
    lists->centroids = centroids->buf;
    lists->starts = starts->buf;
    lists->radii = radii->buf;
    return 0;
}

static int parse_graph(
    PyObject *given, int64_t n_codes, int64_t n_queries, Graph *graph, Py_buffer *buffers, int *n_buffers
) {
    Py_buffer *links = &buffers[*n_buffers], *offsets = links + 1, *skipped = links + 2;
    long long entry, ef;
    if (given == Py_None) return 0;
    if (!PyArg_ParseTuple(given, "y*y*iLiLz*", links, offsets, &graph->m, &entry, &graph->top, &ef, skipped))
        return -1;
    *n_buffers += 3;
    if (!holds(offsets, (n_codes + 1) * 8, "offsets")) return -1;
    if (skipped->buf && !holds(skipped, n_queries * 8, "skipped")) return -1;
    graph->skipped = skipped->buf;
    if (n_codes > INT32_MAX || graph->m < 1 || graph->m > 1024 || graph->top < 0 || graph->top > 64) {
        PyErr_SetString(PyExc_ValueError, "graph: n, m or top is out of range");
        return -1;
    }
    graph->links = links->buf;
    graph->n_links = links->len / 4;
    graph->offsets = offsets->buf;
    graph->entry = entry;
    graph->ef = ef < 1 ? 1 : ef;
    return 0;
}

static int parse_tables(
    PyObject *given, int n_words, int64_t n_codes, Tables *tables, Py_buffer *buffers, int *n_buffers
) {
    Py_ssize_t n = PyTuple_Size(given);
    if (n < 0 || n > MAX_TABLES) {
        PyErr_SetString(PyExc_ValueError, "tables: a tuple of at most 64");
        return -1;
    }
    for (Py_ssize_t i = 0; i < n; i++) {
        Table *table = &tables->tables[i];
        Py_buffer *starts = &buffers[*n_buffers], *positions = &buffers[*n_buffers + 1];
        PyObject *fields = PyTuple_GetItem(given, i);
        if (!fields || !PyArg_ParseTuple(
                fields, "iiiy*z*", &table->word, &table->shift, &table->n_bits, starts, positions))
            return -1;
        *n_buffers += 2;
        if (table->word < 0 || table->word >= n_words || table->n_bits < 0 || table->n_bits > 31 || table->shift < 0
            || table->shift + table->n_bits > 64) {
            PyErr_SetString(PyExc_ValueError, "tables: bits that a code does not have");
            return -1;
        }
        if (!holds(starts, ((1ll << table->n_bits) + 1) * 4, "starts")) return -1;
        table->starts = starts->buf;
        table->positions = positions->buf;
        table->n_positions = positions->buf ? positions->len / 4 : n_codes;
    }
    tables->n_tables = (int)n;
    return 0;
}

PyDoc_STRVAR(find_doc,
    "find(codes, n_words, offsets, ids, queries, k, radius, first, last, tables, costs, lists, graph, ascending)\n"
    "-> (limits, distances, ids), each as bytes: see kernel.py.");

static PyObject *py_find(PyObject *module, PyObject *arguments) {
    Py_buffer buffers[7 + 2 * MAX_TABLES];
    Py_buffer *codes = buffers, *offsets = buffers + 1, *ids = buffers + 2, *queries = buffers + 3;
    int n_buffers = 4, n_words, failed;
    long long k, first, last;
    PyObject *tables, *lists, *graph, *result = NULL;
    Task *task = calloc(1, sizeof(Task));
    Answer answer = {0};
    memset(buffers, 0, sizeof(buffers));
    if (!task) return PyErr_NoMemory();
    if (!PyArg_ParseTuple(
            arguments, "y*iz*z*y*LiLLO!(dd)OOp", codes, &n_words, offsets, ids, queries, &k, &task->radius, &first,
            &last, &PyTuple_Type, &tables, &task->tables.look_up_cost, &task->tables.candidate_cost, &lists,
            &graph, &task->ascending))
        goto done;
    if (n_words < 1 || n_words > MAX_WORDS || k < 1 || task->radius < 0 || task->radius > 64 * n_words) {
        PyErr_SetString(PyExc_ValueError, "n_words, k or radius is out of range");
        goto done;
    }
    task->groups = (Groups){codes->buf, codes->len / (8 * n_words), n_words, offsets->buf, ids->buf};
    task->groups.narrow = ids->itemsize == 4;
    task->groups.n_ids = ids->buf ? ids->len / (ids->itemsize == 4 ? 4 : 8) : task->groups.n;
    task->n_queries = queries->len / (8 * n_words);
    task->queries = queries->buf;
    task->k = k;
    task->first = first;
    task->last = last;
    task->n_levels = 64 * n_words + 1;
    if (first < 0 || last > task->groups.n) {
        PyErr_SetString(PyExc_ValueError, "first or last is out of range");
        goto done;
    }
    if (offsets->buf && !holds(offsets, (task->groups.n + 1) * 8, "offsets")) goto done;
    if (ids->buf && ids->itemsize != 4 && ids->itemsize != 8) {
        PyErr_SetString(PyExc_ValueError, "ids: neither int64 nor uint32");
        goto done;
    }
    if (ids->buf && !holds(ids, task->groups.offsets ? 0 : task->groups.n * ids->itemsize, "ids")) goto done;
    if (parse_tables(tables, n_words, task->groups.n, &task->tables, buffers, &n_buffers)) goto done;
    if (parse_lists(lists, &task->groups, &task->lists, buffers, &n_buffers)) goto done;
    if (parse_graph(graph, task->groups.n, task->n_queries, &task->graph, buffers, &n_buffers)) goto done;
    Py_BEGIN_ALLOW_THREADS
    failed = find(task, &answer);
    Py_END_ALLOW_THREADS
    if (failed) {
        PyErr_NoMemory();
        goto done;
    }
    int64_t n_found = answer.limits[answer.n];
    PyObject *parts[3] = {
        as_bytes(answer.limits, 8 * (answer.n + 1)), as_bytes(answer.distances, 4 * n_found), as_bytes(answer.ids, 8 * n_found)
    };
    if (parts[0] && parts[1] && parts[2]) result = PyTuple_Pack(3, parts[0], parts[1], parts[2]);
    for (int i = 0; i < 3; i++) Py_XDECREF(parts[i]);
done:
    for (int i = 0; i < n_buffers; i++)
        if (buffers[i].obj) PyBuffer_Release(&buffers[i]);
    answer_free(&answer);
    free(task);
    return result;
}

PyDoc_STRVAR(build_table_doc, "build_table(codes, n_words, word, shift, n_bits, starts, positions) fills the last two.");

static PyObject *py_build_table(PyObject *module, PyObject *arguments) {
    Py_buffer codes = {0}, starts = {0}, positions = {0};
    Table table = {0};
    int n_words;
    PyObject *result = NULL;
    if (!PyArg_ParseTuple(
            arguments, "y*iiiiw*z*", &codes, &n_words, &table.word, &table.shift, &table.n_bits, &starts, &positions))
        return NULL;
    Groups groups = {.codes = codes.buf, .n = codes.len / (8 * n_words), .n_words = n_words};
    if (holds(&starts, ((1ll << table.n_bits) + 1) * 4, "starts")
        && (!positions.buf || holds(&positions, 4 * groups.n, "positions"))) {
        Py_BEGIN_ALLOW_THREADS
        build_table(&groups, &table, starts.buf, positions.buf);
        Py_END_ALLOW_THREADS
        result = Py_NewRef(Py_None);
    }
    PyBuffer_Release(&codes);
    PyBuffer_Release(&starts);
    if (positions.obj) PyBuffer_Release(&positions);
    return result;
}

PyDoc_STRVAR(sort_codes_doc, "sort_codes(codes, n_words, order) fills order with the stable order of the codes.");

static PyObject *py_sort_codes(PyObject *module, PyObject *arguments) {
    Py_buffer codes = {0}, order = {0};
    int n_words, failed = 1;
    if (!PyArg_ParseTuple(arguments, "y*iw*", &codes, &n_words, &order)) return NULL;
    int64_t n = codes.len / (8 * n_words);
    if (holds(&order, 8 * n, "order")) {
        Py_BEGIN_ALLOW_THREADS
        failed = sort_codes(codes.buf, n, n_words, order.buf);
        Py_END_ALLOW_THREADS
        if (failed) PyErr_NoMemory();
    }
    PyBuffer_Release(&codes);
    PyBuffer_Release(&order);
    return failed ? NULL : Py_NewRef(Py_None);
}

/* -- merging what was found in several places -- */

typedef struct {
    const int64_t *limits;
    const int32_t *distances;
    const int64_t *ids;
    int64_t at, stop;
} Part;

/* Writes the k first of what the parts hold for each query, by (distance, id); limits[0] is set. */
static void merge(Part *parts, int n_parts, int64_t n_queries, int64_t k, int64_t *limits, int32_t *distances, int64_t *ids) {
    int64_t written = 0;
    for (int64_t q = 0; q < n_queries; q++) {
        for (int p = 0; p < n_parts; p++) {
            parts[p].at = parts[p].limits[q];
            parts[p].stop = parts[p].limits[q + 1];
        }
        for (int64_t i = 0; i < k; i++) {
            Part *first = NULL;
            for (Part *part = parts; part < parts + n_parts; part++) {
                if (part->at == part->stop) continue;
                int32_t distance = part->distances[part->at];
                if (!first || distance < first->distances[first->at]
                    || (distance == first->distances[first->at] && part->ids[part->at] < first->ids[first->at]))
                    first = part;
            }
            if (!first) break;
            distances[written] = first->distances[first->at];
            ids[written++] = first->ids[first->at++];
        }
        limits[q + 1] = written;
    }
}

#define MAX_PARTS 256

PyDoc_STRVAR(merge_doc, "merge(parts, k): of (limits, distances, ids) for the same queries the same: see kernel.py.");

static PyObject *py_merge(PyObject *module, PyObject *arguments) {
    PyObject *given, *found[3] = {NULL, NULL, NULL}, *result = NULL;
    Py_buffer buffers[3 * MAX_PARTS];
    Part parts[MAX_PARTS];
    int n_buffers = 0;
    int64_t n_queries = -1, total = 0;
    long long k;
    if (!PyArg_ParseTuple(arguments, "O!L", &PyTuple_Type, &given, &k)) return NULL;
    Py_ssize_t n_parts = PyTuple_Size(given);
    if (n_parts < 1 || n_parts > MAX_PARTS || k < 1) {
        PyErr_SetString(PyExc_ValueError, "merge: from 1 to 256 parts, and k at least 1");
        return NULL;
    }
    for (Py_ssize_t p = 0; p < n_parts; p++) {
        Py_buffer *limits = &buffers[n_buffers], *distances = limits + 1, *ids = limits + 2;
        if (!PyArg_ParseTuple(PyTuple_GetItem(given, p), "y*y*y*", limits, distances, ids)) goto done;
        n_buffers += 3;
        parts[p] = (Part){limits->buf, distances->buf, ids->buf, 0, 0};
        int64_t n = limits->len / 8 - 1;
        if (n < 0 || (p && n != n_queries)) {
            PyErr_SetString(PyExc_ValueError, "merge: parts of different queries");
            goto done;
        }
        n_queries = n;
        int64_t n_found = parts[p].limits[n];
        int in_order = parts[p].limits[0] == 0;
        for (int64_t q = 0; q < n; q++) in_order &= parts[p].limits[q] <= parts[p].limits[q + 1];
        if (!in_order) {
            PyErr_SetString(PyExc_ValueError, "merge: limits that do not ascend");
            goto done;
        }
        if (!holds(distances, 4 * n_found, "distances") || !holds(ids, 8 * n_found, "ids")) goto done;
        total += n_found;
    }
    /* Room for what will be written: no more than k for each query. */
    {
        total = 0;
        for (int64_t q = 0; q < n_queries; q++) {
            int64_t n_found = 0;
            for (Py_ssize_t p = 0; p < n_parts; p++) n_found += parts[p].limits[q + 1] - parts[p].limits[q];
            total += n_found < k ? n_found : k;
        }
    }
    int64_t *limits = malloc((n_queries + 1) * sizeof(int64_t)), *ids = malloc((total + 1) * sizeof(int64_t));
    int32_t *distances = malloc((total + 1) * sizeof(int32_t));
    if (!limits || !ids || !distances) {
        PyErr_NoMemory();
    } else {
        Py_BEGIN_ALLOW_THREADS
        limits[0] = 0;
        merge(parts, (int)n_parts, n_queries, k, limits, distances, ids);
        Py_END_ALLOW_THREADS
        found[0] = as_bytes(limits, 8 * (n_queries + 1));
        found[1] = as_bytes(distances, 4 * limits[n_queries]);
        found[2] = as_bytes(ids, 8 * limits[n_queries]);
        if (found[0] && found[1] && found[2]) result = PyTuple_Pack(3, found[0], found[1], found[2]);
        for (int i = 0; i < 3; i++) Py_XDECREF(found[i]);
    }
    free(limits);
    free(distances);
    free(ids);
done:
    for (int i = 0; i < n_buffers; i++) PyBuffer_Release(&buffers[i]);
    return result;
}

PyDoc_STRVAR(keep_doc,
    "keep(offsets, ids, mask, new_offsets, new_ids) writes groups without the ids where mask is 0; returns (ids left, groups\n"
    "that have none).");

static PyObject *py_keep(PyObject *module, PyObject *arguments) {
    Py_buffer offsets = {0}, ids = {0}, mask = {0}, new_offsets = {0}, new_ids = {0};
    if (!PyArg_ParseTuple(arguments, "y*y*y*w*w*", &offsets, &ids, &mask, &new_offsets, &new_ids)) return NULL;
    const int64_t *starts = offsets.buf, *from = ids.buf, n_ids = ids.len / 8, n = offsets.len / 8 - 1;
    int64_t *to_starts = new_offsets.buf, *to = new_ids.buf, n_kept = 0, n_empty = 0, at = 0;
    const char *wanted = mask.buf;
    PyObject *result = NULL;
    if (n < 0 || new_offsets.len < offsets.len || new_ids.len < ids.len || mask.len < n_ids) {
        PyErr_SetString(PyExc_ValueError, "keep: arrays of different lengths");
    } else {
        Py_BEGIN_ALLOW_THREADS
        for (int64_t g = 0; g < n; g++) {
            const int64_t stop = starts[g + 1] < n_ids ? starts[g + 1] : n_ids, before = n_kept;
            to_starts[g] = n_kept;
            for (; at < stop; at++) {
                to[n_kept] = from[at];
                n_kept += wanted[at];
            }
            n_empty += n_kept == before;
        }
        to_starts[n] = n_kept;
        Py_END_ALLOW_THREADS
        result = Py_BuildValue("LL", (long long)n_kept, (long long)n_empty);
    }
    PyBuffer_Release(&offsets);
    PyBuffer_Release(&ids);
    PyBuffer_Release(&mask);
    PyBuffer_Release(&new_offsets);
    PyBuffer_Release(&new_ids);
    return result;
}

static PyMethodDef methods[] = {
    {"find", py_find, METH_VARARGS, find_doc},
    {"merge", py_merge, METH_VARARGS, merge_doc},
    {"keep", py_keep, METH_VARARGS, keep_doc},
    {"build_table", py_build_table, METH_VARARGS, build_table_doc},
    {"sort_codes", py_sort_codes, METH_VARARGS, sort_codes_doc},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "index._kernel", "Search of binary codes in C: see kernel.py.", -1, methods, NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__kernel(void) { return PyModule_Create(&definition); }
