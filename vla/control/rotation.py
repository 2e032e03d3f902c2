"""Rotations between the three forms used here: 6-D (on disk and wire), matrix, rotation vector."""

from __future__ import annotations

import numpy as np


def matrix_from_6d(columns: np.ndarray) -> np.ndarray:
    """The rotation matrix (3, 3) whose first two columns are nearest to the six numbers given.

    Gram-Schmidt of Zhou et al., "On the Continuity of Rotation Representations in Neural Networks", 2019, eq. 15.
    Degenerate input (a zero or parallel column) gives a valid rotation all the same.
    """
    a, b = columns[:3], columns[3:6]
    length = np.sqrt(a @ a)
    x = a / length if length > 1e-6 else np.array([1.0, 0.0, 0.0])
    b = b - (x @ b) * x
    length = np.sqrt(b @ b)
    if length > 1e-6:
        y = b / length
    else:
        spare = np.eye(3)[int(np.argmin(np.abs(x)))]
        y = spare - (x @ spare) * x
        y = y / np.sqrt(y @ y)
    z = np.array([x[1] * y[2] - x[2] * y[1], x[2] * y[0] - x[0] * y[2], x[0] * y[1] - x[1] * y[0]])
    return np.stack((x, y, z), axis=1)


def matrix_to_6d(matrix: np.ndarray) -> np.ndarray:
    """The first two columns of a rotation matrix (3, 3), one after the other, (6,)."""
    return np.concatenate((matrix[:, 0], matrix[:, 1]))


def rotation_vector(matrix: np.ndarray) -> np.ndarray:
    """Axis times angle, rad, (3,), of a rotation matrix; the angle is at most pi."""
    cosine = min(1.0, max(-1.0, 0.5 * (matrix[0, 0] + matrix[1, 1] + matrix[2, 2] - 1.0)))
    axis = np.array([matrix[2, 1] - matrix[1, 2], matrix[0, 2] - matrix[2, 0], matrix[1, 0] - matrix[0, 1]])
    if cosine < -0.999999:  # half a turn: the antisymmetric part vanishes, the axis is in the symmetric part
        column = (matrix + np.eye(3))[:, int(np.argmax(np.diag(matrix)))]
        return np.pi * column / np.sqrt(column @ column)
    angle = np.arccos(cosine)
    return axis * (0.5 if angle < 1e-6 else 0.5 * angle / np.sin(angle))


def matrix_from_vector(vector: np.ndarray) -> np.ndarray:
    """The rotation matrix (3, 3) of axis times angle, rad, (3,): Rodrigues' formula."""
    angle = np.sqrt(vector @ vector)
    if angle < 1e-9:
        return np.eye(3)
    x, y, z = vector / angle
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    return np.eye(3) + np.sin(angle) * cross + (1.0 - np.cos(angle)) * (cross @ cross)
