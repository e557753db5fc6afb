// cuda/head/largest against plain loops: the largest logits of small integers, which are exact and often equal, and
// draws by the same noise.
#include <algorithm>

#include "device/kernels/head_problem.h"
#include "head/largest/params.h"

namespace lossk::test {
namespace {

struct Cut {
  int columns = 256, rows = 64;
};

// Logits that float32 holds exactly, many of them equal, or in ascending order.
template <class T>
HeadProblem<T> integers(const Shape& s, Options o, bool ascending) {
  o.bias = true, o.picks = 0;
  HeadProblem<T> p(s, o);
  p.input = random_integers<T>(p.input.size(), -2, 2), p.weight = random_integers<T>(p.weight.size(), -1, 1);
  for (int j = 0; j < s.v; ++j) p.bias[j] = ascending ? static_cast<float>(j) : random_integer(-1, 1);
  for (float& x : p.scale) x = random_integer(0, 1) ? 2 : 0.5f;
  const std::vector<float> x = to_floats(p.input), w = to_floats(p.weight);
  for (int64_t i = 0; i < s.n; ++i)
    for (int64_t j = 0; j < s.v; ++j) {
      double dot = p.bias[j];
      for (int k = 0; k < s.d; ++k) dot += x[i * s.d + k] * w[j * s.d + k];
      p.z[i * s.v + j] = (o.scale ? p.scale[i] : 1) * dot;
    }
  return p;
}

template <class T>
class LargestRun {
 public:
  LargestRun(const Path& path, const HeadProblem<T>& p, const Cut& cut)
      : path_(path),
        p_(p),
        cut_(cut),
        x_(p),
        raw_(size_t(std::min(cut.rows, n_)) * round_up(std::min(cut.columns, v_), 8)),
        partial(size_t(2) * segments * n_) {}

  // visit(logits) for each part and band.
  template <class F>
  void for_logits(const F& visit) const {
    for (int first = 0; first < v_; first += cut_.columns)
      for (int row = 0; row < n_; row += cut_.rows) {
        const int columns = std::min(cut_.columns, v_ - first), rows = std::min(cut_.rows, n_ - row);
        head::Head h = x_.part(first, columns);
        h.rows = rows, h.first_row = h.rows_there.before = row;
        head::Matrix a = x_.input();
        a.data = static_cast<const uint16_t*>(a.data) + row * a.stride, a.rows = rows;
        head::StoreParams s{{a, x_.weight(first, columns), p_.s.d, 256, h.rows_there}, raw_.data(), true};
        s.count = h.rows_there, s.rows = rows, s.columns = round_up(columns, 8), s.first = s.last = true;
        check(path_.store(s, x_.kType, head::Along::depth, head::Along::depth, nullptr), "logits");
        auto* partials = reinterpret_cast<head::Partial*>(partial.data());
        visit(head::LogitsRead{h, raw_.data(), s.columns, n_, partials, segment});
      }
    synchronize();
  }
  const head::Head& head() const { return x_.h; }

 private:
  const Path& path_;
  const HeadProblem<T>& p_;
  const Cut cut_;
  const HeadOnDevice<T> x_;
  const int n_ = p_.s.n, v_ = p_.s.v;
  const Buffer<float> raw_;

 public:
  const int segment = head::segment_of(v_), segments = ceil_div(v_, segment);
  const Buffer<float> partial;
};

struct Best {
  std::vector<float> values, lse;
  std::vector<int64_t> indices;
};

template <class T>
Best run_largest(const Path& path, const HeadProblem<T>& p, int k, const Cut& cut = {}) {
  const LargestRun<T> run(path, p, cut);
  const int n = p.s.n;
  const Buffer<head::Key> best(size_t(n) * k);
  const Buffer<float> values(size_t(n) * k), stats(size_t{3} * n);
  const Buffer<int64_t> indices(size_t(n) * k);
  run.for_logits([&](const head::LogitsRead& logits) {
    check(head::largest(head::LargestParams{logits, k, best.data()}, nullptr), "largest");
  });
  check(
      head::write_largest(head::WriteLargestParams{best.data(), run.head(), k, values.data(), indices.data()}, nullptr),
      "write_largest");
  head::MergeParams merge{run.partial.data(), run.segments, run.head()};
  merge.stats = stats.data();
  check(head::merge_stats(merge, false, nullptr), "merge_stats");
  synchronize();
  std::vector<float> lse = stats.values();
  lse.resize(n);
  return {values.values(), lse, indices.values()};
}

template <class T>
void check_largest(const Path& path, const Shape& s, const Options& o, int k, bool ascending = false) {
  const HeadProblem<T> p = integers<T>(s, o, ascending);
  const Best got = run_largest(path, p, k);
  const std::string name = std::to_string(k) + " largest of " + name_of(s);
  for (int i = 0; i < s.n; ++i) {
    const double* z = p.z.data() + size_t(i) * s.v;
    if (!p.active[i]) {
      expect(got.indices[size_t(i) * k] == -1 && std::isnan(got.values[size_t(i) * k]), name + ": an ignored row");
      continue;
    }
    std::vector<int> order(s.v);
    double sum = 0;
    for (int j = 0; j < s.v; ++j) order[j] = j;
    std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return z[a] > z[b]; });
    for (int j = 0; j < s.v; ++j) sum += std::exp(z[j] - z[order[0]]);
    for (int j = 0; j < k; ++j) {
      expect(got.indices[size_t(i) * k + j] == order[j], name + ": another column");
      expect(got.values[size_t(i) * k + j] == z[order[j]], name + ": another value");
    }
    const double lse = z[order[0]] + std::log(sum);
    expect(std::fabs(got.lse[i] - lse) <= 2e-6 * (1 + std::fabs(lse)), name + ": lse");
  }
}

const Options kHeads[] = {{.picks = 0}, {.ignored = true, .picks = 0}, {.scale = true, .ignored = true, .picks = 0}};

template <class T>
void check_shapes(const Path& path, int every) {
  constexpr int kMost[] = {1, 5, 31, head::kMostLargest};
  for (int i = 0; i < 12; ++i)
    if (LOSSK_SMALL_SHAPES ? i % 6 == 5 && std::is_same_v<T, Bf16> : i % every == 0) {
      const Shape& s = kSmallShapes[i];
      check_largest<T>(path, s, kHeads[i % 3], std::min(kMost[i % 4], s.v), i % 2 == 1);
    }
}

void check_nan(const Path& path) {
  HeadProblem<Bf16> p = integers<Bf16>({3, 300, 8}, kHeads[0], false);
  p.bias[7] = -NAN, p.bias[290] = NAN, p.bias[100] = INFINITY, p.bias[20] = -INFINITY;
  const Best all = run_largest(path, p, 128);
  for (int i = 0; i < 3; ++i) {
    expect(all.indices[i * 128] == 7 && all.indices[i * 128 + 1] == 290, "nan does not come first");
    expect(std::isnan(all.values[i * 128]) && std::isnan(all.values[i * 128 + 1]), "nan has become a number");
    expect(all.indices[i * 128 + 2] == 100 && all.values[i * 128 + 2] == INFINITY, "infinity does not come next");
  }
  HeadProblem<Bf16> zeros = integers<Bf16>({1, 3, 8}, {.scale = true}, false);
  std::fill(zeros.weight.begin(), zeros.weight.end(), bf16(0));
  zeros.bias = {-INFINITY, -1e-30f, 1e-30f}, zeros.scale = {1e-30f};  // -0 and 0
  expect_equal(run_largest(path, zeros, 3).indices, {1, 2, 0}, "order of zeros");
}

struct Drawn {
  std::vector<int64_t> token;
  std::vector<float> logp;
};
template <class T>
Drawn run_sample(const Path& path, const HeadProblem<T>& p, int64_t seed, const Cut& cut = {}) {
  const LargestRun<T> run(path, p, cut);
  const int n = p.s.n;
  const Buffer<int64_t> seeds(std::vector<int64_t>{seed}), token(size_t{1} * n);
  const Buffer<head::Key> sampled(size_t{2} * run.segments * n);
  const Buffer<float> logp(size_t{1} * n);
  auto* found = reinterpret_cast<head::Sampled*>(sampled.data());
  run.for_logits([&](const head::LogitsRead& logits) {
    check(head::sample(head::DrawParams{logits, seeds.data(), found}, nullptr), "sample");
  });
  check(
      head::merge_sampled(
          head::MergeSampledParams{
              found, reinterpret_cast<head::Partial*>(run.partial.data()), run.segments, n, token.data(), logp.data()},
          nullptr),
      "merge_sampled");
  synchronize();
  return {token.values(), logp.values()};
}

template <class T>
void check_sample(const Path& path, const Shape& s, const Options& o) {
  const HeadProblem<T> p(s, o);
  const int64_t seed = int64_t{random_integer(0, 1 << 30)} << 20;
  const Drawn got = run_sample(path, p, seed);
  for (int i = 0; i < s.n; ++i) {
    const double* z = p.z.data() + size_t(i) * s.v;
    const auto noisy = [&](int j) { return z[j] + gumbel_of(seed, i, j / 4).x[j % 4]; };
    double most = -INFINITY;
    for (int j = 0; j < s.v; ++j) most = std::fmax(most, noisy(j));
    const int64_t token = got.token[i];
    expect(token >= 0 && token < s.v && noisy(token) > most - 1e-4, "drew another column of " + name_of(s));
    expect(
        std::fabs(got.logp[i] - (z[token] - p.stats[i].lse)) <= 4e-6 * (1 + std::fabs(z[token])),
        "logp of " + name_of(s));
  }
}

// Each column as often as its probability says.
void check_frequencies(const Path& path) {
  constexpr int kRows = 600;
  HeadProblem<Bf16> p = integers<Bf16>({kRows, 5, 8}, kHeads[0], false);
  std::fill(p.weight.begin(), p.weight.end(), bf16(0));
  p.bias = {0, 1, 2, -1, 0.5f};
  double count[5] = {}, sum = 0;
  for (const int64_t token : run_sample(path, p, 9).token) ++count[token];
  for (const float z : p.bias) sum += std::exp(z);
  for (int j = 0; j < 5; ++j) {
    const double share = std::exp(p.bias[j]) / sum, deviation = std::sqrt(share * (1 - share) * kRows);
    expect(std::fabs(count[j] - share * kRows) < 4 * deviation, "a column is drawn too often or too seldom");
  }
}

template <class T>
void check_same_bits(const Path& path) {
  random_source().seed(13);
  const HeadProblem<T> p({70, 530, 24}, {.scale = true, .picks = 0, .softcap = 5});
  const Best best = run_largest(path, p, 128), other = run_largest(path, p, 128, {.columns = 512, .rows = 128});
  const Drawn drawn = run_sample(path, p, 3), drawn_too = run_sample(path, p, 3, {.columns = 512, .rows = 128});
  static const Best first_best = best;
  static const Drawn first_drawn = drawn;
  for (const Best* b : {&other, &first_best}) {
    expect_equal(best.indices, b->indices, "columns of other parts, or under another schedule");
    expect_equal(best.values, b->values, "values of other parts, or under another schedule");
    expect_equal(best.lse, b->lse, "lse of other parts, or under another schedule");
  }
  for (const Drawn* d : {&drawn_too, &first_drawn}) {
    expect_equal(drawn.token, d->token, "draws of other parts, or under another schedule");
    expect_equal(drawn.logp, d->logp, "logp of other parts, or under another schedule");
  }
}

template <class T>
void check_samples(const Path& path) {
  check_sample<T>(path, {9, 300, 40}, {.bias = true, .scale = true, .picks = 0, .softcap = 5});
  check_sample<T>(path, {70, 33, 9}, {.picks = 0});
}

LOSSK_TEST(largest_mma_bf16) { check_shapes<Bf16>(head::kMmaSync, 1); }
LOSSK_TEST(largest_mma_fp16) { check_shapes<Fp16>(head::kMmaSync, 4); }
LOSSK_TEST(largest_mma_fp32) { check_shapes<float>(head::kMmaSync, 5); }
LOSSK_TEST(largest_mma_nan) { check_nan(head::kMmaSync); }
LOSSK_TEST(largest_mma_same_bits) { check_same_bits<Bf16>(head::kMmaSync); }
LOSSK_TEST(sample_mma_bf16) { check_samples<Bf16>(head::kMmaSync); }
LOSSK_TEST(sample_mma_fp32) { check_samples<float>(head::kMmaSync); }
LOSSK_TEST(sample_mma_frequencies) { check_frequencies(head::kMmaSync); }

LOSSK_TEST(largest_refuses) {
  alignas(16) float x[16] = {};
  alignas(16) head::Key keys[4] = {};
  head::Partial partial{};
  const int64_t seed = 0;
  const head::LogitsRead logits{{.rows = 1, .columns = 4}, x, 4, 1, &partial, 256};
  const auto refuses = [&](auto change) {
    head::LargestParams p{logits, 4, keys};
    change(p);
    expect(head::largest(p, nullptr) != cudaSuccess, "accepted what it cannot do");
  };
  refuses([](auto& p) { p.k = 0; });
  refuses([](auto& p) { p.k = head::kMostLargest + 1; });
  refuses([](auto& p) { p.logits.stride = 2; });
  refuses([](auto& p) { p.logits.raw = nullptr; });
  refuses([](auto& p) { ++p.logits.raw; });
  refuses([](auto& p) { p.logits.segment = 64; });
  refuses([](auto& p) { p.logits.head.first = 128; });
  head::DrawParams sample{logits, &seed, reinterpret_cast<head::Sampled*>(keys)};
  sample.logits.segment = 0;
  expect(head::sample(sample, nullptr) != cudaSuccess, "accepted no segment");
  sample = {logits, nullptr, reinterpret_cast<head::Sampled*>(keys)};
  expect(head::sample(sample, nullptr) != cudaSuccess, "accepted no seed");
}

#if LOSSK_TEST_SM90
LOSSK_TEST(largest_wgmma_bf16) { check_shapes<Bf16>(head::kWgmma, 3); }
LOSSK_TEST(sample_wgmma_fp16) { check_samples<Fp16>(head::kWgmma); }
#endif

}  // namespace
}  // namespace lossk::test
