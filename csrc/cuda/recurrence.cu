// Launches of recurrences (recurrence.cuh): which kernel, and whether its blocks find room side by side.
#include "recurrence.cuh"

#include <initializer_list>

#include "kernels.h"

namespace cisdl::cuda {
namespace {

template <class T>
using Kernel = void (*)(T);

// A warp's pieces of the depth, for at most so many hidden units.
constexpr int kSizes[] = {256, 768, 1024};
template <class T>
constexpr int kPieces[] = {kSizes[0] / (kWarps * kPieceDepth<T>), kSizes[1] / (kWarps * kPieceDepth<T>),
                           kSizes[2] / (kWarps * kPieceDepth<T>)};

template <class T>
constexpr int64_t kMostUnits = sizeof(T) == 4 ? kSizes[1] : kSizes[2];

template <class Cell, class T>
Kernel<RecurrenceForward<T>> kernel_of(const RecurrenceForward<T>& args) {
  const int64_t hidden = args.s.hidden_size;
  if (hidden <= kSizes[0]) return recurrence_forward_kernel<Cell, kPieces<T>[0]>;
  if constexpr (kMostUnits<T> > kSizes[1])
    if (hidden > kSizes[1]) return recurrence_forward_kernel<Cell, kPieces<T>[2]>;
  return recurrence_forward_kernel<Cell, kPieces<T>[1]>;
}

template <class Cell, class T>
Kernel<RecurrenceBackward<T>> kernel_of(const RecurrenceBackward<T>& args) {
  const int64_t hidden = args.s.hidden_size;
  if (hidden <= kSizes[0]) return recurrence_backward_kernel<Cell, kPieces<T>[0]>;
  if constexpr (kMostUnits<T> > kSizes[1])
    if (hidden > kSizes[1]) return recurrence_backward_kernel<Cell, kPieces<T>[2]>;
  return recurrence_backward_kernel<Cell, kPieces<T>[1]>;
}

template <class T, class Args>
auto kernel_for(const Args& args) {
  switch (args.cell) {
    case RecurrentCell::lstm:
      return kernel_of<Lstm<T>>(args);
    case RecurrentCell::gru:
      return kernel_of<Gru<T>>(args);
    default:
      return kernel_of<Rnn<T>>(args);
  }
}

// How many groups of blocks share the tiles; 0: there is no room for one, or too many rows for them.
template <class T, class Args>
int64_t groups(const Args& args) {
  const int64_t tiles = divide_up(args.s.batch, kTileRows);
  const int64_t room = resident_blocks(kernel_for<T>(args)) / (args.s.hidden_size / kUnits);
  const int64_t count = tiles < room ? tiles : room;
  return count * kMaxTiles < tiles ? 0 : count;
}

bool aligned(std::initializer_list<const void*> pointers) {
  for (const void* pointer : pointers)
    if (reinterpret_cast<uintptr_t>(pointer) % sizeof(Chunk)) return false;
  return true;
}

template <class T, class Args>
bool has_room(const Args& args) {
  const Sequences& s = args.s;
  return s.hidden_size > 0 && s.hidden_size % kUnits == 0 && s.hidden_size <= kMostUnits<T> && s.batch > 0 &&
         (!s.packed || s.batch <= kMaxPackedSequences) && has_tensor_cores() && groups<T>(args) > 0;
}

template <class T, class Args>
const char* run_filled(const Args& args, T* published, int64_t features, void* stream) {
  const auto bytes = static_cast<int64_t>(args.s.rows * features * sizeof(T));
  if (const char* error = fill(published, kUnpublishedByte, bytes, stream)) return error;
  return launch_cooperative(kernel_for<T>(args), groups<T>(args) * (args.s.hidden_size / kUnits), stream, args);
}

}  // namespace

template <class T>
bool fits(const RecurrenceForward<T>& args) {
  return aligned({args.hx, args.w_hh, args.output}) && has_room<T>(args);
}

template <class T>
bool fits(const RecurrenceBackward<T>& args) {
  return aligned({args.grad_h_part}) && has_room<T>(args);
}

template <class T>
const char* run(const RecurrenceForward<T>& args, void* stream) {
  return run_filled(args, args.output, args.s.hidden_size, stream);
}

template <class T>
const char* run(const RecurrenceBackward<T>& args, void* stream) {
  return run_filled(args, args.grad_h_part, gates_of(args.cell) * args.s.hidden_size, stream);
}

#define CISDL_RECURRENCE(T)                                     \
  template bool fits(const RecurrenceForward<T>&);              \
  template bool fits(const RecurrenceBackward<T>&);             \
  template const char* run(const RecurrenceForward<T>&, void*); \
  template const char* run(const RecurrenceBackward<T>&, void*);

CISDL_RECURRENCE(float)
CISDL_RECURRENCE(BFloat16)
CISDL_RECURRENCE(Float16)

}  // namespace cisdl::cuda
