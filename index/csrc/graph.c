/* The walk through a navigable graph. */
#include "graph.h"

#define AT_ONCE 64

static inline int64_t place_in(const int32_t *seen, int64_t capacity, int32_t value) {
    int64_t at = (int64_t)(((uint64_t)(uint32_t)value * 0x9E3779B97F4A7C15ull) >> 32) & (capacity - 1);
    while (seen[at] && seen[at] != value) at = (at + 1) & (capacity - 1);
    return at;
}

/* Returns 1 when the group was not seen before, and notes it; -1 without memory. */
static int walk_sees(Walk *walk, int32_t g) {
    int64_t at = place_in(walk->seen, walk->capacity, g + 1);
    if (walk->seen[at]) return 0;
    walk->seen[at] = g + 1;
    if (2 * ++walk->n_seen < walk->capacity) return 1;
    int32_t *seen = calloc(2 * walk->capacity, sizeof(int32_t));
    if (!seen) return -1;
    for (int64_t i = 0; i < walk->capacity; i++)
        if (walk->seen[i]) seen[place_in(seen, 2 * walk->capacity, walk->seen[i])] = walk->seen[i];
    free(walk->seen);
    walk->seen = seen;
    walk->capacity *= 2;
    return 1;
}

static int walk_push(Walk *walk, int32_t g, int distance) {
    if (walk->n_open == walk->open_capacity) {
        void *open = realloc(walk->open, 2 * walk->open_capacity * sizeof(*walk->open));
        if (!open) return -1;
        walk->open = open;
        walk->open_capacity *= 2;
    }
    walk->open[walk->n_open].group = g;
    walk->open[walk->n_open].next = walk->stacks[distance];
    walk->stacks[distance] = (int32_t)walk->n_open++;
    return 0;
}

static int walk_start(Walk *walk, int n_levels) {
    if (!walk->seen) {
        walk->capacity = 4096;
        walk->open_capacity = 1024;
        walk->seen = malloc(walk->capacity * sizeof(int32_t));
        walk->open = malloc(walk->open_capacity * sizeof(*walk->open));
        if (!walk->seen || !walk->open) return -1;
    }
    memset(walk->seen, 0, walk->capacity * sizeof(int32_t));
    memset(walk->stacks, -1, n_levels * sizeof(int32_t));
    walk->n_seen = walk->n_open = 0;
    return 0;
}

/* Returns the links of a group in a level; whatever the arrays hold, they lie within them. */
static inline const int32_t *links_of(const Graph *graph, int64_t g, int level, int *n) {
    int64_t start = graph->offsets[g], stop = graph->offsets[g + 1], skip = level ? (int64_t)graph->m * (level + 1) : 0;
    *n = 0;
    if (start < 0 || stop > graph->n_links || start > stop || stop - start < skip) return graph->links;
    int64_t most = level ? graph->m : 2 * graph->m;
    *n = (int)(stop - start - skip < most ? stop - start - skip : most);
    return graph->links + start + skip;
}

POPCNT int find_by_graph(
    Finder *finder, const Groups *groups, const Graph *graph, int64_t skipped, Walk *walk
) {
    const int n_words = groups->n_words, n_levels = 64 * n_words + 1;
    /* The ef nearest so far are within `bound`, `nearer` of them nearer than it. Where all within a radius are wanted,
    the walk goes on from all of them. */
    const int wanted = finder->k == INT64_MAX ? finder->bound : -1;
    int64_t counts[MAX_LEVELS], nearer = 0;
    int bound = n_levels - 1, n_links, lowest;
    int64_t current = graph->entry;
    if (current < 0 || current >= groups->n) return 0;
    if (walk_start(walk, n_levels)) return -1;
    memset(counts, 0, n_levels * sizeof(int64_t));
    lowest = distance_of(groups->codes + current * n_words, finder->query, n_words);
    for (int level = graph->top; level > 0; level--)
        for (int better = 1; better;) {
            const int32_t *links = links_of(graph, current, level, &n_links);
            better = 0;
            for (int i = 0; i < n_links && links[i] >= 0; i++) {
                if (links[i] >= groups->n || links[i] == skipped) continue;
                int distance = distance_of(groups->codes + (int64_t)links[i] * n_words, finder->query, n_words);
                if (distance < lowest) {
                    lowest = distance;
                    current = links[i];
                    better = 1;
                }
            }
        }
    if (walk_sees(walk, (int32_t)current) < 0 || walk_push(walk, (int32_t)current, lowest)) return -1;
    if (current != skipped) finder_add(finder, groups, current, lowest);
    counts[lowest]++;
    for (;;) {
        while (lowest < n_levels && walk->stacks[lowest] < 0) lowest++;
        if (lowest >= n_levels || (lowest > bound && lowest > wanted)) return 0;
        int32_t at = walk->stacks[lowest], fresh[AT_ONCE];
        walk->stacks[lowest] = walk->open[at].next;
        const int32_t *links = links_of(graph, walk->open[at].group, 0, &n_links);
        for (int first = 0; first < n_links; first += AT_ONCE) {
            int n_fresh = 0;
            for (int i = first; i < n_links && i < first + AT_ONCE && links[i] >= 0; i++) {
                if (links[i] >= groups->n || links[i] == skipped) continue;
                int new = walk_sees(walk, links[i]);
                if (new < 0) return -1;
                if (!new) continue;
                fresh[n_fresh++] = links[i];
                __builtin_prefetch(groups->codes + (int64_t)links[i] * n_words);
            }
            for (int i = 0; i < n_fresh; i++) {
                int distance = distance_of(groups->codes + (int64_t)fresh[i] * n_words, finder->query, n_words);
                if (distance <= finder->limit) finder_add(finder, groups, fresh[i], distance);
                if (nearer + counts[bound] >= graph->ef && distance >= bound && distance > wanted) continue;
                if (walk_push(walk, fresh[i], distance)) return -1;
                __builtin_prefetch(graph->offsets + fresh[i]);
                if (distance < lowest) lowest = distance;
                counts[distance]++;
                if (distance < bound) {
                    nearer++;
                    while (nearer >= graph->ef) nearer -= counts[--bound];
                }
            }
        }
    }
}
