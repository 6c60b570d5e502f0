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
    TK_HIGH_TABLES = 2,     /* tables of these, which add up */
    TK_LOW_BINS = 1 << 16,  /* ... and 16 low ones */
    TK_RANK_STRIDE = 64, /* what DELLA counts a row's magnitudes by: up to so many buckets ... */
    TK_RANK_CLASSES = 4 * TK_RANK_STRIDE, /* ... of four classes each */
    TK_TILE = 64, /* elements that a loop over several vectors takes at a time */
    TK_BLOCK_LIMIT = 1024, /* elements of a block of keep_of_blocks */
};

/* The random words of the elements from first on, as draw gives them. */
typedef struct tk_random {
    uint64_t key;
    uint32_t stream;
    uint64_t first;
} tk_random;

/* What keep_by_rank counts with. The counts are zero at first, and left so; the rest means nothing between calls. */
typedef struct tk_rank_buffer {
    uint32_t counts[4][TK_RANK_CLASSES], below[TK_RANK_CLASSES];
} tk_rank_buffer;

/* What count_window adds to. */
typedef struct tk_window_counts {
    size_t above, at_high, at_low;
} tk_window_counts;

/* Element types of tk_vector. */
enum { TK_F32, TK_BF16, TK_F16, TK_F64, TK_E4M3, TK_E5M2 };

/* Elements as they are stored, decoded as they are needed. */
typedef struct tk_vector {
    const void *data;
    int32_t type;
} tk_vector;

/* One model's task vector, x - base or x itself, in merge_trimmed: what stays of it, times factor, times weight. */
typedef struct tk_trimmed {
    tk_vector x;
    bool is_difference;
    /* The magnitudes whose bit patterns lie in from...to stay ... */
    uint32_t from, to;
    /* ... where this is not 0; NULL where everything is kept. */
    const uint8_t *_Nullable keep;
    float factor, weight;
} tk_trimmed;

/* How merge_trimmed combines what stays. */
typedef struct tk_combination {
    /* By elected sign, as TIES does, else by sum. */
    bool consensus;
    /* Of a consensus: divide by the sum of the agreeing weights. */
    bool normalize;
    /* Of a sum: divide by this; 1 for none. */
    float divisor;
    float lambda;
} tk_combination;

/* One instruction set's version of every loop. `n` counts elements. */
typedef struct tk_kernels {
    const char *name;

    /* Decoding to float32; f64 rounds to nearest even. */
    void (*widen_f16)(const void *source, float *target, size_t n);
    void (*widen_bf16)(const void *source, float *target, size_t n);
    void (*widen_f64)(const void *source, float *target, size_t n);
    void (*widen_e4m3)(const void *source, float *target, size_t n);
    void (*widen_e5m2)(const void *source, float *target, size_t n);
    /* Encoding from float32, to nearest even; what is too large becomes infinite, in e4m3 NaN; NaN becomes the one quiet NaN. */
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
    /* target = the sum of weights * x over all models, divided by `divisor`; in order, every step rounded. */
    void (*weighted_sum)(const tk_vector *x, const float *weights, size_t models, float divisor, float *target, size_t n);
    /* target = base + lambda * (combination of what stays of the task vectors), every step rounded. By consensus: the sum of the
     * entries whose sign is that of the sum of all (zero counts as plus; a zero entry never agrees). NaN in any entry reaches the
     * target. `buffer` holds TK_TILE elements a model. */
    void (*merge_trimmed)(
        const tk_trimmed *parts, size_t models, const tk_vector *base, const tk_combination *how, float *buffer, float *target,
        size_t n);
    /* Adds |x - base|, and what stays of it, to two sums of eight float64 lanes each, the first element to `lane`. */
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
    /* Adds to `counts` how many magnitudes lie above the pattern `high`, at it, and at `low`, which is no larger. The patterns
     * strictly between the two go to `notes`, in order; `notes` holds n + 1. Returns how many they are. */
    size_t (*count_window)(const float *x, uint32_t low, uint32_t high, tk_window_counts *counts, uint32_t *notes, size_t n);
    /* How many magnitudes have exactly this pattern. */
    size_t (*count_equal)(const float *x, uint32_t pattern, size_t n);

    /* The sum in float64 over eight lanes; the products are exact. */
    double (*dot)(const float *x, const float *y, size_t n);

    /* target = a * x and target += a * x with a factor for each element; the latter in two roundings. */
    void (*multiply)(const float *a, const float *x, float *target, size_t n);
    void (*multiply_add)(const float *a, const float *x, float *target, size_t n);
    /* sums[i] += x[i] * y[i], the product exact. */
    void (*add_products)(const float *x, const float *y, double *sums, size_t n);

    /* Random words for the elements first, first + 1, ...: Philox4x32-10 (Salmon et al., SC 2011) under `key`. Element e has
     * word e % 32 / 8 of the counter (e / 32 * 8 + e % 8, stream), so that eight counters fill eight lanes. */
    void (*draw)(uint64_t key, uint32_t stream, uint64_t first, uint32_t *draws, size_t n);
    /* keep[i] = whether the element's draw is below `limit`. */
    void (*flag_random)(uint64_t key, uint32_t stream, uint64_t first, uint32_t limit, uint8_t *keep, size_t n);
    /* Flags of 0 and 1 to bits, 32 in each word, and back. */
    void (*pack_flags)(const uint8_t *flags, uint32_t *bits, size_t n);
    void (*unpack_flags)(const uint32_t *bits, uint8_t *flags, size_t n);
    /* keep[i] = whether draws[i] / 2^32 < lowest + spread * q, q the rank of |x[i]| in the row from 0 (least) to 1, equal ones
     * by index; q = 1/2 in a row of one; neither number is negative, nor their sum above 1. Either, where x[i] is zero. The draws
     * are made from `random`, for which `draws` holds n + 62 words; where that is NULL, they are there. `items`
     * holds 17 n + 31 bytes; n is at most 2^31 - 1. */
    void (*keep_by_rank)(
        const float *x, const tk_random *_Nullable random, uint32_t *draws, size_t n, double lowest, double spread,
        tk_rank_buffer *buffer, uint64_t *items, uint8_t *keep);
    /* target *= 1 where the key's pattern lies in from...to, else 0. */
    void (*keep_keyed)(const float *keys, uint32_t from, uint32_t to, float *target, size_t n);

    /* target = mean over rows of (row - mean)^2 */
    void (*variance)(const float *_Nonnull const *_Nonnull rows, size_t models, float *target, size_t n);
    /* SCE's fusion: the weighted mean of the entries whose sign is that of the sum of all; the divisor is at least `floor`. */
    void (*fuse_agreeing)(
        const float *_Nonnull const *_Nonnull rows, const float *weights, size_t models, float floor, float *target, size_t n);
    /* alone[m] and shared[m] += how many entries of row m lie above epsilon where no other row does, and where another does. */
    void (*count_changes)(
        const float *_Nonnull const *_Nonnull rows, size_t models, float epsilon, uint32_t *alone, uint32_t *shared, size_t n);
    /* target = the one entry above epsilon times its row's factor, or the mean of several. */
    void (*merge_changes)(
        const float *_Nonnull const *_Nonnull rows, const float *factors, size_t models, float epsilon, float *target, size_t n);
    /* target = w b + (1 - w) a, w = t / |a - b| within 0...1 */
    void (*nearswap)(float t, const float *a, const float *b, float *target, size_t n);

    /* exp for x <= 0 to 1e-14, the same bits everywhere. */
    double (*exponential)(double x);
    /* The largest element, and the sum of exp(x - largest). */
    void (*softmax_parts)(const tk_vector *x, size_t n, double *maximum, double *sum);
    /* sum of p log(p / q), p = exp(x - s[0]) s[1] + 1e-8, q = exp(y - s[2]) s[3] + 1e-8 */
    double (*divergence)(const tk_vector *x, const tk_vector *y, const double *s, size_t n);
    /* target = |x - y| * a */
    void (*importance)(float a, const tk_vector *x, const tk_vector *y, float *target, size_t n);
    /* target = y + (x - y) where |x - y| * a >= threshold, else y */
    void (*swap_important)(float a, float threshold, const tk_vector *x, const tk_vector *y, float *target, size_t n);

    /* The lowest and the highest element, +0 for any zero; of none, infinities. Returns whether all are finite, else they mean
     * nothing. */
    bool (*range)(const float *x, float *lowest, float *highest, size_t n);
    /* codes = x * factor + offset, to the nearest whole number, half to even, within 0...highest; NaN gives 0. Product and sum
     * are rounded to float32 each; where |offset| >= 2^20 the product is exact and the sum is rounded to float64. */
    void (*quantize)(const float *x, float factor, double offset, uint32_t highest, uint8_t *codes, size_t n);
    /* A stream of codes of 1 to 8 bits: code i is the bits i * bits ..< (i + 1) * bits, bit k of the stream is bit k % 8 of byte
     * k / 8. The last byte is filled up with zeros; bits of a code beyond its width are dropped. Nothing is read or written
     * beyond that byte. */
    void (*pack)(const uint8_t *codes, size_t bits, void *stream, size_t n);
    /* target = table[code] for the codes first ..< first + n of a stream; the table has 2^bits elements. */
    void (*dequantize_table)(const void *stream, size_t bits, size_t first, const float *table, float *target, size_t n);
    /* target = (code - zero) * step, in two roundings, the step that of the group of `group` elements (a power of two) that the
     * element is in. steps begin with the group of `first`. */
    void (*dequantize_groups)(
        const void *stream, size_t bits, size_t first, size_t group, const float *steps, float zero, float *target, size_t n);
    /* target = (code - zero) * step for codes of a byte each; in float64 where |zero| >= 2^20. */
    void (*decode)(const uint8_t *codes, float step, double zero, float *target, size_t n);
    /* For each group of `group` elements (the last may be shorter), which are finite: codes on a grid whose zero is 1/2 for one
     * bit, else 2^(bits - 1); the step from code to code, a bfloat16 number of either sign; and what will be read. A group of
     * zeros has step 0. */
    void (*fit_groups)(
        const float *x, size_t group, size_t bits, float *steps, uint8_t *codes, float *decoded, size_t n);
    /* Sums in float64 over eight lanes: of |x|, of (x - y)^2. */
    double (*sum_of_magnitudes)(const float *x, size_t n);
    double (*squared_error)(const float *x, const float *y, size_t n);

    /* Bitmaps are streams of codes of one bit. Set where x is not 0 (NaN is not); where |x| > a * |y|; where x and y are both
     * above or both below 0. */
    void (*bits_nonzero)(const float *x, void *bits, size_t n);
    void (*bits_above)(float a, const float *x, const float *y, void *bits, size_t n);
    void (*bits_agreeing)(const float *x, const float *y, void *bits, size_t n);
    /* How many of the first n bits are set. */
    size_t (*count_bits)(const void *bits, size_t n);
    /* target = 0 where the element's bit is not set, the first element's being bit `first`. */
    void (*apply_bits)(const void *bits, size_t first, float *target, size_t n);
    /* The elements whose bits are set, in order. Returns how many they are. */
    size_t (*compress)(const float *x, const void *bits, float *target, size_t n);
    /* The other way round: target = the next of the values where the bit is set, else 0. Returns how many values were taken. */
    size_t (*expand)(const float *values, const void *bits, size_t first, float *target, size_t n);
    /* Of each block of `block` elements (TK_BLOCK_LIMIT at most), keep = 1 at the `kept` largest magnitudes where taken is 0, of
     * equal ones at the first; if there are fewer such elements, at the largest others too; but never at a zero. A shorter block
     * at the end keeps `kept_at_end`. */
    void (*keep_of_blocks)(
        const float *x, const uint8_t *taken, size_t block, size_t kept, size_t kept_at_end, uint8_t *keep, size_t n);
} tk_kernels;

/* Runs everywhere. */
const tk_kernels *tk_portable(void);
/* x86-64-v3 (AVX2) and x86-64-v4 (AVX-512); NULL on a processor without them. */
const tk_kernels *_Nullable tk_v3(void);
const tk_kernels *_Nullable tk_v4(void);

/* CRC-32C (Castagnoli, RFC 3720) of `n` bytes, continuing from `crc` (0 to begin). By instruction where there is one, else by
 * table. */
uint32_t tk_crc32c(uint32_t crc, const void *bytes, size_t n);
uint32_t tk_crc32c_by_table(uint32_t crc, const void *bytes, size_t n);

/* Turns n elements of `width` bytes into `width` planes of n bytes, and back. */
void tk_split_planes(const uint8_t *source, uint8_t *target, size_t n, size_t width);
void tk_join_planes(const uint8_t *source, uint8_t *target, size_t n, size_t width);

#pragma clang assume_nonnull end

#endif
