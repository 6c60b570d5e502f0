/* One level's table of kernels. Define LEVEL (its name) and TARGET (its function attribute) and include this once. */
#include "bodies.h"

#define WRAP(result, kernel, parameters, arguments) \
    TARGET static result level_##kernel parameters { return kernel arguments; }

WRAP(void, widen_f16, (const void *x, float *y, size_t n), (x, y, n))
WRAP(void, widen_bf16, (const void *x, float *y, size_t n), (x, y, n))
WRAP(void, widen_f64, (const void *x, float *y, size_t n), (x, y, n))
WRAP(void, widen_e4m3, (const void *x, float *y, size_t n), (x, y, n))
WRAP(void, widen_e5m2, (const void *x, float *y, size_t n), (x, y, n))
WRAP(void, narrow_f16, (const float *x, void *y, size_t n), (x, y, n))
WRAP(void, narrow_bf16, (const float *x, void *y, size_t n), (x, y, n))
WRAP(void, narrow_f32, (const float *x, void *y, size_t n), (x, y, n))
WRAP(void, narrow_f64, (const float *x, void *y, size_t n), (x, y, n))
WRAP(void, narrow_e4m3, (const float *x, void *y, size_t n), (x, y, n))
WRAP(void, narrow_e5m2, (const float *x, void *y, size_t n), (x, y, n))
WRAP(void, subtract, (const float *x, const float *y, float *z, size_t n), (x, y, z, n))
WRAP(void, difference, (const tk_vector *x, const tk_vector *y, float *z, size_t n), (x, y, z, n))
WRAP(void, weighted_sum, (const tk_vector *x, const float *w, size_t m, float d, float *y, size_t n), (x, w, m, d, y, n))
WRAP(
    void, merge_trimmed,
    (const tk_trimmed *p, size_t m, const tk_vector *b, const tk_combination *how, float *buffer, float *y, size_t n),
    (p, m, b, how, buffer, y, n))
WRAP(void, add_magnitudes, (const tk_trimmed *p, const tk_vector *b, size_t lane, double *s, size_t n), (p, b, lane, s, n))
WRAP(void, add, (const float *x, float *y, size_t n), (x, y, n))
WRAP(void, scale, (float a, const float *x, float *y, size_t n), (a, x, y, n))
WRAP(void, axpy, (float a, const float *x, float *y, size_t n), (a, x, y, n))
WRAP(void, histogram_high, (const float *x, uint32_t *bins, size_t n), (x, bins, n))
WRAP(void, histogram_low, (const float *x, uint32_t high, uint32_t *bins, size_t n), (x, high, bins, n))
WRAP(
    size_t, count_window, (const float *x, uint32_t low, uint32_t high, tk_window_counts *counts, uint32_t *notes, size_t n),
    (x, low, high, counts, notes, n))
WRAP(size_t, count_equal, (const float *x, uint32_t p, size_t n), (x, p, n))
WRAP(double, dot, (const float *x, const float *y, size_t n), (x, y, n))
WRAP(void, multiply, (const float *a, const float *x, float *y, size_t n), (a, x, y, n))
WRAP(void, multiply_add, (const float *a, const float *x, float *y, size_t n), (a, x, y, n))
WRAP(void, add_products, (const float *x, const float *y, double *s, size_t n), (x, y, s, n))
WRAP(void, draw, (uint64_t key, uint32_t stream, uint64_t first, uint32_t *u, size_t n), (key, stream, first, u, n))
WRAP(
    void, flag_random, (uint64_t key, uint32_t stream, uint64_t first, uint32_t limit, uint8_t *keep, size_t n),
    (key, stream, first, limit, keep, n))
WRAP(void, pack_flags, (const uint8_t *x, uint32_t *bits, size_t n), (x, bits, n))
WRAP(void, unpack_flags, (const uint32_t *bits, uint8_t *x, size_t n), (bits, x, n))
WRAP(
    void, keep_by_rank,
    (const float *x, const tk_random *random, uint32_t *u, size_t n, double lowest, double spread, tk_rank_buffer *buffer,
     uint64_t *items, uint8_t *keep),
    (x, random, u, n, lowest, spread, buffer, items, keep))
WRAP(
    void, variances, (const tk_trimmed *p, size_t m, const tk_vector *b, float *buffer, float *y, size_t n),
    (p, m, b, buffer, y, n))
WRAP(
    void, varying_squares,
    (const tk_trimmed *p, size_t m, const tk_vector *b, uint32_t from, float *buffer, double *lanes, size_t n),
    (p, m, b, from, buffer, lanes, n))
WRAP(
    void, fuse_varying,
    (const tk_trimmed *p, size_t m, const tk_vector *b, uint32_t from, float floor, float *buffer, float *y, size_t n),
    (p, m, b, from, floor, buffer, y, n))
WRAP(
    void, count_changes, (const float *const *rows, size_t m, float epsilon, uint32_t *alone, uint32_t *shared, size_t n),
    (rows, m, epsilon, alone, shared, n))
WRAP(
    void, merge_changes, (const float *const *rows, const float *f, size_t m, float epsilon, float *y, size_t n),
    (rows, f, m, epsilon, y, n))
WRAP(void, nearswap, (float t, const float *a, const float *b, float *y, size_t n), (t, a, b, y, n))
WRAP(double, exponential, (double x), (x))
WRAP(void, softmax_parts, (const tk_vector *x, size_t n, double *maximum, double *sum), (x, n, maximum, sum))
WRAP(double, divergence, (const tk_vector *x, const tk_vector *y, const double *s, size_t n), (x, y, s, n))
WRAP(double, row_divergence, (const tk_vector *x, const tk_vector *y, double *e, size_t n), (x, y, e, n))
WRAP(void, importance, (float a, const tk_vector *x, const tk_vector *y, float *z, size_t n), (a, x, y, z, n))
WRAP(
    void, swap_important, (float a, float threshold, const tk_vector *x, const tk_vector *y, float *z, size_t n),
    (a, threshold, x, y, z, n))
WRAP(bool, range, (const float *x, float *lowest, float *highest, size_t n), (x, lowest, highest, n))
WRAP(
    void, quantize, (const float *x, float factor, double offset, uint32_t highest, uint8_t *codes, size_t n),
    (x, factor, offset, highest, codes, n))
WRAP(void, pack, (const uint8_t *codes, size_t bits, void *stream, size_t n), (codes, bits, stream, n))
WRAP(
    void, dequantize_table, (const void *stream, size_t bits, size_t first, const float *table, float *target, size_t n),
    (stream, bits, first, table, target, n))
WRAP(
    void, dequantize_groups,
    (const void *stream, size_t bits, size_t first, size_t group, const float *steps, float zero, float *target, size_t n),
    (stream, bits, first, group, steps, zero, target, n))
WRAP(void, decode, (const uint8_t *codes, float step, double zero, float *target, size_t n), (codes, step, zero, target, n))
WRAP(
    void, fit_groups, (const float *x, size_t group, size_t bits, float *steps, uint8_t *codes, float *decoded, size_t n),
    (x, group, bits, steps, codes, decoded, n))
WRAP(
    void, pick_kept, (const tk_thinning *how, const float *x, size_t first, float *kept, size_t n), (how, x, first, kept, n))
WRAP(
    void, place_kept, (const tk_thinning *how, const float *kept, size_t first, float *y, size_t n), (how, kept, first, y, n))
WRAP(
    void, fit_kept,
    (const float *kept, const double *wanted, size_t every, size_t group, size_t bits, float *steps, uint8_t *codes,
     float *decoded, size_t n),
    (kept, wanted, every, group, bits, steps, codes, decoded, n))
WRAP(double, sum_of_magnitudes, (const float *x, size_t n), (x, n))
WRAP(double, squared_error, (const float *x, const float *y, size_t n), (x, y, n))
WRAP(void, compare, (const float *x, const float *y, double *sums, size_t n), (x, y, sums, n))
WRAP(void, sums_of_squares, (const float *x, size_t group, double *sums, size_t n), (x, group, sums, n))
WRAP(void, bits_nonzero, (const float *x, void *bits, size_t n), (x, bits, n))
WRAP(void, bits_above, (float a, const float *x, const float *y, void *bits, size_t n), (a, x, y, bits, n))
WRAP(void, bits_agreeing, (const float *x, const float *y, void *bits, size_t n), (x, y, bits, n))
WRAP(size_t, count_bits, (const void *bits, size_t n), (bits, n))
WRAP(void, apply_bits, (const void *bits, size_t first, float *target, size_t n), (bits, first, target, n))
WRAP(size_t, compress, (const float *x, const void *bits, float *target, size_t n), (x, bits, target, n))
WRAP(
    size_t, expand, (const float *values, const void *bits, size_t first, float *target, size_t n),
    (values, bits, first, target, n))
WRAP(
    void, keep_of_blocks,
    (const float *x, const uint8_t *taken, size_t block, size_t kept, size_t kept_at_end, uint8_t *keep, size_t n),
    (x, taken, block, kept, kept_at_end, keep, n))

static const tk_kernels table = {
    .name = LEVEL,
    .widen_f16 = level_widen_f16,
    .widen_bf16 = level_widen_bf16,
    .widen_f64 = level_widen_f64,
    .widen_e4m3 = level_widen_e4m3,
    .widen_e5m2 = level_widen_e5m2,
    .narrow_f16 = level_narrow_f16,
    .narrow_bf16 = level_narrow_bf16,
    .narrow_f32 = level_narrow_f32,
    .narrow_f64 = level_narrow_f64,
    .narrow_e4m3 = level_narrow_e4m3,
    .narrow_e5m2 = level_narrow_e5m2,
    .subtract = level_subtract,
    .difference = level_difference,
    .weighted_sum = level_weighted_sum,
    .merge_trimmed = level_merge_trimmed,
    .add_magnitudes = level_add_magnitudes,
    .add = level_add,
    .scale = level_scale,
    .axpy = level_axpy,
    .histogram_high = level_histogram_high,
    .histogram_low = level_histogram_low,
    .count_window = level_count_window,
    .count_equal = level_count_equal,
    .dot = level_dot,
    .multiply = level_multiply,
    .multiply_add = level_multiply_add,
    .add_products = level_add_products,
    .draw = level_draw,
    .flag_random = level_flag_random,
    .pack_flags = level_pack_flags,
    .unpack_flags = level_unpack_flags,
    .keep_by_rank = level_keep_by_rank,
    .variances = level_variances,
    .varying_squares = level_varying_squares,
    .fuse_varying = level_fuse_varying,
    .count_changes = level_count_changes,
    .merge_changes = level_merge_changes,
    .nearswap = level_nearswap,
    .exponential = level_exponential,
    .softmax_parts = level_softmax_parts,
    .divergence = level_divergence,
    .row_divergence = level_row_divergence,
    .importance = level_importance,
    .swap_important = level_swap_important,
    .range = level_range,
    .quantize = level_quantize,
    .pack = level_pack,
    .dequantize_table = level_dequantize_table,
    .dequantize_groups = level_dequantize_groups,
    .decode = level_decode,
    .fit_groups = level_fit_groups,
    .pick_kept = level_pick_kept,
    .place_kept = level_place_kept,
    .fit_kept = level_fit_kept,
    .sum_of_magnitudes = level_sum_of_magnitudes,
    .squared_error = level_squared_error,
    .compare = level_compare,
    .sums_of_squares = level_sums_of_squares,
    .bits_nonzero = level_bits_nonzero,
    .bits_above = level_bits_above,
    .bits_agreeing = level_bits_agreeing,
    .count_bits = level_count_bits,
    .apply_bits = level_apply_bits,
    .compress = level_compress,
    .expand = level_expand,
    .keep_of_blocks = level_keep_of_blocks,
};
