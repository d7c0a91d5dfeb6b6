// cisdl::gru_cell and cisdl::gru_layer (one layer in one direction), and their gradients. Training keeps the gates
// r, z, n and the state's part of n.
#include <ATen/ops/mul.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/sub.h>
#include <ATen/ops/tanh.h>

#include "gru_on_gpu.h"

namespace cisdl::ops {
namespace {

// ---------------------------------------------------------------------------------------------- kernels

// A layer in one kernel, where there is one for it.
bool forward_whole(const RecurrentInputs& in, const std::vector<Step>& steps, const Results& results) {
  bool done = false;
  with_dtype(in.input.scalar_type(), [&](auto t) {
    using T = decltype(t);
    GruLayerForward<T> f{};
    f.p = layer_of(steps, in, in.hx.size(1));
    const auto* layer = whole_layer(Op::gru_layer, in.input, of_type<T>(recurrent_layer_kernels()).gru_forward, f);
    if (!layer) return;
    const Tensor packed = packed_weights(f.p, kGates, in.input, true);
    set_forward(f, in, packed, results.gates, results.output, results.h_n);
    f.h_part_n = mutable_or_null<T>(results.h_part_n);
    layer->run(f, torch_threads());
    done = true;
  });
  return done;
}

template <class I>
Results forward(const char* op, const RecurrentInputs& args, const RecurrentOptions& options, bool training) {
  const auto& [form, batch_sizes, reverse, _] = options;
  const Results results = check_forward<I>(op, args, options, training);
  if constexpr (std::is_same_v<I, int64_t>) {
    const RecurrentInputs in = args.contiguous();
    const int64_t batch = in.hx.size(0), hidden = in.hx.size(1), units = kGates * hidden;
    if (results.h_n.numel() == 0) return results;
    const std::vector<Step> steps = steps_of(form, in.input, batch_sizes, reverse);
    if (form == Form::layer && forward_whole(in, steps, results)) return results;
    const int64_t rows = all_rows(steps);
    const Tensor gates = training ? results.gates : at::empty({rows, units}, in.input.options());
    const Tensor h_part = at::empty({batch, units}, in.input.options());
    const bool all_begin = steps.front().rows == batch;
    if (!all_begin) results.h_n.copy_(in.hx);
    with_dtype(in.input.scalar_type(), [&](auto t) {
      using T = decltype(t);
      T* part = h_part.mutable_data_ptr<T>();
      T* h = results.h_n.mutable_data_ptr<T>();
      const T* before = all_begin ? in.hx.const_data_ptr<T>() : h;
      product<T>(rows, in.input.const_data_ptr<T>(), in.w_ih, in.b_ih, gates.mutable_data_ptr<T>());
      for (const Step& s : steps) {
        product<T>(s.rows, before, in.w_hh, in.b_hh, part);
        run(Op::gru_cell, in.input, of_type<T>(recurrent_kernels()).gru_forward,
            GruStepForward<T>{{s.rows, hidden},
                              part,
                              before,
                              at_row(gates.mutable_data_ptr<T>(), s.row, units),
                              h,
                              at_row(mutable_or_null<T>(results.output), s.row, hidden),
                              at_row(mutable_or_null<T>(results.h_part_n), s.row, hidden),
                              at_row(gates.const_data_ptr<T>(), s.row, units),
                              units,
                              hidden});
        before = h;
      }
    });
  }
  return results;
}

// A layer in one kernel, where there is one for it; grad_h holds the gradient of h_n, grad_product zeros.
bool backward_whole(const Tensor& grad_output, const RecurrentInputs& in, const std::vector<Step>& steps,
                    const Tensor& h_before, const Saved& saved, const Tensor& grad_h, const Tensor& grad_product,
                    const Grads& grads) {
  const auto& [grad_input, grad_hx, grad_w_ih, grad_w_hh, grad_b_ih, grad_b_hh] = grads;
  bool done = false;
  with_dtype(in.input.scalar_type(), [&](auto t) {
    using T = decltype(t);
    GruLayerBackward<T> b{};
    b.p = layer_of(steps, in, in.hx.size(1));
    const auto* layer =
        whole_layer(Op::gru_layer_backward, in.input, of_type<T>(recurrent_layer_kernels()).gru_backward, b);
    if (!layer) return;
    const Tensor packed = packed_weights(b.p, kGates, in.input, false);
    const Tensor grad_gates = scratch_like(in.input, {b.p.rows, gate_stride((kGates + 1) * b.p.hidden_size)});
    set_backward(b, grad_output, in, h_before, packed, grad_gates, grad_h, grad_hx.defined(),
                 {grad_input, grad_w_ih, grad_w_hh, grad_b_ih});
    b.gates = saved.gates.const_data_ptr<T>();
    b.h_part_n = saved.h_part_n.const_data_ptr<T>();
    b.grad_product = grad_product.mutable_data_ptr<T>();
    b.grad_b_hh = mutable_or_null<T>(grad_b_hh);
    layer->run(b, torch_threads());
    done = true;
  });
  return done;
}

template <class I>
Grads backward(const char* op, const Tensor& grad_output_arg, const Tensor& grad_h_n, const RecurrentInputs& args,
               const RecurrentOptions& options, const Saved& saved, const Mask6& mask) {
  const auto& [form, batch_sizes, reverse, _] = options;
  Grads grads = check_backward<I>(op, grad_output_arg, grad_h_n, args, options, saved, mask);
  if constexpr (std::is_same_v<I, int64_t>) {
    auto& [grad_input, grad_hx, grad_w_ih, grad_w_hh, grad_b_ih, grad_b_hh] = grads;
    const RecurrentInputs in = args.contiguous();
    const int64_t hidden = in.hx.size(1), units = kGates * hidden;
    const Tensor grad_output = grad_output_arg.defined() ? grad_output_arg.contiguous() : Tensor();
    const Tensor gates = saved.gates.contiguous(), h_part_n = saved.h_part_n.contiguous();
    const std::vector<Step> steps = steps_of(form, in.input, batch_sizes, reverse);
    const Tensor hx = states_before(form, steps, in.hx, saved.output);
    const Tensor grad_h = state_gradient(grad_h_n, in.hx, {}), grad_product = at::zeros_like(in.hx);
    if (form == Form::layer &&
        backward_whole(grad_output, in, steps, hx, {saved.output, gates, h_part_n}, grad_h, grad_product, grads)) {
      if (grad_hx.defined()) at::add_out(grad_hx, grad_h, grad_product);
      return grads;
    }
    const Tensor grad_x_part = at::empty_like(gates), grad_h_part = at::empty_like(gates);
    with_dtype(in.input.scalar_type(), [&](auto t) {
      using T = decltype(t);
      for (auto s = steps.rbegin(); s != steps.rend(); ++s) {
        T* da_h = at_row(grad_h_part.mutable_data_ptr<T>(), s->row, units);
        T* da_x = at_row(grad_x_part.mutable_data_ptr<T>(), s->row, units);
        run(Op::gru_cell_backward, in.input, of_type<T>(recurrent_kernels()).gru_backward,
            GruStepBackward<T>{{s->rows, hidden},
                               at_row(data_or_null<T>(grad_output), s->row, hidden),
                               grad_product.const_data_ptr<T>(),
                               at_row(gates.const_data_ptr<T>(), s->row, units),
                               at_row(h_part_n.const_data_ptr<T>(), s->row, hidden),
                               at_row(hx.const_data_ptr<T>(), s->row, hidden),
                               grad_h.mutable_data_ptr<T>(),
                               da_h,
                               da_x + 2 * hidden,
                               da_x,
                               units});
        if (grad_hx.defined() || s + 1 != steps.rend())
          product_backward<T>(s->rows, da_h, in.w_hh, grad_product.mutable_data_ptr<T>());
      }
      if (grad_input.defined())
        product_backward<T>(all_rows(steps), grad_x_part.const_data_ptr<T>(), in.w_ih,
                            grad_input.mutable_data_ptr<T>());
      weight_gradients<T>(grad_x_part, in.input, grad_w_ih, grad_b_ih);
      weight_gradients<T>(grad_h_part, hx, grad_w_hh, grad_b_hh);
    });
    if (grad_hx.defined()) at::add_out(grad_hx, grad_h, grad_product);
  }
  return grads;
}

// -------------------------------------------------------------------------------------------------- ops
// Kernels with I = int64_t, fake ones with I = c10::SymInt.

template <class I>
Tensor cell(const Tensor& input, const Tensor& hx, const Tensor& w_ih, const Tensor& w_hh, const Optional& b_ih,
            const Optional& b_hh) {
  return forward<I>("gru_cell", inputs_of(input, hx, w_ih, w_hh, b_ih, b_hh), {Form::cell}, false).h_n;
}

template <class I>
std::tuple<Tensor, Tensor, Tensor> cell_training(const Tensor& input, const Tensor& hx, const Tensor& w_ih,
                                                 const Tensor& w_hh, const Optional& b_ih, const Optional& b_hh) {
  const Results r = forward<I>("gru_cell", inputs_of(input, hx, w_ih, w_hh, b_ih, b_hh), {Form::cell}, true);
  return {r.h_n, r.gates, r.h_part_n};
}

template <class I>
Grads cell_backward(const Tensor& grad_h, const Tensor& input, const Tensor& hx, const Tensor& w_ih,
                    const Tensor& w_hh, const Tensor& gates, const Tensor& h_part_n, Mask6 mask) {
  return backward<I>("gru_cell_backward", {}, grad_h, inputs_of(input, hx, w_ih, w_hh), {Form::cell},
                     {{}, gates, h_part_n}, mask);
}

template <class I>
std::tuple<Tensor, Tensor> layer(const Tensor& input, const Tensor& hx, const Tensor& w_ih, const Tensor& w_hh,
                                 const Optional& b_ih, const Optional& b_hh, const Optional& batch_sizes,
                                 bool reverse) {
  const Results r = forward<I>("gru_layer", inputs_of(input, hx, w_ih, w_hh, b_ih, b_hh),
                               {Form::layer, or_undefined(batch_sizes), reverse}, false);
  return {r.output, r.h_n};
}

template <class I>
std::tuple<Tensor, Tensor, Tensor, Tensor> layer_training(const Tensor& input, const Tensor& hx,
                                                          const Tensor& w_ih, const Tensor& w_hh,
                                                          const Optional& b_ih, const Optional& b_hh,
                                                          const Optional& batch_sizes, bool reverse) {
  const Results r = forward<I>("gru_layer", inputs_of(input, hx, w_ih, w_hh, b_ih, b_hh),
                               {Form::layer, or_undefined(batch_sizes), reverse}, true);
  return {r.output, r.h_n, r.gates, r.h_part_n};
}

template <class I>
Grads layer_backward(const Optional& grad_output, const Optional& grad_h_n, const Tensor& input, const Tensor& hx,
                     const Tensor& w_ih, const Tensor& w_hh, const Optional& batch_sizes, bool reverse,
                     const Tensor& output, const Tensor& gates, const Tensor& h_part_n, Mask6 mask) {
  return backward<I>("gru_layer_backward", or_undefined(grad_output), or_undefined(grad_h_n),
                     inputs_of(input, hx, w_ih, w_hh), {Form::layer, or_undefined(batch_sizes), reverse},
                     {output, gates, h_part_n}, mask);
}

CISDL_OP(gru_cell, (cell<int64_t>))
CISDL_OP(gru_cell_training, (cell_training<int64_t>))
CISDL_OP(gru_cell_backward, (cell_backward<int64_t>))
CISDL_OP(gru_layer, (layer<int64_t>))
CISDL_OP(gru_layer_training, (layer_training<int64_t>))
CISDL_OP(gru_layer_backward, (layer_backward<int64_t>))

// ------------------------------------------------------------------------------------------ derivatives

struct Gru {
  static constexpr const char* name = "Gru";
  static constexpr size_t kInputs = 6, kStates = 1, kSaved = 2;  // results: output, h_n, gates, h_part_n

  static Variables run(const Variables& in, const RecurrentOptions& options, bool training) {
    const Optional b_ih = or_none(in[4]), b_hh = or_none(in[5]), batch_sizes = or_none(options.batch_sizes);
    if (options.form == Form::cell) {
      if (!training) return {Tensor(), gru_cell_op().call(in[0], in[1], in[2], in[3], b_ih, b_hh)};
      const auto [h, gates, h_part_n] = gru_cell_training_op().call(in[0], in[1], in[2], in[3], b_ih, b_hh);
      return {Tensor(), h, gates, h_part_n};
    }
    if (!training) {
      const auto [output, h_n] =
          gru_layer_op().call(in[0], in[1], in[2], in[3], b_ih, b_hh, batch_sizes, options.reverse);
      return {output, h_n};
    }
    const auto [output, h_n, gates, h_part_n] =
        gru_layer_training_op().call(in[0], in[1], in[2], in[3], b_ih, b_hh, batch_sizes, options.reverse);
    return {output, h_n, gates, h_part_n};
  }

  static Variables formula(const Variables& in, const RecurrentOptions& options) {
    const Tensor &w_hh = in[3], &b_hh = in[5];
    const Tensor x_part = linear_of(in[0], in[2], in[4]);
    const auto step = [&](const Tensor& from_x, const Variables& state) -> Variables {
      const std::vector<Tensor> x = from_x.chunk(kGates, -1),
                                h = linear_of(state[0], w_hh, b_hh).chunk(kGates, -1);
      const Tensor r = at::sigmoid(at::add(x[0], h[0])), z = at::sigmoid(at::add(x[1], h[1]));
      const Tensor n = at::tanh(at::add(x[2], at::mul(r, h[2])));
      return {at::add(n, at::mul(z, at::sub(state[0], n))), at::cat({r, z, n}, -1), h[2]};
    };
    if (options.form == Form::layer) return layer_by_formula(x_part, {in[1]}, options, step);
    Variables results = step(x_part, {in[1]});
    results.insert(results.begin(), Tensor());
    return results;
  }

  template <class ResultOf>
  static Variables backward(const Variables& grads, const Variables& in, const ResultOf& results,
                            const RecurrentOptions& options, const Mask6& mask) {
    const auto [input, hx, w_ih, w_hh, b_ih, b_hh] =
        options.form == Form::cell
            ? gru_cell_backward_op().call(grads[1], in[0], in[1], in[2], in[3], results(2), results(3), mask)
            : gru_layer_backward_op().call(or_none(grads[0]), or_none(grads[1]), in[0], in[1], in[2], in[3],
                                           or_none(options.batch_sizes), options.reverse, results(0), results(2),
                                           results(3), mask);
    return {input, hx, w_ih, w_hh, b_ih, b_hh};
  }
};

// The ops on top of `evaluate(inputs, options)`, which gives what Gru::run gives.

template <auto evaluate>
Tensor cell_by(const Tensor& input, const Tensor& hx, const Tensor& w_ih, const Tensor& w_hh, const Optional& b_ih,
               const Optional& b_hh) {
  return evaluate(variables_of(input, hx, w_ih, w_hh, b_ih, b_hh), {Form::cell})[1];
}

template <auto evaluate>
std::tuple<Tensor, Tensor, Tensor> cell_training_by(const Tensor& input, const Tensor& hx, const Tensor& w_ih,
                                                    const Tensor& w_hh, const Optional& b_ih,
                                                    const Optional& b_hh) {
  return pick<3>(evaluate(variables_of(input, hx, w_ih, w_hh, b_ih, b_hh), {Form::cell}), 1);
}

template <auto evaluate>
std::tuple<Tensor, Tensor> layer_by(const Tensor& input, const Tensor& hx, const Tensor& w_ih, const Tensor& w_hh,
                                    const Optional& b_ih, const Optional& b_hh, const Optional& batch_sizes,
                                    bool reverse) {
  return pick<2>(evaluate(variables_of(input, hx, w_ih, w_hh, b_ih, b_hh),
                          {Form::layer, or_undefined(batch_sizes), reverse}));
}

template <auto evaluate>
std::tuple<Tensor, Tensor, Tensor, Tensor> layer_training_by(const Tensor& input, const Tensor& hx,
                                                             const Tensor& w_ih, const Tensor& w_hh,
                                                             const Optional& b_ih, const Optional& b_hh,
                                                             const Optional& batch_sizes, bool reverse) {
  return pick<4>(evaluate(variables_of(input, hx, w_ih, w_hh, b_ih, b_hh),
                          {Form::layer, or_undefined(batch_sizes), reverse}));
}

void register_kernels(torch::Library& m) {
  m.impl("gru_cell", InFloat32<cell<int64_t>, cell_on_gpu>::call);
  m.impl("gru_cell_training", InFloat32<cell_training<int64_t>, cell_training_on_gpu>::call);
  m.impl("gru_cell_backward", InFloat32<cell_backward<int64_t>, cell_backward_on_gpu>::call);
  m.impl("gru_layer", InFloat32<layer<int64_t>, layer_on_gpu>::call);
  m.impl("gru_layer_training", InFloat32<layer_training<int64_t>, layer_training_on_gpu>::call);
  m.impl("gru_layer_backward", InFloat32<layer_backward<int64_t>, layer_backward_on_gpu>::call);
}

}  // namespace

#define CISDL_INPUTS "Tensor input, Tensor hx, Tensor w_ih, Tensor w_hh"
#define CISDL_BIASES ", Tensor? b_ih=None, Tensor? b_hh=None"
#define CISDL_SEQUENCE ", Tensor? batch_sizes=None, bool reverse=False"
#define CISDL_GRADS ", bool[6] output_mask) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)"

TORCH_LIBRARY_FRAGMENT(cisdl, m) {
  const auto define = [&](const char* schema) { m.def(schema, {at::Tag::pt2_compliant_tag}); };
  define("gru_cell(" CISDL_INPUTS CISDL_BIASES ") -> Tensor");
  define("gru_cell_training(" CISDL_INPUTS CISDL_BIASES ") -> (Tensor, Tensor, Tensor)");
  define("gru_cell_backward(Tensor grad_h, " CISDL_INPUTS ", Tensor gates, Tensor h_part_n" CISDL_GRADS);
  define("gru_layer(" CISDL_INPUTS CISDL_BIASES CISDL_SEQUENCE ") -> (Tensor, Tensor)");
  define("gru_layer_training(" CISDL_INPUTS CISDL_BIASES CISDL_SEQUENCE ") -> (Tensor, Tensor, Tensor, Tensor)");
  define("gru_layer_backward(Tensor? grad_output, Tensor? grad_h_n, " CISDL_INPUTS
         ", Tensor? batch_sizes, bool reverse, Tensor output, Tensor gates, Tensor h_part_n" CISDL_GRADS);
}

CISDL_REGISTER_KERNELS(register_kernels)

TORCH_LIBRARY_IMPL(cisdl, Meta, m) {
  m.impl("gru_cell", cell<c10::SymInt>);
  m.impl("gru_cell_training", cell_training<c10::SymInt>);
  m.impl("gru_cell_backward", cell_backward<c10::SymInt>);
  m.impl("gru_layer", layer<c10::SymInt>);
  m.impl("gru_layer_training", layer_training<c10::SymInt>);
  m.impl("gru_layer_backward", layer_backward<c10::SymInt>);
}

TORCH_LIBRARY_IMPL(cisdl, Autograd, m) {
  m.impl("gru_cell", cell_by<inference_autograd<Gru>>);
  m.impl("gru_cell_training", cell_training_by<training_autograd<Gru>>);
  m.impl("gru_cell_backward", torch::autograd::autogradNotImplementedFallback());
  m.impl("gru_layer", layer_by<inference_autograd<Gru>>);
  m.impl("gru_layer_training", layer_training_by<training_autograd<Gru>>);
  m.impl("gru_layer_backward", torch::autograd::autogradNotImplementedFallback());
}

TORCH_LIBRARY_IMPL(cisdl, FuncTorchBatched, m) {
  m.impl("gru_cell", cell_by<Gru::formula>);
  m.impl("gru_cell_training", cell_training_by<Gru::formula>);
  m.impl("gru_layer", layer_by<Gru::formula>);
  m.impl("gru_layer_training", layer_training_by<Gru::formula>);
}

}  // namespace cisdl::ops
