// cuda/head/kept against plain loops in double: logits that the forward keeps, and dlogits of those.
#include "device/kernels/gradient_problem.h"
#include "head/kept/params.h"

namespace lossk::test {
namespace {

constexpr Options kAll{true, true, true, true, 4, 0, 0.5f};  // but softcap
constexpr Options kKept[] = {kPlain,       {.bias = true}, {.ignored = true},
                             {.picks = 3}, kAll,           {.scale = true, .picks = 0}};

template <class T>
class KeptHead {
 public:
  KeptHead(const Path& path, const HeadProblem<T>& p, int keep, bool full)
      : p_(p),
        x_(p),
        keep_(keep),
        full_(full),
        kept_(size_t(p.s.n) * head::kept_line(keep)),
        picks_(p.index.size()),
        stats_(size_t(full ? 12 : 3) * p.s.n) {
    run(path, keep_, picks_, stats_);
  }

  // As cuda/head/statistics.cpp does it: those that are kept first.
  void run(const Path& path, int keep, const Buffer<float>& picks, const Buffer<float>& stats) const {
    const int v = p_.s.v, segment = head::segment_of(v), parts = path.parts * ceil_div(v, segment);
    const Buffer<float> partial(size_t(parts) * p_.s.n * sizeof(RowState<float>) / sizeof(float)),
        logp(p_.index.size());
    const Buffer<int64_t> argmax(size_t{1} * p_.s.n);
    const Buffer<double> aux_sum(size_t{1});
    check(head::sum_aux(head::AuxParams{x_.h.aux, v, aux_sum.data()}, nullptr), "sum_aux");
    for (int first = 0, count = 0; first < v; first += count) {
      count = (first < keep ? keep : v) - first;
      check(
          (first < keep ? path.keep_logits : path.stats)(
              head::StatsParams{
                  .product = {x_.input(), x_.weight(first, count), p_.s.d, segment, x_.h.rows_there},
                  .head = x_.part(first, count),
                  .partial = partial.data(),
                  .picked = picks.data(),
                  .first_part = path.parts * (first / segment),
                  .kept = {kept_.data(), keep, first}},
              x_.kType, full_, nullptr),
          "keep_logits");
    }
    check(
        head::merge_stats(
            head::MergeParams{
                partial.data(), parts, x_.h, x_.index(), aux_sum.data(), stats.data(), picks.data(), logp.data(),
                argmax.data()},
            full_, nullptr),
        "merge_stats");
    synchronize();
  }

  // The statistics are, bit by bit, those of a forward that keeps nothing.
  void check_stats(const Path& path) const {
    const Buffer<float> picks(p_.index.size()), stats(stats_.values().size());
    run(path, 0, picks, stats);
    expect_equal(of_rows(stats_.values()), of_rows(stats.values()), "statistics beside kept logits");
  }

  void check_logits() const {
    const std::vector<uint16_t> bits = kept_.values();
    int line = 0;
    for (int i = 0; i < p_.s.n; ++i) {
      if (!p_.active[i]) continue;
      const uint16_t* of = bits.data() + line++ * head::kept_line(keep_);
      const auto* references = reinterpret_cast<const float*>(of + round_up(keep_, 8));
      for (int v = 0; v < keep_; ++v) {
        if (full_ && p_.picks(i, v)) continue;
        const double z = p_.z[int64_t{i} * p_.s.v + v], reference = references[v / head::kColumnsOfReference];
        const double below =
            of[v] >> 12 ? std::ldexp(1 + (of[v] & 4095) / 4096.0, (of[v] >> 12) - 10) : std::ldexp(of[v], -9 - 12);
        const double got = reference - below, error = of[v] == 0xffff ? std::fmax(z - got, 0) : got - z;
        expect(
            std::fabs(error) <= 0x1p-13 * below + 2e-5 * (1 + std::fabs(z)),
            "logit " + std::to_string(got) + ", not " + std::to_string(z) + ", below " + std::to_string(reference) +
                " at " + std::to_string(v) + " of " + name_of(p_.s));
      }
    }
  }

  // In two parts, whose dlogits lie side by side in one matrix.
  void check_dlogits() const {
    std::vector<double> want;
    const GradientProblem g(p_, full_, [&](std::vector<double>& of) { want = of; });
    const int n = p_.s.n, stride = round_up(keep_, 8) + 8;
    const Buffer<float> lse(g.lse), lse_excl(g.lse_excl), row(g.row), pick(g.pick), unit(size_t(n) + 1),
        times(size_t{1} * n);
    const head::Coefs coefs{lse.data(), full_ ? lse_excl.data() : nullptr, row.data(), pick.data(), n};
    const bool by_units = x_.kType == device::Element::fp16;
    if (by_units)
      check(head::find_units(head::UnitParams{x_.h, coefs, full_, unit.data(), times.data()}, nullptr), "find_units");
    const std::vector<T> before = random_matrix<T>(size_t(n) * stride, 1);
    const Buffer<T> out(before);
    const int half = keep_ / 2 / 256 * 256;
    for (const auto& [first, count] : {std::pair(0, half), std::pair(half, keep_ - half)})
      check(
          head::kept_dlogits(
              head::KeptDlogitsParams{
                  head::DlogitsParams{
                      {},
                      x_.part(first, count),
                      coefs,
                      by_units ? unit.data() : nullptr,
                      out.data() + first,
                      stride,
                      nullptr},
                  {kept_.data(), keep_, first},
                  picks_.data()},
              x_.kType, full_, nullptr),
          "kept_dlogits");
    synchronize();
    const std::vector<float> got = to_floats(out.values()), were = to_floats(before), units = unit.values();
    std::vector<float> all;
    std::vector<double> exact;
    int line = 0;
    const auto at = [&](int v) { return int64_t{line} * stride + v; };
    for (int i = 0; i < n; ++i) {
      if (!p_.active[i]) continue;
      for (int v = 0; v < keep_; ++v) {
        const int64_t place = int64_t{i} * p_.s.v + v;
        const double dense = full_ ? g.row[5 * n + i] * (p_.o.aux ? p_.aux[v] : 1) : 0;
        exact.push_back((want[place] + dense) * (p_.o.scale ? p_.scale[i] : 1));
        all.push_back(got[at(v)] / (by_units ? units[line] : 1));
        if (p_.picks(i, v))
          expect(
              std::fabs(all.back() - exact.back()) <= 0x1p-8 * std::fabs(exact.back()) + 1e-5,
              "dlogit " + std::to_string(all.back()) + " of a pick, not " + std::to_string(exact.back()));
      }
      for (int v = keep_; v < stride; ++v)
        expect(
            got[at(v)] == (v < round_up(keep_, 8) ? 0 : were[at(v)]), "wrote beyond the columns of " + name_of(p_.s));
      ++line;
    }
    expect_close<T>(all, exact, "dlogits of " + name_of(p_.s));
    for (const int end = std::min(n, round_up(line, 64)); line < end; ++line)
      for (int v = 0; v < keep_; ++v) expect(got[at(v)] == 0, "a row that is not there has dlogits");
    for (; line < n; ++line)
      for (int v = 0; v < keep_; ++v) expect(got[at(v)] == were[at(v)], "wrote rows beyond those that are read");
  }

 private:
  std::vector<float> of_rows(std::vector<float> stats) const {
    for (size_t i = 0; i < stats.size(); ++i)
      if (!p_.active[i % p_.s.n]) stats[i] = 0;
    return stats;
  }

  const HeadProblem<T>& p_;
  const HeadOnDevice<T> x_;
  const int keep_;
  const bool full_;
  const Buffer<uint16_t> kept_;
  const Buffer<float> picks_, stats_;
};

template <class T>
void check_shapes(const Path& path) {
  for (int i = 0; i < 12; ++i) {
    if (LOSSK_SMALL_SHAPES && i % 3 != 2) continue;
    const Shape s = kShapes[i];
    const HeadProblem<T> p(s, kKept[(i + i / 6) % 6]);
    const bool full = i % 2 == 1;
    const int some = std::max(s.v / 2 / 256 * 256, std::min(s.v, 256));  // whole segments
    for (const int keep : {some, s.v}) {
      const KeptHead<T> x(path, p, keep, full);
      x.check_stats(path);
      x.check_logits();
      x.check_dlogits();
    }
  }
}

// Of logits far apart, with a target whose p is nearly 1: 1 - p has no digits of what is kept. Of tiny ones, where a
// reference has fewer bits than its row. And every option, in a part that begins inside the vocabulary.
template <class T>
void check_edges(const Path& path) {
  for (const float spread : {40.f, 1e-4f, 1e-6f}) {
    const HeadProblem<T> p({20, 300, 64}, {.bias = spread > 1, .picks = 1}, spread);
    for (const bool full : {false, true}) {
      const KeptHead<T> x(path, p, 300, full);
      x.check_logits();
      x.check_dlogits();
    }
  }
  const HeadProblem<T> p({70, 800, 64}, kAll);
  const KeptHead<T> x(path, p, 768, true);
  x.check_stats(path);
  x.check_dlogits();
}

LOSSK_TEST(kept_mma_bf16) { check_shapes<Bf16>(head::kMmaSync); }
LOSSK_TEST(kept_mma_fp16) { check_shapes<Fp16>(head::kMmaSync); }
LOSSK_TEST(kept_mma_edges) { check_edges<Bf16>(head::kMmaSync); }

LOSSK_TEST(kept_refuses) {
  const Buffer<float> ones(std::vector<float>(8, 1));
  const Buffer<Bf16> out(size_t{16});
  const Buffer<uint16_t> kept(std::vector<uint16_t>(64, 0));
  const head::Head h{.rows = 1, .columns = 4};
  const head::Coefs coefs{ones.data(), nullptr, ones.data(), nullptr, 1};
  const head::KeptDlogitsParams good{
      head::DlogitsParams{{}, h, coefs, nullptr, out.data(), 8, nullptr}, {kept.data(), 4, 0}, nullptr};
  const auto accepts = [&](Element type, auto change) {
    head::KeptDlogitsParams p = good;
    change(p);
    return head::kept_dlogits(p, type, false, nullptr) == cudaSuccess;
  };
  const auto refuses = [&](Element type, auto change) { expect(!accepts(type, change), "accepted what it cannot do"); };
  expect(accepts(Element::bf16, [](auto&) {}), "refused what it can do");
  refuses(Element::fp32, [](auto&) {});
  refuses(Element::fp16, [](auto&) {});  // has a unit
  refuses(Element::bf16, [](auto& p) { p.kept.line = 8; });
  refuses(Element::bf16, [](auto& p) { ++p.kept.values; });
  refuses(Element::bf16, [](auto& p) { p.dlogits.stride = 12; });
  refuses(Element::bf16, [](auto& p) { p.dlogits.head.softcap = 3; });
  refuses(Element::bf16, [](auto& p) { p.dlogits.head.distance = Distance::cosine; });
  refuses(Element::bf16, [&](auto& p) { p.dlogits.row_sums = ones.data(); });
  synchronize();
}

#if LOSSK_TEST_SM90
LOSSK_TEST(kept_wgmma_bf16) { check_shapes<Bf16>(head::kWgmma); }
LOSSK_TEST(kept_wgmma_fp16) { check_shapes<Fp16>(head::kWgmma); }
LOSSK_TEST(kept_wgmma_edges) { check_edges<Fp16>(head::kWgmma); }
#endif

}  // namespace
}  // namespace lossk::test
