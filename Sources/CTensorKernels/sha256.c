#include <string.h>

#include "tensor_kernels.h"

/* FIPS 180-4, sections 4.2.2, 5.3.3 and 6.2. */

void tk_sha256_begin(tk_sha256 *hash) {
    static const uint32_t initial[8] = {
        0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19,
    };
    memcpy(hash->state, initial, sizeof initial);
    hash->count = 0;
}

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>

bool tk_sha256_is_available(void) {
    unsigned int a, b, c, d;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && b & bit_SHA && __builtin_cpu_supports("sse4.1");
}

#define WITH_SHA __attribute__((target("sha,sse4.1")))

static const uint32_t constants[64] __attribute__((aligned(16))) = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

/* The working variables in the order that the instructions take them. */
typedef struct variables {
    __m128i abef, cdgh;
} variables;

WITH_SHA static inline variables load(const uint32_t *state) {
    __m128i badc = _mm_shuffle_epi32(_mm_loadu_si128((const __m128i *)state), 0xb1);
    __m128i hgfe = _mm_shuffle_epi32(_mm_loadu_si128((const __m128i *)(state + 4)), 0x1b);
    return (variables){_mm_alignr_epi8(badc, hgfe, 8), _mm_blend_epi16(hgfe, badc, 0xf0)};
}

WITH_SHA static inline void store(variables v, uint32_t *state) {
    __m128i feba = _mm_shuffle_epi32(v.abef, 0x1b), dchg = _mm_shuffle_epi32(v.cdgh, 0xb1);
    _mm_storeu_si128((__m128i *)state, _mm_blend_epi16(feba, dchg, 0xf0));
    _mm_storeu_si128((__m128i *)(state + 4), _mm_alignr_epi8(dchg, feba, 8));
}

/* Adds `blocks` blocks of 64 bytes to each of `n` hashes. A round waits for the one before: the rounds of a second hash take the
 * time between. */
WITH_SHA __attribute__((always_inline)) static inline void compress(
    int n, uint32_t *const *states, const uint8_t *const *inputs, size_t blocks) {
    const __m128i big_endian = _mm_set_epi64x(0x0c0d0e0f08090a0b, 0x0405060700010203);
    variables v[2];
    for (int i = 0; i < n; i++) v[i] = load(states[i]);
    for (size_t block = 0; block < blocks; block++) {
        variables before[2];
        __m128i words[2][4]; /* the last sixteen of the message schedule */
        for (int i = 0; i < n; i++) {
            before[i] = v[i];
            for (int k = 0; k < 4; k++) {
                const __m128i *input = (const __m128i *)(inputs[i] + 64 * block + 16 * k);
                words[i][k] = _mm_shuffle_epi8(_mm_loadu_si128(input), big_endian);
            }
        }
#pragma clang loop unroll(full)
        for (int round = 0; round < 16; round++) {
            __m128i constant = _mm_load_si128((const __m128i *)(constants + 4 * round));
            for (int i = 0; i < n; i++) {
                __m128i *w = words[i], *now = &w[round & 3], last = w[(round + 3) & 3];
                if (round >= 4) {
                    __m128i sum = _mm_sha256msg1_epu32(*now, w[(round + 1) & 3]);
                    sum = _mm_add_epi32(sum, _mm_alignr_epi8(last, w[(round + 2) & 3], 4));
                    *now = _mm_sha256msg2_epu32(sum, last);
                }
                __m128i k = _mm_add_epi32(*now, constant);
                v[i].cdgh = _mm_sha256rnds2_epu32(v[i].cdgh, v[i].abef, k);
                v[i].abef = _mm_sha256rnds2_epu32(v[i].abef, v[i].cdgh, _mm_shuffle_epi32(k, 0x0e));
            }
        }
        for (int i = 0; i < n; i++) {
            v[i].abef = _mm_add_epi32(v[i].abef, before[i].abef);
            v[i].cdgh = _mm_add_epi32(v[i].cdgh, before[i].cdgh);
        }
    }
    for (int i = 0; i < n; i++) store(v[i], states[i]);
}

WITH_SHA static void compress_one(tk_sha256 *hash, const uint8_t *input, size_t blocks) {
    compress(1, (uint32_t *[]){hash->state}, (const uint8_t *[]){input}, blocks);
}

WITH_SHA static void compress_two(tk_sha256 *a, const uint8_t *p, tk_sha256 *b, const uint8_t *q, size_t blocks) {
    compress(2, (uint32_t *[]){a->state, b->state}, (const uint8_t *[]){p, q}, blocks);
}

/* The number of bytes that wait for the rest of their block. */
static size_t waiting(const tk_sha256 *hash) { return hash->count % 64; }

void tk_sha256_update(tk_sha256 *hash, const void *bytes, size_t n) {
    const uint8_t *p = bytes;
    size_t before = waiting(hash);
    hash->count += n;
    if (before > 0) {
        size_t taken = n < 64 - before ? n : 64 - before;
        memcpy(hash->rest + before, p, taken);
        if (before + taken < 64) return;
        compress_one(hash, hash->rest, 1);
        p += taken;
        n -= taken;
    }
    compress_one(hash, p, n / 64);
    memcpy(hash->rest, p + n / 64 * 64, n % 64);
}

void tk_sha256_update_two(tk_sha256 *a, const void *p, size_t n, tk_sha256 *b, const void *q, size_t m) {
    if (waiting(a) == 0 && waiting(b) == 0) {
        size_t blocks = (n < m ? n : m) / 64, bytes = 64 * blocks;
        compress_two(a, p, b, q, blocks);
        a->count += bytes;
        b->count += bytes;
        p = (const uint8_t *)p + bytes;
        q = (const uint8_t *)q + bytes;
        n -= bytes;
        m -= bytes;
    }
    tk_sha256_update(a, p, n);
    tk_sha256_update(b, q, m);
}

void tk_sha256_end(tk_sha256 *hash, uint8_t *digest) {
    size_t before = waiting(hash);
    uint8_t padding[128] = {0};
    size_t padded = before < 56 ? 64 : 128;
    memcpy(padding, hash->rest, before);
    padding[before] = 0x80;
    for (int i = 0; i < 8; i++) padding[padded - 1 - i] = (uint8_t)(hash->count * 8 >> 8 * i);
    compress_one(hash, padding, padded / 64);
    for (int i = 0; i < 32; i++) digest[i] = (uint8_t)(hash->state[i / 4] >> (24 - 8 * (i % 4)));
}
#else
bool tk_sha256_is_available(void) { return false; }
void tk_sha256_update(tk_sha256 *hash, const void *bytes, size_t n) { (void)hash, (void)bytes, (void)n; }
void tk_sha256_update_two(tk_sha256 *a, const void *p, size_t n, tk_sha256 *b, const void *q, size_t m) {
    (void)a, (void)p, (void)n, (void)b, (void)q, (void)m;
}
void tk_sha256_end(tk_sha256 *hash, uint8_t *digest) { (void)hash, (void)digest; }
#endif
