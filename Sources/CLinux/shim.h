#pragma once
// System calls that the Glibc module leaves out.
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <unistd.h>

// Renames, and fails if `to` exists.
static inline int rename_noreplace(const char *from, const char *to) {
    return (int)syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, RENAME_NOREPLACE);
}

// Swaps two existing names at once.
static inline int rename_exchange(const char *one, const char *other) {
    return (int)syscall(SYS_renameat2, AT_FDCWD, one, AT_FDCWD, other, RENAME_EXCHANGE);
}

// Processors that this process may run on, which in a container or a Slurm step are fewer than the machine has. 0 if that cannot be told.
static inline int allowed_processors(void) {
    unsigned long set[1024 / (8 * sizeof(unsigned long))] = {0};
    const long bytes = syscall(SYS_sched_getaffinity, 0, sizeof set, set);
    int count = 0;
    for (long i = 0; i < bytes / (long)sizeof set[0]; i++) count += __builtin_popcountl(set[i]);
    return count;
}
