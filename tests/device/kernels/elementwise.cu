// cuda/head/elementwise against plain loops in double: every kind's distances, sums and gradients.
#include <cmath>

#include "common/math.h"
#include "device/kernels/head_problem.h"
#include "head/elementwise/params.h"
#include "head/rows/params.h"

namespace lossk::test {
namespace {

struct Kind {
  ElementDistance kind;
  float p;
};
constexpr Kind kKinds[] = {
    {ElementDistance::manhattan, 1},
    {ElementDistance::bray_curtis, 1},
    {ElementDistance::bray_curtis_standard, 0.5f},
    {ElementDistance::chebyshev, 1},
    {ElementDistance::smooth_chebyshev, 3},
    {ElementDistance::minkowski, 2.7f},
    {ElementDistance::canberra, 0.01f},
    {ElementDistance::canberra_robust, 0.5f},
    {ElementDistance::canberra_weighted, 2},
    {ElementDistance::minkowski, 1.5f},
    {ElementDistance::minkowski, 2},
    {ElementDistance::minkowski, 3},
    {ElementDistance::minkowski, 4},
};
constexpr int kKindCount = std::size(kKinds);

std::string name_of(const Kind& k) {
  return std::string(kElementDistanceNames[int(k.kind)]) + " " + std::to_string(k.p);
}

double sgn(double x) { return (x > 0) - (x < 0); }

// A pair's distance, before it is divided, and its slopes by x; by w they are those of (w, x).
double distance_of(const Kind& k, int d, const float* x, const float* w, double* slope) {
  const double p = k.p;
  double sum = 0, weights = 0, most = 0;
  int place = 0;
  for (int i = 0; i < d; ++i) {
    const double delta = std::fabs(double{x[i]} - w[i]), s = std::fabs(x[i]) + std::fabs(w[i]);
    if (delta > most) most = delta, place = i;
    switch (k.kind) {
      case ElementDistance::smooth_chebyshev: sum += std::exp(p * delta); break;
      case ElementDistance::minkowski: sum += std::pow(delta, p); break;
      case ElementDistance::canberra: sum += delta / (s + p); break;
      case ElementDistance::canberra_robust: sum += delta / std::fmax(s, p); break;
      case ElementDistance::canberra_weighted:
        sum += delta * std::pow(s + 1e-4, p - 1), weights += std::pow(s + 1e-4, p);
        break;
      default: sum += delta;
    }
  }
  double result = sum;
  if (k.kind == ElementDistance::chebyshev) result = most;
  if (k.kind == ElementDistance::smooth_chebyshev) result = std::log(sum) / p;
  if (k.kind == ElementDistance::minkowski) result = std::pow(sum, 1 / p);
  if (k.kind == ElementDistance::canberra_weighted) result = sum / weights;
  for (int i = 0; slope && i < d; ++i) {
    const double delta = double{x[i]} - w[i], size = std::fabs(delta), s = std::fabs(x[i]) + std::fabs(w[i]);
    switch (k.kind) {
      case ElementDistance::chebyshev: slope[i] = i == place ? sgn(delta) : 0; break;
      case ElementDistance::smooth_chebyshev: slope[i] = sgn(delta) * std::exp(p * size) / sum; break;
      case ElementDistance::minkowski:
        slope[i] = size == 0 ? 0 : sgn(delta) * std::pow(size, p - 1) * std::pow(result, 1 - p);
        break;
      case ElementDistance::canberra: slope[i] = sgn(delta) / (s + p) - sgn(x[i]) * size / (s + p) / (s + p); break;
      case ElementDistance::canberra_robust:
        slope[i] = s < p ? sgn(delta) / p : sgn(delta) / s - sgn(x[i]) * size / s / s;
        break;
      case ElementDistance::canberra_weighted: {
        const double t = s + 1e-4, by = std::pow(t, p - 1) / weights;
        slope[i] = by * (sgn(delta) + sgn(x[i]) * ((p - 1) * size / t - p * result));
        break;
      }
      default: slope[i] = sgn(delta);
    }
  }
  return result;
}

// S and its slope by row_term + column_term; 1 and 0 where the kind is not divided.
double divisor(const Kind& k, double terms, double& slope) {
  slope = k.kind == ElementDistance::bray_curtis;
  if (k.kind == ElementDistance::bray_curtis) return terms;
  if (k.kind != ElementDistance::bray_curtis_standard) return 1;
  const double size = std::fabs(terms) + k.p, least = 10 * double{k.p};
  slope = size >= least ? sgn(terms) : 0;
  return std::fmax(size, least);
}

// dL/dz = a p + b.
template <class T>
struct ElementProblem {
  Kind kind;
  Shape s;
  float power, eps = 1e-4f;
  std::vector<T> input, weight;
  std::vector<float> row_term, column_term, row_coef;  // [2, n]
  std::vector<int64_t> target;
  std::vector<uint8_t> active;
  std::vector<double> stats;                                             // [4, n]
  std::vector<double> grad_input, grad_weight, grad_rows, grad_columns;  // unrounded

  ElementProblem(const Kind& k, const Shape& shape, bool ignored, float power = 3, bool integers = false)
      : kind(k),
        s(shape),
        power(power),
        input(integers ? random_integers<T>(size_t(s.n) * s.d, -2, 2) : random_matrix<T>(size_t(s.n) * s.d, 1)),
        weight(integers ? random_integers<T>(size_t(s.v) * s.d, -2, 2) : random_matrix<T>(size_t(s.v) * s.d, 1)),
        row_coef(random_matrix<float>(2 * size_t(s.n), 1)),
        target(s.n),
        active(s.n, 1),
        stats(4 * size_t(s.n), NAN),
        grad_input(input.size()),
        grad_weight(weight.size()),
        grad_rows(s.n),
        grad_columns(s.v) {
    for (int64_t& y : target) y = random_integer(0, s.v - 1);
    for (uint8_t& a : active) a = !ignored || random_integer(0, 3) > 0;
    if (ignored && s.n > 1) active[0] = 0;
    for (int i = 0; i < s.n; ++i) row_coef[s.n + i] /= static_cast<float>(8 * s.v);
    const std::vector<float> x = to_floats(input), w = to_floats(weight);
    if (is_divided(kind.kind)) {
      row_term = term_of(x, s.n), column_term = term_of(w, s.v);
    }
    for (int i = 0; i < s.n; ++i)
      if (active[i]) solve(i, x.data() + int64_t{i} * s.d, w.data());
    for (int i = 0; i < s.n; ++i) {
      if (active[i]) continue;
      for (int k = 0; k < s.d; ++k) input[int64_t{i} * s.d + k] = from_float<T>(NAN);  // nobody may look
      target[i] = -100;
    }
  }

 private:
  // Sums of coordinates, as the kinds have them; the standard kind's may be negative.
  std::vector<float> term_of(const std::vector<float>& points, int count) const {
    const bool standard = kind.kind == ElementDistance::bray_curtis_standard;
    std::vector<float> result(count, standard ? 0 : 0.5f);
    for (int i = 0; i < count; ++i)
      for (int k = 0; k < s.d; ++k) {
        const float x = points[int64_t{i} * s.d + k];
        result[i] += standard ? x : std::fabs(x);
      }
    return result;
  }

  void solve(int row, const float* x, const float* w) {
    std::vector<double> d(s.v), raw(s.v), z(s.v), slope(size_t(s.v) * s.d), back(slope.size());
    const auto terms = [&](int v) { return row_term.empty() ? 0 : double{row_term[row]} + column_term[v]; };
    double by = 0;
    for (int v = 0; v < s.v; ++v) {
      raw[v] = distance_of(kind, s.d, x, w + int64_t{v} * s.d, slope.data() + int64_t{v} * s.d);
      distance_of(kind, s.d, w + int64_t{v} * s.d, x, back.data() + int64_t{v} * s.d);
      d[v] = raw[v] / divisor(kind, terms(v), by);
    }
    const int y = static_cast<int>(target[row]);
    const double at_target = d[y] * d[y] + eps, a = row_coef[row], b = row_coef[s.n + row];
    double sum = 0, total = 0;
    for (int v = 0; v < s.v; ++v) {
      z[v] = -double{power} * std::log((d[v] * d[v] + eps) / at_target);
      sum += std::exp(z[v]), total += z[v];
    }
    const double lse = std::log(sum);
    stats[row] = lse, stats[s.n + row] = total, stats[2 * s.n + row] = d[y];
    double of_target = 0;
    std::vector<double> by_d(s.v);
    for (int v = 0; v < s.v; ++v) {
      const double by_z = a * std::exp(z[v] - lse) + b;
      by_d[v] = -2 * double{power} * by_z * d[v] / (d[v] * d[v] + eps);
      if (v != y) of_target += by_z;
    }
    by_d[y] = 2 * double{power} * d[y] / at_target * of_target;  // through every other's z
    for (int v = 0; v < s.v; ++v) {
      double by_terms = 0;
      const double of = divisor(kind, terms(v), by_terms), g = by_d[v] / of;
      for (int k = 0; k < s.d; ++k) {
        grad_input[int64_t{row} * s.d + k] += g * slope[int64_t{v} * s.d + k];
        grad_weight[int64_t{v} * s.d + k] += g * back[int64_t{v} * s.d + k];
      }
      grad_rows[row] -= g * d[v] * by_terms, grad_columns[v] -= g * d[v] * by_terms;
    }
  }
};

struct Cut {
  int columns = 256, rows = 64;  // of a part and a band
};

struct Results {
  std::vector<float> stats, input, weight, rows, columns;
};

template <class T>
Results run_elementwise(const ElementProblem<T>& p, const Cut& cut = {}, bool wide = false) {
  const int n = p.s.n, v = p.s.v, d = p.s.d;
  const Buffer<T> input(p.input), weight(p.weight);
  const Buffer<float> row_term(p.row_term), column_term(p.column_term), row_coef(p.row_coef);
  const Buffer<int64_t> target(p.target);
  const Buffer<uint8_t> active(p.active);
  const Buffer<int> ids(size_t(1) * n), count(size_t(1));
  check(head::compact({reinterpret_cast<const bool*>(active.data()), n, ids.data(), count.data()}, nullptr), "compact");
  const bool divided = is_divided(p.kind.kind);
  head::Pairs all{
      {p.kind.kind, p.kind.p, p.power, p.eps},
      ElementOf<T>::value,
      {input.data(), d},
      {weight.data(), d},
      d,
      {.rows = n, .columns = v, .rows_there = {count.data()}, .ids = ids.data()},
      target.data(),
      divided ? row_term.data() : nullptr,
      divided ? column_term.data() : nullptr,
      v};
  const auto part = [&](int first, int columns, int row, int rows) {
    head::Pairs result = all;
    result.head.first = first, result.head.columns = columns, result.head.rows = rows;
    result.head.first_row = result.head.rows_there.before = row;
    return result;
  };

  constexpr int kSegment = 128;
  const int segments = ceil_div(v, kSegment);
  const Buffer<float> stats(size_t(4) * n);
  const Buffer<head::HarmonicPartial> partial(size_t(segments) * cut.rows);
  float* at_target = stats.data() + 2 * n;
  check(head::harmonic_sums({all, at_target, nullptr, 0}, nullptr), "targets");
  for (int row = 0; row < n; row += cut.rows) {
    const head::Pairs of = part(0, v, row, std::min(cut.rows, n - row));
    check(head::harmonic_sums({of, at_target, partial.data(), kSegment}, nullptr), "harmonic_sums");
    check(head::merge_harmonic({partial.data(), segments, of.head, n, stats.data()}, nullptr), "merge_harmonic");
  }

  const Buffer<head::HarmonicRow> rows(size_t(1) * n);
  check(
      head::harmonic_rows({all.metric, all.head, v, n, stats.data(), row_coef.data(), rows.data()}, nullptr),
      "harmonic_rows");
  const int64_t stride = round_up(std::min(cut.columns, v), 128);
  const Buffer<float> a(size_t(stride) * cut.rows), e(size_t(stride) * cut.rows);
  const Buffer<float> input_sum(size_t(n) * d), weight_sum(size_t(std::min(cut.columns, v)) * d);
  const Buffer<T> grad_input(size_t(n) * d), grad_weight(size_t(v) * d);
  const Buffer<float> wide_input(size_t(n) * d), wide_weight(size_t(v) * d);
  const Buffer<float> grad_rows(std::vector<float>(size_t(n), 0.f)), grad_columns(std::vector<float>(size_t(v), 0.f));
  const bool needs_e = divided || head::has_two_numbers(all.metric);
  for (int first = 0; first < v; first += cut.columns)
    for (int row = 0; row < n; row += cut.rows) {
      const int columns = std::min(cut.columns, v - first), here = std::min(cut.rows, n - row);
      const head::Pairs of = part(first, columns, row, here);
      check(head::pair_coefs({of, rows.data(), a.data(), needs_e ? e.data() : nullptr, stride}, nullptr), "pair_coefs");
      head::PairSlopesParams slopes{of, a.data(), e.data(), stride};
      slopes.wide = wide;
      slopes.of_rows = true, slopes.first = first == 0, slopes.last = first + columns == v;
      slopes.sum = input_sum.data(), slopes.out = wide ? static_cast<void*>(wide_input.data()) : grad_input.data();
      check(head::pair_slopes(slopes, nullptr), "slopes of rows");
      slopes.of_rows = false, slopes.first = row == 0, slopes.last = row + here == n;
      slopes.sum = weight_sum.data(), slopes.out = wide ? static_cast<void*>(wide_weight.data()) : grad_weight.data();
      check(head::pair_slopes(slopes, nullptr), "slopes of columns");
      if (divided)
        check(
            head::term_sums({of.head, e.data(), stride, grad_rows.data(), grad_columns.data()}, nullptr), "term_sums");
    }
  synchronize();
  return {
      stats.values(), wide ? wide_input.values() : to_floats(grad_input.values()),
      wide ? wide_weight.values() : to_floats(grad_weight.values()), grad_rows.values(), grad_columns.values()};
}

// By the norm of all, and of each row of `columns`: one wrong row hides in the norm of the others.
void expect_near(
    const std::vector<float>& got, const std::vector<double>& want, int64_t columns, double limit,
    const std::string& name) {
  double error = 0, size = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    expect(std::isfinite(got[i]), name + "[" + std::to_string(i) + "] is not finite");
    error += (got[i] - want[i]) * (got[i] - want[i]), size += want[i] * want[i];
  }
  expect(
      std::sqrt(error) <= limit * std::sqrt(size) + 1e-30,
      name + ": wrong by " + std::to_string(std::sqrt(error / size)));
  for (size_t row = 0; columns > 0 && row < got.size() / columns; ++row) {
    double error = 0, own = 0;
    for (int64_t i = row * columns; i < int64_t(row + 1) * columns; ++i)
      error += (got[i] - want[i]) * (got[i] - want[i]), own += want[i] * want[i];
    if (own > 1e-6 * size)
      expect(error <= 1e4 * limit * limit * own, name + ": row " + std::to_string(row) + " is wrong");
  }
}

template <class T>
void check_elementwise(const Kind& kind, const Shape& s, bool ignored, const Cut& cut = {}, bool wide = false) {
  const ElementProblem<T> p(kind, s, ignored);
  const Results got = run_elementwise(p, cut, wide);
  const std::string name = name_of(kind) + ", " + lossk::test::name_of(s) + ": ";
  for (int i = 0; i < s.n; ++i) {
    const auto at = [&](int k) { return got.stats[size_t(k) * s.n + i]; };
    if (!p.active[i]) {
      for (int k = 0; k < 4; ++k) expect(std::isnan(at(k)), name + "an ignored row was written");
      for (int k = 0; k < s.d; ++k)
        expect(std::isnan(got.input[size_t(i) * s.d + k]), name + "an ignored row has a gradient");
      continue;
    }
    const double* want = p.stats.data() + i;
    expect(std::fabs(at(0) + double{at(3)} - want[0]) <= 1e-5 * (1 + std::fabs(want[0])), name + "lse");
    expect(std::fabs(at(1) - want[s.n]) <= 1e-5 * (s.v + std::fabs(want[s.n])), name + "sum of z");
    expect(std::fabs(at(2) - want[2 * s.n]) <= 2e-6 * (want[2 * s.n] + 1e-3), name + "distance of the target");
  }
  const bool rounded = !wide && !std::is_same_v<T, float>;
  const double limit = rounded ? (std::is_same_v<T, Bf16> ? 4e-3 : 1e-3) : 2e-5;
  std::vector<float> input = got.input;
  for (size_t i = 0; i < input.size(); ++i)
    if (!p.active[i / s.d]) input[i] = 0;
  expect_near(input, p.grad_input, s.d, limit, name + "d input");
  expect_near(got.weight, p.grad_weight, s.d, limit, name + "d weight");
  if (!is_divided(kind.kind)) return;
  expect_near(got.rows, p.grad_rows, 0, 2e-5, name + "d row_term");
  expect_near(got.columns, p.grad_columns, 0, 2e-5, name + "d column_term");
}

// A feature more than a chain, fewer and more points than a tile, several bands and parts.
constexpr Shape kRagged[] = {{37, 70, 65}, {130, 300, 33}, {1, 257, 3}, {70, 9, 200}, {65, 129, 1}};

template <class T>
void check_kinds(int every) {
  for (int i = 0; i < kKindCount; ++i)
    for (int k = 0; k < int(std::size(kRagged)); ++k)
      if ((i + k) % (LOSSK_SMALL_SHAPES ? 5 : every) == 0)
        check_elementwise<T>(kKinds[i], kRagged[LOSSK_SMALL_SHAPES ? 0 : k], (i + k) % 2 == 0, {128, 64}, k == 2);
}

LOSSK_TEST(elementwise_bf16) { check_kinds<Bf16>(1); }
LOSSK_TEST(elementwise_fp16) { check_kinds<Fp16>(3); }
LOSSK_TEST(elementwise_fp32) { check_kinds<float>(2); }

// Several tiles of rows, columns and features; every block's second turn.
LOSSK_TEST(elementwise_edges) {
  for (const int kind : {0, 1, 3, 8})
    if (!LOSSK_SMALL_SHAPES || kind < 2) check_elementwise<Bf16>(kKinds[kind], {70, 150, 130}, true, {128, 64});
}

// Coordinates that are equal have no slope, and of equally far ones the first has it.
LOSSK_TEST(elementwise_ties) {
  for (const Kind& k : kKinds) {
    const ElementProblem<float> p(k, {20, 67, 70}, false, 3, true);
    const Results got = run_elementwise(p);
    expect_near(got.input, p.grad_input, p.s.d, 4e-5, name_of(k) + ": d input");
    expect_near(got.weight, p.grad_weight, p.s.d, 4e-5, name_of(k) + ": d weight");
  }
}

// As likely as the target, whatever the exponent: not a bit is multiplied by it.
LOSSK_TEST(elementwise_copies_of_the_target) {
  for (const Kind& k : kKinds) {
    ElementProblem<float> p(k, {9, 131, 130}, false, 1e4f);
    for (size_t i = 0; i < p.weight.size(); ++i) p.weight[i] = p.weight[i % p.s.d];
    for (float& x : p.column_term) x = p.column_term[0];
    const Results got = run_elementwise(p);
    for (int i = 0; i < p.s.n; ++i) {
      expect(got.stats[i] == static_cast<float>(std::log(131.0)), name_of(k) + ": lse");
      expect(got.stats[p.s.n + i] == 0, name_of(k) + ": sum of z");
    }
  }
}

LOSSK_TEST(elementwise_targets_outside) {
  ElementProblem<Bf16> p(kKinds[1], {6, 70, 9}, false);
  p.target[1] = -1, p.target[3] = 70, p.target[4] = int64_t{1} << 40;
  const Results got = run_elementwise(p);
  for (int i = 0; i < 6; ++i) {
    const bool outside = i == 1 || i == 3 || i == 4;
    for (int k = 0; k < 3; ++k) expect(std::isnan(got.stats[k * 6 + i]) == outside, "nan and targets outside");
    for (int k = 0; k < 9; ++k) expect(std::isnan(got.input[i * 9 + k]) == outside, "gradients and targets outside");
  }
}

LOSSK_TEST(elementwise_nan_is_not_lost) {
  for (const Kind& k : kKinds) {
    ElementProblem<float> p(k, {5, 70, 66}, false);
    p.input[3 * 66 + 65] = NAN;
    const Results got = run_elementwise(p);
    for (int i = 0; i < 5; ++i) expect(std::isnan(got.stats[i]) == (i == 3), name_of(k) + ": nan");
  }
}

LOSSK_TEST(elementwise_same_bits) {
  random_source().seed(13);
  static std::vector<Results> first;
  for (int i = 0; i < kKindCount; i += LOSSK_SMALL_SHAPES ? 4 : 1) {
    const ElementProblem<Fp16> p(kKinds[i], {70, 300, 40}, false);
    const Results got = run_elementwise(p, {128, 128}, true), other = run_elementwise(p, {384, 128}, true);
    const size_t place = i / (LOSSK_SMALL_SHAPES ? 4 : 1);
    if (first.size() == place) first.push_back(got);
    for (const Results* r : std::initializer_list<const Results*>{&other, &first[place]}) {
      expect_equal(got.stats, r->stats, "stats of other parts, or under another schedule");
      expect_equal(got.input, r->input, "d input of other parts, or under another schedule");
      expect_equal(got.weight, r->weight, "d weight of other parts, or under another schedule");
      expect_equal(got.rows, r->rows, "d row_term of other parts, or under another schedule");
      expect_equal(got.columns, r->columns, "d column_term of other parts, or under another schedule");
    }
  }
}

LOSSK_TEST(elementwise_refuses) {
  alignas(16) float x[256] = {};
  const int64_t target = 0;
  head::HarmonicPartial partial{};
  head::HarmonicRow row{};
  const head::Pairs pairs{
      {ElementDistance::manhattan, 1, 1, 1},
      Element::fp32,
      {x, 4},
      {x, 4},
      4,
      {.rows = 1, .columns = 2},
      &target,
      nullptr,
      nullptr,
      2};
  const auto refused = [](cudaError_t error) { expect(error != cudaSuccess, "accepted what it cannot do"); };
  const auto refuses = [&](auto change) {
    head::HarmonicSumsParams sums{pairs, x, &partial, 64};
    change(sums.of);
    refused(head::harmonic_sums(sums, nullptr));
    head::PairCoefsParams coefs{pairs, &row, x, x, 64};
    change(coefs.of);
    refused(head::pair_coefs(coefs, nullptr));
  };
  refuses([](auto& p) { p.x.data = nullptr; });
  refuses([](auto& p) { p.target = nullptr; });
  refuses([](auto& p) { p.metric.kind = ElementDistance::bray_curtis; });
  refuses([&](auto& p) { p.row_term = x; });
  refuses([](auto& p) { p.head.columns = 3; });
  refuses([](auto& p) { p.type = Element::tf32; });
  refused(head::harmonic_sums({pairs, x, &partial, 96}, nullptr));
  refused(head::harmonic_sums({pairs, nullptr, &partial, 64}, nullptr));
  refused(head::pair_coefs({pairs, &row, x, nullptr, 96}, nullptr));
  refused(head::pair_coefs({pairs, &row, x + 1, nullptr, 64}, nullptr));
  head::Pairs two = pairs;
  two.metric.kind = ElementDistance::chebyshev;
  refused(head::pair_coefs({two, &row, x, nullptr, 64}, nullptr));
  refused(head::pair_slopes({two, x, nullptr, 64, true, true, true, nullptr, x}, nullptr));
  refused(head::pair_slopes({pairs, x, nullptr, 64, true, true, false, nullptr, x}, nullptr));
  refused(head::pair_slopes({pairs, x, nullptr, 64, true, true, true, nullptr, nullptr}, nullptr));
  refused(head::merge_harmonic({nullptr, 1, pairs.head, 1, x}, nullptr));
  refused(head::harmonic_rows({pairs.metric, pairs.head, 2, 1, x, nullptr, &row}, nullptr));
  refused(head::term_sums({pairs.head, nullptr, 64, x, x}, nullptr));
}

}  // namespace
}  // namespace lossk::test
