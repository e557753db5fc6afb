// Distances that no product gives, summed element by element, and what a harmonic loss makes of them.
//
// z_iv = -power log((d_iv^2 + eps) / (d_iy^2 + eps)), y the row's target. delta = x_i - w_v, sgn(0) = 0.
#pragma once
#include "common/products.h"
#include "head/element_distance.h"
#include "head/epilogue.h"

namespace lossk {

// A row's distances to a segment's columns. Like everything of a segment here, readable up to whole vectors.
template <class T>
struct Distances {
  const T* d;
  int64_t count;   // columns
  int64_t target;  // the row's, counted from the first; outside [0, count) elsewhere
  T at_target;     // its distance
  T row_term;      // and column_term [kSegment], null where the kind has none
  const T* column_term;
};

template <class T>
struct HarmonicSums {
  T max = -INFINITY, sum = 0;  // of exp(z - max), without the target's: beside its 1 small ones would be lost
  T total = 0;                 // of z
};

template <class T>
struct HarmonicCoef {
  T lse, low;    // low: what rounding left off lse
  T a, b;        // dL/dz = a p + b
  T target;      // dL/dd of the target's column
  T negligible;  // a dL/dd up to this is 0
};

// Points along the other side of panels: [panel][point][columns of a tile], a panel that many features.
template <class T>
struct Along {
  const T* first;        // point of the first panel
  int64_t panel_stride;  // elements
  int64_t count;
};

template <class T>
struct PairGradient {
  int64_t dim, begin, end;  // features, and those to do: from a multiple of a panel's width on
  Along<T> own, other;      // at most kOwn and kSegment points
  const T *a, *e;           // of the pairs
  int64_t own_step, other_step;
  T sign;  // of d delta / d own
  T* sum;  // [own.count, dim], added to
};

constexpr int64_t kOwn = 32;

template <class T>
struct Elementwise {
  int64_t rows, columns;          // of a tile: the widths of panels
  int64_t scratch_bytes;          // of `gradient`
  bool (*two)(const Metric<T>&);  // numbers of a pair, not one
  void (*pack)(ScalarType, const PackArgs&, T* panels);
  // d [row_panels * rows, kSegment] of panels of rows and of columns, and where not null a second number of each pair.
  void (*distances)(
      const Metric<T>&, int64_t dim, int64_t row_panels, const T* x, int64_t column_panels, const T* w, T* d,
      T* second);
  void (*divide)(const Metric<T>&, T row_term, const T* column_term, int64_t count, T* d);
  void (*sums)(const Metric<T>&, const Distances<T>&, HarmonicSums<T>&);
  // Two numbers of each pair, of which `gradient` makes dL/dd dd/dx; e holds the second ones of `distances`. Where the
  // kind is divided, e is dL/d column_term instead and its sum is returned.
  T (*coefs)(const Metric<T>&, const Distances<T>&, const HarmonicCoef<T>&, T* a, T* e);
  void (*gradient)(const Metric<T>&, const PairGradient<T>&, void* scratch);
};

template <class T>
const Elementwise<T>& elementwise();

}  // namespace lossk
