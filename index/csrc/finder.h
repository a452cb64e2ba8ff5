/* Codes in groups, and what one query has found of them. Included by all that searches.

A code is n_words uint64 words. `Groups` are distinct codes; group g has the ids ids[offsets[g]] ... ids[offsets[g + 1] - 1],
ascending; without offsets it has one id, ids[g], and without ids that is g itself. All answers are ordered by (distance, id).
Arrays may lie in files: whatever they hold, nothing is read or written out of bounds.
*/
#ifndef DEEPHASH_FINDER_H
#define DEEPHASH_FINDER_H

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
/* Codes that a query without k results meets are counted so many at a time. */
#define FIRST_CODES 64
#define ALL INT64_MAX

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

static inline int distance_of(const uint64_t *a, const uint64_t *b, int n_words) {
    int sum = 0;
    for (int w = 0; w < n_words; w++) sum += __builtin_popcountll(a[w] ^ b[w]);
    return sum;
}

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
    /* Ids found, by distance. */
    int64_t *counts;
    Hit *hits;
    int64_t n_hits, capacity;
    int failed;
} Finder;

/* Begins a query; `counts` are the caller's, `hits` those of the query before, or NULL. Returns -1 without memory. */
int finder_start(Finder *finder, const uint64_t *query, int64_t k, int radius, int ascending, int n_levels);

/* Makes room for as many hits as are added at a time. */
void finder_make_room(Finder *finder);

/* Adds all of these groups, at most FIRST_CODES: faster than one by one where k are not found yet. */
void finder_add_first(Finder *finder, const Groups *groups, int64_t first, int n, const int32_t *distances);

/* Writes the answer, by (distance, id), and returns its length, or -1 without memory. There is room for finder_length. */
int64_t finder_write(Finder *finder, const Groups *groups, int32_t *distances, int64_t *ids);

static inline int finder_is_full(const Finder *finder) {
    return finder->nearer + finder->counts[finder->bound] >= finder->k;
}

/* Returns the number of ids that the answer has, so far. */
static inline int64_t finder_length(const Finder *finder) {
    return finder_is_full(finder) ? finder->k : finder->nearer + finder->counts[finder->bound];
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
    finder->limit = finder->bound - (finder->ascending && finder_is_full(finder));
}

#if defined(__x86_64__)
static inline int has_avx512(void) {
    return __builtin_cpu_supports("avx512vpopcntdq") && __builtin_cpu_supports("avx512bw")
        && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
#endif

#endif
