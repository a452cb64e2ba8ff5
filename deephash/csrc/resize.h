/* Scaling RGB pictures to the numbers that Pillow gives, faster than it does, on processors with AVX2. */
#ifndef DEEPHASH_RESIZE_H
#define DEEPHASH_RESIZE_H

#include <stdint.h>

#if !defined(__GNUC__) || !defined(__x86_64__)
#error "needs GCC or Clang, and x86; without this module Pillow scales"
#endif

typedef enum { BILINEAR, BICUBIC } Filter;

/* A picture of 4 bytes a pixel, of which the last says nothing; rows follow one another without gaps. */
typedef struct {
    const uint8_t *pixels;
    int width, height;
} Picture;

/* Left, top, right and bottom of a part of a picture, within it and not empty. */
typedef struct {
    float x0, y0, x1, y1;
} Box;

/* Scales a box of the picture into width x height pixels of 3 bytes; returns -1 where there is no memory for it. */
int resize(Picture picture, Box box, Filter filter, int width, int height, uint8_t *scaled);

#endif
