/* The body of every kernel. Each level's file inlines them under its own target attribute and leaves the rest to the
 * vectoriser. */
#ifndef BODIES_H
#define BODIES_H

#include <math.h>
#include <string.h>

#include "tensor_kernels.h"

#pragma STDC FP_CONTRACT OFF

#define INLINE static inline __attribute__((always_inline))

typedef uint16_t __attribute__((aligned(1), may_alias)) raw16;
typedef uint32_t __attribute__((aligned(1), may_alias)) raw32;
typedef double __attribute__((aligned(1), may_alias)) raw64;

enum { MAGNITUDE = 0x7fffffff, QUIET_NAN = 0x7fc00000 };

INLINE uint32_t bits_of(float x) {
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    return u;
}

INLINE float float_of(uint32_t u) {
    float x;
    memcpy(&x, &u, sizeof x);
    return x;
}

/* --- conversions ------------------------------------------------------------------------------------------------- */

INLINE float half_to_float(uint16_t h) {
    const uint32_t sign = (uint32_t)(h & 0x8000) << 16, m = h & 0x7fff;
    const uint32_t normal = (m << 13) + (112u << 23);                               /* exponent bias 15 -> 127 */
    const uint32_t special = (m << 13) + (224u << 23) | (m > 0x7c00 ? 1u << 22 : 0); /* infinite, or a quiet NaN */
    const float subnormal = float_of((m << 13) + (113u << 23)) - float_of(113u << 23);
    const uint32_t u = m < 0x0400 ? bits_of(subnormal) : m < 0x7c00 ? normal : special;
    return float_of(u | sign);
}

/* A NaN's sign and payload after arithmetic depend on the processor and on the order of operands that the compiler chose. So the
 * narrow_ kernels write one pattern per type: the positive quiet NaN; in e5m2 all bits set, as PyTorch does. */
INLINE uint16_t float_to_half(float x) {
    const uint32_t u = bits_of(x), sign = (u >> 16) & 0x8000, m = u & MAGNITUDE;
    const uint32_t normal = (m + ((m >> 13) & 1) + 0xfff - (112u << 23)) >> 13;
    const uint32_t subnormal = bits_of(float_of(m) + 0.5f) - bits_of(0.5f); /* the addition does the rounding */
    const uint32_t half = (m < 0x38800000 ? subnormal : m < 0x47800000 ? normal : 0x7c00) | sign;
    return (uint16_t)(m > 0x7f800000 ? 0x7e00 : half);
}

INLINE uint16_t float_to_bfloat(float x) {
    const uint32_t u = bits_of(x);
    const uint32_t rounded = (u + 0x7fff + ((u >> 16) & 1)) >> 16;
    return (uint16_t)((u & MAGNITUDE) > 0x7f800000 ? 0x7fc0 : rounded);
}

/* Eight bits: sign, exponent, mantissa. e4m3 has no infinity; only its largest pattern is NaN. */
INLINE float e4m3_to_float(uint8_t b) {
    const uint32_t sign = (uint32_t)(b & 0x80) << 24, m = b & 0x7f;
    const uint32_t normal = (m << 20) + (120u << 23); /* exponent bias 7 -> 127 */
    const float subnormal = float_of((m << 20) + (121u << 23)) - float_of(121u << 23);
    const uint32_t u = m < 0x08 ? bits_of(subnormal) : m < 0x7f ? normal : 0x7fc00000;
    return float_of(u | sign);
}

INLINE uint8_t float_to_e4m3(float x) {
    const uint32_t u = bits_of(x), sign = (u >> 24) & 0x80, m = u & MAGNITUDE;
    const uint32_t normal = (m + ((m >> 20) & 1) + 0x7ffff - (120u << 23)) >> 20; /* from above 464 on, 0x7f */
    const uint32_t subnormal = bits_of(float_of(m) + 0x1p14f) - bits_of(0x1p14f);
    const uint32_t code = (m < 0x3c800000 ? subnormal : m < 0x43f00000 ? normal : 0x7f) | sign;
    return (uint8_t)(m > 0x7f800000 ? 0x7f : code);
}

/* e5m2 is the upper byte of an f16. */
INLINE float e5m2_to_float(uint8_t b) { return half_to_float((uint16_t)(b << 8)); }

INLINE uint8_t float_to_e5m2(float x) {
    const uint32_t u = bits_of(x), sign = (u >> 24) & 0x80, m = u & MAGNITUDE;
    const uint32_t normal = (m + ((m >> 21) & 1) + 0xfffff - (112u << 23)) >> 21;
    const uint32_t subnormal = bits_of(float_of(m) + 0x1p7f) - bits_of(0x1p7f);
    const uint32_t code = (m < 0x38800000 ? subnormal : m < 0x47800000 ? normal : 0x7c) | sign;
    return (uint8_t)(m > 0x7f800000 ? 0x7f : code);
}

INLINE void widen_f16(const void *source, float *restrict target, size_t n) {
    const raw16 *x = source;
    for (size_t i = 0; i < n; i++) target[i] = half_to_float(x[i]);
}

INLINE void widen_bf16(const void *source, float *restrict target, size_t n) {
    const raw16 *x = source;
    for (size_t i = 0; i < n; i++) target[i] = float_of((uint32_t)x[i] << 16);
}

INLINE void widen_f64(const void *source, float *restrict target, size_t n) {
    const raw64 *x = source;
    for (size_t i = 0; i < n; i++) target[i] = (float)x[i];
}

INLINE void widen_e4m3(const void *source, float *restrict target, size_t n) {
    const uint8_t *x = source;
    for (size_t i = 0; i < n; i++) target[i] = e4m3_to_float(x[i]);
}

INLINE void widen_e5m2(const void *source, float *restrict target, size_t n) {
    const uint8_t *x = source;
    for (size_t i = 0; i < n; i++) target[i] = e5m2_to_float(x[i]);
}

INLINE void narrow_f16(const float *restrict source, void *target, size_t n) {
    raw16 *y = target;
    for (size_t i = 0; i < n; i++) y[i] = float_to_half(source[i]);
}

INLINE void narrow_bf16(const float *restrict source, void *target, size_t n) {
    raw16 *y = target;
    for (size_t i = 0; i < n; i++) y[i] = float_to_bfloat(source[i]);
}

INLINE void narrow_f32(const float *restrict source, void *target, size_t n) {
    raw32 *y = target;
    for (size_t i = 0; i < n; i++) y[i] = isnan(source[i]) ? QUIET_NAN : bits_of(source[i]);
}

INLINE void narrow_f64(const float *restrict source, void *target, size_t n) {
    raw64 *y = target;
    for (size_t i = 0; i < n; i++) y[i] = isnan(source[i]) ? (double)float_of(QUIET_NAN) : source[i];
}

INLINE void narrow_e4m3(const float *restrict source, void *target, size_t n) {
    uint8_t *y = target;
    for (size_t i = 0; i < n; i++) y[i] = float_to_e4m3(source[i]);
}

INLINE void narrow_e5m2(const float *restrict source, void *target, size_t n) {
    uint8_t *y = target;
    for (size_t i = 0; i < n; i++) y[i] = float_to_e5m2(source[i]);
}

/* --- arithmetic -------------------------------------------------------------------------------------------------- */

INLINE void subtract(const float *x, const float *y, float *target, size_t n) {
    for (size_t i = 0; i < n; i++) target[i] = x[i] - y[i];
}

INLINE void add(const float *x, float *target, size_t n) {
    for (size_t i = 0; i < n; i++) target[i] += x[i];
}

INLINE void scale(float a, const float *x, float *target, size_t n) {
    for (size_t i = 0; i < n; i++) target[i] = a * x[i];
}

INLINE void axpy(float a, const float *x, float *target, size_t n) {
    for (size_t i = 0; i < n; i++) target[i] = a * x[i] + target[i];
}

/* Elements per step of a loop over several vectors, so that the sums stay in registers and the L1 cache. */
enum { TILE = TK_TILE };

/* Aligns a tile on the stack: vectors that straddle two cache lines take twice as long. */
#define CACHE_ALIGNED _Alignas(64)

/* --- reductions -------------------------------------------------------------------------------------------------- */

enum { LANES = 8 };
typedef float float8 __attribute__((vector_size(LANES * sizeof(float)), aligned(4)));
typedef double double8 __attribute__((vector_size(LANES * sizeof(double))));

INLINE double sum_of_lanes(const double8 *s) {
    return (((*s)[0] + (*s)[4]) + ((*s)[2] + (*s)[6])) + (((*s)[1] + (*s)[5]) + ((*s)[3] + (*s)[7]));
}

INLINE double dot(const float *x, const float *y, size_t n) {
    double8 sum = {0};
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        sum += __builtin_convertvector(*(const float8 *)(x + i), double8)
            * __builtin_convertvector(*(const float8 *)(y + i), double8);
    }
    for (size_t lane = 0; i < n; i++, lane++) sum[lane] += (double)x[i] * (double)y[i];
    return sum_of_lanes(&sum);
}

#include "merging.h"
#include "fused.h"
#include "codes.h"
#include "ranks.h"

#endif
