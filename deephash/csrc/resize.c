/* Pillow's algorithm (src/libImaging/Resample.c): a pass across, then one down, each rounded to 8 bits; the weights are
whole numbers of 2^-22. Where the height shrinks much more than the width, the pass down comes first, as in Pillow 13.
Sums of whole numbers do not depend on their order, so the results are the same, bit for bit. */
#include "resize.h"

#include <immintrin.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define AVX2 __attribute__((target("avx2")))
#define WEIGHT_BITS 22
#define HALF (1 << (WEIGHT_BITS - 1))
/* A weight is a whole number of 2^LOW_BITS and so many bits. */
#define LOW_BITS 15
/* So many rows go across at a time: they share the weights. */
#define ROWS 4

/* What one side is scaled by: output i is the sum of `counts[i]` inputs from `firsts[i]` on, by weights that start at
i * width. */
typedef struct {
    int *firsts, *counts;
    int32_t *weights;
    int width;
} Weights;

static double filtered(Filter filter, double x) {
    const double a = -0.5;
    x = fabs(x);
    if (filter == BILINEAR) return x < 1.0 ? 1.0 - x : 0.0;
    if (x < 1.0) return ((a + 2.0) * x - (a + 3.0)) * x * x + 1;
    return x < 2.0 ? (((x - 5) * x + 8) * x - 4) * a : 0.0;
}

static void free_weights(Weights *weights) {
    free(weights->firsts);
    free(weights->weights);
}

static int weigh(Weights *weights, int n_in, float start, float stop, int n_out, Filter filter) {
    const double scale = (double)(stop - start) / n_out, width = scale < 1.0 ? 1.0 : scale;
    const double support = (filter == BILINEAR ? 1.0 : 2.0) * width, inverse = 1.0 / width;
    weights->width = (int)ceil(support) * 2 + 1;
    weights->firsts = malloc(2 * sizeof(int) * (size_t)n_out);
    weights->weights = malloc(sizeof(int32_t) * (size_t)n_out * (size_t)weights->width);
    double *exact = malloc(sizeof(double) * (size_t)weights->width);
    const int failed = !weights->firsts || !weights->weights || !exact;
    weights->counts = failed ? NULL : weights->firsts + n_out;
    for (int i = 0; !failed && i < n_out; i++) {
        const double centre = start + (i + 0.5) * scale;
        int first = (int)(centre - support + 0.5), last = (int)(centre + support + 0.5);
        if (first < 0) first = 0;
        if (last > n_in) last = n_in;
        double sum = 0.0;
        for (int k = 0; k < last - first; k++) sum += exact[k] = filtered(filter, (k + first - centre + 0.5) * inverse);
        for (int k = 0; k < last - first; k++) {
            const double weight = (sum != 0.0 ? exact[k] / sum : exact[k]) * (1 << WEIGHT_BITS);
            weights->weights[i * weights->width + k] = (int32_t)(weight < 0 ? weight - 0.5 : weight + 0.5);
        }
        weights->firsts[i] = first;
        weights->counts[i] = last - first;
    }
    free(exact);
    return failed ? -1 : 0;
}

/* Weights of an even input and the next one, for products of 16 bits: their LOW_BITS low bits, and the rest. Output i is
the sum of n pairs, from firsts[i] on; all are of those from begin to end. */
typedef struct {
    int *firsts;
    int32_t *low, *high;
    int n, begin, end;
} Pairs;

static void free_pairs(Pairs *pairs) {
    free(pairs->firsts);
    free(pairs->low);
}

static int pair_up(Pairs *pairs, const Weights *weights, int n_out) {
    pairs->firsts = malloc(sizeof(int) * (size_t)n_out);
    if (!pairs->firsts) return -1;
    pairs->n = 1;
    for (int i = 0; i < n_out; i++) {
        const int32_t *weight = weights->weights + (int64_t)i * weights->width;
        int first = 0, last = weights->counts[i] - 1;
        /* Without zeros: where a side stays as it is, one of four weights is left. */
        while (first < last && !weight[first]) first++;
        while (first < last && !weight[last]) last--;
        pairs->firsts[i] = (weights->firsts[i] + first) / 2;
        const int n = (weights->firsts[i] + last) / 2 - pairs->firsts[i] + 1;
        if (n > pairs->n) pairs->n = n;
    }
    const size_t n_weights = (size_t)n_out * (size_t)pairs->n;
    pairs->low = calloc(2 * n_weights, sizeof(int32_t));
    if (!pairs->low) return -1;
    pairs->high = pairs->low + n_weights;
    pairs->begin = pairs->end = weights->firsts[0] / 2;
    for (int i = 0; i < n_out; i++) {
        const int64_t at = (int64_t)i * pairs->n;
        for (int k = 0; k < weights->counts[i]; k++) {
            const int32_t weight = weights->weights[(int64_t)i * weights->width + k];
            const int input = weights->firsts[i] + k, pair = input / 2 - pairs->firsts[i], shift = input % 2 * 16;
            if (!weight) continue; /* whose pair may not be here */
            pairs->low[at + pair] |= (weight & ((1 << LOW_BITS) - 1)) << shift;
            pairs->high[at + pair] |= (int32_t)((uint32_t)((weight >> LOW_BITS) & 0xFFFF) << shift);
        }
        if (pairs->firsts[i] + pairs->n > pairs->end) pairs->end = pairs->firsts[i] + pairs->n;
    }
    return 0;
}

/* Lays a row's pairs of pixels out as 8 numbers each, one channel after the other, ROWS * 16 bytes apart. */
AVX2 static void lay_out(const uint8_t *row, int n_in, const Pairs *pairs, uint8_t *pairs_of_rows) {
    const __m256i order = _mm256_setr_epi8(
        0, -1, 4, -1, 1, -1, 5, -1, 2, -1, 6, -1, 3, -1, 7, -1, 8, -1, 12, -1, 9, -1, 13, -1, 10, -1, 14, -1, 11, -1,
        15, -1);
    for (int pair = pairs->begin; pair < pairs->end; pair += 2, pairs_of_rows += 2 * ROWS * 16) {
        __m128i four = _mm_setzero_si128();
        if (2 * pair + 4 <= n_in)
            four = _mm_loadu_si128((const __m128i *)(row + 8 * (int64_t)pair));
        else if (2 * pair < n_in)
            memcpy(&four, row + 8 * (int64_t)pair, 4 * (size_t)(n_in - 2 * pair));
        const __m256i both = _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(four), order);
        _mm_store_si128((__m128i *)pairs_of_rows, _mm256_castsi256_si128(both));
        _mm_store_si128((__m128i *)(pairs_of_rows + ROWS * 16), _mm256_extracti128_si256(both, 1));
    }
}

static inline void put_4(uint8_t *place, int32_t bytes) { memcpy(place, &bytes, 4); }

/* Scales ROWS rows that are laid out, by n pairs of weights for each output, to n_out pixels of 3 bytes. */
AVX2 static inline __attribute__((always_inline)) void rows_across(
    const __m256i *laid_out, const Pairs *pairs, int n, int n_out, uint8_t *const places[ROWS]
) {
    const int32_t *low = pairs->low, *high = pairs->high;
    uint8_t *place_0 = places[0], *place_1 = places[1], *place_2 = places[2], *place_3 = places[3];
    for (int i = 0; i < n_out; i++, low += n, high += n) {
        const __m256i *at = laid_out + (int64_t)(pairs->firsts[i] - pairs->begin) * (ROWS / 2);
        __m256i low_01 = _mm256_set1_epi32(HALF), low_23 = low_01;
        __m256i high_01 = _mm256_setzero_si256(), high_23 = high_01;
        for (int k = 0; k < n; k++, at += ROWS / 2) {
            const __m256i lows = _mm256_set1_epi32(low[k]), highs = _mm256_set1_epi32(high[k]);
            low_01 = _mm256_add_epi32(low_01, _mm256_madd_epi16(at[0], lows));
            low_23 = _mm256_add_epi32(low_23, _mm256_madd_epi16(at[1], lows));
            high_01 = _mm256_add_epi32(high_01, _mm256_madd_epi16(at[0], highs));
            high_23 = _mm256_add_epi32(high_23, _mm256_madd_epi16(at[1], highs));
        }
        low_01 = _mm256_srai_epi32(_mm256_add_epi32(low_01, _mm256_slli_epi32(high_01, LOW_BITS)), WEIGHT_BITS);
        low_23 = _mm256_srai_epi32(_mm256_add_epi32(low_23, _mm256_slli_epi32(high_23, LOW_BITS)), WEIGHT_BITS);
        const __m256i words = _mm256_packs_epi32(low_01, low_23), bytes = _mm256_packus_epi16(words, words);
        const __m128i even = _mm256_castsi256_si128(bytes), odd = _mm256_extracti128_si256(bytes, 1);
        if (i + 1 < n_out) { /* The next pixel overwrites the fourth byte. */
            put_4(place_0, _mm_cvtsi128_si32(even));
            put_4(place_1, _mm_cvtsi128_si32(odd));
            put_4(place_2, _mm_extract_epi32(even, 1));
            put_4(place_3, _mm_extract_epi32(odd, 1));
            place_0 += 3, place_1 += 3, place_2 += 3, place_3 += 3;
        } else {
            uint8_t last[32];
            _mm256_storeu_si256((__m256i *)last, bytes);
            memcpy(place_0, last, 3);
            memcpy(place_1, last + 16, 3);
            memcpy(place_2, last + 4, 3);
            memcpy(place_3, last + 20, 3);
        }
    }
}

/* Scales n_rows rows of n_in pixels of 4 bytes to rows of n_out pixels of 3 bytes. */
AVX2 static int across(const uint8_t *pixels, int n_in, int n_rows, const Weights *weights, int n_out, uint8_t *scaled) {
    Pairs pairs = {0};
    __m256i *laid_out = NULL;
    int failed = -1;
    if (pair_up(&pairs, weights, n_out)) goto done;
    laid_out = _mm_malloc((size_t)(pairs.end - pairs.begin + 1) * ROWS * 16, sizeof(__m256i));
    if (!laid_out) goto done;
    for (int y = 0; y < n_rows; y += ROWS) {
        uint8_t *places[ROWS];
        for (int r = 0; r < ROWS; r++) {
            const int row = y + r < n_rows ? y + r : n_rows - 1;
            lay_out(pixels + 4 * (int64_t)n_in * row, n_in, &pairs, (uint8_t *)laid_out + 16 * r);
            places[r] = scaled + 3 * (int64_t)n_out * row;
        }
        switch (pairs.n) { /* The loop over a number that the compiler knows is faster. */
            case 1: rows_across(laid_out, &pairs, 1, n_out, places); break;
            case 3: rows_across(laid_out, &pairs, 3, n_out, places); break;
            case 4: rows_across(laid_out, &pairs, 4, n_out, places); break;
            default: rows_across(laid_out, &pairs, pairs.n, n_out, places);
        }
    }
    failed = 0;
done:
    free_pairs(&pairs);
    if (laid_out) _mm_free(laid_out);
    return failed;
}

/* Returns 8 bytes as 8 numbers. */
AVX2 static inline __m256i numbers(const uint8_t *bytes) {
    return _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)bytes));
}

/* Scales columns of n_bytes bytes, in rows without gaps, to n_out rows; `first` is the number of the first row given. */
AVX2 static void down(
    const uint8_t *pixels, int n_bytes, int first, const Weights *weights, int n_out, uint8_t *scaled
) {
    for (int i = 0; i < n_out; i++, scaled += n_bytes) {
        const int32_t *weight = weights->weights + (int64_t)i * weights->width;
        const int count = weights->counts[i];
        const uint8_t *rows = pixels + (int64_t)n_bytes * (weights->firsts[i] - first);
        for (int x = 0; x < n_bytes && n_bytes >= 16; x += 16) {
            if (x > n_bytes - 16) x = n_bytes - 16;
            __m256i low = _mm256_set1_epi32(HALF), high = low;
            const uint8_t *at = rows + x;
            for (int k = 0; k < count; k++, at += n_bytes) {
                const __m256i all = _mm256_set1_epi32(weight[k]);
                low = _mm256_add_epi32(low, _mm256_mullo_epi32(all, numbers(at)));
                high = _mm256_add_epi32(high, _mm256_mullo_epi32(all, numbers(at + 8)));
            }
            low = _mm256_packs_epi32(_mm256_srai_epi32(low, WEIGHT_BITS), _mm256_srai_epi32(high, WEIGHT_BITS));
            low = _mm256_permute4x64_epi64(low, 0xD8);
            const __m128i bytes = _mm_packus_epi16(_mm256_castsi256_si128(low), _mm256_extracti128_si256(low, 1));
            _mm_storeu_si128((__m128i *)(scaled + x), bytes);
        }
        for (int x = 0; x < n_bytes && n_bytes < 16; x++) {
            int32_t sum = HALF;
            for (int k = 0; k < count; k++) sum += weight[k] * rows[(int64_t)n_bytes * k + x];
            sum >>= WEIGHT_BITS;
            scaled[x] = (uint8_t)(sum < 0 ? 0 : sum > 255 ? 255 : sum);
        }
    }
}

int resize(Picture picture, Box box, Filter filter, int width, int height, uint8_t *scaled) {
    Weights columns = {0}, rows = {0};
    uint8_t *between = NULL;
    int failed = -1;
    const int64_t stride = 4 * (int64_t)picture.width;
    if (weigh(&columns, picture.width, box.x0, box.x1, width, filter)) goto done;
    if (box.y0 == 0 && box.y1 == height && picture.height == height) {
        failed = across(picture.pixels, picture.width, height, &columns, width, scaled);
        goto done;
    }
    if (weigh(&rows, picture.height, box.y0, box.y1, height, filter)) goto done;
    const int first = rows.firsts[0], last = rows.firsts[height - 1] + rows.counts[height - 1];
    const uint8_t *pixels = picture.pixels + stride * first;
    if (picture.height > height && picture.height - height > 2 * (picture.width - width)) {
        between = malloc((size_t)stride * (size_t)height);
        if (!between) goto done;
        down(pixels, (int)stride, first, &rows, height, between);
        failed = across(between, picture.width, height, &columns, width, scaled);
    } else {
        between = malloc(3 * (size_t)width * (size_t)(last - first));
        if (!between) goto done;
        failed = across(pixels, picture.width, last - first, &columns, width, between);
        if (!failed) down(between, 3 * width, first, &rows, height, scaled);
    }
done:
    free_weights(&columns);
    free_weights(&rows);
    free(between);
    return failed;
}
