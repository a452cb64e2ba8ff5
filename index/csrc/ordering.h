/* Putting in order: codes, and what was found in several places. */
#ifndef DEEPHASH_ORDERING_H
#define DEEPHASH_ORDERING_H

#include <stdint.h>

/* What was found for some queries: for query q, what lies at limits[q] ... limits[q + 1] - 1. */
typedef struct {
    const int64_t *limits;
    const int32_t *distances;
    const int64_t *ids;
    int64_t at, stop;
} Part;

/* Writes the order of the codes by their words, the first one first, then by place; returns -1 without memory. */
int sort_codes(const uint64_t *codes, int64_t n, int n_words, int64_t *order);

/* Writes the k first of what the parts hold for each query, by (distance, id); limits[0] is set. */
void merge(Part *parts, int n_parts, int64_t n_queries, int64_t k, int64_t *limits, int32_t *distances, int64_t *ids);

#endif
