// The tiled matrix product of gemm.cuh on tensor cores: the same operands and epilogues, for bfloat16, float16
// and, as TF32, float. Products are exact (TF32: of rounded factors), sums are float.
//
// Mapping: a block of 8 warps makes a 128 x 128 (or 128 x 64) tile of C, a warp 64 x 32 (32 x 32) of it in
// registers, as 16 x 8 tiles of mma.sync. It walks the depth in steps of 64 bytes: 32 numbers of 16 bits or 16
// floats. The operands' tiles of three steps lie in shared memory; while a warp computes one, the next two are on
// their way from global memory by cp.async, 16 bytes a copy, and no register holds what is under way. One barrier
// a step: behind it every thread's copies for this step have arrived, and nobody reads the tiles of the step
// before, into which the next copies go.
//
// Shared memory holds an operand as global memory does, in rows of 16-byte chunks: for one that is dense along the
// depth a row is a line, 4 chunks of depth; for one that is dense along its lines a row is a depth, 128 (64)
// lines. ldmatrix takes fragments out of the first, and transposing out of the second; TF32 has no transposing
// ldmatrix and reads floats one by one. A chunk's place in its row is its number XOR some bits of the row's, so
// that the 8 rows of an ldmatrix (the 4 depths of a float fragment) lie in different banks.
//
// What it asks for: 16-byte chunks that are one piece, so a dense dimension that is a multiple of 16 bytes and
// aligned pointers (`aligned_chunks`), and compute capability 8.0. Everything else goes to gemm.cuh.
//
// Work and floor of a product of m x n x k numbers of s bytes: 2 m n k operations, (m k + k n + m n) s bytes; a
// block reads 128 + 128 numbers of shared memory's 16 KB for 128 x 128 products, 64 operations a byte of global
// memory at 16 bits, behind which the L2 cache has to stand.
#pragma once

#include "gemm.cuh"
#include "split_depth.cuh"
#include "tensor_cores.cuh"

namespace cisdl::cuda {

constexpr int kMmaRows = 128;     // rows of C that a block makes
constexpr int kMmaStages = 3;     // steps of depth in shared memory
constexpr int kStepChunks = 4;    // depth of a step, in chunks
constexpr int kWarpColumns = 32;  // columns of C that a warp makes

template <class T>
constexpr int kChunk = sizeof(Chunk) / sizeof(T);  // numbers in a chunk
template <class T>
constexpr int kMmaDepth = kStepChunks * kChunk<T>;  // depth of a step, in numbers

template <int columns>
struct MmaTiles {
  Chunk a[kMmaStages][kMmaRows * kStepChunks];
  Chunk b[kMmaStages][columns * kStepChunks];
};

// Where things lie in the tile of an operand of `lines` lines.
template <class Operand, int lines>
struct ChunkTile {
  using T = typename Operand::Scalar;
  static constexpr bool along_depth = Operand::along_depth;
  static constexpr int kRowChunks = along_depth ? kStepChunks : lines / kChunk<T>;

  // The place of chunk `chunk` of row `row`.
  static __device__ int place(int row, int chunk) {
    const int mixed = along_depth ? row >> 1 & 3 : sizeof(T) == 2 ? row & 7 : (row & 3) << 1;
    return row * kRowChunks + (chunk ^ mixed);
  }
  // The number at a line and a depth.
  static __device__ uint32_t word(const Chunk* tile, int line, int depth) {
    return tile[place(depth, line / kChunk<T>)].word[line % kChunk<T>];
  }
};

// This thread's share of copying one operand's tiles: 2 chunks a step of 128 lines, 1 of 64.
template <class Operand, int lines>
struct ChunkLoader {
  using Tile = ChunkTile<Operand, lines>;
  using T = typename Operand::Scalar;
  static constexpr int kPerThread = lines * kStepChunks / kThreads;
  static constexpr int kRowStride = kThreads / Tile::kRowChunks;
  static constexpr int kLines = Operand::along_depth ? kPerThread : 1;
  static constexpr int kSteps = Operand::along_depth ? 1 : kPerThread;

  int row, chunk;  // of the first
  typename Operand::Line line[kLines];

  // Lines beyond the end repeat the last one (or the last chunk of them): their products are never stored.
  __device__ void start(const Operand& operand, int64_t group, int64_t tile_begin, int64_t size) {
    row = threadIdx.x / Tile::kRowChunks;
    chunk = threadIdx.x % Tile::kRowChunks;
#pragma unroll
    for (int i = 0; i < kLines; ++i) {
      const int64_t index = tile_begin + (Operand::along_depth ? row + i * kRowStride : chunk * kChunk<T>);
      const int64_t last = size - (Operand::along_depth ? 1 : kChunk<T>);
      line[i] = operand.line(group, CISDL_INSIDE(index <= last) ? index : last);
    }
  }

  // Depths beyond the end are zero in both operands.
  __device__ void fetch(const Operand& operand, int64_t depth_begin, int64_t depth_end, Chunk* tile) const {
#pragma unroll
    for (int s = 0; s < kSteps; ++s) {
      const int64_t depth = depth_begin + (Operand::along_depth ? chunk * kChunk<T> : row + s * kRowStride);
      const T* from[kLines] = {};
      if (CISDL_INSIDE(depth < depth_end)) {
        const auto step = operand.step(depth);
#pragma unroll
        for (int i = 0; i < kLines; ++i) from[i] = operand.at(line[i], step);
      }
#pragma unroll
      for (int i = 0; i < kLines; ++i) {
        Chunk* to = tile + Tile::place(row + (s + i) * kRowStride, chunk);
        copy_async(to, from[i] ? from[i] : operand.data(), !from[i]);
      }
    }
  }
};

// Fragments of 16 lines from `line` on, for the 32 bytes of depth number `half` of a step: as A has them, or for
// two neighbouring tiles of B, whose registers come in the order [0] and [1] of the first, [0] and [1] of the
// second.
template <class Operand, int lines, bool is_a>
__device__ void load_fragments(uint32_t (&to)[4], const Chunk* tile, int line, int half) {
  using Tile = ChunkTile<Operand, lines>;
  using T = typename Operand::Scalar;
  const int lane = threadIdx.x % 32;
  // Of the four 8 x 8 matrices (of 16-bit numbers), A's second is the next lines, B's second the next depths.
  const int second = lane / 8 % 2, third = lane / 16;
  const int next_line = is_a ? second : third, next_depth = is_a ? third : second;
  if constexpr (Operand::along_depth) {
    load_matrices<false>(to, tile + Tile::place(line + lane % 8 + next_line * 8, half * 2 + next_depth));
  } else if constexpr (sizeof(T) == 2) {
    load_matrices<true>(to,
                        tile + Tile::place(half * 16 + lane % 8 + next_depth * 8, line / kChunk<T> + next_line));
  } else {
    const int g = lane / 4, t = lane % 4;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int lines_on = is_a ? i % 2 : i / 2, depths_on = is_a ? i / 2 : i % 2;
      to[i] = Tile::word(tile, line + g + lines_on * 8, half * 8 + t + depths_on * 4);
    }
  }
  if constexpr (sizeof(T) == 4) {
#pragma unroll
    for (int i = 0; i < 4; ++i) to[i] = to_tf32(to[i]);
  }
}

// How many values an epilogue gets at once: two neighbouring columns, or, if it says so, four, the others 8
// columns on.
template <class Epilogue>
constexpr int kMmaValues = 2;
template <class Epilogue>
  requires requires { Epilogue::mma_values; }
constexpr int kMmaValues<Epilogue> = Epilogue::mma_values;

// Which part of the work: numbers of 32 bits, as they live through a tile's computation in scarce registers.
struct MmaPlace {
  uint32_t slice, group, row_tile, column_tile;
};

// One tile of C over one slice of the depth; all threads of a block call it together.
template <int columns, class G>
__device__ void mma_tile(const G& gemm, const MmaPlace& at, MmaTiles<columns>& tiles) {
  using T = typename G::Scalar;
  using A = decltype(gemm.a);
  using B = decltype(gemm.b);
  constexpr int kAcross = columns / kWarpColumns;                   // warps side by side
  constexpr int kWarpRows = kMmaRows / (kThreads / 32 / kAcross);   // rows of C that a warp makes
  constexpr int kDown = kWarpRows / 16, kTiles = kWarpColumns / 8;  // mma tiles of a warp
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int warp_row = warp / kAcross * kWarpRows, warp_column = warp % kAcross * kWarpColumns;

  ChunkLoader<A, kMmaRows> a_loader;
  ChunkLoader<B, columns> b_loader;
  a_loader.start(gemm.a, at.group, int64_t{at.row_tile} * kMmaRows, gemm.rows);
  b_loader.start(gemm.b, at.group, int64_t{at.column_tile} * columns, gemm.columns);

  int64_t depth = at.slice * gemm.slice_depth;  // of the next copies
  const int64_t end = gemm.slice_end(at.slice);
  const auto steps = static_cast<uint32_t>(divide_up(end - depth, kMmaDepth<T>));
  const auto fetch = [&](int stage) {
    if (depth < end) {
      a_loader.fetch(gemm.a, depth, end, tiles.a[stage]);
      b_loader.fetch(gemm.b, depth, end, tiles.b[stage]);
      depth += kMmaDepth<T>;
    }
    end_copy_group();  // an empty group too, so that groups number the steps
  };
#pragma unroll
  for (int stage = 0; stage < kMmaStages - 1; ++stage) fetch(stage);

  float sum[kDown][kTiles][4] = {};
  int stage = 0;
  for (uint32_t step = 0; step < steps; ++step) {
    wait_for_copies<kMmaStages - 2>();
    __syncthreads();  // everyone's copies have arrived; nobody reads the tiles of the last step any more
    fetch(stage == 0 ? kMmaStages - 1 : stage - 1);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      uint32_t a[kDown][4], b[kTiles / 2][4];
#pragma unroll
      for (int i = 0; i < kDown; ++i)
        load_fragments<A, kMmaRows, true>(a[i], tiles.a[stage], warp_row + i * 16, half);
#pragma unroll
      for (int j = 0; j < kTiles / 2; ++j)
        load_fragments<B, columns, false>(b[j], tiles.b[stage], warp_column + j * 16, half);
#pragma unroll
      for (int i = 0; i < kDown; ++i)
#pragma unroll
        for (int j = 0; j < kTiles; ++j) {
          const uint32_t pair[2] = {b[j / 2][j % 2 * 2], b[j / 2][j % 2 * 2 + 1]};
          multiply_add<T>(sum[i][j], a[i], pair);
        }
    }
    stage = stage + 1 == kMmaStages ? 0 : stage + 1;
  }

  constexpr int kValues = kMmaValues<decltype(gemm.epilogue)>;
#pragma unroll
  for (int i = 0; i < kDown; ++i) {
#pragma unroll
    for (int lower = 0; lower < 2; ++lower) {
      const int64_t row = int64_t{at.row_tile} * kMmaRows + warp_row + i * 16 + lower * 8 + lane / 4;
      if (!CISDL_INSIDE(row < gemm.rows)) continue;
#pragma unroll
      for (int j = 0; j < kTiles; j += kValues / 2) {
        const int64_t column = int64_t{at.column_tile} * columns + warp_column + j * 8 + lane % 4 * 2;
        if (column >= gemm.columns) continue;  // saves time; store looks at every column
        float values[kValues];
#pragma unroll
        for (int n = 0; n < kValues; ++n) values[n] = sum[i][j + n / 2][lower * 2 + n % 2];
        gemm.epilogue.store(at.slice * gemm.groups + at.group, row, column, gemm.columns, values);
      }
    }
  }
}

template <class G, int columns>
__global__ void __launch_bounds__(kThreads, 2) mma_gemm_kernel(const __grid_constant__ G gemm) {
#ifndef CISDL_NO_TENSOR_CORES
  CISDL_SHARED(MmaTiles<columns>, tiles);
  const int64_t row_tiles = divide_up(gemm.rows, kMmaRows);
  const int64_t column_tiles = divide_up(gemm.columns, columns);
  const int64_t count = gemm.slices() * gemm.groups * row_tiles * column_tiles;
  for (int64_t index = blockIdx.x; index < count; index += gridDim.x) {
    int64_t column_tile = index;
    int64_t row_tile = divide_off(column_tile, column_tiles);
    int64_t group = divide_off(row_tile, row_tiles);
    const int64_t slice = divide_off(group, gemm.groups);
    const auto short_number = [](int64_t number) { return static_cast<uint32_t>(number); };
    const MmaPlace at = {short_number(slice), short_number(group), short_number(row_tile),
                         short_number(column_tile)};
    mma_tile<columns>(gemm, at, tiles);
    __syncthreads();  // the next tile's copies may overwrite these
  }
#endif
}

// 64 columns a tile where 128 would leave half of the last one empty, and where both operands are read float by
// float: addresses leave no registers for more.
template <class T, bool a_along_depth>
int mma_columns(int64_t columns) {
  return (sizeof(T) == 4 && !a_along_depth) || (columns - 1) % 128 < 64 ? 64 : 128;
}

// gemm.slice_depth is a multiple of kMmaDepth.
template <class A, class B, class Epilogue>
const char* launch_mma_gemm(const Gemm<A, B, Epilogue>& gemm, void* stream) {
  using G = Gemm<A, B, Epilogue>;
  using T = typename A::Scalar;
  const int columns = mma_columns<T, A::along_depth>(gemm.columns);
  const int64_t count =
      gemm.slices() * gemm.groups * divide_up(gemm.rows, kMmaRows) * divide_up(gemm.columns, columns);
  if constexpr (sizeof(T) == 2 || A::along_depth)
    if (columns == 128) return launch(mma_gemm_kernel<G, 128>, count, stream, gemm);
  return launch(mma_gemm_kernel<G, 64>, count, stream, gemm);
}

// For gradients of weights, whose operands are both dense along their lines.
template <class T>
Slices mma_slices(int64_t groups, int64_t rows, int64_t columns, int64_t depth) {
  const int64_t tiles = groups * divide_up(rows, kMmaRows) * divide_up(columns, mma_columns<T, false>(columns));
  return cut_depth(tiles, groups * rows * columns * static_cast<int64_t>(sizeof(float)), depth, kMmaDepth<T>);
}

constexpr auto kLaunchMma = [](const auto& gemm, void* stream) { return launch_mma_gemm(gemm, stream); };

// Whether what is copied in chunks can be: both sizes are those of dense dimensions.
template <class T>
bool aligned_chunks(const T* a, int64_t a_size, const T* b, int64_t b_size) {
  const auto aligned = [](const T* pointer) { return reinterpret_cast<uintptr_t>(pointer) % sizeof(Chunk) == 0; };
  return aligned(a) && aligned(b) && a_size % kChunk<T> == 0 && b_size % kChunk<T> == 0;
}

}  // namespace cisdl::cuda
