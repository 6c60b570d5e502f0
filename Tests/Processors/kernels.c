/* Calls every kernel of one level on numbers that are the same everywhere, and prints a line for each: its name, and a digest of
 * all that it wrote.
 *
 *   kernels portable|x86-64-v3|x86-64-v4
 *
 * Exits with 69 where the processor lacks the level. `check` beside this file compares the lines of several processors. What a
 * kernel computes is for Tests/TensorKernels to say; here it only has to be the same, NaN being NaN whatever its sign and
 * payload.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "tensor_kernels.h"

/* The numbers are made by arithmetic too. */
#pragma STDC FP_CONTRACT OFF

enum {
    LONGEST = 8192,
    PATTERNS = 1 << 16,
    SPARE = 8,      /* elements behind a kernel's target, which must stay as they are */
    FARTHEST = 257, /* element of a stream that decoding begins with */
    MODELS = 6,     /* one of each type of tk_vector */
};

static const size_t lengths[] = {0, 1, 7, 8, 31, 33, 64, 100, 257, 1000, LONGEST};
static const size_t firsts[] = {0, 1, 5, 8, 64, FARTHEST};

#define COUNT(array) (sizeof(array) / sizeof *(array))
#define EACH(index, array) (size_t index = 0; index < COUNT(array); index++)

/* --- numbers ------------------------------------------------------------------------------------------------------- */

/* What SplitMix64 makes of a state. */
static uint64_t mixed(uint64_t word) {
    word = (word ^ (word >> 30)) * 0xbf58476d1ce4e5b9;
    word = (word ^ (word >> 27)) * 0x94d049bb133111eb;
    return word ^ (word >> 31);
}

static uint64_t next(uint64_t *state) { return mixed(*state += 0x9e3779b97f4a7c15); }

typedef enum kind {
    ORDINARY, /* within -1...1, some of them so small that sums have to be rounded */
    COARSE,   /* few values, many of them zeros of either sign */
    FINITE,   /* half ordinary, half any pattern but infinities and NaN */
    ANY,      /* half ordinary, half any pattern */
} kind;
enum { KINDS = ANY + 1 };

static float float_of(uint32_t pattern) {
    float x;
    memcpy(&x, &pattern, sizeof x);
    return x;
}

static float number(kind kind, uint64_t *state) {
    const uint64_t word = next(state);
    if (kind == COARSE) {
        const int quarters = (int)(word % 16) - 8;
        return quarters < -4 ? 0.0f : quarters > 4 ? -0.0f : (float)quarters / 4;
    }
    if (kind != ORDINARY && word & 1) {
        const float any = float_of((uint32_t)(word >> 32));
        return kind == ANY || isfinite(any) ? any : 1;
    }
    const uint32_t exponent = word & 6 ? 127 : 127 - (uint32_t)(word >> 3) % 40;
    return (float)((int64_t)(word >> 39) - (1 << 24)) * 0x1p-24f * float_of(exponent << 23);
}

static void fill(float *x, kind kind, uint64_t seed, size_t n) {
    for (size_t i = 0; i < n; i++) x[i] = number(kind, &seed);
}

static void fill_bytes(uint8_t *target, uint64_t seed, size_t n) {
    for (size_t i = 0; i < n; i++) target[i] = (uint8_t)next(&seed);
}

/* An element of a type of tk_vector. Returns how many bytes it takes. */
static size_t store(int32_t type, kind kind, uint64_t *state, uint8_t *element) {
    const float x = number(kind, state);
    const uint64_t word = next(state);
    /* Without the highest bit of its exponent an element of 8 or 16 bits is below 2. */
    const bool is_any = kind == ANY && word >> 63;
    uint32_t pattern;
    memcpy(&pattern, &x, sizeof pattern);
    switch (type) {
        case TK_BF16: memcpy(element, &(uint16_t){(uint16_t)(pattern >> 16)}, 2); return 2;
        case TK_F16: memcpy(element, &(uint16_t){(uint16_t)(is_any ? word : word & 0xbfff)}, 2); return 2;
        case TK_F64: {
            /* Beyond float32's last bit, with ties. */
            const double wide = (double)x * (1 + (double)(word % 16) * 0x1p-26);
            memcpy(element, is_any ? (const void *)&word : &wide, 8);
            return 8;
        }
        case TK_E4M3:
        case TK_E5M2: *element = (uint8_t)(is_any ? word : word & 0xbf); return 1;
        default: memcpy(element, &x, 4); return 4;
    }
}

/* --- what the checks share ----------------------------------------------------------------------------------------- */

/* What kernels read and write, filled anew for every call of a check. Floats lie no better than floats have to. */
static float xs[1 + PATTERNS], ys[1 + LONGEST + SPARE], zs[1 + LONGEST + SPARE], targets[1 + PATTERNS + SPARE];
static float *const x = xs + 1, *const y = ys + 1, *const z = zs + 1, *const target = targets + 1;
static uint8_t bytes[8 * PATTERNS + 2 * SPARE], flags[LONGEST + SPARE], taken[LONGEST + SPARE]; /* taken is 0 or 1 */
static kind data;

static uint64_t digest;

static void note(uint64_t word) { digest = mixed(digest ^ word) + 1; }

static void note_bytes(const void *written, size_t n) {
    const uint8_t *p = written;
    for (; n >= 8; n -= 8, p += 8) {
        uint64_t word;
        memcpy(&word, p, sizeof word);
        note(word);
    }
    for (; n > 0; n--) note(*p++);
}

static void note_float(float value) {
    uint32_t pattern;
    memcpy(&pattern, &value, sizeof pattern);
    note(value == value ? pattern : 0x7fc00000);
}

static void note_double(double value) {
    uint64_t pattern;
    memcpy(&pattern, &value, sizeof pattern);
    note(value == value ? pattern : 0x7ff8000000000000);
}

static void note_floats(const float *values, size_t n) {
    for (size_t i = 0; i < n; i++) note_float(values[i]);
}

/* So many elements, and what stands behind them. */
static void note_target(size_t n) { note_floats(target, n + SPARE); }
static void note_flags(size_t n) { note_bytes(flags, n + SPARE); }
static void note_bitmap(size_t n) { note_bytes(bytes, (n + 7) / 8 + SPARE); }

/* A vector of a type, one byte off any alignment. */
static tk_vector vector(int32_t type, size_t n, uint64_t seed, uint8_t *buffer) {
    uint8_t *p = buffer + 1;
    for (size_t i = 0; i < n; i++) p += store(type, data, &seed, p);
    return (tk_vector){buffer + 1, type};
}

static uint8_t stored[MODELS + 1][1 + 8 * LONGEST];

/* Vectors of all types. */
static void vectors(tk_vector *models, size_t n) {
    for (int32_t m = 0; m < MODELS; m++) models[m] = vector(m, n, (uint64_t)m + 10, stored[m]);
}

static tk_vector as_it_is(const float *values) { return (tk_vector){values, TK_F32}; }

/* --- conversions --------------------------------------------------------------------------------------------------- */

static void widened(void (*widen)(const void *, float *, size_t), int32_t type, size_t width, size_t n) {
    for (size_t shift = 0; shift < 4; shift++) {
        uint64_t seed = shift;
        uint8_t *p = bytes + shift;
        for (size_t i = 0; i < n; i++) p += store(type, data, &seed, p);
        widen(bytes + shift, target, n);
        note_target(n);
    }
    if (width > 2 || n < LONGEST) return;
    const size_t patterns = (size_t)1 << 8 * width;
    for (size_t i = 0; i < patterns; i++) memcpy(bytes + width * i, &i, width); /* little-endian, as all stored elements */
    widen(bytes, target, patterns);
    note_target(patterns);
}

/* Any pattern, near the exponents that the narrow types have, and at or beside the middle between two of their numbers. */
static void fill_narrow(float *values, size_t n) {
    static const uint32_t dropped[] = {13, 16, 20, 21};
    uint64_t seed = 4;
    for (size_t i = 0; i < n; i++) {
        const uint64_t word = next(&seed), choice = next(&seed);
        uint32_t pattern = (uint32_t)word;
        if (choice & 1) pattern = (pattern & 0x807fffff) | (uint32_t)(90 + (word >> 32) % 60) << 23;
        if (choice & 2) {
            const uint32_t middle = 1u << (dropped[choice >> 2 & 3] - 1), place = middle - 1 + (uint32_t)(choice >> 4) % 3;
            pattern = (pattern & ~(2 * middle - 1)) | place;
        }
        values[i] = float_of(pattern);
    }
}

static void narrowed(void (*narrow)(const float *, void *, size_t), size_t width, size_t n) {
    const size_t count = n == LONGEST ? PATTERNS : n;
    if (n == LONGEST) fill_narrow(x, PATTERNS);
    for (size_t shift = 0; shift < 2; shift++) {
        memset(bytes, 0xee, shift + width * count + SPARE);
        narrow(x, bytes + shift, count);
        note_bytes(bytes, shift + width * count + SPARE);
    }
}

static void check_widen_f16(const tk_kernels *k, size_t n) { widened(k->widen_f16, TK_F16, 2, n); }
static void check_widen_bf16(const tk_kernels *k, size_t n) { widened(k->widen_bf16, TK_BF16, 2, n); }
static void check_widen_f64(const tk_kernels *k, size_t n) { widened(k->widen_f64, TK_F64, 8, n); }
static void check_widen_e4m3(const tk_kernels *k, size_t n) { widened(k->widen_e4m3, TK_E4M3, 1, n); }
static void check_widen_e5m2(const tk_kernels *k, size_t n) { widened(k->widen_e5m2, TK_E5M2, 1, n); }
static void check_narrow_f16(const tk_kernels *k, size_t n) { narrowed(k->narrow_f16, 2, n); }
static void check_narrow_bf16(const tk_kernels *k, size_t n) { narrowed(k->narrow_bf16, 2, n); }
static void check_narrow_f32(const tk_kernels *k, size_t n) { narrowed(k->narrow_f32, 4, n); }
static void check_narrow_f64(const tk_kernels *k, size_t n) { narrowed(k->narrow_f64, 8, n); }
static void check_narrow_e4m3(const tk_kernels *k, size_t n) { narrowed(k->narrow_e4m3, 1, n); }
static void check_narrow_e5m2(const tk_kernels *k, size_t n) { narrowed(k->narrow_e5m2, 1, n); }

/* --- arithmetic ---------------------------------------------------------------------------------------------------- */

static void check_subtract(const tk_kernels *k, size_t n) {
    k->subtract(x, y, target, n);
    note_target(n);
    k->subtract(x, y, x, n);
    note_floats(x, n + SPARE);
}

static void check_difference(const tk_kernels *k, size_t n) {
    tk_vector models[MODELS];
    vectors(models, n);
    for (int32_t type = 0; type < MODELS; type++) {
        const tk_vector other = vector(type, n, 20, stored[MODELS]);
        for EACH(m, models) {
            k->difference(&models[m], &other, target, n);
            note_target(n);
        }
    }
    const tk_vector own = as_it_is(target);
    k->difference(&own, &models[TK_BF16], target, n);
    note_target(n);
}

static void check_weighted_sum(const tk_kernels *k, size_t n) {
    static const float weights[MODELS] = {0.3f, -1, 0, 0.7f, 1.5f, 0.1f};
    tk_vector models[MODELS];
    vectors(models, n);
    for (size_t count = 0; count <= MODELS; count++) {
        for (float divisor = 1; divisor <= 3; divisor += 2) {
            k->weighted_sum(models, weights, count, divisor, target, n);
            note_target(n);
        }
    }
}

/* No band ends among the patterns of NaN: those of a computed one are not promised. */
static void trimmed(tk_trimmed *parts, size_t n) {
    static const struct { uint32_t from, to; } bands[] = {
        {0, INT32_MAX}, {0x3e800000, INT32_MAX}, {UINT32_MAX, UINT32_MAX}, {0x3d000000, 0x3f800000}};
    tk_vector models[MODELS];
    vectors(models, n);
    for EACH(m, models) {
        parts[m] = (tk_trimmed){
            .x = models[m],
            .is_difference = m == 4,
            .from = bands[m % COUNT(bands)].from,
            .to = bands[m % COUNT(bands)].to,
            .keep = m % 3 == 0 ? NULL : taken,
            .factor = 1 + (float)m / 7,
            .weight = (float)m / 4 - 0.3f,
        };
    }
}

static void check_merge_trimmed(const tk_kernels *k, size_t n) {
    static const tk_combination ways[] = {
        {.consensus = true, .normalize = true, .divisor = 1, .lambda = 1},
        {.consensus = true, .normalize = false, .divisor = 1, .lambda = 0.7f},
        {.consensus = false, .divisor = 1, .lambda = 1.3f},
        {.consensus = false, .divisor = 2.5f, .lambda = 1},
    };
    static float buffer[MODELS * TK_TILE];
    tk_trimmed parts[MODELS];
    trimmed(parts, n);
    const tk_vector bases[] = {as_it_is(y), vector(TK_BF16, n, 20, stored[MODELS])};
    for EACH(way, ways) {
        for (size_t models = 0; models <= MODELS; models++) {
            for EACH(b, bases) {
                k->merge_trimmed(parts, models, &bases[b], &ways[way], buffer, target, n);
                note_target(n);
            }
        }
    }
}

static void check_add_magnitudes(const tk_kernels *k, size_t n) {
    tk_trimmed parts[MODELS];
    trimmed(parts, n);
    const tk_vector base = as_it_is(y);
    for EACH(m, parts) {
        for (size_t lane = 0; lane < 8; lane++) {
            double sums[16];
            for EACH(i, sums) sums[i] = (double)i / 3;
            k->add_magnitudes(&parts[m], &base, lane, sums, n);
            for EACH(i, sums) note_double(sums[i]);
        }
    }
}

static void check_add(const tk_kernels *k, size_t n) {
    k->add(x, target, n);
    note_target(n);
}

static void check_scale(const tk_kernels *k, size_t n) {
    k->scale(0.3f, x, target, n);
    note_target(n);
}

static void check_axpy(const tk_kernels *k, size_t n) {
    k->axpy(0.1f, x, target, n);
    note_target(n);
}

static void check_multiply(const tk_kernels *k, size_t n) {
    k->multiply(x, y, target, n);
    note_target(n);
}

static void check_multiply_add(const tk_kernels *k, size_t n) {
    k->multiply_add(x, y, target, n);
    note_target(n);
}

static void check_add_products(const tk_kernels *k, size_t n) {
    static double sums[LONGEST + SPARE];
    for (size_t i = 0; i < n + SPARE; i++) sums[i] = (double)z[i];
    k->add_products(x, y, sums, n);
    for (size_t i = 0; i < n + SPARE; i++) note_double(sums[i]);
}

static void check_dot(const tk_kernels *k, size_t n) { note_double(k->dot(x, y, n)); }
static void check_sum_of_magnitudes(const tk_kernels *k, size_t n) { note_double(k->sum_of_magnitudes(x, n)); }

static void check_squared_error(const tk_kernels *k, size_t n) {
    note_double(k->squared_error(x, y, n));
    /* Now the squares are longer than a float64, too. */
    for (size_t i = 0; i < n; i++) y[i] *= 1e-3f;
    note_double(k->squared_error(x, y, n));
}

static void check_compare(const tk_kernels *k, size_t n) {
    double sums[3];
    k->compare(x, y, sums, n);
    for EACH(i, sums) note_double(sums[i]);
}

static void check_sums_of_squares(const tk_kernels *k, size_t n) {
    static const size_t groups[] = {4, 16, 64, 512};
    static double sums[LONGEST / 4 + SPARE];
    for EACH(g, groups) {
        for EACH(i, sums) sums[i] = 0.5;
        k->sums_of_squares(x, groups[g], sums, n);
        for EACH(i, sums) note_double(sums[i]);
    }
}

/* --- ranks --------------------------------------------------------------------------------------------------------- */

static void check_histogram_high(const tk_kernels *k, size_t n) {
    static uint32_t bins[TK_HIGH_TABLES * TK_HIGH_BINS];
    memset(bins, 0, sizeof bins);
    k->histogram_high(x, bins, n);
    note_bytes(bins, sizeof bins);
}

static void check_histogram_low(const tk_kernels *k, size_t n) {
    static uint32_t bins[TK_LOW_BINS];
    memset(bins, 0, sizeof bins);
    k->histogram_low(x, 0x3f00, bins, n);
    note_bytes(bins, sizeof bins);
}

static void check_count_window(const tk_kernels *k, size_t n) {
    static const struct { uint32_t low, high; } windows[] = {
        {0, 0}, {0, INT32_MAX}, {INT32_MAX, INT32_MAX}, {0x3f000000, 0x3f400000}, {0x3eff0000, 0x3f000001},
        {0x3e800000, 0x7f800000}};
    static uint32_t notes[LONGEST + 1];
    for EACH(w, windows) {
        tk_window_counts counts = {1, 2, 3};
        const size_t noted = k->count_window(x, windows[w].low, windows[w].high, &counts, notes, n);
        note(noted);
        note_bytes(notes, noted * sizeof *notes);
        note(counts.above);
        note(counts.at_high);
        /* Says nothing where both ends are the same. */
        if (windows[w].low < windows[w].high) note(counts.at_low);
    }
}

static void check_count_equal(const tk_kernels *k, size_t n) {
    static const uint32_t patterns[] = {0, 0x3f000000, 0x7f800000};
    for EACH(p, patterns) note(k->count_equal(x, patterns[p], n));
}

/* --- random draws -------------------------------------------------------------------------------------------------- */

/* From the beginning, from within a group, and across where the counter's second word goes on. */
static const uint64_t drawn_from[] = {0, 3, 33, ((uint64_t)1 << 34) - 500};

static void check_draw(const tk_kernels *k, size_t n) {
    static uint32_t draws[LONGEST + SPARE];
    for EACH(d, drawn_from) {
        k->draw(0x299f31d0a4093822, 5, drawn_from[d], draws, n);
        note_bytes(draws, sizeof draws);
    }
}

static void check_flag_random(const tk_kernels *k, size_t n) {
    for EACH(d, drawn_from) {
        k->flag_random(42, 3, drawn_from[d], 1u << 30, flags, n);
        note_flags(n);
    }
}

static void check_pack_flags(const tk_kernels *k, size_t n) {
    static uint32_t words[LONGEST / 32 + SPARE];
    k->pack_flags(taken, words, n);
    note_bytes(words, sizeof words);
}

static void check_unpack_flags(const tk_kernels *k, size_t n) {
    static uint32_t words[LONGEST / 32 + 1];
    fill_bytes((uint8_t *)words, 6, sizeof words);
    k->unpack_flags(words, flags, n);
    note_flags(n);
}

static void check_keep_by_rank(const tk_kernels *k, size_t n) {
    static const struct { double lowest, spread; } ways[] = {{0.35, 0.3}, {0.1, 0.8}, {0.5, 0}, {0, 1}};
    static tk_rank_buffer buffer;
    static uint64_t items[(17 * LONGEST + 31) / 8 + 1];
    static uint32_t draws[LONGEST + 62];
    for EACH(way, ways) {
        for EACH(d, drawn_from) {
            const tk_random random = {.key = 5, .stream = 2, .first = drawn_from[d]};
            k->keep_by_rank(x, &random, draws, n, ways[way].lowest, ways[way].spread, &buffer, items, flags);
            for (size_t i = 0; i < n; i++) note(x[i] != 0 ? flags[i] : 0); /* a zero may stay or not */
            k->draw(5, 2, drawn_from[d], draws, n);
            k->keep_by_rank(x, NULL, draws, n, ways[way].lowest, ways[way].spread, &buffer, items, flags);
            for (size_t i = 0; i < n; i++) note(x[i] != 0 ? flags[i] : 0);
        }
    }
    note_bytes(flags + n, SPARE);
    note_bytes(buffer.counts, sizeof buffer.counts);
}

/* --- the loops of single methods ------------------------------------------------------------------------------------ */

static void check_keep_keyed(const tk_kernels *k, size_t n) {
    k->keep_keyed(x, 0x3f000000, INT32_MAX, target, n);
    note_target(n);
}

static const float *const rows[] = {xs + 1, ys + 1, zs + 1};

static void check_variance(const tk_kernels *k, size_t n) {
    for (size_t models = 1; models <= COUNT(rows); models++) {
        k->variance(rows, models, target, n);
        note_target(n);
    }
}

static void check_fuse_agreeing(const tk_kernels *k, size_t n) {
    static const float weights[] = {0.2f, 0.5f, 0.3f};
    for (size_t models = 1; models <= COUNT(rows); models++) {
        k->fuse_agreeing(rows, weights, models, 1e-6f, target, n);
        note_target(n);
    }
}

static void check_count_changes(const tk_kernels *k, size_t n) {
    for (size_t models = 1; models <= COUNT(rows); models++) {
        uint32_t alone[COUNT(rows)] = {1, 2, 3}, shared[COUNT(rows)] = {4, 5, 6};
        k->count_changes(rows, models, 0.4f, alone, shared, n);
        note_bytes(alone, sizeof alone);
        note_bytes(shared, sizeof shared);
    }
}

static void check_merge_changes(const tk_kernels *k, size_t n) {
    static const float factors[] = {1, 1.1f, 1.2f};
    for (size_t models = 1; models <= COUNT(rows); models++) {
        k->merge_changes(rows, factors, models, 0.4f, target, n);
        note_target(n);
    }
}

static void check_nearswap(const tk_kernels *k, size_t n) {
    k->nearswap(0.1f, x, y, target, n);
    note_target(n);
}

static void check_exponential(const tk_kernels *k, size_t n) {
    static const double scales[] = {0.125, 1, 50, 1000};
    for EACH(scale, scales) {
        for (size_t i = 0; i < n; i++) note_double(k->exponential(-scales[scale] * (double)(x[i] < 0 ? -x[i] : x[i])));
    }
}

/* Rows close to their largest value, far from it, and of both kinds. */
static const float softmax_scales[] = {1.0f / 16, 1, 30};

static void scaled_row(const float *values, float scale, float *row, size_t n) {
    for (size_t i = 0; i < n; i++) row[i] = values[i] * (i % 200 < 100 ? scale : 1.0f / 16);
}

static void check_softmax_parts(const tk_kernels *k, size_t n) {
    tk_vector models[MODELS];
    double maximum, sum;
    vectors(models, n);
    for EACH(m, models) {
        k->softmax_parts(&models[m], n, &maximum, &sum);
        note_double(maximum);
        note_double(sum);
    }
    const tk_vector row = as_it_is(target);
    for EACH(scale, softmax_scales) {
        scaled_row(x, softmax_scales[scale], target, n);
        k->softmax_parts(&row, n, &maximum, &sum);
        note_double(maximum);
        note_double(sum);
    }
}

static void note_divergence(const tk_kernels *k, const tk_vector *p, const tk_vector *q, size_t n) {
    double s[4];
    k->softmax_parts(p, n, &s[0], &s[1]);
    k->softmax_parts(q, n, &s[2], &s[3]);
    s[1] = 1 / s[1];
    s[3] = 1 / s[3];
    note_double(k->divergence(p, q, s, n));
}

static void check_divergence(const tk_kernels *k, size_t n) {
    static const float odd[] = {0x1p-6f, NAN, -NAN, INFINITY, -INFINITY};
    tk_vector models[MODELS];
    vectors(models, n);
    const tk_vector p = as_it_is(z), q = as_it_is(target);
    for EACH(m, models) note_divergence(k, &models[m], &models[(m + 1) % MODELS], n);
    for EACH(scale, softmax_scales) {
        scaled_row(x, softmax_scales[scale], z, n);
        scaled_row(y, softmax_scales[scale], target, n);
        note_divergence(k, &p, &q, n);
        /* Close to each other but for one element, which may be no number. */
        scaled_row(z, 1.001f, target, n);
        for EACH(o, odd) {
            if (n > 0) target[n / 2] = odd[o];
            note_divergence(k, &p, &q, n);
            note_divergence(k, &q, &p, n);
        }
    }
}

static void check_importance(const tk_kernels *k, size_t n) {
    tk_vector models[MODELS];
    vectors(models, n);
    for EACH(m, models) {
        k->importance(0.7f, &models[m], &models[(m + 1) % MODELS], target, n);
        note_target(n);
    }
}

static void check_swap_important(const tk_kernels *k, size_t n) {
    tk_vector models[MODELS];
    vectors(models, n);
    for EACH(m, models) {
        k->swap_important(0.7f, 0.3f, &models[m], &models[(m + 1) % MODELS], target, n);
        note_target(n);
    }
}

/* --- codes --------------------------------------------------------------------------------------------------------- */

static void check_range(const tk_kernels *k, size_t n) {
    float lowest, highest;
    const bool all_finite = k->range(x, &lowest, &highest, n);
    note(all_finite);
    if (!all_finite) return;
    note_float(lowest);
    note_float(highest);
}

static void check_quantize(const tk_kernels *k, size_t n) {
    static const struct { float factor; double offset; } grids[] = {
        {1, 3}, {0.3f, 1.5}, {25, -7.25}, {-3, 0}, {1e9f, 100}, {1.7f, 1048576}, {3e6f, -3000000.25}, {-1e12f, 1e12}};
    static const uint32_t highest[] = {1, 3, 7, 100, 255};
    for EACH(g, grids) {
        for EACH(h, highest) {
            k->quantize(x, grids[g].factor, grids[g].offset, highest[h], flags, n);
            note_flags(n);
            /* At ties between codes, and right beside them. */
            for (size_t i = 0; i < n; i++) {
                const float tie = (float)(((double)(i % highest[h]) + 0.5 - grids[g].offset) / (double)grids[g].factor);
                target[i] = tie + (float)((int)(i % 7) - 3) * fabsf(tie) * 0x1p-24f;
            }
            k->quantize(target, grids[g].factor, grids[g].offset, highest[h], flags, n);
            note_flags(n);
        }
    }
}

static void check_pack(const tk_kernels *k, size_t n) {
    static uint8_t codes[LONGEST];
    fill_bytes(codes, 7, n);
    for (size_t bits = 1; bits <= 8; bits++) {
        const size_t size = (n * bits + 7) / 8;
        memset(bytes, 0xee, size + SPARE);
        k->pack(codes, bits, bytes, n);
        note_bytes(bytes, size + SPARE);
    }
}

static void check_dequantize_table(const tk_kernels *k, size_t n) {
    static float table[256];
    fill(table, data, 8, COUNT(table));
    for (size_t bits = 1; bits <= 8; bits++) {
        for EACH(f, firsts) {
            k->dequantize_table(bytes, bits, firsts[f], table, target, n);
            note_target(n);
        }
    }
}

static void check_dequantize_groups(const tk_kernels *k, size_t n) {
    static const size_t groups[] = {1, 4, 32, 128, (size_t)1 << 62};
    static const float zeros[] = {0, 0.5f, 3, 128};
    for (size_t bits = 1; bits <= 8; bits++) {
        for EACH(f, firsts) {
            for EACH(g, groups) {
                k->dequantize_groups(bytes, bits, firsts[f], groups[g], x, zeros[(bits + g) % COUNT(zeros)], target, n);
                note_target(n);
            }
        }
    }
}

static void check_decode(const tk_kernels *k, size_t n) {
    static const double zeros[] = {0, 0.5, 100, -1048576.5, 1e12};
    for EACH(zero, zeros) {
        k->decode(bytes, 0.3f, zeros[zero], target, n);
        note_target(n);
    }
}

static void check_fit_groups(const tk_kernels *k, size_t n) {
    static const size_t groups[] = {16, 64, 512};
    static float steps[LONGEST / 16 + SPARE];
    for (size_t i = 0; i < n; i++) x[i] = isfinite(x[i]) ? x[i] : 1;
    for EACH(g, groups) {
        for (size_t bits = 1; bits <= 8; bits++) {
            k->fit_groups(x, groups[g], bits, steps, flags, target, n);
            note_floats(steps, COUNT(steps));
            note_flags(n);
            note_target(n);
        }
    }
}

static void check_pick_kept(const tk_kernels *k, size_t n) {
    for (size_t every = 1; every <= 128; every *= 2) {
        const tk_thinning how = {.key = 0x123456789abcdef0 + every, .every = every, .count = n + 512};
        k->pick_kept(&how, x, 512, target, n);
        note_target(n);
    }
}

static void check_place_kept(const tk_kernels *k, size_t n) {
    for (size_t every = 1; every <= 128; every *= 2) {
        for EACH(f, firsts) {
            const tk_thinning how = {.key = 0x123456789abcdef0 + every, .every = every, .count = n + firsts[f] + 3};
            k->place_kept(&how, y, firsts[f], target, n);
            note_target(n);
        }
    }
}

static void check_fit_kept(const tk_kernels *k, size_t n) {
    static const size_t groups[] = {16, 64, 512};
    static float steps[LONGEST / 16 + SPARE];
    static double wanted[LONGEST / 16 + SPARE];
    for (size_t i = 0; i < n; i++) x[i] = isfinite(x[i]) ? x[i] : 1;
    for (size_t i = 0; i < COUNT(wanted); i++) wanted[i] = (double)(i % 7);
    for EACH(g, groups) {
        for (size_t bits = 1; bits <= 8; bits++) {
            k->fit_kept(x, wanted, 8, groups[g], bits, steps, flags, target, n);
            note_floats(steps, COUNT(steps));
            note_flags(n);
            note_target(n);
        }
    }
}

/* --- bitmaps ------------------------------------------------------------------------------------------------------- */

static void check_bits_nonzero(const tk_kernels *k, size_t n) {
    k->bits_nonzero(x, bytes, n);
    note_bitmap(n);
}

static void check_bits_above(const tk_kernels *k, size_t n) {
    static const float factors[] = {0, 0.3f, 1, 2.5f};
    for EACH(f, factors) {
        k->bits_above(factors[f], x, y, bytes, n);
        note_bitmap(n);
    }
}

static void check_bits_agreeing(const tk_kernels *k, size_t n) {
    k->bits_agreeing(x, y, bytes, n);
    note_bitmap(n);
}

static void check_count_bits(const tk_kernels *k, size_t n) { note(k->count_bits(bytes, n)); }

/* Half of the bits are set, nearly none, and nearly all. */
static void thin_out(int density, size_t n) {
    for (size_t i = 0; i < (n + FARTHEST + 7) / 8; i++) {
        const uint8_t more = bytes[i + 1] & bytes[i + 2];
        bytes[i] = density == 0 ? bytes[i] : density == 1 ? bytes[i] & more : (uint8_t)~(bytes[i] & more);
    }
}

/* Elements are only moved here: all their bits have to arrive. */
static void check_apply_bits(const tk_kernels *k, size_t n) {
    for (int density = 0; density < 3; density++) {
        thin_out(density, n);
        for EACH(f, firsts) {
            memcpy(target, x, n * sizeof *x);
            k->apply_bits(bytes, firsts[f], target, n);
            note_bytes(target, (n + SPARE) * sizeof *target);
        }
    }
}

static void check_compress(const tk_kernels *k, size_t n) {
    for (int density = 0; density < 3; density++) {
        thin_out(density, n);
        note(k->compress(x, bytes, target, n));
        note_bytes(target, (n + SPARE) * sizeof *target);
    }
}

static void check_expand(const tk_kernels *k, size_t n) {
    for (int density = 0; density < 3; density++) {
        thin_out(density, n);
        for EACH(f, firsts) {
            note(k->expand(x, bytes, firsts[f], target, n));
            note_bytes(target, (n + SPARE) * sizeof *target);
        }
    }
}

static void check_keep_of_blocks(const tk_kernels *k, size_t n) {
    static const size_t blocks[] = {1, 3, 4, 8, 16, 31, 32, 33, 100, TK_BLOCK_LIMIT};
    for EACH(b, blocks) {
        const size_t block = blocks[b], kept[] = {0, 1, block / 4, block / 2 + 1, block};
        for EACH(i, kept) {
            const size_t tail = n % block, kept_at_end = kept[i] < tail ? kept[i] : tail;
            k->keep_of_blocks(x, taken, block, kept[i] < block ? kept[i] : block, kept_at_end, flags, n);
            note_flags(n);
        }
    }
}

/* --- beside the table ---------------------------------------------------------------------------------------------- */

static void check_crc32c(const tk_kernels *k, size_t n) {
    (void)k;
    for (size_t shift = 0; shift < 9; shift++) note(tk_crc32c(99, bytes + shift, n));
}

static void check_crc32c_by_table(const tk_kernels *k, size_t n) {
    (void)k;
    for (size_t shift = 0; shift < 9; shift++) note(tk_crc32c_by_table(99, bytes + shift, n));
}

static void planes(void (*rearrange)(const uint8_t *, uint8_t *, size_t, size_t), size_t n) {
    static uint8_t found[8 * LONGEST + SPARE];
    for (size_t width = 1; width <= 8; width++) {
        rearrange(bytes, found, n, width);
        note_bytes(found, n * width + SPARE);
    }
}

static void check_split_planes(const tk_kernels *k, size_t n) {
    (void)k;
    planes(tk_split_planes, n);
}

static void check_join_planes(const tk_kernels *k, size_t n) {
    (void)k;
    planes(tk_join_planes, n);
}

/* --- all of them --------------------------------------------------------------------------------------------------- */

typedef struct check {
    const char *name;
    void (*run)(const tk_kernels *, size_t);
} check;

#define CHECK(kernel) {#kernel, check_##kernel}

/* In the order of tk_kernels. */
static const check checks[] = {
    CHECK(widen_f16), CHECK(widen_bf16), CHECK(widen_f64), CHECK(widen_e4m3), CHECK(widen_e5m2), CHECK(narrow_f16),
    CHECK(narrow_bf16),
    CHECK(narrow_f32), CHECK(narrow_f64), CHECK(narrow_e4m3), CHECK(narrow_e5m2), CHECK(subtract), CHECK(difference),
    CHECK(weighted_sum),
    CHECK(merge_trimmed), CHECK(add_magnitudes), CHECK(add), CHECK(scale), CHECK(axpy), CHECK(histogram_high),
    CHECK(histogram_low),
    CHECK(count_window), CHECK(count_equal), CHECK(dot), CHECK(multiply), CHECK(multiply_add), CHECK(add_products), CHECK(draw),
    CHECK(flag_random), CHECK(pack_flags), CHECK(unpack_flags), CHECK(keep_by_rank), CHECK(keep_keyed), CHECK(variance),
    CHECK(fuse_agreeing), CHECK(count_changes), CHECK(merge_changes), CHECK(nearswap), CHECK(exponential), CHECK(softmax_parts),
    CHECK(divergence), CHECK(importance), CHECK(swap_important), CHECK(range), CHECK(quantize), CHECK(pack),
    CHECK(dequantize_table), CHECK(dequantize_groups), CHECK(decode), CHECK(fit_groups),
    CHECK(pick_kept), CHECK(place_kept), CHECK(fit_kept), CHECK(sum_of_magnitudes),
    CHECK(squared_error), CHECK(compare), CHECK(sums_of_squares), CHECK(bits_nonzero), CHECK(bits_above), CHECK(bits_agreeing),
    CHECK(count_bits), CHECK(apply_bits), CHECK(compress), CHECK(expand), CHECK(keep_of_blocks),
};

/* What has no levels. */
static const check others[] = {
    CHECK(crc32c), CHECK(crc32c_by_table), CHECK(split_planes), CHECK(join_planes),
};

_Static_assert(
    sizeof(tk_kernels) == sizeof(const char *) + COUNT(checks) * sizeof(void (*)(void)),
    "tk_kernels has a kernel that is not checked here: write check_NAME, which notes all that it promises to write, and list it "
    "above");

static void print(const check *check, const tk_kernels *kernels) {
    static uint8_t noise[8 * LONGEST + 2 * SPARE];
    fill_bytes(noise, 5, sizeof noise);
    digest = 0;
    for (data = 0; data < KINDS; data++) {
        for EACH(l, lengths) {
            const size_t n = lengths[l];
            fill(x, data, 1, n + SPARE);
            fill(y, data, 2, n + SPARE);
            fill(z, data, 3, n + SPARE);
            fill(target, data, 4, n + SPARE);
            memcpy(bytes, noise, sizeof noise);
            fill_bytes(flags, 6, n + SPARE);
            fill_bytes(taken, 7, n + SPARE);
            for (size_t i = 0; i < n; i++) taken[i] &= 1;
            check->run(kernels, n);
        }
    }
    printf("%s %016llx\n", check->name, (unsigned long long)digest);
}

int main(int count, char **arguments) {
    const char *level = count == 2 ? arguments[1] : "";
    const tk_kernels *kernels;
    if (strcmp(level, "portable") == 0) {
        kernels = tk_portable();
    } else if (strcmp(level, "x86-64-v3") == 0) {
        kernels = tk_v3();
    } else if (strcmp(level, "x86-64-v4") == 0) {
        kernels = tk_v4();
    } else {
        fprintf(stderr, "usage: kernels portable|x86-64-v3|x86-64-v4\n");
        return 64;
    }
    if (!kernels) {
        fprintf(stderr, "kernels: this processor has no %s\n", level);
        return 69;
    }
    for EACH(c, checks) print(&checks[c], kernels);
    for EACH(o, others) print(&others[o], kernels);
    return 0;
}
