/* A stand-in for the driver's library, libnvidia-ml.so.1. What it says stands in the text file that FAKE_NVML names, and
   is read at every call:

     init CODE                                    nvmlInit answers so
     count N                                      what is counted, instead of the `gpu` lines
     gpu INDEX UUID MIB USED PERCENT NAME         USED and PERCENT: -1 where it is not told
     mig INDEX UUID MIB USED NAME                 a part of GPU INDEX, which is in MIG mode then
     process UUID PID MIB                         one more than USED; MIB -1 where it is not told
     error UUID CODE                              what is asked of it is answered so
     reserved MIB                                 of each GPU, what the driver keeps for itself
     lacks FUNCTION                               an older library has not got that one
     sleep SECONDS                                how long a call takes

   Beside it, in FAKE_NVML.calls, each nvmlInit leaves a line, and each look at a GPU's memory. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MIB (1ULL << 20)
typedef unsigned long long u64;
typedef struct { int index, part; char uuid[96], name[200]; long long total, used, percent; int error; } device_t;
typedef struct { char uuid[96]; unsigned pid; long long mib; } process_t;
typedef struct { int init, count, ndevices, nprocesses; long long reserved; char lacks[900]; device_t devices[64]; process_t processes[64]; } state_t;
typedef struct { u64 total, free, used; } memory_t;
typedef struct { unsigned version; u64 total, reserved, free, used; } memory2_t;
typedef struct { unsigned gpu, memory; } rates_t;
typedef struct { unsigned pid; u64 used; unsigned gpu_instance, compute_instance; } info_t;
typedef struct { unsigned pid; u64 used; } info1_t;

static void read_state(state_t *s) {
  memset(s, 0, sizeof *s);
  s->count = -1;
  FILE *file = fopen(getenv("FAKE_NVML") ? getenv("FAKE_NVML") : "/nonexistent", "r");
  if (!file) { s->init = 9; return; }
  char line[500];
  while (fgets(line, sizeof line, file)) {
    char word[200]; int number; double seconds;
    device_t *d = &s->devices[s->ndevices]; process_t *p = &s->processes[s->nprocesses];
    d->part = -1;
    if (sscanf(line, "gpu %d %95s %lld %lld %lld %199[^\n]", &d->index, d->uuid, &d->total, &d->used, &d->percent, d->name) == 6) s->ndevices++;
    else if (sscanf(line, "mig %d %95s %lld %lld %199[^\n]", &d->index, d->uuid, &d->total, &d->used, d->name) == 5) {
      d->percent = -1; d->part = 0;
      for (int i = 0; i < s->ndevices; i++) d->part += s->devices[i].index == d->index && s->devices[i].part >= 0;
      s->ndevices++;
    }
    else if (sscanf(line, "process %95s %u %lld", p->uuid, &p->pid, &p->mib) == 3) s->nprocesses++;
    else if (sscanf(line, "error %199s %d", word, &number) == 2) {
      for (int i = 0; i < s->ndevices; i++) if (!strcmp(s->devices[i].uuid, word)) s->devices[i].error = number;
    }
    else if (sscanf(line, "lacks %199s", word) == 1) { strcat(s->lacks, " "); strcat(s->lacks, word); strcat(s->lacks, " "); }
    else if (sscanf(line, "sleep %lf", &seconds) == 1) usleep((useconds_t)(seconds * 1e6));
    else { sscanf(line, "init %d", &s->init); sscanf(line, "count %d", &s->count); sscanf(line, "reserved %lld", &s->reserved); }
  }
  fclose(file);
}
#define STATE(function) state_t state, *s = &state; read_state(s); { char lacked[100]; snprintf(lacked, sizeof lacked, " %s ", function); if (strstr(s->lacks, lacked)) return 13; }
#define DEVICE(function) STATE(function) device_t *d = NULL; { u64 at = (u64)handle - 1; if (at >= (u64)s->ndevices) return 2; d = &s->devices[at]; }

static int is_mig(state_t *s, int index) {
  for (int i = 0; i < s->ndevices; i++) if (s->devices[i].index == index && s->devices[i].part >= 0) return 1;
  return 0;
}

static long long used(state_t *s, device_t *d) {
  long long sum = d->used;
  for (int i = 0; i < s->nprocesses; i++) if (!strcmp(s->processes[i].uuid, d->uuid) && s->processes[i].mib > 0) sum += s->processes[i].mib;
  return sum;
}

static void note(const char *what) {
  char path[500];
  snprintf(path, sizeof path, "%s.calls", getenv("FAKE_NVML") ? getenv("FAKE_NVML") : "/nonexistent/none");
  FILE *file = fopen(path, "a");
  if (file) { fprintf(file, "%s\n", what); fclose(file); }
}

int nvmlInitWithFlags(unsigned flags) {
  STATE("nvmlInit_v2")
  note("init");
  return s->init;
}
int nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
int nvmlShutdown(void) { return 0; }
const char *nvmlErrorString(int code) {
  switch (code) {
    case 3: return "Not Supported";
    case 4: return "Insufficient Permissions";
    case 9: return "Driver Not Loaded";
    case 15: return "GPU is lost";
    case 18: return "Driver/library version mismatch";
    default: return "Unknown Error";
  }
}
int nvmlDeviceGetCount_v2(unsigned *count) {
  STATE("nvmlDeviceGetCount_v2")
  *count = 0;
  for (int i = 0; i < s->ndevices; i++) *count += s->devices[i].part < 0;
  if (s->count >= 0) *count = s->count;
  return 0;
}
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **handle) {
  STATE("nvmlDeviceGetHandleByIndex_v2")
  for (int i = 0; i < s->ndevices; i++)
    if (s->devices[i].part < 0 && s->devices[i].index == (int)index) {
      *handle = (void *)(u64)(i + 1);
      return s->devices[i].error;
    }
  return 2;
}
int nvmlDeviceGetUUID(void *handle, char *text, unsigned size) {
  DEVICE("nvmlDeviceGetUUID")
  return snprintf(text, size, "%s", d->uuid) < (int)size ? 0 : 7;
}
int nvmlDeviceGetName(void *handle, char *text, unsigned size) {
  DEVICE("nvmlDeviceGetName")
  return snprintf(text, size, "%s", d->name) < (int)size ? 0 : 7;
}
int nvmlDeviceGetMemoryInfo(void *handle, memory_t *memory) {
  DEVICE("nvmlDeviceGetMemoryInfo")
  if (d->error || d->used < 0) return d->error ? d->error : 3;
  memory->total = d->total * MIB;
  memory->used = (used(s, d) + s->reserved) * MIB;
  memory->free = memory->total - memory->used;
  return 0;
}
int nvmlDeviceGetMemoryInfo_v2(void *handle, memory2_t *memory) {
  DEVICE("nvmlDeviceGetMemoryInfo_v2")
  note(d->uuid);
  if (memory->version != (sizeof(memory2_t) | 2 << 24)) return 25;
  if (d->error || d->used < 0) return d->error ? d->error : 3;
  memory->total = d->total * MIB;
  memory->reserved = s->reserved * MIB;
  memory->used = used(s, d) * MIB;
  memory->free = memory->total - memory->reserved - memory->used;
  return 0;
}
int nvmlDeviceGetUtilizationRates(void *handle, rates_t *rates) {
  DEVICE("nvmlDeviceGetUtilizationRates")
  if (d->error || d->percent < 0) return d->error ? d->error : 3;
  rates->gpu = d->percent;
  rates->memory = d->percent / 2;
  return 0;
}
int nvmlDeviceGetMigMode(void *handle, unsigned *current, unsigned *pending) {
  DEVICE("nvmlDeviceGetMigMode")
  *current = *pending = is_mig(s, d->index);
  return 0;
}
int nvmlDeviceGetMaxMigDeviceCount(void *handle, unsigned *count) {
  DEVICE("nvmlDeviceGetMaxMigDeviceCount")
  *count = is_mig(s, d->index) ? 7 : 0;
  return 0;
}
int nvmlDeviceGetMigDeviceHandleByIndex(void *handle, unsigned index, void **found) {
  DEVICE("nvmlDeviceGetMigDeviceHandleByIndex")
  for (int i = 0; i < s->ndevices; i++)
    if (s->devices[i].index == d->index && s->devices[i].part == (int)index) { *found = (void *)(u64)(i + 1); return 0; }
  return 6;
}
static int list(state_t *s, device_t *d, unsigned *count, info_t *rows, info1_t *rows1) {
  if (d->error) return d->error;
  unsigned room = *count;
  *count = 0;
  for (int i = 0; i < s->nprocesses; i++) {
    process_t *p = &s->processes[i];
    if (strcmp(p->uuid, d->uuid)) continue;
    u64 bytes = p->mib < 0 ? ~0ULL : p->mib * MIB;
    if (*count < room && rows) rows[*count] = (info_t){p->pid, bytes, ~0u, ~0u};
    if (*count < room && rows1) rows1[*count] = (info1_t){p->pid, bytes};
    ++*count;
  }
  return *count > room ? 7 : 0;
}
int nvmlDeviceGetComputeRunningProcesses_v3(void *handle, unsigned *count, info_t *rows) {
  DEVICE("nvmlDeviceGetComputeRunningProcesses_v3")
  return list(s, d, count, rows, NULL);
}
int nvmlDeviceGetComputeRunningProcesses_v2(void *handle, unsigned *count, info_t *rows) {
  DEVICE("nvmlDeviceGetComputeRunningProcesses_v2")
  return list(s, d, count, rows, NULL);
}
int nvmlDeviceGetComputeRunningProcesses(void *handle, unsigned *count, info1_t *rows) {
  DEVICE("nvmlDeviceGetComputeRunningProcesses")
  return list(s, d, count, NULL, rows);
}
