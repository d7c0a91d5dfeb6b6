// The gradient to the input of a channels_last convolution: convolutions of grad_output, conv2d_nhwc_view.h.
//
//   dx[h, w] = sum of dy[(h + pad - r*dilation) / stride, ...] w[r, s] over the taps for which that divides evenly
//
// Input rows fall into stride_h classes by h mod stride_h, columns likewise. Within a class the taps that reach a
// pixel are always the same ones, at fixed distances in dy: so each pair of classes is a stride-1 convolution with
// a part of the kernel, written stride apart into dx. No multiplication by an inserted zero is ever made. A class
// that no tap reaches is zero. The weight is packed once for all classes, input channels as columns, and the
// classes go over the images together.
#pragma once

#include <new>

#include "conv2d_nhwc_view.h"

namespace cisdl {
namespace {

// Packs the weight [groups*C, taps, K] (C summed, K columns) as NhwcWeight wants it.
template <class T>
NhwcWeight<T> pack_nhwc_weight_transposed(const T* weight, int64_t groups, int64_t c, int64_t taps, int64_t k,
                                          const Parallel& par) {
  NhwcWeight<T> packed{nullptr, taps, c, k};
  T* to = static_cast<T*>(scratch(Scratch::shared, packed.elements(groups) * int64_t{sizeof(T)}));
  packed.data = to;
  const int64_t panels = packed.panels();
  const int64_t grain = 65536 / (c * taps * kTileCols<T> + 1) + 1;
  parallel_for(par, groups * panels, grain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t group = i / panels, panel = i % panels, cols = packed.panel_cols(panel);
      T* panel_to = to + packed.panel_offset(group, panel);
      for (int64_t t = 0; t < taps; ++t) {
        const T* from = weight + (group * c * taps + t) * k + panel * kTileCols<T>;
        pack_b(Lines<T>{from, 1, taps * k}, cols, c, panel_to + t * c * panel_vectors<T>(cols) * kWidth<T>, 0);
      }
    }
  });
  return packed;
}

template <class T>
void conv2d_nhwc_backward_input(const Conv2dBackwardInput<T>& a, const Parallel& par) {
  const Conv2dProblem& p = a.p;
  const int64_t cells = p.kernel_h * p.kernel_w;
  const NhwcWeight<T> weight = pack_nhwc_weight_transposed(a.weight, p.groups, p.out_channels / p.groups, cells,
                                                           p.in_channels / p.groups, par);
  NhwcView<T> v;
  v.batch = p.batch;
  v.groups = p.groups;
  v.input = a.grad_output;
  v.in_h = p.out_h;
  v.in_w = p.out_w;
  v.weight = weight;
  v.bias = nullptr;
  v.step_h = v.step_w = 1;
  v.out_col = p.stride_w * p.in_channels;
  v.out_row = p.stride_h * p.in_w * p.in_channels;
  v.out_image = p.in_h * p.in_w * p.in_channels;
  const bool dense_1x1 = cells == 1 && p.stride_h == 1 && p.stride_w == 1 && p.out_h == p.in_h &&
                         p.out_w == p.in_w && p.pad_top == 0 && p.pad_left == 0;
  const int64_t in_h = dense_1x1 ? 1 : p.in_h, in_w = dense_1x1 ? p.batch * p.in_h * p.in_w : p.in_w;
  if (dense_1x1) {  // all pixels are one row
    v.batch = v.in_h = 1;
    v.in_w = in_w;
  }
  // Taps, plan and job of every class that runs at the same time.
  const int64_t taps_bytes = cells * int64_t{sizeof(NhwcTap)};
  const int64_t job_bytes = taps_bytes + run_plan_bytes(cells, weight.c);
  const int64_t classes = smaller(p.stride_h, in_h) * smaller(p.stride_w, in_w);
  const int64_t together = smaller(kMaxNhwcViews, classes);
  char* memory = static_cast<char*>(
      scratch(Scratch::shared2, together * (job_bytes + static_cast<int64_t>(sizeof(NhwcJob<T>)))));
  NhwcJob<T>* jobs = reinterpret_cast<NhwcJob<T>*>(memory + together * job_bytes);
  int count = 0;
  for (int64_t first_h = 0; first_h < p.stride_h && first_h < in_h; ++first_h) {
    for (int64_t first_w = 0; first_w < p.stride_w && first_w < in_w; ++first_w) {
      NhwcTap* taps = reinterpret_cast<NhwcTap*>(memory + count * job_bytes);
      v.taps = taps;
      v.num_taps = 0;
      for (int64_t i = 0; i < cells; ++i) {
        const int64_t h = first_h + p.pad_top - i / p.kernel_w * p.dilation_h;
        const int64_t w = first_w + p.pad_left - i % p.kernel_w * p.dilation_w;
        if (h % p.stride_h == 0 && w % p.stride_w == 0) taps[v.num_taps++] = {h / p.stride_h, w / p.stride_w, i};
      }
      v.output = a.grad_input + (first_h * p.in_w + first_w) * p.in_channels;
      v.out_h = (in_h - first_h + p.stride_h - 1) / p.stride_h;
      v.out_w = (in_w - first_w + p.stride_w - 1) / p.stride_w;
      new (jobs + count) NhwcJob<T>(v, memory + count * job_bytes + taps_bytes, par.num_threads);
      if (++count == together) {
        run_nhwc_jobs(jobs, count, par);
        count = 0;
      }
    }
  }
  if (count > 0) run_nhwc_jobs(jobs, count, par);
}

}  // namespace
}  // namespace cisdl
