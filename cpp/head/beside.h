// Sweeps whose logits have others beside them: those of a second head on the same rows, or numbers of the row.
#pragma once
#include "head/compare_rows.h"
#include "head/recompute.h"

namespace lossk {

// What stands beside a row. A second head is swept by `sweep`, which has taken the same rows.
template <class T>
struct Beside {
  const Head<T>* head = nullptr;
  const Sweep<T>* sweep = nullptr;
  const T *number = nullptr, *shift = nullptr;  // [N] in place of a head
  const int64_t* skip = nullptr;                // [N] a column that is left out; null: none
};

// The second head's part of what each worker has open.
template <class T>
class BesideRows {
 public:
  explicit BesideRows(const Beside<T>& beside) : beside_(beside), open_(beside.head ? workers() : 0) {}

  void open(int64_t worker, int64_t segment) {
    if (!beside_.head) return;
    open_[worker].index = segment;
    beside_.head->load(segment, open_[worker].segment);
    beside_.sweep->open(worker, segment);
  }
  void rows(int64_t worker, int64_t r0, int64_t r1) {
    if (!beside_.head) return;
    open_[worker].first = r0;
    open_[worker].raw = beside_.sweep->make(worker, open_[worker].index, r0, r1);
  }

  // Row r of the sweep, which is `row` among all. by_u: the sweep's own logits are u, these are z.
  Compared<T> row(
      int64_t worker, const Segment<T>& segment, int64_t r, const T* raw, int64_t row, T scale,
      bool by_u = false) const {
    Compared<T> x{};
    x.z = &segment, x.z_raw = raw, x.z_scale = scale;
    x.skip = beside_.skip ? beside_.skip[row] : -1;
    if (!beside_.head) {
      x.number = beside_.number[row], x.shift = beside_.shift[row];
      return x;
    }
    const Open& o = open_[worker];
    x.u = &o.segment, x.u_raw = o.raw + (r - o.first) * kSegment, x.u_scale = beside_.head->scale(row);
    if (by_u) std::swap(x.z, x.u), std::swap(x.z_raw, x.u_raw), std::swap(x.z_scale, x.u_scale);
    return x;
  }

 private:
  struct Open {
    Segment<T> segment;
    int64_t index, first;
    const T* raw;
  };
  Beside<T> beside_;
  std::vector<Open> open_;
};

// A and B of every active row, and, where one pass finds them, both lse; which are in `lse_*` otherwise, by the sweep's
// rows, where the kind is of probabilities.
template <class T>
struct SumsVisitor final : Visitor<T> {
  const Head<T>& head;
  const int64_t begin, count;
  const Compare kind;
  const T beta;
  const Normaliser<T>*lse_z, *lse_u;
  BesideRows<T> beside;
  ComparedSums<T>* sums;  // [segments, count]

  SumsVisitor(
      const Head<T>& h, int64_t b, int64_t c, Compare k, T be, const Normaliser<T>* z, const Normaliser<T>* u,
      const Beside<T>& o, ComparedSums<T>* s)
      : head(h), begin(b), count(c), kind(k), beta(be), lse_z(z), lse_u(u), beside(o), sums(s) {}

  void open(int64_t worker, int64_t segment) override { beside.open(worker, segment); }
  void rows(int64_t worker, int64_t r0, int64_t r1) override { beside.rows(worker, r0, r1); }
  void row(int64_t worker, int64_t s, const Segment<T>& segment, int64_t r, const T* raw) override {
    const int64_t row = head.rows[begin + r];
    const Compared<T> x = beside.row(worker, segment, r, raw, row, head.scale(row));
    ComparedSums<T>& out = sums[s * count + r];
    if (in_one_pass(kind)) compare_rows<T>().one_pass(kind, beta, x, out);
    else compare_rows<T>().terms(kind, beta, x, lse_z[r], lse_u[r], out);
  }
};

// Of one row, whose segments lie `stride` apart.
template <class T>
CompareTotals total(Compare kind, const ComparedSums<T>* of_segment, int64_t segments, int64_t stride);

// A and B of rows begin .. begin + count, which the sweeps have taken.
template <class T>
void compare(
    const Head<T>& head, Sweep<T>& sweep, const Beside<T>& beside, Compare kind, T beta, int64_t begin, int64_t count,
    const Normaliser<T>* lse_z, const Normaliser<T>* lse_u, CompareTotals* totals) {
  const Scratch memory(head.op, head.segments() * count * sizeof(ComparedSums<T>));
  auto* sums = memory.get<ComparedSums<T>>();
  SumsVisitor<T> visitor(head, begin, count, kind, beta, lse_z, lse_u, beside, sums);
  sweep.visit(visitor);
  parallel_ranges(count, [&](int64_t r0, int64_t r1) {
    for (int64_t r = r0; r < r1; ++r) totals[r] = total(kind, sums + r, head.segments(), count);
  });
}

// Of the sums, by_u of the second head's.
template <class T>
struct CompareGradient final : Gradient<T> {
  const Head<T>& head;
  const int64_t begin;
  const Compare kind;
  const T beta;
  const bool by_u;
  const CompareCoef<T>* coefs;
  BesideRows<T> beside;

  CompareGradient(const Head<T>& h, int64_t b, Compare k, T be, bool u, const CompareCoef<T>* c, const Beside<T>& o)
      : head(h), begin(b), kind(k), beta(be), by_u(u), coefs(c), beside(o) {}

  void open(int64_t worker, int64_t segment) override { beside.open(worker, segment); }
  void rows(int64_t worker, int64_t r0, int64_t r1) override { beside.rows(worker, r0, r1); }
  GradSums<T> row(int64_t worker, const Segment<T>& segment, int64_t r, const T* raw, T* g) override {
    const int64_t row = head.rows[begin + r];
    const Compared<T> x = beside.row(worker, segment, r, raw, row, head.scale(row), by_u);
    return {compare_rows<T>().grad(kind, beta, x, coefs[r], by_u, g), 0, 0};
  }
};

}  // namespace lossk
