/* The few routines of CBLAS and LAPACK that exported programs call, as plainly as they can be written. */
#include <math.h>
#include <stdlib.h>

int blas_calls = 0;

#define AT(m, ld, i, j) (m)[(size_t)(j) * (ld) + (i)]
#define EXPECT(held) do { if (!(held)) abort(); } while (0)

#define DEFINE(real, letter)                                                                                          \
    void cblas_##letter##gemm(int order, int ta, int tb, int m, int n, int k, real alpha, const real *a, int lda,     \
                              const real *b, int ldb, real beta, real *c, int ldc) {                                  \
        EXPECT(order == 102 && (ta == 111 || ta == 112) && (tb == 111 || tb == 112));                                 \
        EXPECT(lda >= (ta == 111 ? m : k) && ldb >= (tb == 111 ? k : n) && ldc >= m);                                 \
        blas_calls++;                                                                                                 \
        for (int j = 0; j < n; j++)                                                                                   \
            for (int i = 0; i < m; i++) {                                                                             \
                real sum = 0;                                                                                         \
                for (int p = 0; p < k; p++)                                                                           \
                    sum += (ta == 111 ? AT(a, lda, i, p) : AT(a, lda, p, i)) *                                        \
                           (tb == 111 ? AT(b, ldb, p, j) : AT(b, ldb, j, p));                                         \
                AT(c, ldc, i, j) = alpha * sum + (beta == 0 ? 0 : beta * AT(c, ldc, i, j));                           \
            }                                                                                                         \
    }                                                                                                                 \
    void cblas_##letter##gemv(int order, int ta, int m, int n, real alpha, const real *a, int lda, const real *x,     \
                              int incx, real beta, real *y, int incy) {                                               \
        EXPECT(order == 102 && (ta == 111 || ta == 112) && lda >= m && incx > 0 && incy > 0);                         \
        blas_calls++;                                                                                                 \
        for (int i = 0; i < (ta == 111 ? m : n); i++) {                                                               \
            real sum = 0;                                                                                             \
            for (int p = 0; p < (ta == 111 ? n : m); p++)                                                             \
                sum += (ta == 111 ? AT(a, lda, i, p) : AT(a, lda, p, i)) * x[(size_t)p * incx];                       \
            y[(size_t)i * incy] = alpha * sum + (beta == 0 ? 0 : beta * y[(size_t)i * incy]);                         \
        }                                                                                                             \
    }                                                                                                                 \
    /* X A = alpha B in the place of B, or A X = alpha B: by substitution, in the order that the triangle asks for. */\
    void cblas_##letter##trsm(int order, int side, int uplo, int ta, int diag, int m, int n, real alpha,              \
                              const real *a, int lda, real *b, int ldb) {                                             \
        EXPECT(order == 102 && side == 142 && (uplo == 121 || uplo == 122) && (ta == 111 || ta == 112));              \
        EXPECT(diag == 131 && lda >= n && ldb >= m);                                                                  \
        blas_calls++;                                                                                                 \
        int upper = (uplo == 121) == (ta == 111);                                                                     \
        for (int r = 0; r < m; r++)                                                                                   \
            for (int q = 0; q < n; q++) {                                                                             \
                int j = upper ? q : n - 1 - q;                                                                        \
                real sum = alpha * AT(b, ldb, r, j);                                                                  \
                for (int p = upper ? 0 : j + 1; p < (upper ? j : n); p++)                                             \
                    sum -= AT(b, ldb, r, p) * (ta == 111 ? AT(a, lda, p, j) : AT(a, lda, j, p));                      \
                AT(b, ldb, r, j) = sum / AT(a, lda, j, j);                                                            \
            }                                                                                                         \
    }                                                                                                                 \
    void letter##getrf_(const int *m, const int *n, real *a, const int *lda, int *pivots, int *info) {                \
        EXPECT(*m == *n && *lda >= *n);                                                                               \
        *info = 0;                                                                                                    \
        for (int k = 0; k < *n; k++) {                                                                                \
            int best = k;                                                                                             \
            for (int i = k; i < *n; i++)                                                                              \
                if (fabs((double)AT(a, *lda, i, k)) > fabs((double)AT(a, *lda, best, k))) best = i;                   \
            pivots[k] = best + 1;                                                                                     \
            if (AT(a, *lda, best, k) == 0) { if (!*info) *info = k + 1; continue; }                                   \
            for (int j = 0; j < *n; j++) {                                                                            \
                real kept = AT(a, *lda, k, j);                                                                        \
                AT(a, *lda, k, j) = AT(a, *lda, best, j);                                                             \
                AT(a, *lda, best, j) = kept;                                                                          \
            }                                                                                                         \
            for (int i = k + 1; i < *n; i++) {                                                                        \
                AT(a, *lda, i, k) /= AT(a, *lda, k, k);                                                               \
                for (int j = k + 1; j < *n; j++) AT(a, *lda, i, j) -= AT(a, *lda, i, k) * AT(a, *lda, k, j);          \
            }                                                                                                         \
        }                                                                                                             \
    }                                                                                                                 \
    /* Only the transposed system, which is what row-major programs ask for; with the flag's length at the end. */    \
    void letter##getrs_(const char *trans, const int *n, const int *columns, const real *a, const int *lda,           \
                        const int *pivots, real *b, const int *ldb, int *info, size_t length) {                       \
        EXPECT(*trans == 'T' && length == 1 && *lda >= *n && *ldb >= *n);                                             \
        *info = 0;                                                                                                    \
        for (int c = 0; c < *columns; c++) {                                                                          \
            real *x = b + (size_t)c * *ldb;                                                                           \
            for (int i = 0; i < *n; i++) {                                                                            \
                for (int p = 0; p < i; p++) x[i] -= AT(a, *lda, p, i) * x[p];                                         \
                x[i] /= AT(a, *lda, i, i);                                                                            \
            }                                                                                                         \
            for (int i = *n - 1; i >= 0; i--)                                                                         \
                for (int p = i + 1; p < *n; p++) x[i] -= AT(a, *lda, p, i) * x[p];                                    \
            for (int i = *n - 1; i >= 0; i--) {                                                                       \
                real kept = x[i];                                                                                     \
                x[i] = x[pivots[i] - 1];                                                                              \
                x[pivots[i] - 1] = kept;                                                                              \
            }                                                                                                         \
        }                                                                                                             \
    }                                                                                                                 \
    void letter##potrf_(const char *uplo, const int *n, real *a, const int *lda, int *info, size_t length) {          \
        EXPECT(*uplo == 'U' && length == 1 && *lda >= *n);                                                            \
        *info = 0;                                                                                                    \
        for (int j = 0; j < *n; j++)                                                                                  \
            for (int i = 0; i <= j; i++) {                                                                            \
                real sum = AT(a, *lda, i, j);                                                                         \
                for (int p = 0; p < i; p++) sum -= AT(a, *lda, p, i) * AT(a, *lda, p, j);                             \
                if (i < j) { AT(a, *lda, i, j) = sum / AT(a, *lda, i, i); continue; }                                 \
                if (!(sum > 0)) { *info = j + 1; return; }                                                            \
                AT(a, *lda, j, j) = (real)sqrt((double)sum);                                                          \
            }                                                                                                         \
    }

DEFINE(double, d)
DEFINE(float, s)
