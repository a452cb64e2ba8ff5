/* From queries to answers: one query after the other; but where codes are scanned, each block is read for all queries. */
#include "find.h"

/* Codes that all queries of a batch see before the next ones are read: they stay in the first cache. */
#define BLOCK_BYTES 16384
/* Queries whose nearest lists are looked for, and fetched, before the first of them is scanned. */
#define AHEAD 8

static int start(const Plan *plan, const Task *task, Finder *finder, int64_t q, int radius) {
    const int n_words = plan->groups.n_words;
    return finder_start(finder, task->queries + q * n_words, task->k, radius, plan->ascending, 64 * n_words + 1);
}

/* Notes the answer of a query. */
static int emit(const Plan *plan, Answer *answer, Finder *finder, int64_t q) {
    int64_t length = finder_length(finder), at = answer->width ? q * answer->width : answer->n_found;
    if (!answer->width && at + length > answer->room) {
        int64_t room = 2 * (at + length) + 64;
        int32_t *distances = realloc(answer->distances, room * sizeof(int32_t));
        if (distances) answer->distances = distances;
        int64_t *ids = realloc(answer->ids, room * sizeof(int64_t));
        if (ids) answer->ids = ids;
        if (!distances || !ids) return -1;
        answer->room = room;
    }
    length = finder_write(finder, &plan->groups, answer->distances + at, answer->ids + at);
    if (length < 0) return -1;
    answer->starts[q] = at;
    answer->lengths[q] = length;
    answer->n_found += length;
    return 0;
}

static int find_in_lists(const Plan *plan, const Task *task, Finder *finder, Answer *answer) {
    const Groups *groups = &plan->groups;
    const Scan scan = scan_for(groups->n_words);
    int32_t *scratch = malloc((3 * plan->lists.n + 16) * sizeof(int32_t));
    Near near[AHEAD];
    int failed = !scratch;
    for (int64_t q = 0; q < task->n_queries && !failed; q++) {
        if (q % AHEAD == 0)
            for (int64_t next = q; next < q + AHEAD && next < task->n_queries; next++)
                near[next % AHEAD] = nearest_lists(groups, &plan->lists, task->queries + next * groups->n_words);
        failed = start(plan, task, finder, q, task->radius);
        if (failed) break;
        find_by_lists(finder, groups, &plan->lists, near[q % AHEAD], scan, scratch);
        failed = emit(plan, answer, finder, q);
    }
    free(scratch);
    return failed;
}

static int find_in_graph(const Plan *plan, const Task *task, Finder *finder, Answer *answer) {
    Graph graph = plan->graph;
    Walk *walk = calloc(1, sizeof(Walk));
    int failed = !walk;
    if (task->k != ALL && graph.ef < task->k) graph.ef = task->k;
    for (int64_t q = 0; q < task->n_queries && !failed; q++)
        failed = start(plan, task, finder, q, task->radius)
              || find_by_graph(finder, &plan->groups, &graph, task->skipped ? task->skipped[q] : -1, walk)
              || emit(plan, answer, finder, q);
    if (walk) {
        free(walk->seen);
        free(walk->open);
    }
    free(walk);
    return failed;
}

/* Scans for those queries that have a bound, of at least 0: what is further than that is not wanted. */
static int find_by_scan(const Plan *plan, const Task *task, const int *bounds, Answer *answer) {
    const int n_levels = 64 * plan->groups.n_words + 1;
    const Scan scan = scan_for(plan->groups.n_words);
    const int64_t step = BLOCK_BYTES / (8 * plan->groups.n_words);
    int64_t n_open = 0, at = 0;
    for (int64_t q = 0; q < task->n_queries; q++) n_open += bounds[q] >= 0;
    if (!n_open) return 0;
    Finder *finders = calloc(n_open, sizeof(Finder));
    int64_t *counts = malloc(n_open * n_levels * sizeof(int64_t));
    int failed = !finders || !counts;
    for (int64_t q = 0; q < task->n_queries && !failed; q++) {
        if (bounds[q] < 0) continue;
        finders[at].counts = counts + at * n_levels;
        failed = start(plan, task, &finders[at++], q, bounds[q]);
    }
    for (int64_t first = task->first; first < task->last && !failed; first += step) {
        int64_t last = first + step < task->last ? first + step : task->last;
        for (int64_t i = 0; i < n_open; i++) scan(&finders[i], &plan->groups, first, last);
    }
    at = 0;
    for (int64_t q = 0; q < task->n_queries && !failed; q++)
        if (bounds[q] >= 0) failed = emit(plan, answer, &finders[at++], q);
    for (int64_t i = 0; finders && i < n_open; i++) free(finders[i].hits);
    free(finders);
    free(counts);
    return failed;
}

static int find_by_look_ups(const Plan *plan, const Task *task, Finder *finder, Answer *answer) {
    int *bounds = malloc((task->n_queries + 1) * sizeof(int));
    int failed = !bounds;
    for (int64_t q = 0; q < task->n_queries && !failed; q++) {
        bounds[q] = task->radius;
        if (!plan->tables.n_tables) continue;
        failed = start(plan, task, finder, q, task->radius);
        if (failed) break;
        if (find_by_tables(finder, &plan->groups, &plan->tables)) {
            bounds[q] = -1;
            failed = emit(plan, answer, finder, q);
        } else {
            /* What the look-ups have found bounds the scan. */
            bounds[q] = finder->bound;
        }
    }
    failed = failed || find_by_scan(plan, task, bounds, answer);
    free(bounds);
    return failed;
}

int find(const Plan *plan, const Task *task, Answer *answer) {
    int64_t counts[MAX_LEVELS];
    Finder finder = {.counts = counts};
    int failed;
    answer->starts = malloc((task->n_queries + 1) * sizeof(int64_t));
    answer->lengths = malloc((task->n_queries + 1) * sizeof(int64_t));
    if (!answer->starts || !answer->lengths) return -1;
    if (plan->lists.n) failed = find_in_lists(plan, task, &finder, answer);
    else if (plan->graph.links) failed = find_in_graph(plan, task, &finder, answer);
    else failed = find_by_look_ups(plan, task, &finder, answer);
    free(finder.hits);
    return failed ? -1 : 0;
}

void answer_free(Answer *answer) {
    free(answer->starts);
    free(answer->lengths);
    if (answer->width) return;
    free(answer->distances);
    free(answer->ids);
}
