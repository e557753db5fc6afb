// A call of one of the head's ops on a GPU: arguments checked, and laid out for the products.
#pragma once
#include <algorithm>
#include <optional>
#include <tuple>
#include <vector>

#include "binding.h"
#include "head/arguments.h"
#include "head/paths.h"
#include "head/rows/params.h"

namespace lossk::head {

#ifndef LOSSK_WORKSPACE_BYTES  // tests want several parts of few columns
#define LOSSK_WORKSPACE_BYTES (int64_t{64} << 20)
#endif
constexpr int64_t kWorkspaceBytes = LOSSK_WORKSPACE_BYTES;  // of dlogits, and of what of the weight is laid out anew

// `rows` of a matrix from line `first` on; of one that is contiguous along its rows, lines are steps of depth.
inline Matrix from_line(Matrix m, int64_t first, int rows) {
  m.data = static_cast<const uint16_t*>(m.data) + first * m.stride, m.rows = rows;
  return m;
}

class Operands {
 public:
  explicit Operands(const HeadArgs&);

  // Compacts and gathers the active rows. `room`: a tensor [N, D] of input's dtype that nobody needs yet, where the
  // rows may lie; what is in it is lost.
  void lay_out_input(const std::optional<Tensor>& room = std::nullopt);

  const char* op;
  OnDevice device;
  const Path& path;
  Tensor like;  // input
  device::Element type;
  int n, v, d, k;
  Head head;             // of the whole vocabulary
  const int64_t* index;  // [N, K]
  int planes() const { return type == device::Element::fp32 ? 3 : 1; }
  int padded() const { return round_up(d, 8); }
  ScalarType product_type() const { return planes() == 1 ? like.scalar_type() : ScalarType::BFloat16; }

  // input, contiguous along D, and the same memory as the operand of d weight.
  Matrix input() const { return {input_data_, n, input_stride_, int64_t{n} * input_stride_}; }
  Matrix input_by_columns() const { return {input_data_, d, input_stride_, int64_t{n} * input_stride_}; }
  // The same, with each row multiplied, in a copy that is good until the next call. float16 alone.
  Matrix input_by_columns(const float* times);
  Matrix input_by_columns(const float* times, const int* ids, Count count);  // of the caller's rows ids[0 .. count)
  Matrix input(const int* ids, Count count, const Tensor& to) const;  // and these, laid out in [planes, N, padded]

  // Columns first .. first + count of the vocabulary. Good until the next call, if the weight is laid out anew: then
  // only as many as there are.
  Matrix weight(int first, int count, Count there = {});
  int most_columns(int unit) const;  // of a call to weight, a multiple of `unit`
  // Columns ids[0 .. count) of it, copied to memory for `most` of them. Good until the next call.
  Matrix weight(const int* ids, Count count, int most);
  int most_copied_columns(int unit, int64_t bytes) const;

  // Rows of a band that fit, whole tiles of 128, not more than there are.
  int rows_that_fit(int64_t bytes, int64_t bytes_of_row) const {
    const int64_t fit = bytes / bytes_of_row / 128 * 128;
    return static_cast<int>(std::clamp<int64_t>(fit, 128, round_up(std::max(n, 1), 128)));
  }

  Head part(int first, int count) const {
    Head h = head;
    h.first = first, h.columns = count;
    return h;
  }
  Head rows(int first, int count) const {
    Head h = head;
    h.rows = count, h.first_row = h.rows_there.before = first;
    return h;
  }
  Tensor scratch(std::vector<int64_t> shape, ScalarType dtype) const {
    return empty(op, like, std::move(shape), dtype);
  }
  Tensor zeros(std::vector<int64_t> shape, ScalarType dtype) const {
    return lossk::zeros(op, like, std::move(shape), dtype);
  }
  void run(cudaError_t error) const { check_cuda(op, error); }

 private:
  bool ready(const Tensor& x) const;  // for the products as it is
  const void* gathered(
      const Tensor& from, int64_t first, int rows, const int* ids, Count count, const float* times,
      const Tensor& to) const;

  Tensor input_, weight_;
  Optional<float> bias_, scale_, aux_, terms_;
  Optional<int64_t> index_;
  Optional<bool> active_;
  bool weight_ready_;
  std::vector<Tensor> kept_;  // what the pointers point into
  std::optional<Tensor> multiplied_, weight_part_, weight_columns_;
  const void* input_data_ = nullptr;
  int64_t input_stride_ = 0;
};

}  // namespace lossk::head
