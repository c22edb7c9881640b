/* All kernels for one instruction set. */

#define ISA_NAME(name) JOIN(JOIN(name, _), ISA)
#include "functions.h"

#define KERNEL(name)                                                                                       \
  INLINE void OP(name##_of)(const int G, const int i, const R *restrict in, const double *restrict numbers, R *restrict out); \
  static void OP(name##_value)(const void *restrict in, const double *restrict numbers, void *restrict out) { \
    for (int i = 0; i < BLOCK; i++) OP(name##_of)(0, i, in, numbers, out);                                 \
  }                                                                                                        \
  static void OP(name##_gradient)(const void *restrict in, const double *restrict numbers, void *restrict out) { \
    for (int i = 0; i < BLOCK; i++) OP(name##_of)(1, i, in, numbers, out);                                 \
  }                                                                                                        \
  INLINE void OP(name##_of)(const int G, const int i, const R *restrict in, const double *restrict numbers, R *restrict out)

typedef int ISA_NAME(truth);
#define T ISA_NAME(truth)

#define R float
#define W int32_t
#define WIDE 0
#define EITHER(narrow, wide) narrow
#define OP(name) JOIN(ISA_NAME(name), _float)
#include "operations.h"
#include "generated.h"
#include "boxes.h"
#undef R
#undef W
#undef WIDE
#undef EITHER
#undef OP

#define R double
#define W int64_t
#define WIDE 1
#define EITHER(narrow, wide) wide
#define OP(name) JOIN(ISA_NAME(name), _double)
#include "operations.h"
#include "generated.h"
#include "boxes.h"
#undef R
#undef W
#undef WIDE
#undef EITHER
#undef OP

#define ROW(name)                                                        \
  {{JOIN(ISA_NAME(name##_value), _float), JOIN(ISA_NAME(name##_gradient), _float)}, \
   {JOIN(ISA_NAME(name##_value), _double), JOIN(ISA_NAME(name##_gradient), _double)}},
static const struct isa ISA_NAME(isa) = {
    {JOIN(ISA_NAME(rows), _float), JOIN(ISA_NAME(rows), _double)},
    {JOIN(ISA_NAME(pairs), _float), JOIN(ISA_NAME(pairs), _double)},
    {JOIN(ISA_NAME(descend), _float), JOIN(ISA_NAME(descend), _double)},
    {KERNELS(ROW)},
};
#undef ROW

#undef T
#undef KERNEL
#undef ISA_NAME
