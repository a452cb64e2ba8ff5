/* Comparing queries with all codes of a range. */
#ifndef DEEPHASH_SCAN_H
#define DEEPHASH_SCAN_H

#include "finder.h"

/* Compares the query with the groups first ... last - 1. */
typedef void (*Scan)(Finder *finder, const Groups *groups, int64_t first, int64_t last);

/* Writes the distances of n codes to the query. */
typedef void (*Measure)(const uint64_t *codes, int64_t n, int n_words, const uint64_t *query, int32_t *out);

/* Return the fastest that this processor has. */
Scan scan_for(int n_words);
Measure measure_for(void);

#endif
