// The forward: row statistics of a call, and with them a sketch where a backward over live columns will want it.
#pragma once
#include "head/operands.h"

namespace lossk::head {

struct Statistics {
  Tensor stats, logits, logp, argmax, sketch, kept, aux_sum;
};

// What the forward leaves for a backward: a sketch, or the logits of the first `keep` columns.
struct Leave {
  bool sketch = false;
  int keep = 0;  // all columns, or whole segments of them
};
// Of a distance not `full`, but with sums of z where they are wanted.
Statistics statistics(Operands& x, bool full, Leave leave = {}, bool sums_z = false);

}  // namespace lossk::head
