/* A libnvidia-ml.so.1 for tests: what it says stands in the file that VISEME_FAKE_NVML names.
 *
 * The file is read anew at every call, so GPUs fill, fail and vanish while a program looks. One fact a line:
 *
 *   init CODE                                what nvmlInit returns
 *   gpu UUID TOTAL FREE BUSY CODE ECC ROWS   sizes in MiB, BUSY in percent; CODE is what every call about the
 *                                            GPU returns; ECC uncorrectable errors; ROWS: 1 a row waits for a
 *                                            reset, 2 a row could not be replaced
 *   mig UUID PARENT NUMBER TOTAL FREE        a MIG instance
 *   process UUID PID USED                    USED in MiB, -1 where the driver does not tell
 *   xid UUID CODE                            an event, told once
 *
 * It covers what gpu_scheduler.probe asks for, with the real signatures. Built with OLD it lacks what a driver
 * of the past lacks: the third version of the list of processes, and the count of devices.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SUCCESS = 0, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, TOO_SMALL = 7, TIMEOUT = 10 };
enum { MOST = 16 };

typedef struct {
    char uuid[96], parent[96];
    long long total, free;
    int number, busy, code, ecc, rows;
} Gpu;
typedef struct {
    unsigned long long total, free, used;
} Memory;
typedef struct {
    unsigned gpu, memory;
} Utilization;
typedef struct {
    unsigned pid;
    unsigned long long used;
    unsigned gpu_instance, compute_instance;
} Process;
typedef struct {
    void *device;
    unsigned long long type, data;
    unsigned gpu_instance, compute_instance;
} Event;

/* Handles stay good when a GPU has gone: they are slots that are found again by UUID. */
static Gpu slots[4 * MOST];
static int slot_count, events_told;

static FILE *state(void) {
    const char *path = getenv("VISEME_FAKE_NVML");
    return path ? fopen(path, "r") : NULL;
}

static int read_gpu(const char *line, Gpu *gpu) {
    memset(gpu, 0, sizeof *gpu);
    gpu->number = -1;
    if (sscanf(line, "gpu %95s %lld %lld %d %d %d %d", gpu->uuid, &gpu->total, &gpu->free, &gpu->busy,
               &gpu->code, &gpu->ecc, &gpu->rows) == 7)
        return 1;
    return sscanf(line, "mig %95s %95s %d %lld %lld", gpu->uuid, gpu->parent, &gpu->number, &gpu->total,
                  &gpu->free) == 5;
}

/* The whole GPU of an index (parent NULL) or the instance of a number; 0 where there is none. */
static int find(const char *parent, int wanted, Gpu *found) {
    char line[256];
    int seen = 0, ok = 0;
    FILE *file = state();
    while (file && !ok && fgets(line, sizeof line, file)) {
        if (!read_gpu(line, found)) continue;
        if (parent) ok = !strcmp(found->parent, parent) && found->number == wanted;
        else if (found->number < 0) ok = seen++ == wanted;
    }
    if (file) fclose(file);
    return ok;
}

static int by_uuid(const char *uuid, Gpu *found) {
    char line[256];
    int ok = 0;
    FILE *file = state();
    while (file && !ok && fgets(line, sizeof line, file)) ok = read_gpu(line, found) && !strcmp(found->uuid, uuid);
    if (file) fclose(file);
    return ok;
}

static void *handle_of(const Gpu *gpu) {
    for (int i = 0; i < slot_count; i++)
        if (!strcmp(slots[i].uuid, gpu->uuid)) return &slots[i];
    slots[slot_count] = *gpu;
    return &slots[slot_count++];
}

/* The GPU behind a handle as it is now; what the call about it returns. */
static int now(void *handle, Gpu *gpu) {
    if (!by_uuid(((Gpu *)handle)->uuid, gpu)) return 15; /* GPU is lost */
    return gpu->code;
}

int nvmlInitWithFlags(unsigned flags) {
    char line[256];
    int code = 9; /* driver not loaded */
    FILE *file = state();
    while (file && fgets(line, sizeof line, file)) sscanf(line, "init %d", &code);
    if (file) fclose(file);
    return code;
}

int nvmlShutdown(void) { return SUCCESS; }

const char *nvmlErrorString(int code) { return code == 15 ? "GPU is lost" : "an error of the test"; }

#ifndef OLD
int nvmlDeviceGetCount_v2(unsigned *count) {
    Gpu gpu;
    if (nvmlInitWithFlags(0)) return 1; /* uninitialized: the driver was unloaded */
    for (*count = 0; find(NULL, (int)*count, &gpu); ++*count) {}
    return SUCCESS;
}
#endif

int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **handle) {
    Gpu gpu;
    if (!find(NULL, (int)index, &gpu)) return INVALID_ARGUMENT;
    *handle = handle_of(&gpu);
    return gpu.code;
}

int nvmlDeviceGetUUID(void *handle, char *text, unsigned length) {
    Gpu gpu;
    int code = now(handle, &gpu);
    if (!code) snprintf(text, length, "%s", gpu.uuid);
    return code;
}

int nvmlDeviceGetName(void *handle, char *text, unsigned length) {
    Gpu gpu;
    int code = now(handle, &gpu);
    if (!code) snprintf(text, length, "%s", gpu.number < 0 ? "Fake H100" : "Fake H100 MIG 1g.10gb");
    return code;
}

int nvmlDeviceGetMemoryInfo(void *handle, Memory *memory) {
    Gpu gpu;
    int code = now(handle, &gpu);
    if (code) return code;
    memory->total = (unsigned long long)gpu.total << 20;
    memory->free = (unsigned long long)gpu.free << 20;
    memory->used = memory->total - memory->free;
    return SUCCESS;
}

int nvmlDeviceGetUtilizationRates(void *handle, Utilization *rates) {
    Gpu gpu;
    int code = now(handle, &gpu);
    if (!code && gpu.number >= 0) return NOT_SUPPORTED; /* as for real MIG instances */
    rates->gpu = (unsigned)gpu.busy;
    rates->memory = 0;
    return code;
}

int nvmlDeviceGetCudaComputeCapability(void *handle, int *major, int *minor) {
    Gpu gpu;
    *major = 9, *minor = 0;
    return now(handle, &gpu);
}

static int processes(void *handle, unsigned *count, Process *list) {
    char line[256], uuid[96];
    unsigned room = *count, found = 0;
    long long used;
    unsigned pid;
    Gpu gpu;
    int code = now(handle, &gpu);
    FILE *file = code ? NULL : state();
    while (file && fgets(line, sizeof line, file)) {
        if (sscanf(line, "process %95s %u %lld", uuid, &pid, &used) != 3 || strcmp(uuid, gpu.uuid)) continue;
        if (list && found < room) {
            Process one = {pid, used < 0 ? ~0ULL : (unsigned long long)used << 20, ~0u, ~0u};
            list[found] = one;
        }
        found++;
    }
    if (file) fclose(file);
    *count = found;
    return code ? code : found > room || (found && !list) ? TOO_SMALL : SUCCESS;
}

#ifndef OLD
int nvmlDeviceGetComputeRunningProcesses_v3(void *handle, unsigned *count, Process *list) {
    return processes(handle, count, list);
}

int nvmlDeviceGetRemappedRows(void *handle, unsigned *corrected, unsigned *uncorrected, unsigned *pending,
                              unsigned *failed) {
    Gpu gpu;
    int code = now(handle, &gpu);
    *corrected = *uncorrected = 0;
    *pending = gpu.rows == 1, *failed = gpu.rows == 2;
    return code;
}
#endif

int nvmlDeviceGetComputeRunningProcesses_v2(void *handle, unsigned *count, Process *list) {
    return processes(handle, count, list);
}

int nvmlDeviceGetTotalEccErrors(void *handle, int type, int counter, unsigned long long *errors) {
    Gpu gpu;
    int code = now(handle, &gpu);
    if (!code && (type != 1 || counter != 0)) return INVALID_ARGUMENT; /* uncorrected, since the driver's start */
    *errors = (unsigned long long)gpu.ecc;
    return code;
}

int nvmlDeviceGetMigMode(void *handle, unsigned *current, unsigned *pending) {
    Gpu gpu, part;
    int code = now(handle, &gpu);
    *current = 0;
    for (int number = 0; !code && number < 7; number++) *current |= (unsigned)find(gpu.uuid, number, &part);
    *pending = *current;
    return code;
}

int nvmlDeviceGetMaxMigDeviceCount(void *handle, unsigned *count) {
    Gpu gpu;
    *count = 7;
    return now(handle, &gpu);
}

int nvmlDeviceGetMigDeviceHandleByIndex(void *handle, unsigned number, void **part) {
    Gpu gpu, found;
    int code = now(handle, &gpu);
    if (code) return code;
    if (!find(gpu.uuid, (int)number, &found)) return NOT_FOUND;
    *part = handle_of(&found);
    return SUCCESS;
}

int nvmlEventSetCreate(void **set) {
    *set = &events_told;
    return SUCCESS;
}

int nvmlEventSetFree(void *set) { return SUCCESS; }

int nvmlDeviceRegisterEvents(void *handle, unsigned long long types, void *set) { return SUCCESS; }

int nvmlEventSetWait_v2(void *set, Event *event, unsigned milliseconds) {
    char line[256], uuid[96];
    int seen = 0, told = 0;
    unsigned long long data;
    FILE *file = state();
    while (file && !told && fgets(line, sizeof line, file)) {
        Gpu gpu;
        if (sscanf(line, "xid %95s %llu", uuid, &data) != 2 || seen++ < events_told) continue;
        events_told++;
        if (!by_uuid(uuid, &gpu)) continue;
        event->device = handle_of(&gpu), event->type = 8, event->data = data, told = 1;
    }
    if (file) fclose(file);
    return told ? SUCCESS : TIMEOUT;
}
