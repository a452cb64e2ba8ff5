/* Putting in order: codes, and what was found in several places. */
#include "ordering.h"

#include <stdlib.h>

typedef struct {
    uint64_t key;
    int64_t at;
} Keyed;

typedef struct {
    const uint64_t *code;
    int64_t at;
    int n_words;
} Coded;

static int by_code(const void *a, const void *b) {
    const Coded *x = a, *y = b;
    for (int w = 1; w < x->n_words; w++)
        if (x->code[w] != y->code[w]) return x->code[w] < y->code[w] ? -1 : 1;
    return (x->at > y->at) - (x->at < y->at);
}

int sort_codes(const uint64_t *codes, int64_t n, int n_words, int64_t *order) {
    Keyed *from = malloc((n + 1) * sizeof(Keyed)), *to = malloc((n + 1) * sizeof(Keyed));
    int64_t(*counts)[256] = calloc(8, sizeof(*counts));
    int failed = !from || !to || !counts;
    if (!failed) {
        for (int64_t i = 0; i < n; i++) {
            from[i] = (Keyed){codes[i * n_words], i};
            for (int digit = 0; digit < 8; digit++) counts[digit][(from[i].key >> (8 * digit)) & 255]++;
        }
        for (int digit = 0; digit < 8; digit++) {
            int64_t place = 0, largest = 0;
            for (int value = 0; value < 256; value++) {
                int64_t count = counts[digit][value];
                if (count > largest) largest = count;
                counts[digit][value] = place;
                place += count;
            }
            if (largest == n) continue; /* all the same */
            for (int64_t i = 0; i < n; i++) to[counts[digit][(from[i].key >> (8 * digit)) & 255]++] = from[i];
            Keyed *swap = from;
            from = to;
            to = swap;
        }
        for (int64_t i = 0; i < n; i++) order[i] = from[i].at;
    }
    /* Equal first words: by the others. */
    for (int64_t i = 0, stop; n_words > 1 && !failed && i < n; i = stop) {
        for (stop = i + 1; stop < n && from[stop].key == from[i].key;) stop++;
        if (stop == i + 1) continue;
        Coded *run = malloc((stop - i) * sizeof(Coded));
        if (!run) {
            failed = 1;
            break;
        }
        for (int64_t j = i; j < stop; j++) run[j - i] = (Coded){codes + from[j].at * n_words, from[j].at, n_words};
        qsort(run, stop - i, sizeof(Coded), by_code);
        for (int64_t j = i; j < stop; j++) order[j] = run[j - i].at;
        free(run);
    }
    free(from);
    free(to);
    free(counts);
    return failed ? -1 : 0;
}

void merge(Part *parts, int n_parts, int64_t n_queries, int64_t k, int64_t *limits, int32_t *distances, int64_t *ids) {
    int64_t written = 0;
    for (int64_t q = 0; q < n_queries; q++) {
        for (int p = 0; p < n_parts; p++) {
            parts[p].at = parts[p].limits[q];
            parts[p].stop = parts[p].limits[q + 1];
        }
        for (int64_t i = 0; i < k; i++) {
            Part *first = NULL;
            for (Part *part = parts; part < parts + n_parts; part++) {
                if (part->at == part->stop) continue;
                int32_t distance = part->distances[part->at];
                if (!first || distance < first->distances[first->at]
                    || (distance == first->distances[first->at] && part->ids[part->at] < first->ids[first->at]))
                    first = part;
            }
            if (!first) break;
            distances[written] = first->distances[first->at];
            ids[written++] = first->ids[first->at++];
        }
        limits[q + 1] = written;
    }
}
