// Every derivative of an op y = B(x, w) + b that is linear in x, in w and in the bias b: linear, conv2d and
// conv_transpose2d.
//
// Such an op has a backward op (grad_x, grad_w, grad_b) = (X(g, w), W(g, x), S(g)), and B, X, W are one trilinear
// form seen from its three sides:  <g, B(x, w)> = <X(g, w), x> = <W(g, x), w>. So each derivative, of any order
// and in either mode, is a call of the same two ops on other tensors:
//   the backward op's own gradient, for incoming (gx, gw, gb):
//     of g: B(gx, w) + B(x, gw) + gb        of x: X(g, gw)        of w: W(g, gx)
//   tangents (a dot marks them):  y. = B(x., w) + B(x, w.) + b.   and the product rule for X, W and S
//
// Op is a struct with
//   struct Options;                              everything but the tensors, owning its memory
//   static constexpr const char *name, *backward_name;
//   static Tensor forward(x, w, b, options);     the dispatcher's entry; b may be undefined
//   static Gradients backward(g, x, w, options, mask);     likewise; of x, when grad_w is not asked for, and of w,
//                                                when grad_x is not, only the shape counts
//   static Tensor spread(b, y);                  the bias as a tensor of y's shape
#pragma once

#include "autograd.h"

namespace cisdl::ops {

using Gradients = std::tuple<Tensor, Tensor, Tensor>;  // of x, w, b
using Mask = std::array<bool, 3>;                      // which of them are wanted

// B(dx, w) + B(x, dw) + db, the linear part of the op at (x, w); undefined tensors are zero.
template <class Op>
Tensor bilinear_change(const Tensor& x, const Tensor& w, const Tensor& dx, const Tensor& dw, const Tensor& db,
                       const Tensor& like, const typename Op::Options& options) {
  Tensor change;
  if (dx.defined()) change = Op::forward(dx, w, db, options);
  if (dw.defined()) change = plus(change, Op::forward(x, dw, dx.defined() ? Tensor() : db, options));
  if (!change.defined() && db.defined()) change = Op::spread(db, like);
  return change;
}

template <class Op>
class BilinearBackward : public BackwardNode<2> {
 public:
  typename Op::Options options;

  std::string name() const override { return std::string("Cisdl") + Op::name + "Backward"; }

 protected:
  Variables gradients(const Variables& grads) override {
    const auto [x, w, b] = Op::backward(grads[0], saved(0), saved(1), options, {wanted(0), wanted(1), wanted(2)});
    return {x, w, b};
  }
};

template <class Op>
class BilinearDoubleBackward : public BackwardNode<3> {
 public:
  typename Op::Options options;

  std::string name() const override { return std::string("Cisdl") + Op::name + "DoubleBackward"; }

 protected:
  Variables gradients(const Variables& grads) override {
    const Tensor g = saved(0), x = saved(1), w = saved(2);
    const Tensor &gx = grads[0], &gw = grads[1], &gb = grads[2];
    Variables result(3);
    if (wanted(0)) result[0] = bilinear_change<Op>(x, w, gx, gw, gb, g, options);
    if (wanted(1) && gw.defined()) result[1] = std::get<0>(Op::backward(g, x, gw, options, {true, false, false}));
    if (wanted(2) && gx.defined()) result[2] = std::get<1>(Op::backward(g, gx, w, options, {false, true, false}));
    return result;
  }
};

// The Autograd kernel of the op.
template <class Op>
Tensor bilinear_autograd(const Tensor& x, const Tensor& w, const Tensor& b, typename Op::Options&& options) {
  const auto node = record<BilinearBackward<Op>>(x, w, b);
  if (node) {
    node->save(0, x);
    node->save(1, w);
    node->options = options;
  }
  const Tensor y = [&] {
    const Guard guard;
    return Op::forward(x, w, b, options);
  }();
  if (node) set_history(y, node);
  if (has_tangent(x) || has_tangent(w) || has_tangent(b))
    set_tangent(y, bilinear_change<Op>(primal_of(x), primal_of(w), tangent_of(x), tangent_of(w), tangent_of(b), y,
                                       options));
  return y;
}

// The Autograd kernel of the backward op.
template <class Op>
Gradients bilinear_backward_autograd(const Tensor& g, const Tensor& x, const Tensor& w,
                                     typename Op::Options&& options, const Mask& mask) {
  const auto node = record<BilinearDoubleBackward<Op>>(g, x, w);
  if (node) {
    node->save(0, g);
    node->save(1, x);
    node->save(2, w);
    node->options = options;
  }
  const Gradients result = [&] {
    const Guard guard;
    return Op::backward(g, x, w, options, mask);
  }();
  const auto& [gx, gw, gb] = result;
  if (node) set_history({gx, gw, gb}, node);
  if (has_tangent(g) || has_tangent(x) || has_tangent(w)) {
    const Tensor gp = primal_of(g), xp = primal_of(x), wp = primal_of(w);
    const Tensor gt = tangent_of(g), xt = tangent_of(x), wt = tangent_of(w);
    Tensor dx, dw, db;
    if (gt.defined()) std::tie(dx, dw, db) = Op::backward(gt, xp, wp, options, mask);
    if (wt.defined() && mask[0])
      dx = plus(dx, std::get<0>(Op::backward(gp, xp, wt, options, {true, false, false})));
    if (xt.defined() && mask[1])
      dw = plus(dw, std::get<1>(Op::backward(gp, xt, wp, options, {false, true, false})));
    set_tangent(gx, dx);
    set_tangent(gw, dw);
    set_tangent(gb, db);
  }
  return result;
}

}  // namespace cisdl::ops
