// cuda/head/gradient against plain loops in double: every gradient of both paths and three types, in parts of the
// vocabulary.
#include "device/kernels/gradient_problem.h"
#include "head/product/slices.h"

namespace lossk::test {
namespace {

struct Gradients {
  std::vector<float> input, weight, bias, scale;
};
struct Wanted {
  bool input = true, weight = true, scale = true, wide = false;
  int slices = 1;  // of both products' depths
};

template <class T>
Gradients run_gradient(
    const Path& path, const HeadProblem<T>& p, const GradientProblem& g, bool full, int most = 256,
    Wanted wanted = {}) {
  const HeadOnDevice<T> x(p);
  using Element = typename head::Planes<T>::Element;
  const int n = p.s.n, v = p.s.v, d = p.s.d, stride = std::min(most, round_up(v, 8));
  const int64_t plane = int64_t{n} * stride;
  const Buffer<float> lse(g.lse), lse_excl(g.lse_excl), row(g.row), pick(g.pick);
  const Buffer<Element> out(size_t(x.kPlanes) * plane);
  const Buffer<float> row_sums(size_t(path.parts) * ceil_div(most, 256) * n), unit(p.s.n + 1), times(p.s.n),
      sum(size_t(n) * d);
  const Buffer<float> slices(size_t(wanted.slices > 1 ? wanted.slices : 0) * std::max(n, std::min(most, v)) * d);
  const Buffer<T> narrow_input(size_t(n) * d), narrow_weight(size_t(v) * d);
  const Buffer<float> wide_input(size_t(n) * d), wide_weight(size_t(v) * d);
  const Buffer<float> bias(std::vector<float>(v, 0));
  const Buffer<float> scale(std::vector<float>(n, 0));
  const head::Coefs coefs{lse.data(), full ? lse_excl.data() : nullptr, row.data(), pick.data(), n};
  const float* by = x.kType == device::Element::fp16 ? unit.data() : nullptr;
  if (by) check(head::find_units(head::UnitParams{x.h, coefs, full, unit.data(), times.data()}, nullptr), "find_units");
  const head::Matrix input_by_columns = by ? x.input_by_columns(times.data()) : x.input_by_columns();
  const bool distance = p.o.distance != Distance::none, wide = wanted.wide || distance;
  for (int first = 0; first < v; first += most) {
    const int count = std::min(most, v - first);
    const head::Matrix weight = x.weight(first, count);
    check(
        path.dlogits(
            head::DlogitsParams{
                {x.input(), weight, d, 256, x.h.rows_there},
                x.part(first, count),
                coefs,
                by,
                out.data(),
                stride,
                wanted.scale ? row_sums.data() : nullptr},
            x.kType, full, nullptr),
        "dlogits");
    if (wanted.weight)
      check(
          path.store(
              head::StoreParams{
                  {.a = {out.data(), count, stride, plane},
                   .b = input_by_columns,
                   .depth = n,
                   .span = 256,
                   .depth_there = x.h.rows_there,
                   .slices = wanted.slices},
                  wide ? static_cast<void*>(wide_weight.data() + int64_t{first} * d)
                       : narrow_weight.data() + int64_t{first} * d,
                  wide,
                  nullptr,
                  nullptr,
                  {},
                  by ? by + n : nullptr,
                  false,
                  count,
                  d,
                  true,
                  true,
                  false,
                  0,
                  nullptr,
                  slices.data()},
              x.kType, head::Along::rows, head::Along::rows, nullptr),
          "d weight");
    check(
        head::column_sums(
            head::ColumnSumParams{out.data(), n, stride, count, x.h.rows_there, by, bias.data() + first}, x.kType,
            nullptr),
        "column_sums");
    if (wanted.scale)
      check(
          head::add_row_sums(
              head::RowSumParams{
                  row_sums.data(), path.parts * ceil_div(count, 256), n, distance ? nullptr : x.h.ids, x.h.rows_there,
                  by, scale.data()},
              nullptr),
          "add_row_sums");
    if (wanted.input)
      check(
          path.store(
              head::StoreParams{
                  {.a = {out.data(), n, stride, plane},
                   .b = {weight.data, d, weight.stride, weight.plane},
                   .depth = count,
                   .span = 256,
                   .rows_there = x.h.rows_there,
                   .slices = wanted.slices},
                  wide ? static_cast<void*>(wide_input.data()) : narrow_input.data(),
                  wide,
                  sum.data(),
                  distance ? nullptr : x.h.ids,
                  x.h.rows_there,
                  by,
                  true,
                  n,
                  d,
                  first == 0,
                  first + count == v,
                  false,
                  0,
                  nullptr,
                  slices.data()},
              x.kType, head::Along::depth, head::Along::rows, nullptr),
          "d input");
  }
  const Buffer<float> own_input(size_t(n) * d), own_weight(size_t(v) * d);
  const auto result = [&](const Buffer<float>& wide_out, const Buffer<T>& narrow_out) {
    return wanted.wide ? static_cast<void*>(wide_out.data()) : narrow_out.data();
  };
  if (distance) {
    void *to_input = result(own_input, narrow_input), *to_weight = result(own_weight, narrow_weight);
    take_off_own(x, wide_input.data(), scale.data(), x.input(), n, x.h.ids, x.h.rows_there, to_input, wanted.wide);
    take_off_own(x, wide_weight.data(), bias.data(), x.weight(0, v), v, nullptr, {}, to_weight, wanted.wide);
  }
  synchronize();
  if (distance && wanted.wide) return {own_input.values(), own_weight.values(), bias.values(), scale.values()};
  return {
      wanted.wide ? wide_input.values() : to_floats(narrow_input.values()),
      wanted.wide ? wide_weight.values() : to_floats(narrow_weight.values()), bias.values(), scale.values()};
}

template <class T>
void check_gradients(const Path& path, const Shape& s, const Options& o, bool full, Wanted wanted = {}) {
  const HeadProblem<T> p(s, o);
  const GradientProblem want(p, full);
  const Gradients got = run_gradient(path, p, want, full, 256, wanted);
  const auto close = [&](const std::vector<float>& is, const std::vector<double>& right, const char* what, double by) {
    expect_gradient<T>(o, is, right, what + (" of " + name_of(s)), by, 1e-5);
  };
  close(of_active(p, got.input), want.input, "d input", want.squares[0]);
  close(got.weight, want.weight, "d weight", want.squares[1]);
  close(got.bias, want.bias, "d bias", want.squares[2]);
  if (wanted.scale && o.distance == Distance::none)
    expect_close<T>(of_active(p, got.scale), want.scale, "d scale of " + name_of(s));
}

template <class T>
void check_shapes(const Path& path) {
  for (int i = 0; i < 12; ++i) {
    if (left_out<T>(i)) continue;
    const Shape& s = shapes<T>()[i];
    const Options& o = kSome[i % 6];
    check_gradients<T>(path, s, o, i % 2 == 0, {.scale = o.scale});  // without: the plain epilogue
    check_gradients<T>(path, s, kSome[(i + 2) % 6], i % 2 == 1, {.wide = i % 3 == 0, .slices = 1 + i % 4});
  }
}

constexpr Distance kDistances[] = {Distance::euclidean, Distance::hamming, Distance::cosine};

template <class T>
void check_distances(const Path& path) {
  for (int i = 0; i < 12; ++i) {
    if (left_out<T>(i)) continue;
    const Options o{.ignored = i % 2 == 0, .distance = kDistances[i % 3], .power = 2.5f};
    check_gradients<T>(path, shapes<T>()[i], o, false, {.wide = i % 4 == 0});
  }
}

void check_edges(const Path& path) {
  check_gradients<Bf16>(path, {0, 70, 64}, kPlain, false);
  check_gradients<Bf16>(path, {20, 70, 0}, {.bias = true}, false);
  HeadProblem<Bf16> none({20, 300, 64}, {.ignored = true});
  none.active.assign(20, 0);
  const GradientProblem nothing(none, false);
  for (const float x : run_gradient(path, none, nothing, false).weight)
    expect(x == 0, "d weight without rows is not 0");
}

// dlogits that are below what float16 holds: a unit lifts them.
void check_small(const Path& path) {
  const HeadProblem<Fp16> p({40, 300, 64});
  GradientProblem small(p, false), large = small;
  for (std::vector<float>* coefs : {&small.row, &small.pick})
    for (float& c : *coefs) c *= 0x1p-20f;
  const auto tiny = run_gradient(path, p, small, false, 256, {.wide = true});
  const auto usual = run_gradient(path, p, large, false, 256, {.wide = true});
  for (size_t i = 0; i < tiny.weight.size(); ++i)
    expect(
        std::fabs(tiny.weight[i] * 0x1p20f - usual.weight[i]) <= 1e-6f * std::fabs(usual.weight[i]),
        "small dlogits of float16 lost bits");
}

template <class T>
void check_same_bits(const Path& path) {
  random_source().seed(9);
  const HeadProblem<T> p({140, 300, 136}, {.bias = true, .scale = true, .ignored = true});
  const GradientProblem g(p, false);
  Gradients got = run_gradient(path, p, g, false);
  got.input = of_active(p, got.input), got.scale = of_active(p, got.scale);
  static const Gradients first_seen = got;
  expect_equal(got.input, first_seen.input, "d input under another schedule");
  expect_equal(got.weight, first_seen.weight, "d weight under another schedule");
  expect_equal(got.bias, first_seen.bias, "d bias under another schedule");
  expect_equal(got.scale, first_seen.scale, "d scale under another schedule");
}

LOSSK_TEST(gradient_mma_bf16) { check_shapes<Bf16>(head::kMmaSync); }
LOSSK_TEST(gradient_mma_fp16) { check_shapes<Fp16>(head::kMmaSync); }
LOSSK_TEST(gradient_mma_fp32) { check_shapes<float>(head::kMmaSync); }
LOSSK_TEST(harmonic_gradient_mma_bf16) { check_distances<Bf16>(head::kMmaSync); }
LOSSK_TEST(harmonic_gradient_mma_fp16) { check_distances<Fp16>(head::kMmaSync); }
LOSSK_TEST(harmonic_gradient_mma_fp32) { check_distances<float>(head::kMmaSync); }
LOSSK_TEST(gradient_mma_edges) { check_edges(head::kMmaSync); }
LOSSK_TEST(gradient_mma_small_fp16) { check_small(head::kMmaSync); }
LOSSK_TEST(gradient_mma_same_bits) { check_same_bits<Bf16>(head::kMmaSync); }

LOSSK_TEST(gradient_refuses) {
  alignas(16) float out[4] = {};
  const head::Matrix matrix{out, 0, 8, 0};
  const head::DlogitsParams good{{matrix, {out, 4, 8, 0}, 8, 256}, {.columns = 4}, {}, nullptr, out, 8, nullptr};
  expect(head::dlogits(good, Element::bf16, false, nullptr) == cudaSuccess, "refused an empty batch");
  const auto refuses = [&](auto change) {
    head::DlogitsParams p = good;
    change(p);
    expect(head::dlogits(p, Element::bf16, false, nullptr) != cudaSuccess, "accepted what it cannot do");
  };
  refuses([](auto& p) { p.stride = 12; });
  refuses([](auto& p) { p.head.columns = 9; });
  refuses([](auto& p) { p.product.span = 0; });
  refuses([](auto& p) { p.out = static_cast<char*>(p.out) + 8; });
  const head::StoreParams store{{matrix, {out, 4, 8, 0}, 8, 256}, out};
  expect(
      head::store(store, Element::tf32, head::Along::depth, head::Along::rows, nullptr) != cudaSuccess,
      "accepted tf32");
  head::StoreParams off = store;
  off.out = static_cast<char*>(off.out) + 8;
  expect(
      head::store(off, Element::bf16, head::Along::depth, head::Along::rows, nullptr) != cudaSuccess,
      "accepted a misaligned result");
  const auto refuses_slices = [&](auto change) {
    head::StoreParams p = store;
    p.product.slices = 2, p.slices = out;
    change(p);
    expect(
        head::store(p, Element::bf16, head::Along::depth, head::Along::rows, nullptr) != cudaSuccess,
        "accepted slices that it cannot do");
  };
  refuses_slices([](auto& p) { p.slices = nullptr; });
  refuses_slices([](auto& p) { p.product.slices = 0; });
  refuses_slices([](auto& p) { p.product.slices = head::kMostSlices + 1; });
  refuses_slices([](auto& p) { p.product.only_with_depth = true; });
  refuses_slices([&](auto& p) { p.count.there = reinterpret_cast<const int*>(out); });
  refuses([](auto& p) { p.product.slices = 2; });
}

#ifndef __CUDACC__
LOSSK_TEST(gradient_mma_bank_conflicts) {
  emulator::counters = {};
  const HeadProblem<Bf16> p({128, 128, 128});
  run_gradient(head::kMmaSync, p, GradientProblem(p, false), false);
  expect(emulator::counters.matrices > 0 && emulator::counters.bank_conflicts == 0, "ldmatrix meets bank conflicts");
}
#endif

#if LOSSK_TEST_SM90
LOSSK_TEST(harmonic_gradient_wgmma_bf16) { check_distances<Bf16>(head::kWgmma); }
LOSSK_TEST(harmonic_gradient_wgmma_fp16) { check_distances<Fp16>(head::kWgmma); }
LOSSK_TEST(harmonic_gradient_wgmma_fp32) { check_distances<float>(head::kWgmma); }
LOSSK_TEST(gradient_wgmma_bf16) { check_shapes<Bf16>(head::kWgmma); }
LOSSK_TEST(gradient_wgmma_fp16) { check_shapes<Fp16>(head::kWgmma); }
LOSSK_TEST(gradient_wgmma_fp32) { check_shapes<float>(head::kWgmma); }
LOSSK_TEST(gradient_wgmma_edges) { check_edges(head::kWgmma); }
LOSSK_TEST(gradient_wgmma_small_fp16) { check_small(head::kWgmma); }
LOSSK_TEST(gradient_wgmma_same_bits) { check_same_bits<Fp16>(head::kWgmma); }
#endif

}  // namespace
}  // namespace lossk::test
