/* Boxes from where they lie into columns, and what a kernel makes of them to where it belongs. Of numbers of type R. */

/* n boxes of a row each into four columns; the rest of the block gets boxes of no size. */
INLINE void OP(gather)(const R *boxes, int64_t stride, int n, R *restrict columns) {
  if (n == BLOCK && stride == 4)
    for (int i = 0; i < BLOCK; i++)
      for (int k = 0; k < 4; k++) columns[k * BLOCK + i] = boxes[i * 4 + k];
  else
    for (int k = 0; k < 4; k++)
      for (int i = 0; i < BLOCK; i++) columns[k * BLOCK + i] = i < n ? boxes[i * stride + k] : 0;
}

/* Gradients of n boxes, each times its factor, from columns into rows; not 0 if one is no finite number. */
INLINE W OP(scatter)(const R *restrict columns, const R *restrict factors, int n, R *restrict boxes) {
  if (n == BLOCK)
    for (int i = 0; i < BLOCK; i++)
      for (int k = 0; k < 4; k++) boxes[i * 4 + k] = columns[k * BLOCK + i] * factors[i];
  else
    for (int i = 0; i < n; i++)
      for (int k = 0; k < 4; k++) boxes[i * 4 + k] = columns[k * BLOCK + i] * factors[i];
  W infinite = 0;
  for (int k = 0; k < 4; k++)
    for (int i = 0; i < BLOCK; i++) {
      const R gradient = columns[k * BLOCK + i] * factors[i];
      infinite |= (W)(gradient - gradient != 0);
    }
  return infinite;
}

/* Pairs from first to before last, row by row. */
static double OP(rows)(const struct rows *job, kernel_f kernel, int64_t first, int64_t last) {
  R in[8 * BLOCK] __attribute__((aligned(64))), out[9 * BLOCK] __attribute__((aligned(64)));
  R factors[BLOCK] __attribute__((aligned(64)));
  double sums[8] = {0};
  W infinite = 0;
  for (int i = 0; i < BLOCK; i++) factors[i] = (R)job->factor;
  for (int64_t at = first; at < last; at += BLOCK) {
    const int n = last - at < BLOCK ? (int)(last - at) : BLOCK;
    OP(gather)((const R *)job->pred + at * job->pred_stride, job->pred_stride, n, in);
    OP(gather)((const R *)job->target + at * job->target_stride, job->target_stride, n, in + 4 * BLOCK);
    kernel(in, job->numbers, out);
    const R *weight = job->weight ? (const R *)job->weight + at : 0;
    if (weight)
      for (int i = 0; i < n; i++) out[i] *= weight[i];
    if (job->values) memcpy((R *)job->values + at, out, n * sizeof(R));
    if (job->sum) {
      for (int i = n; i < BLOCK; i++) out[i] = 0;
      for (int i = 0; i < BLOCK; i += 8)
        for (int k = 0; k < 8; k++) sums[k] += out[i + k];
    }
    if (!job->pred_gradient && !job->target_gradient) continue;
    if (weight)
      for (int i = 0; i < n; i++) factors[i] = (R)job->factor * weight[i];
    if (job->pred_gradient) infinite |= OP(scatter)(out + BLOCK, factors, n, (R *)job->pred_gradient + at * 4);
    if (job->target_gradient) infinite |= OP(scatter)(out + 5 * BLOCK, factors, n, (R *)job->target_gradient + at * 4);
  }
  if (infinite) *job->infinite = 1;
  return ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
}

/* Every row of a with every row of b: entries of the matrix from first to before last, in blocks that may span rows. */
static void OP(pairs)(const struct pairs *job, kernel_f kernel, int64_t first, int64_t last, double *b_gradient) {
  R in[8 * BLOCK] __attribute__((aligned(64))), out[9 * BLOCK] __attribute__((aligned(64)));
  const int64_t columns = job->columns;
  const R *a = job->a, *b = job->b_columns;
  memset(in, 0, sizeof in);
  for (int64_t at = first; at < last; at += BLOCK) {
    const int n = last - at < BLOCK ? (int)(last - at) : BLOCK;
    int64_t row = at / columns, column = at % columns;
    for (int i = 0; i < n;) {
      const int m = n - i < columns - column ? n - i : (int)(columns - column);
      for (int k = 0; k < 4; k++) {
        const R p = a[row * 4 + k];
        for (int j = 0; j < m; j++) in[k * BLOCK + i + j] = p;
        memcpy(in + (4 + k) * BLOCK + i, b + k * columns + column, m * sizeof(R));
      }
      i += m, row += 1, column = 0;
    }
    kernel(in, job->numbers, out);
    if (job->values) {
      memcpy((R *)job->values + at, out, n * sizeof(R));
      continue;
    }
    const R *upstream = (const R *)job->upstream + at;
    row = at / columns, column = at % columns;
    for (int i = 0; i < n;) {
      const int m = n - i < columns - column ? n - i : (int)(columns - column);
      for (int k = 0; k < 4; k++) {
        double sum = 0;
        for (int j = 0; j < m; j++) sum += (double)upstream[i + j] * out[(1 + k) * BLOCK + i + j];
        job->a_gradient[row * 4 + k] += sum;
        if (b_gradient)
          for (int j = 0; j < m; j++)
            b_gradient[k * columns + column + j] += (double)upstream[i + j] * out[(5 + k) * BLOCK + i + j];
      }
      i += m, row += 1, column = 0;
    }
  }
}

/* Centers and sides in columns, as edges in columns. */
INLINE void OP(edges)(const R *restrict boxes, R *restrict columns) {
  for (int k = 0; k < 2; k++)
    for (int i = 0; i < BLOCK; i++) {
      const R center = boxes[k * BLOCK + i], half = boxes[(2 + k) * BLOCK + i] * (R)0.5;
      columns[k * BLOCK + i] = center - half;
      columns[(2 + k) * BLOCK + i] = center + half;
    }
}

/* From gradients by edges, in the four columns after the first of out, to directions by centers and sides. */
INLINE void OP(directions)(R *restrict out, R wh_factor) {
  for (int k = 1; k < 3; k++)
    for (int i = 0; i < BLOCK; i++) {
      const R low = out[k * BLOCK + i], high = out[(2 + k) * BLOCK + i];
      out[k * BLOCK + i] = -(low + high);
      out[(2 + k) * BLOCK + i] = (low - high) * (R)0.5 * wh_factor;
    }
}

/* Of n boxes the errors, as whole multiples of a unit, and how many of three levels their IoU is above. */
INLINE void OP(count)(const struct descent *job, const R *restrict boxes, const R *restrict targets,
                      const R *restrict iou, const int64_t *places, int n, int64_t *errors, int64_t *above, int64_t *last) {
  const R farthest = (R)job->farthest, unit = (R)(1 / job->unit);
  const R l0 = (R)job->levels[0], l1 = (R)job->levels[1], l2 = (R)job->levels[2];
  int64_t error[BLOCK], bin[BLOCK];
  for (int i = 0; i < BLOCK; i++) {
    R e = OP(abs)(boxes[i] - targets[i]) + OP(abs)(boxes[BLOCK + i] - targets[BLOCK + i]);
    e += OP(abs)(boxes[2 * BLOCK + i] - targets[2 * BLOCK + i]);
    e += OP(abs)(boxes[3 * BLOCK + i] - targets[3 * BLOCK + i]);
    e = e < farthest ? e : farthest; /* NaN too */
    const double whole = (double)(e * unit) + 0x1.8p52; /* rounded, in the lowest bits */
    error[i] = (int64_t)(ISA_NAME(to_bits)(whole) - 0x4338000000000000);
    bin[i] = (W)(iou[i] > l0) + (W)(iou[i] > l1) + (W)(iou[i] > l2);
  }
  for (int i = 0; i < n; i++) {
    errors[places[i]] += error[i];
    above[bin[i] * job->bins + places[i]]++;
  }
  if (last) memcpy(last, error, n * sizeof *last);
}

/* Boxes on their way, all in step: so that a row of the counts stays in the cache. */
static void OP(descend)(const struct descent *job, kernel_f kernel, kernel_f iou_loss) {
  R in[8 * BLOCK] __attribute__((aligned(64))), out[9 * BLOCK] __attribute__((aligned(64)));
  R iou[BLOCK] __attribute__((aligned(64))), values[9 * BLOCK] __attribute__((aligned(64)));
  for (int64_t k = 0; k <= job->iterations; k++) {
    const R rate = k < job->iterations ? (R)job->rates[k] : 0;
    for (int64_t block = 0; block * BLOCK < job->count; block++) {
      R *boxes = (R *)job->boxes + block * 4 * BLOCK;
      const R *targets = (const R *)job->targets + block * 4 * BLOCK;
      if (iou_loss) {
        OP(edges)(boxes, in);
        OP(edges)(targets, in + 4 * BLOCK);
        iou_loss(in, 0, values);
        for (int i = 0; i < BLOCK; i++) iou[i] = 1 - values[i];
        kernel(in, job->numbers, out);
        OP(directions)(out, (R)job->wh_factor);
      } else { /* a published rule: of centers and sides, and gives directions */
        memcpy(in, boxes, 4 * BLOCK * sizeof(R));
        memcpy(in + 4 * BLOCK, targets, 4 * BLOCK * sizeof(R));
        kernel(in, job->numbers, out);
        memcpy(iou, out, sizeof iou);
      }
      const int64_t left = job->count - block * BLOCK;
      OP(count)(job, boxes, targets, iou, job->places + block * BLOCK, left < BLOCK ? (int)left : BLOCK,
                job->errors + k * job->bins, job->above + 4 * k * job->bins,
                k == job->iterations ? job->last + block * BLOCK : 0);
      if (k == job->iterations) continue;
      for (int c = 0; c < 4; c++)
        for (int i = 0; i < BLOCK; i++) boxes[c * BLOCK + i] += out[(1 + c) * BLOCK + i] * (2 - iou[i]) * rate;
    }
  }
}
