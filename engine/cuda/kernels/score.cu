// Sums of |W| over rows and columns, and the terms of scores that come of them.
#include "score.cuh"

namespace score {

const int strip = 64;     // rows whose part of a column's sum is added by itself
const int lanes = 16;     // parts of a row's sum: lane j%16 has column j
const int sum_threads = 128;
const int row_threads = lanes / 2; // of a row, each with two lanes
const int ahead = 16;     // loads under way in a thread

// sums writes R_i = Σ_j |W_ij|, and for strip k of 64 rows parts_kj = Σ_{i in k} |W_ij|,
// in float64, in the order of additions of score.absSums: a row in 16 lanes, which are
// then added in turn, and a column from the top.
//
// The first row_blocks blocks take the rows, 8 threads each. The others take columns,
// two a thread, strip after strip of the first 256 columns, then of the next: both sweep
// W from left to right, so that the second to come finds in the cache what the first read.
template <class T>
__device__ __forceinline__ void sums(const typename T::bits *w, int rows, int cols, int pitch, int row_blocks, double *row, double *parts) {
	int block = blockIdx.x;
	Vector<typename T::bits, 2> v[ahead];
	double x = 0, y = 0;
	if (block < row_blocks) {
		int i = block * (sum_threads / row_threads) + threadIdx.x / row_threads;
		int lane = threadIdx.x % 32, at = lane % row_threads;
		const typename T::bits *from = i < rows ? w + (size_t)i * pitch : nullptr;
		for (int j = 2 * at; j < cols; j += lanes * ahead) {
			for (int k = 0; k < ahead; k++)
				v[k] = read<2>(from, j + lanes * k, pitch);
			for (int k = 0; k < ahead; k++)
				x += (double)T::magnitude(v[k].v[0]), y += (double)T::magnitude(v[k].v[1]);
		}
		double sum = 0;
		for (int q = 0; q < row_threads; q++) {
			sum += __shfl_sync(all_lanes, x, lane - at + q);
			sum += __shfl_sync(all_lanes, y, lane - at + q);
		}
		if (at == 0 && i < rows)
			row[i] = sum;
		return;
	}
	int strips = (rows + strip - 1) / strip;
	block -= row_blocks;
	int s = block % strips, j = 2 * (block / strips * sum_threads + threadIdx.x);
	if (j >= pitch)
		return;
	int end = min((s + 1) * strip, rows);
	for (int i = s * strip; i < end; i += ahead) {
		for (int k = 0; k < ahead; k++)
			v[k] = read<2>(i + k < end ? w + (size_t)(i + k) * pitch : nullptr, j, pitch);
		for (int k = 0; k < ahead; k++)
			x += (double)T::magnitude(v[k].v[0]), y += (double)T::magnitude(v[k].v[1]);
	}
	*(Vector<double, 2> *)(parts + (size_t)s * pitch + j) = {x, y};
}

// over returns c/sum as float32: 0 for a sum of 0, and of one that is so small that the
// quotient does not fit the largest that does.
__device__ __forceinline__ float over(double c, double sum) {
	const double most = 3.40282346638528859811704183484516925440e+38 / 4;
	return sum > 0 ? __double2float_rn(fmin(__ddiv_rn(c, sum), most)) : 0.0f;
}

// pad copies a row of weights to one of pitch, with zeros behind. A block has a row.
template <class bits> __device__ __forceinline__ void pad(const bits *w, int cols, bits *to, int pitch) {
	w += (size_t)blockIdx.x * cols, to += (size_t)blockIdx.x * pitch;
	for (int j = threadIdx.x; j < pitch; j += blockDim.x)
		to[j] = j < cols ? w[j] : 0;
}

} // namespace score

extern "C" __global__ void score_pad_16(const unsigned short *w, int cols, unsigned short *to, int pitch) { score::pad(w, cols, to, pitch); }
extern "C" __global__ void score_pad_32(const unsigned *w, int cols, unsigned *to, int pitch) { score::pad(w, cols, to, pitch); }

extern "C" __global__ void score_sums_bf16(const unsigned short *w, int rows, int cols, int pitch, int row_blocks, double *row, double *parts) {
	score::sums<score::BF16>(w, rows, cols, pitch, row_blocks, row, parts);
}

extern "C" __global__ void score_sums_f16(const unsigned short *w, int rows, int cols, int pitch, int row_blocks, double *row, double *parts) {
	score::sums<score::F16>(w, rows, cols, pitch, row_blocks, row, parts);
}

extern "C" __global__ void score_sums_f32(const unsigned *w, int rows, int cols, int pitch, int row_blocks, double *row, double *parts) {
	score::sums<score::F32>(w, rows, cols, pitch, row_blocks, row, parts);
}

// score_terms writes a_i = α/R_i + δ and b_j = β/C_j, C_j being the sum of the strips'
// parts from the top. Without sums (row is null) a_i = δ and b_j = 0. It sets bad if some
// sum is not finite. A thread has row and column of its index.
extern "C" __global__ void score_terms(const double *row, const double *parts, int rows, int cols, int pitch, double alpha, double beta, float delta, float *a, float *b, unsigned *bad) {
	int at = blockIdx.x * blockDim.x + threadIdx.x;
	if (at < rows) {
		float share = 0;
		if (row) {
			double sum = row[at];
			if (!(sum <= 1.7976931348623157e308))
				*bad = 1;
			share = score::over(alpha, sum);
		}
		a[at] = __fadd_rn(share, delta);
	}
	if (at < cols) {
		float share = 0;
		if (row) {
			int strips = (rows + score::strip - 1) / score::strip;
			double sum = 0;
			for (int s = 0; s < strips; s++)
				sum += parts[(size_t)s * pitch + at];
			share = score::over(beta, sum);
		}
		b[at] = share;
	}
}
