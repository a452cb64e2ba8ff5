/* Multi-index hashing: Norouzi, Punjani & Fleet, "Fast exact search in Hamming space with multi-index hashing", 2014. */
#ifndef DEEPHASH_TABLES_H
#define DEEPHASH_TABLES_H

#include "finder.h"

#define MAX_TABLES 64

/* A table over bits [shift, shift + n_bits) of one word: the groups with key x are positions[starts[x]] ...
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

/* Finds the answer by look-ups; returns 0 when a scan has to, because it is cheaper. */
int find_by_tables(Finder *finder, const Groups *groups, const Tables *tables);

/* Fills the starts and positions of a table; without positions, the codes are in the order of its keys. */
void build_table(const Groups *groups, const Table *table, uint32_t *starts, uint32_t *positions);

#endif
