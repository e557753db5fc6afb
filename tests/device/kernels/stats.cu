// cuda/head/stats against plain loops in double: both paths, three types, ragged sizes, every option.
#include "device/kernels/head_problem.h"

namespace lossk::test {
namespace {

struct Found {
  std::vector<float> stats, picked, logp;
  std::vector<int64_t> argmax;
};

template <class T>
Found run_stats(const Path& path, const HeadProblem<T>& p, bool full) {
  const HeadOnDevice<T> x(p);
  const Shape& s = p.s;
  const int segment = head::segment_of(s.v), parts = path.parts * ceil_div(s.v, segment);
  Buffer<float> partial(size_t(parts) * s.n * sizeof(RowState<float>) / sizeof(float));
  const bool distance = p.o.distance != Distance::none;
  const Buffer<float> sums_z(distance ? size_t(parts) * s.n : 0);
  float* sums = distance ? sums_z.data() : nullptr;
  Buffer<float> stats(size_t(full ? 12 : distance ? 4 : 3) * s.n), picked(p.index.size()), logp(p.index.size());
  Buffer<int64_t> argmax(size_t(s.n));
  Buffer<double> aux_sum(size_t{1});
  const Buffer<uint32_t> begun(std::vector<uint32_t>(2, 0));
  check(head::sum_aux(head::AuxParams{x.h.aux, s.v, aux_sum.data()}, nullptr), "sum_aux");
  // In two parts, as where the weight is laid out anew.
  const int half = ceil_div(ceil_div(s.v, segment), 2) * segment;
  for (int first = 0; first < s.v; first += half) {
    const int count = std::min(half, s.v - first);
    check(
        path.stats(
            head::StatsParams{
                {x.input(),
                 x.weight(first, count),
                 s.d,
                 segment,
                 x.h.rows_there,
                 {},
                 {},
                 false,
                 begun.data() + (first > 0)},
                x.part(first, count),
                partial.data(),
                picked.data(),
                path.parts * (first / segment),
                {.slopes = sums}},
            x.kType, full, nullptr),
        "stats");
  }
  check(
      head::merge_stats(
          head::MergeParams{
              partial.data(), parts, x.h, x.index(), aux_sum.data(), stats.data(), picked.data(), logp.data(),
              argmax.data(), sums, distance},
          full, nullptr),
      "merge_stats");
  synchronize();
  return {stats.values(), picked.values(), logp.values(), argmax.values()};
}

// A few units in the last place of the largest number there is.
void expect_near(float got, double want, double largest, const std::string& name) {
  const bool same = std::isnan(want)   ? std::isnan(got)
                    : std::isinf(want) ? got == want
                                       : std::fabs(got - want) <= 2e-6 * (1 + largest);
  expect(same, name + " is " + std::to_string(got) + ", not " + std::to_string(want));
}

// A small distance is the little that is left of a difference, of which a GPU's tensor cores cut off the last bits.
#ifdef __CUDACC__
constexpr double kOfDistances = 2;
#else
constexpr double kOfDistances = 1;
#endif

template <class T>
void check_stats(const Path& path, const Shape& s, const Options& o, bool full, float spread = 2) {
  const HeadProblem<T> p(s, o, spread);
  const Found got = run_stats(path, p, full);
  const size_t n = s.n;
  for (size_t row = 0; row < n; ++row) {
    const std::string at = "of row " + std::to_string(row) + " of " + name_of(s);
    if (!p.active[row]) {
      expect(std::isnan(got.stats[row]), "wrote the statistics " + at + ", which is ignored");
      continue;
    }
    const RowStats& want = p.stats[row];
    const double by = o.distance == Distance::none ? 1 : kOfDistances;
    const double largest = by * std::fmax(std::fabs(want.max), std::fabs(want.min)), cancels = 10 * largest;
    expect_near(got.stats[row], want.lse, largest, "lse " + at);
    expect(s.v == 0 || std::fabs(got.stats[n + row]) <= 1e-7 * (1 + std::fabs(want.lse)), "the low part of lse " + at);
    for (int k = 0; k < o.picks; ++k) {
      const size_t i = row * o.picks + k;
      if (p.index[i] == -1) continue;
      const double z = p.index[i] < 0 || p.index[i] >= s.v ? NAN : p.z[row * s.v + p.index[i]];
      expect_near(got.picked[i], z, largest, "a pick's logit " + at);
      expect_near(got.logp[i], z - want.lse, largest, "a pick's logp " + at);
    }
    if (o.distance != Distance::none)
      expect_near(got.stats[3 * n + row], want.aux_logp + s.v * want.lse, s.v * largest, "the sum of z " + at);
    if (!full) continue;
    const double rest[] = {want.lse_excl, 0,        want.mean_logit, want.entropy, want.lse2, want.aux_mean,
                           want.aux_logp, want.max, want.min};
    const char* names[] = {"lse_excl", "low part", "mean_logit", "entropy", "lse2",
                           "aux_mean", "aux_logp", "max",        "min"};
    for (int i = 0; i < 9; ++i)
      if (i != 1)
        expect_near(got.stats[(3 + i) * n + row], rest[i], i == 6 ? s.v * largest : cancels, names[i] + (" " + at));
    const double top = p.z[row * s.v + got.argmax[row]];
    expect(top >= want.max - 2e-6 * (1 + largest), "argmax " + at);
  }
}

template <class T>
void check_shapes(const Path& path) {
  for (int i = 0; i < 12; ++i) {
    if (left_out<T>(i)) continue;
    check_stats<T>(path, shapes<T>()[i], kSome[i % 6], false);
    check_stats<T>(path, shapes<T>()[i], kSome[(i + 3) % 6], true);
  }
}

template <class T>
void check_distances(const Path& path) {
  constexpr Distance kDistances[] = {Distance::euclidean, Distance::hamming, Distance::cosine};
  for (int i = 0; i < 12; ++i)
    if (!left_out<T>(i))
      check_stats<T>(
          path, shapes<T>()[i], {.ignored = i % 2 == 0, .distance = kDistances[i % 3], .power = 2.5f}, false);
}

void check_edges(const Path& path) {
  for (const bool full : {false, true}) {
    check_stats<Bf16>(path, {0, 100, 64}, kEverything, full);
    check_stats<Bf16>(path, {5, 0, 64}, kPlain, false);
    check_stats<Bf16>(path, {5, 100, 0}, kEverything, full);
    check_stats<Bf16>(path, {40, 300, 64}, kPlain, full, 200);  // peaked: all other columns vanish
    check_stats<Bf16>(path, {3, 2000, 8}, kEverything, full);   // a row's parts are shared by all warps of a merge
  }
}

// Rows with inf or nan in them have no cross-entropy, and leave the others alone.
void check_extremes(const Path& path) {
  constexpr int kN = 6, kV = 300, kD = 8;
  HeadProblem<Bf16> p({kN, kV, kD});
  const float first[kN] = {1, INFINITY, -INFINITY, NAN, 3e38f, 0};
  p.input.assign(kN * kD, {}), p.weight.assign(kV * kD, {}), p.index.assign(kN, 7);
  for (int row = 0; row < kN; ++row) p.input[row * kD] = bf16(first[row]);
  for (int v = 0; v < kV; ++v) p.weight[v * kD] = bf16(v == 7 ? 1 : 0.5f);
  const std::vector<float> got = run_stats(path, p, false).stats;
  const double want[kN] = {std::log(299 * std::exp(0.5) + std::exp(1.0)), NAN, -INFINITY, NAN, 0, std::log(300.0)};
  for (int row = 0; row < kN; ++row)
    if (row != 4) expect_near(got[row], want[row], 6, "lse of an extreme row");
  expect(got[4] == to_float(bf16(3e38f)), "lse at the largest logits");
}

// The bits depend on the segments and on nothing else: not on the order of blocks and warps, nor on the rows beside.
template <class T>
void check_same_bits(const Path& path) {
  random_source().seed(5);
  const Options o{.bias = true, .picks = 2};
  const HeadProblem<T> p({150, 300, 136}, o);
  const Found all = run_stats(path, p, true);
  static const Found first_seen = all;
  expect_equal(all.stats, first_seen.stats, "statistics under another schedule");
  constexpr int kFirst = 70, kCount = 9;
  HeadProblem<T> some({kCount, 300, 136}, o);
  some.input.assign(p.input.begin() + kFirst * p.s.d, p.input.begin() + (kFirst + kCount) * p.s.d);
  some.index.assign(p.index.begin() + kFirst * o.picks, p.index.begin() + (kFirst + kCount) * o.picks);
  some.weight = p.weight, some.bias = p.bias;
  const Found fewer = run_stats(path, some, true);
  for (int k = 0; k < 12; ++k)
    for (int row = 0; row < kCount; ++row)
      expect(
          fewer.stats[k * kCount + row] == all.stats[k * p.s.n + kFirst + row], "statistics beside fewer rows differ");
}

LOSSK_TEST(stats_mma_bf16) { check_shapes<Bf16>(head::kMmaSync); }
LOSSK_TEST(stats_mma_fp16) { check_shapes<Fp16>(head::kMmaSync); }
LOSSK_TEST(stats_mma_fp32) { check_shapes<float>(head::kMmaSync); }
LOSSK_TEST(harmonic_stats_mma_bf16) { check_distances<Bf16>(head::kMmaSync); }
LOSSK_TEST(harmonic_stats_mma_fp16) { check_distances<Fp16>(head::kMmaSync); }
LOSSK_TEST(harmonic_stats_mma_fp32) { check_distances<float>(head::kMmaSync); }
LOSSK_TEST(stats_mma_edges) { check_edges(head::kMmaSync); }
LOSSK_TEST(stats_mma_extremes) { check_extremes(head::kMmaSync); }
LOSSK_TEST(stats_mma_same_bits) { check_same_bits<Bf16>(head::kMmaSync); }

LOSSK_TEST(stats_refuses) {
  alignas(16) float out[4] = {};
  const head::Matrix matrix{out, 0, 8, 0};
  const head::StatsParams good{{matrix, {out, 4, 8, 0}, 8, 256}, {}, out, out, 0};
  const auto refuses = [&](auto change) {
    head::StatsParams p = good;
    change(p);
    expect(head::stats(p, Element::bf16, false, nullptr) != cudaSuccess, "accepted what it cannot do");
  };
  expect(head::stats(good, Element::bf16, false, nullptr) == cudaSuccess, "refused an empty batch");
  expect(head::stats(good, Element::tf32, false, nullptr) != cudaSuccess, "accepted tf32");
  refuses([](auto& p) { p.product.a.stride = 12; });
  refuses([](auto& p) { p.product.b.plane = 4; });
  refuses([](auto& p) { p.product.span = 100; });
  refuses([](auto& p) { p.product.span = 0; });
  refuses([](auto& p) { p.product.a.rows = -1; });
  refuses([](auto& p) { p.product.a.data = static_cast<const char*>(p.product.a.data) + 2; });
}

#ifndef __CUDACC__
LOSSK_TEST(stats_mma_bank_conflicts) {
  emulator::counters = {};
  run_stats(head::kMmaSync, HeadProblem<Bf16>({128, 128, 128}), false);
  expect(emulator::counters.matrices > 0 && emulator::counters.bank_conflicts == 0, "ldmatrix meets bank conflicts");
}
#endif

#if LOSSK_TEST_SM90
// Several tiles a block, of more steps than there are stages.
LOSSK_TEST(stats_wgmma_long) {
  check_stats<Bf16>(head::kWgmma, {70, 1100, 392}, kPlain, false);
  check_stats<Bf16>(head::kWgmma, {70, 1100, 392}, kPlain, true);
}
// Pairs of blocks whose ring goes round; the second of the last pair has no rows.
LOSSK_TEST(stats_wgmma_pairs) {
  check_stats<Bf16>(head::kWgmma, {300, 260, 392}, kPlain, false);
  check_stats<Bf16>(head::kWgmma, {190, 260, 392}, {.ignored = true}, true);
}
LOSSK_TEST(stats_wgmma_bf16) { check_shapes<Bf16>(head::kWgmma); }
LOSSK_TEST(stats_wgmma_fp16) { check_shapes<Fp16>(head::kWgmma); }
LOSSK_TEST(stats_wgmma_fp32) { check_shapes<float>(head::kWgmma); }
LOSSK_TEST(harmonic_stats_wgmma_bf16) { check_distances<Bf16>(head::kWgmma); }
LOSSK_TEST(harmonic_stats_wgmma_fp16) { check_distances<Fp16>(head::kWgmma); }
LOSSK_TEST(harmonic_stats_wgmma_fp32) { check_distances<float>(head::kWgmma); }
LOSSK_TEST(stats_wgmma_edges) { check_edges(head::kWgmma); }
LOSSK_TEST(stats_wgmma_extremes) { check_extremes(head::kWgmma); }
LOSSK_TEST(stats_wgmma_same_bits) { check_same_bits<Fp16>(head::kWgmma); }
#endif

}  // namespace
}  // namespace lossk::test
