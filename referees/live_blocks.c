// Records the live blocks of a process at its peak: LD_PRELOAD this library.
//
// Only blocks of at least LIVE_BLOCKS_MIN bytes count. `live_blocks_reset` begins a new peak, and
// `live_blocks_at_peak` copies the sizes of the blocks that were live at it.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define MAX_BLOCKS 65536
static size_t minimum = 256 << 10;

struct block {
    void *at;
    size_t bytes;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct block live[MAX_BLOCKS], peak[MAX_BLOCKS];
static size_t live_count, peak_count, live_bytes, peak_bytes;

static void *(*next_malloc)(size_t);
static void *(*next_realloc)(void *, size_t);
static void *(*next_aligned)(size_t, size_t);
static void (*next_free)(void *);

static void find_next(void) {
    next_malloc = dlsym(RTLD_NEXT, "malloc");
    next_realloc = dlsym(RTLD_NEXT, "realloc");
    next_aligned = dlsym(RTLD_NEXT, "aligned_alloc");
    next_free = dlsym(RTLD_NEXT, "free");
}

static void add(void *at, size_t bytes) {
    if (!at || bytes < minimum)
        return;
    pthread_mutex_lock(&lock);
    if (live_count < MAX_BLOCKS) {
        live[live_count++] = (struct block){at, bytes};
        live_bytes += bytes;
        if (live_bytes > peak_bytes) {
            peak_bytes = live_bytes;
            peak_count = live_count;
            memcpy(peak, live, live_count * sizeof *live);
        }
    }
    pthread_mutex_unlock(&lock);
}

static void drop(void *at) {
    if (!at)
        return;
    pthread_mutex_lock(&lock);
    for (size_t i = live_count; i-- > 0;)
        if (live[i].at == at) {
            live_bytes -= live[i].bytes;
            live[i] = live[--live_count];
            break;
        }
    pthread_mutex_unlock(&lock);
}

void *malloc(size_t bytes) {
    if (!next_malloc)
        find_next();
    void *at = next_malloc(bytes);
    add(at, bytes);
    return at;
}

void *realloc(void *old, size_t bytes) {
    if (!next_realloc)
        find_next();
    drop(old);
    void *at = next_realloc(old, bytes);
    add(at, bytes);
    return at;
}

void *aligned_alloc(size_t alignment, size_t bytes) {
    if (!next_aligned)
        find_next();
    void *at = next_aligned(alignment, bytes);
    add(at, bytes);
    return at;
}

void *memalign(size_t alignment, size_t bytes) { return aligned_alloc(alignment, bytes); }

int posix_memalign(void **at, size_t alignment, size_t bytes) {
    *at = aligned_alloc(alignment, bytes);
    return *at ? 0 : ENOMEM;
}

void free(void *at) {
    if (!next_free)
        find_next();
    drop(at);
    next_free(at);
}

void live_blocks_reset(size_t at_least) {
    pthread_mutex_lock(&lock);
    minimum = at_least;
    live_count = live_bytes = peak_count = peak_bytes = 0;
    pthread_mutex_unlock(&lock);
}

size_t live_blocks_at_peak(size_t *sizes, size_t room) {
    size_t count = peak_count < room ? peak_count : room;
    for (size_t i = 0; i < count; i++)
        sizes[i] = peak[i].bytes;
    return count;
}
