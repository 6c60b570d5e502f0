/* Kernels over elements as they are stored: decoded in tiles that stay in the first cache, so that no float32 copy of a source is made. */

INLINE void load_tile(const tk_vector *x, size_t at, float *restrict tile, size_t n) {
    switch (x->type) {
        case TK_BF16: widen_bf16((const char *)x->data + 2 * at, tile, n); break;
        case TK_F16: widen_f16((const char *)x->data + 2 * at, tile, n); break;
        case TK_F64: widen_f64((const char *)x->data + 8 * at, tile, n); break;
        default: memcpy(tile, (const char *)x->data + 4 * at, 4 * n);
    }
}

INLINE void difference_tile(const tk_vector *x, const tk_vector *y, float *target, size_t at, size_t n) {
    float a[TILE], b[TILE];
    load_tile(x, at, a, n);
    load_tile(y, at, b, n);
    for (size_t j = 0; j < n; j++) target[at + j] = a[j] - b[j];
}

INLINE void difference(const tk_vector *x, const tk_vector *y, float *target, size_t n) {
    size_t i = 0;
    if (x->type == TK_BF16 && y->type == TK_BF16) {
        const raw16 *a = x->data, *b = y->data;
        for (; i < n; i++) target[i] = float_of((uint32_t)a[i] << 16) - float_of((uint32_t)b[i] << 16);
        return;
    }
    for (; i + TILE <= n; i += TILE) difference_tile(x, y, target, i, TILE);
    if (i < n) difference_tile(x, y, target, i, n - i);
}

INLINE void trimmed_tile(
    const tk_trimmed *parts, size_t models, const tk_vector *base, const tk_combination *how, float *restrict target, size_t at, size_t n) {
    float b[TILE], merged[TILE], entries[TK_TRIMMED_MODELS][TILE];
    const float *rows[TK_TRIMMED_MODELS];
    float weights[TK_TRIMMED_MODELS];
    load_tile(base, at, b, n);
    if (!how->consensus) {
        for (size_t j = 0; j < n; j++) merged[j] = 0;
    }
    for (size_t m = 0; m < models; m++) {
        const tk_trimmed *part = &parts[m];
        const uint32_t from = part->from, span = part->to - part->from;
        const float factor = part->factor, weight = part->weight;
        float *e = entries[m];
        load_tile(&part->x, at, e, n);
        for (size_t j = 0; j < n; j++) {
            const uint32_t u = bits_of(e[j] - b[j]);
            e[j] = float_of((u & MAGNITUDE) - from <= span ? u : 0) * factor;
        }
        if (how->consensus) {
            for (size_t j = 0; j < n; j++) e[j] *= weight;
        } else {
            for (size_t j = 0; j < n; j++) merged[j] = weight * e[j] + merged[j];
        }
        rows[m] = e;
        weights[m] = weight;
    }
    if (how->consensus) {
        consensus_tile(rows, weights, models, how->normalize, merged, 0, n);
    } else if (how->divisor != 1) {
        for (size_t j = 0; j < n; j++) merged[j] /= how->divisor;
    }
    const float lambda = how->lambda;
    for (size_t j = 0; j < n; j++) target[at + j] = lambda * merged[j] + b[j];
}

INLINE void merge_trimmed(
    const tk_trimmed *parts, size_t models, const tk_vector *base, const tk_combination *how, float *target, size_t n) {
    size_t i = 0;
    for (; i + TILE <= n; i += TILE) trimmed_tile(parts, models, base, how, target, i, TILE);
    if (i < n) trimmed_tile(parts, models, base, how, target, i, n - i);
}
