// 4x4 convolutions of stride 2 in channels_last by Winograd's F(2x2, 2x2): 9/16 of the products of the definition.
//
// The layers of a DCGAN. With stride 2, the four taps of a kernel row fall on two columns of each parity, so such
// a convolution is a stride-1 convolution with a 2x2 kernel of an image with a quarter of the pixels and four
// times the channels. The gradient to the input (forward, of the transposed convolution) is four of them, one for
// each parity of its rows and columns. For tiles of 2x2 outputs, from 3x3 inputs d and weights g, along both axes:
//
//   V = (d0 - d1, d1, d1 - d2)    U = (g0, g0 + g1, g1)    M = sum over channels of U V    y = (M0 + M1, M1 - M2)
//   gradient to the weight:       Z = (dy0, dy0 + dy1, -dy1)   S = sum over tiles of Z V   dg = (S0 + S1, S1 + S2)
//
// No constant but 1 and -1: the error stays about that of a direct sum, whatever the number of channels.
//
// Weights are transformed first, [panel of output channels][point][channel][lanes], in rounds of as many panels as
// kWeightBytes hold. An item is a block of tiles whose V fits in the L2 cache: it transforms them, then for each
// panel takes nine products, V broadcast and U in the lanes (pixel_tile), and writes the results. For the gradient
// to the weight, an item is some output channels of one parity of the kernel, whose nine sums stay in the cache
// while all tiles pass in blocks (product_tile). Items share nothing, so the result does not depend on the number
// of threads.
//
// When it wins: from 32 channels on both sides on. Limit: float32.
#include "column_sums.h"
#include "conv2d_nhwc_tile.h"
#include "gemm.h"

namespace cisdl {
namespace {

using V = Vec<float>;
constexpr int W = kWidth<float>;
constexpr int64_t kPanel = kTileCols<float>;
constexpr int kPoints = 9;
constexpr int64_t kBlockBytes = 768 << 10;  // transformed tiles of a block
constexpr int64_t kWeightBytes = 8 << 20;   // transformed weights of a round
constexpr int64_t kSumBytes = 1 << 20;      // sums of an item of the gradient to the weight
constexpr int64_t kSumRows = 128;           // its output channels at most
constexpr int64_t kBytes = sizeof(float);

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// One stride-1 convolution with a 2x2 kernel. Row i of the image it reads is row first_h[s] + i * in_step of the
// tensor, for each of its sources s, which follow one another as channels; output row i is row out_first_h + i *
// out_step.
struct Convolution {
  const float* input;
  int64_t in_h, in_w, in_channels, in_step, sources;
  int64_t first_h[4], first_w[4];
  float* output;
  int64_t out_h, out_w, out_channels, out_step, out_first_h, out_first_w;
  int64_t rows, cols;
  const float* bias;       // or null
  float least = kNoLeast;  // no output becomes less

  // The weight of virtual channel (s, c) and output channel k at tap (t, u):
  // weight[k * k_stride + c * c_stride + (tap_h[s][t] * 4 + tap_w[s][u]) * tap_stride].
  const float* weight;
  int64_t k_stride, c_stride, tap_stride;
  int64_t tap_h[4][2], tap_w[4][2];
  float* u;  // transformed, of the panels [first_panel, last_panel) of this round
  int64_t first_panel, last_panel;

  int64_t channels() const { return sources * in_channels; }
  int64_t panels() const { return ceil_div(out_channels, kPanel); }
  int64_t panel_size() const { return kPoints * channels() * kPanel; }
  int64_t tile_rows() const { return ceil_div(rows, 2); }
  int64_t tile_cols() const { return ceil_div(cols, 2); }
};

// U of W output channels, `lane` and up of panel `panel`, for channels [c0, c0 + count) of a source, count <= W.
void transform_weights(const Convolution& f, int64_t panel, int64_t lane, int64_t source, int64_t c0,
                       int64_t count) {
  const int64_t k0 = panel * kPanel + lane, lanes = smaller(W, f.out_channels - k0), channels = f.channels();
  alignas(kVecBytes) float g[2][2][W * W];
  for (int t = 0; t < 2; ++t)
    for (int u = 0; u < 2; ++u) {
      const float* from = f.weight + k0 * f.k_stride + c0 * f.c_stride +
                          (f.tap_h[source][t] * 4 + f.tap_w[source][u]) * f.tap_stride;
      if (lanes <= 0)
        std::memset(g[t][u], 0, sizeof g[t][u]);
      else if (f.c_stride == 1)
        pack_transposed<float, 1>(from, f.k_stride, lanes, count, g[t][u], W);
      else
        for (int64_t c = 0; c < count; ++c) store(g[t][u] + c * W, load_up_to(from + c * f.c_stride, lanes));
    }
  float* to = f.u + (panel - f.first_panel) * f.panel_size() + (source * f.in_channels + c0) * kPanel + lane;
  for (int64_t c = 0; c < count; ++c, to += kPanel) {
    V rows[3][2];
#pragma GCC unroll 2
    for (int u = 0; u < 2; ++u) {
      rows[0][u] = load(g[0][u] + c * W);
      rows[2][u] = load(g[1][u] + c * W);
      rows[1][u] = rows[0][u] + rows[2][u];
    }
#pragma GCC unroll 3
    for (int i = 0; i < 3; ++i) {
      store(to + (3 * i) * channels * kPanel, rows[i][0]);
      store(to + (3 * i + 1) * channels * kPanel, rows[i][0] + rows[i][1]);
      store(to + (3 * i + 2) * channels * kPanel, rows[i][1]);
    }
  }
}

// Where a tile lies.
struct Tile {
  int64_t n, y, x;  // image; row and column of its first output
  Tile(const Convolution& f, int64_t i)
      : n(i / f.tile_cols() / f.tile_rows()), y(i / f.tile_cols() % f.tile_rows() * 2), x(i % f.tile_cols() * 2) {}
};

// V of one tile and sources [begin, end): v[point * point_stride + channel]. `zeros`: a pixel outside the image.
void transform_input(const Convolution& f, const Tile& tile, int64_t begin, int64_t end, const float* zeros,
                     float* v, int64_t point_stride) {
  for (int64_t s = begin; s < end; ++s, v += f.in_channels) {
    const float* pixel[3][3];
    for (int i = 0; i < 3; ++i)
      for (int j = 0; j < 3; ++j) {
        const int64_t h = f.first_h[s] + (tile.y + i) * f.in_step, w = f.first_w[s] + (tile.x + j) * f.in_step;
        const bool inside = h >= 0 && h < f.in_h && w >= 0 && w < f.in_w;
        pixel[i][j] = inside ? f.input + ((tile.n * f.in_h + h) * f.in_w + w) * f.in_channels : zeros;
      }
    for (int64_t c = 0; c < f.in_channels; c += W) {
      const int64_t lanes = f.in_channels - c;
      V d[3][3], t[3][3];
#pragma GCC unroll 3
      for (int i = 0; i < 3; ++i) {
#pragma GCC unroll 3
        for (int j = 0; j < 3; ++j) d[i][j] = load_up_to(pixel[i][j] + c, lanes);
        t[i][0] = d[i][0] - d[i][1];
        t[i][1] = d[i][1];
        t[i][2] = d[i][1] - d[i][2];
      }
#pragma GCC unroll 3
      for (int j = 0; j < 3; ++j) {
        store_up_to(v + c + j * point_stride, t[0][j] - t[1][j], lanes);
        store_up_to(v + c + (3 + j) * point_stride, t[1][j], lanes);
        store_up_to(v + c + (6 + j) * point_stride, t[1][j] - t[2][j], lanes);
      }
    }
  }
}

// The outputs of one tile for the channels of a panel from m[point * point_stride + lane].
void transform_output(const Convolution& f, const Tile& tile, int64_t panel, const float* m,
                      int64_t point_stride) {
  for (int64_t lane = 0; lane < kPanel; lane += W) {
    const int64_t k = panel * kPanel + lane, lanes = f.out_channels - k;
    if (lanes <= 0) break;
    const V bias = f.bias ? load_up_to(f.bias + k, lanes) : zero<float>();
    V t[2][3], y[2][2];
#pragma GCC unroll 3
    for (int j = 0; j < 3; ++j) {
      const V m1 = load(m + (3 + j) * point_stride + lane);
      t[0][j] = load(m + j * point_stride + lane) + m1;
      t[1][j] = m1 - load(m + (6 + j) * point_stride + lane);
    }
#pragma GCC unroll 2
    for (int i = 0; i < 2; ++i) {
      y[i][0] = t[i][0] + t[i][1] + bias;
      y[i][1] = t[i][1] - t[i][2] + bias;
    }
#pragma GCC unroll 2
    for (int i = 0; i < 2; ++i)
#pragma GCC unroll 2
      for (int j = 0; j < 2; ++j) {
        if (tile.y + i >= f.rows || tile.x + j >= f.cols) continue;
        const int64_t h = f.out_first_h + (tile.y + i) * f.out_step, w = f.out_first_w + (tile.x + j) * f.out_step;
        store_up_to(f.output + ((tile.n * f.out_h + h) * f.out_w + w) * f.out_channels + k,
                    at_least<float>(y[i][j], set1(f.least)), lanes);
      }
  }
}

// Elements from tile to tile: an odd number of cache lines, so that the tiles of a product spread over the sets of
// L1.
int64_t tile_stride(int64_t channels) { return (ceil_div(channels, 16) | 1) * 16; }

// Tiles [begin, end) of a convolution.
void run_block(const Convolution& f, int64_t begin, int64_t end, const float* zeros) {
  const int64_t tiles = end - begin, channels = f.channels();
  const int64_t lda = tile_stride(channels);
  const int64_t v_point = tiles * lda, m_point = tiles * kPanel;
  float* v = static_cast<float*>(scratch(Scratch::local, kPoints * (v_point + m_point) * kBytes));
  float* m = v + kPoints * v_point;
  for (int64_t i = 0; i < tiles; ++i)
    transform_input(f, Tile(f, begin + i), 0, f.sources, zeros, v + i * lda, v_point);
  const int64_t groups = ceil_div(tiles, kTileRows);
  for (int64_t panel = f.first_panel; panel < f.last_panel; ++panel) {
    const float* u = f.u + (panel - f.first_panel) * f.panel_size();
    for (int64_t point = 0; point < kPoints; ++point, u += channels * kPanel)
      for (int64_t c = 0; c < channels; c += kMaxChain)
        for (int64_t group = 0; group < groups; ++group) {
          const int64_t first = tiles * group / groups, rows = tiles * (group + 1) / groups - first;
          const PixelRun run{0, smaller(kMaxChain, channels - c), c};
          pixel_tile_rows<float, kTileVectors, false>(rows, &run, 1, v + point * v_point + first * lda + c, lda, u,
                                                      {m + point * m_point + first * kPanel, kPanel, c > 0},
                                                      kPanel, {});
        }
    for (int64_t i = 0; i < tiles; ++i) transform_output(f, Tile(f, begin + i), panel, m + i * kPanel, m_point);
  }
}

// One round: transforms the weights of its panels, then runs all blocks of tiles.
void run_round(const Convolution* all, int count, int64_t batch, int64_t most_tiles, const Parallel& par) {
  for (int i = 0; i < count; ++i) {
    const Convolution& f = all[i];
    const int64_t chunks = ceil_div(f.in_channels, W), panels = f.last_panel - f.first_panel;
    parallel_for(par, panels * f.sources * chunks, grain_for(64 * kPanel * W), [&](int64_t begin, int64_t end) {
      for (int64_t j = begin; j < end; ++j) {
        const int64_t c0 = j % chunks * W, source = j / chunks % f.sources, panel = j / chunks / f.sources;
        for (int64_t lane = 0; lane < kPanel; lane += W)
          transform_weights(f, f.first_panel + panel, lane, source, c0, smaller(W, f.in_channels - c0));
      }
    });
  }
  const int64_t tile_bytes = kPoints * all[0].channels() * kBytes;
  const int64_t fit = larger(kTileRows, kBlockBytes / tile_bytes / kTileRows * kTileRows);
  const Parts blocks = split_evenly(most_tiles, smaller(fit, ceil_div(most_tiles, par.num_threads)), 1);
  parallel_for(par, blocks.count * count, 1, [&](int64_t begin, int64_t end) {
    const int64_t in_channels = all[0].in_channels;
    float* zeros = static_cast<float*>(scratch(Scratch::extra, in_channels * kBytes));
    std::memset(zeros, 0, static_cast<size_t>(in_channels * kBytes));
    for (int64_t item = begin; item < end; ++item) {
      const Convolution& f = all[item % count];
      const int64_t first = item / count * blocks.size;
      const int64_t last = smaller(first + blocks.size, batch * f.tile_rows() * f.tile_cols());
      if (first < last) run_block(f, first, last, zeros);
    }
  });
}

// Up to four convolutions of the same images with equally many channels, block by block together: they read about
// the same pixels.
void run(Convolution* all, int count, int64_t batch, const Parallel& par) {
  int64_t most_tiles = 0;
  for (int i = 0; i < count; ++i) most_tiles = larger(most_tiles, batch * all[i].tile_rows() * all[i].tile_cols());
  if (most_tiles == 0) return;
  const int64_t panels = all[0].panels(), size = all[0].panel_size();
  const Parts rounds = split_evenly(panels, larger(1, kWeightBytes / (count * size * kBytes)), 1);
  float* u = static_cast<float*>(scratch(Scratch::shared, count * rounds.size * size * kBytes));
  for (int64_t panel = 0; panel < panels; panel += rounds.size) {
    for (int i = 0; i < count; ++i) {
      all[i].u = u + i * rounds.size * size;
      all[i].first_panel = panel;
      all[i].last_panel = smaller(panels, panel + rounds.size);
    }
    run_round(all, count, batch, most_tiles, par);
  }
}

// Where forward convolution and the gradient to the weight read.
Convolution four_sources(const Conv2dProblem& p, const float* input) {
  Convolution f{};
  f.input = input, f.in_h = p.in_h, f.in_w = p.in_w, f.in_channels = p.in_channels, f.in_step = 2, f.sources = 4;
  f.out_h = f.rows = p.out_h, f.out_w = f.cols = p.out_w, f.out_channels = p.out_channels;
  f.out_step = 1;
  for (int64_t s = 0; s < 4; ++s) {
    f.first_h[s] = s / 2 - p.pad_top;
    f.first_w[s] = s % 2 - p.pad_left;
    for (int64_t t = 0; t < 2; ++t) {
      f.tap_h[s][t] = 2 * t + s / 2;
      f.tap_w[s][t] = 2 * t + s % 2;
    }
  }
  return f;
}

void forward(const Conv2dForward<float>& a, const Parallel& par) {
  Convolution f = four_sources(a.p, a.input);
  f.output = a.output;
  f.bias = a.bias;
  f.least = a.least;
  f.weight = a.weight, f.k_stride = 16 * f.in_channels, f.c_stride = 1, f.tap_stride = f.in_channels;
  run(&f, 1, a.p.batch, par);
}

// Row h of the gradient meets tap r at row (h + pad - r) / 2 of grad_output: for h = first + 2i and the later of
// its two taps, r = (first + pad) % 2 + 2, that is row i + (first + pad) / 2 - 1, and for the earlier the row
// after it.
void backward_input(const Conv2dBackwardInput<float>& a, const Parallel& par) {
  const Conv2dProblem& p = a.p;
  Convolution classes[4] = {};
  for (int64_t i = 0; i < 4; ++i) {
    Convolution& f = classes[i];
    f.input = a.grad_output, f.in_h = p.out_h, f.in_w = p.out_w, f.in_channels = p.out_channels, f.in_step = 1;
    f.sources = 1;
    f.output = a.grad_input, f.out_h = p.in_h, f.out_w = p.in_w, f.out_channels = p.in_channels, f.out_step = 2;
    f.out_first_h = i / 2, f.out_first_w = i % 2;
    f.rows = (p.in_h - f.out_first_h + 1) / 2, f.cols = (p.in_w - f.out_first_w + 1) / 2;
    f.weight = a.weight, f.k_stride = 1, f.c_stride = 16 * p.in_channels, f.tap_stride = p.in_channels;
    const int64_t h = f.out_first_h + p.pad_top, w = f.out_first_w + p.pad_left;
    f.first_h[0] = h / 2 - 1;
    f.first_w[0] = w / 2 - 1;
    for (int64_t t = 0; t < 2; ++t) {
      f.tap_h[0][t] = h % 2 + 2 * (1 - t);
      f.tap_w[0][t] = w % 2 + 2 * (1 - t);
    }
  }
  run(classes, 4, p.batch, par);
}

// Z of one tile for output channels [k, k + count): z[point * point_stride + channel].
void transform_gradient(const Convolution& f, const float* grad, const Tile& tile, int64_t k, int64_t count,
                        const float* zeros, float* z, int64_t point_stride) {
  const float* pixel[2][2];
  for (int i = 0; i < 2; ++i)
    for (int j = 0; j < 2; ++j) {
      const bool inside = tile.y + i < f.rows && tile.x + j < f.cols;
      pixel[i][j] =
          inside ? grad + ((tile.n * f.rows + tile.y + i) * f.cols + tile.x + j) * f.out_channels + k : zeros;
    }
  for (int64_t c = 0; c < count; c += W) {
    const int64_t lanes = count - c;
    V t[3][2];
#pragma GCC unroll 2
    for (int j = 0; j < 2; ++j) {
      const V d0 = load_up_to(pixel[0][j] + c, lanes), d1 = load_up_to(pixel[1][j] + c, lanes);
      t[0][j] = d0;
      t[1][j] = d0 + d1;
      t[2][j] = -d1;
    }
#pragma GCC unroll 3
    for (int i = 0; i < 3; ++i) {
      store_up_to(z + c + (3 * i) * point_stride, t[i][0], lanes);
      store_up_to(z + c + (3 * i + 1) * point_stride, t[i][0] + t[i][1], lanes);
      store_up_to(z + c + (3 * i + 2) * point_stride, -t[i][1], lanes);
    }
  }
}

// sums[point][row][stride] += sum over `tiles` tiles of z[point][tile][row] v[point][tile][lane].
void add_products(int64_t tiles, int64_t rows, const float* z, int64_t ldz, int64_t lanes, const float* v,
                  int64_t ldv, float* sums, int64_t stride, bool accumulate) {
  const PixelWalk walk{1, 1, tiles, 0, 0, ldz, 0, 0, ldv};
  const int64_t groups = ceil_div(rows, kTileRows);
  for (int64_t point = 0; point < kPoints; ++point)
    for (int64_t lane = 0; lane < lanes; lane += kPanel)
      for (int64_t group = 0; group < groups; ++group) {
        const int64_t row = rows * group / groups, count = rows * (group + 1) / groups - row;
        const int64_t cols = smaller(kPanel, lanes - lane);
        const TileOutput<float> out{sums + (point * rows + row) * stride + lane, stride, accumulate};
        const float *a = z + point * tiles * ldz + row, *b = v + point * tiles * ldv + lane;
        if (cols == kPanel)
          product_tile_rows<float, kTileVectors, false, false>(count, walk, a, b, out, cols, {});
        else if (cols > W)
          product_tile_rows<float, kTileVectors, true, false>(count, walk, a, b, out, cols, {});
        else
          product_tile_rows<float, 1, true, false>(count, walk, a, b, out, cols, {});
      }
}

void backward_weight(const Conv2dBackwardWeight<float>& a, const Parallel& par) {
  const Conv2dProblem& p = a.p;
  if (a.grad_bias)
    column_sums<float>(a.grad_output, p.batch * p.out_h * p.out_w, p.out_channels, a.grad_bias, par);
  const Convolution f = four_sources(p, a.input);
  const int64_t channels = f.in_channels, tiles = p.batch * f.tile_rows() * f.tile_cols();
  const int64_t sum_stride = ceil_div(channels, W) * W;
  const Parts ranges = split_evenly(
      p.out_channels, smaller(kSumRows, larger(kTileRows, kSumBytes / (kPoints * sum_stride * kBytes))), 1);
  const int64_t ldv = tile_stride(channels), ldz = tile_stride(ranges.size);
  const int64_t most = larger(16, smaller(kMaxChain, kBlockBytes / (kPoints * (ldv + ldz) * kBytes)));
  const Parts blocks = split_evenly(tiles, most, 1);
  parallel_for(par, 4 * ranges.count, 1, [&](int64_t begin, int64_t end) {
    const int64_t v_size = kPoints * blocks.size * ldv, z_size = kPoints * blocks.size * ldz;
    float* v = static_cast<float*>(scratch(Scratch::local, (v_size + z_size) * kBytes));
    float* z = v + v_size;
    const int64_t zeros_size = larger(channels, ranges.size), sums_size = kPoints * ranges.size * sum_stride;
    float* sums = static_cast<float*>(scratch(Scratch::extra, (sums_size + zeros_size) * kBytes));
    float* zeros = sums + sums_size;
    std::memset(sums, 0, static_cast<size_t>((sums_size + zeros_size) * kBytes));
    for (int64_t item = begin; item < end; ++item) {
      const int64_t source = item % 4, k = item / 4 * ranges.size;
      const int64_t rows = smaller(ranges.size, p.out_channels - k);
      for (int64_t first = 0; first < tiles; first += blocks.size) {
        const int64_t count = smaller(blocks.size, tiles - first);
        for (int64_t i = 0; i < count; ++i) {
          const Tile tile(f, first + i);
          transform_input(f, tile, source, source + 1, zeros, v + i * ldv, count * ldv);
          transform_gradient(f, a.grad_output, tile, k, rows, zeros, z + i * ldz, count * ldz);
        }
        add_products(count, rows, z, ldz, channels, v, ldv, sums, sum_stride, first > 0);
      }
      for (int64_t row = 0; row < rows; ++row)
        for (int64_t c = 0; c < channels; c += W) {
          V s[2][3];
#pragma GCC unroll 3
          for (int j = 0; j < 3; ++j) {
            const float* from = sums + row * sum_stride + c;
            const V s1 = load(from + (3 + j) * rows * sum_stride);
            s[0][j] = load(from + j * rows * sum_stride) + s1;
            s[1][j] = s1 + load(from + (6 + j) * rows * sum_stride);
          }
          for (int t = 0; t < 2; ++t)
            for (int u = 0; u < 2; ++u)
              store_up_to(
                  a.grad_weight + ((k + row) * 16 + f.tap_h[source][t] * 4 + f.tap_w[source][u]) * channels + c,
                  s[t][u] + s[t][u + 1], channels - c);
        }
    }
  });
}

constexpr WinogradKernels kKernels = {forward, backward_input, backward_weight};

}  // namespace
}  // namespace cisdl

CISDL_EXPORT(winograd_stride2, WinogradKernels) { return &cisdl::kKernels; }
