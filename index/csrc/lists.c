/* Lists: the centroids of a query, in order, as far as they are wanted. */
#include "lists.h"

#define FAR 0x7fffffff
/* Centroids measured at a time: their distances stay in the first cache. */
#define CHUNK 256
/* So few places are put in order by insertion. */
#define FEW 32
/* The beginning of a list that is fetched from memory ahead of its scan, in cache lines. */
#define LINES_FETCHED 8

/* Whatever the array holds, no list reaches beyond the groups. */
static inline int64_t list_start(const Lists *lists, const Groups *groups, int64_t l) {
    int64_t start = lists->starts[l];
    return start < 0 ? 0 : start > groups->n ? groups->n : start;
}

static inline void fetch_list(const Lists *lists, const Groups *groups, int64_t l) {
    const uint64_t *codes = groups->codes + list_start(lists, groups, l) * groups->n_words;
    for (int line = 0; line < LINES_FETCHED; line++) __builtin_prefetch(codes + 8 * line);
}

/* Takes the distances of the centroids from `first` on into account. */
static void take_nearer(Near *near, int64_t first, const int32_t *distances, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        if (distances[i] < near->nearest) {
            near->second = near->nearest;
            near->nearest = distances[i];
            near->first = first + i;
        } else if (distances[i] < near->second) {
            near->second = distances[i];
        }
    }
}

/* Writes the places that are no further than `most`, and returns how many there are. Needs room for 16 more. */
static int64_t places_within(const int32_t *distances, int64_t n, int32_t most, int32_t *out) {
    int64_t found = 0;
    for (int64_t i = 0; i < n; i++) {
        out[found] = (int32_t)i;
        found += distances[i] <= most;
    }
    return found;
}

#if defined(__x86_64__)
/* As `take_nearer`, for at most CHUNK distances, with room for a multiple of 16. */
AVX512 static void take_nearer_avx512(Near *near, int64_t first, int32_t *distances, int64_t n) {
    const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    /* A key is a distance and a place in the chunk. */
    __m512i least = _mm512_set1_epi32(FAR), second = least;
    for (int64_t i = n; i % 16; i++) distances[i] = FAR / CHUNK - 1;
    for (int64_t i = 0; i < n; i += 16) {
        __m512i keys = _mm512_slli_epi32(_mm512_loadu_si512(distances + i), 8);
        keys = _mm512_or_si512(keys, _mm512_add_epi32(lanes, _mm512_set1_epi32((int)i)));
        second = _mm512_min_epi32(second, _mm512_max_epi32(least, keys));
        least = _mm512_min_epi32(least, keys);
    }
    const int32_t key = _mm512_reduce_min_epi32(least), distance = key >> 8;
    const __mmask16 others = _mm512_cmpneq_epi32_mask(least, _mm512_set1_epi32(key));
    second = _mm512_mask_min_epi32(second, others, second, least);
    const int32_t other = _mm512_reduce_min_epi32(second) >> 8;
    if (distance < near->nearest) {
        near->second = near->nearest < other ? near->nearest : other;
        near->nearest = distance;
        near->first = first + (key & (CHUNK - 1));
    } else if (distance < near->second) {
        near->second = distance;
    }
}

AVX512 static int64_t places_within_avx512(const int32_t *distances, int64_t n, int32_t most, int32_t *out) {
    __m512i places = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const __m512i limit = _mm512_set1_epi32(most);
    int64_t found = 0;
    for (int64_t i = 0; i < n; i += 16) {
        __mmask16 inside = (__mmask16)(n - i < 16 ? (1u << (n - i)) - 1 : 0xffff);
        inside = _mm512_mask_cmple_epi32_mask(inside, _mm512_maskz_loadu_epi32(inside, distances + i), limit);
        _mm512_storeu_si512(out + found, _mm512_maskz_compress_epi32(inside, places));
        found += __builtin_popcount(inside);
        places = _mm512_add_epi32(places, _mm512_set1_epi32(16));
    }
    return found;
}
#endif

Near nearest_lists(const Groups *groups, const Lists *lists, const uint64_t *query) {
    const Measure measure = measure_for();
    int32_t distances[CHUNK];
    Near near = {0, FAR, FAR};
    for (int64_t l = 0; l < lists->n; l += CHUNK) {
        int64_t n = lists->n - l < CHUNK ? lists->n - l : CHUNK;
        measure(lists->centroids + l * groups->n_words, n, groups->n_words, query, distances);
#if defined(__x86_64__)
        if (has_avx512()) {
            take_nearer_avx512(&near, l, distances, n);
            continue;
        }
#endif
        take_nearer(&near, l, distances, n);
    }
    fetch_list(lists, groups, near.first);
    return near;
}

/* Puts places, which ascend, in order by their distances. */
static void sort_places(const int32_t *places, int64_t n, const int32_t *distances, int n_levels, int32_t *sorted) {
    if (n <= FEW) {
        for (int64_t i = 0; i < n; i++) {
            int64_t j = i;
            for (; j > 0 && distances[sorted[j - 1]] > distances[places[i]]; j--) sorted[j] = sorted[j - 1];
            sorted[j] = places[i];
        }
        return;
    }
    int64_t starts[MAX_LEVELS + 1];
    memset(starts, 0, (n_levels + 1) * sizeof(int64_t));
    for (int64_t i = 0; i < n; i++) starts[distances[places[i]] + 1]++;
    for (int level = 0; level < n_levels; level++) starts[level + 1] += starts[level];
    for (int64_t i = 0; i < n; i++) sorted[starts[distances[places[i]]]++] = places[i];
}

/* Whether a list whose centroid is so far is beyond those that are scanned. */
static int is_beyond(const Finder *finder, const Lists *lists, int64_t n_probed, int distance, int nearest) {
    if (n_probed >= lists->n_probes && (finder->k == ALL || finder_is_full(finder))) return 1;
    return 100 * (int64_t)(distance - nearest) > lists->reach * finder->limit;
}

void find_by_lists(Finder *finder, const Groups *groups, const Lists *lists, Near near, Scan scan, int32_t *scratch) {
    int64_t n_probed = 0, n_places;
    const int n_levels = 64 * groups->n_words + 1;
    if (lists->n_probes < 1) return;
    if (near.nearest - lists->radii[near.first] <= finder->limit) {
        scan(finder, groups, list_start(lists, groups, near.first), list_start(lists, groups, near.first + 1));
        n_probed++;
    }
    /* Most often that is all, and the others need not be brought into an order. */
    if (lists->n == 1 || is_beyond(finder, lists, n_probed, near.second, near.nearest)) return;
    int32_t *distances = scratch, *places = scratch + lists->n, *sorted = places + lists->n + 16;
    measure_for()(lists->centroids, lists->n, groups->n_words, finder->query, distances);
    /* The limit only falls: what is beyond it now will not be scanned. */
    int64_t most = near.nearest + lists->reach * finder->limit / 100;
    const int32_t within = (int32_t)(most < n_levels ? most : n_levels);
#if defined(__x86_64__)
    if (has_avx512()) n_places = places_within_avx512(distances, lists->n, within, places);
    else
#endif
        n_places = places_within(distances, lists->n, within, places);
    sort_places(places, n_places, distances, n_levels, sorted);
    for (int64_t i = 0; i < n_places; i++) {
        const int64_t l = sorted[i];
        if (l == near.first) continue;
        if (is_beyond(finder, lists, n_probed, distances[l], near.nearest)) break;
        if (distances[l] - lists->radii[l] > finder->limit) continue;
        if (i + 1 < n_places) fetch_list(lists, groups, sorted[i + 1]);
        scan(finder, groups, list_start(lists, groups, l), list_start(lists, groups, l + 1));
        n_probed++;
    }
}
