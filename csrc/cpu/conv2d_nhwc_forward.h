// Forward convolution in channels_last: weights packed once per call, then conv2d_nhwc_view.h.
#pragma once

#include "conv2d_nhwc_view.h"

namespace cisdl {
namespace {

// Packs the weight [groups*K, taps, C] as NhwcWeight wants it.
template <class T>
NhwcWeight<T> pack_nhwc_weight(const T* weight, int64_t groups, int64_t k, int64_t taps, int64_t c,
                               const Parallel& par) {
  NhwcWeight<T> packed{nullptr, taps, c, k};
  T* to = static_cast<T*>(scratch(Scratch::shared, packed.elements(groups) * int64_t{sizeof(T)}));
  packed.data = to;
  const int64_t panels = packed.panels(), depth = taps * c;
  parallel_for(par, groups * panels, 65536 / (depth * kTileCols<T> + 1) + 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t group = i / panels, panel = i % panels;
      const T* from = weight + (group * k + panel * kTileCols<T>)*depth;
      pack_b(Lines<T>{from, depth, 1}, packed.panel_cols(panel), depth, to + packed.panel_offset(group, panel), 0);
    }
  });
  return packed;
}

template <class T>
void conv2d_nhwc_forward(const Conv2dForward<T>& a, const Parallel& par) {
  const Conv2dProblem& p = a.p;
  const NhwcWeight<T> weight = pack_nhwc_weight(a.weight, p.groups, p.out_channels / p.groups,
                                                p.kernel_h * p.kernel_w, p.in_channels / p.groups, par);
  const int64_t cells = p.kernel_h * p.kernel_w;
  NhwcView<T> v;
  v.batch = p.batch;
  v.groups = p.groups;
  v.input = a.input;
  v.in_h = p.in_h;
  v.in_w = p.in_w;
  v.weight = weight;
  v.bias = a.bias;
  v.least = a.least;
  v.step_h = p.stride_h;
  v.step_w = p.stride_w;
  v.output = a.output;
  v.out_h = p.out_h;
  v.out_w = p.out_w;
  const bool dense_1x1 = cells == 1 && p.stride_h == 1 && p.stride_w == 1 && p.out_h == p.in_h &&
                         p.out_w == p.in_w && p.pad_top == 0 && p.pad_left == 0;
  if (dense_1x1) {  // all pixels are one row
    v.out_w = v.in_w = p.batch * p.out_h * p.out_w;
    v.batch = v.out_h = v.in_h = 1;
  }
  v.out_col = p.out_channels;
  v.out_row = v.out_w * v.out_col;
  v.out_image = v.out_h * v.out_row;
  const int64_t taps_bytes = cells * int64_t{sizeof(NhwcTap)};
  char* memory = static_cast<char*>(scratch(Scratch::shared2, taps_bytes + run_plan_bytes(cells, weight.c)));
  NhwcTap* taps = reinterpret_cast<NhwcTap*>(memory);
  for (int64_t i = 0; i < cells; ++i)
    taps[i] = {i / p.kernel_w * p.dilation_h - p.pad_top, i % p.kernel_w * p.dilation_w - p.pad_left, i};
  v.taps = taps;
  v.num_taps = cells;
  const NhwcJob<T> job(v, memory + taps_bytes, par.num_threads);
  run_nhwc_jobs(&job, 1, par);
}

}  // namespace
}  // namespace cisdl
