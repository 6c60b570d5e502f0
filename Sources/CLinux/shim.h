#pragma once
// System calls that the Glibc module leaves out.
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

// Renames, and fails if `to` exists.
static inline int rename_noreplace(const char *from, const char *to) {
    return (int)syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, RENAME_NOREPLACE);
}

// Swaps two existing names at once.
static inline int rename_exchange(const char *one, const char *other) {
    return (int)syscall(SYS_renameat2, AT_FDCWD, one, AT_FDCWD, other, RENAME_EXCHANGE);
}

// Gives a file blocks for its first `size` bytes, which become its size. Unlike posix_fallocate, it does not write to a file
// system that cannot.
static inline int reserve_space(int file, long size) { return (int)syscall(SYS_fallocate, file, 0, 0L, size); }

// Begins to write these bytes of a file to its disk, without waiting for that. A hint: nothing is lost where it fails.
static inline void begin_write_back(int file, long offset, long size) {
    (void)syscall(SYS_sync_file_range, file, offset, size, SYNC_FILE_RANGE_WRITE);
}

// Whether a byte of a file is in the page cache, as far as that can be told without waiting for the disk.
static inline int is_cached(int file, long offset) {
    char byte;
    const struct iovec room = {&byte, 1};
    // The offset in two halves, as the system call takes it.
    return syscall(SYS_preadv2, file, &room, 1L, offset, 0L, (long)RWF_NOWAIT) == 1;
}

// Processors that this process may run on, which in a container or a Slurm step are fewer than the machine has. 0 if that cannot
// be told.
static inline int allowed_processors(void) {
    unsigned long set[1024 / (8 * sizeof(unsigned long))] = {0};
    const long bytes = syscall(SYS_sched_getaffinity, 0, sizeof set, set);
    int count = 0;
    for (long i = 0; i < bytes / (long)sizeof set[0]; i++) count += __builtin_popcountl(set[i]);
    return count;
}
