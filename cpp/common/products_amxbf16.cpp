// bfloat16 by AMX: 16 x 16 tiles of sums, 32 of depth at a time (TDPBF16PS). A packed element is those 32, 64 bytes.
#include <immintrin.h>

#include "common/cpu.h"
#include "common/products_impl.h"
#include "common/products_tables.h"

namespace lossk {
namespace {

struct Amx : Avx512 {
  static constexpr int64_t mr = 32, nr = 64;  // twice two by two tiles; not the same, for a width says which operand
};
using Pair = uint32_t;  // of bfloat16, along the depth
constexpr int64_t kSide = 16, kUnit = 32, kPairs = kUnit / 2;

// Panels of a: a row's 32 lie side by side, [steps][mr][kUnit].
template <class From>
void pack_a(const PackArgs& args, Pair* out) {
  using Tr = Transpose<Amx, Pair>;
  const int64_t row_stride = args.row_stride, depth_stride = args.depth_stride;
  for (int64_t r0 = 0; r0 < args.count; r0 += Amx::mr, out += args.panel_stride * kPairs)
    for (int64_t s = 0; s < args.steps; ++s) {
      const From* x = static_cast<const From*>(args.source) + r0 * row_stride + s * kUnit * depth_stride;
      const int64_t rows = args.count - r0 < Amx::mr ? args.count - r0 : Amx::mr, depth = args.depth - s * kUnit;
      Pair* to = out + s * Amx::mr * kPairs;
      if (rows < Amx::mr) std::memset(to, 0, Amx::mr * kPairs * sizeof(Pair));
      for (int64_t i = 0; depth_stride == 1 && i < rows; ++i)
        pack_line<Amx>(x + i * row_stride, depth, kPairs, to + i * kPairs);
      for (int64_t i0 = 0; depth_stride != 1 && i0 < rows; i0 += kSide) {
        const int64_t some = rows - i0 < kSide ? rows - i0 : kSide;
        typename Tr::V block[kSide] = {};
        for (int64_t p = 0; p < kPairs && 2 * p < depth; ++p) {
          alignas(64) Pair line[kSide] = {};
          const From* pair = x + i0 * row_stride + 2 * p * depth_stride;
          const bool whole = 2 * p + 1 < depth;
          if (row_stride == 1 && some == kSide && whole)  // apart, so that it becomes vector code
            for (int64_t i = 0; i < kSide; ++i) line[i] = pack_one<Amx, From, Pair>(pair + i, depth_stride, true);
          else
            for (int64_t i = 0; i < some; ++i)
              line[i] = pack_one<Amx, From, Pair>(pair + i * row_stride, depth_stride, whole);
          std::memcpy(&block[p], line, sizeof line);
        }
        Tr::run(block);
        std::memcpy(to + i0 * kPairs, block, some * kPairs * sizeof(Pair));
      }
    }
}

// Panels of b: pairs of the 64 columns side by side, [steps * kPairs][nr][2], as other CPUs have them.
template <class From>
void pack(const PackArgs& args, void* out) {
  if (args.width == Amx::mr) return pack_a<From>(args, static_cast<Pair*>(out));
  PackArgs pairs = args;
  pairs.steps *= kPairs, pairs.panel_stride *= kPairs;
  pack_panels<Amx, From, Pair, Amx::nr>(pairs, static_cast<Pair*>(out));
}

struct alignas(64) TileConfig {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t line_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {kSide, kSide, kSide, kSide, kSide, kSide, kSide, kSide};
};
// Constant: the compiler does not know that the instruction reads all of it.
constexpr TileConfig kTiles;

constexpr int64_t kHalf = 2 * kSide;

// 32 x 32 sums over `steps` of depth -> out.
void micro(int64_t steps, const Pair* a, const Pair* b, float* out, int64_t stride) {
  constexpr int64_t kTile = kSide * kPairs, kLine = kPairs * sizeof(Pair), kColumns = Amx::nr * sizeof(Pair);
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  for (int64_t s = 0; s < steps; ++s, a += 2 * kTile, b += kPairs * Amx::nr) {
    _tile_loadd(4, a, kLine);
    _tile_loadd(6, b, kColumns);
    _tile_loadd(7, b + kSide, kColumns);
    _tile_loadd(5, a + kTile, kLine);
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
  const int64_t bytes = stride * sizeof(float);
  _tile_stored(0, out, bytes);
  _tile_stored(1, out + kSide, bytes);
  _tile_stored(2, out + kSide * stride, bytes);
  _tile_stored(3, out + kSide * stride + kSide, bytes);
}

void gemm(
    int64_t m, int64_t n, int64_t steps, const void* a_panels, const void* b_panels, float* c, int64_t c_stride,
    bool accumulate) {
  using S = Simd<Amx, float>;
  // 512 of depth: half a panel of a, 32 KB, stays in L1, and 192 columns of b in L2.
  constexpr int64_t kSteps = 16, kColumns = 192;
  const Pair* a = static_cast<const Pair*>(a_panels);
  const Pair* b = static_cast<const Pair*>(b_panels);
  alignas(64) float sums[kHalf * kHalf];
  _tile_loadconfig(&kTiles);
  int64_t k = 0;
  do {  // at least once: a depth of 0 still writes zeros
    const int64_t depth = steps - k < kSteps ? steps - k : kSteps;
    const bool add = accumulate || k > 0;
    for (int64_t n0 = 0; n0 < n; n0 += kColumns)
      for (int64_t i = 0; i < m; i += Amx::mr)
        for (int64_t j = n0; j < n && j < n0 + kColumns; j += kHalf) {
          const Pair* ap = a + (i * steps + k * Amx::mr) * kPairs;
          const Pair* bp = b + (j / Amx::nr * steps + k) * Amx::nr * kPairs + j % Amx::nr;
          float* out = c + i * c_stride + j;
          const int64_t rows = m - i < kHalf ? m - i : kHalf, columns = n - j < kHalf ? n - j : kHalf;
          if (!add && rows == kHalf && columns == kHalf) {
            micro(depth, ap, bp, out, c_stride);
            continue;
          }
          micro(depth, ap, bp, sums, kHalf);
          for (int64_t r = 0; r < rows; ++r, out += c_stride) {
            const float* line = sums + r * kHalf;
            if (columns == kHalf)
              for (int64_t v = 0; v < kHalf; v += S::width)
                S::store(out + v, add ? S::load(out + v) + S::load(line + v) : S::load(line + v));
            else
              for (int64_t v = 0; v < columns; ++v) out[v] = add ? out[v] + line[v] : line[v];
          }
        }
    k += depth;
  } while (k < steps);
  _tile_release();
}

}  // namespace

const Products<float> products_amxbf16_bf16 = {"amxbf16", Amx::mr,    Amx::nr,     kUnit,
                                               kUnit * 2, pack<Bf16>, pack<float>, gemm};
}  // namespace lossk
