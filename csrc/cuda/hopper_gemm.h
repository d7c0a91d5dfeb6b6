// What hopper_gemm.cu multiplies, as linear_hopper.cu and conv2d_hopper.cu describe it: plain data, made on the
// host, read by one thread of each block.
//
//   C[m][(v, n)] = sum_{u, k} A[m][(u, k)] B[(v, n)][(u, k)]
//
// The depth is cut into taps u of `depth` numbers k, the columns into taps v of `tap_columns` numbers n. A dense
// matrix has one tap. A convolution's depth has a tap for each cell of the filter, and so have the columns of a
// gradient of a weight; numbers under a tap are channels. Tiles begin anew with each tap, at most 64 numbers long
// in the depth: what sticks out of a tap is zero, in both operands.
//
// An operand is a tensor [z][y][x], x dense, and lies along the depth (x is the depth: y its tap, z the line) or
// across it (x is the line: y a tap, z the depth). Or it is the patches of an image, whose lines (along the depth)
// or depths (across it) are the positions of a filter, and whose taps are its cells. Rows may come in a few parts,
// each with its own patches: a gradient of an image that was read with a stride.
#pragma once

#include <algorithm>

#include "hopper.cuh"
#include "split_depth.cuh"

namespace cisdl::cuda {

constexpr int kHopperRows = 128;               // rows of C that a block makes
constexpr int kHopperStages = 4;               // steps of depth in shared memory
constexpr int kHopperDepth = kAtomNumbers;     // depth of a step
constexpr int kHopperColumns[2] = {128, 256};  // columns of C that a block makes

// Where the patches of an image lie: position (h, w) of the filter has its first cell at (lower + step * (h, w)).
struct HopperPatches {
  int32_t height, width;  // how many positions an image has
  int32_t lower_h, lower_w, step_h, step_w;
  int32_t cells_w;  // a row of the filter
  int32_t dilation_h, dilation_w;
  bool flipped;  // cells are counted from the last to the first
};

enum class HopperImage : int32_t { none, a, b };  // which operand is patches

// Rows of C with an A of their own. Its tap t meets the tap of B in row t / cells_w, column t % cells_w of a grid.
struct HopperPart {
  TensorMap a;
  HopperPatches patches;
  int64_t rows;
  int32_t depth_taps;                 // may be 0: C is zero
  int32_t b_tap, b_step_h, b_step_w;  // the first tap of B, and from row to row and column to column of the grid
  int64_t first_row;                  // in C, where there are several parts; and from position to position:
  int64_t image_rows, row_step_h, row_step_w;
};

constexpr int kHopperParts = 4;

struct HopperGemm {
  TensorMap b;
  HopperPart part[kHopperParts];
  int32_t parts;
  bool a_across, b_across;
  HopperImage image;
  int32_t tap_columns, column_taps;
  int32_t depth;         // of a tap
  void* output;          // [rows][column_taps * tap_columns]; tap_columns is even, output aligned to 4 bytes
  const void* bias;      // [columns], or null
  float least;           // no number of C becomes less
  int32_t slice_steps;   // 0: the whole depth; else float sums [slices][rows][columns] go to output; one part
  int64_t slice_stride;  // numbers from one slice's sums to the next

  __host__ __device__ int64_t columns() const { return int64_t{tap_columns} * column_taps; }
  // Atoms of 64 columns, and steps of depth, of a tap and of all.
  __host__ __device__ int32_t tap_atoms() const { return (tap_columns + kAtomNumbers - 1) / kAtomNumbers; }
  __host__ __device__ int32_t atoms() const { return tap_atoms() * column_taps; }
  __host__ __device__ int32_t tap_steps() const { return (depth + kHopperDepth - 1) / kHopperDepth; }
  __host__ __device__ int32_t steps(int i) const { return tap_steps() * part[i].depth_taps; }
  __host__ __device__ int64_t slices() const { return slice_steps == 0 ? 1 : divide_up(steps(0), slice_steps); }
  // Tiles of so many columns in a part, over all slices.
  __host__ __device__ int64_t tiles(int i, int width) const {
    return slices() * divide_up(part[i].rows, kHopperRows) * divide_up(atoms(), width / kAtomNumbers);
  }
  __host__ __device__ int64_t tiles(int width) const {
    int64_t count = 0;
    for (int i = 0; i < parts; ++i) count += tiles(i, width);
    return count;
  }
};

// C of one part, so many columns and a depth of so many taps; both operands along the depth and dense, nothing
// added.
inline HopperGemm hopper_gemm(int64_t rows, int64_t tap_columns, int64_t column_taps, int64_t depth,
                              int64_t depth_taps) {
  HopperGemm gemm{};
  gemm.parts = 1;
  gemm.part[0].rows = rows;
  gemm.part[0].depth_taps = static_cast<int32_t>(depth_taps);
  gemm.part[0].patches.cells_w = 1;
  gemm.tap_columns = static_cast<int32_t>(tap_columns);
  gemm.column_taps = static_cast<int32_t>(column_taps);
  gemm.depth = static_cast<int32_t>(depth);
  gemm.least = kNoLeast;
  return gemm;
}

// How a product is cut: the width of its tiles, and slices of the depth.
struct HopperPlan {
  int columns;
  int32_t slice_steps;  // 0: the whole depth
  int64_t scratch;      // bytes, for the slices' sums
};

// 256 columns a tile where such tiles fill the GPU and are nearly full: they need the fewest bytes an operation.
inline HopperPlan hopper_plan(const HopperGemm& gemm) {
  const int32_t atoms = gemm.atoms();
  const bool wide = (atoms % 4 == 0 || atoms > 8) && gemm.tiles(kHopperColumns[1]) >= multiprocessors();
  const int width = kHopperColumns[wide ? 1 : 0];
  if (gemm.parts > 1) return {width, 0, 0};
  const int64_t bytes = gemm.part[0].rows * gemm.columns() * static_cast<int64_t>(sizeof(float));
  const Slices slices = cut_depth(gemm.tiles(width), bytes, int64_t{gemm.steps(0)} * kHopperDepth, kHopperDepth);
  if (slices.count == 1) return {width, 0, 0};
  return {width, static_cast<int32_t>(slices.depth / kHopperDepth), slices.count * bytes};
}

// Whether the copy engine takes rows of `dense` numbers: aligned, in whole chunks of 16 bytes.
template <class T>
bool copy_engine_takes(const T* data, int64_t dense) {
  return reinterpret_cast<uintptr_t>(data) % 16 == 0 && dense % (16 / static_cast<int64_t>(sizeof(T))) == 0;
}

// Whether neighbours of C can be stored together.
template <class T>
bool stores_pairs(const T* output, int64_t tap_columns) {
  return reinterpret_cast<uintptr_t>(output) % (2 * sizeof(T)) == 0 && tap_columns % 2 == 0;
}

// Coordinates are numbers of 32 bits, those of a tile beyond the last included.
inline bool hopper_size(int64_t size) { return size > 0 && size < (int64_t{1} << 31) - 1024; }

// An operand along the depth, [lines][taps][depth], copied so many lines at a time.
template <class T>
bool along_map(TensorMap& map, const T* data, int64_t lines, int64_t taps, int64_t depth, int32_t box_lines) {
  return tiled_map(map, data, {depth, taps, lines}, {kHopperDepth, 1, box_lines});
}

// An operand across the depth, [depth][taps][lines].
template <class T>
bool across_map(TensorMap& map, const T* data, int64_t depth, int64_t taps, int64_t lines) {
  return tiled_map(map, data, {lines, taps, depth}, {kAtomNumbers, 1, kHopperDepth});
}

// Starts the product; scratch: as many bytes as the plan says.
template <class T>
const char* launch_hopper_gemm(HopperGemm gemm, void* scratch, void* stream);

constexpr const char* kNoTensorMap = "cuTensorMapEncode refuses a tensor";

}  // namespace cisdl::cuda
