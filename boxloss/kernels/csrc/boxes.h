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

/* Gradients of n boxes, each times its factor, from columns into rows. */
INLINE void OP(scatter)(const R *restrict columns, const R *restrict factors, int n, R *restrict boxes) {
  if (n == BLOCK)
    for (int i = 0; i < BLOCK; i++)
      for (int k = 0; k < 4; k++) boxes[i * 4 + k] = columns[k * BLOCK + i] * factors[i];
  else
    for (int i = 0; i < n; i++)
      for (int k = 0; k < 4; k++) boxes[i * 4 + k] = columns[k * BLOCK + i] * factors[i];
}

/* Pairs from first to before last, row by row. */
static double OP(rows)(const struct rows *job, kernel_f kernel, int64_t first, int64_t last) {
  R in[8 * BLOCK] __attribute__((aligned(64))), out[9 * BLOCK] __attribute__((aligned(64)));
  R factors[BLOCK] __attribute__((aligned(64)));
  double sums[8] = {0};
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
    if (job->pred_gradient) OP(scatter)(out + BLOCK, factors, n, (R *)job->pred_gradient + at * 4);
    if (job->target_gradient) OP(scatter)(out + 5 * BLOCK, factors, n, (R *)job->target_gradient + at * 4);
  }
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

/* Centers and sides, column by column, as edges in four columns; the rest of the block gets boxes of no size. */
INLINE void OP(edges)(const R *boxes, int64_t count, int n, R *restrict columns) {
  for (int k = 0; k < 2; k++)
    for (int i = 0; i < BLOCK; i++) {
      const R center = i < n ? boxes[k * count + i] : 0, half = i < n ? boxes[(2 + k) * count + i] * (R)0.5 : 0;
      columns[k * BLOCK + i] = center - half;
      columns[(2 + k) * BLOCK + i] = center + half;
    }
}

/* Boxes in columns: the direction in which each improves, and its IoU. */
static void OP(columns)(const struct columns *job, kernel_f kernel, kernel_f iou_loss) {
  R in[8 * BLOCK] __attribute__((aligned(64))), out[9 * BLOCK] __attribute__((aligned(64)));
  const int64_t count = job->count;
  const R factor = (R)job->wh_factor;
  for (int64_t at = 0; at < count; at += BLOCK) {
    const int n = count - at < BLOCK ? (int)(count - at) : BLOCK;
    OP(edges)((const R *)job->boxes + at, count, n, in);
    OP(edges)((const R *)job->targets + at, count, n, in + 4 * BLOCK);
    iou_loss(in, 0, out);
    R *iou = (R *)job->iou + at, *direction = (R *)job->direction + at;
    for (int i = 0; i < n; i++) iou[i] = 1 - out[i];
    kernel(in, job->numbers, out);
    for (int k = 0; k < 2; k++) {
      const R *restrict low = out + (1 + k) * BLOCK, *restrict high = low + 2 * BLOCK;
      for (int i = 0; i < n; i++) {
        direction[k * count + i] = -(low[i] + high[i]);
        direction[(2 + k) * count + i] = (low[i] - high[i]) * (R)0.5 * factor;
      }
    }
  }
}
