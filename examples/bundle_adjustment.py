"""Bundle adjustment: where cameras stood and what they saw, from pictures alone, by sparse least squares.

The model is that of "Bundle Adjustment in the Large" (S. Agarwal et al., 2010): a camera is a rotation vector, a
translation, a focal length and two coefficients of radial distortion. The pictures are synthetic.
"""

import numpy as np
import scipy.optimize

import wichi

CAMERAS, POINTS, SEEN = 12, 400, 0.5
rng = np.random.default_rng(0)


def project(cameras, points):
    """Pixels (2, n) of points (3, n) in cameras (9, n)."""
    rx, ry, rz, tx, ty, tz, focal, k1, k2 = cameras
    x, y, z = points
    angle = np.sqrt(rx**2 + ry**2 + rz**2)
    ux, uy, uz = rx / angle, ry / angle, rz / angle
    cos, sin = np.cos(angle), np.sin(angle)
    along = (ux * x + uy * y + uz * z) * (1 - cos)  # Rodrigues' formula
    px = x * cos + (uy * z - uz * y) * sin + ux * along + tx
    py = y * cos + (uz * x - ux * z) * sin + uy * along + ty
    pz = z * cos + (ux * y - uy * x) * sin + uz * along + tz
    u, v = -px / pz, -py / pz  # the camera looks along -z
    r2 = u**2 + v**2
    scale = focal * (1 + k1 * r2 + k2 * r2**2)
    return np.stack([u * scale, v * scale])


# Cameras on an arc around a cloud of points; each sees about half of it, half a pixel apart from where it is.
turn = np.linspace(-0.6, 0.6, CAMERAS)
still = np.zeros(CAMERAS)
cameras = np.stack([still + 0.01, turn, still, still, still, still - 6, still + 800, still - 0.05, still + 0.01], 1)
cameras[:, [0, 1, 2, 3, 4]] += rng.normal(0, 0.02, (CAMERAS, 5))
points = rng.uniform(-1, 1, (POINTS, 3))
camera, point = np.nonzero(rng.random((CAMERAS, POINTS)) < SEEN)
pixels = project(cameras[camera].T, points[point].T) + 0.5 * rng.normal(size=(2, len(camera)))


def residuals(x):
    """In pixels. ``camera`` and ``point`` are closed over: as arguments they could be anything."""
    c, p = x[: 9 * CAMERAS].reshape(-1, 9), x[9 * CAMERAS :].reshape(-1, 3)
    return (project(c[camera].T, p[point].T) - pixels).T.ravel()


def root_mean_square(x):
    return np.sqrt(np.mean(residuals(x) ** 2))


start = np.concatenate(
    [
        (cameras + rng.normal(0, [0.03] * 3 + [0.1] * 3 + [20, 0.02, 0.02], (CAMERAS, 9))).ravel(),
        (points + 0.1 * rng.normal(size=points.shape)).ravel(),
    ]
)
jacobian = wichi.sparse.jacobian(residuals)
found = scipy.optimize.least_squares(wichi.jit(residuals), start, jac=jacobian, x_scale="jac", ftol=1e-4)

matrix = jacobian(start)
print(f"{CAMERAS} cameras, {POINTS} points, {len(camera)} observations: a Jacobian of shape {matrix.shape}")
print(f"{matrix.nnz} entries, {matrix.nnz // matrix.shape[0]} a row, from {jacobian.products(start)} product(s)")
print(
    f"{root_mean_square(start):.1f} pixels off at first, {root_mean_square(found.x):.3f} after {found.njev} Jacobians"
)
# Half a pixel of noise, less what the free parameters take of it.
expected = 0.5 * np.sqrt(1 - matrix.shape[1] / matrix.shape[0])
assert matrix.nnz == 12 * matrix.shape[0]
assert abs(root_mean_square(found.x) - expected) < 0.02
