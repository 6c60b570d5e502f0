#include <string.h>

#include "tensor_kernels.h"

enum { CASTAGNOLI_REVERSED = (int)0x82f63b78 };

/* table[k][b]: the contribution of byte b when k more bytes follow in its group of eight. */
static uint32_t table[8][256];

/* shifted[k][b]: what byte k of a checksum, b, becomes over LANE bytes of zero. */
enum { LANE = 2048 };
static uint32_t shifted[4][256];

/* The checksum, without the inversions, after eight more bytes. */
static uint32_t add_by_table(uint32_t crc, const uint8_t *p) {
    uint64_t word;
    memcpy(&word, p, 8);
    word ^= crc;
    crc = 0;
    for (int k = 0; k < 8; k++) crc ^= table[7 - k][word >> 8 * k & 0xff];
    return crc;
}

__attribute__((constructor)) static void fill_tables(void) {
    for (uint32_t b = 0; b < 256; b++) {
        uint32_t crc = b;
        for (int bit = 0; bit < 8; bit++) crc = crc >> 1 ^ (crc & 1 ? (uint32_t)CASTAGNOLI_REVERSED : 0);
        table[0][b] = crc;
    }
    for (int k = 1; k < 8; k++) {
        for (int b = 0; b < 256; b++) table[k][b] = table[k - 1][b] >> 8 ^ table[0][table[k - 1][b] & 0xff];
    }
    static const uint8_t zeros[8];
    for (int bit = 0; bit < 32; bit++) {
        uint32_t crc = 1U << bit;
        for (int i = 0; i < LANE; i += 8) crc = add_by_table(crc, zeros);
        for (uint32_t b = 0; b < 256; b++) shifted[bit / 8][b] ^= b >> bit % 8 & 1 ? crc : 0;
    }
}

/* The checksum, without the inversions, after LANE bytes of zero. */
static inline uint32_t after_a_lane(uint32_t crc) {
    return shifted[0][crc & 0xff] ^ shifted[1][crc >> 8 & 0xff] ^ shifted[2][crc >> 16 & 0xff] ^ shifted[3][crc >> 24];
}

uint32_t tk_crc32c_by_table(uint32_t crc, const void *bytes, size_t n) {
    const uint8_t *p = bytes;
    crc = ~crc;
    for (; n >= 8; n -= 8, p += 8) crc = add_by_table(crc, p);
    for (; n > 0; n--) crc = crc >> 8 ^ table[0][(crc ^ *p++) & 0xff];
    return ~crc;
}

#if defined(__x86_64__) || defined(__ARM_FEATURE_CRC32)
#if defined(__x86_64__)
#define HARDWARE __attribute__((target("sse4.2")))
#define ADD_WORD(crc, word) (uint32_t)__builtin_ia32_crc32di(crc, word)
#define ADD_BYTE(crc, byte) __builtin_ia32_crc32qi(crc, byte)
#else
#define HARDWARE
#define ADD_WORD(crc, word) __builtin_arm_crc32cd(crc, word)
#define ADD_BYTE(crc, byte) __builtin_arm_crc32cb(crc, byte)
#endif

HARDWARE static inline uint32_t add(uint32_t crc, const uint8_t *p) {
    uint64_t word;
    memcpy(&word, p, 8);
    return ADD_WORD(crc, word);
}

/* An instruction takes as long as three can be under way: three lanes of LANE bytes are summed at once. */
HARDWARE static uint32_t by_instruction(uint32_t crc, const uint8_t *p, size_t n) {
    crc = ~crc;
    for (; n >= 3 * LANE; n -= 3 * LANE, p += 3 * LANE) {
        uint32_t second = 0, third = 0;
        for (size_t i = 0; i < LANE; i += 8) {
            crc = add(crc, p + i);
            second = add(second, p + LANE + i);
            third = add(third, p + 2 * LANE + i);
        }
        crc = after_a_lane(after_a_lane(crc) ^ second) ^ third;
    }
    for (; n >= 8; n -= 8, p += 8) crc = add(crc, p);
    for (; n > 0; n--) crc = ADD_BYTE(crc, *p++);
    return ~crc;
}
#endif

uint32_t tk_crc32c(uint32_t crc, const void *bytes, size_t n) {
#if defined(__x86_64__)
    if (__builtin_cpu_supports("sse4.2")) return by_instruction(crc, bytes, n);
#elif defined(__ARM_FEATURE_CRC32)
    return by_instruction(crc, bytes, n);
#endif
    return tk_crc32c_by_table(crc, bytes, n);
}
