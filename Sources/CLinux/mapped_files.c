#define _GNU_SOURCE
#include "mapped_files.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

// An entry of the list of mappings. Entries are used again and never freed, so that the handler can walk the list at any moment.
struct mapped_file {
    // The addresses of the mapping; `start` is 0 while the entry is unused.
    _Atomic uintptr_t start, end;
    atomic_int damaged;
    // Set before the entry joins the list.
    struct mapped_file *next;
    struct mapped_file *next_unused;
};

static struct mapped_file *_Atomic first;
// Guards `unused` and changes of `first`. The handler does not take it.
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct mapped_file *unused;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static struct sigaction earlier;
static uintptr_t page_bytes;

// Calls nothing but mmap, sigaction and raise, all of which may be called in a handler on Linux.
static void on_bus_error(int number, siginfo_t *info, void *context) {
    const int error = errno;
    const uintptr_t address = (uintptr_t)info->si_addr;
    // A positive code comes from the kernel; other processes send the signal without an address.
    for (struct mapped_file *mapping = info->si_code > 0 ? atomic_load(&first) : NULL; mapping; mapping = mapping->next) {
        const uintptr_t start = atomic_load(&mapping->start), end = atomic_load(&mapping->end);
        if (start == 0 || address < start || address >= end) continue;
        // First, so that whoever sees zeros sees this as well. The rest of the file is given up with the page: one system call
        // instead of one for each page.
        atomic_store(&mapping->damaged, 1);
        const uintptr_t page = address & ~(page_bytes - 1);
        void *const zeros =
            mmap((void *)page, end - page, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
        if (zeros == MAP_FAILED) break;
        errno = error;
        return;
    }
    if (earlier.sa_flags & SA_SIGINFO && earlier.sa_sigaction) {
        earlier.sa_sigaction(number, info, context);
    } else if (earlier.sa_handler != SIG_DFL && earlier.sa_handler != SIG_IGN) {
        earlier.sa_handler(number);
    } else {
        // Delivered when the handler returns, and then ends the process.
        struct sigaction usual = {.sa_handler = SIG_DFL};
        sigaction(number, &usual, NULL);
        raise(number);
    }
    errno = error;
}

static void install(void) {
    page_bytes = (uintptr_t)sysconf(_SC_PAGESIZE);
    struct sigaction action = {.sa_sigaction = on_bus_error, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART};
    sigemptyset(&action.sa_mask);
    sigaction(SIGBUS, &action, &earlier);
}

struct mapped_file *map_file(int file, size_t size) {
    pthread_once(&once, install);
    void *const start = mmap(NULL, size, PROT_READ, MAP_SHARED, file, 0);
    if (start == MAP_FAILED) return NULL;
    pthread_mutex_lock(&lock);
    struct mapped_file *mapping = unused;
    if (mapping) {
        unused = mapping->next_unused;
    } else if ((mapping = calloc(1, sizeof *mapping))) {
        mapping->next = atomic_load(&first);
        atomic_store(&first, mapping);
    }
    if (mapping) {
        atomic_store(&mapping->damaged, 0);
        atomic_store(&mapping->end, ((uintptr_t)start + size + page_bytes - 1) & ~(page_bytes - 1));
        atomic_store(&mapping->start, (uintptr_t)start);
    }
    pthread_mutex_unlock(&lock);
    if (!mapping) {
        munmap(start, size);
        errno = ENOMEM;
    }
    return mapping;
}

const void *bytes_of(const struct mapped_file *mapping) { return (const void *)atomic_load(&mapping->start); }

int is_damaged(const struct mapped_file *mapping) { return atomic_load(&mapping->damaged); }

void unmap_file(struct mapped_file *mapping) {
    const uintptr_t start = atomic_load(&mapping->start), end = atomic_load(&mapping->end);
    atomic_store(&mapping->start, 0);
    munmap((void *)start, end - start);
    pthread_mutex_lock(&lock);
    mapping->next_unused = unused;
    unused = mapping;
    pthread_mutex_unlock(&lock);
}
