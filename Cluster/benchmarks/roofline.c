/* The yardstick of the benchmark: how fast plain C does the work of a merge on this machine.
 *
 *   cc -O3 -march=native -pthread roofline.c -o roofline -lcrypto
 *   roofline [--durable] linear|ties|copy[+sha256] THREADS OUT BASE TUNE...
 *
 * BASE and each TUNE are bfloat16 checkpoints of one layout: a safetensors file, or a directory of them. OUT is a
 * directory and gets a part for each part of BASE, under the same names.
 *
 *   linear  the mean of the tunes; BASE only lends its layout
 *   ties    drops the smaller half of each task vector, elects a sign for each entry, and adds the mean of what agrees
 *           to BASE
 *   copy    the first tune as it is
 *
 * `+sha256` hashes each cut of output on the thread that made it, while the cut is in its cache. `--durable` flushes
 * OUT to the disk before the clock stops. One line of JSON on stdout says how long it took and how many bytes went in,
 * each counted once, and out.
 *
 * It is no merge tool: it does not know where tensors begin (a part is cut every 8 MiB, and TIES ranks the entries of
 * each cut by themselves), checks no input beyond its size, and leaves out what does not fill a vector at a part's end.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum {
  LANES = 8,
  MAX_MODELS = 17,
  MAX_PARTS = 256,
  MAX_THREADS = 256,
  CUT_BYTES = 8 << 20,      /* what is hashed by itself, and what a thread takes at a time */
  WRITE_ELEMENTS = 1 << 18, /* half a MiB: small enough that hash and write find it in the cache */
  DELTA_ELEMENTS = 4096,    /* of a task vector, between its making and its counting */
  MAGNITUDES = 1 << 15,     /* of bfloat16, sign aside */
};

/* Vectors of the compiler rather than of one instruction set, so that this file is a yardstick on ARM, too. */
typedef uint16_t Halves __attribute__((vector_size(2 * LANES)));
typedef uint32_t Words __attribute__((vector_size(4 * LANES)));
typedef int32_t Mask __attribute__((vector_size(4 * LANES)));
typedef float Floats __attribute__((vector_size(4 * LANES)));

typedef enum { LINEAR, TIES, COPY } Method;

typedef struct {
  const uint8_t *bytes;
  size_t size;
} Mapping;

typedef struct {
  Mapping models[MAX_MODELS]; /* the base, then the tunes */
  size_t data;                /* where the tensors begin */
  int output;
} Part;

typedef struct {
  size_t part, begin, end;
} Cut;

/* What one thread works with. */
typedef struct {
  uint16_t *output, *delta;
  uint32_t *histogram;
  EVP_MD_CTX *sha256;
} Workbench;

static struct {
  Method method;
  bool hashes, durable;
  int threads, tunes;
} job;
static Part parts[MAX_PARTS];
static size_t part_count;
static Cut *cuts;
static size_t cut_count, next_cut;

static void fail(const char *what) {
  fprintf(stderr, "roofline: %s: %s\n", what, strerror(errno));
  exit(74);
}

static void refuse(const char *what, const char *why) {
  fprintf(stderr, "roofline: %s: %s\n", what, why);
  exit(65);
}

static void *allocate(size_t bytes) {
  void *memory = aligned_alloc(64, bytes);
  if (!memory) fail("memory");
  return memory;
}

/* ---- bfloat16 ---- */

static inline Floats widened(const uint16_t *from) {
  Words bits;
  for (int lane = 0; lane < LANES; lane++) bits[lane] = (uint32_t)from[lane] << 16;
  return (Floats)bits;
}

/* To nearest, ties to even; the bits are in the lower half of each word. */
static inline Words rounded(Floats x) {
  Words bits = (Words)x;
  return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

static inline void narrow(uint16_t *to, Floats x) {
  Halves halves = __builtin_convertvector(rounded(x), Halves);
  memcpy(to, &halves, sizeof halves);
}

static inline Floats where(Mask mask, Floats x) { return (Floats)((Mask)x & mask); }

static inline Floats repeated(float x) { return (Floats){} + x; }

/* ---- The two merges ---- */

static void merge_linear(const uint16_t **tunes, uint16_t *out, size_t count) {
  const float weight = 1.0f / job.tunes;
  for (size_t i = 0; i < count; i += LANES) {
    Floats sum = {};
    for (int k = 0; k < job.tunes; k++) sum += widened(tunes[k] + i) * weight;
    narrow(out + i, sum);
  }
}

/* `least[k]` is the smallest magnitude that tune k keeps, as a bfloat16 pattern. */
static void merge_ties(const uint16_t *base, const uint16_t **tunes, const int32_t *least, uint16_t *out,
                       size_t count) {
  const Floats weight = repeated(1.0f / job.tunes);
  for (size_t i = 0; i < count; i += LANES) {
    Floats origin = widened(base + i), total = {}, entries[MAX_MODELS];
    for (int k = 0; k < job.tunes; k++) {
      Floats delta = widened(tunes[k] + i) - origin;
      Mask kept = (Mask)(rounded(delta) & 0x7fff) >= least[k];
      entries[k] = where(kept, delta * weight);
      total += entries[k];
    }
    Floats agreed = {}, weights = repeated(1e-8f); /* keeps 0/0 out where nothing agrees */
    for (int k = 0; k < job.tunes; k++) {
      Mask agrees = entries[k] * total > 0;
      agreed += where(agrees, entries[k]);
      weights += where(agrees, weight);
    }
    narrow(out + i, origin + agreed / weights);
  }
}

/* The smallest magnitude among the larger half of the entries of tune - base, from one histogram. */
static int32_t median_magnitude(const uint16_t *base, const uint16_t *tune, size_t count, Workbench *desk) {
  memset(desk->histogram, 0, MAGNITUDES * sizeof *desk->histogram);
  for (size_t begin = 0; begin < count; begin += DELTA_ELEMENTS) {
    size_t length = count - begin < DELTA_ELEMENTS ? count - begin : DELTA_ELEMENTS;
    for (size_t i = 0; i < length; i += LANES)
      narrow(desk->delta + i, widened(tune + begin + i) - widened(base + begin + i));
    for (size_t i = 0; i < length; i++) desk->histogram[desk->delta[i] & 0x7fff]++;
  }
  int32_t magnitude = MAGNITUDES - 1;
  size_t counted = desk->histogram[magnitude];
  while (magnitude > 0 && counted < count / 2) counted += desk->histogram[--magnitude];
  return magnitude;
}

/* ---- Threads ---- */

static void write_all(int file, const void *bytes, size_t count, size_t offset) {
  for (const char *next = bytes; count > 0;) {
    ssize_t written = pwrite(file, next, count, offset);
    if (written < 0) fail("write");
    next += written, offset += written, count -= written;
  }
}

static void deliver(const void *bytes, size_t count, const Part *part, size_t offset, Workbench *desk) {
  if (job.hashes) EVP_DigestUpdate(desk->sha256, bytes, count);
  write_all(part->output, bytes, count, offset);
}

static void copy_cut(const Part *part, const Cut *cut, Workbench *desk) {
  for (size_t at = cut->begin, step = WRITE_ELEMENTS * sizeof(uint16_t); at < cut->end; at += step)
    deliver(part->models[1].bytes + at, cut->end - at < step ? cut->end - at : step, part, at, desk);
}

static void merge_cut(const Part *part, const Cut *cut, Workbench *desk) {
  const size_t count = (cut->end - cut->begin) / sizeof(uint16_t) / LANES * LANES;
  const uint16_t *models[MAX_MODELS];
  int32_t least[MAX_MODELS];
  for (int k = 0; k <= job.tunes; k++) models[k] = (const uint16_t *)(part->models[k].bytes + cut->begin);
  for (int k = 0; k < job.tunes && job.method == TIES; k++)
    least[k] = median_magnitude(models[0], models[k + 1], count, desk);
  for (size_t i = 0; i < count; i += WRITE_ELEMENTS) {
    size_t length = count - i < WRITE_ELEMENTS ? count - i : WRITE_ELEMENTS;
    if (job.method == TIES)
      merge_ties(models[0], models + 1, least, desk->output, length);
    else
      merge_linear(models + 1, desk->output, length);
    deliver(desk->output, length * sizeof(uint16_t), part, cut->begin + i * sizeof(uint16_t), desk);
    for (int k = 0; k <= job.tunes; k++) models[k] += length;
  }
}

static void *work(void *unused) {
  Workbench desk = {
      .output = allocate(WRITE_ELEMENTS * sizeof(uint16_t)),
      .delta = allocate(DELTA_ELEMENTS * sizeof(uint16_t)),
      .histogram = allocate(MAGNITUDES * sizeof(uint32_t)),
      .sha256 = EVP_MD_CTX_new(),
  };
  uint8_t digest[EVP_MAX_MD_SIZE];
  for (size_t i; (i = __atomic_fetch_add(&next_cut, 1, __ATOMIC_RELAXED)) < cut_count;) {
    const Part *part = &parts[cuts[i].part];
    if (job.hashes) EVP_DigestInit_ex(desk.sha256, EVP_sha256(), NULL);
    if (job.method == COPY)
      copy_cut(part, &cuts[i], &desk);
    else
      merge_cut(part, &cuts[i], &desk);
    if (job.hashes) EVP_DigestFinal_ex(desk.sha256, digest, NULL);
  }
  return unused;
}

static double seconds_of_work(void) {
  struct timespec begin, end;
  pthread_t threads[MAX_THREADS];
  clock_gettime(CLOCK_MONOTONIC, &begin);
  for (int i = 0; i < job.threads; i++)
    if ((errno = pthread_create(&threads[i], NULL, work, NULL))) fail("thread");
  for (int i = 0; i < job.threads; i++) pthread_join(threads[i], NULL);
  for (size_t p = 0; p < part_count && job.durable; p++)
    if (fsync(parts[p].output)) fail("fsync");
  clock_gettime(CLOCK_MONOTONIC, &end);
  return (end.tv_sec - begin.tv_sec) + 1e-9 * (end.tv_nsec - begin.tv_nsec);
}

/* ---- Files ---- */

static Mapping map(const char *path) {
  struct stat status;
  int file = open(path, O_RDONLY);
  if (file < 0 || fstat(file, &status)) fail(path);
  void *bytes = mmap(NULL, status.st_size, PROT_READ, MAP_SHARED, file, 0);
  if (bytes == MAP_FAILED) fail(path);
  close(file);
  return (Mapping){bytes, status.st_size};
}

static int is_part(const struct dirent *entry) {
  const char *suffix = strrchr(entry->d_name, '.');
  return suffix && strcmp(suffix, ".safetensors") == 0;
}

/* Opens model number `model`; the first one says how many parts there are and what the output's are called. */
static void open_model(int model, const char *path, char names[MAX_PARTS][256]) {
  struct dirent **entries = NULL;
  int found = scandir(path, &entries, is_part, alphasort);
  if (found == 0 || found > MAX_PARTS) refuse(path, "no safetensors files, or too many");
  size_t count = found < 0 ? 1 : found; /* not a directory: a single file */
  if (model > 0 && count != part_count) refuse(path, "has other parts than the base");
  part_count = count;
  for (size_t p = 0; p < count; p++) {
    char file[4096];
    if (entries)
      snprintf(file, sizeof file, "%s/%s", path, entries[p]->d_name);
    else
      snprintf(file, sizeof file, "%s", path);
    if (model == 0) snprintf(names[p], sizeof names[p], "%s", entries ? entries[p]->d_name : "model.safetensors");
    parts[p].models[model] = map(file);
    if (parts[p].models[model].size != parts[p].models[0].size) refuse(file, "has another size than the base's part");
  }
}

/* An output part: its header is the inputs', and its size is final before the clock starts. */
static void create_output(Part *part, const char *directory, const char *name) {
  char path[4096];
  snprintf(path, sizeof path, "%s/%s", directory, name);
  uint64_t header;
  memcpy(&header, part->models[0].bytes, sizeof header);
  part->data = sizeof header + header;
  if (part->data > part->models[0].size) refuse(name, "is not a safetensors file");
  part->output = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (part->output < 0 || ftruncate(part->output, part->models[0].size)) fail(path);
  write_all(part->output, part->models[0].bytes, part->data, 0);
}

static size_t make_cuts(void) {
  size_t bytes = 0, room = 0;
  for (size_t p = 0; p < part_count; p++) room += parts[p].models[0].size / CUT_BYTES + 1;
  cuts = calloc(room, sizeof *cuts);
  if (!cuts) fail("memory");
  for (size_t p = 0; p < part_count; p++) {
    size_t end = parts[p].models[0].size;
    for (size_t at = parts[p].data; at < end; at += CUT_BYTES)
      cuts[cut_count++] = (Cut){p, at, end - at < CUT_BYTES ? end : at + CUT_BYTES};
    bytes += end - parts[p].data;
  }
  return bytes;
}

static bool parse_mode(const char *text) {
  static const char *const names[] = {[LINEAR] = "linear", [TIES] = "ties", [COPY] = "copy"};
  size_t length = strcspn(text, "+");
  job.hashes = strcmp(text + length, "+sha256") == 0;
  if (!job.hashes && text[length]) return false;
  for (job.method = LINEAR; job.method <= COPY; job.method++)
    if (strlen(names[job.method]) == length && strncmp(text, names[job.method], length) == 0) return true;
  return false;
}

/* How many models the method looks at. */
static int models_read(void) { return job.method == COPY ? 1 : job.method == LINEAR ? job.tunes : job.tunes + 1; }

int main(int count, char **arguments) {
  const char *mode = count > 1 ? arguments[1] : "";
  if (strcmp(mode, "--durable") == 0) job.durable = true, count--, arguments++;
  if (count < 6 || count - 4 > MAX_MODELS || !parse_mode(arguments[1]) || (job.threads = atoi(arguments[2])) < 1 ||
      job.threads > MAX_THREADS) {
    fprintf(stderr, "usage: roofline [--durable] linear|ties|copy[+sha256] THREADS OUT BASE TUNE...\n");
    return 64;
  }
  const char *out = arguments[3];
  static char names[MAX_PARTS][256];
  job.tunes = count - 5;
  for (int model = 0; model <= job.tunes; model++) open_model(model, arguments[4 + model], names);
  if (mkdir(out, 0755) && errno != EEXIST) fail(out);
  for (size_t p = 0; p < part_count; p++) create_output(&parts[p], out, names[p]);
  size_t bytes = make_cuts();
  double seconds = seconds_of_work();
  printf("{\"seconds\": %.6f, \"bytes_read\": %zu, \"bytes_written\": %zu}\n", seconds, bytes * models_read(), bytes);
  return 0;
}
