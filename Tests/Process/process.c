#include "process.h"

#include <stdlib.h>

// All tests of a process share as many threads as there are cores. Without a bound they all begin at once: a step of one test
// then waits behind a step of each of the others, for seconds, and whoever looks at a job in its middle comes too late. The
// variable must be set before the test library reads it, and the README promises a plain `swift test`.
__attribute__((constructor)) static void boundTestsAtOnce(void) {
    setenv("SWT_EXPERIMENTAL_MAXIMUM_PARALLELIZATION_WIDTH", "8", 0);
}
