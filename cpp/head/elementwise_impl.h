// Elementwise distances as templates on a CPU (Isa), instantiated by elementwise_*.cpp with that CPU's compiler flags.
#pragma once
#include "common/products_impl.h"
#include "head/elementwise_cores.h"

namespace lossk {

template <class Isa, class T>
struct ElementwiseOf {
  using S = Simd<Isa, T>;
  using V = typename S::V;
  using B = Core<S>;
  static constexpr int64_t W = S::width, mr = Isa::mr, nr = Isa::vectors * W;
  static constexpr int vectors = Isa::vectors;

  static void pack(ScalarType dtype, const PackArgs& args, T* panels) {
    const auto from = [&]<class From>() {
      if (args.width == mr) pack_panels<Isa, From, T, mr>(args, panels);
      else pack_panels<Isa, From, T, nr>(args, panels);
    };
    if constexpr (sizeof(T) == 8) from.template operator()<double>();
    else if (dtype == ScalarType::BFloat16) from.template operator()<Bf16>();
    else if (dtype == ScalarType::Half) from.template operator()<Fp16>();
    else from.template operator()<float>();
  }

  // ---- distances ---------------------------------------------------------------------------------------------------

  // Sums of `rows` rows of a tile. Trap: chains of kChain elements are added up apart; one of all of them would round
  // more than torch does, and the exponent multiplies that.
  static constexpr int64_t kChain = 64;
  template <int rows, class C>
  static void walk(
      const C& core, int64_t dim, const T* x, const T* w, const V (&largest)[rows][vectors],
      V (&total)[rows][vectors][C::sums]) {
    for (int64_t k0 = 0; k0 < dim; k0 += kChain) {
      const int64_t k1 = dim - k0 < kChain ? dim : k0 + kChain;
      V sum[rows][vectors][C::sums] = {};
      for (int64_t k = k0; k < k1; ++k, x += mr, w += nr) {
        V wv[vectors];
#pragma GCC unroll 2
        for (int j = 0; j < vectors; ++j) wv[j] = S::load(w + j * W);
#pragma GCC unroll 12
        for (int i = 0; i < rows; ++i)
#pragma GCC unroll 2
          for (int j = 0; j < vectors; ++j) core.add(sum[i][j], S::fill(x[i]), wv[j], largest[i][j], k);
      }
#pragma GCC unroll 12
      for (int i = 0; i < rows; ++i)
#pragma GCC unroll 2
        for (int j = 0; j < vectors; ++j) core.join(total[i][j], sum[i][j]);
    }
  }

  template <class C>
  static void tile(const C& core, int64_t dim, const T* x, const T* w, T* d, T* second) {
    constexpr int rows = C::light ? mr / C::sums : 1;
    for (int i0 = 0; i0 < mr; i0 += rows) {
      V largest[rows][vectors] = {};
      if constexpr (C::from_largest) {
        V found[rows][vectors][1] = {};
        walk<rows>(Chebyshev<S>{}, dim, x + i0, w, largest, found);
        for (int i = 0; i < rows; ++i)
          for (int j = 0; j < vectors; ++j) largest[i][j] = found[i][j][0];
      }
      V total[rows][vectors][C::sums] = {};
      walk<rows>(core, dim, x + i0, w, largest, total);
      for (int i = 0; i < rows; ++i)
        for (int j = 0; j < vectors; ++j) {
          const int64_t at = (i0 + i) * kSegment + j * W;
          S::store(d + at, core.distance(total[i][j], largest[i][j]));
          if (C::two && second) S::store(second + at, core.second(total[i][j]));
        }
    }
  }

  static void distances(
      const Metric<T>& m, int64_t dim, int64_t row_panels, const T* x, int64_t column_panels, const T* w, T* d,
      T* second) {
    with_core<S>(m, second != nullptr, [&](const auto& core) {
      for (int64_t j = 0; j < column_panels; ++j)
        for (int64_t i = 0; i < row_panels; ++i) {
          const int64_t at = i * mr * kSegment + j * nr;
          tile(core, dim, x + i * dim * mr, w + j * dim * nr, d + at, second ? second + at : nullptr);
        }
    });
  }

  static bool two(const Metric<T>& m) {
    bool result = false;
    with_core<S>(m, true, [&]<class C>(const C&) { result = C::two; });
    return result;
  }

  // S of Bray-Curtis and its slope by row_term + column_term.
  static V denominator(const Metric<T>& m, V sum, V& slope) {
    slope = S::fill(1);
    if (m.kind == ElementDistance::bray_curtis) return sum;
    const V size = B::abs(sum) + m.p, least = S::fill(10 * m.p);
    slope = size >= least ? B::toward(sum, V{}, slope) : V{};
    return size < least ? least : size;
  }

  static void divide(const Metric<T>& m, T row_term, const T* column_term, int64_t count, T* d) {
    V slope;
    for (int64_t v = 0; v < count; v += W)
      S::store(d + v, S::load(d + v) / denominator(m, row_term + S::load(column_term + v), slope));
  }

  // ---- one row and a segment ---------------------------------------------------------------------------------------

  static V square(const Metric<T>& m, V d) { return d * d + m.eps; }
  static V harmonic(const Metric<T>& m, V square, V at_target) { return -m.power * S::log(square / at_target); }

  static void sums(const Metric<T>& m, const Distances<T>& row, HarmonicSums<T>& out) {
    alignas(64) T z[kSegment];
    const V at_target = square(m, S::fill(row.at_target));
    const int64_t columns = (row.count + W - 1) / W * W;
    for (int64_t v = 0; v < columns; v += W) S::store(z + v, harmonic(m, square(m, S::load(row.d + v)), at_target));
    const auto leave_out = [&](T value) {
      for (int64_t v = row.count; v < columns; ++v) z[v] = value;
      if (row.target >= 0 && row.target < row.count) z[row.target] = value;
    };
    V total{}, sum{}, max = S::fill(-INFINITY);
    leave_out(0);
    for (int64_t v = 0; v < columns; v += W) total += S::load(z + v);
    leave_out(-INFINITY);
    for (int64_t v = 0; v < columns; v += W) max = S::max(S::load(z + v), max);
    out = HarmonicSums<T>();
    out.total = S::sum(total), out.max = S::highest(max);
    const T from = out.max == -INFINITY ? 0 : out.max;  // max passes over what is nan: its exp must reach the sum
    for (int64_t v = 0; v < columns; v += W) sum += S::exp(S::load(z + v) - from);
    out.sum = S::sum(sum);
  }

  static T coefs(const Metric<T>& m, const Distances<T>& row, const HarmonicCoef<T>& c, T* a, T* e) {
    const V at_target = square(m, S::fill(row.at_target));
    V column_sum{};
    with_core<S>(m, true, [&](const auto& core) {
      for (int64_t v = 0; v < row.count; v += W) {
        const V d = S::load(row.d + v), near = square(m, d), p = S::exp(harmonic(m, near, at_target) - c.lse - c.low);
        V by_d = -2 * m.power * (c.a * p + c.b) * d / near;
        if (v + W > row.count || uint64_t(row.target - v) < uint64_t(W))
          for (int64_t i = 0; i < W; ++i) by_d[i] = v + i >= row.count ? 0 : v + i == row.target ? c.target : by_d[i];
        V second = core.two ? S::load(e + v) : V{}, first = by_d;
        if (row.column_term) {
          V slope;
          first /= denominator(m, row.row_term + S::load(row.column_term + v), slope);
          second = by_d == 0 ? V{} : -first * d * slope;
          column_sum += second;
        }
        core.coefs(first, second, d);
        const V size = B::abs(by_d);
        S::store(a + v, size <= c.negligible ? V{} : first);
        if (e) S::store(e + v, second);
      }
    });
    return S::sum(column_sum);
  }

  // ---- gradients ---------------------------------------------------------------------------------------------------

  // Of a group of own points: the others that are not negligible to all of them, and the numbers of those pairs.
  static constexpr int kGroup = 4;
  struct Live {
    T a[kSegment][kGroup], e[kSegment][kGroup];
    int64_t point[kSegment];
    int64_t count;
  };

  static void find(const PairGradient<T>& g, int64_t first, int64_t owns, bool two, Live& live) {
    live.count = 0;
    const T* a = g.a + first * g.own_step;
    const T* e = two ? g.e + first * g.own_step : nullptr;
    for (int64_t l = 0; l < g.other.count; ++l) {
      T* to = live.a[live.count];
      bool any = false;
      for (int64_t i = 0; i < kGroup; ++i) {
        to[i] = i < owns ? a[i * g.own_step + l * g.other_step] : T(0);
        any |= to[i] != 0;
      }
      for (int64_t i = 0; two && i < kGroup; ++i)
        live.e[live.count][i] = i < owns ? e[i * g.own_step + l * g.other_step] : T(0);
      live.point[live.count] = l * nr;
      live.count += any;
    }
  }

  // W features of a group, the others in their order; the sum starts at 0 and is added once.
  template <class C>
  static void slopes(const C& core, const Live& live, const T* own, int64_t owns, const T* other, T (*out)[W]) {
    V x[kGroup], sum[kGroup] = {};
    for (int i = 0; i < kGroup; ++i) x[i] = S::load(own + (i < owns ? i : 0) * nr);
    for (int64_t l = 0; l < live.count; ++l) {
      const V w = S::load(other + live.point[l]);
#pragma GCC unroll 4
      for (int i = 0; i < kGroup; ++i)
        sum[i] += core.slope(x[i], w, S::fill(live.a[l][i]), C::two ? S::fill(live.e[l][i]) : V{});
    }
    for (int i = 0; i < kGroup; ++i) S::store(out[i], sum[i]);
  }

  static void gradient(const Metric<T>& m, const PairGradient<T>& g, void* scratch) {
    Live* lives = static_cast<Live*>(scratch);
    with_core<S>(m, true, [&]<class C>(const C& core) {
      if constexpr (C::scatters) return scatter(g);
      else {
        for (int64_t i = 0; i < g.own.count; i += kGroup)
          find(g, i, g.own.count - i < kGroup ? g.own.count - i : kGroup, C::two, lives[i / kGroup]);
        for (int64_t k0 = g.begin; k0 < g.end; k0 += W) {
          const int64_t at = k0 % nr, panel = k0 / nr, columns = g.end - k0 < W ? g.end - k0 : W;
          for (int64_t i = 0; i < g.own.count; i += kGroup) {
            const Live& live = lives[i / kGroup];
            const int64_t owns = g.own.count - i < kGroup ? g.own.count - i : kGroup;
            if (live.count == 0) continue;
            alignas(64) T out[kGroup][W];
            slopes(
                core, live, g.own.first + panel * g.own.panel_stride + i * nr + at, owns,
                g.other.first + panel * g.other.panel_stride + at, out);
            for (int64_t r = 0; r < owns; ++r)
              for (int64_t k = 0; k < columns; ++k) g.sum[(i + r) * g.dim + k0 + k] += out[r][k];
          }
        }
      }
    });
  }

  static void scatter(const PairGradient<T>& g) {
    for (int64_t i = 0; i < g.own.count; ++i)
      for (int64_t l = 0; l < g.other.count; ++l) {
        const int64_t pair = i * g.own_step + l * g.other_step;
        const T a = g.a[pair], e = g.e[pair];
        const int64_t k = int64_t(e < 0 ? -e : e) - 1;
        if (a != 0 && k >= g.begin && k < g.end) g.sum[i * g.dim + k] += e < 0 ? -a * g.sign : a * g.sign;
      }
  }
};

template <class Isa, class T>
constexpr Elementwise<T> make_elementwise() {
  using E = ElementwiseOf<Isa, T>;
  return {E::mr,      E::nr,   int64_t(sizeof(typename E::Live)) * (kOwn / E::kGroup),
          E::two,     E::pack, E::distances,
          E::divide,  E::sums, E::coefs,
          E::gradient};
}

}  // namespace lossk
