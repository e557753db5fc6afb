// The forward: row statistics of a call, and with them a sketch where a backward over live columns will want it.
#pragma once
#include "head/operands.h"

namespace lossk::head {

struct Statistics {
  Tensor stats, logits, logp, argmax, sketch, aux_sum;
};

// As they are before any row is computed.
Statistics statistics_tensors(const Operands& x, bool full, bool sketched);
// Of a distance not `full`, but with sums of z where they are wanted.
Statistics statistics(Operands& x, bool full, bool sketched, bool sums_z = false);

}  // namespace lossk::head
