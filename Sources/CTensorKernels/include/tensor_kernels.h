/* The loops over tensor elements. They make no decisions: the caller chooses the loop and its operands.
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
    TK_HIGH_TABLES = 2,     /* tables of high bins; their sum is the histogram */
    TK_LOW_BINS = 1 << 16,  /* ... and 16 low ones */
    TK_RANK_STRIDE = 64, /* buckets, at most, into which DELLA sorts a row's magnitudes ... */
    TK_RANK_CLASSES = 4 * TK_RANK_STRIDE, /* ... with four classes each */
    TK_TILE = 64, /* elements per step of a loop over several vectors */
    TK_BLOCK_LIMIT = 1024, /* largest block of keep_of_blocks, in elements */
};

/* The random words of elements first, first + 1, ..., as made by `draw`. */
typedef struct tk_random {
    uint64_t key;
    uint32_t stream;
    uint64_t first;
} tk_random;

/* Which elements of a vector of `count` a thinned form keeps: one of every `every` consecutive ones (a power of two, at most
 * 128), the last of which may be fewer. */
typedef struct tk_thinning {
    uint64_t key;
    size_t every, count;
} tk_thinning;

/* Scratch of keep_by_rank. `counts` must be zero on entry and is zero on return; `below` is undefined between calls. */
typedef struct tk_rank_buffer {
    uint32_t counts[4][TK_RANK_CLASSES], below[TK_RANK_CLASSES];
} tk_rank_buffer;

/* The counters of count_window. */
typedef struct tk_window_counts {
    size_t above, at_high, at_low;
} tk_window_counts;

/* Element types of tk_vector. */
enum { TK_F32, TK_BF16, TK_F16, TK_F64, TK_E4M3, TK_E5M2 };

/* Stored elements, decoded on the fly. */
typedef struct tk_vector {
    const void *data;
    int32_t type;
} tk_vector;

/* One model's task vector for merge_trimmed, x - base or x itself: the kept entries, times factor, times weight. */
typedef struct tk_trimmed {
    tk_vector x;
    bool is_difference;
    /* Entries are kept whose magnitude's bit pattern lies in from...to ... */
    uint32_t from, to;
    /* ... and whose flag is not 0. NULL: all flags are set. */
    const uint8_t *_Nullable keep;
    float factor, weight;
} tk_trimmed;

/* How merge_trimmed combines the kept entries. */
typedef struct tk_combination {
    /* Elect a sign for each element, as TIES does; else sum. */
    bool consensus;
    /* With consensus: divide by the sum of the agreeing weights. */
    bool normalize;
    /* Without consensus: divide the sum by this; 1 to leave the sum as it is. */
    float divisor;
    float lambda;
    /* Leave lambda and the base out: target = the combination alone. */
    bool unscaled;
} tk_combination;

/* All loops, compiled for one instruction set. `n` counts elements. */
typedef struct tk_kernels {
    const char *name;

    /* Decoding to float32; f64 rounds to nearest even. */
    void (*widen_f16)(const void *source, float *target, size_t n);
    void (*widen_bf16)(const void *source, float *target, size_t n);
    void (*widen_f64)(const void *source, float *target, size_t n);
    void (*widen_e4m3)(const void *source, float *target, size_t n);
    void (*widen_e5m2)(const void *source, float *target, size_t n);
    /* Encoding from float32, to nearest even. Overflow gives infinity, in e4m3 NaN. Every NaN becomes the same quiet NaN. */
    void (*narrow_f16)(const float *source, void *target, size_t n);
    void (*narrow_bf16)(const float *source, void *target, size_t n);
    void (*narrow_f32)(const float *source, void *target, size_t n);
    void (*narrow_f64)(const float *source, void *target, size_t n);
    void (*narrow_e4m3)(const float *source, void *target, size_t n);
    void (*narrow_e5m2)(const float *source, void *target, size_t n);

    /* target = x - y; target may be x. */
    void (*subtract)(const float *x, const float *y, float *target, size_t n);
    /* target = x - y for stored elements; x may be target itself. */
    void (*difference)(const tk_vector *x, const tk_vector *y, float *target, size_t n);
    /* target = the sum of weights * x over all models, in order, divided by `divisor`; every operation is rounded. */
    void (*weighted_sum)(const tk_vector *x, const float *weights, size_t models, float divisor, float *target, size_t n);
    /* target = base + lambda * (combination of the task vectors' kept entries); every operation is rounded. With consensus, only
     * entries with the sign of the sum of all entries are added (a zero sum counts as positive; a zero entry never agrees). A NaN
     * in any entry makes the target NaN. `buffer` holds TK_TILE elements per model. */
    void (*merge_trimmed)(
        const tk_trimmed *parts, size_t models, const tk_vector *base, const tk_combination *how, float *buffer, float *target,
        size_t n);
    /* Adds |x - base| of all entries to one sum, and of the kept entries to another. Each sum has eight float64 lanes; the first
     * element goes to `lane`. */
    void (*add_magnitudes)(const tk_trimmed *part, const tk_vector *base, size_t lane, double *sums, size_t n);
    /* target += x */
    void (*add)(const float *x, float *target, size_t n);
    /* target = a * x; target may be x. */
    void (*scale)(float a, const float *x, float *target, size_t n);
    /* target += a * x, in two roundings. */
    void (*axpy)(float a, const float *x, float *target, size_t n);

    /* bins[high 15 bits of the magnitude] += 1 in one of TK_HIGH_TABLES tables of TK_HIGH_BINS bins each. */
    void (*histogram_high)(const float *x, uint32_t *bins, size_t n);
    /* bins[low 16 bits] += 1 for the magnitudes whose high 15 bits are `high`; TK_LOW_BINS bins. */
    void (*histogram_low)(const float *x, uint32_t high, uint32_t *bins, size_t n);
    /* Adds to `counts` the number of magnitudes above the pattern `high`, equal to `high`, and equal to `low` (low <= high). The
     * patterns strictly between the two are written to `notes`, in order; `notes` holds n + 1. Returns their number. */
    size_t (*count_window)(const float *x, uint32_t low, uint32_t high, tk_window_counts *counts, uint32_t *notes, size_t n);
    /* The number of magnitudes with exactly this pattern. */
    size_t (*count_equal)(const float *x, uint32_t pattern, size_t n);

    /* The dot product, summed in float64 over eight lanes; the products are exact. */
    double (*dot)(const float *x, const float *y, size_t n);

    /* Element-wise target = a * x, and target += a * x in two roundings. */
    void (*multiply)(const float *a, const float *x, float *target, size_t n);
    void (*multiply_add)(const float *a, const float *x, float *target, size_t n);
    /* sums[i] += x[i] * y[i], the product exact. */
    void (*add_products)(const float *x, const float *y, double *sums, size_t n);

    /* Random words for elements first, first + 1, ...: Philox4x32-10 (Salmon et al., SC 2011) under `key`. Element e gets word
     * e % 32 / 8 of the counter (e / 32 * 8 + e % 8, stream), so that eight counters fill eight lanes. */
    void (*draw)(uint64_t key, uint32_t stream, uint64_t first, uint32_t *draws, size_t n);
    /* keep[i] = whether the element's draw is below `limit`. */
    void (*flag_random)(uint64_t key, uint32_t stream, uint64_t first, uint32_t limit, uint8_t *keep, size_t n);
    /* Converts flags of 0 and 1 to bits, 32 per word, and back. */
    void (*pack_flags)(const uint8_t *flags, uint32_t *bits, size_t n);
    void (*unpack_flags)(const uint32_t *bits, uint8_t *flags, size_t n);
    /* keep[i] = whether draws[i] / 2^32 < lowest + spread * q, where q is the rank of |x[i]| in the row, from 0 (smallest) to 1;
     * ties are ranked by index, and q = 1/2 in a row of one. Requires lowest >= 0, spread >= 0, lowest + spread <= 1. Where x[i]
     * is zero, keep[i] may be either. The draws are made from `random` into `draws`, which holds n + 62 words; if `random` is
     * NULL, `draws` already holds them. `items` holds 17 n + 31 bytes; n is at most 2^31 - 1. */
    void (*keep_by_rank)(
        const float *x, const tk_random *_Nullable random, uint32_t *draws, size_t n, double lowest, double spread,
        tk_rank_buffer *buffer, uint64_t *items, uint8_t *keep);

    /* SCE. Of a part, `x`, `is_difference` and `weight` count. `buffer` holds TK_TILE elements per model. */
    /* target = the variance of the task vectors' entries over the models: the mean of (entry - mean)^2. */
    void (*variances)(const tk_trimmed *parts, size_t models, const tk_vector *base, float *buffer, float *target, size_t n);
    /* Adds the squares of the entries whose variance has at least the pattern `from` to eight float64 lanes per model. */
    void (*varying_squares)(
        const tk_trimmed *parts, size_t models, const tk_vector *base, uint32_t from, float *buffer, double *lanes, size_t n);
    /* target = base + the weighted mean of those of these entries that have the sign of the sum of all; the divisor is at least
     * `floor`. */
    void (*fuse_varying)(
        const tk_trimmed *parts, size_t models, const tk_vector *base, uint32_t from, float floor, float *buffer, float *target,
        size_t n);
    /* Counts the entries of row m above epsilon: into alone[m] where no other row is, into shared[m] where another row is. */
    void (*count_changes)(
        const float *_Nonnull const *_Nonnull rows, size_t models, float epsilon, uint32_t *alone, uint32_t *shared, size_t n);
    /* target = the entry above epsilon times its row's factor; where several rows have one, their mean. */
    void (*merge_changes)(
        const float *_Nonnull const *_Nonnull rows, const float *factors, size_t models, float epsilon, float *target, size_t n);
    /* target = w b + (1 - w) a, with w = t / |a - b| clamped to 0...1. */
    void (*nearswap)(float t, const float *a, const float *b, float *target, size_t n);

    /* exp(x) for x <= 0, with a relative error below 1e-14 and the same bits everywhere. */
    double (*exponential)(double x);
    /* The largest element, and the sum of exp(x - largest). */
    void (*softmax_parts)(const tk_vector *x, size_t n, double *maximum, double *sum);
    /* The sum of p log(p / q), with p = exp(x - s[0]) s[1] + 1e-8 and q = exp(y - s[2]) s[3] + 1e-8. */
    double (*divergence)(const tk_vector *x, const tk_vector *y, const double *s, size_t n);
    /* The divergence with the softmax of these elements themselves: s is x's largest element and the inverse of its sum, then the
     * same of y. `exponentials` holds n elements for each, rounded up to multiples of eight. */
    double (*row_divergence)(const tk_vector *x, const tk_vector *y, double *exponentials, size_t n);
    /* target = |x - y| * a */
    void (*importance)(float a, const tk_vector *x, const tk_vector *y, float *target, size_t n);
    /* target = y + (x - y) where |x - y| * a >= threshold, else y */
    void (*swap_important)(float a, float threshold, const tk_vector *x, const tk_vector *y, float *target, size_t n);

    /* The lowest and the highest element, with +0 for either zero; infinities if n is 0. Returns whether all elements are finite;
     * if not, both results are undefined. */
    bool (*range)(const float *x, float *lowest, float *highest, size_t n);
    /* codes = x * factor + offset, rounded to the nearest integer (half to even) and clamped to 0...highest; NaN gives 0. Product
     * and sum are each rounded to float32; if |offset| >= 2^20, the product is exact and the sum is rounded to float64. */
    void (*quantize)(const float *x, float factor, double offset, uint32_t highest, uint8_t *codes, size_t n);
    /* Packs codes of 1 to 8 bits into a stream: code i occupies bits i * bits ..< (i + 1) * bits, and bit k of the stream is bit
     * k % 8 of byte k / 8. The last byte is padded with zeros; a code's bits beyond its width are dropped. Nothing is read or
     * written beyond the last byte. */
    void (*pack)(const uint8_t *codes, size_t bits, void *stream, size_t n);
    /* target = table[code] for codes first ..< first + n of a stream; the table has 2^bits elements. */
    void (*dequantize_table)(const void *stream, size_t bits, size_t first, const float *table, float *target, size_t n);
    /* target = (code - zero) * step, in two roundings, with one step per group of `group` elements (a power of two). `steps`
     * begins with the group of element `first`. */
    void (*dequantize_groups)(
        const void *stream, size_t bits, size_t first, size_t group, const float *steps, float zero, float *target, size_t n);
    /* target = (code - zero) * step for codes of one byte each; in float64 if |zero| >= 2^20. */
    void (*decode)(const uint8_t *codes, float step, double zero, float *target, size_t n);
    /* Quantizes each group of `group` finite elements (the last may be shorter) on a grid whose zero is at code 1/2 for one bit,
     * else at 2^(bits - 1). Writes the step between codes (a bfloat16 number of either sign), the codes, and the values that they
     * decode to. A group of zeros has step 0. */
    void (*fit_groups)(
        const float *x, size_t group, size_t bits, float *steps, uint8_t *codes, float *decoded, size_t n);
    /* A thinned vector. Stratum s is the elements s * every ..< (s + 1) * every, or the `left` that there are of them; it keeps
     * element s * every + (byte * left >> 8), where the byte is number s % 4, from the lowest, of word s / 4 that `draw` makes
     * under the key in stream 0. pick_kept reads n elements from `first`, a multiple of 4 * every (or of the vector's end), on,
     * and writes one for each stratum. place_kept is the inverse for n elements from any `first` on, with zeros between; `kept`
     * begins with the stratum of `first`. Whatever the vector, nothing outside `target` is written. */
    void (*pick_kept)(const tk_thinning *how, const float *x, size_t first, float *kept, size_t n);
    void (*place_kept)(const tk_thinning *how, const float *kept, size_t first, float *target, size_t n);
    /* As fit_groups for the kept elements, on grids whose zero lies between the two middle codes. The stored step is the one with
     * <kept, decoded> = the group's entry in `wanted`, but at most 4 * every times as large as that of least error. */
    void (*fit_kept)(
        const float *kept, const double *wanted, size_t every, size_t group, size_t bits, float *steps, uint8_t *codes,
        float *decoded, size_t n);
    /* The sums of |x| and of (x - y)^2, in float64 over eight lanes. */
    double (*sum_of_magnitudes)(const float *x, size_t n);
    double (*squared_error)(const float *x, const float *y, size_t n);
    /* Three sums in one pass: of (x - y)^2, of x^2 and of x y, as squared_error and dot have them. */
    void (*compare)(const float *x, const float *y, double *sums, size_t n);
    /* The sums of x^2 over each `group` elements, the last of which may be fewer, as dot has them. */
    void (*sums_of_squares)(const float *x, size_t group, double *sums, size_t n);

    /* Bitmaps are streams of one-bit codes. Bits are set where x is not 0 (also where x is NaN); where |x| > a * |y|; where x
     * and y are both above or both below 0. */
    void (*bits_nonzero)(const float *x, void *bits, size_t n);
    void (*bits_above)(float a, const float *x, const float *y, void *bits, size_t n);
    void (*bits_agreeing)(const float *x, const float *y, void *bits, size_t n);
    /* The number of set bits among the first n. */
    size_t (*count_bits)(const void *bits, size_t n);
    /* target = 0 where the element's bit is clear; bit `first` belongs to the first element. */
    void (*apply_bits)(const void *bits, size_t first, float *target, size_t n);
    /* Writes the elements whose bits are set, in order. Returns their number. */
    size_t (*compress)(const float *x, const void *bits, float *target, size_t n);
    /* The inverse of compress: target = the next value where the bit is set, else 0. Returns the number of values consumed. */
    size_t (*expand)(const float *values, const void *bits, size_t first, float *target, size_t n);
    /* In each block of `block` elements (TK_BLOCK_LIMIT at most), sets keep = 1 for the `kept` largest magnitudes among elements
     * with taken = 0, earlier ones first among equals. If there are too few of those, the largest taken ones fill up. Zeros are
     * never kept. A shorter last block keeps `kept_at_end`. */
    void (*keep_of_blocks)(
        const float *x, const uint8_t *taken, size_t block, size_t kept, size_t kept_at_end, uint8_t *keep, size_t n);
} tk_kernels;

/* Plain C, for any processor. */
const tk_kernels *tk_portable(void);
/* x86-64-v3 (AVX2) and x86-64-v4 (AVX-512); NULL on a processor without them. */
const tk_kernels *_Nullable tk_v3(void);
const tk_kernels *_Nullable tk_v4(void);

/* CRC-32C (Castagnoli, RFC 3720) of `n` bytes, continuing from `crc` (0 to begin). Uses the processor's instruction if it has
 * one, else a table. */
uint32_t tk_crc32c(uint32_t crc, const void *bytes, size_t n);
uint32_t tk_crc32c_by_table(uint32_t crc, const void *bytes, size_t n);

/* SHA-256 (FIPS 180-4) with the processor's instructions, which not all processors have; without them only `begin` may be called.
 * A hash takes 2^61 bytes at most. */
typedef struct tk_sha256 {
    uint32_t state[8];
    uint64_t count;   /* of the bytes so far */
    uint8_t rest[64]; /* the last count % 64 of them */
} tk_sha256;

bool tk_sha256_is_available(void);
void tk_sha256_begin(tk_sha256 *hash);
void tk_sha256_update(tk_sha256 *hash, const void *bytes, size_t n);
/* `n` bytes to one hash and `m` to another, at once as long as both have some and are at the beginning of a block of 64. */
void tk_sha256_update_two(tk_sha256 *a, const void *p, size_t n, tk_sha256 *b, const void *q, size_t m);
void tk_sha256_end(tk_sha256 *hash, uint8_t *digest);

/* Turns n elements of `width` bytes into `width` planes of n bytes, and back. */
void tk_split_planes(const uint8_t *source, uint8_t *target, size_t n, size_t width);
void tk_join_planes(const uint8_t *source, uint8_t *target, size_t n, size_t width);

#pragma clang assume_nonnull end

#endif
