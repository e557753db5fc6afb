// The index: every op of lossk on one screen, grouped by room.
//
// Arguments named alike mean the same everywhere:
//   input [N, D], linear_weight [V, D]   the head; logits are never stored
//   linear_bias [V], scale [N], aux [V]  float32 (float64 beside float64 inputs)
//   index [N, K] int64                   vocabulary entries picked per row; -1 = none
//   active [N] bool                      rows that count; the others cost nothing and give 0
#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY(lossk, m) {
  // ---- head --------------------------------------------------------------------------------------------------------
  // Cross-entropy of a linear head, the op models call. Composite: python/lossk/head.py.
  m.def(
      "cce(Tensor input, Tensor linear_weight, Tensor target, Tensor? linear_bias=None, *, int ignore_index=-100, "
      "str reduction='mean', float softcap=0.0, float label_smoothing=0.0, float z_loss=0.0, int shift=0, "
      "float tau=0.0) -> Tensor");
  // Row statistics of z = softcap(scale (input linear_weight^T + linear_bias)), margin taken off z[index[:, 0]].
  // stats [12, N]: lse, what its rounding left off, slope, lse_excl, what its left off, mean_logit, entropy, lse2,
  // aux_mean = E_p[aux], aux_logp = sum_v aux_v log p_v (aux absent: ones), max, min; [3, N], the first three, where
  // not full. logits, logp [N, K] at index; argmax [N]. With 0 < tau < 1 backward visits live columns only, chosen by
  // sketch [blocks, V] bfloat16, the sum of p over each 128 active rows (where full, of exp(z - lse_excl) without the
  // picks), and slope is E_p[d softcap(x) / dx] where not full; else 1. On a GPU `keep` leaves the logits of so many
  // columns, the first ones, for the backward, in kept [N, W] int16 (cuda/head/stats/params.h); else W is 0.
  m.def(
      "linear_stats(Tensor input, Tensor linear_weight, Tensor? linear_bias, Tensor? scale, Tensor? index, "
      "Tensor? aux, Tensor? active, float softcap, float margin, bool full, float tau, bool fill, int keep) "
      "-> (Tensor stats, Tensor logits, Tensor logp, Tensor argmax, Tensor sketch, Tensor kept)");
  // The one general backward: dz = p (a0 + a1 log p + a2 p + a3 aux) + [v not in index] aX exp(z - lse_excl)
  // + b aux - sum_k index_coef[k] [v == index[k]], with row_coef [6, N] = a0 a1 a2 a3 aX b ([1, N]: a0). logits, kept
  // and keep are the forward's where it has kept any.
  m.def(
      "linear_stats_backward(Tensor input, Tensor linear_weight, Tensor? linear_bias, Tensor? scale, Tensor? index, "
      "Tensor? aux, Tensor? active, float softcap, float margin, Tensor lse, Tensor? lse_excl, Tensor row_coef, "
      "Tensor? index_coef, Tensor? logits, Tensor? kept, int keep, bool[] needs_grad, bool weight_grad_fp32) "
      "-> (Tensor grad_input, Tensor grad_weight, Tensor grad_bias, Tensor grad_scale)");
  // The same from live columns: those with tau or more in the sketch's block, or picked; the rest filled rank-one, or
  // dropped. live [4, blocks]: live share, mean dead mass of a row, squared norm of the error of dlogits at most, and
  // that of the live dlogits.
  m.def(
      "linear_live_backward(Tensor input, Tensor linear_weight, Tensor? linear_bias, Tensor? scale, Tensor? index, "
      "Tensor? aux, Tensor? active, float softcap, float margin, Tensor stats, Tensor sketch, Tensor row_coef, "
      "Tensor? index_coef, float tau, bool fill, bool[] needs_grad, bool weight_grad_fp32) "
      "-> (Tensor grad_input, Tensor grad_weight, Tensor grad_bias, Tensor grad_scale, Tensor live)");
  // Sum over rows of a lse + b lse^2 + c sum_v aux_v z_v - sum_k index_coef[k] z[index[k]], loss_coef [3, N] = a b c
  // ([2, N]: c is 0), and in the same call its gradients, unrounded (float32 or float64), where needs_grad asks.
  m.def(
      "cce_forward(Tensor input, Tensor linear_weight, Tensor? linear_bias, Tensor? scale, Tensor index, Tensor? aux, "
      "Tensor? active, float softcap, float margin, Tensor loss_coef, Tensor index_coef, bool[] needs_grad) "
      "-> (Tensor loss, Tensor lse, Tensor grad_input, Tensor grad_weight, Tensor grad_bias, Tensor grad_scale)");

  // A head of distances, z = -power log(d^2 + eps) relative to the row's target, whose z is 0: `kind`, rows [4, N] and
  // columns [V] as cpp/head/distance.h has them, from a product. stats [4, N]: lse, what its rounding left off, slope
  // (with tau, of d loss / d(-h)), and where `dense` sum_v z_v, else 0. row_coef [2, N] = a b, or [1, N] = a:
  // dz = a p + b - index_coef [v == index]. Gradients are those of points, through rows and columns too.
  m.def(
      "harmonic_stats(Tensor input, Tensor linear_weight, Tensor rows, Tensor columns, Tensor index, Tensor? active, "
      "str kind, float power, bool dense, float tau, bool fill) -> (Tensor stats, Tensor sketch)");
  m.def(
      "harmonic_backward(Tensor input, Tensor linear_weight, Tensor rows, Tensor columns, Tensor index, "
      "Tensor? active, str kind, float power, Tensor lse, Tensor row_coef, Tensor index_coef, bool[] needs_grad, "
      "bool weight_grad_fp32) -> (Tensor grad_input, Tensor grad_weight)");
  m.def(
      "harmonic_live_backward(Tensor input, Tensor linear_weight, Tensor rows, Tensor columns, Tensor index, "
      "Tensor? active, str kind, float power, Tensor stats, Tensor sketch, Tensor row_coef, Tensor index_coef, "
      "float tau, bool fill, bool[] needs_grad, bool weight_grad_fp32) "
      "-> (Tensor grad_input, Tensor grad_weight, Tensor live)");
  // As cce_forward: the loss and its gradients in one call.
  m.def(
      "harmonic_forward(Tensor input, Tensor linear_weight, Tensor rows, Tensor columns, Tensor index, "
      "Tensor? active, str kind, float power, Tensor loss_coef, Tensor index_coef, bool[] needs_grad) "
      "-> (Tensor loss, Tensor lse, Tensor grad_input, Tensor grad_weight)");

  // Two heads on the same rows, z and u their logits: the sums over the vocabulary of `kind` (cpp/head/compare.h).
  // stats [6, N]: lse, what its rounding left off, teacher's lse and what its left off (0 where z and u are compared
  // as they are), A, B; the divergence is A + B, of z and u as they are A alone.
  m.def(
      "linear_divergence(Tensor input, Tensor linear_weight, Tensor? linear_bias, Tensor? scale, "
      "Tensor teacher_input, Tensor teacher_weight, Tensor? teacher_bias, Tensor? teacher_scale, Tensor? active, "
      "float softcap, float teacher_softcap, str kind, float beta) -> Tensor stats");
  // Gradients of sum_i row_coef[i] divergence_i by the eight tensors, row_coef [N].
  m.def(
      "linear_divergence_backward(Tensor input, Tensor linear_weight, Tensor? linear_bias, Tensor? scale, "
      "Tensor teacher_input, Tensor teacher_weight, Tensor? teacher_bias, Tensor? teacher_scale, Tensor? active, "
      "float softcap, float teacher_softcap, str kind, float beta, Tensor stats, Tensor row_coef, bool[] needs_grad, "
      "bool[] weight_grad_fp32) -> (Tensor grad_input, Tensor grad_weight, Tensor grad_bias, Tensor grad_scale, "
      "Tensor grad_teacher_input, Tensor grad_teacher_weight, Tensor grad_teacher_bias, Tensor grad_teacher_scale)");
  // One head, its logits compared with numbers of the row, offset [2, N] = u c, all columns but skip [N] (-1: none).
  // sums [2, N]: of `kind`, and of its derivative by z.
  m.def(
      "linear_pairwise(Tensor input, Tensor linear_weight, Tensor? linear_bias, Tensor? scale, Tensor offset, "
      "Tensor? skip, Tensor? active, float softcap, str kind, float beta) -> Tensor sums");
  m.def(
      "linear_pairwise_backward(Tensor input, Tensor linear_weight, Tensor? linear_bias, Tensor? scale, "
      "Tensor offset, Tensor? skip, Tensor? active, float softcap, str kind, float beta, Tensor row_coef, "
      "bool[] needs_grad, bool weight_grad_fp32) "
      "-> (Tensor grad_input, Tensor grad_weight, Tensor grad_bias, Tensor grad_scale)");
  // The k largest logits of each row, descending, of equal ones the first columns first; 0, -1 in rows not active.
  m.def(
      "linear_topk(Tensor input, Tensor linear_weight, Tensor? linear_bias, Tensor? scale, Tensor? active, "
      "float softcap, int k) -> (Tensor values, Tensor indices, Tensor lse)");
  // A column of each row with probability softmax(z), by noise that seed [1] int64, row and column decide; any column
  // of a row with nan.
  m.def(
      "linear_sample(Tensor input, Tensor linear_weight, Tensor? linear_bias, Tensor? scale, float softcap, "
      "Tensor seed) -> (Tensor token, Tensor logp)");

  // Elementwise distances d_iv of input's rows and linear_weight's (kinds: cpp/head/elementwise.h) and the harmonic
  // z_iv = -power log((d_iv^2 + eps) / (d_iy^2 + eps)), y = target [N] int64, of which the target's own is 0.
  // row_term [N], column_term [V] float32 (float64): the two parts of the denominator of the bray_curtis kinds.
  // stats [4, N]: lse = log sum_v exp z, sum_v z, d_iy, what its rounding left off lse.
  m.def(
      "elementwise_stats(Tensor input, Tensor linear_weight, Tensor target, Tensor? active, Tensor? row_term, "
      "Tensor? column_term, str kind, float p, float power, float eps) -> Tensor stats");
  // Gradients where dL/dz_iv = a_i p_iv + b_i, row_coef [2, N] = a b.
  m.def(
      "elementwise_backward(Tensor input, Tensor linear_weight, Tensor target, Tensor? active, Tensor? row_term, "
      "Tensor? column_term, str kind, float p, float power, float eps, Tensor stats, Tensor row_coef, "
      "bool[] needs_grad, bool weight_grad_fp32) "
      "-> (Tensor grad_input, Tensor grad_weight, Tensor grad_row_term, Tensor grad_column_term)");

  // ---- probe: does the GPU library run here ------------------------------------------------------------------------
  m.def("cuda_build_info() -> (str toolkit, str archs)");
  // int32 [1]: the architecture whose code the GPU of `like` ran.
  m.def("gpu_arch(Tensor like) -> Tensor");
}
