#define LEVEL "portable"
#define TARGET
#include "level.h"

const tk_kernels *tk_portable(void) { return &table; }
