// Choice by measurement: while tuning is on, the first call with a problem runs every applicable implementation on
// it and remembers the fastest; later calls with the same problem run that one. cisdl_ops.tune() turns it on and
// keeps the choices in a file.
//
// A problem is its op, element type, layout, sizes and number of threads. Only ops that write their outputs whole
// and read nothing they write can be run again and again; the others (recurrent steps) keep the cost rule.
#pragma once

#include <algorithm>
#include <chrono>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "dispatch.h"

namespace cisdl::tuning {

bool enabled();
void enable(bool on);

// The implementation remembered for a problem, or nullptr. The string lives as long as the process.
const char* choice(const std::string& problem);
void remember(const std::string& problem, const std::string& implementation);
std::vector<std::pair<std::string, std::string>> choices();
void forget();

constexpr bool repeatable(Op op) { return op <= Op::adaptive_avg_pool2d_backward; }

// "conv2d/float32/nhwc/2 threads/8,64,56,56,...": the sizes in the order of the problem struct.
template <template <class> class Args, class T>
std::string problem_name(Op op, const Args<T>& args, int threads) {
  std::string name = op_name(op);
  name += sizeof(T) == sizeof(float) ? "/float32/" : "/float64/";
  if constexpr (requires { args.layout; }) name += args.layout == Layout::nhwc ? "nhwc/" : "nchw/";
  if constexpr (requires { args.index; }) name += "index " + std::to_string(static_cast<int>(args.index)) + "/";
  name += std::to_string(threads) + " threads/";
  static_assert(sizeof(args.p) % sizeof(int64_t) == 0);
  const auto* sizes = reinterpret_cast<const int64_t*>(&args.p);
  for (size_t i = 0; i < sizeof(args.p) / sizeof(int64_t); ++i) name += (i ? "," : "") + std::to_string(sizes[i]);
  return name;
}

template <class Args>
bool allowed(const Implementation<Args>& entry, const Args& args) {
  return entry.applicable(args) && (entry.direct || !strict());
}

constexpr double kEnough = 2e-3;  // seconds: repeat until one implementation ran that long
constexpr int kMostRuns = 20;
constexpr double kHopeless = 2.0;  // slower than that many times the best so far: not run again
constexpr double kNoise = 0.97;    // what differs by less is decided by the cost rule

// The best of some runs, after one that fills caches.
template <class Args>
double seconds_of(const Implementation<Args>& entry, const Args& args, const Parallel& parallel, double best) {
  using Clock = std::chrono::steady_clock;
  double least = std::numeric_limits<double>::infinity(), total = 0;
  for (int i = 0; i < kMostRuns && (i < 2 || total < kEnough); ++i) {
    const auto start = Clock::now();
    entry.run(args, parallel);
    const double took = std::chrono::duration<double>(Clock::now() - start).count();
    total += took;
    if (i > 0) least = std::min(least, took);
    if (i > 0 && took > kHopeless * best) break;
  }
  return least;
}

// Runs every applicable implementation, that of the cost rule first; returns the fastest.
template <class Args>
const Implementation<Args>& measure(const ImplementationList<Args>& list, const Implementation<Args>& by_rule,
                                    const Args& args, const Parallel& parallel) {
  const Implementation<Args>* fastest = &by_rule;
  double best = kNoise * seconds_of(by_rule, args, parallel, std::numeric_limits<double>::infinity());
  for (int i = 0; i < list.size; ++i) {
    const Implementation<Args>& entry = list.items[i];
    if (&entry == &by_rule || !allowed(entry, args)) continue;
    const double seconds = seconds_of(entry, args, parallel, best);
    if (seconds < best) {
      fastest = &entry;
      best = seconds;
    }
  }
  return *fastest;
}

// The implementation to run. `args` may have been run already: its outputs are then those of any of them.
template <class Args>
const Implementation<Args>& choose_tuned(Op op, const ImplementationList<Args>& list, const Args& args,
                                         const Parallel& parallel) {
  const Implementation<Args>& by_rule = choose(op, list, args);
  if (!enabled() || !repeatable(op) || list.size == 1 || forced_name(op)) return by_rule;
  const std::string problem = problem_name(op, args, parallel.num_threads);
  const Implementation<Args>* found = nullptr;
  if (const char* name = choice(problem)) {
    for (int i = 0; i < list.size && !found; ++i)
      if (same_name(list.items[i].name, name) && allowed(list.items[i], args)) found = &list.items[i];
  }
  if (!found) {
    found = &measure(list, by_rule, args, parallel);
    remember(problem, found->name);
  }
  record_implementation(op, found->name);
  return *found;
}

}  // namespace cisdl::tuning
