// The vectors in the page: nearest items, and recommendations for a new user who picks a few items.

function bytesOf(base64) {
  const text = atob(base64);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return bytes;
}

const floatsOf = (base64) => new Float32Array(bytesOf(base64).buffer);

/** Vectors [n, dim], quantized to int8 with one scale per row: row r is bytes[r] * scale[r]. */
class Vectors {
  constructor(data) {
    this.n = data.n;
    this.dim = data.dim;
    this.bytes = new Int8Array(bytesOf(data.bytes).buffer);
    this.scale = floatsOf(data.scale);
    // What folds in a new user; null for a model with an MLP scorer.
    const { fold } = data;
    this.fold = fold && { ...fold, bias: floatsOf(fold.bias), mean: floatsOf(fold.mean), spread: floatsOf(fold.spread) };
    this.inverseLength = new Float32Array(this.n);
    for (let row = 0; row < this.n; row++) {
      let sum = 0;
      for (let at = row * this.dim; at < (row + 1) * this.dim; at++) sum += this.bytes[at] * this.bytes[at];
      this.inverseLength[row] = sum ? 1 / Math.sqrt(sum) : 0;
    }
  }

  row(row) {
    return Float32Array.from(this.bytes.subarray(row * this.dim, (row + 1) * this.dim), (b) => b * this.scale[row]);
  }

  /** Return the inner products of all rows' bytes with a vector. */
  products(vector) {
    const { n, dim, bytes } = this;
    const out = new Float32Array(n);
    for (let row = 0, at = 0; row < n; row++) {
      let sum = 0;
      for (let d = 0; d < dim; d++, at++) sum += bytes[at] * vector[d];
      out[row] = sum;
    }
    return out;
  }

  /** Return the k nearest rows by cosine: [{row, score}]. */
  nearest(row, k) {
    const scores = this.products(this.bytes.subarray(row * this.dim, (row + 1) * this.dim));
    for (let at = 0; at < this.n; at++) scores[at] *= this.inverseLength[at] * this.inverseLength[row];
    return topK(scores, k, new Set([row]));
  }

  /** Return the k best rows for a new user who likes some: the closed form of models/fold_in/softmax.py. */
  recommend(liked, k) {
    const { dim, fold } = this;
    const matrix = Float64Array.from(fold.spread);
    for (let a = 0; a < dim; a++) matrix[a * dim + a] += fold.noise + fold.prior / liked.length;
    const residual = Float64Array.from(fold.mean, (x) => -x);
    for (const row of liked) this.row(row).forEach((x, a) => (residual[a] += x / liked.length));
    const user = solve(matrix, residual);
    const scores = this.products(user);
    for (let row = 0; row < this.n; row++) scores[row] = scores[row] * this.scale[row] + fold.bias[row];
    return topK(scores, k, new Set(liked));
  }
}

/** Return the k largest scores except those of excluded rows, best first; equal ones by row. */
function topK(scores, k, excluded) {
  const heap = []; // ascending; k is small
  for (let row = 0; row < scores.length; row++) {
    const score = scores[row];
    if ((heap.length === k && score <= heap[0].score) || excluded.has(row) || Number.isNaN(score)) continue;
    if (heap.length === k) heap.shift();
    let at = heap.length;
    while (at > 0 && heap[at - 1].score >= score) at--;
    heap.splice(at, 0, { row, score });
  }
  return heap.reverse();
}

/** Solve a symmetric positive definite system [d, d] x = [d] by Cholesky decomposition, in place. */
function solve(matrix, right) {
  const d = right.length;
  for (let j = 0; j < d; j++) {
    for (let i = j; i < d; i++) {
      let sum = matrix[i * d + j];
      for (let k = 0; k < j; k++) sum -= matrix[i * d + k] * matrix[j * d + k];
      matrix[i * d + j] = i === j ? Math.sqrt(sum) : sum / matrix[j * d + j];
    }
  }
  const x = Float64Array.from(right);
  for (let i = 0; i < d; i++) {
    for (let k = 0; k < i; k++) x[i] -= matrix[i * d + k] * x[k];
    x[i] /= matrix[i * d + i];
  }
  for (let i = d - 1; i >= 0; i--) {
    for (let k = i + 1; k < d; k++) x[i] -= matrix[k * d + i] * x[k];
    x[i] /= matrix[i * d + i];
  }
  return x;
}
