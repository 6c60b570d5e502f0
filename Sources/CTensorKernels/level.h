/* One level's table of kernels. Define LEVEL (its name) and TARGET (its function attribute) and include this once. */
#include "bodies.h"

#define WRAP(result, kernel, parameters, arguments) \
    TARGET static result level_##kernel parameters { return kernel arguments; }

WRAP(void, widen_f16, (const void *x, float *y, size_t n), (x, y, n))
WRAP(void, widen_bf16, (const void *x, float *y, size_t n), (x, y, n))
WRAP(void, widen_f64, (const void *x, float *y, size_t n), (x, y, n))
WRAP(void, narrow_f16, (const float *x, void *y, size_t n), (x, y, n))
WRAP(void, narrow_bf16, (const float *x, void *y, size_t n), (x, y, n))
WRAP(void, narrow_f64, (const float *x, void *y, size_t n), (x, y, n))
WRAP(void, subtract, (const float *x, const float *y, float *z, size_t n), (x, y, z, n))
WRAP(void, add, (const float *x, float *y, size_t n), (x, y, n))
WRAP(void, scale, (float a, const float *x, float *y, size_t n), (a, x, y, n))
WRAP(void, divide, (float a, float *y, size_t n), (a, y, n))
WRAP(void, axpy, (float a, const float *x, float *y, size_t n), (a, x, y, n))
WRAP(void, zero_below, (uint32_t p, float *y, size_t n), (p, y, n))
WRAP(void, sign_consensus, (const float *const *e, const float *w, size_t m, bool norm, float *y, size_t n), (e, w, m, norm, y, n))
WRAP(void, histogram_high, (const float *x, uint32_t *bins, size_t n), (x, bins, n))
WRAP(void, histogram_low, (const float *x, uint32_t high, uint32_t *bins, size_t n), (x, high, bins, n))
WRAP(size_t, count_equal, (const float *x, uint32_t p, size_t n), (x, p, n))
WRAP(double, dot, (const float *x, const float *y, size_t n), (x, y, n))
WRAP(double, sum_of_magnitudes, (const float *x, size_t n), (x, n))

static const tk_kernels table = {
    .name = LEVEL,
    .widen_f16 = level_widen_f16,
    .widen_bf16 = level_widen_bf16,
    .widen_f64 = level_widen_f64,
    .narrow_f16 = level_narrow_f16,
    .narrow_bf16 = level_narrow_bf16,
    .narrow_f64 = level_narrow_f64,
    .subtract = level_subtract,
    .add = level_add,
    .scale = level_scale,
    .divide = level_divide,
    .axpy = level_axpy,
    .zero_below = level_zero_below,
    .sign_consensus = level_sign_consensus,
    .histogram_high = level_histogram_high,
    .histogram_low = level_histogram_low,
    .count_equal = level_count_equal,
    .dot = level_dot,
    .sum_of_magnitudes = level_sum_of_magnitudes,
};
