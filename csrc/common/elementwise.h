// Passes over memory that do little arithmetic for each element: activations behind a layer, and the steps of
// optimisers. One kernel does each, so there is no list of implementations.
//
// As in problems.h: sizes, then pointers, every tensor with its shape, dense.
#pragma once

#include "parallel.h"

namespace cisdl {

// f(x), and f' as a function of y = f(x), which is what the backward has:
//   relu        max(x, 0)                 y > 0 ? 1 : 0
//   leaky_relu  x > 0 ? x : slope x       y > 0 ? 1 : slope        (slope >= 0, so y has the sign of x)
//   sigmoid     1 / (1 + exp(-x))         y (1 - y)
//   tanh        tanh x                    1 - y^2
enum class Activation : int32_t { relu, leaky_relu, sigmoid, tanh };

template <class T>
struct ActivationForward {
  Activation activation;
  T slope;
  int64_t size;
  T* values;  // [size], x on entry, f(x) on return
};

// grad_input = grad_output f'(output),  grad_bias = its column sums
template <class T>
struct ActivationBackward {
  Activation activation;
  T slope;
  int64_t rows, cols;
  const T* grad_output;  // [rows, cols]
  const T* output;       // [rows, cols]
  T* grad_input;         // [rows, cols]
  T* grad_bias;          // [cols], or null
};

// Softmax cross-entropy of scores x against classes y, with weights w of the classes (1 if there are none) and
// smoothing s:
//   loss = (1 - s) w[y] (L - x[y]) + s / classes sum_c w[c] (L - x[c]),   L = log sum_c exp x[c];   0 if y is
//   ignored d loss / d x[c] = ((1 - s) w[y] + s / classes sum w) exp(x[c] - L) - (1 - s) w[y] [c = y] - s /
//   classes w[c]
// Kept for the backward is what L is made of: the largest score and the sum of exp(x - largest).
struct CrossEntropyProblem {
  int64_t rows, classes;
  int64_t ignored;  // the y that does not count; any other is in [0, classes)
  double smoothing;
};

template <class T>
struct CrossEntropyForward {
  CrossEntropyProblem p;
  const T* scores;        // [rows, classes]
  const int64_t* target;  // [rows]
  const T* weight;        // [classes], or null
  T* losses;              // [rows]
  T* kept;                // [2, rows]: the largest scores, then the sums; or null
};

template <class T>
struct CrossEntropyBackward {
  CrossEntropyProblem p;
  const T* scores;                 // as forward
  const int64_t* target;           // as forward
  const T* weight;                 // as forward
  const T* kept;                   // of forward
  const T* grad_losses;            // [rows], or [1]: the same for all
  int64_t grad_step;               // 1 or 0, as there are many or one
  T scale;                         // of grad_losses
  T* grad_scores;                  // [rows, classes]
  const double* totals = nullptr;  // on a GPU, of CrossEntropyReduction; its first takes the place of scale
};

// On a GPU: the loss, of the losses of the rows, and what backward needs of all rows. The loss is their sum, or,
// for the mean, that divided by the sum of the weights of the rows that count.
template <class T>
struct CrossEntropyReduction {
  CrossEntropyProblem p;
  bool mean;
  const int64_t* target;  // as forward
  const T* weight;        // as forward
  const T* losses;        // [rows], or null if loss is
  T* loss;                // [1], or null
  double* totals;  // [2]: 1, or 1 / sum of weights for the mean; the sum of the weights of all classes; or null
};

// Adam (Kingma, Ba 2015), with AMSGrad's maximum (Reddi et al. 2018) or decoupled decay (AdamW; Loshchilov, Hutter
// 2019), as torch.optim orders the operations:
//   g = grad (negated to maximise) + decay w          decoupled: w -= lr decay w instead
//   m = beta1 m + (1 - beta1) g;  v = beta2 v + (1 - beta2) g^2
//   w -= step_size m / (sqrt(v or the largest v so far) / sqrt_correction2 + eps)
// with step_size = lr / (1 - beta1^step) and sqrt_correction2 = sqrt(1 - beta2^step).
template <class T>
struct AdamStep {
  int64_t size;
  T beta1, rest1;  // 1 - beta1, and likewise below, formed in double: in float it would lose digits
  T beta2, rest2;
  T eps;
  T decay, shrink;  // decay w is added to g; w is multiplied by shrink
  T step_size, sqrt_correction2;
  bool maximize;
  T* weight;      // [size]
  const T* grad;  // [size]
  T* m;           // [size]
  T* v;           // [size]
  T* largest_v;   // [size], or null
};

// Gradient descent with momentum, as in torch.optim:
//   g = grad (negated to maximise) + decay w;  b = momentum b + (1 - dampening) g, or g in the first step
//   w -= lr (nesterov ? g + momentum b : b)
template <class T>
struct SgdStep {
  int64_t size;
  T lr, momentum, dampening, decay;
  bool nesterov, maximize, first;
  T* weight;      // [size]
  const T* grad;  // [size]
  T* buffer;      // [size], or null: no momentum
};

template <class T>
struct ElementwiseKernels {
  void (*activation)(const ActivationForward<T>&, const Parallel&);
  void (*activation_backward)(const ActivationBackward<T>&, const Parallel&);
  void (*cross_entropy)(const CrossEntropyForward<T>&, const Parallel&);
  void (*cross_entropy_backward)(const CrossEntropyBackward<T>&, const Parallel&);
  void (*adam)(const AdamStep<T>&, const Parallel&);
  void (*sgd)(const SgdStep<T>&, const Parallel&);
};

}  // namespace cisdl
