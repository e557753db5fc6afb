// cuda/head/compare against plain loops in double: every kind's sums and gradients by both ways of multiplying, in
// parts of the vocabulary and bands of rows.
#include "device/kernels/compare_problem.h"
#include "device/kernels/gradient_problem.h"

namespace lossk::test {
namespace {

struct Cut {
  int columns = 256, rows = 64;
};

// One head of a call, as cuda/head/gradients.cpp and raw_logits.h have it.
template <class T>
struct SideRun {
  using Element = typename head::Planes<T>::Element;
  const HeadProblem<T>& p;
  const Path& path;
  const HeadOnDevice<T> x;
  const Cut cut;
  const int n = p.s.n, v = p.s.v, d = p.s.d, stride = std::min(cut.columns, round_up(v, 8));
  const int64_t plane = int64_t{n} * stride;
  const Buffer<float> raw, lse;
  const Buffer<Element> out;
  const Buffer<float> row_sums, unit, times, bound, sum, input, weight;
  const Buffer<float> bias{std::vector<float>(v, 0)};
  const Buffer<float> scale{std::vector<float>(n, 0)};

  SideRun(const Path& by, const HeadProblem<T>& problem, const Cut& c, const std::vector<double>& lse_of)
      : p(problem),
        path(by),
        x(problem),
        cut(c),
        raw(size_t(std::min(c.rows, n)) * stride),
        lse(in_two_floats(lse_of)),
        out(size_t(x.kPlanes) * plane),
        row_sums(size_t(ceil_div(c.columns, head::kCompareSpan)) * n),
        unit(size_t(n) + 1),
        times(size_t{1} * n),
        bound(size_t{1} * n),
        sum(size_t(n) * d),
        input(size_t(n) * d),
        weight(size_t(v) * d) {}

  static std::vector<float> in_two_floats(const std::vector<double>& x) {
    std::vector<float> two(x.begin(), x.end());
    for (const double each : x) two.push_back(static_cast<float>(each - static_cast<float>(each)));
    return two;
  }

  head::Side logits(int first, int row) const {
    const int columns = std::min(cut.columns, v - first), rows = std::min(cut.rows, n - row);
    head::Head h = x.part(first, columns);
    h.rows = rows, h.first_row = h.rows_there.before = row;
    head::Matrix a = x.input();
    a.data = static_cast<const uint16_t*>(a.data) + row * a.stride, a.rows = rows;
    head::StoreParams s{{a, x.weight(first, columns), d, 256, h.rows_there}, raw.data(), true};
    s.count = h.rows_there, s.rows = rows, s.columns = round_up(columns, 8), s.first = s.last = true;
    check(path.store(s, x.kType, head::Along::depth, head::Along::depth, nullptr), "logits");
    return {h, raw.data(), lse.data()};
  }
  bool by_units() const { return x.kType == device::Element::fp16; }
  head::SideDlogits dlogits() const {
    return {out.data(), by_units() ? unit.data() : nullptr, row_sums.data(), x.kType};
  }
  void find_units(
      Compare kind, float beta, bool by_u, const float* sums, const float* offset, const float* coef) const {
    if (!by_units()) return;
    check(
        head::compare_bounds(head::CompareBoundsParams{kind, beta, by_u, sums, offset, coef, n, bound.data()}, nullptr),
        "bounds");
    check(
        head::find_units(head::UnitParams{x.h, {}, false, unit.data(), times.data(), bound.data()}, nullptr), "units");
  }
  void add(int first) const {
    const int count = std::min(cut.columns, v - first);
    const head::Matrix by_columns = by_units() ? x.input_by_columns(times.data()) : x.input_by_columns();
    const float* by = by_units() ? unit.data() : nullptr;
    const head::Matrix w = x.weight(first, count);
    head::StoreParams to_weight{
        {{out.data(), count, stride, plane}, by_columns, n, 256, {}, x.h.rows_there},
        weight.data() + int64_t{first} * d,
        true};
    to_weight.unit = by ? by + n : nullptr, to_weight.rows = count, to_weight.columns = d;
    to_weight.first = to_weight.last = true;
    head::StoreParams to_input{
        {{out.data(), n, stride, plane}, {w.data, d, w.stride, w.plane}, count, 256, x.h.rows_there},
        input.data(),
        true,
        sum.data(),
        x.h.ids,
        x.h.rows_there,
        by,
        true,
        n,
        d,
        first == 0,
        first + count == v};
    check(path.store(to_input, x.kType, head::Along::depth, head::Along::rows, nullptr), "d input");
    check(path.store(to_weight, x.kType, head::Along::rows, head::Along::rows, nullptr), "d weight");
    check(
        head::column_sums(
            head::ColumnSumParams{out.data(), n, stride, count, x.h.rows_there, by, bias.data() + first}, x.kType,
            nullptr),
        "column_sums");
    check(
        head::add_row_sums(
            head::RowSumParams{
                row_sums.data(), ceil_div(count, head::kCompareSpan), n, x.h.ids, x.h.rows_there, by, scale.data()},
            nullptr),
        "add_row_sums");
  }
  void expect(const SideWant& want, const std::string& name) const {
    expect_close<T>(of_active(p, input.values()), want.input, name + ", d input", want.squares[0]);
    expect_close<T>(weight.values(), want.weight, name + ", d weight", want.squares[1]);
    expect_close<T>(bias.values(), want.bias, name + ", d bias", want.squares[2]);
    expect_close<T>(of_active(p, scale.values()), want.scale, name + ", d scale", want.squares[2]);
  }
};

template <class T, class U>
struct CompareRun {
  const CompareProblem<T, U>& p;
  const Cut cut;
  const SideRun<T> z;
  const SideRun<U> u;
  const bool two = of_two_heads(p.kind);
  const int n = p.z.s.n, v = p.z.s.v, segment = head::segment_of(v), segments = ceil_div(v, segment);
  const Buffer<float> offset, coef;
  const Buffer<int64_t> skip;
  const Buffer<float> lse, sums;

  CompareRun(const Path& path, const CompareProblem<T, U>& problem, const Cut& c = {})
      : p(problem),
        cut(c),
        z(path, p.z, c, p.lse_z),
        u(path, p.u, c, p.lse_u),
        offset(p.offset),
        coef(p.coef),
        skip(p.skip),
        lse(size_t{4} * n),
        sums(size_t{2} * n) {}

  template <class F>
  void for_bands(int first, const F& visit) const {
    for (int row = 0; row < n; row += cut.rows) {
      head::Compared of{};
      of.z = z.logits(first, row);
      if (two) of.u = u.logits(first, row);
      of.stride = round_up(std::min(cut.columns, v - first), 8);
      of.kind = p.kind, of.beta = static_cast<float>(p.beta), of.n = n;
      of.offset = two ? nullptr : offset.data(), of.skip = two ? nullptr : skip.data();
      visit(of);
    }
  }

  void forward() const {
    const Buffer<float> partial(size_t(segments) * n * sizeof(head::OnePassPartial) / sizeof(float));
    for (int first = 0; first < v; first += cut.columns)
      for_bands(first, [&](const head::Compared& of) {
        check(head::compare_sums(head::CompareSumsParams{of, partial.data(), segment}, nullptr), "compare_sums");
      });
    const bool known = of_probabilities(p.kind) && !in_one_pass(p.kind);
    check(
        head::merge_compared(
            head::CompareMergeParams{
                p.kind, partial.data(), segments, z.x.h, known ? z.lse.data() : nullptr, known ? u.lse.data() : nullptr,
                two ? lse.data() : nullptr, sums.data(), n},
            nullptr),
        "merge_compared");
    synchronize();
  }
  void backward() const {
    const float beta = static_cast<float>(p.beta);
    z.find_units(p.kind, beta, false, two ? sums.data() : nullptr, two ? nullptr : offset.data(), coef.data());
    if (two) u.find_units(p.kind, beta, true, sums.data(), nullptr, coef.data());
    for (int first = 0; first < v; first += cut.columns) {
      for_bands(first, [&](const head::Compared& of) {
        check(
            head::compare_dlogits(
                head::CompareDlogitsParams{
                    of, two ? sums.data() : nullptr, coef.data(), z.dlogits(), two ? u.dlogits() : head::SideDlogits{},
                    z.stride},
                nullptr),
            "compare_dlogits");
      });
      z.add(first);
      if (two) u.add(first);
    }
    synchronize();
  }

  std::string name() const { return std::string(kCompareNames[int(p.kind)]) + " of " + name_of(p.z.s); }
  void expect_sums() const {
    const std::vector<float> got = sums.values(), lses = lse.values();
    for (int i = 0; i < n; ++i) {
      if (!p.z.active[i]) {
        expect(std::isnan(got[i]) && std::isnan(got[n + i]), name() + ": wrote an ignored row");
        continue;
      }
      const double sum = of_probabilities(p.kind) ? double{got[i]} + got[n + i] : got[i];
      const double error = std::fabs(sum - p.value[i]), most = 4e-6 * (1 + p.size[i]);
      expect(
          p.value[i] == sum || error <= most,  // nan fails
          name() + ", row " + std::to_string(i) + ": " + std::to_string(sum) + ", not " + std::to_string(p.value[i]));
      if (!in_one_pass(p.kind)) continue;
      for (int k = 0; k < 2; ++k) {
        const double want = (k ? p.lse_u : p.lse_z)[i], said = double{lses[2 * k * n + i]} + lses[(2 * k + 1) * n + i];
        expect(std::fabs(said - want) <= 2e-6 * (1 + std::fabs(want)), name() + ": lse");
      }
    }
  }
  void expect_gradients() const {
    z.expect(gradients_of(p.z, p.dz), name());
    if (two) u.expect(gradients_of(p.u, p.du), name() + ", teacher");
  }
};

constexpr int kKinds = static_cast<int>(std::size(kCompareNames));
const Options kHeads[] = {
    {.picks = 0},
    {.bias = true, .picks = 0},
    {.ignored = true, .picks = 0},
    {.bias = true, .scale = true, .ignored = true, .picks = 0, .softcap = 5}};

template <class T, class U>
void check_kind(const Path& path, const Shape& s, int kind, int options) {
  const CompareProblem<T, U> p(s, Compare(kind), kHeads[options % 4], kHeads[(options + options / 4) % 4]);
  const CompareRun<T, U> run(path, p, {.columns = 256 << options / 2 % 2});
  run.forward();
  run.expect_sums();
  run.backward();
  run.expect_gradients();
}

// Every kind once, at the shapes in turn; where that is slow, one of each sort, with every tail.
template <class T, class U = T>
void check_kinds(const Path& path, int every = 1) {
  if (LOSSK_SMALL_SHAPES) {
    if (!std::is_same_v<T, Bf16>) return;
    check_kind<T, U>(path, {3, 513, 24}, int(Compare::reverse_kl), 0);
    check_kind<T, U>(path, {130, 130, 33}, int(Compare::jsd), 3);
    check_kind<T, U>(path, {1, 257, 8}, int(Compare::log_cosh), 4);
    check_kind<T, U>(path, {9, 513, 24}, int(Compare::hinge), 5);
    return;
  }
  for (int kind = 0; kind < kKinds; kind += every) check_kind<T, U>(path, kSmallShapes[(kind + 7) % 12], kind, kind);
}

void check_edges(const Path& path) {
  for (const Compare kind : {Compare::forward_kl, Compare::tvd, Compare::softplus}) {
    const CompareProblem<Bf16, Bf16> empty({0, 70, 64}, kind, kHeads[0], kHeads[0]);
    CompareRun<Bf16, Bf16>(path, empty).forward();
    CompareProblem<Bf16, Bf16> none({20, 300, 64}, kind, kHeads[2], kHeads[0]);
    none.z.active.assign(20, 0), none.u.active.assign(20, 0);
    none.solve();
    const CompareRun<Bf16, Bf16> run(path, none);
    run.forward();
    run.expect_sums();
    run.backward();
    for (const float x : run.z.weight.values()) expect(x == 0, "d weight without rows is not 0");
  }
  check_kind<Bf16, Bf16>(path, {9, 40, 0}, int(Compare::forward_kl), 1);
}

// A column that no row has: it adds nothing; one that only the weighing side has makes the divergence infinite.
void check_masked(const Path& path) {
  for (int kind = 0; kind < (LOSSK_SMALL_SHAPES ? 4 : 7); ++kind) {
    CompareProblem<Bf16, Bf16> p({5, 300, 24}, Compare(kind), kHeads[1], kHeads[1]);
    const auto mask = [&](HeadProblem<Bf16>& of, int first, int end) {
      for (int j = first; j < end; ++j) {
        of.bias[j] = -INFINITY;
        for (int i = 0; i < 5; ++i) of.z[size_t(i) * 300 + j] = of.unscaled[size_t(i) * 300 + j] = -INFINITY;
      }
    };
    mask(p.z, 0, 270), mask(p.u, 0, 270);  // a whole segment, too
    p.solve();
    const CompareRun<Bf16, Bf16> both(path, p);
    both.forward();
    both.expect_sums();
    both.backward();
    both.expect_gradients();
    if (kind > 1) continue;
    mask(kind == 0 ? p.z : p.u, 290, 291);
    p.solve();
    const CompareRun<Bf16, Bf16> one(path, p);
    one.forward();
    const std::vector<float> sums = one.sums.values();
    for (int i = 0; i < 5; ++i) expect(sums[i] + sums[5 + i] == INFINITY, "mass where the other has none is finite");
  }
}

// Neither another schedule changes a bit nor other parts and bands.
template <class T>
void check_same_bits(const Path& path) {
  random_source().seed(12);
  const CompareProblem<T, T> p({70, 530, 24}, Compare::jsd, kHeads[3], kHeads[1]);
  const auto of_cut = [&](const Cut& cut) {
    const CompareRun<T, T> run(path, p, cut);
    run.forward();
    std::vector<float> sums = run.sums.values();
    for (size_t i = 0; i < sums.size(); ++i)
      if (!p.z.active[i % 70]) sums[i] = 0;
    return sums;
  };
  const CompareRun<T, T> run(path, p);
  run.forward();
  run.backward();
  const std::vector<float> sums = of_cut({}), input = of_active(p.z, run.z.input.values());
  const std::vector<float> scale = of_active(p.z, run.z.scale.values());
  expect_equal(of_cut({.columns = 512, .rows = 128}), sums, "sums of other parts");
  static const std::vector<float> first_sums = sums, first_input = input, first_scale = scale;
  expect_equal(sums, first_sums, "sums under another schedule");
  expect_equal(input, first_input, "d input under another schedule");
  expect_equal(scale, first_scale, "d scale under another schedule");
}

LOSSK_TEST(compare_mma_bf16) { check_kinds<Bf16>(head::kMmaSync); }
LOSSK_TEST(compare_mma_fp16) { check_kinds<Fp16>(head::kMmaSync, 2); }
LOSSK_TEST(compare_mma_fp32) { check_kinds<float>(head::kMmaSync, 4); }
LOSSK_TEST(compare_mma_mixed) { check_kinds<float, Bf16>(head::kMmaSync, 5); }
LOSSK_TEST(compare_mma_edges) { check_edges(head::kMmaSync); }
LOSSK_TEST(compare_mma_masked) { check_masked(head::kMmaSync); }
LOSSK_TEST(compare_mma_same_bits) { check_same_bits<Fp16>(head::kMmaSync); }

LOSSK_TEST(compare_refuses) {
  alignas(16) float x[16] = {};
  const head::Side side{{.rows = 1, .columns = 4}, x, x};
  const head::Compared good{side, side, 4, Compare::jsd, 0.5f, nullptr, nullptr, 1};
  const auto refuses = [&](auto change) {
    head::CompareSumsParams sums{good, x, 256};
    change(sums.of);
    expect(head::compare_sums(sums, nullptr) != cudaSuccess, "accepted what it cannot sum");
    head::CompareDlogitsParams dlogits{good, x, x, {x, nullptr, nullptr, Element::bf16}, {}, 8};
    change(dlogits.of);
    expect(head::compare_dlogits(dlogits, nullptr) != cudaSuccess, "accepted what it cannot differentiate");
  };
  refuses([](auto& c) { c.stride = 6; });
  refuses([](auto& c) { c.stride = 0; });
  refuses([](auto& c) { c.z.raw = nullptr; });
  refuses([](auto& c) { ++c.u.raw; });
  refuses([](auto& c) { c.u.head.columns = 3; });
  refuses([](auto& c) { c.u.lse = nullptr; });
  refuses([](auto& c) { c.kind = Compare::hinge; });  // has an offset
  const auto refuses_dlogits = [&](auto change) {
    head::CompareDlogitsParams p{good, x, x, {x, nullptr, nullptr, Element::bf16}, {}, 8};
    change(p);
    expect(head::compare_dlogits(p, nullptr) != cudaSuccess, "accepted what it cannot write");
  };
  refuses_dlogits([](auto& p) { p.stride = 4; });
  refuses_dlogits([](auto& p) { p.z.type = Element::fp16; });  // has a unit
  refuses_dlogits([&](auto& p) { p.u = {x + 1, nullptr, nullptr, Element::bf16}; });
  refuses_dlogits([](auto& p) { p.of.z.head.first_row = p.of.u.head.first_row = 8; });
  head::CompareSumsParams sums{good, x, 256};
  sums.of.z.head.first = 128;
  expect(head::compare_sums(sums, nullptr) != cudaSuccess, "accepted a part that begins inside a segment");
}

#if LOSSK_TEST_SM90
LOSSK_TEST(compare_wgmma_bf16) { check_kinds<Bf16>(head::kWgmma, 3); }
LOSSK_TEST(compare_wgmma_fp16) { check_kinds<Fp16>(head::kWgmma, 4); }
LOSSK_TEST(compare_wgmma_fp32) { check_kinds<float>(head::kWgmma, 7); }
LOSSK_TEST(compare_wgmma_edges) { check_edges(head::kWgmma); }
LOSSK_TEST(compare_wgmma_same_bits) { check_same_bits<Bf16>(head::kWgmma); }
#endif

}  // namespace
}  // namespace lossk::test
