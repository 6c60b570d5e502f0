#pragma once
// System calls that the Glibc module leaves out.
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/openat2.h>
#include <linux/stat.h>
#include <sys/resource.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

// The flag O_PATH: a descriptor that names a file, and neither reads nor writes it.
static const int open_as_path = 010000000;

// Opens a file by its path relative to a directory.
static inline int open_at(int directory, const char *path, int flags, unsigned mode) {
    return openat(directory, path, flags, mode);
}

// Opens a file below a directory. A path with `..` or through a link fails with EXDEV or ELOOP.
static inline int open_beneath(int directory, const char *path, int flags, unsigned mode) {
    const struct open_how how = {
        .flags = (unsigned long long)flags, .mode = mode, .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS};
    return (int)syscall(SYS_openat2, directory, path, &how, sizeof how);
}

// When a file was created, in nanoseconds since 1970; 0 where its file system does not tell. Links are not followed, and an empty
// name stands for the directory, or the file, itself.
static inline long long birth_time(int directory, const char *name) {
    const int empty_path = 0x1000;  // AT_EMPTY_PATH
    struct statx found;
    if (syscall(SYS_statx, directory, name, AT_SYMLINK_NOFOLLOW | empty_path, STATX_BTIME, &found) != 0) return 0;
    return found.stx_mask & STATX_BTIME ? found.stx_btime.tv_sec * 1000000000LL + found.stx_btime.tv_nsec : 0;
}

// Renames an entry of a directory, and fails if `to` exists.
static inline int rename_noreplace(int directory, const char *from, const char *to) {
    return (int)syscall(SYS_renameat2, directory, from, directory, to, RENAME_NOREPLACE);
}

// Swaps two entries of a directory at once.
static inline int rename_exchange(int directory, const char *one, const char *other) {
    return (int)syscall(SYS_renameat2, directory, one, directory, other, RENAME_EXCHANGE);
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

// Lets this process have as many descriptors as the system allows it. Returns how many those are.
static inline long raise_descriptor_limit(void) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return 1024;
    const struct rlimit raised = {limit.rlim_max, limit.rlim_max};
    if (setrlimit(RLIMIT_NOFILE, &raised) == 0) limit = raised;
    return limit.rlim_cur > 1 << 20 ? 1 << 20 : (long)limit.rlim_cur;
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
