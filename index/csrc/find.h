/* From queries to answers, with any structure. */
#ifndef DEEPHASH_FIND_H
#define DEEPHASH_FIND_H

#include "finder.h"
#include "graph.h"
#include "lists.h"
#include "tables.h"

/* What is searched, and how: by lists or a graph, if there are any; else by tables, if there are any; else by a scan. */
typedef struct {
    Groups groups;
    Tables tables;
    Lists lists;
    Graph graph;
    /* Whether groups are in the order of their ids. */
    int ascending;
} Plan;

/* Queries, and what is wanted: the k nearest within the radius; a scan looks at the groups first ... last - 1. */
typedef struct {
    const uint64_t *queries;
    int64_t n_queries, k, first, last;
    int radius;
    /* A group for each query that a walk does not enter, or -1; or NULL. */
    const int64_t *skipped;
} Task;

/* Answers: that of query q has lengths[q] distances and ids from starts[q] on. With a width, starts[q] is q * width, and the
arrays are the caller's; without, they grow, in the order in which queries are answered. */
typedef struct {
    int64_t width, n_found, room;
    int64_t *starts, *lengths;
    int32_t *distances;
    int64_t *ids;
} Answer;

/* Answers the queries; returns -1 without memory. */
int find(const Plan *plan, const Task *task, Answer *answer);

/* Frees what `find` has made: all but arrays that are the caller's. */
void answer_free(Answer *answer);

#endif
