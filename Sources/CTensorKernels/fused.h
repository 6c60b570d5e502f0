/* Kernels over stored elements, decoded in tiles that stay in the L1 cache, so that no float32 copy of a source is needed. */

INLINE void load_tile(const tk_vector *x, size_t at, float *restrict tile, size_t n) {
    switch (x->type) {
        case TK_BF16: widen_bf16((const char *)x->data + 2 * at, tile, n); break;
        case TK_F16: widen_f16((const char *)x->data + 2 * at, tile, n); break;
        case TK_F64: widen_f64((const char *)x->data + 8 * at, tile, n); break;
        case TK_E4M3: widen_e4m3((const char *)x->data + at, tile, n); break;
        case TK_E5M2: widen_e5m2((const char *)x->data + at, tile, n); break;
        default: memcpy(tile, (const char *)x->data + 4 * at, 4 * n);
    }
}

/* Prefetches TILE elements of those that the next call over as many will read, while this call computes. */
INLINE void prefetch_next(const tk_vector *x, size_t at, size_t n) {
    const size_t width = x->type == TK_BF16 || x->type == TK_F16 ? 2 : x->type == TK_F64 ? 8 : x->type == TK_F32 ? 4 : 1;
    const char *const next = (const char *)x->data + width * (at + n);
    for (size_t byte = 0; byte < width * TILE; byte += 64) __builtin_prefetch(next + byte, 0, 2);
}

INLINE void difference_tile(const tk_vector *x, const tk_vector *y, float *target, size_t at, size_t n) {
    CACHE_ALIGNED float a[TILE], b[TILE];
    load_tile(x, at, a, n);
    load_tile(y, at, b, n);
    for (size_t j = 0; j < n; j++) target[at + j] = a[j] - b[j];
}

INLINE void difference(const tk_vector *x, const tk_vector *y, float *target, size_t n) {
    size_t i = 0;
    if (x->type == TK_BF16 && y->type == TK_BF16) {
        const raw16 *a = x->data, *b = y->data;
        for (; i + TILE <= n; i += TILE) {
            prefetch_next(x, i, n);
            prefetch_next(y, i, n);
            for (size_t j = i; j < i + TILE; j++) target[j] = float_of((uint32_t)a[j] << 16) - float_of((uint32_t)b[j] << 16);
        }
        for (; i < n; i++) target[i] = float_of((uint32_t)a[i] << 16) - float_of((uint32_t)b[i] << 16);
        return;
    }
    for (; i + TILE <= n; i += TILE) difference_tile(x, y, target, i, TILE);
    if (i < n) difference_tile(x, y, target, i, n - i);
}

INLINE void weighted_tile(
    const tk_vector *x, const float *weights, size_t models, float divisor, float *target, size_t at, size_t n) {
    CACHE_ALIGNED float own[TILE], sum[TILE];
    for (size_t j = 0; j < n; j++) sum[j] = -0.0f; /* -0 + x is x, for x = -0 too */
    for (size_t m = 0; m < models; m++) {
        const float weight = weights[m];
        load_tile(&x[m], at, own, n);
        for (size_t j = 0; j < n; j++) sum[j] = weight * own[j] + sum[j];
    }
    if (divisor != 1) {
        for (size_t j = 0; j < n; j++) sum[j] /= divisor;
    }
    memcpy(target + at, sum, n * sizeof *sum);
}

INLINE void weighted_sum(const tk_vector *x, const float *weights, size_t models, float divisor, float *target, size_t n) {
    size_t i = 0;
    for (; i + TILE <= n; i += TILE) {
        for (size_t m = 0; m < models; m++) prefetch_next(&x[m], i, n);
        weighted_tile(x, weights, models, divisor, target, i, TILE);
    }
    if (i < n) weighted_tile(x, weights, models, divisor, target, i, n - i);
}

static const float no_base[TILE];

typedef uint8_t flag8 __attribute__((vector_size(8), aligned(1)));

/* The kept entries of x - base, times factor and weight: those in the band (if there is one) and flagged (if there are flags).
 * A NaN that is dropped remains NaN, as 0 * NaN. */
INLINE void keep_tile(
    const tk_trimmed *part, const float *base, bool is_banded, const uint8_t *flags, float weight, float *restrict e, size_t n) {
    const uint32_t from = part->from, span = part->to - part->from;
    const float factor = part->factor;
    const float8 one = (float8){} + 1.0f;
    for (size_t j = 0; j < n; j += LANES) {
        float8 own = *(const float8 *)(e + j) - *(const float8 *)(base + j);
        const uint32x8 u = (uint32x8)own;
        if (is_banded) own = (float8)(u & (uint32x8)((u & MAGNITUDE) - from <= span));
        if (flags) own *= (float8)((int32x8)(__builtin_convertvector(*(const flag8 *)(flags + j), int32x8) != 0) & (int32x8)one);
        *(float8 *)(e + j) = own * factor * weight;
    }
}

/* The kept entries of x - base, times the part's factor and weight. Elements beyond n are undefined. */
INLINE void kept_tile(const tk_trimmed *part, const float *base, float weight, float *restrict e, size_t at, size_t n) {
    const float *const b = part->is_difference ? no_base : base;
    const bool is_banded = part->from > 0 || part->to < MAGNITUDE;
    CACHE_ALIGNED uint8_t rest[TILE];
    load_tile(&part->x, at, e, n);
    if (!part->keep) return keep_tile(part, b, true, NULL, weight, e, n);
    const uint8_t *const flags = n == TILE ? part->keep + at : memcpy(rest, part->keep + at, n);
    if (is_banded) return keep_tile(part, b, true, flags, weight, e, n);
    keep_tile(part, b, false, flags, weight, e, n);
}

INLINE void consensus_tile(
    const tk_trimmed *parts, size_t models, bool normalize, const float *entries, float *restrict target, size_t n) {
    for (size_t j = 0; j < n; j += LANES) {
        float8 sum = {0}, agreed = {0}, weight = {0};
        for (size_t m = 0; m < models; m++) sum += *(const float8 *)(entries + m * TILE + j);
        const int32x8 negate = ~(sum >= 0) & INT32_MIN;
        for (size_t m = 0; m < models; m++) {
            const float8 e = *(const float8 *)(entries + m * TILE + j), one = (float8){} + 1.0f;
            const float8 mask = (float8)(((float8)((int32x8)e ^ negate) > 0) & (int32x8)one);
            agreed += e * mask;
            weight += parts[m].weight * mask;
        }
        if (normalize) {
            const int32x8 none = weight == 0;
            agreed /= (float8)(((int32x8)weight & ~none) | ((int32x8)((float8){} + 1.0f) & none));
        }
        *(float8 *)(target + j) = agreed;
    }
}

INLINE void trimmed_tile(
    const tk_trimmed *parts, size_t models, const tk_vector *base, const tk_combination *how, float *buffer,
    float *restrict target, size_t at, size_t n) {
    CACHE_ALIGNED float b[TILE], merged[TILE];
    load_tile(base, at, b, n);
    for (size_t j = 0; j < n; j++) merged[j] = 0;
    for (size_t m = 0; m < models; m++) {
        const float weight = parts[m].weight;
        float *restrict e = buffer + m * TILE;
        kept_tile(&parts[m], b, how->consensus ? weight : 1, e, at, n);
        if (how->consensus) continue;
        for (size_t j = 0; j < n; j++) merged[j] = weight * e[j] + merged[j];
    }
    if (how->consensus) {
        consensus_tile(parts, models, how->normalize, buffer, merged, n);
    } else if (how->divisor != 1) {
        for (size_t j = 0; j < n; j++) merged[j] /= how->divisor;
    }
    if (how->unscaled) {
        memcpy(target + at, merged, n * sizeof *merged);
        return;
    }
    const float lambda = how->lambda;
    for (size_t j = 0; j < n; j++) target[at + j] = lambda * merged[j] + b[j];
}

INLINE void merge_trimmed(
    const tk_trimmed *parts, size_t models, const tk_vector *base, const tk_combination *how, float *buffer, float *target,
    size_t n) {
    size_t i = 0;
    for (; i + TILE <= n; i += TILE) trimmed_tile(parts, models, base, how, buffer, target, i, TILE);
    if (i < n) trimmed_tile(parts, models, base, how, buffer, target, i, n - i);
}

/* Adds the magnitudes of eight entries to one sum, and those of the kept ones to another. */
INLINE void add_eight(
    const float *d, const float *base, bool is_banded, uint32_t from, uint32_t span, const uint8_t *flags, double8 *all,
    double8 *kept) {
    const uint32x8 u = (uint32x8)(*(const float8 *)d - *(const float8 *)base) & MAGNITUDE;
    const double8 own = __builtin_convertvector((float8)u, double8);
    int32x8 is_kept = (int32x8){} - 1;
    if (is_banded) is_kept &= (int32x8)(u - from <= span);
    if (flags) is_kept &= __builtin_convertvector(*(const flag8 *)flags, int32x8) != 0;
    *all += own;
    *kept += (double8)((int64x8)own & __builtin_convertvector(is_kept, int64x8));
}

INLINE void magnitudes_tile(
    const tk_trimmed *part, const tk_vector *base, bool is_banded, const uint8_t *flags, double8 *all, double8 *kept, size_t at,
    size_t n) {
    CACHE_ALIGNED float b[TILE], d[TILE];
    CACHE_ALIGNED uint8_t rest[TILE] = {0};
    const uint32_t from = part->from, span = part->to - part->from;
    load_tile(&part->x, at, d, n);
    if (!part->is_difference) load_tile(base, at, b, n);
    const float *const subtracted = part->is_difference ? no_base : b;
    if (flags) flags = n == TILE ? flags + at : memcpy(rest, flags + at, n);
    for (size_t j = n; j % LANES; j++) d[j] = b[j] = 0;
    for (size_t j = 0; j < n; j += LANES) {
        add_eight(d + j, subtracted + j, is_banded, from, span, flags ? flags + j : NULL, all, kept);
    }
}

/* Rotates the lanes so that the first one becomes lane 0. */
INLINE void rotate_lanes(double8 *x, size_t first) {
    const double8 old = *x;
    for (size_t lane = 0; lane < LANES; lane++) (*x)[lane] = old[(lane + first) % LANES];
}

INLINE void all_magnitudes(
    const tk_trimmed *part, const tk_vector *base, bool is_banded, const uint8_t *flags, double8 *all, double8 *kept, size_t n) {
    size_t i = 0;
    for (; i + TILE <= n; i += TILE) magnitudes_tile(part, base, is_banded, flags, all, kept, i, TILE);
    if (i < n) magnitudes_tile(part, base, is_banded, flags, all, kept, i, n - i);
}

INLINE void add_magnitudes(const tk_trimmed *part, const tk_vector *base, size_t lane, double *sums, size_t n) {
    double8 all, kept;
    memcpy(&all, sums, sizeof all);
    memcpy(&kept, sums + LANES, sizeof kept);
    rotate_lanes(&all, lane);
    rotate_lanes(&kept, lane);
    if (!part->keep) {
        all_magnitudes(part, base, true, NULL, &all, &kept, n);
    } else if (part->from > 0 || part->to < MAGNITUDE) {
        all_magnitudes(part, base, true, part->keep, &all, &kept, n);
    } else {
        all_magnitudes(part, base, false, part->keep, &all, &kept, n);
    }
    if (part->keep) kept += all * 0; /* a NaN that is dropped remains NaN */
    rotate_lanes(&all, LANES - lane);
    rotate_lanes(&kept, LANES - lane);
    memcpy(sums, &all, sizeof all);
    memcpy(sums + LANES, &kept, sizeof kept);
}

/* --- SCE ----------------------------------------------------------------------------------------------------------- */

/* The task vectors, TILE elements of each. */
INLINE void task_tile(const tk_trimmed *parts, size_t models, const float *base, float *restrict rows, size_t at, size_t n) {
    for (size_t m = 0; m < models; m++) {
        float *restrict row = rows + m * TILE;
        load_tile(&parts[m].x, at, row, n);
        if (parts[m].is_difference) continue;
        for (size_t j = 0; j < n; j++) row[j] -= base[j];
    }
}

INLINE void variance_tile(const float *rows, size_t models, float *restrict target, size_t n) {
    CACHE_ALIGNED float mean[TILE], sum[TILE];
    const float count = (float)models;
    for (size_t j = 0; j < n; j++) mean[j] = sum[j] = 0;
    for (size_t m = 0; m < models; m++) {
        for (size_t j = 0; j < n; j++) mean[j] += rows[m * TILE + j];
    }
    for (size_t j = 0; j < n; j++) mean[j] /= count;
    for (size_t m = 0; m < models; m++) {
        for (size_t j = 0; j < n; j++) {
            const float off = rows[m * TILE + j] - mean[j];
            sum[j] += off * off;
        }
    }
    for (size_t j = 0; j < n; j++) target[j] = sum[j] / count;
}

/* The task vectors' entries whose variance has at least the pattern `from`, TILE of each. With 0, which keeps everything, no
 * variances are computed. A NaN that is dropped remains NaN, as 0 * NaN. */
INLINE void varying_tile(
    const tk_trimmed *parts, size_t models, const float *base, uint32_t from, float *restrict rows, size_t at, size_t n) {
    CACHE_ALIGNED float keys[TILE];
    task_tile(parts, models, base, rows, at, n);
    if (from == 0) return;
    variance_tile(rows, models, keys, n);
    for (size_t j = 0; j < n; j++) keys[j] = (bits_of(keys[j]) & MAGNITUDE) >= from ? 1.0f : 0.0f;
    for (size_t m = 0; m < models; m++) {
        for (size_t j = 0; j < n; j++) rows[m * TILE + j] *= keys[j];
    }
}

INLINE void variances_tile(
    const tk_trimmed *parts, size_t models, const tk_vector *base, float *buffer, float *target, size_t at, size_t n) {
    CACHE_ALIGNED float b[TILE];
    load_tile(base, at, b, n);
    task_tile(parts, models, b, buffer, at, n);
    variance_tile(buffer, models, target + at, n);
}

INLINE void variances(
    const tk_trimmed *parts, size_t models, const tk_vector *base, float *buffer, float *target, size_t n) {
    size_t i = 0;
    for (; i + TILE <= n; i += TILE) variances_tile(parts, models, base, buffer, target, i, TILE);
    if (i < n) variances_tile(parts, models, base, buffer, target, i, n - i);
}

INLINE void squares_tile(
    const tk_trimmed *parts, size_t models, const tk_vector *base, uint32_t from, float *buffer, double *lanes, size_t at,
    size_t n) {
    CACHE_ALIGNED float b[TILE];
    load_tile(base, at, b, n);
    varying_tile(parts, models, b, from, buffer, at, n);
    for (size_t m = 0; m < models; m++) {
        float *const row = buffer + m * TILE;
        for (size_t j = n; j % LANES; j++) row[j] = 0;
        double8 sum;
        memcpy(&sum, lanes + m * LANES, sizeof sum);
        for (size_t j = 0; j < n; j += LANES) {
            const double8 own = __builtin_convertvector(*(const float8 *)(row + j), double8);
            sum += own * own;
        }
        memcpy(lanes + m * LANES, &sum, sizeof sum);
    }
}

INLINE void varying_squares(
    const tk_trimmed *parts, size_t models, const tk_vector *base, uint32_t from, float *buffer, double *lanes, size_t n) {
    size_t i = 0;
    for (; i + TILE <= n; i += TILE) squares_tile(parts, models, base, from, buffer, lanes, i, TILE);
    if (i < n) squares_tile(parts, models, base, from, buffer, lanes, i, n - i);
}

INLINE void fuse_tile(
    const tk_trimmed *parts, size_t models, const tk_vector *base, uint32_t from, float floor, float *buffer,
    float *restrict target, size_t at, size_t n) {
    CACHE_ALIGNED float b[TILE], sum[TILE], agreed[TILE], weight[TILE];
    load_tile(base, at, b, n);
    varying_tile(parts, models, b, from, buffer, at, n);
    for (size_t j = 0; j < n; j++) sum[j] = agreed[j] = weight[j] = 0;
    for (size_t m = 0; m < models; m++) {
        for (size_t j = 0; j < n; j++) sum[j] += buffer[m * TILE + j];
    }
    for (size_t m = 0; m < models; m++) {
        const float *x = buffer + m * TILE, w = parts[m].weight;
        for (size_t j = 0; j < n; j++) {
            const float own = ((x[j] > 0) & (sum[j] >= 0)) | ((x[j] < 0) & !(sum[j] >= 0)) ? w : 0.0f;
            agreed[j] += x[j] * own;
            weight[j] += own;
        }
    }
    for (size_t j = 0; j < n; j++) target[at + j] = agreed[j] / (weight[j] > floor ? weight[j] : floor) + b[j];
}

INLINE void fuse_varying(
    const tk_trimmed *parts, size_t models, const tk_vector *base, uint32_t from, float floor, float *buffer, float *target,
    size_t n) {
    size_t i = 0;
    for (; i + TILE <= n; i += TILE) fuse_tile(parts, models, base, from, floor, buffer, target, i, TILE);
    if (i < n) fuse_tile(parts, models, base, from, floor, buffer, target, i, n - i);
}

/* --- arcee_fusion -------------------------------------------------------------------------------------------------- */

/* Loads a tile and pads the lanes beyond n. */
INLINE void load_lanes(const tk_vector *x, size_t at, float fill, float *tile, size_t n) {
    if (n == TILE) return load_tile(x, at, tile, TILE);
    load_tile(x, at, tile, n);
    for (size_t j = n; j % LANES; j++) tile[j] = fill;
}

/* exp(x - top); zero in the lanes beyond n. */
INLINE void softmax_lanes(const float *x, double top, double8 *e, size_t n) {
    *e = __builtin_convertvector(*(const float8 *)x, double8) - top;
    exp_lanes(e);
    for (size_t lane = n; lane < LANES; lane++) (*e)[lane] = 0;
}

/* The largest element, and the sum of all exp(x - largest), which go to `exponentials` too, eight lanes at a time, unless it is
 * NULL. */
INLINE void softmax_row(const tk_vector *x, size_t n, double *maximum, double *sum, double *exponentials) {
    CACHE_ALIGNED float tile[TILE], most[LANES];
    float greatest = -INFINITY;
    for (int lane = 0; lane < LANES; lane++) most[lane] = -INFINITY;
    for (size_t i = 0; i < n; i += TILE) {
        const size_t count = n - i < TILE ? n - i : TILE;
        load_lanes(x, i, -INFINITY, tile, count);
        for (size_t j = 0; j < count; j += LANES) {
            for (int lane = 0; lane < LANES; lane++) most[lane] = tile[j + lane] > most[lane] ? tile[j + lane] : most[lane];
        }
    }
    for (int lane = 0; lane < LANES; lane++) greatest = most[lane] > greatest ? most[lane] : greatest;
    double8 lanes = {0}, e;
    for (size_t i = 0; i < n; i += TILE) {
        const size_t count = n - i < TILE ? n - i : TILE;
        load_lanes(x, i, greatest, tile, count);
        for (size_t j = 0; j < count; j += LANES) {
            softmax_lanes(tile + j, greatest, &e, count - j);
            lanes += e;
            if (exponentials) memcpy(exponentials + i + j, &e, sizeof e);
        }
    }
    *maximum = greatest;
    *sum = sum_of_lanes(&lanes);
}

INLINE void softmax_parts(const tk_vector *x, size_t n, double *maximum, double *sum) {
    softmax_row(x, n, maximum, sum, NULL);
}

/* Adds p log(p / q), p and q being the exponentials times the inverse sums, plus 1e-8. Where both are zero, nothing is added. */
INLINE void divergence_lanes(double8 *p, double8 *q, const double *s, double8 *sum) {
    double8 log;
    *p = *p * s[1] + 1e-8;
    *q = *q * s[3] + 1e-8;
    log_ratio(p, q, &log);
    *sum += *p * log;
}

INLINE void divergence_tile(const tk_vector *x, const tk_vector *y, const double *s, double8 *sum, size_t at, size_t n) {
    CACHE_ALIGNED float a[TILE], b[TILE];
    load_lanes(x, at, (float)s[0], a, n);
    load_lanes(y, at, (float)s[2], b, n);
    for (size_t j = 0; j < n; j += LANES) {
        double8 p, q;
        softmax_lanes(a + j, s[0], &p, n - j);
        softmax_lanes(b + j, s[2], &q, n - j);
        divergence_lanes(&p, &q, s, sum);
    }
}

INLINE double divergence(const tk_vector *x, const tk_vector *y, const double *s, size_t n) {
    double8 sum = {0};
    size_t i = 0;
    for (; i + TILE <= n; i += TILE) divergence_tile(x, y, s, &sum, i, TILE);
    if (i < n) divergence_tile(x, y, s, &sum, i, n - i);
    return sum_of_lanes(&sum);
}

INLINE double row_divergence(const tk_vector *x, const tk_vector *y, double *exponentials, size_t n) {
    double *const other = exponentials + (n + LANES - 1) / LANES * LANES, s[4];
    softmax_row(x, n, &s[0], &s[1], exponentials);
    softmax_row(y, n, &s[2], &s[3], other);
    s[1] = 1 / s[1];
    s[3] = 1 / s[3];
    double8 sum = {0}, p, q;
    for (size_t i = 0; i < n; i += LANES) {
        memcpy(&p, exponentials + i, sizeof p);
        memcpy(&q, other + i, sizeof q);
        divergence_lanes(&p, &q, s, &sum);
    }
    return sum_of_lanes(&sum);
}

INLINE void importance_tile(float a, const tk_vector *x, const tk_vector *y, float *restrict target, size_t at, size_t n) {
    CACHE_ALIGNED float own[TILE], other[TILE];
    load_tile(x, at, own, n);
    load_tile(y, at, other, n);
    for (size_t j = 0; j < n; j++) target[at + j] = fabsf(own[j] - other[j]) * a;
}

INLINE void importance(float a, const tk_vector *x, const tk_vector *y, float *target, size_t n) {
    size_t i = 0;
    for (; i + TILE <= n; i += TILE) importance_tile(a, x, y, target, i, TILE);
    if (i < n) importance_tile(a, x, y, target, i, n - i);
}

INLINE void swap_tile(
    float a, float threshold, const tk_vector *x, const tk_vector *y, float *restrict target, size_t at, size_t n) {
    CACHE_ALIGNED float own[TILE], other[TILE];
    load_tile(x, at, own, n);
    load_tile(y, at, other, n);
    for (size_t j = 0; j < n; j++) {
        const float d = own[j] - other[j], mask = fabsf(d) * a >= threshold ? 1.0f : 0.0f;
        target[at + j] = other[j] + d * mask;
    }
}

INLINE void swap_important(float a, float threshold, const tk_vector *x, const tk_vector *y, float *target, size_t n) {
    size_t i = 0;
    for (; i + TILE <= n; i += TILE) swap_tile(a, threshold, x, y, target, i, TILE);
    if (i < n) swap_tile(a, threshold, x, y, target, i, n - i);
}
