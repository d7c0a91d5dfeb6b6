// Matrix products on Hopper's tensor cores (compute capability 9.0, compiled for sm_90a): what mma_gemm.cuh does
// with mma.sync and cp.async, with wgmma and the copy engine. hopper_gemm.h says what is multiplied; numbers have
// 16 bits, sums are float.
//
// Mapping: a block makes a tile of C of 128 rows and 128 or 256 columns. Its first eight warps are two warpgroups
// of 64 rows each, in registers (64 or 128 floats a thread). A single thread of the ninth warp has the copy engine
// bring the operands, 64 numbers of depth a step, into a ring of four stages of shared memory; no other thread
// computes an address. Blocks are as many as multiprocessors, each walks over tiles, and the next tile's copies
// are under way while a tile is stored.
//
// The ring has two barriers a stage. `full` ends a phase when the announced bytes have arrived; then both
// warpgroups multiply out of the stage (four wgmma). `empty` ends a phase when all eight warps have arrived: each
// does when its products of that stage are complete, which it waits for one step later, so that the tensor cores
// always have the next step's products behind those under way.
//
// Tiles are walked down bands of eight row tiles, so that blocks which run together share rows and columns in L2.
//
// When it wins: a wgmma of 64 x 256 x 16 reads 10 KB of shared memory for 262,144 multiply-adds, where a warp of
// mma_gemm.cuh reads 3 KB for 32,768 and spends instructions on it. Products of few tiles are cut along the depth
// (split_depth.cuh), their slices added in order. It wants depth: a tap with few channels fills a step with zeros
// (conv2d_hopper.cu leaves those to mma.sync).
//
// Limits: no TF32, whose operands wgmma reads along the depth only. A thread stores two neighbours of C at a time.
// No clusters: blocks do not share copies. It has never run on a GPU, so nothing here is tuned.
#include "hopper_gemm.h"

#include "kernels.h"

namespace cisdl::cuda {
namespace {

constexpr int kConsumers = 2 * kWarpgroup;       // threads that multiply and store
constexpr int kHopperThreads = kConsumers + 32;  // and the warp of the one that copies
constexpr int kAtomSide = kAtomNumbers * 128;    // bytes of 64 rows of a stage
constexpr int kBand = 8;                         // row tiles

template <int columns>
struct HopperShared {
  struct Stage {
    unsigned char a[kHopperRows * 128], b[columns * 128];
  } stage[kHopperStages];
  Barrier full[kHopperStages], empty[kHopperStages];

  static constexpr int kBytes = kHopperStages * (kHopperRows + columns) * 128 + 2 * kHopperStages * 8;
};

// The beginning of dynamic shared memory is aligned to 16 bytes, atoms are to 1024.
template <int columns>
__device__ HopperShared<columns>& hopper_shared() {
  static_assert(sizeof(HopperShared<columns>) == HopperShared<columns>::kBytes);
  unsigned char* begin = dynamic_shared();
  const uint32_t over = shared_place(begin) % kAtomBytes;
  return *reinterpret_cast<HopperShared<columns>*>(begin + (over == 0 ? 0 : kAtomBytes - over));
}

// Which stage is next, and the parity of the phase in which it is used.
struct RingPlace {
  uint32_t stage = 0, parity = 0;

  __device__ void next() {
    if (++stage < kHopperStages) return;
    stage = 0;
    parity ^= 1;
  }
};

struct alignas(8) FloatPair {
  float low, high;
};

// A tile of C and a slice of the depth.
struct HopperTile {
  int32_t part, slice;
  int32_t row, atom;   // the first
  int32_t begin, end;  // steps
};

template <int columns>
__device__ HopperTile tile_at(const HopperGemm& gemm, int64_t index) {
  HopperTile tile;
  tile.part = 0;
  int64_t in_slice = index;
  for (; tile.part + 1 < gemm.parts && in_slice >= gemm.tiles(tile.part, columns); ++tile.part)
    in_slice -= gemm.tiles(tile.part, columns);
  const int64_t row_tiles = divide_up(gemm.part[tile.part].rows, kHopperRows);
  const int64_t column_tiles = divide_up(gemm.atoms(), columns / kAtomNumbers);
  tile.slice = static_cast<int32_t>(divide_off(in_slice, row_tiles * column_tiles));
  int64_t in_band = in_slice;
  const int64_t band = divide_off(in_band, kBand * column_tiles);
  const int64_t left = row_tiles - band * kBand;
  int64_t row_tile = in_band;
  const int64_t column_tile = divide_off(row_tile, left < kBand ? left : kBand);
  tile.row = static_cast<int32_t>((band * kBand + row_tile) * kHopperRows);
  tile.atom = static_cast<int32_t>(column_tile * (columns / kAtomNumbers));
  tile.begin = tile.slice * gemm.slice_steps;
  tile.end = gemm.steps(tile.part);
  if (gemm.slice_steps != 0 && tile.begin + gemm.slice_steps < tile.end) tile.end = tile.begin + gemm.slice_steps;
  return tile;
}

// ------------------------------------------------------------------------------------------------------ copying

// The first cell of the filter at a position, in which image.
struct PatchPlace {
  int32_t w, h, n;
};

__device__ PatchPlace patch_place(const HopperPatches& p, int64_t position) {
  int64_t w = position;
  int64_t h = divide_off(w, p.width);
  const int64_t n = divide_off(h, p.height);
  return {p.lower_w + static_cast<int32_t>(w) * p.step_w, p.lower_h + static_cast<int32_t>(h) * p.step_h,
          static_cast<int32_t>(n)};
}

// Copies 64 channels from `channel` on of the patches from a position on, under one of `cells` cells.
__device__ void copy_patch_rows(void* target, const TensorMap& map, const HopperPatches& p, Barrier* barrier,
                                int32_t channel, const PatchPlace& at, int32_t cell, int32_t cells) {
  const int32_t counted = p.flipped ? cells - 1 - cell : cell;
  copy_patches(target, map, barrier, channel, at.w, at.h, at.n,
               static_cast<uint16_t>(counted % p.cells_w * p.dilation_w),
               static_cast<uint16_t>(counted / p.cells_w * p.dilation_h));
}

// All that one thread has to do: every step of every tile of this block into the ring.
template <int columns>
__device__ void copy_tiles(const HopperGemm& gemm, HopperShared<columns>& shared) {
  constexpr int kAtoms = columns / kAtomNumbers;
  const int32_t tap_steps = gemm.tap_steps(), tap_atoms = gemm.tap_atoms();
  const int64_t count = gemm.tiles(columns);
  RingPlace ring;
  for (int64_t index = blockIdx.x; index < count; index += gridDim.x) {
    const HopperTile tile = tile_at<columns>(gemm, index);
    const HopperPart& part = gemm.part[tile.part];
    // Atoms of nothing but lines beyond the end are not copied: nobody stores what becomes of them.
    const int32_t a_atoms = gemm.a_across && part.rows - tile.row <= kAtomNumbers ? 1 : 2;
    const int32_t b_atoms = gemm.b_across && gemm.atoms() - tile.atom < kAtoms ? gemm.atoms() - tile.atom : kAtoms;
    PatchPlace place{};
    if (gemm.image == HopperImage::a) place = patch_place(part.patches, tile.row);
    int32_t tap = tile.begin / tap_steps;
    int32_t depth = tile.begin % tap_steps * kHopperDepth;
    for (int32_t step = tile.begin; step < tile.end; ++step) {
      auto& stage = shared.stage[ring.stage];
      Barrier* full = &shared.full[ring.stage];
      const int32_t b_tap =
          part.b_tap + tap / part.patches.cells_w * part.b_step_h + tap % part.patches.cells_w * part.b_step_w;
      wait_for_phase(&shared.empty[ring.stage], ring.parity ^ 1);
      arrive_expecting(full, (a_atoms + b_atoms) * kAtomSide);
      if (gemm.image == HopperImage::a) {
        copy_patch_rows(stage.a, part.a, part.patches, full, depth, place, tap, part.depth_taps);
      } else if (!gemm.a_across) {
        copy_box(stage.a, part.a, full, depth, tap, tile.row);
      } else {
        for (int32_t i = 0; i < a_atoms; ++i)
          copy_box(stage.a + i * kAtomSide, part.a, full, tile.row + i * kAtomNumbers, tap, depth);
      }
      if (!gemm.b_across) {
        copy_box(stage.b, gemm.b, full, depth, b_tap, tile.atom * kAtomNumbers);
      } else {
        if (gemm.image == HopperImage::b) place = patch_place(part.patches, depth);
        for (int32_t i = 0; i < b_atoms; ++i) {
          const int32_t cell = (tile.atom + i) / tap_atoms;
          const int32_t column = (tile.atom + i) % tap_atoms * kAtomNumbers;
          if (gemm.image == HopperImage::b) {
            copy_patch_rows(stage.b + i * kAtomSide, gemm.b, part.patches, full, column, place, cell,
                            gemm.column_taps);
          } else {
            copy_box(stage.b + i * kAtomSide, gemm.b, full, column, b_tap, depth);
          }
        }
      }
      ring.next();
      depth += kHopperDepth;
      if (depth >= tap_steps * kHopperDepth) {
        depth = 0;
        ++tap;
      }
    }
  }
}

// -------------------------------------------------------------------------------------- multiplying and storing

// For an operand across the depth, a group of 64 lines is a box of 64 rows.
template <bool across>
__device__ uint64_t tile_descriptor(const unsigned char* tile) {
  return matrix_descriptor(shared_place(tile), across ? kAtomSide : 16, kAtomBytes);
}

// How far 16 numbers of depth lie apart.
template <bool across>
constexpr int kProductStep = across ? kProductDepth * 128 : kProductDepth * 2;

// Which row of C a row of a part is.
__device__ int64_t row_of(const HopperGemm& gemm, const HopperPart& part, int64_t row) {
  if (gemm.parts == 1) return row;
  int64_t w = row;
  int64_t h = divide_off(w, part.patches.width);
  const int64_t n = divide_off(h, part.patches.height);
  return part.first_row + n * part.image_rows + h * part.row_step_h + w * part.row_step_w;
}

// Stores a row's columns of one atom, a pair of neighbours at a time, or as sums of a slice.
template <class T>
__device__ void store_atom(const HopperGemm& gemm, const HopperTile& tile, int64_t row, int32_t atom,
                           const float* values) {
  const int32_t in_tap = atom % gemm.tap_atoms() * kAtomNumbers;
  const int64_t first = int64_t{atom / gemm.tap_atoms()} * gemm.tap_columns + in_tap;
  const int32_t exist = gemm.tap_columns - in_tap;  // columns of the tap from `first` on
  const int64_t place = row * gemm.columns() + first;
  const T* bias = gemm.bias ? static_cast<const T*>(gemm.bias) + first : nullptr;
  float* sums = static_cast<float*>(gemm.output) + tile.slice * gemm.slice_stride + place;
  T* output = static_cast<T*>(gemm.output) + place;
#pragma unroll
  for (int j = 0; j < kAtomNumbers / 8; ++j) {
    const int32_t column = j * 8 + threadIdx.x % 4 * 2;
    if (!CISDL_INSIDE(column < exist)) continue;
    float low = values[j * 4], high = values[j * 4 + 1];
    if (gemm.slice_steps != 0) {
      *reinterpret_cast<FloatPair*>(sums + column) = {low, high};
      continue;
    }
    if (bias) {
      low += float(bias[column]);
      high += float(bias[column + 1]);
    }
    low = low < gemm.least ? gemm.least : low;
    high = high < gemm.least ? gemm.least : high;
    *reinterpret_cast<uint32_t*>(output + column) = packed<T>(low, high);
  }
}

template <class T, bool a_across, bool b_across, int columns>
__device__ void multiply_tiles(const HopperGemm& gemm, HopperShared<columns>& shared) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int first_row = threadIdx.x / kWarpgroup * kAtomNumbers;  // of this warpgroup
  const int64_t count = gemm.tiles(columns);
  RingPlace ring;
  for (int64_t index = blockIdx.x; index < count; index += gridDim.x) {
    const HopperTile tile = tile_at<columns>(gemm, index);
    float sum[columns / 2] = {};
    Barrier* last = nullptr;
    for (int32_t step = tile.begin; step < tile.end; ++step) {
      const auto& stage = shared.stage[ring.stage];
      const uint64_t a = tile_descriptor<a_across>(stage.a + first_row * 128);
      const uint64_t b = tile_descriptor<b_across>(stage.b);
      wait_for_phase(&shared.full[ring.stage], ring.parity);
      fence_products(sum);
#pragma unroll
      for (int k = 0; k < kHopperDepth / kProductDepth; ++k)
        multiply_async<T, a_across, b_across>(sum, a + descriptor_step(k * kProductStep<a_across>),
                                              b + descriptor_step(k * kProductStep<b_across>));
      end_product_group();
      wait_for_products<1>(sum);  // those of the step before are complete
      if (last && lane == 0) arrive(last);
      last = &shared.empty[ring.stage];
      ring.next();
    }
    wait_for_products<0>(sum);
    if (last && lane == 0) arrive(last);
    const HopperPart& part = gemm.part[tile.part];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int64_t row = tile.row + first_row + warp % 4 * 16 + lane / 4 + half * 8;
      if (!CISDL_INSIDE(row < part.rows)) continue;
      const int64_t output_row = row_of(gemm, part, row);
#pragma unroll
      for (int i = 0; i < columns / kAtomNumbers; ++i)
        if (CISDL_INSIDE(tile.atom + i < gemm.atoms()))
          store_atom<T>(gemm, tile, output_row, tile.atom + i, sum + i * (kAtomNumbers / 2) + half * 2);
    }
  }
}

template <class T, bool a_across, bool b_across, int columns>
__global__ void __launch_bounds__(kHopperThreads, 1) hopper_gemm_kernel(const __grid_constant__ HopperGemm gemm) {
#ifndef CISDL_NO_WGMMA
  HopperShared<columns>& shared = hopper_shared<columns>();
  if (threadIdx.x == kConsumers) {
    for (int stage = 0; stage < kHopperStages; ++stage) {
      make_barrier(&shared.full[stage], 1);
      make_barrier(&shared.empty[stage], kConsumers / 32);
    }
    show_to_copy_engine();
  }
  __syncthreads();  // the barriers are made
  if (threadIdx.x < kConsumers) {
    multiply_tiles<T, a_across, b_across, columns>(gemm, shared);
  } else if (threadIdx.x == kConsumers) {
    copy_tiles<columns>(gemm, shared);
  }
#endif
}

// C of a product whose depth was cut: the slices' sums, added in order.
template <class T>
__global__ void __launch_bounds__(kThreads)
    add_slices_kernel(const float* sums, int64_t slices, int64_t size, int64_t columns, const T* bias, float least,
                      T* output) {
  for_each_element(size, [&](int64_t i) {
    float sum = 0;
    for (int64_t s = 0; s < slices; ++s) sum += sums[s * size + i];
    if (bias) sum += float(bias[i % columns]);
    output[i] = T(sum < least ? least : sum);
  });
}

template <class T, bool a_across, bool b_across, int columns>
const char* launch_tiles(const HopperGemm& gemm, void* stream) {
  return launch_with_shared(hopper_gemm_kernel<T, a_across, b_across, columns>,
                            std::min(gemm.tiles(columns), multiprocessors()), kHopperThreads,
                            HopperShared<columns>::kBytes + kAtomBytes, stream, gemm);
}

template <class T, int columns>
const char* launch_oriented(const HopperGemm& gemm, void* stream) {
  if (gemm.a_across) return launch_tiles<T, true, true, columns>(gemm, stream);
  if (gemm.b_across) return launch_tiles<T, false, true, columns>(gemm, stream);
  return launch_tiles<T, false, false, columns>(gemm, stream);
}

}  // namespace

template <class T>
const char* launch_hopper_gemm(HopperGemm gemm, void* scratch, void* stream) {
  const HopperPlan plan = hopper_plan(gemm);
  const HopperGemm whole = gemm;
  const int64_t size = gemm.part[0].rows * gemm.columns();
  if (plan.slice_steps != 0) {
    gemm.output = scratch;
    gemm.bias = nullptr;
    gemm.least = kNoLeast;
    gemm.slice_steps = plan.slice_steps;
    gemm.slice_stride = size;
  }
  const char* error = plan.columns == kHopperColumns[0] ? launch_oriented<T, kHopperColumns[0]>(gemm, stream)
                                                        : launch_oriented<T, kHopperColumns[1]>(gemm, stream);
  if (error || plan.slice_steps == 0) return error;
  return launch_elements(add_slices_kernel<T>, size, stream, static_cast<const float*>(scratch), gemm.slices(),
                         size, gemm.columns(), static_cast<const T*>(whole.bias), whole.least,
                         static_cast<T*>(whole.output));
}

template const char* launch_hopper_gemm<BFloat16>(HopperGemm, void*, void*);
template const char* launch_hopper_gemm<Float16>(HopperGemm, void*, void*);

}  // namespace cisdl::cuda
