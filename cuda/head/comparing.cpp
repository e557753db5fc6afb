#include "head/comparing.h"

namespace lossk::head {

using device::Element;

namespace {

// The raw logits of both sides, a part of the vocabulary times a band of rows at a time.
class Both {
 public:
  Both(const Comparing& c, const Cut& cut) : c_(c), cut_(cut), z_(c.z, cut) {
    if (c.u) u_.emplace(*c.u, cut);
  }

  // visit(compared) for each band of the part that begins at `first`. The part's weights stay good.
  template <class F>
  void for_bands(int first, const F& visit) {
    const int columns = std::min(cut_.columns, c_.z.v - first);
    weight_z = c_.z.weight(first, columns);
    if (c_.u) weight_u = c_.u->weight(first, columns);
    for (int row = 0; row < c_.z.n; row += cut_.rows) {
      const int rows = std::min(cut_.rows, c_.z.n - row);
      visit(
          Compared{
              .z = z_.make(weight_z, first, row, rows, c_.lse_z),
              .u = c_.u ? u_->make(weight_u, first, row, rows, c_.lse_u) : Side{},
              .stride = RawLogits::stride(columns),
              .kind = c_.kind,
              .beta = c_.beta,
              .offset = c_.offset,
              .skip = c_.skip,
              .n = c_.z.n});
    }
  }

  Matrix weight_z{}, weight_u{};

 private:
  const Comparing& c_;
  const Cut cut_;
  const RawLogits z_;
  std::optional<RawLogits> u_;
};

// One side of a backward.
class SideBackward {
 public:
  SideBackward(
      Operands& x, const Comparing& c, bool by_u, const float* sums, const float* coef, const SideGradients& g,
      int most)
      : x_(x), products_(x, g.wanted, g.grads, most, ceil_div(most, kCompareSpan)) {
    if (x.type != Element::fp16) return;
    Tensor bound = x.scratch({x.n}, ScalarType::Float);
    x.run(compare_bounds({c.kind, c.beta, by_u, sums, c.offset, coef, x.n, data<float>(bound)}, x.device.stream));
    products_.find_units({}, false, data<float>(bound));
  }

  SideDlogits dlogits() const { return {products_.room().dlogits, products_.unit(), products_.row_sums(), x_.type}; }
  int stride() const { return products_.room().stride; }
  void add(int first, const Matrix& weight) { products_.add(first, weight, ceil_div(weight.rows, kCompareSpan)); }

 private:
  Operands& x_;
  FromDlogits products_;
};

}  // namespace

void compare_logits(const Comparing& c, float* lse, float* sums) {
  const Operands& z = c.z;
  const int segment = segment_of(z.v), segments = ceil_div(z.v, segment);
  const int most = std::min(z.most_columns(segment), c.u ? c.u->most_columns(segment) : INT_MAX);
  const Cut cut = cut_logits(z, segment, most, c.u ? 2 : 1);
  Both logits(c, cut);
  const int64_t floats = (in_one_pass(c.kind) ? sizeof(OnePassPartial) : sizeof(TwoSums)) / sizeof(float);
  Tensor partial = z.scratch({segments, z.n, floats}, ScalarType::Float);
  for (int first = 0; first < z.v; first += cut.columns)
    logits.for_bands(
        first, [&](const Compared& of) { z.run(compare_sums({of, partial.data_ptr(), segment}, z.device.stream)); });
  z.run(merge_compared(
      {.kind = c.kind,
       .partial = partial.data_ptr(),
       .segments = segments,
       .head = z.head,
       .lse_z = c.lse_z,
       .lse_u = c.lse_u,
       .lse = lse,
       .sums = sums,
       .n = z.n},
      z.device.stream));
}

void compare_backward(
    const Comparing& c, const float* sums, const float* coef, const SideGradients& of_z, const SideGradients* of_u) {
  Operands& z = c.z;
  const bool by_z = of_z.wanted.any(), by_u = c.u && of_u->wanted.any();
  if (z.n == 0 || z.v == 0 || (!by_z && !by_u)) return;
  // A half for dlogits, a half for the logits that they are made of.
  const int64_t half = kWorkspaceBytes / 2, each = half / (by_z + by_u);
  int most = by_z ? columns_at_a_time(z, each) : z.most_columns(kSpan);
  if (c.u) most = std::min(most, by_u ? columns_at_a_time(*c.u, each) : c.u->most_columns(kSpan));
  most = static_cast<int>(std::min<int64_t>(most, kMostPartColumns));
  std::optional<SideBackward> z_side, u_side;
  if (by_z) z_side.emplace(z, c, false, sums, coef, of_z, most);
  else z.lay_out_input();
  if (by_u) u_side.emplace(*c.u, c, true, sums, coef, *of_u, most);
  else if (c.u) c.u->lay_out_input();
  Both logits(c, cut_rows(z, most, c.u ? 2 : 1, half));
  for (int first = 0; first < z.v; first += most) {
    logits.for_bands(first, [&](const Compared& of) {
      z.run(compare_dlogits(
          {.of = of,
           .sums = sums,
           .coef = coef,
           .z = by_z ? z_side->dlogits() : SideDlogits{},
           .u = by_u ? u_side->dlogits() : SideDlogits{},
           .stride = (by_z ? z_side : u_side)->stride()},
          z.device.stream));
    });
    if (by_z) z_side->add(first, logits.weight_z);
    if (by_u) u_side->add(first, logits.weight_u);
  }
}

}  // namespace lossk::head
