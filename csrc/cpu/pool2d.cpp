// Max and average pooling, also adaptive: which implementation runs for which problem.
#include "kernels.h"
#include "pool2d_adaptive.h"
#include "pool2d_avg_backward_nchw.h"
#include "pool2d_avg_nhwc.h"
#include "pool2d_expand.h"
#include "pool2d_forward_nchw.h"
#include "pool2d_max_backward_nchw.h"
#include "pool2d_max_nhwc.h"
#include "pool2d_max_places.h"
#include "pool2d_plain.h"
#include "pool2d_planes_nchw.h"

namespace cisdl {
namespace {

template <class T>
constexpr Implementation<MaxPool2dForward<T>> kMaxForward[] = {
    {"lanes_nhwc", is_nhwc_max, max_forward_nhwc<T>},
    {"planes_nchw", max_forward_planes_applies<T>, max_forward_planes<T>},
    {"lanes_nchw", rows_nchw_applies<MaxPool2dForward<T>>, max_forward_nchw<T>},
    {"plain", always, max_forward_plain<T>},
};
template <class T>
constexpr Implementation<MaxPool2dBackward<T>> kMaxBackward[] = {
    {"expand", max_expand_applies<T>, max_expand<T>},
    {"gather_nhwc", max_gather_nhwc_applies<T>, max_backward_nhwc<T>},
    {"gather_nchw", max_gather_nchw_applies<T>, max_gather_nchw<T>},
    {"scatter", always, max_scatter<T>},
    {"plain", always, max_backward_plain<T>},
};
template <class T>
constexpr Implementation<MaxPool2dGather<T>> kMaxGather[] = {
    {"table", always, max_gather<T>},
    {"plain", always, max_gather_plain<T>},
};
template <class T>
constexpr Implementation<AvgPool2dForward<T>> kAvgForward[] = {
    {"lanes_nhwc", is_nhwc, avg_forward_nhwc<T>},
    {"global_nchw", window_is_plane<AvgPool2dForward<T>>, avg_forward_global<T>},
    {"planes_nchw", avg_forward_planes_applies<T>, avg_forward_planes<T>},
    {"lanes_nchw", rows_nchw_applies<AvgPool2dForward<T>>, avg_forward_nchw<T>},
    {"plain", always, avg_forward_plain<T>},
};
template <class T>
constexpr Implementation<AvgPool2dBackward<T>> kAvgBackward[] = {
    {"expand", avg_expand_applies<T>, avg_expand<T>},
    {"lanes_nhwc", is_nhwc, avg_backward_nhwc<T>},
    {"global_nchw", window_is_plane<AvgPool2dBackward<T>>, avg_backward_global<T>},
    {"planes_nchw", avg_backward_planes_applies<T>, avg_backward_planes<T>},
    {"lanes_nchw", rows_nchw_applies<AvgPool2dBackward<T>>, avg_backward_nchw<T>},
    {"plain", always, avg_backward_plain<T>},
};

// Adaptive windows of one size and equally far apart are those of ordinary pooling, which runs by whatever
// implementation comes first there: 14 -> 7 is 2 cells at stride 2, 13 -> 6 is 3 cells at stride 2.
struct EqualWindows {
  int64_t kernel, stride;
  bool equal;
};

EqualWindows equal_windows_along(int64_t in, int64_t out) {
  const int64_t kernel = adaptive_window(0, out, in).end, stride = out > 1 ? adaptive_window(1, out, in).begin : 1;
  bool equal = stride > 0;
  for (int64_t i = 1; i < out && equal; ++i) {
    const Taps window = adaptive_window(i, out, in);
    equal = window.begin == i * stride && window.end == window.begin + kernel;
  }
  return {kernel, stride, equal};
}

template <class A>
bool windows_are_equal(const A& a) {
  const AdaptivePool2dProblem& p = a.p;
  return p.out_h > 0 && p.out_w > 0 && equal_windows_along(p.in_h, p.out_h).equal &&
         equal_windows_along(p.in_w, p.out_w).equal;
}

Pool2dProblem equal_windows(const AdaptivePool2dProblem& p) {
  const EqualWindows h = equal_windows_along(p.in_h, p.out_h), w = equal_windows_along(p.in_w, p.out_w);
  return {p.batch,  p.channels, p.in_h,   p.in_w, p.out_h, p.out_w, h.kernel,
          w.kernel, h.stride,   w.stride, 0,      0,       1,       1};
}

template <class A, int N>
void run_first(const Implementation<A> (&items)[N], const A& a, const Parallel& par) {
  int i = 0;
  while (!items[i].applicable(a)) ++i;  // the last always is
  items[i].run(a, par);
}

template <class T>
void adaptive_max_forward_equal(const AdaptiveMaxPool2dForward<T>& a, const Parallel& par) {
  const PoolIndex index = a.indices ? PoolIndex::flat : PoolIndex::none;
  run_first(kMaxForward<T>, {equal_windows(a.p), a.layout, index, false, a.input, a.output, a.indices}, par);
}

template <class T>
void adaptive_max_backward_equal(const AdaptiveMaxPool2dBackward<T>& a, const Parallel& par) {
  run_first(kMaxBackward<T>,
            {equal_windows(a.p), a.layout, PoolIndex::flat, a.grad_output, a.indices, a.grad_input}, par);
}

template <class T>
void adaptive_avg_forward_equal(const AdaptiveAvgPool2dForward<T>& a, const Parallel& par) {
  run_first(kAvgForward<T>, {equal_windows(a.p), a.layout, true, 0, a.input, a.output}, par);
}

template <class T>
void adaptive_avg_backward_equal(const AdaptiveAvgPool2dBackward<T>& a, const Parallel& par) {
  run_first(kAvgBackward<T>, {equal_windows(a.p), a.layout, true, 0, a.grad_output, a.grad_input}, par);
}

template <class T>
constexpr Implementation<AdaptiveMaxPool2dForward<T>> kAdaptiveMaxForward[] = {
    {"equal_windows", windows_are_equal, adaptive_max_forward_equal<T>},
    {"lanes_nhwc", adaptive_max_nhwc_applies<T>, adaptive_max_forward_nhwc<T>},
    {"planes_nchw", adaptive_planes_applies<T, AdaptiveMaxPool2dForward<T>>, adaptive_max_forward_planes<T>},
    {"plain", always, adaptive_max_forward_plain<T>},
};
template <class T>
constexpr Implementation<AdaptiveMaxPool2dBackward<T>> kAdaptiveMaxBackward[] = {
    {"equal_windows", windows_are_equal, adaptive_max_backward_equal<T>},
    {"scatter", always, adaptive_max_scatter<T>},
    {"plain", always, adaptive_max_backward_plain<T>},
};
template <class T>
constexpr Implementation<AdaptiveAvgPool2dForward<T>> kAdaptiveAvgForward[] = {
    {"equal_windows", windows_are_equal, adaptive_avg_forward_equal<T>},
    {"lanes_nhwc", is_nhwc, adaptive_avg_forward_nhwc<T>},
    {"planes_nchw", adaptive_planes_applies<T, AdaptiveAvgPool2dForward<T>>, adaptive_avg_forward_planes<T>},
    {"plain", always, adaptive_avg_forward_plain<T>},
};
template <class T>
constexpr Implementation<AdaptiveAvgPool2dBackward<T>> kAdaptiveAvgBackward[] = {
    {"equal_windows", windows_are_equal, adaptive_avg_backward_equal<T>},
    {"lanes_nhwc", is_nhwc, adaptive_avg_backward_nhwc<T>},
    {"planes_nchw", adaptive_planes_applies<T, AdaptiveAvgPool2dBackward<T>>, adaptive_avg_backward_planes<T>},
    {"plain", always, adaptive_avg_backward_plain<T>},
};

template <class A, int N>
constexpr ImplementationList<A> list_of(const Implementation<A> (&items)[N]) {
  return {items, N};
}

template <class T>
constexpr Pool2dKernels<T> kernels_of() {
  return {list_of(kMaxForward<T>),          list_of(kMaxBackward<T>),        list_of(kMaxGather<T>),
          list_of(kAvgForward<T>),          list_of(kAvgBackward<T>),        list_of(kAdaptiveMaxForward<T>),
          list_of(kAdaptiveMaxBackward<T>), list_of(kAdaptiveAvgForward<T>), list_of(kAdaptiveAvgBackward<T>)};
}

constexpr Pool2dFamily kFamily{kernels_of<float>(), kernels_of<double>()};

}  // namespace
}  // namespace cisdl

CISDL_EXPORT(pool2d, Pool2dFamily) { return &cisdl::kFamily; }
