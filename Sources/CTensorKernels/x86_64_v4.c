#if defined(__x86_64__)
#define LEVEL "x86-64-v4"
#define TARGET __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,bmi,bmi2,f16c")))
#include "level.h"

const tk_kernels *tk_v4(void) {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
                   __builtin_cpu_supports("avx512vl")
               ? &table
               : NULL;
}
#else
#include "tensor_kernels.h"

const tk_kernels *tk_v4(void) { return NULL; }
#endif
