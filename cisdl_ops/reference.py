"""Plain, slow, obvious versions of every op: the formula written out, and nothing else.

They are the third opinion beside our kernels and torch's: the same signatures as
:mod:`cisdl_ops`, ordinary tensor arithmetic, no ``F.conv2d``, no matrix product, no pooling call.
Loops run over kernel taps and channels, so each line can be checked against the formula above it.
All of them work in any floating dtype and are differentiable by autograd.

Index names: N batch, C input channels, K output channels, G groups, H W input, OH OW output,
R S kernel rows and columns.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

Pair = int | tuple[int, int]


def _pair(value: Pair) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def activated(x: Tensor, activation: str | None, negative_slope: float) -> Tensor:
    """f(x); None is the identity."""
    if activation == "relu":
        return torch.where(x < 0, 0, x)
    if activation == "leaky_relu":
        return torch.where(x > 0, x, negative_slope * x)
    if activation == "sigmoid":
        return 1 / (1 + (-x).exp())
    return x if activation is None else x.tanh()


def linear(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    activation: str | None = None,
    negative_slope: float = 0.01,
) -> Tensor:
    """y[..., o] = f(sum_i input[..., i] * weight[o, i] + bias[o]).

    input [..., I], weight [O, I], bias [O] or None -> [..., O].
    """
    result = (input.unsqueeze(-2) * weight).sum(-1)
    return activated(result if bias is None else result + bias, activation, negative_slope)


def conv2d_padding(
    padding: Pair | str, kernel_size: tuple[int, int], dilation: tuple[int, int]
) -> tuple[int, int, int, int]:
    """The zeros added to (top, bottom, left, right).

    'same' needs d * (R - 1) zeros in each direction for the output to keep the input's size; an odd
    count puts the extra zero at the bottom or right, as ``torch.nn.functional.conv2d`` does.
    """
    match padding:
        case "valid":
            return (0, 0, 0, 0)
        case "same":
            rows, columns = (d * (k - 1) for k, d in zip(kernel_size, dilation, strict=True))
            return (rows // 2, rows - rows // 2, columns // 2, columns - columns // 2)
        case str():
            raise ValueError(f"padding must be an int, a pair, 'same' or 'valid', got {padding!r}")
    rows, columns = _pair(padding)
    return (rows, rows, columns, columns)


def conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Pair = 1,
    padding: Pair | str = 0,
    dilation: Pair = 1,
    groups: int = 1,
    activation: str | None = None,
    negative_slope: float = 0.01,
) -> Tensor:
    """y[n,k,oh,ow] = f(bias[k] + sum_{c,r,s} weight[k,c,r,s] * x[n, g*C/G + c, oh*sh + r*dh, ow*sw + s*dw]).

    x is the input with zeros around it and g = k // (K/G) is the group of output channel k
    (cross-correlation, the convention of torch and of LeCun et al. 1998).
    input [N, C, H, W] or [C, H, W], weight [K, C/G, R, S], bias [K] or None -> [N, K, OH, OW] or [K, OH, OW],
    OH = (H + top + bottom - dh * (R - 1) - 1) // sh + 1.
    """
    if input.dim() == 3:
        options = (stride, padding, dilation, groups, activation, negative_slope)
        return conv2d(input.unsqueeze(0), weight, bias, *options).squeeze(0)
    (sh, sw), (dh, dw) = _pair(stride), _pair(dilation)
    out_channels, group_channels, kernel_h, kernel_w = weight.shape
    top, bottom, left, right = conv2d_padding(padding, (kernel_h, kernel_w), (dh, dw))
    batch, _, height, width = input.shape
    out_h = (height + top + bottom - dh * (kernel_h - 1) - 1) // sh + 1
    out_w = (width + left + right - dw * (kernel_w - 1) - 1) // sw + 1

    padded = torch.nn.functional.pad(input, (left, right, top, bottom))
    padded = padded.view(batch, groups, group_channels, 1, *padded.shape[2:])
    taps = weight.reshape(groups, out_channels // groups, group_channels, kernel_h, kernel_w)
    result = input.new_zeros(batch, groups, out_channels // groups, out_h, out_w)
    for r in range(kernel_h):
        rows = slice(r * dh, r * dh + (out_h - 1) * sh + 1, sh)
        for s in range(kernel_w):
            columns = slice(s * dw, s * dw + (out_w - 1) * sw + 1, sw)
            for c in range(group_channels):
                result = result + padded[:, :, c, :, rows, columns] * taps[:, :, c, r, s, None, None]
    result = result.reshape(batch, out_channels, out_h, out_w)
    return activated(result if bias is None else result + bias[:, None, None], activation, negative_slope)


def conv_transpose2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Pair = 1,
    padding: Pair = 0,
    output_padding: Pair = 0,
    groups: int = 1,
    dilation: Pair = 1,
) -> Tensor:
    """y[n, k, p*sh - ph + r*dh, q*sw - pw + s*dw] += x[n,c,p,q] * weight[c,k,r,s]; then bias[k] is added.

    k and c belong to the same group: k // (K/G) == c // (C/G).
    input [N, C, H, W] or [C, H, W], weight [C, K/G, R, S], bias [K] or None -> [N, K, OH, OW] or [K, OH, OW],
    OH = (H - 1) * sh - 2 * ph + dh * (R - 1) + output_padding + 1.
    """
    if input.dim() == 3:
        batch = input.unsqueeze(0)
        options = (stride, padding, output_padding, groups, dilation)
        return conv_transpose2d(batch, weight, bias, *options).squeeze(0)
    (sh, sw), (dh, dw), (ph, pw) = _pair(stride), _pair(dilation), _pair(padding)
    extra_h, extra_w = _pair(output_padding)
    batch_size, channels, height, width = input.shape
    _, group_out, kernel_h, kernel_w = weight.shape
    # The canvas has the padding that is cut off at the end, and room for every tap.
    canvas_h = (height - 1) * sh + dh * (kernel_h - 1) + extra_h + 1
    canvas_w = (width - 1) * sw + dw * (kernel_w - 1) + extra_w + 1
    canvas = input.new_zeros(batch_size, groups, group_out, canvas_h, canvas_w)
    images = input.view(batch_size, groups, channels // groups, 1, height, width)
    taps = weight.view(groups, channels // groups, group_out, kernel_h, kernel_w)
    for r in range(kernel_h):
        for s in range(kernel_w):
            sums = (images * taps[:, :, :, r, s, None, None]).sum(2)
            below, right = canvas_h - r * dh, canvas_w - s * dw
            spread = input.new_zeros(batch_size, groups, group_out, below, right)
            spread[..., : (height - 1) * sh + 1 : sh, : (width - 1) * sw + 1 : sw] = sums
            canvas = canvas + torch.nn.functional.pad(spread, (s * dw, 0, r * dh, 0))
    result = canvas.flatten(1, 2)[..., ph : canvas_h - ph, pw : canvas_w - pw]
    return result if bias is None else result + bias[:, None, None]


def pool_output_size(
    size: int, kernel: int, stride: int, padding: int, dilation: int, ceil_mode: bool
) -> int:
    """Windows along one axis. In ceil mode a last window may hang over the end, but it must start
    inside the input or its left padding (torch's rule)."""
    span = size + 2 * padding - dilation * (kernel - 1) - 1
    if not ceil_mode:
        return span // stride + 1
    count = -(-span // stride) + 1
    return count - 1 if (count - 1) * stride >= size + padding else count


def max_pool2d(
    input: Tensor,
    kernel_size: Pair,
    stride: Pair | None = None,
    padding: Pair = 0,
    dilation: Pair = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
    activation: str | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """y[n,c,oh,ow] = max over r, s of input[n, c, oh*sh - ph + r*dh, ow*sw - pw + s*dw], inside cells only.

    Ties keep the first cell in row-major order; a NaN beats everything and the last NaN of a window
    wins (the behaviour of torch's CPU kernel). A window without any cell gives -inf.
    input [N, C, H, W] or [C, H, W] -> [N, C, OH, OW] or [C, OH, OW]; with ``return_indices`` also the
    int64 index h * W + w of the winner, same shape. With ``activation="relu"`` it is max(0, y).
    """
    (kernel_h, kernel_w), (ph, pw), (dh, dw) = _pair(kernel_size), _pair(padding), _pair(dilation)
    sh, sw = _pair(kernel_size if stride is None else stride)
    height, width = input.shape[-2:]
    out_h = pool_output_size(height, kernel_h, sh, ph, dh, ceil_mode)
    out_w = pool_output_size(width, kernel_w, sw, pw, dw, ceil_mode)

    shape = (*input.shape[:-2], out_h, out_w)
    best = input.new_full(shape, -math.inf)
    index = torch.full(shape, -1, dtype=torch.int64, device=input.device)
    flat = input.flatten(-2)
    for r in range(kernel_h):
        h = torch.arange(out_h, device=input.device)[:, None] * sh - ph + r * dh
        for s in range(kernel_w):
            w = torch.arange(out_w, device=input.device)[None, :] * sw - pw + s * dw
            inside = (h >= 0) & (h < height) & (w >= 0) & (w < width)
            cell = torch.where(inside, h * width + w, 0)
            value = flat[..., cell]
            wins = inside & ((index < 0) | (value > best) | value.isnan())
            best = torch.where(wins, value, best)
            index = torch.where(wins, cell, index)
    if activation == "relu":
        best = best.relu()
    return (best, index) if return_indices else best


def avg_pool2d(
    input: Tensor,
    kernel_size: Pair,
    stride: Pair | None = None,
    padding: Pair = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """y[n, c, oh, ow] = (sum over r, s of input[n, c, oh*sh - ph + r, ow*sw - pw + s]) / divisor.

    The divisor is ``divisor_override`` if given; else the number of cells of the window that lie inside
    the padded input (``count_include_pad``) or inside the input itself.
    input [N, C, H, W] or [C, H, W] -> [N, C, OH, OW] or [C, OH, OW].
    """
    (kernel_h, kernel_w), (ph, pw) = _pair(kernel_size), _pair(padding)
    sh, sw = _pair(kernel_size if stride is None else stride)
    height, width = input.shape[-2:]
    out_h = pool_output_size(height, kernel_h, sh, ph, 1, ceil_mode)
    out_w = pool_output_size(width, kernel_w, sw, pw, 1, ceil_mode)

    total = input.new_zeros(*input.shape[:-2], out_h, out_w)
    count = input.new_zeros(out_h, out_w)
    flat = input.flatten(-2)
    for r in range(kernel_h):
        h = torch.arange(out_h, device=input.device)[:, None] * sh - ph + r
        for s in range(kernel_w):
            w = torch.arange(out_w, device=input.device)[None, :] * sw - pw + s
            inside = (h >= 0) & (h < height) & (w >= 0) & (w < width)
            in_padding = (h < height + ph) & (w < width + pw)
            value = flat[..., torch.where(inside, h * width + w, 0)]
            total = total + torch.where(inside, value, torch.zeros_like(value))
            count = count + (in_padding if count_include_pad else inside)
    return total / (count if divisor_override is None else divisor_override)


def adaptive_windows(size: int, count: int) -> list[tuple[int, int]]:
    """The cells ``(begin, end)`` of each of ``count`` windows along ``size`` cells:
    floor(i * size / count) <= cell < ceil((i + 1) * size / count)."""
    return [(i * size // count, -(-(i + 1) * size // count)) for i in range(count)]


def adaptive_output_size(input: Tensor, output_size: int | Sequence[int | None]) -> tuple[int, int]:
    """``output_size`` as a pair; None stands for the input's own size."""
    height, width = (output_size, output_size) if isinstance(output_size, int) else output_size
    return (
        input.shape[-2] if height is None else height,
        input.shape[-1] if width is None else width,
    )


def adaptive_max_pool2d(
    input: Tensor, output_size: int | Sequence[int | None], return_indices: bool = False
) -> Tensor | tuple[Tensor, Tensor]:
    """y[n,c,i,j] = max of input[n,c,h,w] over the rows h and columns w of ``adaptive_windows``.

    Ties and NaN as in :func:`max_pool2d`: each window is one that reaches over the whole of its cells.
    input [N, C, H, W] or [C, H, W] -> [N, C, *output_size] or [C, *output_size]; with ``return_indices``
    also the int64 index h * W + w of the winner, same shape.
    """
    out_h, out_w = adaptive_output_size(input, output_size)
    height, width = input.shape[-2:]
    shape = (*input.shape[:-2], out_h, out_w)
    values: list[Tensor] = []
    places: list[Tensor] = []
    for top, bottom in adaptive_windows(height, out_h):
        for left, right in adaptive_windows(width, out_w):
            window = input[..., top:bottom, left:right]
            best, place = max_pool2d(window, (bottom - top, right - left), return_indices=True)
            row, column = place // (right - left), place % (right - left)
            values.append(best[..., 0, 0])
            places.append(((top + row) * width + left + column)[..., 0, 0])
    result = torch.stack(values, -1).view(shape)
    return (result, torch.stack(places, -1).view(shape)) if return_indices else result


def adaptive_avg_pool2d(input: Tensor, output_size: int | Sequence[int | None]) -> Tensor:
    """y[n,c,i,j] = mean of input[n,c,h,w] over the rows h and columns w of ``adaptive_windows``.

    input [N, C, H, W] or [C, H, W] -> [N, C, *output_size] or [C, *output_size].
    """
    out_h, out_w = adaptive_output_size(input, output_size)
    means = [
        input[..., top:bottom, left:right].sum((-2, -1)) / ((bottom - top) * (right - left))
        for top, bottom in adaptive_windows(input.shape[-2], out_h)
        for left, right in adaptive_windows(input.shape[-1], out_w)
    ]
    return torch.stack(means, -1).view(*input.shape[:-2], out_h, out_w)


def lstm_cell(
    input: Tensor,
    hx: tuple[Tensor, Tensor],
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor | None = None,
    b_hh: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """One step of a long short-term memory (Hochreiter & Schmidhuber 1997, forget gate of Gers 2000).

        i, f, g, o = w_ih x + b_ih + w_hh h + b_hh      (four blocks of H rows, in this order)
        c' = sigmoid(f) * c + sigmoid(i) * tanh(g)
        h' = sigmoid(o) * tanh(c')

    input [B, I], hx = (h [B, H], c [B, H]), w_ih [4H, I], w_hh [4H, H], b_ih and b_hh [4H] or None
    -> (h', c'), each [B, H]. A single sample [I] with states [H] works too.
    """
    h, c = hx
    gates = linear(input, w_ih, b_ih) + linear(h, w_hh, b_hh)
    i, f, g, o = gates.chunk(4, dim=-1)
    new_c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(new_c), new_c


def gru_cell(
    input: Tensor,
    hx: Tensor,
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor | None = None,
    b_hh: Tensor | None = None,
) -> Tensor:
    """One step of a gated recurrent unit (Cho et al. 2014; as in torch, r scales w_hh h + b_hh).

        ar, az, an = w_ih x + b_ih,  ur, uz, un = w_hh h + b_hh      (three blocks of H rows, in this order)
        r = sigmoid(ar + ur),  z = sigmoid(az + uz),  n = tanh(an + r * un)
        h' = (1 - z) * n + z * h

    input [B, I], hx [B, H], w_ih [3H, I], w_hh [3H, H], b_ih and b_hh [3H] or None -> h' [B, H].
    """
    ar, az, an = linear(input, w_ih, b_ih).chunk(3, dim=-1)
    ur, uz, un = linear(hx, w_hh, b_hh).chunk(3, dim=-1)
    r, z = torch.sigmoid(ar + ur), torch.sigmoid(az + uz)
    n = torch.tanh(an + r * un)
    return (1 - z) * n + z * hx


def rnn_tanh_cell(
    input: Tensor,
    hx: Tensor,
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor | None = None,
    b_hh: Tensor | None = None,
) -> Tensor:
    """h' = tanh(w_ih x + b_ih + w_hh h + b_hh) (Elman 1990).

    input [B, I], hx [B, H], w_ih [H, I], w_hh [H, H], b_ih and b_hh [H] or None -> h' [B, H].
    """
    return torch.tanh(linear(input, w_ih, b_ih) + linear(hx, w_hh, b_hh))


def rnn_relu_cell(
    input: Tensor,
    hx: Tensor,
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor | None = None,
    b_hh: Tensor | None = None,
) -> Tensor:
    """h' = max(0, w_ih x + b_ih + w_hh h + b_hh); shapes as in :func:`rnn_tanh_cell`."""
    return torch.relu(linear(input, w_ih, b_ih) + linear(hx, w_hh, b_hh))
