// A channels_last convolution as pixel_tile computes it: forward convolution and the gradient to the input are
// both of this form.
//
//   output[n, y, x, g*K + k] = bias + sum over taps t and c of
//                              input[n, y*step_h + t.h, x*step_w + t.w, g*C + c] * weight[g][t][c][k]
//
// Nothing is gathered by taps (no im2col): a tap of neighbouring pixels is read where it lies. Only if some tap
// falls outside the image are the input rows below a block of output pixels copied, once, into a band with zeros
// around; the band is reused by every tap and output channel. Where the channels of neighbouring taps follow each
// other in memory (one group, no dilation) they make one run, so an 11 x 11 x 3 kernel is 11 runs of 33.
// Sums longer than kMaxChain are split between chunks of runs, whose results are added in memory.
//
// Mapping: a thread takes blocks of output pixels, about kBlockPixels each; inside a block, tiles of up to
// kTileRows pixels of one row are the outer loop and panels of output channels the inner one, so the weights are
// read from L2 and a tile's input from L1; of large weights, the other way round. Few blocks are split further by
// panels.
#pragma once

#include "conv2d_nhwc_tile.h"
#include "gemm_pack.h"
#include "kernels.h"

namespace cisdl {
namespace {

struct NhwcTap {
  int64_t h, w;
  int64_t index;  // which tap of the packed weight
};

// Weights packed [group][panel][tap][c][width]; all panels of a group but the last are kTileCols wide.
template <class T>
struct NhwcWeight {
  const T* data;
  int64_t taps, c, k;

  CISDL_INLINE int64_t panels() const { return (k + kTileCols<T> - 1) / kTileCols<T>; }
  CISDL_INLINE int64_t panel_cols(int64_t panel) const {
    const int64_t rest = k - panel * kTileCols<T>;
    return rest < kTileCols<T> ? rest : int64_t{kTileCols<T>};
  }
  CISDL_INLINE int64_t panel_offset(int64_t group, int64_t panel) const {
    return (group * panels() + panel) * taps * c * kTileCols<T>;
  }
  CISDL_INLINE int64_t elements(int64_t groups) const { return panel_offset(groups, 0); }
};

template <class T>
struct NhwcView {
  int64_t batch, groups;
  const T* input;  // [batch, in_h, in_w, groups*C]
  int64_t in_h, in_w;
  NhwcWeight<T> weight;  // C = weight.c, K = weight.k
  const T* bias;         // [groups*K], or null
  const NhwcTap* taps;   // in the order in which they are summed
  int64_t num_taps;
  int64_t step_h, step_w;
  T* output;  // pixel (0, 0) of image 0; a pixel has groups*K channels
  int64_t out_h, out_w, out_image, out_row, out_col;
  T least = kNoLeast;  // no output becomes less
};

// Runs in order, cut into chunks whose lengths add up to at most kMaxChain; chunk i is runs [first[i],
// first[i+1]).
struct RunPlan {
  PixelRun* runs;
  int64_t* first;
  int64_t num_chunks;

  CISDL_INLINE int64_t length(int64_t chunk) const {
    int64_t sum = 0;
    for (int64_t i = first[chunk]; i < first[chunk + 1]; ++i) sum += runs[i].length;
    return sum;
  }
};

CISDL_INLINE int64_t run_plan_entries(int64_t taps, int64_t c) { return taps * (c / kMaxChain + 2) + 2; }
CISDL_INLINE int64_t run_plan_bytes(int64_t taps, int64_t c) {
  return run_plan_entries(taps, c) * int64_t{sizeof(PixelRun) + sizeof(int64_t)};
}

// pixel_pitch, row_pitch: from one column and one row of the image (or band) to the next.
template <class T>
RunPlan plan_runs(const NhwcView<T>& view, int64_t min_h, int64_t min_w, int64_t row_pitch, int64_t pixel_pitch,
                  void* memory) {
  const int64_t c = view.weight.c;
  RunPlan plan;
  plan.runs = static_cast<PixelRun*>(memory);
  plan.first = reinterpret_cast<int64_t*>(plan.runs + run_plan_entries(view.num_taps, c));
  plan.first[0] = 0;
  plan.num_chunks = 0;
  int64_t num_runs = 0, room = kMaxChain;
  for (int64_t t = 0; t < view.num_taps; ++t) {
    const NhwcTap& tap = view.taps[t];
    const int64_t offset = (tap.h - min_h) * row_pitch + (tap.w - min_w) * pixel_pitch;
    for (int64_t c0 = 0; c0 < c;) {
      if (room == 0) {
        plan.first[++plan.num_chunks] = num_runs;
        room = kMaxChain;
      }
      const PixelRun run{offset + c0, c - c0 < room ? c - c0 : room, tap.index * c + c0};
      PixelRun* last = plan.runs + num_runs - 1;
      if (num_runs > plan.first[plan.num_chunks] && last->offset + last->length == run.offset &&
          last->weight_row + last->length == run.weight_row)
        last->length += run.length;
      else
        plan.runs[num_runs++] = run;
      room -= run.length;
      c0 += run.length;
    }
  }
  plan.first[++plan.num_chunks] = num_runs;  // an empty chunk if there is nothing to sum: it writes the bias
  return plan;
}

// Rows [h0, h0 + rows) and columns [w0, w0 + cols) of an image, zeros outside it.
template <class T>
void copy_band(const T* image, int64_t in_h, int64_t in_w, int64_t channels, int64_t h0, int64_t rows, int64_t w0,
               int64_t cols, T* band) {
  const int64_t left = w0 < 0 ? (-w0 < cols ? -w0 : cols) : 0;
  int64_t inside = in_w - (w0 + left);
  if (inside > cols - left) inside = cols - left;
  if (inside < 0) inside = 0;
  for (int64_t r = 0; r < rows; ++r, band += cols * channels) {
    const int64_t h = h0 + r;
    if (h < 0 || h >= in_h) {
      std::memset(band, 0, static_cast<size_t>(cols * channels) * sizeof(T));
      continue;
    }
    std::memset(band, 0, static_cast<size_t>(left * channels) * sizeof(T));
    if (inside > 0)
      std::memcpy(band + left * channels, image + (h * in_w + w0 + left) * channels,
                  static_cast<size_t>(inside * channels) * sizeof(T));
    std::memset(band + (left + inside) * channels, 0,
                static_cast<size_t>((cols - left - inside) * channels) * sizeof(T));
  }
}

constexpr int64_t kBlockPixels = 224;
// Weights that every tile of pixels meets, one panel after the other: measured, 512 to 1024 channels gain 4 % with
// vectors of 512 bits and lose 4 % with 256; 1024 to 1024 lose 4 % and 13 %.
constexpr int64_t kTileMeetsAllBytes = kNumRegisters == 32 ? 2 << 20 : 1 << 20;

// How the output is cut into blocks, and what of the input lies below one.
struct NhwcBlocks {
  int64_t rows, cols;        // of a block
  int64_t along_h, along_w;  // blocks
  int64_t panel_groups, panels_each;
  int64_t min_h, min_w, band_rows, band_cols;
  bool copy;

  template <class T>
  NhwcBlocks(const NhwcView<T>& v, int num_threads) {
    cols = v.out_w <= kBlockPixels ? v.out_w : kBlockPixels;
    rows = kBlockPixels / (cols + 1) + 1;
    if (rows > v.out_h) rows = v.out_h;
    along_w = (v.out_w + cols - 1) / cols;
    along_h = (v.out_h + rows - 1) / rows;
    int64_t max_h = 0, max_w = 0;
    min_h = min_w = 0;
    for (int64_t t = 0; t < v.num_taps; ++t) {
      const NhwcTap& tap = v.taps[t];
      if (t == 0 || tap.h < min_h) min_h = tap.h;
      if (t == 0 || tap.w < min_w) min_w = tap.w;
      if (t == 0 || tap.h > max_h) max_h = tap.h;
      if (t == 0 || tap.w > max_w) max_w = tap.w;
    }
    copy = min_h < 0 || min_w < 0 || (v.out_h - 1) * v.step_h + max_h >= v.in_h ||
           (v.out_w - 1) * v.step_w + max_w >= v.in_w;
    band_rows = (rows - 1) * v.step_h + max_h - min_h + 1;
    band_cols = (cols - 1) * v.step_w + max_w - min_w + 1;
    // enough tasks for the threads; a task then takes some of the panels
    const int64_t blocks = v.batch * along_h * along_w, panels = v.weight.panels(), wanted = 4 * num_threads;
    panel_groups = num_threads == 1 || blocks >= wanted || blocks == 0 ? 1 : (wanted + blocks - 1) / blocks;
    if (panel_groups > panels) panel_groups = panels > 0 ? panels : 1;
    panels_each = (panels + panel_groups - 1) / panel_groups;
  }
};

// The rows of output [y0, y1) x [x0, x1) for some panels of one group. `x`: what tap (min_h, min_w) of pixel
// (y0, x0) reads.
template <class T>
void nhwc_block(const NhwcView<T>& v, const RunPlan& plan, int64_t group, int64_t panel_begin, int64_t panel_end,
                const T* x, int64_t row_pitch, int64_t pixel_pitch, T* out, int64_t rows, int64_t cols) {
  const int64_t tiles = (cols + kTileRows - 1) / kTileRows, lda = v.step_w * pixel_pitch;
  // A tile of pixels meets all output channels: results are then written in long runs, and while one tile is
  // computed, the next one's input and output can be asked for. Only of large weights does a panel meet all pixels
  // of the block before the next.
  const int64_t panels = panel_end - panel_begin;
  const bool tile_meets_all = v.weight.panel_offset(0, panels) * int64_t{sizeof(T)} <= kTileMeetsAllBytes;
  const int64_t steps = plan.length(0) * panels;  // of the panels of a tile of pixels, first chunk
  // A long sum of many taps reads the same lines again and again, and would only be slowed down by the requests.
  const bool look_ahead =
      tile_meets_all && v.groups == 1 && steps > 0 && (v.num_taps == 1 || plan.num_chunks == 1);
  const auto run_tile = [&](int64_t panel, int64_t y, int64_t tile) {
    const int64_t k = group * v.weight.k + panel * kTileCols<T>, width = v.weight.panel_cols(panel);
    const T* weight = v.weight.data + v.weight.panel_offset(group, panel);
    const int64_t begin = cols * tile / tiles, end = cols * (tile + 1) / tiles;  // tiles of about the same size
    const T* pixel = x + y * v.step_h * row_pitch + begin * lda;
    TileOutput<T> to;
    to.c = out + y * v.out_row + begin * v.out_col + k;
    to.ldc = v.out_col;
    to.row_bias = nullptr;
    to.col_bias = v.bias ? v.bias + k : nullptr;
    TileAhead ahead{};
    if (look_ahead) {  // this panel's part of the next tile's pixels
      const int64_t input = (end - begin) * lda, output = (end - begin) * v.out_col, part = panel - panel_begin;
      ahead = {reinterpret_cast<const char*>(pixel + input + input * part / panels),
               reinterpret_cast<const char*>(to.c - k + output + output * part / panels),
               input * int64_t{sizeof(T)} / steps, output * int64_t{sizeof(T)} / steps};
    }
    for (int64_t i = 0; i < plan.num_chunks; ++i) {
      to.accumulate = i > 0;
      if (i == plan.num_chunks - 1) to.least = v.least;
      const PixelRun* runs = plan.runs + plan.first[i];
      const int64_t num_runs = plan.first[i + 1] - plan.first[i];
      const auto run = [&]<int NV>() {
        if (look_ahead && i == 0)
          pixel_tile_rows<T, NV, true>(end - begin, runs, num_runs, pixel, lda, weight, to, width, ahead);
        else
          pixel_tile_rows<T, NV, false>(end - begin, runs, num_runs, pixel, lda, weight, to, width, {});
      };
      if (panel_vectors<T>(width) == 1)
        run.template operator()<1>();
      else
        run.template operator()<kTileVectors>();
    }
  };
  if (tile_meets_all) {
    for (int64_t y = 0; y < rows; ++y)
      for (int64_t tile = 0; tile < tiles; ++tile)
        for (int64_t panel = panel_begin; panel < panel_end; ++panel) run_tile(panel, y, tile);
  } else {
    for (int64_t panel = panel_begin; panel < panel_end; ++panel)
      for (int64_t y = 0; y < rows; ++y)
        for (int64_t tile = 0; tile < tiles; ++tile) run_tile(panel, y, tile);
  }
}

constexpr int kMaxNhwcViews = 16;

// One view with how it is cut.
template <class T>
struct NhwcJob {
  NhwcView<T> v;
  NhwcBlocks blocks;
  RunPlan plan;
  int64_t tasks, row_pitch;

  NhwcJob(const NhwcView<T>& view, void* plan_memory, int num_threads) : v(view), blocks(view, num_threads) {
    const int64_t channels = v.groups * v.weight.c;
    row_pitch = (blocks.copy ? blocks.band_cols : v.in_w) * channels;
    plan = plan_runs(v, blocks.min_h, blocks.min_w, row_pitch, channels, plan_memory);
    tasks = v.batch * v.out_h * v.out_w == 0 ? 0 : v.batch * blocks.along_h * blocks.along_w * blocks.panel_groups;
  }

  int64_t band_size() const {
    return blocks.copy ? blocks.band_rows * blocks.band_cols * v.groups * v.weight.c : 0;
  }

  void run(int64_t task, T* band) const {
    const int64_t channels = v.groups * v.weight.c, panels = v.weight.panels();
    int64_t i = task;
    const int64_t panel_begin = i % blocks.panel_groups * blocks.panels_each;
    int64_t panel_end = panel_begin + blocks.panels_each;
    if (panel_end > panels) panel_end = panels;
    i /= blocks.panel_groups;
    const int64_t x0 = i % blocks.along_w * blocks.cols;
    i /= blocks.along_w;
    const int64_t y0 = i % blocks.along_h * blocks.rows, n = i / blocks.along_h;
    const int64_t rows = v.out_h - y0 < blocks.rows ? v.out_h - y0 : blocks.rows;
    const int64_t cols = v.out_w - x0 < blocks.cols ? v.out_w - x0 : blocks.cols;
    const int64_t h0 = y0 * v.step_h + blocks.min_h, w0 = x0 * v.step_w + blocks.min_w;
    const T* image = v.input + n * v.in_h * v.in_w * channels;
    if (blocks.copy) copy_band(image, v.in_h, v.in_w, channels, h0, blocks.band_rows, w0, blocks.band_cols, band);
    const T* x = blocks.copy ? band : image + (h0 * v.in_w + w0) * channels;
    T* out = v.output + n * v.out_image + y0 * v.out_row + x0 * v.out_col;
    for (int64_t g = 0; g < v.groups; ++g)
      nhwc_block(v, plan, g, panel_begin, panel_end, x + g * v.weight.c, row_pitch, channels, out, rows, cols);
  }
};

// Runs up to kMaxNhwcViews views of about the same size together, block by block: what they read and write there
// stays in the cache from one to the next.
template <class T>
void run_nhwc_jobs(const NhwcJob<T>* jobs, int count, const Parallel& par) {
  int64_t tasks = 0, band_size = 0;
  for (int i = 0; i < count; ++i) {
    if (jobs[i].tasks > tasks) tasks = jobs[i].tasks;
    if (jobs[i].band_size() > band_size) band_size = jobs[i].band_size();
  }
  parallel_for(par, tasks, 1, [&](int64_t begin, int64_t end) {
    T* band = band_size > 0 ? static_cast<T*>(scratch(Scratch::local, band_size * int64_t{sizeof(T)})) : nullptr;
    for (int64_t task = begin; task < end; ++task)
      for (int i = 0; i < count; ++i)
        if (task < jobs[i].tasks) jobs[i].run(task, band);
  });
}

}  // namespace
}  // namespace cisdl
