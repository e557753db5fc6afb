// A row's logits, read by one warp from what a product left in memory.
#pragma once
#include "head/logits.cuh"

namespace lossk::head {

constexpr float kNoLogit = -INFINITY;

struct alignas(16) Four {
  float x[4];
};

// A lane has 4 neighbours of every 128 columns.
constexpr int kLineColumns = 4 * kWarp;

// The row kernels' threads: a warp for each row.
constexpr int kLineThreads = 256, kLines = kLineThreads / kWarp;

class LogitLine {
 public:
  LOSSK_DEVICE LogitLine(const Head& head, const float* raw, int64_t stride, int line)
      : rows_(head), row_(rows_.row(line)), columns_(head.columns), raw_(raw + line * stride) {}

  LOSSK_DEVICE const Row& row() const { return row_; }
  LOSSK_DEVICE int columns() const { return columns_; }

  // raw + bias of columns column .. column + 3, a multiple of 4. 0 where there is none.
  LOSSK_DEVICE Four unscaled(int column) const {
    if (column >= columns_) return {};
    Four x = *reinterpret_cast<const Four*>(raw_ + column);
#pragma unroll
    for (int i = 0; i < 4; ++i) x.x[i] = column + i < columns_ ? rows_.unscaled(column + i, x.x[i]) : 0;
    return x;
  }
  LOSSK_DEVICE float logit(float unscaled) const { return rows_.logit(row_, unscaled); }
  LOSSK_DEVICE float slope(float z) const { return rows_.slope(z); }
  // kNoLogit where there is none.
  LOSSK_DEVICE Four logits(int column) const {
    Four x = unscaled(column);
#pragma unroll
    for (int i = 0; i < 4; ++i) x.x[i] = column + i < columns_ ? logit(x.x[i]) : kNoLogit;
    return x;
  }

 private:
  LogitRows<With::options> rows_;
  const Row row_;
  const int columns_;
  const float* raw_;
};

}  // namespace lossk::head
