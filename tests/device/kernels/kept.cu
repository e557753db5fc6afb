// cuda/head/kept against plain loops in double: the statistics that keep their logits, and the gradients made of those,
// a band of rows at a time.
#include "device/kernels/gradient_problem.h"
#include "head/kept/params.h"

namespace lossk::test {
namespace {

constexpr int kBand = 64;

struct Kept {
  std::vector<float> lse, input, weight, bias, scale;
};

// As cuda/head/cce.cpp does it. Coefficients are the problem's: what a loss makes of the statistics is not looked at.
template <class T>
Kept run_kept(const Path& path, const HeadProblem<T>& p, const GradientProblem& g, bool full) {
  const HeadOnDevice<T> x(p);
  const int n = p.s.n, v = p.s.v, d = p.s.d, stride = round_up(v, 8), most = std::min(kBand, n);
  const int segment = head::segment_of(v), parts = path.parts * ceil_div(v, segment);
  const int spans = ceil_div(v, head::kKeptSpan);
  const Buffer<float> partial(size_t(parts) * most * sizeof(RowState<float>) / sizeof(float));
  const Buffer<float> stats(size_t(full ? 12 : 3) * n), picks(p.index.size()), logp(p.index.size());
  const Buffer<int64_t> argmax(size_t{1} * n);
  const Buffer<double> aux_sum(size_t{1});
  check(head::sum_aux(head::AuxParams{x.h.aux, v, aux_sum.data()}, nullptr), "sum_aux");
  const Buffer<float> kept(size_t(most) * stride), lse(g.lse), lse_excl(g.lse_excl), row(g.row), pick(g.pick);
  const Buffer<T> out(size_t(most) * stride);
  const Buffer<float> row_sums(size_t(spans) * most), unit(size_t(most) + 1), times(size_t{1} * most);
  const Buffer<float> input(size_t(n) * d), weight(size_t(v) * d), bias(std::vector<float>(v, 0));
  const Buffer<float> scale(std::vector<float>(n, 0));
  const Buffer<T> multiplied(size_t(most) * x.padded());
  const head::Coefs coefs{lse.data(), full ? lse_excl.data() : nullptr, row.data(), pick.data(), n};
  const bool by_units = x.kType == device::Element::fp16;
  const float* by = by_units ? unit.data() : nullptr;
  const head::Matrix all = x.weight(0, v);
  for (int first = 0; first < n; first += most) {
    const int rows = std::min(most, n - first);
    head::Head h = x.h;
    h.rows = rows, h.first_row = h.rows_there.before = first;
    head::Matrix a = x.input();
    a.data = static_cast<const uint16_t*>(a.data) + first * a.stride, a.rows = rows;
    const head::KeptParams logits{kept.data(), stride};
    check(
        path.keep_logits(
            head::StatsParams{{a, all, d, segment, h.rows_there}, h, partial.data(), picks.data(), 0, {}, logits},
            x.kType, full, nullptr),
        "keep_logits");
    check(
        head::merge_stats(
            head::MergeParams{
                partial.data(), parts, h, n, x.index(), aux_sum.data(), stats.data(), picks.data(), logp.data(),
                argmax.data()},
            full, nullptr),
        "merge_stats");
    head::Matrix by_columns{a.data, d, a.stride, 0};
    if (by_units) {
      check(head::find_units(head::UnitParams{h, coefs, full, unit.data(), times.data()}, nullptr), "find_units");
      by_columns = x.input_by_columns(times.data(), multiplied.data(), first, rows);
    }
    const int* ids = x.h.ids ? x.h.ids + first : nullptr;
    check(
        head::kept_dlogits(
            head::KeptDlogitsParams{head::DlogitsParams{{}, h, coefs, by, out.data(), stride, row_sums.data()}, logits},
            x.kType, full, nullptr),
        "kept_dlogits");
    check(
        path.store(
            head::StoreParams{
                {{out.data(), v, stride, 0}, by_columns, rows, 256, {}, h.rows_there, {}, first > 0},
                weight.data(),
                true,
                weight.data(),
                nullptr,
                {},
                by ? by + rows : nullptr,
                false,
                v,
                d,
                first == 0,
                true},
            x.kType, head::Along::rows, head::Along::rows, nullptr),
        "d weight");
    check(
        head::column_sums(
            head::ColumnSumParams{out.data(), rows, stride, v, h.rows_there, by, bias.data()}, x.kType, nullptr),
        "column_sums");
    check(
        head::add_row_sums(
            head::RowSumParams{row_sums.data(), spans, rows, ids, h.rows_there, by, scale.data() + (ids ? 0 : first)},
            nullptr),
        "add_row_sums");
    check(
        path.store(
            head::StoreParams{
                {{out.data(), rows, stride, 0}, {all.data, d, all.stride, 0}, v, 256, h.rows_there},
                input.data() + (ids ? 0 : int64_t{first} * d),
                true,
                nullptr,
                ids,
                h.rows_there,
                by,
                true,
                rows,
                d,
                true,
                true},
            x.kType, head::Along::depth, head::Along::rows, nullptr),
        "d input");
  }
  synchronize();
  return {stats.values(), input.values(), weight.values(), bias.values(), scale.values()};
}

template <class T>
void check_kept(const Path& path, Shape s, const Options& o, bool full) {
  s.d = round_up(s.d, 8);  // the others are recomputed
  const HeadProblem<T> p(s, o);
  const GradientProblem want(p, full);
  const Kept got = run_kept(path, p, want, full);
  for (int i = 0; i < s.n; ++i)
    expect(
        !p.active[i] || std::fabs(got.lse[i] - p.stats[i].lse) <= 2e-6 * (10 + std::fabs(p.stats[i].lse)),
        "lse of row " + std::to_string(i) + " of " + name_of(s));
  expect_close<T>(of_active(p, got.input), want.input, "d input of " + name_of(s), want.squares[0]);
  expect_close<T>(got.weight, want.weight, "d weight of " + name_of(s), want.squares[1]);
  expect_close<T>(got.bias, want.bias, "d bias of " + name_of(s), want.squares[2]);
  expect_close<T>(of_active(p, got.scale), want.scale, "d scale of " + name_of(s), want.squares[2]);
}

template <class T>
void check_shapes(const Path& path) {
  for (int i = 0; i < 12; ++i)
    if (!LOSSK_SMALL_SHAPES || i % 3 == 2) check_kept<T>(path, kSmallShapes[i], kSome[(i + i / 6) % 6], i % 2 == 1);
}

template <class T>
void check_same_bits(const Path& path) {
  random_source().seed(11);
  const HeadProblem<T> p({140, 300, 72}, {.bias = true, .ignored = true});
  const GradientProblem g(p, false);
  Kept got = run_kept(path, p, g, false);
  got.input = of_active(p, got.input);
  static const Kept first_seen = got;
  expect_equal(got.input, first_seen.input, "d input of kept logits under another schedule");
  expect_equal(got.weight, first_seen.weight, "d weight of kept logits under another schedule");
}

LOSSK_TEST(kept_mma_bf16) { check_shapes<Bf16>(head::kMmaSync); }
LOSSK_TEST(kept_mma_fp16) { check_shapes<Fp16>(head::kMmaSync); }
LOSSK_TEST(kept_mma_same_bits) { check_same_bits<Fp16>(head::kMmaSync); }

LOSSK_TEST(kept_refuses) {
  alignas(16) float out[16] = {};
  const head::Head h{.rows = 1, .columns = 4};
  const head::KeptDlogitsParams good{head::DlogitsParams{{}, h, {}, nullptr, out, 8, nullptr}, {out, 4}};
  const auto refuses = [&](Element type, auto change) {
    head::KeptDlogitsParams p = good;
    change(p);
    expect(head::kept_dlogits(p, type, false, nullptr) != cudaSuccess, "accepted what it cannot do");
  };
  refuses(Element::fp32, [](auto&) {});
  refuses(Element::fp16, [](auto&) {});  // has a unit
  refuses(Element::bf16, [](auto& p) { p.kept.stride = 2; });
  refuses(Element::bf16, [](auto& p) { p.dlogits.stride = 12; });
}

#if LOSSK_TEST_SM90
LOSSK_TEST(kept_wgmma_bf16) { check_shapes<Bf16>(head::kWgmma); }
LOSSK_TEST(kept_wgmma_fp16) { check_shapes<Fp16>(head::kWgmma); }
LOSSK_TEST(kept_wgmma_same_bits) { check_same_bits<Bf16>(head::kWgmma); }
#endif

}  // namespace
}  // namespace lossk::test
