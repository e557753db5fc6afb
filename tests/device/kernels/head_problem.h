// A vocabulary head with any options: its statistics and gradients by plain loops in double, and on the device.
#pragma once
#include <cmath>

#include "device/harness.h"
#include "head/live/params.h"
#include "head/paths.h"
#include "head/rows/params.h"

namespace lossk::test {

using head::Path;

struct Shape {
  int n, v, d;
};

struct Options {
  bool bias = false, scale = false, aux = false, ignored = false;
  int picks = 1;
  float softcap = 0, margin = 0;
  Distance distance = Distance::none;  // instead of all but `ignored`
  float power = 0;
};
inline const Options kPlain{}, kEverything{true, true, true, true, 4, 5, 0.5f};
inline const Options kSome[] = {kPlain,       {.bias = true}, {.ignored = true},
                                {.picks = 3}, kEverything,    {.scale = true, .picks = 0}};

struct RowStats {
  double lse, lse_excl, mean_logit, entropy, lse2, aux_mean, aux_logp, max, min;
  int64_t argmax;
};

template <class T>
struct HeadProblem {
  Shape s;
  Options o;
  std::vector<T> input, weight;
  std::vector<float> bias, scale, aux, terms;  // of a distance its columns are bias, its rows terms
  std::vector<int64_t> index;                  // [n, picks]: repeated ones, -1 for none, and outside on either side
  std::vector<uint8_t> active;
  std::vector<double> z, slope, unscaled;  // [n, v]
  std::vector<RowStats> stats;

  explicit HeadProblem(const Shape& shape, const Options& options = {}, float spread = 2)
      : s(shape),
        o(options),
        input(random_matrix<T>(size_t(s.n) * s.d, 1)),
        weight(random_matrix<T>(size_t(s.v) * s.d, spread / std::sqrt(float(std::max(s.d, 1))))),
        bias(o.bias ? random_matrix<float>(s.v, 1) : std::vector<float>()),
        scale(o.scale ? s.n : 0),
        aux(o.aux ? random_matrix<float>(s.v, 1) : std::vector<float>()),
        index(size_t(s.n) * o.picks),
        active(s.n, 1) {
    for (float& x : scale) x = 0.5f + static_cast<float>(random_integer(0, 8)) / 8;
    for (int64_t& i : index) i = random_integer(-2, s.v);
    for (int row = 0; o.picks > 1 && row < s.n; row += 3)
      index[size_t(row) * o.picks + 1] = index[size_t(row) * o.picks];
    for (uint8_t& a : active) a = !o.ignored || random_integer(0, 3) > 0;
    if (o.ignored && s.n > 1) active[0] = 0;
    const std::vector<float> x = to_floats(input), w = to_floats(weight);
    if (o.distance != Distance::none) place_points(x, w);
    z.resize(size_t(s.n) * s.v), slope.resize(z.size(), 1), unscaled.resize(z.size());
    for (int64_t row = 0; row < s.n; ++row) solve(row, x.data() + row * s.d, w.data());
    for (size_t i = 0; i < input.size(); ++i)
      if (!active[i / s.d]) input[i] = from_float<T>(NAN);  // nobody may look
  }

  bool picks(int64_t row, int64_t v) const {
    for (int k = 0; k < o.picks; ++k)
      if (index[row * o.picks + k] == v) return true;
    return false;
  }

 private:
  // As product_terms in python/lossk/_distances.py.
  void place_points(const std::vector<float>& x, const std::vector<float>& w) {
    const bool cosine = o.distance == Distance::cosine;
    const auto square = [&](const std::vector<float>& of, int64_t i) {
      double sum = 0;
      for (int64_t k = 0; k < s.d; ++k) sum += double{of[i * s.d + k]} * of[i * s.d + k];
      return sum;
    };
    for (int64_t v = 0; v < s.v; ++v)
      bias.push_back(float(cosine ? 1 / std::fmax(std::sqrt(square(w, v)), 1e-30) : square(w, v) / 2));
    terms.resize(size_t(4) * s.n);
    for (int64_t i = 0; i < s.n; ++i) {
      const double length = std::sqrt(square(x, i));
      double apart = 1;  // of a target that is there
      if (const int64_t y = index[i * o.picks]; y >= 0 && y < s.v) {
        apart = 0;
        const double other = std::sqrt(square(w, y));
        for (int64_t k = 0; k < s.d; ++k) {
          const double a = x[i * s.d + k], b = w[y * s.d + k], by = cosine ? a / length - b / other : a - b;
          apart += by * by / (cosine ? 2 : 1);
        }
      }
      const bool squared = is_squared(o.distance);
      // Not its own: a kernel that takes the target's from the product is then found out.
      const double eps = 1e-4, reference = 1.5 * (squared ? apart : apart * apart) + eps;
      const double by = squared ? reference : std::sqrt(reference);
      const double row[] = {
          (cosine ? 1 / length : 2) / by, cosine ? length : length * length / 2, eps / reference, 1.25 * apart / by};
      for (int k = 0; k < 4; ++k) terms[size_t(k) * s.n + i] = float(row[k]);
    }
  }

  // The logit of a distance, and what it changes by with -h.
  double harmonic(int64_t row, int64_t v, double dot, double& slope) const {
    const double scale = terms[row], offset = terms[s.n + row], eps = terms[2 * s.n + row];
    const bool target = index[row * o.picks] == v, squared = is_squared(o.distance);
    const double h = o.distance == Distance::cosine ? offset - bias[v] * dot : offset + bias[v] - dot;
    const double t = target ? terms[3 * s.n + row] : scale * std::fmax(h, 0), sum = (squared ? t : t * t) + eps;
    slope = t > 0 ? o.power * scale * (squared ? 1 : 2 * t) / sum : 0;
    return target ? 0 : -o.power * std::log(sum);
  }

  void solve(int64_t row, const float* x, const float* w) {
    double* zs = z.data() + row * s.v;
    RowStats r{-INFINITY, -INFINITY, 0, 0, -INFINITY, 0, 0, -INFINITY, INFINITY, 0};
    double sum = 0, excl = 0, square = 0, aux_dot = 0, aux_sum = 0;
    for (int64_t v = 0; v < s.v; ++v) {
      double dot = 0;
      for (int k = 0; k < s.d; ++k) dot += double{x[k]} * w[v * s.d + k];
      if (o.distance != Distance::none) dot = harmonic(row, v, dot, slope[row * s.v + v]);
      if (o.bias) dot += bias[v];
      unscaled[row * s.v + v] = dot;
      if (o.scale) dot *= scale[row];
      if (o.softcap > 0) {
        const double t = std::tanh(dot / o.softcap);
        dot = o.softcap * t;
        slope[row * s.v + v] = 1 - t * t;
      }
      if (o.picks > 0 && index[row * o.picks] == v) dot -= o.margin;
      zs[v] = dot;
      if (dot > r.max) r.max = dot, r.argmax = v;
      r.min = std::fmin(r.min, dot);
    }
    for (int64_t v = 0; v < s.v; ++v) {
      const double e = std::exp(zs[v] - r.max), a = o.aux ? aux[v] : 1;
      sum += e, square += e * e;
      if (!picks(row, v)) excl += e;
      r.mean_logit += e * zs[v], r.aux_mean += e * a;
      aux_dot += a * zs[v], aux_sum += a;
    }
    r.lse = r.max + std::log(sum), r.lse_excl = r.max + std::log(excl), r.lse2 = 2 * r.max + std::log(square);
    r.mean_logit /= sum, r.aux_mean /= sum;
    r.entropy = r.lse - r.mean_logit, r.aux_logp = aux_dot - aux_sum * r.lse;
    stats.push_back(r);
  }
};

// The problem in the device's memory, laid out as cuda/head/operands.cpp does it.
template <class T>
class HeadOnDevice {
 public:
  explicit HeadOnDevice(const HeadProblem<T>& p)
      : s_(p.s),
        input_(p.input),
        weight_(p.weight),
        bias_(p.bias),
        scale_(p.scale),
        aux_(p.aux),
        terms_(p.terms),
        index_(p.index),
        active_(p.active),
        columns_(p.index.size()),
        entries_(p.index.size()),
        ids_(size_t(p.s.n)),
        count_(size_t{1}),
        rows_(size_t(kPlanes) * s_.n * padded()),
        multiplied_(size_t(s_.n) * padded()),
        columns_of_weight_(kPlanes == 1 && s_.d % 8 == 0 ? 0 : size_t(kPlanes) * s_.v * padded()) {
    h.rows = s_.n, h.columns = s_.v;
    h.bias = p.bias.empty() ? nullptr : bias_.data();
    h.distance = p.o.distance, h.power = p.o.power, h.terms = terms_.data(), h.of = s_.n;
    h.scale = p.o.scale ? scale_.data() : nullptr;
    h.aux = p.o.aux ? aux_.data() : nullptr;
    h.softcap = p.o.softcap, h.margin = p.o.margin;
    h.picks = {columns_.data(), entries_.data(), p.o.picks};
    check(
        head::sort_picks(
            head::SortPicksParams{index_.data(), s_.n, p.o.picks, s_.v, columns_.data(), entries_.data()}, nullptr),
        "sort_picks");
    if (p.o.ignored) {
      check(
          head::compact(
              head::CompactParams{reinterpret_cast<const bool*>(active_.data()), s_.n, ids_.data(), count_.data()},
              nullptr),
          "compact");
      h.ids = ids_.data(), h.rows_there = {count_.data()};
    }
    check(
        head::gather(
            head::GatherParams{input_.data(), s_.d, h.ids, h.rows_there, nullptr, rows_.data(), s_.n, s_.d, padded()},
            kType, nullptr),
        "gather");
    if (columns_of_weight_.size())
      check(
          head::gather(
              head::GatherParams{
                  weight_.data(), s_.d, nullptr, {}, nullptr, columns_of_weight_.data(), s_.v, s_.d, padded()},
              kType, nullptr),
          "gather");
  }

  using Element = typename head::Planes<T>::Element;
  static constexpr int kPlanes = head::Planes<T>::planes;
  static constexpr auto kType = ElementOf<T>::value;
  int padded() const { return round_up(s_.d, 8); }
  head::Matrix input() const { return {rows_.data(), s_.n, padded(), int64_t{s_.n} * padded()}; }
  head::Matrix input_by_columns() const { return {rows_.data(), s_.d, padded(), int64_t{s_.n} * padded()}; }
  head::Matrix input_by_columns(const float* times) const {
    return input_by_columns(times, multiplied_.data(), 0, s_.n);
  }
  head::Matrix input_by_columns(const float* times, Element* to, int first, int rows) const {
    const T* from = input_.data() + (h.ids ? 0 : int64_t{first} * s_.d);
    const int* ids = h.ids ? h.ids + first : nullptr;
    check(
        head::gather(
            head::GatherParams{from, s_.d, ids, {h.rows_there.there, first}, times, to, rows, s_.d, padded()}, kType,
            nullptr),
        "gather");
    return {to, s_.d, padded(), 0};
  }
  head::Matrix weight(int first, int count) const {
    const bool laid_out = columns_of_weight_.size() > 0;
    const void* data = laid_out ? static_cast<const void*>(columns_of_weight_.data() + int64_t{first} * padded())
                                : weight_.data() + int64_t{first} * s_.d;
    return {data, count, padded(), int64_t{s_.v} * padded()};
  }
  const int64_t* index() const { return index_.data(); }
  const T* weight_source() const { return weight_.data(); }
  int width() const { return s_.d; }
  head::Head part(int first, int count) const {
    head::Head part = h;
    part.first = first, part.columns = count;
    return part;
  }
  head::Head h{};

 private:
  const Shape s_;
  const Buffer<T> input_, weight_;
  const Buffer<float> bias_, scale_, aux_, terms_;
  const Buffer<int64_t> index_;
  const Buffer<uint8_t> active_;
  const Buffer<int> columns_, entries_, ids_, count_;
  const Buffer<Element> rows_, multiplied_, columns_of_weight_;
};

// A list's columns as a head of their own, as cuda/head/columns.cpp has it; `most` at a time.
template <class T>
class HeadOfColumns {
 public:
  HeadOfColumns(
      const HeadOnDevice<T>& x, const HeadProblem<T>& p, const int* ids, const int* count, int first_row, int rows,
      int most)
      : x_(x),
        ids_(ids),
        count_(count),
        most_(most),
        weight_(size_t(x.kPlanes) * most * x.padded()),
        bias_(size_t{1} * p.s.v),
        aux_(size_t{1} * p.s.v),
        columns_(p.index.size()),
        entries_(p.index.size()),
        h_(x.h) {
    h_.rows = rows, h_.first_row = first_row, h_.rows_there.before = first_row;
    check(
        head::gather_columns(
            head::ColumnParams{ids, {count}, p.s.v, x.h.bias, x.h.aux, bias_.data(), aux_.data()}, nullptr),
        "gather_columns");
    check(
        head::map_picks(head::MapPicksParams{h_, ids, count, columns_.data(), entries_.data()}, nullptr), "map_picks");
    if (h_.bias) h_.bias = bias_.data();
    if (h_.aux) h_.aux = aux_.data();
    h_.picks.column = columns_.data(), h_.picks.entry = entries_.data();
  }

  head::Matrix weight(int first) const {
    check(
        head::gather(
            head::GatherParams{
                x_.weight_source(),
                x_.width(),
                ids_ + first,
                {count_, first},
                nullptr,
                weight_.data(),
                most_,
                x_.width(),
                x_.padded()},
            x_.kType, nullptr),
        "gather");
    return {weight_.data(), most_, x_.padded(), int64_t{most_} * x_.padded()};
  }
  head::Head part(int first) const {
    head::Head part = h_;
    part.first = first, part.columns = most_, part.columns_there = {count_, first};
    return part;
  }

 private:
  const HeadOnDevice<T>& x_;
  const int *ids_, *count_;
  const int most_;
  const Buffer<typename HeadOnDevice<T>::Element> weight_;
  const Buffer<float> bias_, aux_;
  const Buffer<int> columns_, entries_;
  head::Head h_;
};

// Twelve ragged shapes: one tile and several, partial tiles in every direction, segments and parts that end inside the
// vocabulary, more features than a stage holds, and a number of them that copies of 16 bytes do not divide.
inline const Shape kShapes[] = {
    {1, 1, 8},      {1, 257, 8},    {7, 100, 72},   {64, 130, 136}, {100, 300, 64}, {128, 256, 64},
    {129, 257, 70}, {130, 513, 33}, {33, 600, 264}, {190, 40, 56},  {140, 511, 1},  {3, 777, 320},
};
// The same, smaller: for float32, whose product is six, and for builds that are slow.
inline const Shape kSmallShapes[] = {
    {1, 1, 8},    {1, 257, 8},    {7, 100, 72},  {64, 130, 8}, {100, 120, 64}, {128, 256, 8},
    {129, 9, 70}, {130, 130, 33}, {9, 300, 520}, {10, 40, 56}, {40, 260, 1},   {3, 513, 24},
};
#ifndef LOSSK_SMALL_SHAPES
#define LOSSK_SMALL_SHAPES 0
#endif
template <class T>
const Shape (&shapes())[12] {
  if constexpr (LOSSK_SMALL_SHAPES || std::is_same_v<T, float>) return kSmallShapes;
  else return kShapes;
}

// In a slow build only bf16 has all twelve; the others, whose kernels are instances of the same templates, every third
// and sixth.
template <class T>
bool left_out(int i) {
  constexpr int kEvery = std::is_same_v<T, Bf16> ? 1 : std::is_same_v<T, float> ? 6 : 3;
  return LOSSK_SMALL_SHAPES && i % kEvery != kEvery - 1;
}

inline std::string name_of(const Shape& s) {
  return std::to_string(s.n) + " x " + std::to_string(s.v) + " x " + std::to_string(s.d);
}

}  // namespace lossk::test
