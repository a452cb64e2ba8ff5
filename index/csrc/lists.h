/* Lists: an inverted file over the cells of centroids. */
#ifndef DEEPHASH_LISTS_H
#define DEEPHASH_LISTS_H

#include "finder.h"
#include "scan.h"

/* List l is the groups starts[l] ... starts[l + 1] - 1, all within radii[l] of centroids[l]. */
typedef struct {
    int64_t n, n_probes;
    const uint64_t *centroids;
    const int64_t *starts;
    const int32_t *radii;
    int64_t reach;
} Lists;

/* The centroids nearest to a query: the first of the nearest, its distance, and the smallest of all others. */
typedef struct {
    int64_t first;
    int32_t nearest, second;
} Near;

/* Finds them, and begins to fetch the list of the first from memory. */
Near nearest_lists(const Groups *groups, const Lists *lists, const uint64_t *query);

/* Scans lists, the nearest centroid first, until one is further than that by more than `reach` hundredths of the limit: of
the k-th distance so far. A list is passed over when no code of it can be near enough. With a reach of 100 times as many
hundredths as there are bits, the answer is exact. Needs 3 * lists->n + 16 of scratch. */
void find_by_lists(Finder *finder, const Groups *groups, const Lists *lists, Near near, Scan scan, int32_t *scratch);

#endif
