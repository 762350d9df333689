"""Foregrounds with hair, holes and soft edges, and grounds to put them before.

Everything is drawn four times finer in both directions, so that alpha is the
share of a pixel that is covered. The foreground of a pixel is the mean color
of what covers it.
"""

from typing import NamedTuple

import cv2
import numpy as np

from .matting_canvas import (
    Canvas,
    along,
    bright,
    clouds,
    direction,
    draw_color,
    strands,
)


class Foreground(NamedTuple):
    """What is put before a background.

    Attributes:
        color (np.ndarray): BGR, uint8, [H, W, 3].
        alpha (np.ndarray): uint8, [H, W]; 255 is opaque.
    """

    color: np.ndarray
    alpha: np.ndarray


def make_foreground(seed, size=128):
    """Draw one foreground.

    Args:
        seed (np.random.SeedSequence | int): Determines it.
        size (int): Side of the square image in pixels. Defaults to 128.

    Returns:
        Foreground: A furry animal, a feather, a fern, a net, a bubble or
        smoke.
    """
    rng = np.random.default_rng(seed)
    canvas = Canvas(rng, size)
    kinds = _draw_animal, _draw_feather, _draw_fern, _draw_net
    kinds += _draw_bubble, _draw_smoke
    # Fur is what matting is about.
    kind = rng.choice(len(kinds), p=(0.34, 0.18, 0.16, 0.16, 0.08, 0.08))
    kinds[kind](rng, canvas)
    return Foreground(*canvas.reduce())


def make_background(seed, size=128):
    """Draw one background.

    Args:
        seed (np.random.SeedSequence | int): Determines it.
        size (int): Side of the square image in pixels. Defaults to 128.

    Returns:
        np.ndarray: Textured ground, with things that may be out of focus;
        BGR, uint8, [H, W, 3].
    """
    rng = np.random.default_rng(seed)
    side = 2 * size
    image = _ground(rng, side)
    count = int(rng.integers(0, 40))
    focus = rng.choice([0, 0.004, 0.02]) * side
    for _ in range(count):
        center = rng.uniform(-0.1, 1.1, 2) * side
        radius = side * rng.uniform(0.015, 0.14)
        axes = radius * rng.uniform(0.25, 1, 2)
        cv2.ellipse(
            image,
            (center.tolist(), (2 * axes).tolist(), rng.uniform(0, 180)),
            bright(draw_color(rng, (10, 130)), rng.uniform(0.6, 1.2)),
            -1 if rng.random() < 0.8 else max(1, round(side / 100)),
            cv2.LINE_AA,
        )
    if focus:
        image = cv2.GaussianBlur(image, (0, 0), focus)
    image = cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)
    image += 3 * rng.standard_normal(image.shape, np.float32)
    return np.clip(image, 0, 255).astype(np.uint8)


def _draw_animal(rng, canvas):
    """Draw a round body with fur, and mostly eyes."""
    center = rng.uniform(0.4, 0.6, 2)
    radius = rng.uniform(0.2, 0.29)
    angle = np.linspace(0, 2 * np.pi, 72, endpoint=False)
    wobble = np.interp(
        angle, np.linspace(0, 2 * np.pi, 9), rng.uniform(0.82, 1.1, 9)
    )
    wobble = cv2.blur(np.tile(wobble, 3)[:, None], (1, 9)).ravel()[72:144]
    canvas.fill(center + radius * wobble[:, None] * direction(angle))

    count = int(rng.integers(250, 520))
    # Inner hair lies below outer hair.
    share = np.sort(rng.uniform(0, 1, count) ** 0.5)
    at = rng.uniform(0, 2 * np.pi, count)
    rim = np.interp(at, angle, wobble, period=2 * np.pi)
    roots = radius * (rim * share)[:, None] * direction(at)
    reach = radius * rng.uniform(0.3, 1.1) * (0.35 + 0.65 * share)
    reach *= rng.uniform(0.4, 1, count)
    headings = at + rng.normal(0, 0.25, count)
    hair = strands(rng, roots, headings, reach, rng.normal(0, 0.5))
    fall = rng.uniform(0, 0.9) * np.linspace(0, 1, hair.shape[1]) ** 2
    hair[..., 1] += reach[:, None] * fall
    thick = rng.uniform(0.3, 0.8)
    for tuft in np.array_split(center + hair, count // 10):
        color = bright(canvas.hue, rng.uniform(0.6, 1.25))
        canvas.lines(tuft, thick * rng.uniform(0.6, 1.6), color)
    # Light comes from above.
    y = (np.arange(canvas.side) + 0.5) / canvas.side - center[1]
    light = (1 - 0.3 * y / radius).clip(0.65, 1.25).astype(np.float32)
    canvas.color = cv2.multiply(
        canvas.color,
        np.broadcast_to(light[:, None, None], canvas.color.shape).copy(),
        dtype=cv2.CV_8U,
    )
    if rng.random() < 0.75:
        _draw_eyes(rng, canvas, center, radius)


def _draw_eyes(rng, canvas, center, radius):
    apart = radius * rng.uniform(0.3, 0.42)
    up = radius * rng.uniform(0.1, 0.3)
    size = radius * rng.uniform(0.13, 0.19)
    for side in (-1, 1):
        eye = center + (side * apart, -up)
        for scale, offset, color in (
            (1, 0, (25, 22, 20)),
            (0.35, -0.35, (245, 245, 245)),
        ):
            circle = direction(np.linspace(0, 2 * np.pi, 25)[:-1])
            canvas.fill(eye + size * (offset + scale * circle), color)


def _draw_feather(rng, canvas):
    """Draw a shaft with barbs that are apart here and there."""
    shaft = _stem(rng, 0.85)
    hues = np.array((canvas.hue, draw_color(rng)))
    lean, width = rng.uniform(0.5, 0.9), rng.uniform(0.1, 0.2)
    share = np.linspace(0.14, 0.99, int(rng.integers(110, 170)))
    for side in (-1, 1):
        # The feather is ruffled where barbs are missing.
        whole = np.sin(9 * share + rng.uniform(0, 6)) < 0.95
        place = share[whole]
        roots, slope = along(shaft, place)
        reach = width * np.sin(np.pi * place**0.8) ** 0.6
        reach *= rng.uniform(0.85, 1.1, len(reach))
        headings = slope + side * (lean + rng.normal(0, 0.07, len(reach)))
        barbs = strands(rng, roots, headings, reach, -0.5 * side)
        thick = rng.uniform(0.4, 0.8)
        for i in range(0, len(barbs), 4):
            mix = 0.5 + 0.5 * np.sin(14 * place[i])
            color = bright(mix * hues[1] + (1 - mix) * hues[0])
            color = bright(color, rng.uniform(0.8, 1.15))
            canvas.lines(barbs[i : i + 4], thick, color)
    canvas.line(shaft, 1.2, bright(canvas.hue, 1.4))


def _draw_fern(rng, canvas):
    """Draw fronds with leaflets."""
    for _ in range(int(rng.integers(2, 5))):
        stem = _stem(rng, rng.uniform(0.5, 0.85))
        size = rng.uniform(0.1, 0.2)
        tone, plump = rng.uniform(0.6, 1.25), rng.uniform(0.06, 0.12)
        share = np.linspace(0.12, 0.98, int(rng.integers(12, 22)))
        reach = size * np.sin(np.pi * share**0.7) ** 0.8
        for root, slope, length in zip(*along(stem, share), reach):
            for side in (-1, 1):
                heading = slope + side * rng.uniform(0.8, 1.05)
                color = bright(canvas.hue, tone * rng.uniform(0.75, 1.2))
                canvas.fill(_leaf(root, heading, length, plump), color)
        canvas.line(stem, 0.8, bright(canvas.hue, 0.6 * tone))


def _draw_net(rng, canvas):
    """Draw a round net with a rim, whose meshes are holes."""
    center, radius = rng.uniform(0.42, 0.58, 2), rng.uniform(0.28, 0.4)
    mesh, width = rng.uniform(0.05, 0.1), rng.uniform(0.35, 1.3)
    turn, sway = rng.uniform(0, np.pi), rng.uniform(0, 0.025)
    phase = rng.uniform(0, 6, 2)
    across = np.arange(-1, 1, mesh / radius)[:, None]
    along = np.sqrt(1 - across**2) * np.linspace(-1, 1, 33)
    lines = np.stack([along, np.broadcast_to(across, along.shape)], -1)

    def bend(points):
        waves = sway * np.sin(radius * points[..., ::-1] / 0.07 + phase)
        return center + radius * points + waves

    for k in range(2):
        for one in bend(lines @ _turned(turn + k * np.pi / 2)):
            color = bright(canvas.hue, rng.uniform(0.75, 1.25))
            canvas.line(one, width, color)
    circle = direction(np.linspace(0, 2 * np.pi, 73))
    for scale, thick in ((1, 2.8), (rng.uniform(0.3, 0.6), 1.6)):
        canvas.line(bend(scale * circle), thick, bright(canvas.hue, 0.8))


def _draw_bubble(rng, canvas):
    """Draw clear bubbles with a rim and a highlight."""
    y, x = (np.mgrid[: canvas.side, : canvas.side] + 0.5) / canvas.side
    x, y = x.astype(np.float32), y.astype(np.float32)
    clear, light = np.ones_like(x), np.zeros_like(x)
    for _ in range(int(rng.integers(1, 4))):
        (left, top), radius = rng.uniform(0.3, 0.7, 2), rng.uniform(0.1, 0.3)
        r = np.hypot(x - left, y - top) / radius
        alpha = rng.uniform(0.1, 0.4) + 0.75 * np.clip(r, 0, 1) ** 6
        spot = np.hypot(x - left + 0.4 * radius, y - top + 0.45 * radius)
        glint = np.exp(-((spot / (0.16 * radius)) ** 2)) * (r < 1)
        alpha = np.maximum(alpha, glint).clip(0, 1) * (r < 1)
        clear *= 1 - alpha
        light = np.maximum(light, glint)
    canvas.alpha = (255 * (1 - clear)).astype(np.uint8)
    color = canvas.color + (250 - canvas.color) * light[..., None]
    canvas.color = color.clip(0, 255).astype(np.uint8)


def _draw_smoke(rng, canvas):
    """Draw a soft cloud without any edge."""
    y, x = np.mgrid[: canvas.side, : canvas.side].astype(np.float32)
    center = rng.uniform(0.4, 0.6, 2) * canvas.side
    spread = rng.uniform(0.14, 0.22, 2) * canvas.side
    far = ((x - center[0]) / spread[0]) ** 2
    far += ((y - center[1]) / spread[1]) ** 2
    cloud = 1.6 * np.exp(-far / 2) + 0.45 * clouds(rng, canvas.side, 5) - 0.3
    canvas.alpha = (255 * cloud.clip(0, 1)).astype(np.uint8)
    canvas.color = cv2.addWeighted(
        canvas.color, 0.4, np.full_like(canvas.color, 225), 0.6, 0
    )


def _stem(rng, length):
    """A bent line through the image, 40 points."""
    heading = rng.uniform(0, 2 * np.pi, 1)
    middle = rng.uniform(0.42, 0.58, 2)
    start = middle - length / 2 * direction(heading)
    curl = rng.normal(0, 0.35)
    return strands(rng, start, heading, np.array([length]), curl, 40)[0]


def _leaf(root, heading, length, width):
    share = np.linspace(0, 1, 8)[:, None]
    ahead, aside = direction(heading), direction(heading + np.pi / 2)
    middle = root + length * share * ahead
    bulge = length * width * np.sin(np.pi * share**0.8) * aside
    return np.concatenate([middle + bulge, (middle - bulge)[::-1]])


def _turned(angle):
    cos, sin = np.cos(angle), np.sin(angle)
    return np.array([[cos, sin], [-sin, cos]])


def _ground(rng, side):
    """Clouds between two colors, with boards, checks or neither on them."""
    low, high = (
        np.array(draw_color(rng, (10, 110)), np.float32) for _ in range(2)
    )
    share = 0.5 + 0.45 * clouds(rng, side, int(rng.integers(2, 7)))
    kind = rng.integers(3)
    if kind:
        turn, period = rng.uniform(0, np.pi), side * rng.uniform(0.05, 0.2)
        y, x = np.mgrid[:side, :side].astype(np.float32)
        cos, sin = np.cos(turn), np.sin(turn)
        waves = np.sin((cos * x + sin * y) * (2 * np.pi / period))
        if kind == 2:
            waves *= np.sin((cos * y - sin * x) * (2 * np.pi / period))
        share += rng.uniform(0.1, 0.4) * np.clip(4 * waves, -1, 1)
    share = share[..., None].clip(-0.2, 1.2).astype(np.float32)
    return low + share * (high - low)
