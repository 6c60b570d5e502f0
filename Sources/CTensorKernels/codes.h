/* The loops over quantized and sparse task vectors: codes of one to eight bits, and bitmaps. Included by bodies.h; its rules
 * apply.
 *
 * Eight codes of b bits fill b bytes, the low end of one 64-bit word. So for any width, eight elements are handled in one word,
 * by shifts whose counts and masks are constant throughout the loop. */
#ifndef CODES_H
#define CODES_H

typedef float float16 __attribute__((ext_vector_type(2 * LANES), aligned(4)));
typedef uint64_t uint64x4 __attribute__((vector_size(4 * sizeof(uint64_t)), aligned(1), may_alias));
typedef uint8_t uint8x8 __attribute__((vector_size(LANES)));
typedef bool bool8 __attribute__((ext_vector_type(LANES)));

/* --- range --------------------------------------------------------------------------------------------------------- */

/* Lanes of the search for extremes: comparisons within one vector wait for one another, those of several vectors do not. */
enum { RANGE_LANES = 32 };

INLINE bool range(const float *x, float *lowest, float *highest, size_t n) {
    float low[RANGE_LANES], high[RANGE_LANES];
    uint32_t bad[RANGE_LANES];
    for (int lane = 0; lane < RANGE_LANES; lane++) low[lane] = INFINITY, high[lane] = -INFINITY, bad[lane] = 0;
    size_t i = 0;
    for (; i + RANGE_LANES <= n; i += RANGE_LANES) {
        for (int lane = 0; lane < RANGE_LANES; lane++) {
            const float a = x[i + lane];
            low[lane] = a < low[lane] ? a : low[lane];
            high[lane] = a > high[lane] ? a : high[lane];
            bad[lane] |= (bits_of(a) & 0x7f800000) == 0x7f800000;
        }
    }
    for (size_t lane = 0; i < n; i++, lane++) {
        low[lane] = x[i] < low[lane] ? x[i] : low[lane];
        high[lane] = x[i] > high[lane] ? x[i] : high[lane];
        bad[lane] |= (bits_of(x[i]) & 0x7f800000) == 0x7f800000;
    }
    for (int half = RANGE_LANES / 2; half > 0; half /= 2) {
        for (int lane = 0; lane < half; lane++) {
            low[lane] = low[lane + half] < low[lane] ? low[lane + half] : low[lane];
            high[lane] = high[lane + half] > high[lane] ? high[lane + half] : high[lane];
            bad[lane] |= bad[lane + half];
        }
    }
    /* The result must not depend on which of +0 and -0 came first. */
    *lowest = low[0] + 0.0f;
    *highest = high[0] + 0.0f;
    return !bad[0];
}

/* --- quantization -------------------------------------------------------------------------------------------------- */

/* Adding one of these rounds a small number to an integer, half to even, and leaves the integer in the low bits. */
#define ROUNDER 0x1p23f
#define WIDE_ROUNDER 0x1p52

/* From this offset on, float32 has too few bits to tell codes apart. */
#define FAR_OFFSET 0x1p20

/* Clamps, then rounds, which is the same since the bounds are integers; NaN becomes the lower bound. */
INLINE float bounded(float v, float low, float high) {
    const float raised = v > low ? v : low;
    return raised < high ? raised : high;
}

INLINE void quantize(const float *restrict x, float factor, double offset, uint32_t highest, uint8_t *restrict codes, size_t n) {
    if (fabs(offset) < FAR_OFFSET) {
        const float z = (float)offset, top = (float)highest;
        for (size_t i = 0; i < n; i++) codes[i] = (uint8_t)bits_of(bounded(x[i] * factor + z, 0.0f, top) + ROUNDER);
        return;
    }
    for (size_t i = 0; i < n; i++) {
        const double v = (double)x[i] * (double)factor + offset, raised = v > 0.0 ? v : 0.0;
        const double rounded = (raised < highest ? raised : highest) + WIDE_ROUNDER;
        uint64_t u;
        memcpy(&u, &rounded, sizeof u);
        codes[i] = (uint8_t)u;
    }
}

/* --- grids ---------------------------------------------------------------------------------------------------------- */

/* (code - zero) * step for codes of one byte each; in float64 where |zero| is so large that float32 would lose the codes. */
INLINE void decode(const uint8_t *restrict codes, float step, double zero, float *restrict x, size_t n) {
    if (fabs(zero) < FAR_OFFSET) {
        const float origin = (float)zero;
        for (size_t i = 0; i < n; i++) x[i] = ((float)codes[i] - origin) * step;
    } else {
        for (size_t i = 0; i < n; i++) x[i] = (float)(((double)codes[i] - zero) * (double)step);
    }
}

/* The position of zero on a fitted grid: halfway between the two one-bit codes; else a code of its own, with one code fewer above
 * than below. */
INLINE float fitted_zero(size_t bits) { return bits == 1 ? 0.5f : (float)(1u << (bits - 1)); }

/* On a rising grid zero lies halfway between the two middle codes. */
INLINE float rising_zero(size_t bits) { return (float)((1u << bits) - 1) / 2; }

/* For each number of bits, the step with the least error on normally distributed numbers, as a fraction of their root mean
 * square; and the multiples of that step that are tried, since real numbers are not normally distributed. */
static const float normal_steps[] = {0, 1.596f, 1.15f, 0.62f, 0.345f, 0.19f, 0.105f, 0.057f, 0.031f};
static const float tried_steps[] = {0.8f, 0.95f, 1.15f};
/* The same for a rising grid, which has no code for zero. */
static const float rising_steps[] = {0, 1.596f, 0.9957f, 0.586f, 0.335f, 0.188f, 0.1041f, 0.0569f, 0.0308f};
enum { TRIED_STEPS = sizeof tried_steps / sizeof *tried_steps, TRIED_AT_ONCE = TRIED_STEPS + 1, SUMMED_AT_ONCE = 4 };

/* A step closer to zero than this counts as zero. */
#define LEAST_STEP 0x1p-120f

/* The sums of x * code and of code^2, with codes counted from the grid's zero: a step follows from them. */
typedef struct moments {
    double product, square;
} moments;

/* Of `count` steps at once, TRIED_AT_ONCE at most: no sum waits for another. */
INLINE void moments_of(const float *x, const float *steps, int count, float zero, float top, size_t n, moments *found) {
    float inverse[TRIED_AT_ONCE];
    double8 product[TRIED_AT_ONCE], square[TRIED_AT_ONCE];
    for (int k = 0; k < count; k++) {
        inverse[k] = 1.0f / steps[k];
        product[k] = square[k] = (double8){0};
    }
    size_t i = 0;
    for (; i + 2 * LANES <= n; i += 2 * LANES) {
        const double8 low = __builtin_convertvector(*(const float8 *)(x + i), double8);
        const double8 high = __builtin_convertvector(*(const float8 *)(x + i + LANES), double8);
        for (int k = 0; k < count; k++) {
            const float16 v = *(const float16 *)(x + i) * inverse[k] + zero, raised = v > 0.0f ? v : 0.0f;
            const float16 c = (((raised < top ? raised : top) + ROUNDER) - ROUNDER) - zero;
            const double8 first = __builtin_convertvector(__builtin_shufflevector(c, c, 0, 1, 2, 3, 4, 5, 6, 7), double8);
            const double8 last = __builtin_convertvector(__builtin_shufflevector(c, c, 8, 9, 10, 11, 12, 13, 14, 15), double8);
            product[k] += low * first;
            product[k] += high * last;
            square[k] += first * first;
            square[k] += last * last;
        }
    }
    for (size_t lane = 0; i < n; i++, lane = (lane + 1) % LANES) {
        for (int k = 0; k < count; k++) {
            const double c = (double)(((bounded(x[i] * inverse[k] + zero, 0.0f, top) + ROUNDER) - ROUNDER) - zero);
            product[k][lane] += (double)x[i] * c;
            square[k][lane] += c * c;
        }
    }
    for (int k = 0; k < count; k++) found[k] = (moments){sum_of_lanes(&product[k]), sum_of_lanes(&square[k])};
}

/* The best step found for a group, and the reduction of the squared error that it brings. */
typedef struct fit {
    float step;
    double gain;
} fit;

/* Takes the best of `count` steps, the first of equals. Returns whether one is better than `best` was. */
INLINE bool try_steps(const float *x, const float *steps, int count, float zero, float top, size_t n, fit *best) {
    moments found[TRIED_AT_ONCE];
    moments_of(x, steps, count, zero, top, n, found);
    bool is_better = false;
    for (int k = 0; k < count; k++) {
        const moments m = found[k];
        const double gain = m.product * m.product / m.square;
        if (!(fabsf(steps[k]) >= LEAST_STEP && m.square > 0 && gain > best->gain)) continue;
        *best = (fit){(float)(m.product / m.square), gain};
        is_better = true;
    }
    return is_better;
}

/* Rounded to the nearest bfloat16; 0 if negligible. */
INLINE float stored_step(double x) {
    const float rounded = float_of((uint32_t)float_to_bfloat((float)x) << 16);
    return fabsf(rounded) >= LEAST_STEP && fabsf(rounded) < INFINITY ? rounded : 0;
}

/* Where the zero of a grid lies, and the step with the least error on normal numbers. */
typedef struct fitted_grid {
    float zero, usual_step;
    bool is_rising;
} fitted_grid;

/* Quantizes one group with the step of least squared error, from a few candidates refined by least squares. The step's sign says
 * on which side the grid has one more value. The stored step is rescaled so that <x, decoded> = `wanted`, at most by a factor of
 * 2 * `most`. With the energy <x, x> as `wanted`, that keeps the vector's length along x. */
INLINE float fit_group(
    const float *restrict x, size_t bits, fitted_grid grid, double energy, double wanted, double most, uint8_t *restrict codes,
    float *restrict decoded, size_t n) {
    const float top = (float)((1u << bits) - 1), zero = grid.zero;
    float low, high;
    range(x, &low, &high, n);
    const float reach = -low > high ? -low : high, widest = bits == 1 ? 2 * reach : reach / zero;
    const float side = high > -low ? -1.0f : 1.0f, usual = (float)sqrt(energy / (double)n) * grid.usual_step;
    fit best = {0, -1};
    const bool tries_both_sides = bits == 2 && !grid.is_rising;
    float steps[2 * TRIED_AT_ONCE];
    for (int k = 0; k < TRIED_AT_ONCE; k++) {
        const float tried = k < TRIED_STEPS ? usual * tried_steps[k] : widest, step = side * (tried < widest ? tried : widest);
        if (tries_both_sides) {
            steps[2 * k] = step, steps[2 * k + 1] = -step;
        } else {
            steps[k] = step;
        }
    }
    try_steps(x, steps, TRIED_AT_ONCE, zero, top, n, &best);
    if (tries_both_sides) try_steps(x, steps + TRIED_AT_ONCE, TRIED_AT_ONCE, zero, top, n, &best);
    /* Where a round finds nothing better, so would the next. */
    for (int k = 0; k < 2 && try_steps(x, &best.step, 1, zero, top, n, &best); k++) {}

    const float step = stored_step((double)best.step);
    moments m = {0, 0};
    if (step != 0) moments_of(x, &step, 1, zero, top, n, &m);
    float stored = 0;
    if (m.square > 0 && m.product != 0) {
        const double least = m.product / m.square, unbiased = wanted / m.product;
        stored = stored_step(fabs(unbiased) < 2 * most * fabs(least) ? unbiased : 2 * most * least);
    }
    if (stored == 0) {
        memset(codes, bits == 1 ? 0 : 1 << (bits - 1), n);
        memset(decoded, 0, n * sizeof *decoded);
        return 0;
    }
    quantize(x, 1.0f / step, (double)zero, (1u << bits) - 1, codes, n);
    decode(codes, stored, (double)zero, decoded, n);
    return stored;
}

/* The sums of squares of each `group` elements, the last of which may be fewer; those of several groups do not wait for one
 * another. */
INLINE void sums_of_squares(const float *restrict x, size_t group, double *restrict sums, size_t n) {
    size_t i = 0;
    for (; group % LANES == 0 && i + SUMMED_AT_ONCE * group <= n; i += SUMMED_AT_ONCE * group) {
        double8 sum[SUMMED_AT_ONCE] = {{0}};
        for (size_t j = i; j < i + group; j += LANES) {
            for (int k = 0; k < SUMMED_AT_ONCE; k++) {
                const double8 wide = __builtin_convertvector(*(const float8 *)(x + j + k * group), double8);
                sum[k] += wide * wide;
            }
        }
        for (int k = 0; k < SUMMED_AT_ONCE; k++) *sums++ = sum_of_lanes(&sum[k]);
    }
    for (; i < n; i += group) *sums++ = dot(x + i, x + i, n - i < group ? n - i : group);
}

INLINE void fit_groups(
    const float *restrict x, size_t group, size_t bits, float *restrict steps, uint8_t *restrict codes, float *restrict decoded,
    size_t n) {
    const fitted_grid grid = {fitted_zero(bits), normal_steps[bits], false};
    double energies[SUMMED_AT_ONCE];
    for (size_t i = 0; i < n; i += group) {
        const size_t count = n - i < group ? n - i : group, number = i / group % SUMMED_AT_ONCE, span = SUMMED_AT_ONCE * group;
        if (number == 0) sums_of_squares(x + i, group, energies, n - i < span ? n - i : span);
        *steps++ = fit_group(x + i, bits, grid, energies[number], energies[number], 1, codes + i, decoded + i, count);
    }
}

/* --- thinned vectors ------------------------------------------------------------------------------------------------ */

/* A thinned vector keeps one element of every `every` consecutive ones, which a random byte chooses. Bytes are looked up in
 * pieces, so that the words they come from stay in the cache. */
enum { THINNED_PIECE = 1024 };

/* Which of `left` elements, at most `every`, the byte chooses. */
INLINE size_t chosen(uint8_t byte, size_t every, size_t left) { return byte * (left < every ? left : every) >> 8; }

/* The random bytes of the strata first, first + 1, ..., at most THINNED_PIECE of them: four to a word, the lowest first. */
INLINE const uint8_t *stratum_bytes(const tk_thinning *how, size_t first, uint32_t *words, size_t n) {
    draw(how->key, 0, first / 4, words, (first % 4 + n + 3) / 4);
    return (const uint8_t *)words + first % 4;
}

INLINE void pick_kept(const tk_thinning *how, const float *restrict x, size_t first, float *restrict kept, size_t n) {
    const size_t every = how->every;
    uint32_t words[THINNED_PIECE / 4 + 1];
    if (every == 1) {
        memcpy(kept, x, n * sizeof *kept);
        return;
    }
    for (size_t stratum = 0, strata = (n + every - 1) / every; stratum < strata; stratum += THINNED_PIECE) {
        const size_t count = strata - stratum < THINNED_PIECE ? strata - stratum : THINNED_PIECE;
        const uint8_t *bytes = stratum_bytes(how, first / every + stratum, words, count);
        for (size_t j = 0; j < count; j++) {
            const size_t start = (stratum + j) * every;
            kept[stratum + j] = x[start + chosen(bytes[j], every, n - start)];
        }
    }
}

INLINE void place_kept(
    const tk_thinning *how, const float *restrict kept, size_t first, float *restrict target, size_t n) {
    const size_t every = how->every, begin = first / every;
    uint32_t words[THINNED_PIECE / 4 + 1];
    if (every == 1) {
        memcpy(target, kept, n * sizeof *target);
        return;
    }
    memset(target, 0, n * sizeof *target);
    for (size_t stratum = begin, end = (first + n + every - 1) / every; stratum < end; stratum += THINNED_PIECE) {
        const size_t count = end - stratum < THINNED_PIECE ? end - stratum : THINNED_PIECE;
        const uint8_t *bytes = stratum_bytes(how, stratum, words, count);
        for (size_t j = 0; j < count; j++) {
            const size_t start = (stratum + j) * every;
            /* Counted from `first`; one that lies before it wraps around, and is no element of the target either. */
            const size_t place = start + chosen(bytes[j], every, how->count - start) - first;
            if (place < n) target[place] = kept[stratum - begin + j];
        }
    }
}

INLINE void fit_kept(
    const float *restrict kept, const double *restrict wanted, size_t every, size_t group, size_t bits, float *restrict steps,
    uint8_t *restrict codes, float *restrict decoded, size_t n) {
    const fitted_grid grid = {rising_zero(bits), rising_steps[bits], true};
    double energies[SUMMED_AT_ONCE];
    for (size_t i = 0; i < n; i += group) {
        const size_t count = n - i < group ? n - i : group, number = i / group % SUMMED_AT_ONCE, span = SUMMED_AT_ONCE * group;
        if (number == 0) sums_of_squares(kept + i, group, energies, n - i < span ? n - i : span);
        *steps++ = fit_group(
            kept + i, bits, grid, energies[number], *wanted++, 2 * (double)every, codes + i, decoded + i, count);
    }
}

INLINE double squared_error(const float *x, const float *y, size_t n) {
    double8 sum = {0};
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        const double8 d =
            __builtin_convertvector(*(const float8 *)(x + i), double8)
            - __builtin_convertvector(*(const float8 *)(y + i), double8);
        sum += d * d;
    }
    for (size_t lane = 0; i < n; i++, lane++) {
        const double d = (double)x[i] - (double)y[i];
        sum[lane] += d * d;
    }
    return sum_of_lanes(&sum);
}

INLINE void compare(const float *x, const float *y, double *sums, size_t n) {
    double8 error = {0}, square = {0}, product = {0};
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        const double8 a = __builtin_convertvector(*(const float8 *)(x + i), double8);
        const double8 b = __builtin_convertvector(*(const float8 *)(y + i), double8), d = a - b;
        error += d * d;
        square += a * a;
        product += a * b;
    }
    for (size_t lane = 0; i < n; i++, lane++) {
        const double a = (double)x[i], b = (double)y[i], d = a - b;
        error[lane] += d * d;
        square[lane] += a * a;
        product[lane] += a * b;
    }
    sums[0] = sum_of_lanes(&error);
    sums[1] = sum_of_lanes(&square);
    sums[2] = sum_of_lanes(&product);
}

INLINE double sum_of_magnitudes(const float *x, size_t n) {
    double8 sum = {0};
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        float8 magnitudes;
        for (int lane = 0; lane < LANES; lane++) magnitudes[lane] = fabsf(x[i + lane]);
        sum += __builtin_convertvector(magnitudes, double8);
    }
    for (size_t lane = 0; i < n; i++, lane++) sum[lane] += fabsf(x[i]);
    return sum_of_lanes(&sum);
}

/* --- streams of codes ---------------------------------------------------------------------------------------------- */

INLINE uint64_t word_at(const uint8_t *p) {
    uint64_t word;
    memcpy(&word, p, sizeof word);
    return word;
}

/* Loads the word at p of a stream whose end may fall within the word. */
INLINE uint64_t last_word(const uint8_t *p, const uint8_t *end) {
    uint64_t word = 0;
    for (int shift = 0; p < end && shift < 64; p++, shift += 8) word |= (uint64_t)*p << shift;
    return word;
}

INLINE uint8_t code_at(const uint8_t *stream, uint64_t mask, size_t bits, size_t element) {
    const size_t bit = element * bits, shift = bit % 8;
    const uint8_t *p = stream + bit / 8;
    const uint32_t pair = shift + bits > 8 ? (uint32_t)p[1] << 8 | p[0] : p[0];
    return (uint8_t)(pair >> shift & mask);
}

/* Spreads eight codes from the low end of a word to its eight bytes, in three steps that each halve the runs, and back. */
typedef struct spread {
    uint64_t bits, shift4, keep4, shift2, keep2, shift1, keep1;
} spread;

INLINE spread spread_of(size_t bits) {
    return (spread){
        .bits = bits,
        .shift4 = 32 - 4 * bits,
        .keep4 = (1ull << 4 * bits) - 1,
        .shift2 = 16 - 2 * bits,
        .keep2 = ((1ull << 2 * bits) - 1) * 0x100000001ull,
        .shift1 = 8 - bits,
        .keep1 = ((1ull << bits) - 1) * 0x1000100010001ull,
    };
}

/* For a word or a vector of words. */
#define SPREAD(w, s) \
    do { \
        w = (w & s.keep4) | ((w << s.shift4) & (s.keep4 << 32)); \
        w = (w & s.keep2) | ((w << s.shift2) & (s.keep2 << 16)); \
        w = (w & s.keep1) | ((w << s.shift1) & (s.keep1 << 8)); \
    } while (0)

#define GATHER(w, s) \
    do { \
        w = (w & s.keep1) | ((w >> s.shift1) & (s.keep1 << s.bits)); \
        w = (w & s.keep2) | ((w >> s.shift2) & (s.keep2 << 2 * s.bits)); \
        w = (w & s.keep4) | ((w >> s.shift4) & (s.keep4 << 4 * s.bits)); \
    } while (0)

INLINE void pack(const uint8_t *codes, size_t bits, uint8_t *stream, size_t n) {
    const spread s = spread_of(bits);
    uint8_t *const end = stream + (n * bits + 7) / 8;
    size_t i = 0;
    /* Each store writes a whole word, whose surplus bytes the next store overwrites. */
    for (; i + 32 <= n && end - stream >= (ptrdiff_t)(3 * bits + 8); i += 32, stream += 4 * bits) {
        uint64x4 w = *(const uint64x4 *)(codes + i);
        GATHER(w, s);
        for (int k = 0; k < 4; k++) {
            const uint64_t word = w[k];
            memcpy(stream + k * bits, &word, sizeof word);
        }
    }
    for (; i < n; i += 8) {
        uint64_t w = i + 8 <= n ? word_at(codes + i) : last_word(codes + i, codes + n);
        GATHER(w, s);
        for (size_t k = 0; k < bits && stream < end; k++, w >>= 8) *stream++ = (uint8_t)w;
    }
}

INLINE void unpack(const uint8_t *stream, size_t bits, size_t first, uint8_t *codes, size_t n) {
    const spread s = spread_of(bits);
    const uint8_t *const end = stream + ((first + n) * bits + 7) / 8;
    size_t i = 0;
    for (; i < n && (first + i) % 8 != 0; i++) codes[i] = code_at(stream, s.keep1 & 0xff, bits, first + i);
    const uint8_t *p = stream + (first + i) / 8 * bits;
    for (; i + 32 <= n && end - p >= (ptrdiff_t)(3 * bits + 8); i += 32, p += 4 * bits) {
        uint64x4 w = {word_at(p), word_at(p + bits), word_at(p + 2 * bits), word_at(p + 3 * bits)};
        SPREAD(w, s);
        *(uint64x4 *)(codes + i) = w;
    }
    for (; i < n; i += 8, p += bits) {
        uint64_t w = last_word(p, end);
        SPREAD(w, s);
        memcpy(codes + i, &w, n - i < 8 ? n - i : 8);
    }
}

/* The eight codes at the low end of a word, as 32-bit numbers: four codes never exceed 32 bits. */
INLINE void codes_of(uint64_t word, size_t bits, uint32x8 *codes) {
    const uint32_t b = (uint32_t)bits;
    const uint32x8 halves = (uint32x8)(((uint64x4){} + word) >> (uint64x4){0, 0, 4 * bits, 4 * bits});
    const uint32x8 both = __builtin_shufflevector(halves, halves, 0, 0, 0, 0, 4, 4, 4, 4);
    *codes = (both >> (uint32x8){0, b, 2 * b, 3 * b, 0, b, 2 * b, 3 * b}) & ((1u << b) - 1);
}

/* table[index & 7] for eight indices. */
INLINE void look_up(const float8 *table, const uint32x8 *indices, float8 *found) {
    *found = __builtin_shufflevector(*table, (int32x8)(*indices & 7));
}

/* A table of at most eight numbers fits one register. */
enum { TABLE_BITS = 3 };

/* table[code] for groups of eight codes of at most TABLE_BITS bits, starting at p. */
INLINE void look_up_eights(const uint8_t *p, size_t bits, const float8 *table, float *target, size_t eights) {
    const uint32_t b = (uint32_t)bits;
    const uint32x8 shifts = {0, b, 2 * b, 3 * b, 4 * b, 5 * b, 6 * b, 7 * b};
    for (; eights > 0; eights--, p += bits, target += LANES) {
        uint32_t word;
        memcpy(&word, p, sizeof word);
        const uint32x8 codes = (((uint32x8){} + word) >> shifts) & ((1u << b) - 1);
        float8 values;
        look_up(table, &codes, &values);
        *(float8 *)target = values;
    }
}

/* The number of whole groups of eight, among n codes, that can be read by words without reading beyond `end`. */
INLINE size_t eights_within(const uint8_t *p, const uint8_t *end, size_t bits, size_t n) {
    const size_t words = end - p >= 8 ? (size_t)(end - p - 8) / bits + 1 : 0;
    return n / LANES < words ? n / LANES : words;
}

/* Decodes elements of one group, from any position of a stream that ends at `end`. */
INLINE void dequantize_run(
    const uint8_t *stream, const uint8_t *end, size_t bits, size_t first, float step, float zero, float *target, size_t n) {
    const uint64_t mask = (1ull << bits) - 1;
    size_t i = 0;
    for (; i < n && (first + i) % LANES != 0; i++) target[i] = ((float)code_at(stream, mask, bits, first + i) - zero) * step;
    const uint8_t *p = stream + (first + i) / LANES * bits;
    if (bits <= TABLE_BITS) {
        const float8 table = ((float8){0, 1, 2, 3, 4, 5, 6, 7} - zero) * step;
        const size_t eights = eights_within(p, end, bits, n - i);
        look_up_eights(p, bits, &table, target + i, eights);
        i += eights * LANES;
    } else {
        for (; i + LANES <= n && end - p >= 8; i += LANES, p += bits) {
            uint32x8 codes;
            codes_of(word_at(p), bits, &codes);
            *(float8 *)(target + i) = (__builtin_convertvector((int32x8)codes, float8) - zero) * step;
        }
    }
    for (; i < n; i++) target[i] = ((float)code_at(stream, mask, bits, first + i) - zero) * step;
}

INLINE void dequantize_groups(
    const uint8_t *stream, size_t bits, size_t first, size_t group, const float *steps, float zero, float *target, size_t n) {
    const uint8_t *const end = stream + ((first + n) * bits + 7) / 8;
    for (size_t i = 0; i < n; steps++) {
        const size_t left = group - ((first + i) & (group - 1)), count = n - i < left ? n - i : left;
        dequantize_run(stream, end, bits, first + i, *steps, zero, target + i, count);
        i += count;
    }
}

/* Codes unpacked per step before the lookup in memory. */
enum { CODE_TILE = 256 };

INLINE void dequantize_table(const uint8_t *stream, size_t bits, size_t first, const float *table, float *target, size_t n) {
    if (bits > 4) {
        uint8_t codes[CODE_TILE];
        for (size_t i = 0; i < n; i += CODE_TILE) {
            const size_t count = n - i < CODE_TILE ? n - i : CODE_TILE;
            unpack(stream, bits, first + i, codes, count);
            for (size_t j = 0; j < count; j++) target[i + j] = table[codes[j]];
        }
        return;
    }
    /* The whole table fits two registers. */
    float padded[2 * LANES] = {0};
    memcpy(padded, table, sizeof *table << bits);
    const float8 low = *(const float8 *)padded, high = *(const float8 *)(padded + LANES);
    const uint64_t mask = (1ull << bits) - 1;
    const uint8_t *const end = stream + ((first + n) * bits + 7) / 8;
    size_t i = 0;
    for (; i < n && (first + i) % LANES != 0; i++) target[i] = padded[code_at(stream, mask, bits, first + i)];
    const uint8_t *p = stream + (first + i) / LANES * bits;
    if (bits <= TABLE_BITS) {
        const size_t eights = eights_within(p, end, bits, n - i);
        look_up_eights(p, bits, &low, target + i, eights);
        i += eights * LANES;
    } else {
        for (; i + LANES <= n && end - p >= 8; i += LANES, p += bits) {
            uint32x8 codes;
            float8 lower, upper;
            codes_of(word_at(p), bits, &codes);
            look_up(&low, &codes, &lower);
            look_up(&high, &codes, &upper);
            const int32x8 above = (int32x8)codes > 7;
            *(float8 *)(target + i) = (float8)(((int32x8)upper & above) | ((int32x8)lower & ~above));
        }
    }
    for (; i < n; i++) target[i] = padded[code_at(stream, mask, bits, first + i)];
}

/* --- bitmaps ------------------------------------------------------------------------------------------------------- */

INLINE uint32_t bit_at(const uint8_t *bits, size_t element) { return bits[element / 8] >> element % 8 & 1; }

/* One bit for each lane of a comparison. */
INLINE uint8_t byte_of(const int32x8 *comparison) {
    const bool8 flags = __builtin_convertvector(*comparison, bool8);
    uint8_t byte;
    memcpy(&byte, &flags, sizeof byte);
    return byte;
}

/* The inverse: all bits of a lane set, or none. */
INLINE void lanes_of(uint8_t byte, int32x8 *lanes) {
    *lanes = (((int32x8){} + byte) & (int32x8){1, 2, 4, 8, 16, 32, 64, 128}) != 0;
}

/* Eight elements; the last group is padded with zeros. */
INLINE void load_eight(const float *x, size_t n, float8 *lanes) {
    *lanes = (float8){0};
    if (n >= LANES) {
        *lanes = *(const float8 *)x;
    } else {
        for (size_t lane = 0; lane < n; lane++) (*lanes)[lane] = x[lane];
    }
}

INLINE void bits_nonzero(const float *x, uint8_t *bits, size_t n) {
    for (size_t i = 0; i < n; i += LANES) {
        float8 a;
        load_eight(x + i, n - i, &a);
        const int32x8 flags = a != 0;
        bits[i / LANES] = byte_of(&flags);
    }
}

INLINE void bits_above(float a, const float *x, const float *y, uint8_t *bits, size_t n) {
    for (size_t i = 0; i < n; i += LANES) {
        float8 p, q;
        load_eight(x + i, n - i, &p);
        load_eight(y + i, n - i, &q);
        const int32x8 flags = (float8)((int32x8)p & MAGNITUDE) > a * (float8)((int32x8)q & MAGNITUDE);
        bits[i / LANES] = byte_of(&flags);
    }
}

INLINE void bits_agreeing(const float *x, const float *y, uint8_t *bits, size_t n) {
    for (size_t i = 0; i < n; i += LANES) {
        float8 p, q;
        load_eight(x + i, n - i, &p);
        load_eight(y + i, n - i, &q);
        const int32x8 flags = ((p > 0) & (q > 0)) | ((p < 0) & (q < 0));
        bits[i / LANES] = byte_of(&flags);
    }
}

INLINE size_t count_bits(const uint8_t *bits, size_t n) {
    size_t count = 0, i = 0;
    for (; i + 64 <= n; i += 64) count += (size_t)__builtin_popcountll(word_at(bits + i / 8));
    if (i < n) count += (size_t)__builtin_popcountll(last_word(bits + i / 8, bits + (n + 7) / 8) & ~(~0ull << (n - i)));
    return count;
}

INLINE void apply_bits(const uint8_t *bits, size_t first, float *target, size_t n) {
    size_t i = 0;
    for (; i < n && (first + i) % LANES != 0; i++) target[i] = bit_at(bits, first + i) ? target[i] : 0.0f;
    for (; i + LANES <= n; i += LANES) {
        int32x8 lanes;
        lanes_of(bits[(first + i) / LANES], &lanes);
        *(int32x8 *)(target + i) &= lanes;
    }
    for (; i < n; i++) target[i] = bit_at(bits, first + i) ? target[i] : 0.0f;
}

INLINE size_t compress(const float *x, const uint8_t *bits, float *target, size_t n) {
    size_t count = 0;
    for (size_t i = 0; i < n; i += 64) {
        uint64_t word = n - i >= 64 ? word_at(bits + i / 8) : last_word(bits + i / 8, bits + (n + 7) / 8) & ~(~0ull << (n - i));
        for (; word != 0; word &= word - 1) target[count++] = x[i + (size_t)__builtin_ctzll(word)];
    }
    return count;
}

INLINE size_t expand(const float *values, const uint8_t *bits, size_t first, float *target, size_t n) {
    const size_t skip = first % 8;
    size_t taken = 0, i = 0;
    /* Values are loaded eight at a time, but never beyond the last. */
    const size_t all = count_bits(bits + first / 8, skip + n) - count_bits(bits + first / 8, skip);
    for (; i < n && (first + i) % LANES != 0; i++) target[i] = bit_at(bits, first + i) ? values[taken++] : 0.0f;
    for (; i + LANES <= n && taken + LANES <= all; i += LANES) {
        const uint8_t byte = bits[(first + i) / LANES];
        const float8 next = *(const float8 *)(values + taken);
        float8 found;
        if (byte == 0xff) {
            *(float8 *)(target + i) = next;
            taken += LANES;
            continue;
        }
        /* The bits, in eight groups of four, and in each group the running count. */
        uint32_t ones = byte;
        ones = (ones | ones << 12) & 0xf000f;
        ones = (ones | ones << 6) & 0x3030303;
        ones = (ones | ones << 3) & 0x11111111;
        const uint32_t sums = ones * 0x11111111;
        const uint32x8 indices = ((uint32x8){} + (sums - ones)) >> (uint32x8){0, 4, 8, 12, 16, 20, 24, 28};
        int32x8 lanes;
        look_up(&next, &indices, &found);
        lanes_of(byte, &lanes);
        *(int32x8 *)(target + i) = (int32x8)found & lanes;
        taken += sums >> 28;
    }
    for (; i < n; i++) target[i] = bit_at(bits, first + i) ? values[taken++] : 0.0f;
    return taken;
}

/* --- n of m -------------------------------------------------------------------------------------------------------- */

/* For blocks up to this size, counting each element's predecessors is the quickest. */
enum { SMALL_BLOCK = 32 };

/* Signed keys, so that free positions come before taken ones, then larger magnitudes first. */
INLINE void block_keys(const float *x, const uint8_t *taken, int32_t *keys, size_t m) {
    for (size_t j = 0; j < m; j++) keys[j] = (int32_t)((bits_of(x[j]) & MAGNITUDE) | (taken[j] ? 1u << 31 : 0));
}

INLINE void keep_of_small_block(const float *x, const uint8_t *taken, size_t n, uint8_t *keep, size_t m) {
    int32_t keys[SMALL_BLOCK];
    for (size_t j = 0; j < SMALL_BLOCK; j++) keys[j] = INT32_MIN;
    block_keys(x, taken, keys, m);
    for (size_t j = 0; j < m; j += LANES) {
        const int32x8 own = *(const int32x8 *)(keys + j), lanes = {0, 1, 2, 3, 4, 5, 6, 7};
        int32x8 before = {0};
        /* Among equal keys the earlier one comes first. Wrapping below a taken zero is harmless: zeros are never kept. */
        const int32x8 less = (int32x8)((uint32x8)own - 1);
        for (size_t k = 0; k < j; k++) before -= (int32x8){} + keys[k] > less;
        for (int k = 0; k < LANES; k++) before -= (int32x8){} + keys[j + k] > (int32x8)((uint32x8)own + (uint32x8)(lanes > k));
        for (size_t k = j + LANES; k < m; k++) before -= (int32x8){} + keys[k] > own;
        const uint8x8 flags = __builtin_convertvector((before < (int32_t)n) & ((own & MAGNITUDE) != 0) & 1, uint8x8);
        if (m - j >= LANES) {
            memcpy(keep + j, &flags, LANES);
        } else {
            for (size_t lane = 0; lane < m - j; lane++) keep[j + lane] = flags[lane];
        }
    }
}

INLINE void keep_of_block(const float *x, const uint8_t *taken, size_t n, uint8_t *keep, size_t m) {
    /* For the usual sizes the compiler unrolls everything. */
    switch (m) {
        case 4: keep_of_small_block(x, taken, n, keep, 4); return;
        case 8: keep_of_small_block(x, taken, n, keep, 8); return;
        case 16: keep_of_small_block(x, taken, n, keep, 16); return;
        case 32: keep_of_small_block(x, taken, n, keep, 32); return;
        default: break;
    }
    if (m < SMALL_BLOCK) {
        keep_of_small_block(x, taken, n, keep, m);
        return;
    }
    int32_t keys[TK_BLOCK_LIMIT];
    block_keys(x, taken, keys, m);
    /* The n-th largest key, bit by bit: the largest number that at least n keys reach. Once exactly n keys reach it, the
     * remaining bits do not matter. */
    uint32_t least = 1u << 31, reached = (uint32_t)m;
    for (int bit = 31; bit >= 0 && reached != n; bit--) {
        const uint32_t tried = least ^ 1u << bit;
        uint32_t count = 0;
        for (size_t j = 0; j < m; j++) count += keys[j] >= (int32_t)tried;
        if (count >= n) {
            least = tried;
            reached = count;
        }
    }
    const int32_t limit = (int32_t)least;
    if (reached <= n) {
        for (size_t j = 0; j < m; j++) keep[j] = (keys[j] >= limit) & ((keys[j] & MAGNITUDE) != 0);
        return;
    }
    size_t equal = n;
    for (size_t j = 0; j < m; j++) equal -= keys[j] > limit;
    for (size_t j = 0; j < m; j++) {
        const bool chosen = (keys[j] > limit) | ((keys[j] == limit) & (equal > 0));
        equal -= chosen & (keys[j] == limit);
        keep[j] = chosen & ((keys[j] & MAGNITUDE) != 0);
    }
}

INLINE void keep_of_blocks(
    const float *x, const uint8_t *taken, size_t block, size_t kept, size_t kept_at_end, uint8_t *keep, size_t n) {
    size_t i = 0;
    for (; i + block <= n; i += block) keep_of_block(x + i, taken + i, kept, keep + i, block);
    if (i < n) keep_of_block(x + i, taken + i, kept_at_end, keep + i, n - i);
}

#endif
