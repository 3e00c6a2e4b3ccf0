"""What the ops compute: slow, in float64, with gradients by autograd."""

import math
from itertools import product

import torch
from torch import Tensor


def slow_iou(a, b, offset):
    width = max(min(a[2], b[2]) - max(a[0], b[0]) + offset, 0)
    height = max(min(a[3], b[3]) - max(a[1], b[1]) + offset, 0)
    both, (area_a, area_b) = (
        width * height,
        ((c[2] - c[0] + offset) * (c[3] - c[1] + offset) for c in (a, b)),
    )
    return both / (area_a + area_b - both)


def slow_nms(boxes, scores, threshold, offset):
    kept = []
    for i in sorted(range(len(boxes)), key=lambda i: -scores[i]):
        if all(slow_iou(boxes[i], boxes[j], offset) <= threshold for j in kept):
            kept.append(i)
    return kept


def slow_soft_nms(boxes, scores, method, threshold, sigma, min_score, offset):
    rest, chosen = dict(enumerate(scores)), []
    while rest:
        best = max(rest, key=rest.get)
        chosen.append((best, rest.pop(best)))
        for i in list(rest):
            iou = slow_iou(boxes[best], boxes[i], offset)
            if method == 'gaussian':
                rest[i] *= math.exp(-(iou**2) / sigma)
            elif iou >= threshold:
                rest[i] *= {'naive': 0, 'linear': 1 - iou}[method]
            if rest[i] < min_score:
                del rest[i]
    return chosen


def slow_roi_align(maps, rois, size, scale, ratio, aligned):
    height, width = maps.shape[2:]
    shift = 0.5 if aligned else 0.0

    def at(image, y, x):
        if not (-1 <= y <= height and -1 <= x <= width):
            return maps.new_zeros(maps.size(1))
        y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
        top, left = min(int(y), height - 1), min(int(x), width - 1)
        below, right = min(top + 1, height - 1), min(left + 1, width - 1)
        dy, dx = y - top, x - left
        return (
            maps[image, :, top, left] * (1 - dy) * (1 - dx)
            + maps[image, :, top, right] * (1 - dy) * dx
            + maps[image, :, below, left] * dy * (1 - dx)
            + maps[image, :, below, right] * dy * dx
        )

    output = []
    for image, *box in rois.tolist():
        x1, y1, x2, y2 = (c * scale - shift for c in box)
        w, h = x2 - x1, y2 - y1
        if not aligned:
            w, h = max(w, 1), max(h, 1)
        cell_h, cell_w = h / size[0], w / size[1]
        rows, columns = (ratio or math.ceil(cell) for cell in (cell_h, cell_w))
        for i, j in product(range(size[0]), range(size[1])):
            total = maps.new_zeros(maps.size(1))
            for a, b in product(range(rows), range(columns)):
                y = y1 + (i + (a + 0.5) / rows) * cell_h
                x = x1 + (j + (b + 0.5) / columns) * cell_w
                total = total + at(int(image), y, x)
            output.append(total / max(rows * columns, 1))
    if not output:
        return maps.new_zeros(0, maps.size(1), *size)
    return torch.stack(output).view(len(rois), *size, -1).permute(0, 3, 1, 2)


def slow_focal_loss(logits, target, gamma, alpha, weight):
    p = logits.sigmoid()
    is_class = torch.arange(logits.size(1)) == target[:, None]
    right = torch.where(is_class, p, 1 - p)
    alpha = torch.tensor(alpha, dtype=torch.float64)
    loss = -torch.where(is_class, alpha, 1 - alpha) * (1 - right) ** gamma * right.log()
    if weight is None:
        return loss
    return loss * torch.cat([weight, weight.new_ones(1)])[target][:, None]


def slow_deform_conv(x, offset, mask, weight, bias, stride, padding, dilation, groups, deform):
    count, channels, height, width = x.shape
    rows, columns = offset.shape[2:]
    kernel = weight.shape[2:]
    share, taps = channels // deform, kernel[0] * kernel[1]

    def at(image, group, y, x_):
        value = x.new_zeros(share)
        top, left = math.floor(y.detach()), math.floor(x_.detach())
        for i, j in product((top, top + 1), (left, left + 1)):
            if 0 <= i < height and 0 <= j < width:
                inside = x[image, group * share : (group + 1) * share, i, j]
                value = value + inside * (1 - (y - i).abs()) * (1 - (x_ - j).abs())
        return value

    output = []
    for n, i, j in product(range(count), range(rows), range(columns)):
        samples = []
        for g, tap in product(range(deform), range(taps)):
            k = g * taps + tap
            y = i * stride - padding + tap // kernel[1] * dilation + offset[n, 2 * k, i, j]
            x_ = j * stride - padding + tap % kernel[1] * dilation + offset[n, 2 * k + 1, i, j]
            samples.append(at(n, g, y, x_) * (1 if mask is None else mask[n, k, i, j]))
        patch = torch.stack(samples).view(deform, taps, share).transpose(1, 2)
        patch = patch.reshape(groups, -1, 1)
        value = (weight.reshape(groups, len(weight) // groups, -1) @ patch).flatten()
        output.append(value if bias is None else value + bias)
    return torch.stack(output).view(count, rows, columns, -1).permute(0, 3, 1, 2)


def grads(output: Tensor, inputs: list[Tensor], rng: torch.Generator) -> list[Tensor]:
    factors = torch.rand(output.shape, generator=rng, dtype=torch.float64).to(output.dtype)
    return list(torch.autograd.grad(output, inputs, factors))


def same(got, wanted, **tolerance):
    got, wanted = ([t.double() for t in ts] for ts in (got, wanted))
    torch.testing.assert_close(got, wanted, **(tolerance or dict(rtol=1e-9, atol=1e-9)))
