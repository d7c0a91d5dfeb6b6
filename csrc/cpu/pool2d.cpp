// Max and average pooling: which implementation runs for which problem.
#include "kernels.h"
#include "pool2d_avg_nchw.h"
#include "pool2d_avg_nhwc.h"
#include "pool2d_max_nchw.h"
#include "pool2d_max_nhwc.h"
#include "pool2d_max_scatter.h"
#include "pool2d_plain.h"
#include "pool2d_planes_nchw.h"

namespace cisdl {
namespace {

template <class T>
constexpr Implementation<MaxPool2dForward<T>> kMaxForward[] = {
    {"lanes_nhwc", is_nhwc_max, max_forward_nhwc<T>},
    {"planes_nchw", max_forward_planes_applies<T>, max_forward_planes<T>},
    {"lanes_nchw", max_forward_nchw_applies<T>, max_forward_nchw<T>},
    {"plain", always, max_forward_plain<T>},
};
template <class T>
constexpr Implementation<MaxPool2dBackward<T>> kMaxBackward[] = {
    {"gather_nhwc", max_gather_nhwc_applies<T>, max_backward_nhwc<T>},
    {"gather_nchw", max_gather_nchw_applies<T>, max_gather_nchw<T>},
    {"scatter", always, max_scatter<T>},
    {"plain", always, max_backward_plain<T>},
};
template <class T>
constexpr Implementation<AvgPool2dForward<T>> kAvgForward[] = {
    {"lanes_nhwc", is_nhwc, avg_forward_nhwc<T>},
    {"global_nchw", window_is_plane<AvgPool2dForward<T>>, avg_forward_global<T>},
    {"planes_nchw", avg_planes_applies<T, AvgPool2dForward<T>>, avg_forward_planes<T>},
    {"lanes_nchw", is_nchw, avg_forward_nchw<T>},
    {"plain", always, avg_forward_plain<T>},
};
template <class T>
constexpr Implementation<AvgPool2dBackward<T>> kAvgBackward[] = {
    {"lanes_nhwc", is_nhwc, avg_backward_nhwc<T>},
    {"global_nchw", window_is_plane<AvgPool2dBackward<T>>, avg_backward_global<T>},
    {"planes_nchw", avg_planes_applies<T, AvgPool2dBackward<T>>, avg_backward_planes<T>},
    {"lanes_nchw", is_nchw, avg_backward_nchw<T>},
    {"plain", always, avg_backward_plain<T>},
};

template <class A, int N>
constexpr ImplementationList<A> list_of(const Implementation<A> (&items)[N]) {
  return {items, N};
}

template <class T>
constexpr Pool2dKernels<T> kernels_of() {
  return {list_of(kMaxForward<T>), list_of(kMaxBackward<T>), list_of(kAvgForward<T>), list_of(kAvgBackward<T>)};
}

constexpr Pool2dFamily kFamily{kernels_of<float>(), kernels_of<double>()};

}  // namespace
}  // namespace cisdl

CISDL_EXPORT(pool2d, Pool2dFamily) { return &cisdl::kFamily; }
