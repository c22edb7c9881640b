/* The operations of generated.h on numbers of type R. Included once for each instruction set and each R. */

/* Those of whole numbers and truth values have no name here: they are C's own. */

INLINE W OP(bits_of_float)(R x) { W w; memcpy(&w, &x, sizeof w); return w; }
INLINE R OP(float_of_bits)(W w) { R x; memcpy(&x, &w, sizeof x); return x; }

/* As torch's: NaN where either is NaN. Two choices, since GCC makes no vector of one by two conditions. */
INLINE R OP(maximum)(R a, R b) {
  R most = a > b ? a : b;
  return a != a ? a : most;
}
INLINE R OP(minimum)(R a, R b) {
  R least = a < b ? a : b;
  return a != a ? a : least;
}
INLINE W OP(whole_maximum)(W a, W b) { return a > b ? a : b; }
INLINE W OP(whole_minimum)(W a, W b) { return a < b ? a : b; }

INLINE R OP(sgn)(R x) { return (R)(x > 0) - (R)(x < 0); }
INLINE R OP(relu)(R x) { return x < 0 ? 0 : x; }

#if WIDE /* R is double */

INLINE R OP(abs)(R x) { return fabs(x); }

/* Within 2 units in the last place. */
INLINE R OP(hypot)(R x, R y) {
  R a = fabs(x), b = fabs(y), larger = a > b ? a : b;
  R scale = larger < 0x1p-400 ? 0x1p600 : larger > 0x1p400 ? 0x1p-600 : 1.0;
  x *= scale, y *= scale;
  return sqrt(x * x + y * y) / scale;
}

INLINE R OP(exp)(R x) { return exp(x); }
INLINE R OP(expm1)(R x) { return expm1(x); }
INLINE R OP(log)(R x) { return log(x); }
INLINE R OP(log1p)(R x) { return log1p(x); }
INLINE R OP(pow)(R x, R y) { return pow(x, y); }
INLINE R OP(atan2)(R y, R x) { return ISA_NAME(atan2)(y, x, 0); }

#else /* R is float: in double, so that the result is nearly the rounded exact one */

INLINE R OP(abs)(R x) { return fabsf(x); }
INLINE R OP(hypot)(R x, R y) { return (R)sqrt((double)x * x + (double)y * y); }
INLINE R OP(exp)(R x) { return (R)ISA_NAME(exp)(x); }
INLINE R OP(expm1)(R x) { return (R)ISA_NAME(expm1)(x); }
INLINE R OP(log)(R x) { return (R)ISA_NAME(log)(x); }
INLINE R OP(log1p)(R x) { return (R)ISA_NAME(log1p)(x); }
INLINE R OP(pow)(R x, R y) { return (R)ISA_NAME(pow)(x, y); }
INLINE R OP(atan2)(R y, R x) { return (R)ISA_NAME(atan2)(y, x, 1); }

#endif
