/* The loops over tensor elements. No decisions are made here: which loop, over what, is the caller's business.
 *
 * Every level computes the same bits: IEEE float32 and float64 without fused multiply-add, reductions with a fixed number of
 * lanes and a fixed order at the end. Raw tensor data may be unaligned; float32 scratch is aligned as float.
 */
#ifndef TENSOR_KERNELS_H
#define TENSOR_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#pragma clang assume_nonnull begin

enum {
    TK_HIGH_BINS = 1 << 15, /* a float32 magnitude has 31 bits: 15 high ones ... */
    TK_LOW_BINS = 1 << 16,  /* ... and 16 low ones */
};

/* One instruction set's version of every loop. `n` counts elements. */
typedef struct tk_kernels {
    const char *name;

    /* Decoding to float32; f64 rounds to nearest even. */
    void (*widen_f16)(const void *source, float *target, size_t n);
    void (*widen_bf16)(const void *source, float *target, size_t n);
    void (*widen_f64)(const void *source, float *target, size_t n);
    /* Encoding from float32, to nearest even; what is too large becomes infinite, NaN stays a (quiet) NaN. */
    void (*narrow_f16)(const float *source, void *target, size_t n);
    void (*narrow_bf16)(const float *source, void *target, size_t n);
    void (*narrow_f64)(const float *source, void *target, size_t n);

    /* target = x - y; target may be x. */
    void (*subtract)(const float *x, const float *y, float *target, size_t n);
    /* target += x */
    void (*add)(const float *x, float *target, size_t n);
    /* target = a * x; target may be x. */
    void (*scale)(float a, const float *x, float *target, size_t n);
    /* target /= a */
    void (*divide)(float a, float *target, size_t n);
    /* target += a * x, in two roundings. */
    void (*axpy)(float a, const float *x, float *target, size_t n);
    /* Zeroes every element whose magnitude, as a bit pattern, lies below `pattern`. NaN has the largest patterns and stays. */
    void (*zero_below)(uint32_t pattern, float *target, size_t n);
    /* TIES' election over `models` vectors of weighted entries: target = sum of the entries whose sign is that of the sum of
     * all (zero counts as plus; a zero entry never agrees), divided by the sum of their weights when `normalize` is set and
     * that sum is not zero. NaN in any entry reaches the target. */
    void (*sign_consensus)(
        const float *_Nonnull const *_Nonnull entries, const float *weights, size_t models, bool normalize, float *target, size_t n);

    /* bins[high 15 bits of the magnitude] += 1; TK_HIGH_BINS bins. */
    void (*histogram_high)(const float *x, uint32_t *bins, size_t n);
    /* bins[low 16 bits] += 1 for the magnitudes whose high 15 bits are `high`; TK_LOW_BINS bins. */
    void (*histogram_low)(const float *x, uint32_t high, uint32_t *bins, size_t n);
    /* How many magnitudes have exactly this pattern. */
    size_t (*count_equal)(const float *x, uint32_t pattern, size_t n);

    /* Sums in float64 over eight lanes; the products are exact. */
    double (*dot)(const float *x, const float *y, size_t n);
    double (*sum_of_magnitudes)(const float *x, size_t n);
} tk_kernels;

/* Runs everywhere. */
const tk_kernels *tk_portable(void);
/* x86-64-v3 (AVX2) and x86-64-v4 (AVX-512); NULL on a processor without them. */
const tk_kernels *_Nullable tk_v3(void);
const tk_kernels *_Nullable tk_v4(void);

/* CRC-32C (Castagnoli, RFC 3720) of `n` bytes, continuing from `crc` (0 to begin). By instruction where there is one, else by table. */
uint32_t tk_crc32c(uint32_t crc, const void *bytes, size_t n);
uint32_t tk_crc32c_by_table(uint32_t crc, const void *bytes, size_t n);

/* Turns n elements of `width` bytes into `width` planes of n bytes, and back. */
void tk_split_planes(const uint8_t *source, uint8_t *target, size_t n, size_t width);
void tk_join_planes(const uint8_t *source, uint8_t *target, size_t n, size_t width);

#pragma clang assume_nonnull end

#endif
