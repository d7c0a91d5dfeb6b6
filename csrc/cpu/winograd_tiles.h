// Between images and transformed tiles.
//
// Transformed data lies as [chunk of channels][point][tile][kChunk]: a row of kChunk channels of one tile is what
// one vector loop writes and one broadcast loop of the product reads, at distances that are compile-time
// constants. Images enter and leave a whole row of tiles at a time: W channels of its input rows are first brought
// into a buffer [row][column][W] with the padding in it (for NCHW through transposes in registers), so that the
// transform itself knows no borders and no layouts.
//
// A side of n outputs is cut into tiles of four and, at its end, up to three tiles of three, whichever takes the
// fewest products: 13 = 4 + 3 + 3 + 3, 14 = 4 + 4 + 3 + 3. Tiles of three lack the first point, so the first row
// and column of points have lists of tiles of their own, shorter and as dense (TileNumbers).
#pragma once

#include "conv2d_view.h"
#include "winograd_transforms.h"

namespace cisdl {
namespace {

constexpr int64_t kChunk = 64;  // channels that lie together

CISDL_INLINE int64_t round_up(int64_t n, int64_t unit) { return ceil_div(n, unit) * unit; }

// A part of a kernel's side: three or two taps.
struct Piece {
  int64_t first, taps;
};

// A kernel in pieces of three by three taps and, where a side is no multiple of three, fewer. The first is whole.
struct Pieces {
  int64_t down, across;  // taps

  static int64_t count(int64_t side) { return ceil_div(side, 3); }
  static Piece piece(int64_t side, int64_t i) {
    const int64_t threes = side % 3 == 0 ? side / 3 : side / 3 - (side % 3 == 1);
    return {3 * i - larger(0, i - threes), i < threes ? 3 : 2};
  }
  int64_t count() const { return count(down) * count(across); }
  Piece down_at(int64_t i) const { return piece(down, i / count(across)); }
  Piece across_at(int64_t i) const { return piece(across, i % count(across)); }
};

// One side of an image in tiles.
struct Cut {
  int64_t fours, threes;

  int64_t tiles() const { return fours + threes; }
  int64_t points() const { return 6 * fours + 5 * threes; }
  int64_t begin(int64_t tile) const { return 4 * tile - larger(0, tile - fours); }
};

inline Cut cut(int64_t outputs) {
  Cut best{ceil_div(outputs, 4), 0};
  for (int64_t threes = 1; threes <= 3; ++threes) {
    const Cut other{ceil_div(larger(0, outputs - 3 * threes), 4), threes};
    if (other.points() < best.points()) best = other;
  }
  return best;
}

// The images on one side of a convolution, and how they are cut into tiles.
struct TiledImages {
  Layout layout;
  int64_t batch, channels, h, w;
  Cut down, across;

  int64_t rows() const { return batch * down.tiles(); }  // of tiles, over all images
  int64_t chunks() const { return ceil_div(channels, kChunk); }
  // Rows of tiles of four before `row`.
  int64_t fours_before(int64_t row) const {
    return row / down.tiles() * down.fours + smaller(row % down.tiles(), down.fours);
  }
};

// Rows [row, row + rows) of tiles, over all images, and columns [col, col + cols).
struct Block {
  int64_t row, rows, col, cols;
  int64_t four_rows, four_cols;  // how many of them are of four

  int64_t tiles() const { return rows * cols; }
  // How many tiles have the point (i, j).
  int64_t tiles_at(int64_t i, int64_t j) const { return (i ? rows : four_rows) * (j ? cols : four_cols); }
};

// Tiles in blocks of at most `most`, whole rows where a row is not more than that.
struct Blocks {
  const TiledImages* images;
  Parts rows, cols;

  Blocks(const TiledImages& images, int64_t most)
      : images(&images),
        rows(split_evenly(images.rows(), larger(1, most / images.across.tiles()), 1)),
        cols(split_evenly(images.across.tiles(), larger(1, most), 1)) {}
  int64_t count() const { return rows.count * cols.count; }
  int64_t most_tiles() const { return rows.size * cols.size; }
  Block at(int64_t i) const {
    const int64_t row = i / cols.count * rows.size, col = i % cols.count * cols.size;
    const int64_t last_row = smaller(row + rows.size, images->rows());
    const int64_t last_col = smaller(col + cols.size, images->across.tiles());
    return {row,
            last_row - row,
            col,
            last_col - col,
            images->fours_before(last_row) - images->fours_before(row),
            larger(0, smaller(last_col, images->across.fours) - col)};
  }
};

// Where a tile stands in the lists of its points: [is it not the first row of points][... column].
struct TileNumbers {
  int64_t at[2][2];
  // Tile `t` of row `row`, the four_row-th of the block's rows of four.
  TileNumbers(const Block& b, int64_t row, int64_t four_row, int64_t t)
      : at{{four_row * b.four_cols + t, four_row * b.cols + t},
           {(row - b.row) * b.four_cols + t, (row - b.row) * b.cols + t}} {}
};

// A block of transformed tiles. The stride of points is not a multiple of a page: the 36 points of a tile would
// meet in one cache set.
struct TransformedTiles {
  float* data;
  Block block;
  Piece down, across;  // what meets them
  int64_t first;       // channel, a multiple of kChunk
  int64_t point_stride;

  TransformedTiles(float* data, const Block& block, const Piece& down, const Piece& across, int64_t first = 0)
      : data(data),
        block(block),
        down(down),
        across(across),
        first(first),
        point_stride(point_stride_of(block.tiles())) {}
  static int64_t point_stride_of(int64_t tiles) { return tiles * kChunk + 48; }
  static int64_t elements(int64_t tiles, int64_t chunks) { return chunks * kPoints * point_stride_of(tiles); }
  int64_t tiles_at(int64_t i, int64_t j) const {
    return (i || down.taps == 3) && (j || across.taps == 3) ? block.tiles_at(i, j) : 0;
  }
  float* at(int64_t channel) const {
    return data + (channel - first) / kChunk * kPoints * point_stride + channel % kChunk;
  }
};

// Rows [top, top + rows) by columns [left, left + cols) of channels [c, c + W) of image n, as [rows][cols][W];
// what lies outside the image or past the last channel is zero.
inline void gather_rows(const TiledImages& x, const float* data, int64_t n, int64_t c, int64_t top, int64_t left,
                        int64_t rows, int64_t cols, float* buffer) {
  constexpr int64_t W = kWidth<float>;
  const int64_t first = larger(0, left), last = smaller(x.w, left + cols);
  const int64_t lines = smaller(W, x.channels - c);
  for (int64_t r = 0; r < rows; ++r, buffer += cols * W) {
    const int64_t h = top + r;
    if (h < 0 || h >= x.h || first >= last) {
      for (int64_t i = 0; i < cols; ++i) store(buffer + i * W, zero<float>());
      continue;
    }
    for (int64_t i = left; i < first; ++i) store(buffer + (i - left) * W, zero<float>());
    for (int64_t i = last; i < left + cols; ++i) store(buffer + (i - left) * W, zero<float>());
    float* to = buffer + (first - left) * W;
    if (x.layout == Layout::nchw) {
      const int64_t plane = x.h * x.w;
      pack_transposed<float, 1>(data + (n * x.channels + c) * plane + h * x.w + first, plane, lines, last - first,
                                to, W);
    } else {
      const float* from = data + ((n * x.h + h) * x.w + first) * x.channels + c;
      for (int64_t i = first; i < last; ++i, from += x.channels, to += W)
        store(to, lines == W ? load(from) : load_partial(from, lines));
    }
  }
}

// One tile: Rows x Cols cells of `from`, whose rows are `cols` cells apart, to the points that it has.
template <int Rows, int Cols, int ToRows, int ToCols, class Transform>
CISDL_NOINLINE void transform_tile(const float* from, int64_t cols, const TransformedTiles& out, float* to,
                                   const TileNumbers& tile, const Transform& transform) {
  constexpr int W = kWidth<float>, kRow = kSide - ToRows, kCol = kSide - ToCols;
  transform_2d<Rows, Cols, ToRows, ToCols>(
      transform, [&](int r, int s) __attribute__((always_inline)) { return load(from + (r * cols + s) * W); },
      [&](int r, int s, V v) __attribute__((always_inline)) {
        const int i = r + kRow, j = s + kCol;
        store(to + (i * kSide + j) * out.point_stride + tile.at[i > 0][j > 0] * kChunk, v);
      });
}

// Columns of tiles, of Rows rows of cells, through `transform`.
enum class Cells { inputs, grad_outputs };

template <Cells kCells, int Rows, int ToRows, class Transform>
void transform_columns(const float* from, int64_t cols, const TransformedTiles& out, float* to, int64_t row,
                       int64_t four_row, const Transform& transform) {
  const Block& b = out.block;
  for (int64_t t = 0; t < b.cols; ++t) {
    const TileNumbers tile(b, row, four_row, t);
    const bool wide = t < b.four_cols;
    if constexpr (kCells == Cells::grad_outputs) {
      if (wide)
        transform_tile<Rows, 4, ToRows, 6>(from, cols, out, to, tile, transform);
      else
        transform_tile<Rows, 3, ToRows, 5>(from, cols, out, to, tile, transform);
    } else {
      if (wide && out.across.taps == 3)
        transform_tile<Rows, 6, ToRows, 6>(from, cols, out, to, tile, transform);
      else if (wide || out.across.taps == 3)
        transform_tile<Rows, 5, ToRows, 5>(from, cols, out, to, tile, transform);
      else
        transform_tile<Rows, 4, ToRows, 5>(from, cols, out, to, tile, transform);
    }
    from += (wide ? 4 : 3) * kWidth<float>;
  }
}

// Transforms rows [row, row + rows) of the block of `out`, channels [c, c + W). Of the input of a convolution
// every tile takes the cells under its outputs and its piece of the kernel, of the gradient to its output those
// alone.
template <Cells kCells, class Transform>
CISDL_NOINLINE void transform_tiles(const TiledImages& x, const float* data, int64_t pad_top, int64_t pad_left,
                                    int64_t row, int64_t rows, int64_t c, const TransformedTiles& out,
                                    float* buffer, const Transform& transform) {
  constexpr bool kInputs = kCells == Cells::inputs;
  const Block& b = out.block;
  const int64_t begin = x.across.begin(b.col), left = kInputs ? begin - pad_left + out.across.first : begin;
  const int64_t cols = x.across.begin(b.col + b.cols) - begin + (kInputs ? out.across.taps - 1 : 0);
  float* to = out.at(c);
  for (int64_t i = row; i < row + rows; ++i) {
    const int64_t n = i / x.down.tiles(), down = i % x.down.tiles(), four = down < x.down.fours;
    const int64_t top = x.down.begin(down) + (kInputs ? out.down.first - pad_top : 0);
    const int64_t cells = 3 + four + (kInputs ? out.down.taps - 1 : 0);
    gather_rows(x, data, n, c, top, left, cells, cols, buffer);
    const int64_t four_row = x.fours_before(i) - x.fours_before(b.row);
    if constexpr (!kInputs) {
      if (cells == 4)
        transform_columns<kCells, 4, 6>(buffer, cols, out, to, i, four_row, transform);
      else
        transform_columns<kCells, 3, 5>(buffer, cols, out, to, i, four_row, transform);
    } else {
      if (cells == 6)
        transform_columns<kCells, 6, 6>(buffer, cols, out, to, i, four_row, transform);
      else if (cells == 5)
        transform_columns<kCells, 5, 5>(buffer, cols, out, to, i, four_row, transform);
      else
        transform_columns<kCells, 4, 5>(buffer, cols, out, to, i, four_row, transform);
    }
  }
}

// [pixels][W] to [channel][pixel], channels `plane` apart; `channels` of the W count.
inline void store_planes(const float* from, int64_t pixels, int64_t channels, float* to, int64_t plane) {
  constexpr int64_t W = kWidth<float>;
  for (int64_t p = 0; p < pixels; p += W) {
    V t[W];
    const int64_t count = smaller(W, pixels - p);
#pragma GCC unroll 16
    for (int64_t i = 0; i < W; ++i) t[i] = i < count ? load(from + (p + i) * W) : zero<float>();
    transpose<float>(t);
#pragma GCC unroll 16
    for (int64_t i = 0; i < W; ++i) {
      if (i >= channels) break;
      if (count == W)
        store(to + i * plane + p, t[i]);
      else
        store_partial(to + i * plane + p, t[i], count);
    }
  }
}

// Products of a block's tiles with one panel of output channels: [point][tile][columns].
struct Products {
  float* data;
  Block block;
  int64_t columns, point_stride;

  Products(float* data, const Block& block, int64_t columns)
      : data(data), block(block), columns(columns), point_stride(stride_of(block.tiles(), columns)) {}
  static int64_t stride_of(int64_t tiles, int64_t columns) { return tiles * columns + 48; }
  static int64_t elements(int64_t tiles, int64_t columns) { return kPoints * stride_of(tiles, columns); }
};

// The outputs of one tile: W channels, their rows `row_stride` and pixels `pixel_stride` apart.
struct OutputTile {
  float* to;
  int64_t row_stride, pixel_stride, height, width, lanes;
};

template <int Rows, int Cols>
CISDL_NOINLINE void untransform_tile(const Products& m, const float* from, const TileNumbers& tile, V bias,
                                     V least, const OutputTile& out) {
  constexpr int kRow = 4 - Rows, kCol = 4 - Cols;
  const bool whole = out.height >= Rows && out.width >= Cols && out.lanes == kWidth<float>;
  transform_2d<Rows + 2, Cols + 2, Rows, Cols>(
      [](const auto& in, auto& to) __attribute__((always_inline)) { output_transform(in, to); },
      [&](int r, int s) __attribute__((always_inline)) {
        const int i = r + kRow, j = s + kCol;
        return load(from + (i * kSide + j) * m.point_stride + tile.at[i > 0][j > 0] * m.columns);
      },
      [&](int r, int s, V v) __attribute__((always_inline)) {
        float* to = out.to + r * out.row_stride + s * out.pixel_stride;
        if (whole)
          store(to, at_least<float>(v + bias, least));
        else if (r < out.height && s < out.width)
          store_up_to(to, at_least<float>(v + bias, least), out.lanes);
      });
}

// Turns the products of W channels from c on, `column` of the panel's, into outputs: adds the bias, and takes
// `least` where they are less. `buffer` holds a row of tiles.
CISDL_NOINLINE inline void untransform_tiles(const TiledImages& y, float* data, const float* bias, float least,
                                             int64_t c, const Products& m, int64_t column, float* buffer) {
  constexpr int64_t W = kWidth<float>;
  const Block& b = m.block;
  const int64_t lanes = smaller(W, y.channels - c);
  const V bias_of_lanes = bias ? load_up_to(bias + c, lanes) : zero<float>();
  const V least_of_lanes = set1(least);
  const int64_t left = y.across.begin(b.col), right = smaller(y.w, y.across.begin(b.col + b.cols));
  for (int64_t i = b.row; i < b.row + b.rows; ++i) {
    const int64_t n = i / y.down.tiles(), down = i % y.down.tiles(), top = y.down.begin(down);
    const bool four = down < y.down.fours, planes = y.layout == Layout::nchw;
    const int64_t height = smaller(four ? 4 : 3, y.h - top);
    const int64_t four_row = y.fours_before(i) - y.fours_before(b.row);
    for (int64_t t = 0; t < b.cols; ++t) {
      const TileNumbers tile(b, i, four_row, t);
      const bool wide = t < b.four_cols;
      const int64_t x = y.across.begin(b.col + t);
      const OutputTile out = planes
                                 ? OutputTile{buffer + (x - left) * W, (right - left) * W, W, height, y.w - x, W}
                                 : OutputTile{data + ((n * y.h + top) * y.w + x) * y.channels + c,
                                              y.w * y.channels,
                                              y.channels,
                                              height,
                                              y.w - x,
                                              lanes};
      const float* from = m.data + column;
      if (four && wide)
        untransform_tile<4, 4>(m, from, tile, bias_of_lanes, least_of_lanes, out);
      else if (four)
        untransform_tile<4, 3>(m, from, tile, bias_of_lanes, least_of_lanes, out);
      else if (wide)
        untransform_tile<3, 4>(m, from, tile, bias_of_lanes, least_of_lanes, out);
      else
        untransform_tile<3, 3>(m, from, tile, bias_of_lanes, least_of_lanes, out);
    }
    if (!planes) continue;
    float* to = data + ((n * y.channels + c) * y.h + top) * y.w + left;
    if (right - left == y.w) {
      store_planes(buffer, height * y.w, lanes, to, y.h * y.w);
    } else {
      for (int64_t r = 0; r < height; ++r)
        store_planes(buffer + r * (right - left) * W, right - left, lanes, to + r * y.w, y.h * y.w);
    }
  }
}

}  // namespace
}  // namespace cisdl
