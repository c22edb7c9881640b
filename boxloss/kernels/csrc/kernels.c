/* The kernels, for each instruction set and type, and the functions that Python calls. Plain C: no Python, no torch. */

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#include <unistd.h>
#define HAS_THREADS 1
#else
#define HAS_THREADS 0
#endif

#include "names.h"

#define BLOCK 128 /* pairs that are gathered into columns, computed and scattered back */
#define MOST_THREADS 64
#define INLINE static inline __attribute__((always_inline))
#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)
#define COUNT(name) +1
enum { KERNEL_COUNT = 0 KERNELS(COUNT) };

/* The value of each pair of a block, and its gradient, from and into columns. */
typedef void (*kernel_f)(const void *restrict in, const double *restrict numbers, void *restrict out);

/* Pairs row by row. What is null is not wanted. */
struct rows {
  int64_t count;
  const void *pred, *target; /* boxes; strides in numbers */
  int64_t pred_stride, target_stride;
  const void *weight; /* of each pair */
  double factor;      /* of all gradients, besides the weight */
  const double *numbers;
  void *values, *pred_gradient, *target_gradient;
  double *sum; /* of the weighted values */
  int *infinite; /* set to 1 where a gradient is no finite number */
};

/* Every row of a with every row of b. Either values or gradients. */
struct pairs {
  int64_t rows, columns;
  const void *a, *b; /* boxes, contiguous */
  const double *numbers;
  void *values;
  const void *upstream;             /* a factor of each entry's gradient */
  double *a_gradient, *b_gradient;  /* sums over columns and rows, b's coordinate by coordinate; zeros to begin with */
  const void *b_columns;
};

/* Boxes on their way to targets, as centers and sides, in columns of blocks: (block, 4, BLOCK). See simulation/descent.py. */
struct descent {
  int64_t count, bins, iterations;
  void *boxes; /* they move */
  const void *targets;
  const int64_t *places; /* of each box among the bins */
  const double *numbers, *rates;
  double wh_factor, unit, farthest;
  const double *levels; /* three */
  int64_t *errors, *above; /* (iterations + 1, bins), (iterations + 1, 4, bins); they are added to */
  int64_t *last;           /* each box's error at the end */
};

struct isa {
  double (*rows[2])(const struct rows *, kernel_f, int64_t, int64_t);
  void (*pairs[2])(const struct pairs *, kernel_f, int64_t, int64_t, double *);
  void (*descend[2])(const struct descent *, kernel_f, kernel_f);
  kernel_f kernels[KERNEL_COUNT][2][2]; /* by type; value, or value and gradient */
};

#if defined(__x86_64__) && defined(__GNUC__) && !defined(BASELINE_ONLY)
#define BY_CPU 1
#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx512f,avx512vl,avx512dq,avx512bw,avx2,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512vl,avx512dq,avx512bw,avx2,fma,prefer-vector-width=512")
#endif
#define ISA avx512
#include "isa.h"
#undef ISA
#ifdef __clang__
#pragma clang attribute pop
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC pop_options
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#endif
#define ISA avx2
#include "isa.h"
#undef ISA
#ifdef __clang__
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#else
#define BY_CPU 0
#endif

#define ISA baseline
#include "isa.h"
#undef ISA

static const char *const names[] = {
#define NAME(name) #name,
    KERNELS(NAME)};

/* The instruction sets that were compiled and this machine has, the best first; null at the end. */
static const struct isa *chosen(int which, const char **name) {
  const struct isa *found[3];
  const char *called[3];
  int count = 0;
#if BY_CPU
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512bw"))
    called[count] = "AVX-512", found[count++] = &isa_avx512;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
    called[count] = "AVX2", found[count++] = &isa_avx2;
#endif
  called[count] = "baseline", found[count++] = &isa_baseline;
  if (which >= count) return 0;
  if (name) *name = called[which];
  return found[which];
}

#if defined(_WIN32)
#define EXPORT __declspec(dllexport)
#else
#define EXPORT __attribute__((visibility("default")))
#endif

/* The name of an instruction set by its place; null after the last. */
EXPORT const char *boxloss_instructions(int which) {
  const char *name = 0;
  chosen(which, &name);
  return name;
}

/* The name of a kernel by its place; null after the last. */
EXPORT const char *boxloss_kernel(int which) { return which < KERNEL_COUNT ? names[which] : 0; }

/* What it was compiled from, and the size of each structure that it is called with: other than expected, it is stale. */
EXPORT const char *boxloss_source(void) { return SOURCE; }
EXPORT int boxloss_size(int which) {
  return (int)(which == 0 ? sizeof(struct rows) : which == 1 ? sizeof(struct pairs) : sizeof(struct descent));
}

/* -- work shared among threads ------------------------------------------------------------------------------------- */

struct share {
  const struct isa *isa;
  int wide;
  kernel_f kernel;
  const struct rows *rows;
  const struct pairs *pairs;
  int64_t first, last;
  double sum, *b_gradient;
};

static void *work(void *given) {
  struct share *share = given;
  if (share->rows)
    share->sum = share->isa->rows[share->wide](share->rows, share->kernel, share->first, share->last);
  else
    share->isa->pairs[share->wide](share->pairs, share->kernel, share->first, share->last, share->b_gradient);
  return 0;
}

/* The OpenMP that torch runs on already, if it was found: its threads are awake, where new ones take 0.3 ms to be, and
   no second set of threads wants the cores. These are GNU's names; the runtimes of LLVM and Intel know them too. */
struct openmp {
  void (*parallel)(void (*)(void *), void *, unsigned, unsigned); /* GOMP_parallel */
  int (*number)(void), (*count)(void);                            /* omp_get_thread_num, omp_get_num_threads */
};
static struct openmp openmp;

struct team {
  struct share *shares;
  int count;
};

/* What one of a team does; it may be smaller than was asked for. */
static void its_part(void *given) {
  const struct team *team = given;
  for (int k = openmp.number(); k < team->count; k += openmp.count()) work(&team->shares[k]);
}

#if HAS_THREADS
static pid_t openmp_process; /* a fork has its memory, but not its threads, and would wait for them forever */

/* Threads that live for this call only: nothing to be lost in a fork, nothing shared between callers. */
static void on_new_threads(struct share *shares, int count) {
  pthread_t threads[MOST_THREADS];
  int started[MOST_THREADS] = {0};
  for (int k = 1; k < count; k++) started[k] = pthread_create(&threads[k], 0, work, &shares[k]) == 0;
  work(&shares[0]);
  for (int k = 1; k < count; k++)
    if (started[k])
      pthread_join(threads[k], 0);
    else
      work(&shares[k]);
}

EXPORT void boxloss_use_openmp(const struct openmp *given) {
  openmp = *given;
  openmp_process = getpid();
}

static void together(struct share *shares, int count) {
  struct team team = {shares, count};
  if (count == 1)
    work(&shares[0]);
  else if (openmp.parallel && getpid() == openmp_process)
    openmp.parallel(its_part, &team, (unsigned)count, 0);
  else
    on_new_threads(shares, count);
}
#else
static void together(struct share *shares, int count) {
  for (int k = 0; k < count; k++) work(&shares[k]);
}
#endif

/* Contiguous parts of about the same size, each of whole units. */
static int shared(struct share *shares, const struct share *like, int64_t total, int64_t unit, int threads) {
  int64_t units = (total + unit - 1) / unit, each = 32 * BLOCK / unit + 1; /* not worth a thread below that */
  int count = threads < MOST_THREADS ? threads : MOST_THREADS;
  if (count > units / each) count = (int)(units / each);
  if (count < 1) count = 1;
  for (int k = 0; k < count; k++) {
    shares[k] = *like;
    shares[k].first = units * k / count * unit;
    shares[k].last = k + 1 < count ? units * (k + 1) / count * unit : total;
  }
  return count;
}

EXPORT void boxloss_rows(int kernel, int wide, int instructions, int threads, const struct rows *job) {
  const int gradient = job->pred_gradient || job->target_gradient;
  struct share shares[MOST_THREADS], like = {.isa = chosen(instructions, 0), .wide = wide, .rows = job};
  like.kernel = like.isa->kernels[kernel][wide][gradient];
  const int count = shared(shares, &like, job->count, BLOCK, threads);
  together(shares, count);
  if (job->sum) {
    *job->sum = 0;
    for (int k = 0; k < count; k++) *job->sum += shares[k].sum;
  }
}

/* 0, or 1 without memory. */
EXPORT int boxloss_pairs(int kernel, int wide, int instructions, int threads, const struct pairs *given) {
  const size_t size = wide ? sizeof(double) : sizeof(float), numbers = 4 * (size_t)given->columns;
  struct pairs job = *given;
  char *b_columns = malloc(numbers * size + 1);
  if (!b_columns) return 1;
  for (int64_t j = 0; j < job.columns; j++)
    for (int k = 0; k < 4; k++)
      memcpy(b_columns + (k * job.columns + j) * size, (const char *)job.b + (4 * j + k) * size, size);
  job.b_columns = b_columns;
  struct share shares[MOST_THREADS], like = {.isa = chosen(instructions, 0), .wide = wide, .pairs = &job};
  like.kernel = like.isa->kernels[kernel][wide][!job.values];
  /* Parts of whole rows, whose sums no two threads share. */
  const int count = shared(shares, &like, job.rows * job.columns, job.values ? BLOCK : job.columns, threads);
  double *others = 0;
  if (job.b_gradient) {
    if (count > 1 && !(others = calloc((count - 1) * numbers, sizeof(double)))) {
      free(b_columns);
      return 1;
    }
    for (int k = 0; k < count; k++) shares[k].b_gradient = k ? others + (k - 1) * numbers : job.b_gradient;
  }
  together(shares, count);
  if (others)
    for (int k = 0; k < count - 1; k++)
      for (size_t j = 0; j < numbers; j++) job.b_gradient[j] += others[k * numbers + j];
  free(others);
  free(b_columns);
  return 0;
}

EXPORT int boxloss_block(void) { return BLOCK; }

/* By the gradient of a kernel, whose IoU loss is given; or by a published rule, which gives IoU itself: then iou is -1. */
EXPORT void boxloss_descend(int kernel, int iou, int wide, int instructions, const struct descent *job) {
  const struct isa *isa = chosen(instructions, 0);
  isa->descend[wide](job, isa->kernels[kernel][wide][1], iou < 0 ? 0 : isa->kernels[iou][wide][0]);
}
