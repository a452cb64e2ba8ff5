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

/* Returns 8 bytes as 8 numbers. */
AVX2 static inline __m256i numbers(const uint8_t *bytes) {
    return _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)bytes));
}

/* Scales n_rows rows of 4 bytes a pixel, `stride` bytes from one another, to rows of n_out pixels of 3 bytes. */
AVX2 static void across(
    const uint8_t *pixels, int64_t stride, int n_rows, const Weights *weights, int n_out, uint8_t *scaled
) {
    const __m256i in_halves = _mm256_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1);
    const __m256i half = _mm256_setr_epi32(HALF, HALF, HALF, HALF, 0, 0, 0, 0);
    for (int y = 0; y < n_rows; y += ROWS) {
        const uint8_t *rows[ROWS];
        uint8_t *places[ROWS];
        for (int r = 0; r < ROWS; r++) {
            const int row = y + r < n_rows ? y + r : n_rows - 1;
            rows[r] = pixels + stride * row;
            places[r] = scaled + 3 * (int64_t)n_out * row;
        }
        for (int i = 0; i < n_out; i++) {
            const int32_t *weight = weights->weights + (int64_t)i * weights->width;
            const int count = weights->counts[i];
            int64_t at = 4 * (int64_t)weights->firsts[i];
            __m256i pairs[ROWS];
            __m128i sums[ROWS];
            for (int r = 0; r < ROWS; r++) pairs[r] = half;
            int k = 0;
            for (; k + 2 <= count; k += 2, at += 8) {
                const __m256i two = _mm256_castsi128_si256(_mm_loadl_epi64((const __m128i *)(weight + k)));
                const __m256i both = _mm256_permutevar8x32_epi32(two, in_halves);
                for (int r = 0; r < ROWS; r++)
                    pairs[r] = _mm256_add_epi32(pairs[r], _mm256_mullo_epi32(both, numbers(rows[r] + at)));
            }
            for (int r = 0; r < ROWS; r++) {
                sums[r] = _mm_add_epi32(_mm256_castsi256_si128(pairs[r]), _mm256_extracti128_si256(pairs[r], 1));
                if (k < count) {
                    int32_t pixel;
                    memcpy(&pixel, rows[r] + at, 4);
                    const __m128i last = _mm_cvtepu8_epi32(_mm_cvtsi32_si128(pixel));
                    sums[r] = _mm_add_epi32(sums[r], _mm_mullo_epi32(_mm_set1_epi32(weight[k]), last));
                }
                sums[r] = _mm_srai_epi32(sums[r], WEIGHT_BITS);
            }
            const __m128i bytes = _mm_packus_epi16(_mm_packs_epi32(sums[0], sums[1]), _mm_packs_epi32(sums[2], sums[3]));
            const int32_t four[ROWS] = {
                _mm_cvtsi128_si32(bytes), _mm_extract_epi32(bytes, 1), _mm_extract_epi32(bytes, 2),
                _mm_extract_epi32(bytes, 3)};
            if (i + 1 < n_out) /* The next pixel overwrites the fourth byte. */
                for (int r = 0; r < ROWS; r++) memcpy(places[r] + 3 * i, &four[r], 4);
            else
                for (int r = 0; r < ROWS; r++) memcpy(places[r] + 3 * i, &four[r], 3);
        }
    }
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
        across(picture.pixels, stride, height, &columns, width, scaled);
        failed = 0;
        goto done;
    }
    if (weigh(&rows, picture.height, box.y0, box.y1, height, filter)) goto done;
    const int first = rows.firsts[0], last = rows.firsts[height - 1] + rows.counts[height - 1];
    const uint8_t *pixels = picture.pixels + stride * first;
    if (picture.height > height && picture.height - height > 2 * (picture.width - width)) {
        between = malloc((size_t)stride * (size_t)height);
        if (!between) goto done;
        down(pixels, (int)stride, first, &rows, height, between);
        across(between, stride, height, &columns, width, scaled);
        failed = 0;
    } else {
        between = malloc(3 * (size_t)width * (size_t)(last - first));
        if (!between) goto done;
        across(pixels, stride, last - first, &columns, width, between);
        down(between, 3 * width, first, &rows, height, scaled);
        failed = 0;
    }
done:
    free_weights(&columns);
    free_weights(&rows);
    free(between);
    return failed;
}
