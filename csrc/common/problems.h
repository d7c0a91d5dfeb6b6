// The problems our kernels solve, as plain structs: sizes, then pointers, every tensor with its shape.
//
// A struct here is the whole interface between csrc/ops (which knows torch and has already checked everything)
// and a kernel on the CPU or the GPU (which knows pointers only). Tensors are dense and in the order written in
// brackets, the last dimension fastest, unless a `layout` member says otherwise. A pointer marked "or null" may
// be absent. Sizes are never negative; a kernel may be called with a size of zero and then writes what the
// formula says (an empty sum is zero). Inputs and outputs never overlap.
#pragma once

#include <cstdint>

namespace cisdl {

// How a 4-D image tensor lies in memory: [N, C, H, W], or [N, H, W, C] (torch's channels_last). A convolution
// weight [K, C/groups, R, S] follows: in `nhwc` it lies as [K, R, S, C/groups].
enum class Layout : int32_t { nchw, nhwc };

// ---------------------------------------------------------------------------------------------- linear
//   y = x W^T + b

struct LinearProblem {
  int64_t batch;  // rows of x: every leading dimension folded
  int64_t in_features;
  int64_t out_features;
};

template <class T>
struct LinearForward {
  LinearProblem p;
  const T* input;   // [batch, in_features]
  const T* weight;  // [out_features, in_features]
  const T* bias;    // [out_features], or null
  T* output;        // [batch, out_features]
};

// grad_input = grad_output W
template <class T>
struct LinearBackwardInput {
  LinearProblem p;
  const T* grad_output;  // [batch, out_features]
  const T* weight;       // [out_features, in_features]
  T* grad_input;         // [batch, in_features]
};

// grad_weight = grad_output^T x,  grad_bias = column sums of grad_output
template <class T>
struct LinearBackwardWeight {
  LinearProblem p;
  const T* grad_output;  // [batch, out_features]
  const T* input;        // [batch, in_features]; null if grad_weight is
  T* grad_weight;        // [out_features, in_features], or null
  T* grad_bias;          // [out_features], or null
};

// ---------------------------------------------------------------------------------------------- conv2d
//   y[n,k,p,q] = b[k] + sum_{c,r,s} x[n, g*C/G + c, p*stride_h - pad_top + r*dilation_h, ...] w[k,c,r,s]
//   (cross-correlation, as in torch); x is zero outside the image; g is the group that k belongs to.

struct Conv2dProblem {
  int64_t batch, in_channels, in_h, in_w;
  int64_t out_channels, kernel_h, kernel_w;
  int64_t out_h, out_w;
  int64_t stride_h, stride_w;
  int64_t pad_top, pad_left;  // the bottom and right padding follow from out_h and out_w
  int64_t dilation_h, dilation_w;
  int64_t groups;  // divides in_channels and out_channels
};

// Below every output: an epilogue that changes nothing.
constexpr float kNoLeast = -__builtin_huge_valf();

template <class T>
struct Conv2dForward {
  Conv2dProblem p;
  Layout layout;
  const T* input;      // [batch, in_channels, in_h, in_w]                 in `layout`
  const T* weight;     // [out_channels, in_channels/groups, kernel_h, kernel_w]  in `layout`
  const T* bias;       // [out_channels], or null
  T* output;           // [batch, out_channels, out_h, out_w]              in `layout`
  T least = kNoLeast;  // max(least, y) instead, a NaN stays: 0 for a ReLU
};

template <class T>
struct Conv2dBackwardInput {
  Conv2dProblem p;
  Layout layout;
  const T* grad_output;  // [batch, out_channels, out_h, out_w]         in `layout`
  const T* weight;       // as forward
  T* grad_input;         // [batch, in_channels, in_h, in_w]            in `layout`
};

template <class T>
struct Conv2dBackwardWeight {
  Conv2dProblem p;
  Layout layout;
  const T* grad_output;  // [batch, out_channels, out_h, out_w]         in `layout`
  const T* input;        // as forward; null if grad_weight is
  T* grad_weight;        // as weight, or null
  T* grad_bias;          // [out_channels], or null
};

// --------------------------------------------------------------------------------------------- pooling

struct Pool2dProblem {
  int64_t batch, channels, in_h, in_w;
  int64_t out_h, out_w;
  int64_t kernel_h, kernel_w;
  int64_t stride_h, stride_w;
  int64_t pad_h, pad_w;
  int64_t dilation_h, dilation_w;  // 1 for average pooling
};

// What max pooling remembers of the winner of each window.
//   window: its place in the window, r * kernel_w + s, in one byte: what training needs, 1/8 of the traffic;
//           only for kernels of at most 255 cells
//   flat:   its place in the plane, h * in_w + w, in int64: what torch returns
enum class PoolIndex : int32_t { none, window, flat };

// y = max over the window (padding never wins; of equal values the first; a NaN wins, of several the last,
// as in torch).
template <class T>
struct MaxPool2dForward {
  Pool2dProblem p;
  Layout layout;
  PoolIndex index;
  bool relu;       // max(0, y) instead; where that is 0 no gradient passes: the index names no cell (255, -1)
  const T* input;  // [batch, channels, in_h, in_w]    in `layout`
  T* output;       // [batch, channels, out_h, out_w]  in `layout`
  void* indices;   // same shape and layout as output: uint8_t or int64_t as `index` says; null for none
};

template <class T>
struct MaxPool2dBackward {
  Pool2dProblem p;
  Layout layout;
  PoolIndex index;       // window or flat
  const T* grad_output;  // [batch, channels, out_h, out_w]  in `layout`
  const void* indices;   // same shape and layout
  T* grad_input;         // [batch, channels, in_h, in_w]    in `layout`; written whole
};

// The adjoint of backward: each output is the input at the place that its index names (zero if it names none).
template <class T>
struct MaxPool2dGather {
  Pool2dProblem p;
  Layout layout;
  PoolIndex index;      // window or flat
  const T* input;       // [batch, channels, in_h, in_w]    in `layout`
  const void* indices;  // [batch, channels, out_h, out_w]  in `layout`
  T* output;            // same shape and layout as indices
};

// y = sum over the part of the window inside the image / divisor. The divisor is divisor_override if that is
// not 0; else, with count_include_pad, the number of cells of the window inside the padded image
// [-pad, in + pad); else the number of cells inside the image.
template <class T>
struct AvgPool2dForward {
  Pool2dProblem p;
  Layout layout;
  bool count_include_pad;
  int64_t divisor_override;  // 0: none
  const T* input;            // [batch, channels, in_h, in_w]    in `layout`
  T* output;                 // [batch, channels, out_h, out_w]  in `layout`
};

template <class T>
struct AvgPool2dBackward {
  Pool2dProblem p;
  Layout layout;
  bool count_include_pad;
  int64_t divisor_override;
  const T* grad_output;  // [batch, channels, out_h, out_w]  in `layout`
  T* grad_input;         // [batch, channels, in_h, in_w]    in `layout`; written whole
};

// Adaptive pooling: window i of `out` along `in` cells is [floor(i in / out), ceil((i + 1) in / out)), so windows
// may differ in size by one, and overlap. The windows that contain cell i are, by the same formula with the roles
// exchanged, [floor(i out / in), ceil((i + 1) out / in)). in_h and in_w are at least 1.
struct AdaptivePool2dProblem {
  int64_t batch, channels, in_h, in_w;
  int64_t out_h, out_w;
};

// y = mean over the window
template <class T>
struct AdaptiveAvgPool2dForward {
  AdaptivePool2dProblem p;
  Layout layout;
  const T* input;  // [batch, channels, in_h, in_w]    in `layout`
  T* output;       // [batch, channels, out_h, out_w]  in `layout`
};

template <class T>
struct AdaptiveAvgPool2dBackward {
  AdaptivePool2dProblem p;
  Layout layout;
  const T* grad_output;  // [batch, channels, out_h, out_w]  in `layout`
  T* grad_input;         // [batch, channels, in_h, in_w]    in `layout`; written whole
};

// y = max over the window, chosen as MaxPool2dForward does
template <class T>
struct AdaptiveMaxPool2dForward {
  AdaptivePool2dProblem p;
  Layout layout;
  const T* input;    // [batch, channels, in_h, in_w]    in `layout`
  T* output;         // [batch, channels, out_h, out_w]  in `layout`
  int64_t* indices;  // same shape and layout as output: places in the plane, h * in_w + w; or null
};

template <class T>
struct AdaptiveMaxPool2dBackward {
  AdaptivePool2dProblem p;
  Layout layout;
  const T* grad_output;    // [batch, channels, out_h, out_w]  in `layout`
  const int64_t* indices;  // same shape and layout
  T* grad_input;           // [batch, channels, in_h, in_w]    in `layout`; written whole
};

// ------------------------------------------------------------------------------------------- lstm cell
//   i, f, o = sigmoid(.), g = tanh(.) of the four H-wide parts, in torch's order i, f, g, o, of
//   a = x W_ih^T + b_ih + h W_hh^T + b_hh;     c' = f c + i g;     h' = o tanh(c')

struct LstmCellProblem {
  int64_t batch, input_size, hidden_size;
};

template <class T>
struct LstmCellForward {
  LstmCellProblem p;
  const T* input;  // [batch, input_size]
  const T* hx;     // [batch, hidden_size]
  const T* cx;     // [batch, hidden_size]
  const T* w_ih;   // [4*hidden_size, input_size]
  const T* w_hh;   // [4*hidden_size, hidden_size]
  const T* b_ih;   // [4*hidden_size], or null
  const T* b_hh;   // [4*hidden_size], or null
  T* h;            // [batch, hidden_size]
  T* c;            // [batch, hidden_size]
  T* gates;        // [batch, 4*hidden_size]: i, f, g, o after their activations; null in inference
};

// With da the gradient of a:  grad_input = da W_ih, grad_hx = da W_hh, grad_w_ih = da^T x, grad_w_hh = da^T hx,
// grad_b = column sums of da (the same for both biases). Any output may be null: not wanted.
template <class T>
struct LstmCellBackward {
  LstmCellProblem p;
  const T* grad_h;  // [batch, hidden_size], or null: zero
  const T* grad_c;  // [batch, hidden_size], or null: zero
  const T* input;   // as forward
  const T* hx;      // as forward
  const T* cx;      // as forward
  const T* w_ih;    // as forward
  const T* w_hh;    // as forward
  const T* c;       // [batch, hidden_size]: c' of forward
  const T* gates;   // [batch, 4*hidden_size] of forward
  T* grad_gates;    // [batch, 4*hidden_size]: da, scratch that the caller provides
  T* grad_input;    // [batch, input_size], or null
  T* grad_hx;       // [batch, hidden_size], or null
  T* grad_cx;       // [batch, hidden_size], or null
  T* grad_w_ih;     // [4*hidden_size, input_size], or null
  T* grad_w_hh;     // [4*hidden_size, hidden_size], or null
  T* grad_bias;     // [4*hidden_size], or null
};

// ------------------------------------------------------------------------------------- recurrent steps
// One step of a recurrent layer after its two products, the elementwise part. A cell is a layer of one step. The
// products are linear problems: `x_part` of all steps at once, `h_part` in every step. Where a member is read and
// written, each element is read before it is written, by the one thread that writes it.

struct RecurrentStep {
  int64_t rows;  // of the batch that take this step
  int64_t hidden_size;
};

// `sums` holds a pre-activation in parts, one a gate: of a row and a part it is at row * sums_row + part *
// sums_part. With h_part it is x_part = x W_ih^T + b_ih, and h_part is added; without, the sum of both.

// LSTM:  i, f, o = sigmoid(.), g = tanh(.) of the four parts of x_part + h_part;  c' = f c + i g;  h' = o tanh(c')
template <class T>
struct LstmStepForward {
  RecurrentStep p;
  const T* h_part;  // [rows, 4*hidden_size]: h W_hh^T + b_hh, or null
  T* gates;         // [rows, 4*hidden_size]: i, f, g, o; may be sums; null in inference
  T* c;             // [rows, hidden_size]: read as c, written as c'
  T* h;             // [rows, hidden_size]: h'
  T* output;        // [rows, hidden_size]: h' once more, or null
  T* c_before;      // [rows, hidden_size]: c, which backward needs; null in inference
  const T* sums;
  int64_t sums_row, sums_part;
};

template <class T>
struct LstmStepBackward {
  RecurrentStep p;
  const T* grad_output;  // [rows, hidden_size], or null
  const T* grad_h;       // [rows, hidden_size]; the gradient of h' is the sum of both
  const T* gates;        // as forward left it
  const T* c_before;     // as forward left it
  T* grad_c;             // [rows, hidden_size]: read as that of c', written as that of c
  T* grad_gates;         // [rows, 4*hidden_size], rows `grad_stride` apart: of x_part and h_part
  int64_t grad_stride;
  T* h;  // [rows, hidden_size]: h' computed again, or null
};

// GRU:  r, z = sigmoid(.) of the first two parts of x_part + h_part;  n = tanh(x_part_n + r h_part_n);
//       h' = (1 - z) n + z h
template <class T>
struct GruStepForward {
  RecurrentStep p;
  const T* h_part;  // [rows, 3*hidden_size]: h W_hh^T + b_hh, or null: then its last part is a fourth part of sums
  const T* hx;      // [rows, hidden_size]: h
  T* gates;         // [rows, 3*hidden_size]: r, z, n; may be sums; null in inference
  T* h;             // [rows, hidden_size]: h'; may be hx
  T* output;        // [rows, hidden_size]: h' once more, or null
  T* h_part_n;      // [rows, hidden_size]: the last part of h_part, which backward needs; null in inference
  const T* sums;
  int64_t sums_row, sums_part;
};

template <class T>
struct GruStepBackward {
  RecurrentStep p;
  const T* grad_output;   // [rows, hidden_size], or null
  const T* grad_product;  // [rows, hidden_size]: da_h W_hh of the step after this one
  const T* gates;         // as forward left it
  const T* h_part_n;      // as forward left it
  const T* hx;            // as forward
  T* grad_h;              // [rows, hidden_size]: read as the rest of the gradient of h' (which is the sum of the
                          // three), written as z times that gradient: the gradient of h but for da_h W_hh
  T* grad_h_part;         // [rows, 3*hidden_size], rows `grad_stride` apart: da_h
  T* grad_x_part_n;       // [rows, hidden_size], rows `grad_stride` apart: the last part of da_x
  T* grad_x_part;         // [rows, 2*hidden_size], rows `grad_stride` apart: the others, equal to da_h's, or null
  int64_t grad_stride;
};

// Plain recurrent network:  h' = tanh(x_part + h_part) or max(0, x_part + h_part)
enum class Nonlinearity : int32_t { tanh, relu };

template <class T>
struct RnnStepForward {
  RecurrentStep p;
  Nonlinearity nonlinearity;
  const T* sums;    // one part
  const T* h_part;  // [rows, hidden_size]: h W_hh^T + b_hh, or null
  T* h;             // [rows, hidden_size]: h'
  T* output;        // [rows, hidden_size]: h' once more, or null
  int64_t sums_row;
};

template <class T>
struct RnnStepBackward {
  RecurrentStep p;
  Nonlinearity nonlinearity;
  const T* grad_output;  // [rows, hidden_size], or null
  const T* grad_h;       // [rows, hidden_size]; the gradient of h' is the sum of both
  const T* h;            // [rows, hidden_size]: h' of forward
  T* grad_part;          // [rows, hidden_size], rows `grad_stride` apart: of x_part and h_part
  int64_t grad_stride;
};

}  // namespace cisdl
