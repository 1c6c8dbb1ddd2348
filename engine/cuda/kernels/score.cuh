// Scores of package score, to the same bits. W is rows × cols, out × in:
//
//	S_ij = (|W_ij|·(a_i + b_j) + γ·(|W_ij|/N_ij))·s_j
//	N_ij = |W_ij| + Σ_{1≤q≤r} (U_i,j−q + U_i,j+q),  U_ij = Σ_{1≤p≤r} |W_i−p,j| + Σ_{1≤p≤r} |W_i+p,j|
//
// with zeros outside of W; without γ's term where γ is 0. Every operation
// is rounded to float32 by itself, and the sums of r numbers are added in one order
// (window), that of the kernels in Go. No denormal number is flushed.
#pragma once
#include "device.cuh"

namespace score {

// The types of weights: their bits, and a weight's magnitude, which float32 has exactly.
struct BF16 {
	typedef unsigned short bits;
	static __device__ __forceinline__ float magnitude(bits v) { return widen(v & 0x7fff); }
};
struct F16 {
	typedef unsigned short bits;
	static __device__ __forceinline__ float magnitude(bits v) { return widen_f16(v & 0x7fff); }
};
struct F32 {
	typedef unsigned bits;
	static __device__ __forceinline__ float magnitude(bits v) { return __uint_as_float(v & 0x7fffffff); }
};

// Vector is n numbers that one instruction reads.
template <class T, int n> struct alignas(n * sizeof(T)) Vector { T v[n]; };
typedef Vector<float, 4> Four;

// read reads columns j to j+n−1 of a row; n divides j, pitch and the row's address. Outside
// of the matrix weights are 0, and row is null where all are.
template <int n, class bits> __device__ __forceinline__ Vector<bits, n> read(const bits *row, int j, int pitch) {
	Vector<bits, n> x = {};
	if (row && (unsigned)j < (unsigned)pitch)
		x = *(const Vector<bits, n> *)(row + j);
	return x;
}

// Matrix is a weight and the terms of its scores. Rows lie pitch apart, cols rounded up to
// a multiple of 4; up to there W is 0, and b and s are readable.
template <class T> struct Matrix {
	const typename T::bits *w;
	int rows, cols, pitch;
	const float *a, *b, *s; // [rows], [cols], [cols]
	float gamma;

	__device__ __forceinline__ const typename T::bits *row(int i) const {
		return i < 0 || i >= rows ? nullptr : w + (size_t)i * pitch;
	}
};

// window returns the sum of u[0] to u[r−1], added as kernel.CrossImportance does.
template <int r> __device__ __forceinline__ float window(const float *u) {
	if (r == 1)
		return u[0];
	float sum = __fadd_rn(u[0], u[1]);
	if (r == 3)
		return __fadd_rn(sum, u[2]);
	if (r >= 4)
		sum = __fadd_rn(sum, __fadd_rn(u[2], u[3]));
	return r == 5 ? __fadd_rn(sum, u[4]) : sum;
}

// each calls emit(r, j, v) with the scores v of columns j to j+3 of row first+r, r < n, for
// every j that is a multiple of 4 and below cols, each in one thread. Scores of columns
// past the last are of any value. All threads of the block call it.
template <class T, class Emit>
__device__ __forceinline__ void each(const Matrix<T> &p, int first, int n, Emit emit) {
	for (int j = 4 * threadIdx.x; j < p.cols; j += 4 * blockDim.x) {
		Four b = *(const Four *)(p.b + j), s = *(const Four *)(p.s + j);
		for (int r = 0; r < n; r++) {
			Vector<typename T::bits, 4> x = read<4>(p.row(first + r), j, p.pitch);
			float a = p.a[first + r];
			Four v;
			for (int k = 0; k < 4; k++)
				v.v[k] = __fmul_rn(__fmul_rn(T::magnitude(x.v[k]), __fadd_rn(a, b.v[k])), s.v[k]);
			emit(r, j, v);
		}
	}
}

// Columns of neighbours at each end of what a block sums at a time: no fewer than the
// widest radius, and a multiple of four.
const int halo = 8;

// Rows that are summed at a time: what they read is nearly the same.
const int together = 2;

// sums_of is how many floats of shared memory each_near needs.
__device__ __forceinline__ int sums_of() { return together * 4 * (int)blockDim.x; }

// each_near is each with γ's term. A thread adds four columns over the rows above and
// below, and gets the sums of the columns beside from other threads, by shared memory: sums.
template <class T, int radius, class Emit>
__device__ __forceinline__ void each_near(const Matrix<T> &p, int first, int n, float *sums, Emit emit) {
	const int reach = radius <= 4 ? 1 : 2; // Fours on each side that hold the neighbours
	const float tiny = __uint_as_float(1);
	const int t = threadIdx.x, width = 4 * blockDim.x;
	const bool inner = t >= halo / 4 && t < (int)blockDim.x - halo / 4;
	for (int lo = -halo; lo + halo < p.cols; lo += width - 2 * halo) {
		const int j = lo + 4 * t;
		const bool scores = inner && j < p.cols;
		for (int r = 0; r < n; r += together) {
			Vector<typename T::bits, 4> x[together + 2 * radius]; // rows from first+r−radius on
			#pragma unroll
			for (int q = 0; q < together + 2 * radius; q++)
				x[q] = read<4>(p.row(first + r - radius + q), j, p.pitch);
			#pragma unroll
			for (int g = 0; g < together; g++) {
				Four sum;
				#pragma unroll
				for (int k = 0; k < 4; k++) {
					float above[radius], below[radius];
					#pragma unroll
					for (int q = 0; q < radius; q++) {
						above[q] = T::magnitude(x[g + q].v[k]);
						below[q] = T::magnitude(x[g + radius + 1 + q].v[k]);
					}
					sum.v[k] = __fadd_rn(window<radius>(below), window<radius>(above));
				}
				*(Four *)(sums + g * width + 4 * t) = sum;
			}
			__syncthreads();
			#pragma unroll 1 // half the code to compile
			for (int g = 0; scores && g < together && r + g < n; g++) {
				Vector<typename T::bits, 4> own = x[radius];
				#pragma unroll
				for (int q = 1; q < together; q++)
					#pragma unroll
					for (int k = 0; k < 4; k++)
						own.v[k] = q == g ? x[radius + q].v[k] : own.v[k];
				Four b = *(const Four *)(p.b + j), s = *(const Four *)(p.s + j), v;
				float a = p.a[first + r + g], near[4 * (2 * reach + 1)];
				#pragma unroll
				for (int f = 0; f < 2 * reach + 1; f++) {
					Four beside = *(const Four *)(sums + g * width + 4 * (t - reach + f));
					#pragma unroll
					for (int k = 0; k < 4; k++)
						near[4 * f + k] = beside.v[k];
				}
				#pragma unroll
				for (int k = 0; k < 4; k++) {
					const float *at = near + 4 * reach + k;
					float m = T::magnitude(own.v[k]);
					float sides = __fadd_rn(window<radius>(at + 1), window<radius>(at - radius));
					float share = __fdiv_rn(m, fmaxf(__fadd_rn(sides, m), tiny));
					float relative = __fmul_rn(m, __fadd_rn(a, b.v[k]));
					v.v[k] = __fmul_rn(__fadd_rn(relative, __fmul_rn(p.gamma, share)), s.v[k]);
				}
				emit(r + g, j, v);
			}
			__syncthreads();
		}
	}
}

template <class T, class Emit>
__device__ __forceinline__ void each_near(const Matrix<T> &p, int radius, int first, int n, float *sums, Emit emit) {
	switch (radius) {
	case 1: return each_near<T, 1>(p, first, n, sums, emit);
	case 2: return each_near<T, 2>(p, first, n, sums, emit);
	case 3: return each_near<T, 3>(p, first, n, sums, emit);
	case 4: return each_near<T, 4>(p, first, n, sums, emit);
	case 5: return each_near<T, 5>(p, first, n, sums, emit);
	}
}

} // namespace score
