/* The loops of merge methods other than sums and trims. Included by bodies.h; its rules apply. */
#ifndef MERGING_H
#define MERGING_H

/* --- coefficients that differ from element to element -------------------------------------------------------------- */

INLINE void multiply(const float *a, const float *x, float *target, size_t n) {
    for (size_t i = 0; i < n; i++) target[i] = a[i] * x[i];
}

INLINE void multiply_add(const float *a, const float *x, float *target, size_t n) {
    for (size_t i = 0; i < n; i++) target[i] = a[i] * x[i] + target[i];
}

INLINE void add_products(const float *x, const float *y, double *sums, size_t n) {
    for (size_t i = 0; i < n; i++) sums[i] += (double)x[i] * (double)y[i];
}

/* --- random draws -------------------------------------------------------------------------------------------------- */

enum { DRAW_LANES = 8, DRAW_GROUP = 4 * DRAW_LANES };
typedef uint64_t uint64x8 __attribute__((vector_size(DRAW_LANES * sizeof(uint64_t))));
typedef uint32_t uint32x8 __attribute__((vector_size(DRAW_LANES * sizeof(uint32_t)), aligned(4)));
typedef int32_t int32x8 __attribute__((vector_size(LANES * sizeof(int32_t)), aligned(4), may_alias));

enum { PHILOX_ROUNDS = 10 };
#define PHILOX_M0 0xd2511f53u
#define PHILOX_M1 0xcd9e8d57u

/* The key of each round, in every lane, and the first rounds of the counter's upper three words, which hardly ever change. */
typedef struct philox_keys {
    uint64x8 k0[PHILOX_ROUNDS], k1[PHILOX_ROUNDS];
} philox_keys;

INLINE void schedule_keys(uint64_t key, uint32_t stream, uint32_t high, philox_keys *keys) {
    uint32_t k0[PHILOX_ROUNDS], k1[PHILOX_ROUNDS];
    for (uint32_t round = 0; round < PHILOX_ROUNDS; round++) {
        k0[round] = (uint32_t)key + round * 0x9e3779b9u;
        k1[round] = (uint32_t)(key >> 32) + round * 0xbb67ae85u;
    }
    const uint64_t p1 = (uint64_t)stream * PHILOX_M1, p0 = ((p1 >> 32) ^ high ^ k0[0]) * (uint64_t)PHILOX_M0;
    k0[1] ^= (uint32_t)p1;
    k1[1] ^= (uint32_t)(p0 >> 32);
    k1[2] ^= (uint32_t)p0;
    for (int round = 0; round < PHILOX_ROUNDS; round++) {
        keys->k0[round] = (uint64x8){} + (uint64_t)k0[round];
        keys->k1[round] = (uint64x8){} + (uint64_t)k1[round];
    }
}

/* Philox4x32-10 on eight counters at once. Words live in 64-bit lanes, so that a product keeps both halves; the upper half of a
 * lane is undefined. */
typedef struct philox_group {
    uint64x8 c0, c1, c2, c3;
} philox_group;

enum { FIRST_ROUND = 2 }; /* the first round that is computed per group */

INLINE void begin_group(const philox_keys *keys, uint32_t block, philox_group *c) {
    const uint64x8 counters = (uint64x8){0, 1, 2, 3, 4, 5, 6, 7} + (uint64_t)block; /* eight counters never straddle 2^32 */
    const uint64x8 p0 = counters * PHILOX_M0, p1 = (((p0 >> 32) ^ keys->k1[0]) & UINT32_MAX) * PHILOX_M1;
    *c = (philox_group){(p1 >> 32) ^ keys->k0[1], p1, p0 ^ keys->k1[1], (uint64x8){}};
}

INLINE void mix_group(const philox_keys *keys, int round, philox_group *c) {
    const uint64x8 p0 = (c->c0 & UINT32_MAX) * PHILOX_M0, p1 = (c->c2 & UINT32_MAX) * PHILOX_M1;
    c->c0 = (p1 >> 32) ^ (c->c1 ^ keys->k0[round]);
    c->c2 = (p0 >> 32) ^ (c->c3 ^ keys->k1[round]);
    c->c1 = p1;
    c->c3 = p0;
}

INLINE void end_group(const philox_group *c, uint32_t *draws) {
    *(uint32x8 *)(draws) = __builtin_convertvector(c->c0, uint32x8);
    *(uint32x8 *)(draws + DRAW_LANES) = __builtin_convertvector(c->c1, uint32x8);
    *(uint32x8 *)(draws + 2 * DRAW_LANES) = __builtin_convertvector(c->c2, uint32x8);
    *(uint32x8 *)(draws + 3 * DRAW_LANES) = __builtin_convertvector(c->c3, uint32x8);
}

INLINE void draw_group(const philox_keys *keys, uint32_t block, uint32_t *draws) {
    philox_group c;
    begin_group(keys, block, &c);
#pragma clang loop unroll(full)
    for (int round = FIRST_ROUND; round < PHILOX_ROUNDS; round++) mix_group(keys, round, &c);
    end_group(&c, draws);
}

INLINE void draw(uint64_t key, uint32_t stream, uint64_t first, uint32_t *draws, size_t n) {
    philox_keys keys;
    uint64_t high = UINT64_MAX;
    uint32_t group[DRAW_GROUP];
    size_t done = 0;
    while (done < n) {
        const uint64_t element = first + done, block = element / DRAW_GROUP * DRAW_LANES;
        const size_t skip = element % DRAW_GROUP, left = n - done, count = DRAW_GROUP - skip < left ? DRAW_GROUP - skip : left;
        if (block >> 32 != high) schedule_keys(key, stream, (uint32_t)(high = block >> 32), &keys);
        if (count == DRAW_GROUP) {
            draw_group(&keys, (uint32_t)block, draws + done);
        } else {
            draw_group(&keys, (uint32_t)block, group);
            memcpy(draws + done, group + skip, count * sizeof *draws);
        }
        done += count;
    }
}

INLINE void flag_random(uint64_t key, uint32_t stream, uint64_t first, uint32_t limit, uint8_t *restrict keep, size_t n) {
    uint32_t draws[16 * DRAW_GROUP];
    enum { SEGMENT = 16 * DRAW_GROUP };
    for (size_t i = 0; i < n; i += SEGMENT) {
        const size_t count = n - i < SEGMENT ? n - i : SEGMENT;
        draw(key, stream, first + i, draws, count);
        for (size_t j = 0; j < count; j++) keep[i + j] = draws[j] < limit;
    }
}

typedef uint8_t uint8x32 __attribute__((vector_size(32), aligned(1)));
typedef int8_t int8x32 __attribute__((vector_size(32), aligned(1)));
typedef int8_t int8x8 __attribute__((vector_size(8), aligned(1)));
typedef uint16_t uint16x32 __attribute__((vector_size(64)));
typedef uint32_t uint32x32 __attribute__((vector_size(128), aligned(4)));
typedef int32_t int32x32 __attribute__((vector_size(128), aligned(4)));
typedef bool bool32 __attribute__((ext_vector_type(32)));

INLINE uint32_t bits_of_bytes(const uint8x32 *bytes) {
    const bool32 set = __builtin_convertvector(*bytes, bool32);
    uint32_t bits;
    memcpy(&bits, &set, sizeof bits);
    return bits;
}

INLINE void pack_flags(const uint8_t *flags, uint32_t *bits, size_t n) {
    size_t i = 0;
    for (; i + 32 <= n; i += 32) bits[i / 32] = bits_of_bytes((const uint8x32 *)(flags + i));
    if (i == n) return;
    uint8_t rest[32] = {0};
    memcpy(rest, flags + i, n - i);
    bits[i / 32] = bits_of_bytes((const uint8x32 *)rest);
}

INLINE void flags_of_bits(uint32_t bits, uint8_t *flags) {
    bool32 set;
    memcpy(&set, &bits, sizeof set);
    *(uint8x32 *)flags = __builtin_convertvector(set, uint8x32);
}

INLINE void unpack_flags(const uint32_t *bits, uint8_t *flags, size_t n) {
    size_t i = 0;
    for (; i + 32 <= n; i += 32) flags_of_bits(bits[i / 32], flags + i);
    if (i == n) return;
    uint8_t rest[32];
    flags_of_bits(bits[i / 32], rest);
    memcpy(flags + i, rest, n - i);
}

/* --- DELLA --------------------------------------------------------------------------------------------------------- */

/* The element of this rank (from 0) is kept if its draw is below the result. Never decreases with the rank. */
INLINE uint32_t rank_limit(size_t rank, size_t n, double lowest, double spread) {
    const double q = n > 1 ? (double)rank / (double)(n - 1) : 0.5, limit = (lowest + q * spread) * 4294967296.0;
    return limit >= 4294967295.0 ? 0xffffffffu : limit > 0 ? (uint32_t)limit : 0;
}

enum { RANK_SHIFT = 20, RANK_PARTS = 4, RANK_BUCKETS = 48, LAST_CLASS = RANK_PARTS * RANK_BUCKETS - 1 };
/* A table has RANK_STRIDE buckets. */
enum { RANK_BUCKET_BITS = 6, RANK_STRIDE = TK_RANK_STRIDE };

/* Classes of magnitudes, in order. Each power of two is cut into eighths, and the lower end of each eighth, where most
 * differences of 16-bit numbers lie, is an (even) class of its own, whose members are all equal. Zeros have class 0 to
 * themselves; class 5 takes everything more than about 2^11 times smaller than the largest. Four neighbouring classes form a
 * bucket. */
INLINE uint32_t rank_class(uint32_t magnitude) {
    return ((magnitude + ((1u << RANK_SHIFT) - 1)) >> RANK_SHIFT) + (magnitude >> RANK_SHIFT);
}

/* A class number has the position within the bucket in its two highest bits and the bucket in the others, so that the counts of
 * neighbouring buckets are adjacent. */
INLINE void class_group(const float *x, uint16_t floor, uint8_t *classes) {
    const uint32x32 u = *(const uint32x32 *)x & MAGNITUDE;
    const uint32x32 wide = ((u + ((1u << RANK_SHIFT) - 1)) >> RANK_SHIFT) + (u >> RANK_SHIFT);
    const uint16x32 own = __builtin_convertvector(wide, uint16x32), least = (uint16x32)(own != 0) & 5;
    const uint16x32 above = __builtin_elementwise_max(__builtin_elementwise_sub_sat(own, (uint16x32){} + floor), least);
    const uint8x32 class = __builtin_convertvector(above, uint8x32);
    *(uint8x32 *)classes = class << RANK_BUCKET_BITS | class >> 2;
}

/* Pads the last 32 classes with zeros. */
INLINE void rank_classes(const float *x, uint8_t *classes, size_t n) {
    uint32_t most = 0;
    for (size_t i = 0; i < n; i++) {
        const uint32_t u = bits_of(x[i]) & MAGNITUDE;
        most = u > most ? u : most;
    }
    const uint32_t top = rank_class(most);
    const uint16_t floor = top > LAST_CLASS ? (uint16_t)((top - LAST_CLASS + 1) & ~1u) : 0;
    size_t i = 0;
    for (; i + 32 <= n; i += 32) class_group(x + i, floor, classes + i);
    if (i == n) return;
    float rest[32] = {0};
    memcpy(rest, x + i, (n - i) * sizeof *rest);
    class_group(rest, floor, classes + i);
}

/* For an element with `first` elements in lower classes and `end` in lower classes or its own: if one more than the high half of
 * its draw is at most first * step + least, the element is kept whatever its rank within the class; if the high half is above
 * end * step + most, the element is dropped. In float32, which is exact to a fortieth of the half's unit; the margin is twice
 * that. */
typedef struct rank_scale {
    float step, least, most;
} rank_scale;

INLINE rank_scale scale_ranks(size_t n, double lowest, double spread) {
    const float margin = 0.05f, step = (float)(spread * 65536 / (double)(n - 1)), start = (float)(lowest * 65536);
    return (rank_scale){step, start - margin, start + margin - step};
}

/* Counts in several tables, so that equal neighbours do not wait for one another. */
INLINE void count_four(const uint8_t *classes, tk_rank_buffer *buffer) {
    uint32_t four;
    memcpy(&four, classes, sizeof four);
    for (int j = 0; j < 4; j++) buffer->counts[j][four >> 8 * j & 0xff]++;
}

INLINE void count_classes(const uint8_t *classes, size_t n, tk_rank_buffer *buffer) {
    size_t i = 0;
    for (; i + 4 <= n; i += 4) count_four(classes + i, buffer);
    for (; i < n; i++) buffer->counts[0][classes[i]]++;
}

/* Counts, and draws the words of elements from first - first % 32 on. Counting is bound by memory and drawing by multiplication,
 * so that both together take hardly longer than either alone. */
INLINE void count_and_draw(const uint8_t *classes, size_t n, const tk_random *random, uint32_t *words, tk_rank_buffer *buffer) {
    philox_keys keys;
    uint64_t high = UINT64_MAX, block = random->first / DRAW_GROUP * DRAW_LANES;
    const size_t count = random->first % DRAW_GROUP + n;
    for (size_t i = 0; i < count; i += DRAW_GROUP, block += DRAW_LANES) {
        if (block >> 32 != high) schedule_keys(random->key, random->stream, (uint32_t)(high = block >> 32), &keys);
        if (i + DRAW_GROUP > n) {
            draw_group(&keys, (uint32_t)block, words + i);
            continue;
        }
        philox_group c;
        begin_group(&keys, (uint32_t)block, &c);
#pragma clang loop unroll(full)
        for (int round = FIRST_ROUND; round < PHILOX_ROUNDS; round++) {
            mix_group(&keys, round, &c);
            count_four(classes + i + 4 * (round - FIRST_ROUND), buffer);
        }
        end_group(&c, words + i);
    }
    count_classes(classes + n / DRAW_GROUP * DRAW_GROUP, n % DRAW_GROUP, buffer);
}

/* With h the highest byte of an element's draw, less 2^7: an element of bucket b is kept if h < surely[b] and dropped if
 * h > possibly[b], whatever its rank within the bucket. */
typedef struct rank_tables {
    int8_t surely[RANK_STRIDE], possibly[RANK_STRIDE];
} rank_tables;

/* Sets below[c] to the number of elements in lower classes, and resets the counts on the way, which is quicker than clearing them
 * separately. */
INLINE void add_counts(size_t n, rank_scale scale, tk_rank_buffer *buffer, rank_tables *tables) {
    const uint32x8 none = {0};
    uint32x8 below = none;
    for (int bucket = 0; bucket < RANK_BUCKETS; bucket += 8) {
        uint32x8 own[RANK_PARTS], all = none;
        for (int part = 0; part < RANK_PARTS; part++) {
            own[part] = none;
            for (int table = 0; table < 4; table++) {
                uint32x8 *const count = (uint32x8 *)(buffer->counts[table] + (part << RANK_BUCKET_BITS | bucket));
                own[part] += *count;
                *count = none;
            }
            all += own[part];
        }
        uint32x8 sum = all + __builtin_shufflevector(all, none, 8, 0, 1, 2, 8, 4, 5, 6);
        sum += __builtin_shufflevector(sum, none, 8, 8, 0, 1, 8, 8, 4, 5);
        sum += __builtin_shufflevector(sum, none, 8, 8, 8, 8, 3, 3, 3, 3);
        uint32x8 place = below + sum - all;
        const int32x8 surely =
            __builtin_convertvector(__builtin_convertvector((int32x8)place, float8) * scale.step + scale.least, int32x8);
        for (int part = 0; part < RANK_PARTS; place += own[part], part++) {
            *(uint32x8 *)(buffer->below + (part << RANK_BUCKET_BITS | bucket)) = place;
        }
        const int32x8 possibly =
            __builtin_convertvector(__builtin_convertvector((int32x8)place, float8) * scale.step + scale.most, int32x8);
        const int32x8 largest = (int32x8){} + UINT8_MAX;
        *(int8x8 *)(tables->surely + bucket) =
            __builtin_convertvector(__builtin_elementwise_min(surely >> 8, largest) - 128, int8x8);
        *(int8x8 *)(tables->possibly + bucket) =
            __builtin_convertvector(__builtin_elementwise_min(possibly >> 8, largest) - 128, int8x8);
        below += __builtin_shufflevector(sum, none, 7, 7, 7, 7, 7, 7, 7, 7);
    }
    buffer->below[RANK_BUCKETS] = (uint32_t)n;
    /* A zero stays zero, kept or not. */
    tables->surely[0] = INT8_MAX;
    tables->possibly[0] = INT8_MIN;
}

/* table[bucket] for 32 buckets. */
INLINE void look_up_buckets(const int8_t *table, const uint8x32 *buckets, int8x32 *found) {
    const uint8x32 within = *buckets & 31;
    const int8x32 is_high = (int8x32)((int8x32)*buckets > 31);
    const int8x32 low = __builtin_shufflevector(*(const int8x32 *)table, within);
    const int8x32 high = __builtin_shufflevector(*(const int8x32 *)(table + 32), within);
    *found = (high & is_high) | (low & ~is_high);
}

/* Decides those of 32 elements that bucket and highest byte of the draw settle. Returns a bit for each of the others. */
INLINE uint32_t decide_group(const uint8_t *classes, const uint32_t *draws, const rank_tables *tables, uint8_t *keep) {
    const uint8x32 buckets = *(const uint8x32 *)classes & (RANK_STRIDE - 1);
    const int8x32 u = (int8x32)(__builtin_convertvector(*(const uint32x32 *)draws >> 24, uint8x32) ^ 0x80);
    int8x32 surely, possibly;
    look_up_buckets(tables->surely, &buckets, &surely);
    look_up_buckets(tables->possibly, &buckets, &possibly);
    const uint8x32 kept = (uint8x32)(u < surely), decided = kept | (uint8x32)(u > possibly);
    *(uint8x32 *)keep = kept & 1;
    return ~bits_of_bytes(&decided);
}

/* Decides those open elements that class and high half of the draw settle. The others stay in the list; returns their number. */
INLINE size_t keep_surely(
    const uint32_t *draws, const uint8_t *classes, rank_scale scale, const tk_rank_buffer *buffer, uint32_t *open,
    size_t count, uint8_t *keep) {
    size_t left = 0;
    for (size_t j = 0; j < count; j++) {
        const uint32_t i = open[j], class = classes[i], next = class + RANK_STRIDE, u = draws[i] >> 16;
        const uint32_t first = buffer->below[class];
        const uint32_t end = buffer->below[next < TK_RANK_CLASSES ? next : next % TK_RANK_CLASSES + 1];
        keep[i] = (float)(int32_t)(u + 1) <= (float)(int32_t)first * scale.step + scale.least;
        open[left] = i;
        left += !(keep[i] | ((float)(int32_t)u > (float)(int32_t)end * scale.step + scale.most));
    }
    return left;
}

/* The number of bytes with this value. Reads up to 31 bytes beyond them. */
INLINE size_t count_bytes(const uint8_t *bytes, uint8_t value, size_t n) {
    static const uint8x32 places = {0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14, 15,
                                    16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31};
    size_t count = 0, i = 0;
    while (i < n) {
        uint8x32 found = {0};
        for (int turn = 0; turn < 254 && i + 32 <= n; turn++, i += 32)
            found -= (uint8x32)(*(const uint8x32 *)(bytes + i) == value);
        if (i < n && n - i < 32) {
            found -= (uint8x32)(*(const uint8x32 *)(bytes + i) == value) & (uint8x32)(places < (uint8_t)(n - i));
            i = n;
        }
        count += __builtin_reduce_add(__builtin_convertvector(found, uint16x32));
    }
    return count;
}

INLINE uint32_t rank_in_row(const float *x, size_t i, size_t n) {
    const uint32_t own = bits_of(x[i]) & MAGNITUDE;
    uint32_t rank = 0;
    for (size_t j = 0; j < i; j++) rank += (bits_of(x[j]) & MAGNITUDE) <= own;
    for (size_t j = i + 1; j < n; j++) rank += (bits_of(x[j]) & MAGNITUDE) < own;
    return rank;
}

/* Sorts by magnitude, ties by index: the items of one class arrive in order of index. */
INLINE void sort_items(uint64_t *items, uint64_t *buffer, size_t n) {
    if (n <= 32) {
        for (size_t i = 1; i < n; i++) {
            const uint64_t item = items[i];
            size_t j = i;
            for (; j > 0 && items[j - 1] > item; j--) items[j] = items[j - 1];
            items[j] = item;
        }
        return;
    }
    enum { DIGIT = 11, DIGITS = 1 << DIGIT };
    uint64_t differing = 0;
    for (size_t i = 1; i < n; i++) differing |= items[i] ^ items[0];
    for (int shift = 32; shift < 64; shift += DIGIT) {
        if ((differing >> shift & (DIGITS - 1)) == 0) continue;
        uint32_t starts[DIGITS] = {0};
        for (size_t i = 0; i < n; i++) starts[items[i] >> shift & (DIGITS - 1)]++;
        uint32_t sum = 0;
        for (int digit = 0; digit < DIGITS; digit++) {
            const uint32_t count = starts[digit];
            starts[digit] = sum;
            sum += count;
        }
        for (size_t i = 0; i < n; i++) buffer[starts[items[i] >> shift & (DIGITS - 1)]++] = items[i];
        memcpy(items, buffer, n * sizeof *items);
    }
}

/* With more open elements than this, a whole row is ordered by class; within a class, the class is sorted. */
enum { MANY_OPEN = 64, MANY_OPEN_IN_CLASS = 24 };

/* Ranks many open elements, for which `keep` holds 2. */
INLINE void keep_open(
    const float *x, const uint32_t *draws, const uint8_t *classes, size_t n, double lowest, double spread,
    tk_rank_buffer *buffer, uint64_t *items, uint8_t *keep) {
    uint32_t wanted[TK_RANK_CLASSES] = {0}, ends[TK_RANK_CLASSES];
    for (size_t i = 0; i < n; i++) wanted[classes[i]] += keep[i] == 2;
    memcpy(ends, buffer->below, sizeof ends);
    for (size_t i = 0; i < n; i++) items[ends[classes[i]]++] = (uint64_t)(bits_of(x[i]) & MAGNITUDE) << 32 | i;
    for (int c = 0; c < TK_RANK_CLASSES; c++) {
        if (!wanted[c]) continue;
        const uint32_t first = buffer->below[c], count = ends[c] - first;
        uint64_t *own = items + first;
        const bool sorts = wanted[c] > MANY_OPEN_IN_CLASS;
        if (sorts) sort_items(own, items + n, count);
        for (uint32_t j = 0; j < count; j++) {
            const uint64_t item = own[j];
            const uint32_t i = (uint32_t)item;
            if (keep[i] != 2) continue;
            uint64_t before = j;
            if (!sorts) {
                before = 0;
                for (uint32_t other = 0; other < count; other++) before += own[other] < item;
            }
            keep[i] = draws[i] < rank_limit(first + before, n, lowest, spread);
        }
    }
}

/* Decides the open elements in classes of equal magnitudes, which rank by index: each rank counts on from the previous element of
 * the class. The others stay in the list, with 2 in `keep`; returns their number. */
INLINE size_t keep_equal(
    const uint32_t *draws, const uint8_t *classes, size_t n, double lowest, double spread, tk_rank_buffer *buffer,
    uint32_t *open, size_t count, uint8_t *keep) {
    uint32_t ranks[TK_RANK_CLASSES], ends[TK_RANK_CLASSES] = {0};
    memcpy(ranks, buffer->below, sizeof ranks);
    size_t left = 0;
    for (size_t j = 0; j < count; j++) {
        const uint32_t i = open[j];
        const uint8_t class = classes[i];
        if (class >> RANK_BUCKET_BITS & 1) {
            keep[i] = 2;
            open[left++] = i;
            continue;
        }
        ranks[class] += count_bytes(classes + ends[class], class, i - ends[class]);
        ends[class] = i;
        keep[i] = draws[i] < rank_limit(ranks[class], n, lowest, spread);
    }
    return left;
}

/* Appends the positions of the set bits. The first is appended without a branch; the loop runs only for the few groups with more
 * than one. */
INLINE size_t append_places(uint32_t bits, size_t at, uint32_t *places, size_t count) {
    do {
        places[count] = (uint32_t)at + (bits ? (uint32_t)__builtin_ctz(bits) : 0);
        count += bits != 0;
        bits &= bits - 1;
    } while (bits);
    return count;
}

/* Most elements are decided by the range of ranks of their class; exact ranks are found only for the others. */
INLINE void keep_by_rank(
    const float *x, const tk_random *random, uint32_t *draws, size_t n, double lowest, double spread, tk_rank_buffer *buffer,
    uint64_t *items, uint8_t *keep) {
    if (n <= 1) {
        if (random) draw(random->key, random->stream, random->first, draws, n);
        if (n == 1) keep[0] = draws[0] < rank_limit(0, 1, lowest, spread);
        return;
    }
    uint8_t *classes = (uint8_t *)(items + 2 * n);
    rank_classes(x, classes, n);
    if (random) {
        count_and_draw(classes, n, random, draws, buffer);
        draws += random->first % DRAW_GROUP;
    } else {
        count_classes(classes, n, buffer);
    }
    const rank_scale scale = scale_ranks(n, lowest, spread);
    rank_tables tables = {0};
    add_counts(n, scale, buffer, &tables);
    uint32_t *open = (uint32_t *)items;
    size_t count = 0, at = 0;
    for (; at + 32 <= n; at += 32)
        count = append_places(decide_group(classes + at, draws + at, &tables, keep + at), at, open, count);
    if (at < n) {
        uint8_t kept[32];
        uint32_t words[32] = {0};
        memcpy(words, draws + at, (n - at) * sizeof *words);
        count = append_places(decide_group(classes + at, words, &tables, kept), at, open, count);
        memcpy(keep + at, kept, n - at);
    }
    count = keep_surely(draws, classes, scale, buffer, open, count, keep);
    count = keep_equal(draws, classes, n, lowest, spread, buffer, open, count, keep);
    if (count > MANY_OPEN) return keep_open(x, draws, classes, n, lowest, spread, buffer, items, keep);
    for (size_t j = 0; j < count; j++) {
        const size_t i = open[j];
        keep[i] = draws[i] < rank_limit(rank_in_row(x, i, n), n, lowest, spread);
    }
}

/* --- RAM ----------------------------------------------------------------------------------------------------------- */

INLINE void count_tile(
    const float *const *rows, size_t models, float epsilon, uint32_t *alone, uint32_t *shared, size_t at, size_t n) {
    CACHE_ALIGNED uint32_t changes[TILE];
    for (size_t j = 0; j < n; j++) changes[j] = 0;
    for (size_t m = 0; m < models; m++) {
        for (size_t j = 0; j < n; j++) changes[j] += fabsf(rows[m][at + j]) > epsilon;
    }
    for (size_t m = 0; m < models; m++) {
        const float *row = rows[m] + at;
        uint32_t one = 0, any = 0;
        for (size_t j = 0; j < n; j++) {
            const uint32_t own = fabsf(row[j]) > epsilon;
            any += own;
            one += own & (changes[j] == 1);
        }
        alone[m] += one;
        shared[m] += any - one;
    }
}

INLINE void count_changes(const float *const *rows, size_t models, float epsilon, uint32_t *alone, uint32_t *shared, size_t n) {
    size_t i = 0;
    for (; i + TILE <= n; i += TILE) count_tile(rows, models, epsilon, alone, shared, i, TILE);
    if (i < n) count_tile(rows, models, epsilon, alone, shared, i, n - i);
}

INLINE void change_tile(
    const float *const *rows, const float *factors, size_t models, float epsilon, float *restrict target, size_t at, size_t n) {
    CACHE_ALIGNED float changes[TILE], alone[TILE], sum[TILE];
    for (size_t j = 0; j < n; j++) changes[j] = alone[j] = sum[j] = 0;
    for (size_t m = 0; m < models; m++) {
        const float *row = rows[m] + at, factor = factors[m];
        for (size_t j = 0; j < n; j++) {
            /* Not `!(x > epsilon)`: by the formula NaN is no change, but NaN must reach the result. */
            const float own = fabsf(row[j]) <= epsilon ? 0.0f : row[j];
            changes[j] += fabsf(row[j]) > epsilon ? 1.0f : 0.0f;
            alone[j] += factor * own;
            sum[j] += own;
        }
    }
    for (size_t j = 0; j < n; j++) target[at + j] = changes[j] > 1 ? sum[j] / changes[j] : alone[j];
}

INLINE void merge_changes(const float *const *rows, const float *factors, size_t models, float epsilon, float *target, size_t n) {
    size_t i = 0;
    for (; i + TILE <= n; i += TILE) change_tile(rows, factors, models, epsilon, target, i, TILE);
    if (i < n) change_tile(rows, factors, models, epsilon, target, i, n - i);
}

/* --- nearswap ------------------------------------------------------------------------------------------------------ */

INLINE void nearswap(float t, const float *a, const float *b, float *target, size_t n) {
    for (size_t i = 0; i < n; i++) {
        const float gap = fabsf(a[i] - b[i]), inverse = 1.0f / (gap < 1e-6f ? 1e-6f : gap), w = inverse * t;
        const float weight = w < 0 ? 0.0f : w > 1 ? 1.0f : w;
        target[i] = weight * b[i] + (1.0f - weight) * a[i];
    }
}

/* --- softmax ------------------------------------------------------------------------------------------------------- */

typedef int64_t int64x8 __attribute__((vector_size(LANES * sizeof(int64_t))));

/* The C library's exp and log may differ in the last bit between machines. These do not, and they compute eight at once.
 * exp for x <= 0 to 1e-14 (about e^-700 below -700): x = k ln 2 + r, Taylor series in r. */
INLINE void fixed_exp(double8 *x) {
    const double magic = 0x1.8p52;
    const int64x8 tiny = *x < -700.0;
    const double8 bounded = (double8)(((int64x8)*x & ~tiny) | ((int64x8)((double8){} - 700.0) & tiny));
    const double8 shifted = bounded * 0x1.71547652b82fep0 + magic, k = shifted - magic;
    const double8 r = (bounded - k * 0x1.62e42fefa38p-1) - k * 0x1.ef35793c7673p-45;
    double8 p = (double8){} + 1.0 / 479001600;
    p = p * r + 1.0 / 39916800;
    p = p * r + 1.0 / 3628800;
    p = p * r + 1.0 / 362880;
    p = p * r + 1.0 / 40320;
    p = p * r + 1.0 / 5040;
    p = p * r + 1.0 / 720;
    p = p * r + 1.0 / 120;
    p = p * r + 1.0 / 24;
    p = p * r + 1.0 / 6;
    p = p * r + 0.5;
    p = p * r + 1.0;
    p = p * r + 1.0;
    *x = p * (double8)(((uint64x8)shifted + 1023u) << 52);
}

/* exp to 3e-16 for -1/8 <= x <= 0, the range of nearly all weights of a row relative to its largest. */
INLINE void near_exp(double8 *x) {
    const double8 r = *x;
    double8 p = (double8){} + 1.0 / 362880;
    p = p * r + 1.0 / 40320;
    p = p * r + 1.0 / 5040;
    p = p * r + 1.0 / 720;
    p = p * r + 1.0 / 120;
    p = p * r + 1.0 / 24;
    p = p * r + 1.0 / 6;
    p = p * r + 0.5;
    p = p * r + 1.0;
    *x = p * r + 1.0;
}

/* log for normal x > 0 to 1e-15: x = 2^k m, m near 1, 2 atanh((m - 1)/(m + 1)). */
INLINE void fixed_log(double8 *x) {
    const uint64_t half_root = 0x3fe6a09e667f3bcdu, magic = 0x4338000000000000u;
    const uint64x8 biased = ((uint64x8)*x - half_root + (1023ull << 52)) >> 52;
    const double8 k = (double8)(biased + magic) - (0x1.8p52 + 1023);
    const double8 m = (double8)((uint64x8)*x - ((biased - 1023u) << 52));
    const double8 f = (m - 1.0) / (m + 1.0), s = f * f;
    double8 p = (double8){} + 1.0 / 19;
    p = p * s + 1.0 / 17;
    p = p * s + 1.0 / 15;
    p = p * s + 1.0 / 13;
    p = p * s + 1.0 / 11;
    p = p * s + 1.0 / 9;
    p = p * s + 1.0 / 7;
    p = p * s + 1.0 / 5;
    p = p * s + 1.0 / 3;
    p = p * s + 1.0;
    *x = k * 0x1.62e42fefa39efp-1 + 2.0 * f * p;
}

typedef bool bool8 __attribute__((ext_vector_type(LANES)));

INLINE bool all_lanes(const int64x8 *mask) {
    const bool8 set = __builtin_convertvector(*mask, bool8);
    uint8_t bits;
    memcpy(&bits, &set, sizeof bits);
    return bits == 0xff;
}

INLINE void exp_lanes(double8 *x) {
    const int64x8 near = *x >= -0.125;
    if (all_lanes(&near)) {
        near_exp(x);
    } else {
        fixed_exp(x);
    }
}

/* log(p / q) to 1e-15 as 2 atanh f, f = (p - q)/(p + q). Where all |f| are at most 1/32, one division and five terms are
 * enough. */
INLINE void log_ratio(const double8 *p, const double8 *q, double8 *log) {
    const double8 f = (*p - *q) / (*p + *q), s = f * f;
    const int64x8 near = s <= 0x1p-10;
    if (all_lanes(&near)) {
        double8 sum = (double8){} + 1.0 / 9;
        sum = sum * s + 1.0 / 7;
        sum = sum * s + 1.0 / 5;
        sum = sum * s + 1.0 / 3;
        sum = sum * s + 1.0;
        *log = 2.0 * f * sum;
    } else {
        *log = *p / *q;
        fixed_log(log);
        *log += f - f; /* fixed_log turns NaN into a number; this restores it */
    }
}

INLINE double exponential(double x) {
    double8 e = (double8){} + x;
    fixed_exp(&e);
    return e[0];
}

#endif
