// All steps of a recurrent layer in one kernel, forward or backward, W_hh in registers from the first to the last.
//
// A layer step by step reads W_hh once a step and launches two kernels; with few rows it does little else. Here a
// block keeps the slice of W_hh that belongs to 8 hidden units (all gates), as fragments of mma.sync, and the grid
// has a block for every 8 units. What goes through memory at a step is the state alone: forward, h_t of every unit
// to every block; backward, da_t = the gradient of the pre-activations of every gate and unit.
//
// Mapping. Sequences do not touch each other, so the batch is cut into tiles of 16 rows (an mma's lines), and
// tiles are dealt out to `groups` of hidden_size / 8 blocks each: a group goes its own way, and a small hidden
// size with a large batch still fills the device. A turn is a step of one tile:
//   1. The 8 warps split the depth (forward: units; backward: units of each gate) in pieces of 64 bytes. A lane
//   reads
//      16 bytes a piece of each of its two rows, as they lie in memory, and looks until all numbers in them are
//      there (published.cuh). Which depth stands where in a fragment is free as long as both operands agree: 16
//      bytes are two mma's worth of depth, of A and of W alike. No shared memory, no barrier before the product.
//   2. mma.sync with 8 columns: of each gate the block's units (forward), or the units (backward, all gates added
//   up).
//   3. The warps' sums meet in shared memory, one barrier a turn (the buffers alternate). Half of the threads, one
//   for
//      each row and unit of the tile, apply the cell; c, or the gradients that run on, stay in shared memory in
//      float.
//   4. They publish their numbers: forward into the output itself, backward into da, which the gradients of
//      the weights need anyhow.
// Nothing is reset between steps, as every step has memory of its own; before the launch it is filled with ones.
//
// Packed sequences: rows(t) and where they begin follow from the lengths, which travel with the arguments. A row
// that begins reads hx (backward: grad_h_n) in place of what would be published.
//
// float32 takes the same path. Where torch allows TF32 to cuDNN, an mma of rounded factors is all; else each
// number is split into two of TF32 and three products of them stand for one, 22 bits of mantissa for float's 24,
// below what adding up hundreds of products in float loses.
//
// When it wins: many steps of few rows. A step then costs the time in which a number goes from one multiprocessor
// through L2 to the others, not that of reading W_hh nor of a launch. Limits: hidden_size a multiple of 8, at most
// 1024 (float32: 768), for registers; all blocks on the device at once, so hidden_size / 8 at most the
// multiprocessors times the blocks one holds; 128 rows a group. Everything else, float64 too, goes step by step.
//
// Floor of a step: 2 rows gates hidden_size^2 operations; every block reads rows x hidden_size numbers (backward
// times gates) from L2.
#pragma once

#include "recurrence_pieces.cuh"
#include "recurrent_cells.cuh"

namespace cisdl::cuda {

// Sums of the warps for `columns` tiles of 16 x 8, of two turns; the states of this group's rows.
template <int columns, int states>
struct TurnMemory {
  float sums[2][kWarps][columns][kPlaces];
  float state[kMaxTiles][states][kPlaces];
};

// This warp's sums, as the registers of an mma lie, and behind the barrier those of all warps at this thread's
// place.
template <int columns, int states>
__device__ void add_warps(TurnMemory<columns, states>& memory, int turn, const Place& place,
                          const float (&sum)[columns][4], float (&total)[columns]) {
  auto& sums = memory.sums[turn % 2];
#pragma unroll
  for (int n = 0; n < columns; ++n)
#pragma unroll
    for (int i = 0; i < 4; ++i) sums[place.warp][n][place.lane * 4 + i] = sum[n][i];
  __syncthreads();
  if (!place.has_cell) return;
#pragma unroll
  for (int n = 0; n < columns; ++n) {
    total[n] = 0;
#pragma unroll
    for (int warp = 0; warp < kWarps; ++warp) total[n] += sums[warp][n][threadIdx.x];
  }
}

template <class Cell, int pieces>
__global__ void __launch_bounds__(kThreads)
    recurrence_forward_kernel(const __grid_constant__ RecurrenceForward<typename Cell::Scalar> f) {
#ifndef CISDL_NO_TENSOR_CORES
  using T = typename Cell::Scalar;
  constexpr int kGates = Cell::kGates, kStates = Cell::kStates;
  using Memory = TurnMemory<kGates, kStates>;
  CISDL_SHARED(Memory, memory);
  const Sequences& s = f.s;
  const int64_t hidden = s.hidden_size;
  const Place place(s);

  Chunk w[kGates][pieces];
  float bias[kGates];
#pragma unroll
  for (int gate = 0; gate < kGates; ++gate) {
    const Line<T> line{f.w_hh + (gate * hidden + place.first_unit + place.lane / 4) * hidden};
#pragma unroll
    for (int piece = 0; piece < pieces; ++piece) w[gate][piece] = line.load(0, place.depth<T>(piece), hidden);
    bias[gate] = place.has_cell && f.b_hh ? static_cast<float>(f.b_hh[gate * hidden + place.unit]) : 0.0f;
  }
  // Calls body(row of the batch, its states) for this thread's place in each tile.
  const auto for_each_state = [&](const auto& body) {
    for (int tile = place.first_tile, slot = 0; int64_t{tile} * kTileRows < s.batch;
         tile += place.groups, ++slot) {
      const int64_t row = int64_t{tile} * kTileRows + place.row;
      if (place.has_cell && CISDL_INSIDE(row < s.batch)) body(row * hidden + place.unit, memory.state[slot]);
    }
  };
  for_each_state([&](int64_t at, float (&state)[kStates][kPlaces]) {
    state[0][threadIdx.x] = f.hx[at];
    if constexpr (kStates == 2) state[1][threadIdx.x] = f.cx[at];
  });

  int turn = 0;
  Walk walk(s, !s.reverse);
  Rows before;
  for (int64_t step = 0; step < s.steps; ++step, walk.move()) {
    const Rows now = walk.rows();
    for (int tile = place.first_tile, slot = 0; int64_t{tile} * kTileRows < now.count;
         tile += place.groups, ++slot, ++turn) {
      const int64_t first_row = int64_t{tile} * kTileRows, row = first_row + place.row;
      const bool active = place.has_cell && CISDL_INSIDE(row < now.count);
      const int64_t at = now.begin + row;
      float x[kGates] = {};
      if (active) {
#pragma unroll
        for (int gate = 0; gate < kGates; ++gate) x[gate] = f.x_part[(at * kGates + gate) * hidden + place.unit];
      }

      Line<T> lines[2];
#pragma unroll
      for (int l = 0; l < 2; ++l) {
        const int64_t line = first_row + place.lane / 4 + l * 8;
        if (CISDL_INSIDE(line < now.count)) {
          lines[l].awaited = line < before.count;
          lines[l].data = lines[l].awaited ? f.output + (before.begin + line) * hidden : f.hx + line * hidden;
        }
      }
      Chunk h[pieces][2];
      read_lines<1, pieces>(h, lines, place, hidden);
      float sum[kGates][4] = {};
#pragma unroll
      for (int piece = 0; piece < pieces; ++piece)
#pragma unroll
        for (int gate = 0; gate < kGates; ++gate) multiply_piece<T>(sum[gate], h[piece], w[gate][piece], f.tf32);

      float total[kGates] = {};
      add_warps(memory, turn, place, sum, total);
      if (!active) continue;
      float state[kStates];
#pragma unroll
      for (int i = 0; i < kStates; ++i) state[i] = memory.state[slot][i][threadIdx.x];
#pragma unroll
      for (int gate = 0; gate < kGates; ++gate) total[gate] += bias[gate];
      float kept[Cell::kKept];
      const T result = Cell::forward(f, x, total, state, kept);
      publish(f.output + at * hidden + place.unit, result);  // the others wait for it: everything else is later
      state[0] = result;
#pragma unroll
      for (int i = 0; i < kStates; ++i) memory.state[slot][i][threadIdx.x] = state[i];
      if constexpr (Cell::kKept > kGates) {
        if (!f.gates) continue;
#pragma unroll
        for (int gate = 0; gate < kGates; ++gate) f.gates[(at * kGates + gate) * hidden + place.unit] = kept[gate];
        f.kept[at * hidden + place.unit] = kept[kGates];
      }
    }
    before = now;
  }
  for_each_state([&](int64_t at, float (&state)[kStates][kPlaces]) {
    f.h_n[at] = state[0][threadIdx.x];
    if constexpr (kStates == 2) f.c_n[at] = state[1][threadIdx.x];
  });
#endif
}

// Steps in the opposite order, and behind the first one a turn that has nothing but the gradient of hx.
template <class Cell, int pieces>
__global__ void __launch_bounds__(kThreads)
    recurrence_backward_kernel(const __grid_constant__ RecurrenceBackward<typename Cell::Scalar> b) {
#ifndef CISDL_NO_TENSOR_CORES
  using T = typename Cell::Scalar;
  constexpr int kGates = Cell::kGates, kStates = Cell::kStates, kKept = Cell::kKept;
  constexpr int kTogether = gates_together<T>(kGates, pieces);
  using Memory = TurnMemory<1, kStates>;
  CISDL_SHARED(Memory, memory);
  const Sequences& s = b.s;
  const int64_t hidden = s.hidden_size;
  const Place place(s);

  // Column lane / 4 of W_hh's, so numbers far apart: once a launch.
  Chunk w[kGates][pieces];
#pragma unroll
  for (int gate = 0; gate < kGates; ++gate) {
#pragma unroll
    for (int piece = 0; piece < pieces; ++piece) {
      T numbers[kLaneDepth<T>] = {};
      const int64_t depth = place.depth<T>(piece);
      if (CISDL_INSIDE(depth < hidden)) {
#pragma unroll
        for (int i = 0; i < kLaneDepth<T>; ++i)
          numbers[i] = b.w_hh[(gate * hidden + depth + i) * hidden + place.first_unit + place.lane / 4];
      }
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        if constexpr (sizeof(T) == 2) {
          w[gate][piece].word[i] = uint32_t{numbers[2 * i + 1].bits} << 16 | numbers[2 * i].bits;
        } else {
          w[gate][piece].word[i] = bits_of(numbers[i]);
        }
      }
    }
  }
  // The gradients that run on from step to step, besides da W_hh.
  const auto for_each_state = [&](const auto& body) {
    for (int tile = place.first_tile, slot = 0; int64_t{tile} * kTileRows < s.batch;
         tile += place.groups, ++slot) {
      const int64_t row = int64_t{tile} * kTileRows + place.row;
      if (place.has_cell && CISDL_INSIDE(row < s.batch)) body(row * hidden + place.unit, memory.state[slot]);
    }
  };
  for_each_state([&](int64_t at, float (&state)[kStates][kPlaces]) {
    state[0][threadIdx.x] = b.grad_h_n ? static_cast<float>(b.grad_h_n[at]) : 0.0f;
    if constexpr (kStates == 2) state[1][threadIdx.x] = b.grad_c_n ? static_cast<float>(b.grad_c_n[at]) : 0.0f;
  });

  int turn = 0;
  Walk walk(s, s.reverse);
  Rows after, now = walk.rows();
  const int64_t last = b.grad_hx ? s.steps : s.steps - 1;
  for (int64_t step = 0; step <= last; ++step) {
    walk.move();
    const Rows earlier = walk.rows();
    const int64_t most = now.count > after.count ? now.count : after.count;
    for (int tile = place.first_tile, slot = 0; int64_t{tile} * kTileRows < most;
         tile += place.groups, ++slot, ++turn) {
      const int64_t first_row = int64_t{tile} * kTileRows, row = first_row + place.row;
      const bool active = place.has_cell && CISDL_INSIDE(row < now.count);
      const int64_t at = now.begin + row, unit = place.unit;
      float kept[kKept] = {}, grad = 0, h_before = 0;
      if (active) {
        if constexpr (Cell::kCell == RecurrentCell::rnn) {
          kept[0] = b.output[at * hidden + unit];
        } else {
#pragma unroll
          for (int gate = 0; gate < kGates; ++gate) kept[gate] = b.gates[(at * kGates + gate) * hidden + unit];
          kept[kGates] = b.kept[at * hidden + unit];
        }
        if (b.grad_output) grad = b.grad_output[at * hidden + unit];
        h_before =
            row < earlier.count ? b.output[(earlier.begin + row) * hidden + unit] : b.hx[row * hidden + unit];
      }

      Line<T> lines[2];
#pragma unroll
      for (int l = 0; l < 2; ++l) {
        const int64_t line = first_row + place.lane / 4 + l * 8;
        if (CISDL_INSIDE(line < after.count)) {
          lines[l].awaited = true;
          lines[l].data = b.grad_h_part + (after.begin + line) * kGates * hidden;
        }
      }
      float sum[kTogether][4] = {};
#pragma unroll
      for (int gate = 0; gate < kGates; gate += kTogether) {
        Chunk da[kTogether * pieces][2];
        read_lines<kTogether, pieces>(da, lines, place, hidden);
#pragma unroll
        for (int i = 0; i < kTogether * pieces; ++i)
          multiply_piece<T>(sum[i / pieces], da[i], w[gate + i / pieces][i % pieces], b.tf32);
#pragma unroll
        for (int l = 0; l < 2; ++l)
          if (lines[l].data) lines[l].data += kTogether * hidden;
      }
      float all[1][4] = {}, total[1] = {};
#pragma unroll
      for (int n = 0; n < kTogether; ++n)
#pragma unroll
        for (int i = 0; i < 4; ++i) all[0][i] += sum[n][i];
      add_warps(memory, turn, place, all, total);

      if (!place.has_cell || !CISDL_INSIDE(row < most)) continue;
      float state[kStates];
#pragma unroll
      for (int i = 0; i < kStates; ++i) state[i] = memory.state[slot][i][threadIdx.x];
      const float dh = state[0] + total[0];
      if (!active) {  // the step after was this row's first
        if (b.grad_hx) b.grad_hx[row * hidden + unit] = dh;
        continue;
      }
      float da[kGates], dx_n = 0;
      Cell::backward(b, kept, h_before, dh + grad, state, da, dx_n);
#pragma unroll
      for (int gate = 0; gate < kGates; ++gate)
        publish(b.grad_h_part + (at * kGates + gate) * hidden + unit, T(da[gate]));
      if constexpr (Cell::kCell == RecurrentCell::gru) {
        b.grad_x_part[at * kGates * hidden + unit] = da[0];
        b.grad_x_part[(at * kGates + 1) * hidden + unit] = da[1];
        b.grad_x_part[(at * kGates + 2) * hidden + unit] = dx_n;
      }
      if (b.h_before) b.h_before[at * hidden + unit] = h_before;
#pragma unroll
      for (int i = 0; i < kStates; ++i) memory.state[slot][i][threadIdx.x] = state[i];
    }
    after = now;
    now = earlier;
  }
  if constexpr (kStates == 2) {
    for_each_state([&](int64_t at, float (&state)[kStates][kPlaces]) {
      if (b.grad_cx) b.grad_cx[at] = state[1][threadIdx.x];
    });
  }
#endif
}

}  // namespace cisdl::cuda
