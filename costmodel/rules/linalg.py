"""Decompositions of matrices, and what is solved with them: the leading terms of the textbook algorithms' FLOPs.

For an m x n matrix with m >= n (or its transpose), one FLOP being an addition or a multiplication:

    LU                n^2 (m - n / 3)
    Cholesky          n^3 / 3
    QR                2 n^2 (m - n / 3) for R; for k columns of Q 4 m k n - 2 (m + k) n^2 + 4/3 n^3 more
    triangular solve  n^2 a right-hand side
    inverse           2 n^3: LU, and n right-hand sides
    eigenvalues       of a symmetric matrix 4/3 n^3, with vectors 9 n^3; of any other 10 n^3, with vectors 25 n^3
    singular values   2 m n^2 + 2 n^3, with V and n columns of U 6 m n^2 + 20 n^3, with all of U 4 m^2 n + 22 n^3

What is found by iteration (eigenvalues, singular values) takes what it usually takes. None of this is a contraction, so
all of it is vector FLOPs. Complex numbers take four times as many: 6 for a product and 2 for a sum, of which there are
as many. Sources: LAPACK Working Note 41, appendix C (LU, Cholesky, QR, inverse); Golub and Van Loan, Matrix
Computations, 4th edition, sections 7.5, 8.3 and 8.6 (eigenvalues, the R-SVD).
"""

from __future__ import annotations

import math

from costmodel.graph import Operation, TensorSpec
from costmodel.rules import Work, rule

_COMPLEX = 4


@rule("aten._linalg_check_errors", kind="other")
def check(op: Operation) -> Work:
    """Looks whether a decomposition worked."""
    return Work()


@rule("aten.linalg_lu_factor_ex", "aten.linalg_lu", "aten._linalg_det", "aten._linalg_slogdet",
      kind="other", complex_flops=_COMPLEX)  # fmt: skip
def lu(op: Operation) -> Work:
    """An LU decomposition; a determinant multiplies its diagonal too."""
    batch, m, n = _matrices(_first(op))
    return Work(vector_flops=batch * (_lu(m, n) + (n if "det" in op.operator else 0)))


@rule("aten._linalg_solve_ex", kind="other", complex_flops=_COMPLEX)
def solve(op: Operation) -> Work:
    """An LU decomposition, and two triangular systems a right-hand side."""
    batch, _, n = _matrices(op.inputs["A"])
    return Work(vector_flops=batch * _lu(n, n) + 2 * n * op.outputs[0].numel)


@rule("aten.linalg_lu_solve", "aten.cholesky_solve", kind="other", complex_flops=_COMPLEX)
def solve_factored(op: Operation) -> Work:
    """Two triangular systems a right-hand side."""
    n = op.outputs[0].shape[-2] if op.attributes.get("left", True) else op.outputs[0].shape[-1]
    return Work(vector_flops=2 * n * op.outputs[0].numel)


@rule("aten.linalg_solve_triangular", "aten.triangular_solve", kind="other", complex_flops=_COMPLEX)
def solve_triangular(op: Operation) -> Work:
    """One triangular system a right-hand side."""
    n = op.outputs[0].shape[-2] if op.attributes.get("left", True) else op.outputs[0].shape[-1]
    return Work(vector_flops=n * op.outputs[0].numel)


@rule("aten.linalg_inv_ex", kind="other", complex_flops=_COMPLEX)
def inverse(op: Operation) -> Work:
    """Of a square matrix."""
    batch, _, n = _matrices(_first(op))
    return Work(vector_flops=batch * 2 * n**3)


@rule("aten.linalg_cholesky_ex", "aten.cholesky", kind="other", complex_flops=_COMPLEX)
def cholesky(op: Operation) -> Work:
    """Half of an LU decomposition."""
    batch, _, n = _matrices(_first(op))
    return Work(vector_flops=batch * n**3 // 3)


@rule("aten.cholesky_inverse", kind="other", complex_flops=_COMPLEX)
def cholesky_inverse(op: Operation) -> Work:
    """The rest of an inverse that begins with a Cholesky decomposition."""
    batch, _, n = _matrices(_first(op))
    return Work(vector_flops=batch * 2 * n**3 // 3)


@rule("aten.linalg_qr", kind="other", complex_flops=_COMPLEX)
def qr(op: Operation) -> Work:
    """R by Householder's reflections, twice the work of an LU decomposition, and as much of Q as is asked for."""
    batch, m, n = _matrices(_first(op))
    return Work(vector_flops=batch * (2 * _lu(m, n) + _q(op.outputs[0].shape, min(m, n))))


@rule("aten.geqrf", kind="other", complex_flops=_COMPLEX)
def qr_factored(op: Operation) -> Work:
    """R, and Q left as its reflections."""
    batch, m, n = _matrices(_first(op))
    return Work(vector_flops=batch * 2 * _lu(m, n))


@rule("aten.linalg_householder_product", kind="other", complex_flops=_COMPLEX)
def householder_product(op: Operation) -> Work:
    """Q of its reflections."""
    batch, _, n = _matrices(_first(op))
    return Work(vector_flops=batch * _q(op.outputs[0].shape, n))


@rule("aten._linalg_eigh", kind="other", complex_flops=_COMPLEX)
def symmetric_eigenvalues(op: Operation) -> Work:
    """Of a symmetric or Hermitian matrix."""
    batch, _, n = _matrices(_first(op))
    return Work(vector_flops=batch * (9 * n**3 if op.attributes.get("compute_v", True) else 4 * n**3 // 3))


@rule("aten.linalg_eig", "aten._linalg_eigvals", "aten.linalg_eigvals", kind="other", complex_flops=1)
def eigenvalues(op: Operation) -> Work:
    """Of any square matrix: complex ones, also where the matrix is real."""
    matrix = _first(op)
    batch, _, n = _matrices(matrix)
    flops = (10 if "eigvals" in op.operator else 25) * n**3
    return Work(vector_flops=batch * flops * (_COMPLEX if matrix.dtype.startswith("complex") else 1))


@rule("aten._linalg_svd", kind="other", complex_flops=_COMPLEX)
def singular_values(op: Operation) -> Work:
    """With vectors or, where these are not computed, without."""
    batch, rows, columns = _matrices(_first(op))
    m, n = max(rows, columns), min(rows, columns)
    if not op.attributes.get("compute_uv", True):
        flops = 2 * m * n * n + 2 * n**3
    elif op.attributes.get("full_matrices", False):
        flops = 4 * m * m * n + 22 * n**3
    else:
        flops = 6 * m * n * n + 20 * n**3
    return Work(vector_flops=batch * flops)


def _first(op: Operation) -> TensorSpec:
    return next(iter(op.inputs.values()))


def _matrices(tensor: TensorSpec) -> tuple[int, int, int]:
    """How many, rows, columns."""
    return math.prod(tensor.shape[:-2]), tensor.shape[-2], tensor.shape[-1]


def _lu(m: int, n: int) -> int:
    small = min(m, n)
    return small * small * (3 * max(m, n) - small) // 3


def _q(shape: tuple[int, ...], reflections: int) -> int:
    """The first columns of a product of reflections; 0 if there are none (LAPACK's xORGQR)."""
    if 0 in shape:
        return 0
    m, k, n = shape[-2], shape[-1], reflections
    return (12 * m * k * n - 6 * (m + k) * n * n + 4 * n**3) // 3
