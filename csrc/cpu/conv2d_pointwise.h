// 1x1 convolutions in NCHW: "pointwise".
//
// The planes of an image are the rows of a matrix, so each image (and group) is one product of matrices where they
// lie, with K output channels, C input channels and P pixels of a plane:
//
//   forward   y[K, P] = w[K, C] x[C, P]
//   input     dx[C, P] = w^T[C, K] dy[K, P]
//   weight    dw[K, C] = dy[K, P] x^T[P, C], summed over the images; both contiguous along P
//
// In the first two the planes are a row-major operand, which gemm.h packs by the way: no pass rewrites patches. Up
// to kFewRows rows of the result are bound by reading the planes: gemm_stream.h. A dw that would leave lanes of
// gemm.h's tile idle is summed along the lanes: gemm_dot.h.
//
// Where dw is too small to be shared out among threads, the images are cut into a fixed number of runs with sums
// of their own, so that the result does not depend on the number of threads.
//
// Against packed_gemm (Zen 4, operands not in L2): dw is 1.0 to 1.9 times as fast, the other two 1.3 to 2.5 times
// for few rows and 1.0 to 1.2 times where they read twice as much as they write and planes are whole vectors.
// Else, 0.6 to 1.1 times: runs that begin anywhere cross cache lines, and packed_gemm reads longer ones.
#pragma once

#include "conv2d_bias_gradient.h"
#include "conv2d_view.h"
#include "gemm_dot.h"
#include "gemm_stream.h"

namespace cisdl {
namespace {

constexpr int64_t kFewRows = 4;
// Pixels from which planes are worth it: packed_gemm fills the tiles of smaller ones with pixels of several
// images.
constexpr int64_t kPointwisePixels = 400, kPointwiseSumPixels = 128;

template <class T>
struct Pointwise {
  int64_t outputs, inputs, pixels, groups;  // channels of a group
  int64_t jobs;                             // images and groups

  explicit Pointwise(const Conv2dProblem& p)
      : outputs(p.out_channels / p.groups),
        inputs(p.in_channels / p.groups),
        pixels(p.out_h * p.out_w),
        groups(p.groups),
        jobs(p.batch * p.groups) {}

  const T* weight(const T* w, int64_t job) const { return w + job % groups * outputs * inputs; }
  template <class P>
  P* x(P* data, int64_t job) const {
    return data + job * inputs * pixels;
  }
  template <class P>
  P* y(P* data, int64_t job) const {
    return data + job * outputs * pixels;
  }
};

template <class Args>
bool is_nchw_pointwise(const Args& args) {
  return args.layout == Layout::nchw && is_pointwise(args.p) && args.p.in_channels > 0;
}

// A product of `rows` rows, with sums of `k`, over the pixels.
template <class T>
bool pointwise_product_applies(int64_t rows, int64_t k, int64_t pixels) {
  return rows <= kFewRows || (k >= 2 * rows && pixels % kWidth<T> == 0 && pixels >= kPointwisePixels);
}
template <class T>
bool pointwise_forward_applies(const Conv2dForward<T>& args) {
  const Pointwise<T> v(args.p);
  return is_nchw_pointwise(args) && pointwise_product_applies<T>(v.outputs, v.inputs, v.pixels);
}
template <class T>
bool pointwise_backward_input_applies(const Conv2dBackwardInput<T>& args) {
  const Pointwise<T> v(args.p);
  return is_nchw_pointwise(args) && v.outputs > 0 && pointwise_product_applies<T>(v.inputs, v.outputs, v.pixels);
}
template <class T>
bool pointwise_backward_weight_applies(const Conv2dBackwardWeight<T>& args) {
  return is_nchw_pointwise(args) && args.p.out_h * args.p.out_w >= kPointwiseSumPixels;
}

// Runs body(job, par) for all jobs: in parallel, or one by one with all threads where they are too few.
template <class F>
void for_each_job(int64_t jobs, int64_t work, const Parallel& par, const F& body) {
  if (jobs < par.num_threads) {
    for (int64_t job = 0; job < jobs; ++job) body(job, par);
    return;
  }
  const Parallel alone = {1, par.run};
  parallel_for(par, jobs, grain_for(work), [&](int64_t begin, int64_t end) {
    for (int64_t job = begin; job < end; ++job) body(job, alone);
  });
}

// out[rows, pixels] = w[rows, k] planes[k, pixels]
template <class T>
void pointwise_product(int64_t rows, int64_t k, int64_t pixels, const Lines<T>& w, const T* planes,
                       const TileOutput<T>& out, const Parallel& par) {
  if (rows <= kFewRows)
    gemm_few_rows<T>(rows, pixels, k, w, planes, pixels, out, par);
  else
    gemm<T>({rows, pixels, k, w, lines_are_columns(planes, pixels), out}, par);
}

template <class T>
void pointwise_forward(const Conv2dForward<T>& args, const Parallel& par) {
  const Pointwise<T> v(args.p);
  for_each_job(v.jobs, v.outputs * v.inputs * v.pixels, par, [&](int64_t job, const Parallel& threads) {
    TileOutput<T> out = {v.y(args.output, job), v.pixels};
    out.row_bias = args.bias ? args.bias + job % v.groups * v.outputs : nullptr;
    out.least = args.least;
    pointwise_product<T>(v.outputs, v.inputs, v.pixels, lines_are_rows(v.weight(args.weight, job), v.inputs),
                         v.x(args.input, job), out, threads);
  });
}

template <class T>
void pointwise_backward_input(const Conv2dBackwardInput<T>& args, const Parallel& par) {
  const Pointwise<T> v(args.p);
  for_each_job(v.jobs, v.outputs * v.inputs * v.pixels, par, [&](int64_t job, const Parallel& threads) {
    pointwise_product<T>(v.inputs, v.outputs, v.pixels, lines_are_columns(v.weight(args.weight, job), v.inputs),
                         v.y(args.grad_output, job), {v.x(args.grad_input, job), v.pixels}, threads);
  });
}

// Whether an eighth of the lanes or more would idle in the panels of so many columns.
template <class T>
CISDL_INLINE bool lanes_idle(int64_t columns) {
  const int64_t rest = columns % kTileCols<T>;
  const int64_t idle = rest == 0 ? 0 : panel_vectors<T>(rest) * kWidth<T> - rest;
  return 8 * idle >= columns + idle;
}

// dw of one group += or = that of image `n`.
template <class T>
void pointwise_add_weight(const Conv2dBackwardWeight<T>& args, const Pointwise<T>& v, int64_t job, T* dw,
                          bool accumulate, const Parallel& par) {
  const T *dy = v.y(args.grad_output, job), *x = v.x(args.input, job);
  const TileOutput<T> out = {dw, v.inputs, accumulate};
  if (lanes_idle<T>(v.inputs) && lanes_idle<T>(v.outputs))
    gemm_dot<T>(v.outputs, v.inputs, v.pixels, dy, v.pixels, x, v.pixels, out, par);
  else
    gemm<T>({v.outputs, v.inputs, v.pixels, lines_are_rows(dy, v.pixels), lines_are_rows(x, v.pixels), out}, par);
}

// Runs of images with sums of their own: as many as make kRunItems tiles of work, together with the tiles of dw.
constexpr int64_t kRunItems = 32;

template <class T>
void pointwise_backward_weight(const Conv2dBackwardWeight<T>& args, const Parallel& par) {
  const Conv2dProblem& p = args.p;
  if (args.grad_bias) conv2d_bias_gradient(p, args.grad_output, args.grad_bias, par);
  if (!args.grad_weight) return;
  const Pointwise<T> v(p);
  const int64_t size = v.outputs * v.inputs, all = v.groups * size;
  if (p.batch == 0) return (void)std::memset(args.grad_weight, 0, static_cast<size_t>(all) * sizeof(T));
  const int64_t tiles = v.groups * ceil_div(v.outputs, kTileRows) * ceil_div(v.inputs, 4 * kTileCols<T>);
  const Parts runs = split_evenly(p.batch, ceil_div(p.batch, larger(1, kRunItems / tiles)), 1);
  // The first run adds to the result itself.
  T* sums = static_cast<T*>(scratch(Scratch::shared2, (runs.count - 1) * all * static_cast<int64_t>(sizeof(T))));
  for_each_job(runs.count * v.groups, runs.size * size * v.pixels, par, [&](int64_t i, const Parallel& threads) {
    const int64_t run = i / v.groups, group = i % v.groups;
    T* dw = (run == 0 ? args.grad_weight : sums + (run - 1) * all) + group * size;
    for (int64_t n = run * runs.size; n < smaller(p.batch, (run + 1) * runs.size); ++n)
      pointwise_add_weight<T>(args, v, n * v.groups + group, dw, n > run * runs.size, threads);
  });
  for (int64_t run = 1; run < runs.count; ++run)
    for (int64_t i = 0; i < all; ++i) args.grad_weight[i] += sums[(run - 1) * all + i];
}

}  // namespace
}  // namespace cisdl
