// cuda/head/live, and the sketch that cuda/head/stats leaves for it, against plain loops in double: the sketch against
// each block's mass, the lists bit by bit, the gradients given the sketch.
#include "device/kernels/gradient_problem.h"
#include "head/live/params.h"

namespace lossk::test {
namespace {

constexpr int kBlock = head::kSketchRows, kList = head::kListRows, kMost = 256;  // columns at a time

float widen(uint16_t bits) { return to_float(Bf16{bits}); }

// ---- forward -------------------------------------------------------------------------------------------------------

struct Sketched {
  std::vector<float> reference, stats;
  std::vector<uint16_t> sums;  // [blocks, v]
};

template <class T>
Sketched run_sketch(const Path& path, const HeadProblem<T>& p, bool full) {
  const HeadOnDevice<T> x(p);
  const int n = p.s.n, v = p.s.v, d = p.s.d, most = 512;
  const Buffer<uint32_t> picked(std::vector<uint32_t>(v, 0));
  const Buffer<int> counts(size_t(3) * ceil_div(v, head::kChunk)), ids(size_t(3) * v), count(size_t{3});
  check(head::mark_sample(head::SampleParams{x.index(), x.h, most, picked.data()}, nullptr), "mark_sample");
  check(
      head::list_sample(
          head::SampleListParams{picked.data(), v, most, counts.data(), {ids.data(), count.data()}}, nullptr),
      "list_sample");
  const int sample_parts = path.parts * ceil_div(most, 256);
  const Buffer<head::Partial> sample(size_t(3) * sample_parts * n);
  const Buffer<float> reference(size_t{1} * n), unused(p.index.size());
  for (int list = 0; list < 3; ++list) {
    const HeadOfColumns<T> columns(x, p, ids.data() + list * v, count.data() + list, 0, n, most);
    const head::Head part = columns.part(0);
    check(
        path.stats(
            head::StatsParams{
                {x.input(), columns.weight(0), d, 256, x.h.rows_there, {}, part.columns_there},
                part,
                sample.data(),
                unused.data(),
                list * sample_parts},
            x.kType, false, nullptr),
        "stats of a sample");
  }
  check(
      head::estimate_lse(
          head::EstimateParams{sample.data(), sample_parts, path.parts, 256, count.data(), x.h, reference.data()},
          nullptr),
      "estimate_lse");

  const int segment = head::segment_of(v), parts = path.parts * ceil_div(v, segment);
  const Buffer<float> partial(size_t(parts) * n * sizeof(RowState<float>) / sizeof(float));
  const Buffer<float> stats(size_t(full ? 12 : 3) * n), picks(p.index.size()), logp(p.index.size());
  const Buffer<float> slopes(size_t(parts) * n);
  const Buffer<int64_t> argmax(size_t{1} * n);
  const Buffer<double> aux_sum(size_t{1});
  const Buffer<uint16_t> sums(std::vector<uint16_t>(size_t(ceil_div(n, kBlock)) * v, 0));
  check(head::sum_aux(head::AuxParams{x.h.aux, v, aux_sum.data()}, nullptr), "sum_aux");
  float* slopes_of = full || !x.h.curved() ? nullptr : slopes.data();
  check(
      path.sketch(
          head::StatsParams{
              {x.input(), x.weight(0, v), d, segment, x.h.rows_there},
              x.h,
              partial.data(),
              picks.data(),
              0,
              {reference.data(), sums.data(), v, slopes_of}},
          x.kType, full, nullptr),
      "stats");
  check(
      head::merge_stats(
          head::MergeParams{
              partial.data(), parts, x.h, x.index(), aux_sum.data(), stats.data(), picks.data(), logp.data(),
              argmax.data(), slopes_of},
          full, nullptr),
      "merge_stats");
  check(
      head::scale_sketch(
          head::ScaleSketchParams{partial.data(), full, parts, path.parts, segment, x.h, stats.data(), sums.data()},
          nullptr),
      "scale_sketch");
  synchronize();
  return {reference.values(), stats.values(), sums.values()};
}

// The rows that there are, in order: what a block is made of.
template <class T>
std::vector<int> rows_of(const HeadProblem<T>& p) {
  std::vector<int> rows;
  for (int i = 0; i < p.s.n; ++i)
    if (p.active[i]) rows.push_back(i);
  return rows;
}

// A row whose mass lies in columns that the estimate has not seen has the right total, and spreads it: not where logits
// are `tame`.
template <class T>
void check_sketch(const HeadProblem<T>& p, const Sketched& got, bool full, bool tame) {
  const std::vector<int> rows = rows_of(p);
  const int64_t v = p.s.v;
  for (size_t i = 0; tame && i < rows.size(); ++i)
    expect(
        std::fabs(got.reference[i] - p.stats[rows[i]].lse) < 1.5,
        "the estimate of row " + std::to_string(i) + " of " + name_of(p.s) + " is " + std::to_string(got.reference[i]) +
            ", lse " + std::to_string(p.stats[rows[i]].lse));
  for (int b = 0; b < ceil_div(p.s.n, kBlock); ++b) {
    double error = 0, total = 0, all = 0;
    for (int64_t c = 0; c < v; ++c) {
      double mass = 0;
      for (size_t i = size_t(b) * kBlock; i < std::min(rows.size(), size_t(b + 1) * kBlock); ++i)
        if (!full) mass += std::exp(p.z[rows[i] * v + c] - p.stats[rows[i]].lse);
        else if (!p.picks(rows[i], c)) mass += std::exp(p.z[rows[i] * v + c] - p.stats[rows[i]].lse_excl);
      const float is = widen(got.sums[b * v + c]);
      error += std::fabs(is - mass), total += mass, all += is;
    }
    expect(
        error <= (tame ? 0.3 : 2) * total + 1e-6 && std::fabs(all - total) <= 0.01 * total + 1e-6,  // nan fails
        "the sketch of block " + std::to_string(b) + " of " + name_of(p.s) + " is off by " +
            std::to_string(error / total) + ", its sum is " + std::to_string(all) + ", not " + std::to_string(total));
  }
  if (full || (p.o.softcap == 0 && p.o.distance == Distance::none)) return;
  for (const int row : rows) {
    double slope = 0;
    for (int64_t c = 0; c < v; ++c) slope += std::exp(p.z[row * v + c] - p.stats[row].lse) * p.slope[row * v + c];
    expect(
        std::fabs(got.stats[2 * p.s.n + row] - slope) < (p.o.softcap > 0 ? 1e-4 : 1e-2 * slope),
        "the slope of row " + std::to_string(row) + " is " + std::to_string(got.stats[2 * p.s.n + row]) + ", not " +
            std::to_string(slope));
  }
}

// ---- lists ---------------------------------------------------------------------------------------------------------

// Which columns are live for the list of each active row's block, as reference/live.py has it.
template <class T>
struct Live {
  std::vector<int> rows;
  std::vector<std::vector<int>> lists;
  std::vector<std::vector<uint8_t>> live;  // [lists][v]

  Live(const HeadProblem<T>& p, const std::vector<uint16_t>& sketch, float tau) : rows(rows_of(p)) {
    const int v = p.s.v;
    for (size_t first = 0; first < rows.size(); first += kList) {
      std::vector<uint8_t> on(v, 0);
      const size_t end = std::min(first + kList, rows.size());
      for (int c = 0; c < v; ++c) {
        for (size_t b = first / kBlock; b < size_t(ceil_div(int(end), kBlock)); ++b)
          on[c] |= !(widen(sketch[b * v + c]) < tau);
        for (size_t i = first; i < end; ++i) on[c] |= p.picks(rows[i], c);
      }
      const int count = static_cast<int>(std::count(on.begin(), on.end(), 1));
      if (count > 0.7 * v) std::fill(on.begin(), on.end(), 1);
      std::vector<int> ids;
      for (int c = 0; c < v; ++c)
        if (on[c]) ids.push_back(c);
      lists.push_back(ids), live.push_back(on);
    }
  }

  // g [n, v] as a backward over them has it.
  void filter(std::vector<double>& g, const std::vector<uint16_t>& sketch, int v, bool fill) const {
    for (size_t i = 0; i < rows.size(); ++i) {
      const auto& on = live[i / kList];
      const size_t block = i / kBlock;
      double missing = 0, mass = 0;
      for (int c = 0; c < v; ++c)
        if (!on[c]) missing += g[size_t(rows[i]) * v + c], mass += widen(sketch[block * v + c]);
      for (int c = 0; c < v; ++c)
        if (!on[c]) g[size_t(rows[i]) * v + c] = fill && mass > 0 ? missing * widen(sketch[block * v + c]) / mass : 0;
    }
  }
};

// ---- backward ------------------------------------------------------------------------------------------------------

struct LiveGradients {
  std::vector<float> input, weight, bias, scale, report;
  std::vector<int> ids, count;
};

// As cuda/head/live_backward.cpp does it.
template <class T>
LiveGradients run_live(
    const Path& path, const HeadProblem<T>& p, const GradientProblem& g, const Sketched& s, bool full, float tau,
    bool fill, bool wide, bool scale_wanted = true) {
  using Element = typename head::Planes<T>::Element;
  const HeadOnDevice<T> x(p);
  const int n = p.s.n, v = p.s.v, d = p.s.d, planes = x.kPlanes, padded = x.padded();
  const int blocks = ceil_div(n, kBlock), lists = ceil_div(n, kList), terms = fill || full ? blocks + full : 0;
  std::vector<float> all(size_t(full ? 12 : 3) * n);
  for (int i = 0; i < n; ++i) {  // right ones: those of run_sketch have been looked at
    const RowStats& of = p.stats[i];
    all[i] = g.lse[i], all[n + i] = g.lse[n + i], all[2 * n + i] = s.stats[2 * n + i];
    if (!full) continue;
    const double rest[] = {0, 0, of.mean_logit, of.entropy, of.lse2, of.aux_mean, of.aux_logp, of.max, of.min};
    for (int k = 0; k < 9; ++k) all[(3 + k) * n + i] = static_cast<float>(rest[k]);
    all[3 * n + i] = g.lse_excl[i], all[4 * n + i] = g.lse_excl[n + i];
  }
  const Buffer<float> stats(all), row(g.row), pick(g.pick);
  const Buffer<uint16_t> sketch(s.sums);
  const head::Coefs coefs{stats.data(), full ? stats.data() + 3 * int64_t{n} : nullptr, row.data(), pick.data(), n};

  const Buffer<uint32_t> picked(std::vector<uint32_t>(size_t(lists) * v, 0)), general(std::vector<uint32_t>(1, 0));
  const int chunks = ceil_div(v, head::kChunk);
  const Buffer<int> counts(size_t(lists) * chunks), ids(size_t(lists) * v), count(size_t{1} * lists);
  const Buffer<double> chunk_sums(size_t(3) * blocks * chunks), over_dead(size_t(3) * (blocks + 1));
  const auto dead = [&](int k) { return over_dead.data() + k * (blocks + 1); };
  if (full) check(head::find_general(head::GeneralParams{coefs, x.h, general.data()}, nullptr), "find_general");
  const uint32_t* any_general = full ? general.data() : nullptr;
  check(head::mark_picks(head::MarkParams{x.index(), x.h, picked.data()}, nullptr), "mark_picks");
  const head::LiveListParams live_lists{picked.data(),
                                        sketch.data(),
                                        x.h,
                                        tau,
                                        any_general,
                                        counts.data(),
                                        chunk_sums.data(),
                                        {ids.data(), count.data()},
                                        dead(0),
                                        dead(1),
                                        dead(2)};
  check(head::list_live(live_lists, nullptr), "list_live");
  const Buffer<int> first_list(size_t(v) + 1);
  check(head::find_first_lists(live_lists, first_list.data(), nullptr), "find_first_lists");
  synchronize();
  const std::vector<int> counted = count.values();
  const bool whole = v > 0 && std::count(counted.begin(), counted.end(), v) > 0;  // here a list as the others are
  const int* first_of = whole ? nullptr : first_list.data();

  head::TermParams t{};
  const Buffer<float> sums(size_t(3) * n), missing(size_t(2) * n), c(size_t(terms) * d), mixed(size_t(terms) * d);
  const Buffer<float> dense_parts(size_t(blocks) * d), units(size_t{3});
  const Buffer<double> totals(size_t(terms) + blocks);
  const Buffer<Element> rounded(size_t(planes) * terms * padded);
  t.head = x.h, t.coefs = coefs, t.stats = stats.data(), t.full = full, t.fill = fill;
  t.picked = picked.data(), t.sketch = sketch.data(), t.lists = {ids.data(), count.data()};
  t.tau = tau, t.general = any_general, t.mass = dead(0);
  t.sums = {sums.data(), sums.data() + n, sums.data() + 2 * n};
  t.input = x.input().data, t.input_stride = padded, t.d = d, t.terms = terms, t.blocks = blocks, t.padded = padded;
  t.missing = missing.data(), t.dense = missing.data() + n, t.c = c.data(), t.dense_parts = dense_parts.data();
  t.totals = totals.data(), t.units = units.data(), t.rounded = rounded.data();

  const int parts = path.parts, tall = std::min(kList, n);
  const Buffer<Element> out(size_t(planes) * tall * kMost);
  const Buffer<float> row_sums(size_t(3) * parts * tall), unit(size_t(n) + 1), times(size_t{1} * n);
  const Buffer<float> input_sum(size_t(n) * d), cleared(std::vector<float>(size_t(whole ? v : 0) * d, 0));
  const Buffer<float> not_cleared(size_t(whole ? 0 : v) * d), &weight_sum = whole ? cleared : not_cleared;
  const Buffer<float> bias(std::vector<float>(v, 0)), scale(std::vector<float>(n, 0));
  const Buffer<T> grad_input(size_t(n) * d), narrow_weight(size_t(v) * d);
  head::Matrix by_columns = x.input_by_columns();
  const bool by_units = x.kType == device::Element::fp16;
  if (by_units) {
    check(head::find_units(head::UnitParams{x.h, coefs, full, unit.data(), times.data()}, nullptr), "find_units");
    by_columns = x.input_by_columns(times.data());
  }
  for (int list = 0; list < lists; ++list) {
    const int first_row = list * kList, rows = std::min(kList, n - first_row);
    const int* own = ids.data() + int64_t{list} * v;
    const HeadOfColumns<T> columns(x, p, own, count.data() + list, first_row, rows, kMost);
    const head::Count rows_there{x.h.rows_there.there, first_row};
    const float* by = by_units ? unit.data() + first_row : nullptr;
    const auto from = [&](head::Matrix m, int height) {
      m.data = static_cast<const uint16_t*>(m.data) + first_row * m.stride, m.rows = height;
      return m;
    };
    const int64_t plane = int64_t{rows} * kMost;
    for (int first = 0; first < v; first += kMost) {
      const head::Matrix weight = columns.weight(first);
      const head::Head part = columns.part(first);
      check(
          path.live_dlogits(
              head::DlogitsParams{
                  {from(x.input(), rows), weight, d, 256, rows_there, {}, part.columns_there},
                  part,
                  coefs,
                  by,
                  out.data(),
                  kMost,
                  row_sums.data(),
                  parts,
                  scale_wanted},
              x.kType, full, nullptr),
          "live dlogits");
      check(
          head::add_live_sums(
              head::AddLiveSumsParams{
                  row_sums.data(), parts, parts, 256, kMost, part.columns_there, rows, rows_there, first_row,
                  first == 0, by, t.sums},
              nullptr),
          "add_live_sums");
      check(
          path.store(
              head::StoreParams{
                  {{out.data(), kMost, kMost, plane},
                   from(by_columns, d),
                   rows,
                   256,
                   part.columns_there,
                   rows_there,
                   {},
                   true},
                  weight_sum.data(),
                  true,
                  weight_sum.data(),
                  own + first,
                  part.columns_there,
                  by_units ? unit.data() + n : nullptr,
                  false,
                  kMost,
                  d,
                  false,
                  false,
                  true,
                  list + 1,
                  first_of},
              x.kType, head::Along::rows, head::Along::rows, nullptr),
          "live d weight");
      check(
          head::column_sums(
              head::ColumnSumParams{
                  out.data(), rows, kMost, kMost, rows_there, by, bias.data(), own + first, part.columns_there},
              x.kType, nullptr),
          "column_sums");
      check(
          path.store(
              head::StoreParams{
                  {{out.data(), rows, kMost, plane},
                   {weight.data, d, weight.stride, weight.plane},
                   kMost,
                   256,
                   rows_there,
                   part.columns_there,
                   {},
                   first > 0},
                  grad_input.data(),
                  false,
                  input_sum.data() + int64_t{first_row} * d,
                  nullptr,
                  rows_there,
                  by,
                  true,
                  rows,
                  d,
                  first == 0,
                  false},
              x.kType, head::Along::depth, head::Along::rows, nullptr),
          "live d input");
    }
  }

  check(head::find_terms(t, x.kType, nullptr), "find_terms");
  const int stride = std::min(kMost, round_up(v, 8));
  const Buffer<Element> q(size_t(planes) * terms * stride);
  const int64_t q_plane = int64_t{terms} * stride;
  for (int first = 0; first < v; first += kMost) {
    const int width = std::min(kMost, v - first);
    const head::Matrix weight = x.weight(first, width);
    if (terms > 0) {
      check(head::find_q(head::QParams{t, first, width, q.data(), stride, bias.data()}, x.kType, nullptr), "find_q");
      check(
          path.store(
              head::StoreParams{
                  {{q.data(), terms, stride, q_plane}, {weight.data, d, weight.stride, weight.plane}, width, 256},
                  mixed.data(),
                  true,
                  mixed.data(),
                  nullptr,
                  {},
                  nullptr,
                  false,
                  terms,
                  d,
                  first == 0,
                  false},
              x.kType, head::Along::depth, head::Along::rows, nullptr),
          "q weight");
    }
    const int64_t place = int64_t{first} * d;
    check(
        path.store(
            head::StoreParams{
                {{q.data(), width, stride, q_plane}, {rounded.data(), d, padded, int64_t{terms} * padded}, terms, 256},
                wide ? static_cast<void*>(weight_sum.data() + place) : narrow_weight.data() + place,
                wide,
                weight_sum.data() + place,
                nullptr,
                {},
                terms ? units.data() + 2 : nullptr,
                false,
                width,
                d,
                false,
                p.o.distance == Distance::none,
                false,
                head::kNoList,
                first_of ? first_of + first : nullptr},
            x.kType, head::Along::rows, head::Along::rows, nullptr),
        "fill of d weight");
  }
  if (full && p.o.bias) check(head::sum_dense_bias(x.h, dead(2) + blocks, nullptr), "sum_dense_bias");
  check(
      head::finish(
          head::FinishParams{
              t, input_sum.data(), mixed.data(), p.o.bias ? dead(2) : nullptr, grad_input.data(),
              p.o.distance == Distance::none && scale_wanted ? scale.data() : nullptr},
          x.kType, nullptr),
      "finish");
  if (p.o.distance != Distance::none) {
    take_off_own(x, input_sum.data(), t.sums.by_scale, x.input(), n, x.h.ids, x.h.rows_there, grad_input.data(), false);
    void* to = wide ? static_cast<void*>(weight_sum.data()) : narrow_weight.data();
    take_off_own(x, weight_sum.data(), bias.data(), x.weight(0, v), v, nullptr, {}, to, wide);
  }
  const Buffer<float> live(std::vector<float>(size_t(4) * blocks, 0));
  check(head::report(head::ReportParams{t, dead(1), v, live.data()}, nullptr), "report");
  synchronize();
  return {
      to_floats(grad_input.values()),
      wide ? weight_sum.values() : to_floats(narrow_weight.values()),
      bias.values(),
      scale.values(),
      live.values(),
      ids.values(),
      count.values()};
}

template <class T>
void check_live(
    const Path& path, const Shape& s, const Options& o, bool full, bool fill, bool wide = false, float dead = 0.75f,
    bool scale = true) {
  const HeadProblem<T> p(s, o, full ? 8 : 2.5f);
  const Sketched sketched = run_sketch(path, p, full);
  check_sketch(p, sketched, full, false);
  // So many of each block's columns are below tau, or, with other terms than a0, what is below 2^-12 there.
  std::vector<float> masses;
  for (const uint16_t bits : sketched.sums) masses.push_back(widen(bits));
  std::sort(masses.begin(), masses.end());
  const float tau = masses.empty() ? 0.5f : std::clamp(masses[size_t(dead * float(masses.size()))], 1e-6f, 0.9f);
  const GradientProblem drawn(p, full);
  GradientProblem want = drawn;
  bool general = false;
  for (int i = 0; full && i < s.n; ++i)
    for (int k = 1; p.active[i] && k < 5; ++k) general = general || want.row[k * s.n + i] != 0;
  const Live<T> live(p, sketched.sums, general ? std::min(tau, 1.f / 4096) : tau);
  std::vector<double> squares(ceil_div(s.n, kBlock));
  want.solve(p, full, [&](std::vector<double>& g) {
    for (size_t i = 0; i < live.rows.size(); ++i)
      for (int c = 0; c < s.v; ++c) {
        const double x = g[size_t(live.rows[i]) * s.v + c];
        squares[i / kBlock] += live.live[i / kList][c] ? x * x : 0;
      }
    live.filter(g, sketched.sums, s.v, fill);
  });
  const LiveGradients got = run_live(path, p, want, sketched, full, tau, fill, wide, scale);
  for (size_t b = 0; !full && HeadOnDevice<T>(p).h.plain() && b < squares.size(); ++b)
    expect(
        std::fabs(got.report[3 * squares.size() + b] - squares[b]) <= 1e-3 * squares[b],
        "the squares of a block of " + name_of(s));
  for (size_t list = 0; list < live.lists.size(); ++list) {
    expect(got.count[list] == int(live.lists[list].size()), "the length of a list of " + name_of(s));
    for (size_t j = 0; j < live.lists[list].size(); ++j)
      expect(got.ids[list * s.v + j] == live.lists[list][j], "a list of " + name_of(s));
    const float share = got.report[list * kList / kBlock];
    expect(std::fabs(share * float(s.v) - float(live.lists[list].size())) < 0.01f, "the live share of " + name_of(s));
  }
  // Logits are in the tens: rounded, they move every p by a few 1e-6. What cancels are the squares of the exact
  // gradient.
  const auto close = [&](const std::vector<float>& is, const std::vector<double>& right, const char* name, double by) {
    expect_gradient<T>(o, is, right, name + (" of " + name_of(s)), by, 5e-4);
  };
  close(of_active(p, got.input), want.input, "d input", drawn.squares[0]);
  close(got.weight, want.weight, "d weight", drawn.squares[1]);
  if (o.distance != Distance::cosine) close(got.bias, want.bias, "d bias", drawn.squares[2]);
  if (o.distance == Distance::none && scale)
    close(of_active(p, got.scale), want.scale, "d scale", (full ? 100 : 4) * drawn.squares[2]);
}

template <class T>
void check_tame(const Path& path, const Shape& s, const Options& o, bool full) {
  const HeadProblem<T> p(s, o, 0.7f);
  check_sketch(p, run_sketch(path, p, full), full, true);
}

Options without_softcap(Options o, bool full) {
  if (full) o.softcap = 0;
  return o;
}

template <class T>
void check_shapes(const Path& path) {
  // In a slow build every third, and one of the other types, whose kernels are the same.
  constexpr int kEvery = std::is_same_v<T, Bf16> ? 3 : 12;
  for (int i = 0; i < 12; ++i) {
    if (LOSSK_SMALL_SHAPES && i % kEvery != kEvery - 1) continue;
    constexpr int kWhich[] = {0, 1, 2, 3, 2, 4, 5, 0, 4, 1, 3, 5};
    const bool full = i % 2 == 1;
    const Options o = without_softcap(kSome[kWhich[i]], full);
    if (kSmallShapes[i].v >= 100) check_tame<T>(path, kSmallShapes[i], o, full);  // else there is little to sample
    check_live<T>(path, kSmallShapes[i], o, full, i % 3 > 0, i % 4 == 0);
    if (i % 6 == 5) check_live<T>(path, kSmallShapes[i], kPlain, false, true, i > 5, 0.5f, false);
  }
  if (LOSSK_SMALL_SHAPES ? !std::is_same_v<T, Bf16> : std::is_same_v<T, float>) return;  // slow, and no other kernels
  // Several lists, and chunks of the vocabulary that several blocks of threads count.
  check_live<T>(path, {400, 300, 8}, {.bias = true, .ignored = true}, false, true);  // all picked by one row or another
  check_live<T>(path, {330, 1500, 8}, {.bias = true}, false, true, false, 0.9f);
  if (!LOSSK_SMALL_SHAPES) check_live<T>(path, {5, 4500, 8}, {.bias = true}, false, true);
}

template <class T>
void check_distances(const Path& path) {
  constexpr Distance kDistances[] = {Distance::euclidean, Distance::hamming, Distance::cosine};
  for (int i = 0; i < 12; ++i) {
    if (LOSSK_SMALL_SHAPES && i % 4 != (std::is_same_v<T, Bf16> ? i % 3 : 3)) continue;
    const Options o{.ignored = i % 2 == 0, .distance = kDistances[i % 3], .power = 2.5f};
    check_live<T>(path, kSmallShapes[i], o, false, i % 4 > 0, i % 5 == 0);
  }
  // Nearly all is filled, so that what is missing is most of a point's own term.
  check_live<T>(path, {6, 300, 8}, {.distance = Distance::euclidean, .power = 2.5f}, false, true, false, 0.99f);
}

// Picks that are in a list become places in it, in order; the others come last, as none.
void check_picks() {
  const HeadProblem<Bf16> p({40, 60, 8}, kEverything);
  const HeadOnDevice<Bf16> x(p);
  std::vector<int> list;
  for (int c = 0; c < p.s.v; ++c)
    if (c % 3 != 1) list.push_back(c);
  const Buffer<int> ids(list), count(std::vector<int>{int(list.size())});
  const size_t entries = p.index.size();
  const Buffer<int> column(std::vector<int>(entries, 0)), entry(std::vector<int>(entries, 0));
  check(
      head::map_picks(head::MapPicksParams{x.h, ids.data(), count.data(), column.data(), entry.data()}, nullptr),
      "map_picks");
  synchronize();
  const std::vector<int> columns = column.values(), places = entry.values();
  for (const int row : rows_of(p)) {
    std::vector<std::pair<int, int>> want;
    for (int k = 0; k < p.o.picks; ++k) {
      const auto at = std::lower_bound(list.begin(), list.end(), p.index[row * p.o.picks + k]);
      if (at != list.end() && *at == p.index[row * p.o.picks + k]) want.emplace_back(at - list.begin(), k);
    }
    std::sort(want.begin(), want.end());
    for (int k = 0; k < p.o.picks; ++k) {
      const bool none = k >= int(want.size());
      expect(columns[row * p.o.picks + k] == (none ? head::kNoColumn : want[k].first), "the place of a pick");
      expect(none || places[row * p.o.picks + k] == want[k].second, "the entry of a pick");
    }
  }
}

// Rows of lists of all columns, and what the others are left with; the last list has few rows, or none.
void check_dense_rows(const std::vector<int>& counts, int ignored_from) {
  HeadProblem<Bf16> p({3 * kList - 50, 60, 8}, {.ignored = true});
  std::fill(p.active.begin(), p.active.begin() + ignored_from, 1);
  std::fill(p.active.begin() + ignored_from, p.active.end(), 0);
  p.active[3] = 0;
  const HeadOnDevice<Bf16> x(p);
  const std::vector<int> rows = rows_of(p);
  const Buffer<int> ids(size_t{1}), count(counts), lines(size_t(p.s.n)), dense(size_t(p.s.n)), total(size_t{1}),
      columns(size_t{1});
  const Buffer<int> columns_left(size_t{3}), rows_left(size_t{3});
  check(
      head::split_dense(
          head::DenseRowsParams{
              {ids.data(), count.data()},
              x.h,
              lines.data(),
              dense.data(),
              total.data(),
              columns.data(),
              columns_left.data(),
              rows_left.data()},
          nullptr),
      "split_dense");
  synchronize();
  int place = 0;
  for (int list = 0; list < 3; ++list) {
    const int first = list * kList, there = std::clamp(int(rows.size()) - first, 0, kList);
    const bool whole = counts[list] == p.s.v;
    expect(columns_left.values()[list] == (whole ? 0 : counts[list]), "the columns that a list is left with");
    expect(rows_left.values()[list] == (whole ? 0 : there), "the rows that a list is left with");
    for (int i = first; whole && i < first + there; ++i, ++place)
      expect(lines.values()[place] == i && dense.values()[place] == rows[i], "a row that has all columns");
  }
  expect(total.values()[0] == place, "how many rows have all columns");
  expect(columns.values()[0] == (place > 0 ? p.s.v : 0), "the columns of rows that have all");
}

template <class T>
void check_same_bits(const Path& path) {
  random_source().seed(7);
  const HeadProblem<T> p({140, 300, 72}, {.bias = true, .scale = true, .ignored = true}, 8);
  Sketched sketched = run_sketch(path, p, false);
  const GradientProblem g(p, false);
  LiveGradients got = run_live(path, p, g, sketched, false, 0.02f, true, false);
  got.input = of_active(p, got.input), got.scale = of_active(p, got.scale);
  static const Sketched first_sketch = sketched;
  static const LiveGradients first_seen = got;
  expect_equal(sketched.sums, first_sketch.sums, "the sketch under another schedule");
  expect_equal(got.input, first_seen.input, "live d input under another schedule");
  expect_equal(got.weight, first_seen.weight, "live d weight under another schedule");
  expect_equal(got.bias, first_seen.bias, "live d bias under another schedule");
  expect_equal(got.scale, first_seen.scale, "live d scale under another schedule");
}

LOSSK_TEST(live_picks) { check_picks(); }
LOSSK_TEST(live_dense_rows) {
  check_dense_rows({60, 7, 60}, 3 * kList - 80);
  check_dense_rows({7, 60, 0}, 2 * kList - 10);
  check_dense_rows({7, 60, 5}, 3 * kList - 60);
}
LOSSK_TEST(live_mma_bf16) { check_shapes<Bf16>(head::kMmaSync); }
LOSSK_TEST(live_mma_fp16) { check_shapes<Fp16>(head::kMmaSync); }
LOSSK_TEST(live_mma_fp32) { check_shapes<float>(head::kMmaSync); }
LOSSK_TEST(harmonic_live_mma_bf16) { check_distances<Bf16>(head::kMmaSync); }
LOSSK_TEST(harmonic_live_mma_fp16) { check_distances<Fp16>(head::kMmaSync); }
LOSSK_TEST(harmonic_live_mma_fp32) { check_distances<float>(head::kMmaSync); }
LOSSK_TEST(live_mma_same_bits) { check_same_bits<Bf16>(head::kMmaSync); }

#if LOSSK_TEST_SM90
LOSSK_TEST(live_wgmma_long) { check_tame<Bf16>(head::kWgmma, {70, 1100, 392}, kPlain, false); }
LOSSK_TEST(live_wgmma_pairs) { check_tame<Bf16>(head::kWgmma, {300, 260, 72}, kPlain, false); }
LOSSK_TEST(harmonic_live_wgmma_bf16) { check_distances<Bf16>(head::kWgmma); }
LOSSK_TEST(harmonic_live_wgmma_fp16) { check_distances<Fp16>(head::kWgmma); }
LOSSK_TEST(harmonic_live_wgmma_fp32) { check_distances<float>(head::kWgmma); }
LOSSK_TEST(live_wgmma_bf16) { check_shapes<Bf16>(head::kWgmma); }
LOSSK_TEST(live_wgmma_fp16) { check_shapes<Fp16>(head::kWgmma); }
LOSSK_TEST(live_wgmma_fp32) { check_shapes<float>(head::kWgmma); }
LOSSK_TEST(live_wgmma_same_bits) { check_same_bits<Fp16>(head::kWgmma); }
#endif

}  // namespace
}  // namespace lossk::test
