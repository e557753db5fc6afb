// linear_live_backward on the CPU, schema in ops.cpp: an exact backward of a head that has the live columns only, and
// the rank-one fill of the others (fill.h).
#include <torch/csrc/stable/library.h>

#include "head/columns.h"
#include "head/fill.h"
#include "head/grad_outputs.h"
#include "head/sweep.h"

namespace lossk {
namespace {

constexpr int64_t kSliceBytes = 16 << 20;  // of gathered weight, its gradient and logits at a time
constexpr int64_t kMostDense = 8;          // blocks that are visited together: d weight sums over them in registers

// What the op is given for each row, checked.
template <class T>
struct RowTerms {
  Optional<T> stats, coef, picks;
  bool full, general;  // every statistic is there; a term other than a0 and b is wanted
  int64_t n;

  RowTerms(const Head<T>& h, const Tensor& stats_, const Tensor& row_coef, const std::optional<Tensor>& index_coef)
      : stats(stats_),
        coef(row_coef),
        picks(index_coef),
        full(row_coef.dim() == 2 && row_coef.size(0) == 6),
        general(false),
        n(h.total) {
    const bool distance = h.distance != Distance::none;
    check_tensor(h.op, "stats", stats_, {full ? 12 : distance ? 4 : 3, n}, scalar_type_of<T>);
    check_tensor(h.op, "row_coef", row_coef, {full ? 6 : 1, n}, scalar_type_of<T>);
    if (index_coef.has_value()) check_tensor(h.op, "index_coef", *index_coef, {n, h.picks}, scalar_type_of<T>);
    for (int64_t row : h.rows)
      for (int64_t k = 1; full && k < 5; ++k) general = general || a(k, row) != 0;
  }
  T stat(int64_t k, int64_t row) const { return stats.data[k * n + row]; }
  T a(int64_t k, int64_t row) const { return full || k == 0 ? coef.data[k * n + row] : T(0); }
  RowCoef<T> of(int64_t row, int64_t k) const {  // the dense part, b, is the fill's
    return {
        .lse = stat(0, row),
        .lse_low = stat(1, row),
        .lse_excl = full ? stat(3, row) : T(0),
        .lse_excl_low = full ? stat(4, row) : T(0),
        .a0 = a(0, row),
        .a1 = a(1, row),
        .a2 = a(2, row),
        .a3 = a(3, row),
        .aX = a(4, row),
        .pick = picks.data ? picks.data + row * k : nullptr};
  }
  // Sum over the whole vocabulary of the row's g without its picks, from the statistics.
  T total(int64_t row, bool curved) const {
    T sum = a(0, row) * (curved ? stat(2, row) : T(1));
    if (!general) return sum;
    sum += a(1, row) * -stat(6, row) + a(3, row) * stat(8, row);
    sum += a(2, row) * std::exp(stat(7, row) - 2 * stat(0, row));
    return sum + (stat(3, row) == -INFINITY ? T(0) : a(4, row));
  }
};

// d weight summed over the blocks, unrounded, at the columns that are live in any: in place where d weight is not
// rounded; in large pieces otherwise, which can be given back one by one while the rounded d weight comes to be.
template <class T>
class WeightSum {
 public:
  WeightSum(const Head<T>& head, const LiveColumns<T>& live, const Tensor& grad, bool wanted)
      : dim_(head.dim), place_(wanted ? head.vocab : 0, -1), in_place_(grad.scalar_type() == scalar_type_of<T>) {
    if (!wanted) return;
    const std::vector<int32_t> any = live.any();
    const int64_t count = any.size();
    per_piece_ = in_place_ ? head.vocab : ceil_div(kPieceBytes, std::max<int64_t>(1, dim_) * int64_t(sizeof(T)));
    for (int64_t i = 0; i < count; ++i) place_[any[i]] = in_place_ ? any[i] : i;
    for (int64_t i = 0; !in_place_ && i < count; i += per_piece_)
      pieces_.emplace_back(head.op, std::min(per_piece_, count - i) * dim_ * sizeof(T));
    if (in_place_) data_ = data<T>(grad);
    begun_.resize(head.vocab);
  }
  void add(int64_t v, const T* from) {
    T* to = row(v);
    if (!begun_[v]) std::copy_n(from, dim_, to);
    for (int64_t d = 0; begun_[v] && d < dim_; ++d) to[d] += from[d];
    begun_[v] = 1;
  }
  T* row(int64_t v) const {  // null where v is dead
    const int64_t at = place_[v];
    if (at < 0) return nullptr;
    return (in_place_ ? data_ : pieces_[at / per_piece_].template get<T>()) + at % per_piece_ * dim_;
  }
  void done_before(int64_t v) {  // rows below v are not asked for any more
    for (; !in_place_ && done_ < v; ++done_)
      if (place_[done_] >= 0 && place_[done_] % per_piece_ == per_piece_ - 1)
        pieces_[place_[done_] / per_piece_] = Scratch("", 0);
  }

 private:
  static constexpr int64_t kPieceBytes = 33 << 20;  // malloc gives larger than 32 MiB back at once
  const int64_t dim_;
  std::vector<int64_t> place_;
  const bool in_place_;
  int64_t per_piece_ = 1, done_ = 0;
  T* data_ = nullptr;
  std::vector<char> begun_;  // not bool, whose elements share bytes among threads
  std::vector<Scratch> pieces_;
};

template <class T>
class LiveBackward {
 public:
  LiveBackward(
      const HeadArgs& args, const Tensor& stats, const Tensor& sketch, const Tensor& row_coef,
      const std::optional<Tensor>& index_coef, double tau, bool fill, const Wanted& wanted, bool weight_grad_fp32)
      : args_(args),
        head_(args),
        rows_(head_, stats, row_coef, index_coef),
        wanted_(wanted),
        live_(head_, sketch_of(sketch), rows_.general ? std::min(tau, kGeneralTau) : tau),
        fill_(head_, live_, fill, dense()),
        grads_(grad_tensors(args, head_, wanted, head_.dtype, weight_grad_fp32 ? scalar_type_of<T> : head_.dtype)),
        input_sum_(args.op, wanted.input ? active() * head_.dim * sizeof(T) : 0),
        weight_sum_(head_, live_, grads_.weight, wanted.weight),
        columns_(args.distance && wanted.weight ? head_.vocab : 0),
        sums_(active()) {
    check(!curved() || !rows_.full, args.op, ": with softcap only lse, logits and logp have live gradients");
  }

  std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> run() {
    if (active() > 0 && head_.vocab > 0 && wanted_.any()) {
      if (wanted_.input) std::fill_n(input_sum_.template get<T>(), active() * head_.dim, T(0));
      visit();
      fill_rows();
      if (wanted_.weight || wanted_.bias) finish();
      if (wanted_.input) own_input(head_, 0, active(), sums_.data(), input_sum_.template get<T>());
      if (wanted_.input) store_rows(head_, input_sum_.template get<T>(), 0, active(), grads_.input);
      for (int64_t i = 0; wanted_.scale && i < active(); ++i) data<T>(grads_.scale)[head_.rows[i]] = sums_[i].scale;
    }
    return std::tuple_cat(grads_.tuple(), std::tuple(report()));
  }

 private:
  static constexpr double kGeneralTau = 1.0 / 4096;  // entropy and its like decay more slowly in the dead columns

  int64_t active() const { return head_.rows.size(); }
  bool curved() const { return args_.softcap > 0 || args_.distance; }
  T* column_sums() {  // d bias, or what a distance needs of the same sums
    if (wanted_.bias) return data<T>(grads_.bias);
    return columns_.empty() ? nullptr : columns_.data();
  }
  bool dense() const {
    for (int64_t row : head_.rows)
      if (rows_.a(5, row) != 0) return true;
    return false;
  }
  const c10::BFloat16* sketch_of(const Tensor& sketch) const {
    const int64_t blocks = ceil_div(head_.total, Sketch::kRows);
    Sketch::check_vocab(args_.op, head_.vocab);
    check_tensor(args_.op, "sketch", sketch, {blocks, head_.vocab}, ScalarType::BFloat16);
    check(sketch.is_contiguous(), args_.op, ": sketch must be contiguous");
    return data<c10::BFloat16>(sketch);
  }

  bool whole(int64_t block) const { return live_.share(block) == 1; }
  int64_t columns_at_a_time(int64_t rows) const {
    const int64_t per_column = head_.dim * int64_t(bytes_of(head_.dtype) + sizeof(T)) + rows * int64_t(sizeof(T));
    return std::max(kSegment, kSliceBytes / per_column / kSegment * kSegment);
  }

  // The live part of every gradient, in slices of a block's columns, or of those of neighbours where all are live.
  void visit() {
    const int64_t dim = head_.dim;
    const int64_t room = columns_at_a_time(1);
    const Scratch weight(args_.op, wanted_.weight ? std::min(room, head_.vocab) * dim * sizeof(T) : 0);
    std::vector<RowCoef<T>> coefs(kMostDense * Sketch::kRows);
    std::vector<T> bias(column_sums() ? room : 0);
    for (int64_t b = 0, next; b < live_.blocks(); b = next) {
      for (next = b + 1; next < std::min(b + kMostDense, live_.blocks()) && whole(b) && whole(next);) ++next;
      const int64_t begin = live_.begin(b), end = live_.end(next - 1), live = live_.columns(b).size();
      const int64_t most = columns_at_a_time(end - begin);
      for (int64_t i = begin; i < end; ++i) coefs[i - begin] = rows_.of(head_.rows[i], head_.picks);
      for (int64_t first = 0; first < live; first += most) {
        const int32_t* ids = live_.columns(b).data() + first;
        const int64_t count = std::min(most, live - first);
        const Columns<T> columns(args_, head_, ids, count, begin, end);
        Sweep<T> sweep(columns.head, end - begin, columns.head.segments());
        sweep.take_rows(begin, end - begin);
        std::fill(bias.begin(), bias.end(), T(0));
        GradSinks<T> out;
        if (wanted_.input) out.input = input_sum_.template get<T>() + begin * dim;
        if (wanted_.weight) out.weight = weight.get<T>();
        if (column_sums()) out.bias = bias.data();
        out.sums = sums_.data() + begin;
        out.fresh = true;
        CoefGradient<T> gradient(columns.head, begin, rows_.general, coefs.data());
        sweep.grads(0, columns.head.segments(), false, gradient, out);
        for (int64_t k = 0; column_sums() && k < count; ++k) column_sums()[ids[k]] += bias[k];
        if (!wanted_.weight) continue;
        parallel_ranges(count, [&](int64_t k0, int64_t k1) {
          for (int64_t k = k0; k < k1; ++k) weight_sum_.add(ids[k], weight.get<T>() + k * dim);
        });
      }
    }
  }

  // What each row's total says is missing, and what of the loss is dense, into the gradients that have a row each.
  void fill_rows() {
    missing_.resize(active()), dense_.resize(active());
    for (int64_t i = 0; i < active(); ++i) {
      const int64_t row = head_.rows[i];
      missing_[i] = rows_.total(row, curved()) - sums_[i].total;
      dense_[i] = rows_.a(5, row);
    }
    fill_.set_rows(missing_.data(), dense_.data());
    if (wanted_.input || wanted_.scale)
      fill_.add_input(
          wanted_.input ? input_sum_.template get<T>() : nullptr,
          wanted_.scale || args_.distance ? sums_.data() : nullptr);
  }

  // d weight and d bias: the fill and the live part added, rounded once, a few rows at a time that stay in L2.
  void finish() {
    constexpr int64_t kRows = 96;
    const int64_t dim = head_.dim, most = workers(), at_once = most * 4;
    const int64_t tile_bytes = wanted_.weight ? kRows * dim * int64_t(sizeof(T)) : 0;
    const Scratch tiles(args_.op, tile_bytes, most), points(args_.op, args_.distance ? tile_bytes : 0, most);
    const Scratch q(args_.op, fill_.q_bytes(), most), panels(args_.op, fill_.panel_bytes(), most);
    for (int64_t s0 = 0; s0 < head_.segments(); s0 += at_once) {
      parallel_items(std::min(at_once, head_.segments() - s0), most, [&](int64_t worker, int64_t item) {
        const int64_t s = s0 + item, v0 = s * kSegment, v1 = std::min(v0 + kSegment, head_.vocab);
        T *tile = tiles.get<T>(worker), bias[kSegment];
        fill_.open_segment(s, column_sums() ? bias : nullptr, q.get<T>(worker), panels.get<char>(worker));
        for (int64_t v = v0; column_sums() && v < v1; ++v) column_sums()[v] += bias[v - v0];
        for (int64_t first = v0; wanted_.weight && first < v1; first += kRows) {
          const int64_t count = std::min(kRows, v1 - first);
          fill_.weight_rows(panels.get<char>(worker), first - v0, count, tile);
          for (int64_t v = 0; v < count; ++v)
            if (const T* live = weight_sum_.row(first + v); live != nullptr)
              for (int64_t d = 0; d < dim; ++d) tile[v * dim + d] += live[d];
          if (args_.distance) head_.own_weight(first, count, columns_.data() + first, tile, points.get<T>(worker));
          round_to(tile, count * dim, grads_.weight, first * dim);
        }
      });
      if (wanted_.weight) weight_sum_.done_before(std::min((s0 + at_once) * kSegment, head_.vocab));
    }
  }

  // [4, blocks]: live share, dead mass of a row, and what says how far dlogits may be off: the square of their error,
  // at most, and of those that were visited.
  Tensor report() const {
    const int64_t blocks = ceil_div(head_.total, Sketch::kRows);
    Tensor out = zeros(args_.op, args_.input, {4, blocks}, ScalarType::Float);
    for (int64_t b = 0; b < live_.blocks(); ++b) {
      double highest = 0, square = 0;
      for (int64_t i = live_.begin(b); i < live_.end(b); ++i) {
        const double scale = head_.scale(head_.rows[i]);
        const double a = scale * rows_.a(0, head_.rows[i]) * (args_.distance ? rows_.stat(2, head_.rows[i]) : T(1));
        highest = std::max(highest, a * a), square += scale * scale * sums_[i].square;
      }
      const double values[] = {
          live_.share(b), live_.dead_mass(b) / double(live_.end(b) - live_.begin(b)), highest * live_.dead_square(b),
          square};
      for (int64_t k = 0; k < 4; ++k) data<float>(out)[k * blocks + b] = float(values[k]);
    }
    return out;
  }

  const HeadArgs& args_;
  const Head<T> head_;
  const RowTerms<T> rows_;
  const Wanted wanted_;
  const LiveColumns<T> live_;
  Fill<T> fill_;
  const GradTensors grads_;
  const Scratch input_sum_;  // [active, D]
  WeightSum<T> weight_sum_;
  std::vector<T> columns_;         // [V], of a distance: sums of g
  std::vector<GradSums<T>> sums_;  // [active], over the live columns
  std::vector<T> missing_, dense_;
};

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> run(
    const HeadArgs& args, const Tensor& stats, const Tensor& sketch, const Tensor& row_coef,
    const std::optional<Tensor>& index_coef, double tau, bool fill, const std::vector<bool>& needs_grad,
    bool weight_grad_fp32) {
  check(tau > 0 && tau < 1, args.op, ": tau must be in (0, 1), got ", tau);
  const Wanted wanted(args.op, needs_grad);
  const auto of = [&]<class T>(T) {
    return LiveBackward<T>(args, stats, sketch, row_coef, index_coef, tau, fill, wanted, weight_grad_fp32).run();
  };
  return args.input.scalar_type() == ScalarType::Double ? of(double()) : of(float());
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> linear_live_backward(
    const Tensor& input, const Tensor& linear_weight, const std::optional<Tensor>& linear_bias,
    const std::optional<Tensor>& scale, const std::optional<Tensor>& index, const std::optional<Tensor>& aux,
    const std::optional<Tensor>& active, double softcap, double margin, const Tensor& stats, const Tensor& sketch,
    const Tensor& row_coef, const std::optional<Tensor>& index_coef, double tau, bool fill,
    std::vector<bool> needs_grad, bool weight_grad_fp32) {
  const HeadArgs args{
      "linear_live_backward", input, linear_weight, linear_bias, scale, index, aux, active, softcap, margin};
  return run(args, stats, sketch, row_coef, index_coef, tau, fill, needs_grad, weight_grad_fp32);
}

std::tuple<Tensor, Tensor, Tensor> harmonic_live_backward(
    const Tensor& input, const Tensor& linear_weight, const Tensor& rows, const Tensor& columns, const Tensor& index,
    const std::optional<Tensor>& active, std::string kind, double power, const Tensor& stats, const Tensor& sketch,
    const Tensor& row_coef, const Tensor& index_coef, double tau, bool fill, std::vector<bool> needs_grad,
    bool weight_grad_fp32) {
  const std::optional<Tensor> pick_coef(index_coef);
  const PointArgs points("harmonic_live_backward", input, linear_weight, rows, columns, index, active, kind, power);
  const HeadArgs& args = points.head;
  const auto [grad_input, grad_weight, grad_bias, grad_scale, live] =
      run(args, stats, sketch, row_coef, pick_coef, tau, fill, of_points(args.op, needs_grad), weight_grad_fp32);
  return {grad_input, grad_weight, live};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(lossk, CPU, m) {
  m.impl("linear_live_backward", TORCH_BOX(&linear_live_backward));
  m.impl("harmonic_live_backward", TORCH_BOX(&harmonic_live_backward));
}

}  // namespace lossk
