// cisdl::rnn_tanh_cell, rnn_relu_cell and rnn_layer (one layer in one direction), and their gradients. The output
// is all that backward needs.
#include <ATen/ops/relu.h>
#include <ATen/ops/tanh.h>

#include "cells_on_gpu.h"
#include "recurrence.h"
#include "recurrent_autograd.h"

namespace cisdl::ops {
namespace {

using Grads = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;  // of the six inputs
using Mask6 = std::array<bool, 6>;                                         // which are wanted

constexpr auto kTanh = Nonlinearity::tanh, kRelu = Nonlinearity::relu;

Nonlinearity nonlinearity_of(bool relu) { return relu ? kRelu : kTanh; }

// ---------------------------------------------------------------------------------------------- kernels

struct Results {
  Tensor output, h_n;  // output: of layers
};

// Checks everything and allocates the results: all that there is to do for fake tensors.
template <class I>
Results check_forward(const char* op, const RecurrentInputs& in, const RecurrentOptions& options) {
  const auto sizes = check_rows<I>(op, options.form, in.input, in.hx, options.batch_sizes);
  check_weights<I>(op, in, sizes, sizes.state_size);
  return {options.form == Form::layer ? empty_of<I>(sizes.with(sizes.state_size), in.input) : Tensor(),
          empty_of<I>({sizes.batch, sizes.state_size}, in.input)};
}

// A layer in one kernel, where there is one for it.
bool forward_whole(const RecurrentInputs& in, const std::vector<Step>& steps, Nonlinearity nonlinearity,
                   const Results& results) {
  bool done = false;
  with_dtype(in.input.scalar_type(), [&](auto t) {
    using T = decltype(t);
    RnnLayerForward<T> f{};
    f.p = layer_of(steps, in, in.hx.size(1));
    f.nonlinearity = nonlinearity;
    const auto* layer = whole_layer(Op::rnn_layer, in.input, of_type<T>(recurrent_layer_kernels()).rnn_forward, f);
    if (!layer) return;
    const Tensor packed = packed_weights(f.p, 1, in.input, true);
    set_forward(f, in, packed, {}, results.output, results.h_n);
    layer->run(f, torch_threads());
    done = true;
  });
  return done;
}

template <class I>
Results forward(const char* op, const RecurrentInputs& args, const RecurrentOptions& options) {
  const Results results = check_forward<I>(op, args, options);
  if constexpr (std::is_same_v<I, int64_t>) {
    if (results.h_n.numel() == 0) return results;
    const RecurrentInputs in = args.contiguous();
    const int64_t batch = in.hx.size(0), hidden = in.hx.size(1);
    const std::vector<Step> steps = steps_of(options.form, in.input, options.batch_sizes, options.reverse);
    if (options.form == Form::layer && forward_whole(in, steps, options.nonlinearity, results)) return results;
    const Tensor x_part = at::empty({all_rows(steps), hidden}, in.input.options());
    const Tensor h_part = at::empty({batch, hidden}, in.input.options());
    const bool all_begin = steps.front().rows == batch;
    if (!all_begin) results.h_n.copy_(in.hx);
    const Op record = options.nonlinearity == kTanh ? Op::rnn_tanh_cell : Op::rnn_relu_cell;
    with_dtype(in.input.scalar_type(), [&](auto t) {
      using T = decltype(t);
      T* part = h_part.mutable_data_ptr<T>();
      T* h = results.h_n.mutable_data_ptr<T>();
      const T* before = all_begin ? in.hx.const_data_ptr<T>() : h;
      product<T>(all_rows(steps), in.input.const_data_ptr<T>(), in.w_ih, in.b_ih, x_part.mutable_data_ptr<T>());
      for (const Step& s : steps) {
        product<T>(s.rows, before, in.w_hh, in.b_hh, part);
        run(record, in.input, of_type<T>(recurrent_kernels()).rnn_forward,
            RnnStepForward<T>{{s.rows, hidden},
                              options.nonlinearity,
                              at_row(x_part.const_data_ptr<T>(), s.row, hidden),
                              part,
                              h,
                              at_row(mutable_or_null<T>(results.output), s.row, hidden),
                              hidden});
        before = h;
      }
    });
  }
  return results;
}

// `output`: of all steps; of a cell, h'.
template <class I>
Grads check_backward(const char* op, const Tensor& grad_output, const Tensor& grad_h_n, const RecurrentInputs& in,
                     const RecurrentOptions& options, const Tensor& output, const Mask6& mask) {
  const bool cell = options.form == Form::cell;
  const auto sizes = check_rows<I>(op, options.form, in.input, in.hx, options.batch_sizes);
  const I& hidden = sizes.state_size;
  check_weights<I>(op, in, sizes, hidden);
  check_saved<I>(op, "grad_output", grad_output, in.input, sizes.with(hidden));
  check_saved<I>(op, cell ? "grad_h" : "grad_h_n", grad_h_n, in.input, {sizes.batch, hidden});
  check_saved<I>(op, cell ? "h" : "output", output, in.input, sizes.with(hidden));
  const auto grad_of = [&](int i, const Tensor& t) { return mask[i] ? empty_of<I>(sizes_of<I>(t), t) : Tensor(); };
  const auto of_bias = [&](int i) { return mask[i] ? empty_of<I>({hidden}, in.input) : Tensor(); };
  return {grad_of(0, in.input), grad_of(1, in.hx), grad_of(2, in.w_ih),
          grad_of(3, in.w_hh),  of_bias(4),        of_bias(5)};
}

// A layer in one kernel, where there is one for it; grad_h holds the gradient of h_n.
bool backward_whole(const Tensor& grad_output, const RecurrentInputs& in, const std::vector<Step>& steps,
                    Nonlinearity nonlinearity, const Tensor& output, const Tensor& grad_h, const Grads& grads) {
  const auto& [grad_input, grad_hx, grad_w_ih, grad_w_hh, grad_b_ih, grad_b_hh] = grads;
  bool done = false;
  with_dtype(in.input.scalar_type(), [&](auto t) {
    using T = decltype(t);
    RnnLayerBackward<T> b{};
    b.p = layer_of(steps, in, in.hx.size(1));
    b.nonlinearity = nonlinearity;
    const auto* layer =
        whole_layer(Op::rnn_layer_backward, in.input, of_type<T>(recurrent_layer_kernels()).rnn_backward, b);
    if (!layer) return;
    const Tensor packed = packed_weights(b.p, 1, in.input, false);
    const Tensor grad_gates = scratch_like(in.input, {b.p.rows, gate_stride(b.p.hidden_size)});
    const Tensor h_before = grad_w_hh.defined() ? states_before(Form::layer, steps, in.hx, output) : Tensor();
    set_backward(b, grad_output, in, h_before, packed, grad_gates, grad_h, grad_hx.defined(),
                 {grad_input, grad_w_ih, grad_w_hh, grad_b_ih.defined() ? grad_b_ih : grad_b_hh});
    b.output = output.const_data_ptr<T>();
    layer->run(b, torch_threads());
    done = true;
  });
  return done;
}

template <class I>
Grads backward(const char* op, const Tensor& grad_output_arg, const Tensor& grad_h_n, const RecurrentInputs& args,
               const RecurrentOptions& options, const Tensor& output_arg, const Mask6& mask) {
  Grads grads = check_backward<I>(op, grad_output_arg, grad_h_n, args, options, output_arg, mask);
  if constexpr (std::is_same_v<I, int64_t>) {
    auto& [grad_input, grad_hx, grad_w_ih, grad_w_hh, grad_b_ih, grad_b_hh] = grads;
    const RecurrentInputs in = args.contiguous();
    const int64_t hidden = in.hx.size(1);
    const Tensor grad_output = grad_output_arg.defined() ? grad_output_arg.contiguous() : Tensor();
    const Tensor output = output_arg.contiguous();
    const std::vector<Step> steps = steps_of(options.form, in.input, options.batch_sizes, options.reverse);
    const Tensor grad_h = state_gradient(grad_h_n, in.hx, grad_hx);
    if (options.form == Form::layer &&
        backward_whole(grad_output, in, steps, options.nonlinearity, output, grad_h, grads)) {
      if (grad_b_ih.defined() && grad_b_hh.defined()) grad_b_hh.copy_(grad_b_ih);
      return grads;
    }
    const Tensor grad_part = at::empty_like(output);
    const Op record = options.nonlinearity == kTanh ? Op::rnn_tanh_cell_backward : Op::rnn_relu_cell_backward;
    with_dtype(in.input.scalar_type(), [&](auto t) {
      using T = decltype(t);
      for (auto s = steps.rbegin(); s != steps.rend(); ++s) {
        T* da = at_row(grad_part.mutable_data_ptr<T>(), s->row, hidden);
        run(record, in.input, of_type<T>(recurrent_kernels()).rnn_backward,
            RnnStepBackward<T>{{s->rows, hidden},
                               options.nonlinearity,
                               at_row(data_or_null<T>(grad_output), s->row, hidden),
                               grad_h.const_data_ptr<T>(),
                               at_row(output.const_data_ptr<T>(), s->row, hidden),
                               da,
                               hidden});
        if (grad_hx.defined() || s + 1 != steps.rend())
          product_backward<T>(s->rows, da, in.w_hh, grad_h.mutable_data_ptr<T>());
      }
      if (grad_input.defined())
        product_backward<T>(all_rows(steps), grad_part.const_data_ptr<T>(), in.w_ih,
                            grad_input.mutable_data_ptr<T>());
      const Tensor& grad_bias = grad_b_ih.defined() ? grad_b_ih : grad_b_hh;
      weight_gradients<T>(grad_part, in.input, grad_w_ih, grad_bias);
      if (grad_w_hh.defined())
        weight_gradients<T>(grad_part, states_before(options.form, steps, in.hx, output), grad_w_hh, {});
    });
    if (grad_b_ih.defined() && grad_b_hh.defined()) grad_b_hh.copy_(grad_b_ih);
  }
  return grads;
}

// ------------------------------------------------------------------------- layers in one kernel on a GPU

optional<std::tuple<Tensor, Tensor>> layer_on_gpu(const Tensor& input, const Tensor& hx, const Tensor& w_ih,
                                                  const Tensor& w_hh, const Optional& b_ih, const Optional& b_hh,
                                                  bool relu, const Optional& batch_sizes, bool reverse) {
  const RecurrentInputs in = inputs_of(input, hx, w_ih, w_hh, b_ih, b_hh);
  const RecurrentOptions options{Form::layer, or_undefined(batch_sizes), reverse, nonlinearity_of(relu)};
  const Results r = check_forward<int64_t>("rnn_layer", in, options);
  if (!forward_in_one_kernel(Op::rnn_layer, RecurrentCell::rnn, in.contiguous(), {}, options,
                             {r.output, r.h_n, {}, {}, {}}))
    return std::nullopt;
  return std::make_tuple(r.output, r.h_n);
}

optional<Grads> layer_backward_on_gpu(const Optional& grad_output, const Optional& grad_h_n, const Tensor& input,
                                      const Tensor& hx, const Tensor& w_ih, const Tensor& w_hh, bool relu,
                                      const Optional& batch_sizes, bool reverse, const Tensor& output,
                                      Mask6 mask) {
  const RecurrentInputs in = inputs_of(input, hx, w_ih, w_hh);
  const RecurrentOptions options{Form::layer, or_undefined(batch_sizes), reverse, nonlinearity_of(relu)};
  Grads grads = check_backward<int64_t>("rnn_layer_backward", or_undefined(grad_output), or_undefined(grad_h_n),
                                        in, options, output, {false, mask[1]});
  auto& [grad_input, grad_hx, grad_w_ih, grad_w_hh, grad_b_ih, grad_b_hh] = grads;
  const auto given = backward_in_one_kernel(
      Op::rnn_layer_backward, RecurrentCell::rnn, in.contiguous(), options, {output.contiguous(), {}, {}, {}, {}},
      {contiguous_or_undefined(grad_output), contiguous_or_undefined(grad_h_n), {}, grad_hx, {}},
      {mask[0], mask[2], mask[3], mask[4], mask[5]});
  if (!given) return std::nullopt;
  return Grads{given->input, grad_hx, given->w_ih, given->w_hh, given->b_ih, given->b_hh};
}

// -------------------------------------------------------------------------------------------------- ops
// Kernels with I = int64_t, fake ones with I = c10::SymInt.

template <class I, Nonlinearity nonlinearity>
Tensor cell(const Tensor& input, const Tensor& hx, const Tensor& w_ih, const Tensor& w_hh, const Optional& b_ih,
            const Optional& b_hh) {
  const char* op = nonlinearity == kTanh ? "rnn_tanh_cell" : "rnn_relu_cell";
  return forward<I>(op, inputs_of(input, hx, w_ih, w_hh, b_ih, b_hh), {Form::cell, {}, false, nonlinearity}).h_n;
}

template <class I>
Grads cell_backward(const Tensor& grad_h, const Tensor& input, const Tensor& hx, const Tensor& w_ih,
                    const Tensor& w_hh, const Tensor& h, bool relu, Mask6 mask) {
  return backward<I>("rnn_cell_backward", {}, grad_h, inputs_of(input, hx, w_ih, w_hh),
                     {Form::cell, {}, false, nonlinearity_of(relu)}, h, mask);
}

template <class I>
std::tuple<Tensor, Tensor> layer(const Tensor& input, const Tensor& hx, const Tensor& w_ih, const Tensor& w_hh,
                                 const Optional& b_ih, const Optional& b_hh, bool relu,
                                 const Optional& batch_sizes, bool reverse) {
  const Results r = forward<I>("rnn_layer", inputs_of(input, hx, w_ih, w_hh, b_ih, b_hh),
                               {Form::layer, or_undefined(batch_sizes), reverse, nonlinearity_of(relu)});
  return {r.output, r.h_n};
}

template <class I>
Grads layer_backward(const Optional& grad_output, const Optional& grad_h_n, const Tensor& input, const Tensor& hx,
                     const Tensor& w_ih, const Tensor& w_hh, bool relu, const Optional& batch_sizes, bool reverse,
                     const Tensor& output, Mask6 mask) {
  return backward<I>("rnn_layer_backward", or_undefined(grad_output), or_undefined(grad_h_n),
                     inputs_of(input, hx, w_ih, w_hh),
                     {Form::layer, or_undefined(batch_sizes), reverse, nonlinearity_of(relu)}, output, mask);
}

// ------------------------------------------------------------------------------- cells on tensor cores

template <Nonlinearity nonlinearity>
optional<Tensor> cell_on_gpu(const Tensor& input, const Tensor& hx, const Tensor& w_ih, const Tensor& w_hh,
                             const Optional& b_ih, const Optional& b_hh) {
  const RecurrentInputs args = inputs_of(input, hx, w_ih, w_hh, b_ih, b_hh);
  const Op op = nonlinearity == kTanh ? Op::rnn_tanh_cell : Op::rnn_relu_cell;
  const Results results = check_forward<int64_t>(op_name(op), args, {Form::cell, {}, false, nonlinearity});
  if (!may_be_cell_on_tensor_cores(args)) return std::nullopt;
#ifdef CISDL_WITH_CUDA
  const RecurrentInputs in = args.contiguous();
  const bool done = cell_on_tensor_cores(op, in.input, [&](auto t) {
    using T = decltype(t);
    return RnnCellForward<T>{cell_problem(in),
                             nonlinearity,
                             numbers_or_null<T>(in.input),
                             numbers_or_null<T>(in.hx),
                             numbers_or_null<T>(in.w_ih),
                             numbers_or_null<T>(in.w_hh),
                             numbers_or_null<T>(in.b_ih),
                             numbers_or_null<T>(in.b_hh),
                             mutable_numbers_or_null<T>(results.h_n)};
  });
  if (done) return results.h_n;
#endif
  return std::nullopt;
}

optional<Grads> cell_backward_on_gpu(const Tensor& grad_h_arg, const Tensor& input, const Tensor& hx,
                                     const Tensor& w_ih, const Tensor& w_hh, const Tensor& h_arg, bool relu,
                                     Mask6 mask) {
  const RecurrentInputs args = inputs_of(input, hx, w_ih, w_hh);
  const Grads grads = check_backward<int64_t>("rnn_cell_backward", {}, grad_h_arg, args,
                                              {Form::cell, {}, false, nonlinearity_of(relu)}, h_arg, mask);
  if (!may_be_cell_on_tensor_cores(args)) return std::nullopt;
#ifdef CISDL_WITH_CUDA
  const RecurrentInputs in = args.contiguous();
  const auto& [grad_input, grad_hx, grad_w_ih, grad_w_hh, grad_b_ih, grad_b_hh] = grads;
  const Tensor grad_h = grad_h_arg.contiguous(), h = h_arg.contiguous(), grad_part = at::empty_like(h);
  with_16_bits(in.input, [&](auto t) {
    using T = decltype(t);
    run_on_gpu(relu ? Op::rnn_relu_cell_backward : Op::rnn_tanh_cell_backward, in.input,
               RnnStepBackward<T>{{in.hx.size(0), in.hx.size(1)},
                                  nonlinearity_of(relu),
                                  nullptr,
                                  numbers_or_null<T>(grad_h),
                                  numbers_or_null<T>(h),
                                  mutable_numbers_or_null<T>(grad_part),
                                  in.hx.size(1)});
  });
  if (part_gradients(grad_part, in.input, in.w_ih, grad_input, grad_w_ih, grad_b_ih) &&
      part_gradients(grad_part, in.hx, in.w_hh, grad_hx, grad_w_hh, grad_b_hh))
    return grads;
#endif
  return std::nullopt;
}

CISDL_OP(rnn_tanh_cell, (cell<int64_t, kTanh>))
CISDL_OP(rnn_relu_cell, (cell<int64_t, kRelu>))
CISDL_OP(rnn_cell_backward, (cell_backward<int64_t>))
CISDL_OP(rnn_layer, (layer<int64_t>))
CISDL_OP(rnn_layer_backward, (layer_backward<int64_t>))

// ------------------------------------------------------------------------------------------ derivatives

struct Rnn {
  static constexpr const char* name = "Rnn";
  static constexpr size_t kInputs = 6, kStates = 1, kSaved = 0;  // results: output, h_n

  static Variables run(const Variables& in, const RecurrentOptions& options, bool /*training*/) {
    const Optional b_ih = or_none(in[4]), b_hh = or_none(in[5]);
    const bool relu = options.nonlinearity == kRelu;
    if (options.form == Form::cell) {
      const auto& op = relu ? rnn_relu_cell_op() : rnn_tanh_cell_op();
      return {Tensor(), op.call(in[0], in[1], in[2], in[3], b_ih, b_hh)};
    }
    const auto [output, h_n] = rnn_layer_op().call(in[0], in[1], in[2], in[3], b_ih, b_hh, relu,
                                                   or_none(options.batch_sizes), options.reverse);
    return {output, h_n};
  }

  static Variables formula(const Variables& in, const RecurrentOptions& options) {
    const Tensor x_part = linear_of(in[0], in[2], in[4]);
    const auto step = [&](const Tensor& from_x, const Variables& state) -> Variables {
      const Tensor sum = at::add(from_x, linear_of(state[0], in[3], in[5]));
      return {options.nonlinearity == kRelu ? at::relu(sum) : at::tanh(sum)};
    };
    if (options.form == Form::layer) return layer_by_formula(x_part, {in[1]}, options, step);
    return {Tensor(), step(x_part, {in[1]})[0]};
  }

  template <class ResultOf>
  static Variables backward(const Variables& grads, const Variables& in, const ResultOf& results,
                            const RecurrentOptions& options, const Mask6& mask) {
    const bool relu = options.nonlinearity == kRelu;
    const auto [input, hx, w_ih, w_hh, b_ih, b_hh] =
        options.form == Form::cell
            ? rnn_cell_backward_op().call(grads[1], in[0], in[1], in[2], in[3], results(1), relu, mask)
            : rnn_layer_backward_op().call(or_none(grads[0]), or_none(grads[1]), in[0], in[1], in[2], in[3], relu,
                                           or_none(options.batch_sizes), options.reverse, results(0), mask);
    return {input, hx, w_ih, w_hh, b_ih, b_hh};
  }
};

// The ops on top of `evaluate(inputs, options)`, which gives what Rnn::run gives.

template <auto evaluate, Nonlinearity nonlinearity>
Tensor cell_by(const Tensor& input, const Tensor& hx, const Tensor& w_ih, const Tensor& w_hh, const Optional& b_ih,
               const Optional& b_hh) {
  return evaluate(variables_of(input, hx, w_ih, w_hh, b_ih, b_hh), {Form::cell, {}, false, nonlinearity})[1];
}

template <auto evaluate>
std::tuple<Tensor, Tensor> layer_by(const Tensor& input, const Tensor& hx, const Tensor& w_ih, const Tensor& w_hh,
                                    const Optional& b_ih, const Optional& b_hh, bool relu,
                                    const Optional& batch_sizes, bool reverse) {
  return pick<2>(evaluate(variables_of(input, hx, w_ih, w_hh, b_ih, b_hh),
                          {Form::layer, or_undefined(batch_sizes), reverse, nonlinearity_of(relu)}));
}

void register_kernels(torch::Library& m) {
  m.impl("rnn_tanh_cell", InFloat32<cell<int64_t, kTanh>, cell_on_gpu<kTanh>>::call);
  m.impl("rnn_relu_cell", InFloat32<cell<int64_t, kRelu>, cell_on_gpu<kRelu>>::call);
  m.impl("rnn_cell_backward", InFloat32<cell_backward<int64_t>, cell_backward_on_gpu>::call);
  m.impl("rnn_layer", InFloat32<layer<int64_t>, layer_on_gpu>::call);
  m.impl("rnn_layer_backward", InFloat32<layer_backward<int64_t>, layer_backward_on_gpu>::call);
}

}  // namespace

#define CISDL_INPUTS "Tensor input, Tensor hx, Tensor w_ih, Tensor w_hh"
#define CISDL_BIASES ", Tensor? b_ih=None, Tensor? b_hh=None"
#define CISDL_GRADS ", bool[6] output_mask) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)"

TORCH_LIBRARY_FRAGMENT(cisdl, m) {
  const auto define = [&](const char* schema) { m.def(schema, {at::Tag::pt2_compliant_tag}); };
  define("rnn_tanh_cell(" CISDL_INPUTS CISDL_BIASES ") -> Tensor");
  define("rnn_relu_cell(" CISDL_INPUTS CISDL_BIASES ") -> Tensor");
  define("rnn_cell_backward(Tensor grad_h, " CISDL_INPUTS ", Tensor h, bool relu" CISDL_GRADS);
  define("rnn_layer(" CISDL_INPUTS CISDL_BIASES
         ", bool relu=False, Tensor? batch_sizes=None, bool reverse=False) -> (Tensor, Tensor)");
  define("rnn_layer_backward(Tensor? grad_output, Tensor? grad_h_n, " CISDL_INPUTS
         ", bool relu, Tensor? batch_sizes, bool reverse, Tensor output" CISDL_GRADS);
}

CISDL_REGISTER_KERNELS(register_kernels)

TORCH_LIBRARY_IMPL(cisdl, Meta, m) {
  m.impl("rnn_tanh_cell", cell<c10::SymInt, kTanh>);
  m.impl("rnn_relu_cell", cell<c10::SymInt, kRelu>);
  m.impl("rnn_cell_backward", cell_backward<c10::SymInt>);
  m.impl("rnn_layer", layer<c10::SymInt>);
  m.impl("rnn_layer_backward", layer_backward<c10::SymInt>);
}

TORCH_LIBRARY_IMPL(cisdl, Autograd, m) {
  m.impl("rnn_tanh_cell", cell_by<inference_autograd<Rnn>, kTanh>);
  m.impl("rnn_relu_cell", cell_by<inference_autograd<Rnn>, kRelu>);
  m.impl("rnn_cell_backward", torch::autograd::autogradNotImplementedFallback());
  m.impl("rnn_layer", layer_by<inference_autograd<Rnn>>);
  m.impl("rnn_layer_backward", torch::autograd::autogradNotImplementedFallback());
}

TORCH_LIBRARY_IMPL(cisdl, FuncTorchBatched, m) {
  m.impl("rnn_tanh_cell", cell_by<Rnn::formula, kTanh>);
  m.impl("rnn_relu_cell", cell_by<Rnn::formula, kRelu>);
  m.impl("rnn_layer", layer_by<Rnn::formula>);
}

}  // namespace cisdl::ops
