// A CUDA driver without a GPU: device memory is malloc, a stream is a queue that runs when somebody waits for it, so that a
// missing wait, a wrong address or memory freed too early shows. Every function checks that the context is current.
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { OK, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NOT_INITIALISED = 3, INVALID_CONTEXT = 201, CAPTURING = 900, NOT_CAPTURING = 901 };
enum { MOST = 4096 };
typedef struct { void (*call)(uint64_t); uint64_t token, to, from; size_t size; } Op;
typedef struct { Op ops[MOST]; int count; } Queue;
typedef struct { char *start; size_t size; int pinned; } Block;

static int context_mark, initialised;
static Block blocks[MOST];
static size_t total = (size_t)1 << 30, used;
static Queue stream, *recording;
static long live_graphs, launches;
static __thread void *current;

#define READY if (!initialised) return NOT_INITIALISED; if (current != &context_mark) return INVALID_CONTEXT
#define NOT_WHILE_RECORDING if (recording) return CAPTURING

static Block *find(uint64_t address, size_t size, int pinned) {
    for (Block *b = blocks; b < blocks + MOST; b++)
        if (b->start && b->pinned == pinned && (char *)address >= b->start && (char *)address + size <= b->start + b->size) return b;
    return NULL;
}
static int add(Op op) {
    Queue *queue = recording ? recording : &stream;
    if (queue->count == MOST) return INVALID_VALUE;
    queue->ops[queue->count++] = op;
    return OK;
}
static void run(void) {
    for (int i = 0; i < stream.count; i++) {
        Op op = stream.ops[i];
        if (op.call) op.call(op.token); else memcpy((void *)op.to, (void *)op.from, op.size);
    }
    stream.count = 0;
}
static int take(void **made, size_t size, int pinned) {
    if (!size) return INVALID_VALUE;
    if (!pinned && used + size > total) return OUT_OF_MEMORY;
    for (Block *b = blocks; b < blocks + MOST; b++)
        if (!b->start) {
            *b = (Block){malloc(size), size, pinned};
            memset(b->start, 0xEE, size);
            used += pinned ? 0 : size;
            *made = b->start;
            return OK;
        }
    return OUT_OF_MEMORY;
}
static int give(void *start, int pinned) {
    Block *b = find((uint64_t)start, 1, pinned);
    if (!b || b->start != start) return INVALID_VALUE;
    run();  // the driver waits for the work that may use the memory
    used -= pinned ? 0 : b->size;
    memset(b->start, 0xDD, b->size);
    free(b->start);
    b->start = NULL;
    return OK;
}
static int copy(uint64_t to, int to_pinned, uint64_t from, int from_pinned, size_t size) {
    if (!find(to, size, to_pinned) || !find(from, size, from_pinned)) return INVALID_VALUE;
    return add((Op){.to = to, .from = from, .size = size});
}

int cuInit(unsigned flags) { if (flags) return INVALID_VALUE; initialised = 1; return OK; }
int cuDriverGetVersion(int *version) { *version = 12060; return OK; }
int cuDeviceGet(int *device, int ordinal) { *device = ordinal; return !initialised ? NOT_INITIALISED : ordinal ? 101 : OK; }
int cuDeviceGetName(char *name, int size, int device) { snprintf(name, size, "%s", getenv("FAKE_GPU") ? getenv("FAKE_GPU") : "Fake GPU"); return device; }
int cuDeviceGetAttribute(int *value, int attribute, int device) { *value = attribute == 75 ? 8 : attribute == 76 ? 7 : -1; return device; }
int cuDeviceTotalMem_v2(size_t *bytes, int device) { *bytes = total; return device; }
int cuDevicePrimaryCtxRetain(void **context, int device) { *context = &context_mark; return device; }
int cuCtxSetCurrent(void *context) { current = context; return OK; }
int cuStreamCreate(void **made, unsigned flags) { READY; *made = &stream; return flags == 1 ? OK : INVALID_VALUE; }
int cuStreamSynchronize(void *s) { READY; NOT_WHILE_RECORDING; if (s != &stream) return INVALID_VALUE; run(); return OK; }
int cuMemGetInfo_v2(size_t *free_bytes, size_t *all) { READY; *free_bytes = total - used; *all = total; return OK; }
int cuMemAlloc_v2(uint64_t *made, size_t size) { READY; NOT_WHILE_RECORDING; return take((void **)made, size, 0); }
int cuMemFree_v2(uint64_t address) { READY; NOT_WHILE_RECORDING; return give((void *)address, 0); }
int cuMemAllocHost_v2(void **made, size_t size) { READY; return take(made, size, 1); }
int cuMemFreeHost(void *address) { READY; return give(address, 1); }
int cuMemcpyHtoDAsync_v2(uint64_t to, void *from, size_t size, void *s) { READY; return s == &stream ? copy(to, 0, (uint64_t)from, 1, size) : INVALID_VALUE; }
int cuMemcpyDtoHAsync_v2(void *to, uint64_t from, size_t size, void *s) { READY; return s == &stream ? copy((uint64_t)to, 1, from, 0, size) : INVALID_VALUE; }
int cuMemcpyDtoDAsync_v2(uint64_t to, uint64_t from, size_t size, void *s) { READY; return s == &stream ? copy(to, 0, from, 0, size) : INVALID_VALUE; }
int cuStreamBeginCapture_v2(void *s, int mode) {
    READY; NOT_WHILE_RECORDING;
    if (s != &stream || mode != 1) return INVALID_VALUE;
    recording = calloc(1, sizeof *recording);
    live_graphs++;
    return OK;
}
int cuStreamEndCapture(void *s, void **graph) {
    READY;
    if (s != &stream || !recording) return NOT_CAPTURING;
    *graph = recording;
    recording = NULL;
    return OK;
}
int cuGraphInstantiateWithFlags(void **made, void *graph, unsigned long long flags) {
    READY;
    if (!graph || flags) return INVALID_VALUE;
    *made = malloc(sizeof(Queue));
    memcpy(*made, graph, sizeof(Queue));
    live_graphs++;
    return OK;
}
int cuGraphLaunch(void *exec, void *s) {
    READY; NOT_WHILE_RECORDING;
    Queue *queue = exec;
    if (s != &stream) return INVALID_VALUE;
    launches++;
    for (int i = 0; i < queue->count; i++) if (add(queue->ops[i])) return INVALID_VALUE;
    return OK;
}
int cuGraphDestroy(void *graph) { READY; free(graph); live_graphs--; return OK; }
int cuGraphExecDestroy(void *exec) { READY; run(); free(exec); live_graphs--; return OK; }
int cuGetErrorString(int code, const char **text) {
    *text = code == OUT_OF_MEMORY ? "out of memory" : code == INVALID_VALUE ? "invalid argument" : code == INVALID_CONTEXT ? "invalid device context"
          : code == CAPTURING ? "operation not permitted when stream is capturing" : NULL;
    return *text ? OK : INVALID_VALUE;
}

// What the tests ask and set, and how a fake library puts its own work on the stream.
void fake_memory(size_t bytes) { total = bytes; }
size_t fake_used(void) { return used; }
long fake_pinned(void) { long n = 0; for (Block *b = blocks; b < blocks + MOST; b++) n += b->start && b->pinned; return n; }
long fake_graphs(void) { return live_graphs; }
long fake_launches(void) { return launches; }
int fake_recording(void) { return recording != NULL; }
int fake_waiting(void) { return stream.count; }
int fake_holds(uint64_t address, size_t size) { return find(address, size, 0) != NULL; }
int fake_enqueue(void *s, void (*call)(uint64_t), uint64_t token) { READY; return s == &stream ? add((Op){.call = call, .token = token}) : INVALID_VALUE; }
