/* What one query has found: hits as they come in, and from them the answer. */
#include "finder.h"

/* An answer of so few ids is ordered by counting, for each, those before it. */
#define FEW 48
/* Ids below 2^52 stand in one number with their distance. */
#define ID_BITS 52

int finder_start(Finder *finder, const uint64_t *query, int64_t k, int radius, int ascending, int n_levels) {
    finder->query = query;
    finder->k = k;
    finder->limit = finder->bound = radius;
    finder->ascending = ascending;
    finder->nearer = 0;
    memset(finder->counts, 0, n_levels * sizeof(int64_t));
    finder->n_hits = 0;
    finder->failed = 0;
    if (!finder->hits) {
        finder->capacity = 2 * FIRST_CODES;
        finder->hits = malloc(finder->capacity * sizeof(Hit));
    }
    return finder->hits ? 0 : -1;
}

void finder_make_room(Finder *finder) {
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

void finder_add_first(Finder *finder, const Groups *groups, int64_t first, int n, const int32_t *distances) {
    for (int i = 0; i < n; i++) {
        if (distances[i] > finder->bound) continue;
        int64_t size = group_size(groups, first + i);
        finder->counts[distances[i]] += size;
        finder->nearer += distances[i] < finder->bound ? size : 0;
    }
    while (finder->nearer >= finder->k) finder->nearer -= finder->counts[--finder->bound];
    /* Half of the capacity is free afterwards. */
    if (finder->n_hits + n > finder->capacity) finder_make_room(finder);
    for (int i = 0; i < n; i++) {
        finder->hits[finder->n_hits] = (Hit){first + i, distances[i]};
        finder->n_hits += distances[i] <= finder->bound;
    }
    finder->limit = finder->bound - (finder->ascending && finder_is_full(finder));
}

/* -- the answer -- */

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

/* Puts n keys, which are different ones, in order; they are padded with the largest number to a multiple of 8. Of equal
ones, which a damaged file can give, one stands for all. */
#define ORDER(attributes, name)                                             \
    attributes static void name(const int64_t *keys, int n, int64_t *out) { \
        for (int i = 0; i < n; i++) out[i] = keys[0];                       \
        for (int i = 0; i < n; i++) {                                       \
            int64_t rank = 0, key = keys[i];                                \
            for (int j = 0; j < n; j += 8)                                  \
                for (int lane = 0; lane < 8; lane++)                        \
                    rank += keys[j + lane] < key;                           \
            out[rank] = key;                                                \
        }                                                                   \
    }

ORDER(, order_keys)
#if defined(__x86_64__)
ORDER(AVX512, order_keys_avx512)
#endif

/* Writes an answer of few ids; returns -1 where one is too large to stand in a key. */
static int64_t write_few(const Finder *finder, const Groups *groups, int32_t *distances, int64_t *ids) {
    int64_t keys[FEW + 8], ordered[FEW], seen = 0;
    int n = 0;
    for (int64_t i = 0; i < finder->n_hits; i++) {
        const Hit hit = finder->hits[i];
        if (hit.distance > finder->bound) continue;
        int64_t stop = n + group_ids(groups, hit.group, FEW - n, keys + n);
        for (; n < stop; n++) {
            seen |= keys[n];
            keys[n] |= (int64_t)hit.distance << ID_BITS;
        }
    }
    if (seen >> ID_BITS) return -1;
    for (int i = n; i < n + 8; i++) keys[i] = INT64_MAX;
#if defined(__x86_64__)
    if (has_avx512()) order_keys_avx512(keys, n, ordered);
    else
#endif
        order_keys(keys, n, ordered);
    if (n > finder_length(finder)) n = (int)finder_length(finder);
    for (int i = 0; i < n; i++) {
        distances[i] = (int32_t)(ordered[i] >> ID_BITS);
        ids[i] = ordered[i] & ((1ll << ID_BITS) - 1);
    }
    return n;
}

int64_t finder_write(Finder *finder, const Groups *groups, int32_t *distances, int64_t *ids) {
    int64_t starts[MAX_LEVELS + 1], next[MAX_LEVELS], written = 0;
    int bound = finder->bound;
    if (finder->failed) return -1;
    if (finder->nearer + finder->counts[bound] <= FEW) {
        int64_t length = write_few(finder, groups, distances, ids);
        if (length >= 0) return length;
    }
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
            /* In a file that somebody writes to, groups may be larger by now. */
            wanted = finder->counts[level];
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
