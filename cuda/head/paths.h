// The two ways of multiplying, as what a caller needs of either.
#pragma once
#include "head/gradient/params.h"
#include "head/kept/params.h"
#include "head/stats/params.h"

namespace lossk::head {

struct Path {
  decltype(&head::stats) stats;
  decltype(&head::dlogits) dlogits;
  decltype(&head::store) store;
  decltype(&head::sketch) sketch;
  decltype(&head::live_dlogits) live_dlogits;
  decltype(&head::keep_logits) keep_logits;
  int parts;  // of each span, in partial sums: threads of a row that do not meet
};

inline constexpr Path kMmaSync{stats, dlogits, store, sketch, live_dlogits, keep_logits, 2};  // sm_80 and later
inline constexpr Path kWgmma{stats_sm90,        dlogits_sm90,     store_sm90, sketch_sm90,
                             live_dlogits_sm90, keep_logits_sm90, 1};  // Hopper

}  // namespace lossk::head
