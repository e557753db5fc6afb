// The products as templates on a CPU (Isa), instantiated by products_*.cpp with that CPU's compiler flags.
#pragma once
#include <type_traits>

#include "common/products.h"
#include "common/simd.h"

namespace lossk {

struct Bf16 {
  uint16_t bits;
};
struct Fp16 {
  uint16_t bits;
};

template <class Isa>
struct Convert {
  static float to_float(float x) { return x; }
  static float to_float(Bf16 x) { return bits_to_float(uint32_t(x.bits) << 16); }
  // The exponent is moved by one multiplication, which also makes subnormals right; inf and nan then need their field.
  static float to_float(Fp16 x) {
    const uint32_t sign = uint32_t(x.bits & 0x8000) << 16, rest = uint32_t(x.bits & 0x7fff) << 13;
    const float scaled = bits_to_float(rest) * bits_to_float(0x77800000);  // 2^112
    const uint32_t bits = rest >= 0x0f800000 ? rest | 0x7f800000 : float_bits(scaled);
    return bits_to_float(bits | sign);
  }
  static uint16_t to_bf16(Bf16 x) { return x.bits; }
  static uint16_t to_bf16(float x) {  // to nearest even; nan stays nan
    const uint32_t bits = float_bits(x);
    return x != x ? 0x7fc0 : uint16_t((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
  }

 private:
  static float bits_to_float(uint32_t bits) {
    float x;
    std::memcpy(&x, &bits, sizeof x);
    return x;
  }
  static uint32_t float_bits(float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    return bits;
  }
};

// Packed element types: float and double read one depth step, a uint32_t two steps as a pair of bfloat16 (low first).
template <class Op>
constexpr int64_t unit_of = std::is_same_v<Op, uint32_t> ? 2 : 1;

// One packed element from x and, where it is a pair, the next along the depth (zero past the end).
template <class Isa, class From, class Op>
Op pack_one(const From* x, int64_t depth_stride, bool whole) {
  if constexpr (std::is_same_v<Op, uint32_t>) {
    const uint32_t low = Convert<Isa>::to_bf16(x[0]);
    return whole ? low | uint32_t(Convert<Isa>::to_bf16(x[depth_stride])) << 16 : low;
  } else if constexpr (std::is_same_v<Op, double>) {
    return *x;
  } else {
    return Convert<Isa>::to_float(*x);
  }
}

// Square transpose in registers: at distance h, lanes with bit h move between vectors i and i + h.
template <class Isa, class Op>
struct Transpose {
  static constexpr int lanes = Isa::vector_bytes / sizeof(Op);
  using Index = std::conditional_t<sizeof(Op) == 8, int64_t, int32_t>;
  typedef Op V __attribute__((vector_size(Isa::vector_bytes)));
  typedef Index I __attribute__((vector_size(Isa::vector_bytes)));

  template <int h>
  static void swap(V* r) {
    I low{}, high{};
    for (int l = 0; l < lanes; ++l) {
      low[l] = l & h ? lanes + l - h : l;
      high[l] = l & h ? lanes + l : l + h;
    }
    for (int i = 0; i < lanes; ++i) {
      if (i & h) continue;
      const V a = r[i], b = r[i + h];
      r[i] = __builtin_shuffle(a, b, low);
      r[i + h] = __builtin_shuffle(a, b, high);
    }
  }
  static void run(V* r) {
    swap<1>(r);
    if constexpr (lanes > 2) swap<2>(r);
    if constexpr (lanes > 4) swap<4>(r);
    if constexpr (lanes > 8) swap<8>(r);
  }
};

// `count` packed elements of one row, contiguous along the depth; `depth` of it are left (none where <= 0).
template <class Isa, class From, class Op>
void pack_line(const From* x, int64_t depth, int64_t count, Op* line) {
  constexpr int64_t unit = unit_of<Op>;
  if (depth >= count * unit && sizeof(From) * unit == sizeof(Op)) {  // already what the product reads
    std::memcpy(line, x, count * sizeof(Op));
    return;
  }
  const int64_t left = depth > 0 ? depth / unit : 0, whole = left < count ? left : count;
  for (int64_t s = 0; s < whole; ++s) line[s] = pack_one<Isa, From, Op>(x + s * unit, 1, true);
  for (int64_t s = whole; s < count; ++s)
    line[s] = s * unit < depth ? pack_one<Isa, From, Op>(x + s * unit, 1, false) : Op(0);
}

// A panel whose rows are contiguous along the depth: square blocks are converted, transposed and stored.
template <class Isa, class From, class Op, int64_t width>
void pack_across(const From* source, int64_t row_stride, int64_t rows, int64_t depth, int64_t steps, Op* out) {
  using Tr = Transpose<Isa, Op>;
  constexpr int64_t unit = unit_of<Op>, lanes = Tr::lanes;
  for (int64_t s0 = 0; s0 < steps; s0 += lanes) {
    const int64_t stored = steps - s0 < lanes ? steps - s0 : lanes;
    for (int64_t g = 0; g < width; g += lanes) {
      typename Tr::V block[lanes] = {};
      for (int64_t i = 0; i < lanes && g + i < rows; ++i) {
        alignas(64) Op line[lanes];
        const From* x = source + (g + i) * row_stride + s0 * unit;
        __builtin_prefetch(x + 4 * lanes * unit);  // more streams, one a row, than the hardware follows
        pack_line<Isa>(x, depth - s0 * unit, lanes, line);
        std::memcpy(&block[i], line, sizeof line);
      }
      Tr::run(block);
      for (int64_t s = 0; s < stored; ++s)
        std::memcpy(out + (s0 + s) * width + g, &block[s], sizeof(Op) * (width - g < lanes ? width - g : lanes));
    }
  }
}

// Panels whose rows lie side by side: whole lines of them are converted, then cut into panels.
template <class Isa, class From, class Op, int64_t width>
void pack_along(const PackArgs& args, Op* out) {
  constexpr int64_t unit = unit_of<Op>, kLine = 16 * width, kAhead = 8;
  alignas(64) Op line[kLine];
  for (int64_t r0 = 0; r0 < args.count; r0 += kLine) {
    const int64_t rows = args.count - r0 < kLine ? args.count - r0 : kLine;
    for (int64_t s = 0; s < args.steps; ++s) {
      const From* x = static_cast<const From*>(args.source) + r0 + s * unit * args.depth_stride;
      const int64_t left = args.depth - s * unit;
      // Short pieces of long rows: the hardware's prefetcher starts anew on each.
      for (int64_t k = 0; k < unit && left > kAhead * unit; ++k)
        for (int64_t i = 0; i < rows; i += 64 / int64_t(sizeof(From)))
          __builtin_prefetch(x + i + (kAhead * unit + k) * args.depth_stride);
      for (int64_t i = 0; i < rows; ++i)
        line[i] = left >= unit ? pack_one<Isa, From, Op>(x + i, args.depth_stride, true)
                  : left > 0   ? pack_one<Isa, From, Op>(x + i, args.depth_stride, false)
                               : Op(0);
      for (int64_t i = rows; i < kLine; ++i) line[i] = Op(0);
      for (int64_t i = 0; i < rows; i += width)
        std::memcpy(out + (r0 + i) / width * args.panel_stride + s * width, line + i, width * sizeof(Op));
    }
  }
}

template <class Isa, class From, class Op, int64_t width>
void pack_panels(const PackArgs& args, Op* out) {
  constexpr int64_t unit = unit_of<Op>;
  const int64_t row_stride = args.row_stride, depth_stride = args.depth_stride;
  if (depth_stride != 1 && row_stride == 1) return pack_along<Isa, From, Op, width>(args, out);
  for (int64_t r0 = 0; r0 < args.count; r0 += width, out += args.panel_stride) {
    const From* source = static_cast<const From*>(args.source) + r0 * row_stride;
    const int64_t rows = args.count - r0 < width ? args.count - r0 : width;
    if (depth_stride == 1) {
      pack_across<Isa, From, Op, width>(source, row_stride, rows, args.depth, args.steps, out);
      continue;
    }
    for (int64_t s = 0; s < args.steps; ++s) {
      const From* x = source + s * unit * depth_stride;
      const int64_t left = args.depth - s * unit;
      for (int64_t i = 0; i < width; ++i)
        out[s * width + i] =
            i < rows && left > 0 ? pack_one<Isa, From, Op>(x + i * row_stride, depth_stride, left >= unit) : Op(0);
    }
  }
}

// One register tile of c. Op float or double: multiply-add; pairs of bfloat16: Isa::dot. Trap: the sum over this depth
// starts at 0 and is added to c once; carried on from c, one chain over all of V loses ten times torch's rounding
// error.
template <class Isa, class T, class Op>
void micro(int64_t depth, const Op* a, const Op* b, T* c, int64_t c_stride, bool accumulate) {
  using S = Simd<Isa, T>;
  using V = typename S::V;
  constexpr int mr = Isa::mr, vectors = Isa::vectors;
  constexpr int64_t nr = vectors * S::width;
  V sum[mr][vectors] = {};
  for (int64_t k = 0; k < depth; ++k, a += mr, b += nr) {
    V bv[vectors];
#pragma GCC unroll 2
    for (int j = 0; j < vectors; ++j) std::memcpy(&bv[j], b + j * S::width, sizeof(V));
#pragma GCC unroll 12
    for (int i = 0; i < mr; ++i)
#pragma GCC unroll 2
      for (int j = 0; j < vectors; ++j) {
        if constexpr (std::is_same_v<Op, T>) sum[i][j] += S::fill(a[i]) * bv[j];
        else sum[i][j] = Isa::dot(sum[i][j], a[i], bv[j]);
      }
  }
#pragma GCC unroll 12
  for (int i = 0; i < mr; ++i)
#pragma GCC unroll 2
    for (int j = 0; j < vectors; ++j) {
      T* out = c + i * c_stride + j * S::width;
      S::store(out, accumulate ? S::load(out) + sum[i][j] : sum[i][j]);
    }
}

template <class Isa, class T, class Op>
void gemm(
    int64_t m, int64_t n, int64_t steps, const void* a_panels, const void* b_panels, T* c, int64_t c_stride,
    bool accumulate) {
  constexpr int64_t mr = Isa::mr, nr = Isa::vectors * Simd<Isa, T>::width;
  // A slice of b, 192 columns deep enough to fill about 300 KB, stays in L2; one panel of a, 18 KB, in L1.
  constexpr int64_t kSteps = 1536 / sizeof(Op), kColumns = 192;
  const Op* a = static_cast<const Op*>(a_panels);
  const Op* b = static_cast<const Op*>(b_panels);
  int64_t k = 0;
  do {  // at least once: a depth of 0 still writes zeros
    const int64_t depth = steps - k < kSteps ? steps - k : kSteps;
    const bool add = accumulate || k > 0;
    for (int64_t n0 = 0; n0 < n; n0 += kColumns) {
      const int64_t n1 = n - n0 < kColumns ? n : n0 + kColumns;
      for (int64_t i = 0; i < m; i += mr)
        for (int64_t j = n0; j < n1; j += nr) {
          const Op* ap = a + i * steps + k * mr;
          const Op* bp = b + j * steps + k * nr;
          T* out = c + i * c_stride + j;
          const int64_t rows = m - i < mr ? m - i : mr, columns = n - j < nr ? n - j : nr;
          if (rows == mr && columns == nr) {
            for (int64_t r = 0; add && r < mr; ++r) __builtin_prefetch(out + r * c_stride, 1);
            micro<Isa, T, Op>(depth, ap, bp, out, c_stride, add);
            continue;
          }
          T tile[mr * nr] = {};  // an edge goes through a whole tile: same arithmetic, nothing written outside c
          for (int64_t r = 0; add && r < rows; ++r) std::memcpy(tile + r * nr, out + r * c_stride, columns * sizeof(T));
          micro<Isa, T, Op>(depth, ap, bp, tile, nr, add);
          for (int64_t r = 0; r < rows; ++r) std::memcpy(out + r * c_stride, tile + r * nr, columns * sizeof(T));
        }
    }
    k += depth;
  } while (k < steps);
}

template <class Isa, class From, class Op, int64_t mr, int64_t nr>
void pack(const PackArgs& args, void* out) {
  if (args.width == mr) pack_panels<Isa, From, Op, mr>(args, static_cast<Op*>(out));
  else pack_panels<Isa, From, Op, nr>(args, static_cast<Op*>(out));
}

// The table for one CPU: T accumulates, Op is what the product reads, From the tensors' dtype.
template <class Isa, class T, class Op, class From>
constexpr Products<T> make_products(const char* name) {
  constexpr int64_t mr = Isa::mr, nr = Isa::vectors * Simd<Isa, T>::width;
  return {
      name, mr, nr, unit_of<Op>, sizeof(Op), pack<Isa, From, Op, mr, nr>, pack<Isa, T, Op, mr, nr>, gemm<Isa, T, Op>};
}

}  // namespace lossk
