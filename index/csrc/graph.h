/* A navigable graph: Malkov & Yashunin, "Efficient and robust approximate nearest neighbor search using hierarchical
navigable small world graphs", 2018. */
#ifndef DEEPHASH_GRAPH_H
#define DEEPHASH_GRAPH_H

#include "finder.h"

/* Group g has its links from offsets[g] on: 2 * m of level 0, then m of each level that it is in; below 0: none. */
typedef struct {
    int64_t n_links;
    const int32_t *links;
    const int64_t *offsets;
    int64_t entry, ef;
    int m, top;
} Graph;

/* What a walk needs: a set of the groups seen (g + 1, hashed), and those to go on from, in a stack for each distance.
All zeros before the first walk. */
typedef struct {
    int32_t *seen;
    int64_t n_seen, capacity;
    struct { int32_t group, next; } *open;
    int64_t n_open, open_capacity;
    int32_t stacks[MAX_LEVELS];
} Walk;

/* Walks the graph towards the query; all codes that it meets are candidates, but for the group `skipped`, which it does not
enter. Returns -1 without memory. */
int find_by_graph(Finder *finder, const Groups *groups, const Graph *graph, int64_t skipped, Walk *walk);

#endif
