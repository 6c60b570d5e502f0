#pragma once
#include <stddef.h>

// Files mapped for reading, whose readers outlive the loss of their pages.
//
// The kernel answers a read of a mapped page that it cannot provide, since the file was cut short or its disk fails, with the
// signal SIGBUS, which ends the process. The handler here puts pages of zeros in place of those of a file mapped with `map_file`,
// and notes that the mapping is damaged: whoever reads it asks `is_damaged` before the bytes count. All other signals go to the
// handler that was there before, or end the process as they would have.

struct mapped_file;

// Maps the first `size` bytes of a file, at least one. Returns NULL and sets errno where that fails.
struct mapped_file *map_file(int file, size_t size);

// The first byte.
const void *bytes_of(const struct mapped_file *mapping);

// Whether a page was lost. Zeros were read instead.
int is_damaged(const struct mapped_file *mapping);

// Ends the mapping. Nobody may read it any more.
void unmap_file(struct mapped_file *mapping);
