// One tiled matrix product under every product of this folder.
//
//   C[g][m][n] = sum_k A[g](m, k) B[g](k, n)        g < groups, m < rows, n < columns, k < depth
//
// A and B are functors: a plain matrix for linear, image patches computed on the fly for convolution (implicit
// GEMM: the unfolded matrix never exists), two matrices end to end for the LSTM. C goes to an epilogue functor,
// which adds a bias, finds the place in an image, or applies the LSTM's activations.
//
// Mapping: a block of 256 threads makes a 64 x 64 tile of C, 4 x 4 per thread in registers. It walks the depth in
// steps of 16: both 64 x 16 operand tiles lie in shared memory, depth first ([16][64]), so that a thread reads its
// 4 values of A and of B as one aligned fragment each and issues 16 FMAs for every 8 values read. While it
// computes one step, the next is on its way from global memory into registers. Rows of shared memory are padded by
// one fragment, which spreads a transposing store over the banks.
//
// Rounding: a sum longer than kMaxChain goes through several chains of accumulators, which are then added; the
// error of one chain grows with its length. The order is fixed, so results repeat exactly.
//
// Limits: C should have many tiles to fill a GPU. Where it has few and the depth is long (weight gradients),
// blocks can share a tile, each over a slice of the depth (split_depth.cuh). Tensor cores are not used: float32
// stays float32. mma_gemm.cuh does the same with them, for shorter types and longer tiles.
//
// An operand:
//   using Scalar;                          float or double
//   using Line; using Step;                what it needs to know about a row of A (column of B), and about a depth
//   static constexpr bool along_depth;     whether neighbours in depth (else: in rows or columns) are neighbours
//   in
//                                          memory; neighbouring threads load neighbours
//   Line line(int64_t group, int64_t index) const;      index < rows (columns)
//   Step step(int64_t depth) const;                     depth < Gemm::depth
//   const Scalar* at(const Line&, const Step&) const;   null: a zero
//   const Scalar* data() const;                         any address in it; only mma_gemm.cuh asks
// An epilogue:
//   static constexpr bool along_rows;      whether neighbours in rows (else: in columns) are neighbours in C's
//                                          memory
//   void store(int64_t group, int64_t row, int64_t column, int64_t columns, const Sum<Scalar> (&values)[n]) const;
//                                          values of columns column .. column + n - 1; those >= columns do not
//                                          exist; column is a multiple of n, which is 4 here
//   static constexpr int mma_values = 4;   may be left out. In mma_gemm.cuh n is 2; with it store gets 4 values,
//                                          the last two of columns column + 8 and column + 9
#pragma once

#include "launch.cuh"
#include "scalars.h"

namespace cisdl::cuda {

constexpr int kTile = 64;       // rows and columns of C that a block makes
constexpr int kTileDepth = 16;  // depth of one step
constexpr int kFragment = 4;    // rows and columns of C that a thread makes
constexpr int kFragments = kTile / kFragment;
constexpr int64_t kMaxChain = 512;  // the longest sum in one chain of accumulators
static_assert(kFragments * kFragments == kThreads && kMaxChain % kTileDepth == 0);

template <class A, class B, class Epilogue>
struct Gemm {
  using Scalar = typename A::Scalar;
  int64_t groups, rows, columns, depth;
  A a;
  B b;
  Epilogue epilogue;
  int64_t slice_depth = 0;  // 0: the whole; else the epilogue gets slice * groups + group for a group

  __host__ __device__ int64_t slices() const { return slice_depth == 0 ? 1 : divide_up(depth, slice_depth); }
  // Where a slice ends.
  __device__ int64_t slice_end(int64_t slice) const {
    const int64_t end = (slice + 1) * slice_depth;
    return slice_depth == 0 || end > depth ? depth : end;
  }
};

template <class T>
struct alignas(16) Fragment {
  T value[kFragment];
};

// One operand's tile in shared memory: [depth][line], in fragments of four lines.
template <class T>
struct OperandTile {
  Fragment<T> fragment[kTileDepth][kFragments + 1];

  __device__ T& at(int depth, int line) { return fragment[depth][line / kFragment].value[line % kFragment]; }
};

template <class T>
struct GemmTiles {
  OperandTile<T> a, b;
};

// This thread's share of loading one operand's tiles: four elements a step, through registers.
template <class Operand>
struct TileLoader {
  using Scalar = typename Operand::Scalar;
  static constexpr int kPerThread = kTile * kTileDepth / kThreads;
  // Neighbouring threads take neighbours in depth (and each thread several lines), or neighbouring lines.
  static constexpr int kLines = Operand::along_depth ? kPerThread : 1;
  static constexpr int kSteps = Operand::along_depth ? 1 : kPerThread;
  static constexpr int kLineStride = kThreads / kTileDepth;
  static constexpr int kStepStride = kThreads / kTile;

  int first_line, first_step;
  typename Operand::Line lines[kLines];
  Scalar values[kPerThread];

  // Lines beyond the end repeat the last one: their products are never stored.
  __device__ void start(const Operand& operand, int64_t group, int64_t tile_begin, int64_t size) {
    const int thread = threadIdx.x;
    first_line = Operand::along_depth ? thread / kTileDepth : thread % kTile;
    first_step = Operand::along_depth ? thread % kTileDepth : thread / kTile;
#pragma unroll
    for (int i = 0; i < kLines; ++i) {
      const int64_t index = tile_begin + first_line + i * kLineStride;
      lines[i] = operand.line(group, CISDL_INSIDE(index < size) ? index : size - 1);
    }
  }

  // Depths beyond the end are zero in both operands.
  __device__ void fetch(const Operand& operand, int64_t depth_begin, int64_t depth) {
#pragma unroll
    for (int s = 0; s < kSteps; ++s) {
      const int64_t k = depth_begin + first_step + s * kStepStride;
      if (CISDL_INSIDE(k < depth)) {
        const auto step = operand.step(k);
#pragma unroll
        for (int i = 0; i < kLines; ++i) {
          const Scalar* at = operand.at(lines[i], step);
          values[s * kLines + i] = at ? *at : Scalar(0);
        }
      } else {
#pragma unroll
        for (int i = 0; i < kLines; ++i) values[s * kLines + i] = Scalar(0);
      }
    }
  }

  __device__ void put(OperandTile<Scalar>& tile) const {
#pragma unroll
    for (int s = 0; s < kSteps; ++s)
#pragma unroll
      for (int i = 0; i < kLines; ++i)
        tile.at(first_step + s * kStepStride, first_line + i * kLineStride) = values[s * kLines + i];
  }
};

template <class T>
struct Accumulators {
  T value[kFragment][kFragment] = {};

  // Adds the outer product of a fragment of A's column and one of B's row.
  __device__ void add_product(const Fragment<T>& a, const Fragment<T>& b) {
#pragma unroll
    for (int i = 0; i < kFragment; ++i)
#pragma unroll
      for (int j = 0; j < kFragment; ++j) value[i][j] += a.value[i] * b.value[j];
  }

  __device__ void add(const Accumulators& other) {
#pragma unroll
    for (int i = 0; i < kFragment; ++i)
#pragma unroll
      for (int j = 0; j < kFragment; ++j) value[i][j] += other.value[i][j];
  }
};

// One 64 x 64 tile of C; all threads of a block call it together.
template <class G>
__device__ void gemm_tile(const G& gemm, int64_t slice, int64_t group, int64_t row_begin, int64_t column_begin,
                          GemmTiles<typename G::Scalar>& tiles) {
  using T = typename G::Scalar;
  const int thread = threadIdx.x;
  const int row_fragment = gemm.epilogue.along_rows ? thread % kFragments : thread / kFragments;
  const int column_fragment = gemm.epilogue.along_rows ? thread / kFragments : thread % kFragments;

  TileLoader<decltype(gemm.a)> a;
  TileLoader<decltype(gemm.b)> b;
  a.start(gemm.a, group, row_begin, gemm.rows);
  b.start(gemm.b, group, column_begin, gemm.columns);
  const int64_t begin = slice * gemm.slice_depth, end = gemm.slice_end(slice);
  a.fetch(gemm.a, begin, end);
  b.fetch(gemm.b, begin, end);

  Accumulators<T> total;
  for (int64_t chain = begin; chain < end; chain += kMaxChain) {
    const int64_t chain_end = chain + kMaxChain < end ? chain + kMaxChain : end;
    Accumulators<T> sum;
    for (int64_t k = chain; k < chain_end; k += kTileDepth) {
      __syncthreads();  // no thread reads the last step's tiles any more
      a.put(tiles.a);
      b.put(tiles.b);
      __syncthreads();  // the tiles are complete
      if (k + kTileDepth < end) {
        a.fetch(gemm.a, k + kTileDepth, end);
        b.fetch(gemm.b, k + kTileDepth, end);
      }
#pragma unroll
      for (int d = 0; d < kTileDepth; ++d)
        sum.add_product(tiles.a.fragment[d][row_fragment], tiles.b.fragment[d][column_fragment]);
    }
    total.add(sum);
  }

  const int64_t column = column_begin + column_fragment * kFragment;
  if (column >= gemm.columns) return;  // saves time; store looks at every column
#pragma unroll
  for (int i = 0; i < kFragment; ++i) {
    const int64_t row = row_begin + row_fragment * kFragment + i;
    if (CISDL_INSIDE(row < gemm.rows))
      gemm.epilogue.store(slice * gemm.groups + group, row, column, gemm.columns, total.value[i]);
  }
}

// At least so many blocks shall fit on a multiprocessor: 128 registers a thread for float, whatever it takes for
// double.
template <class T>
constexpr int kMinBlocks = sizeof(T) == 4 ? 2 : 1;

template <class G>
__global__ void __launch_bounds__(kThreads, kMinBlocks<typename G::Scalar>)
    gemm_kernel(const __grid_constant__ G gemm) {
  CISDL_SHARED(GemmTiles<typename G::Scalar>, tiles);
  const int64_t row_tiles = divide_up(gemm.rows, kTile);
  const int64_t column_tiles = divide_up(gemm.columns, kTile);
  const int64_t count = gemm.slices() * gemm.groups * row_tiles * column_tiles;
  for (int64_t index = blockIdx.x; index < count; index += gridDim.x) {
    int64_t column_tile = index;
    int64_t row_tile = divide_off(column_tile, column_tiles);
    int64_t group = divide_off(row_tile, row_tiles);
    const int64_t slice = divide_off(group, gemm.groups);
    gemm_tile(gemm, slice, group, row_tile * kTile, column_tile * kTile, tiles);
  }
}

template <class G>
const char* launch_gemm(const G& gemm, void* stream) {
  const int64_t count = gemm.slices() * gemm.groups * divide_up(gemm.rows, kTile) * divide_up(gemm.columns, kTile);
  return launch(gemm_kernel<G>, count, stream, gemm);
}

constexpr auto kLaunchGemm = [](const auto& gemm, void* stream) { return launch_gemm(gemm, stream); };

// A dense matrix: its element (line, depth) lies at data[line * size + depth], or, transposed, at
// data[depth * size + line].
template <class T, bool depth_is_dense>
struct MatrixOperand {
  using Scalar = T;
  using Line = const T*;
  using Step = int64_t;
  static constexpr bool along_depth = depth_is_dense;

  const T* matrix;
  int64_t size;              // of the dense dimension
  int64_t group_stride = 0;  // elements from one group's matrix to the next

  __device__ Line line(int64_t group, int64_t index) const {
    return matrix + group * group_stride + (along_depth ? index * size : index);
  }
  __device__ Step step(int64_t depth) const { return along_depth ? depth : depth * size; }
  __device__ const T* at(Line line, Step step) const { return line + step; }
  __device__ const T* data() const { return matrix; }
};

// values[0 .. n) to out[0 .. exist); together, in one instruction, where they are aligned and all exist.
template <class T, int n>
__device__ void store_values(T* out, int64_t exist, const Sum<T> (&values)[n]) {
  struct alignas(n * sizeof(T) <= 16 ? n * sizeof(T) : 16) Together {
    T value[n];
  };
  if (CISDL_INSIDE(exist >= n) && reinterpret_cast<uintptr_t>(out) % alignof(Together) == 0) {
    Together together;
#pragma unroll
    for (int j = 0; j < n; ++j) together.value[j] = T(values[j]);
    *reinterpret_cast<Together*>(out) = together;
  } else {
#pragma unroll
    for (int j = 0; j < n; ++j)
      if (CISDL_INSIDE(j < exist)) out[j] = T(values[j]);
  }
}

// C as a dense row-major matrix [groups * rows][columns], plus a bias for every column.
template <class T>
struct MatrixEpilogue {
  static constexpr bool along_rows = false;

  T* output;
  const T* bias;             // [columns], or null
  int64_t group_stride = 0;  // elements of C from one group to the next

  template <int n>
  __device__ void store(int64_t group, int64_t row, int64_t column, int64_t columns,
                        const Sum<T> (&values)[n]) const {
    Sum<T> results[n];
#pragma unroll
    for (int j = 0; j < n; ++j)
      results[j] = bias && CISDL_INSIDE(column + j < columns) ? values[j] + Sum<T>(bias[column + j]) : values[j];
    store_values(output + group * group_stride + row * columns + column, columns - column, results);
  }
};

}  // namespace cisdl::cuda
