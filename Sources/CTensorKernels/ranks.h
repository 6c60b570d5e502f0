/* Counting magnitudes by their bit patterns, which sort in the same order. Included by bodies.h; its rules apply. */
#ifndef RANKS_H
#define RANKS_H

INLINE void histogram_high(const float *x, uint32_t *bins, size_t n) {
    /* Reading back a count that was just written stalls. Neighbours are often equal, so they are counted in separate tables. */
    size_t i = 0;
    for (; i + TK_HIGH_TABLES <= n; i += TK_HIGH_TABLES) {
        for (size_t k = 0; k < TK_HIGH_TABLES; k++) bins[k * TK_HIGH_BINS + ((bits_of(x[i + k]) & MAGNITUDE) >> 16)]++;
    }
    for (; i < n; i++) bins[(bits_of(x[i]) & MAGNITUDE) >> 16]++;
}

INLINE void histogram_low(const float *x, uint32_t high, uint32_t *bins, size_t n) {
    for (size_t i = 0; i < n; i++) {
        const uint32_t u = bits_of(x[i]) & MAGNITUDE;
        if (u >> 16 == high) bins[u & 0xffff]++;
    }
}

INLINE size_t count_equal(const float *x, uint32_t pattern, size_t n) {
    size_t count = 0;
    for (size_t i = 0; i < n; i++) count += (bits_of(x[i]) & MAGNITUDE) == pattern;
    return count;
}

/* The elements per step of count_window, and how many of them are noted unconditionally: an unpredictable branch costs more
 * than a store. */
enum { WINDOW_GROUP = 32, UNASKED = 2 };

INLINE size_t count_window(const float *x, uint32_t low, uint32_t high, tk_window_counts *counts, uint32_t *notes, size_t n) {
    const int32_t from = (int32_t)low, to = (int32_t)high;
    int32x8 above = {0}, at_high = {0}, at_low = {0};
    size_t noted = 0, i = 0;
    for (; i + WINDOW_GROUP <= n; i += WINDOW_GROUP) {
        uint32_t between = 0;
        for (size_t k = 0; k < WINDOW_GROUP; k += LANES) {
            const int32x8 u = *(const int32x8 *)(x + i + k) & MAGNITUDE;
            above -= u > to;
            at_high -= u == to;
            at_low -= u == from;
            const int32x8 inside = (u > from) & (u < to);
            between |= (uint32_t)byte_of(&inside) << k;
        }
        for (int k = 0; k < UNASKED; k++, between &= between - 1) {
            notes[noted] = bits_of(x[i + (size_t)__builtin_ctz(between | 1u << 31)]) & MAGNITUDE;
            noted += between != 0;
        }
        for (; __builtin_expect(between != 0, 0); between &= between - 1) {
            notes[noted++] = bits_of(x[i + (size_t)__builtin_ctz(between)]) & MAGNITUDE;
        }
    }
    for (size_t lane = 0; lane < LANES; lane++) {
        counts->above += (uint32_t)above[lane];
        counts->at_high += (uint32_t)at_high[lane];
        counts->at_low += (uint32_t)at_low[lane];
    }
    for (; i < n; i++) {
        const uint32_t u = bits_of(x[i]) & MAGNITUDE;
        counts->above += u > high;
        counts->at_high += u == high;
        counts->at_low += u == low;
        notes[noted] = u;
        noted += u > low && u < high;
    }
    return noted;
}

#endif
