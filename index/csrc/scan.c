/* Comparing queries with all codes of a range: for any processor, and with AVX-512. */
#include "scan.h"

#define MEASURE(attributes, name)                                                                                      \
    attributes static void name(const uint64_t *codes, int64_t n, int n_words, const uint64_t *query, int32_t *out) {  \
        if (n_words == 1)                                                                                              \
            for (int64_t i = 0; i < n; i++) out[i] = (int32_t)__builtin_popcountll(codes[i] ^ query[0]);               \
        else if (n_words == 2)                                                                                         \
            for (int64_t i = 0; i < n; i++) out[i] = (int32_t)distance_of(codes + 2 * i, query, 2);                    \
        else if (n_words == 4)                                                                                         \
            for (int64_t i = 0; i < n; i++) out[i] = (int32_t)distance_of(codes + 4 * i, query, 4);                    \
        else                                                                                                           \
            for (int64_t i = 0; i < n; i++) out[i] = (int32_t)distance_of(codes + n_words * i, query, n_words);        \
    }

MEASURE(POPCNT, measure)
#if defined(__x86_64__)
MEASURE(AVX512, measure_avx512)
#endif

Measure measure_for(void) {
#if defined(__x86_64__)
    if (has_avx512()) return measure_avx512;
#endif
    return measure;
}

/* Adds codes, some at a time, until k are found, or few are near enough; returns the first group that is left. */
static inline int64_t scan_first(Finder *finder, const Groups *groups, int64_t first, int64_t last, Measure measure_some) {
    int32_t distances[FIRST_CODES];
    for (int n = FIRST_CODES, many = 1; many && first < last && !finder_is_full(finder); first += n) {
        const int64_t before = finder->n_hits;
        if (last - first < n) n = (int)(last - first);
        measure_some(groups->codes + first * groups->n_words, n, groups->n_words, finder->query, distances);
        finder_add_first(finder, groups, first, n, distances);
        many = finder->n_hits - before > n / 2;
    }
    return first;
}

POPCNT static void scan_words(Finder *finder, const Groups *groups, int64_t first, int64_t last) {
    const int n_words = groups->n_words;
    first = scan_first(finder, groups, first, last, measure);
    const uint64_t *code = groups->codes + first * n_words;
    for (int64_t g = first; g < last; g++, code += n_words) {
        int distance = distance_of(code, finder->query, n_words);
        if (__builtin_expect(distance <= finder->limit, 0)) finder_add(finder, groups, g, distance);
    }
}

POPCNT static void scan_1_word(Finder *finder, const Groups *groups, int64_t first, int64_t last) {
    const uint64_t query = finder->query[0];
    for (int64_t g = scan_first(finder, groups, first, last, measure); g < last; g++) {
        int distance = __builtin_popcountll(groups->codes[g] ^ query);
        if (__builtin_expect(distance <= finder->limit, 0)) finder_add(finder, groups, g, distance);
    }
}

#if defined(__x86_64__)
/* Adds those of 8 distances that are within the limit and chosen by the mask; they are of the groups from `first` on. */
AVX512 static inline void add_lanes(
    Finder *finder, const Groups *groups, int64_t first, __m512i distances, __m512i limit, unsigned mask
) {
    int64_t values[8];
    mask &= _mm512_cmple_epi64_mask(distances, limit);
    if (!mask) return;
    _mm512_storeu_si512(values, distances);
    for (; mask; mask &= mask - 1) {
        int lane = __builtin_ctz(mask);
        finder_add(finder, groups, first + lane, (int)values[lane]);
    }
}

AVX512 static inline __m512i counts_at(const uint64_t *codes, __m512i query) {
    return _mm512_popcnt_epi64(_mm512_xor_si512(_mm512_loadu_si512(codes), query));
}

AVX512 static inline __m512i sums_of_pairs(__m512i a, __m512i b) {
    return _mm512_add_epi64(_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b));
}

AVX512 static inline __m512i in_order(__m512i distances, const int64_t *lanes) {
    return _mm512_permutexvar_epi64(_mm512_loadu_si512(lanes), distances);
}

/* Where the distances of groups of 2 or 4 words come to stand. */
static const int64_t OF_2_WORDS[8] = {0, 2, 4, 6, 1, 3, 5, 7};
static const int64_t OF_4_WORDS[8] = {0, 2, 1, 3, 4, 6, 5, 7};

AVX512 static void scan_1_word_avx512(Finder *finder, const Groups *groups, int64_t first, int64_t last) {
    const uint64_t *codes = groups->codes;
    const __m512i query = _mm512_set1_epi64((long long)finder->query[0]);
    int64_t g = scan_first(finder, groups, first, last, measure_avx512);
    __m512i limit = _mm512_set1_epi64(finder->limit);
    for (; g + 32 <= last; g += 32) {
        __m512i a = counts_at(codes + g, query), b = counts_at(codes + g + 8, query);
        __m512i c = counts_at(codes + g + 16, query), d = counts_at(codes + g + 24, query);
        __m512i least = _mm512_min_epu64(_mm512_min_epu64(a, b), _mm512_min_epu64(c, d));
        if (__builtin_expect(_mm512_cmple_epi64_mask(least, limit) != 0, 0)) {
            add_lanes(finder, groups, g, a, limit, 255);
            add_lanes(finder, groups, g + 8, b, limit, 255);
            add_lanes(finder, groups, g + 16, c, limit, 255);
            add_lanes(finder, groups, g + 24, d, limit, 255);
            limit = _mm512_set1_epi64(finder->limit);
        }
    }
    for (; g < last; g += 8) {
        const unsigned mask = last - g < 8 ? (1u << (last - g)) - 1 : 255;
        __m512i some = _mm512_maskz_loadu_epi64((__mmask8)mask, codes + g);
        add_lanes(finder, groups, g, _mm512_popcnt_epi64(_mm512_xor_si512(some, query)), limit, mask);
    }
}

AVX512 static void scan_2_words_avx512(Finder *finder, const Groups *groups, int64_t first, int64_t last) {
    const uint64_t *q = finder->query;
    const __m512i query = _mm512_set4_epi64((long long)q[1], (long long)q[0], (long long)q[1], (long long)q[0]);
    int64_t g = scan_first(finder, groups, first, last, measure_avx512);
    __m512i limit = _mm512_set1_epi64(finder->limit);
    for (; g + 16 <= last; g += 16) {
        const uint64_t *codes = groups->codes + 2 * g;
        __m512i a = sums_of_pairs(counts_at(codes, query), counts_at(codes + 8, query));
        __m512i b = sums_of_pairs(counts_at(codes + 16, query), counts_at(codes + 24, query));
        if (__builtin_expect(_mm512_cmple_epi64_mask(_mm512_min_epu64(a, b), limit) != 0, 0)) {
            add_lanes(finder, groups, g, in_order(a, OF_2_WORDS), limit, 255);
            add_lanes(finder, groups, g + 8, in_order(b, OF_2_WORDS), limit, 255);
            limit = _mm512_set1_epi64(finder->limit);
        }
    }
    scan_words(finder, groups, g, last);
}

AVX512 static void scan_4_words_avx512(Finder *finder, const Groups *groups, int64_t first, int64_t last) {
    const uint64_t *q = finder->query;
    const __m512i query = _mm512_set4_epi64((long long)q[3], (long long)q[2], (long long)q[1], (long long)q[0]);
    int64_t g = scan_first(finder, groups, first, last, measure_avx512);
    __m512i limit = _mm512_set1_epi64(finder->limit);
    for (; g + 8 <= last; g += 8) {
        const uint64_t *codes = groups->codes + 4 * g;
        __m512i a = sums_of_pairs(counts_at(codes, query), counts_at(codes + 8, query));
        __m512i b = sums_of_pairs(counts_at(codes + 16, query), counts_at(codes + 24, query));
        __m512i sums = _mm512_add_epi64(_mm512_shuffle_i64x2(a, b, 0x88), _mm512_shuffle_i64x2(a, b, 0xdd));
        if (__builtin_expect(_mm512_cmple_epi64_mask(sums, limit) != 0, 0)) {
            add_lanes(finder, groups, g, in_order(sums, OF_4_WORDS), limit, 255);
            limit = _mm512_set1_epi64(finder->limit);
        }
    }
    scan_words(finder, groups, g, last);
}

AVX512 static void scan_words_avx512(Finder *finder, const Groups *groups, int64_t first, int64_t last) {
    const int n_words = groups->n_words;
    const int n_whole = n_words / 8, n_rest = n_words % 8;
    const __mmask8 rest = (__mmask8)((1u << n_rest) - 1);
    first = scan_first(finder, groups, first, last, measure_avx512);
    const uint64_t *q = finder->query, *code = groups->codes + first * n_words;
    for (int64_t g = first; g < last; g++, code += n_words) {
        __m512i sum = _mm512_setzero_si512();
        for (int v = 0; v < n_whole; v++)
            sum = _mm512_add_epi64(sum, counts_at(code + 8 * v, _mm512_loadu_si512(q + 8 * v)));
        if (n_rest) {
            __m512i left = _mm512_maskz_loadu_epi64(rest, code + 8 * n_whole);
            __m512i right = _mm512_maskz_loadu_epi64(rest, q + 8 * n_whole);
            sum = _mm512_add_epi64(sum, _mm512_popcnt_epi64(_mm512_xor_si512(left, right)));
        }
        int distance = (int)_mm512_reduce_add_epi64(sum);
        if (__builtin_expect(distance <= finder->limit, 0)) finder_add(finder, groups, g, distance);
    }
}
#endif

Scan scan_for(int n_words) {
#if defined(__x86_64__)
    if (has_avx512()) {
        if (n_words == 1) return scan_1_word_avx512;
        if (n_words == 2) return scan_2_words_avx512;
        if (n_words == 4) return scan_4_words_avx512;
        if (n_words > 4) return scan_words_avx512;
    }
#endif
    return n_words == 1 ? scan_1_word : scan_words;
}
