"""Seeded bugs that the tests of the kernels must find: `python tests/device/mutants.py BUILD_FOLDER`.

A mutant is one edit of a kernel or of the device layer. Its launcher is compiled with the edit and linked to the tests
that are built already; they must fail, in the build with the race detector or else in that with AddressSanitizer. A
kernel without an edit must pass in the same way, or a kill would prove nothing.
"""

import argparse
import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 120  # a mutant that takes longer hangs, which the emulator should have noticed
SEEDS = "2"

FLAGS = {
    "race": ["-fsanitize=thread", "-fno-threadsafe-statics"],
    "asan": [
        *("-fsanitize=address,undefined", "-fno-sanitize=null,object-size", "-fno-sanitize-recover=all"),
        *("-fno-omit-frame-pointer", "--param", "asan-instrumentation-with-call-threshold=0"),
    ],
}
ENGINE = {"race": ["engine_race", "engine_plain"], "asan": ["engine_asan"]}


class Kernel(NamedTuple):
    """A launcher whose kernels can be edited, and the tests that run them."""

    launcher: str
    tests: tuple[str, ...]


STATS_MMA = Kernel("head/stats/stats.cu", ("stats_mma_bank_conflicts", "stats_mma_edges", "stats_mma_bf16"))
STATS_FLOAT = Kernel("head/stats/stats.cu", ("stats_mma_fp32",))
STATS_WGMMA = Kernel(
    "head/stats/stats_sm90.cu", ("stats_wgmma_edges", "stats_wgmma_long", "stats_wgmma_pairs", "stats_wgmma_bf16")
)
GRADIENT_MMA = Kernel(
    "head/gradient/gradient.cu", ("gradient_mma_bank_conflicts", "gradient_mma_edges", "gradient_mma_bf16")
)
GRADIENT_WGMMA = Kernel("head/gradient/gradient_sm90.cu", ("gradient_wgmma_edges", "gradient_wgmma_bf16"))
ROWS = Kernel("head/rows/rows.cu", ("stats_wgmma_edges", "stats_wgmma_bf16", "gradient_wgmma_fp16"))
SKETCH_MMA = Kernel("head/stats/sketch.cu", ("live_mma_bf16",))
SKETCH_WGMMA = Kernel("head/stats/sketch_sm90.cu", ("live_wgmma_long", "live_wgmma_pairs", "live_wgmma_bf16"))
LIVE_MMA = Kernel("head/live/dlogits.cu", ("live_mma_bf16",))
LIVE_STORE = Kernel("head/gradient/gradient_sm90.cu", ("live_wgmma_bf16",))
LIVE_SUMS = Kernel("head/gradient/gradient.cu", ("live_wgmma_bf16",))
LIVE = Kernel("head/live/live.cu", ("live_picks", "live_dense_rows", "live_wgmma_bf16"))
KEPT = Kernel("head/kept/kept.cu", ("kept_mma_edges", "kept_mma_bf16"))
COMPARE = Kernel("head/compare/compare.cu", ("compare_mma_masked", "compare_mma_bf16", "compare_wgmma_bf16"))
ELEMENTWISE = Kernel("head/elementwise/elementwise.cu", ("elementwise_edges", "elementwise_bf16"))
LARGEST = Kernel("head/largest/largest.cu", ("largest_mma_nan", "largest_mma_bf16", "sample_mma_bf16"))
KEPT_WGMMA = Kernel("head/kept/kept_sm90.cu", ("kept_wgmma_bf16",))
LIVE_WGMMA = Kernel("head/live/dlogits_sm90.cu", ("live_wgmma_bf16",))
HARMONIC_STATS = Kernel("head/stats/stats.cu", ("harmonic_stats_mma_bf16",))
HARMONIC_SKETCH = Kernel("head/stats/sketch.cu", ("harmonic_live_mma_bf16",))
HARMONIC_GRADIENT = Kernel("head/gradient/gradient.cu", ("harmonic_gradient_mma_bf16",))
HARMONIC_LIVE = Kernel("head/live/dlogits.cu", ("harmonic_live_mma_bf16",))
HARMONIC_FILL = Kernel("head/live/live.cu", ("harmonic_live_mma_bf16",))
OWN = Kernel("head/own/own.cu", ("harmonic_gradient_mma_bf16",))
KERNELS = (
    LIVE, KEPT, OWN, COMPARE, LARGEST, ELEMENTWISE, STATS_MMA, STATS_WGMMA, GRADIENT_MMA, GRADIENT_WGMMA, ROWS,
)  # fmt: skip


class Mutant(NamedTuple):
    kind: str
    kernel: Kernel
    file: str  # below cuda/
    right: str  # occurs once
    wrong: str

    @property
    def name(self) -> str:
        right, wrong = (" ".join(text.split()) for text in (self.right, self.wrong))
        return f"{Path(self.file).name}: {right[:44]} -> {wrong[:40] or 'nothing'}"


_MMA, _WGMMA, _RING = "head/product/product_mma.cuh", "head/product/product_wgmma.cuh", "device/ring.h"
_TOTALS = "head/product/totals.cuh"
_STATS, _MERGE, _LOGITS = "head/stats/stats.cuh", "head/stats/merge.cuh", "head/logits.cuh"
_STORE, _DLOGITS, _SUMS = (f"head/gradient/{name}.cuh" for name in ("store", "dlogits", "sums"))
_PARTS = "head/stats/parts.cuh"
_SLICES, _JOIN = "head/product/slices.h", "head/gradient/slices.cuh"
_SKETCH, _COLUMNS, _HEAD = "head/stats/sketch.cuh", "head/product/columns.cuh", "head/head.h"
_LISTS, _PLACES, _FILL = (f"head/live/{name}.cuh" for name in ("lists", "columns", "fill"))
_FUSED = "multiply_add(z, -kBelowScale"
_KEEP, _KEPT, _LOGIT = "head/kept/keep.cuh", "head/kept/dlogits.cuh", "head/kept/logit.cuh"
_TERMS, _COMPARED = "head/compare/sums.cuh", "head/compare/dlogits.cuh"
_LARGEST, _LINE = "head/largest/largest.cuh", "head/logit_line.cuh"
_OWN = "head/own/own.cuh"
_SUMS_SLOPE = "if constexpr (live) sums_[slot][1] += g * slope;"
_CORES, _PAIRS, _HARMONIC, _COEFS, _SLOPES = (
    f"head/elementwise/{name}.cuh" for name in ("cores", "pairs", "sums", "coefs", "slopes")
)
_ROWS, _NARROW = "head/rows/rows.cuh", "head/rows/narrow.cuh"
_WAIT_SUMS = "barrier_sync(kSums, C::kMultiplyThreads);"
_RELEASE_NOW = "if (lane < peers) shared.ring.release(turn, lane);"

MUTANTS = [
    # ---- mma.sync with cp.async
    Mutant("missing barrier", STATS_MMA, _MMA, "sync_block();  // this step's stage", "// this step's stage"),
    Mutant("missing barrier", STATS_MMA, _MMA, "sync_block();  // every warp", "// every warp"),
    Mutant("missing wait", STATS_MMA, _MMA, "cp_async_wait<C::kStages - 2>();", ""),
    Mutant("missing wait", STATS_MMA, _MMA, "cp_async_wait<C::kStages - 2>();", "cp_async_wait<C::kStages - 1>();"),
    Mutant(
        "early release", STATS_MMA, _MMA, "i < C::kStages - 1; ++i) load_next();", "i < C::kStages; ++i) load_next();"
    ),
    Mutant(
        "wrong swizzle",
        STATS_MMA,
        _MMA,
        "cp_async<16>(element_address<along>(tile, row, step),",
        "cp_async<16>(tile + (line + i) * kLineBytes + 2 * place,",
    ),
    Mutant("wrong swizzle", STATS_MMA, "device/swizzle.h", "chunk ^ offset / 128", "chunk ^ offset / 256"),
    Mutant(
        "wrong layout",
        STATS_MMA,
        _MMA,
        "column + lane % 8 + lane / 16 * 8, depth + lane / 8 % 2 * 8",
        "column + lane % 16, depth + lane / 16 * 8",
    ),
    Mutant("wrong layout", STATS_MMA, _MMA, "{b[2], b[3]}", "{b[3], b[2]}"),
    Mutant(
        "wrong layout",
        GRADIENT_MMA,
        _MMA,
        "row + lane / 8 % 2 * 8, depth + lane % 8 + lane / 16 * 8",
        "row + lane / 16 * 8, depth + lane % 16",
    ),
    Mutant(
        "wrong layout",
        GRADIENT_MMA,
        _MMA,
        "column + lane / 16 * 8, depth + lane % 16",
        "column + lane / 8 % 2 * 8, depth + lane % 8",
    ),
    Mutant("wrong layout", GRADIENT_MMA, _MMA, "tile + row / kPanelRows * kPanelBytes, depth", "tile, depth"),
    Mutant("off-by-one tail", STATS_MMA, _MMA, "first + row < m.rows &&", "first + row <= m.rows &&"),
    Mutant("off-by-one tail", STATS_MMA, _MMA, "depth + step < end_depth;", "depth + step <= end_depth;"),
    Mutant("off-by-one tail", GRADIENT_MMA, _MMA, "depth + step < end_depth;", "depth + step <= end_depth;"),
    Mutant("off-by-one tail", STATS_MMA, _LOGITS, "z(i) = place(i) < columns ?", "z(i) = place(i) <= columns ?"),
    Mutant("off-by-one tail", STATS_MMA, _MERGE, "line < p.head.rows_there", "line <= p.head.rows_there"),
    Mutant("off-by-one tail", STATS_MMA, _LOGITS, "Row r{row < head_", "Row r{row <= head_"),
    Mutant("overrun", STATS_MMA, _MMA, "shared.b[next.stage])", "shared.b[next.stage + 1])"),
    Mutant(
        "divergence", STATS_MMA, _STATS, "found_[slot].merge_quad();", "if (lane_index()) found_[slot].merge_quad();"
    ),
    Mutant("missing reduction", STATS_MMA, _STATS, "found_[slot].merge_quad();", ""),
    Mutant("stale registers", STATS_MMA, _MMA, "sum(i) = 0;", "sum(i) += 0;"),
    Mutant(
        "wrong value",
        STATS_MMA,
        _STATS,
        "fabsf(top) == INFINITY ? 0 : top;\n    float part",
        "top;\n    float part",
    ),
    Mutant("wrong value", STATS_MMA, _LOGITS, "visit(c / 8 * 2 + c % 8,", "visit(c / 8 * 2,"),
    Mutant("wrong value", STATS_MMA, _LOGITS, "next_ - first >= 4 * count", "next_ - first >= 2 * count"),
    Mutant(
        "wrong value",
        STATS_MMA,
        _LOGITS,
        "following_ = min(following_, columns[found.end]);",
        ";",
    ),
    Mutant("wrong value", STATS_MMA, _STATS, "if (picked >> i & 1) z(i) = kNone;", ""),
    Mutant("wrong value", STATS_MMA, _LOGITS, "z(i) = i == own ? x : z(i);", "z(i) = i > own ? x : z(i);"),
    Mutant("wrong value", STATS_MMA, _LOGITS, "bits &= bits - 1", "bits = 0"),
    Mutant("wrong value", STATS_MMA, _LOGITS, "slot == 0 ? first : min(following_, first)", "first"),
    Mutant("wrong value", STATS_MMA, _LOGITS, "if (slot == 0) next_ = following_;", "next_ = following_;"),
    Mutant("wrong value", STATS_MMA, _LOGITS, "columns[found.end] - first >= 4 * count", "columns[found.end] >= first"),
    Mutant("wrong value", STATS_MMA, _STATS, "by * (s.shifted + s.sum * (s.max - shift))", "by * s.shifted"),
    Mutant("wrong value", STATS_MMA, _MERGE, "met = met || index[j] == index[i]", "met = false"),
    Mutant("wrong value", STATS_MMA, _MERGE, "picked[i] = NAN;", ""),
    Mutant("missing barrier", STATS_MMA, "head/stats/sum.cuh", "  sync_block();\n", ""),
    Mutant("missing barrier", STATS_MMA, _PARTS, "  sync_block();\n", ""),
    Mutant("missing reduction", STATS_MMA, _PARTS, "other < kMergeWarps;", "other < kMergeWarps - 1;"),
    Mutant("off-by-one tail", STATS_MMA, _PARTS, "min((warp + 1) * share, parts)", "(warp + 1) * share"),
    Mutant("missing reduction", STATS_MMA, _STATS, "      s.merge(other);\n", ""),
    Mutant("wrong tile", STATS_MMA, "device/tiles.h", "rows - first < band ? rows - first : band", "band"),
    Mutant("two owners", STATS_MMA, "device/tiles.h", "i_ += step_;", "i_ += 1;"),
    Mutant("two owners", STATS_MMA, _MMA, "C::kParts + warp_column / C::kWarpColumns", "C::kParts"),
    # ---- the gradient's epilogues
    Mutant("off-by-one tail", GRADIENT_MMA, _STORE, "there = row < p_.count", "there = row <= p_.count"),
    Mutant("unwritten padding", GRADIENT_MMA, _DLOGITS, "first < p_.stride;", "first + 8 < p_.stride;"),
    Mutant("overrun", GRADIENT_MMA, _DLOGITS, " && first < p_.stride;", ";"),
    Mutant("overrun", GRADIENT_MMA, _DLOGITS, "line < p_.head.rows && first", "first"),
    Mutant("overrun", GRADIENT_MMA, _STORE, "there && first < p_.columns", "there"),
    Mutant("overrun", GRADIENT_MMA, _STORE, "if (c + 1 < columns) to[c + 1]", "to[c + 1]"),
    Mutant("overrun", GRADIENT_MMA, _STORE, "if (i < columns) to[i]", "to[i]"),
    Mutant("misalignment", GRADIENT_MMA, _STORE, "if (p_.columns % 8 == 0)", "if (true)"),
    Mutant("divergence", GRADIENT_MMA, _STORE, "gather_group(x);", "if (there) gather_group(x);"),
    Mutant("wrong layout", GRADIENT_MMA, _NARROW, "if (upper) x.pairs[i] = other;", "if (!upper) x.pairs[i] = other;"),
    Mutant("wrong value", GRADIENT_MMA, _DLOGITS, "z - margin - t.lse", "z - t.lse"),
    Mutant("wrong value", GRADIENT_MMA, _DLOGITS, "!pick && a[4]", "a[4]"),
    Mutant("wrong value", GRADIENT_MMA, _DLOGITS, " = rows_.slope(z);", " = 1;"),
    Mutant("wrong value", GRADIENT_MMA, _STORE, "before = !p_.first && there", "before = there"),
    Mutant("wrong value", LIVE_STORE, _STORE, "p_.first_of[id] < p_.number", "p_.first_of[id] <= p_.number"),
    Mutant("wrong value", LIVE, _LISTS, "in(list, v) ? list + 1 : number;", "in(list, v) ? lists : number;"),
    Mutant("overrun", GRADIENT_MMA, _STORE, "if (c < columns) before[k] = ", "before[k] = "),
    Mutant("wrong value", GRADIENT_WGMMA, _STORE, "c = (first / 2 + k) * 8", "c = k * 8"),
    Mutant("two owners", GRADIENT_MMA, _STORE, "slice_ = int64_t{slice} *", "slice_ = int64_t{slice & 1} *"),
    Mutant("wrong value", GRADIENT_MMA, _SLICES, "first * kDepth < depth ? first * kDepth : depth,", "0,"),
    Mutant("off-by-one tail", GRADIENT_WGMMA, _SLICES, "last * kDepth < depth ? last * kDepth : depth}", "depth}"),
    Mutant("wrong tile", GRADIENT_WGMMA, _SLICES, "return {column - slice * spans, slice,", "return {0, slice,"),
    Mutant("wrong value", GRADIENT_MMA, _MMA, "depth = depths.begin;", "depth = 0;"),
    Mutant("missing reduction", GRADIENT_MMA, _JOIN, "slice < p.product.slices;", "slice < p.product.slices - 1;"),
    Mutant("overrun", GRADIENT_MMA, _JOIN, "column + c < p.columns) z", "true) z"),
    Mutant("overrun", GRADIENT_MMA, _JOIN, "row < rows && slice", "slice"),
    Mutant("wrong value", STATS_FLOAT, _TOTALS, "float& sum : sums_) sum = 0;", "float& sum : sums_) sum += 0;"),
    Mutant("wrong value", STATS_FLOAT, _TOTALS, "sums_[i] += d(i), d(i) = 0;", "sums_[i] += d(i);"),
    Mutant("missing barrier", GRADIENT_MMA, _SUMS, "  sync_block();\n", ""),
    Mutant("off-by-one tail", GRADIENT_MMA, _SUMS, "own >= columns", "own > columns"),
    Mutant(
        "wrong tile",
        GRADIENT_MMA,
        _SUMS,
        "row = warp; row < rows; row += kSumWarps",
        "row = warp; row < rows; ++row",
    ),
    # ---- rows before the products
    Mutant("missing barrier", ROWS, _ROWS, "  sync_block();\n", ""),
    Mutant("off-by-one tail", ROWS, _ROWS, "if (row >= min(", "if (row > min("),
    Mutant("unwritten padding", ROWS, _ROWS, "const int count = there ?", "const int count = true ?"),
    Mutant("unwritten padding", ROWS, _ROWS, "column < p.to_columns;", "column < p.columns - 7;"),
    Mutant("overrun", ROWS, _ROWS, "min(8, p.columns - column)", "8"),
    Mutant("wrong value", ROWS, _ROWS, "(other == own && k < entry)", "(other == own && k <= entry)"),
    Mutant("wrong value", ROWS, _ROWS, "if (t == thread) place = total;", "if (t == thread) place = 0;"),
    Mutant("wrong value", ROWS, _ROWS, "p.times[row] * widen", "widen"),
    # ---- live columns
    Mutant("missing barrier", SKETCH_MMA, _MMA, "        sync_block();\n        sum_parts", "        sum_parts"),
    Mutant("missing barrier", SKETCH_WGMMA, _WGMMA, f"{_WAIT_SUMS}  // the last", "// the last"),
    Mutant("missing barrier", SKETCH_WGMMA, _WGMMA, f"{_WAIT_SUMS}\n        sum_parts", "sum_parts"),
    Mutant(
        "wrong layout", SKETCH_WGMMA, _COLUMNS, "give = upper ? z(even) : z(odd)", "give = upper ? z(odd) : z(even)"
    ),
    Mutant("wrong layout", SKETCH_WGMMA, _COLUMNS, "8 * (8 * (i / 2) + group)", "8 * (i / 2 + group)"),
    Mutant("wrong value", SKETCH_MMA, _STATS, "if (!row.there) return 0;", ""),
    Mutant("wrong value", SKETCH_MMA, _STATS, "(is_target ? p_.head.margin : 0)", "0"),
    Mutant(
        "wrong value",
        SKETCH_WGMMA,
        _STATS,
        "slope_[slot] * rescale(before, found_[slot].max) + slope;",
        "slope_[slot] + slope;",
    ),
    Mutant(
        "unwritten parts", SKETCH_MMA, _SKETCH, "p.parts_of_segment * ceil_div(p.counts[list], p.segment)", "p.parts"
    ),
    Mutant("overrun", SKETCH_MMA, _SKETCH, "min(p.segment, p.head.columns - segment * p.segment)", "p.segment"),
    Mutant("missing barrier", LIVE, _LISTS, "  sync_block();\n  int place", "  int place"),
    Mutant("wrong value", LIVE, _LISTS, "before += c < chunk ?", "before += c <= chunk ?"),
    Mutant("wrong value", LIVE, _LISTS, "line / kListRows * p.head.columns + v", "v"),
    Mutant("wrong value", LIVE, _LISTS, "if (c >= v || in(list, c)) continue;", "if (c >= v) continue;"),
    Mutant("wrong value", LIVE, _LISTS, "before += whole(l) ? rows_of(l) : 0;", "before += whole(l) ? kListRows : 0;"),
    Mutant("wrong value", LIVE_MMA, _DLOGITS, "sums_[slot][1] += z(i);", "sums_[slot][1] -= z(i);"),
    Mutant("wrong value", LIVE_WGMMA, _DLOGITS, "sums_[slot][2] += z(i) * z(i);", "sums_[slot][2] += z(i);"),
    Mutant("off-by-one tail", LIVE, _LISTS, "i < kEach && first + i < v;", "i < kEach && first + i <= v;"),
    Mutant("overrun", LIVE, _PLACES, "if (j >= p.count.of(p.most)) return;", "if (j >= p.most) return;"),
    Mutant("unwritten padding", LIVE, _PLACES, "p.column[row + place] = kNoColumn;", ";"),
    Mutant("wrong value", LIVE, _PLACES, "p.ids[low] != column) continue;", "false) continue;"),
    Mutant("wrong value", LIVE, _FILL, "sum -= a(1) * s(6);", "sum += a(1) * s(6);"),
    Mutant("wrong value", LIVE, _FILL, "share * term;", "term;"),
    Mutant("wrong value", LIVE, _FILL, "dot += static_cast<float>(missing * p.bias[block]);", ";"),
    Mutant("unwritten parts", LIVE, _FILL, "part < parts;", "part < p.parts;"),
    Mutant("off-by-one tail", LIVE, _FILL, "if (line >= rows) return;", "if (line + 1 >= rows) return;"),
    Mutant("wrong value", LIVE_WGMMA, _DLOGITS, "weighted<full, !live>", "weighted<full, true>"),
    Mutant("wrong value", LIVE_MMA, _DLOGITS, f"slope(z);\n    {_SUMS_SLOPE}", "slope(z);\n    sums_[slot][1] += g;"),
    Mutant("wrong value", LIVE_STORE, _STORE, "p_.sum_by_ids ? line : own", "own"),
    Mutant("wrong value", LIVE_SUMS, _SUMS, "p.ids[own] : own] += sum;", "p.ids[own] : own] = sum;"),
    Mutant("wrong value", LIVE_MMA, _HEAD, "*there - before", "*there"),
    # ---- kept logits
    Mutant("overrun", KEPT, _KEEP, "rows_there.of(p_.head.rows) ? p_", "rows_there.of(p_.head.rows + 1) ? p_"),
    Mutant("overrun", KEPT_WGMMA, _KEEP, "(group + lane) < columns)", "(group + lane) < 2 * columns)"),
    Mutant("wrong value", KEPT, _KEEP, "maximum(top, shuffle_xor(top, lanes))", "shuffle_xor(top, lanes)"),
    Mutant("wrong value", KEPT_WGMMA, _LOGIT, "bits + kHalf", "bits"),
    Mutant("wrong value", KEPT, _LOGIT, "min(bits + kHalf, kMost)", "(bits + kHalf)"),
    Mutant("wrong value", KEPT_WGMMA, _LOGIT, "kNothing << kBelowShift", "0xfff << kBelowShift"),
    Mutant("unwritten padding", KEPT, _KEPT, "if (line >= round_up(rows, 64)) return;", "if (line >= rows) return;"),
    Mutant("missing barrier", KEPT, _KEPT, "  sync_block();\n", ""),
    Mutant("wrong value", KEPT, _KEPT, "columns[i] == column; ++i", "i == k; ++i"),
    Mutant("wrong value", KEPT, _KEPT, "if (!picked && a_[4]", "if (a_[4]"),
    Mutant("wrong value", KEPT, _KEPT, "head.aux + head.first", "head.aux"),
    Mutant("wrong value", KEPT, _LOGIT, "(reference - z) * kBelowScale", f"{_FUSED}, reference * kBelowScale)"),
    Mutant("wrong place", KEPT, _KEPT, "c = column - head.first", "c = column"),
    # ---- row kernels on kept logits: what is compared
    Mutant("wrong value", COMPARE, _TERMS, "cross + sum_a * (by_a - by_b)", "cross"),
    Mutant("wrong value", COMPARE, _TERMS, "cross += w == 0 ? 0 : w *", "cross += w *"),
    Mutant("wrong place", COMPARE, _TERMS, "int64_t{index} * n", "int64_t{blockIdx.y} * n"),
    Mutant("wrong value", COMPARE, _TERMS, " && column + i != f.skip", ""),
    Mutant("wrong value", COMPARE, _TERMS, "c.skip[id] - c.z.head.first", "c.skip[id]"),
    Mutant("ignored rows", COMPARE, _TERMS, "if (!is_there(c.z.head, own.line)) return;\n  const bool", "const bool"),
    Mutant("unwritten padding", COMPARE, _COMPARED, "round_up(head.columns, 8)", "head.columns"),
    Mutant("unwritten padding", COMPARE, _COMPARED, "min(head.rows, round_up(rows, 64))", "rows"),
    Mutant("wrong place", COMPARE, _COMPARED, "z_line(p.z, of_z, line_of_all, coef)", "z_line(p.z, of_z, line, coef)"),
    Mutant("wrong value", COMPARE, _COMPARED, "sum_ += g * unscaled", "sum_ += g * z"),
    # ---- and the largest
    Mutant("missing barrier", LARGEST, _LARGEST, "sync_warp();\n    if (found_ == 0)", "if (found_ == 0)"),
    Mutant("missing barrier", LARGEST, _LARGEST, "        }\n        sync_warp();", "        }"),
    Mutant(
        "missing barrier", LARGEST, _LARGEST, "least_ = keys_[k_ - 1];\n    sync_warp();", "least_ = keys_[k_ - 1];"
    ),
    Mutant("overrun", LARGEST, _LARGEST, "found_ > kMostLargest - kWarp", "found_ > kMostLargest"),
    Mutant("overrun", LARGEST, _LINE, "if (column >= columns_) return {};", ""),
    Mutant("wrong order", LARGEST, _LARGEST, "static_cast<uint32_t>(~column)", "static_cast<uint32_t>(column)"),
    Mutant("wrong value", LARGEST, _LARGEST, "r.head.first > 0 ? best : nullptr", "nullptr"),
    Mutant("wrong value", LARGEST, _LARGEST, "z += 0.f;", ""),
    Mutant("wrong place", LARGEST, _LARGEST, "(r.head.first + column) / 4", "column / 4"),
    Mutant("ignored rows", LARGEST, _LARGEST, "if (line >= p.head.rows_there.of(p.head.rows)) return;", ""),
    # ---- elementwise distances
    Mutant("missing barrier", ELEMENTWISE, _PAIRS, "sync_block();  // the step before is read", ""),
    Mutant("missing barrier", ELEMENTWISE, _SLOPES, "sync_block();  // and this one written", ""),
    Mutant("missing barrier", ELEMENTWISE, _COEFS, "  sync_block();\n  if (warp > 0", "  if (warp > 0"),
    Mutant("missing reduction", ELEMENTWISE, _HARMONIC, "lanes < kAcross; lanes", "lanes < kAcross / 2; lanes"),
    Mutant("off-by-one tail", ELEMENTWISE, _PAIRS, "first + k < d;", "first + k <= d;"),
    Mutant("overrun", ELEMENTWISE, _SLOPES, "if (k + j >= of.d) break;", ""),
    Mutant("wrong sign", ELEMENTWISE, _CORES, "fmaxf(own - other, -1", "fmaxf(other - own, -1"),
    Mutant("wrong tile", ELEMENTWISE, _SLOPES, "int64_t{head.first} + point)", "point)"),
    Mutant("wrong value", ELEMENTWISE, _HARMONIC, "v < end && v != target[i];", "v < end;"),
    # ---- TMA, mbarriers and wgmma
    Mutant("wrong parity", STATS_WGMMA, _RING, "turn.phase ^ 1);", "turn.phase);"),
    Mutant("wrong parity", STATS_WGMMA, _RING, "&full[turn.stage], turn.phase)", "&full[turn.stage], turn.phase ^ 1)"),
    Mutant("wrong count", STATS_WGMMA, _WGMMA, "C::kConsumers * kWarpgroup / kWarp", "C::kConsumers"),
    Mutant(
        "wrong count", STATS_WGMMA, _WGMMA, "kConsumers * kWarpgroup / kWarp)", "kConsumers * kWarpgroup / kWarp + 1)"
    ),
    Mutant("missing fence", STATS_WGMMA, _RING, "fence_mbarrier_init();", ""),
    Mutant("missing fence", STATS_WGMMA, _WGMMA, "wgmma_fence();", ""),
    Mutant("missing barrier", STATS_WGMMA, _WGMMA, "peers > 1 ? sync_cluster() : sync_block();", ""),
    Mutant("missing barrier", STATS_WGMMA, _WGMMA, "sync_cluster() : sync_block();", "sync_block() : sync_block();"),
    Mutant("missing barrier", STATS_WGMMA, _WGMMA, "if (peers > 1) sync_cluster();", ""),
    Mutant("missing wait", STATS_WGMMA, _WGMMA, "shared.ring.wait_full(turn);", ""),
    Mutant("missing wait", STATS_WGMMA, _RING, "mbarrier_wait(&empty[turn.stage], turn.phase ^ 1);", ""),
    Mutant("missing wait", STATS_WGMMA, _WGMMA, "wgmma_wait<0>();", ""),
    Mutant("wrong bytes", STATS_WGMMA, _WGMMA, "turn, C::kStageBytes)", "turn, C::kStageBytes / 2)"),
    Mutant(
        "early release",
        STATS_WGMMA,
        _WGMMA,
        "if (step > 0 && lane < peers) shared.ring.release(turn.before(), lane);",
        _RELEASE_NOW,
    ),
    Mutant("early release", STATS_WGMMA, _WGMMA, "wgmma_wait<1>();", "wgmma_wait<2>();"),
    Mutant("missing release", STATS_WGMMA, _WGMMA, "if (steps > 0 && lane < peers) shared.ring.release(", "(void)("),
    Mutant("too many arrivals", STATS_WGMMA, _WGMMA, "if (step > 0 && lane < peers)", "if (step > 0 && lane < 3)"),
    Mutant("wrong block", STATS_WGMMA, _WGMMA, "if (step > 0 && lane < peers)", "if (step > 0 && lane < 1)"),
    Mutant("wrong count", STATS_WGMMA, _WGMMA, "init(peers * C::kConsumers", "init(C::kConsumers"),
    Mutant(
        "wrong block",
        STATS_WGMMA,
        _RING,
        "mbarrier_arrive_at(&empty[turn.stage], rank)",
        "mbarrier_arrive(&empty[turn.stage])",
    ),
    Mutant("wrong tile", STATS_WGMMA, _WGMMA, "first_of_share = rank * share", "first_of_share = 0"),
    Mutant(
        "wrong tile", STATS_WGMMA, _WGMMA, "(term), (tile.row * peers + rank) * C::kRows", "(term), tile.row * C::kRows"
    ),
    Mutant("overrun", SKETCH_WGMMA, _WGMMA, "there = first_row < rows", "there = true"),
    Mutant("too many arrivals", STATS_WGMMA, _WGMMA, "threadIdx.x < kWarp && elect_one()", "threadIdx.x < kWarp"),
    Mutant(
        "wrong layout",
        STATS_WGMMA,
        _WGMMA,
        "kPanelBytes, 8 * kLineBytes, kSwizzle",
        "kPanelBytes, 4 * kLineBytes, kSwizzle",
    ),
    Mutant(
        "wrong layout",
        GRADIENT_WGMMA,
        _WGMMA,
        "kPanelBytes, 8 * kLineBytes, kSwizzle",
        "8 * kLineBytes, kPanelBytes, kSwizzle",
    ),
    Mutant("wrong layout", GRADIENT_WGMMA, _WGMMA, "Along::depth ? 2 : kLineBytes", "Along::depth ? 2 : 2"),
    Mutant("wrong stage", STATS_WGMMA, _WGMMA, "stage * (stage_bytes / 16)", "0"),
    Mutant("misalignment", STATS_WGMMA, _WGMMA, "align_shared<1024>", "align_shared<16>"),
    Mutant("divergence", STATS_WGMMA, _WGMMA, "wgmma_commit();", "if (lane) wgmma_commit();"),
    Mutant(
        "off-by-one tail",
        STATS_WGMMA,
        _WGMMA,
        "column < end_column; column += C::kColumns) {\n          if (together)",
        "column + 1 < end_column; column += C::kColumns) {\n          if (together)",
    ),
    Mutant("wrong tile", STATS_WGMMA, _WGMMA, "column + first_of_share, share", "column + 1 + first_of_share, share"),
    Mutant("wrong tile", GRADIENT_WGMMA, _WGMMA, "first + row, depth);", "first, depth);"),
    Mutant("wrong tile", GRADIENT_WGMMA, _WGMMA, "p.depth_there.of(p.depth)", "p.depth"),
    Mutant("stale registers", GRADIENT_WGMMA, _WGMMA, "float d[C::kColumns / 2] = {};", "float d[C::kColumns / 2];"),
    # ---- distances
    Mutant("wrong value", HARMONIC_STATS, _STATS, "x = first ? 0 : x;", ";"),
    Mutant(
        "wrong value", HARMONIC_STATS, _LOGITS, "return H::logit(head_.distance,", "return -H::logit(head_.distance,"
    ),
    Mutant("wrong value", HARMONIC_STATS, _LOGITS, "r.eps = of[2 * head_.of]", "r.eps = of[3 * head_.of]"),
    Mutant("wrong value", HARMONIC_STATS, _STATS, "part[i % 4] += z(i);", "part[i % 4] = z(i);"),
    Mutant("wrong value", HARMONIC_SKETCH, _LOGITS, "z * -kLog2E / head_.power", "z * -kLog2E"),
    Mutant("wrong value", HARMONIC_GRADIENT, _DLOGITS, "d = is_target ? t.row.target : rows_", "d = rows_"),
    Mutant("wrong value", HARMONIC_GRADIENT, _DLOGITS, "if constexpr (!live) g += t.a[1];", ""),
    Mutant(
        "wrong value", HARMONIC_GRADIENT, _DLOGITS, "if (p_.head.distance == Distance::cosine) g *=", "if (false) g *="
    ),
    Mutant(
        "wrong value",
        HARMONIC_GRADIENT,
        _DLOGITS,
        "sums_[slot][0] += rounded(g);",
        "sums_[slot][0] += g * (1 + 0x1p-6f);",
    ),
    Mutant("wrong value", HARMONIC_FILL, _FILL, "p.head.curved() ? s(2) : 1", "p.head.softcap.cap > 0 ? s(2) : 1"),
    Mutant("wrong value", HARMONIC_FILL, _FILL, "q = fminf(q * t.head.bias[column], kMostQ);", ";"),
    Mutant("wrong value", HARMONIC_FILL, _FILL, "missing != 0 ? t.missing[line] : 0;", "0;"),
    Mutant("wrong value", OWN, _OWN, "sum[c] - by *", "sum[c] + by *"),
    Mutant("wrong value", OWN, _OWN, "(p.ids ? p.ids[row] : row)", "row"),
    Mutant("wrong value", OWN, _OWN, "by = along / square;", "by = along;"),
    Mutant(
        "off-by-one tail",
        OWN,
        _OWN,
        "if (row >= p.count.of(p.rows)) return;",
        "if (row + 1 >= p.count.of(p.rows)) return;",
    ),
    Mutant("wrong value", HARMONIC_LIVE, _DLOGITS, f"d);\n    {_SUMS_SLOPE}", "d);\n    sums_[slot][1] += g;"),
]


def mutated(source: str, mutant: Mutant) -> str:
    """The edited file; an edit that fits nowhere, or in two places, is an error: the list has gone stale."""
    if source.count(mutant.right) != 1:
        raise ValueError(f"{mutant.file} has {source.count(mutant.right)} places like {mutant.right!r}, expected 1")
    return source.replace(mutant.right, mutant.wrong)


def objects(build: Path, kind: str, launcher: str) -> list[str]:
    """What the mutant's launcher is linked to: the test program but for the launcher, and the engine."""
    sources = [ROOT / "tests/device/main.cpp", *(ROOT / "tests/device/kernels").glob("*.cu")]
    sources += [path for path in (ROOT / "cuda").rglob("*.cu") if path.parent.name != "probe"]
    folder = build / f"CMakeFiles/kernels_{kind}.dir"
    found = []
    for source in sources:  # cmake names an object after its source, from some folder on
        if source != ROOT / "cuda" / launcher:
            ending = f"/{source.parent.name}/{source.name}.o" if source.suffix == ".cu" else f"/{source.name}.o"
            found += [str(path) for path in folder.rglob("*.o") if str(path).endswith(ending)]
    if len(found) != len(sources) - 1:
        raise ValueError(f"not all objects of kernels_{kind} are in {build}: build the tests first")
    return found + [str(build / f"lib{engine}.a") for engine in ENGINE[kind]]


def outcome(kernel: Kernel, overlay: Path | None, kind: str, build: Path, place: Path, seeds: str) -> str | None:
    """What the tests say of the edited kernel: None where they pass."""
    program = place / kind
    folders = ([overlay] if overlay else []) + [ROOT / folder for folder in ("cuda", "cpp", "tests")]
    includes = [f"-I{folder}" for folder in folders]
    maps = [f"-ffile-prefix-map={ROOT}=/lossk"] + ([f"-ffile-prefix-map={overlay}=/lossk/cuda"] if overlay else [])
    command = [
        "g++",
        "-std=c++20",
        "-g",
        "-O1",
        "-w",
        "-Wno-psabi",
        "-DLOSSK_ONLY_BF16",
        "-DLOSSK_LIST_ROWS=256",
        "-DLOSSK_MANY_TILE_ROWS=3",
        "-fno-optimize-sibling-calls",
        *FLAGS[kind],
        *includes,
        *maps,
    ]
    source = ROOT / "cuda" / kernel.launcher
    subprocess.run([*command, "-x", "c++", "-c", source, "-o", f"{program}.o"], check=True)
    link = FLAGS[kind] if kind == "asan" else []
    subprocess.run(
        ["g++", *link, f"{program}.o", *objects(build, kind, kernel.launcher), "-ldl", "-o", program], check=True
    )
    for test in kernel.tests:
        try:
            run = subprocess.run(
                [program, "--only", test, "--seeds", seeds],
                capture_output=True,
                text=True,
                timeout=SECONDS,
            )
        except subprocess.TimeoutExpired:
            return f"still running after {SECONDS} s"
        if run.returncode:
            lines = [line for line in (run.stdout + run.stderr).splitlines() if "FAILED" in line or "ERROR" in line]
            return lines[0] if lines else f"exit status {run.returncode}"
    return None


def judge(
    mutant: Mutant | None, kernel: Kernel, build: Path, folder: Path, kinds=tuple(FLAGS), seeds=SEEDS
) -> str | None:
    folder.mkdir(parents=True)
    overlay = None
    if mutant:
        overlay = folder / "cuda"
        path = overlay / mutant.file
        path.parent.mkdir(parents=True)
        path.write_text(mutated((ROOT / "cuda" / mutant.file).read_text(), mutant))
    for kind in kinds:
        if said := outcome(kernel, overlay, kind, build, folder, seeds):
            return f"{kind}: {said}"
    return None


def some() -> list[Mutant]:
    """The first of each kind, then of each launcher that has none among them."""
    chosen: list[Mutant] = []
    for seen in (lambda m: m.kind, lambda m: m.kernel.launcher):
        for mutant in MUTANTS:
            if seen(mutant) not in {seen(m) for m in chosen}:
                chosen.append(mutant)
    return chosen


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("build", type=Path, help="where the tests of the device code are built")
    parser.add_argument("--only", default="", help="mutants whose kind or name contains this")
    parser.add_argument("--some", action="store_true", help="the first of each kind, and of each launcher")
    args = parser.parse_args()
    work = args.build / "mutants"
    shutil.rmtree(work, ignore_errors=True)
    chosen = [m for m in (some() if args.some else MUTANTS) if args.only in m.kind or args.only in m.name]

    started = time.monotonic()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        # After ctest, which has run them all, it is enough to see that they pass as they are built here.
        how = dict(kinds=("race",), seeds="0") if args.some else {}
        sound = [pool.submit(judge, None, k, args.build, work / f"sound{i}", **how) for i, k in enumerate(KERNELS)]
        results = [pool.submit(judge, m, m.kernel, args.build, work / str(i)) for i, m in enumerate(chosen)]
        for kernel, future in zip(KERNELS, sound):
            if said := future.result():
                print(f"{kernel.launcher} fails without any edit: {said}")
                return 1
        alive = 0
        for mutant, future in zip(chosen, results):
            said = future.result()
            alive += said is None
            print(f"{'killed' if said else 'ALIVE '} {mutant.kind:17} {mutant.name}")
            print(f"       {said or ''}"[:240], flush=True)
    print(f"{len(chosen)} mutants of {len({m.kind for m in chosen})} kinds, {time.monotonic() - started:.0f} s")
    print(f"{len(chosen) - alive} killed, {alive} alive")
    return int(alive > 0)


if __name__ == "__main__":
    sys.exit(main())
