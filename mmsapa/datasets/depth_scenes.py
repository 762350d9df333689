"""Rooms with shapes in them, drawn with the depth of every pixel.

The room is a slanted floor and walls; the shapes of the other scenes stand in
it or float, flat, a little tilted, the nearer ones before the farther ones.
What tells depth in a real image tells it here: where a shape stands, what it
hides, its size, the scale of its texture, and haze.
"""

from functools import reduce
from typing import NamedTuple

import cv2
import numpy as np

from mmsapa.datasets.scenes import OTHER, draw_at

# Meters.
NEAREST, FARTHEST = 0.5, 9.5

_SUPERSAMPLING = 4
# What haze leaves of a color is 1 / e at this depth in meters.
_CLEAR = 7
_HAZE = np.array((215, 205, 190), np.float32)
# A sensor's light comes from one side. It misses what a nearer object hides
# from there: by so many of 128 pixels an inverse meter.
_PARALLAX = 2.5


class DepthScene(NamedTuple):
    """One picture and its depth.

    Attributes:
        image (np.ndarray): BGR, uint8, [H, W, 3].
        depth (np.ndarray): Meters, float32, [H, W].
        parts (np.ndarray): uint8, [H, W]; 0 is the room, i + 1 the visible
            part of shape i.
        seen (np.ndarray): Bool, [H, W]; where a sensor finds the depth.
    """

    image: np.ndarray
    depth: np.ndarray
    parts: np.ndarray
    seen: np.ndarray

    def millimeters(self):
        """Return what a sensor stores, uint16, [H, W]; 0 is no value."""
        steps = (1000 * self.depth).round().astype(np.uint16)
        return np.where(self.seen, steps, np.uint16(0))


def make_depth_scene(seed, size=128):
    """Draw one scene.

    The camera looks along z; its focal length is ``size`` pixels, and the
    principal point is the middle of the image.

    Args:
        seed (np.random.SeedSequence | int): Determines the scene.
        size (int): Side of the square image in pixels. Defaults to 128.

    Returns:
        DepthScene: A pixel belongs to the part that covers most of it, has
        the depth of that part in its middle, and the mean color of its area.
    """
    rng = np.random.default_rng(seed)
    fine = size * _SUPERSAMPLING
    rays, fine_rays = _rays(size), _rays(fine)
    room = _make_room(rng)
    parts = np.zeros((fine, fine), np.uint8)
    front = _inverse_depth(room, fine_rays)
    surfaces = [_inverse_depth(room, rays)]
    for number in range(1, rng.integers(6, 11)):
        mask = np.zeros_like(parts)
        plane = _draw_in_room(rng, mask, room[0])
        put_before(front, parts, mask > 0, _project(plane, fine_rays), number)
        surfaces.append(_bounded(_project(plane, rays)))

    coverage = np.stack(
        [
            cv2.resize(
                (parts == number).astype(np.float32),
                (size, size),
                interpolation=cv2.INTER_AREA,
            )
            for number in range(len(surfaces))
        ]
    )
    image = 3 * rng.standard_normal((size, size, 3), np.float32)
    for part, inverse in zip(coverage, surfaces):
        image += part[..., None] * _paint(rng, rays, 1 / inverse)
    parts = coverage.argmax(0)
    depth = 1 / np.take_along_axis(np.stack(surfaces), parts[None], 0)[0]
    return DepthScene(
        np.clip(image, 0, 255).astype(np.uint8),
        depth,
        parts.astype(np.uint8),
        _seen(depth),
    )


def put_before(front, parts, mask, inverse, number):
    """Put a surface into a scene, where it is before what is there.

    Args:
        front (np.ndarray): Inverse depth of what is there; changed.
        parts (np.ndarray): Number of what is there; changed.
        mask (np.ndarray): Bool, where the surface is.
        inverse (np.ndarray): Its inverse depth.
        number (int): Its number.
    """
    nearer = mask & (inverse > front)
    front[nearer] = inverse[nearer]
    parts[nearer] = number


def _rays(size):
    """The x and y of the direction of every pixel, whose z is 1; float32."""
    x = (np.arange(size, dtype=np.float32) + 0.5) / size - 0.5
    return np.meshgrid(x, x)


def _project(vector, rays):
    """Product of a vector and every ray; of a plane it is inverse depth.

    BLAS would round otherwise on another machine.
    """
    return vector[0] * rays[0] + vector[1] * rays[1] + vector[2]


def _make_room(rng):
    """Planes of floor, back and sides, [4, 3]: normals over distances."""
    pitch, roll = np.radians(rng.uniform((4, -4), (16, 4)))
    yaw = np.radians(rng.uniform(-20, 20))
    normals = np.array(
        [
            (np.sin(roll), np.cos(roll) * np.cos(pitch), np.sin(pitch)),
            (np.sin(yaw), 0, np.cos(yaw)),
            (np.cos(yaw), 0, -np.sin(yaw)),
            (-np.cos(yaw), 0, np.sin(yaw)),
        ]
    )
    distances = rng.uniform((1.2, 3.5, 1.2, 1.2), (1.6, 9, 4, 4))
    return (normals / distances[:, None]).astype(np.float32)


def _inverse_depth(room, rays):
    """Of the closest plane; a room is convex and the camera inside."""
    return _bounded(
        reduce(np.maximum, (_project(plane, rays) for plane in room))
    )


def _bounded(inverse):
    return inverse.clip(1 / FARTHEST, 1 / NEAREST)


def _draw_in_room(rng, canvas, floor):
    """Draw a shape somewhere; returns its plane as those of the room."""
    side = canvas.shape[0]
    depth = np.exp(rng.uniform(np.log(0.7), np.log(8)))
    radius = side * min(rng.uniform(0.25, 0.55) / depth, 0.28)
    x, y = rng.uniform(0.05, 0.95, 2) - 0.5
    if rng.random() < 0.75:
        # It stands on the floor, which may be below the picture.
        y = (1 / depth - floor[0] * x - floor[2]) / floor[1] - radius / side
        y = min(y, 0.5 - 0.3 * radius / side)
    center = side * (np.array((x, y)) + 0.5)
    stroke = max(radius * rng.uniform(0.1, 0.22), 0.8 * _SUPERSAMPLING)
    label = int(rng.integers(OTHER))
    draw_at(rng, canvas, label, 255, center, radius, stroke)
    tilt = rng.uniform(-0.1, 0.1, 2) * side / radius
    plane = np.array((*tilt, 1 - tilt @ (x, y))) / depth
    return plane.astype(np.float32)


def _paint(rng, rays, depth):
    """Waves or checks in space around a color, behind haze."""
    color = rng.uniform(10, 245, 3).astype(np.float32)
    contrast = rng.normal(0, 25, 3).astype(np.float32)
    period = rng.uniform(0.25, 0.5)
    directions = rng.normal(size=(2, 3))
    directions /= period * np.sqrt((directions**2).sum(1, keepdims=True))
    waves, across = (
        np.sin(2 * np.pi * depth * _project(direction, rays))
        for direction in directions.astype(np.float32)
    )
    if rng.random() < 0.5:
        waves = np.clip(3 * waves * across, -1, 1)
    clear = np.exp(-depth / _CLEAR)[..., None]
    return _HAZE + clear * (color + waves[..., None] * contrast - _HAZE)


def _seen(depth):
    """Where the light of a sensor comes to, from the left of the camera."""
    size = depth.shape[1]
    # In the projector's view columns are shifted by their depth, and one that
    # is left of another of the same row that comes before it is hidden.
    columns = np.arange(size) + _PARALLAX * size / 128 / depth
    return columns >= np.maximum.accumulate(columns, 1)
