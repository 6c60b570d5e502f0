#include "tensor_kernels.h"

void tk_split_planes(const uint8_t *source, uint8_t *target, size_t n, size_t width) {
    for (size_t plane = 0; plane < width; plane++) {
        for (size_t i = 0; i < n; i++) target[plane * n + i] = source[i * width + plane];
    }
}

void tk_join_planes(const uint8_t *source, uint8_t *target, size_t n, size_t width) {
    for (size_t plane = 0; plane < width; plane++) {
        for (size_t i = 0; i < n; i++) target[i * width + plane] = source[plane * n + i];
    }
}
