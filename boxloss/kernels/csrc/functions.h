/* Functions of double precision without branches, so that a compiler makes vectors of them. Once per instruction set. */

INLINE double ISA_NAME(of_bits)(uint64_t bits) { double x; memcpy(&x, &bits, sizeof x); return x; }
INLINE uint64_t ISA_NAME(to_bits)(double x) { uint64_t bits; memcpy(&bits, &x, sizeof bits); return bits; }

/* atan(z)/z as a polynomial in z², |z| <= tan(pi/8): mpmath.chebyfit(lambda u: atan(sqrt(u)) / sqrt(u),
   [0, tan(pi/8)**2], 12 or 7), to 1.3e-18 or 2.1e-11. Larger angles are pi/4 plus or minus one of those, or what is left
   of pi/2. Within 2 units in the last place, of a double or of a float; NaN if either is; atan2(0, 0) is 0. */
INLINE double ISA_NAME(atan2)(double y, double x, const int is_float) {
  double a = fabs(y), b = fabs(x);
  double small = a < b ? a : b, large = a < b ? b : a;
  int second = small > 0.41421356237309503 * large; /* second half of the octant */
  double n = second ? small - large : small, d = second ? small + large : large;
  double z = n / (d == 0 ? 1 : d), u = z * z, r;
  if (is_float) {
    double p = 0x1.81a03dba4f60ep-5;
    p = p * u - 0x1.5a5d9ba89fcefp-4;
    p = p * u + 0x1.c437eb8d8549dp-4;
    p = p * u - 0x1.247ca7f892f95p-3;
    p = p * u + 0x1.9998fdb6ff2dcp-3;
    p = p * u - 0x1.555554810996ep-2;
    p = p * u + 0x1.ffffffffd07f9p-1;
    r = z * p;
  } else {
    double p = -0x1.23b93e0f92ad6p-6;
    p = p * u + 0x1.3702e9aa9f4cfp-5;
    p = p * u - 0x1.9c79c032390a5p-5;
    p = p * u + 0x1.def9ecc6c46bap-5;
    p = p * u - 0x1.10ea1d146bb4ap-4;
    p = p * u + 0x1.3b10f0f599274p-4;
    p = p * u - 0x1.745cf64dcb161p-4;
    p = p * u + 0x1.c71c70cb77511p-4;
    p = p * u - 0x1.2492492259b3cp-3;
    p = p * u + 0x1.9999999994669p-3;
    p = p * u - 0x1.555555555552fp-2;
    r = z + z * (u * p);
  }
  r = second ? 0x1.921fb54442d18p-1 + (r + 0x1.1a62633145c07p-55) : r; /* pi/4 in two parts */
  r = a > b ? 0x1.921fb54442d18p0 - (r - 0x1.1a62633145c07p-54) : r;   /* pi/2 */
  r = x < 0 ? 0x1.921fb54442d18p1 - (r - 0x1.1a62633145c07p-53) : r;
  r = y < 0 ? -r : r;
  double sum = x + y;
  return sum != sum ? sum : r; /* no infinity comes here: inf - inf would be NaN too */
}

/* 2·atanh(s), |s| <= 1/3, to 1e-14. */
INLINE double ISA_NAME(log_of_quotient)(double s) {
  double u = s * s, p = 1.0 / 27;
  p = p * u + 1.0 / 25;
  p = p * u + 1.0 / 23;
  p = p * u + 1.0 / 21;
  p = p * u + 1.0 / 19;
  p = p * u + 1.0 / 17;
  p = p * u + 1.0 / 15;
  p = p * u + 1.0 / 13;
  p = p * u + 1.0 / 11;
  p = p * u + 1.0 / 9;
  p = p * u + 1.0 / 7;
  p = p * u + 1.0 / 5;
  p = p * u + 1.0 / 3;
  return 2 * (s + s * (u * p));
}

/* Natural logarithm of a float in a double, to 1e-14 of its size: far below a float's last place. */
INLINE double ISA_NAME(log)(double x) {
  uint64_t bits = ISA_NAME(to_bits)(x) + 0x0009600000000000; /* mantissas above sqrt(2) get the next exponent */
  double exponent = ISA_NAME(of_bits)(0x4330000000000000 | (bits >> 52)) - (0x1p52 + 1023);
  double m = ISA_NAME(of_bits)((bits & 0x000fffffffffffff) - 0x0009600000000000 + 0x3ff0000000000000);
  double found = exponent * 0x1.62e42fefa39efp-1 + ISA_NAME(log_of_quotient)((m - 1) / (m + 1));
  found = x == 0 ? -INFINITY : found;
  found = x == INFINITY ? INFINITY : found;
  return x >= 0 ? found : NAN;
}

INLINE double ISA_NAME(log1p)(double x) {
  double near = ISA_NAME(log_of_quotient)(x / (2 + x));
  double far = ISA_NAME(log)(1 + x);
  return ((x >= -0.5) & (x <= 1)) ? near : far; /* s = x/(2 + x) is in [-1/3, 1/3] */
}

/* To 1e-13, between e^-700 and e^700. */
INLINE double ISA_NAME(exp)(double x) {
  double held = x < -700 ? -700 : x > 700 ? 700 : x;
  double shifted = held * 0x1.71547652b82fep0 + 0x1.8p52; /* rounded to a whole number, in the lowest bits */
  double k = shifted - 0x1.8p52;
  double r = held - k * 0x1.62e42fefa39efp-1;
  double p = 1.0 / 479001600;
  p = p * r + 1.0 / 39916800;
  p = p * r + 1.0 / 3628800;
  p = p * r + 1.0 / 362880;
  p = p * r + 1.0 / 40320;
  p = p * r + 1.0 / 5040;
  p = p * r + 1.0 / 720;
  p = p * r + 1.0 / 120;
  p = p * r + 1.0 / 24;
  p = p * r + 1.0 / 6;
  p = p * r + 0.5;
  p = p * r + 1;
  p = p * r + 1;
  double found = p * ISA_NAME(of_bits)((ISA_NAME(to_bits)(shifted) + 1023) << 52);
  return x != x ? x : found;
}

INLINE double ISA_NAME(expm1)(double x) {
  double p = 1.0 / 3628800;
  p = p * x + 1.0 / 362880;
  p = p * x + 1.0 / 40320;
  p = p * x + 1.0 / 5040;
  p = p * x + 1.0 / 720;
  p = p * x + 1.0 / 120;
  p = p * x + 1.0 / 24;
  p = p * x + 1.0 / 6;
  p = p * x + 0.5;
  double near = x * (1 + p * x), far = ISA_NAME(exp)(x) - 1; /* to 1e-13 */
  return ((x >= -0.25) & (x <= 0.25)) ? near : far;
}

/* Of x >= 0, for floats. */
INLINE double ISA_NAME(pow)(double x, double y) {
  double found = ISA_NAME(exp)(y * ISA_NAME(log)(x));
  return y == 0 ? 1 : found;
}
