#if defined(__x86_64__)
#define LEVEL "x86-64-v3"
#define TARGET __attribute__((target("avx2,bmi,bmi2,f16c")))
#include "level.h"

const tk_kernels *tk_v3(void) {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi2") && __builtin_cpu_supports("f16c") ? &table : NULL;
}
#else
#include "tensor_kernels.h"

const tk_kernels *tk_v3(void) { return NULL; }
#endif
